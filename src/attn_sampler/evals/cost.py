"""What a run costs beside its forward passes: peak memory, and the shares of the sampler and of the attention statistics."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch

from attn_sampler.bench.timed import Clock, TimedSampler
from attn_sampler.engine import Engine
from attn_sampler.errors import RowError
from attn_sampler.models.seam import Model
from attn_sampler.params import SamplingParams

__all__ = ["Peak", "shares"]

PASSES = 8  # measured for a share, after one to warm up


class Peak:
    """Peak memory since it was made: allocated by torch on a CUDA device, else the process's resident set.

    Linux can set its mark back; elsewhere the resident set's peak is that of the process so far.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            return
        try:
            with open("/proc/self/clear_refs", "w") as marks:
                marks.write("5")  # proc(5): sets VmHWM to what is resident now
        except OSError:
            pass  # no such file, or not ours to write: the peak is then that of the whole process

    def bytes(self) -> int | None:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        try:
            with open("/proc/self/status") as status:
                return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM"))
        except (OSError, StopIteration):
            return _resident()


def _resident() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


class _TimedModel:
    """A model that runs every pass once without attention statistics, on one clock, and once as asked, on another."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.plain, self.asked = Clock(model.device), Clock(model.device)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def predict(self, ids: Any, valid: Any, asks: Sequence[Any], stretch: Any = None) -> Any:
        # With a cache both passes write the same keys and values to the same slots.
        if any(ask.attention is not None for ask in asks):
            self.plain.timed(self._model.predict, ids, valid, [replace(ask, attention=None) for ask in asks], stretch)
        return self.asked.timed(self._model.predict, ids, valid, asks, stretch)


def shares(engine: Engine, prompts: Sequence[Any], params: SamplingParams, chat: bool | None = None) -> dict[str, float]:
    """Where the time of a setting goes, measured beside the run: the first passes over a batch of its prompts.

    Each pass that has attention statistics runs a second time without them, in turn, so the clocks of the run itself are not
    disturbed. A share is of select + forward passes; noise can make that of the statistics slightly negative.

    Returns:
        ``sampler_share`` (`select` alone), ``attention_share`` (the forward pass with statistics minus the one without) and
        ``passes`` measured; empty where every row failed.
    """
    model = _TimedModel(engine.model)
    probe = Engine(cast("Model", model), engine.tokenizer, max_rows=engine.max_rows)
    sampler = TimedSampler(params.sampler, Clock(engine.model.device))
    timed = replace(params, sampler=sampler)
    numbers = [probe.admit(prompt, timed, chat=chat) for prompt in prompts[: engine.max_rows]]
    passes = 0
    while probe.unfinished and passes <= PASSES:
        try:
            probe.step()
        except RowError:
            continue  # that row is gone
        passes += 1
        if passes == 1 and probe.unfinished:
            for clock in (model.plain, model.asked, sampler.clock):
                clock.seconds = 0.0
    for number in numbers:
        probe.cancel(number)
    return _shares(model, sampler, passes) if passes else {}


def _shares(model: _TimedModel, sampler: TimedSampler, passes: int) -> dict[str, float]:
    whole = model.asked.seconds + sampler.clock.seconds
    statistics = model.asked.seconds - model.plain.seconds if model.plain.seconds else 0.0
    return {
        "sampler_share": sampler.clock.seconds / whole, "attention_share": statistics / whole,
        "passes": max(1, passes - 1),
    }  # fmt: skip

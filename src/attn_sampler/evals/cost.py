"""What a run costs beside its forward passes: peak memory, and the shares of the sampler and of the attention statistics."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, cast

import torch

from attn_sampler.bench.timed import Clock, TimedSampler
from attn_sampler.engine import Engine
from attn_sampler.errors import RowError
from attn_sampler.evals.statistics import median_interval
from attn_sampler.models.seam import Model
from attn_sampler.params import SamplingParams

__all__ = ["Peak", "shares"]

PASSES = 24  # measured for a share, after one to warm up


class Peak:
    """Peak memory of a group of rows, from when this was made.

    On a CUDA device what torch had allocated, weights included. On a CPU what became resident beyond what was there at the start:
    Linux can set its mark back, and memory that earlier groups gave back is returned to the system first, so the number does not
    depend on what ran before. Elsewhere, or where ``/proc/self/clear_refs`` is not ours to write, there is none.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self._start = device, None
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            return
        with suppress(OSError, AttributeError):  # only glibc has it
            ctypes.CDLL(None).malloc_trim(0)
        with suppress(OSError):
            with open("/proc/self/clear_refs", "w") as marks:
                marks.write("5")  # proc(5): sets VmHWM to what is resident now
            self._start = _status("VmHWM")

    def bytes(self) -> int | None:
        """None where it cannot be told."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        now = None if self._start is None else _status("VmHWM")
        return None if now is None or self._start is None else max(0, now - self._start)


def _status(name: str) -> int | None:
    """A number of /proc/self/status, bytes."""
    with open("/proc/self/status") as status:
        return next((1024 * int(line.split()[1]) for line in status if line.startswith(name)), None)


@dataclass
class _Pass:
    """Seconds of one forward pass: as asked, without attention statistics, and of the sampler."""

    asked: float = 0.0
    plain: float = 0.0
    select: float = 0.0
    reads: bool = False

    @property
    def whole(self) -> float:
        return self.asked + self.select


class _TimedModel:
    """A model that runs a pass with attention statistics a second time without them, by turns before and after it."""

    def __init__(self, model: Model) -> None:
        self._model, self._clock, self._plain_first = model, Clock(model.device), False
        self.current = _Pass()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def predict(self, ids: Any, valid: Any, asks: Sequence[Any], stretch: Any = None) -> Any:
        # With a cache both passes write the same keys and values to the same slots.
        if all(ask.attention is None for ask in asks):
            out, seconds = self._timed(ids, valid, asks, stretch)
            self.current.asked += seconds
            self.current.plain += seconds
            return out
        without = [replace(ask, attention=None) for ask in asks]
        self.current.reads, self._plain_first = True, not self._plain_first
        if self._plain_first:
            self.current.plain += self._timed(ids, valid, without, stretch)[1]
        out, seconds = self._timed(ids, valid, asks, stretch)
        self.current.asked += seconds
        if not self._plain_first:
            self.current.plain += self._timed(ids, valid, without, stretch)[1]
        return out

    def _timed(self, *args: Any) -> tuple[Any, float]:
        before = self._clock.seconds
        out = self._clock.timed(self._model.predict, *args)
        return out, self._clock.seconds - before


def shares(engine: Engine, prompts: Sequence[Any], params: SamplingParams, chat: bool | None = None) -> dict[str, float]:
    """Where the time of a setting goes, measured beside the run: passes over a batch of its prompts, begun again where they end.

    Each pass that has attention statistics runs a second time without them, either one first in every other pass: the clocks of
    the run itself are not disturbed, and neither side always finds the caches warm. A share is of select + forward passes.

    Returns:
        ``passes`` measured and ``sampler_share`` (`select` alone). ``attention_share``: the median over the passes that read
        attention of what the statistics add, by the share of the time that those passes have, with ``attention_low`` and
        ``attention_high``, its 95 % interval; 0 and no interval for a setting that reads none. Empty where every row failed.
    """
    model = _TimedModel(engine.model)
    probe = Engine(cast("Model", model), engine.tokenizer, max_rows=engine.max_rows)
    sampler = TimedSampler(params.sampler, Clock(engine.model.device))
    timed = replace(params, sampler=sampler)
    passes: list[_Pass] = []
    for _ in range(1 + PASSES):  # a round is one pass at least, unless all rows fail
        numbers = [probe.admit(prompt, timed, chat=chat) for prompt in prompts[: engine.max_rows]]
        while probe.unfinished and len(passes) <= PASSES:
            model.current, before = _Pass(), sampler.clock.seconds
            try:
                probe.step()
            except RowError:
                continue  # that row is gone
            model.current.select = sampler.clock.seconds - before
            passes.append(model.current)
        for number in numbers:
            probe.cancel(number)
    return _shares(passes[1:] or passes)


def _shares(passes: Sequence[_Pass]) -> dict[str, float]:
    if not passes:
        return {}
    whole = sum(x.whole for x in passes)
    found = {"sampler_share": sum(x.select for x in passes) / whole, "attention_share": 0.0, "passes": len(passes)}
    reading = [x for x in passes if x.reads]
    if reading:
        weight = sum(x.whole for x in reading) / whole
        middle = median_interval([(x.asked - x.plain) / x.whole for x in reading])
        names = ("attention_share", "attention_low", "attention_high")
        found |= {name: weight * x for name, x in zip(names, middle, strict=True)}
    return found

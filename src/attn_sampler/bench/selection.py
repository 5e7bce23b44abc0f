"""What choosing costs: seconds in a sampler's `select` against seconds in the forward passes of the same runs.

The embedded model answers a batch of rows with every sampler in turn, round after round; a ratio is the median over the rounds.
The forward passes hold what the sampler asks them for (attention statistics), `select` is the rule alone. Seconds are of
processor time, so that what else runs on the machine is not counted.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Sequence
from typing import Any, cast

import torch

from attn_sampler import samplers
from attn_sampler.bench.timed import Clock, TimedSampler
from attn_sampler.engine import Engine, load
from attn_sampler.evals.tasks import word_problems
from attn_sampler.models.seam import Model
from attn_sampler.params import SamplingParams

__all__ = ["measure"]


class TimedModel:
    """A model whose forward passes are on the clock."""

    def __init__(self, model: Any) -> None:
        self._model, self.clock = model, Clock(model.device, now=time.process_time)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def predict(self, *args: Any) -> Any:
        return self.clock.timed(self._model.predict, *args)


def measure(
    *, names: Sequence[str] | None = None, rows: int = 16, max_new_tokens: int = 32, rounds: int = 5
) -> list[dict[str, Any]]:
    """Time every registered sampler with its defaults, on the CPU.

    Returns:
        one record per sampler: ``select_over_forward`` with its lowest and highest round, ``ms_per_forward``,
        ``forwards`` of a row, and the conditions.
    """
    model = TimedModel(load(device="cpu").model)
    engine = Engine(cast("Model", model), max_rows=rows)
    tokenizer = load(device="cpu").tokenizer
    assert tokenizer is not None
    prompts = [tokenizer.encode(problem.prompt) for problem in word_problems(rows, seed=3)]
    names = samplers.names() if names is None else names
    ratios: dict[str, list[float]] = {name: [] for name in names}
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds + 1):  # one round to warm up
        for name in names:
            sampler: Any = TimedSampler(samplers.build(name, {}), Clock(model.device, now=time.process_time))
            model.clock = Clock(model.device, now=time.process_time)
            params = SamplingParams(sampler=sampler, max_new_tokens=max_new_tokens, ignore_eos=True, seed=0)
            numbers = [engine.admit(prompt, params) for prompt in prompts]
            passes = 0
            while engine.step():
                passes += 1
            assert not engine.unfinished, numbers
            if turn:
                ratios[name].append(sampler.clock.seconds / model.clock.seconds)
                times[name].append(model.clock.seconds / passes)
    conditions = {
        "rows": rows, "max_new_tokens": max_new_tokens, "rounds": rounds, "dtype": "float32",
        "machine": platform.processor() or platform.machine(), "threads": torch.get_num_threads(), "torch": torch.__version__,
    }  # fmt: skip
    return [
        {
            "sampler": name, "select_over_forward": statistics.median(ratios[name]),
            "select_over_forward_low": min(ratios[name]), "select_over_forward_high": max(ratios[name]),
            "ms_per_forward": 1000 * statistics.median(times[name]), **conditions,
        }
        for name in names
    ]  # fmt: skip

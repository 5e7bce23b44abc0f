"""Rows of one group through the engine: each one's outcome, the course it took, the time that passed."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from attn_sampler.engine import Engine
from attn_sampler.errors import RowError
from attn_sampler.evals.tasks import Prompt
from attn_sampler.params import SamplingParams
from attn_sampler.results import Result, Step

__all__ = ["Answer", "Asked", "answers", "finite", "warm_up"]


@dataclass
class Answer:
    """One row as it runs."""

    outcome: Result | RowError | None = None
    forwards: int = 0
    batch_s: float = 0.0
    cpu_s: float = 0.0
    log_likelihood: float = 0.0
    order: list[int] = field(default_factory=list)
    steps: list[dict[str, Any]] | None = None

    @property
    def course(self) -> dict[str, Any]:
        """Of every pass: where the sampler looked, with which scores, and what was written there."""
        return {"length": len(self.order), "steps": self.steps}

    def follow(self, step: Step) -> None:
        self.forwards = step.forward
        self.log_likelihood += sum(math.log(p) if p > 0 else -math.inf for p in step.confidences)
        self.order = self.order or [0] * (len(step.ids) - step.start)
        for position in step.positions:
            self.order[position - step.start] = step.forward
        if self.steps is not None:
            self.steps.append({
                "window": [p - step.start for p in step.window], "scores": [finite(x) for x in step.scores],
                "written": [p - step.start for p in step.positions],
            })  # fmt: skip


Asked = tuple[tuple[int, int], Prompt, SamplingParams]


def answers(
    engine: Engine, asked: Sequence[Asked], chat: bool | None, followed: tuple[int, int]
) -> Iterator[tuple[tuple[int, int], SamplingParams, Answer]]:
    """Rows as they end; others join the batch in their place, so none waits and a row's time is its time in the batch.

    Args:
        followed: the row whose course is kept.
    """
    waiting = iter(asked)
    running: dict[int, tuple[tuple[int, int], SamplingParams, Answer]] = {}
    spent = cpu = 0.0

    def admit(count: int) -> None:
        for key, prompt, params in islice(waiting, count):
            answer = Answer(steps=[] if key == followed else None)
            running[engine.admit(prompt, params, chat=chat)] = (key, params, answer)

    admit(engine.max_rows)
    try:
        while running:
            began, began_cpu = time.perf_counter(), time.thread_time()
            try:
                steps: Sequence[Step] = engine.step()
                ended = [(step.row, step.result) for step in steps if step.result is not None]
            except RowError as error:  # the row is gone, the others go on
                steps, ended = (), [(error.row, error)]
            spent += time.perf_counter() - began
            cpu += time.thread_time() - began_cpu
            for step in steps:
                running[step.row][2].follow(step)
            for row, outcome in ended:
                key, params, answer = running.pop(row)
                answer.outcome, answer.batch_s, answer.cpu_s = outcome, spent, cpu
                spent = cpu = 0.0
                yield key, params, answer
            admit(len(ended))
    finally:
        for row in running:
            engine.cancel(row)


def warm_up(engine: Engine, prompt: Prompt, params: SamplingParams, chat: bool | None) -> None:
    """Two passes of one row, not counted: the first ones of a process and of a sampler load and plan."""
    row = engine.admit(prompt, params, chat=chat)
    try:
        for _ in range(2):
            engine.step()
    except RowError:
        pass  # it fails again where it counts
    finally:
        engine.cancel(row)


def finite(x: float) -> float | None:
    """JSON has no infinity."""
    return round(x, 5) if math.isfinite(x) else None

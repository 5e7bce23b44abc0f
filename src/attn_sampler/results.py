"""What a row gives its owner: a Step after every forward pass, a Result with the last one."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from attn_sampler.report import Report
from attn_sampler.rows import Row

__all__ = ["Result", "Step", "record"]


@dataclass(frozen=True)
class Result:
    """One finished row.

    Attributes:
        text: the answer (after `attn_sampler.engine.Engine.infill` the whole filled text), without special tokens and stop
            string.
        token_ids: its ids, up to and including the first end-of-sequence token.
        finish_reason: ``"stop"`` (end-of-sequence or stop string) or ``"length"``.
        prompt_tokens, completion_tokens: given, and generated up to the first end-of-sequence token.
        forwards: forward passes that this row took part in.
        elapsed_s: seconds from its admission to its end.
        seed: of its random numbers.
    """

    text: str
    token_ids: list[int]
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    forwards: int
    elapsed_s: float
    seed: int

    @property
    def tokens_per_forward(self) -> float:
        return self.completion_tokens / self.forwards if self.forwards else 0.0

    def to_dict(self) -> dict[str, Any]:
        """All values as plain JSON types."""
        return dataclasses.asdict(self) | {"tokens_per_forward": self.tokens_per_forward}


@dataclass(frozen=True)
class Step:
    """What one forward pass did to one row. Positions are absolute: the prompt is 0 .. start-1.

    Attributes:
        row: the row's number, as `attn_sampler.engine.Engine.admit` returned it.
        forward: 1 for the row's first forward pass.
        ids: its canvas after the step; the mask id where `masked`.
        masked: positions still masked.
        start: first position of the answer.
        positions, tokens, confidences: what was committed.
        window, scores: every position that was asked about and not yet written, and what the order went by (higher first).
        settled: everything before this position is final.
        delta: text newly settled.
        result: on the row's last step.
    """

    row: int
    forward: int
    ids: list[int]
    masked: list[int]
    start: int
    positions: list[int]
    tokens: list[int]
    confidences: list[float]
    window: list[int]
    scores: list[float]
    settled: int
    delta: str
    result: Result | None = None

    @property
    def finished(self) -> bool:
        return self.result is not None


def record(number: int, row: Row, report: Report, i: int, eos_ids: Collection[int]) -> Step:
    """What the forward pass did to row ``i`` of the report, and its result if that ended it."""
    row.forwards += 1
    settled = report.settled[i]
    answer = report.ids[i][row.shown : min(settled, row.cut)]
    end = next((j for j, t in enumerate(answer) if t in eos_ids), None) if row.ends else None
    visible = answer if end is None else answer[:end]
    final = end is not None or not (report.masked[i] or report.held[i])
    delta = row.transcript.update(visible, final)
    result = None
    if row.transcript.stopped:
        result = _finish(row, row.transcript.cut(visible), "stop")
    elif final:
        result = _finish(row, answer if end is None else answer[: end + 1], "length" if end is None else "stop")
    chosen, asked = ([j for j, flag in enumerate(flags[i]) if flag] for flags in (report.commit, report.candidates))
    return Step(
        row=number, forward=row.forwards, ids=report.ids[i], masked=report.masked[i], start=row.start,
        positions=[report.positions[i][j] for j in chosen], tokens=[report.tokens[i][j] for j in chosen],
        confidences=[report.confidence[i][j] for j in chosen],
        window=[report.positions[i][j] for j in asked], scores=[report.score[i][j] for j in asked],
        settled=settled, delta=delta, result=result,
    )  # fmt: skip


def _finish(row: Row, answer: list[int], reason: str) -> Result:
    holes = sum(row.masked)
    new = len(answer) if row.shown == row.start and all(row.masked[row.shown :]) else holes
    elapsed = time.perf_counter() - row.admitted
    return Result(row.transcript.text, answer, reason, len(row.ids) - holes, new, row.forwards, elapsed, row.params.seed)

"""What one forward pass did, as Python values: the one place where a step asks the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from attn_sampler import canvas as canvases
from attn_sampler.asked import Asked
from attn_sampler.canvas import Canvas
from attn_sampler.propose import Proposal
from attn_sampler.seam import EarlyExit, Selection
from attn_sampler.state import RowState

__all__ = ["Report", "report"]


@dataclass(frozen=True)
class Report:
    """What one forward pass did, as Python values, one entry per row."""

    ids: list[list[int]]
    masked: list[list[int]]
    settled: list[int]
    held: list[bool]
    positions: list[list[int]]
    candidates: list[list[bool]]
    commit: list[list[bool]]
    tokens: list[list[int]]
    confidence: list[list[float]]
    score: list[list[float]]


def report(
    numbers: Sequence[int],
    canvas: Canvas,
    state: RowState,
    parts: Sequence[tuple[Asked, Proposal, Selection, Tensor]],
    leaving: Bool[Tensor, " rows"],
) -> tuple[Report, dict[int, tuple[str, str]]]:
    """Everything that leaves the device, in one place; and which rows went wrong: number → (whose fault, what).

    Of a row that leaves early its exit's part counts, of all others the sampler's.

    Args:
        numbers: the engine's number of each row.
        parts: per group its question, what was proposed, what was chosen, and the positions written.
        leaving: rows whose early exit acted.
    """
    n = len(numbers)
    rows: dict[str, list[Any]] = {f.name: [None] * n for f in fields(Report)}
    faults: dict[int, tuple[str, str]] = {}
    settled = canvases.settled(canvas)
    gone = leaving.tolist()
    for question, proposal, selection, written in parts:
        if question.revisable is not None:
            index, low = question.index, state.block_low[question.index]
            masked = canvas.masked[index].any(1) & (settled[index] < low + state.block_length[index])
            settled[index] = torch.where(masked | state.held[index], low, settled[index])
        values = {
            "positions": question.positions, "candidates": question.candidates, "commit": written,
            "tokens": proposal.tokens, "confidence": proposal.confidence, "score": selection.score,
        }  # fmt: skip
        stray = (selection.commit & ~question.candidates).any(1).tolist()
        idle = question.candidates.any(1) & ~(selection.commit & question.candidates).any(1)
        idle = (idle if selection.hold is None else idle & ~selection.hold).tolist()
        broken = proposal.confidence.isnan().any(1).tolist()
        lists = {name: value.tolist() for name, value in values.items()}
        exiting = isinstance(question.owner, EarlyExit)
        for k, i in enumerate(question.rows):
            if exiting == gone[i]:
                for name in values:
                    rows[name][i] = lists[name][k]
            name = question.owner.name
            if broken[k]:
                faults[numbers[i]] = ("model", "the model's logits hold NaN (or nothing but -inf)")
            elif stray[k]:
                faults[numbers[i]] = ("sampler", f"{name} committed positions that are no candidates")
            elif idle[k] and not exiting:
                faults[numbers[i]] = ("sampler", f"{name} committed nothing although there were candidates")
    ends = canvas.end.tolist()
    ids, flags = canvas.ids.tolist(), canvas.masked.tolist()
    rows["ids"] = [row[:end] for row, end in zip(ids, ends, strict=True)]
    rows["masked"] = [[j for j, m in enumerate(row) if m] for row in flags]
    rows["settled"] = settled.tolist()
    rows["held"] = state.held.tolist()
    return Report(**rows), faults

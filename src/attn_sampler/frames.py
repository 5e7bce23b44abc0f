"""Steps as pictures of a canvas: what every position shows after each forward pass, and what made it so.

The common ground of trace files, the terminal and the web page. Pure values; nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attn_sampler.results import Step

__all__ = ["Cell", "Frame", "TraceStep"]


@dataclass(frozen=True, slots=True)
class Cell:
    """One position of a canvas.

    Attributes:
        token: its id, the mask id where masked.
        piece: its text, None where masked.
        forward: forward pass that committed it, 0 for a given token, None where masked.
        confidence, score: when it was committed, else None.
        rank: share of the scores of its step that its own is not below, 1 for the highest; None without a score.
    """

    token: int
    piece: str | None
    forward: int | None
    confidence: float | None = None
    score: float | None = None
    rank: float | None = None


@dataclass(frozen=True)
class TraceStep:
    """What one forward pass did to one row: `attn_sampler.results.Step` as the difference to the canvas before it.

    Attributes:
        forward: 1 for the row's first forward pass.
        positions, tokens, pieces, confidences: what was committed; ``pieces`` is the text of the tokens.
        window, scores: every position asked about and not yet written, and what the order went by.
        remasked: positions masked again.
        settled: everything before this position is final.
        delta: text newly settled.
    """

    forward: int
    positions: tuple[int, ...]
    tokens: tuple[int, ...]
    pieces: tuple[str, ...]
    confidences: tuple[float, ...]
    window: tuple[int, ...]
    scores: tuple[float, ...]
    remasked: tuple[int, ...]
    settled: int
    delta: str

    @classmethod
    def of(cls, step: Step, before: Frame, piece: Callable[[int], str]) -> TraceStep:
        """The difference that ``step`` made to the canvas ``before`` it."""
        masked, new = before.masked, set(step.positions)
        return cls(
            step.forward, tuple(step.positions), tuple(step.tokens), tuple(piece(t) for t in step.tokens),
            tuple(map(float, step.confidences)), tuple(step.window), tuple(map(float, step.scores)),
            tuple(i for i in step.masked if i in new or not masked[i]), step.settled, step.delta,
        )  # fmt: skip


@dataclass(frozen=True)
class Frame:
    """A row's canvas after a forward pass (0: before the first).

    Attributes:
        row, forward: which.
        start: first position of the answer; the prompt is 0 .. start-1.
        cells: every position, the prompt's included.
        mask_id: token of a masked cell.
        eos_ids: tokens that end this row's answer; empty where none does.
        new, remasked: positions that this forward pass committed and masked again.
        window: position → score of everything that it was asked about.
    """

    row: int
    forward: int
    start: int
    cells: tuple[Cell, ...]
    mask_id: int
    eos_ids: tuple[int, ...] = ()
    new: frozenset[int] = frozenset()
    remasked: frozenset[int] = frozenset()
    window: Mapping[int, float] = field(default_factory=dict)

    @classmethod
    def before(cls, step: Step, piece: Callable[[int], str], mask_id: int, eos_ids: Collection[int] = (), row: int = 0) -> Frame:
        """The canvas that a row's first Step started from."""
        masks = {*step.masked, *step.positions}
        cells = (Cell(mask_id, None, None) if i in masks else Cell(t, piece(t), 0) for i, t in enumerate(step.ids))
        return cls(row, 0, step.start, tuple(cells), mask_id, tuple(eos_ids))

    @property
    def ids(self) -> list[int]:
        return [cell.token for cell in self.cells]

    @property
    def masked(self) -> list[bool]:
        return [cell.piece is None for cell in self.cells]

    @property
    def end(self) -> int:
        """Position after the first end-of-sequence token of the answer (it need not be settled), or after the canvas."""
        answer = enumerate(self.cells[self.start :], self.start)
        return next((i + 1 for i, cell in answer if cell.piece is not None and cell.token in self.eos_ids), len(self.cells))

    @property
    def tokens(self) -> int:
        """Tokens committed so far, those after the first end-of-sequence token not counted."""
        return sum(bool(cell.forward) for cell in self.cells[: self.end])

    def after(self, step: TraceStep) -> Frame:
        """The canvas after one more forward pass."""
        window = dict(zip(step.window, step.scores, strict=True))
        cells = list(self.cells)
        for i, token, piece, confidence in zip(step.positions, step.tokens, step.pieces, step.confidences, strict=True):
            score = window.get(i)
            rank = None if score is None else sum(s <= score for s in step.scores) / len(step.scores)
            cells[i] = Cell(token, piece, step.forward, confidence, score, rank)
        for i in step.remasked:
            cells[i] = Cell(self.mask_id, None, None)
        new = frozenset(step.positions).difference(step.remasked)
        return dataclasses.replace(
            self, forward=step.forward, cells=tuple(cells), new=new, remasked=frozenset(step.remasked), window=window
        )

"""Left to right: the order of an autoregressive model, as a baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from attn_sampler import rules, scores
from attn_sampler.errors import check_number
from attn_sampler.seam import Memory, Needs, Selection, Window

__all__ = ["LeftToRight"]


@dataclass(frozen=True)
class LeftToRight:
    """Leftmost masked position first.

    Options:
        k: positions per forward; a step budget (``steps``) can only raise it.
    """

    name: ClassVar[str] = "left-to-right"
    paper: ClassVar[str] = "none (baseline)"

    k: int = 1

    def __post_init__(self) -> None:
        check_number("k", self.k, low=1, integer=True)

    @property
    def needs(self) -> Needs:
        return Needs()

    def select(self, window: Window, memory: Memory) -> Selection:
        score = scores.left_to_right(window)
        return Selection(rules.top_k(score, window.candidates, window.quota.clamp(min=self.k)), score)

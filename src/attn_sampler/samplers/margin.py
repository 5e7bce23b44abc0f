"""Top-probability margin (arXiv 2502.06768, Dream's ``topk_margin``): the positions whose best token leads the second by most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from attn_sampler import rules, scores
from attn_sampler.errors import check_number
from attn_sampler.seam import Memory, Needs, Selection, Window

__all__ = ["Margin"]


@dataclass(frozen=True)
class Margin:
    """Largest gap between the two most likely tokens first.

    Options:
        k: positions per forward; a step budget (``steps``) can only raise it.
    """

    name: ClassVar[str] = "margin"
    paper: ClassVar[str] = "arXiv:2502.06768"

    k: int = 1

    def __post_init__(self) -> None:
        check_number("k", self.k, low=1, integer=True)

    @property
    def needs(self) -> Needs:
        return Needs()

    def select(self, window: Window, memory: Memory) -> Selection:
        score = scores.margin(window)
        return Selection(rules.top_k(score, window.candidates, window.quota.clamp(min=self.k)), score)

"""Low-confidence remasking of LLaDA (arXiv 2502.09992): the most confident positions first.

With ``steps`` the number per forward is LLaDA's quota. Committed tokens are never revisited, whatever the name says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from attn_sampler import rules, scores
from attn_sampler.errors import check_number
from attn_sampler.seam import Memory, Needs, Selection, Window

__all__ = ["Confidence"]


@dataclass(frozen=True)
class Confidence:
    """Highest probability of the proposed token first.

    Options:
        k: positions per forward; a step budget (``steps``) can only raise it.
    """

    name: ClassVar[str] = "confidence"
    paper: ClassVar[str] = "arXiv:2502.09992"

    k: int = 1

    def __post_init__(self) -> None:
        check_number("k", self.k, low=1, integer=True)

    @property
    def needs(self) -> Needs:
        return Needs()

    def select(self, window: Window, memory: Memory) -> Selection:
        score = scores.confidence(window)
        return Selection(rules.top_k(score, window.candidates, window.quota.clamp(min=self.k)), score)

"""Lowest entropy first (Dream's ``entropy``, arXiv 2508.15487).

KLASS's code for LLaDA has this order as a baseline and, by a slip of the sign, takes the *highest* entropies first;
``compat="reference"`` does so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from attn_sampler import rules, scores
from attn_sampler.errors import check_choice, check_number
from attn_sampler.seam import Memory, Needs, Selection, Window

__all__ = ["Entropy"]


@dataclass(frozen=True)
class Entropy:
    """Lowest entropy of the distribution first.

    Options:
        k: positions per forward; a step budget (``steps``) can only raise it.
        compat: ``"reference"`` takes the highest entropies first, as KLASS's code for LLaDA does.
    """

    name: ClassVar[str] = "entropy"
    paper: ClassVar[str] = "arXiv:2508.15487"

    k: int = 1
    compat: Literal["none", "reference"] = "none"

    def __post_init__(self) -> None:
        check_number("k", self.k, low=1, integer=True)
        check_choice("compat", self.compat, ("none", "reference"))

    @property
    def needs(self) -> Needs:
        return Needs()

    def select(self, window: Window, memory: Memory) -> Selection:
        entropy = scores.entropy(window)
        score = entropy if self.compat == "reference" else -entropy
        return Selection(rules.top_k(score, window.candidates, window.quota.clamp(min=self.k)), score)

"""Uniformly random order (the ancestral order of masked diffusion, arXiv 2406.07524; LLaDA's ``remasking="random"``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from attn_sampler import rules, scores
from attn_sampler.errors import check_number
from attn_sampler.seam import Memory, Needs, Selection, Window

__all__ = ["Random"]


@dataclass(frozen=True)
class Random:
    """Random order, from the row's own seed.

    Options:
        k: positions per forward; a step budget (``steps``) can only raise it.
    """

    name: ClassVar[str] = "random"
    paper: ClassVar[str] = "arXiv:2406.07524"

    k: int = 1

    def __post_init__(self) -> None:
        check_number("k", self.k, low=1, integer=True)

    @property
    def needs(self) -> Needs:
        return Needs()

    def select(self, window: Window, memory: Memory) -> Selection:
        score = scores.random(window)
        return Selection(rules.top_k(score, window.candidates, window.quota.clamp(min=self.k)), score)

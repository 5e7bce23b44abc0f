"""Fast-dLLM v1 (arXiv 2505.22618): commit everything that is confident enough, in parallel.

Both rules order by confidence. The threshold test is ``>=`` (v2 of the same authors uses ``>``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from attn_sampler import rules, scores
from attn_sampler.errors import check_choice, check_number
from attn_sampler.seam import Memory, Needs, Selection, Window

__all__ = ["FastDllmFactor", "FastDllmThreshold"]


@dataclass(frozen=True)
class FastDllmThreshold:
    """Every position whose confidence reaches the threshold, and the best one in any case.

    Options:
        threshold: confidence from which a position is committed.
    """

    name: ClassVar[str] = "fast-dllm"
    paper: ClassVar[str] = "arXiv:2505.22618"

    threshold: float = 0.9

    def __post_init__(self) -> None:
        check_number("threshold", self.threshold, low=0, high=1)

    @property
    def needs(self) -> Needs:
        return Needs()

    def select(self, window: Window, memory: Memory) -> Selection:
        score = scores.confidence(window)
        return Selection(rules.threshold(score, window.candidates, window.quota, self.threshold), score)


@dataclass(frozen=True)
class FastDllmFactor:
    """As many of the most confident positions as keep (n + 1)(1 - c_n) within the factor.

    Options:
        factor: the bound; larger commits more.
        compat: ``"reference"`` also commits the last candidate when only it fails, as the authors' code does.
    """

    name: ClassVar[str] = "fast-dllm-factor"
    paper: ClassVar[str] = "arXiv:2505.22618"

    factor: float = 1.0
    compat: Literal["none", "reference"] = "none"

    def __post_init__(self) -> None:
        check_number("factor", self.factor, low=0)
        check_choice("compat", self.compat, ("none", "reference"))

    @property
    def needs(self) -> Needs:
        return Needs()

    def select(self, window: Window, memory: Memory) -> Selection:
        score = scores.confidence(window)
        quirk = self.compat == "reference"
        return Selection(rules.factor(score, window.candidates, window.quota, self.factor, quirk), score)

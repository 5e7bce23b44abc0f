"""EB-Sampler (arXiv 2505.24857): as many positions as keep their joint entropy bounded.

Positions in ascending error, for which the paper has three proxies: entropy, confidence, margin. The longest prefix whose summed
entropy, less its largest, is at most ``gamma`` nats, so that the mutual information that parallel commits ignore is bounded.
The reference code runs on the whole canvas; here the active block bounds the candidates (set ``block_length`` to
``max_new_tokens`` for the reference's behaviour).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from attn_sampler import rules, scores
from attn_sampler.errors import check_choice, check_number
from attn_sampler.seam import Memory, Needs, Selection, Window

__all__ = ["EntropyBounded"]


@dataclass(frozen=True)
class EntropyBounded:
    """Lowest errors first, as many as stay within the entropy bound.

    Options:
        gamma: the bound in nats; 0 commits one position (and those of exactly zero entropy).
        error: what the order goes by: low ``"entropy"``, high ``"confidence"`` or high ``"margin"``. The bound is on entropies
            always.
    """

    name: ClassVar[str] = "eb"
    paper: ClassVar[str] = "arXiv:2505.24857"

    gamma: float = 0.1
    error: Literal["entropy", "confidence", "margin"] = "entropy"

    def __post_init__(self) -> None:
        check_number("gamma", self.gamma, low=0)
        check_choice("error", self.error, ("entropy", "confidence", "margin"))

    @property
    def needs(self) -> Needs:
        return Needs()

    def select(self, window: Window, memory: Memory) -> Selection:
        entropy = scores.entropy(window)
        if self.error == "entropy":
            return Selection(rules.entropy_bound(entropy, window.candidates, window.quota, self.gamma), -entropy)
        score = scores.confidence(window) if self.error == "confidence" else scores.margin(window)
        place = rules.rank(score, window.candidates)
        return Selection(rules.entropy_bound(entropy, window.candidates, window.quota, self.gamma, place), score)

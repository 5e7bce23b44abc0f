"""Low-confidence remasking of LLaDA (arXiv 2502.09992): the most confident positions first.

With ``steps`` the number per forward is LLaDA's quota. Committed tokens are never revisited, whatever the name says.

With ``confidence_eos_eot_inf`` end tokens count as confidence 0. In the authors' code the end-of-sequence token does so at
temperature 0 only, because noise makes two tensors of what it takes for one; ``compat="reference"`` repeats that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from attn_sampler import rules, scores
from attn_sampler.errors import check_choice, check_number
from attn_sampler.seam import Memory, Needs, Selection, Window

__all__ = ["Confidence"]


@dataclass(frozen=True)
class Confidence:
    """Highest probability of the proposed token first.

    Options:
        k: positions per forward; a step budget (``steps``) can only raise it.
        compat: ``"reference"`` spares the end-of-sequence token from ``confidence_eos_eot_inf`` at temperature > 0.
    """

    name: ClassVar[str] = "confidence"
    paper: ClassVar[str] = "arXiv:2502.09992"

    k: int = 1
    compat: Literal["none", "reference"] = "none"

    def __post_init__(self) -> None:
        check_number("k", self.k, low=1, integer=True)
        check_choice("compat", self.compat, ("none", "reference"))

    @property
    def needs(self) -> Needs:
        return Needs(counts_eos=self.compat == "reference")

    def select(self, window: Window, memory: Memory) -> Selection:
        score = scores.confidence(window)
        return Selection(rules.top_k(score, window.candidates, window.quota.clamp(min=self.k)), score)

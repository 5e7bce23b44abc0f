"""What the paper holds its dynamic threshold against (arXiv 2604.08564, ablation): a fixed number, or a fixed score.

The highest attention column sums as in Attn-Sampler, but how many are committed does not look at confidences: the ``k`` highest,
or all whose score exceeds ``score_threshold``. The paper reports both as fast and far less accurate; with softmax over the
sub-block's own keys the mean score is 1, which is the middle of the static thresholds that it swept (0.8 to 1.0).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Bool, Float
from torch import Tensor

from attn_sampler import rules
from attn_sampler.errors import check_number
from attn_sampler.samplers.attention import AttentionSequential
from attn_sampler.seam import Window

__all__ = ["AttentionFixed"]


@dataclass(frozen=True)
class AttentionFixed(AttentionSequential):
    """The paper's ablation: the k highest column sums, or all above a fixed score.

    Options beside those of attention-sequential:
        k: positions committed per forward, at least.
        score_threshold: column sum above which a position is committed in any case; None for never.
    """

    name: ClassVar[str] = "attention-fixed"

    k: int = 2
    score_threshold: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("k", self.k, low=1, integer=True)
        if self.score_threshold is not None:
            check_number("score_threshold", self.score_threshold, low=0)

    def choose(self, score: Float[Tensor, "rows width"], window: Window) -> Bool[Tensor, "rows width"]:
        least = window.quota.clamp(min=self.k)
        chosen = rules.top_k(score, window.candidates, least, tie=window.proposal.confidence)
        if self.score_threshold is not None:
            chosen = chosen | (window.candidates & (score > self.score_threshold))
        return chosen

"""Net attention, our own variant of Attn-Sampler (arXiv 2604.08564) and NOT the paper's: column sums less row sums.

Writing position j before position i costs A[j, i], writing it after i costs A[i, j]. Between two masked positions only the
difference counts, so j goes early by

    score_j = Σ_{i masked} (A[i, j] - A[j, i])

over the masked positions of the window. The diagonal cancels. The sum is taken anew at every forward pass, the rules are
Attn-Sampler's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from attn_sampler.samplers.attention import DynamicThreshold, WindowAttention
from attn_sampler.seam import Attention, Memory, Needs, Selection, Window

__all__ = ["NetParallel", "NetSequential"]


@dataclass(frozen=True)
class NetSequential(WindowAttention):
    """Our variant of Attn-Sampler, not the paper's: column minus row sums over the masks, one position per forward.

    Options:
        norm: softmax over the sub-block's own keys (local), or the true attention matrix (global).
        sub_block_length: positions of the block considered at a time; None for the whole block.
        window: sub-blocks as consecutive stretches, or the leftmost masked positions of the block.
        layers, heads: indices used (None for all), for ablations.
    """

    name: ClassVar[str] = "attention-net-sequential"
    paper: ClassVar[str] = "our variant of arXiv:2604.08564"

    @property
    def needs(self) -> Needs:
        statistics = Attention("masked", self.norm, True, self.layers, self.heads, pairwise=True)
        return Needs(sub_block_length=self.sub_block_length, cut=self.window, attention=statistics)

    def select(self, window: Window, memory: Memory) -> Selection:
        assert window.pairwise is not None, "the sampler's needs ask for the matrix"
        masked = window.candidates
        attention = window.pairwise * (masked[:, :, None] & masked[:, None])
        score = (attention - attention.mT).sum(1)
        return Selection(self.choose(score, window), score)


@dataclass(frozen=True)
class NetParallel(DynamicThreshold, NetSequential):
    """Our variant of Attn-Sampler, not the paper's: column minus row sums over the masks, with the dynamic threshold.

    Options beside those of the sequential form:
        threshold: probability above which a position counts as sure; 1 gives the sequential rule.
        fallback: what is committed when nothing passes: the highest score, or the highest confidence.
    """

    name: ClassVar[str] = "attention-net"

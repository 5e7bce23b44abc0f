"""DCD, deferred commitment decoding (arXiv 2601.02076): a threshold inside a window that slides with the text.

The window holds the leftmost ``sub_block_length`` masks of the answer, so that a hard position keeps its window open while the
window grows to the right, where blocks would force a commit at their border. The rule inside is Fast-dLLM's threshold. Where an
end token is written, the masks behind it become padding, so that the window ends there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from attn_sampler import rules, scores
from attn_sampler.errors import check_number
from attn_sampler.seam import Memory, Needs, Selection, Window

__all__ = ["DeferredCommitment"]


@dataclass(frozen=True)
class DeferredCommitment:
    """Among the leftmost masks, every position whose confidence reaches the threshold, and the best one in any case.

    Options:
        threshold: confidence from which a position is committed.
        sub_block_length: masks in the sliding window.
    """

    name: ClassVar[str] = "dcd"
    paper: ClassVar[str] = "arXiv:2601.02076"

    threshold: float = 0.9
    sub_block_length: int = 32

    def __post_init__(self) -> None:
        check_number("threshold", self.threshold, low=0, high=1)
        check_number("sub_block_length", self.sub_block_length, low=1, integer=True)

    @property
    def needs(self) -> Needs:
        return Needs(sub_block_length=self.sub_block_length, cut="leftmost", one_block=True, pads=True)

    def select(self, window: Window, memory: Memory) -> Selection:
        score = scores.confidence(window)
        return Selection(rules.threshold(score, window.candidates, window.quota, self.threshold), score)

"""Fast-dLLM v2 (arXiv 2509.26328): sub-blocks from left to right, in each everything above the threshold.

With the default threshold of 1 that is one position per forward pass, the authors' setting for quality; they use 0.9 for speed.

Two slips of the authors' code are not made here, unless ``compat="reference"`` asks for them:

- their block cache (``cache="sub-block"``) outlives its block. The first sub-block of every block but a row's first then attends
  to the tokens of the block before where those of its own block's other sub-blocks should be;
- a prompt of exactly one block (32 tokens) is never run through the network: what follows answers nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from attn_sampler import rules, scores
from attn_sampler.errors import check_choice, check_number
from attn_sampler.seam import Memory, Needs, Selection, Window

__all__ = ["FastDllmV2"]


@dataclass(frozen=True)
class FastDllmV2:
    """Every position of the sub-block whose confidence exceeds the threshold, and the best one in any case.

    Options:
        threshold: confidence above which a position is committed; 1 for one at a time.
        sub_block_length: positions of a sub-block; None for the whole block.
        compat: ``"reference"`` keeps the block cache from block to block and never reads a prompt of one block, as the authors'
            code does.
    """

    name: ClassVar[str] = "fast-dllm-v2"
    paper: ClassVar[str] = "arXiv:2509.26328"

    threshold: float = 1.0
    sub_block_length: int | None = 8
    compat: Literal["none", "reference"] = "none"

    def __post_init__(self) -> None:
        check_number("threshold", self.threshold, low=0, high=1)
        if self.sub_block_length is not None:
            check_number("sub_block_length", self.sub_block_length, low=1, integer=True)
        check_choice("compat", self.compat, ("none", "reference"))

    @property
    def needs(self) -> Needs:
        slips = self.compat == "reference"
        return Needs(sub_block_length=self.sub_block_length, stale_block=slips, drops_block=slips)

    def select(self, window: Window, memory: Memory) -> Selection:
        score = scores.confidence(window)
        return Selection(rules.threshold(score, window.candidates, window.quota, self.threshold, strict=True), score)

"""LLaDA2.0 and 2.1 (arXiv 2512.15745, 2602.08676): a threshold to fill masks, and another to correct what was filled.

A forward pass fills every mask whose proposal is confident enough (at least ``k`` of them). With ``editing_threshold`` it also
overwrites tokens of the active block, prompt excluded, that the model would now write differently with more than that
confidence. When no mask is left the block goes on as long as anything is overwritten, at most ``max_post_steps`` forward passes:
edits can swing back and forth. LLaDA2.0 does not edit, 2.1 edits above 0.9.

Without edits an answer ends here as soon as nothing before its end token is masked. The authors' code goes on to the end of that
block, in passes that change nothing of the answer; so does ``compat="reference"``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from attn_sampler import rules, scores
from attn_sampler.errors import check_choice, check_number
from attn_sampler.seam import Memory, Needs, Selection, Window

__all__ = ["Llada2"]


@dataclass(frozen=True)
class Llada2:
    """Fill above one threshold, rewrite above another.

    Options:
        threshold: confidence above which a mask is filled.
        k: masks filled per forward pass in any case.
        editing_threshold: confidence above which a token is overwritten; None for never (LLaDA2.0).
        max_post_steps: forward passes that a block may spend on edits after its last mask.
        compat: ``"reference"`` fills the block that holds the end of the answer to its end, as LLaDA2.0's code does.
    """

    name: ClassVar[str] = "llada2"
    paper: ClassVar[str] = "arXiv:2602.08676"

    threshold: float = 0.95
    k: int = 1
    editing_threshold: float | None = None
    max_post_steps: int = 16
    compat: Literal["none", "reference"] = "none"

    def __post_init__(self) -> None:
        check_number("threshold", self.threshold, low=0, high=1)
        check_number("k", self.k, low=1, integer=True)
        if self.editing_threshold is not None:
            check_number("editing_threshold", self.editing_threshold, low=0, high=1, open_low=True)
        check_number("max_post_steps", self.max_post_steps, low=0, integer=True)
        check_choice("compat", self.compat, ("none", "reference"))

    @property
    def needs(self) -> Needs:
        # Of a block that may be revised nothing is settled before its end, and so no text ends before it.
        return Needs(revises=self.editing_threshold is not None or self.compat == "reference")

    def select(self, window: Window, memory: Memory) -> Selection:
        score = scores.confidence(window)
        least = window.quota.clamp(min=self.k)
        commit = rules.threshold(score, window.candidates, least, self.threshold, strict=True)
        if self.editing_threshold is None or window.current is None or window.revisable is None:
            return Selection(commit, score)
        differs = window.proposal.tokens != window.current
        rewrite = window.revisable & differs & (score > self.editing_threshold)
        filling = window.candidates.any(1)
        spent = memory.get("spent", torch.zeros_like(window.quota))
        spent = torch.where(filling, 0, spent + 1)  # forward passes without a mask so far
        # A block's last mask is followed by one pass at least; after that only an edit earns another one.
        last = filling & ~(window.candidates & ~commit).any(1)
        hold = (last | (~filling & rewrite.any(1))) & (spent < self.max_post_steps) & window.another
        return Selection(commit, score, {"spent": torch.where(hold, spent, 0)}, rewrite=rewrite, hold=hold)

"""The re-masking baseline of the PC-Sampler code (arXiv 2508.13021), after ReMDM (arXiv 2503.00307): write, doubt, write again.

A run has three parts:

- **draft**: the most confident masks, k per forward pass, until the share ``ratio`` of the masks is written;
- **loops**, two passes each: the first masks again the k tokens that the model now finds least likely, the second writes the k
  most confident masks, which need not be those;
- **finish**: the masks that are left, the most confident k per pass.

A pass that masks again commits nothing. The authors ask for a length of which ``ratio`` is a multiple of k; here the share is
rounded down to whole tokens, and a part's last pass may write fewer than k. With a step budget there are only as many loops as
leave the finish in time, and where even the filling would not end in time, more than k masks are written per pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attn_sampler import rules, scores
from attn_sampler.errors import check_number
from attn_sampler.seam import Memory, Needs, Selection, Window

__all__ = ["ReMdm"]


@dataclass(frozen=True)
class ReMdm:
    """Most of the answer by confidence, then loops that mask the least likely tokens again and write as many anew.

    Options:
        ratio: share of the masks written before the first loop.
        loops: how often tokens are masked again, two forward passes each time.
        k: positions written, or masked again, per forward pass.
    """

    name: ClassVar[str] = "remdm"
    paper: ClassVar[str] = "arXiv:2508.13021"

    ratio: float = 0.875
    loops: int = 32
    k: int = 1

    def __post_init__(self) -> None:
        check_number("ratio", self.ratio, low=0, high=1)
        check_number("loops", self.loops, low=0, integer=True)
        check_number("k", self.k, low=1, integer=True)

    @property
    def needs(self) -> Needs:
        return Needs(revises=True, one_block=True)

    def select(self, window: Window, memory: Memory) -> Selection:
        assert window.block_masked is not None, "the engine counts the masks of every block"
        score, candidates, zero = scores.confidence(window), window.candidates, torch.zeros_like(window.quota)
        fresh = window.step_in_block == 0
        spent, due = (memory.get(name, zero).masked_fill(fresh, 0) for name in ("spent", "due"))
        revisable = torch.zeros_like(candidates) if window.revisable is None else window.revisable
        draft = (window.block_masked.double() * self.ratio + 1e-9).long()  # as many whole tokens
        left = candidates.sum(1)
        written = window.block_masked - left

        doubting = (due == 0) & (written == draft) & (spent < self.loops) & revisable.any(1) & self._in_time(window, 0, left)
        again = torch.where(doubting, self.k, 0)
        remask = rules.top_k(-likelihood(window), revisable, again) if window.current is not None else revisable
        amount = window.quota.clamp(min=self.k)
        drafting = (written < draft) & (self.loops > 0) & self._in_time(window, 1, window.block_masked - draft)
        amount = torch.where(drafting, torch.minimum(amount, draft - written), amount)
        amount = torch.where(doubting, 0, torch.where(due > 0, due, amount))
        commit = rules.top_k(score, candidates, amount)

        after = left - commit.sum(1)  # masks, before any is masked again
        spent = spent + (due > 0).long()
        more = (after == 0) & (window.block_masked == draft) & (spent < self.loops) & self._in_time(window, 1, after)
        keep = {"spent": spent, "due": remask.sum(1)}
        return Selection(commit, score, keep, remask=remask, hold=doubting | (more & candidates.any(1)))

    def _in_time(self, window: Window, ahead: int, left: Int[Tensor, " rows"]) -> Bool[Tensor, " rows"]:
        """Whether a loop begun ``ahead`` passes from now leaves enough of the budget to write ``left`` masks after it."""
        if window.steps is None or window.budgeted is None:
            return torch.ones_like(left, dtype=torch.bool)
        return ~window.budgeted | (window.steps - window.step_in_block - ahead - 2 >= -(-left // self.k))


def likelihood(window: Window) -> Float[Tensor, "rows width"]:
    """Probability of the token that stands at each position (0 of a mask)."""
    assert window.current is not None, "the engine says what stands in the window"
    return window.proposal.logits.softmax(-1).gather(-1, window.current[..., None])[..., 0]

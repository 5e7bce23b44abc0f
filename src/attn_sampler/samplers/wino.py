"""WINO (arXiv 2507.18578): draft many masks at once, then take back what does not hold.

Every forward pass carries, behind the canvas, a second copy of the active block that consists of masks: row i of the copy sees
everything but the token at position i, so it says how likely that token is to a model that has to guess it. In each pass

- **draft**: the masks whose proposal is more likely than ``draft_threshold``; at least one, at most 70 % of those left and
  never more than 20 (at least 5 may always go);
- **verify**, where more than one was drafted: tokens of earlier passes that the copy finds less likely than
  ``verify_threshold`` are masked again, the least likely first and fewer than were drafted in the pass before, so that a block
  takes at most as many passes as it has masks.

With a step budget each pass drafts at least its quota, whatever the limits, and the last pass of a block takes nothing back. The
authors' code has no budget.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from attn_sampler import rules, scores
from attn_sampler.errors import check_number
from attn_sampler.seam import Memory, Needs, Selection, Window

__all__ = ["Wino"]

SHARE, FEWEST, MOST = 0.7, 5, 20  # of the masks left, drafted in one pass at most
FIRST = 30  # tokens counted as drafted before a block's first pass


@dataclass(frozen=True)
class Wino:
    """Wide in, narrow out: many masks drafted per pass, doubtful tokens masked again.

    Options:
        draft_threshold: probability above which a mask is filled (the authors' tau 1).
        verify_threshold: probability, without a look at the token itself, below which it is masked again (tau 2).
    """

    name: ClassVar[str] = "wino"
    paper: ClassVar[str] = "arXiv:2507.18578"

    draft_threshold: float = 0.6
    verify_threshold: float = 0.9

    def __post_init__(self) -> None:
        check_number("draft_threshold", self.draft_threshold, low=0, high=1)
        check_number("verify_threshold", self.verify_threshold, low=0, high=1)

    @property
    def needs(self) -> Needs:
        return Needs(revises=True, leave_one_out=True)

    def select(self, window: Window, memory: Memory) -> Selection:
        assert window.leave_one_out is not None, "the engine answers what the sampler needs"
        assert window.steps is not None, "the engine plans the steps of every row"
        score, masks, fresh = scores.confidence(window), window.candidates.sum(1), window.step_in_block == 0
        most = (masks.double() * SHARE).long().clamp(FEWEST, MOST)
        passing = (window.candidates & (score > self.draft_threshold)).sum(1)
        commit = rules.top_k(score, window.candidates, torch.maximum(passing.clamp(min=1).minimum(most), window.quota))
        drafted = commit.sum(1)

        before = torch.where(fresh, FIRST, memory.get("drafted", drafted))
        verifiable = memory.get("verifiable", torch.zeros_like(commit)) & ~fresh[:, None] & ~window.candidates
        doubtful = verifiable & (window.leave_one_out < self.verify_threshold)
        due = torch.where(doubtful.sum(1) < before, before, before - 1)
        due = torch.where((drafted > 1) & (window.step_in_block + 1 < window.steps), due, 0)
        remask = rules.top_k(-window.leave_one_out, doubtful, due)
        return Selection(commit, score, {"drafted": drafted, "verifiable": (verifiable | commit) & ~remask}, remask=remask)

"""SchED (arXiv 2512.02892): stop once the margin over all masks reaches a threshold that falls smoothly.

The margin is the gap between the two highest logits, averaged over the masks that are left. Besides, the model's best tokens must
have stood still: the share of masks whose best token changed since the forward pass before must not exceed ``max_change_ratio``,
more than ``patience`` passes in a row. The authors publish ``max_change_ratio=0``; 1 tests the gap alone.

Deviation: ``min_progress`` is a share of the answer; the authors count the prompt as progress.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from attn_sampler import scores
from attn_sampler.errors import check_choice, check_number
from attn_sampler.seam import Exit, Memory, Window

__all__ = ["Sched"]


@dataclass(frozen=True)
class Sched:
    """The mean gap of the two highest logits against a threshold that falls smoothly, once no best token moves any more.

    Options:
        mode: how the threshold falls: ``"cosine"``, ``"linear"`` or ``"exp"``.
        high, low: gap to reach at the first forward pass and at the last, in logits.
        rate: how fast ``"exp"`` falls.
        max_change_ratio: share of masks whose best token may differ from that of the pass before.
        patience: passes that must have been that calm before the one that stops.
        min_progress: share of the answer that must be written.
    """

    name: ClassVar[str] = "sched"
    paper: ClassVar[str] = "arXiv:2512.02892"

    mode: Literal["cosine", "linear", "exp"] = "cosine"
    high: float = 7.5
    low: float = 2.5
    rate: float = 4.0
    max_change_ratio: float = 0.0
    patience: int = 0
    min_progress: float = 0.0

    def __post_init__(self) -> None:
        check_choice("mode", self.mode, ("cosine", "linear", "exp"))
        for field in ("high", "low", "rate"):
            check_number(field, getattr(self, field), low=0)
        check_number("max_change_ratio", self.max_change_ratio, low=0, high=1)
        check_number("patience", self.patience, low=0, integer=True)
        check_number("min_progress", self.min_progress, low=0, high=1)

    def test(self, window: Window, memory: Memory) -> Exit:
        assert window.steps is not None, "the engine plans the steps of every row"
        masked, left = window.candidates, window.candidates.sum(1)
        gap = scores.logit_gap(window).double().masked_fill(~masked, 0).sum(1) / left
        best = window.proposal.logits.argmax(-1) + 1  # 0 is a row without memory, whose every token has changed
        changed = ((best != memory.get("best", 0)) & masked).sum(1).double() / left
        length = window.positions[:, -1] - window.positions[:, 0] + 1
        under_way = 1 - left.double() / length >= self.min_progress
        calm = torch.where(under_way & (changed <= self.max_change_ratio), memory.get("calm", torch.zeros_like(left)) + 1, 0)
        now = under_way & (gap >= self.threshold(window.forward, window.steps)) & (calm > self.patience)
        return Exit(now, {"best": best, "calm": calm})

    def threshold(self, step: Int[Tensor, " rows"], steps: Int[Tensor, " rows"]) -> Float64[Tensor, " rows"]:
        """Gap to reach at forward pass ``step``, counted from 0, of ``steps``."""
        t = (step.double() / (steps - 1).clamp(min=1)).clamp(0, 1)
        if self.mode == "cosine":
            share = (1 + (math.pi * t).cos()) / 2
        elif self.mode == "exp":
            share = (-self.rate * t).exp()
        else:
            share = 1 - t
        return torch.where(steps > 1, self.low + (self.high - self.low) * share, self.low)

"""Prophet (arXiv 2508.19982): stop once the model tells its best tokens from the second best by a wide margin.

The margin is the gap between the two highest logits, averaged over the region that holds the final answer; what it has to reach
falls in three stages as the run goes on. Where no region is known the average is over all masks that are left, as SchED
(arXiv 2512.02892) takes it. The tokens that the authors put in front of the region ("The answer is") are a given part of the
canvas: `Engine.infill`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attn_sampler import scores
from attn_sampler.errors import InvalidInputError, check_number
from attn_sampler.seam import Exit, Memory, Window

__all__ = ["Prophet"]

STAGES = (0.33, 0.67)  # shares of the planned forward passes where the second and the third threshold begin


@dataclass(frozen=True)
class Prophet:
    """The mean gap of the two highest logits against a threshold that falls in three stages.

    Options:
        early, middle, late: gap to reach in each third of the planned forward passes, in logits.
        region_start, region_length: positions of the answer averaged over, counted from its first; None for all masks left.
    """

    name: ClassVar[str] = "prophet"
    paper: ClassVar[str] = "arXiv:2508.19982"

    early: float = 7.5
    middle: float = 5.0
    late: float = 2.5
    region_start: int | None = None
    region_length: int | None = None

    def __post_init__(self) -> None:
        for field in ("early", "middle", "late"):
            check_number(field, getattr(self, field), low=0)
        if (self.region_start is None) != (self.region_length is None):
            field = "region_length" if self.region_length is None else "region_start"
            raise InvalidInputError(field, None, "give both region_start and region_length, or neither")
        if self.region_start is not None:
            check_number("region_start", self.region_start, low=0, integer=True)
            check_number("region_length", self.region_length, low=1, integer=True)

    def test(self, window: Window, memory: Memory) -> Exit:
        where, gap = self.region(window), scores.logit_gap(window).double()
        mean = gap.masked_fill(~where, 0).sum(1) / where.sum(1)  # NaN, which reaches nothing, where the region is empty
        assert window.steps is not None, "the engine plans the steps of every row"
        share = (window.forward + 1).double() / window.steps
        return Exit(mean >= self.threshold(share))

    def region(self, window: Window) -> Bool[Tensor, "rows width"]:
        """Positions averaged over."""
        if self.region_start is None or self.region_length is None:
            return window.candidates
        place = window.positions - window.positions[:, :1]
        own = place == torch.arange(place.shape[1], device=place.device)  # others repeat the answer's last position
        return own & (place >= self.region_start) & (place < self.region_start + self.region_length)

    def threshold(self, share: Float[Tensor, " rows"]) -> Float[Tensor, " rows"]:
        """Gap to reach when this share of the forward passes is spent, the present one included."""
        first, second = STAGES
        late = torch.where(share < second, self.middle, torch.full_like(share, self.late))
        return torch.where(share < first, self.early, late)

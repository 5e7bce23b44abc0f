"""The exact order, our own variant of Attn-Sampler (arXiv 2604.08564) and NOT the paper's: what its rank order approximates.

The paper bounds an order's error by how much attention goes to positions that are still masks and calls the minimum NP-hard,
which it is in general; over a sub-block of 8 it is 256 subsets. At every forward pass the masked positions of the window are
put into the order that minimises

    Σ_j Σ_{i before j} A[i, j]

by dynamic programming over subsets (Held and Karp, 1962), all rows at once. The score is minus the place in that order; the
rules are Attn-Sampler's, so the parallel form walks along the order while it is sure. `attn_sampler.orders` has the same
optimum for one matrix of up to 20 positions, for study.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attn_sampler.errors import InvalidInputError, check_number
from attn_sampler.samplers.attention import DynamicThreshold, WindowAttention
from attn_sampler.seam import Attention, Memory, Needs, Selection, Window

__all__ = ["ExactParallel", "ExactSequential", "places_of_least_cost"]

WIDEST = 12
"""Most positions of a window: 2^12 subsets, 400 kB of costs per row."""


def places_of_least_cost(
    attention: Float[Tensor, "rows width width"], masked: Bool[Tensor, "rows width"]
) -> Int[Tensor, "rows width"]:
    """Place of each masked position in the order of least surrogate, of equal orders the one with the smaller indices first.

    The others get the place ``width``. Sums run in float64 and over ascending indices, so a row's order does not depend on how
    much padding the window has.
    """
    width = masked.shape[1]
    if width > WIDEST:
        raise InvalidInputError("sub_block_length", width, f"the exact order looks at 2^n subsets: give at most {WIDEST}")
    index, by_size, number, written, then, ends = _subsets(width, masked.device)
    attended = (attention.double() * masked[..., None]).permute(1, 2, 0)  # rows of the batch last: operations run along them
    cost = torch.zeros_like(attended[:1])  # of writing a position (second axis) right after a subset (first axis)
    for i in range(width):
        cost = torch.cat([cost, cost + attended[i]])
    cost = cost[by_size].masked_fill_(written[..., None], torch.inf)
    rest = torch.zeros_like(cost[:, 0])  # least cost of all that follows a subset; nothing follows the full one
    first = torch.zeros_like(rest, dtype=torch.long)  # the position to write right after it, of equal ones the first
    for low, high in reversed(ends):  # all subsets of one size at once, the largest first
        rest[low:high], first[low:high] = (cost[low:high] + rest[then[low:high]]).min(1)
    every = torch.arange(len(masked), device=masked.device)
    reached, walk = number[(~masked * (1 << index)).sum(1)], []  # what is no candidate counts as written, and costs nothing
    for _ in range(width):
        walk.append(first[reached, every])
        reached = then[reached, walk[-1]]
    turns = index.expand(len(masked), -1)  # once all are written the walk stands still at position 0, later than it was written
    return torch.full_like(turns, width).scatter_reduce(1, torch.stack(walk, 1), turns, "amin").masked_fill(~masked, width)


@cache
def _subsets(width: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, list[tuple[int, int]]]:
    """Positions; subsets by size (bit i of a subset: position i is written); the place of each in that order; which positions are
    written; the place of the subset with one more; where each size begins and ends, but for the full set.
    """
    index, subsets = torch.arange(width, device=device), torch.arange(1 << width, device=device)
    by_size = ((subsets[:, None] >> index) & 1).sum(1).argsort()
    number = torch.empty_like(by_size).scatter_(0, by_size, subsets)
    written = (by_size[:, None] >> index) & 1 == 1
    then = number[by_size[:, None] | (1 << index)]
    bounds = [0, *itertools.accumulate(math.comb(width, n) for n in range(width))]
    return index, by_size, number, written, then, list(itertools.pairwise(bounds))


@dataclass(frozen=True)
class ExactSequential(WindowAttention):
    """Our variant of Attn-Sampler, not the paper's: the exact optimum of its bound over the window, one position per forward.

    Options:
        norm: softmax over the sub-block's own keys (local), or the true attention matrix (global).
        sub_block_length: positions of the block considered at a time, at most 12.
        window: sub-blocks as consecutive stretches, or the leftmost masked positions of the block.
        layers, heads: indices used (None for all), for ablations.
    """

    name: ClassVar[str] = "attention-exact-sequential"
    paper: ClassVar[str] = "our variant of arXiv:2604.08564"

    def __post_init__(self) -> None:
        check_number("sub_block_length", self.sub_block_length, low=1, high=WIDEST, integer=True)
        super().__post_init__()

    @property
    def needs(self) -> Needs:
        statistics = Attention("masked", self.norm, True, self.layers, self.heads, pairwise=True)
        return Needs(sub_block_length=self.sub_block_length, cut=self.window, attention=statistics)

    def select(self, window: Window, memory: Memory) -> Selection:
        assert window.pairwise is not None, "the sampler's needs ask for the matrix"
        score = -places_of_least_cost(window.pairwise, window.candidates).to(window.proposal.confidence.dtype)
        return Selection(self.choose(score, window), score)


@dataclass(frozen=True)
class ExactParallel(DynamicThreshold, ExactSequential):
    """Our variant of Attn-Sampler, not the paper's: along the exact optimum of its bound while the positions are sure.

    Options beside those of the sequential form:
        threshold: probability above which a position counts as sure; 1 gives the sequential rule.
        fallback: what is committed when nothing passes: the first of the order, or the highest confidence.
    """

    name: ClassVar[str] = "attention-exact"

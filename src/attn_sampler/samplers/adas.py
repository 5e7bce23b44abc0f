"""ADAS (arXiv 2606.10829): of the positions to be written in one step, discount those that attend to uncertain ones.

Positions are picked one after the other. With c the confidence, A the last layer's attention (mean over heads, row = query) and
S what this step has picked, the next is the one of highest

    u_i = c_i - alpha · Σ_{s in S} A[i, s] (1 - c_s).

A base sampler says when to stop; it sees the picks in that order with their plain confidences and entropies, so that its bound
keeps its meaning and ``alpha=0`` is the base itself along the confidences. The paper leaves open what the stop looks at. In
Fast-dLLM's bound c_n then is the least confident pick so far. The authors' code was not available.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attn_sampler import rules, scores
from attn_sampler.errors import check_choice, check_number
from attn_sampler.seam import Attention, Memory, Needs, Selection, Window

__all__ = ["Adas"]


@dataclass(frozen=True)
class Adas:
    """Most confident first, less what a position attends to uncertain ones of the same step.

    Options:
        base: when to stop: Fast-dLLM's ``"factor"``, EB's entropy bound (``"eb"``), or a fixed number (``"top-k"``).
        alpha: weight of the discount; 0 leaves the confidences as they are.
        factor: bound of the base ``"factor"``.
        gamma: bound of the base ``"eb"``, nats.
        k: positions of the base ``"top-k"``.
        last: layers averaged, counted from the last.
    """

    name: ClassVar[str] = "adas"
    paper: ClassVar[str] = "arXiv:2606.10829"

    base: Literal["factor", "eb", "top-k"] = "factor"
    alpha: float = 40.0
    factor: float = 1.0
    gamma: float = 0.1
    k: int = 2
    last: int = 1

    def __post_init__(self) -> None:
        check_choice("base", self.base, ("factor", "eb", "top-k"))
        check_number("alpha", self.alpha, low=0, high=1e6)
        check_number("factor", self.factor, low=0)
        check_number("gamma", self.gamma, low=0)
        check_number("k", self.k, low=1, integer=True)
        check_number("last", self.last, low=1, integer=True)

    @property
    def needs(self) -> Needs:
        return Needs(attention=Attention(norm="global", last=self.last, pairwise=True))

    def select(self, window: Window, memory: Memory) -> Selection:
        assert window.pairwise is not None, "the sampler's needs ask for the matrix"
        confidence, candidates, quota = scores.confidence(window), window.candidates, window.quota
        place, score = picked(confidence, window.pairwise, candidates, self.alpha)
        if self.base == "factor":
            commit = rules.factor(confidence, candidates, quota, self.factor, quirk=False, place=place)
        elif self.base == "eb":
            commit = rules.entropy_bound(scores.entropy(window), candidates, quota, self.gamma, place)
        else:
            commit = candidates & (place < quota.clamp(min=self.k)[:, None])
        return Selection(commit, score)


def picked(
    confidence: Float[Tensor, "rows width"],
    attention: Float[Tensor, "rows width width"],
    candidates: Bool[Tensor, "rows width"],
    alpha: float,
) -> tuple[Int[Tensor, "rows width"], Float[Tensor, "rows width"]]:
    """When each candidate would be picked (the others after all of them), and what it was worth then (others: the confidence)."""
    width = confidence.shape[1]
    every = torch.arange(len(confidence), device=confidence.device)
    # what the pick of column s takes from each row's worth, s first; a position is worth nothing once it is picked
    cost = attention.mT * (alpha * (1 - confidence).clamp(min=0))[..., None]
    once = cost.diagonal_scatter(torch.full_like(confidence, torch.inf), dim1=1, dim2=2)
    worth, picks = confidence.masked_fill(~candidates, -torch.inf), []
    for _ in range(width):
        picks.append(worth.argmax(1))
        worth = worth - once[every, picks[-1]]
    turns = torch.arange(width, device=confidence.device).expand_as(candidates)
    turn = torch.full_like(turns, width).scatter_reduce(1, torch.stack(picks, 1), turns, "amin").masked_fill(~candidates, width)
    before = candidates[:, :, None] & candidates[:, None] & (turn[:, :, None] < turn[:, None])
    score = confidence - (cost * before).sum(1)
    return turn.argsort(dim=1, stable=True).argsort(1), score

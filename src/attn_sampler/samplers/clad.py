"""CLAD (arXiv 2605.29607): of two runs of confident positions that attend to each other most, write only the longer one.

Positions that pass a *low* confidence threshold form clusters, the runs of adjacent ones. R is the attention inside the block,
mean over the heads and the last layers, the larger of both directions, without its diagonal. Two clusters' score is

    max over i in a of mean_{j in b} R[i, j],        the larger of both directions.

They are in conflict where each is the other's best partner and their score is at least each one's mean score over all other
clusters (with two clusters: at least ``abs_tau`` / block length). Of each such pair the shorter cluster waits, of equal ones
the right. What a step owes is filled up with the most confident of those that wait.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from attn_sampler import rules, scores
from attn_sampler.errors import check_number
from attn_sampler.seam import Attention, Memory, Needs, Selection, Window

__all__ = ["Clad"]


@dataclass(frozen=True)
class Clad:
    """Every position from a low threshold on, but not two runs of them that attend to each other.

    Options:
        threshold: confidence from which a position is considered.
        abs_tau: score, times the block's length, from which the only two clusters are in conflict.
        last: layers averaged, counted from the last.
    """

    name: ClassVar[str] = "clad"
    paper: ClassVar[str] = "arXiv:2605.29607"

    threshold: float = 0.75
    abs_tau: float = 1.2
    last: int = 4

    def __post_init__(self) -> None:
        check_number("threshold", self.threshold, low=0, high=1)
        check_number("abs_tau", self.abs_tau, low=0)
        check_number("last", self.last, low=1, integer=True)

    @property
    def needs(self) -> Needs:
        return Needs(attention=Attention(norm="global", last=self.last, pairwise=True))

    def select(self, window: Window, memory: Memory) -> Selection:
        assert window.pairwise is not None, "the sampler's needs ask for the matrix"
        assert window.in_block is not None, "the engine says which positions are the block's"
        score = scores.confidence(window)
        passed = rules.threshold(score, window.candidates, window.quota, self.threshold)
        commit = without_conflicts(passed, window.pairwise, self.abs_tau / window.in_block.sum(1).clamp(min=1))
        return Selection(rules.at_least(commit, score, passed, window.quota), score)


def without_conflicts(
    passed: Bool[Tensor, "rows width"], attention: Float[Tensor, "rows width width"], least: Float[Tensor, " rows"]
) -> Bool[Tensor, "rows width"]:
    """What is left of ``passed`` when of every pair of clusters in conflict the shorter is dropped.

    Args:
        least: score from which the only two clusters are in conflict.
    """
    label = (passed & ~F.pad(passed, (1, 0))[:, :-1]).long().cumsum(1) - 1  # of the cluster that a position belongs to
    most = (passed.shape[1] + 1) // 2
    clusters = torch.arange(most, device=passed.device)
    member = (label[..., None] == clusters) & passed[..., None]
    length = member.sum(1)
    count = (length > 0).sum(1)

    ties = torch.maximum(attention, attention.mT)
    ties = ties - torch.diag_embed(ties.diagonal(dim1=1, dim2=2))
    mean = ties @ member.to(ties.dtype) / length.clamp(min=1)[:, None]  # of each position with each cluster
    score = ties.new_zeros(len(passed), most, most)  # attention is nowhere negative
    score = score.scatter_reduce(1, label.clamp(min=0)[..., None].expand_as(mean), mean * passed[..., None], "amax")
    score = torch.maximum(score, score.mT)
    other = (length > 0)[:, None] & (length > 0)[..., None] & (clusters != clusters[:, None])
    score = score * other

    best = score.masked_fill(~other, -torch.inf).argmax(2)
    with_best = score.gather(2, best[..., None])[..., 0]
    usual = score.sum(2) / (count - 1).clamp(min=1)[:, None]
    strong = (with_best >= usual) & (with_best >= usual.gather(1, best))
    strong = torch.where((count == 2)[:, None], with_best >= least[:, None], strong)
    conflict = strong & other.any(2) & (best.gather(1, best) == clusters)
    theirs = length.gather(1, best)
    dropped = conflict & ((length < theirs) | ((length == theirs) & (clusters > best)))
    return passed & ~(dropped.gather(1, label.clamp(min=0)))

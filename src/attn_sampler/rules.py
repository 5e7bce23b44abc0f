"""How many: scores and confidences → the set of positions to commit.

Every rule is a pure function over (rows, width) tensors, returns a subset of ``candidates``, and returns at least one position in
every row that has any. Ties go to the smaller index unless a rule says otherwise.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = [
    "at_least",
    "attention_threshold",
    "capped_threshold",
    "entropy_bound",
    "factor",
    "independent_set",
    "rank",
    "threshold",
    "top_k",
]


def rank(
    score: Float[Tensor, "rows width"],
    candidates: Bool[Tensor, "rows width"],
    tie: Float[Tensor, "rows width"] | None = None,
) -> Int[Tensor, "rows width"]:
    """Place of every candidate, 0 for the highest score; ties by ``tie`` (higher first), then by index. Others come last."""
    score = _first(score, candidates)
    order = (score if tie is None else _first(tie, candidates)).argsort(dim=1, descending=True, stable=True)
    if tie is not None:  # stable sorts, the least significant key first
        order = order.gather(1, score.gather(1, order).argsort(dim=1, descending=True, stable=True))
    return _inverse(order)


def _first(key: Float[Tensor, "rows width"], candidates: Bool[Tensor, "rows width"]) -> Float[Tensor, "rows width"]:
    """A key to sort by downwards, the candidates before all others."""
    return key.clamp(min=torch.finfo(key.dtype).min).masked_fill(~candidates, -torch.inf)


def _inverse(order: Int[Tensor, "rows width"]) -> Int[Tensor, "rows width"]:
    """Places from an order, or an order from places."""
    index = torch.arange(order.shape[1], device=order.device)
    return torch.empty_like(order).scatter_(1, order, index.expand_as(order))


def top_k(
    score: Float[Tensor, "rows width"],
    candidates: Bool[Tensor, "rows width"],
    k: Int[Tensor, " rows"],
    tie: Float[Tensor, "rows width"] | None = None,
) -> Bool[Tensor, "rows width"]:
    """The ``k`` highest candidates of each row (all of them where there are fewer)."""
    return candidates & (rank(score, candidates, tie) < k[:, None])


def at_least(
    chosen: Bool[Tensor, "rows width"],
    score: Float[Tensor, "rows width"],
    candidates: Bool[Tensor, "rows width"],
    k: Int[Tensor, " rows"],
) -> Bool[Tensor, "rows width"]:
    """What is chosen and, until there are ``k``, the best of the other candidates."""
    return chosen | top_k(score, candidates & ~chosen, k - chosen.sum(1))


def threshold(
    confidence: Float[Tensor, "rows width"],
    candidates: Bool[Tensor, "rows width"],
    k: Int[Tensor, " rows"],
    tau: float,
    strict: bool = False,
) -> Bool[Tensor, "rows width"]:
    """Confidence at least ``tau`` (above it if ``strict``), and the ``k`` most confident in any case.

    Fast-dLLM v1 (arXiv 2505.22618) takes confidences that reach the threshold, v2 (arXiv 2509.26328) those above it.
    """
    passed = confidence > tau if strict else confidence >= tau
    return (candidates & passed) | top_k(confidence, candidates, k)


def capped_threshold(
    confidence: Float[Tensor, "rows width"],
    candidates: Bool[Tensor, "rows width"],
    k: Int[Tensor, " rows"],
    tau: float,
    slack: float = 1e-5,
) -> Bool[Tensor, "rows width"]:
    """Confidence at least ``tau``, or within ``slack`` of the highest; ``k`` in any case (dInfer, arXiv 2510.08666)."""
    best = confidence.masked_fill(~candidates, -torch.inf).amax(1, keepdim=True)
    return (candidates & (confidence >= (best - slack).clamp(max=tau))) | top_k(confidence, candidates, k)


def factor(
    confidence: Float[Tensor, "rows width"],
    candidates: Bool[Tensor, "rows width"],
    k: Int[Tensor, " rows"],
    f: float,
    quirk: bool,
    place: Int[Tensor, "rows width"] | None = None,
) -> Bool[Tensor, "rows width"]:
    """The largest n with (n + 1)(1 - c_n) <= f, c sorted downwards (Fast-dLLM, arXiv 2505.22618); at least ``k``.

    ``quirk``: where only the last candidate fails it is accepted anyway, as the authors' code does.
    ``place``: another order to walk in, candidates first; c_n then is the lowest confidence up to there.
    """
    place = rank(confidence, candidates) if place is None else place
    ordered = torch.empty_like(confidence).scatter_(1, place, confidence).cummin(1).values
    n = torch.arange(1, confidence.shape[1] + 1, device=confidence.device)
    total = candidates.sum(1)
    ok = (ordered >= 1 - f / (n + 1)) & (n <= total[:, None])
    ok[:, 0] = True
    count = ok.int().cumprod(1).sum(1)
    if quirk:
        count = torch.where(count == total - 1, total, count)
    return candidates & (place < torch.maximum(count, k)[:, None])


def entropy_bound(
    entropy: Float[Tensor, "rows width"],
    candidates: Bool[Tensor, "rows width"],
    k: Int[Tensor, " rows"],
    gamma: float,
    place: Int[Tensor, "rows width"] | None = None,
) -> Bool[Tensor, "rows width"]:
    """The longest prefix in ascending entropy whose sum minus maximum is at most ``gamma`` nats (EB, arXiv 2505.24857).

    ``place``: another order to take the prefix of, candidates first.
    """
    if place is None:
        ordered, order = entropy.masked_fill(~candidates, torch.inf).sort(dim=1, stable=True)
        added = ordered[:, :-1]  # the maximum of a prefix is its last entry
    else:
        order = _inverse(place)
        ordered = entropy.gather(1, order)
        # A new entry adds itself to the sum without the maximum, or the old maximum where it is the new one.
        added = torch.minimum(ordered[:, 1:], ordered.cummax(1).values[:, :-1])
    ok = torch.nn.functional.pad(added.cumsum(1), (1, 0)) <= gamma
    taken = ok.int().cumprod(1).bool() | (torch.arange(entropy.shape[1], device=entropy.device) < k[:, None])
    return candidates & torch.empty_like(taken).scatter_(1, order, taken)


def attention_threshold(
    score: Float[Tensor, "rows width"],
    confidence: Float[Tensor, "rows width"],
    candidates: Bool[Tensor, "rows width"],
    k: Int[Tensor, " rows"],
    tau: float,
    fallback: Literal["score", "conf"] = "score",
) -> Bool[Tensor, "rows width"]:
    """The dynamic attention threshold (arXiv 2604.08564, Algorithm 2).

    Candidates split into high (confidence > ``tau``) and low. Every high one whose score exceeds the highest score among the low
    ones is committed; no low one, and all are. With distinct scores the same as walking down and stopping at the first low one.
    Where that gives fewer than ``k``, the ``k`` best by score (``fallback="score"``; ties by confidence) or by confidence
    (``"conf"``; ties by score) are committed: with k = 1 and tau >= 1 this is the sequential rule, Algorithm 1.
    """
    high = candidates & (confidence > tau)
    limit = score.masked_fill(~candidates | high, -torch.inf).amax(1, keepdim=True)
    chosen = high & (score > limit)
    first, second = (score, confidence) if fallback == "score" else (confidence, score)
    short = chosen.sum(1) < torch.minimum(k, candidates.sum(1))
    return chosen | (top_k(first, candidates, k, tie=second) & short[:, None])


def independent_set(
    score: Float[Tensor, "rows width"], candidates: Bool[Tensor, "rows width"], conflict: Bool[Tensor, "rows width width"]
) -> Bool[Tensor, "rows width"]:
    """Down the scores, every candidate that is in conflict with none taken before it. ``conflict`` is symmetric.

    Found as a fixed point: a candidate is taken where no higher one in conflict with it is. After n rounds the first n of the
    order are settled, mostly all after a few; where asking costs nothing (on a CPU) the rounds end there.
    """
    place = rank(score, candidates)
    open_ = candidates.to(score.dtype)
    above = (conflict & (place[:, None] < place[:, :, None])).to(score.dtype)
    taken = open_
    for _ in range(score.shape[1] - 1):
        before, taken = taken, open_ * ((above @ taken[..., None])[..., 0] == 0)
        if taken.device.type == "cpu" and torch.equal(before, taken):
            break
    return taken.bool()

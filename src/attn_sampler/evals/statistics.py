"""Statistics of what was measured: proportions, means and ratios over prompts, paired tests, rank correlation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor

from attn_sampler.rng import uniform

__all__ = [
    "bootstrap",
    "bootstrap_ratio",
    "clustered",
    "clustered_difference",
    "holm",
    "mcnemar",
    "mcnemar_below",
    "median_interval",
    "paired_difference",
    "pass_at_k",
    "ranks",
    "sign_flip",
    "spearman",
    "wilson",
]

RESAMPLES = 2000
FLIPS = 9999


def wilson(successes: float, n: float, z: float = 1.96) -> tuple[float, float]:
    """The Wilson score interval of a proportion (95 % for z = 1.96; E. B. Wilson, JASA 22, 1927)."""
    if n == 0:
        return 0.0, 1.0
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))  # it holds p, whatever rounding does at 0 and 1


def clustered(rates: Sequence[float], draws: int) -> tuple[float, float]:
    """95 % interval of a mean rate where every thing was tried ``draws`` times: Wilson's, with as many tries as count for one.

    n·draws tries count for n·draws ÷ design effect, the variance of the mean between things by that of independent tries, and
    less by the square of 1.96 ÷ Student's quantile of n − 1 degrees of freedom (E. L. Korn and B. I. Graubard, Survey Methodology
    24, 1998, for the exact interval). They are n at least: tries of one thing that all end alike are one; n·draws at most. Where
    all things ended alike nothing tells how much tries of one thing have in common, so there they count for n. The interval never
    has zero width. With one draw it is Wilson's.
    """
    n, mean = len(rates), sum(rates) / len(rates)
    spread = sum((rate - mean) ** 2 for rate in rates)
    count = float(n)
    if n > 1 and spread > 1e-12:
        effective = mean * (1 - mean) * n * (n - 1) / spread * (1.96 / _student(n - 1)) ** 2
        count = min(max(effective, n), n * draws)
    return wilson(mean * count, count)


def _student(degrees: int) -> float:
    """The 97.5 % quantile of Student's t, expanded around the normal's (Abramowitz and Stegun 26.7.5); low below 3 degrees."""
    z = 1.96
    terms = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + sum(term / degrees**k for k, term in enumerate(terms, 1))


def mcnemar(b: int, c: int) -> float:
    """Two-sided exact p-value of two discordant counts, each as likely as the other under the null (Q. McNemar, 1947)."""
    n, low = b + c, min(b, c)
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(low + 1)) / 2**n)


def mcnemar_below(better: int, worse: int) -> float:
    """One-sided: the chance of at least so many ``worse`` among the discordant pairs where neither is likelier."""
    n = better + worse
    return sum(math.comb(n, k) for k in range(worse, n + 1)) / 2**n


def paired_difference(both: int, better: int, worse: int, neither: int) -> tuple[float, float]:
    """95 % interval of the difference of two proportions on the same things (R. G. Newcombe, 1998, paired method 10).

    Made of the two Wilson intervals and the correlation of the pairs; unlike a bootstrap it stays open where no pair differs.
    """
    first = [1.0] * (both + better) + [0.0] * (worse + neither)
    second = [1.0] * both + [0.0] * better + [1.0] * worse + [0.0] * neither
    return clustered_difference(first, second, 1)


def clustered_difference(first: Sequence[float], second: Sequence[float], draws: int) -> tuple[float, float]:
    """Likewise where each of the same things was tried ``draws`` times on both sides: Newcombe's method on `clustered` intervals.

    Args:
        first, second: rates of the same things, in the same order.
    """
    n = len(first)
    p, q = sum(first) / n, sum(second) / n
    (p_low, p_high), (q_low, q_high) = clustered(first, draws), clustered(second, draws)
    along = sum((x - p) * (y - q) for x, y in zip(first, second, strict=True))
    along = max(along - 0.5, 0.0) if along > 1e-12 else along  # continuity
    spreads = sum((x - p) ** 2 for x in first) * sum((y - q) ** 2 for y in second)
    phi = along / math.sqrt(spreads) if spreads > 1e-12 else 0.0

    def reach(a: float, b: float) -> float:
        return math.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b))

    return p - q - reach(p - p_low, q_high - q), p - q + reach(q - q_low, p_high - p)


def bootstrap(
    values: Float64[Tensor, "n measures"], seed: int = 0, level: float = 0.95
) -> tuple[Float64[Tensor, " measures"], Float64[Tensor, " measures"]]:
    """Percentile bootstrap interval of each column's mean: 2000 times n rows are drawn with replacement (B. Efron, 1979).

    All columns see the same draws, so the n rows are taken as the independent things (here: prompts). NaN is left out of a mean.
    """
    counts = _resampled(len(values), seed)
    means = (counts @ values.nan_to_num(0.0)) / (counts @ (~values.isnan()).double())
    low, high = (torch.nanquantile(means, q, dim=0) for q in ((1 - level) / 2, (1 + level) / 2))
    return low, high


def bootstrap_ratio(
    above: Float64[Tensor, " n"], below: Float64[Tensor, " n"], seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of Σ above / Σ below, both resampled together, e.g. tokens and forward passes of a prompt."""
    counts = _resampled(len(above), seed)
    ratios = (counts @ above) / (counts @ below)
    return float(ratios.nanquantile((1 - level) / 2)), float(ratios.nanquantile((1 + level) / 2))


@lru_cache(maxsize=4)  # settings on the same problems are compared by the same draws
def _resampled(n: int, seed: int) -> Float64[Tensor, "resamples n"]:
    """How often each of n things is drawn when n are drawn with replacement, 2000 times."""
    key = torch.full((1,), seed)
    drawn = (uniform(key, torch.zeros_like(key), torch.arange(RESAMPLES)[None], 2, n)[0] * n).long()
    return torch.zeros((RESAMPLES, n), dtype=torch.float64).scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Median and its 95 % interval between two of the values, whatever their distribution (W. R. Thompson, 1936).

    Fewer than six values have no such interval: then it is all of them.
    """
    ordered, n = sorted(values), len(values)
    rank = next(k for k in range(n + 1) if 40 * sum(math.comb(n, i) for i in range(k + 1)) > 2**n)  # fewer below: under 2.5 %
    middle = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    low = max(rank - 1, 0)
    return middle, ordered[low], ordered[n - 1 - low]


def sign_flip(differences: Sequence[float], seed: int = 0) -> float:
    """Two-sided p-value of a mean paired difference, each pair as likely the other way round under the null (R. A. Fisher, 1935).

    9999 random patterns of signs, and the one that was seen.
    """
    values = torch.tensor([d for d in differences if d != 0], dtype=torch.float64)
    if not len(values):
        return 1.0
    key = torch.full((1,), seed)
    signs = uniform(key, torch.ones_like(key), torch.arange(FLIPS)[None], 2, len(values))[0] < 0.5
    sums = torch.where(signs, -values, values).sum(1).abs()
    seen = float(values.sum().abs())
    return float((sums >= seen - 1e-9 * max(1.0, seen)).sum() + 1) / (FLIPS + 1)


def holm(ps: Sequence[float]) -> list[float]:
    """p-values made larger so that among all of them a false alarm has at most the chance of one alone (S. Holm, 1979)."""
    out, floor = [0.0] * len(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        floor = max(floor, min(1.0, (len(ps) - rank) * ps[i]))
        out[i] = floor
    return out


def pass_at_k(n: int, solved: int, k: int) -> float:
    """Chance that k answers drawn from n hold a right one: the unbiased estimate (Chen et al., arXiv 2107.03374, eq. 1)."""
    return 1.0 - math.comb(n - solved, k) / math.comb(n, k)


def spearman(x: Float[Tensor, " n"], y: Float[Tensor, " n"]) -> float:
    """Rank correlation, equal values sharing their mean rank; NaN where one side is constant."""
    a, b = (ranks(v) - (len(v) - 1) / 2 for v in (x, y))
    norm = a.square().sum() * b.square().sum()
    return float((a * b).sum() / norm.sqrt()) if norm > 0 else math.nan


def ranks(x: Shaped[Tensor, "*rows n"]) -> Float64[Tensor, "*rows n"]:
    """Ranks from 0 to n − 1 along the last axis, equal values sharing their mean rank."""
    x = x.contiguous()
    ordered = x.sort(-1).values
    below, upto = (torch.searchsorted(ordered, x, right=right) for right in (False, True))
    return (below + upto - 1).double() / 2

"""Statistics of what was measured: proportions, means over prompts, rank correlation."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from attn_sampler.rng import uniform

__all__ = ["bootstrap", "mcnemar", "spearman", "wilson"]

RESAMPLES = 2000


def wilson(successes: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """The Wilson score interval of a proportion (95 % for z = 1.96; E. B. Wilson, JASA 22, 1927)."""
    if n == 0:
        return 0.0, 1.0
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def mcnemar(b: int, c: int) -> float:
    """Two-sided exact p-value of two discordant counts, each as likely as the other under the null (Q. McNemar, 1947)."""
    n, low = b + c, min(b, c)
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(low + 1)) / 2**n)


def bootstrap(
    values: Float64[Tensor, "n measures"], seed: int = 0, level: float = 0.95
) -> tuple[Float64[Tensor, " measures"], Float64[Tensor, " measures"]]:
    """Percentile bootstrap interval of each column's mean: 2000 times n rows are drawn with replacement (B. Efron, 1979).

    All columns see the same draws, so the n rows are taken as the independent things (here: prompts). NaN is left out of a mean.
    """
    n = len(values)
    key = torch.full((1,), seed)
    drawn = (uniform(key, torch.zeros_like(key), torch.arange(RESAMPLES)[None], 2, n)[0] * n).long()
    counts = torch.zeros((RESAMPLES, n), dtype=torch.float64).scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))
    means = (counts @ values.nan_to_num(0.0)) / (counts @ (~values.isnan()).double())
    low, high = (torch.nanquantile(means, q, dim=0) for q in ((1 - level) / 2, (1 + level) / 2))
    return low, high


def spearman(x: Float[Tensor, " n"], y: Float[Tensor, " n"]) -> float:
    """Rank correlation, equal values sharing their mean rank; NaN where one side is constant."""
    a, b = (_ranks(v) - (len(v) - 1) / 2 for v in (x.double(), y.double()))
    norm = a.square().sum() * b.square().sum()
    return float((a * b).sum() / norm.sqrt()) if norm > 0 else math.nan


def _ranks(x: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
    less, same = (x[:, None] > x).sum(1), (x[:, None] == x).sum(1)
    return less + (same.double() - 1) / 2

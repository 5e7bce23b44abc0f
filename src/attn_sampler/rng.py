"""Random numbers that depend on nothing but their address.

A number is a hash of (seed, stream, forward, position, index): the SplitMix64 finaliser over int64, which wraps in the same
way on every device. So a row draws the same noise alone and in any batch, and no generator state has to follow rows that join
and leave. SplitMix64: Steele, Lea and Flood, OOPSLA 2014.
"""

from __future__ import annotations

import torch
from jaxtyping import Float64, Int
from torch import Tensor

__all__ = ["ORDER", "TOKENS", "uniform"]

TOKENS, ORDER = 0, 1  # streams: which token, where


def _signed(x: int) -> int:
    return x - (1 << 64) if x >= 1 << 63 else x


_GOLDEN, _MIX1, _MIX2 = (_signed(x) for x in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift (int64 has only the arithmetic one)."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    x = x + _GOLDEN
    x = (x ^ _shift(x, 30)) * _MIX1
    x = (x ^ _shift(x, 27)) * _MIX2
    return x ^ _shift(x, 31)


def uniform(
    seed: Int[Tensor, " rows"], forward: Int[Tensor, " rows"], positions: Int[Tensor, "rows width"], stream: int, size: int = 1
) -> Float64[Tensor, "rows width size"]:
    """Uniform numbers in the open interval (0, 1), ``size`` of them per position."""
    key = _mix(_mix(_mix(seed) + stream) ^ forward)
    key = _mix(key[:, None] ^ positions)
    bits = _mix(key[..., None] ^ torch.arange(size, device=positions.device))
    return (_shift(bits, 12).double() + 0.5) * 2.0**-52  # 52 bits: with 53 the largest would round to 1

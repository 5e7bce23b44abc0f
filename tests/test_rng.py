"""Random numbers are uniform, and depend on their address alone."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attn_sampler.rng import ORDER, TOKENS, uniform

SEEDS = st.integers(0, 2**63 - 1)


def draw(seed: int, forward: int, positions: list[int], stream: int = TOKENS, size: int = 1) -> Tensor:
    return uniform(torch.tensor([seed]), torch.tensor([forward]), torch.tensor([positions]), stream, size)[0]


@settings(max_examples=15)
@given(SEEDS, st.integers(0, 5000))
def test_uniform_in_the_open_interval(seed: int, forward: int) -> None:
    """Kolmogorov-Smirnov at 0.1 %, mean and correlation of neighbours within five standard errors."""
    x = draw(seed, forward, list(range(64)), size=64).flatten()
    n = len(x)
    assert x.dtype == torch.float64
    assert 0 < float(x.min()) <= float(x.max()) < 1
    gap = (x.sort().values - (torch.arange(n) + 0.5) / n).abs().max() + 0.5 / n
    assert gap < 1.95 / n**0.5
    assert abs(float(x.mean()) - 0.5) < 5 * (1 / 12 / n) ** 0.5
    assert abs(float(((x[1:] - 0.5) * (x[:-1] - 0.5)).mean())) < 5 / 12 / n**0.5


@given(SEEDS, st.integers(0, 5000), st.lists(st.integers(0, 4000), min_size=1, max_size=5), st.integers(1, 9))
def test_a_number_depends_on_its_address_alone(seed: int, forward: int, positions: list[int], size: int) -> None:
    """Not on the row beside it, the position before it, or how many are drawn."""
    alone = draw(seed, forward, positions, size=size)
    rows = uniform(
        torch.tensor([seed ^ 1, seed]),
        torch.tensor([forward + 3, forward]),
        torch.tensor([[9, *positions]] * 2),
        TOKENS,
        size + 4,
    )
    assert torch.equal(rows[1, 1:, :size], alone)


def test_every_part_of_the_address_counts() -> None:
    seeds, forwards, positions, streams = (0, 1, 2, 5, 2**63 - 1), (0, 1, 2, 7), [0, 1, 2, 9, 4095], (TOKENS, ORDER)
    seen = [draw(s, f, positions, stream, 8).flatten() for s, f, stream in itertools.product(seeds, forwards, streams)]
    numbers = torch.cat(seen)
    assert len(numbers.unique()) == len(numbers)


@pytest.mark.parametrize("axis", ["seed", "forward", "position"])
def test_neighbouring_addresses_are_uncorrelated(axis: str) -> None:
    n = 20_000
    moving, fixed = torch.arange(n), torch.full((n,), 3)
    seed, forward, position = (moving if axis == name else fixed for name in ("seed", "forward", "position"))
    x = uniform(seed, forward, position[:, None], TOKENS)[:, 0, 0]
    centred = x - 0.5
    for lag in (1, 2, 3, 16, 256):
        assert abs(float((centred[lag:] * centred[:-lag]).mean())) < 5 / 12 / n**0.5
    gap = (x.sort().values - (torch.arange(n) + 0.5) / n).abs().max() + 0.5 / n
    assert gap < 1.95 / n**0.5


def test_the_numbers_stay_what_they_are() -> None:
    """A seed written down today gives the same answer tomorrow."""
    mask = (1 << 64) - 1

    def mix(x: int) -> int:
        x = (x + 0x9E3779B97F4A7C15) & mask
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        return x ^ (x >> 31)

    # SplitMix64 from the state 0: the published test value
    assert mix(0) == 0xE220A8397B1DCDAF
    for seed, forward, position, stream, index in [(0, 0, 0, 0, 0), (1, 2, 3, 1, 4), (2**63 - 1, 100, 4095, 0, 126335)]:
        key = mix(mix((mix(seed) + stream) & mask) ^ forward)
        bits = mix(mix(key ^ position) ^ index)
        want = ((bits >> 12) + 0.5) * 2.0**-52
        assert float(draw(seed, forward, [position], stream, index + 1)[0, index]) == want

"""Which token: filters and noise equal their definitions, confidences are those of the clean distribution."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from attn_sampler.propose import Choice, Proposal, propose
from attn_sampler.rng import TOKENS, uniform
from fakes import random_table

Row = tuple[float, float, int, int]  # temperature, top_p, top_k, seed


def choice(rows: list[Row]) -> Choice:
    temperature, top_p, top_k, seed = (torch.tensor(x) for x in zip(*rows, strict=True))
    samples, filters = any(t > 0 for t, *_ in rows), any(p < 1 or k > 0 for _, p, k, _ in rows)
    return Choice(temperature.double(), top_p.double(), top_k, seed, torch.full_like(seed, 3), samples, filters)


def allowed(logits: list[float], temperature: float, top_p: float, top_k: int) -> set[int]:
    """Temperature, then the nucleus (the token that crosses top_p stays), then the top_k."""
    order = sorted(range(len(logits)), key=lambda v: (-logits[v], v))
    weights = [math.exp((logits[v] - logits[order[0]]) / temperature) for v in order]
    kept, mass = [], 0.0
    for v, weight in zip(order, weights, strict=True):
        if mass > top_p * sum(weights) and top_p < 1:
            break
        kept.append(v)
        mass += weight
    return set(kept[:top_k] if top_k else kept)


rows = st.tuples(
    st.sampled_from([0.0, 0.5, 1.0, 3.0]), st.sampled_from([0.3, 0.75, 1.0]), st.integers(0, 6), st.integers(0, 2**62)
)


@given(st.lists(rows, min_size=1, max_size=4), st.integers(1, 4), st.integers(0, 999))
def test_tokens_equal_gumbel_max_over_what_the_filters_leave(batch: list[Row], width: int, seed: int) -> None:
    vocab = 7
    logits = random_table(seed, len(batch) * width, vocab).reshape(len(batch), width, vocab)
    positions = torch.arange(width).expand(len(batch), -1) + 5
    got = propose(logits, choice(batch), positions)
    noise = uniform(choice(batch).seed, choice(batch).forward, positions, TOKENS, vocab)
    for i, (temperature, top_p, top_k, _) in enumerate(batch):
        for j in range(width):
            row = logits[i, j].tolist()
            if temperature == 0:
                want = max(range(vocab), key=lambda v: row[v])
            else:
                left = allowed(row, temperature, top_p, top_k)
                want = max(left, key=lambda v: row[v] / temperature - math.log(-math.log(float(noise[i, j, v]))))
            assert int(got.tokens[i, j]) == want
            assert float(got.confidence[i, j]) == pytest.approx(float(logits[i, j].softmax(-1)[want]), rel=1e-5)


def test_samples_follow_the_tempered_distribution() -> None:
    n, logits = 20_000, torch.tensor([1.0, 0.0, -1.0, 2.0, 0.5])
    batch = Choice(
        torch.full((n,), 0.7).double(), torch.ones(n).double(), torch.zeros(n).long(), torch.arange(n), torch.zeros(n).long(),
        samples=True, filters=False,
    )  # fmt: skip
    tokens = propose(logits.expand(n, 1, -1), batch, torch.zeros(n, 1).long()).tokens[:, 0]
    share = torch.bincount(tokens, minlength=5) / n
    want = (logits / 0.7).softmax(-1)
    assert ((share - want).abs() < 5 * (want * (1 - want) / n).sqrt()).all()


def zeros(n: int) -> Choice:
    return choice([(0.0, 1.0, 0, 0)] * n)


def at(n: int, width: int) -> Tensor:
    return torch.arange(width).expand(n, -1)


def test_banned_ids_are_never_written_and_take_no_probability() -> None:
    logits = torch.tensor([[[1.0, 9.0, 2.0]], [[1.0, 9.0, 2.0]]])
    banned = torch.tensor([[0.0, -torch.inf, 0.0], [0.0, 0.0, 0.0]])
    got = propose(logits, zeros(2), at(2, 1), banned)
    assert got.tokens[:, 0].tolist() == [2, 1]
    assert float(got.confidence[0]) == pytest.approx(1 / (1 + math.exp(-1)))
    assert got.logits[0, 0, 1] == -torch.inf
    hot = choice([(100.0, 1.0, 0, seed) for seed in range(300)])
    drawn = propose(logits[:1].expand(300, -1, -1), hot, at(300, 1), banned[:1].expand(300, -1)).tokens
    assert set(drawn[:, 0].tolist()) == {0, 2}, "nor at any temperature"


@pytest.mark.parametrize("temperature", [0.0, 0.01])
def test_unsure_ids_may_be_written_but_count_for_nothing(temperature: float) -> None:
    logits = torch.tensor([[[1.0, 9.0, 2.0], [1.0, 0.0, 2.0]]])
    got = propose(logits, choice([(temperature, 1.0, 0, 0)]), at(1, 2), None, torch.tensor([[0.0, -torch.inf, 0.0]]))
    assert got.tokens[0].tolist() == [1, 2]
    assert got.confidence[0, 0] == 0
    assert float(got.confidence[0, 1]) == pytest.approx(1 / (1 + math.exp(-1))), "the others share its probability"


@pytest.mark.parametrize(
    ("given", "kept"), [("bfloat16", "float32"), ("float16", "float32"), ("float32", "float32"), ("float64", "float64")]
)
def test_probabilities_are_float32_at_least(given: str, kept: str) -> None:
    logits = torch.tensor([[[8.0, 0.0, 0.0]]], dtype=getattr(torch, given))
    got: Proposal = propose(logits, zeros(1), at(1, 1))
    assert got.confidence.dtype == got.logits.dtype == getattr(torch, kept)
    assert float(got.confidence) == pytest.approx(1 / (1 + 2 * math.exp(-8)), abs=1e-6), "bfloat16 would round it to 1"


def test_rows_do_not_see_each_other() -> None:
    """Beside rows that sample or filter, a row gets what it gets alone."""
    batch: list[Row] = [(0.0, 1.0, 0, 1), (1.5, 0.8, 0, 2), (0.7, 1.0, 2, 3), (1.0, 1.0, 0, 4)]
    logits = random_table(4, 4 * 5, 9).reshape(4, 5, 9)
    together = propose(logits, choice(batch), at(4, 5))
    for i, row in enumerate(batch):
        alone = propose(logits[i : i + 1], choice([row]), at(1, 5))
        assert torch.equal(alone.tokens[0], together.tokens[i])
        assert torch.equal(alone.confidence[0], together.confidence[i])

"""The re-masking baseline against a plain loop over whole canvases, and what its options reduce to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attn_sampler import Engine, Hole, InvalidInputError, SamplingParams, Step
from fakes import TableModel, random_table

VOCAB, MASK = 8, 7


def network(seed: int) -> TableModel:
    table = random_table(seed, 64, VOCAB, 2.0).double()
    table[:, MASK] = -torch.inf
    return TableModel(table, mask_id=MASK, moving=True)


class Slow:
    """One row by itself, one forward pass at a time: the canvas after each."""

    def __init__(self, model: TableModel, ratio: float, loops: int, k: int) -> None:
        self.model, self.ratio, self.loops, self.k = model, ratio, loops, k

    def run(self, prompt: list[int], length: int, block: int) -> Iterator[list[int]]:
        self.ids = prompt + [MASK] * length
        for low in range(len(prompt), len(self.ids), block):
            self.span = range(low, low + block)
            first = round(1e6 * self.ratio * block) // 10**6 if self.loops else 0  # nothing to stop for
            while first > len(self.written()):
                yield self.fill(min(self.k, first - len(self.written())))
            for _ in range(self.loops if first else 0):
                p = self.probabilities()
                doubtful = sorted(self.written(), key=lambda i: (p[i][self.ids[i]], i))[: self.k]
                self.ids = [MASK if i in doubtful else token for i, token in enumerate(self.ids)]
                yield self.ids
                yield self.fill(len(doubtful))
            while len(self.written()) < block:
                yield self.fill(self.k)

    def written(self) -> list[int]:
        return [i for i in self.span if self.ids[i] != MASK]

    def probabilities(self) -> list[list[float]]:
        return self.model.logits(torch.tensor([self.ids]), None)[0].softmax(-1).tolist()

    def fill(self, count: int) -> list[int]:
        p = self.probabilities()
        best = sorted((i for i in self.span if self.ids[i] == MASK), key=lambda i: (-max(p[i]), i))[:count]
        self.ids = [p[i].index(max(p[i])) if i in best else token for i, token in enumerate(self.ids)]
        return self.ids


def steps_of(model: TableModel, prompts: list[list[int]], params: list[SamplingParams]) -> list[list[Step]]:
    seen: dict[int, list[Step]] = {}
    Engine(model).generate(prompts, params, on_step=lambda step: seen.setdefault(step.row, []).append(step))
    return [seen[row] for row in sorted(seen)]


@settings(max_examples=60)
@given(
    rows=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 12), st.integers(1, 2)), min_size=1, max_size=3),
    ratio=st.sampled_from([0.0, 0.3, 0.5, 0.875, 1.0]),
    loops=st.integers(0, 5),
    k=st.integers(1, 4),
    seed=st.integers(0, 999),
)
def test_every_canvas_of_the_slow_twin(rows: list[tuple[int, int, int]], ratio: float, loops: int, k: int, seed: int) -> None:
    """Ragged rows of one or two blocks in one batch, each in a part of its own."""
    prompts = [[seed % MASK] * n for n, _, _ in rows]
    options = {"ratio": ratio, "loops": loops, "k": k, "ignore_eos": True}
    params = [SamplingParams(sampler="remdm", max_new_tokens=n * c, block_length=n, **options) for _, n, c in rows]
    for (_, n, c), prompt, steps in zip(rows, prompts, steps_of(network(seed), prompts, params), strict=True):
        slow = Slow(network(seed), ratio, loops, k)
        assert [step.ids for step in steps] == list(slow.run(prompt, n * c, n))
        assert all(step.settled in (len(prompt), len(prompt) + n, len(prompt) + n * c) for step in steps), "whole blocks settle"


def test_forwards_of_the_authors_settings() -> None:
    """28 of 32 tokens one by one, 32 loops of two passes, the last four."""
    (steps,) = steps_of(network(0), [[1, 2]], [SamplingParams(sampler="remdm", max_new_tokens=32, ignore_eos=True)])
    assert len(steps) == 28 + 2 * 32 + 4
    assert [len(step.positions) for step in steps] == [1] * 28 + [0, 1] * 32 + [1] * 4
    left = [len(step.masked) for step in steps]
    assert left[28:92] == [5, 4] * 32
    assert left[-1] == 0


@settings(max_examples=30)
@given(n=st.integers(1, 16), k=st.integers(1, 3), loops=st.integers(1, 6), budget=st.integers(1, 40), seed=st.integers(0, 99))
def test_a_budget_leaves_as_many_loops_as_fit(n: int, k: int, loops: int, budget: int, seed: int) -> None:
    params = SamplingParams(sampler="remdm", ratio=0.5, loops=loops, k=k, max_new_tokens=n, steps=budget, ignore_eos=True)
    (steps,) = steps_of(network(seed), [[1]], [params])
    first = n // 2
    filling = -(-first // k) + -(-(n - first) // k)
    again = sum(not step.positions for step in steps)
    assert len(steps) <= budget
    assert again == (max(0, min(loops, (budget - filling) // 2)) if first else 0)


@given(n=st.integers(1, 12), k=st.integers(1, 3), seed=st.integers(0, 99))
def test_without_loops_it_is_the_confidence_sampler(n: int, k: int, seed: int) -> None:
    where = {"max_new_tokens": n, "block_length": n, "ignore_eos": True, "k": k}
    plain, bare = (
        [(step.positions, step.ids) for step in Engine(network(seed)).stream([3], SamplingParams(sampler=name, **more, **where))]
        for name, more in (("confidence", {}), ("remdm", {"loops": 0}))
    )
    assert bare == plain


def test_given_tokens_of_a_template_stay() -> None:
    template: list[Any] = [[1], Hole(5), [2, 3], Hole(4)]
    result = Engine(network(5)).infill(template, SamplingParams(sampler="remdm", ratio=0.8, loops=20, k=2))
    assert [result.token_ids[i] for i in (0, 6, 7)] == [1, 2, 3]
    assert MASK not in result.token_ids
    assert result.forwards == 4 + 2 * 20 + 1  # 7 of 9 two by two, the loops, the last two


@pytest.mark.parametrize("option", [{"ratio": 1.5}, {"ratio": -0.1}, {"loops": -1}, {"loops": 1.5}, {"k": 0}])
def test_what_is_no_option(option: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError) as caught:
        SamplingParams(sampler="remdm", **option)
    assert caught.value.field == next(iter(option))

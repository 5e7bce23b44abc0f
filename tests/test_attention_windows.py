"""The scores that the engine hands to Attn-Sampler are the column sums of the window that the options describe."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attn_sampler import Engine, Hole, SamplingParams, Step
from fakes import TableModel, random_table

VOCAB, MASK = 6, 5
ATTENTION = random_table(8, 48, 48, 2.0)


def column_sums(masked: set[int], start: int, end: int, options: dict[str, Any], block_length: int) -> dict[int, float]:
    """Candidate → score, from the options' own words, for one row by itself."""
    low = start + (min(masked) - start) // block_length * block_length
    high = min(low + block_length, end)
    width = options["sub_block_length"] or block_length
    if options["window"] == "leftmost":
        keys = sorted(p for p in masked if p < high)[:width]
    else:
        left = low + (min(masked) - low) // width * width
        keys = list(range(left, min(left + width, high)))
    queries = {"all": keys, "masked": [p for p in keys if p in masked], "block": list(range(low, high))}[options["rows"]]
    seen = keys if options["norm"] == "local" else list(range(end))
    total = dict.fromkeys(keys, 0.0)
    for query in queries:
        weights: Tensor = ATTENTION[query, seen].softmax(0)
        for key, weight in zip(seen, weights.tolist(), strict=True):
            if key in total and (options["diag"] or key != query):
                total[key] += weight
    return {key: value for key, value in total.items() if key in masked}


EVERY = [
    dict(zip(("rows", "norm", "diag", "window", "sub_block_length"), values, strict=True))
    for values in itertools.product(
        ("all", "masked", "block"), ("local", "global"), (True, False), ("consecutive", "leftmost"), (None, 3)
    )
]


@pytest.mark.parametrize("options", EVERY, ids=lambda options: "-".join(map(str, options.values())))
@settings(max_examples=5)
@given(
    prompts=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    lengths=st.lists(st.sampled_from([(4, 8), (5, 10), (8, 8), (1, 2)]), min_size=3, max_size=3),
    holes=st.booleans(),
)
def test_scores(options: dict[str, Any], prompts: list[int], lengths: list[tuple[int, int]], holes: bool) -> None:
    """In a ragged batch whose rows have blocks of different length; with tokens given inside the answer too."""
    engine = Engine(TableModel(random_table(1, 48, VOCAB), mask_id=MASK, attention=ATTENTION))
    params = [
        SamplingParams(sampler="attention-sequential", max_new_tokens=n, block_length=b, ignore_eos=True, **options)
        for b, n in lengths[: len(prompts)]
    ]
    rows = [
        engine.prepare_infill([[1] * n, Hole(3), [2, 3], Hole(p.max_new_tokens)], p) if holes else engine.prepare([1] * n, p)
        for n, p in zip(prompts, params, strict=True)
    ]
    seen: list[Step] = []
    engine.run(rows, seen.append)
    for step in seen:
        masked = {*step.masked, *step.positions}
        want = column_sums(masked, step.start, len(step.ids), options, params[step.row].positions_per_block)
        assert dict(zip(step.window, step.scores, strict=True)) == pytest.approx(want, abs=1e-5)
        best = max(step.window, key=lambda p: want[p])
        assert want[step.positions[0]] == pytest.approx(want[best], abs=1e-5)
    assert len(seen) == sum(sum(row.masked) for row in rows)


def test_the_window_is_that_of_the_row_alone_when_its_block_is_shorter_than_its_neighbours() -> None:
    """Padding of the window takes no part in a local softmax."""
    engine = Engine(TableModel(random_table(1, 48, VOCAB), mask_id=MASK, attention=ATTENTION))
    short, long = (
        SamplingParams(sampler="attention-sequential", sub_block_length=None, max_new_tokens=8, block_length=b) for b in (2, 8)
    )
    first: dict[int, Step] = {}
    engine.generate([[1], [1]], [short, long], on_step=lambda step: first.setdefault(step.row, step))
    assert first[0].window == [1, 2]
    assert sum(first[0].scores) == pytest.approx(2, abs=1e-5), "each of two rows of a softmax sums to 1"
    assert sum(first[1].scores) == pytest.approx(8, abs=1e-5)
    assert torch.tensor(first[1].scores).std() > 0

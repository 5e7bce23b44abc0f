"""Fast-dLLM's threshold with ``apart``: positions that attend to each other are not written in one pass."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attn_sampler import Engine, InvalidInputError, SamplingParams, samplers
from fakes import TableModel, one_hot, random_table
from test_pairwise import Row, batch_of, commits, some_rows


def twin(row: Row, k: int, threshold: float, apart: float) -> list[int]:
    """Down the confidences, one at a time."""
    order = sorted(row.masked, key=lambda i: (-row.p[i], i))
    taken: list[int] = []
    for place, i in enumerate(order):
        if row.p[i] < threshold and place >= k:
            continue
        free = row.p[i] >= 0.99
        before = [j for j in taken if row.p[j] < 0.99]
        if free or all((row.a[i, j] + row.a[j, i]) / 2 <= apart for j in before):
            taken.append(i)
    rest = [i for i in order if i not in taken]
    return sorted(taken + rest[: max(0, k - len(taken))])


@given(some_rows(), st.sampled_from([0.0, 0.3, 0.6]), st.sampled_from([0.0, 0.05, 0.1, 0.2, 1.0]))
def test_every_row_of_a_ragged_batch_equals_the_twin(drawn: tuple[list[Row], list[int]], threshold: float, apart: float) -> None:
    rows, quota = drawn
    sampler = samplers.build("fast-dllm", {"threshold": threshold, "apart": apart})
    commit = sampler.select(batch_of(rows, quota, "block"), {}).commit
    for row, k, chosen in zip(rows, quota, commit, strict=True):
        assert chosen.nonzero()[:, 0].tolist() == twin(row, k, threshold, apart), (row.masked, row.p)


def test_where_nothing_is_tied_it_is_the_threshold_alone() -> None:
    plain = commits("fast-dllm", threshold=0.3)
    assert max(map(len, plain)) > 1  # there is something to keep apart
    assert commits("fast-dllm", threshold=0.3, apart=1.0) == plain


def test_where_everything_is_tied_it_writes_one_at_a_time() -> None:
    attention = random_table(4, 48, 48, 2.0)
    model = TableModel(random_table(3, 48, 8, 1.0), mask_id=7, moving=True, attention=attention)  # nothing is certain
    tied = SamplingParams(sampler="fast-dllm", threshold=0.0, apart=0.0, max_new_tokens=24, ignore_eos=True)
    plain = SamplingParams(sampler="confidence", max_new_tokens=24, ignore_eos=True)
    order = [[step.positions for step in Engine(model).stream([1, 2, 3], params)] for params in (tied, plain)]
    assert order[0] == order[1]
    assert len(order[0]) == 24


def test_what_is_certain_waits_for_nobody() -> None:
    tokens = [i % 7 for i in range(24)]
    model = TableModel(one_hot(tokens, 8), mask_id=7, attention=torch.zeros(24, 24))
    params = SamplingParams(sampler="fast-dllm", max_new_tokens=23, apart=0.0, ignore_eos=True)
    result = Engine(model).generate([[1]], params)[0]
    assert result.token_ids == tokens[1:]
    assert result.forwards == 1


def test_attention_is_asked_of_the_last_layers_and_only_where_it_is_used() -> None:
    needs = samplers.build("fast-dllm", {"apart": 0.1}).needs
    assert needs.attention is not None
    assert needs.attention.of_depth(8).layers == (5, 6, 7)
    assert samplers.build("fast-dllm", {}).needs.attention is None


def test_a_wrong_limit_is_named() -> None:
    with pytest.raises(InvalidInputError) as caught:
        samplers.build("fast-dllm", {"apart": -0.1})
    assert caught.value.field == "apart"


def test_a_row_of_a_batch_writes_what_it_writes_alone() -> None:
    attention = random_table(6, 48, 48, 2.0)
    model = TableModel(random_table(5, 48, 8, 2.0), mask_id=7, moving=True, attention=attention)
    prompts = [[1], [1, 2, 3, 4, 5], [2, 2, 2]]
    params = [
        SamplingParams(sampler="fast-dllm", threshold=0.3, apart=0.05, max_new_tokens=n, block_length=b, ignore_eos=True)
        for n, b in ((20, 20), (12, 6), (32, 8))
    ]
    together = Engine(model).generate(prompts, params)
    alone = [Engine(model).generate([prompt], one)[0] for prompt, one in zip(prompts, params, strict=True)]
    assert [(r.token_ids, r.forwards) for r in together] == [(r.token_ids, r.forwards) for r in alone]
    assert any(r.forwards < len(r.token_ids) for r in alone)

"""Our own variants of Attn-Sampler: net column sums and the exact order, against brute force."""

from __future__ import annotations

import math
from itertools import permutations
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from attn_sampler import Engine, InvalidInputError, SamplingParams, orders, samplers
from attn_sampler.propose import Proposal
from attn_sampler.samplers.attention_exact import WIDEST, places_of_least_cost
from attn_sampler.seam import Window
from fakes import TableModel, random_table

NAMES = ["attention-net", "attention-exact"]


def matrix_of(seed: int, rows: int, width: int, spread: float = 2.0) -> Tensor:
    return random_table(seed, rows * width, width, spread).softmax(-1).reshape(rows, width, width)


def cost(attention: Tensor, order: tuple[int, ...]) -> float:
    """Attention that is paid to positions which are still masks: of every position to those written after it."""
    return sum(float(attention[i, j]) for n, j in enumerate(order) for i in order[:n])


flags = st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=3)


@given(flags=flags, seed=st.integers(0, 9999))
def test_no_order_costs_less_than_the_exact_one(flags: list[list[bool]], seed: int) -> None:
    """All permutations, the masked positions only. The surrogate is minimised."""
    attention, masked = matrix_of(seed, len(flags), 6), torch.tensor(flags)
    place = places_of_least_cost(attention, masked)
    for matrix, row, got in zip(attention, masked, place, strict=True):
        which = row.nonzero()[:, 0].tolist()
        found = tuple(sorted(which, key=lambda j: int(got[j])))
        assert sorted(int(got[j]) for j in which) == list(range(len(which)))
        assert (got[~row] == 6).all()
        assert cost(matrix, found) <= min(cost(matrix, order) for order in permutations(which)) + 1e-9
        costs = orders.surrogate(matrix[which][:, which], torch.tensor([[which.index(j) for j in found]], dtype=torch.long))
        assert math.isclose(float(costs[0]), cost(matrix, found), abs_tol=1e-6)


def test_the_direction_by_hand() -> None:
    """Position 0 attends to 1, so 1 is written first: 0 must not look at a mask. Its column sum is the larger one, too."""
    attention = torch.tensor([[[0.1, 0.9], [0.0, 1.0]]])
    assert places_of_least_cost(attention, torch.ones(1, 2).bool()).tolist() == [[1, 0]]
    sampler = samplers.build("attention-net-sequential", {})
    answer = sampler.select(window(attention, torch.ones(1, 2).bool(), torch.ones(1, 2)), {})
    torch.testing.assert_close(answer.score, torch.tensor([[-0.9, 0.9]]))
    assert answer.commit.tolist() == [[False, True]]


@given(seed=st.integers(0, 9999), width=st.integers(1, 9))
def test_orders_of_equal_cost_put_the_smaller_index_first(seed: int, width: int) -> None:
    """What i pays j and j pays i is the same: every order costs the same. Entries of three bits, so that sums are exact."""
    half = torch.randint(0, 8, (1, width, width), generator=torch.Generator().manual_seed(seed)) / 8
    place = places_of_least_cost(half + half.mT, torch.ones(1, width).bool())
    assert place.tolist() == [list(range(width))]


@given(flags=flags, seed=st.integers(0, 9999), room=st.integers(1, 3))
def test_padding_and_company_change_no_order(flags: list[list[bool]], seed: int, room: int) -> None:
    attention, masked = matrix_of(seed, len(flags), 6), torch.tensor(flags)
    wide, more = torch.rand(len(flags), 6 + room, 6 + room), torch.zeros(len(flags), 6 + room, dtype=torch.bool)
    wide[:, :6, :6], more[:, :6] = attention, masked
    together = places_of_least_cost(wide, more)
    for k in range(len(flags)):
        alone = places_of_least_cost(attention[k : k + 1], masked[k : k + 1])[0]
        assert together[k, :6].masked_fill(~masked[k], 0).tolist() == alone.masked_fill(~masked[k], 0).tolist()


def window(attention: Tensor, masked: Tensor, confidence: Tensor, quota: int = 1) -> Window:
    zero = torch.zeros(len(masked), dtype=torch.long)
    proposal = Proposal(zero[:, None].expand(masked.shape), confidence, torch.zeros(*masked.shape, 2))
    positions = torch.arange(masked.shape[1]).expand(masked.shape)
    return Window(positions, masked, proposal, zero + quota, zero, zero, zero, pairwise=attention)


@given(flags=flags, seed=st.integers(0, 9999), quota=st.integers(1, 3), tau=st.sampled_from([0.3, 0.6, 1.0]))
def test_the_parallel_forms_walk_along_the_order_while_it_is_sure(
    flags: list[list[bool]], seed: int, quota: int, tau: float
) -> None:
    attention, masked = matrix_of(seed, len(flags), 6), torch.tensor(flags)
    confidence = random_table(seed + 1, len(flags), 6, 1.0).sigmoid()
    seen = window(attention, masked, confidence, quota)
    for name in NAMES:
        answer = samplers.build(name, {"threshold": tau}).select(seen, {})
        first = samplers.build(f"{name}-sequential", {}).select(seen, {})
        assert torch.equal(answer.score, first.score)
        for k, row in enumerate(masked):
            which = row.nonzero()[:, 0].tolist()
            if name == "attention-exact":
                along = min(permutations(which), key=lambda order: cost(attention[k], order))
            else:
                net = {j: sum(float(attention[k, i, j] - attention[k, j, i]) for i in which) for j in which}
                along = tuple(sorted(which, key=lambda j: -net[j]))
            walk: list[int] = []
            for j in along:
                if confidence[k, j] <= tau:
                    break
                walk.append(j)
            if len(walk) < min(quota, len(along)):
                walk = list(along[:quota])
            assert answer.commit[k].nonzero()[:, 0].tolist() == sorted(walk), name
            assert first.commit[k].nonzero()[:, 0].tolist() == sorted(along[:quota]), name


def commits(name: str, **options: Any) -> list[list[int]]:
    model = TableModel(random_table(3, 48, 8), mask_id=7, moving=True, attention=random_table(4, 48, 48, 2.0))
    params = SamplingParams(sampler=name, max_new_tokens=24, block_length=12, ignore_eos=True, **options)
    return [step.positions for step in Engine(model).stream([1, 2, 3], params)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("options", [{}, {"norm": "global", "window": "leftmost", "sub_block_length": 5}])
def test_a_threshold_of_one_is_the_sequential_form(name: str, options: dict[str, Any]) -> None:
    assert commits(name, threshold=1.0, **options) == commits(f"{name}-sequential", **options)


def test_net_sums_of_a_symmetric_matrix_are_all_zero_and_ties_go_to_the_surer_position() -> None:
    half = matrix_of(0, 1, 5)
    answer = samplers.build("attention-net-sequential", {}).select(
        window(half + half.mT, torch.ones(1, 5).bool(), torch.tensor([[0.1, 0.2, 0.9, 0.3, 0.9]])), {}
    )
    assert not answer.score.any()
    assert answer.commit.tolist() == [[False, False, True, False, False]]


@pytest.mark.parametrize("given", [13, 0, None, 2.0])
@pytest.mark.parametrize("name", ["attention-exact", "attention-exact-sequential"])
def test_a_window_too_wide_for_the_exact_order_is_refused(name: str, given: Any) -> None:
    with pytest.raises(InvalidInputError, match="from 1 to 12") as caught:
        samplers.build(name, {"sub_block_length": given})
    assert caught.value.field == "sub_block_length"


def test_a_window_made_by_hand_is_refused_likewise() -> None:
    width = WIDEST + 1
    with pytest.raises(InvalidInputError, match="at most 12") as caught:
        places_of_least_cost(torch.rand(1, width, width), torch.ones(1, width).bool())
    assert caught.value.field == "sub_block_length"
    assert places_of_least_cost(torch.eye(WIDEST)[None], torch.ones(1, WIDEST).bool()).tolist() == [list(range(WIDEST))]


@pytest.mark.parametrize("option", ["rows", "diag", "refresh"])
def test_options_that_would_mean_nothing_are_unknown(option: str) -> None:
    for name in NAMES:
        with pytest.raises(InvalidInputError, match=option):
            samplers.build(name, {option: None})

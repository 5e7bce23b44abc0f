"""Orders by attention against brute force over all permutations, and what is proved of them in docs/orders.md."""

from __future__ import annotations

from itertools import pairwise, permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from attn_sampler import orders
from attn_sampler.errors import InvalidInputError

EIGHTHS = st.integers(0, 8).map(lambda x: x / 8)  # sums of them are exact, and ties are common


@st.composite
def matrices(draw: st.DrawFn, low: int = 1, high: int = 6) -> Tensor:
    n = draw(st.integers(low, high))
    row = st.lists(EIGHTHS, min_size=n, max_size=n)
    return torch.tensor(draw(st.lists(row, min_size=n, max_size=n)))


def every_order(n: int) -> Tensor:
    return torch.tensor(list(permutations(range(n))))


def attention(seed: int, n: int, spread: float = 1.0) -> Tensor:
    return (torch.randn(n, n, generator=torch.Generator().manual_seed(seed)) * spread).softmax(-1)


def twin(matrix: Tensor, order: tuple[int, ...]) -> float:
    """The surrogate by its definition: for every position, what those written before it pay to it."""
    return sum(float(matrix[i, j]) for place, j in enumerate(order) for i in order[:place])


# --- the value --------------------------------------------------------------------------------------------------------


@given(matrices(high=5))
def test_the_surrogate_is_its_definition(matrix: Tensor) -> None:
    each = list(permutations(range(len(matrix))))
    found = orders.surrogate(matrix, torch.tensor(each))
    assert found.tolist() == [twin(matrix, order) for order in each]
    assert float(orders.mean_surrogate(matrix)) == pytest.approx(float(found.mean()), abs=1e-12)


def test_what_everybody_looks_at_comes_first() -> None:
    """The sign: if position 1 alone is attended to, an order is the better the earlier position 1 is written."""
    matrix = torch.tensor([[0.0, 1.0, 0.0]] * 3)
    costs = orders.surrogate(matrix, torch.tensor([[1, 0, 2], [0, 1, 2], [0, 2, 1]]))
    assert costs.tolist() == [0.0, 1.0, 2.0]
    assert orders.rank_order(matrix).tolist() == [1, 0, 2]


@given(matrices(low=2, high=5), EIGHTHS, st.integers(1, 4))
def test_constants_of_a_pair_factors_and_the_diagonal_change_no_comparison(matrix: Tensor, amount: float, factor: int) -> None:
    each = every_order(len(matrix))
    costs = orders.surrogate(matrix, each)
    pair = torch.zeros_like(matrix)
    pair[0, 1] = pair[1, 0] = amount
    moved = orders.surrogate(factor * (matrix + pair) + 3 * torch.eye(len(matrix)), each)
    assert torch.equal(moved, factor * (costs + amount))


# --- the best order ---------------------------------------------------------------------------------------------------


@given(matrices())
def test_the_exact_order_is_the_best_of_all(matrix: Tensor) -> None:
    order = orders.exact_order(matrix)
    assert sorted(order.tolist()) == list(range(len(matrix)))
    assert float(orders.surrogate(matrix, order[None])) == float(orders.surrogate(matrix, every_order(len(matrix))).min())


def test_the_exact_order_of_seven_positions() -> None:
    each = every_order(7)
    for seed in range(5):
        matrix = attention(seed, 7)
        found = orders.surrogate(matrix, orders.exact_order(matrix)[None])
        assert float(found) == pytest.approx(float(orders.surrogate(matrix, each).min()), abs=1e-12)


@given(st.integers(0, 1000), st.integers(1, 5))
def test_a_path_over_subsets_is_the_best_of_all(seed: int, n: int) -> None:
    """Costs that depend on the subset in any way, not through a matrix; those of positions already written do not matter."""
    costs = torch.randn(1 << n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    best = min(
        sum(float(costs[sum(1 << i for i in order[:place]), j]) for place, j in enumerate(order))
        for order in permutations(range(n))
    )
    order, value = orders.path_over_subsets(costs)
    assert float(value) == pytest.approx(best, abs=1e-12)
    assert sum(
        float(costs[sum(1 << i for i in order.tolist()[:place]), j]) for place, j in enumerate(order.tolist())
    ) == pytest.approx(best, abs=1e-12)


@given(matrices(high=5))
def test_subset_costs_are_their_definition(matrix: Tensor) -> None:
    n = len(matrix)
    costs = orders.subset_costs(matrix)
    for subset in range(1 << n):
        inside = [i for i in range(n) if subset >> i & 1]
        assert torch.equal(costs[subset], matrix[inside].double().sum(0))


def test_twenty_positions_are_the_most() -> None:
    """A tournament with a known best order, so that the whole table of 2^20 subsets is checked."""
    hidden = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    matrix = torch.zeros(20, 20)
    matrix[hidden[:, None], hidden] = torch.ones(20, 20).tril(-1)  # looks back at everything that is to be written before it
    assert torch.equal(orders.exact_order(matrix), hidden)
    with pytest.raises(InvalidInputError, match=r"positions=21: the exact order is for at most 20; beyond, take local_search"):
        orders.exact_order(torch.zeros(21, 21))


# --- beyond -----------------------------------------------------------------------------------------------------------


def insertions(order: list[int]) -> list[list[int]]:
    out = []
    for p, x in enumerate(order):
        rest = order[:p] + order[p + 1 :]
        out += [[*rest[:q], x, *rest[q:]] for q in range(len(order))]
    return out


@given(matrices(low=2), st.randoms(use_true_random=False))
def test_local_search_ends_where_no_insertion_helps(matrix: Tensor, rng: object) -> None:
    n = len(matrix)
    starts = every_order(n)[[rng.randrange(len(every_order(n))) for _ in range(3)]]  # type: ignore[attr-defined]
    found = orders.local_search(matrix, starts)
    before, after = orders.surrogate(matrix, starts), orders.surrogate(matrix, found)
    assert (after <= before).all()
    for order, cost in zip(found.tolist(), after, strict=True):
        assert sorted(order) == list(range(n))
        assert orders.surrogate(matrix, torch.tensor(insertions(order))).min() >= cost - 1e-9


@given(matrices(low=2), st.integers(1, 7))
def test_the_lower_bound_is_one(matrix: Tensor, group: int) -> None:
    optimum = float(orders.surrogate(matrix, orders.exact_order(matrix)[None]))
    bound = float(orders.lower_bound(matrix, group))
    assert bound <= optimum + 1e-12
    if group >= len(matrix):
        assert bound == pytest.approx(optimum, abs=1e-12)
    if group == 1:
        assert bound == sum(float(min(matrix[i, j], matrix[j, i])) for i in range(len(matrix)) for j in range(i))


def test_forty_positions() -> None:
    """Too many for the exact order; a planted order must come out, and the bound must prove it."""
    hidden = torch.randperm(40, generator=torch.Generator().manual_seed(2))
    matrix = torch.full((40, 40), 0.1)
    matrix[hidden[:, None], hidden] += torch.rand(40, 40, generator=torch.Generator().manual_seed(3)).tril(-1)
    start = torch.stack([torch.arange(40), torch.arange(40).flip(0)])
    found = orders.local_search(matrix, start)
    cost = orders.surrogate(matrix, found).min()
    assert float(orders.lower_bound(matrix)) == pytest.approx(float(cost), rel=1e-9)
    assert float(cost) == pytest.approx(0.1 * 40 * 39 / 2, rel=1e-6)


# --- cheap orders -----------------------------------------------------------------------------------------------------


def greedy_twin(matrix: Tensor, diagonal: bool, net: bool) -> list[int]:
    left, out = list(range(len(matrix))), []
    while left:
        score = {
            j: sum(float(matrix[i, j]) - (float(matrix[j, i]) if net else 0.0) for i in left if net or diagonal or i != j)
            for j in left
        }
        out.append(max(left, key=lambda j: (score[j], -j)))
        left.remove(out[-1])
    return out


@given(matrices(), st.booleans(), st.booleans())
def test_greedy_orders_are_decided_anew_over_what_is_left(matrix: Tensor, diagonal: bool, net: bool) -> None:
    assert orders.greedy_order(matrix, diagonal=diagonal, net=net).tolist() == greedy_twin(matrix, diagonal, net)


@given(matrices())
def test_rank_orders_are_sorted_sums(matrix: Tensor) -> None:
    n = range(len(matrix))
    total = [sum(float(matrix[i, j]) for i in n) for j in n]
    assert orders.rank_order(matrix).tolist() == sorted(n, key=lambda j: (-total[j], j))
    off = [total[j] - float(matrix[j, j]) for j in n]
    assert orders.rank_order(matrix, diagonal=False).tolist() == sorted(n, key=lambda j: (-off[j], j))
    net = [total[j] - sum(float(matrix[j, i]) for i in n) for j in n]
    assert orders.rank_order(matrix, net=True).tolist() == sorted(n, key=lambda j: (-net[j], j))


@given(st.lists(st.integers(0, 20), min_size=1, max_size=7))
def test_equal_rows_make_the_column_sum_optimal(row: list[int]) -> None:
    matrix = torch.tensor([row] * len(row), dtype=torch.float64)
    best = orders.surrogate(matrix, orders.exact_order(matrix)[None])
    assert torch.equal(orders.surrogate(matrix, orders.rank_order(matrix)[None]), best)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=7))
def test_additive_matrices_make_the_net_order_optimal(parts: list[tuple[int, int, int]]) -> None:
    a, b, diagonal = (torch.tensor(x, dtype=torch.float64) for x in zip(*parts, strict=True))
    matrix = (a[:, None] + b).fill_diagonal_(0) + diagonal.diag()
    best = orders.surrogate(matrix, orders.exact_order(matrix)[None])
    for found in (orders.rank_order(matrix, net=True), orders.greedy_order(matrix, net=True)):
        assert torch.equal(orders.surrogate(matrix, found[None]), best)


@given(st.integers(0, 1000), st.integers(2, 7))
def test_with_rows_of_one_sum_the_literal_column_sum_is_the_net_one(seed: int, n: int) -> None:
    matrix = attention(seed, n).double()
    assert torch.equal(orders.rank_order(matrix), orders.rank_order(matrix, net=True))


# --- hardness ---------------------------------------------------------------------------------------------------------


@st.composite
def digraphs(draw: st.DrawFn) -> Tensor:
    n = draw(st.integers(2, 5))
    weight = st.integers(0, 3)
    return torch.tensor(draw(st.lists(st.lists(weight, min_size=n, max_size=n), min_size=n, max_size=n))).double()


def backward(weights: Tensor, order: tuple[int, ...]) -> float:
    """Weight of the arcs u → v with v before u."""
    return sum(float(weights[u, v]) for place, u in enumerate(order) for v in order[:place])


@given(digraphs(), st.sampled_from([0.0, 0.5]))
def test_the_reduction_keeps_every_comparison(weights: Tensor, floor: float) -> None:
    n = len(weights)
    matrix = orders.tournament_attention(weights, floor)
    assert torch.allclose(matrix.sum(1), torch.ones(n, dtype=torch.float64))
    assert (matrix > 0).all() if floor else (matrix >= 0).all()
    each = list(permutations(range(n)))
    arcs = weights - weights.diagonal().diag()
    scale = float((arcs.mT + floor - floor * torch.eye(n)).sum(1).max()) + bool(floor) or 1.0
    expected = [(backward(weights, order) + floor * n * (n - 1) / 2) / scale for order in each]
    assert orders.surrogate(matrix, torch.tensor(each)).tolist() == pytest.approx(expected, abs=1e-12)


@given(digraphs())
def test_an_optimal_order_of_attention_is_a_least_feedback_arc_set(weights: Tensor) -> None:
    order = orders.exact_order(orders.tournament_attention(weights))
    assert backward(weights, tuple(order.tolist())) == min(backward(weights, o) for o in permutations(range(len(weights))))


def test_an_acyclic_graph_costs_nothing() -> None:
    weights = torch.zeros(5, 5)
    for u, v in pairwise([3, 0, 4, 1, 2]):
        weights[u, v] = 1.0
    matrix = orders.tournament_attention(weights)
    assert orders.exact_order(matrix).tolist() == [3, 0, 4, 1, 2]
    assert float(orders.surrogate(matrix, orders.exact_order(matrix)[None])) == 0.0


def test_a_softmax_layer_can_have_the_matrix() -> None:
    """Queries √n log A_i and keys e_j give A itself: hard instances are attention, not only row-stochastic matrices."""
    matrix = orders.tournament_attention(torch.tensor([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]]), floor=0.5)
    query, key = 3**0.5 * matrix.log(), torch.eye(3, dtype=torch.float64)
    seen = torch.nn.functional.scaled_dot_product_attention(query[None], key[None], key[None])[0]  # values e_j: returns A
    assert torch.allclose(seen, matrix)


def test_wrong_graphs_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"weights=-1\.0: give no negative ones"):
        orders.tournament_attention(torch.tensor([[0.0, -1.0], [0.0, 0.0]]))
    with pytest.raises(InvalidInputError, match=r"floor=-0\.5: give 0, or more"):
        orders.tournament_attention(torch.zeros(2, 2), floor=-0.5)

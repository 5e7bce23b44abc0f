"""The theory of the order: what an order costs by the attention matrix, the best order, and orders that are cheap to find.

``matrix[i, j]`` is the attention that position i (a query row) pays to position j (a key column). If i is written while j is
still a mask, i sees the mask's value in place of the token's, an error of at most ``matrix[i, j]`` times a constant. With a
matrix that stays the same, an order therefore costs at most a constant times its *surrogate*

    Σ_j Σ_{i written before j} matrix[i, j],

which is to be small (arXiv 2604.08564; the derivation is ours, docs/orders.md). To minimise it is the linear ordering problem,
which is NP-hard; `tournament_attention` is the reduction. The diagonal never counts. An order lists positions, the first written
first.

Everything is added up in float64, so that orders of equal cost stay equal.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from attn_sampler.errors import InvalidInputError

__all__ = [
    "EXACT_LIMIT",
    "exact_order",
    "greedy_order",
    "local_search",
    "lower_bound",
    "mean_surrogate",
    "path_over_subsets",
    "rank_order",
    "subset_costs",
    "surrogate",
    "tournament_attention",
]

EXACT_LIMIT = 20
"""Most positions for the exact optimum: 2^20 subsets, 20 costs of 8 bytes each, 168 MB."""


def surrogate(matrix: Float[Tensor, "n n"], orders: Int[Tensor, "orders n"]) -> Float64[Tensor, " orders"]:
    """What each order costs: the part of the matrix, rows and columns put in that order, that lies above the diagonal."""
    return matrix.double()[orders[:, :, None], orders[:, None, :]].triu(1).sum((1, 2))


def mean_surrogate(matrix: Float[Tensor, "n n"]) -> Float64[Tensor, ""]:
    """The average over all n! orders: of two positions either is first in half of them."""
    return (matrix.double().sum() - matrix.double().trace()) / 2


# --- the best order -------------------------------------------------------------------------------------------------


def subset_costs(matrix: Float[Tensor, "n n"]) -> Float64[Tensor, "subsets n"]:
    """Cost of writing position j when exactly the positions of a subset are written: Σ_{i in subset} matrix[i, j].

    Subsets are numbered by their bits: bit i of the row's number says whether position i is in it.
    """
    n = len(matrix)
    costs = matrix.new_zeros((1 << n, n), dtype=torch.float64)  # each position doubles the part that is filled
    for i, row in enumerate(matrix.double()):
        torch.add(costs[: 1 << i], row, out=costs[1 << i : 2 << i])
    return costs


def path_over_subsets(costs: Float[Tensor, "subsets n"]) -> tuple[Int[Tensor, " n"], Float64[Tensor, ""]]:
    """The order whose summed costs are least, and that sum, where a step's cost depends on *which* positions are written already.

    Dynamic programming over subsets (Held and Karp, 1962): the best way to have written a subset ends with one of its positions.
    All subsets of one size are done at once. 2^n · n costs are looked at, not n! orders.

    Args:
        costs: of writing position j (column) after a subset (row, numbered as in `subset_costs`); where j is in it, ignored.
    """
    size, n = costs.shape
    bits = 1 << torch.arange(n, device=costs.device)
    subsets = torch.arange(size, device=costs.device)
    count = sum(((subsets >> i) & 1 for i in range(n)), torch.zeros_like(subsets))
    layers = subsets[count.argsort(stable=True)].split(torch.bincount(count, minlength=n + 1).tolist())
    columns = torch.arange(n, device=costs.device)
    best = costs.new_zeros(size, dtype=torch.float64)
    for layer in layers[1:]:
        before = layer[:, None] & ~bits  # the subset without each position; itself where the position is not in it
        total = best[before] + costs[before, columns]
        best[layer] = total.masked_fill(before == layer[:, None], torch.inf).amin(1)
    order, reached = [], subsets[-1]
    for _ in range(n):  # backwards: which position can have come last
        before = reached & ~bits
        total = (best[before] + costs[before, columns]).masked_fill(before == reached, torch.inf)
        order.append(total.argmin())
        reached = before[order[-1]]
    return torch.stack(order[::-1]), best[-1]


def exact_order(matrix: Float[Tensor, "n n"]) -> Int[Tensor, " n"]:
    """An order of least surrogate.

    Raises:
        InvalidInputError: more than `EXACT_LIMIT` positions.
    """
    if len(matrix) > EXACT_LIMIT:
        remedy = f"the exact order is for at most {EXACT_LIMIT}; beyond, take local_search and lower_bound"
        raise InvalidInputError("positions", len(matrix), remedy)
    return path_over_subsets(subset_costs(matrix))[0]


# --- beyond the exact optimum ---------------------------------------------------------------------------------------


def local_search(matrix: Float[Tensor, "n n"], starts: Int[Tensor, "orders n"]) -> Int[Tensor, "orders n"]:
    """Each start improved until no position, taken out and put in elsewhere, makes it cheaper.

    The best of all n² insertions is made at every turn, in all orders at once.
    """
    matrix = matrix.double()
    least = 1e-12 * matrix.abs().sum()  # less than that is rounding, and could go round in circles
    orders, place = starts, torch.arange(starts.shape[1], device=starts.device)
    while True:
        change = _insertions(matrix, orders)
        best, move = change.flatten(1).min(1)
        better = best < -least
        if not better.any():
            return orders
        old, new = (part[:, None] for part in (move // len(place), move % len(place)))
        source = place + ((place >= old) & (place < new)).long() - ((place <= old) & (place > new)).long()
        source = torch.where(place == new, old, source)
        orders = torch.where(better[:, None], orders.gather(1, source), orders)


def _insertions(matrix: Float64[Tensor, "n n"], orders: Int[Tensor, "orders n"]) -> Float64[Tensor, "orders n n"]:
    """What the surrogate changes by when the position at place p (axis 1) is moved to place q (axis 2).

    It swaps with everything it passes; swapping neighbours a, b costs matrix[b, a] - matrix[a, b].
    """
    ordered = matrix[orders[:, :, None], orders[:, None, :]]
    lead = ordered - ordered.mT  # what it saves to have the column before the row
    passed = lead.cumsum(2)
    return passed.diagonal(dim1=1, dim2=2)[..., None] - passed + lead.tril()


def lower_bound(matrix: Float[Tensor, "n n"], group: int = 12) -> Float64[Tensor, ""]:
    """A number that no order's surrogate is below.

    The positions are cut into stretches of ``group``: inside one, no order does better than the stretch's own optimum; of two
    positions in different ones, either comes first. Up to ``group`` positions it is the optimum itself.
    """
    low = torch.minimum(matrix, matrix.mT).double()
    total = low.triu(1).sum()
    for first in range(0, len(matrix), group):
        stretch = slice(first, first + group)
        total = total + path_over_subsets(subset_costs(matrix[stretch, stretch]))[1] - low[stretch, stretch].triu(1).sum()
    return total


# --- cheap orders ---------------------------------------------------------------------------------------------------


def rank_order(matrix: Float[Tensor, "n n"], *, diagonal: bool = True, net: bool = False) -> Int[Tensor, " n"]:
    """Descending column sums: the paper's rank approximation, ties to the smaller position.

    It is optimal where all rows are equal. Where every row adds up to the same with its diagonal, the sum with the diagonal *is*
    the net one up to a constant, so the diagonal, which costs nothing, is rightly kept.

    Args:
        diagonal: whether a position's attention to itself counts (the literal column sum).
        net: column minus row sum (the diagonal cancels); optimal where matrix[i, j] = a_i + b_j off the diagonal. Not the
            paper's.
    """
    return _scores(matrix.double(), diagonal, net).argsort(descending=True, stable=True)


def greedy_order(matrix: Float[Tensor, "n n"], *, diagonal: bool = True, net: bool = False) -> Int[Tensor, " n"]:
    """`rank_order` decided anew after every position, over the rows and columns not written yet."""
    left, order = torch.arange(len(matrix), device=matrix.device), []
    while len(left):
        scores = _scores(matrix.double()[left[:, None], left], diagonal, net)
        first = scores.argsort(descending=True, stable=True)[0]
        order.append(left[first])
        left = left[torch.arange(len(left), device=left.device) != first]
    return torch.stack(order)


def _scores(matrix: Float64[Tensor, "n n"], diagonal: bool, net: bool) -> Float64[Tensor, " n"]:
    columns = matrix.sum(0)
    if net:
        return columns - matrix.sum(1)
    return columns if diagonal else columns - matrix.diagonal()


# --- hardness -------------------------------------------------------------------------------------------------------


def tournament_attention(weights: Float[Tensor, "n n"], floor: float = 0.0) -> Float64[Tensor, "n n"]:
    """A row-stochastic matrix whose cheapest orders are those that turn the least weight of a directed graph backwards.

    This is the reduction from the feedback arc set problem (R. M. Karp, 1972). ``weights[u, v]`` is the weight of the arc u → v.
    It points backwards in an order that has v before u, so it must cost that order: matrix[v, u] is made of weights[u, v].
    Neither a common factor nor the same amount added to matrix[i, j] and matrix[j, i] changes which of two orders is cheaper, and
    the diagonal costs nothing, so it takes what a row lacks to 1.

    Args:
        weights: none negative; the diagonal is ignored.
        floor: added to every entry off the diagonal; above 0 every entry is positive, as a softmax's are.

    Returns:
        a matrix with surrogate(order) = backward weight / c + floor / c · n (n - 1) / 2, c its largest row sum before scaling
        (1 more with a floor, so that the diagonal is positive too).
    """
    if (weights < 0).any():
        raise InvalidInputError("weights", float(weights.min()), "give no negative ones: turn the arc round instead")
    if floor < 0:
        raise InvalidInputError("floor", floor, "give 0, or more")
    backward = weights.double().mT + floor
    backward = backward - backward.diagonal().diag()
    scale = backward.sum(1).max() + (1.0 if floor else 0.0)
    scaled = backward / torch.where(scale == 0, torch.ones_like(scale), scale)
    return scaled + (1 - scaled.sum(1)).diag()

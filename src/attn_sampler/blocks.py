"""The answer cut into blocks, windows inside them, and the number of commits that a step owes.

Blocks of ``block_length`` positions are counted from ``canvas.start`` (so that those of a block-causal model stay aligned); the
*active* block of a row is the one that holds its first masked position, so it is a function of the canvas and needs no state.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from attn_sampler.canvas import Canvas

__all__ = ["active_span", "leftmost_masked", "quota", "quota_until", "span_positions"]


def active_span(
    start: Int[Tensor, " rows"], end: Int[Tensor, " rows"], first: Int[Tensor, " rows"], length: Int[Tensor, " rows"] | int
) -> tuple[Int[Tensor, " rows"], Int[Tensor, " rows"]]:
    """Bounds [low, high) of the stretch of ``length`` positions, counted from ``start``, that holds position ``first``."""
    low = start + (first - start) // length * length
    return low, torch.minimum(low + length, end)


def span_positions(
    low: Int[Tensor, " rows"], high: Int[Tensor, " rows"], width: int
) -> tuple[Int[Tensor, "rows width"], Bool[Tensor, "rows width"]]:
    """Positions low .. low+width-1 and which of them lie below ``high``; the others repeat the last valid one."""
    positions = low[:, None] + torch.arange(width, device=low.device)
    return torch.minimum(positions, high[:, None] - 1), positions < high[:, None]


def leftmost_masked(
    canvas: Canvas, rows: Int[Tensor, " some"], low: Int[Tensor, " some"], high: Int[Tensor, " some"], width: int
) -> tuple[Int[Tensor, "some width"], Bool[Tensor, "some width"]]:
    """The first ``width`` masked positions in [low, high), in order, and which entries are real."""
    index = torch.arange(canvas.ids.shape[1], device=low.device)
    masked = canvas.masked[rows] & (index >= low[:, None]) & (index < high[:, None])
    count = masked.sum(1, keepdim=True)
    order = (~masked).int().argsort(dim=1, stable=True)[:, :width]  # masked positions first, each part in ascending order
    rank = torch.arange(order.shape[1], device=low.device)
    return torch.where(rank < count, order, order[:, :1]), rank < count


def quota(masked: Int[Tensor, " rows"], steps: Int[Tensor, " rows"], step: Int[Tensor, " rows"]) -> Int[Tensor, " rows"]:
    """Commits owed at forward ``step`` of a block that began with ``masked`` masks and gets ``steps`` forwards.

    LLaDA's ``get_num_transfer_tokens`` (arXiv 2502.09992): an equal share each, the first ``masked % steps`` steps one more.
    """
    return masked // steps + (step < masked % steps).long()


def quota_until(masked: Int[Tensor, " rows"], steps: Int[Tensor, " rows"], step: Int[Tensor, " rows"]) -> Int[Tensor, " rows"]:
    """Sum of `quota` over the first ``step`` forwards."""
    return step * (masked // steps) + torch.minimum(step, masked % steps)

"""The canvas: the ids of a batch of rows, and which of them are still masked.

Rows have different lengths and are padded on the right, so that position ``i`` means the same for a row in a batch and for
that row alone. A canvas is a value: `commit` returns a new one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from attn_sampler.errors import InvalidInputError

__all__ = ["Canvas", "commit", "from_rows", "integers", "keep_rows", "pad_behind", "remask", "settled", "stack"]


@dataclass(frozen=True)
class Canvas:
    """A batch of rows.

    Attributes:
        ids: token ids; the mask id where ``masked``, the pad id from ``end`` on.
        masked: positions still to be written.
        given: positions that were given; nothing ever writes them.
        start: where blocks are counted from: the first position of the answer, or the beginning of the model's own block
            that holds it.
        end: number of positions of the row; what follows is padding.
    """

    ids: Int[Tensor, "rows length"]
    masked: Bool[Tensor, "rows length"]
    given: Bool[Tensor, "rows length"]
    start: Int[Tensor, " rows"]
    end: Int[Tensor, " rows"]

    @property
    def valid(self) -> Bool[Tensor, "rows length"]:
        """Positions that belong to their row (not padding)."""
        return torch.arange(self.ids.shape[1], device=self.ids.device) < self.end[:, None]


def from_rows(
    rows: Sequence[Sequence[int]], masked: Sequence[Sequence[bool]], start: Sequence[int], pad_id: int, device: torch.device
) -> Canvas:
    """A canvas from one list of ids and one list of flags per row."""
    length = max(map(len, rows))
    ids = torch.tensor([[*row, *[pad_id] * (length - len(row))] for row in rows], device=device)
    flags = torch.tensor([[*row, *[False] * (length - len(row))] for row in masked], device=device)
    end = torch.tensor([len(row) for row in rows], device=device)
    given = ~flags & (torch.arange(length, device=device) < end[:, None])
    return Canvas(ids, flags, given, torch.tensor(list(start), device=device), end)


def stack(upper: Canvas, lower: Canvas, pad_id: int) -> Canvas:
    """The rows of both, padded to the longer one."""
    length = max(upper.ids.shape[1], lower.ids.shape[1])

    def widen(x: Tensor, fill: int | bool) -> Tensor:
        return torch.nn.functional.pad(x, (0, length - x.shape[1]), value=fill)

    return Canvas(
        torch.cat([widen(upper.ids, pad_id), widen(lower.ids, pad_id)]),
        torch.cat([widen(upper.masked, False), widen(lower.masked, False)]),
        torch.cat([widen(upper.given, False), widen(lower.given, False)]),
        torch.cat([upper.start, lower.start]),
        torch.cat([upper.end, lower.end]),
    )


def keep_rows(canvas: Canvas, rows: Int[Tensor, " kept"]) -> Canvas:
    """The given rows only, cut to the longest of them."""
    end = canvas.end[rows]
    length = int(end.max()) if len(rows) else 0
    ids, masked, given = (x[rows, :length] for x in (canvas.ids, canvas.masked, canvas.given))
    return Canvas(ids, masked, given, canvas.start[rows], end)


def commit(
    canvas: Canvas,
    rows: Int[Tensor, " some"],
    positions: Int[Tensor, "some width"],
    tokens: Int[Tensor, "some width"],
    select: Bool[Tensor, "some width"],
) -> Canvas:
    """Write ``tokens`` at ``positions`` of ``rows`` where ``select``; those positions are masked no longer."""
    where = (rows[:, None].expand_as(positions)[select], positions[select])
    ids, masked = canvas.ids.clone(), canvas.masked.clone()
    ids[where] = tokens[select]
    masked[where] = False
    return replace(canvas, ids=ids, masked=masked)


def remask(
    canvas: Canvas,
    rows: Int[Tensor, " some"],
    positions: Int[Tensor, "some width"],
    select: Bool[Tensor, "some width"],
    mask_id: int,
) -> Canvas:
    """Mask ``positions`` of ``rows`` again where ``select``."""
    where = (rows[:, None].expand_as(positions)[select], positions[select])
    ids, masked = canvas.ids.clone(), canvas.masked.clone()
    ids[where] = mask_id
    masked[where] = True
    return replace(canvas, ids=ids, masked=masked)


def pad_behind(canvas: Canvas, rows: Bool[Tensor, " rows"], end_ids: Sequence[int], pad_id: int) -> Canvas:
    """Padding in place of every mask that stands behind a written token of ``end_ids``, in ``rows``."""
    ends = torch.isin(canvas.ids, torch.tensor(list(end_ids), device=canvas.ids.device)) & ~canvas.masked & ~canvas.given
    padded = canvas.masked & (ends.cumsum(1) > 0) & rows[:, None]
    return replace(canvas, ids=torch.where(padded, pad_id, canvas.ids), masked=canvas.masked & ~padded)


def settled(canvas: Canvas) -> Int[Tensor, " rows"]:
    """First masked position of each row, or its end: everything before it can no longer change."""
    first = canvas.masked.int().argmax(1)
    return torch.where(canvas.masked.any(1), first, canvas.end)


def integers(field: str, value: object, high: int) -> Int[Tensor, "rows length"]:
    """What a caller gave as ``field``, as integers from 0 to ``high``; a single row may come without its rows axis.

    Raises:
        InvalidInputError: no integers, out of range, or of the wrong shape.
    """
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):  # no numbers, rows of different lengths, or beyond int64
        raise InvalidInputError(field, value, f"give rows of equal length with integers from 0 to {high}") from None
    tensor = tensor[None] if tensor.ndim == 1 else tensor
    if tensor.ndim != 2 or not tensor.numel():
        raise InvalidInputError(field, tuple(tensor.shape), "give (rows, length), neither of them 0")
    if tensor.is_floating_point() or tensor.is_complex():
        raise InvalidInputError(field, tensor.dtype, f"give integers from 0 to {high}")
    tensor = tensor.long()
    low, top = (int(end) for end in tensor.aminmax())
    if low < 0 or top > high:
        raise InvalidInputError(field, [low, top], f"give integers from 0 to {high}")
    return tensor

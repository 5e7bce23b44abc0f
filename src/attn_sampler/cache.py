"""KV caches as window policies: which positions of a row a forward pass computes, and slots that hold the rest.

A policy is not another loop. It says which stretch of the canvas runs through the network in this step; the keys and values of
all other positions are those of the last time they ran. Slots belong to rows: position ``p`` of a row has slot ``p``, whatever
its neighbours in the batch do.

========== ======================================================================================================
none       everything (up to the end of the active block where the model is block-causal: nothing after it is seen)
block      from where the settled text was last computed to the end of the active block; exact for block-causal models
sub-block  within a block computed once, the active sub-block only (Fast-dLLM v2's block cache)
prefix     the active block and all after it (Fast-dLLM v1); the whole canvas when a block begins
dual       the active block only (Fast-dLLM v1); the whole canvas when a block begins
========== ======================================================================================================

The last two compute the whole canvas again when a row's ``refresh_every`` or ``refresh_tokens`` says so, and follow the window of
a method without blocks where that slides (DCD).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["Slots", "Stretch"]


@dataclass(frozen=True)
class Stretch:
    """The positions that one forward pass computes, low .. high-1 of each row, and the slots of all others.

    Attributes:
        width: of the widest row; narrower ones repeat their last position.
    """

    slots: Slots
    low: Int[Tensor, " rows"]
    high: Int[Tensor, " rows"]
    width: int

    @property
    def positions(self) -> Int[Tensor, "rows width"]:
        place = self.low[:, None] + torch.arange(self.width, device=self.low.device)
        return torch.minimum(place, self.high[:, None] - 1)


class Slots:
    """Keys and values of every position of a batch of rows, layer by layer.

    A forward pass writes into them in place; `rows` and `join` make new ones.
    """

    def __init__(self, layers: Mapping[int, tuple[Tensor, Tensor]] | None = None) -> None:
        self.layers: dict[int, tuple[Tensor, Tensor]] = dict(layers or {})

    def write(
        self,
        layer: int,
        key: Float[Tensor, "rows kv_heads computed dim"],
        value: Float[Tensor, "rows kv_heads computed dim"],
        positions: Int[Tensor, "rows computed"],
        length: int,
    ) -> tuple[Float[Tensor, "rows kv_heads length dim"], Float[Tensor, "rows kv_heads length dim"]]:
        """Put a layer's new keys and values at their positions; all of the layer's keys and values."""
        if layer not in self.layers:
            shape = (key.shape[0], key.shape[1], length, key.shape[3])
            self.layers[layer] = (key.new_zeros(shape), value.new_zeros(shape))
        keys, values = (_sized(x, length) for x in self.layers[layer])
        index = positions[:, None, :, None].expand_as(key)
        keys.scatter_(2, index, key)
        values.scatter_(2, index, value)
        self.layers[layer] = (keys, values)
        return keys, values

    def repeat(
        self,
        rows: Bool[Tensor, " rows"],
        low: Int[Tensor, " rows"],
        length: Int[Tensor, " rows"],
        end: Int[Tensor, " rows"],
        width: int,
    ) -> None:
        """In the chosen rows, copy what the ``length`` slots before ``low`` hold into those from there on, up to ``end``.

        ``width``: the longest ``length``.
        """
        place = low[:, None] + torch.arange(width, device=low.device)
        place = torch.minimum(place, (torch.minimum(low + length, end) - 1)[:, None])
        place, source = ((x * rows[:, None])[:, None, :, None] for x in (place, place - length[:, None]))

        def repeated(x: Tensor) -> Tensor:
            index = source.expand(-1, x.shape[1], -1, x.shape[3])
            return x.scatter(2, place.expand_as(index), x.gather(2, index))

        self.layers.update({layer: (repeated(k), repeated(v)) for layer, (k, v) in self.layers.items()})

    def rows(self, index: Int[Tensor, " kept"]) -> Slots:
        return Slots({layer: (k[index], v[index]) for layer, (k, v) in self.layers.items()})

    def join(self, more: int) -> Slots:
        """With ``more`` empty rows at the end."""
        return Slots({layer: (_taller(k, more), _taller(v, more)) for layer, (k, v) in self.layers.items()})

    @property
    def num_bytes(self) -> int:
        return sum(k.nbytes + v.nbytes for k, v in self.layers.values())


def _sized(x: Tensor, length: int) -> Tensor:
    """Cut or padded to ``length`` positions: rows that join and leave change the length of the canvas."""
    return x if x.shape[2] == length else x[:, :, :length] if x.shape[2] > length else F.pad(x, (0, 0, 0, length - x.shape[2]))


def _taller(x: Tensor, more: int) -> Tensor:
    return torch.cat([x, x.new_zeros(more, *x.shape[1:])])

"""The seam between the engine and the models: what is asked of a forward pass, what comes back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attn_sampler.attention import AttentionAsk
from attn_sampler.cache import Stretch

__all__ = ["Ask", "Model", "Prediction"]


@dataclass(frozen=True)
class Ask:
    """Positions of some rows of the canvas whose next tokens are wanted.

    Attributes:
        rows: rows of the canvas.
        positions: absolute positions; the prediction's entry is for the token *at* that position.
        attention: statistics wanted beside the logits.
        unseen: entries whose prediction without attention to the token standing there is wanted too (leave one out).
    """

    rows: Int[Tensor, " some"]
    positions: Int[Tensor, "some width"]
    attention: AttentionAsk | None = None
    unseen: Bool[Tensor, "some width"] | None = None


@dataclass(frozen=True)
class Prediction:
    """The answer to one `Ask`."""

    logits: Float[Tensor, "some width vocab"]
    columns: Float[Tensor, "some width"] | None = None
    pairwise: Float[Tensor, "some queries width"] | None = None
    sinks: Float[Tensor, "some width"] | None = None
    known_mass: Float[Tensor, "some queries"] | None = None
    unseen: Float[Tensor, "some width vocab"] | None = None


class Model(Protocol):
    """A masked diffusion language model with every family difference undone.

    Attributes:
        mask_id: the mask token.
        eos_ids: ids that end an answer, the end-of-sequence token first.
        pad_id: filler after a row's end.
        vocab_size: size of the last axis of the logits.
        context_length: longest canvas, positions.
        num_layers, num_heads: of the attention that statistics can be asked of; 0 where there is none.
        block_length: of a block-causal model's attention mask, whose blocks are counted from position 0; None for full attention.
        shift: 1 where the network predicts a position from its left neighbour's row, else 0. (`predict` has undone it.)
        caches: whether `predict` takes a ``stretch``.
        shadows: whether `predict` answers `Ask.unseen`.
    """

    mask_id: int
    eos_ids: tuple[int, ...]
    pad_id: int
    vocab_size: int
    context_length: int
    num_layers: int
    num_heads: int
    block_length: int | None
    shift: int
    caches: bool
    shadows: bool
    device: torch.device

    def predict(
        self,
        ids: Int[Tensor, "rows length"],
        valid: Bool[Tensor, "rows length"] | None,
        asks: Sequence[Ask],
        stretch: Stretch | None = None,
    ) -> list[Prediction]:
        """One forward pass; one prediction per ask.

        Args:
            ids: the canvas.
            valid: positions that are no padding; None where no row is padded.
            asks: positions wanted; all of them inside the stretch.
            stretch: the part of each row that runs through the network, the rest coming from its slots; None for all of it.
        """
        ...

    def logits(
        self, ids: Int[Tensor, "rows length"], valid: Bool[Tensor, "rows length"] | None
    ) -> Float[Tensor, "rows length vocab"]:
        """Logits of the whole canvas, row ``i`` predicting token ``i``."""
        ...

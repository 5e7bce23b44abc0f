"""A stock transformers class as a `Model`: mask shape, logit shift and positions undone; the head for asked positions only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from attn_sampler.attention import IMPLEMENTATION, AttentionAsk, Collector, register
from attn_sampler.cache import Slots, Stretch
from attn_sampler.models.family import Family
from attn_sampler.models.seam import Ask, Prediction

__all__ = ["TransformersModel"]

ENCODERS = ("bert", "roberta", "distilbert", "modernbert")  # model types without a KV cache


class TransformersModel:
    """Wraps a stock ``...ForCausalLM`` or ``...ForMaskedLM``."""

    def __init__(
        self,
        net: Any,
        family: Family,
        *,
        mask_id: int,
        eos_ids: tuple[int, ...],
        pad_id: int,
        block_length: int | None = None,
        group: Any | None = None,
    ) -> None:
        register()
        net.set_attn_implementation(IMPLEMENTATION)
        self.net: nn.Module = net.eval()
        self.family = family
        self.shift = int(family.shifted)
        self.caches = net.config.model_type not in ENCODERS
        self.block_length = block_length
        self.shadows = self.caches and block_length is None and not family.shifted
        self.group = group  # processes over which the heads are spread
        self.mask_id, self.eos_ids, self.pad_id = mask_id, eos_ids, pad_id
        config = net.config
        self.vocab_size: int = config.vocab_size
        self.num_layers: int = config.num_hidden_layers
        self.num_heads: int = config.num_attention_heads
        # RoBERTa's first position stands behind its padding index
        self.context_length: int = config.max_position_embeddings - (config.pad_token_id + 1 if family.name == "roberta" else 0)
        embeddings = net.get_input_embeddings().weight
        self.device: torch.device = embeddings.device
        self.dtype: torch.dtype = embeddings.dtype
        self._windows = getattr(config, "sliding_window", None) if family.name == "modernbert" else None
        for i, layer in enumerate(_layers(net)):  # DistilBERT's attention does not know its place
            if not hasattr(layer, "layer_idx"):
                setattr(layer, "layer_idx", i)  # noqa: B010 (a module's attributes are typed as tensors and modules)

    def _bias(self, valid: Bool[Tensor, "rows length"] | None, length: int) -> Any:
        """Additive attention mask, 0 where a query sees a key; None for everything. ModernBERT takes two of them."""
        seen = None if valid is None else valid[:, None, None]
        place = torch.arange(length, device=self.device)
        if self.block_length is not None:
            block = place // self.block_length
            causal = (block[:, None] >= block)[None, None]
            # A padded query has nobody to look at but itself; without that its output would be NaN, and spread.
            seen = causal if seen is None else causal & seen | torch.eye(length, dtype=torch.bool, device=self.device)
        if self._windows is None:
            return None if seen is None else self._additive(seen)
        near = ((place[:, None] - place).abs() <= self._windows)[None, None]
        near = near if seen is None else near & seen | torch.eye(length, dtype=torch.bool, device=self.device)
        return {"full_attention": None if seen is None else self._additive(seen), "sliding_attention": self._additive(near)}

    def _additive(self, seen: Bool[Tensor, "rows one queries keys"]) -> Float[Tensor, "rows one queries keys"]:
        return torch.zeros(seen.shape, dtype=self.dtype, device=self.device).masked_fill(~seen, -torch.inf)

    def _hidden(
        self, ids: Int[Tensor, "rows length"], valid: Bool[Tensor, "rows length"] | None, collector: Collector | None
    ) -> Float[Tensor, "rows length dim"]:
        """Final hidden states of the whole canvas."""
        extra: dict[str, Any] = {} if collector is None else {"collector": collector}
        if self.family.counted_positions and valid is not None:
            extra["position_ids"] = (valid.long().cumsum(1) - 1).masked_fill(~valid, 1)
        return self._run(ids, self._bias(valid, ids.shape[1]), extra)

    def _run(self, ids: Int[Tensor, "rows computed"], bias: Any, extra: dict[str, Any]) -> Float[Tensor, "rows computed dim"]:
        if self.caches:
            extra |= {"use_cache": False, "is_causal": False}
        return self.net.base_model(input_ids=ids, attention_mask=bias, **extra).last_hidden_state  # type: ignore[operator]

    def _stretched(
        self,
        ids: Int[Tensor, "rows length"],
        valid: Bool[Tensor, "rows length"] | None,
        stretch: Stretch,
        shadow: Shadow | None,
        collector: Collector | None,
    ) -> Float[Tensor, "rows width dim"]:
        """Final hidden states of a stretch of each row, which sees the keys and values in the slots too; then of its shadow."""
        positions = stretch.positions
        seen = torch.ones_like(ids, dtype=torch.bool) if valid is None else valid
        seen = seen[:, None].expand(-1, positions.shape[1], -1)
        if self.block_length is not None:
            block = torch.arange(ids.shape[1], device=ids.device) // self.block_length
            seen = seen & (positions[:, :, None] // self.block_length >= block)
        places, tokens = positions, ids.gather(1, positions)
        if shadow is not None:  # it stands in slots behind the canvas, for this pass only
            seen = shadow.joined(seen)
            behind = ids.shape[1] + torch.arange(shadow.positions.shape[1], device=ids.device).expand_as(shadow.positions)
            places, positions = torch.cat([places, behind], 1), torch.cat([positions, shadow.positions], 1)
            tokens = torch.cat([tokens, torch.full_like(shadow.positions, self.mask_id)], 1)
        past = _Past(stretch.slots, places, seen.shape[2])
        extra: dict[str, Any] = {"position_ids": positions, "past_key_values": past}
        if collector is not None:
            extra["collector"] = collector
        return self._run(tokens, self._additive(seen[:, None]), extra)

    @torch.inference_mode()
    def predict(
        self,
        ids: Int[Tensor, "rows length"],
        valid: Bool[Tensor, "rows length"] | None,
        asks: Sequence[Ask],
        stretch: Stretch | None = None,
    ) -> list[Prediction]:
        shadow = Shadow.of(asks, ids) if any(ask.unseen is not None for ask in asks) else None
        if shadow is not None and stretch is None:
            stretch = Stretch(Slots(), torch.zeros_like(ids[:, 0]), torch.full_like(ids[:, 0], ids.shape[1]), ids.shape[1])
        statistics = [_from(ask.attention, stretch) for ask in asks if ask.attention is not None]
        collector = Collector(statistics, self.group) if statistics else None
        low, width = None, ids.shape[1]
        if stretch is None:
            hidden = self._hidden(ids, valid, collector)
        else:
            hidden = self._stretched(ids, valid, stretch, shadow, collector)
            low, width = stretch.low, stretch.width
        predictions, index = [], 0
        for ask in asks:
            place = ask.positions - self.shift - (0 if low is None else low[ask.rows][:, None])
            logits = self.family.head(self.net, hidden[ask.rows[:, None], place.clamp(0, width - 1)])
            numbers: Sequence[Tensor | None] = ()
            if ask.attention is not None and collector is not None:
                numbers = collector.result(index)
                index += 1
            unseen = None
            if ask.unseen is not None:
                unseen = self.family.head(self.net, hidden[ask.rows, width : width + ask.positions.shape[1]])
            predictions.append(Prediction(logits, *numbers, unseen=unseen))
        return predictions

    @torch.inference_mode()
    def logits(
        self, ids: Int[Tensor, "rows length"], valid: Bool[Tensor, "rows length"] | None = None
    ) -> Float[Tensor, "rows length vocab"]:
        """Logits of the whole canvas, row ``i`` predicting token ``i`` (of a shifted family row 0 says nothing)."""
        hidden = self._hidden(ids, valid, None)
        if self.shift:
            hidden = torch.cat([hidden[:, :1], hidden[:, :-1]], 1)
        return self.family.head(self.net, hidden)


@dataclass(frozen=True)
class Shadow:
    """A second block of masks at the positions that some rows ask about, WINO's leave-one-out prediction (arXiv 2507.18578).

    A shadow token sees the canvas but the token that stands at its own position, and the row's other shadow tokens; no token of
    the canvas sees it. What it sees of the canvas has itself seen that token, from the second layer on: so do the authors.

    Attributes:
        positions: where each shadow token stands; those of rows that did not ask mean nothing.
        real: shadow tokens that others may see.
    """

    positions: Int[Tensor, "rows shadow"]
    real: Bool[Tensor, "rows shadow"]

    @classmethod
    def of(cls, asks: Sequence[Ask], ids: Int[Tensor, "rows length"]) -> Shadow:
        width = max(ask.positions.shape[1] for ask in asks if ask.unseen is not None)
        positions = torch.zeros(ids.shape[0], width, dtype=torch.long, device=ids.device)
        real = torch.zeros_like(positions, dtype=torch.bool)
        for ask in asks:
            if ask.unseen is not None:
                part = torch.arange(ask.positions.shape[1], device=ids.device)
                positions[ask.rows[:, None], part] = ask.positions
                real[ask.rows[:, None], part] = ask.unseen
        return cls(positions, real)

    def joined(self, seen: Bool[Tensor, "rows queries keys"]) -> Bool[Tensor, "rows more_queries more_keys"]:
        """Who sees whom once the shadow stands behind the canvas, ``seen`` being the canvas' own side of it."""
        rows, width, keys = seen.shape[0], self.positions.shape[1], seen.shape[2]
        canvas = seen.any(1)[:, None].expand(rows, width, keys)
        own = self.positions[:, :, None] == torch.arange(keys, device=seen.device)
        below = torch.cat([canvas & ~own, self.real[:, None].expand(rows, width, width)], 2)
        return torch.cat([F.pad(seen, (0, width)), below], 1)


class _Past:
    """What the stock classes take for a cache: it hands them a layer's slots, with the new keys and values written into them."""

    def __init__(self, slots: Slots, positions: Int[Tensor, "rows computed"], length: int) -> None:
        self.slots, self.positions, self.length = slots, positions, length

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        return self.slots.write(layer_idx, key, value, self.positions, self.length)


def _from(ask: AttentionAsk, stretch: Stretch | None) -> AttentionAsk:
    """Queries by their place in the stretch; keys stay where they are, in the slots."""
    if stretch is None:
        return ask
    first = stretch.low[ask.rows]
    return replace(ask, queries=(ask.queries - first[:, None]).clamp(0, stretch.width - 1), first=first)


def _layers(net: Any) -> list[nn.Module]:
    """The attention modules, first layer first, of the classes that hold them unnumbered."""
    return [layer.attention for layer in net.distilbert.transformer.layer] if hasattr(net, "distilbert") else []

"""A stock transformers class as a `Model`: full attention, the head for asked positions only, attention statistics on demand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from attn_sampler.attention import IMPLEMENTATION, Collector, register
from attn_sampler.models.seam import Ask, Prediction

__all__ = ["TransformersModel"]


class TransformersModel:
    """Wraps a ``...ForCausalLM`` (attributes ``model`` and ``lm_head``) whose row ``i`` predicts token ``i``."""

    def __init__(self, net: Any, *, mask_id: int, eos_ids: tuple[int, ...], pad_id: int, context_length: int) -> None:
        register()
        net.set_attn_implementation(IMPLEMENTATION)
        self.net: nn.Module = net.eval()
        self.mask_id, self.eos_ids, self.pad_id, self.context_length = mask_id, eos_ids, pad_id, context_length
        self.vocab_size: int = net.config.vocab_size
        self.num_layers: int = net.config.num_hidden_layers
        self.num_heads: int = net.config.num_attention_heads
        self.device: torch.device = net.model.embed_tokens.weight.device
        self.dtype: torch.dtype = net.lm_head.weight.dtype

    def _hidden(
        self, ids: Int[Tensor, "rows length"], valid: Bool[Tensor, "rows length"] | None, collector: Collector | None
    ) -> Float[Tensor, "rows length dim"]:
        """Final hidden states. ``valid`` masks keys only; positions stay 0 .. length-1 (the LLaDA convention)."""
        bias = None
        if valid is not None:
            bias = torch.zeros(valid.shape, dtype=self.dtype, device=valid.device).masked_fill(~valid, -torch.inf)
            bias = bias[:, None, None]
        return self.net.model(
            input_ids=ids, attention_mask=bias, use_cache=False, is_causal=False, collector=collector
        ).last_hidden_state  # type: ignore[operator]

    @torch.inference_mode()
    def predict(
        self, ids: Int[Tensor, "rows length"], valid: Bool[Tensor, "rows length"] | None, asks: Sequence[Ask]
    ) -> list[Prediction]:
        statistics = [ask.attention for ask in asks if ask.attention is not None]
        collector = Collector(statistics) if statistics else None
        hidden = self._hidden(ids, valid, collector)
        predictions, index = [], 0
        for ask in asks:
            logits = self.net.lm_head(hidden[ask.rows[:, None], ask.positions])  # type: ignore[operator]
            columns = pairwise = None
            if ask.attention is not None and collector is not None:
                columns, pairwise = collector.result(index)
                index += 1
            predictions.append(Prediction(logits, columns, pairwise))
        return predictions

    @torch.inference_mode()
    def logits(
        self, ids: Int[Tensor, "rows length"], valid: Bool[Tensor, "rows length"] | None = None
    ) -> Float[Tensor, "rows length vocab"]:
        """Logits of the whole canvas, row ``i`` predicting token ``i``."""
        return self.net.lm_head(self._hidden(ids, valid, None))  # type: ignore[operator]

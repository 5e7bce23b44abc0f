"""Stock masked language models (BERT, RoBERTa, DistilBERT, ModernBERT, BERT-Chat) as diffusion models.

They were trained to fill masks with full attention, which is all that a sampler needs. Their own prediction heads are used;
pooling and next-sentence weights, which no masked token depends on, are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from attn_sampler.errors import CheckpointError
from attn_sampler.models.family import Family, Match, Piece

__all__ = ["FAMILIES"]

_UNUSED = re.compile(r"(^|\.)(pooler\..*|cls\.seq_relationship\..*|embeddings\.position_ids)$")
_NOT_SIZES = ("architectures", "auto_map", "torch_dtype", "dtype", "transformers_version", "model_type", "_name_or_path")


def _settings_of(raw: Mapping[str, Any]) -> dict[str, Any]:
    if raw.get("is_decoder"):
        raise CheckpointError("config.json: is_decoder=true; a causal decoder cannot fill masks")
    return {key: value for key, value in raw.items() if key not in _NOT_SIZES}


def _pieces(name: str, config: Any) -> tuple[Piece, ...]:
    if _UNUSED.search(name):
        return ()
    name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name)  # as TensorFlow wrote them
    return (Piece(re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name)),)


def _bert_head(net: Any, hidden: Any) -> Any:
    return net.cls(hidden)


def _distilbert_head(net: Any, hidden: Any) -> Any:
    return net.vocab_projector(net.vocab_layer_norm(net.activation(net.vocab_transform(hidden))))


def _modernbert_head(net: Any, hidden: Any) -> Any:
    return net.decoder(net.head(hidden))


def _family(model_type: str, stock: str, checkpoints: str, source: str, **rest: Any) -> Family:
    def matches(raw: Mapping[str, Any]) -> Match:
        return "yes" if raw.get("model_type") == model_type else "no"

    return Family(
        name=model_type,
        checkpoints=checkpoints,
        source=source,
        stock=stock,
        matches=matches,
        settings_of=_settings_of,
        pieces=_pieces,
        **rest,
    )


FAMILIES = (
    _family(
        "bert", "BertForMaskedLM", "any BertForMaskedLM, e.g. google-bert/bert-base-uncased", "arXiv:1810.04805",
        mask_token="[MASK]", settings={"sampler": "confidence"}, head=_bert_head,
    ),
    _family(
        "roberta", "RobertaForMaskedLM", "any RobertaForMaskedLM, e.g. FacebookAI/roberta-base", "arXiv:1907.11692",
        mask_token="<mask>", slow_tokenizer="RobertaTokenizer", settings={"sampler": "confidence"},
    ),
    _family(
        "distilbert", "DistilBertForMaskedLM", "any DistilBertForMaskedLM, e.g. distilbert/distilbert-base-uncased",
        "arXiv:1910.01108", mask_token="[MASK]", settings={"sampler": "confidence"}, head=_distilbert_head,
    ),
    _family(
        "modernbert", "ModernBertForMaskedLM",
        "any ModernBertForMaskedLM, e.g. answerdotai/ModernBERT-base; dllm-hub/ModernBERT-base-chat-v0.1, -large-chat-v0.1",
        "arXiv:2412.13663", mask_token="[MASK]", settings={"sampler": "confidence", "max_new_tokens": 256, "block_length": 32},
        head=_modernbert_head,
    ),
)  # fmt: skip

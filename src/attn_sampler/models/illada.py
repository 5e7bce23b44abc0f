"""iLLaDA-8B Base / Instruct: a Llama-shaped model with full attention and tied embeddings; its mask id 5 stands in no file.

Its tensor names have been reported, not seen: those of LLaDA and the stock ones are both accepted, anything else is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attn_sampler.models import llada
from attn_sampler.models.family import Family, Match, Piece, number, stock_settings

__all__ = ["FAMILY"]


def matches(raw: Mapping[str, Any]) -> Match:
    return "yes" if "ILLaDAForCausalLM" in (raw.get("architectures") or []) or raw.get("model_type") == "illada" else "no"


def settings_of(raw: Mapping[str, Any]) -> dict[str, Any]:
    settings = stock_settings(raw, head_dim=True) | {"intermediate_size": number(raw, "intermediate_size")}
    return settings | {"attention_bias": bool(raw.get("attention_bias", False)), "mlp_bias": False}


def pieces(name: str, config: Any) -> tuple[Piece, ...] | None:
    return llada.pieces(name, config) if name.startswith("model.transformer.") else (Piece(name),)


FAMILY = Family(
    name="illada",
    checkpoints="GSAI-ML/iLLaDA-8B-Base, -Instruct",
    source="github.com/ML-GSAI",
    stock="LlamaForCausalLM",
    matches=matches,
    settings_of=settings_of,
    pieces=pieces,
    mask_token="<[MASK]>",
    mask_id=5,
    settings={"sampler": "confidence", "max_new_tokens": 256, "block_length": 32},
)

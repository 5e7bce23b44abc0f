"""SDAR-Chat 1.7B, 4B and 8B (arXiv 2510.06303) and TraDo (arXiv 2509.06949): a Qwen3 with block-causal attention, blocks of 4.

Checkpoints whose names end in -b8 ... -b64 have longer blocks; where config.json lacks ``block_size``, give
``load(..., block_length=)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attn_sampler.models.family import Family, Match, number, same_name, stock_settings

__all__ = ["FAMILY", "qwen3_settings"]


def matches(raw: Mapping[str, Any]) -> Match:
    return "yes" if raw.get("model_type") == "sdar" else "no"


def qwen3_settings(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Qwen3 has a head size of its own, and normalises queries and keys per head."""
    bias = {"attention_bias": bool(raw.get("attention_bias", False))}
    return stock_settings(raw, head_dim=True) | bias | {"intermediate_size": number(raw, "intermediate_size")}


FAMILY = Family(
    name="sdar",
    checkpoints="JetLM/SDAR-1.7B-Chat, -4B-Chat, -8B-Chat, Gen-Verse/TraDo-8B-Instruct",
    source="arXiv:2510.06303",
    stock="Qwen3ForCausalLM",
    matches=matches,
    settings_of=qwen3_settings,
    pieces=same_name,
    block_length=4,
    mask_token="<|MASK|>",
    mask_id=151669,
    ends={"<|endoftext|>": 151643, "<|im_end|>": 151645},
    settings={"sampler": "fast-dllm", "threshold": 0.85, "max_new_tokens": 4096},
)

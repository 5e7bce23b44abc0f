"""LLaDA-MoE-7B-A1B Base / Instruct (arXiv 2509.24389): a Qwen3-MoE without the causal mask.

The router takes the softmax first and the best experts after it, without renormalising; stock Qwen3-MoE does so with
``norm_topk_prob=False``. Experts are stored one by one and fused while loading.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from attn_sampler.errors import CheckpointError
from attn_sampler.models.family import Family, Match, Piece, number, stock_settings

__all__ = ["FAMILY", "expert_pieces"]


def matches(raw: Mapping[str, Any]) -> Match:
    """Calls itself ``llada`` as the dense model does; only this one has experts."""
    return "yes" if raw.get("model_type") in ("llada", "lladamoe") and "expert_intermediate_size" in raw else "no"


def settings_of(raw: Mapping[str, Any]) -> dict[str, Any]:
    fixed = {"qk_layernorm": True, "shared_expert_intermediate_size": None, "clip_qkv": None, "partial_rotary_factor": 1}
    for key, value in fixed.items():
        if raw.get(key, value) != value:
            raise CheckpointError(f"config.json: {key}={raw[key]!r}; LLaDA-MoE has {value!r}, others are not supported")
    if set(raw.get("moe_layer_freq") or [1]) != {1}:
        raise CheckpointError(f"config.json: moe_layer_freq={raw['moe_layer_freq']!r}; every layer must have experts")
    hidden, heads = number(raw, "hidden_size"), number(raw, "num_attention_heads")
    return stock_settings(raw) | {
        "head_dim": hidden // heads,
        "intermediate_size": number(raw, "dense_intermediate_size", 1),
        "moe_intermediate_size": number(raw, "expert_intermediate_size"),
        "num_experts": number(raw, "num_experts"),
        "num_experts_per_tok": number(raw, "num_experts_per_tok"),
        "norm_topk_prob": False,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "attention_bias": False,
    }


def expert_pieces(name: str, width: int, experts: int) -> tuple[Piece, ...] | None:
    """Expert by expert on disk; in the stock class one tensor per layer, gate above up. None if it is no expert's tensor."""
    found = re.fullmatch(r"(model\.layers\.\d+\.mlp\.experts)\.(\d+)\.(gate|up|down)_proj\.weight", name)
    if not found or int(found[2]) >= experts:
        return None
    stem, expert, part = found[1], int(found[2]), found[3]
    if part == "down":
        return (Piece(f"{stem}.down_proj", (expert,)),)
    half = slice(0, width) if part == "gate" else slice(width, 2 * width)
    return (Piece(f"{stem}.gate_up_proj", (expert, half)),)


def pieces(name: str, config: Any) -> tuple[Piece, ...] | None:
    if ".experts." in name:
        return expert_pieces(name, config.moe_intermediate_size, config.num_experts)
    return (Piece(name),)


FAMILY = Family(
    name="llada-moe",
    checkpoints="inclusionAI/LLaDA-MoE-7B-A1B-Base, -Instruct",
    source="arXiv:2509.24389",
    stock="Qwen3MoeForCausalLM",
    matches=matches,
    settings_of=settings_of,
    pieces=pieces,
    mask_token="<|mask|>",
    mask_id=156895,
    ends={"<|endoftext|>": 156892, "<|role_end|>": None},
    settings={"sampler": "fast-dllm", "threshold": 0.8, "block_length": 64, "max_new_tokens": 1024},
)

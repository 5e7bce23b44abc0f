"""LLaDA2.0 and 2.1 mini / flash (arXiv 2512.15745, 2602.08676): a GLM-4-MoE with block-causal attention, blocks of 32.

Queries, keys and values are stored as one matrix and split while loading; the routers' expert biases stay in float32. Mask id
and block length are defaults of the authors' ``generate``, not fields of config.json.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from attn_sampler.errors import CheckpointError
from attn_sampler.models.family import Family, Match, Piece, number, stock_settings
from attn_sampler.models.llada_moe import expert_pieces

__all__ = ["FAMILY"]

_PARTS = {
    "attention.dense": "self_attn.o_proj",
    "attention.query_layernorm": "self_attn.q_norm",
    "attention.key_layernorm": "self_attn.k_norm",
}


def matches(raw: Mapping[str, Any]) -> Match:
    return "yes" if raw.get("model_type") == "llada2_moe" else "no"


def settings_of(raw: Mapping[str, Any]) -> dict[str, Any]:
    fixed = {"score_function": "sigmoid", "use_qk_norm": True, "use_qkv_bias": False, "use_bias": False, "use_rmsnorm": True}
    for key, value in fixed.items():
        if raw.get(key, value) != value:
            raise CheckpointError(f"config.json: {key}={raw[key]!r}; LLaDA2 has {value!r}, others are not supported")
    settings = stock_settings(raw, head_dim=True)
    partial = number(raw, "partial_rotary_factor", 0.5, integer=False)
    experts, groups = number(raw, "num_experts"), number(raw, "n_group", 1)
    if experts % groups:
        raise CheckpointError(f"config.json: n_group={groups} does not divide num_experts={experts}")
    return settings | {
        "rope_parameters": settings["rope_parameters"] | {"partial_rotary_factor": partial},
        "attention_bias": False,
        "use_qk_norm": True,
        "intermediate_size": number(raw, "intermediate_size"),
        "moe_intermediate_size": number(raw, "moe_intermediate_size"),
        "n_routed_experts": experts,
        "num_experts_per_tok": number(raw, "num_experts_per_tok"),
        "n_group": groups,
        "topk_group": number(raw, "topk_group", 1),
        "n_shared_experts": number(raw, "num_shared_experts", 1),
        "first_k_dense_replace": int(raw.get("first_k_dense_replace", 0)),
        "routed_scaling_factor": number(raw, "routed_scaling_factor", 1.0, integer=False),
        "norm_topk_prob": bool(raw.get("norm_topk_prob", True)),
    }


def pieces(name: str, config: Any) -> tuple[Piece, ...] | None:
    if name == "model.word_embeddings.weight":
        return (Piece("model.embed_tokens.weight"),)
    if ".mlp.experts." in name:
        return expert_pieces(name, config.moe_intermediate_size, config.n_routed_experts)
    if name.endswith(".mlp.gate.expert_bias"):
        return (Piece(name.removesuffix("expert_bias") + "e_score_correction_bias"),)
    found = re.fullmatch(r"(model\.layers\.\d+)\.(attention\.\w+)\.weight", name)
    if found and found[2] == "attention.query_key_value":
        queries, keys = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
        bounds = {"q": (0, queries), "k": (queries, queries + keys), "v": (queries + keys, queries + 2 * keys)}
        return tuple(Piece(f"{found[1]}.self_attn.{x}_proj.weight", (), rows) for x, rows in bounds.items())
    if found:
        return (Piece(f"{found[1]}.{_PARTS[found[2]]}.weight"),) if found[2] in _PARTS else None
    return (Piece(name),)


FAMILY = Family(
    name="llada2",
    checkpoints="inclusionAI/LLaDA2.0-mini, LLaDA2.1-mini, -flash",
    source="arXiv:2512.15745",
    stock="Glm4MoeForCausalLM",
    matches=matches,
    settings_of=settings_of,
    pieces=pieces,
    block_length=32,
    mask_token="<|mask|>",
    mask_id=156895,
    ends={"<|endoftext|>": 156892, "<|role_end|>": None},
    settings={"sampler": "llada2", "threshold": 0.95, "max_new_tokens": 2048},
)

"""LLaDA-8B-Base, -Instruct and LLaDA-1.5 (arXiv 2502.09992, 2505.19223): a Llama without the causal mask, other tensor names.

No permutation of q and k is needed (both use the rotate-half form); measured against the authors' model: difference 0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from attn_sampler.errors import CheckpointError

__all__ = ["END_OF_TURN", "config", "facts", "matches", "rename"]

END_OF_TURN = ("<|eot_id|>",)  # beside the end-of-sequence token: chat models end their turn with it

_PARTS = {
    "attn_norm": "input_layernorm",
    "ff_norm": "post_attention_layernorm",
    "q_proj": "self_attn.q_proj",
    "k_proj": "self_attn.k_proj",
    "v_proj": "self_attn.v_proj",
    "attn_out": "self_attn.o_proj",
    "ff_proj": "mlp.gate_proj",
    "up_proj": "mlp.up_proj",
    "ff_out": "mlp.down_proj",
}
_WHOLE = {
    "model.transformer.wte.weight": "model.embed_tokens.weight",
    "model.transformer.ln_f.weight": "model.norm.weight",
    "model.transformer.ff_out.weight": "lm_head.weight",
}
_FIXED = {
    "activation_type": "silu",
    "block_type": "llama",
    "layer_norm_type": "rms",
    "rope": True,
    "alibi": False,
    "include_bias": False,
    "include_qkv_bias": False,
    "attention_layer_norm": False,
    "input_emb_norm": False,
    "scale_logits": False,
    "weight_tying": False,
}


def matches(raw: Mapping[str, Any]) -> bool:
    """LLaDA-MoE calls itself ``llada`` too; only the dense model has ``d_model``."""
    return raw.get("model_type") == "llada" and "d_model" in raw


def config(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of the stock ``LlamaConfig``."""
    for key, value in _FIXED.items():
        if raw.get(key, value) != value:
            raise CheckpointError(f"config.json: {key}={raw[key]!r}; LLaDA checkpoints have {value!r}, others are not supported")
    missing = [k for k in ("d_model", "n_heads", "n_layers", "mlp_hidden_size", "vocab_size") if k not in raw]
    if missing:
        raise CheckpointError(f"config.json lacks {', '.join(missing)}")
    return {
        "vocab_size": raw.get("embedding_size") or raw["vocab_size"],
        "hidden_size": raw["d_model"],
        "intermediate_size": raw["mlp_hidden_size"],
        "num_hidden_layers": raw["n_layers"],
        "num_attention_heads": raw["n_heads"],
        "num_key_value_heads": raw.get("n_kv_heads") or raw["n_heads"],
        "max_position_embeddings": raw.get("max_sequence_length", 4096),
        "rms_norm_eps": raw.get("rms_norm_eps", 1e-5),
        "rope_parameters": {"rope_type": "default", "rope_theta": raw.get("rope_theta", 10000.0)},
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
    }


def facts(raw: Mapping[str, Any]) -> dict[str, Any]:
    """What the config says beyond the architecture: mask and pad id, context length (None where it is silent)."""
    return {
        "mask_id": raw.get("mask_token_id"),
        "pad_id": raw.get("pad_token_id"),
        "context_length": raw.get("max_sequence_length", 4096),
    }


def rename(name: str) -> str | None:
    """The stock name of a tensor, or None if it is no LLaDA tensor."""
    if name in _WHOLE:
        return _WHOLE[name]
    found = re.fullmatch(r"model\.transformer\.blocks\.(\d+)\.(\w+)\.weight", name)
    if found and found[2] in _PARTS:
        return f"model.layers.{found[1]}.{_PARTS[found[2]]}.weight"
    return None

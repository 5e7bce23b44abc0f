"""LLaDA-8B-Base, -Instruct and LLaDA-1.5 (arXiv 2502.09992, 2505.19223): a Llama without the causal mask, other tensor names.

No permutation of q and k is needed (both use the rotate-half form); measured against the authors' model: difference 0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from attn_sampler.errors import CheckpointError
from attn_sampler.models.family import Family, Match, Piece, number, require

__all__ = ["FAMILY", "pieces"]


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


def matches(raw: Mapping[str, Any]) -> Match:
    """LLaDA-MoE calls itself ``llada`` too; only the dense model has ``d_model``."""
    return "yes" if raw.get("model_type") == "llada" and "d_model" in raw else "no"


def settings_of(raw: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in _FIXED.items():
        if raw.get(key, value) != value:
            raise CheckpointError(f"config.json: {key}={raw[key]!r}; LLaDA checkpoints have {value!r}, others are not supported")
    require(raw, "d_model", "n_heads", "n_layers", "mlp_hidden_size", "vocab_size")
    hidden, heads = number(raw, "d_model"), number(raw, "n_heads")
    kv_heads = number(raw, "n_kv_heads", heads)
    if hidden % heads or heads % kv_heads:
        raise CheckpointError(f"config.json: d_model={hidden}, n_heads={heads}, n_kv_heads={kv_heads} do not divide one another")
    return {
        "vocab_size": number(raw, "embedding_size", number(raw, "vocab_size")),
        "hidden_size": hidden,
        "intermediate_size": number(raw, "mlp_hidden_size"),
        "num_hidden_layers": number(raw, "n_layers"),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": number(raw, "max_sequence_length", 4096),
        "rms_norm_eps": number(raw, "rms_norm_eps", 1e-5, integer=False),
        "rope_parameters": {"rope_type": "default", "rope_theta": float(number(raw, "rope_theta", 10000.0, integer=False))},
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
    }


def pieces(name: str, config: Any) -> tuple[Piece, ...] | None:
    if name in _WHOLE:
        return (Piece(_WHOLE[name]),)
    found = re.fullmatch(r"model\.transformer\.blocks\.(\d+)\.(\w+)\.weight", name)
    if found and found[2] in _PARTS:
        return (Piece(f"model.layers.{found[1]}.{_PARTS[found[2]]}.weight"),)
    return None


FAMILY = Family(
    name="llada",
    checkpoints="GSAI-ML/LLaDA-8B-Base, LLaDA-8B-Instruct, LLaDA-1.5, the embedded model",
    source="arXiv:2502.09992",
    stock="LlamaForCausalLM",
    matches=matches,
    settings_of=settings_of,
    pieces=pieces,
    mask_token="<|mdm_mask|>",
    mask_id=126336,
    ends={"<|endoftext|>": 126081, "<|eot_id|>": 126348},
    settings={"sampler": "confidence", "block_length": 32, "max_new_tokens": 256},
)

"""How every family lies on disk, in tiny sizes: all keys of config.json, tensor names with shapes, special tokens, chat format.

Sizes and ids are small, everything else is as published: a value here that is neither a size nor an id is the real one.
Key/value heads are fewer than heads and heads have a size of their own wherever the layout allows it, because that is where
loaders go wrong. Sources: the authors' configs and modelling files; not seen by us are iLLaDA's files (names and token strings
are those that others report) and Open-dCoder's tokenizer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from attn_sampler.models.layout_tensors import (
    CONTEXT,
    HEADS,
    KV_HEADS,
    LAYERS,
    VOCAB,
    bert_shapes,
    distilbert_shapes,
    llada2_shapes,
    llada_moe_shapes,
    llada_shapes,
    modernbert_shapes,
    qwen_shapes,
    roberta_shapes,
)
from attn_sampler.models.layout_tokens import (
    A2D2_WORDS,
    A2D3_WORDS,
    BERT_CHAT,
    BERT_WORDS,
    DCODER_WORDS,
    DREAM_WORDS,
    FAST_WORDS,
    ILLADA_WORDS,
    LLADA_WORDS,
    MODERN_WORDS,
    MOE_WORDS,
    ROBERTA_WORDS,
    SDAR_WORDS,
    Vocabulary,
    role_chat,
)

__all__ = ["LAYOUTS", "SIZES", "Layout"]

SIZES = frozenset({
    "architectures", "auto_map", "bd_size", "block_size", "bos_token_id", "cls_token_id", "d_model",
    "dense_intermediate_size", "dim", "embedding_size", "eos_token_id", "expert_intermediate_size", "head_dim",
    "hidden_dim", "hidden_size", "intermediate_size", "layer_types", "local_attention", "mask_token_id",
    "max_position_embeddings", "max_sequence_length", "max_window_layers", "mlp_hidden_size", "mlp_ratio",
    "moe_intermediate_size", "moe_layer_freq", "n_group", "n_heads", "n_kv_heads", "n_layers", "num_attention_heads",
    "num_experts", "num_experts_per_tok", "num_hidden_layers", "num_key_value_heads", "pad_token_id", "rotary_dim",
    "sep_token_id", "sliding_window", "topk_group", "torch_dtype", "dtype", "transformers_version", "vocab_size",
})  # fmt: skip
"""Keys whose values differ between the checkpoints of one family, or here from the real ones."""


@dataclass(frozen=True)
class Layout:
    """One real layout.

    Attributes:
        family: key of `attn_sampler.models.FAMILIES`.
        config: config.json.
        generation: generation_config.json, None where the real checkpoint has none.
        shapes: tensor name → shape.
        words: the tokenizer.
        mask: the mask's string.
    """

    family: str
    config: Mapping[str, Any]
    generation: Mapping[str, Any] | None
    shapes: Mapping[str, tuple[int, ...]]
    words: Vocabulary
    mask: str

    @property
    def tied(self) -> bool:
        """Whether the embedding is the head, too: no head is stored."""
        return not any(name in self.shapes for name in ("lm_head.weight", "model.transformer.ff_out.weight"))


# --- configs ----------------------------------------------------------------------------------------------------------


def _map(module: str, config: str, model: str, **heads: str) -> dict[str, Any]:
    """``auto_map``: which class of the remote file is what (not used here, but it is in every such config)."""
    return {"auto_map": {"AutoConfig": config, "AutoModel": model} | {k: f"{module}.{v}" for k, v in heads.items()}}


def _qwen(**more: Any) -> dict[str, Any]:
    """What all Qwen-shaped configs share."""
    return {
        "attention_dropout": 0.0, "hidden_act": "silu", "hidden_size": 64, "initializer_range": 0.02, "intermediate_size": 88,
        "max_position_embeddings": CONTEXT, "max_window_layers": LAYERS, "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS, "num_key_value_heads": KV_HEADS, "rms_norm_eps": 1e-6, "rope_scaling": None,
        "rope_theta": 1000000.0, "sliding_window": None, "tie_word_embeddings": False, "torch_dtype": "float32",
        "use_cache": True, "use_sliding_window": False, "vocab_size": VOCAB,
    } | more  # fmt: skip


_FULL = {"layer_types": ["full_attention"] * LAYERS}


def _special(words: Vocabulary, **names: str) -> dict[str, int]:
    return {f"{role}_token_id": words[token] for role, token in names.items()}


_LLADA: dict[str, Any] = {
    "activation_type": "silu", "alibi": False, "alibi_bias_max": 8.0, "architectures": ["LLaDAModelLM"],
    "attention_dropout": 0.0, "attention_layer_norm": False, "attention_layer_norm_with_affine": True,
    "bias_for_layer_norm": False, "block_group_size": 1, "block_type": "llama", "d_model": 64, "embedding_dropout": 0.0,
    "embedding_size": VOCAB, "flash_attention": False, "include_bias": False, "include_qkv_bias": False,
    "init_cutoff_factor": None, "init_device": "meta", "init_fn": "mitchell", "init_std": 0.02, "input_emb_norm": False,
    "layer_norm_type": "rms", "layer_norm_with_affine": True, "max_sequence_length": CONTEXT, "mlp_hidden_size": 88,
    "mlp_ratio": 4, "model_type": "llada", "multi_query_attention": None, "n_heads": HEADS, "n_kv_heads": KV_HEADS,
    "n_layers": LAYERS, "precision": "amp_bf16", "residual_dropout": 0.0, "rms_norm_eps": 1e-5, "rope": True,
    "rope_full_precision": True, "rope_theta": 500000.0, "scale_logits": False, "transformers_version": "4.46.3",
    "use_cache": False, "vocab_size": VOCAB, "weight_tying": False,
} | _special(LLADA_WORDS, mask="<|mdm_mask|>", eos="<|endoftext|>", pad="<|endoftext|>") | _map(
    "modeling_llada", "configuration_llada.LLaDAConfig", "modeling_llada.LLaDAModelLM", AutoModelForCausalLM="LLaDAModelLM"
)  # fmt: skip

_LLADA_MOE: dict[str, Any] = {
    "architectures": ["LLaDAMoEModelLM"], "model_type": "llada", "vocab_size": VOCAB, "hidden_size": 48,
    "dense_intermediate_size": 88, "expert_intermediate_size": 24, "shared_expert_intermediate_size": None,
    "num_hidden_layers": 2, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "hidden_act": "silu",
    "initializer_range": 0.02, "max_position_embeddings": CONTEXT, "rms_norm_eps": 1e-5, "rope_theta": 50000,
    "partial_rotary_factor": 1, "rope_scaling": None, "attention_bias": False, "attention_dropout": 0.0, "clip_qkv": None,
    "num_experts": 8, "num_experts_per_tok": 2, "norm_topk_prob": None, "qk_layernorm": True, "moe_layer_freq": [1, 1],
    "moe_router_enable_expert_bias": False, "moe_router_score_function": "softmax", "moe_router_topk_scaling_factor": None,
    "output_router_logits": False, "router_aux_loss_coef": 0.01, "routed_scaling_factor": 1, "router_num_group": None,
    "router_topk_group": None, "bos_token_id": None, "tie_word_embeddings": False, "use_cache": False,
    "torch_dtype": "float32", "transformers_version": "4.53.2",
} | _special(MOE_WORDS, pad="<|endoftext|>", eos="<|endoftext|>") | _map(
    "modeling_lladamoe", "configuration_lladamoe.LLaDAConfig", "modeling_lladamoe.LLaDAMoEModelLM",
    AutoModelForCausalLM="LLaDAMoEModelLM",
)  # fmt: skip

_LLADA2: dict[str, Any] = {
    "architectures": ["LLaDA2MoeModelLM"], "model_type": "llada2_moe", "attention_dropout": 0.0, "embedding_dropout": 0.0,
    "output_dropout": 0.0, "first_k_dense_replace": 1, "head_dim": 24, "hidden_act": "silu", "hidden_size": 48,
    "initializer_range": 0.02, "intermediate_size": 88, "max_position_embeddings": CONTEXT, "max_window_layers": LAYERS,
    "moe_intermediate_size": 16, "moe_router_enable_expert_bias": True, "n_group": 4, "norm_topk_prob": True,
    "num_attention_heads": HEADS, "num_experts": 16, "num_experts_per_tok": 4, "num_hidden_layers": LAYERS,
    "num_key_value_heads": KV_HEADS, "num_shared_experts": 1, "output_router_logits": False, "partial_rotary_factor": 0.5,
    "rms_norm_eps": 1e-6, "rope_scaling": None, "rope_theta": 600000, "rotary_dim": 12, "routed_scaling_factor": 2.5,
    "router_dtype": "fp32", "score_function": "sigmoid", "sliding_window": 4096, "tie_word_embeddings": False,
    "topk_group": 2, "use_bias": False, "use_cache": False, "use_qk_norm": True, "use_qkv_bias": False,
    "use_rmsnorm": True, "use_sliding_window": False, "vocab_size": VOCAB, "torch_dtype": "float32",
    "transformers_version": "4.57.1",
} | _special(MOE_WORDS, pad="<|endoftext|>", eos="<|endoftext|>") | _map(
    "modeling_llada2_moe", "configuration_llada2_moe.LLaDA2MoeConfig", "modeling_llada2_moe.LLaDA2MoeModel",
    AutoModelForCausalLM="LLaDA2MoeModelLM",
)  # fmt: skip

_THREE = {"bos": "<|endoftext|>", "eos": "<|endoftext|>", "pad": "<|endoftext|>"}
_DREAM = _qwen(
    architectures=["DreamModel"], model_type="Dream", use_mrope=False, transformers_version="4.46.2",
    auto_map={"AutoConfig": "configuration_dream.DreamConfig", "AutoModel": "modeling_dream.DreamModel"},
    **_special(DREAM_WORDS, mask="<|mask|>", **_THREE),
)  # fmt: skip
_FAST = _qwen(
    architectures=["Fast_dLLM_QwenForCausalLM"], model_type="Fast_dLLM_Qwen", bd_size=32, conplemenrary_mask=True,
    transformers_version="4.53.1", **_FULL, **_special(FAST_WORDS, bos="<|endoftext|>", eos="<|im_end|>", pad="<|im_end|>"),
    **_map("modeling", "configuration.Fast_dLLM_QwenConfig", "modeling.Fast_dLLM_QwenModel",
           AutoModelForCausalLM="Fast_dLLM_QwenForCausalLM"),
)  # fmt: skip
_SDAR = _qwen(
    architectures=["SDARForCausalLM"], model_type="sdar", rope_theta=1000000, use_cache=False, attention_bias=False,
    attn_implementation="flex_attention", debug=False, block_size=4, ep_size=1, fuse_cross_entropy=True, head_dim=24,
    micro_forward=False, skip_checkpoint=False, use_deepep=False, transformers_version="4.52.4",
    **_special(SDAR_WORDS, mask="<|MASK|>", **_THREE),
    **_map("modeling_sdar", "configuration_sdar.SDARConfig", "modeling_sdar.SDARModel", AutoModelForCausalLM="SDARForCausalLM"),
)  # fmt: skip


def _a2d(kind: str, words: Vocabulary, **more: Any) -> dict[str, Any]:
    name, file = f"A2D{kind.capitalize()}", f"modeling_{kind}"
    return _qwen(
        architectures=[f"{name}LMHeadModel"], model_type=f"a2d-{kind}", tie_word_embeddings=True, transformers_version="4.57.0",
        **_FULL, **more, **_special(words, bos="<|endoftext|>", eos="<|im_end|>", pad="<|endoftext|>"),
        **_map(file, f"{file}.{name}Config", f"{file}.{name}Model", AutoModelForMaskedLM=f"{name}LMHeadModel"),
    )  # fmt: skip


_A2D3 = _a2d("qwen3", A2D3_WORDS, rope_theta=1000000, attention_bias=False, head_dim=24)
_A2D2 = _a2d("qwen2", A2D2_WORDS)
_DCODER = _qwen(
    architectures=["Qwen2ForCausalLM"], model_type="qwen2", tie_word_embeddings=True, use_mrope=False,
    transformers_version="4.54.1", **_FULL, **_special(DCODER_WORDS, bos="<|endoftext|>", eos="<|endoftext|>"),
)  # fmt: skip
_ILLADA: dict[str, Any] = {
    "architectures": ["ILLaDAForCausalLM"], "model_type": "illada", "vocab_size": VOCAB, "hidden_size": 64,
    "intermediate_size": 88, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS,
    "hidden_act": "silu", "max_position_embeddings": CONTEXT, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
    "tie_word_embeddings": True, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2,
}  # fmt: skip

_ENCODER: dict[str, Any] = {
    "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "hidden_size": 64,
    "initializer_range": 0.02, "intermediate_size": 88, "num_attention_heads": HEADS, "num_hidden_layers": LAYERS,
    "vocab_size": VOCAB,
}  # fmt: skip
_BERT: dict[str, Any] = _ENCODER | {
    "architectures": ["BertForMaskedLM"], "gradient_checkpointing": False, "layer_norm_eps": 1e-12,
    "max_position_embeddings": CONTEXT, "model_type": "bert", "pad_token_id": 0, "position_embedding_type": "absolute",
    "transformers_version": "4.6.0.dev0", "type_vocab_size": 2, "use_cache": True,
}  # fmt: skip
_ROBERTA: dict[str, Any] = _ENCODER | {
    "architectures": ["RobertaForMaskedLM"], "bos_token_id": 0, "eos_token_id": 2, "layer_norm_eps": 1e-5,
    "max_position_embeddings": CONTEXT + 2, "model_type": "roberta", "pad_token_id": 1, "type_vocab_size": 1,
}  # fmt: skip
_DISTILBERT: dict[str, Any] = {
    "activation": "gelu", "architectures": ["DistilBertForMaskedLM"], "attention_dropout": 0.1, "dim": 64, "dropout": 0.1,
    "hidden_dim": 88, "initializer_range": 0.02, "max_position_embeddings": CONTEXT, "model_type": "distilbert",
    "n_heads": HEADS, "n_layers": LAYERS, "pad_token_id": 0, "qa_dropout": 0.1, "seq_classif_dropout": 0.2,
    "sinusoidal_pos_embds": False, "tie_weights_": True, "transformers_version": "4.10.0.dev0", "vocab_size": VOCAB,
}  # fmt: skip
_MODERNBERT: dict[str, Any] = {
    "architectures": ["ModernBertForMaskedLM"], "attention_bias": False, "attention_dropout": 0.0,
    "classifier_activation": "gelu", "classifier_bias": False, "classifier_dropout": 0.0, "classifier_pooling": "mean",
    "decoder_bias": True, "deterministic_flash_attn": False, "embedding_dropout": 0.0, "global_attn_every_n_layers": 3,
    "global_rope_theta": 160000.0, "gradient_checkpointing": False, "hidden_activation": "gelu", "hidden_size": 64,
    "initializer_cutoff_factor": 2.0, "initializer_range": 0.02, "intermediate_size": 88, "layer_norm_eps": 1e-5,
    "local_attention": 16, "local_rope_theta": 10000.0, "max_position_embeddings": CONTEXT, "mlp_bias": False,
    "mlp_dropout": 0.0, "model_type": "modernbert", "norm_bias": False, "norm_eps": 1e-5, "num_attention_heads": HEADS,
    "num_hidden_layers": 4, "position_embedding_type": "absolute", "tie_word_embeddings": True, "torch_dtype": "float32",
    "transformers_version": "4.47.0.dev0", "vocab_size": VOCAB,
} | _special(MODERN_WORDS, bos="[CLS]", cls="[CLS]", eos="[SEP]", sep="[SEP]", pad="[PAD]")  # fmt: skip


# --- generation configs -----------------------------------------------------------------------------------------------

_EOS, _END = SDAR_WORDS["<|endoftext|>"], SDAR_WORDS["<|im_end|>"]  # the same ids in all Qwen vocabularies


def _generation(config: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"_from_model_config": True, "eos_token_id": config["eos_token_id"]} | more


_LLADA_START = {"bos_token_id": LLADA_WORDS["<|startoftext|>"], "transformers_version": "4.46.3"}
_MOE_PAD = {"pad_token_id": MOE_WORDS["<|endoftext|>"]}
_DREAM_GENERATION = _generation(
    _DREAM, alg="origin", alg_temp=None, bos_token_id=_EOS, eps=0.001, mask_token_id=None, output_history=False,
    pad_token_id=_EOS, steps=512, temperature=0.0, top_k=None, top_p=None, transformers_version="4.46.2",
)  # fmt: skip
_FAST_GENERATION: dict[str, Any] = {
    "bos_token_id": _EOS, "do_sample": True, "eos_token_id": [_END, _EOS], "pad_token_id": _EOS, "repetition_penalty": 1.05,
    "temperature": 0.7, "top_k": 20, "top_p": 0.8, "transformers_version": "4.53.1",
}  # fmt: skip
_SDAR_GENERATION: dict[str, Any] = {
    "bos_token_id": _EOS, "do_sample": True, "eos_token_id": [_END, _EOS], "pad_token_id": _EOS, "temperature": 0.6,
    "top_k": 20, "top_p": 0.95, "transformers_version": "4.51.0",
}  # fmt: skip


# --- all of it --------------------------------------------------------------------------------------------------------


def _of_llada() -> dict[str, Layout]:
    tied = qwen_shapes(64, 16, 88, tied=True)
    moe, moe2 = llada_moe_shapes(48, 24, 8, 2), llada2_shapes(48, 24, 88, 16, 16)
    words = replace(MOE_WORDS, chat=role_chat("\n"))
    return {
        "llada": Layout("llada", _LLADA, _generation(_LLADA, **_LLADA_START), llada_shapes(64, 88), LLADA_WORDS, "<|mdm_mask|>"),
        "illada": Layout("illada", _ILLADA, _generation(_ILLADA), tied, ILLADA_WORDS, "<[MASK]>"),
        "llada-moe": Layout("llada-moe", _LLADA_MOE, _generation(_LLADA_MOE, **_MOE_PAD), moe, MOE_WORDS, "<|mask|>"),
        "llada2": Layout("llada2", _LLADA2, _generation(_LLADA2, **_MOE_PAD), moe2, words, "<|mask|>"),
    }


def _of_qwen() -> dict[str, Layout]:
    two, three = qwen_shapes(64, 16, 88, tied=False, bias=True), qwen_shapes(64, 24, 88, tied=False, norm=True)
    tied_two, tied_three = ({k: v for k, v in shapes.items() if k != "lm_head.weight"} for shapes in (two, three))
    tied_fast = _FAST | {"tie_word_embeddings": True}
    found = {
        "dream": Layout("dream", _DREAM, _DREAM_GENERATION, two, DREAM_WORDS, "<|mask|>"),
        "open-dcoder": Layout("open-dcoder", _DCODER, _generation(_DCODER), tied_two, DCODER_WORDS, "<M>"),
        "fast-dllm-v2": Layout("fast-dllm-v2", _FAST, _FAST_GENERATION, two, FAST_WORDS, "|<MASK>|"),
        "fast-dllm-v2-tied": Layout("fast-dllm-v2", tied_fast, _FAST_GENERATION, tied_two, FAST_WORDS, "|<MASK>|"),
        "sdar": Layout("sdar", _SDAR, _SDAR_GENERATION, three, SDAR_WORDS, "<|MASK|>"),
    }
    for family in ("a2d-mdlm", "a2d-bd3lm"):  # the config says tied throughout; whether a head is stored decides
        found[family] = Layout(family, _A2D3, _generation(_A2D3, pad_token_id=_EOS), three, A2D3_WORDS, "<|mask|>")
        found[f"{family}-tied"] = replace(found[family], shapes=tied_three)
        found[f"{family}-qwen2"] = Layout(family, _A2D2, _generation(_A2D2, pad_token_id=_EOS), two, A2D2_WORDS, "<|mask|>")
    return found


def _of_encoders() -> dict[str, Layout]:
    modern = Layout("modernbert", _MODERNBERT, None, modernbert_shapes(64, 88, 4), MODERN_WORDS, "[MASK]")
    return {
        "bert": Layout("bert", _BERT, None, bert_shapes(64, 88), BERT_WORDS, "[MASK]"),
        "roberta": Layout("roberta", _ROBERTA, None, roberta_shapes(64, 88), ROBERTA_WORDS, "<mask>"),
        "distilbert": Layout("distilbert", _DISTILBERT, None, distilbert_shapes(64, 88), BERT_WORDS, "[MASK]"),
        "modernbert": modern,
        "modernbert-chat": replace(modern, words=replace(MODERN_WORDS, chat=BERT_CHAT)),
    }


LAYOUTS: dict[str, Layout] = _of_llada() | _of_qwen() | _of_encoders()
"""Every layout by its name: the family's, with an ending where a family has several."""

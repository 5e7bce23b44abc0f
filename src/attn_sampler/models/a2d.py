"""Tiny-A2D (dllm): Qwen2.5-Coder-0.5B and Qwen3-0.6B turned into diffusion models, logits not shifted.

The same config.json stands for two attention masks: mdlm (full) and bd3lm (block-causal, blocks of 32). Which of them a
directory is, only its name says: give ``load(..., family="a2d-mdlm")`` or ``"a2d-bd3lm"``. A stored ``lm_head.weight`` is used,
whatever ``tie_word_embeddings`` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from attn_sampler.models import dream
from attn_sampler.models.family import Family, Match, same_name
from attn_sampler.models.sdar import qwen3_settings

__all__ = ["BD3LM", "MDLM"]


def matches(raw: Mapping[str, Any]) -> Match:
    return "maybe" if raw.get("model_type") in ("a2d-qwen2", "a2d-qwen3") else "no"


def settings_of(raw: Mapping[str, Any]) -> dict[str, Any]:
    return qwen3_settings(raw) if raw["model_type"] == "a2d-qwen3" else dream.settings_of(raw)


MDLM = Family(
    name="a2d-mdlm",
    checkpoints="dllm-hub/Qwen3-0.6B-diffusion-mdlm-v0.1, Qwen2.5-Coder-0.5B-Instruct-diffusion-mdlm-v0.1",
    source="github.com/ZHZisZZ/dllm",
    stock={"a2d-qwen2": "Qwen2ForCausalLM", "a2d-qwen3": "Qwen3ForCausalLM"},
    matches=matches,
    settings_of=settings_of,
    pieces=same_name,
    mask_token="<|mask|>",
    ends={"<|endoftext|>": 151643, "<|im_end|>": 151645},
    chat_options={"enable_thinking": False},
    settings={"sampler": "confidence", "max_new_tokens": 256, "block_length": 256},
)

BD3LM = replace(
    MDLM,
    name="a2d-bd3lm",
    checkpoints="dllm-hub/Qwen3-0.6B-diffusion-bd3lm-v0.1, Qwen2.5-Coder-0.5B-Instruct-diffusion-bd3lm-v0.1",
    block_length=32,
    settings={"sampler": "confidence", "max_new_tokens": 256},
)

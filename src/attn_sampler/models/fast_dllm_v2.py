"""Fast-dLLM v2 1.5B and 7B (arXiv 2509.26328): a Qwen2 with block-causal attention, blocks of 32, logits shifted by one.

Shifted and block-causal together make it a hybrid: the first token of a block comes from the last row of the block before, so
it is written alone, by plain next-token prediction; the rest of the block follows in sub-blocks of 8.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attn_sampler.models import dream
from attn_sampler.models.family import Family, Match, same_name

__all__ = ["FAMILY"]


def matches(raw: Mapping[str, Any]) -> Match:
    return "yes" if raw.get("model_type") == "Fast_dLLM_Qwen" else "no"


FAMILY = Family(
    name="fast-dllm-v2",
    checkpoints="Efficient-Large-Model/Fast_dLLM_v2_1.5B, Fast_dLLM_v2_7B",
    source="arXiv:2509.26328",
    stock="Qwen2ForCausalLM",
    matches=matches,
    settings_of=dream.settings_of,
    pieces=same_name,
    shifted=True,
    block_length=32,
    mask_token="|<MASK>|",
    mask_id=151665,
    ends={"<|im_end|>": 151645},
    settings={"sampler": "fast-dllm-v2", "threshold": 0.9, "sub_block_length": 8, "max_new_tokens": 2048},
)

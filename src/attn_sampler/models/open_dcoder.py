"""Open-dCoder 0.5B (Open-dLLM): a Qwen2 with full attention, logits shifted by one.

Its config.json is that of an ordinary, causal Qwen2, so it is never guessed: ``load(..., family="open-dcoder")``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attn_sampler.models import dream
from attn_sampler.models.family import Family, Match, same_name

__all__ = ["FAMILY"]


def matches(raw: Mapping[str, Any]) -> Match:
    return "maybe" if raw.get("model_type") == "qwen2" else "no"


FAMILY = Family(
    name="open-dcoder",
    checkpoints="fredzzp/open-dcoder-0.5B",
    source="github.com/pengzhangzhi/Open-dLLM",
    stock="Qwen2ForCausalLM",
    matches=matches,
    settings_of=dream.settings_of,
    pieces=same_name,
    shifted=True,
    mask_token="<M>",
    mask_id=151665,
    ends={"<|endoftext|>": 151643, "<|im_end|>": 151645},
    settings={"temperature": 0.8, "top_p": 0.95, "max_new_tokens": 128},
)

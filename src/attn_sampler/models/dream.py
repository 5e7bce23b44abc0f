"""Dream-v0-7B Base / Instruct, Dream-Coder (arXiv 2508.15487, 2509.01142) and DiffuCoder (arXiv 2506.20639).

A Qwen2 with full attention and tensor names unchanged; logits are shifted by one. Padding takes no positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attn_sampler.models.family import Family, Match, number, same_name, stock_settings

__all__ = ["FAMILY"]


def matches(raw: Mapping[str, Any]) -> Match:
    return "yes" if raw.get("model_type") == "Dream" else "no"


def settings_of(raw: Mapping[str, Any]) -> dict[str, Any]:
    return stock_settings(raw) | {"intermediate_size": number(raw, "intermediate_size")}


FAMILY = Family(
    name="dream",
    checkpoints="Dream-org/Dream-v0-Base-7B, -Instruct-7B, Dream-Coder-v0-*, apple/DiffuCoder-7B-*",
    source="arXiv:2508.15487",
    stock="Qwen2ForCausalLM",
    matches=matches,
    settings_of=settings_of,
    pieces=same_name,
    shifted=True,
    counted_positions=True,
    mask_token="<|mask|>",
    mask_id=151666,
    ends={"<|endoftext|>": 151643, "<|im_end|>": 151645},
    settings={"sampler": "dream", "alg": "entropy", "temperature": 0.1, "top_p": 0.9},
)

"""What KV caches save: time per token with each policy against none, on the same random LLaDA-shaped model.

For every canvas length the policies run in turn, round after round, so that a machine's drift meets all of them alike; a ratio is
the median over the rounds of the ratio inside a round. One position is committed per forward pass. Half of the answer is
decoded, so that masks remain behind the active block: that is where ``prefix`` and ``dual`` differ.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from attn_sampler.engine import Engine
from attn_sampler.models import FAMILIES
from attn_sampler.models.adapter import TransformersModel
from attn_sampler.params import SamplingParams

__all__ = ["measure"]


def measure(
    *,
    canvases: Sequence[int] = (128, 256, 512, 1024, 2048),
    hidden: int = 512,
    layers: int = 8,
    heads: int = 8,
    block_length: int = 32,
    new_tokens: int = 32,
    sampler: str = "confidence",
    rounds: int = 3,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> list[dict[str, Any]]:
    """Time full attention with ``none``, ``prefix`` and ``dual``, and block-causal attention with ``none`` and ``block``.

    Prompt and an answer of ``2 * new_tokens`` fill the canvas; the first ``new_tokens`` forward passes are timed.

    Returns:
        one record per canvas and policy: ``ms_per_token`` (median), ``over_none`` with its lowest and highest round,
        ``cache_bytes`` (keys and values of one row), and the conditions.
    """
    config = LlamaConfig(
        vocab_size=1024, hidden_size=hidden, intermediate_size=3 * hidden, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=heads, max_position_embeddings=max(canvases) + block_length,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net: Any = LlamaForCausalLM(config)
    net.to(device=device, dtype=dtype)
    full = TransformersModel(net, FAMILIES["llada"], mask_id=0, eos_ids=(), pad_id=1)
    blocks = TransformersModel(net, FAMILIES["sdar"], mask_id=0, eos_ids=(), pad_id=1, block_length=block_length)
    routes = {
        "none": (full, "none"), "prefix": (full, "prefix"), "dual": (full, "dual"),
        "block-causal none": (blocks, "none"), "block-causal block": (blocks, "block"),
    }  # fmt: skip
    machine = torch.cuda.get_device_name() if device.startswith("cuda") else platform.processor() or platform.machine()
    conditions = {
        "hidden": hidden, "layers": layers, "heads": heads, "block_length": block_length, "new_tokens": new_tokens,
        "sampler": sampler, "rounds": rounds, "dtype": str(dtype).removeprefix("torch."), "device": device, "machine": machine,
        "threads": torch.get_num_threads(), "torch": torch.__version__,
    }  # fmt: skip
    out = []
    for canvas in canvases:
        prompt = [2 + i % 1000 for i in range(canvas - 2 * new_tokens)]
        seconds: dict[str, list[float]] = {name: [] for name in routes}
        size: dict[str, int] = {}
        for turn in range(rounds + 1):  # one round to warm up
            for name, (model, policy) in routes.items():
                took, size[name] = _decode(model, prompt, policy, sampler, new_tokens, block_length)
                if turn:
                    seconds[name].append(took / new_tokens)
        for name, values in seconds.items():
            base = seconds["block-causal none" if name.startswith("block") else "none"]
            ratios = [a / b for a, b in zip(values, base, strict=True)]
            record = {"canvas": canvas, "policy": name, "ms_per_token": 1000 * statistics.median(values)}
            spread = {"over_none": statistics.median(ratios), "over_none_low": min(ratios), "over_none_high": max(ratios)}
            out.append(record | spread | {"cache_bytes": size[name]} | conditions)
    return out


def _decode(
    model: TransformersModel, prompt: list[int], policy: str, sampler: str, new_tokens: int, block_length: int
) -> tuple[float, int]:
    """Seconds for the first half of an answer of ``2 * new_tokens``, and the bytes of its cache."""
    engine = Engine(model)
    params = SamplingParams(
        sampler=sampler, max_new_tokens=2 * new_tokens, block_length=None if model.block_length else block_length, cache=policy,
        ignore_eos=True, seed=0,
    )  # fmt: skip
    row = engine.admit(prompt, params)
    if str(model.device).startswith("cuda"):
        torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(new_tokens):
        engine.step()
    if str(model.device).startswith("cuda"):
        torch.cuda.synchronize()
    took = time.perf_counter() - began
    slots = engine._batch.slots if engine._batch is not None else None
    size = 0 if slots is None or policy == "none" else slots.num_bytes
    engine.cancel(row)
    return took, size

"""What attention statistics cost: a forward pass with column sums against a plain one, and against eager attention.

The three are timed in turn, round after round, so that a machine's drift meets all of them alike; a ratio is the median over the
rounds of the ratio inside a round.
"""

from __future__ import annotations

import copy
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from attn_sampler.attention import AttentionAsk
from attn_sampler.models import FAMILIES
from attn_sampler.models.adapter import TransformersModel
from attn_sampler.models.seam import Ask
from attn_sampler.seam import Attention

__all__ = ["measure"]


def measure(
    *,
    hidden: int = 512,
    layers: int = 8,
    heads: int = 8,
    canvas: int = 512,
    window: int = 32,
    batch: int = 1,
    rounds: int = 15,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> dict[str, Any]:
    """Time a random LLaDA-shaped model (full attention, feed-forward 3 x hidden, vocabulary 1024).

    Returns:
        ``columns_over_plain`` and ``local_over_plain``: forward with global / local column sums ÷ plain forward;
        ``columns_over_eager``: ÷ eager attention with ``output_attentions``; each with its lowest and highest round, the median
        milliseconds of each route, and the conditions.
    """
    config = LlamaConfig(
        vocab_size=1024, hidden_size=hidden, intermediate_size=3 * hidden, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=heads, max_position_embeddings=max(canvas, 512),
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net: Any = LlamaForCausalLM(config)
        net.to(device=device, dtype=dtype)
        ids = torch.randint(0, 1024, (batch, canvas), device=device)
    eager: Any = LlamaForCausalLM._from_config(copy.deepcopy(config), attn_implementation="eager")
    eager.to(device=device, dtype=dtype)
    eager.load_state_dict(net.state_dict())
    eager.eval()
    model = TransformersModel(net, FAMILIES["llada"], mask_id=0, eos_ids=(1,), pad_id=1)
    rows = torch.arange(batch, device=device)
    positions = torch.arange(canvas - window, canvas, device=device).expand(batch, window)
    real = torch.ones_like(positions, dtype=torch.bool)

    def ours(norm: str | None) -> Callable[[], Any]:
        ask = None if norm is None else AttentionAsk(Attention(norm=norm), rows, positions, real, positions, real)  # type: ignore[arg-type]
        return lambda: model.predict(ids, None, [Ask(rows, positions, ask)])

    full = torch.zeros(1, 1, canvas, canvas, device=device, dtype=dtype)

    @torch.inference_mode()
    def eager_route() -> torch.Tensor:
        out = eager.model(input_ids=ids, attention_mask=full, output_attentions=True)
        eager.lm_head(out.last_hidden_state[:, -window:])
        return torch.stack(out.attentions).mean((0, 2))[:, :, -window:].sum(1)

    routes = {"plain": ours(None), "columns": ours("global"), "local": ours("local"), "eager": eager_route}
    seconds: dict[str, list[float]] = {name: [] for name in routes}
    for turn in range(rounds + 2):  # two rounds to warm up
        for name, route in routes.items():
            took = _seconds(route, device)
            if turn >= 2:
                seconds[name].append(took)
    out: dict[str, Any] = {}
    for name, top, bottom in (
        ("columns_over_plain", "columns", "plain"),
        ("local_over_plain", "local", "plain"),
        ("columns_over_eager", "columns", "eager"),
    ):
        ratios = [a / b for a, b in zip(seconds[top], seconds[bottom], strict=True)]
        out |= {name: statistics.median(ratios), f"{name}_low": min(ratios), f"{name}_high": max(ratios)}
    out |= {f"{name}_ms": 1000 * statistics.median(values) for name, values in seconds.items()}
    machine = torch.cuda.get_device_name() if device.startswith("cuda") else platform.processor() or platform.machine()
    return out | {
        "hidden": hidden, "layers": layers, "heads": heads, "canvas": canvas, "window": window, "batch": batch, "rounds": rounds,
        "dtype": str(dtype).removeprefix("torch."), "device": device, "machine": machine, "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }  # fmt: skip


def _seconds(route: Callable[[], Any], device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    began = time.perf_counter()
    route()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - began

"""What int8 weights change: logits, memory, time. ``python -m attn_sampler.bench.int8`` prints the figures of docs/quantize.md.

Two models: the embedded one on Sudoku prompts whose answers are masks, and a random LLaDA-shaped one on random canvases.
"""

from __future__ import annotations

import copy
import json
import platform
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from attn_sampler.engine import Engine, load
from attn_sampler.evals.tasks import Problem, solved, sudoku_problem
from attn_sampler.models import FAMILIES
from attn_sampler.models.adapter import TransformersModel
from attn_sampler.models.int8 import to_int8
from attn_sampler.params import SamplingParams

__all__ = ["embedded", "random_model"]

NEW_TOKENS = 32


def embedded(*, problems: int = 48, rounds: int = 9, dtype: str = "float32") -> dict[str, Any]:
    """The embedded model with and without int8 on Sudoku puzzles of 6 to 10 clues."""
    rng = random.Random(0)
    asked = [sudoku_problem(rng, 6 + i % 5) for i in range(problems)]
    plain, small = load(dtype=dtype, device="cpu"), load(dtype=dtype, device="cpu", quantize="int8")
    rows = [plain.tokenizer.encode(problem.prompt) for problem in asked]  # type: ignore[union-attr]
    ids = torch.tensor([row + [plain.model.mask_id] * NEW_TOKENS for row in rows])  # Sudoku prompts have one length
    params = SamplingParams(sampler="confidence", max_new_tokens=NEW_TOKENS)
    answers = [engine.generate([problem.prompt for problem in asked], params) for engine in (plain, small)]
    return _compared(plain, small, ids, slice(-NEW_TOKENS, None), rounds) | {
        "problems": problems,
        "solved": _solved(asked, answers[0]),
        "solved_int8": _solved(asked, answers[1]),
        "same_answers": sum(a.token_ids == b.token_ids for a, b in zip(*answers, strict=True)),
    }


def _solved(problems: list[Problem], results: list[Any]) -> int:
    return sum(solved(problem, result.text) for problem, result in zip(problems, results, strict=True))


def random_model(
    *,
    hidden: int = 512,
    layers: int = 8,
    heads: int = 8,
    vocab: int = 1024,
    canvas: int = 512,
    rounds: int = 9,
    dtype: str = "float32",
) -> dict[str, Any]:
    """A random LLaDA-shaped model, that of `attn_sampler.bench.attention`: half a canvas of random ids, half of masks."""
    config = LlamaConfig(
        vocab_size=vocab, hidden_size=hidden, intermediate_size=3 * hidden, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=heads, max_position_embeddings=canvas,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net: Any = LlamaForCausalLM(config).to(getattr(torch, dtype))
        ids = torch.randint(2, vocab, (1, canvas))
    ids[:, canvas // 2 :] = 0
    net.requires_grad_(False)
    plain, small = (
        Engine(TransformersModel(one, FAMILIES["llada"], mask_id=0, eos_ids=(1,), pad_id=1))
        for one in (net, to_int8(copy.deepcopy(net)))
    )
    return _compared(plain, small, ids, slice(canvas // 2, None), rounds)


def _compared(plain: Engine, small: Engine, ids: Tensor, masked: slice, rounds: int) -> dict[str, Any]:
    one, two = (engine.logits(ids)[:, masked].float() for engine in (plain, small))
    best = one.topk(2, -1).values
    seconds: dict[str, list[float]] = {"plain": [], "int8": []}
    for turn in range(rounds + 2):  # two rounds to warm up
        for name, engine in (("plain", plain), ("int8", small)):
            took = _seconds(lambda engine=engine: engine.logits(ids))
            if turn >= 2:
                seconds[name].append(took)
    ratios = [b / a for a, b in zip(*seconds.values(), strict=True)]
    sizes = {name: weight_bytes(engine) for name, engine in (("plain", plain), ("int8", small))}
    return {
        "dtype": str(plain.model.dtype).removeprefix("torch."),  # type: ignore[attr-defined]
        "rows": ids.shape[0],
        "canvas": ids.shape[1],
        "positions": one.shape[0] * one.shape[1],
        "logit_change_mean": float((one - two).abs().mean()),
        "logit_change_max": float((one - two).abs().max()),
        "logit_deviation": float(one.std()),
        "probability_change_max": float((one.softmax(-1) - two.softmax(-1)).abs().max()),
        "same_token": float((one.argmax(-1) == two.argmax(-1)).float().mean()),
        "lead_median": float((best[..., 0] - best[..., 1]).median()),
        "bytes": sizes["plain"],
        "bytes_int8": sizes["int8"],
        "ms": 1000 * statistics.median(seconds["plain"]),
        "ms_int8": 1000 * statistics.median(seconds["int8"]),
        "int8_over_plain": statistics.median(ratios),
        "int8_over_plain_low": min(ratios),
        "int8_over_plain_high": max(ratios),
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
    }


def weight_bytes(engine: Engine) -> int:
    """Memory of all weights, those that two layers share counted once."""
    return sum(_bytes(parameter) for parameter in engine.model.net.parameters())  # type: ignore[attr-defined]


def _bytes(tensor: Tensor) -> int:
    parts = getattr(tensor, "tensor_data_names", None)  # of torchao's tensors
    if parts is None:
        return tensor.nbytes
    names = [*parts, *getattr(tensor, "optional_tensor_data_names", [])]
    return sum(part.nbytes for name in names if (part := getattr(tensor, name, None)) is not None)


def _seconds(route: Callable[[], Any]) -> float:
    began = time.perf_counter()
    route()
    return time.perf_counter() - began


def main() -> None:
    for dtype in ("float32", "bfloat16"):
        for measured in (embedded, random_model):
            print(json.dumps({"model": measured.__name__} | measured(dtype=dtype)))


if __name__ == "__main__":
    main()

"""Statistics hold no n x n tensor per head; what they cost beside the plain forward grows with the window, not with n squared."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from transformers import LlamaConfig, LlamaForCausalLM

from attn_sampler.attention import AttentionAsk
from attn_sampler.models import FAMILIES
from attn_sampler.models.adapter import TransformersModel
from attn_sampler.models.seam import Ask
from attn_sampler.seam import Attention

HEADS, KV_HEADS, VOCAB = 4, 2, 64


class Allocations(TorchDispatchMode):
    """Bytes of every storage that an operator makes (views make none)."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0  # numbers, not bytes, in one tensor
        self.total_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {x.untyped_storage().data_ptr() for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)}
        out = func(*args, **(kwargs or {}))
        for x in tree_flatten(out)[0]:
            if isinstance(x, Tensor) and x.untyped_storage().data_ptr() not in before:
                self.total_bytes += x.untyped_storage().nbytes()
                self.largest = max(self.largest, x.untyped_storage().nbytes() // x.element_size())
        return out


@cache
def model() -> TransformersModel:
    settings = LlamaConfig(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS, max_position_embeddings=2048,
    )  # fmt: skip
    net = LlamaForCausalLM(settings).requires_grad_(False)
    return TransformersModel(net, FAMILIES["llada"], mask_id=1, eos_ids=(), pad_id=0)


def forward(n: int, window: int, statistics: Attention | None, padded: bool = False) -> Allocations:
    positions = torch.arange(n - window, n)[None]
    ids = torch.ones(1, n, dtype=torch.long)
    valid = torch.ones_like(ids, dtype=torch.bool) if padded else None
    yes = torch.ones_like(positions, dtype=torch.bool)
    row = torch.tensor([0])
    ask = None if statistics is None else AttentionAsk(statistics, row, positions, yes, positions, yes)
    if ask is not None:
        every = torch.ones_like(ids, dtype=torch.bool)
        ask = replace(ask, everyone=every if statistics.sinks else None, known=every if statistics.known_mass else None)
    with Allocations() as seen:
        model().predict(ids, valid, [Ask(row, positions, ask)])
    return seen


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("pairwise", [False, True])
@pytest.mark.parametrize("norm", ["local", "global"])
def test_no_tensor_has_n_squared_numbers(norm: str, pairwise: bool, padded: bool) -> None:
    n = 1024
    seen = forward(n, 32, Attention(norm=norm, pairwise=pairwise), padded)  # type: ignore[arg-type]
    assert seen.largest < n * n / 8, "the largest is an activation, rows x features"
    assert seen.largest >= n * 32, "the recorder saw the model run"


@pytest.mark.parametrize("norm", ["local", "global"])
def test_extra_memory_grows_with_the_window_and_not_with_n_squared(norm: str) -> None:
    statistics = Attention(norm=norm)  # type: ignore[arg-type]

    def extra(n: int, window: int) -> int:
        return forward(n, window, statistics).total_bytes - forward(n, window, None).total_bytes

    # Fourfold length: the keys repeated over query heads and the log-sum-exp grow fourfold, an n x n matrix would sixteenfold.
    assert extra(1024, 32) <= 4.2 * extra(256, 32)
    # One window more costs a w x w product and w rows of queries and keys, whatever n is.
    assert extra(1024, 64) - extra(1024, 32) == extra(512, 64) - extra(512, 32) > 0
    assert extra(1024, 64) - extra(1024, 32) < 1024 * 1024


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(
    "statistics",
    [
        Attention(),
        Attention(pairwise=True),
        Attention(norm="global"),
        Attention(norm="global", pairwise=True),
        Attention(norm="global", known_mass=True),
        Attention(norm="global", sinks=True),
        Attention(norm="global", pairwise=True, sinks=True, known_mass=True),
    ],
    ids=lambda s: "-".join([s.norm, *(name for name in ("pairwise", "sinks", "known_mass") if getattr(s, name))]),
)
def test_a_window_as_wide_as_the_canvas_is_held_for_64_queries_at_a_time(statistics: Attention, padded: bool) -> None:
    """The matrix itself, where it is asked for, once and without heads; everything else a stretch of queries per head."""
    n = 1024
    seen = forward(n, n, statistics, padded)
    assert seen.largest <= (n * n if statistics.pairwise else HEADS * 64 * n)


def test_eager_attention_does_make_one() -> None:
    """The recorder would notice."""
    n = 256
    q = torch.zeros(1, HEADS, n, 8)
    with Allocations() as seen:
        (q @ q.mT).softmax(-1)
    assert seen.largest == HEADS * n * n


def test_the_head_sees_the_window_only() -> None:
    """Logits of the whole canvas would be the largest tensor of all: rows x vocabulary."""
    seen: list[tuple[int, ...]] = []
    handle = model().net.lm_head.register_forward_hook(lambda _, inputs, output: seen.append(tuple(output.shape)))  # type: ignore[operator]
    try:
        forward(512, 32, None)
    finally:
        handle.remove()
    assert seen == [(1, 32, VOCAB)]

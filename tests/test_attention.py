"""Attention statistics beside the fused kernel equal those of eager attention.

Slow twin: the stock model with ``attn_implementation="eager"`` and ``output_attentions``, which holds every n x n matrix.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

import attn_sampler as ats
from attn_sampler import Engine, attention
from attn_sampler.attention import AttentionAsk, Collector
from attn_sampler.errors import AttnSamplerError, InvalidInputError
from attn_sampler.models import FAMILIES
from attn_sampler.models.adapter import TransformersModel
from attn_sampler.models.seam import Ask
from attn_sampler.seam import Attention

GOLDEN = Path(__file__).parent / "golden"
VOCAB = 40
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")),
]


@cache
def models(layers: int, heads: int, kv_heads: int, device: str = "cpu") -> tuple[TransformersModel, LlamaForCausalLM]:
    """A small random Llama behind the hook, and the same weights with eager attention."""
    settings = LlamaConfig(
        vocab_size=VOCAB, hidden_size=8 * heads, intermediate_size=16, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=kv_heads, max_position_embeddings=128,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(layers * 100 + heads * 10 + kv_heads)
        net = LlamaForCausalLM(settings).eval().requires_grad_(False)
        for layer in net.model.layers:  # sharp attention: with the default start every weight would be about 1/n
            for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj):
                projection.weight.normal_(std=1.3 / (8 * heads) ** 0.5)
    net = net.to(device)
    eager = copy.deepcopy(net)
    eager.set_attn_implementation("eager")
    model = TransformersModel(net, FAMILIES["llada"], mask_id=VOCAB - 1, eos_ids=(0,), pad_id=0)
    return model, eager


def eager_attention(net: LlamaForCausalLM, ids: Tensor, valid: Tensor) -> Tensor:
    """(layers, rows, heads, queries, keys)."""
    bias = (
        torch.zeros(valid.shape, device=valid.device)
        .masked_fill(~valid, -torch.inf)[:, None, None]
        .expand(-1, 1, ids.shape[1], -1)
    )
    with torch.inference_mode():
        out = net.model(input_ids=ids, attention_mask=bias, output_attentions=True, use_cache=False)
    return torch.stack(out.attentions)


def twin(full: Tensor, ask: AttentionAsk) -> tuple[Tensor, Tensor]:
    """Column sums and matrix by the definition, from the whole attention."""
    statistics = ask.statistics
    layers = range(full.shape[0]) if statistics.layers is None else statistics.layers
    heads = range(full.shape[2]) if statistics.heads is None else statistics.heads
    columns, matrices = [], []
    for k, row in enumerate(ask.rows.tolist()):
        queries, keys, real = ask.queries[k], ask.keys[k], ask.real[k]
        total = torch.zeros(len(queries), len(keys), dtype=torch.float64, device=full.device)
        for layer in layers:
            for head in heads:
                a = full[layer, row, head].double()[queries][:, keys] * real
                total += a / a.sum(-1, keepdim=True) if statistics.norm == "local" else a
        total /= len(layers) * len(heads)
        if not statistics.diag:
            total[queries[:, None] == keys] = 0
        columns.append(total[ask.counted[k]].sum(0))
        matrices.append(total)
    return torch.stack(columns), torch.stack(matrices)


Case = tuple[int, int, int, Tensor, Tensor, list[tuple[Any, ...]]]
"""Layers, heads, key heads, ids, valid, and the parts of each `AttentionAsk`."""


@st.composite
def shapes(draw: st.DrawFn) -> Case:
    """A model's shape, a padded batch, and one or two questions about it."""
    layers = draw(st.integers(1, 3))
    heads, kv_heads = draw(st.sampled_from([(1, 1), (2, 2), (4, 2), (4, 1), (6, 3)]))
    rows, length = draw(st.integers(1, 3)), draw(st.integers(2, 40))
    rng = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    ids = torch.randint(0, VOCAB, (rows, length), generator=rng)
    valid = torch.ones_like(ids, dtype=torch.bool)
    for row in range(rows):
        kind, n = draw(st.sampled_from(["none", "left", "right"])), draw(st.integers(1, length - 1))
        if kind == "left":
            valid[row, :n] = False
        elif kind == "right":
            valid[row, n:] = False
    asks = []
    for _ in range(draw(st.integers(1, 2))):
        some = draw(st.lists(st.integers(0, rows - 1), min_size=1, max_size=rows, unique=True))
        width, asked = draw(st.integers(1, 8)), draw(st.integers(1, 8))
        statistics = {
            "norm": draw(st.sampled_from(["local", "global"])),
            "diag": draw(st.booleans()),
            "layers": draw(st.none() | st.sets(st.integers(0, layers - 1), min_size=1).map(lambda x: tuple(sorted(x)))),
            "heads": draw(st.none() | st.sets(st.integers(0, heads - 1), min_size=1).map(lambda x: tuple(sorted(x)))),
            "pairwise": draw(st.booleans()),
        }
        keys, queries, real = [], [], []
        for row in some:
            # A window never reaches into padding; in the global norm such columns would be 0.
            inside = valid[row].nonzero()[:, 0] if statistics["norm"] == "local" else torch.arange(length)
            own = inside[torch.randperm(len(inside), generator=rng)[:width]]
            keys.append(torch.cat([own, own[-1:].expand(width - len(own))]))  # short windows repeat their last position
            real.append(torch.arange(width) < len(own))
            queries.append(inside[torch.randint(0, len(inside), (asked,), generator=rng)])
        counted = torch.rand(len(some), asked, generator=rng) < 0.7
        asks.append((statistics, torch.tensor(some), torch.stack(queries), counted, torch.stack(keys), torch.stack(real)))
    return layers, heads, kv_heads, ids, valid, asks


def asks_of(case: Case) -> list[AttentionAsk]:
    """Built outside the strategy: the type checker draws from ``random``, which hypothesis forbids in there."""
    return [AttentionAsk(Attention(**statistics), *fields) for statistics, *fields in case[-1]]


def ask_model(model: TransformersModel, ids: Tensor, valid: Tensor | None, asks: list[AttentionAsk]) -> list:
    return model.predict(ids, valid, [Ask(ask.rows, ask.keys, ask) for ask in asks])


@pytest.mark.parametrize("chunk", [3, 64])
@settings(max_examples=60)
@given(shapes())
def test_statistics_equal_eager_attention(chunk: int, case: Case) -> None:
    """Grouped-query heads, padding on either side, chosen rows, layers and heads, both norms, with and without the diagonal."""
    layers, heads, kv_heads, ids, valid, _ = case
    asks = asks_of(case)
    model, eager = models(layers, heads, kv_heads)
    full = eager_attention(eager, ids, valid)
    for given_valid in [valid] if not valid.all() else [valid, None]:
        with patch.object(attention, "CHUNK", chunk):
            predictions = ask_model(model, ids, given_valid, asks)
        for ask, prediction in zip(asks, predictions, strict=True):
            columns, matrix = twin(full, ask)
            assert prediction.columns.dtype == torch.float32
            torch.testing.assert_close(prediction.columns.double(), columns, atol=1e-5, rtol=0)
            assert (prediction.pairwise is not None) == ask.statistics.pairwise
            if prediction.pairwise is not None:
                torch.testing.assert_close(prediction.pairwise.double(), matrix, atol=1e-5, rtol=0)


@settings(max_examples=100)
@given(shapes())
def test_asking_does_not_change_the_logits(case: Case) -> None:
    layers, heads, kv_heads, ids, valid, _ = case
    asks = asks_of(case)
    model, _ = models(layers, heads, kv_heads)
    plain = model.predict(ids, valid, [Ask(ask.rows, ask.keys) for ask in asks])
    for with_statistics, without in zip(ask_model(model, ids, valid, asks), plain, strict=True):
        assert without.columns is None
        assert without.pairwise is None
        torch.testing.assert_close(with_statistics.logits, without.logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("chunk", [3, 64])
@settings(max_examples=25)
@given(shapes(), st.integers(0, 2**31))
def test_sinks_and_known_mass_equal_eager_attention(chunk: int, case: Case, seed: int) -> None:
    """Each column's mean over all queries that exist, and each query's mass on chosen keys, stretch by stretch."""
    layers, heads, kv_heads, ids, valid, _ = case
    model, eager = models(layers, heads, kv_heads)
    if seed % 2:  # longer than a chunk of 64
        ids, valid = ids.repeat(1, 3)[:, :100], valid.repeat(1, 3)[:, :100]
    full = eager_attention(eager, ids, valid).double().mean((0, 2))
    known = valid & (torch.rand(valid.shape, generator=torch.Generator().manual_seed(seed)) < 0.5)
    for ask in asks_of(case):
        if ask.statistics.norm == "local":
            continue
        wanted = Attention(norm="global", sinks=True, known_mass=True)
        ask = replace(ask, statistics=wanted, everyone=valid[ask.rows], known=known[ask.rows])
        with patch.object(attention, "CHUNK", chunk):
            (got,) = ask_model(model, ids, valid, [ask])
        for k, row in enumerate(ask.rows.tolist()):
            sinks = full[row][valid[row]].mean(0)[ask.keys[k]] * ask.real[k]
            torch.testing.assert_close(got.sinks[k].double(), sinks, atol=1e-5, rtol=0)
            mass = full[row][ask.queries[k]][:, known[row]].sum(1)
            torch.testing.assert_close(got.known_mass[k].double(), mass, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("wanted", "layers", "want"),
    [
        ({"last": 4}, 28, (24, 25, 26, 27)),
        ({"last": 4}, 2, (0, 1)),
        ({"span": (0.7, 1.0)}, 32, tuple(range(22, 32))),
        ({"span": (7 / 32, 8 / 32)}, 32, (7,)),
        ({"span": (7 / 32, 8 / 32)}, 1, (0,)),
        ({"span": (0.0, 1.0)}, 3, (0, 1, 2)),
        ({"layers": (1,)}, 3, (1,)),
        ({}, 3, None),
    ],
)
def test_layers_by_depth(wanted: dict[str, Any], layers: int, want: tuple[int, ...] | None) -> None:
    assert Attention(norm="global", **wanted).of_depth(layers).layers == want


def test_sinks_are_of_the_true_attention() -> None:
    with pytest.raises(InvalidInputError, match="global"):
        Attention(norm="local", sinks=True)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("padding", ["none", "left", "right"])
@pytest.mark.parametrize("norm", ["local", "global"])
def test_statistics_on_each_device(norm: str, padding: str, kv_heads: int, device: str) -> None:
    model, eager = models(2, 4, kv_heads, device)
    ids = torch.arange(2 * 45, device=device).reshape(2, 45) * 7 % VOCAB  # 45: no multiple of any kernel's tile
    valid = torch.ones_like(ids, dtype=torch.bool)
    if padding != "none":
        valid[1, slice(0, 13) if padding == "left" else slice(32, 45)] = False
    keys = torch.arange(16, 24, device=device).expand(2, -1)
    all_true = torch.ones_like(keys, dtype=torch.bool)
    ask = AttentionAsk(Attention(norm=norm, pairwise=True), torch.arange(2, device=device), keys, all_true, keys, all_true)  # type: ignore[arg-type]
    (got,) = ask_model(model, ids, None if padding == "none" else valid, [ask])
    columns, matrix = twin(eager_attention(eager, ids, valid), ask)
    torch.testing.assert_close(got.columns.double(), columns, atol=1e-5, rtol=0)
    torch.testing.assert_close(got.pairwise.double(), matrix, atol=1e-5, rtol=0)


@pytest.mark.parametrize("device", DEVICES)
@given(
    st.integers(1, 2), st.integers(1, 3), st.integers(1, 70), st.integers(1, 70), st.sampled_from([None, "key", "query"]),
    st.integers(1, 80), st.integers(0, 2**31),
)  # fmt: skip
@example(rows=1, heads=1, queries=64, keys=65, bias_of="query", chunk=64, seed=0)
def test_plain_operations_equal_the_fused_kernel(
    device: str, rows: int, heads: int, queries: int, keys: int, bias_of: str | None, chunk: int, seed: int
) -> None:
    """The path for devices without a kernel of ours: output and log-sum-exp, whatever the chunk."""
    rng = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(rows, heads, n, 16, generator=rng).to(device) for n in (queries, keys, keys))
    bias = None
    if bias_of is not None:
        bias = torch.randn(rows, 1, queries if bias_of == "query" else 1, keys, generator=rng)
        bias[..., 1:][torch.rand(bias[..., 1:].shape, generator=rng) < 0.3] = -torch.inf  # the first key stays: no empty row
        bias = bias.to(device)
    fused_out, fused_lse = attention._fused(q, k, v, bias, 0.25)
    out, lse = attention._chunked(q, k, v, bias, 0.25, chunk)
    assert fused_lse.shape == (rows, heads, queries)
    torch.testing.assert_close(out, fused_out, atol=1e-5, rtol=0)
    torch.testing.assert_close(lse, fused_lse, atol=1e-5, rtol=0)


@cache
def checkpoint(name: str) -> Engine:
    return ats.load(GOLDEN / "models" / name, device="cpu", mask_id=283)


@pytest.mark.parametrize("diag", ["with", "without"])
@pytest.mark.parametrize("rows", ["all", "masked"])
@pytest.mark.parametrize("norm", ["local", "local_masked", "global"])
@pytest.mark.parametrize("window", ["w8", "w32"])
@pytest.mark.parametrize("case", ["unpadded", "left_padded"])
@pytest.mark.parametrize("name", ["llada_gqa", "dream", "fast_dllm_v2", "sdar"])
def test_golden_column_sums(name: str, case: str, window: str, norm: str, rows: str, diag: str) -> None:
    if name == "sdar" and norm == "local_masked":
        pytest.skip("these windows cross blocks of 4, which no window of the engine does")
    with np.load(GOLDEN / "attention" / f"{name}.npz") as data:
        ids, mask, masked, (low, high), want = (
            torch.from_numpy(data[f"{case}__{name}"])
            for name in ("input_ids", "attention_mask", "masked", window, f"S__{window}__{norm}__{rows}__{diag}")
        )
    keys = torch.arange(int(low), int(high))[None]
    real = mask.bool()[:, keys[0]] if norm == "local_masked" else torch.ones_like(keys, dtype=torch.bool)
    counted = masked[keys] if rows == "masked" else torch.ones_like(real)
    statistics = Attention(rows=rows, norm="global" if norm == "global" else "local", diag=diag == "with")  # type: ignore[arg-type]
    ask = AttentionAsk(statistics, torch.tensor([0]), keys, counted, keys, real)
    model = checkpoint(name).model
    assert isinstance(model, TransformersModel)
    (got,) = ask_model(model, ids, mask.bool(), [ask])
    torch.testing.assert_close(got.columns[0], want, atol=2e-5, rtol=0)


def test_local_columns_have_mean_one_in_half_precision() -> None:
    """Every row of a softmax sums to 1; the sums are float32 whatever the model is."""
    net = copy.deepcopy(models(2, 4, 2)[0].net).to(torch.bfloat16)
    model = TransformersModel(net, FAMILIES["llada"], mask_id=VOCAB - 1, eos_ids=(), pad_id=0)
    keys = torch.arange(3, 19)[None]
    yes = torch.ones_like(keys, dtype=torch.bool)
    asks = [AttentionAsk(Attention(norm=norm), torch.tensor([0]), keys, yes, keys, yes) for norm in ("local", "global")]
    for ask, got in zip(asks, ask_model(model, torch.arange(30)[None], None, asks), strict=True):
        assert got.columns.dtype == torch.float32
        if ask.statistics.norm == "local":
            assert abs(float(got.columns.mean()) - 1) < 1e-5
        else:
            assert 0 < float(got.columns.mean()) < 1


def test_a_model_that_lost_the_hook_is_reported() -> None:
    keys = torch.tensor([[0, 1]])
    yes = torch.ones_like(keys, dtype=torch.bool)
    with pytest.raises(AttnSamplerError, match="hook"):
        Collector([AttentionAsk(Attention(), torch.tensor([0]), keys, yes, keys, yes)]).result(0)


def test_a_two_dimensional_mask_is_refused_not_dropped() -> None:
    model, _ = models(1, 1, 1)
    with pytest.raises(AttnSamplerError, match="4-D"):
        model.net.model(input_ids=torch.tensor([[1, 2]]), attention_mask=torch.tensor([[1, 0]]), use_cache=False)  # type: ignore[operator]

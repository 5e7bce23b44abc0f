"""KV caches: exact ones change nothing, approximate ones change nothing for their neighbours, and all do less work."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import attn_sampler as ats
from attn_sampler import Engine, Hole, InvalidInputError, SamplingParams
from attn_sampler.cache import Slots

MODELS = Path(__file__).parent / "golden" / "models"
BLOCK_CAUSAL = ("sdar", "fast_dllm_v2", "llada2")
SAMPLERS: list[dict[str, Any]] = [
    {"sampler": "confidence"},
    {"sampler": "fast-dllm", "threshold": 0.6},
    {"sampler": "attention", "threshold": 0.6, "sub_block_length": 4},
    {"sampler": "attention", "threshold": 0.6, "norm": "global", "rows": "block", "diag": False},
    {"sampler": "attention-sequential", "norm": "global", "sub_block_length": None},
    {"sampler": "random", "k": 2},
    {"sampler": "llada2", "threshold": 0.7, "editing_threshold": 0.6, "max_post_steps": 3},
    {"sampler": "remdm", "ratio": 0.5, "loops": 3, "k": 3},
    {"sampler": "dcd", "threshold": 0.6, "sub_block_length": 5},
]
REVISING = (6, 7)


@cache
def engine(model: str) -> Engine:
    mask_id = json.loads((MODELS / model / "meta.json").read_text())["mask_id"]
    return ats.load(MODELS / model, device="cpu", mask_id=mask_id, eos_ids=[])


def prompts(lengths: list[int]) -> list[list[int]]:
    return [[(7 * i + 31 * n) % 260 for i in range(n)] for n in lengths]


rows = st.lists(st.tuples(st.integers(1, 45), st.integers(0, len(SAMPLERS) - 1)), min_size=1, max_size=4)


def params(which: int, **more: Any) -> SamplingParams:
    return SamplingParams(**SAMPLERS[which] | {"seed": 5, "ignore_eos": True, "max_new_tokens": 24} | more)


@pytest.mark.parametrize("model", BLOCK_CAUSAL)
@settings(max_examples=3)
@given(rows=rows)
def test_the_block_cache_is_exact(model: str, rows: list[tuple[int, int]]) -> None:
    """Token for token what the uncached run gives, for every sampler, in a ragged batch whose rows join at different times."""
    given = prompts([n for n, _ in rows])
    plain = engine(model).generate(given, [params(which, cache="none") for _, which in rows])
    cached = engine(model).generate(given, [params(which, cache="block") for _, which in rows])
    few = Engine(engine(model).model, max_rows=2).generate(given, [params(which) for _, which in rows])
    for a, b, c in zip(plain, cached, few, strict=True):
        assert (a.token_ids, a.forwards) == (b.token_ids, b.forwards) == (c.token_ids, c.forwards)


@pytest.mark.parametrize(
    ("model", "policy"),
    [(m, p) for m in ("llada_gqa", "dream", "llada_moe") for p in ("prefix", "dual")] + [("fast_dllm_v2", "sub-block")],
)
@settings(max_examples=3)
@given(rows=rows, refresh=st.sampled_from([None, 1, 2, 5]), unit=st.sampled_from(["refresh_every", "refresh_tokens"]))
def test_a_row_in_any_batch_is_that_row_alone(
    model: str, policy: str, rows: list[tuple[int, int]], refresh: int | None, unit: str
) -> None:
    """Neighbours have other lengths, samplers and policies, and come and go."""
    more: dict[str, Any] = {"cache": policy} if policy == "sub-block" else {"cache": policy, unit: refresh}
    odd = policy == "sub-block"  # which takes no sampler that looks at, or revises, the whole block
    allowed = [0 if odd and (SAMPLERS[which].get("rows") == "block" or which in REVISING) else which for _, which in rows]
    given = prompts([n for n, _ in rows])
    shapes = [{} if policy == "sub-block" else {"block_length": b} for b in (8, 12, 24, 6)]
    each = [params(which, **more, **shape) for which, shape in zip(allowed, shapes, strict=False)]
    if len(each) > 1:
        each[1] = params(allowed[1], cache="none")
    small = Engine(engine(model).model, max_rows=3)
    alone = [small.generate([p], one)[0] for p, one in zip(given, each, strict=True)]
    together = small.generate(given, each)
    assert [r.token_ids for r in together] == [r.token_ids for r in alone]
    assert [r.forwards for r in together] == [r.forwards for r in alone]


@pytest.mark.parametrize("policy", ["prefix", "dual"])
@pytest.mark.parametrize("model", ["llada_gqa", "llada_moe"])
def test_refreshed_in_every_pass_an_approximation_is_exact(model: str, policy: str) -> None:
    given, lengths = prompts([9, 30]), {"block_length": 8}
    plain = engine(model).generate(given, params(1, **lengths))
    cached = engine(model).generate(given, params(1, cache=policy, refresh_every=1, **lengths))
    assert [(r.token_ids, r.forwards) for r in plain] == [(r.token_ids, r.forwards) for r in cached]


def computed(model: str, **more: Any) -> list[int]:
    """Positions that ran through the network in each pass of one row with a prompt of 40."""
    inner = engine(model).model
    widths: list[int] = []
    run: Callable[..., Any] = inner._run  # type: ignore[attr-defined]

    def watched(ids: Tensor, *rest: Any) -> Any:
        widths.append(ids.shape[1])
        return run(ids, *rest)

    inner._run = watched  # type: ignore[attr-defined]
    try:
        Engine(inner).generate(prompts([40]), SamplingParams(max_new_tokens=32, ignore_eos=True, seed=0, **more))
    finally:
        del inner._run  # type: ignore[attr-defined]
    return widths


def test_what_each_policy_computes() -> None:
    one = {"sampler": "left-to-right", "k": 4}
    full = {**one, "block_length": 16}
    assert computed("llada_gqa", **full) == [72] * 8
    assert computed("llada_gqa", cache="prefix", **full) == [72, 32, 32, 32, 72, 16, 16, 16]
    assert computed("llada_gqa", cache="dual", **full) == [72, 16, 16, 16] * 2
    assert computed("llada_gqa", cache="dual", refresh_every=2, **full) == [72, 16] * 4
    assert computed("llada_gqa", cache="dual", refresh_tokens=8, **full) == [72, 16] * 4
    assert computed("llada_gqa", cache="dual", refresh_tokens=9, **full) == [72, 16, 16, 72] * 2
    assert computed("llada_gqa", cache="dual", refresh_tokens=9, refresh_every=2, **full) == [72, 16] * 4
    # Blocks of 32 from position 0: the answer 40 .. 71 lies in 32 .. 63 and 64 .. 95, the last one is filled to its end.
    assert computed("llada2", cache="none", **one) == [64] * 6 + [96] * 8
    assert computed("llada2", **one) == [64, *[32] * 5, 64, *[32] * 7]
    # Shifted: the first token of a block is written alone, and the sub-block's passes follow once it has been computed.
    sub = {"sampler": "fast-dllm-v2", "threshold": 0.0}
    assert computed("fast_dllm_v2", **sub) == [64, 32, 32, 64, 32, 32, 32, 32]
    sub["threshold"] = 1.0  # a sub-block whose first token is still masked needs the whole block
    widths = computed("fast_dllm_v2", cache="sub-block", **sub)
    assert widths[0] == 64
    assert set(widths) == {64, 32, 8}
    assert sum(widths) < sum(computed("fast_dllm_v2", **sub))


@pytest.mark.parametrize("model", ["sdar", "fast_dllm_v2"])
def test_infill_across_blocks(model: str) -> None:
    """Whole blocks may be given in the middle: what follows them is computed with their tokens."""
    template: list[Any] = [[5, 6, 7], Hole(6), [(3 * i) % 250 for i in range(70)], Hole(9), [8, 9]]
    plain, cached = (engine(model).infill(template, SamplingParams(cache=c, seed=0)) for c in ("none", "block"))
    assert plain.token_ids == cached.token_ids
    assert plain.token_ids[9:79] == template[2]


@pytest.mark.parametrize(
    ("model", "arguments", "field"),
    [
        ("llada_gqa", {"cache": "block"}, "cache"),
        ("llada_gqa", {"cache": "sub-block"}, "cache"),
        ("llada_gqa", {"cache": "duel"}, "cache"),
        ("llada_gqa", {"cache": "dual", "refresh_every": 0}, "refresh_every"),
        ("llada_gqa", {"refresh_every": 2}, "refresh_every"),
        ("llada_gqa", {"cache": "prefix", "refresh_tokens": 1.5}, "refresh_tokens"),
        ("llada_gqa", {"cache": "none", "refresh_tokens": 16}, "refresh_tokens"),
        ("llada_gqa", {"cache": "dual", "cfg_scale": 1.0}, "cache"),
        ("llada_gqa", {"cache": "dual", "sampler": "klass"}, "cache"),
        ("sdar", {"cache": "prefix"}, "cache"),
        ("sdar", {"block_length": 8, "max_new_tokens": 8}, "block_length"),
        ("fast_dllm_v2", {"cache": "sub-block", "sampler": "attention", "rows": "block"}, "rows"),
        ("fast_dllm_v2", {"cache": "sub-block", "sampler": "llada2", "editing_threshold": 0.9}, "cache"),
    ],
)
def test_what_does_not_go_together(model: str, arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        engine(model).generate([[1, 2]], SamplingParams(**arguments))
    assert caught.value.field == field


def test_samplers_that_see_the_whole_answer_run_uncached_on_block_models() -> None:
    results = engine("sdar").generate(prompts([6, 9]), SamplingParams(sampler="klass", max_new_tokens=8, ignore_eos=True, seed=0))
    assert [len(r.token_ids) for r in results] == [8, 8]


def test_guided_rows_ride_with_cached_ones() -> None:
    sdar = engine("sdar")
    each = [params(0, cfg_scale=0.5), params(0)]
    given = prompts([5, 11])
    assert [r.token_ids for r in sdar.generate(given, each)] == [
        sdar.generate([p], one)[0].token_ids for p, one in zip(given, each, strict=True)
    ]


def test_slots_by_hand() -> None:
    slots, positions = Slots(), torch.tensor([[2, 3], [0, 0]])
    key = torch.arange(8.0).reshape(2, 1, 2, 2)
    key[1, 0, 1] = key[1, 0, 0]  # a repeated position is the same position
    keys, values = slots.write(0, key, -key, positions, 5)
    assert torch.equal(keys[0, 0, 2:4], key[0, 0])
    assert torch.equal(values[1, 0, 0], -key[1, 0, 0])
    assert keys[0, 0, [0, 1, 4]].abs().sum() == 0
    kept = slots.rows(torch.tensor([1])).join(1)
    keys, _ = kept.write(0, key, -key, positions, 7)
    assert keys.shape == (2, 1, 7, 2)
    assert slots.num_bytes == 2 * 2 * 5 * 2 * 4


def test_a_hole_at_the_start_needs_a_left_neighbour() -> None:
    with pytest.raises(InvalidInputError) as caught:
        engine("dream").infill([Hole(2), [5, 6]])
    assert "left neighbour" in caught.value.remedy
    assert engine("llada_gqa").infill([Hole(2), [5, 6]], SamplingParams(seed=0)).token_ids[2:] == [5, 6]

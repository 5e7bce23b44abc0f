"""The two ends of every sampler: what it does where the model is certain, and where its options allow the least.

A sampler that is built in has an entry in both tables; one from another package needs none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attn_sampler import Engine, SamplingParams, Step, samplers
from fakes import TableModel, one_hot, random_table
from test_samplers import MASK, TABLE, VOCAB, Row, rows

Options = dict[str, Any]
Passes = Callable[[int], int]
"""Masks of a block → forward passes that it takes."""


def by(stretch: int) -> Passes:
    return lambda masks: -(-masks // stretch)


def limits_of_wino(masks: int) -> int:
    """70 % of the masks at a time, 20 at most; 5 always may."""
    passes = 0
    while masks > 0:
        masks, passes = masks - min(max(masks * 7 // 10, 5), 20), passes + 1
    return passes


ONE = by(10**6)
BY_NUMBER = "how many it commits does not depend on how sure the model is: k per pass"

# With every token certain: options and the passes that a block then takes, or why that says nothing about a sampler.
CERTAIN: dict[str, list[tuple[Options, Passes]] | str] = {
    "adas": [({}, ONE), ({"base": "eb", "gamma": 0.0}, ONE)],
    "attention": [({}, by(8)), ({"sub_block_length": None}, ONE), ({"window": "leftmost", "sub_block_length": 5}, by(5))],
    "attention-exact": [({}, by(8)), ({"sub_block_length": 3, "norm": "global"}, by(3))],
    "attention-exact-sequential": BY_NUMBER,
    "attention-fixed": BY_NUMBER,
    "attention-net": [({}, by(8)), ({"sub_block_length": None, "fallback": "conf"}, ONE)],
    "attention-net-sequential": BY_NUMBER,
    "attention-sequential": BY_NUMBER,
    "clad": [({}, ONE)],
    "confidence": BY_NUMBER,
    "credit": [({}, ONE)],
    "dapd": [({}, ONE), ({"tau_min": 0.0, "tau_max": 0.0}, ONE)],
    "dawn": [({}, ONE)],
    "dcd": [({}, by(32)), ({"sub_block_length": 5}, by(5))],
    "dinfer": [({}, ONE)],
    "dinfer-hierarchy": [({}, ONE), ({"remask": 0.5}, ONE)],
    "dos": [({"gamma": 0.0}, ONE)],
    "dream": "its schedule says how many it commits, however sure the model is",
    "eb": [({}, ONE), ({"gamma": 0.0}, ONE)],
    "entropy": BY_NUMBER,
    "fast-dllm": [({}, ONE), ({"threshold": 1.0}, ONE)],
    "fast-dllm-factor": [({}, ONE), ({"factor": 0.0}, ONE)],
    "fast-dllm-v2": [({"threshold": 0.9}, by(8)), ({"threshold": 0.9, "sub_block_length": None}, ONE)],
    "klass": [({"history": 1, "kl_threshold": 1e6}, ONE)],  # else it waits until it has seen a distribution twice
    "left-to-right": BY_NUMBER,
    "llada2": [({}, ONE)],
    "localleap": [({}, ONE), ({"radius": 0}, ONE)],
    "margin": BY_NUMBER,
    "pc-sampler": BY_NUMBER,
    "random": BY_NUMBER,
    "remdm": BY_NUMBER,
    "slowfast": [({}, ONE)],
    "wino": [({}, limits_of_wino)],
}

# Options that leave one position per pass, and the sampler whose order that is; None for the highest of its own scores.
STRICTEST: dict[str, list[tuple[Options, str | None, Options]] | str] = {
    "adas": [
        ({"factor": 0.0}, "confidence", {}),
        ({"alpha": 0.0, "factor": 0.0}, "confidence", {}),
        ({"base": "eb", "gamma": 0.0}, "confidence", {}),
        ({"base": "top-k", "k": 1}, "confidence", {}),
    ],
    "attention": [
        ({"threshold": 1.0}, "attention-sequential", {}),
        ({"threshold": 1.0, "fallback": "conf"}, "fast-dllm-v2", {}),
    ],
    "attention-exact": [({"threshold": 1.0}, "attention-exact-sequential", {})],
    "attention-exact-sequential": [({}, None, {})],
    "attention-fixed": [({"k": 1}, "attention-sequential", {})],
    "attention-net": [({"threshold": 1.0}, "attention-net-sequential", {})],
    "attention-net-sequential": [({}, None, {})],
    "attention-sequential": [({}, None, {}), ({"norm": "global", "rows": "masked", "sub_block_length": None}, None, {})],
    "clad": [({"threshold": 1.0}, "confidence", {})],
    "confidence": [({"k": 1}, None, {})],
    "credit": [({"threshold": 1.0, "alpha": 0.0}, "confidence", {})],
    "dapd": [({"tau_min": 0.0, "tau_max": 0.0, "switch": 0.0}, None, {})],
    "dawn": [({"threshold": 1.0, "tau_induce": 1.0, "tau_low": 1.0}, "confidence", {})],
    "dcd": [({"threshold": 1.0}, "confidence", {}), ({"sub_block_length": 1}, "left-to-right", {})],
    "dinfer": [({"threshold": 1.0}, "confidence", {})],
    "dinfer-hierarchy": [({"threshold": 1.0, "low": 1.0}, "confidence", {})],
    "dos": [({"k": 1}, None, {}), ({"gamma": 0.0}, "dos", {})],
    "dream": [
        ({}, "entropy", {}),
        ({"alg": "maskgit_plus"}, "confidence", {}),
        ({"alg": "topk_margin"}, "margin", {}),
    ],
    "eb": [({"gamma": 0.0}, "entropy", {})],
    "entropy": [({"k": 1}, None, {})],
    "fast-dllm": [({"threshold": 1.0}, "confidence", {})],
    "fast-dllm-factor": [({"factor": 0.0}, "confidence", {})],
    "fast-dllm-v2": [({"threshold": 1.0}, None, {}), ({"threshold": 1.0, "sub_block_length": None}, "confidence", {})],
    "klass": [({"threshold": 1.0}, "confidence", {}), ({"kl_threshold": 0.0}, "confidence", {})],
    "left-to-right": [({"k": 1}, None, {})],
    "llada2": [({"threshold": 1.0}, "confidence", {})],
    "localleap": [({"threshold": 1.0, "relaxed": 1.0}, "confidence", {})],
    "margin": [({"k": 1}, None, {})],
    "pc-sampler": [({"k": 1}, None, {}), ({"decay": 0.0}, "confidence", {})],
    "random": [({"k": 1}, None, {})],
    "remdm": [({"loops": 0}, "confidence", {})],
    "slowfast": [({"threshold": 1.0, "exploration": 64}, "confidence", {})],
    "wino": [({"draft_threshold": 1.0}, "confidence", {})],
}


def cases(table: Mapping[str, list[Any] | str]) -> list[Any]:
    listed = [(name, *entry) for name, entries in table.items() if not isinstance(entries, str) for entry in entries]
    return [pytest.param(*case, id="-".join([case[0], *map(str, case[1].values())])) for case in listed]


@pytest.mark.parametrize("title", ["CERTAIN", "STRICTEST"])
def test_every_sampler_has_an_entry(title: str) -> None:
    table: Mapping[str, list[Any] | str] = globals()[title]
    missing, gone = sorted({*samplers.BUILT_IN} - {*table}), sorted({*table} - {*samplers.BUILT_IN})
    assert not missing, f"give {', '.join(missing)} an entry in {title} of {__file__}, or a sentence that says why none applies"
    assert not gone, f"{', '.join(gone)} in {title} of {__file__} is no sampler any more"
    assert all(len(entry) > 20 if isinstance(entry, str) else entry for entry in table.values()), "an entry or a reason"


def run(model: TableModel, batch: list[Row], name: str, options: Options) -> list[list[Step]]:
    """The Steps of each row of a ragged batch."""
    params = [
        SamplingParams(sampler=name, max_new_tokens=n, block_length=block, seed=seed, ignore_eos=True, **options)
        for _, n, block, _, seed in batch
    ]
    seen: dict[int, list[Step]] = {}
    prompts = [prompt for prompt, *_ in batch]
    Engine(model).generate(prompts, params, on_step=lambda step: seen.setdefault(step.row, []).append(step))
    return [seen[row] for row in sorted(seen)]


@st.composite
def long_rows(draw: st.DrawFn) -> Row:
    """With blocks of up to 40."""
    prompt, _, _, _, seed = draw(rows())
    block = draw(st.integers(1, 40))
    return prompt, block * draw(st.integers(1, 2)), block, None, seed


@pytest.mark.parametrize(("name", "options", "passes"), cases(CERTAIN))
@settings(max_examples=4)
@given(batch=st.lists(long_rows(), min_size=1, max_size=3), seed=st.integers(0, 99), shift=st.integers(0, MASK - 1))
def test_certain_tokens_finish_a_window_per_pass(
    name: str, options: Options, passes: Passes, batch: list[Row], seed: int, shift: int
) -> None:
    tokens = [(i * i + shift) % MASK for i in range(90)]
    model = TableModel(one_hot(tokens, VOCAB), mask_id=MASK, attention=random_table(seed, 90, 90, 2.0))
    for (prompt, n, block, _, _), steps in zip(batch, run(model, batch, name, options), strict=True):
        assert steps[-1].result is not None
        assert steps[-1].result.token_ids == tokens[len(prompt) : len(prompt) + n]
        assert len(steps) == passes(block) * (n // block)


@pytest.mark.parametrize(("name", "options", "base", "base_options"), cases(STRICTEST))
@settings(max_examples=4)
@given(batch=st.lists(rows(), min_size=1, max_size=3), seed=st.integers(0, 99))
def test_the_strictest_options_are_the_sequential_rule(
    name: str, options: Options, base: str | None, base_options: Options, batch: list[Row], seed: int
) -> None:
    """Of a model that is nowhere close to certain."""

    def steps_of(name: str, options: Options) -> list[list[Step]]:
        attention, unseen = random_table(seed + 1, TABLE, TABLE, 2.0), random_table(seed + 2, TABLE, VOCAB, 1.5)
        table = random_table(seed, TABLE, VOCAB, 1.5)
        return run(TableModel(table, mask_id=MASK, moving=True, attention=attention, unseen=unseen), batch, name, options)

    strict = steps_of(name, options)
    for (_, n, _, _, _), steps in zip(batch, strict, strict=True):
        assert [len(step.positions) for step in steps] == [1] * n
    if base is not None:
        plain = steps_of(base, base_options)
        assert [[step.positions for step in steps] for steps in strict] == [[step.positions for step in steps] for steps in plain]
    else:
        for step in (step for steps in strict for step in steps):
            assert max(step.scores) == dict(zip(step.window, step.scores, strict=True))[step.positions[0]]

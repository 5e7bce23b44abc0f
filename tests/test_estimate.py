"""LLaDA's estimate of the log-likelihood against the mean over all orders; orders and guidance against the engine's own."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import attn_sampler as ats
from attn_sampler.errors import InvalidInputError
from attn_sampler.evals import estimate, likelihood
from attn_sampler.evals.estimate import METHODS, Estimate, Guided, Likelihood, monte_carlo
from attn_sampler.models.seam import Ask
from fakes import TableModel, random_table

VOCAB, MASK = 12, 11
PROMPT, TARGET = [1, 2, 3], [4, 0, 6, 4, 9]


def fake(seed: int = 0, spread: float = 2.0) -> TableModel:
    """Every write changes all that is predicted and all attention."""
    attention = random_table(seed + 1, 29, 29, 1.0)
    return TableModel(random_table(seed, 31, VOCAB, spread), mask_id=MASK, moving=True, attention=attention)


def over_all_orders(model: TableModel, target: likelihood.Target) -> float:
    each = torch.tensor(list(permutations(range(len(target.tokens)))))
    return float(likelihood.log_likelihood(model, target, each, 500).sum(1).mean())


@pytest.mark.parametrize("n", [1, 2, 5])
def test_all_subsets_are_the_mean_over_all_orders(n: int) -> None:
    model = fake()
    (target,) = likelihood.place_blocks(model, PROMPT, TARGET[:n])
    found = monte_carlo(model, target, 2**n)
    assert found.value == pytest.approx(over_all_orders(model, target), abs=1e-5)
    assert (found.standard_error, found.canvases) == (0.0, 2**n)


@pytest.mark.parametrize(("draws", "spread"), [(2, 2.0), (8, 0.5), (24, 2.0)])
def test_the_estimate_is_unbiased_and_its_standard_error_is_the_spread_over_seeds(draws: int, spread: float) -> None:
    """600 seeds: their mean against the mean over all 120 orders, their spread against what each says of itself."""
    model = fake(3, spread)
    (target,) = likelihood.place_blocks(model, PROMPT, TARGET)
    found = [monte_carlo(model, target, draws, seed) for seed in range(600)]
    values = torch.tensor([one.value for one in found], dtype=torch.float64)
    spread_of_values = float(values.std())
    assert abs(float(values.mean()) - over_all_orders(model, target)) < 3.5 * spread_of_values / math.sqrt(600)
    stated = math.sqrt(sum(one.standard_error**2 for one in found if one.standard_error is not None) / 600)
    assert 0.85 < stated / spread_of_values < 1.4, "right, or too large where l itself adds to the differences"
    assert all(one.canvases == draws for one in found)


def test_one_draw_cannot_tell_its_error() -> None:
    model = fake()
    (target,) = likelihood.place_blocks(model, PROMPT, TARGET)
    assert monte_carlo(model, target, 1).standard_error is None
    assert (Estimate(-1.0, 0.3, 5) + Estimate(-2.0, 0.4, 6)) == Estimate(-3.0, 0.5, 11)
    assert (Estimate(-1.0, 0.3, 5) + Estimate(-2.0, None, 1)).standard_error is None


@given(st.integers(1, 40), st.integers(1, 64), st.integers(0, 2**62))
def test_what_is_masked_is_spread_over_all_sizes(n: int, draws: int, seed: int) -> None:
    count = estimate._masked(n, draws, seed, torch.device("cpu")).sum(1)
    assert count.tolist() == sorted(count.tolist())
    assert int(count.min()) >= 1
    assert int(count.max()) <= n
    for size in range(1, n + 1):
        assert abs(int((count == size).sum()) - draws / n) < 1, "every l as often as every other, but for rounding"


def test_rows_of_a_pass_change_nothing() -> None:
    model = fake()
    (target,) = likelihood.place_blocks(model, PROMPT, TARGET)
    assert monte_carlo(model, target, 20, 5, max_rows=3) == monte_carlo(model, target, 20, 5, max_rows=32)


# --- orders -----------------------------------------------------------------------------------------------------------


def test_fixed_orders_are_those_of_the_laboratory() -> None:
    model = fake()
    (target,) = likelihood.place_blocks(model, PROMPT, TARGET)
    there = torch.arange(5)
    for method, order in (("left-to-right", there), ("right-to-left", there.flip(0))):
        found, _ = Likelihood(method).of(model, PROMPT, TARGET, max_rows=2)
        assert found.value == pytest.approx(float(likelihood.log_likelihood(model, target, order[None]).sum()), abs=1e-6)
        assert (found.standard_error, found.canvases) == (0.0, 5)
    orders = torch.tensor(list(permutations(range(5))))
    any_order = likelihood.log_likelihood(model, target, orders, 500).sum(1)
    found = {Likelihood("random", seed=seed).of(model, PROMPT, TARGET)[0].value for seed in range(8)}
    assert len(found) > 4
    assert all(float((any_order - value).abs().min()) < 1e-6 for value in found)


def test_orders_that_the_model_decides_are_those_of_the_laboratory() -> None:
    model = fake()
    (target,) = likelihood.place_blocks(model, PROMPT, TARGET)
    for name, rule in likelihood.RULES.items():
        found, _ = Likelihood(name.split(",")[0]).of(model, PROMPT, TARGET)
        assert found.value == pytest.approx(float(likelihood.follow(model, target, [rule])[1].sum()), abs=1e-6)


@pytest.mark.parametrize("layout", ["llada", "sdar", "fast-dllm-v2"])
def test_a_target_is_cut_at_a_block_causal_models_blocks(layout: str, tiny: Callable[[str], Path]) -> None:
    """Left to right the parts add up to the whole: no position sees a later block."""
    model = ats.load(tiny(layout), device="cpu").model
    ids = [i for i in range(5, 200) if i != model.mask_id]
    size = model.block_length or 4
    prompt, target = ids[: size + 1], ids[50 : 50 + 2 * size]
    parts = likelihood.place_blocks(model, prompt, target)
    assert [i for part in parts for i in part.tokens.tolist()] == target
    assert [i for part in parts for i in part.positions.tolist()] == list(range(size + 1, 3 * size + 1))
    assert len(parts) == (1 if model.block_length is None else 3)
    whole = likelihood.place_target(model, prompt, target, len(target))
    order = torch.arange(len(target))[None]
    found, _ = Likelihood("left-to-right").of(model, prompt, target)
    assert found.value == pytest.approx(float(likelihood.log_likelihood(model, whole, order).sum()), abs=1e-3)
    estimated, _ = Likelihood(draws=6).of(model, prompt, target)
    assert estimated.canvases == sum(min(6, 2 ** len(part.tokens)) for part in parts)


@pytest.mark.parametrize(("method", "sampler"), [("monte-carlo", "confidence"), ("left-to-right", "left-to-right")])
def test_greedy_is_what_the_sampler_writes(method: str, sampler: str, llada_gqa: ats.Engine) -> None:
    params = ats.SamplingParams(sampler=sampler, max_new_tokens=6, ignore_eos=True)
    (result,) = llada_gqa.generate([[5, 6, 7, 8]], params)
    how = Likelihood(method, draws=2)
    assert how.of(llada_gqa.model, [5, 6, 7, 8], result.token_ids)[1]
    other = [*result.token_ids[:-1], (result.token_ids[-1] + 1) % 50]
    assert not how.of(llada_gqa.model, [5, 6, 7, 8], other)[1]
    assert not Likelihood(method, draws=2, check_greedy=False).of(llada_gqa.model, [5, 6, 7, 8], result.token_ids)[1]


# --- guidance and requests --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["llada", "dream"])
def test_guidance_is_the_engines(layout: str, tiny: Callable[[str], Path]) -> None:
    engine = ats.load(tiny(layout), device="cpu")
    prompt = [5, 6, 7, 8]
    row = engine.prepare(prompt, ats.SamplingParams(sampler="confidence", max_new_tokens=5, cfg_scale=0.7, ignore_eos=True))
    steps: list[ats.Step] = []
    (result,) = engine.run([row], on_step=steps.append)
    (target,) = likelihood.place_blocks(engine.model, prompt, result.token_ids)
    net = Guided(engine.model, len(prompt), 0.7)
    taken, found = likelihood.follow(net, target, [likelihood.RULES["confidence"]])
    assert taken[0].tolist() == [p - len(prompt) for step in steps for p in step.positions]
    assert found[0, taken[0]].exp().tolist() == pytest.approx([c for step in steps for c in step.confidences], abs=1e-5)
    guided, _ = Likelihood("confidence", cfg_scale=0.7).of(engine.model, prompt, result.token_ids)
    assert guided.value == pytest.approx(float(found.sum()), abs=1e-5)


def test_no_guidance_is_the_model_itself() -> None:
    model = fake()
    canvas = torch.tensor([[*PROMPT, MASK, MASK]])
    ask = Ask(torch.tensor([0]), torch.tensor([[3, 4]]))
    (plain,), (same,) = model.predict(canvas, None, [ask]), Guided(model, 3, 0.0).predict(canvas, None, [ask])
    assert torch.allclose(plain.logits, same.logits, atol=1e-5)
    assert Guided(model, 3, 0.5).vocab_size == VOCAB


def test_a_requests_draws_are_its_own() -> None:
    model, how = fake(), Likelihood(draws=9)
    first = how.of(model, PROMPT, TARGET)
    assert how.of(model, PROMPT, TARGET) == first
    assert Likelihood(draws=9, seed=1).of(model, PROMPT, TARGET)[0] != first[0]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"method": "monte carlo"}, "did you mean 'monte-carlo'"),
        ({"draws": 0}, "mc_num=0"),
        ({"seed": -1}, "seed=-1"),
        ({"cfg_scale": -0.5}, "cfg_scale=-0.5"),
        ({"check_greedy": "yes"}, "check_greedy='yes'"),
    ],
)
def test_wrong_values_are_named(given: dict[str, object], says: str) -> None:
    with pytest.raises(InvalidInputError, match=says):
        Likelihood(**given)  # type: ignore[arg-type]


def test_what_cannot_be_placed_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"target=\[\]: there is nothing to predict"):
        Likelihood().of(fake(), PROMPT, [])
    assert set(METHODS) >= {"monte-carlo", "left-to-right", "random", "confidence", "attention"}

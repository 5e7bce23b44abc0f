"""One-step selections equal those of the authors' code, case by case, and so do the scores they went by."""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from attn_sampler import Engine, SamplingParams, blocks, rules, samplers
from attn_sampler.attention import AttentionAsk, Collector
from attn_sampler.propose import Choice, Proposal, propose
from attn_sampler.seam import Attention, Sampler, Window
from fakes import TableModel

FOLDER = Path(__file__).parent / "golden" / "samplers"
SCORE_TOLERANCE = 1e-6


@cache
def cases_of(rule: str) -> list[dict[str, Any]]:
    packed = FOLDER / f"{rule}.json.gz"
    text = gzip.decompress(packed.read_bytes()) if packed.exists() else (FOLDER / f"{rule}.json").read_bytes()
    return json.loads(text)["cases"]


def each(rule: str) -> Any:
    return pytest.mark.parametrize("case", [pytest.param(case, id=str(i)) for i, case in enumerate(cases_of(rule))])


def window_of(case: dict[str, Any], quota: int = 1) -> Window:
    """The window that a sampler would see: the case's logits, the mask id forbidden, its masked positions."""
    logits = torch.tensor([case["logits"]], dtype=torch.float64)
    n, vocab = logits.shape[1:]
    zero, one = torch.zeros(1, dtype=torch.long), torch.ones(1, dtype=torch.long)
    choice = Choice(torch.zeros(1), torch.ones(1), zero, zero, zero, samples=False, filters=False)
    banned = torch.zeros(1, vocab)
    banned[0, case["mask_id"]] = -torch.inf
    positions = torch.arange(n)[None]
    candidates = torch.tensor([case["masked"]]).bool()
    return Window(positions, candidates, propose(logits, choice, positions, banned), one * quota, zero, zero, zero)


def selected(sampler: Sampler, window: Window) -> tuple[list[int], Tensor]:
    answer = sampler.select(window, {})
    return answer.commit[0].nonzero()[:, 0].tolist(), answer.score[0]


def check(case: dict[str, Any], sampler: Sampler, quota: int = 1, want: str = "selected") -> Tensor:
    window = window_of(case, quota)
    chosen, score = selected(sampler, window)
    assert window.proposal.tokens[0].tolist() == case["argmax"]
    np.testing.assert_allclose(window.proposal.confidence[0].numpy(), case["p"], atol=SCORE_TOLERANCE)
    assert chosen == case[want]
    return score


@pytest.mark.parametrize("rule", ["confidence", "margin", "entropy"])
def test_top_k_by_each_score(rule: str) -> None:
    for case in cases_of(rule):
        score = check(case, samplers.build(rule, {"k": case["params"]["k"]}))
        np.testing.assert_allclose(score.numpy(), case["score"], atol=SCORE_TOLERANCE)


def test_low_confidence_top_k_as_a_quota_and_as_an_option() -> None:
    for case in cases_of("low_confidence_topk"):
        check(case, samplers.build("confidence", {}), quota=case["params"]["k"])
        check(case, samplers.build("confidence", {"k": case["params"]["k"]}))


def test_fast_dllm_threshold() -> None:
    for case in cases_of("fast_dllm_threshold"):
        check(case, samplers.build("fast-dllm", case["params"]))


def test_fast_dllm_factor_with_and_without_the_quirk_of_the_reference() -> None:
    for case in cases_of("fast_dllm_factor"):
        check(case, samplers.build("fast-dllm-factor", case["params"]))
    for case in cases_of("fast_dllm_factor_upstream"):
        check(case, samplers.build("fast-dllm-factor", {**case["params"], "compat": "reference"}))
    for case in cases_of("fast_dllm_factor_quirk"):
        check(case, samplers.build("fast-dllm-factor", case["params"]), want="selected_without_quirk")
        check(case, samplers.build("fast-dllm-factor", {**case["params"], "compat": "reference"}), want="selected_upstream")


def test_entropy_bound() -> None:
    for case in cases_of("eb_sampler"):
        score = check(case, samplers.build("eb", case["params"]))
        np.testing.assert_allclose(-score.numpy(), case["entropy"], atol=SCORE_TOLERANCE)


def test_quota() -> None:
    for case in cases_of("llada_quota"):
        masked, steps = torch.tensor([case["num_masked"]]), torch.tensor([case["steps"]])
        got = [int(blocks.quota(masked, steps, torch.tensor([i]))) for i in range(case["steps"])]
        assert got == case["quota"]


@each("llada_first_step")
def test_first_step_of_llada_through_the_engine(case: dict[str, Any]) -> None:
    # float64 as in the stub network of the reference; the end-of-turn id counts beside the end-of-sequence id
    model = TableModel(
        torch.tensor(case["logits"], dtype=torch.float64),
        mask_id=case["mask_id"],
        eos_ids=(case["eos_id"], case["eot_id"]),
    )
    params = SamplingParams(
        sampler="confidence",
        max_new_tokens=case["gen_length"],
        block_length=case["block_length"],
        steps=case["steps"],
        ignore_eos=True,
        logits_eos_inf=case["logits_eos_inf"],
        confidence_eos_eot_inf=case["confidence_eos_eot_inf"],
    )
    first = next(Engine(model).stream(case["prompt"], params))
    assert [position - len(case["prompt"]) for position in first.positions] == case["selected"]
    assert first.ids == case["tokens_after"]


@each("klass_sequence")
def test_klass_with_its_memory(case: dict[str, Any]) -> None:
    """A stub network answers forward t with logits[t] whatever the canvas is."""
    logits = torch.tensor(case["logits"], dtype=torch.float64)
    model = TableModel(lambda ids, t: logits[t].expand(len(ids), -1, -1), mask_id=case["mask_id"], vocab_size=logits.shape[-1])
    params = SamplingParams(
        sampler="klass",
        threshold=case["params"]["conf_threshold"],
        kl_threshold=case["params"]["kl_threshold"],
        history=case["params"]["history"],
        max_new_tokens=case["gen_length"],
        block_length=case["block_length"],
        steps=case["steps"],
        ignore_eos=True,
    )
    steps = list(Engine(model).stream(case["prompt"], params))
    assert [[p - len(case["prompt"]) for p in step.positions] for step in steps] == case["committed"]
    assert steps[-1].ids == case["final"]
    assert len(steps) == model.forwards == case["nfe"]


def attention_window(case: dict[str, Any]) -> Window:
    score, p = (torch.tensor([case[name]], dtype=torch.float64) for name in ("score", "p"))
    zero = torch.zeros(1, dtype=torch.long)
    proposal = Proposal(torch.zeros_like(score, dtype=torch.long), p, torch.zeros(*score.shape, 2, dtype=torch.float64))
    candidates = torch.tensor([case["masked"]]).bool()
    return Window(torch.arange(score.shape[1])[None], candidates, proposal, zero + 1, zero, zero, zero, columns=score)


@each("attn_sampler")
def test_attention_rules_ties_included(case: dict[str, Any]) -> None:
    window, tau = attention_window(case), case["params"]["tau"]
    for fallback, want in (("score", case["selected"]), ("conf", case["selected_fallback_conf"])):
        chosen, score = selected(samplers.build("attention", {"threshold": tau, "fallback": fallback}), window)
        assert chosen == want, fallback
        assert score.tolist() == case["score"]
        args = (window.columns, window.proposal.confidence, window.candidates, window.quota, tau, fallback)
        assert rules.attention_threshold(*args)[0].nonzero()[:, 0].tolist() == want
    assert selected(samplers.build("attention-sequential", {}), window)[0] == case["sequential"]


def column_scores(case: dict[str, Any], norm: str, rows: str, diag: bool) -> Tensor:
    q, k = (torch.tensor(case[name], dtype=torch.float32)[None] for name in ("q", "k"))
    scale = q.shape[-1] ** -0.5
    queries = torch.arange(*case["window"])[None]
    masked = torch.tensor([case["masked"]]).bool()
    counted = masked if rows == "masked" else torch.ones_like(masked)
    statistics = Attention(rows=rows, norm=norm, diag=diag)  # type: ignore[arg-type]
    # with `past` cached keys in front, query i is key past + i
    ask = AttentionAsk(statistics, torch.tensor([0]), queries, counted, queries + case["past"], torch.ones_like(masked))
    lse = (q @ k.repeat_interleave(q.shape[1] // k.shape[1], 1).mT * scale).logsumexp(-1)
    collector = Collector([ask])
    collector.add(0, q, k, None, scale, lse)
    return collector.result(0)[0][0]


@pytest.mark.parametrize("diag", [True, False])
@pytest.mark.parametrize("rows", ["all", "masked"])
@pytest.mark.parametrize("norm", ["local", "global"])
@pytest.mark.parametrize("cached", [False, True])
def test_column_scores_of_one_layer(cached: bool, norm: str, rows: str, diag: bool) -> None:
    cases = [case for case in cases_of("attn_column_scores") if bool(case["past"]) == cached]
    assert len(cases) >= 10
    for case in cases:
        want = case["scores"][f"{norm}_{rows}_{'with' if diag else 'without'}"]
        np.testing.assert_allclose(column_scores(case, norm, rows, diag).numpy(), want, atol=SCORE_TOLERANCE)

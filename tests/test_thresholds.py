"""Samplers with a threshold that bends: LocalLeap, dInfer's two, CreditDecoding, DCD; each against its golden cases, against a
plain reference that goes row by row, and against the sampler that it becomes at the edge of its options."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attn_sampler import Engine, InvalidInputError, SamplingParams, samplers
from attn_sampler.propose import Choice, propose
from attn_sampler.seam import Selection, Window
from fakes import TableModel, random_table
from test_golden_samplers import cases_of, check, each, selected, window_of

VOCAB, MASK = 8, 7


# --- golden -----------------------------------------------------------------------------------------------------------


def test_localleap() -> None:
    for case in cases_of("localleap"):
        check(case, samplers.build("localleap", case["params"]))


def test_dinfer_hierarchy() -> None:
    for case in cases_of("dinfer_hierarchy"):
        check(case, samplers.build("dinfer-hierarchy", case["params"]))


def test_dinfer_threshold() -> None:
    """The reference lets the mask token into its softmax and drops a position where that is the most likely token. In this
    library it is forbidden before any sampler is asked; here it is let in, and the same positions are taken out by hand."""
    for case in cases_of("dinfer_threshold"):
        drop = torch.tensor(case["argmax"]) == case["mask_id"]
        window = window_of(case)
        proposal = propose(torch.tensor([case["logits"]], dtype=torch.float64), plain_choice(1), window.positions)
        window = replace(window, proposal=proposal, candidates=window.candidates & ~drop)
        assert selected(samplers.build("dinfer", case["params"]), window)[0] == case["selected"]
        assert proposal.tokens[0].tolist() == case["argmax"]
        np.testing.assert_allclose(proposal.confidence[0].numpy(), case["p"], atol=1e-6)


@each("credit_sequence")
def test_credit_step_by_step_with_the_fused_logits(case: dict[str, Any]) -> None:
    sampler, memory = samplers.build("credit", case["params"]), {}
    masked = [True] * len(case["logits"][0])
    for t, logits in enumerate(case["logits"]):
        window = window_of({"logits": logits, "masked": masked, "mask_id": case["mask_id"]})
        window = replace(window, step_in_block=torch.tensor([t]), choice=plain_choice(1))
        answer = sampler.select(window, memory)
        memory = answer.memory
        assert answer.commit[0].nonzero()[:, 0].tolist() == case["committed"][t]
        assert answer.proposal is not None
        fused = np.array(case["fused_logits"][t])
        written = np.arange(fused.shape[1]) != case["mask_id"]
        np.testing.assert_allclose(answer.proposal.logits[0].numpy()[:, written], fused[:, written], atol=2e-5)
        masked = [m and j not in case["committed"][t] for j, m in enumerate(masked)]


@each("credit_sequence")
def test_credit_through_the_engine(case: dict[str, Any]) -> None:
    """A stub network answers forward t with logits[t]; the reference was stopped after the last of them."""
    logits = torch.tensor(case["logits"], dtype=torch.float64)
    n, vocab = logits.shape[1:]
    table = torch.nn.functional.pad(logits, (0, 0, 1, 0))  # a prompt of one token
    model = TableModel(
        lambda ids, t: table[min(t, len(table) - 1)].expand(len(ids), -1, -1), mask_id=case["mask_id"], vocab_size=vocab
    )
    params = SamplingParams(sampler="credit", max_new_tokens=n, block_length=n, ignore_eos=True, **case["params"])
    steps = list(Engine(model).stream([0], params))[: len(case["logits"])]
    assert [[p - 1 for p in step.positions] for step in steps] == [c for c in case["committed"] if c]
    assert steps[-1].ids[1:] == case["final"]


# --- plain references, one row at a time ------------------------------------------------------------------------------


def localleap_plain(p: list[float], masked: list[int], threshold: float, relaxed: float, radius: int) -> set[int]:
    anchors = [j for j in masked if p[j] >= threshold]
    need = {j: relaxed if any(abs(j - a) <= radius for a in anchors) else threshold for j in masked}
    return {j for j in masked if p[j] >= need[j]}


def dinfer_plain(p: list[float], masked: list[int], threshold: float) -> set[int]:
    return {j for j in masked if p[j] >= min(max(p[i] for i in masked) - 1e-5, threshold)}


def runs_of(masked: list[int]) -> list[list[int]]:
    runs: list[list[int]] = []
    for j in masked:
        if runs and runs[-1][-1] == j - 1:
            runs[-1].append(j)
        else:
            runs.append([j])
    return runs


def hierarchy_plain(p: list[float], masked: list[int], threshold: float, low: float) -> set[int]:
    out = {j for j in masked if p[j] > threshold}
    for run in runs_of(masked):
        best = max(p[j] for j in run)
        out |= {j for j in run if p[j] == best > low}
    return out


def with_the_owed(chosen: set[int], p: list[float], masked: list[int], quota: int, chosen_first: bool = False) -> set[int]:
    order = sorted(masked, key=lambda j: (chosen_first and j not in chosen, -p[j], j))
    return chosen | set(order[:quota])


levels = st.sampled_from([0.0, 0.3, 0.5, 0.75, 0.9, 1.0])


@st.composite
def ragged(draw: st.DrawFn) -> tuple[Window, list[list[int]], list[list[float]], list[int]]:
    """Rows of one window, their masks, confidences and quotas; a fifth of the confidences are exactly a threshold or tied."""
    rows, width = draw(st.integers(1, 4)), draw(st.integers(1, 14))
    candidates = torch.tensor(
        draw(st.lists(st.lists(st.booleans(), min_size=width, max_size=width), min_size=rows, max_size=rows))
    )
    p = random_table(draw(st.integers(0, 9999)), rows, width, 1.5).sigmoid().double()
    exact = random_table(draw(st.integers(0, 9999)), rows, width) > 3.5
    p = torch.where(exact, draw(levels), p)
    quota = torch.tensor(draw(st.lists(st.integers(1, 3), min_size=rows, max_size=rows)))
    zero = torch.zeros(rows, dtype=torch.long)
    proposal = propose(
        random_table(0, rows * width, VOCAB).reshape(rows, width, VOCAB), plain_choice(rows), torch.arange(width).expand(rows, -1)
    )
    proposal = replace(proposal, confidence=p)
    window = Window(torch.arange(width).expand(rows, -1), candidates, proposal, quota, zero, zero, zero)
    masks = [row.nonzero()[:, 0].tolist() for row in candidates]
    return window, masks, p.tolist(), quota.tolist()


def plain_choice(rows: int) -> Choice:
    zero = torch.zeros(rows, dtype=torch.long)
    return Choice(zero.double(), zero + 1.0, zero, zero, zero, samples=False, filters=False)


def committed(answer: Selection) -> list[set[int]]:
    return [set(row.nonzero()[:, 0].tolist()) for row in answer.commit]


@given(case=ragged(), thresholds=st.lists(levels, min_size=2, max_size=2), radius=st.integers(0, 20))
def test_localleap_against_the_formula(case: Any, thresholds: list[float], radius: int) -> None:
    window, masks, p, quota = case
    relaxed, threshold = sorted(thresholds)
    answer = samplers.build("localleap", {"threshold": threshold, "relaxed": relaxed, "radius": radius}).select(window, {})
    rows = zip(p, masks, quota, strict=True)
    assert committed(answer) == [with_the_owed(localleap_plain(c, m, threshold, relaxed, radius), c, m, q) for c, m, q in rows]


@given(case=ragged(), threshold=levels)
def test_dinfer_against_the_formula(case: Any, threshold: float) -> None:
    window, masks, p, quota = case
    answer = samplers.build("dinfer", {"threshold": threshold}).select(window, {})
    rows = zip(p, masks, quota, strict=True)
    assert committed(answer) == [with_the_owed(dinfer_plain(c, m, threshold) if m else set(), c, m, q) for c, m, q in rows]


@given(case=ragged(), threshold=levels, low=levels)
def test_hierarchy_against_the_formula(case: Any, threshold: float, low: float) -> None:
    window, masks, p, quota = case
    answer = samplers.build("dinfer-hierarchy", {"threshold": threshold, "low": low}).select(window, {})
    rows = zip(p, masks, quota, strict=True)
    assert committed(answer) == [with_the_owed(hierarchy_plain(c, m, threshold, low), c, m, q, True) for c, m, q in rows]


@given(case=ragged(), threshold=levels, low=levels, remask=st.sampled_from([0.2, 0.4, 0.8, 1.0]), seed=st.integers(0, 99))
def test_hierarchy_that_masks_again_against_the_formula(
    case: Any, threshold: float, low: float, remask: float, seed: int
) -> None:
    """Doubtful tokens compete as masks, and one more than their number is written: fewer masks after every pass."""
    window, masks, p, quota = case
    revisable = ~window.candidates & (random_table(seed, *window.candidates.shape) > -2)
    window = replace(window, revisable=revisable)
    sampler = samplers.build("dinfer-hierarchy", {"threshold": threshold, "low": low, "remask": remask})
    answer = sampler.select(window, {})
    assert answer.rewrite is not None
    assert answer.remask is not None
    for k, (c, m, q) in enumerate(zip(p, masks, quota, strict=True)):
        doubtful = [j for j in revisable[k].nonzero()[:, 0].tolist() if m and c[j] < remask]
        free = sorted(m + doubtful)
        owed = len(doubtful) + min(q, len(m))
        chosen = with_the_owed(hierarchy_plain(c, free, threshold, low), c, free, owed, True)
        assert set(answer.commit[k].nonzero()[:, 0].tolist()) == chosen & set(m)
        assert set(answer.rewrite[k].nonzero()[:, 0].tolist()) == chosen & set(doubtful)
        assert set(answer.remask[k].nonzero()[:, 0].tolist()) == set(doubtful) - chosen
        if m:
            assert len(m) - int(answer.commit[k].sum()) + int(answer.remask[k].sum()) <= len(m) - min(q, len(m))


@settings(max_examples=20)
@given(
    widths=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    seed=st.integers(0, 99),
    alpha=st.floats(0, 3),
    gamma=st.floats(0, 2),
    beta=st.floats(0, 1),
)
def test_credit_against_the_formula(widths: list[int], seed: int, alpha: float, gamma: float, beta: float) -> None:
    """Rows of different widths, each at its own step of its block, over two blocks."""
    rows, width = len(widths), max(widths)
    real = torch.arange(width) < torch.tensor(widths)[:, None]
    credit, memory = np.zeros((rows, width, VOCAB)), {}
    masked = real.clone()
    steps = torch.zeros(rows, dtype=torch.long)
    for t in range(8):
        logits = random_table(seed * 10 + t, rows * width, VOCAB).reshape(rows, width, VOCAB).double()
        zero = torch.zeros(rows, dtype=torch.long)
        proposal = propose(logits, plain_choice(rows), torch.arange(width).expand(rows, -1))
        window = Window(
            torch.arange(width).expand(rows, -1), masked, proposal, zero + 1, steps, zero, zero, choice=plain_choice(rows)
        )
        answer = samplers.build("credit", {"alpha": alpha, "gamma": gamma, "beta": beta}).select(window, memory)
        memory = answer.memory
        assert answer.proposal is not None
        for k in range(rows):
            credit[k] = 0 if steps[k] == 0 else credit[k] * beta
            for j in range(width):
                p = logits[k, j].softmax(-1).numpy()
                credit[k, j, p.argmax()] += p.max() ** gamma if masked[k, j] else 0
            fused = logits[k].numpy() + alpha * np.log1p(credit[k])
            np.testing.assert_allclose(answer.proposal.logits[k].numpy(), fused, atol=1e-9)
            assert answer.proposal.tokens[k].tolist() == fused.argmax(-1).tolist()
            c = torch.tensor(fused).softmax(-1).amax(-1).tolist()
            left = masked[k].nonzero()[:, 0].tolist()
            assert committed(answer)[k] == (with_the_owed(dinfer_plain(c, left, 0.9), c, left, 1) if left else set())
        masked = masked & ~answer.commit
        over = ~masked.any(1)
        masked, steps = masked | (over[:, None] & real), torch.where(over, 0, steps + 1)


# --- what the options reduce to ---------------------------------------------------------------------------------------


def orders(name: str, options: dict[str, Any], seed: int, temperature: float = 0.0, **params: Any) -> list[list[list[int]]]:
    """Positions that each step of each row committed, for three rows of different lengths."""
    engine = Engine(TableModel(random_table(seed, 64, VOCAB), mask_id=MASK, moving=True))
    seen: dict[int, list[list[int]]] = {}
    settings_of = [
        SamplingParams(
            sampler=name,
            max_new_tokens=n,
            block_length=n // 2,
            seed=seed,
            temperature=temperature,
            ignore_eos=True,
            **params,
            **options,
        )
        for n in (20, 12, 6)
    ]
    engine.generate(
        [[1], [2, 3], [4, 5, 6]], settings_of, on_step=lambda step: seen.setdefault(step.row, []).append(step.positions)
    )
    return [seen[row] for row in sorted(seen)]


@pytest.mark.parametrize(
    ("name", "options", "base", "base_options"),
    [
        ("localleap", {"relaxed": 0.5, "threshold": 0.5}, "fast-dllm", {"threshold": 0.5}),
        ("localleap", {"relaxed": 0.0, "threshold": 0.6, "radius": 0}, "fast-dllm", {"threshold": 0.6}),
        ("localleap", {"relaxed": 1.0, "threshold": 1.0}, "fast-dllm", {"threshold": 1.0}),
        ("dinfer-hierarchy", {"low": 1.0, "threshold": 1.0}, "confidence", {}),
        ("dinfer-hierarchy", {"low": 1.0, "threshold": 0.6}, "llada2", {"threshold": 0.6}),
        ("dcd", {"threshold": 0.6}, "fast-dllm", {"threshold": 0.6}),
        ("dcd", {"sub_block_length": 1}, "left-to-right", {}),
        ("credit", {"alpha": 0.0, "threshold": 0.6}, "dinfer", {"threshold": 0.6}),
        ("slowfast", {"exploration": 64, "threshold": 0.6}, "fast-dllm", {"threshold": 0.6}),
        ("slowfast", {"exploration": 64, "threshold": 1.0}, "confidence", {}),
    ],
)
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_at_the_edge_of_its_options_it_is_another_sampler(
    name: str, options: dict[str, Any], base: str, base_options: dict[str, Any], temperature: float
) -> None:
    for seed in range(4):
        assert orders(name, options, seed, temperature) == orders(base, base_options, seed, temperature)


def test_the_slack_of_dinfer_is_all_that_parts_it_from_a_threshold() -> None:
    for seed in range(4):
        plain, loose = (orders(name, {"threshold": 0.6}, seed) for name in ("fast-dllm", "dinfer"))
        assert plain == loose
    tie = torch.tensor([[[2.0, 0.0], [2.0, 0.0], [1.0, 0.0]]])
    zero = torch.zeros(1, dtype=torch.long)
    window = Window(
        torch.arange(3)[None],
        torch.ones(1, 3).bool(),
        propose(tie, plain_choice(1), torch.arange(3)[None]),
        zero + 1,
        zero,
        zero,
        zero,
    )
    assert selected(samplers.build("dinfer", {}), window)[0] == [0, 1]
    assert selected(samplers.build("fast-dllm", {}), window)[0] == [0]


# --- what only one of them does ---------------------------------------------------------------------------------------


def test_a_run_of_sure_masks_is_split_at_every_pass() -> None:
    """Divide and conquer: with every run's best above ``low`` and nothing above ``threshold``, runs halve at best."""
    n = 31
    depth = torch.tensor([min(i & -i, 16) for i in range(1, n + 1)])  # the middle of each run is the surest
    table = torch.zeros(n + 1, VOCAB)
    table[1:, 0] = 2.5 + depth.log2() / 8
    (result,) = Engine(TableModel(table, mask_id=MASK)).generate(
        [[1]], SamplingParams(sampler="dinfer-hierarchy", max_new_tokens=n, block_length=n, ignore_eos=True, threshold=1.0)
    )
    assert result.forwards == 5


def test_a_doubtful_token_is_masked_again_and_written_anew() -> None:
    """Position 1 is written first; at the second pass the model doubts it, at the third it prefers another token."""

    def network(ids: Tensor, t: int) -> Tensor:
        table = torch.zeros(len(ids), 4, VOCAB)
        table[:, 1, 0] = (3.0, 0.5, 0.0)[min(t, 2)]
        table[:, 1, 5] = (0.0, 0.0, 6.0)[min(t, 2)]
        table[:, 2, 1] = (0.0, 3.0, 3.0)[min(t, 2)]
        table[:, 3, 2] = (0.0, 4.0, 4.0)[min(t, 2)]
        return table.double()

    params = SamplingParams(
        sampler="dinfer-hierarchy", max_new_tokens=3, block_length=3, ignore_eos=True, remask=0.4, threshold=0.7
    )
    steps = list(Engine(TableModel(network, mask_id=MASK, vocab_size=VOCAB)).stream([6], params))
    assert [step.ids[1:] for step in steps] == [[0, MASK, MASK], [MASK, 1, 2], [5, 1, 2]]


@settings(max_examples=15)
@given(
    seed=st.integers(0, 99), lengths=st.lists(st.integers(1, 12), min_size=1, max_size=3), remask=st.sampled_from([0.4, 0.9, 1.0])
)
def test_remasking_ends_within_one_pass_per_mask_and_rows_stay_their_own(seed: int, lengths: list[int], remask: float) -> None:
    def runs(batch: list[int]) -> list[Any]:
        engine = Engine(TableModel(random_table(seed, 64, VOCAB, 2.0), mask_id=MASK, moving=True))
        params = [
            SamplingParams(sampler="dinfer-hierarchy", remask=remask, max_new_tokens=n, block_length=n, ignore_eos=True, seed=0)
            for n in batch
        ]
        return engine.generate([[1, 2, n % 7] for n in batch], params)

    together = runs(lengths)
    assert all(result.forwards <= n for result, n in zip(together, lengths, strict=True))
    assert all(MASK not in result.token_ids for result in together)
    alone = [runs([n])[0] for n in lengths]
    assert [(r.token_ids, r.forwards) for r in together] == [(r.token_ids, r.forwards) for r in alone]


def test_credit_trusts_a_token_that_comes_again() -> None:
    """Confidence 0.88 at every pass: below the threshold until credit has lifted it."""
    table = torch.zeros(5, VOCAB)
    table[1:, 2] = 3.9
    table[2:, 2] = 3.8
    params = SamplingParams(sampler="credit", max_new_tokens=4, block_length=4, ignore_eos=True)
    steps = list(Engine(TableModel(table.double(), mask_id=MASK)).stream([0], params))
    plain = list(
        Engine(TableModel(table.double(), mask_id=MASK)).stream([0], SamplingParams(**vars_of(params), sampler="dinfer"))
    )
    assert len(steps) < len(plain)
    assert steps[0].confidences[0] > plain[0].confidences[0]


def vars_of(params: SamplingParams) -> dict[str, Any]:
    return {"max_new_tokens": params.max_new_tokens, "block_length": params.block_length, "ignore_eos": True}


def test_credit_can_change_the_token() -> None:
    """Three passes vote for token 1 at the last position, the fourth by a hair for token 2."""

    def network(ids: Tensor, t: int) -> Tensor:
        table = torch.zeros(len(ids), 5, VOCAB)
        table[:, min(t + 1, 3), 0] = 5.0
        table[:, 4, 2 if t == 3 else 1] = 1.0
        table[:, 4, 1 if t == 3 else 2] = 0.9
        return table.double()

    def answer(name: str) -> list[int]:
        params = SamplingParams(sampler=name, max_new_tokens=4, block_length=4, ignore_eos=True)
        (result,) = Engine(TableModel(network, mask_id=MASK, vocab_size=VOCAB)).generate([[0]], params)
        assert result.forwards == 4
        return result.token_ids

    assert answer("credit") == [0, 0, 0, 1]
    assert answer("dinfer") == [0, 0, 0, 2]


def test_credit_leaves_end_tokens_that_count_as_unsure_alone() -> None:
    table = torch.zeros(3, VOCAB)
    table[1, 3] = 9.0  # the end token
    table[2, 1] = 2.0
    params = SamplingParams(sampler="credit", max_new_tokens=2, block_length=2, ignore_eos=True, confidence_eos_eot_inf=True)
    steps = list(Engine(TableModel(table.double(), mask_id=MASK, eos_ids=(3,))).stream([0], params))
    assert [step.positions for step in steps] == [[2], [1]]
    assert steps[-1].ids == [0, 3, 1]
    assert steps[-1].confidences == [0.0]


def test_dcd_and_slowfast_have_no_blocks_unless_asked_for() -> None:
    for name in ("dcd", "slowfast", "dream"):
        assert SamplingParams(sampler=name, max_new_tokens=96).positions_per_block == 96
        assert SamplingParams(sampler=name, max_new_tokens=96, block_length=48).positions_per_block == 48
    assert SamplingParams(sampler="fast-dllm", max_new_tokens=96).positions_per_block == 32


@pytest.mark.parametrize(
    ("name", "options", "field"),
    [
        ("localleap", {"threshold": 1.5}, "threshold"),
        ("localleap", {"relaxed": 0.95}, "relaxed"),
        ("localleap", {"radius": 1.5}, "radius"),
        ("localleap", {"radius": -1}, "radius"),
        ("dinfer", {"threshold": -0.1}, "threshold"),
        ("dinfer-hierarchy", {"low": 2}, "low"),
        ("dinfer-hierarchy", {"remask": 0.0}, "remask"),
        ("credit", {"alpha": -1}, "alpha"),
        ("credit", {"gamma": float("nan")}, "gamma"),
        ("credit", {"beta": 1.1}, "beta"),
        ("dcd", {"sub_block_length": 0}, "sub_block_length"),
        ("dcd", {"sub_block_length": None}, "sub_block_length"),
        ("slowfast", {"exploration": 0}, "exploration"),
        ("slowfast", {"history": 0}, "history"),
        ("slowfast", {"cycle_confidence": True}, "cycle_confidence"),
        ("slowfast", {"max_std": -1}, "max_std"),
    ],
)
def test_wrong_options_are_refused(name: str, options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        samplers.build(name, options)
    assert caught.value.field == field

"""What every registered sampler owes, on random tables and ragged batches; the ends of its options: `test_certain_and_strict`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attn_sampler import Engine, Hole, InvalidInputError, SamplingParams, Step, UnknownNameError, samplers
from attn_sampler.propose import Choice, Proposal
from attn_sampler.samplers.llada2 import Llada2
from attn_sampler.samplers.remdm import ReMdm
from attn_sampler.seam import Needs, Sampler, Window
from fakes import TableModel, random_table

VOCAB, MASK = 8, 7
TABLE = 64  # positions before the table repeats

# Every registered name with its defaults, and the options that take another path through the code.
CONFIGS: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in samplers.names()] + [
    ("adas", {"base": "top-k", "k": 3, "alpha": 2.0}),
    ("adas", {"base": "eb", "gamma": 1.0, "last": 2}),
    ("attention", {"norm": "global", "rows": "masked", "diag": False}),
    ("attention", {"rows": "block", "fallback": "conf", "sub_block_length": 3}),
    ("attention", {"sub_block_length": None, "threshold": 0.5}),
    ("attention-sequential", {"window": "leftmost", "sub_block_length": 3}),
    ("attention-sequential", {"refresh": "subblock", "sub_block_length": 4}),
    ("attention-exact", {"window": "leftmost", "sub_block_length": 5, "norm": "global", "threshold": 0.5}),
    ("attention-net", {"sub_block_length": None, "threshold": 0.5, "fallback": "conf"}),
    ("attention-fixed", {"score_threshold": 0.9, "k": 1}),
    ("clad", {"threshold": 0.3, "abs_tau": 0.5}),
    ("confidence", {"k": 3}),
    ("dapd", {"tau_min": 0.1, "tau_max": 0.3, "threshold": 0.5}),
    ("dawn", {"threshold": 0.6, "tau_sink": 0.1, "tau_induce": 0.4, "tau_low": 0.2}),
    ("dos", {"gamma": 2.0, "layer": 1}),
    ("credit", {"threshold": 0.5, "alpha": 3.0}),
    ("dcd", {"threshold": 0.5, "sub_block_length": 3}),
    ("dinfer", {"threshold": 0.4}),
    ("dinfer-hierarchy", {"threshold": 0.6, "low": 0.2}),
    ("dinfer-hierarchy", {"threshold": 0.6, "low": 0.2, "remask": 0.5}),
    ("dream", {"alg": "origin"}),
    ("dream", {"alg": "origin", "compat": "reference"}),
    ("dream", {"alg": "maskgit_plus", "alg_temp": 0.3}),
    ("dream", {"alg": "topk_margin", "compat": "reference"}),
    ("dream", {"alg_temp": 1.0}),
    ("fast-dllm-factor", {"factor": 2.0, "compat": "reference"}),
    ("klass", {"threshold": 0.3, "kl_threshold": 5.0, "history": 1}),
    ("llada2", {"threshold": 0.6, "k": 2, "editing_threshold": 0.5, "max_post_steps": 3}),
    ("localleap", {"threshold": 0.5, "relaxed": 0.3, "radius": 1}),
    ("slowfast", {"threshold": 0.5, "exploration": 2, "history": 1}),
    ("slowfast", {"threshold": 0.5, "compat": "reference"}),
    ("eb", {"gamma": 1.0, "error": "margin"}),
    ("klass", {"threshold": 0.3, "kl_threshold": 5.0, "form": "dream", "unmask": "min_kl", "compat": "reference"}),
    ("llada2", {"threshold": 0.5, "compat": "reference"}),
    ("pc-sampler", {"mode": "linear", "k": 2}),
    ("remdm", {"ratio": 0.6, "loops": 3, "k": 2}),
    ("wino", {"draft_threshold": 0.2, "verify_threshold": 0.4}),
]
IDS = ["-".join([name, *map(str, options.values())]) for name, options in CONFIGS]
every_config = pytest.mark.parametrize(("name", "options"), CONFIGS, ids=IDS)


def engine(seed: int, *, moving: bool = True) -> Engine:
    attention = random_table(seed + 1, TABLE, TABLE, 2.0)
    unseen = random_table(seed + 2, TABLE, VOCAB)
    model = TableModel(random_table(seed, TABLE, VOCAB), mask_id=MASK, moving=moving, attention=attention, unseen=unseen)
    return Engine(model)


Row = tuple[list[int], int, int, int | None, int]
"""Prompt, max_new_tokens, block_length, steps, seed."""


@st.composite
def rows(draw: st.DrawFn, budget: bool = False) -> Row:
    prompt = draw(st.lists(st.integers(0, MASK - 1), min_size=1, max_size=6))
    block_length, count = draw(st.integers(1, 10)), draw(st.integers(1, 2))
    per_block = draw(st.integers(1, block_length)) if budget else None
    return prompt, block_length * count, block_length, per_block and per_block * count, draw(st.integers(0, 99))


def windows_per_block(name: str, options: dict[str, Any], block_length: int) -> int:
    """Forwards that a block takes at least: samplers with sub-blocks finish one after the other."""
    width = samplers.build(name, options).needs.sub_block_length or block_length
    return -(-block_length // width)


def spare_passes(name: str, options: dict[str, Any]) -> int:
    """Forwards that a block may take beyond one per mask without a budget: edits after its last mask, the re-masking baseline's
    loops, two passes each, and SlowFast's slow phase after the last mask, as in its authors' code."""
    sampler = samplers.build(name, options)
    edits = sampler.max_post_steps if isinstance(sampler, Llada2) and sampler.editing_threshold is not None else 0
    idle = 5 if (name, options.get("compat")) == ("slowfast", "reference") else 0
    return edits + idle + (2 * sampler.loops if isinstance(sampler, ReMdm) else 0)


def may_wait(name: str, options: dict[str, Any]) -> bool:
    """Whether a forward may commit nothing although there are masks."""
    return name == "dream" and options.get("compat") == "reference"


def run(
    batch: list[Row], name: str, options: dict[str, Any], seed: int, temperature: float = 0.0, moving: bool = True
) -> list[list[Step]]:
    """The Steps of each row of a ragged batch. A step budget below what the sampler can keep is raised to that."""
    least = [windows_per_block(name, options, b) * (n // b) for _, n, b, _, _ in batch]
    batch = [(*row[:3], row[3] and max(row[3], low), row[4]) for row, low in zip(batch, least, strict=True)]
    params = [
        SamplingParams(
            sampler=name,
            max_new_tokens=n,
            block_length=b,
            steps=s,
            seed=noise,
            temperature=temperature,
            ignore_eos=True,
            **options,
        )
        for _, n, b, s, noise in batch
    ]
    seen: dict[int, list[Step]] = {}
    prompts = [prompt for prompt, *_ in batch]
    engine(seed, moving=moving).generate(prompts, params, on_step=lambda step: seen.setdefault(step.row, []).append(step))
    return [seen[row] for row in sorted(seen)]


@every_config
@settings(max_examples=8)
@given(batch=st.lists(rows() | rows(budget=True), min_size=1, max_size=3), seed=st.integers(0, 99), warm=st.booleans())
def test_the_course_of_a_run(name: str, options: dict[str, Any], batch: list[Row], seed: int, warm: bool) -> None:
    """Commits are in the active block, among the positions asked about; nothing else moves; the run ends in time."""
    revises = samplers.build(name, options).needs.revises
    for (prompt, length, block, _, _), steps in zip(batch, run(batch, name, options, seed, 0.8 if warm else 0.0), strict=True):
        start = low = len(prompt)
        ids, masked = prompt + [MASK] * length, set(range(start, start + length))
        assert len(steps) <= length + spare_passes(name, options) * (length // block)
        for step in steps:
            active = set(range(low - (low - start) % block, low - (low - start) % block + block))
            new, written = set(step.positions) & masked, set(step.positions) - masked
            assert set(step.window) <= masked & active, "an earlier block is finished first"
            assert new <= set(step.window)
            assert written <= active if revises else not written, "what is committed never changes unless the sampler revises"
            assert new or set(step.masked) > masked or not masked & active or may_wait(name, options)
            for position, token in zip(step.positions, step.tokens, strict=True):
                ids[position] = token
            masked -= new
            again = set(step.masked) - masked
            assert again <= active - new if revises else not again
            ids, masked = [MASK if p in again else token for p, token in enumerate(ids)], masked | again
            assert step.ids == ids, "what was given or committed never changes"
            assert step.masked == sorted(masked)
            at = min(masked, default=start + length)
            ends = {at - (at - start) % block, min(active)} if revises else {at}  # a block that is revised settles as a whole
            assert step.settled in ends
            assert step.settled >= low
            low = step.settled
            assert MASK not in step.tokens
            assert len(step.scores) == len(step.window)
            assert len(step.confidences) == len(step.positions)
        assert not masked
        assert low == start + length
        assert steps[-1].finished
        assert not any(step.finished for step in steps[:-1])


@every_config
@settings(max_examples=8)
@given(batch=st.lists(rows(budget=True), min_size=1, max_size=2), seed=st.integers(0, 99))
def test_promised_steps_are_never_exceeded(name: str, options: dict[str, Any], batch: list[Row], seed: int) -> None:
    uneven = ([1, 2], 32, 32, 11, 0)  # three a step: sub-blocks of eight have two left over for their third step
    fewest = ([1, 2], 32, 16, 2 * windows_per_block(name, options, 16), 0)
    batch = [*batch, uneven, fewest]
    for (_, length, block, steps, _), taken in zip(batch, run(batch, name, options, seed), strict=True):
        assert steps is not None
        most = max(steps, windows_per_block(name, options, block) * (length // block))
        assert len(taken) <= most


@every_config
@settings(max_examples=8)
@given(
    parts=st.lists(st.tuples(st.integers(0, 5), st.integers(1, 6)), min_size=1, max_size=4),
    block=st.integers(1, 10),
    per_block=st.integers(1, 10),
)
def test_promised_steps_hold_for_holes_too(
    name: str, options: dict[str, Any], parts: list[tuple[int, int]], block: int, per_block: int
) -> None:
    """Blocks count from the first hole and may be partly given, or hold no mask at all."""
    template = [part for fixed, hole in parts for part in ([1] * fixed, Hole(hole)) if not isinstance(part, list) or part]
    masked = [i for i, flag in enumerate(f for fixed, hole in parts for f in [False] * fixed + [True] * hole) if flag]
    blocks = len({(i - masked[0]) // block for i in masked})
    steps = max(min(per_block, block), windows_per_block(name, options, block)) * blocks
    params = SamplingParams(sampler=name, max_new_tokens=64 * block, block_length=block, steps=steps, **options)
    result = engine(0).infill(template, params)
    assert result.completion_tokens == len(masked)
    assert result.forwards <= steps


def test_a_budget_below_one_step_per_sub_block_is_refused() -> None:
    three = {"max_new_tokens": 32, "block_length": 32, "steps": 3}
    with pytest.raises(InvalidInputError, match="at least 4") as caught:
        engine(0).generate([[1]], SamplingParams(sampler="attention", sub_block_length=8, **three))
    assert caught.value.field == "steps"
    (result,) = engine(0).generate([[1]], SamplingParams(sampler="attention", sub_block_length=None, **three))
    assert result.forwards <= 3


@pytest.mark.parametrize("name", ["confidence", "entropy", "left-to-right", "margin", "random"])
@settings(max_examples=12)
@given(row=rows(budget=True), seed=st.integers(0, 99))
def test_a_quota_is_met_exactly_by_samplers_without_a_threshold(name: str, row: Row, seed: int) -> None:
    """LLaDA's schedule: an equal share each, the first steps of a block one more."""
    _, length, block, total, _ = row
    assert total is not None
    per_block = total // (length // block)
    want = [block // per_block + (i < block % per_block) for i in range(per_block)]
    (steps,) = run([row], name, {}, seed)
    assert [len(step.positions) for step in steps] == want * (length // block)


@settings(max_examples=8)
@given(batch=st.lists(rows(), min_size=1, max_size=3), seed=st.integers(0, 99))
def test_left_to_right_goes_from_left_to_right(batch: list[Row], seed: int) -> None:
    for steps in run(batch, "left-to-right", {}, seed):
        order = [position for step in steps for position in step.positions]
        assert order == sorted(order)


def test_random_order_is_the_seeds() -> None:
    orders = []
    for seed in (0, 0, 1):
        (steps,) = run([([1], 12, 12, None, seed)], "random", {}, 3)
        orders.append([step.positions[0] for step in steps])
    assert orders[0] == orders[1] != orders[2]


def test_refresh_per_sub_block_keeps_the_first_scores() -> None:
    """With ``refresh="subblock"`` a position's score is that of the first forward of its sub-block."""
    (steps,) = run([([1, 2], 12, 12, None, 0)], "attention-sequential", {"refresh": "subblock", "sub_block_length": 4}, 5)
    for low in (0, 4, 8):
        scores = [dict(zip(step.window, step.scores, strict=True)) for step in steps[low : low + 4]]
        assert all(later[p] == scores[0][p] for later in scores for p in later)
    (fresh,) = run([([1, 2], 12, 12, None, 0)], "attention-sequential", {"sub_block_length": 4}, 5)
    again = [dict(zip(step.window, step.scores, strict=True)) for step in fresh[:2]]
    assert any(again[1][p] != again[0][p] for p in again[1])


@every_config
@given(data=st.data(), rows=st.integers(1, 3), width=st.integers(1, 9), seed=st.integers(0, 999))
def test_select_by_hand(name: str, options: dict[str, Any], data: st.DataObject, rows: int, width: int, seed: int) -> None:
    """Without any engine: a subset of the candidates, nothing where there are none, something where there are."""
    sampler = samplers.build(name, options)
    assert isinstance(sampler, Sampler)
    flags = st.lists(st.lists(st.booleans(), min_size=width, max_size=width), min_size=rows, max_size=rows)
    memory: Any = {}
    for step in range(2):
        candidates = torch.tensor(data.draw(flags))
        logits = random_table(seed + step, rows * width, VOCAB).reshape(rows, width, VOCAB)
        confidence, tokens = logits.softmax(-1).max(-1)
        proposal = Proposal(tokens, confidence, logits)
        quota, zero = torch.tensor(data.draw(st.lists(st.integers(1, 4), min_size=rows, max_size=rows))), torch.zeros(rows).long()
        needs: Needs = sampler.needs
        asked = needs.attention
        columns = None if asked is None else logits[..., 0]
        matrix = random_table(seed + step + 2, rows * width, width).softmax(-1).reshape(rows, width, width)
        positions = torch.arange(width).expand(rows, -1)
        steps = zero + int(candidates.sum(1).max())
        choice = Choice(zero.double(), zero + 1.0, zero, zero, zero, samples=False, filters=False)
        window = Window(
            positions, candidates, proposal, quota, zero + step, zero, zero + step, columns, steps=steps, choice=choice,
            leave_one_out=confidence if needs.leave_one_out else None,
            pairwise=matrix if asked is not None and asked.pairwise else None,
            sinks=matrix.mean(1) if asked is not None and asked.sinks else None,
            known_mass=(matrix * ~candidates[:, None]).sum(2) if asked is not None and asked.known_mass else None,
            block_masked=zero + width, in_block=torch.ones_like(candidates), budgeted=zero > 0,
        )  # fmt: skip
        answer = sampler.select(window, memory)
        memory = answer.memory
        assert not (answer.commit & ~candidates).any()
        waiting = torch.zeros_like(quota).bool() if answer.hold is None or not may_wait(name, options) else answer.hold
        assert torch.equal(answer.commit.any(1), candidates.any(1) & ~waiting)
        assert answer.score.shape == candidates.shape


# --- the registry -----------------------------------------------------------------------------------------------------


def test_names_are_sorted_and_described() -> None:
    assert samplers.names() == sorted(samplers.names())
    for name in samplers.names():
        shown = samplers.describe(name)
        assert samplers.find(name).name == shown["name"] == name
        assert shown["summary"].endswith((".", ")"))
        assert shown["paper"]
        assert samplers.build(name, shown["options"]) == samplers.build(name, {}), "the defaults shown are the defaults"


@pytest.mark.parametrize(("typo", "meant"), [("atention", "attention"), ("fast_dllm", "fast-dllm"), ("marign", "margin")])
def test_an_unknown_sampler_suggests_the_nearest(typo: str, meant: str) -> None:
    with pytest.raises(UnknownNameError, match=f"did you mean '{meant}'") as caught:
        SamplingParams(sampler=typo)
    assert caught.value.suggestion == meant
    assert all(name in str(caught.value) for name in samplers.names())


def test_an_unknown_option_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'threshold'"):
        SamplingParams(sampler="attention", treshold=0.9)
    with pytest.raises(UnknownNameError, match="did you mean 'max_new_tokens'"):
        SamplingParams(sampler="attention", max_new_token=4)
    with pytest.raises(UnknownNameError, match="'gamma'"):
        samplers.build("eb", {"gama": 1})


@pytest.mark.parametrize(
    ("sampler", "option", "text", "value"),
    [
        ("attention", "threshold", "0.7", 0.7),
        ("attention", "sub_block_length", "4", 4),
        ("attention", "sub_block_length", "none", None),
        ("attention", "diag", "false", False),
        ("attention", "norm", "global", "global"),
        ("attention", "layers", "0,3,7-9", (0, 3, 7, 8, 9)),
        ("attention", "heads", "none", None),
        ("confidence", "k", "2", 2),
    ],
)
def test_options_from_text(sampler: str, option: str, text: str, value: object) -> None:
    assert samplers.parse_option(sampler, option, text) == value


@pytest.mark.parametrize(
    ("sampler", "option", "text"),
    [
        ("attention", "threshold", "x"),
        ("attention", "diag", "1"),
        ("attention", "layers", "1-"),
        ("eb", "k", "1"),
        ("confidence", "k", "1.5"),
    ],
)
def test_options_from_wrong_text(sampler: str, option: str, text: str) -> None:
    with pytest.raises(InvalidInputError):
        samplers.parse_option(sampler, option, text)

"""Early exits: against the authors' code, against slow twins, through the engine beside samplers, and how they are named."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attn_sampler import Engine, Hole, InvalidInputError, SamplingParams, Step, UnknownNameError, exits, samplers
from attn_sampler.exits.prophet import Prophet
from attn_sampler.exits.sched import Sched
from attn_sampler.propose import Choice, propose
from attn_sampler.seam import EarlyExit, Exit, Memory, Window
from fakes import TableModel, one_hot, random_table
from test_cli import PROMPT
from test_cli import run as command
from test_golden_samplers import cases_of, each

VOCAB, MASK = 8, 7


def window_of(logits: Tensor, candidates: Tensor, step: int, steps: int, widths: list[int] | None = None) -> Window:
    """The whole answer at one forward pass; rows narrower than the window repeat their last position."""
    rows, width, vocab = logits.shape
    zero = torch.zeros(rows, dtype=torch.long)
    choice = Choice(zero.double(), zero + 1.0, zero, zero, zero, samples=False, filters=False)
    banned = torch.zeros(rows, vocab)
    banned[:, -1] = -torch.inf
    positions = 5 + torch.arange(width).expand(rows, -1)
    if widths is not None:
        positions = torch.minimum(positions, 4 + torch.tensor(widths)[:, None])
    proposal = propose(logits, choice, positions, banned)
    return Window(positions, candidates, proposal, zero + 1, zero + step, zero, zero + step, steps=zero + steps, choice=choice)


# --- the authors' runs ------------------------------------------------------------------------------------------------


def test_prophet_exits_where_the_authors_do() -> None:
    for case in cases_of("prophet_exit"):
        stages = case["thresholds"]
        prophet = Prophet(early=stages["early"], middle=stages["mid"], late=stages["late"])
        logits = torch.zeros(1, 1, 3, dtype=torch.float64)
        logits[0, 0, 0] = case["gap"]
        window = window_of(logits, torch.ones(1, 1).bool(), case["step"] - 1, case["steps"])
        assert prophet.test(window, {}).now.tolist() == [case["exit"]]


def test_scheds_threshold_is_the_authors() -> None:
    for case in cases_of("sched_tau"):
        sched = Sched(mode=case["mode"], high=case["high"], low=case["low"], rate=case["k"])
        got = sched.threshold(torch.tensor([case["step"]]), torch.tensor([case["steps"]]))
        assert got.tolist() == pytest.approx([case["tau"]], abs=1e-9)


def sched_of(case: dict[str, Any]) -> Sched:
    names = {"tau_mode": "mode", "tau_high": "high", "tau_low": "low", "tau_k": "rate", "patience_steps": "patience"}
    given = {names.get(name, name): value for name, value in case["params"].items() if name != "alg"}
    return Sched(**given)


def unshifted(case: dict[str, Any]) -> Tensor:
    """Forward pass by forward pass, row i for position i; the network's row i predicts position i + 1."""
    raw = torch.tensor(case["raw_logits"], dtype=torch.float64)
    return torch.cat([raw[:, :1], raw[:, :-1]], 1)


@each("sched_sequence")
def test_dream_with_sched_by_hand(case: dict[str, Any]) -> None:
    sched, dream = sched_of(case), samplers.build("dream", {"alg": case["params"]["alg"], "compat": "reference"})
    logits, start, mask = unshifted(case)[:, len(case["prompt"]) :], len(case["prompt"]), case["mask_id"]
    canvas, memory, left = torch.tensor([case["canvas"][0][start:]]), dict[str, Tensor](), False
    for t, want in enumerate(case["canvas"]):
        assert canvas[0].tolist() == want[start:]
        window = window_of(logits[t][None], canvas == mask, t, case["steps"])
        out = sched.test(window, memory)
        memory, left = dict(out.memory), bool(out.now)
        write = window.candidates if left else dream.select(window, {}).commit
        canvas = torch.where(write, window.proposal.tokens, canvas)
        assert left == (case["committed_early"] and t + 1 == case["steps_taken"])
    assert canvas[0].tolist() == case["final"][start:]
    assert len(case["canvas"]) == case["steps_taken"]


@each("sched_sequence")
def test_dream_with_sched_through_the_engine(case: dict[str, Any]) -> None:
    """Among them runs of more forward passes than masks, in which Dream's schedule may leave a pass empty."""
    assert any(case["steps"] > case["gen_length"] for case in cases_of("sched_sequence"))
    logits = unshifted(case)
    model = TableModel(lambda ids, t: logits[t].expand(len(ids), -1, -1), mask_id=case["mask_id"], vocab_size=logits.shape[-1])
    params = SamplingParams(
        sampler="dream",
        alg=case["params"]["alg"],
        compat="reference",
        early_exit=sched_of(case),
        max_new_tokens=case["gen_length"],
        block_length=case["gen_length"],
        steps=case["steps"],
        ignore_eos=True,
    )
    steps = list(Engine(model).stream(case["prompt"], params))
    assert [step.ids for step in steps] == [*case["canvas"][1:], case["final"]]
    assert len(steps) == model.forwards == case["steps_taken"]


# --- slow twins -------------------------------------------------------------------------------------------------------


def gap(logits: list[float]) -> float:
    best = sorted(logits[:-1])  # the last is the mask
    return best[-1] - best[-2]


def slow_prophet(prophet: Prophet, logits: list[list[float]], masked: list[bool], t: int, steps: int) -> bool:
    """One row, from the formula."""
    where = [i for i, m in enumerate(masked) if m]
    if prophet.region_start is not None and prophet.region_length is not None:
        region = range(prophet.region_start, prophet.region_start + prophet.region_length)
        where = [i for i in region if i < len(masked)]
    share = (t + 1) / steps
    wanted = prophet.early if share < 0.33 else prophet.middle if share < 0.67 else prophet.late
    return bool(where) and math.fsum(gap(logits[i]) for i in where) / len(where) >= wanted


class SlowSched:
    """One row, from the formula."""

    def __init__(self, sched: Sched) -> None:
        self.sched, self.before, self.calm = sched, list[int](), 0

    def step(self, logits: list[list[float]], masked: list[bool], t: int, steps: int) -> bool:
        best, left = [row.index(max(row[:-1])) for row in logits], [i for i, m in enumerate(masked) if m]
        changed = sum(best[i] != self.before[i] for i in left) / len(left) if self.before else 1.0
        self.before = best
        on = 1 - len(left) / len(masked) >= self.sched.min_progress
        self.calm = self.calm + 1 if on and changed <= self.sched.max_change_ratio else 0
        mean = math.fsum(gap(logits[i]) for i in left) / len(left)
        return on and self.calm > self.sched.patience and mean >= self.wanted(t, steps)

    def wanted(self, t: int, steps: int) -> float:
        s, share = self.sched, min(t / (steps - 1), 1.0) if steps > 1 else 0.0
        fall = {"linear": 1 - share, "cosine": (1 + math.cos(math.pi * share)) / 2, "exp": math.exp(-s.rate * share)}
        return s.low + (s.high - s.low) * (fall[s.mode] if steps > 1 else 0)


prophets = st.builds(
    lambda stages, region: Prophet(*stages, *region),
    st.tuples(*[st.sampled_from([0.0, 0.7, 1.5, 3.0])] * 3),
    st.sampled_from([(None, None), (0, 2), (3, 4), (50, 1)]),
)
scheds = st.builds(
    Sched,
    mode=st.sampled_from(["cosine", "linear", "exp"]),
    high=st.sampled_from([0.0, 2.0, 5.0]),
    low=st.sampled_from([0.0, 0.5]),
    rate=st.sampled_from([0.0, 4.0]),
    max_change_ratio=st.sampled_from([0.0, 0.5, 1.0]),
    patience=st.integers(0, 2),
    min_progress=st.sampled_from([0.0, 0.4]),
)


@given(
    exit_=prophets | scheds,
    widths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    steps=st.integers(1, 6),
    seed=st.integers(0, 10**6),
)
def test_the_slow_twins(exit_: Prophet | Sched, widths: list[int], steps: int, seed: int) -> None:
    """Ragged rows over several forward passes, in which masks vanish and best tokens come and go."""
    rows, width = len(widths), max(widths)
    memory: Memory = {}
    slow = [SlowSched(exit_) if isinstance(exit_, Sched) else None for _ in widths]
    rng = torch.Generator().manual_seed(seed)
    base = torch.randn(rows, width, VOCAB, generator=rng, dtype=torch.float64) * 2
    masked = torch.arange(width) < torch.tensor(widths)[:, None]
    for t in range(steps):
        base = base + torch.randn(base.shape, generator=rng, dtype=torch.float64) * 0.3
        masked = masked & ((torch.rand(masked.shape, generator=rng) < 0.8) | (torch.arange(width) == 0))
        out = exit_.test(window_of(base, masked, t, steps, widths), memory)
        memory = out.memory
        for k, w in enumerate(widths):
            logits, flags, twin = base[k, :w].tolist(), masked[k, :w].tolist(), slow[k]
            if twin is not None:
                want = twin.step(logits, flags, t, steps)
            else:
                assert isinstance(exit_, Prophet)
                want = slow_prophet(exit_, logits, flags, t, steps)
            assert bool(out.now[k]) == want


# --- through the engine -----------------------------------------------------------------------------------------------


def run(early_exit: str | EarlyExit | None, sampler: str = "confidence", seed: int = 0, **given: Any) -> list[Step]:
    model = TableModel(
        random_table(seed, 64, VOCAB), mask_id=MASK, moving=True, attention=random_table(1, 64, 64),
        unseen=random_table(2, 64, VOCAB),
    )  # fmt: skip
    where = {"max_new_tokens": 12, "block_length": 4, "ignore_eos": True, "seed": 0} | given
    return list(Engine(model).stream([1, 2], SamplingParams(sampler=sampler, early_exit=early_exit, **where)))


@pytest.mark.parametrize("sampler", samplers.names())
def test_any_sampler_goes_on_as_it_would_until_the_exit_fills_the_rest(sampler: str) -> None:
    plain, early = run(None, sampler), run("sched:max_change_ratio=1,high=4,low=2", sampler)
    assert [step.ids for step in early[:-1]] == [step.ids for step in plain[: len(early) - 1]]
    last, before = early[-1], early[-2].masked if len(early) > 1 else list(range(2, 14))
    assert last.finished
    assert not last.masked
    assert MASK not in last.ids
    if len(early) < len(plain):
        assert last.positions == before


@pytest.mark.parametrize("exit_", ["prophet:early=0,middle=0,late=0", "sched:high=0,low=0,max_change_ratio=1"])
def test_a_threshold_of_zero_writes_everything_at_once(exit_: str) -> None:
    (step,) = run(exit_)
    assert step.positions == list(range(2, 14))
    assert step.finished


@pytest.mark.parametrize(
    "exit_", ["prophet:early=1e6,middle=1e6,late=1e6", "sched:high=1e6,low=1e6", "prophet:region_start=99,region_length=1"]
)
def test_a_threshold_out_of_reach_changes_nothing(exit_: str) -> None:
    assert [step.ids for step in run(exit_)] == [step.ids for step in run(None)]


@settings(max_examples=20)
@given(seed=st.integers(0, 99), lengths=st.lists(st.integers(1, 3), min_size=2, max_size=3))
@pytest.mark.parametrize("exit_", ["prophet:early=3,middle=2,late=1", "sched:high=3,low=1,max_change_ratio=0.5"])
def test_a_row_of_a_ragged_batch_leaves_as_it_would_alone(exit_: str, seed: int, lengths: list[int]) -> None:
    model = TableModel(random_table(seed, 64, VOCAB), mask_id=MASK, moving=True)
    params = [
        SamplingParams(sampler="fast-dllm", max_new_tokens=4 * n, block_length=4, early_exit=exit_, seed=0, ignore_eos=True)
        for n in lengths
    ]
    prompts = [[1 + n] * n for n in lengths]
    together = Engine(model).generate(prompts, params)
    alone = [Engine(model).generate([prompt], p)[0] for prompt, p in zip(prompts, params, strict=True)]
    assert [(r.token_ids, r.forwards) for r in together] == [(r.token_ids, r.forwards) for r in alone]


def test_prophets_region_is_that_of_the_answer() -> None:
    """Sure of the second half alone: a region there is written out at once, one in the first half is not."""
    table = one_hot([i % MASK for i in range(20)], VOCAB)
    table[:10] /= 1e5
    for start, forwards in ((8, 1), (0, 16)):
        model = TableModel(table, mask_id=MASK)
        params = SamplingParams(
            sampler="confidence", max_new_tokens=16, early_exit=f"prophet:region_start={start},region_length=8", ignore_eos=True
        )
        (result,) = Engine(model).generate([[1, 2]], params)
        assert result.forwards == forwards


def test_given_words_before_the_answer_stay() -> None:
    """What the authors write into the canvas before they begin is a given part of a template."""
    model = TableModel(one_hot([i % MASK for i in range(20)], VOCAB), mask_id=MASK)
    params = SamplingParams(sampler="confidence", early_exit="prophet:region_start=6,region_length=2")
    result = Engine(model).infill([[1, 2], Hole(4), [5, 5], Hole(2)], params)
    assert result.token_ids == [1, 2, 2, 3, 4, 5, 5, 5, 1, 2]
    assert result.forwards == 1


# --- names and options ------------------------------------------------------------------------------------------------


def test_every_name_finds_its_exit() -> None:
    assert exits.names() == ["prophet", "sched"]
    for name in exits.names():
        built = exits.build(name)
        assert isinstance(built, EarlyExit)
        assert built.name == name
        assert built.paper.startswith("arXiv:")
        assert exits.build(built) is built
        assert {built, exits.build(name)} == {built}


def test_options_in_the_text() -> None:
    assert exits.build("sched:mode=linear,high=6,patience=2") == Sched(mode="linear", high=6.0, patience=2)
    assert exits.build("prophet:region_start=3,region_length=5") == Prophet(region_start=3, region_length=5)
    assert exits.build("prophet:region_start=none") == Prophet()


@pytest.mark.parametrize(
    ("text", "field", "remedy"),
    [
        ("profet", "early_exit", "did you mean 'prophet'"),
        ("", "early_exit", "known: prophet, sched"),
        ("sched:", "early_exit", "name:option=value"),
        ("sched:high", "early_exit", "name:option=value"),
        ("sched:high=1,high=2", "early_exit", "twice"),
        ("sched:hihg=1", "option of early exit 'sched'", "did you mean 'high'"),
        ("sched:high=much", "high", "give a number"),
        ("sched:high=-1", "high", "at least 0"),
        ("sched:patience=1.5", "patience", "give an integer"),
        ("sched:mode=cosin", "mode", "did you mean 'cosine'"),
        ("sched:max_change_ratio=2", "max_change_ratio", "from 0 to 1"),
        ("sched:min_progress=2", "min_progress", "from 0 to 1"),
        ("prophet:early=nan", "early", "at least 0"),
        ("prophet:region_start=1", "region_length", "give both"),
        ("prophet:region_length=1", "region_start", "give both"),
        ("prophet:region_start=0,region_length=0", "region_length", "at least 1"),
    ],
)
def test_what_is_wrong_with_a_text(text: str, field: str, remedy: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        exits.build(text)
    assert caught.value.field == field
    assert remedy in caught.value.remedy
    with pytest.raises(InvalidInputError):
        SamplingParams(early_exit=text)


@dataclass(frozen=True)
class Listed:
    """Frozen, but its option has no hash."""

    name: ClassVar[str] = "listed"
    paper: ClassVar[str] = "none"
    weights: list[int] = field(default_factory=list)

    def test(self, window: Window, memory: Memory) -> Exit:
        return Exit(window.candidates.any(1))


@pytest.mark.parametrize("value", [5, Sched, object(), Listed(), b"sched"], ids=["number", "class", "object", "no hash", "bytes"])
def test_what_is_no_early_exit(value: Any) -> None:
    with pytest.raises(InvalidInputError) as caught:
        exits.build(value)
    assert caught.value.field == "early_exit"


def test_an_unknown_name_says_which_there_are() -> None:
    with pytest.raises(UnknownNameError) as caught:
        exits.find("shed")
    assert caught.value.suggestion == "sched"


def test_the_commands_option(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    forwards = []
    for words in ((), ("--early-exit", "sched:high=0,low=0,max_change_ratio=1")):
        assert command(monkeypatch, "generate", PROMPT, "--json", "--max-new-tokens", "24", *words) == 0
        forwards.append(json.loads(capsys.readouterr().out)["forwards"])
    assert forwards[0] > forwards[1] == 1
    assert command(monkeypatch, "infill", "3 + 4 = [[1]]", "--early-exit", "prophet:early=0,middle=0,late=0") == 0
    assert "in 1 forwards" in capsys.readouterr().err
    assert command(monkeypatch, "generate", PROMPT, "--early-exit", "profet") == 2
    assert "did you mean 'prophet'" in capsys.readouterr().err

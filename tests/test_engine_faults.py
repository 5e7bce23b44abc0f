"""A row that goes wrong is reported to whoever asked for it, and the rows beside it go on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from attn_sampler import Engine, ModelOutputError, RowError, SamplerError, SamplingParams, Step
from attn_sampler.seam import Memory, Needs, Selection, Window
from fakes import TableModel, random_table

BAD = 5  # a prompt that holds this token makes the network fail
PARAMS = SamplingParams(sampler="confidence", max_new_tokens=4, ignore_eos=True)


def engine(poison: float = torch.nan, since: int = 0, max_rows: int = 32) -> Engine:
    table = random_table(3, 16, 8)

    def network(ids: Tensor, forward: int) -> Tensor:
        logits = table[: ids.shape[1]].expand(len(ids), -1, -1).clone()
        if forward >= since:
            logits[(ids == BAD).any(1)] = poison
        return logits

    return Engine(TableModel(network, mask_id=7, vocab_size=8), max_rows=max_rows)


@pytest.fixture(autouse=True)
def _the_table_itself_never_writes_the_bad_token() -> None:
    results = engine().generate([[1], [2, 3]], PARAMS)
    assert all(BAD not in r.token_ids for r in results)


@pytest.mark.parametrize("poison", [torch.nan, -torch.inf, torch.inf])
@pytest.mark.parametrize("sampler", ["confidence", "entropy", "eb", "klass", "fast-dllm", "random"])
def test_logits_that_no_token_can_be_chosen_from(sampler: str, poison: float) -> None:
    broken = engine(poison)
    with pytest.raises(ModelOutputError, match="NaN") as caught:
        broken.generate([[1], [BAD], [2, 3]], SamplingParams(sampler=sampler, max_new_tokens=4))
    assert caught.value.row == 1
    assert isinstance(caught.value, RowError)
    assert broken.unfinished == 0, "generate gives up its whole batch"


def test_streams_beside_it_go_on() -> None:
    broken = engine(since=2)
    good, bad = broken.stream([1], PARAMS), broken.stream([BAD], PARAMS)
    taken = [next(good)]
    next(bad)
    taken.append(next(good))  # the third forward of all, in which the other row fails
    with pytest.raises(ModelOutputError):
        list(bad)
    taken += good
    assert [s.ids for s in taken] == [s.ids for s in engine().stream([1], PARAMS)]
    assert broken.unfinished == 0


def test_step_gives_the_good_steps_first_then_each_error() -> None:
    """Two rows fail in the forward in which a third one ends."""
    broken = engine(since=3)
    rows = [broken.admit([token], PARAMS) for token in (BAD, 1, BAD)]
    for _ in range(3):
        assert [step.row for step in broken.step()] == rows
    errors, steps = [], []
    for _ in range(4):
        try:
            steps += broken.step()
        except ModelOutputError as error:
            errors.append(error.row)
    assert errors == [rows[0], rows[2]]
    assert [step.row for step in steps] == [rows[1]]
    assert steps[0].finished
    assert broken.unfinished == 0


def test_an_admitted_and_a_streamed_row_fail_together() -> None:
    broken = engine(since=1)
    stream = broken.stream([BAD], PARAMS)
    next(stream)
    number = broken.admit([BAD], PARAMS)
    with pytest.raises(ModelOutputError) as caught:
        broken.step()
    assert caught.value.row == number
    with pytest.raises(ModelOutputError):
        next(stream)
    assert broken.step() == []


def test_the_place_of_a_failed_row_is_free_again() -> None:
    broken = engine(max_rows=1)
    bad, good = broken.admit([BAD], PARAMS), broken.admit([1], PARAMS)
    with pytest.raises(ModelOutputError) as caught:
        broken.step()
    assert caught.value.row == bad
    assert [step.row for _ in range(4) for step in broken.step()] == [good] * 4


# --- samplers that break their contract -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Idle:
    """Commits nothing."""

    name: ClassVar[str] = "idle"
    paper: ClassVar[str] = "none"

    @property
    def needs(self) -> Needs:
        return Needs()

    def select(self, window: Window, memory: Memory) -> Selection:
        return Selection(torch.zeros_like(window.candidates), window.proposal.confidence)


@dataclass(frozen=True)
class Stray(Idle):
    """Commits everything it sees, candidates or not."""

    name: ClassVar[str] = "stray"

    def select(self, window: Window, memory: Memory) -> Selection:
        first = window.candidates.int().cumsum(1) == 1
        return Selection((window.candidates & first) | ~window.candidates, window.proposal.confidence)


@dataclass(frozen=True)
class Counting(Idle):
    """Remembers its own steps, and commits the leftmost candidate."""

    name: ClassVar[str] = "counting"

    def select(self, window: Window, memory: Memory) -> Selection:
        count = memory["count"] + 1 if memory else torch.ones_like(window.quota)
        assert torch.equal(count, window.forward + 1), "memory follows its row"
        leftmost = window.candidates & (window.candidates.int().cumsum(1) == 1)
        return Selection(leftmost, window.proposal.confidence, {"count": count})


@pytest.mark.parametrize(("sampler", "says"), [(Idle(), "nothing"), (Stray(), "no candidates")])
def test_a_sampler_that_breaks_its_contract(sampler: Idle, says: str) -> None:
    both = [SamplingParams(sampler=sampler, max_new_tokens=4), PARAMS]
    broken = engine()
    with pytest.raises(SamplerError, match=f"{sampler.name} committed {'.*' if says != 'nothing' else ''}{says}") as caught:
        broken.generate([[1], [2]], both)
    assert caught.value.row == 0
    stream = broken.stream([2], PARAMS)
    first = next(stream)
    bad = broken.admit([1], both[0])
    with pytest.raises(SamplerError) as caught:
        list(iter(broken.step, []))
    assert caught.value.row == bad
    assert [first.ids, *(s.ids for s in stream)] == [s.ids for s in engine().stream([2], PARAMS)]


def test_a_sampler_of_your_own_needs_no_registry() -> None:
    """An object works where a name does; its memory follows the rows that join, leave and fail."""
    mine = SamplingParams(sampler=Counting(), max_new_tokens=4)
    running = engine(since=2)
    running.admit([1], mine)
    running.step()
    running.admit([BAD], mine)
    running.admit([2, 3], mine)
    seen: list[Step] = []
    errors = 0
    while running.unfinished:
        try:
            seen += running.step()
        except ModelOutputError:
            errors += 1
    assert errors == 1
    assert sum(step.finished for step in seen) == 2

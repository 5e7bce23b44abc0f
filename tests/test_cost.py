"""What a run costs beside its passes: attention statistics measured by turns, told with their interval."""

from __future__ import annotations

import itertools
import math
import os
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import attn_sampler as ats
from attn_sampler import SamplingParams
from attn_sampler.evals import cost
from attn_sampler.evals.cost import _Pass, _shares, _TimedModel
from attn_sampler.evals.speed import _shares as shown
from attn_sampler.evals.statistics import median_interval

MIB = 2**20
SETTABLE = os.access("/proc/self/clear_refs", os.W_OK)


class Watched:
    """A model that notes of every pass whether attention was asked for."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.seen: list[bool] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def predict(self, ids: Any, valid: Any, asks: Any, stretch: Any = None) -> Any:
        self.seen.append(any(ask.attention is not None for ask in asks))
        return self._model.predict(ids, valid, asks, stretch)


@pytest.mark.parametrize(("sampler", "turns"), [("attention-sequential", [False, True, True, False]), ("confidence", [False])])
def test_each_side_is_first_in_every_other_pass(sampler: str, turns: list[bool]) -> None:
    engine = ats.load(device="cpu", max_rows=2)
    engine.model = watched = Watched(engine.model)  # type: ignore[assignment]
    params = SamplingParams(sampler=sampler, max_new_tokens=10, seed=0, ignore_eos=True)
    found = cost.shares(engine, ["What is 1 + 2?", "What is 2 + 2?"], params)
    assert found["passes"] == cost.PASSES, "rows of 10 passes are begun again"
    expected = list(itertools.islice(itertools.cycle(turns), len(watched.seen)))
    assert watched.seen == expected
    assert len(watched.seen) == (1 + cost.PASSES) * (2 if sampler == "attention-sequential" else 1)
    assert engine.unfinished == 0


def test_the_timed_model_answers_as_asked() -> None:
    """What the sampler sees is the pass with statistics, whichever was first."""
    engine = ats.load(device="cpu", max_rows=1)
    params = SamplingParams(sampler="attention-sequential", max_new_tokens=8, seed=0, ignore_eos=True)
    plain = engine.generate(["What is 1 + 2?"], params)[0]
    engine.model = _TimedModel(engine.model)  # type: ignore[assignment]
    assert engine.generate(["What is 1 + 2?"], params)[0].token_ids == plain.token_ids


def test_shares_by_hand() -> None:
    passes = [_Pass(asked=x, plain=0.7, select=0.1, reads=True) for x in (0.9, 1.0, 0.8)] + [_Pass(0.9, 0.9, 0.1)]
    found = _shares(passes)
    added = [0.2 / 1.0, 0.3 / 1.1, 0.1 / 0.9]
    weight = 3.0 / 4.0  # of the time, the passes that read attention have
    assert found["attention_share"] == pytest.approx(weight * added[0])
    assert (found["attention_low"], found["attention_high"]) == pytest.approx((weight * added[2], weight * added[1]))
    assert found["sampler_share"] == pytest.approx(0.1)
    none = _shares(passes[3:])
    assert none == {"sampler_share": pytest.approx(0.1), "attention_share": 0.0, "passes": 1}
    assert _shares([]) == {}


@pytest.mark.parametrize(
    ("share", "low", "high", "text"),
    [(0.031, 0.02, 0.044, "3.1 % (2.0 – 4.4)"), (0.0, -0.01, 0.02, "< 2.0 %"), (-0.01, -0.03, -0.002, "< 3.0 %"),
     (0.0, 0.0, 0.0, "< 0.1 %")],
)  # fmt: skip
def test_what_is_lost_in_noise_is_a_bound(share: float, low: float, high: float, text: str) -> None:
    found = {"sampler_share": 0.05, "attention_share": share, "attention_low": low, "attention_high": high}
    assert shown(found) == ("5.0 %", text)


def test_no_statistics_are_no_zero() -> None:
    assert shown({"sampler_share": 0.05, "attention_share": 0.0, "passes": 24}) == ("5.0 %", "none read")
    assert shown({}) == ("–", "–")


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=40))
def test_the_interval_of_a_median_counted_out(values: list[float]) -> None:
    middle, low, high = median_interval(values)
    assert low <= middle <= high
    below, n = sum(x < low for x in sorted(values)), len(values)
    missed = sum(math.comb(n, k) for k in range(sorted(values).index(low))) / 2**n if below else 0.0
    assert missed <= 0.025


# --- memory -----------------------------------------------------------------------------------------------------------


def group(mebibytes: int) -> int | None:
    """Peak of a group that holds so much at a time, in eight pieces, and gives it back."""
    peak = cost.Peak(torch.device("cpu"))
    held = [torch.ones(mebibytes * MIB // 8, dtype=torch.uint8) for _ in range(8)]
    assert len(held) == 8
    del held
    return peak.bytes()


@pytest.mark.skipif(not SETTABLE, reason="the system cannot set the mark back")
def test_peak_memory_is_the_group_s_whatever_ran_before() -> None:
    kept = torch.ones(96 * MIB, dtype=torch.uint8)  # what was there before is no part of it
    found = [group(size) for size in (32, 128, 32, 0)]
    assert len(kept)
    for size, peak in zip((32, 128, 32, 0), found, strict=True):
        assert peak is not None
        assert abs(peak / MIB - size) < 12, found


def test_where_the_mark_cannot_be_set_back_there_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: str, mode: str = "r") -> Any:
        if "clear_refs" in path:
            raise PermissionError(13, "Permission denied", path)
        return open(path, mode)

    monkeypatch.setattr(cost, "open", refused, raising=False)
    assert group(8) is None

"""Metrics of an evaluation, each against its definition counted out or worked by hand."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attn_sampler.evals import metrics
from attn_sampler.evals.metrics import agreement, aup, compare, frontiers, summarise
from attn_sampler.evals.pictures import written_shares
from attn_sampler.evals.report import table
from attn_sampler.evals.statistics import (
    bootstrap_ratio,
    holm,
    mcnemar,
    mcnemar_below,
    paired_difference,
    pass_at_k,
    ranks,
    sign_flip,
    spearman,
    wilson,
)  # fmt: skip
from attn_sampler.evals.study import Sample
from attn_sampler.evals.sweep import settings as settings_of

SAMPLE = Sample(
    task="word", setting="a", index=0, draw=0, seed=1, difficulty=1, prompt="p", text="t", solved=True, detail={}, tokens=12,
    forwards=12, finish_reason="stop", elapsed_s=2.0, batch_s=0.5, peak_bytes=100, log_likelihood=-0.5, order=[1, 2, 3, 4],
)  # fmt: skip


def sample(setting: str, index: int, right: bool, forwards: int, **more: Any) -> Sample:
    return replace(SAMPLE, setting=setting, index=index, solved=right, forwards=forwards, **more)


# --- statistics -------------------------------------------------------------------------------------------------------


@given(st.integers(0, 9), st.integers(0, 9))
def test_mcnemar_is_the_binomial_test_counted_out(b: int, c: int) -> None:
    n = b + c
    extreme = sum(abs(2 * sum(coins) - n) >= abs(b - c) for coins in itertools.product((0, 1), repeat=n))
    assert mcnemar(b, c) == pytest.approx(min(1.0, extreme / 2**n))


@given(st.integers(0, 50), st.integers(1, 50))
def test_wilson_holds_the_share(successes: int, n: int) -> None:
    low, high = wilson(min(successes, n), n)
    assert 0 <= low <= min(successes, n) / n <= high <= 1


@given(st.integers(0, 9), st.integers(0, 9))
def test_one_side_of_mcnemar_counted_out(better: int, worse: int) -> None:
    n = better + worse
    assert mcnemar_below(better, worse) == sum(sum(coins) >= worse for coins in itertools.product((0, 1), repeat=n)) / 2**n


@pytest.mark.parametrize(
    ("table", "low", "high"),  # a, b, c, d of Newcombe's paper: both, only the first, only the second, neither
    [((36, 12, 2, 0), 0.0569, 0.3404), ((0, 30, 0, 0), 0.8395, 1.0)],
)
def test_paired_difference(table: tuple[int, int, int, int], low: float, high: float) -> None:
    assert paired_difference(*table) == pytest.approx((low, high), abs=0.0001)


@given(st.tuples(*[st.integers(0, 30)] * 4).filter(any))
def test_paired_difference_turned_round(table: tuple[int, int, int, int]) -> None:
    both, better, worse, neither = table
    low, high = paired_difference(both, better, worse, neither)
    assert paired_difference(both, worse, better, neither) == pytest.approx((-high, -low))
    assert low < high, "it stays open where no pair differs"
    assert -1 - 1e-9 <= low <= (better - worse) / sum(table) <= high <= 1 + 1e-9


@given(st.integers(1, 8), st.data())
def test_pass_at_k_is_the_share_of_the_draws_with_a_right_one(n: int, data: st.DataObject) -> None:
    right, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    draws = list(itertools.combinations([i < right for i in range(n)], k))
    assert pass_at_k(n, right, k) == pytest.approx(sum(map(any, draws)) / len(draws))


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=8))
def test_sign_flip_is_near_all_patterns_counted_out(differences: list[int]) -> None:
    seen = abs(sum(differences))
    patterns = list(itertools.product((1, -1), repeat=len(differences)))
    exact = sum(abs(sum(s * d for s, d in zip(p, differences, strict=True))) >= seen for p in patterns) / len(patterns)
    assert sign_flip(differences) == pytest.approx(exact, abs=0.03)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_an_interval_of_a_ratio_holds_it() -> None:
    above, below = torch.arange(1.0, 41, dtype=torch.float64), torch.full((40,), 10.0, dtype=torch.float64)
    low, high = bootstrap_ratio(above, below)
    assert low < float(above.sum() / below.sum()) < high
    assert bootstrap_ratio(2 * below, below) == (2.0, 2.0)


# --- metrics ----------------------------------------------------------------------------------------------------------


def test_summary_by_hand() -> None:
    first = [sample("a", i, i < 6, 12, elapsed_s=1.0 + i) for i in range(10)]
    second = [sample("b", i, i in (0, 1, 2, 7), 4, peak_bytes=100 + i) for i in range(10)]
    a, b = summarise(first + second)
    assert (a.n, a.accuracy, a.forwards, a.tokens_per_forward, a.log_likelihood, a.p) == (10, 0.6, 12, 1.0, -0.5, None)
    assert (a.seconds, a.tokens_per_s, a.latency_p50_s, a.pass_at_k) == (5.0, 24.0, 5.5, {1: 0.6})
    assert a.latency_p95_s == pytest.approx(9.55)
    assert (b.accuracy, b.tokens_per_forward, b.better, b.worse, b.peak_bytes) == (0.4, 3.0, 1, 3, 109)
    assert b.p == mcnemar(1, 3)
    assert a.low < 0.6 < a.high
    text = table([a, b])
    assert "| a | 60.0 % |" in text
    assert "+1 −3" in text


def test_what_else_the_scorer_says() -> None:
    details = [{"strict": True, "extracted": "7", "distance": 0.5}, {"strict": False, "distance": 1.5}, {}]
    (a,) = summarise([sample("a", i, True, 4, detail=detail) for i, detail in enumerate(details)])
    assert a.details == {"strict": 1 / 3, "distance": 2 / 3}


def test_comparisons_by_hand() -> None:
    samples = [sample("a", i, i < 30, 10) for i in range(40)]
    samples += [sample("b", i, i < 10, 4) for i in range(40)] + [sample("c", i, i != 5, 10) for i in range(30)]
    found = {(c.setting, c.against): c for c in compare(samples)}
    assert list(found) == [("b", "a"), ("c", "a"), ("c", "b")]
    b, c = found["b", "a"], found["c", "a"]
    assert (b.difference, b.better, b.worse, b.verdict) == (-0.5, 0, 20, "worse")
    assert b.p == mcnemar(0, 20)
    assert b.p_holm == 2 * b.p
    assert (b.forwards, b.forwards_low, b.forwards_high) == (-6, -6, -6)
    assert -0.7 < b.low < -0.5 < b.high < -0.3
    assert (c.better, c.worse, c.verdict) == (0, 1, "not shown"), "on the 30 problems that both answered"
    assert found["c", "b"].verdict == "better"


def test_several_answers_count_by_problem() -> None:
    """Ten answers of each of two problems are two problems, however sure each of them is."""
    samples = [sample(s, i, s == "b" or i == 0, 10, draw=d) for s in "ab" for i in range(2) for d in range(10)]
    a, b = summarise(samples)
    assert (a.n, a.draws, a.accuracy, b.accuracy) == (2, 10, 0.5, 1.0)
    assert a.pass_at_k == {1: 0.5, 2: 0.5, 4: 0.5, 8: 0.5, 10: 0.5}
    assert (a.low, a.high) == wilson(1, 2)
    assert (b.low, b.high) == wilson(2, 2)
    assert compare(samples)[0].verdict == "not shown"


def test_failed_rows_count_as_wrong_and_have_no_latency() -> None:
    failed = sample("a", 1, False, 3, finish_reason="error", elapsed_s=0.0, tokens=0, log_likelihood=None)
    (a,) = summarise([sample("a", 0, True, 12), failed])
    assert (a.accuracy, a.errors, a.latency_p50_s, a.tokens_per_forward, a.log_likelihood) == (0.5, 1, 2.0, 0.8, None)


def test_aup_by_hand() -> None:
    assert aup([(1.0, 0.8)], 0.8) == pytest.approx(80.0)
    full = aup([(3.0, 0.8), (1.0, 0.8)], 0.8)
    assert full == pytest.approx(80 + 2 * 80), "the whole rectangle where nothing is lost"
    w = math.exp(-3 * (1 - 0.76 / 0.8))
    assert aup([(1.0, 0.8), (3.0, 0.76)], 0.8) == pytest.approx(80 + (80 + 76 * w))
    assert aup([(1.0, 0.8), (3.0, 0.74)], 0.8) == pytest.approx(80), "more than five points lost: the point does not count"
    assert aup([], 0.8) == 0.0 == aup([(1.0, 0.0)], 0.0)


def test_aup_of_a_series_is_measured_by_the_best_of_the_task() -> None:
    a = [sample("a", i, i < 8, 12) for i in range(10)]
    b = [sample(f"b {f}", i, i < 6, f) for f in (12, 4) for i in range(10)]
    found = frontiers(summarise(a + b), {"a": "a", "b 12": "b", "b 4": "b"})
    w = math.exp(-3 * (1 - 0.6 / 0.8))
    assert [(x["series"], x["settings"]) for x in found] == [("a", 1), ("b", 2)]
    assert [x["aup"] for x in found] == pytest.approx([80.0, 60 + 2 * 60 * w])


def test_aup_of_two_swept_options_is_that_of_each_curve() -> None:
    """Two parallel curves, half a step apart: the AUP of each is that of its own points, not that of all sorted together."""
    labels = settings_of(["attention"], ["threshold=0.95,0.9,0.8", "fallback=score,conf"])
    shape = {"score": ((4, 9), (3, 8), (2, 7)), "conf": ((5, 10), (4, 9), (3, 8))}  # (forwards, problems solved of 10)
    points = {s.label: shape[str(s.options["fallback"])][(0.95, 0.9, 0.8).index(s.options["threshold"])] for s in labels}
    some = [sample(label, i, i < right, passes) for label, (passes, right) in points.items() for i in range(10)]
    found = {x["series"]: x for x in frontiers(summarise(some), {s.label: s.series for s in labels})}
    assert {name: x["settings"] for name, x in found.items()} == {f"attention fallback={x}": 3 for x in ("score", "conf")}
    for fallback, curve in shape.items():
        alone = aup([(12 / passes, right / 10) for passes, right in curve], 1.0)
        assert found[f"attention fallback={fallback}"]["aup"] == pytest.approx(alone)


def test_agreement_of_orders() -> None:
    ahead = sample("a", 0, True, 4, tokens=3, order=[1, 2, 3, 9])
    back = sample("b", 0, True, 4, tokens=4, order=[3, 2, 1, 9])
    at_once = sample("c", 0, True, 4, tokens=4, order=[1, 1, 1, 1])
    (found,) = agreement([ahead, back, at_once])
    assert found == {"task": "word", "settings": ["a", "b", "c"], "matrix": [[1, -1, None], [-1, 1, None], [None, None, 1]]}


def agreement_slowly(samples: list[Sample], problems: int) -> list[list[float | None]]:
    """Pair by pair, problem by problem."""
    answers: dict[str, dict[int, Sample]] = {}
    for one in samples:
        answers.setdefault(one.setting, {}).setdefault(one.index, one)
    names = list(answers)
    matrix: list[list[float | None]] = [[1.0] * len(names) for _ in names]
    for i, j in itertools.combinations(range(len(names)), 2):
        earlier, later = answers[names[i]], answers[names[j]]
        found = []
        for k in sorted(later)[:problems]:
            if k in earlier:
                length = min(earlier[k].tokens, later[k].tokens)
                x, y = (torch.tensor(one[k].order[:length], dtype=torch.float64) for one in (earlier, later))
                found += [spearman(x, y)] if length > 1 else []
        known = [x for x in found if not math.isnan(x)]
        matrix[i][j] = matrix[j][i] = sum(known) / len(known) if known else None
    return matrix


@given(st.data())
def test_agreement_is_that_of_every_pair_by_itself(data: st.DataObject) -> None:
    """Answers of different lengths, ties, orders of one pass, failed rows, several draws, problems that a setting lacks."""
    samples = []
    for setting in "abcd":
        for index in sorted(data.draw(st.sets(st.integers(0, 5), min_size=1))):
            for draw in range(data.draw(st.integers(1, 2))):
                order = data.draw(st.lists(st.integers(1, 4), min_size=6, max_size=6))
                tokens = data.draw(st.integers(0, 6))
                samples.append(sample(setting, index, True, 4, draw=draw, tokens=tokens, order=order if tokens else []))
    problems = data.draw(st.integers(1, 6))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "ORDERS", problems)
        (found,) = agreement(samples)
    for row, slow in zip(found["matrix"], agreement_slowly(samples, problems), strict=True):
        assert row == pytest.approx(slow, abs=1e-12)


@given(st.lists(st.lists(st.integers(-2, 2), min_size=3, max_size=3), min_size=1, max_size=4))
def test_ranks_counted_out(rows: list[list[int]]) -> None:
    counted = [[sum(y < x for y in row) + (sum(y == x for y in row) - 1) / 2 for x in row] for row in rows]
    assert ranks(torch.tensor(rows)).tolist() == counted


def test_written_shares_add_up() -> None:
    some = [sample("a", 0, True, 3, tokens=3, order=[1, 2, 3, 4]), sample("a", 1, True, 3, tokens=2, order=[2, 1, 5, 5])]
    assert written_shares(some) == [[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]]

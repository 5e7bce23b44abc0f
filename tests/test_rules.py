"""Each rule equals a plain one-row twin written from its definition, and obeys what is proved about it."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from attn_sampler import rules

Row = tuple[list[float], list[float], list[bool], int]  # score, confidence, candidate, quota

# Multiples of 1/8: ties are common, and sums and differences of them are exact in float32.
EIGHTHS = st.integers(0, 8).map(lambda x: x / 8)


@st.composite
def tables(draw: st.DrawFn, max_width: int = 9) -> list[Row]:
    """Some rows of the same width, each with its own candidates (at least one) and its own quota."""
    width = draw(st.integers(1, max_width))
    rows: list[Row] = []
    for _ in range(draw(st.integers(1, 4))):
        values = st.lists(EIGHTHS, min_size=width, max_size=width)
        flags = draw(st.lists(st.booleans(), min_size=width, max_size=width))
        flags[draw(st.integers(0, width - 1))] = True
        rows.append((draw(values), draw(values), flags, draw(st.integers(1, width + 1))))
    return rows


def columns(table: list[Row]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    score, confidence, candidates, quota = zip(*table, strict=True)
    return torch.tensor(score), torch.tensor(confidence), torch.tensor(candidates), torch.tensor(quota)


def picked(mask: Tensor) -> list[list[int]]:
    return [row.nonzero()[:, 0].tolist() for row in mask]


# --- the definitions, one row at a time, in plain Python --------------------------------------------------------------


def best(row: list[float], flags: list[bool], k: int, tie: list[float] | None = None) -> list[int]:
    order = sorted((i for i, f in enumerate(flags) if f), key=lambda i: (-row[i], -tie[i] if tie else 0, i))
    return sorted(order[:k])


def threshold(p: list[float], flags: list[bool], k: int, tau: float) -> list[int]:
    return sorted({i for i, f in enumerate(flags) if f and p[i] >= tau} | set(best(p, flags, k)))


def factor(p: list[float], flags: list[bool], k: int, f: float, quirk: bool) -> list[int]:
    ordered = sorted((p[i] for i, flag in enumerate(flags) if flag), reverse=True)
    n = 1
    while n < len(ordered) and (n + 2) * (1 - ordered[n]) <= f:
        n += 1
    if quirk and n == len(ordered) - 1:
        n += 1
    return best(p, flags, max(n, k))


def entropy_bound(h: list[float], flags: list[bool], k: int, gamma: float) -> list[int]:
    ordered = sorted(h[i] for i, flag in enumerate(flags) if flag)
    n = max(n for n in range(1, len(ordered) + 1) if n == 1 or math.fsum(ordered[:n]) - max(ordered[:n]) <= gamma)
    return best([-x for x in h], flags, max(n, k))


def attention(s: list[float], p: list[float], flags: list[bool], k: int, tau: float, fallback: str) -> list[int]:
    candidates = [i for i, f in enumerate(flags) if f]
    limit = max((s[i] for i in candidates if p[i] <= tau), default=-math.inf)
    chosen = {i for i in candidates if p[i] > tau and s[i] > limit}
    if len(chosen) < min(k, len(candidates)):
        chosen |= set(best(s, flags, k, p) if fallback == "score" else best(p, flags, k, s))
    return sorted(chosen)


def attention_walk(s: list[float], p: list[float], flags: list[bool], tau: float) -> list[int]:
    """The other form of the same rule: walk down the scores, commit while sure, stop at the first that is not; never nothing."""
    order = sorted((i for i, f in enumerate(flags) if f), key=lambda i: (-s[i], -p[i], i))
    out = []
    for i in order:
        # a sure position that ties with an unsure one does not exceed it
        if p[i] <= tau or any(s[j] == s[i] and p[j] <= tau for j in order):
            break
        out.append(i)
    return sorted(out or order[:1])


# --- rules against their twins ----------------------------------------------------------------------------------------


@given(tables(), st.booleans())
def test_top_k_and_rank(table: list[Row], with_tie: bool) -> None:
    score, confidence, candidates, quota = columns(table)
    tie = confidence if with_tie else None
    want = [best(s, f, k, p if with_tie else None) for s, p, f, k in table]
    assert picked(rules.top_k(score, candidates, quota, tie)) == want
    place = rules.rank(score, candidates, tie)
    assert (place.sort(1).values == torch.arange(score.shape[1])).all(), "a permutation of every row"
    for row, (s, p, f, _) in zip(place.tolist(), table, strict=True):
        order = sorted((i for i, flag in enumerate(f) if flag), key=lambda i: (-s[i], -p[i] if with_tie else 0, i))
        assert [row[i] for i in order] == list(range(len(order)))


@given(tables(), EIGHTHS)
def test_threshold(table: list[Row], tau: float) -> None:
    _, confidence, candidates, quota = columns(table)
    assert picked(rules.threshold(confidence, candidates, quota, tau)) == [threshold(p, f, k, tau) for _, p, f, k in table]


@given(tables(), st.integers(0, 24).map(lambda x: x / 8), st.booleans())
def test_factor(table: list[Row], f: float, quirk: bool) -> None:
    _, confidence, candidates, quota = columns(table)
    # (n + 1)(1 - c) is exact on eighths, 1 - f / (n + 1) is not: keep clear of equality
    got = rules.factor(confidence, candidates, quota, f + 1e-4, quirk)
    assert picked(got) == [factor(p, flags, k, f + 1e-4, quirk) for _, p, flags, k in table]


@given(tables(), EIGHTHS)
def test_entropy_bound(table: list[Row], gamma: float) -> None:
    entropy, _, candidates, quota = columns(table)
    assert picked(rules.entropy_bound(entropy, candidates, quota, gamma)) == [
        entropy_bound(h, f, k, gamma) for h, _, f, k in table
    ]


@given(tables(), EIGHTHS, st.sampled_from(["score", "conf"]))
def test_attention_threshold(table: list[Row], tau: float, fallback: str) -> None:
    score, confidence, candidates, quota = columns(table)
    got = rules.attention_threshold(score, confidence, candidates, quota, tau, fallback)  # type: ignore[arg-type]
    assert picked(got) == [attention(s, p, f, k, tau, fallback) for s, p, f, k in table]


# --- what is proved about the attention rule --------------------------------------------------------------------------


def dynamic(table: list[Row], tau: float, quota: int = 1) -> list[list[int]]:
    score, confidence, candidates, _ = columns(table)
    return picked(rules.attention_threshold(score, confidence, candidates, torch.full((len(table),), quota), tau))


@given(tables(), EIGHTHS)
@example([([0.5, 0.5, 0.25], [1.0, 0.25, 1.0], [True, True, True], 1)], 0.5)  # a sure and an unsure one tie at the top
@example([([0.5, 0.5, 0.5], [0.25, 0.5, 0.25], [True, True, True], 1)], 0.75)  # nothing passes, confidence breaks the tie
def test_the_prefix_walk_equals_the_set_rule(table: list[Row], tau: float) -> None:
    assert dynamic(table, tau) == [attention_walk(s, p, f, tau) for s, p, f, _ in table]


@given(tables(), st.floats(1, 2))
def test_a_threshold_of_one_or_more_is_the_sequential_rule(table: list[Row], tau: float) -> None:
    assert dynamic(table, tau) == [best(s, f, 1, p) for s, p, f, _ in table]


@given(tables(), EIGHTHS)
def test_everything_sure_commits_everything(table: list[Row], tau: float) -> None:
    """No low candidate: the maximum over the empty set is minus infinity."""
    sure = [(s, [min(tau + 0.125, 2.0)] * len(p), f, k) for s, p, f, k in table]
    assert dynamic(sure, tau) == [[i for i, flag in enumerate(f) if flag] for _, _, f, _ in table]


@given(tables(), EIGHTHS)
def test_every_commit_but_the_fallback_is_sure_and_beats_every_unsure_one(table: list[Row], tau: float) -> None:
    for got, (s, p, f, _) in zip(dynamic(table, tau), table, strict=True):
        unsure = [s[i] for i, flag in enumerate(f) if flag and p[i] <= tau]
        sure_and_above = all(p[i] > tau and s[i] > max(unsure, default=-math.inf) for i in got)
        assert sure_and_above or got == best(s, f, 1, p)


@given(tables(), EIGHTHS, st.randoms(use_true_random=False))
def test_the_order_of_positions_does_not_matter_without_ties(table: list[Row], tau: float, random: object) -> None:
    s, p, f, _ = table[0]
    s = [x + i / 1024 for i, x in enumerate(s)]  # distinct
    order = list(range(len(s)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = ([s[i] for i in order], [p[i] for i in order], [f[i] for i in order], 1)
    (direct,), (back,) = dynamic([(s, p, f, 1)], tau), dynamic([shuffled], tau)
    assert sorted(order[i] for i in back) == direct


# --- what holds for all rules -----------------------------------------------------------------------------------------

Rule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
ALL: dict[str, Rule] = {
    "top_k": lambda s, p, c, k: rules.top_k(s, c, k),
    "top_k-tie": lambda s, p, c, k: rules.top_k(s, c, k, p),
    "threshold": lambda s, p, c, k: rules.threshold(p, c, k, 0.5),
    "factor": lambda s, p, c, k: rules.factor(p, c, k, 1.0, False),
    "factor-quirk": lambda s, p, c, k: rules.factor(p, c, k, 1.0, True),
    "entropy_bound": lambda s, p, c, k: rules.entropy_bound(s, c, k, 0.5),
    "attention-score": lambda s, p, c, k: rules.attention_threshold(s, p, c, k, 0.5, "score"),
    "attention-conf": lambda s, p, c, k: rules.attention_threshold(s, p, c, k, 0.5, "conf"),
}


@pytest.mark.parametrize("name", ALL)
@given(tables())
def test_a_subset_of_the_candidates_and_the_quota_at_least(name: str, table: list[Row]) -> None:
    score, confidence, candidates, quota = columns(table)
    got = ALL[name](score, confidence, candidates, quota)
    assert got.dtype == torch.bool
    assert not (got & ~candidates).any()
    assert (got.sum(1) >= torch.minimum(quota, candidates.sum(1))).all()


@pytest.mark.parametrize("name", ALL)
@given(tables(), st.integers(0, 8))
def test_one_candidate_is_taken_by_every_rule(name: str, table: list[Row], where: int) -> None:
    one = [(s, p, [i == where % len(f) for i in range(len(f))], k) for s, p, f, k in table]
    score, confidence, candidates, quota = columns(one)
    assert torch.equal(ALL[name](score, confidence, candidates, quota), candidates)


@pytest.mark.parametrize("name", ALL)
@given(tables())
def test_a_row_without_candidates_gets_nothing(name: str, table: list[Row]) -> None:
    """In a batch, a row may have a window of padding only."""
    score, confidence, candidates, quota = columns(table)
    candidates[0] = False
    assert not ALL[name](score, confidence, candidates, quota)[0].any()


@pytest.mark.parametrize("name", ALL)
@given(tables())
def test_rows_do_not_see_each_other(name: str, table: list[Row]) -> None:
    together = ALL[name](*columns(table))
    alone = torch.cat([ALL[name](*columns([row])) for row in table])
    assert torch.equal(together, alone)


def test_entropy_bound_keeps_its_precision_at_the_bound() -> None:
    """Adding and taking away a large entropy must not round a small one to nothing."""
    entropy = torch.tensor([[1e-4, 1e-4, 4.0]])
    yes, one = torch.ones_like(entropy, dtype=torch.bool), torch.ones(1, dtype=torch.long)
    assert picked(rules.entropy_bound(entropy, yes, one, 2.0e-4 * (1 + 1e-6))) == [[0, 1, 2]]
    assert picked(rules.entropy_bound(entropy, yes, one, 2.0e-4 * (1 - 1e-3))) == [[0, 1]]
    tiny = torch.tensor([[1e-8, 4.0]])
    assert picked(rules.entropy_bound(tiny, yes[:, :2], one, 0.0)) == [[0]]

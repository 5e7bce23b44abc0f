"""Samplers that look at how much single positions attend to each other: golden steps, slow twins, limits.

The twins are written from the papers' formulas, one row at a time, and see the row without any padding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from attn_sampler import Engine, InvalidInputError, SamplingParams, rules, samplers
from attn_sampler.propose import Proposal
from attn_sampler.samplers.adas import picked
from attn_sampler.samplers.clad import without_conflicts
from attn_sampler.seam import Window
from fakes import TableModel, one_hot, random_table
from test_golden_samplers import cases_of, each, selected, window_of

Matrix = np.ndarray[Any, Any]


def window_from(case: dict[str, Any], **more: Any) -> Window:
    """A window whose logits are not given: its confidences (0 where there are none either) and the matrix."""
    attention = torch.tensor([case["attention"]], dtype=torch.float64)
    masked = torch.tensor([case.get("masked", case.get("candidates"))]).bool()
    p = torch.tensor([case["p"]], dtype=torch.float64) if "p" in case else torch.zeros(masked.shape, dtype=torch.float64)
    zero = torch.zeros(1, dtype=torch.long)
    proposal = Proposal(torch.zeros_like(masked, dtype=torch.long), p, torch.zeros(*masked.shape, 2, dtype=torch.float64))
    window = Window(torch.arange(masked.shape[1])[None], masked, proposal, zero + 1, zero, zero, zero, pairwise=attention)
    return replace(window, in_block=torch.ones_like(masked), block_masked=masked.sum(1), **more)


def entropies(case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The golden cases give entropies instead of logits."""
    value = torch.tensor([case["entropy"]], dtype=torch.float64)
    monkeypatch.setattr("attn_sampler.scores.entropy", lambda window: value)


# --- golden steps ---------------------------------------------------------------------------------------------------


@each("adas")
def test_adas(case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    entropies(case, monkeypatch)
    window, params = window_from(case), case["params"]
    alpha = params["alpha"]
    assert (
        selected(samplers.build("adas", {"base": "top-k", "k": params["k"], "alpha": alpha}), window)[0] == case["selected_topk"]
    )
    chosen, score = selected(samplers.build("adas", {"base": "eb", "gamma": params["gamma"], "alpha": alpha}), window)
    assert chosen == case["selected_eb"]
    assert score[case["order"]].tolist() == sorted(score[case["order"]].tolist(), reverse=True)
    assert window.pairwise is not None
    place, _ = picked(window.proposal.confidence, window.pairwise, window.candidates, alpha)
    assert place[0].argsort()[: len(case["order"])].tolist() == case["order"]


@each("dos")
def test_dos(case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    entropies(case, monkeypatch)
    window, params = window_from(case), case["params"]
    assert window.pairwise is not None
    window = replace(window, known_mass=(window.pairwise * ~window.candidates[:, None]).sum(2))
    chosen, score = selected(samplers.build("dos", {"k": params["k"]}), window)
    assert chosen == case["selected"]
    np.testing.assert_allclose(score.numpy(), case["dep"], atol=1e-6)
    assert selected(samplers.build("dos", {"gamma": params["gamma"]}), window)[0] == case["selected_eb"]


@each("dapd")
def test_dapd(case: dict[str, Any]) -> None:
    params = dict(case["params"])
    options = {
        "tau_min": params["tau_min"],
        "tau_max": params["tau_max"],
        "switch": params["switch"],
        "threshold": params["fast"],
    }
    pairwise, initial = torch.tensor([case["attention"]], dtype=torch.float64), torch.tensor([params["initial_masked"]])
    window = replace(window_of(case), pairwise=pairwise, block_masked=initial)
    assert selected(samplers.build("dapd", {**options, "certain": False}), window)[0] == case["selected"]


@each("dawn")
def test_dawn(case: dict[str, Any]) -> None:
    """The reference sees the whole canvas, the window ends with the active block; its queries are the block's."""
    whole, matrix = window_of(case), torch.tensor([case["attention"]], dtype=torch.float64)
    low = case["prompt_length"] + case["block_index"] * case["block_length"]
    high = low + case["block_length"]
    proposal = whole.proposal
    window = replace(
        whole,
        positions=whole.positions[:, :high],
        candidates=whole.candidates[:, :high],
        proposal=Proposal(proposal.tokens[:, :high], proposal.confidence[:, :high], proposal.logits[:, :high]),
        pairwise=matrix[:, low:high, :high],
        sinks=matrix.mean(1)[:, :high],
        in_block=whole.positions[:, :high] >= low,
    )
    assert selected(samplers.build("dawn", case["params"]), window)[0] == case["selected"]


@each("clad")
def test_clad(case: dict[str, Any]) -> None:
    """The golden cases are those of the filter; a threshold of 0 lets all candidates through."""
    window = window_from(case)
    assert selected(samplers.build("clad", {"threshold": 0, "abs_tau": case["params"]["abs_tau"]}), window)[0] == case["selected"]


# --- slow twins -----------------------------------------------------------------------------------------------------


def adas_twin(row: Row, k: int, o: dict[str, Any]) -> list[int]:
    picks: list[int] = []
    worth = {i: float(row.p[i]) for i in row.masked}
    while worth:
        picks.append(max(worth, key=lambda i: (worth[i], -i)))
        del worth[picks[-1]]
        for i in worth:
            worth[i] -= o["alpha"] * float(row.a[i, picks[-1]]) * (1 - float(row.p[picks[-1]]))
    if o["base"] == "top-k":
        return picks[: max(k, o["k"])]
    count = 0
    for n in range(1, len(picks) + 1):
        p, h = row.p[picks[:n]], row.entropy[picks[:n]]
        fits = (n + 1) * (1 - min(p)) <= o["factor"] if o["base"] == "factor" else sum(h) - max(h) <= o["gamma"]
        if n > 1 and not fits:
            break
        count = n
    return picks[: max(count, k)]


def dos_twin(row: Row, k: int, o: dict[str, Any]) -> list[int]:
    known = [j for j in range(row.low + len(row.p)) if j - row.low not in row.masked]
    order = sorted(row.masked, key=lambda i: (-row.wide[row.low + i, known].sum(), i))
    count = max(k, o["k"])
    while o["gamma"] is not None and count < len(order):
        h = row.entropy[order[: count + 1]]
        if sum(h) - max(h) > o["gamma"]:
            break
        count += 1
    return order[:count]


def filled(chosen: set[int], row: Row, k: int) -> list[int]:
    """The least number of commits, by confidence."""
    rest = sorted(set(row.masked) - chosen, key=lambda i: (-row.p[i], i))
    return sorted(chosen) + rest[: max(0, k - len(chosen))]


def dapd_twin(row: Row, k: int, o: dict[str, Any]) -> list[int]:
    left = len(row.masked) / len(row.p)  # every position of the block began as a mask
    certain = {i for i in row.masked if row.p[i] >= 1}
    if left < o["switch"]:
        return filled(certain | {i for i in row.masked if row.p[i] > o["threshold"]}, row, k)
    limit = o["tau_min"] + (o["tau_max"] - o["tau_min"]) * (1 - left)
    joint = {(i, j): (row.a[i, j] + row.a[j, i]) / 2 for i in row.masked for j in row.masked if i != j}
    weight = {i: sum(joint.get((i, j), 0.0) for j in row.masked) * row.p[i] for i in row.masked}
    chosen: list[int] = []
    for i in sorted(row.masked, key=lambda i: (-weight[i], i)):
        if all(joint[i, j] <= limit for j in chosen):
            chosen.append(i)
    return filled(set(chosen) | certain, row, k)


def dawn_twin(row: Row, k: int, o: dict[str, Any]) -> list[int]:
    n, low = len(row.wide), row.low
    p = np.concatenate([row.before, row.p])
    masked = {low + i for i in row.masked}
    sink = {j for j in range(n) if row.wide[:, j].mean() > o["tau_sink"]}

    def depends(i: int, j: int) -> bool:
        return i != j and j not in sink and row.wide[i, j] >= o["tau_edge"]

    sure = {i for i in masked if p[i] >= o["threshold"]}
    anchors = {j for j in range(n) if j not in masked and p[j] >= o["threshold"]}
    induced = {i for i in masked if p[i] >= o["tau_induce"] and any(depends(i, j) for j in anchors)}
    rest = {i for i in masked - sure - induced if p[i] >= o["tau_low"]}
    rest -= {i for i in rest if any(depends(i, j) for j in sure & induced)}
    if o.get("compat") == "reference":
        chosen = with_the_stray(rest, p, lambda i, j: depends(i, j) or depends(j, i))
        return filled({i - low for i in (chosen | sure | induced) & masked}, row, k)
    chosen = set[int]()
    for i in sorted(rest, key=lambda i: (-p[i], i)):
        if not any(depends(i, j) or depends(j, i) for j in chosen):
            chosen.add(i)
    return filled({i - low for i in chosen | sure | induced}, row, k)


def with_the_stray(rest: set[int], p: Any, tied: Callable[[int, int], bool]) -> set[int]:
    """The authors' loop: a round for each position that it starts with; with none left the largest of nothing is the first."""
    worth, chosen = np.where([i in rest for i in range(len(p))], p, -np.inf), set[int]()
    for _ in rest:
        best = int(np.argmax(worth))
        chosen.add(best)
        worth[[best, *(j for j in rest if best in rest and tied(best, j))]] = -np.inf
    return chosen


def clad_twin(row: Row, k: int, o: dict[str, Any]) -> list[int]:
    best = sorted(row.masked, key=lambda i: (-row.p[i], i))
    passed = sorted({i for i in row.masked if row.p[i] >= o["threshold"]} | set(best[:k]))
    runs: list[list[int]] = []
    for i in passed:
        if runs and runs[-1][-1] == i - 1:
            runs[-1].append(i)
        else:
            runs.append([i])

    def tie(i: int, j: int) -> float:
        return max(row.a[i, j], row.a[j, i])

    def score(a: list[int], b: list[int]) -> float:
        return max(*(max(np.mean([tie(i, j) for j in y]) for i in x) for x, y in ((a, b), (b, a))))

    dropped: set[int] = set()
    others = {a: [b for b in range(len(runs)) if b != a] for a in range(len(runs))}
    for a in range(len(runs)):
        for b in range(a + 1, len(runs)):
            pairs = [max(others[x], key=lambda y, x=x: (score(runs[x], runs[y]), -y)) for x in (a, b)]
            limits = [np.mean([score(runs[x], runs[y]) for y in others[x]]) for x in (a, b)]
            limit = o["abs_tau"] / len(row.p) if len(runs) == 2 else max(limits)
            if pairs == [b, a] and score(runs[a], runs[b]) >= limit:
                dropped.add(b if len(runs[a]) >= len(runs[b]) else a)
    kept = {i for x, run in enumerate(runs) if x not in dropped for i in run}
    return filled(kept, row, k)


class Row:
    """One row by itself: ``low`` tokens before a block of ``width`` positions, and nothing after it.

    Attributes:
        wide: attention of the whole canvas; ``a`` is the block's part.
        p, before: confidences in the block and before it.
    """

    def __init__(self, seed: int, low: int, masked: list[bool], spread: float) -> None:
        self.low, self.masked = low, [i for i, m in enumerate(masked) if m]
        n = low + len(masked)
        self.wide = random_table(seed, n, n, 2.0).double().softmax(-1).numpy()
        self.a = self.wide[low:, low:]
        self.logits = random_table(seed + 1, n, 5, spread).double()
        probabilities = self.logits.softmax(-1)
        p = probabilities.amax(-1).numpy()
        self.before, self.p = p[:low], p[low:]
        self.entropy = -(probabilities * probabilities.log()).sum(-1).numpy()[low:]


FREE = {"tau_sink": 0.6, "tau_edge": 0.15, "tau_induce": 0.9, "tau_low": 0.2, "threshold": 0.95}
"""Of DAWN, so that most positions are left to the independent set."""
TWINS: list[tuple[str, dict[str, Any], Callable[[Row, int, dict[str, Any]], list[int]]]] = [
    ("adas", {"base": "top-k", "alpha": 5.0, "k": 2}, adas_twin),
    ("adas", {"base": "factor", "alpha": 2.0, "factor": 1.5}, adas_twin),
    ("adas", {"base": "eb", "alpha": 40.0, "gamma": 0.8}, adas_twin),
    ("dos", {"k": 2, "gamma": None}, dos_twin),
    ("dos", {"k": 1, "gamma": 1.0}, dos_twin),
    ("dapd", {"tau_min": 0.05, "tau_max": 0.2, "switch": 0.5, "threshold": 0.6}, dapd_twin),
    ("dapd", {"tau_min": 0.0, "tau_max": 0.01, "switch": 0.0, "threshold": 0.9}, dapd_twin),
    ("dawn", {"tau_sink": 0.3, "tau_edge": 0.1, "tau_induce": 0.6, "tau_low": 0.3, "threshold": 0.8}, dawn_twin),
    ("dawn", {"tau_sink": 0.1, "tau_edge": 0.05, "tau_induce": 0.5, "tau_low": 0.0, "threshold": 0.99}, dawn_twin),
    ("dawn", {**FREE, "compat": "reference"}, dawn_twin),
    ("clad", {"threshold": 0.5, "abs_tau": 1.2}, clad_twin),
    ("clad", {"threshold": 0.7, "abs_tau": 0.5}, clad_twin),
]


def padded(value: Any, *size: int) -> Tensor:
    """Filled up with zeros to that size."""
    out = torch.zeros(size, dtype=torch.as_tensor(value).dtype)
    out[tuple(slice(n) for n in np.shape(value))] = torch.as_tensor(value)
    return out


def batch_of(rows: list[Row], quota: list[int], scope: str) -> Window:
    """The rows as the engine shows them: as wide as the widest; what lies beyond a row's own width is nobody's."""
    block = max(len(row.p) for row in rows)
    lows = [row.low if scope == "canvas" else 0 for row in rows]  # where the block begins in the window
    width = max(low + len(row.p) for low, row in zip(lows, rows, strict=True))
    first = [row.low - low for low, row in zip(lows, rows, strict=True)]  # of the window, in the row's canvas
    flags = torch.zeros(len(rows), width, dtype=torch.bool)
    inside = torch.zeros_like(flags)
    for k, (low, row) in enumerate(zip(lows, rows, strict=True)):
        flags[k, [low + i for i in row.masked]] = True
        inside[k, low : low + len(row.p)] = True
    logits = torch.stack([padded(row.logits[at:], width, 5) for row, at in zip(rows, first, strict=True)])
    confidence, tokens = logits.softmax(-1).max(-1)
    zero = torch.zeros(len(rows), dtype=torch.long)
    matrices, known_mass = [], []
    for row, at in zip(rows, first, strict=True):  # queries beyond the row's own repeat its last one, columns are zero
        matrix = padded(row.wide[row.low :, at:], block, width)
        matrix[len(row.p) :] = matrix[len(row.p) - 1]
        matrices.append(matrix)
        known = [j for j in range(len(row.wide)) if j - row.low not in row.masked]
        known_mass.append(padded(row.wide[row.low :, known].sum(1), block))
    proposal, positions = Proposal(tokens, confidence, logits), torch.arange(width).expand(len(rows), -1)
    return Window(
        positions, flags, proposal, torch.tensor(quota), zero, zero, zero,
        pairwise=torch.stack(matrices),
        sinks=torch.stack([padded(row.wide.mean(0)[at:], width) for row, at in zip(rows, first, strict=True)]),
        known_mass=torch.stack(known_mass),
        in_block=inside,
        block_masked=torch.tensor([len(row.p) for row in rows]),
    )  # fmt: skip


@st.composite
def some_rows(draw: st.DrawFn) -> tuple[list[Row], list[int]]:
    flags = st.lists(st.booleans(), min_size=1, max_size=12)
    row = st.builds(Row, st.integers(0, 999), st.integers(0, 5), flags, st.sampled_from([2.0, 6.0]))
    rows = draw(st.lists(row, min_size=1, max_size=3))
    return rows, draw(st.lists(st.integers(1, 4), min_size=len(rows), max_size=len(rows)))


@pytest.mark.parametrize(("name", "options", "twin"), TWINS, ids=[f"{name}-{i}" for i, (name, *_) in enumerate(TWINS)])
@given(drawn=some_rows())
def test_every_row_of_a_ragged_batch_equals_the_twin(
    name: str, options: dict[str, Any], twin: Callable[..., list[int]], drawn: tuple[list[Row], list[int]]
) -> None:
    rows, quota = drawn
    sampler = samplers.build(name, options)
    window = batch_of(rows, quota, sampler.needs.scope)
    commit = sampler.select(window, {}).commit
    for row, k, chosen in zip(rows, quota, commit, strict=True):
        offset = row.low if sampler.needs.scope == "canvas" else 0
        assert [i - offset for i in chosen.nonzero()[:, 0].tolist()] == sorted(twin(row, k, options)), (row.masked, row.p)


# --- what the options reduce to -------------------------------------------------------------------------------------


def commits(name: str, seed: int = 3, **options: Any) -> list[list[int]]:
    attention = random_table(seed + 1, 48, 48, 2.0)
    model = TableModel(random_table(seed, 48, 8), mask_id=7, moving=True, attention=attention, num_layers=8)
    params = SamplingParams(sampler=name, max_new_tokens=24, ignore_eos=True, **({"block_length": 12} | options))
    return [step.positions for step in Engine(model).stream([1, 2, 3], params)]


@pytest.mark.parametrize(
    ("name", "options", "base", "others"),
    [
        ("adas", {"alpha": 0.0}, "fast-dllm-factor", {}),
        ("adas", {"alpha": 0.0, "base": "top-k", "k": 3}, "confidence", {"k": 3}),
        ("dawn", {"tau_edge": 2.0, "tau_low": 0.9}, "fast-dllm", {}),
    ],
)  # fmt: skip
def test_at_the_edge_of_its_options_a_sampler_is_a_plainer_one(
    name: str, options: dict[str, Any], base: str, others: dict[str, Any]
) -> None:
    assert commits(name, **options) == commits(base, **others)


def test_dapd_commits_one_at_a_time_where_all_are_joined_and_all_at_once_where_none_are() -> None:
    assert [len(step) for step in commits("dapd", tau_min=0.0, tau_max=0.0, switch=0.0)] == [1] * 24
    assert [len(step) for step in commits("dapd", tau_min=1.0, tau_max=1.0)] == [12, 12]


def test_dapd_takes_the_answer_as_one_block_unless_it_is_told_otherwise() -> None:
    model = TableModel(random_table(0, 48, 8), mask_id=7, moving=True, attention=random_table(1, 48, 48, 2.0))
    window = {"sampler": "dapd", "max_new_tokens": 40, "ignore_eos": True}
    assert next(Engine(model).stream([1], SamplingParams(**window))).window == list(range(1, 41))
    assert next(Engine(model).stream([1], SamplingParams(**window, block_length=8))).window == list(range(1, 9))


def test_dapd_commits_what_is_certain_whatever_it_attends_to() -> None:
    tokens = [i % 7 for i in range(24)]
    for certain in (True, False):
        model = TableModel(one_hot(tokens, 8), mask_id=7, attention=torch.zeros(24, 24))
        params = SamplingParams(sampler="dapd", max_new_tokens=23, tau_min=0.0, tau_max=0.0, certain=certain, ignore_eos=True)
        result = Engine(model).generate([[1]], params)[0]
        assert result.token_ids == tokens[1:]
        assert (result.forwards == 1) == certain


def test_an_even_attention_lets_adas_write_one_uncertain_position_only() -> None:
    """A pick of confidence 0 makes every other one worth less, in proportion to what it attends to it."""
    p = torch.tensor([[0.5, 0.49, 0.48, 0.4]])
    attention = torch.tensor([[[0.0] * 4, [0.9, 0, 0, 0], [0.9, 0, 0, 0], [0.0] * 4]])
    place, score = picked(p, attention, torch.ones(1, 4).bool(), 1.0)
    assert place.tolist() == [[0, 2, 3, 1]]
    torch.testing.assert_close(score, torch.tensor([[0.5, 0.04, 0.03, 0.4]]))


def test_clad_with_one_cluster_and_with_none() -> None:
    even = torch.full((2, 4, 4), 0.25)
    passed = torch.tensor([[True, True, False, False], [False] * 4])
    assert torch.equal(without_conflicts(passed, even, torch.zeros(2)), passed)


@pytest.mark.parametrize(
    ("name", "options", "field"),
    [
        ("adas", {"base": "topk"}, "base"),
        ("adas", {"alpha": -1.0}, "alpha"),
        ("adas", {"last": 0}, "last"),
        ("dos", {"layer": -1}, "layer"),
        ("dos", {"gamma": "much"}, "gamma"),
        ("dapd", {"tau_min": 0.1}, "tau_max"),
        ("dapd", {"certain": 1}, "certain"),
        ("dawn", {"tau_edge": 0}, "tau_edge"),
        ("dawn", {"compat": "referense"}, "compat"),
        ("clad", {"abs_tau": -0.1}, "abs_tau"),
    ],
)
def test_wrong_options_are_named(name: str, options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        samplers.build(name, options)
    assert caught.value.field == field


def test_a_layer_that_the_model_lacks_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"^layer=8: this model has 8: give indices from 0 to 7$"):
        commits("dos", layer=8)


# --- the rules they share -------------------------------------------------------------------------------------------


@given(drawn=some_rows())
def test_an_independent_set_is_independent_and_nothing_can_be_added(drawn: tuple[list[Row], list[int]]) -> None:
    rows, _ = drawn
    window = batch_of(rows, [1] * len(rows), "block")
    assert window.pairwise is not None
    conflict = window.pairwise + window.pairwise.mT > 0.3
    conflict &= ~torch.eye(conflict.shape[1], dtype=torch.bool)
    taken = rules.independent_set(window.proposal.confidence, window.candidates, conflict)
    near = (conflict & taken[:, None]).any(2)
    assert not (taken & near).any()
    assert torch.equal(taken | (near & window.candidates), window.candidates)


def test_golden_cases_are_all_there() -> None:
    assert all(len(cases_of(rule)) == 48 for rule in ("adas", "dos", "dapd", "dawn", "clad"))

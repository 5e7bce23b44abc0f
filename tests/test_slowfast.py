"""SlowFast sampling against whole runs of the authors' code, and against a plain reference that goes row by row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from attn_sampler import Engine, SamplingParams
from fakes import TableModel, random_table
from test_golden_samplers import each

VOCAB, MASK = 8, 7
NAMES = {
    "high": "threshold",
    "cycle_confidence": "cycle_confidence",
    "k_exploration": "exploration",
    "window": "history",
    "std": "max_std",
}


@pytest.mark.parametrize("compat", ["none", "reference"])
@each("slowfast_sequence")
def test_canvases_and_forwards_of_the_reference(case: dict[str, Any], compat: str) -> None:
    """A stub network answers forward t with logits[t]. The reference goes on with its slow phase when no mask is left; its
    canvas is cut off in fast passes."""
    length = len(case["prompt"]) + case["gen_length"]
    logits = torch.stack([F.pad(torch.tensor(part).double(), (0, 0, 0, length - len(part))) for part in case["logits"]])
    model = TableModel(lambda ids, t: logits[t].expand(len(ids), -1, -1), mask_id=case["mask_id"], vocab_size=logits.shape[-1])
    options = {NAMES[name]: value for name, value in case["params"].items()}
    params = SamplingParams(sampler="slowfast", max_new_tokens=case["gen_length"], ignore_eos=True, compat=compat, **options)
    steps = list(Engine(model).stream(case["prompt"], params))
    wanted = [canvas for canvas in case["canvas"] if case["mask_id"] in canvas or compat == "reference"]
    start = len(case["prompt"])
    canvases = [[case["mask_id"]] * case["gen_length"], *(step.ids[start:] for step in steps)]
    assert len(steps) == model.forwards == len(wanted)
    assert len(case["canvas"]) == case["nfe"]
    assert all(case["mask_id"] not in canvas for canvas in case["canvas"][len(wanted) :]), "only its last passes are idle"
    assert [canvas[: len(want)] for canvas, want in zip(canvases, wanted, strict=False)] == wanted
    assert canvases[-1] == case["final"]


def plain(
    confidences: list[list[float]], width: int, threshold: float, cycle: float, exploration: int, history: int, max_std: float
) -> list[list[int]]:
    """Commits at each pass, given the confidence of every position at each pass."""
    masked, passes, low, out = set(range(width)), iter(confidences), 0, []
    while masked:
        ends: list[int] = []
        end: int | None = None
        for _ in range(exploration):
            if not masked:
                return out
            p = next(passes)
            if end is None:
                ends.append(max([j + 1 for j in masked if j >= low and p[j] >= cycle], default=low + 1))
                ends = ends[-history:]
                if len(ends) == history and np.std(ends) < max_std:
                    end = ends[-1]
            out.append(write(p, {j for j in masked if j >= low}, masked, threshold))
        end = int(np.mean(ends)) if end is None else end
        while stretch := {j for j in masked if low <= j < end}:
            out.append(write(next(passes), stretch, masked, threshold))
        low = end
    return out


def write(p: list[float], stretch: set[int], masked: set[int], threshold: float) -> list[int]:
    sure = sorted(j for j in stretch if p[j] >= threshold)
    chosen = sure if len(sure) > 1 else [min(stretch, key=lambda j: (-p[j], j))]
    masked -= set(chosen)
    return chosen


@settings(max_examples=60)
@given(
    widths=st.lists(st.integers(1, 24), min_size=1, max_size=4),
    seed=st.integers(0, 999),
    spread=st.sampled_from([1.0, 2.0, 4.0]),
    threshold=st.sampled_from([0.5, 0.9, 1.0]),
    cycle=st.sampled_from([0.0, 0.3, 0.8, 1.0]),
    exploration=st.integers(1, 7),
    history=st.integers(1, 4),
    max_std=st.sampled_from([0.0, 0.5, 1.0, 3.0]),
)
def test_against_the_plain_reference(
    widths: list[int], seed: int, spread: float, threshold: float, cycle: float, exploration: int, history: int, max_std: float
) -> None:
    """Rows of different lengths in one batch, each in a phase of its own."""
    table = random_table(seed, 24 * 25, VOCAB, spread).reshape(24, 25, VOCAB).double()
    table[..., MASK] = -50.0
    model = TableModel(lambda ids, t: table[t, : ids.shape[1]].expand(len(ids), -1, -1), mask_id=MASK, vocab_size=VOCAB)
    params = [
        SamplingParams(
            sampler="slowfast", max_new_tokens=n, ignore_eos=True, threshold=threshold, cycle_confidence=cycle,
            exploration=exploration, history=history, max_std=max_std,
        )
        for n in widths
    ]  # fmt: skip
    seen: dict[int, list[list[int]]] = {}
    Engine(model).generate(
        [[0]] * len(widths), params, on_step=lambda s: seen.setdefault(s.row, []).append([p - 1 for p in s.positions])
    )
    confidences = table.softmax(-1).amax(-1)[:, 1:].tolist()
    for row, n in zip(sorted(seen), widths, strict=True):
        assert seen[row] == plain(confidences, n, threshold, cycle, exploration, history, max_std)


def test_every_block_begins_with_a_slow_phase_of_its_own() -> None:
    table = random_table(3, 24 * 17, VOCAB, 2.0).reshape(24, 17, VOCAB).double()
    table[..., MASK] = -50.0
    model = TableModel(lambda ids, t: table[t].expand(len(ids), -1, -1), mask_id=MASK, vocab_size=VOCAB)
    params = SamplingParams(sampler="slowfast", max_new_tokens=16, block_length=8, ignore_eos=True, exploration=2)
    steps = list(Engine(model).stream([0], params))
    confidences = table.softmax(-1).amax(-1)[:, 1:]
    first = plain(confidences[:, :8].tolist(), 8, 0.9, 0.3, 2, 2, 1.0)
    second = plain(confidences[len(first) :, 8:].tolist(), 8, 0.9, 0.3, 2, 2, 1.0)
    assert [[p - 1 for p in step.positions] for step in steps] == first + [[p + 8 for p in commit] for commit in second]


@pytest.mark.parametrize("compat", ["none", "reference"])
def test_a_step_budget_is_kept(compat: str) -> None:
    """The quota comes from the stretch first; where that is too short, from what lies beyond it."""
    table = random_table(1, 64, VOCAB)
    options = {"exploration": 1 if compat == "none" else 6}
    for budget in (1, 3, 5, 9):
        (result,) = Engine(TableModel(table, mask_id=MASK, moving=True)).generate(
            [[1, 2]],
            SamplingParams(sampler="slowfast", max_new_tokens=32, steps=budget, ignore_eos=True, compat=compat, **options),
        )
        assert result.forwards <= budget
        assert result.forwards == budget or compat == "none" or budget > 6, "a slow phase takes six passes, but for its budget"

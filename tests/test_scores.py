"""Scores against their formulas, and that measuring a few positions, piece by piece, says the same as measuring all at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attn_sampler import Engine, Hole, SamplingParams, Step, load, samplers, scores
from attn_sampler.propose import Choice, propose
from attn_sampler.seam import Window
from fakes import TableModel, random_table

VOCAB, MASK = 8, 7

# Samplers that measure, with the options that take another path.
CONFIGS: list[dict[str, Any]] = [
    {"sampler": "margin"},
    {"sampler": "entropy", "k": 2},
    {"sampler": "eb", "gamma": 1.0},
    {"sampler": "adas", "base": "eb", "gamma": 1.0},
    {"sampler": "dos", "gamma": 2.0},
    {"sampler": "dream", "alg_temp": 0.5},
    {"sampler": "dream", "alg": "maskgit_plus", "compat": "reference"},
    {"sampler": "dream", "alg": "topk_margin", "temperature": 0.7, "top_p": 0.9},
    {"sampler": "klass", "threshold": 0.2, "kl_threshold": 5.0, "history": 1},
    {"sampler": "klass", "threshold": 0.3, "kl_threshold": 2.0},
    {"sampler": "credit", "threshold": 0.5, "alpha": 3.0},
]


def window(rows: int, width: int, share: float, seed: int) -> Window:
    logits = random_table(seed, rows * width, VOCAB, 3.0).reshape(rows, width, VOCAB)
    zero, one = torch.zeros(rows, dtype=torch.long), torch.ones(rows)
    positions = torch.arange(width).expand(rows, -1)
    banned = torch.zeros(rows, VOCAB)
    banned[:, MASK] = -torch.inf
    proposal = propose(logits, Choice(one * 0, one, zero, zero, zero, samples=False, filters=False), positions, banned)
    candidates = torch.rand(rows, width, generator=torch.Generator().manual_seed(seed)) < share
    return Window(positions, candidates, proposal, zero + 1, zero, zero, zero)


windows = st.builds(window, st.integers(1, 4), st.integers(1, 9), st.floats(0, 1), st.integers(0, 99))
pieces = st.integers(1, 400)  # numbers that go together: from one position at a time to all


@given(windows, pieces)
def test_entropy_and_margin_of_candidates_against_the_formula(window: Window, piece: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scores, "PIECE", piece)
        entropy, margin = scores.entropy(window).numpy(), scores.margin(window).numpy()
    p = np.exp(window.proposal.logits.double().log_softmax(-1).numpy())
    want = -(p * np.log(np.where(p > 0, p, 1.0))).sum(-1)
    best = np.sort(p)[..., ::-1]
    chosen = window.candidates.numpy()
    np.testing.assert_allclose(entropy[chosen], want[chosen], atol=1e-6)
    np.testing.assert_allclose(margin[chosen], (best[..., 0] - best[..., 1])[chosen], atol=1e-6)


@given(windows, pieces)
def test_measured_in_pieces_is_measured_at_once_to_the_last_bit(window: Window, piece: int) -> None:
    """With several values in and out, of different shapes."""

    def measure(logits: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, ...]:
        p = logits.softmax(-1)
        return p, p.gather(-1, tokens[:, None])[:, 0], tokens + 1

    values = (window.proposal.logits, window.proposal.tokens)
    whole = measure(*(value.flatten(0, 1) for value in values))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scores, "PIECE", piece)
        got = scores.measured(measure, window.candidates, *values)
    chosen = window.candidates.reshape(-1)
    for one, all_ in zip(got, whole, strict=True):
        assert one.shape[:2] == window.candidates.shape
        assert torch.equal(one.flatten(0, 1)[chosen], all_[chosen])


@pytest.mark.parametrize(("count", "share"), [(20, 0.2), (20, 1.0), (3, 1.0)])
def test_no_position_is_measured_alone(monkeypatch: pytest.MonkeyPatch, count: int, share: float) -> None:
    monkeypatch.setattr(scores, "PIECE", 1)
    wanted = torch.arange(count)[None] < share * count
    sizes: list[int] = []

    def measure(values: torch.Tensor) -> tuple[torch.Tensor]:
        sizes.append(len(values))
        return (values.sum(-1),)

    scores.measured(measure, wanted, torch.ones(1, count, VOCAB))
    assert sum(sizes) == share * count
    assert min(sizes) >= 2


Row = tuple[int, int, int, list[tuple[int, int]]]
"""Length of the prompt, block length, blocks; holes to fill and given stretches instead, where there are any."""
rows = st.tuples(
    st.integers(1, 5), st.integers(1, 8), st.integers(1, 3), st.lists(st.tuples(st.integers(1, 4), st.integers(1, 5)), max_size=3)
)


def run(batch: list[Row], options: dict[str, Any], seed: int) -> list[list[Step]]:
    attention = random_table(seed + 1, 31, 31, 2.0)
    engine = Engine(TableModel(random_table(seed, 31, VOCAB, 2.0), mask_id=MASK, moving=True, attention=attention), max_rows=2)
    prepared, seen = [], []
    for prompt, block, count, holes in batch:
        params = SamplingParams(max_new_tokens=block * count, block_length=block, ignore_eos=True, seed=seed, **options)
        if holes:
            template = [part for fixed, hole in holes for part in ([1] * fixed, Hole(hole))]
            prepared.append(engine.prepare_infill(template, params))
        else:
            prepared.append(engine.prepare([2] * prompt, params))
    engine.run(prepared, on_step=seen.append)
    return [[step for step in seen if step.row == row] for row in sorted({step.row for step in seen})]


@pytest.mark.parametrize("options", CONFIGS, ids=str)
@settings(max_examples=12)
@given(batch=st.lists(rows, min_size=1, max_size=3), seed=st.integers(0, 99), piece=pieces)
def test_samplers_that_measure_only_candidates_choose_the_same(
    options: dict[str, Any], batch: list[Row], seed: int, piece: int
) -> None:
    """Over blocks and given stretches, rows joining as others end; scores of the positions asked about are the same bits."""
    whole = run(batch, options, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scores, "PIECE", piece)
        few = run(batch, options, seed)
    for one, other in zip(few, whole, strict=True):
        assert [(s.ids, s.window, s.scores, s.confidences) for s in one] == [
            (s.ids, s.window, s.scores, s.confidences) for s in other
        ]


def test_a_row_alone_is_measured_as_in_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the share of candidates, and with it the way of measuring, is another for the batch than for the row."""
    logits = random_table(3, 2 * 12, 40_000, 3.0).reshape(2, 12, -1)
    candidates = torch.ones(2, 12, dtype=torch.bool)
    candidates[0, 5:] = False

    def entropy(logits: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
        return scores.measured(scores._entropy, candidates, logits)[0][0, :5]

    alone, together = entropy(logits[:1], candidates[:1]), entropy(logits, candidates)
    assert torch.equal(alone, together)
    monkeypatch.setattr(scores, "PIECE", 2**40)
    assert torch.equal(alone, entropy(logits, candidates))


@pytest.mark.parametrize("length", [4, 6])
def test_credit_keeps_no_more_than_a_slot_per_pass_of_a_block(length: int) -> None:
    """A dense table would hold the vocabulary at every position."""
    kept: list[int] = []
    engine = Engine(TableModel(random_table(0, 31, VOCAB), mask_id=MASK, moving=True))
    params = SamplingParams(sampler=samplers.build("credit", {"threshold": 1.0}), max_new_tokens=3 * length, block_length=length)
    engine.admit([1, 2], params)
    while engine.step() and engine._batch is not None:
        for _, memory in engine._batch.memories.values():
            assert memory["tokens"].shape == memory["credit"].shape == (1, length, min(len(kept) + 1, length))
            kept.append(memory["credit"].shape[2])
    assert max(kept) == length
    assert len(kept) > length


def test_klass_remembers_masks_that_are_no_candidates_yet(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fast-dLLM v2 writes a block's first position by itself; the distributions of the others count from then on all the same."""
    folder = golden / "models" / "fast_dllm_v2"
    engine = load(folder, device="cpu", mask_id=json.loads((folder / "meta.json").read_text())["mask_id"], eos_ids=[])
    params = SamplingParams(sampler="klass", threshold=0.0, kl_threshold=5.0, max_new_tokens=64, ignore_eos=True)
    seen: list[list[Step]] = []
    for piece in (2**40, 1):
        monkeypatch.setattr(scores, "PIECE", piece)
        seen.append([])
        engine.generate([[5, 6, 7], [8, 9, 10]], params, on_step=seen[-1].append)
    assert any(len(step.window) == 1 < len(step.masked) for step in seen[0]), "a block opens with one position"
    assert [(s.ids, s.positions) for s in seen[0]] == [(s.ids, s.positions) for s in seen[1]]
    assert len(seen[0]) < 128

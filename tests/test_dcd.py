"""DCD against a plain form of its authors' window, with end tokens and with caches that slide along."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attn_sampler import Engine, SamplingParams, Step
from fakes import TableModel, random_table
from test_cache import computed, engine, prompts

VOCAB, END, MASK = 8, 6, 7
PAD = 0  # of the table model


def test_the_window_slides_with_the_text() -> None:
    """The first position is never sure: a block would force it, the window goes on to its right."""
    table = torch.zeros(13, VOCAB)
    table[2:, 1] = 9.0
    model = TableModel(table.double(), mask_id=MASK)
    params = SamplingParams(sampler="dcd", max_new_tokens=12, ignore_eos=True, sub_block_length=4)
    steps = list(Engine(model).stream([0], params))
    assert [step.positions for step in steps] == [[2, 3, 4], [5, 6, 7], [8, 9, 10], [11, 12], [1]]


def plain(table: list[list[list[float]]], n: int, threshold: float, width: int, ends: bool) -> list[tuple[list[int], list[int]]]:
    """Commits and canvas of each pass. The window [low, high) as its authors keep it: ``high`` moves on by the masks that the
    window lacks, at most to the first end token; ``low`` over what is written."""
    ids, low, high, end, out = [MASK] * n, 0, min(width, n), n, list[tuple[list[int], list[int]]]()
    for logits in table:
        if MASK not in ids:
            break
        p = {j: max(logits[j]) for j in range(low, high) if ids[j] == MASK}
        sure = [j for j in p if p[j] >= threshold] or [min(p, key=lambda j: (-p[j], j))]
        for j in sure:
            ids[j] = logits[j].index(p[j])
        if ends and END in ids:
            end = ids.index(END)
            ids = [PAD if j > end and token == MASK else token for j, token in enumerate(ids)]
        lacking = width - sum(token == MASK for token in ids[low:high])
        low = next((j for j in range(low, n) if ids[j] == MASK), n)
        high = min(high + lacking, end)
        out.append((sorted(sure), ids))
        ids = list(ids)
    return out


@settings(max_examples=60)
@given(
    rows=st.lists(st.tuples(st.integers(1, 20), st.booleans()), min_size=1, max_size=3),
    seed=st.integers(0, 999),
    threshold=st.sampled_from([0.0, 0.3, 0.5, 0.7, 0.9, 1.0]),
    width=st.integers(1, 24),
)
def test_against_the_window_of_its_authors(rows: list[tuple[int, bool]], seed: int, threshold: float, width: int) -> None:
    """Rows that end at an end token, and rows that do not, in one batch: the same commits, the same canvas after every pass."""
    table = random_table(seed, 21 * 21, VOCAB, 2.0).reshape(21, 21, VOCAB).double()
    table[..., MASK] = -torch.inf
    model = TableModel(
        lambda ids, t: table[t, : ids.shape[1]].expand(len(ids), -1, -1), mask_id=MASK, eos_ids=(END,), vocab_size=VOCAB
    )
    options = {"threshold": threshold, "sub_block_length": width}
    params = [SamplingParams(sampler="dcd", max_new_tokens=n, ignore_eos=not ends, **options) for n, ends in rows]
    seen: dict[int, list[Step]] = {}
    Engine(model).generate([[END]] * len(rows), params, on_step=lambda step: seen.setdefault(step.row, []).append(step))
    probabilities = table.softmax(-1)[:, 1:].tolist()
    for row, (n, ends) in zip(sorted(seen), rows, strict=True):
        got = [([p - 1 for p in step.positions], step.ids[1:]) for step in seen[row]]
        assert got == plain(probabilities, n, threshold, width, ends)
        result = seen[row][-1].result
        assert result is not None
        answer = got[-1][1]
        stops = ends and END in answer
        assert result.token_ids == (answer[: answer.index(END) + 1] if stops else answer), "padding is no answer"
        assert result.finish_reason == ("stop" if stops else "length")


def test_an_end_token_spares_the_passes_behind_it() -> None:
    """Sure of an end token at the third place alone: two more passes, and the text is two tokens."""
    table = torch.zeros(21, VOCAB)
    table[3, END] = 9.0
    table[:3, 2] = 0.1
    for block in (None, 10):
        model = TableModel(table.double(), mask_id=MASK, eos_ids=(END,))
        steps = list(Engine(model).stream([1], SamplingParams(sampler="dcd", max_new_tokens=20, block_length=block)))
        assert [len(step.masked) for step in steps] == [2, 1, 0], "later blocks are padding too"
        assert steps[-1].result is not None
        assert steps[-1].result.token_ids == [2, 2, END]


@pytest.mark.parametrize("model", ["llada_gqa", "dream"])
@pytest.mark.parametrize("tokens", [4, 9, 16])
@pytest.mark.parametrize("policy", ["prefix", "dual"])
def test_what_a_cache_computes(policy: str, tokens: int, model: str) -> None:
    """Everything at first and after so many tokens; else from the window on (prefix), or the window (dual)."""
    options = {"sampler": "dcd", "threshold": 0.5, "sub_block_length": 6, "cache": policy, "refresh_tokens": tokens}
    widths = computed(model, **options)
    loaded = engine(model)
    left, changed, want = list(range(40, 72)), tokens, list[int]()
    for step in loaded.stream(prompts([40])[0], SamplingParams(max_new_tokens=32, ignore_eos=True, seed=0, **options)):
        high = left[5] + 1 if policy == "dual" and len(left) >= 6 else 72
        want.append(72 if changed >= tokens else high - left[0] + loaded.model.shift)
        changed = len(step.positions) + (0 if changed >= tokens else changed)
        left = step.masked
    assert widths == want
    assert len(set(widths)) > 2


@pytest.mark.parametrize("policy", ["prefix", "dual"])
def test_refreshed_after_every_token_the_cache_is_exact(policy: str) -> None:
    options = {"sampler": "dcd", "threshold": 0.5, "sub_block_length": 6, "max_new_tokens": 24, "ignore_eos": True}
    given_ = prompts([9, 30])
    plain_, cached = (
        engine("llada_gqa").generate(given_, SamplingParams(**options, **more))
        for more in ({}, {"cache": policy, "refresh_tokens": 1})
    )
    assert [(r.token_ids, r.forwards) for r in cached] == [(r.token_ids, r.forwards) for r in plain_]

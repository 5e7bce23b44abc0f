"""The canvas is a value; blocks and windows are functions of it."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from attn_sampler import blocks
from attn_sampler.canvas import Canvas, commit, from_rows, keep_rows, settled, stack

PAD, MASK = 99, 7
CPU = torch.device("cpu")

Rows = list[tuple[int, list[bool]]]
"""Prompt length (0 for none), and which positions of the answer are masked."""

rows = st.lists(st.tuples(st.integers(0, 3), st.lists(st.booleans(), min_size=1, max_size=8)), min_size=1, max_size=4)


def canvas_of(given: Rows) -> Canvas:
    masked = [[False] * prompt + flags for prompt, flags in given]
    ids = [[MASK if flag else i for i, flag in enumerate(row)] for row in masked]
    return from_rows(ids, masked, [prompt for prompt, _ in given], PAD, CPU)


@given(rows)
def test_rows_keep_their_positions_in_a_batch(given: Rows) -> None:
    canvas = canvas_of(given)
    for i, (prompt, flags) in enumerate(given):
        end = prompt + len(flags)
        assert canvas.ids[i, end:].eq(PAD).all()
        assert not (canvas.masked | canvas.given)[i, end:].any()
        assert canvas.valid[i].tolist() == [j < end for j in range(canvas.ids.shape[1])]
        assert canvas.masked[i, :end].tolist() == [False] * prompt + flags
        assert canvas.given[i, :end].tolist() == [not m for m in [False] * prompt + flags]
        first = next((j for j, m in enumerate([False] * prompt + flags) if m), end)
        assert int(settled(canvas)[i]) == first


@given(rows, rows)
def test_stacking_and_keeping_undo_each_other(upper: Rows, lower: Rows) -> None:
    one, two = canvas_of(upper), canvas_of(lower)
    both = stack(one, two, PAD)
    for part, index in ((one, range(len(upper))), (two, range(len(upper), len(upper) + len(lower)))):
        back = keep_rows(both, torch.tensor(list(index)))
        assert all(torch.equal(getattr(back, name), getattr(part, name)) for name in ("ids", "masked", "given", "start", "end"))


@given(rows, st.integers(0, 2**20))
def test_commit_writes_where_it_is_told_and_nowhere_else(given: Rows, seed: int) -> None:
    canvas = canvas_of(given)
    rng = torch.Generator().manual_seed(seed)
    n, width = canvas.ids.shape
    positions = torch.stack([torch.randperm(width, generator=rng) for _ in range(n)])
    tokens = torch.randint(50, 60, (n, width), generator=rng)
    select = canvas.masked.gather(1, positions) & (torch.rand(n, width, generator=rng) < 0.5)
    before = canvas.ids.clone(), canvas.masked.clone()
    after = commit(canvas, torch.arange(n), positions, tokens, select)
    assert torch.equal(canvas.ids, before[0]), "a canvas is a value"
    assert torch.equal(canvas.masked, before[1])
    written = torch.zeros_like(canvas.masked).scatter(1, positions, select)
    assert torch.equal(after.ids[~written], canvas.ids[~written])
    assert torch.equal(after.ids[written], torch.zeros_like(canvas.ids).scatter(1, positions, tokens)[written])
    assert torch.equal(after.masked, canvas.masked & ~written)
    assert torch.equal(after.given, canvas.given)


@given(st.integers(0, 20), st.integers(1, 30), st.integers(0, 29), st.integers(1, 12), st.integers(1, 14))
def test_active_spans(start: int, length: int, first: int, block: int, width: int) -> None:
    """The stretch that holds the position, counted from the start, cut at the end."""
    first = start + first % length
    low, high = (int(x) for x in blocks.active_span(*(torch.tensor([x]) for x in (start, start + length, first)), block))
    assert low <= first < high <= start + length
    assert (low - start) % block == 0
    assert high - low == min(block, start + length - low)
    positions, real = blocks.span_positions(torch.tensor([low]), torch.tensor([high]), width)
    assert positions[0, real[0]].tolist() == list(range(low, min(high, low + width)))
    assert positions.shape == (1, width)
    assert positions.max() < high, "entries beyond repeat a valid position"


@given(rows, st.integers(1, 10), st.integers(0, 6), st.integers(1, 8))
def test_leftmost_masked(given: Rows, width: int, low: int, length: int) -> None:
    canvas = canvas_of(given)
    n = len(given)
    bounds = torch.full((n,), low), torch.full((n,), low + length)
    positions, real = blocks.leftmost_masked(canvas, torch.arange(n), *bounds, width)
    for i in range(n):
        want = [j for j in range(canvas.ids.shape[1]) if canvas.masked[i, j] and low <= j < low + length][:width]
        assert positions[i, real[i]].tolist() == want


@given(st.integers(0, 200), st.integers(1, 64))
def test_quotas_add_up(masked: int, steps: int) -> None:
    """Equal shares, the first ones larger; together everything."""
    count = torch.full((steps,), masked)
    each = blocks.quota(count, torch.full((steps,), steps), torch.arange(steps))
    assert int(each.sum()) == masked
    assert int(each.max() - each.min()) <= 1
    assert each.tolist() == sorted(each.tolist(), reverse=True)
    until = blocks.quota_until(count, torch.full((steps,), steps), torch.arange(1, steps + 1))
    assert torch.equal(until, each.cumsum(0))

"""What each group of rows asks of a forward pass: where it looks, what it may write there, which statistics it wants."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from attn_sampler import blocks
from attn_sampler import canvas as canvases
from attn_sampler.attention import AttentionAsk
from attn_sampler.canvas import Canvas
from attn_sampler.models.seam import Ask, Model
from attn_sampler.propose import Choice
from attn_sampler.seam import Attention, EarlyExit, Needs, Sampler
from attn_sampler.state import RowState

__all__ = ["Asked", "Sizes", "ask"]


@dataclass(frozen=True)
class Asked:
    """One group's question to the model: its rows, its sampler or early exit, and where it looks."""

    owner: Sampler | EarlyExit
    rows: tuple[int, ...]
    index: Int[Tensor, " some"]
    positions: Int[Tensor, "some width"]
    candidates: Bool[Tensor, "some width"]
    in_block: Bool[Tensor, "some width"]
    revisable: Bool[Tensor, "some width"] | None  # for samplers that revise
    windows_left: Int[Tensor, " some"]  # of the active block, this one included
    choice: Choice
    ask: Ask


@dataclass(frozen=True)
class Sizes:
    """Lengths of every row's blocks and answer, positions, on the Python side: they size tensors."""

    blocks: tuple[int, ...]
    answers: tuple[int, ...]


@dataclass(frozen=True)
class Span:
    """Where the rows of one group stand: their answers [start, end), their active blocks [low, high), the longest of each."""

    rows: Int[Tensor, " some"]
    start: Int[Tensor, " some"]
    end: Int[Tensor, " some"]
    low: Int[Tensor, " some"]
    high: Int[Tensor, " some"]
    block: int
    answer: int


def ask(
    owner: Sampler | EarlyExit,
    rows: tuple[int, ...],
    canvas: Canvas,
    state: RowState,
    sizes: Sizes,
    choice: Choice,
    model: Model,
) -> Asked:
    """Where one group looks: its window, the candidates in it, the attention statistics."""
    needs = Needs(scope="answer") if isinstance(owner, EarlyExit) else owner.needs
    index = torch.tensor(rows, device=canvas.ids.device)
    end, low = canvas.end[index], state.block_low[index]
    high = torch.minimum(low + state.block_length[index], end)
    span = Span(
        index, canvas.start[index], end, low, high, max(sizes.blocks[i] for i in rows), max(sizes.answers[i] for i in rows)
    )
    positions, real, windows_left = _window(needs, span, canvas, state, model)
    masked = canvas.masked[index[:, None], positions] & real
    inside = (positions >= low[:, None]) & (positions < high[:, None]) & real
    candidates = masked & inside
    candidates &= (positions == low[:, None]) | ~state.opening[index, None]
    if isinstance(owner, EarlyExit):
        inside, candidates = real, masked
    statistics = None if needs.attention is None else _statistics(needs.attention, span, positions, real, masked, canvas, model)
    revisable = None
    if needs.revises:
        revisable = inside & ~masked & ~canvas.given[index[:, None], positions]
        if model.shift:  # what was written alone stays: the row that predicts it does not run again
            revisable &= (positions != low[:, None]) | ~state.apart(model)[index, None]
    question = Ask(index, positions, statistics, inside if needs.leave_one_out else None)
    return Asked(owner, rows, index, positions, candidates, inside, revisable, windows_left, choice, question)


def _window(
    needs: Needs, span: Span, canvas: Canvas, state: RowState, model: Model
) -> tuple[Int[Tensor, "some width"], Bool[Tensor, "some width"], Int[Tensor, " some"]]:
    """Positions seen, which entries are real, and how many windows of the active block are left, this one included."""
    width = min(span.block, needs.sub_block_length or span.block)
    low, high = span.low, span.high
    windows_left = torch.ones_like(low)
    if needs.scope == "answer":
        seen = span.end if model.block_length is None else high  # a block-causal model computes nothing after the active block
        positions, real = blocks.span_positions(span.start, seen, span.answer)
    elif needs.scope == "canvas":
        positions, real = blocks.span_positions(torch.zeros_like(low), high, int(high.max()))
    elif needs.cut == "leftmost":
        positions, real = blocks.leftmost_masked(canvas, span.rows, low, high, width)
        windows_left = -(-state.block_left[span.rows] // width)
    else:
        first = torch.minimum(canvases.settled(canvas)[span.rows], high - 1)  # a held block may have no mask left
        bounds = blocks.active_span(low, high, first, width)
        positions, real = blocks.span_positions(*bounds, width)
        windows_left = -(-(high - bounds[0]) // width)
    return positions, real, windows_left


def _statistics(
    attention: Attention,
    span: Span,
    positions: Int[Tensor, "some width"],
    real: Bool[Tensor, "some width"],
    masked: Bool[Tensor, "some width"],
    canvas: Canvas,
    model: Model,
) -> AttentionAsk:
    """Whose attention to what, for one window."""
    wanted = attention.of_depth(model.num_layers)
    queries, counted = positions, masked if wanted.rows == "masked" else real
    if wanted.rows == "block":
        queries, counted = blocks.span_positions(span.low, span.high, span.block)
    everyone = known = None
    if wanted.sinks:
        last = span.end if model.block_length is None else span.high
        everyone = torch.arange(canvas.ids.shape[1], device=positions.device) < last[:, None]
    if wanted.known_mass:
        known = canvas.valid[span.rows] & ~canvas.masked[span.rows]
    return AttentionAsk(wanted, span.rows, queries, counted, positions, real, None, everyone, known)

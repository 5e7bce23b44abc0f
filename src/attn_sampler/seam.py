"""The seam between the engine and the samplers: what a sampler may ask for, what it sees, what it answers.

A sampler is a frozen dataclass whose fields are its options. It sees a `Window` (a batch of rows that share the sampler and its
options) and answers with a `Selection`. It holds no state: what it must remember it returns as ``memory`` and gets back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attn_sampler.errors import InvalidInputError
from attn_sampler.propose import Choice, Proposal

__all__ = ["Attention", "EarlyExit", "Exit", "Memory", "Needs", "Sampler", "Selection", "Window"]

Memory = Mapping[str, Tensor]
"""Tensors that a sampler carries from step to step. The first axis is the row; a second axis, if any, is the window's width.

A row that joins a group which has memory already starts from zeros, so zeros must mean "nothing yet"."""


@dataclass(frozen=True)
class Attention:
    """Attention statistics over a window: an average over layers and query heads of softmax(q k^T).

    Attributes:
        rows: the query rows summed: ``"all"`` positions of the window, the still ``"masked"`` ones, or the whole ``"block"``.
        norm: ``"local"`` softmax over the window's own keys (the paper's block attention approximation), or ``"global"``, the
            window's columns of the true attention matrix.
        diag: whether a position's attention to itself counts.
        layers, heads: indices used; None for all.
        last: instead of ``layers``, so many layers counted from the last (all of them where the model has no more).
        span: instead of ``layers``, those between two shares of the model's depth, (0, 1) being all; at least one.
        pairwise: whether the (rows x columns) matrix itself is wanted, not only its column sums.
        sinks: whether each column's mean over *all* query rows of the canvas is wanted (true attention only).
        known_mass: whether the share of each query's attention that goes to unmasked positions, prompt included, is wanted
            (true attention only).
        layers_option: the sampler's option that ``layers`` were made of, so that a message can name what was given.
    """

    rows: Literal["all", "masked", "block"] = "all"
    norm: Literal["local", "global"] = "local"
    diag: bool = True
    layers: tuple[int, ...] | None = None
    heads: tuple[int, ...] | None = None
    last: int | None = None
    span: tuple[float, float] | None = None
    pairwise: bool = False
    sinks: bool = False
    known_mass: bool = False
    layers_option: str = field(default="layers", compare=False)

    def __post_init__(self) -> None:
        if self.norm == "local" and (self.sinks or self.known_mass):
            raise InvalidInputError("norm", self.norm, 'sinks and known_mass are of the true attention: give "global"')

    def of_depth(self, num_layers: int) -> Attention:
        """These statistics with ``last`` or ``span`` spelt out as the ``layers`` of a model of that many."""
        if self.last is not None:
            layers = tuple(range(max(0, num_layers - self.last), num_layers))
        elif self.span is not None:
            first = min(int(self.span[0] * num_layers), num_layers - 1)
            layers = tuple(range(first, max(first + 1, math.ceil(self.span[1] * num_layers))))
        else:
            return self
        return replace(self, layers=layers, last=None, span=None)


@dataclass(frozen=True)
class Needs:
    """What a sampler asks the engine for.

    Attributes:
        scope: positions it sees: its active ``"block"``, the whole ``"answer"``, or the ``"canvas"`` from the first token of the
            prompt to the end of the active block (it may still commit in the block only).
        sub_block_length: narrows the window to so many positions of the active block; None for all of it.
        cut: how the sub-block is cut: ``"consecutive"`` stretches counted from the start of the block, or the
            ``"leftmost"`` masked positions.
        attention: statistics wanted, None for none (the model then runs its plain fused kernel).
        revises: it may overwrite or mask again what it committed in the active block; nothing of a block is settled before the
            block is finished.
        leave_one_out: wants, beside the proposals, a prediction of each position that does not attend to the token standing there
            (tokens that do are still seen).
        one_block: the method has no blocks: the whole answer is one, unless the row asks for a ``block_length``.
        vocab_size: of the only models that it works with; None for any.
        pads: once an end token is written, the masks behind it become padding, in rows whose text ends there.
        stale_block: with ``cache="sub-block"`` a block's cache begins with the keys and values of the block before.
        drops_block: a prompt of exactly one of the model's blocks is not seen (block-causal models).
        counts_eos: at temperature > 0 ``confidence_eos_eot_inf`` spares the end-of-sequence token, not the other end tokens.

    The last three are slips of the authors' code, for samplers that reproduce them.
    """

    scope: Literal["block", "answer", "canvas"] = "block"
    sub_block_length: int | None = None
    cut: Literal["consecutive", "leftmost"] = "consecutive"
    attention: Attention | None = None
    revises: bool = False
    leave_one_out: bool = False
    one_block: bool = False
    vocab_size: int | None = None
    pads: bool = False
    stale_block: bool = False
    drops_block: bool = False
    counts_eos: bool = False


@dataclass(frozen=True)
class Window:
    """What a sampler sees at one step: rows that share it, each with the positions asked about.

    Attributes:
        positions: absolute positions; entries beyond a row's own width repeat a valid one and are never candidates.
        candidates: masked positions that may be committed now.
        proposal: the token and the confidence at each position.
        quota: least number of commits that this step owes (1 without a step budget).
        step_in_block: forwards already spent on the active block.
        seed, forward: address of the row's random numbers (see `attn_sampler.rng`).
        columns: attention column sums, where `Needs.attention` asked for them.
        pairwise: the attention matrix itself, row = query, where asked for (``rows="block"``: the queries are the active block).
        sinks: mean of each column over all query rows, where asked for.
        known_mass: share of each query's attention on unmasked positions, where asked for; queries as in ``pairwise``.
        current: the token that stands at each position.
        revisable: for samplers that revise: which positions were committed in the active block (given tokens never are).
        leave_one_out: probability of the standing token in a prediction that does not attend to it, where asked for.
        steps: forwards planned for the active block: the row's budget, or one per mask that the block began with.
        block_masked: masks that the active block began with.
        in_block: positions of the active block (others: beyond the row's own width, or outside where the scope is wider).
        budgeted: rows that asked for ``steps``, so that their block has to end within them.
        choice: temperature, top-p and top-k of the rows.
    """

    positions: Int[Tensor, "rows width"]
    candidates: Bool[Tensor, "rows width"]
    proposal: Proposal
    quota: Int[Tensor, " rows"]
    step_in_block: Int[Tensor, " rows"]
    seed: Int[Tensor, " rows"]
    forward: Int[Tensor, " rows"]
    columns: Float[Tensor, "rows width"] | None = None
    pairwise: Float[Tensor, "rows queries width"] | None = None
    current: Int[Tensor, "rows width"] | None = None
    revisable: Bool[Tensor, "rows width"] | None = None
    steps: Int[Tensor, " rows"] | None = None
    choice: Choice | None = None
    sinks: Float[Tensor, "rows width"] | None = None
    known_mass: Float[Tensor, "rows queries"] | None = None
    leave_one_out: Float[Tensor, "rows width"] | None = None
    block_masked: Int[Tensor, " rows"] | None = None
    in_block: Bool[Tensor, "rows width"] | None = None
    budgeted: Bool[Tensor, " rows"] | None = None

    @property
    def another(self) -> Bool[Tensor, " rows"]:
        """Rows whose step budget, where they have one, allows their block a forward pass after this one."""
        if self.steps is None or self.budgeted is None:
            return torch.ones_like(self.step_in_block, dtype=torch.bool)
        return ~self.budgeted | (self.step_in_block + 1 < self.steps)


@dataclass(frozen=True)
class Selection:
    """What a sampler answers.

    Attributes:
        commit: positions of the window to write now: a subset of the candidates, at least one in every row that has any.
        score: what the order went by, higher first (for traces and views).
        memory: given back at the next step of the same rows.
        rewrite: committed positions to overwrite with their proposals (needs ``revises``).
        remask: committed positions to mask again (needs ``revises``).
        hold: rows that go on with their active block although nothing may have been committed now, or (with ``revises``) no
            mask is left in it.
        proposal: what is written instead of the window's proposal, by samplers that change the logits.
    """

    commit: Bool[Tensor, "rows width"]
    score: Float[Tensor, "rows width"]
    memory: Memory = field(default_factory=dict)
    rewrite: Bool[Tensor, "rows width"] | None = None
    remask: Bool[Tensor, "rows width"] | None = None
    hold: Bool[Tensor, " rows"] | None = None
    proposal: Proposal | None = None


@runtime_checkable
class Sampler(Protocol):
    """A named score × rule. Implementations are frozen dataclasses; ``CONTRIBUTING.md`` shows how to add one."""

    name: ClassVar[str]
    paper: ClassVar[str]

    @property
    def needs(self) -> Needs: ...

    def select(self, window: Window, memory: Memory) -> Selection:
        """Choose the positions to commit. ``memory`` is empty at a row's first step."""
        ...


@dataclass(frozen=True)
class Exit:
    """What an early exit answers.

    Attributes:
        now: rows whose every mask is filled with its proposal in this step.
        memory: given back at the next step of the same rows.
    """

    now: Bool[Tensor, " rows"]
    memory: Memory = field(default_factory=dict)


@runtime_checkable
class EarlyExit(Protocol):
    """A test beside any sampler: is the rest of the answer clear enough to be written at once?

    Implementations are frozen dataclasses whose fields are their options. The window is the whole answer; its ``steps`` are the
    forwards planned for the row, its ``candidates`` all masks that are left, its ``in_block`` the whole answer.
    """

    name: ClassVar[str]
    paper: ClassVar[str]

    def test(self, window: Window, memory: Memory) -> Exit:
        """Which rows leave. ``memory`` is empty at a row's first step."""
        ...

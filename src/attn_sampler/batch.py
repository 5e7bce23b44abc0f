"""The active rows as tensors, and one forward pass over them.

A `Batch` is a value: `Batch.advance` returns the next one with a report of what happened. Rows that share a sampler (and its
options) form a group; within a group everything is vectorised over rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attn_sampler import blocks
from attn_sampler import canvas as canvases
from attn_sampler.attention import AttentionAsk
from attn_sampler.cache import Slots, Stretch
from attn_sampler.canvas import Canvas
from attn_sampler.models.seam import Ask, Model, Prediction
from attn_sampler.params import POLICIES, SamplingParams
from attn_sampler.propose import Choice, Proposal, propose
from attn_sampler.seam import EarlyExit, Memory, Needs, Sampler, Selection, Window

__all__ = ["Batch", "Outcome", "Report"]


@dataclass(frozen=True)
class RowState:
    """Per-row numbers, one tensor each: settings that never change, then the state of the active block."""

    block_length: Int[Tensor, " rows"]
    policy: Int[Tensor, " rows"]  # of the cache: index into POLICIES
    refresh_every: Int[Tensor, " rows"]  # 0 for never
    steps_per_block: Int[Tensor, " rows"]  # 0 without a step budget
    temperature: Float[Tensor, " rows"]
    top_p: Float[Tensor, " rows"]
    top_k: Int[Tensor, " rows"]
    seed: Int[Tensor, " rows"]
    cfg_scale: Float[Tensor, " rows"]
    no_eos: Bool[Tensor, " rows"]  # the end-of-sequence token is never proposed
    no_ends: Bool[Tensor, " rows"]  # nor any other end token (infill)
    unsure_eos: Bool[Tensor, " rows"]
    forward: Int[Tensor, " rows"]
    block_low: Int[Tensor, " rows"]  # -1 before the first forward
    block_masked: Int[Tensor, " rows"]  # masks it began with
    block_left: Int[Tensor, " rows"]  # masks it has now
    step_in_block: Int[Tensor, " rows"]
    opening: Bool[Tensor, " rows"]  # this step writes the block's first position only
    opened: Bool[Tensor, " rows"]  # the active block's first step did
    held: Bool[Tensor, " rows"]  # the sampler is not done with the active block
    planned: Int[Tensor, " rows"]  # forwards of the whole row: its budget, or one per mask
    computed: Int[Tensor, " rows"]  # positions before it have their final keys and values in the slots

    def rows(self, index: Int[Tensor, " kept"]) -> RowState:
        return RowState(*(getattr(self, f.name)[index] for f in fields(self)))

    def join(self, other: RowState) -> RowState:
        return RowState(*(torch.cat([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self)))


@dataclass(frozen=True)
class Report:
    """What one forward pass did, as Python values, one entry per row."""

    ids: list[list[int]]
    masked: list[list[int]]
    settled: list[int]
    held: list[bool]
    positions: list[list[int]]
    candidates: list[list[bool]]
    commit: list[list[bool]]
    tokens: list[list[int]]
    confidence: list[list[float]]
    score: list[list[float]]


@dataclass(frozen=True)
class Outcome:
    batch: Batch
    report: Report
    faults: Mapping[int, tuple[str, str]]  # row number → ("model" | "sampler", what is wrong)


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
class Batch:
    """Active rows.

    Attributes:
        numbers: the engine's number of each row.
        params: each row's parameters.
        lengths: each row's block length.
        groups: samplers and early exits, each with its rows.
        memories: sampler or exit → (rows it belongs to, what it asked to be kept).
    """

    numbers: tuple[int, ...]
    params: tuple[SamplingParams, ...]
    canvas: Canvas
    state: RowState
    lengths: tuple[int, ...]
    spans: tuple[int, ...]  # answer length of each row, on the Python side
    groups: tuple[tuple[Sampler | EarlyExit, tuple[int, ...]], ...]
    memories: Mapping[Sampler | EarlyExit, tuple[tuple[int, ...], Memory]]
    slots: Slots | None = None

    @classmethod
    def start(
        cls,
        canvas: Canvas,
        numbers: Sequence[int],
        params: Sequence[SamplingParams],
        lengths: Sequence[int],
        policies: Sequence[str],
        may_end: Sequence[bool],
        model: Model,
    ) -> Batch:
        """Rows before their first forward pass.

        Args:
            lengths, policies: block length and cache policy of each row.
            may_end: whether end tokens may be proposed.
        """

        def column(values: Sequence[float], dtype: torch.dtype) -> Tensor:
            return torch.tensor(list(values), dtype=dtype, device=model.device)

        counts = _block_counts(canvas, column(lengths, torch.long)).tolist()
        budgets = [0 if p.steps is None else p.steps // n for p, n in zip(params, counts, strict=True)]
        masks = canvas.masked.sum(1)
        zeros, never = column([0] * len(params), torch.long), column([0] * len(params), torch.bool)
        state = RowState(
            column(lengths, torch.long),
            column([POLICIES.index(policy) for policy in policies], torch.long),
            column([p.refresh_every or 0 for p in params], torch.long),
            column(budgets, torch.long),
            column([p.temperature for p in params], torch.float64),
            column([p.top_p for p in params], torch.float64),
            column([p.top_k for p in params], torch.long),
            column([p.seed for p in params], torch.long),
            column([p.cfg_scale for p in params], torch.float64),
            column([p.logits_eos_inf for p in params], torch.bool),
            column([not ends for ends in may_end], torch.bool),
            column([p.confidence_eos_eot_inf for p in params], torch.bool),
            forward=zeros,
            block_low=zeros - 1,
            block_masked=zeros,
            block_left=zeros,
            step_in_block=zeros,
            opening=never,
            opened=never,
            held=never,
            planned=torch.where(column(budgets, torch.long) > 0, column([p.steps or 0 for p in params], torch.long), masks),
            computed=zeros,
        )
        spans = tuple((canvas.end - canvas.start).tolist())
        slots = Slots() if (model.block_length is not None and model.caches) or set(policies) != {"none"} else None
        return cls(tuple(numbers), tuple(params), canvas, state, tuple(lengths), spans, _group(params), {}, slots)

    def join(self, other: Batch, pad_id: int) -> Batch:
        """These rows and the other's."""
        params = self.params + other.params
        canvas = canvases.stack(self.canvas, other.canvas, pad_id)
        state = self.state.join(other.state)
        lengths, spans = self.lengths + other.lengths, self.spans + other.spans
        slots = None
        if self.slots is not None or other.slots is not None:
            # Rows that join have computed nothing yet; those that were here without slots compute everything every time.
            slots = Slots() if self.slots is None else self.slots.join(len(other.numbers))
        numbers = self.numbers + other.numbers
        return Batch(numbers, params, canvas, state, lengths, spans, _group(params), self.memories, slots)

    def without(self, gone: set[int]) -> Batch | None:
        """The rows that stay, or None if none does."""
        kept = [i for i, number in enumerate(self.numbers) if number not in gone]
        if not kept:
            return None
        index = torch.tensor(kept, device=self.canvas.ids.device)
        params = tuple(self.params[i] for i in kept)
        numbers, lengths, spans = (tuple(x[i] for i in kept) for x in (self.numbers, self.lengths, self.spans))
        canvas, state = canvases.keep_rows(self.canvas, index), self.state.rows(index)
        slots = None if self.slots is None else self.slots.rows(index)
        return Batch(numbers, params, canvas, state, lengths, spans, _group(params), self.memories, slots)

    # --- one forward pass -------------------------------------------------------------------------------------------

    def advance(self, model: Model) -> Outcome:
        """Run the model once and let every row's sampler commit."""
        batch = self._enter_blocks(model)
        asked = [batch._ask(owner, rows, model) for owner, rows in self.groups]
        answers = [(q, p, batch._propose(model, q, p)) for q, p in zip(asked, batch._predict(model, asked), strict=True)]
        canvas, memories, parts = batch.canvas, {}, []
        held, leaving = torch.zeros_like(batch.state.held), torch.zeros_like(batch.state.held)
        for question, prediction, proposal in answers:
            if isinstance(question.owner, EarlyExit):
                out = question.owner.test(*batch._window(question, prediction, proposal))
                leaving[question.index] = out.now
                memories[question.owner] = (tuple(self.numbers[i] for i in question.rows), out.memory)
                write = question.candidates & out.now[:, None]
                canvas = canvases.commit(canvas, question.index, question.positions, proposal.tokens, write)
                parts.append((question, proposal, Selection(write, proposal.confidence), write))
        for question, prediction, proposal in answers:
            if isinstance(question.owner, EarlyExit):
                continue
            selection = question.owner.select(*batch._window(question, prediction, proposal))
            written = selection.proposal or proposal
            stays = ~leaving[question.index, None]
            write = selection.commit & question.candidates
            if question.revisable is not None and selection.rewrite is not None:
                write = write | (selection.rewrite & question.revisable)
            if selection.hold is not None:
                held[question.index] = selection.hold & stays[:, 0]
            canvas = canvases.commit(canvas, question.index, question.positions, written.tokens, write & stays)
            if question.revisable is not None and selection.remask is not None:
                again = selection.remask & question.revisable & stays
                canvas = canvases.remask(canvas, question.index, question.positions, again, model.mask_id)
            memories[question.owner] = (tuple(self.numbers[i] for i in question.rows), selection.memory)
            parts.append((question, written, selection, write))
        memories = {owner: kept for owner, kept in memories.items() if kept[1]}
        state = replace(
            batch.state,
            forward=batch.state.forward + 1,
            step_in_block=batch.state.step_in_block + 1,
            opened=batch.state.opened | batch.state.opening,
            held=held,
            computed=torch.maximum(batch.state.computed, batch.state.block_low),
        )
        report, faults = batch._report(canvas, state, parts, leaving)
        return Outcome(replace(batch, canvas=canvas, state=state, memories=memories), report, faults)

    def _enter_blocks(self, model: Model) -> Batch:
        """Notice rows whose active block is a new one.

        Where a position is predicted from its left neighbour's row and that row lies in a part that will not run again (a
        block that is closed, a cached prefix), the first position of a block is written by itself, in the block's first step:
        Fast-dLLM v2 (arXiv 2509.26328) always, Fast-dLLM v1 on Dream with its caches.
        """
        canvas, state = self.canvas, self.state
        low, high = blocks.active_span(canvas.start, canvas.end, canvases.settled(canvas), state.block_length)
        low = torch.where(state.held, state.block_low, low)
        high = torch.where(state.held, torch.minimum(low + state.block_length, canvas.end), high)
        index = torch.arange(canvas.ids.shape[1], device=low.device)
        inside = (index >= low[:, None]) & (index < high[:, None])
        fresh = low != state.block_low
        left = (canvas.masked & inside).sum(1)
        masked = torch.where(fresh, left, state.block_masked)
        step = torch.where(fresh, 0, state.step_in_block)
        opening = (
            (step == 0) & self._apart(model) & canvas.masked.gather(1, low[:, None])[:, 0]
            if model.shift
            else torch.zeros_like(fresh)
        )
        entered = replace(
            state, block_low=low, block_masked=masked, block_left=left, step_in_block=step, opening=opening,
            opened=state.opened & ~fresh,
        )  # fmt: skip
        return replace(self, state=entered)

    def _apart(self, model: Model) -> Bool[Tensor, " rows"]:
        """Rows in which the left neighbour of a block's first position is computed in the block's first step only."""
        return (self.state.policy > 0) | (model.block_length is not None)

    def _quota(self, question: Asked) -> Int[Tensor, " some"]:
        """Commits owed now, so that the row ends within its steps: LLaDA's quota, what earlier windows were too small for, and
        the whole window where as many windows as steps are left."""
        state = self.state.rows(question.index)
        steps = state.steps_per_block.clamp(min=1)
        owed = blocks.quota(state.block_masked, steps, state.step_in_block)
        due = blocks.quota_until(state.block_masked, steps, state.step_in_block + 1)
        owed = torch.maximum(owed, due - (state.block_masked - state.block_left))
        full = torch.full_like(owed, question.positions.shape[1])
        owed = torch.where(steps - state.step_in_block <= question.windows_left, full, owed)
        return torch.where(state.steps_per_block > 0, owed, 1).clamp(min=1)

    def _ask(self, owner: Sampler | EarlyExit, rows: tuple[int, ...], model: Model) -> Asked:
        """Where one group looks: its window, the candidates in it, the attention statistics."""
        needs = Needs(scope="answer") if isinstance(owner, EarlyExit) else owner.needs
        canvas = self.canvas
        index = torch.tensor(rows, device=canvas.ids.device)
        start, end, low = canvas.start[index], canvas.end[index], self.state.block_low[index]
        length = max(self.lengths[i] for i in rows)
        high = torch.minimum(low + self.state.block_length[index], end)
        width = min(length, needs.sub_block_length or length)
        windows_left = torch.ones_like(low)
        if needs.scope == "answer":
            seen = end if model.block_length is None else high  # a block-causal model computes nothing after the active block
            positions, real = blocks.span_positions(start, seen, max(self.spans[i] for i in rows))
        elif needs.scope == "canvas":
            positions, real = blocks.span_positions(torch.zeros_like(low), high, int(high.max()))
        elif needs.cut == "leftmost":
            positions, real = blocks.leftmost_masked(canvas, index, low, high, width)
            windows_left = -(-self.state.block_left[index] // width)
        else:
            first = torch.minimum(canvases.settled(canvas)[index], high - 1)  # a held block may have no mask left
            bounds = blocks.active_span(low, high, first, width)
            positions, real = blocks.span_positions(*bounds, width)
            windows_left = -(-(high - bounds[0]) // width)
        masked = canvas.masked[index[:, None], positions] & real
        inside = (positions >= low[:, None]) & (positions < high[:, None]) & real
        candidates = masked & inside
        candidates &= (positions == low[:, None]) | ~self.state.opening[index, None]
        if isinstance(owner, EarlyExit):
            inside, candidates = real, masked
        statistics = None
        if needs.attention is not None:
            wanted = needs.attention.of_depth(model.num_layers)
            queries, counted = positions, masked if wanted.rows == "masked" else real
            if wanted.rows == "block":
                queries, counted = blocks.span_positions(low, high, length)
            everyone = known = None
            if wanted.sinks:
                last = end if model.block_length is None else high
                everyone = torch.arange(canvas.ids.shape[1], device=low.device) < last[:, None]
            if wanted.known_mass:
                known = canvas.valid[index] & ~canvas.masked[index]
            statistics = AttentionAsk(wanted, index, queries, counted, positions, real, None, everyone, known)
        revisable = None
        if needs.revises:
            revisable = inside & ~masked & ~canvas.given[index[:, None], positions]
            if model.shift:  # what was written alone stays: the row that predicts it does not run again
                revisable &= (positions != low[:, None]) | ~self._apart(model)[index, None]
        ask = Ask(index, positions, statistics, inside if needs.leave_one_out else None)
        choice = self._choice(index, rows)
        return Asked(owner, rows, index, positions, candidates, inside, revisable, windows_left, choice, ask)

    def _predict(self, model: Model, asked: Sequence[Asked]) -> list[Prediction]:
        """One forward pass; rows with guidance ride along a second time with their given tokens masked."""
        canvas = self.canvas
        ids, valid = canvas.ids, canvas.valid
        guided = [i for i, p in enumerate(self.params) if p.cfg_scale > 0]
        asks = [question.ask for question in asked]
        if guided:
            place = {row: len(self.params) + k for k, row in enumerate(guided)}
            extra = torch.tensor(guided, device=ids.device)
            ids = torch.cat([ids, ids[extra].masked_fill(canvas.given[extra], model.mask_id)])
            valid = torch.cat([valid, valid[extra]])
            for question in asked:
                twins = torch.tensor([place.get(i, i) for i in question.rows], device=ids.device)
                asks.append(Ask(twins, question.positions))
        valid = valid if len(set(self._lengths())) > 1 else None
        if self.slots is None:
            answers = model.predict(ids, valid, asks)
        else:
            slots = self.slots.join(len(guided)) if guided else self.slots
            answers = model.predict(ids, valid, asks, self._stretch(slots, asked, guided, model))
            if guided:
                self.slots.layers.update(slots.rows(torch.arange(len(self.params), device=ids.device)).layers)
        if not guided:
            return answers
        out = []
        for question, with_prompt, without in zip(asked, answers, answers[len(asked) :], strict=False):
            scale = self.state.cfg_scale[question.index].to(with_prompt.logits.dtype)[:, None, None]
            mixed = without.logits + (scale + 1) * (with_prompt.logits - without.logits)
            out.append(replace(with_prompt, logits=torch.where(scale > 0, mixed, with_prompt.logits)))
        return out

    def _stretch(self, slots: Slots, asked: Sequence[Asked], guided: Sequence[int], model: Model) -> Stretch:
        """Which positions run through the network: the table of `attn_sampler.cache`, row by row."""
        state, end = self.state, self.canvas.end
        none, block, sub, prefix, dual = (state.policy == i for i in range(len(POLICIES)))  # in the order of POLICIES
        block_high = torch.minimum(state.block_low + state.block_length, end)
        due = (state.refresh_every > 0) & (state.step_in_block % state.refresh_every.clamp(min=1) == 0)
        whole = (prefix | dual) & ((state.step_in_block == 0) | due)
        low = torch.where(block | sub, state.computed, torch.where(none | whole, 0, state.block_low))
        high = torch.where(whole | prefix | (none & (model.block_length is None)), end, block_high)
        for question in asked:
            first, last = question.positions.amin(1), question.positions.amax(1) + 1
            waiting = self.canvas.masked[question.index, first] | (state.step_in_block <= state.opened.long())[question.index]
            part = sub[question.index] & ~waiting
            low[question.index] = torch.where(part, first, low[question.index])
            high[question.index] = torch.where(part, last, high[question.index])
        twins = torch.tensor([*range(len(self.params)), *guided], device=low.device)
        return Stretch(slots, low[twins], high[twins], int((high - low).max()))

    def _lengths(self) -> list[int]:
        return self.canvas.end.tolist()

    def _propose(self, model: Model, question: Asked, prediction: Prediction) -> Proposal:
        """Tokens and confidences of one group; the mask id can never be proposed."""
        state = self.state.rows(question.index)
        rows = [self.params[i] for i in question.rows]
        banned = torch.zeros(len(rows), prediction.logits.shape[-1], device=model.device)
        banned[:, model.mask_id] = -torch.inf
        if model.eos_ids:
            banned[:, list(model.eos_ids)] = banned.new_zeros(len(rows), 1).masked_fill(state.no_ends[:, None], -torch.inf)
            banned[:, model.eos_ids[0]] = banned.new_zeros(len(rows)).masked_fill(state.no_eos | state.no_ends, -torch.inf)
        unsure = None
        if any(p.confidence_eos_eot_inf for p in rows):
            unsure = torch.zeros_like(banned)
            unsure[:, list(model.eos_ids)] = unsure[:, :1].masked_fill(state.unsure_eos[:, None], -torch.inf)
        return propose(prediction.logits, question.choice, question.positions, banned, unsure)

    def _choice(self, index: Int[Tensor, " some"], rows: tuple[int, ...]) -> Choice:
        state, params = self.state.rows(index), [self.params[i] for i in rows]
        return Choice(
            state.temperature, state.top_p, state.top_k, state.seed, state.forward,
            samples=any(p.temperature > 0 for p in params), filters=any(p.top_p < 1 or p.top_k > 0 for p in params),
        )  # fmt: skip

    def _window(self, question: Asked, prediction: Prediction, proposal: Proposal) -> tuple[Window, Memory]:
        """What the owner of a question sees, and what it remembers."""
        state = self.state.rows(question.index)
        steps = torch.where(state.steps_per_block > 0, state.steps_per_block, state.block_masked)
        current = self.canvas.ids[question.index[:, None], question.positions]
        unseen = None
        if prediction.unseen is not None:
            unseen = prediction.unseen.float().softmax(-1).gather(-1, current[..., None])[..., 0]
        window = Window(
            question.positions, question.candidates, proposal, self._quota(question), state.step_in_block, state.seed,
            state.forward, prediction.columns, prediction.pairwise, current, question.revisable,
            state.planned if isinstance(question.owner, EarlyExit) else steps, question.choice, prediction.sinks,
            prediction.known_mass, unseen, state.block_masked, question.in_block,
        )  # fmt: skip
        numbers = tuple(self.numbers[i] for i in question.rows)
        owners, memory = self.memories.get(question.owner, ((), {}))
        if memory and owners != numbers:
            memory = {name: _realign(value, owners, numbers) for name, value in memory.items()}
        width = question.positions.shape[1]
        return window, {name: _resize(value, width) for name, value in memory.items()}

    def _report(
        self,
        canvas: Canvas,
        state: RowState,
        parts: Sequence[tuple[Asked, Proposal, Selection, Tensor]],
        leaving: Bool[Tensor, " rows"],
    ) -> tuple[Report, dict[int, tuple[str, str]]]:
        """Everything that leaves the device, in one place; and which rows went wrong.

        Of a row that leaves early its exit's part counts, of all others the sampler's.
        """
        n = len(self.numbers)
        rows: dict[str, list[Any]] = {f.name: [None] * n for f in fields(Report)}
        faults: dict[int, tuple[str, str]] = {}
        settled = canvases.settled(canvas)
        gone = leaving.tolist()
        for question, proposal, selection, written in parts:
            if question.revisable is not None:
                index, low = question.index, state.block_low[question.index]
                masked = canvas.masked[index].any(1) & (settled[index] < low + state.block_length[index])
                settled[index] = torch.where(masked | state.held[index], low, settled[index])
            values = {
                "positions": question.positions, "candidates": question.candidates, "commit": written,
                "tokens": proposal.tokens, "confidence": proposal.confidence, "score": selection.score,
            }  # fmt: skip
            stray = (selection.commit & ~question.candidates).any(1).tolist()
            idle = question.candidates.any(1) & ~(selection.commit & question.candidates).any(1)
            idle = (idle if selection.hold is None else idle & ~selection.hold).tolist()
            broken = proposal.confidence.isnan().any(1).tolist()
            lists = {name: value.tolist() for name, value in values.items()}
            exiting = isinstance(question.owner, EarlyExit)
            for k, i in enumerate(question.rows):
                if exiting == gone[i]:
                    for name in values:
                        rows[name][i] = lists[name][k]
                name = question.owner.name
                if broken[k]:
                    faults[self.numbers[i]] = ("model", "the model's logits hold NaN (or nothing but -inf)")
                elif stray[k]:
                    faults[self.numbers[i]] = ("sampler", f"{name} committed positions that are no candidates")
                elif idle[k] and not exiting:
                    faults[self.numbers[i]] = ("sampler", f"{name} committed nothing although there were candidates")
        ends = canvas.end.tolist()
        ids, flags = canvas.ids.tolist(), canvas.masked.tolist()
        rows["ids"] = [row[:end] for row, end in zip(ids, ends, strict=True)]
        rows["masked"] = [[j for j, m in enumerate(row) if m] for row in flags]
        rows["settled"] = settled.tolist()
        rows["held"] = state.held.tolist()
        return Report(**rows), faults


def _block_counts(canvas: Canvas, block_length: Int[Tensor, " rows"]) -> Int[Tensor, " rows"]:
    """Blocks of each row that hold a mask."""
    index = torch.arange(canvas.ids.shape[1], device=canvas.ids.device)
    block = ((index - canvas.start[:, None]).clamp(min=0) // block_length[:, None]).masked_fill(~canvas.masked, -1)
    block = block.sort(1).values
    return (block[:, 1:] > block[:, :-1]).sum(1) + (block[:, 0] >= 0).long()


def _group(params: Sequence[SamplingParams]) -> tuple[tuple[Sampler | EarlyExit, tuple[int, ...]], ...]:
    groups: dict[Sampler | EarlyExit, list[int]] = {}
    for i, p in enumerate(params):
        groups.setdefault(p.sampler, []).append(i)
        if p.early_exit is not None:
            groups.setdefault(p.early_exit, []).append(i)
    return tuple((owner, tuple(rows)) for owner, rows in groups.items())


def _realign(value: Tensor, owners: tuple[int, ...], numbers: tuple[int, ...]) -> Tensor:
    """Memory of the rows ``numbers`` out of that of ``owners``; rows that have just joined start from zeros."""
    place = {number: i for i, number in enumerate(owners)}
    index = torch.tensor([place.get(number, len(owners)) for number in numbers], device=value.device)
    return torch.cat([value, torch.zeros_like(value[:1])])[index]


def _resize(value: Tensor, width: int) -> Tensor:
    """Fit the second axis, where there is one, to the window's width: cut, or padded with zeros."""
    if value.ndim < 2 or value.shape[1] == width:
        return value
    if value.shape[1] > width:
        return value[:, :width]
    return F.pad(value, (0, 0) * (value.ndim - 2) + (0, width - value.shape[1]))

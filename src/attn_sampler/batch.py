"""The active rows as tensors, and one forward pass over them.

A `Batch` is a value: `Batch.advance` returns the next one with a report of what happened. Rows that share a sampler (and its
options) form a group; within a group everything is vectorised over rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor

from attn_sampler import blocks
from attn_sampler import canvas as canvases
from attn_sampler.asked import Asked, Sizes, ask
from attn_sampler.cache import Slots, Stretch
from attn_sampler.canvas import Canvas
from attn_sampler.models.seam import Ask, Model, Prediction
from attn_sampler.params import POLICIES, SamplingParams
from attn_sampler.propose import Choice, Proposal, propose
from attn_sampler.report import Report, report
from attn_sampler.seam import EarlyExit, Memory, Sampler, Selection, Window
from attn_sampler.state import RowState

__all__ = ["Batch", "Outcome"]


@dataclass(frozen=True)
class Outcome:
    batch: Batch
    report: Report
    faults: Mapping[int, tuple[str, str]]  # row number → ("model" | "sampler", what is wrong)


@dataclass(frozen=True)
class Batch:
    """Active rows.

    Attributes:
        numbers: the engine's number of each row.
        params: each row's parameters.
        sizes: lengths of each row's blocks and answer.
        groups: samplers and early exits, each with its rows.
        memories: sampler or exit → (rows it belongs to, what it asked to be kept).
    """

    numbers: tuple[int, ...]
    params: tuple[SamplingParams, ...]
    canvas: Canvas
    state: RowState
    sizes: Sizes
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
        state = RowState.begin(canvas, params, lengths, policies, may_end)
        spans = tuple((canvas.end - canvas.start).tolist())
        slots = Slots() if (model.block_length is not None and model.caches) or set(policies) != {"none"} else None
        return cls(tuple(numbers), tuple(params), canvas, state, Sizes(tuple(lengths), spans), _group(params), {}, slots)

    def join(self, other: Batch, pad_id: int) -> Batch:
        """These rows and the other's."""
        params = self.params + other.params
        canvas = canvases.stack(self.canvas, other.canvas, pad_id)
        state = self.state.join(other.state)
        sizes = Sizes(self.sizes.blocks + other.sizes.blocks, self.sizes.answers + other.sizes.answers)
        slots = None
        if self.slots is not None or other.slots is not None:
            # Rows that join have computed nothing yet; those that were here without slots compute everything every time.
            slots = Slots() if self.slots is None else self.slots.join(len(other.numbers))
        numbers = self.numbers + other.numbers
        return Batch(numbers, params, canvas, state, sizes, _group(params), self.memories, slots)

    def without(self, gone: set[int]) -> Batch | None:
        """The rows that stay, or None if none does."""
        kept = [i for i, number in enumerate(self.numbers) if number not in gone]
        if not kept:
            return None
        index = torch.tensor(kept, device=self.canvas.ids.device)
        params = tuple(self.params[i] for i in kept)
        numbers = tuple(self.numbers[i] for i in kept)
        sizes = Sizes(*(tuple(x[i] for i in kept) for x in (self.sizes.blocks, self.sizes.answers)))
        canvas, state = canvases.keep_rows(self.canvas, index), self.state.rows(index)
        slots = None if self.slots is None else self.slots.rows(index)
        return Batch(numbers, params, canvas, state, sizes, _group(params), self.memories, slots)

    # --- one forward pass -------------------------------------------------------------------------------------------

    def advance(self, model: Model) -> Outcome:
        """Run the model once and let every row's sampler commit."""
        batch = self._enter_blocks(model)
        asked = [
            ask(owner, rows, batch.canvas, batch.state, self.sizes, batch._choice(rows), model) for owner, rows in self.groups
        ]
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
        canvas = batch._padded(canvas, model)
        memories = {owner: kept for owner, kept in memories.items() if kept[1]}
        state = replace(
            batch.state,
            forward=batch.state.forward + 1,
            step_in_block=batch.state.step_in_block + 1,
            opened=batch.state.opened | batch.state.opening,
            held=held,
            computed=torch.maximum(batch.state.computed, batch.state.block_low),
            changed=batch._changed(canvas),
        )
        told, faults = report(self.numbers, canvas, state, parts, leaving)
        return Outcome(replace(batch, canvas=canvas, state=state, memories=memories), told, faults)

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
            (step == 0) & state.apart(model) & canvas.masked.gather(1, low[:, None])[:, 0] & (low > state.dropped)
            if model.shift
            else torch.zeros_like(fresh)
        )
        entered = replace(
            state, block_low=low, block_masked=masked, block_left=left, step_in_block=step, opening=opening,
            opened=state.opened & ~fresh,
        )  # fmt: skip
        return replace(self, state=entered)

    def _padded(self, canvas: Canvas, model: Model) -> Canvas:
        """The canvas after a pass, without the masks that some samplers give up behind an end token."""
        asking = [i for owner, rows in self.groups if isinstance(owner, Sampler) and owner.needs.pads for i in rows]
        if not asking or not model.eos_ids:
            return canvas
        ending = torch.zeros_like(self.state.ends)
        ending[asking] = self.state.ends[asking]
        return canvases.pad_behind(canvas, ending, model.eos_ids, model.pad_id)

    def _changed(self, after: Canvas) -> Int[Tensor, " rows"]:
        """Tokens that differ since the whole canvas ran; counted only while a row asks to be refreshed by it."""
        if not any(p.refresh_tokens for p in self.params):
            return self.state.changed
        return (self.canvas.ids != after.ids).sum(1) + torch.where(self._refreshed(), 0, self.state.changed)

    def _refreshed(self) -> Bool[Tensor, " rows"]:
        """Rows whose whole canvas runs in this pass, by an approximate policy of the cache."""
        state = self.state
        passes = (state.refresh_every > 0) & (state.step_in_block % state.refresh_every.clamp(min=1) == 0)
        tokens = (state.refresh_tokens > 0) & (state.changed >= state.refresh_tokens)
        approximate = (state.policy == POLICIES.index("prefix")) | (state.policy == POLICIES.index("dual"))
        return approximate & ((state.step_in_block == 0) | passes | tokens)

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

    def _predict(self, model: Model, asked: Sequence[Asked]) -> list[Prediction]:
        """One forward pass; rows with guidance ride along a second time with their given tokens masked."""
        canvas = self.canvas
        ids, valid = canvas.ids, canvas.valid
        drops = any(p.sampler.needs.drops_block for p in self.params)
        if drops:
            valid = valid & (torch.arange(ids.shape[1], device=ids.device) >= self.state.dropped[:, None])
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
        valid = valid if drops or len(set(self._lengths())) > 1 else None
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
        whole = self._refreshed()
        low = torch.where(block | sub, state.computed, torch.where(none | whole, state.dropped, state.block_low))
        high = torch.where(whole | prefix | (none & (model.block_length is None)), end, block_high)
        stale = sub & state.stale_block & (state.forward > state.step_in_block)  # not in a row's first block
        if any(p.sampler.needs.stale_block for p in self.params):
            closing = stale & state.opening
            slots.repeat(closing, state.block_low, state.block_length, end, max(self.sizes.blocks))
            high = torch.where(closing, state.block_low, high)
        begun = state.step_in_block > (state.opened & ~stale).long()
        for question in asked:
            first, last = question.positions.amin(1), question.positions.amax(1) + 1
            waiting = self.canvas.masked[question.index, first] | ~begun[question.index]
            part = sub[question.index] & ~waiting
            low[question.index] = torch.where(part, first, low[question.index])
            high[question.index] = torch.where(part, last, high[question.index])
            if isinstance(question.owner, Sampler) and question.owner.needs.one_block and question.owner.needs.cut == "leftmost":
                # A method without blocks whose window slides: what is computed slides along.
                sliding = ((prefix | dual) & ~whole)[question.index]
                full = dual[question.index] & (question.candidates.sum(1) == question.positions.shape[1])
                low[question.index] = torch.where(sliding, first - model.shift, low[question.index])
                high[question.index] = torch.where(sliding & full, last, high[question.index])
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
            first, spared = list(model.eos_ids[:1]), state.counts_eos & (state.temperature > 0)
            unsure[:, first] = unsure[:, first].masked_fill(spared[:, None], 0)
        return propose(prediction.logits, question.choice, question.positions, banned, unsure)

    def _choice(self, rows: tuple[int, ...]) -> Choice:
        """How the tokens of some rows are chosen."""
        state = self.state.rows(torch.tensor(rows, device=self.canvas.ids.device))
        params = [self.params[i] for i in rows]
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
            prediction.known_mass, unseen, state.block_masked, question.in_block, state.steps_per_block > 0,
        )  # fmt: skip
        numbers = tuple(self.numbers[i] for i in question.rows)
        owners, memory = self.memories.get(question.owner, ((), {}))
        if memory and owners != numbers:
            memory = {name: _realign(value, owners, numbers) for name, value in memory.items()}
        width = question.positions.shape[1]
        return window, {name: _resize(value, width) for name, value in memory.items()}


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

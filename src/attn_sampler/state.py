"""What the engine remembers of every active row, as tensors: its settings, and where it stands in its active block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attn_sampler.canvas import Canvas
from attn_sampler.models.seam import Model
from attn_sampler.params import POLICIES, SamplingParams

__all__ = ["RowState"]


@dataclass(frozen=True)
class RowState:
    """Per-row numbers, one tensor each: settings that never change, then the state of the active block."""

    block_length: Int[Tensor, " rows"]
    policy: Int[Tensor, " rows"]  # of the cache: index into POLICIES
    refresh_every: Int[Tensor, " rows"]  # 0 for never
    refresh_tokens: Int[Tensor, " rows"]  # 0 for never
    steps_per_block: Int[Tensor, " rows"]  # 0 without a step budget
    temperature: Float[Tensor, " rows"]
    top_p: Float[Tensor, " rows"]
    top_k: Int[Tensor, " rows"]
    seed: Int[Tensor, " rows"]
    dropped: Int[Tensor, " rows"]  # positions before it are seen by nobody (`attn_sampler.seam.Needs.drops_block`)
    stale_block: Bool[Tensor, " rows"]  # `Needs.stale_block`
    counts_eos: Bool[Tensor, " rows"]  # `Needs.counts_eos`
    cfg_scale: Float[Tensor, " rows"]
    no_eos: Bool[Tensor, " rows"]  # the end-of-sequence token is never proposed
    no_ends: Bool[Tensor, " rows"]  # nor any other end token (infill)
    ends: Bool[Tensor, " rows"]  # its text ends at such a token
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
    changed: Int[Tensor, " rows"]  # tokens written or taken back since the whole canvas was computed

    def apart(self, model: Model) -> Bool[Tensor, " rows"]:
        """Rows in which the left neighbour of a block's first position is computed in the block's first step only."""
        return (self.policy > 0) | (model.block_length is not None)

    def rows(self, index: Int[Tensor, " kept"]) -> RowState:
        return RowState(*(getattr(self, f.name)[index] for f in fields(self)))

    def join(self, other: RowState) -> RowState:
        return RowState(*(torch.cat([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self)))

    @classmethod
    def begin(
        cls,
        canvas: Canvas,
        params: Sequence[SamplingParams],
        lengths: Sequence[int],
        policies: Sequence[str],
        may_end: Sequence[bool],
    ) -> RowState:
        """Rows before their first forward pass; arguments as in `attn_sampler.batch.Batch.start`."""

        def column(values: Sequence[float], dtype: torch.dtype) -> Tensor:
            return torch.tensor(list(values), dtype=dtype, device=canvas.ids.device)

        counts = _block_counts(canvas, column(lengths, torch.long)).tolist()
        budgets = [0 if p.steps is None else p.steps // n for p, n in zip(params, counts, strict=True)]
        masks = canvas.masked.sum(1)
        needs, prompts = [p.sampler.needs for p in params], canvas.masked.int().argmax(1)
        drops = column([n.drops_block for n in needs], torch.bool) & (prompts == column(lengths, torch.long))
        dropped = torch.where(drops & (canvas.start == prompts), prompts, 0)
        zeros, never = column([0] * len(params), torch.long), column([0] * len(params), torch.bool)
        return cls(
            column(lengths, torch.long),
            column([POLICIES.index(policy) for policy in policies], torch.long),
            column([p.refresh_every or 0 for p in params], torch.long),
            column([p.refresh_tokens or 0 for p in params], torch.long),
            column(budgets, torch.long),
            column([p.temperature for p in params], torch.float64),
            column([p.top_p for p in params], torch.float64),
            column([p.top_k for p in params], torch.long),
            column([p.seed for p in params], torch.long),
            dropped,
            column([n.stale_block for n in needs], torch.bool),
            column([n.counts_eos for n in needs], torch.bool),
            column([p.cfg_scale for p in params], torch.float64),
            column([p.logits_eos_inf for p in params], torch.bool),
            column([not ends for ends in may_end], torch.bool),
            column([ends and not p.ignore_eos for ends, p in zip(may_end, params, strict=True)], torch.bool),
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
            computed=dropped,
            changed=zeros,
        )


def _block_counts(canvas: Canvas, block_length: Int[Tensor, " rows"]) -> Int[Tensor, " rows"]:
    """Blocks of each row that hold a mask."""
    index = torch.arange(canvas.ids.shape[1], device=canvas.ids.device)
    block = ((index - canvas.start[:, None]).clamp(min=0) // block_length[:, None]).masked_fill(~canvas.masked, -1)
    block = block.sort(1).values
    return (block[:, 1:] > block[:, :-1]).sum(1) + (block[:, 0] >= 0).long()

"""Rows before they run: a prompt or a template and its parameters, checked against the model, as a canvas.

All that can be wrong with a request is said here, before a forward pass is spent on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from attn_sampler.errors import InvalidInputError, TooLongError
from attn_sampler.models.seam import Model
from attn_sampler.params import SamplingParams
from attn_sampler.text import Hole, Prompt, Transcript, encode, parse_template

__all__ = ["Row", "answer_row", "infill_row"]


@dataclass
class Row:
    """A prepared row: its checked parameters and canvas. Once admitted, its tensors live in the `Batch`."""

    params: SamplingParams
    ids: list[int]
    masked: list[bool]
    shown: int  # first position of what `Result.text` says: after the prompt
    cut: int  # the position after its last
    ends: bool  # whether an end-of-sequence token ends it
    aligned: bool  # blocks are the model's own, counted from position 0
    transcript: Transcript
    block_length: int
    cache: str
    admitted: float = 0.0
    forwards: int = 0

    @property
    def start(self) -> int:
        return self.masked.index(True)

    @property
    def origin(self) -> int:
        """Where its blocks are counted from."""
        return self.start - self.start % self.block_length if self.aligned else self.start


def answer_row(model: Model, tokenizer: Any | None, prompt: Prompt, params: SamplingParams, chat: bool | None) -> Row:
    """The prompt followed by ``max_new_tokens`` masks."""
    ids = encode(tokenizer, prompt, chat)
    if not ids:
        raise InvalidInputError("prompt", prompt, "no token is left of it: give at least one")
    _check_ids(model, "prompt", ids)
    n = params.max_new_tokens
    _check_length(model, len(ids), n)
    end = len(ids) + n
    if model.block_length is not None:  # its last block is whole, as in training; the answer is cut afterwards
        end = min(end + -end % model.block_length, model.context_length)
    masked = [False] * len(ids) + [True] * (end - len(ids))
    canvas = [*ids, *[model.mask_id] * (end - len(ids))]
    return _row(model, tokenizer, params, canvas, masked, len(ids), not params.ignore_eos, len(ids) + n)


def infill_row(
    model: Model,
    tokenizer: Any | None,
    template: str | Sequence[str | Sequence[int] | Hole],
    params: SamplingParams,
    prompt: Prompt | None,
    chat: bool | None,
) -> Row:
    """A text with holes, see `attn_sampler.engine.Engine.infill`."""
    if params.stop:
        raise InvalidInputError("stop", params.stop, "holes are always filled: infill takes no stop strings")
    ids = [] if prompt is None else encode(tokenizer, prompt, chat)
    _check_ids(model, "prompt", ids)
    shown, masked = len(ids), [False] * len(ids)
    if not isinstance(template, Sequence):
        raise InvalidInputError("template", template, "give text with [[n]] holes, or a list of text, token ids and Holes")
    for part in parse_template(template) if isinstance(template, str) else template:
        if isinstance(part, Hole):
            _check_length(model, len(ids), part.length)
            ids, masked = ids + [model.mask_id] * part.length, masked + [True] * part.length
            continue
        piece = encode(tokenizer, part, False, field="template")
        _check_ids(model, "template", piece)
        ids, masked = ids + piece, masked + [False] * len(piece)
    if not any(masked):
        raise InvalidInputError("template", template, "give at least one Hole")
    return _row(model, tokenizer, params, ids, masked, shown, False, len(ids))


def _check_ids(model: Model, field: str, ids: Sequence[int]) -> None:
    vocab, mask = model.vocab_size, model.mask_id
    for i in ids:
        if not 0 <= i < vocab:
            raise InvalidInputError(field, i, f"give token ids from 0 to {vocab - 1}")
        if i == mask:
            raise InvalidInputError(field, i, "this is the mask token; to have masks filled inside a text use infill")


def _check_length(model: Model, given: int, new: int) -> None:
    if given + new > model.context_length:
        raise TooLongError("prompt", given, new, model.context_length)


def _row(
    model: Model,
    tokenizer: Any | None,
    params: SamplingParams,
    ids: list[int],
    masked: list[bool],
    shown: int,
    ends: bool,
    cut: int,
) -> Row:
    _check_length(model, len(ids) - sum(masked), sum(masked))
    transcript = Transcript(None if tokenizer is None else _decoder(tokenizer), params.stop)
    block_length, cache = _blocks(model, params, len(ids) - masked.index(True))
    aligned = model.block_length is not None
    row = Row(params, ids, masked, shown, cut, ends, aligned, transcript, block_length, cache)
    if row.start < model.shift:
        remedy = "this model predicts each position from its left neighbour: begin with at least one given token"
        raise InvalidInputError("template", "a hole at position 0", remedy)
    _check_steps(row)
    _check_sampler(model, params)
    if params.stop and tokenizer is None:
        raise InvalidInputError("stop", params.stop, "this checkpoint has no tokenizer, so there is no text to search")
    return row


def _check_steps(row: Row) -> None:
    """A step budget gives every block the same share, and every sub-block at least one step."""
    params, block_length = row.params, row.block_length
    if params.steps is None:
        return
    blocks = len({(i - row.origin) // block_length for i, m in enumerate(row.masked) if m})
    if params.steps % blocks:
        raise InvalidInputError("steps", params.steps, f"give a multiple of the number of blocks ({blocks})")
    windows = -(-block_length // (params.sampler.needs.sub_block_length or block_length))
    if params.steps // blocks < windows:
        remedy = f"the sampler works through {windows} sub-blocks per block: give at least {windows * blocks}"
        raise InvalidInputError("steps", params.steps, remedy)


def _check_sampler(model: Model, params: SamplingParams) -> None:
    """Whether the model can give what the sampler and the early exit ask for."""
    wanted = params.sampler.needs.attention
    if wanted is not None:
        if model.num_layers == 0:
            raise InvalidInputError("sampler", params.sampler.name, "this model has no attention statistics")
        limits = ((wanted.layers_option, wanted.layers, model.num_layers), ("heads", wanted.heads, model.num_heads))
        for option, indices, size in limits:
            if indices is not None and max(indices) >= size:
                given = getattr(params.sampler, option, indices)
                raise InvalidInputError(option, given, f"this model has {size}: give indices from 0 to {size - 1}")
    counted = params.sampler.needs.vocab_size
    if counted not in (None, model.vocab_size):
        remedy = f"its options are for a vocabulary of {counted}, this model has {model.vocab_size}: make them for this model"
        raise InvalidInputError("sampler", params.sampler.name, remedy)
    if params.sampler.needs.leave_one_out:
        if not model.shadows:
            remedy = "it needs a decoder with full attention that predicts each position from its own row"
            raise InvalidInputError("sampler", params.sampler.name, remedy)
        if params.cfg_scale > 0:
            remedy = f"{params.sampler.name} does not work with guidance: give 0"
            raise InvalidInputError("cfg_scale", params.cfg_scale, remedy)
    if params.early_exit is not None and model.block_length is not None:
        remedy = "it fills the whole answer at once, and a block-causal model sees nothing after the active block: give None"
        raise InvalidInputError("early_exit", params.early_exit.name, remedy)


def _blocks(model: Model, params: SamplingParams, span: int) -> tuple[int, str]:
    """Block length and cache policy of a row: its own, or what suits the model and the ``span`` from its first mask on."""
    own, wanted, cache = model.block_length, params.block_length, params.cache
    needs = params.sampler.needs
    whole = needs.one_block and params.block_length is None
    default = own or (span if whole else params.positions_per_block)
    if own is None:
        if cache in ("block", "sub-block"):
            remedy = 'it needs a block-causal model; this one has full attention: give "none", "prefix" or "dual"'
            raise InvalidInputError("cache", cache, remedy)
    else:
        if wanted not in (None, own):
            remedy = f"this model's blocks have {own} positions; load(..., block_length={wanted}) changes its attention mask"
            raise InvalidInputError("block_length", wanted, remedy)
        if cache in ("prefix", "dual"):
            raise InvalidInputError("cache", cache, 'it is an approximation for full attention; here "block" is exact')
        if cache is None and model.caches and params.cfg_scale == 0:
            cache = "block"
    if cache not in (None, "none"):
        if not model.caches:
            raise InvalidInputError("cache", cache, 'this model has no KV cache: give "none"')
        if needs.scope != "block" or needs.leave_one_out or (needs.attention is not None and needs.attention.sinks):
            if params.cache is None:
                return default, "none"
            raise InvalidInputError(
                "cache", cache, f'{params.sampler.name} looks beyond the active block in every pass: give "none"'
            )
        if cache == "sub-block" and needs.revises:
            raise InvalidInputError("cache", cache, f'{params.sampler.name} revises the whole block: give "block"')
        if cache == "sub-block" and needs.attention is not None and needs.attention.rows == "block":
            raise InvalidInputError(
                "rows", "block", 'with cache="sub-block" only the sub-block is computed: give "all" or "masked"'
            )
    return default, cache or "none"


def _decoder(tokenizer: Any) -> Callable[[list[int]], str]:
    def decode(ids: list[int]) -> str:
        return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    return decode

"""The engine: a batch of rows that join and leave at any step, and the one place that runs forward passes.

`Engine.step` advances every active row by one forward pass. `generate`, `stream`, `astream` and `infill` admit rows and drain it;
a server or an evaluation does the same through `admit`, `step` and `cancel`. Rows share nothing but the forward pass.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attn_sampler import canvas as canvases
from attn_sampler.batch import Batch
from attn_sampler.errors import InvalidInputError, ModelOutputError, RowError, SamplerError, check_number
from attn_sampler.models import load_model
from attn_sampler.models.seam import Model
from attn_sampler.params import SamplingParams
from attn_sampler.results import Result, Step, record
from attn_sampler.rows import Row, answer_row, infill_row
from attn_sampler.text import Hole, Prompt
from attn_sampler.turns import Turns

__all__ = ["EMBEDDED", "Engine", "load"]


class Engine:
    """Runs rows through a model.

    Args:
        model: any `attn_sampler.models.seam.Model`.
        tokenizer: a transformers tokenizer, or None to work with token ids only.
        max_rows: rows that share a forward pass at most; further ones wait their turn.
    """

    def __init__(self, model: Model, tokenizer: Any | None = None, *, max_rows: int = 32) -> None:
        check_number("max_rows", max_rows, low=1, integer=True)
        self.model, self.tokenizer, self.max_rows = model, tokenizer, max_rows
        self._rows: dict[int, Row] = {}  # every unfinished row
        self._waiting: deque[int] = deque()
        self._batch: Batch | None = None  # the active rows
        self._inbox: dict[int, deque[Step | RowError]] = {}  # rows that generate or a stream follows
        self._loose: deque[Step | RowError] = deque()  # of all other rows, for `step`
        self._count = 0
        self._turns = Turns()  # held during a forward pass
        self._books = threading.RLock()  # held to read or change the above, never during a pass: to admit and cancel is quick

    # --- rows -------------------------------------------------------------------------------------------------------

    def admit(self, prompt: Prompt, params: SamplingParams | None = None, *, chat: bool | None = None) -> int:
        """Add a row: the prompt followed by ``max_new_tokens`` masks. Returns its number, for `step` and `cancel`.

        Raises:
            InvalidInputError: the prompt is empty, too long for the context, or holds the mask token.
        """
        return self._enter(self.prepare(prompt, params, chat=chat))

    def prepare(self, prompt: Prompt, params: SamplingParams | None = None, *, chat: bool | None = None) -> Row:
        """A row that has been checked but not admitted yet, for `run`."""
        return answer_row(self.model, self.tokenizer, prompt, _checked(params), chat)

    def prepare_infill(
        self,
        template: str | Sequence[str | Sequence[int] | Hole],
        params: SamplingParams | None = None,
        *,
        prompt: Prompt | None = None,
        chat: bool | None = None,
    ) -> Row:
        """Likewise for `infill`."""
        return infill_row(self.model, self.tokenizer, template, _checked(params), prompt, chat)

    def piece(self, token_id: int) -> str:
        """What one token looks like by itself (its id in angle brackets where there is no tokenizer)."""
        return f"⟨{token_id}⟩" if self.tokenizer is None else self.tokenizer.decode([token_id])

    def _enter(self, row: Row, followed: bool = False) -> int:
        with self._books:
            number, self._count = self._count, self._count + 1
            row.admitted = time.perf_counter()
            self._rows[number] = row
            self._waiting.append(number)
            if followed:
                self._inbox[number] = deque()
        return number

    def cancel(self, number: int) -> None:
        """Remove a row; does nothing if it has ended. A forward pass that it is in goes on without waiting for it."""
        with self._books:
            self._inbox.pop(number, None)
            if self._rows.pop(number, None) is not None and number in self._waiting:
                self._waiting.remove(number)
            if not self._rows:
                self._batch = None

    @property
    def unfinished(self) -> int:
        """Rows admitted and not yet ended."""
        return len(self._rows)

    # --- the one loop -----------------------------------------------------------------------------------------------

    def step(self) -> list[Step]:
        """One forward pass over all active rows; the Steps of those that came through `admit`.

        Steps of rows that `generate` or a stream follows go there. Empty when nothing is left to do for the caller's rows.

        Raises:
            ModelOutputError: the model returned NaN for a row; it is removed, the others go on with the next call.
            SamplerError: a sampler broke its contract; likewise.
        """
        with self._turns:
            if not self._loose:
                self._advance()
            steps: list[Step] = []
            while self._loose:
                if isinstance(self._loose[0], RowError) and steps:
                    break  # first what went well, the error at the next call
                item = self._loose.popleft()
                if isinstance(item, RowError):
                    raise item
                steps.append(item)
            return steps

    def _advance(self) -> None:
        """Run the model once and put every row's Step, or its error, where its owner looks."""
        with self._books:
            self._drop()
            self._join()
            before = self._batch
        if before is None:
            return
        outcome = before.advance(self.model)
        with self._books:
            self._batch = outcome.batch
            for i, number in enumerate(before.numbers):
                row = self._rows.get(number)
                if row is None:  # cancelled in the meantime
                    continue
                item: Step | RowError
                if number in outcome.faults:
                    kind, message = outcome.faults[number]
                    item = (ModelOutputError if kind == "model" else SamplerError)(number, message)
                else:
                    item = record(number, row, outcome.report, i, self.model.eos_ids)
                if isinstance(item, RowError) or item.finished:
                    self._rows.pop(number, None)
                self._inbox.get(number, self._loose).append(item)
            self._drop()

    def _drop(self) -> None:
        """Take the rows that have ended or were cancelled out of the batch."""
        if self._batch is not None and (gone := set(self._batch.numbers) - self._rows.keys()):
            self._batch = self._batch.without(gone)

    def _join(self) -> None:
        """Let waiting rows in, as many as fit."""
        room = self.max_rows - (len(self._batch.numbers) if self._batch else 0)
        joining = [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
        if not joining:
            return
        rows = [self._rows[number] for number in joining]
        canvas = canvases.from_rows(
            [row.ids for row in rows], [row.masked for row in rows], [row.origin for row in rows],
            self.model.pad_id, self.model.device,
        )  # fmt: skip
        new = Batch.start(
            canvas,
            joining,
            [row.params for row in rows],
            [row.block_length for row in rows],
            [row.cache for row in rows],
            [row.ends or row.params.ignore_eos for row in rows],
            self.model,
        )
        self._batch = new if self._batch is None else self._batch.join(new, self.model.pad_id)

    # --- consumers --------------------------------------------------------------------------------------------------

    def _take(self, numbers: Collection[int]) -> list[Step]:
        """The next Steps of rows that the caller follows, at least one; forward passes are run only if none is waiting.

        Between two passes others get their turn, so that a row waiting for a place keeps nobody from their Steps.
        """
        steps: list[Step] = []
        while not steps:
            with self._turns:
                inboxes = []
                for number in numbers:
                    inbox = self._inbox.get(number)
                    if inbox is None:
                        raise InvalidInputError("row", number, "it was cancelled")
                    inboxes.append(inbox)
                if not any(inboxes):
                    self._advance()
                for inbox in inboxes:
                    while inbox:
                        item = inbox.popleft()
                        if isinstance(item, RowError):
                            raise item
                        steps.append(item)
        return steps

    def run(self, rows: Sequence[Row], on_step: Callable[[Step], None] | None = None) -> list[Result]:
        """Admit prepared rows and run them to their ends; results in their order."""
        numbers = [self._enter(row, followed=True) for row in rows]
        results: dict[int, Result] = {}
        try:
            while len(results) < len(numbers):
                for step in self._take([number for number in numbers if number not in results]):
                    if on_step is not None:
                        on_step(step)
                    if step.result is not None:
                        results[step.row] = step.result
        finally:
            for number in numbers:
                self.cancel(number)
        return [results[number] for number in numbers]

    def generate(
        self,
        prompts: Sequence[Prompt] | str,
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        chat: bool | None = None,
        on_step: Callable[[Step], None] | None = None,
    ) -> list[Result]:
        """Answer a batch of prompts; results in their order.

        Args:
            prompts: each text, token ids or chat messages.
            params: one for all, or one per prompt.
            chat: whether text becomes a user message; None: where the checkpoint has a chat template.
            on_step: called with every Step of every row.
        """
        if isinstance(prompts, str):
            prompts = [prompts]
        if not isinstance(prompts, Sequence) or not prompts:
            raise InvalidInputError("prompts", prompts, "give a list of at least one prompt")
        if params is None or isinstance(params, SamplingParams):
            each: list[SamplingParams | None] = [params] * len(prompts)
        elif not isinstance(params, Sequence):
            raise InvalidInputError("params", params, "give a SamplingParams, or one for each prompt")
        else:
            each = list(params)
            if len(each) != len(prompts):
                raise InvalidInputError("params", f"{len(each)} of them", f"give one, or one for each of {len(prompts)} prompts")
        return self.run([self.prepare(p, one, chat=chat) for p, one in zip(prompts, each, strict=True)], on_step)

    def infill(
        self,
        template: str | Sequence[str | Sequence[int] | Hole],
        params: SamplingParams | None = None,
        *,
        prompt: Prompt | None = None,
        chat: bool | None = None,
        on_step: Callable[[Step], None] | None = None,
    ) -> Result:
        """Fill holes in a text; what is given is never changed.

        Args:
            template: text with ``[[n]]`` for a hole of n tokens, or a list of text, token ids and `Hole`.
            params: the holes say how many tokens, not ``max_new_tokens``; end tokens are never proposed.
            prompt: what the filled text answers, if anything.
        """
        return self.run([self.prepare_infill(template, params, prompt=prompt, chat=chat)], on_step)[0]

    def stream(self, prompt: Prompt, params: SamplingParams | None = None, *, chat: bool | None = None) -> Iterator[Step]:
        """The Steps of one row as they happen. Closing the iterator cancels the row."""
        return self._follow(self.prepare(prompt, params, chat=chat))

    def _follow(self, row: Row) -> Iterator[Step]:
        number = self._enter(row, followed=True)
        try:
            while True:
                for step in self._take([number]):
                    yield step
                    if step.finished:
                        return
        finally:
            self.cancel(number)

    async def astream(
        self, prompt: Prompt, params: SamplingParams | None = None, *, chat: bool | None = None
    ) -> AsyncIterator[Step]:
        """`stream` for asyncio: forward passes run in a thread, and concurrent streams share them."""
        number = self._enter(self.prepare(prompt, params, chat=chat), followed=True)
        try:
            while True:
                for step in await asyncio.to_thread(self._take, [number]):
                    yield step
                    if step.finished:
                        return
        finally:
            self.cancel(number)

    # --- debugging --------------------------------------------------------------------------------------------------

    def logits(
        self,
        ids: Int[Tensor, "rows length"] | Sequence[Sequence[int]],
        attention_mask: Tensor | Sequence[Sequence[int]] | None = None,
    ) -> Float[Tensor, "rows length vocab"]:
        """Logits of a whole canvas, row ``i`` predicting token ``i``: for parity checks, not for generation.

        Args:
            ids: token ids, masks included, (rows, length) or (length,).
            attention_mask: 1 for a token, 0 for padding on either side, shaped like ids; rows of padding are undefined.

        Raises:
            InvalidInputError: no integers, out of range, or of the wrong shape.
        """
        canvas = canvases.integers("ids", ids, self.model.vocab_size - 1).to(self.model.device)
        if attention_mask is None:
            return self.model.logits(canvas, None)
        valid = canvases.integers("attention_mask", attention_mask, 1).bool().to(self.model.device)
        if valid.shape != canvas.shape:
            raise InvalidInputError("attention_mask", tuple(valid.shape), f"give the shape of ids, {tuple(canvas.shape)}")
        return self.model.logits(canvas, valid)


def _checked(params: object) -> SamplingParams:
    if params is None:
        return SamplingParams()
    if not isinstance(params, SamplingParams):
        raise InvalidInputError("params", params, "give a SamplingParams")
    return params


EMBEDDED = Path(__file__).parent / "pretrained"


def load(
    model: str | Path | None = None,
    *,
    family: str | None = None,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device | None = None,
    device_map: str | Mapping[str, str | int] | None = None,
    mask_id: int | None = None,
    eos_ids: Sequence[int] | None = None,
    block_length: int | None = None,
    revision: str | None = None,
    adapter: str | Path | None = None,
    quantize: str | None = None,
    tp_plan: str | None = None,
    max_rows: int = 32,
) -> Engine:
    """An engine on a model.

    Args:
        model: a checkpoint directory or a Hub id; None for the embedded model.
        family: name of the model family, for directories that do not tell it (`attn-sampler models` lists them).
        dtype: of the weights; ``"auto"`` is what they are stored in.
        device: where they go; None is CUDA where there is one, else the CPU.
        device_map: module → device, or ``"auto"`` (needs the extra ``device-map``), instead of ``device``.
        mask_id, eos_ids: override what the checkpoint says or lacks.
        block_length: of a block-causal model's attention mask, where its config.json lacks it.
        revision: of a Hub id.
        adapter: directory or Hub id of a LoRA adapter as PEFT saves it, merged into the weights.
        quantize: ``"int8"`` keeps the linear layers' weights as int8 (needs the extra ``int8``; docs/quantize.md).
        tp_plan: ``"auto"`` under torchrun spreads the weights over its processes; each runs the same rows and gets the same
            results.
        max_rows: rows that share a forward pass at most.

    Raises:
        CheckpointError: not a checkpoint, not a supported family, truncated, tensors missing or unexpected.
        InvalidInputError: an argument is wrong.
    """
    net, tokenizer = load_model(
        EMBEDDED if model is None else model,
        family=family, dtype=dtype, device=device, device_map=device_map, mask_id=mask_id, eos_ids=eos_ids,
        block_length=block_length, revision=revision, adapter=adapter, quantize=quantize, tp_plan=tp_plan,
    )  # fmt: skip
    return Engine(net, tokenizer, max_rows=max_rows)

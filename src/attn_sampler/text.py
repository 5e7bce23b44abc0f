"""Text at the edges: prompts → ids, settled ids → text deltas, stop strings, templates with holes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attn_sampler.errors import InvalidInputError, check_number

if TYPE_CHECKING:
    from attn_sampler.results import Step

__all__ = ["Hole", "Prompt", "Transcript", "encode", "parse_template", "text_deltas"]

Prompt = str | Sequence[int] | Sequence[Mapping[str, str]]
"""Text, token ids, or chat messages (``{"role": ..., "content": ...}``)."""


@dataclass(frozen=True)
class Hole:
    """A gap of ``length`` tokens for `Engine.infill`."""

    length: int

    def __post_init__(self) -> None:
        check_number("hole", self.length, low=1, integer=True)


def parse_template(template: str) -> list[str | Hole]:
    """``"7 + [[1]] = 12"`` → text and holes: ``[[n]]`` is a hole of n tokens."""
    parts: list[str | Hole] = []
    for i, piece in enumerate(re.split(r"\[\[(\d+)\]\]", template)):
        if i % 2:
            parts.append(Hole(int(piece)))
        elif piece:
            parts.append(piece)
    if not any(isinstance(part, Hole) for part in parts):
        raise InvalidInputError("template", template, "mark at least one hole: [[n]] stands for n tokens")
    return parts


def encode(tokenizer: Any | None, prompt: Prompt, chat: bool | None, field: str = "prompt") -> list[int]:
    """Ids of a prompt.

    Text becomes one user message where the checkpoint has a chat template (``chat=None``), always (True) or never (False).
    Pieces of an infill template get no special tokens of the tokenizer's own (``field="template"``).
    """
    if isinstance(prompt, str):
        if not prompt:
            raise InvalidInputError(field, prompt, "give at least one token")
        tok = _needed(tokenizer, prompt)
        if chat is False or (chat is None and not tok.chat_template):
            return list(tok.encode(prompt, add_special_tokens=field == "prompt"))
        return _chat(tok, [{"role": "user", "content": prompt}])
    if not isinstance(prompt, Sequence) or isinstance(prompt, bytes):
        raise InvalidInputError(field, prompt, "give text, a list of token ids or a list of chat messages")
    if not prompt:
        raise InvalidInputError(field, prompt, "give at least one token")
    if all(isinstance(item, Mapping) for item in prompt):
        for message in prompt:
            if not isinstance(message, Mapping) or not set(message) >= {"role", "content"}:
                raise InvalidInputError(field, message, 'a chat message has "role" and "content"')
        return _chat(_needed(tokenizer, prompt), [dict(m) for m in prompt if isinstance(m, Mapping)])
    if not all(isinstance(item, int) and not isinstance(item, bool) for item in prompt):
        raise InvalidInputError(field, prompt, "give text, a list of token ids or a list of chat messages")
    return [item for item in prompt if isinstance(item, int)]


def _needed(tokenizer: Any | None, prompt: object) -> Any:
    if tokenizer is None:
        raise InvalidInputError("prompt", prompt, "this checkpoint has no tokenizer: give token ids")
    return tokenizer


def _chat(tokenizer: Any, messages: list[dict[str, str]]) -> list[int]:
    if not tokenizer.chat_template:
        raise InvalidInputError("prompt", messages, "this checkpoint has no chat template: give text or token ids")
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return list(tokenizer.encode(text, add_special_tokens=False))


class Transcript:
    """The text of one row as it settles. What was emitted once never changes: the deltas join to `text`."""

    def __init__(self, decode: Callable[[list[int]], str] | None, stop: tuple[str, ...]) -> None:
        self._decode, self._stop = decode, stop
        self.text = ""
        self.stopped = False

    def update(self, settled: list[int], final: bool) -> str:
        """The text newly emitted, given all ids settled so far (without an end-of-sequence token)."""
        if self._decode is None or self.stopped:
            return ""
        text = self._decode(settled)
        found = [place for place in (text.find(s) for s in self._stop) if place >= 0]
        if found:
            text, self.stopped = text[: min(found)], True
        elif not final:
            text = text[: len(text) - _held_back(text, self._stop)]
        if not text.startswith(self.text):
            if not final and not self.stopped:
                return ""
            same = next((i for i, (a, b) in enumerate(zip(self.text, text, strict=False)) if a != b), len(text))
            text = self.text + text[max(same, len(self.text)) :]
        delta = text[len(self.text) :]
        self.text = text
        return delta

    def cut(self, settled: list[int]) -> list[int]:
        """The shortest prefix of the ids whose text holds the stop string."""
        assert self._decode is not None
        for n in range(1, len(settled)):
            text = self._decode(settled[:n])
            if any(s in text for s in self._stop):
                return settled[:n]
        return settled


def _held_back(text: str, stop: tuple[str, ...]) -> int:
    """Characters at the end that the next token may still change: part of a character, or the beginning of a stop string."""
    clear = text.rstrip("\ufffd")
    begun = max((n for s in stop for n in range(1, len(s)) if clear.endswith(s[:n])), default=0)
    return len(text) - len(clear) + begun


def text_deltas(steps: Iterable[Step]) -> Iterator[str]:
    """The text of a stream of Steps, piece by piece as it settles; joined, exactly the result's text."""
    for step in steps:
        if step.delta:
            yield step.delta

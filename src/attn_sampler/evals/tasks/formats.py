"""Prompt formats: solved examples before the question, as one text or as a conversation."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain

from attn_sampler.errors import InvalidInputError
from attn_sampler.evals.tasks.task import Message, Problem, Prompt

__all__ = ["as_text", "as_turns", "in_one_turn"]

Question = Callable[[str], str]
Answer = Callable[[str], str]
Style = Callable[[Problem], Prompt]


def _shots(problem: Problem, count: int) -> tuple[tuple[str, str], ...]:
    if len(problem.shots) < count:
        raise InvalidInputError(
            "style", count, f"problem {problem.id!r} has {len(problem.shots)} solved examples; give fewer shots"
        )
    return problem.shots[:count]


def as_text(shots: int, question: Question, answer: Answer = str, between: str = "\n\n") -> Style:
    """One text that a base model goes on with."""

    def style(problem: Problem) -> str:
        examples = (question(q) + answer(a) for q, a in _shots(problem, shots))
        return between.join((*examples, question(problem.prompt)))

    return style


def in_one_turn(shots: int, question: Question, answer: Answer = str, between: str = "\n\n") -> Style:
    """The same text as a user's only message."""
    text = as_text(shots, question, answer, between)

    def style(problem: Problem) -> list[Message]:
        return [{"role": "user", "content": str(text(problem))}]

    return style


def as_turns(shots: int, question: Question, answer: Answer = str) -> Style:
    """Every example as a user's question and the assistant's answer."""

    def style(problem: Problem) -> list[Message]:
        pairs = ((question(q), answer(a)) for q, a in _shots(problem, shots))
        turns = [*chain.from_iterable(pairs), question(problem.prompt)]
        return [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]

    return style

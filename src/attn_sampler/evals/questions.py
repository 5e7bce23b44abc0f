"""Questions: problems of one task, how they are put to the model, how the answers are scored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from attn_sampler.evals import sandbox, tasks
from attn_sampler.evals.tasks import Problem, Prompt, Score, Task

__all__ = ["Questions", "embedded", "for_context", "prints", "questions"]

NEW_TOKENS = {"word": 32, "sudoku4": 32}  # where nothing else says it; of all other tasks:
MANY_TOKENS = 256
PART = 4  # of the context: what the default leaves to prompts is three times as much


@dataclass(frozen=True)
class Questions:
    """Problems of one task.

    Attributes:
        prompt, score: of a problem; of a problem and an answer.
        params: of every row on this task (`SamplingParams`), under those of the setting.
        chat: as `Engine.admit` takes it: None makes text a user message where the checkpoint has a chat template.
        note: what tells these questions from others beside the problems: version, style; plain JSON types.
        source: where the problems come from, for the report.
        length_given: somebody asked for ``max_new_tokens``; else it is the task's default, which `for_context` may shorten.
    """

    problems: Sequence[Problem]
    prompt: Callable[[Problem], Prompt]
    score: Callable[[Problem, str], Score]
    params: Mapping[str, Any] = field(default_factory=dict)
    chat: bool | None = None
    note: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    length_given: bool = True

    def describe(self) -> dict[str, Any]:
        """Plain JSON types; other problems or other prompts give another digest."""
        text = json.dumps([[self.prompt(p), p.answer, p.difficulty] for p in self.problems], ensure_ascii=False)
        digest = hashlib.sha256(text.encode()).hexdigest()
        chat = {} if self.chat is None else {"chat": self.chat}
        return {"n": len(self.problems), "sha256": digest, "params": dict(self.params), **chat, **self.note}


def for_context(asked: Questions, context: int) -> Questions:
    """With at most a quarter of the context as new tokens, where nobody asked for a number: room for the prompts."""
    most = max(1, context // PART)
    if asked.length_given or asked.params["max_new_tokens"] <= most:
        return asked
    return replace(asked, params={**asked.params, "max_new_tokens": most})


def prints(questions: Questions) -> list[str]:
    """A short fingerprint of every problem, by its own text and whatever is put around it."""
    return [hashlib.sha256(f"{p.task}\n{p.prompt}".encode()).hexdigest()[:16] for p in questions.problems]


def embedded(problems: Sequence[Problem]) -> Questions:
    """Problems of the embedded model's own tasks, put to it as they are."""
    return Questions(problems, lambda problem: problem.prompt, lambda problem, text: Score(tasks.solved(problem, text)))


def questions(
    task: Task,
    *,
    data: Path | None = None,
    n: int | None = None,
    seed: int = 0,
    style: str | None = None,
    params: Mapping[str, Any] | None = None,
    chat: bool | None = None,
    allow_code: bool = False,
    allow_unconfined: bool = False,
) -> Questions:
    """``n`` problems of a task, in one of its styles (None: its first).

    Styles that are text are given as they are, as in base models' evaluations; ``"plain"``, the bare question, becomes a user's
    message where the checkpoint has a chat template, unless ``chat`` is False.

    Raises:
        InvalidInputError: no such style, data missing, or the task runs code and that is not allowed (see `Task.score`).
    """
    style = task.style(style)
    if task.runs_code and not allow_code:
        task.score(Problem(task.name, "", ""), "")  # says what to do, before anything is spent
    if task.runs_code:
        sandbox.check(allow_unconfined)
    stop = task.stop.get(style, ())
    given = {"max_new_tokens": NEW_TOKENS.get(task.name, MANY_TOKENS)} | dict(params or {})
    if stop and "stop" not in given:
        given["stop"] = list(stop)
    problems = task.problems(data, n, seed)
    if chat is None and style != "plain" and problems and isinstance(task.prompt(problems[0], style), str):
        chat = False
    return Questions(
        problems,
        lambda problem: task.prompt(problem, style),
        lambda problem, text: task.score(problem, text, allow_code=allow_code, allow_unconfined=allow_unconfined),
        given,
        chat,
        {"version": task.version, "style": style},
        task.source,
        "max_new_tokens" in (params or {}),
    )

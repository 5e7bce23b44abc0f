"""What a task is: problems, prompts in one or more styles, and an exact scorer. Nothing here imports torch."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attn_sampler.errors import InvalidInputError, UnknownNameError, check_number
from attn_sampler.evals import sandbox

__all__ = ["HELD_OUT_MODULUS", "Message", "Problem", "Prompt", "Score", "Task", "is_held_out"]

HELD_OUT_MODULUS = 16

Message = dict[str, str]  # {"role": "user" | "assistant" | "system", "content": …}
Prompt = str | list[Message]  # text as it is, or a conversation for the chat template


@dataclass(frozen=True)
class Problem:
    """One problem: the prompt, a reference answer, and what a scorer needs.

    Attributes:
        task: name of its task.
        prompt: the question itself; a style of the task puts words around it.
        answer: a text that the scorer accepts.
        difficulty: word problems: number of steps; Sudoku: number of clues; Countdown: how many numbers; MATH: level; else 0.
        id: of the problem in its source, e.g. ``"HumanEval/0"``.
        shots: other questions and their answers, for the styles that show some.
        facts: what else the scorer reads, e.g. the tests of a program.
    """

    task: str
    prompt: str
    answer: str
    difficulty: int = 0
    id: str = ""
    shots: tuple[tuple[str, str], ...] = field(default=(), repr=False, compare=False)
    facts: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False)


@dataclass(frozen=True)
class Score:
    """What a scorer says of one answer.

    Attributes:
        solved: the task's own measure.
        detail: more measures and what led to the verdict (``"extracted"``, ``"outcome"``), JSON types.
    """

    solved: bool
    detail: Mapping[str, float | bool | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """A kind of problem. Its name and version stand for problems, prompts and scorer: a change of any of them is a new version.

    Attributes:
        source: where the problems come from, and under which licence.
        styles: name → how a problem is put to a model; the first is the default.
        load: all problems of a data folder (None: the published files), in their order there; a task whose problems are made
            has `make` beside it.
        judge: problem, text → score; a task that runs code also takes ``timeout_s`` and ``confined``.
        make: ``n, seed`` → problems, for those that are generated where no folder is given.
        stop: strings that end an answer in some style: style → strings.
        runs_code: the scorer runs the answer as a program.
    """

    name: str
    version: int
    source: str
    styles: Mapping[str, Callable[[Problem], Prompt]]
    judge: Callable[..., Score]
    load: Callable[[Path | None], Sequence[Problem]] | None = None
    make: Callable[[int, int], list[Problem]] | None = None
    stop: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    runs_code: bool = False

    def problems(self, data: Path | str | None = None, n: int | None = None, seed: int = 0) -> list[Problem]:
        """``n`` problems, the same for the same arguments.

        Args:
            data: a folder with the data (`attn_sampler.evals.tasks.files` says which files); None: the published files, or
                problems made here. Problems of "word" are always made.
            n: None for all there are (made problems: 500). Fewer than all are drawn without replacement and kept in their order.
            seed: of that draw, or of the making.

        Raises:
            InvalidInputError: files are missing or not what they should be, or hold fewer than ``n`` problems.
        """
        if n is not None:
            check_number("n", n, low=1, integer=True)
        check_number("seed", seed, low=0, integer=True)
        if self.make is not None and (data is None or self.load is None):
            return self.make(500 if n is None else n, seed)
        assert self.load is not None, "a task loads or makes"
        found = list(self.load(None if data is None else Path(data)))
        if n is None or n == len(found):
            return found
        if n > len(found):
            raise InvalidInputError("n", n, f"task {self.name!r} has {len(found)} problems there")
        return [found[i] for i in sorted(random.Random(seed).sample(range(len(found)), n))]

    def prompt(self, problem: Problem, style: str | None = None) -> Prompt:
        """What to give the model: text as it is, or a conversation for its chat template."""
        return self.styles[self.style(style)](problem)

    def style(self, name: str | None = None) -> str:
        """``name`` if it is one of the styles; the default style for None."""
        if name is None:
            return next(iter(self.styles))
        if name not in self.styles:
            raise UnknownNameError(f"style (task {self.name!r})", name, self.styles)
        return name

    def score(
        self,
        problem: Problem,
        text: str,
        *,
        allow_code: bool = False,
        allow_unconfined: bool = False,
        timeout_s: float | None = None,
    ) -> Score:
        """The verdict on an answer.

        Args:
            allow_code: run the answer as a program, where the task does that. Off unless it is given.
            allow_unconfined: do so also where the system cannot keep the program from the network and from files.
            timeout_s: wall clock of one program, seconds.

        Raises:
            InvalidInputError: the task runs code and that is not allowed.
        """
        if not self.runs_code:
            return self.judge(problem, text)
        if not allow_code:
            remedy = f"task {self.name!r} runs programs that the model wrote; give --allow-code (allow_code=True)"
            raise InvalidInputError("allow_code", allow_code, remedy)
        sandbox.check(allow_unconfined)
        return self.judge(problem, text, timeout_s=timeout_s, confined=not sandbox.missing())


def is_held_out(prompt: str) -> bool:
    """Whether this prompt is reserved for evaluation of the embedded model (1 in 16, by CRC-32)."""
    return zlib.crc32(prompt.encode()) % HELD_OUT_MODULUS == 0

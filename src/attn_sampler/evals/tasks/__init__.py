"""Tasks with exact scorers: found by name, versioned, each naming its source. Nothing here imports torch.

``find("gsm8k").problems(data, n, seed)`` gives problems, ``.prompt(problem, style)`` what to put to the model and
``.score(problem, text)`` the verdict.
"""

from __future__ import annotations

from attn_sampler.errors import UnknownNameError
from attn_sampler.evals.tasks.countdown import COUNTDOWN
from attn_sampler.evals.tasks.gsm8k import GSM8K
from attn_sampler.evals.tasks.humaneval import HUMANEVAL
from attn_sampler.evals.tasks.math500 import MATH500
from attn_sampler.evals.tasks.mbpp import MBPP, MBPP_SANITIZED
from attn_sampler.evals.tasks.sudoku4 import (
    SUDOKU4,
    sudoku_grids,
    sudoku_problem,
    sudoku_problems,
    sudoku_prompt,
    sudoku_solved,
)
from attn_sampler.evals.tasks.sudoku9 import SUDOKU9
from attn_sampler.evals.tasks.task import HELD_OUT_MODULUS, Message, Problem, Prompt, Score, Task, is_held_out
from attn_sampler.evals.tasks.word import (
    CONTAINERS,
    GAINS,
    LOSSES,
    PEOPLE,
    RANGES,
    THINGS,
    WORD,
    Ranges,
    final_number,
    sum_problem,
    word_problem,
    word_problems,
)

__all__ = [
    "CONTAINERS", "GAINS", "HELD_OUT_MODULUS", "LOSSES", "PEOPLE", "RANGES", "THINGS",
    "Message", "Problem", "Prompt", "Ranges", "Score", "Task",
    "final_number", "find", "is_held_out", "names", "problems", "solved", "sudoku_grids", "sudoku_problem", "sudoku_problems",
    "sudoku_prompt", "sudoku_solved", "sum_problem", "word_problem", "word_problems",
]  # fmt: skip

_TASKS = {
    task.name: task for task in (*COUNTDOWN, GSM8K, HUMANEVAL, MATH500, MBPP, MBPP_SANITIZED, SUDOKU4, SUDOKU9, WORD)
}  # fmt: skip


def names() -> list[str]:
    """All tasks, sorted."""
    return sorted(_TASKS)


def find(name: str) -> Task:
    """The task of that name.

    Raises:
        UnknownNameError: there is none; the nearest one is named.
    """
    if name not in _TASKS:
        raise UnknownNameError("task", name, _TASKS)
    return _TASKS[name]


def problems(task: str, n: int, seed: int) -> list[Problem]:
    """``n`` held-out problems of a task of the embedded model."""
    makers = {"sudoku4": sudoku_problems, "word": word_problems}
    if task not in makers:
        raise UnknownNameError("task", task, makers)
    return makers[task](n, seed)


def solved(problem: Problem, text: str) -> bool:
    """Whether ``text`` answers a ``problem`` of the embedded model."""
    if problem.task == "sudoku4":
        return sudoku_solved(problem.prompt, text)
    return final_number(text) == final_number(problem.answer)

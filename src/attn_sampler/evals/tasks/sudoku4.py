"""4 x 4 Sudoku, scored by validity: puzzles made here for the embedded model, or those that Dream was evaluated on.

The generators are pure functions of a ``random.Random``; the held-out split is that of the word problems. The embedded model may
have met some of the published puzzles in its training: only the held-out ones measure it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import permutations
from pathlib import Path

from attn_sampler.errors import InvalidInputError
from attn_sampler.evals.tasks.files import records
from attn_sampler.evals.tasks.formats import as_text
from attn_sampler.evals.tasks.task import Problem, Score, Task, is_held_out

__all__ = ["SUDOKU4", "sudoku_grids", "sudoku_problem", "sudoku_problems", "sudoku_prompt", "sudoku_solved"]

HEAD = "Sudoku:\n"
SHOTS = 8


@cache
def sudoku_grids() -> tuple[str, ...]:
    """All 288 complete 4 x 4 Sudoku grids, each as 16 digits row by row."""
    rows = ["".join(p) for p in permutations("1234")]
    return tuple(grid for grid in map("".join, _products(rows)) if _units_complete(grid))


def _products(rows: list[str]) -> Iterator[tuple[str, str, str, str]]:
    for a in rows:
        for b in rows:
            if set(a[:2]) & set(b[:2]) or any(x == y for x, y in zip(a, b, strict=True)):
                continue
            for c in rows:
                if any(x in (y, z) for x, y, z in zip(c, a, b, strict=True)):
                    continue
                # the last row is what each column still lacks
                d = "".join((set("1234") - {x, y, z}).pop() for x, y, z in zip(a, b, c, strict=True))
                yield a, b, c, d


def _units_complete(grid: str) -> bool:
    rows = [grid[i : i + 4] for i in range(0, 16, 4)]
    columns = [grid[i::4] for i in range(4)]
    boxes = [grid[i : i + 2] + grid[i + 4 : i + 6] for i in (0, 2, 8, 10)]
    return all(set(unit) == set("1234") for unit in rows + columns + boxes)


def sudoku_prompt(puzzle: str) -> str:
    """The prompt for a 4 x 4 puzzle given as 16 digits row by row, 0 for an empty cell; white space is ignored."""
    cells = "".join(puzzle.split())
    if len(cells) != 16 or set(cells) - set("01234"):
        raise InvalidInputError("puzzle", puzzle, "give 16 digits from 0 to 4, row by row, 0 for an empty cell")
    return HEAD + _in_rows(cells)


def _in_rows(cells: str) -> str:
    return "\n".join(cells[i : i + 4] for i in range(0, 16, 4))


def sudoku_problem(rng: random.Random, clues: int) -> Problem:
    """A uniformly drawn grid of which ``clues`` uniformly drawn cells are given (the solution need not be unique)."""
    if not 0 <= clues <= 16:
        raise InvalidInputError("clues", clues, "give a number of cells from 0 to 16")
    grid = rng.choice(sudoku_grids())
    given = set(rng.sample(range(16), clues))
    puzzle = "".join(c if i in given else "0" for i, c in enumerate(grid))
    return Problem("sudoku4", sudoku_prompt(puzzle), _in_rows(grid), clues)


def sudoku_problems(n: int, seed: int, clues: tuple[int, ...] = tuple(range(4, 13))) -> list[Problem]:
    """``n`` distinct held-out puzzles, the numbers of clues drawn evenly; the same list for the same seed."""
    rng = random.Random(seed)
    found: dict[str, Problem] = {}
    while len(found) < n:
        problem = sudoku_problem(rng, rng.choice(clues))
        if is_held_out(problem.prompt):
            found.setdefault(problem.prompt, problem)
    return list(found.values())


def sudoku_solved(prompt: str, text: str) -> bool:
    """Whether ``text`` is a complete, valid grid that keeps every clue of ``prompt`` (any valid completion counts)."""
    given = "".join(re.findall(r"[0-4]", prompt))
    cells = "".join(text.split())
    if len(cells) != 16 or set(cells) - set("1234") or not _units_complete(cells):
        return False
    return all(g in ("0", c) for g, c in zip(given, cells, strict=True))


def _load(data: Path | None) -> list[Problem]:
    """All puzzles of the files ``sudoku_4x4_CLUES.jsonl``, the number of clues rising."""
    assert data is not None, "made where no folder is given"
    files = {int(file.stem.rsplit("_", 1)[1]): file for file in (data / "sudoku").rglob("sudoku_4x4_*.jsonl")}
    if not files:
        raise InvalidInputError("data", str(data), "holds no sudoku/**/sudoku_4x4_*.jsonl; leave it out for made puzzles")
    shots, found = _shots(), []
    for clues, file in sorted(files.items()):
        for i, row in enumerate(records(file)):
            prompt = sudoku_prompt(row["input"])
            answer = _in_rows("".join(row["output"].split()))
            found.append(Problem("sudoku4", prompt, answer, clues, f"{file.stem}/{i}", shots))
    return found


@cache
def _shots() -> tuple[tuple[str, str], ...]:
    rng = random.Random("shots")
    return tuple((p.prompt, p.answer) for p in (sudoku_problem(rng, 8) for _ in range(SHOTS)))


def _make(n: int, seed: int) -> list[Problem]:
    return [replace(problem, shots=_shots()) for problem in sudoku_problems(n, seed)]


def _input(prompt: str) -> str:
    return f"Input:\n{prompt.removeprefix(HEAD)}\nOutput:\n"


SUDOKU4 = Task(
    name="sudoku4",
    version=1,
    source="with a data folder DreamLM/Dream's sudoku_4x4 files, 108 puzzles per number of clues, Apache-2.0; else made: "
    "held-out puzzles of the embedded model's generator, 4 to 12 clues",
    styles={
        "plain": lambda problem: problem.prompt,
        "8shot": as_text(SHOTS, _input),
    },
    stop={"8shot": ("\n\n", "Input")},
    load=_load,
    make=_make,
    judge=lambda problem, text: Score(sudoku_solved(problem.prompt, text)),
)

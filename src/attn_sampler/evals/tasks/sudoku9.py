"""9 x 9 Sudoku, scored by validity: any complete grid that keeps the clues counts."""

from __future__ import annotations

import random
import re
from pathlib import Path

from attn_sampler.errors import InvalidInputError, check_number
from attn_sampler.evals.tasks.formats import as_text, in_one_turn
from attn_sampler.evals.tasks.task import Problem, Score, Task

__all__ = ["SUDOKU9", "sudoku9_problem", "sudoku9_solved"]

SHOTS = 3
CLUES = range(36, 56)  # of puzzles made here: easy ones; the published ones have from 17
UNITS = (
    *([9 * r + c for c in range(9)] for r in range(9)),
    *([9 * r + c for r in range(9)] for c in range(9)),
    *([27 * (b // 3) + 3 * (b % 3) + 9 * r + c for r in range(3) for c in range(3)] for b in range(9)),
)


def sudoku9_problem(rng: random.Random, clues: int) -> Problem:
    """A grid of which ``clues`` cells are given (the solution need not be unique).

    The grid is a fixed one with its digits, bands, stacks, rows within bands and columns within stacks shuffled.
    """
    check_number("clues", clues, low=0, high=81, integer=True)
    digits = rng.sample("123456789", 9)

    def lines() -> list[int]:
        return [3 * band + line for band in rng.sample(range(3), 3) for line in rng.sample(range(3), 3)]

    rows, columns = lines(), lines()
    grid = "".join(digits[(3 * (r % 3) + r // 3 + c) % 9] for r in rows for c in columns)
    given = set(rng.sample(range(81), clues))
    return _problem("".join(c if i in given else "0" for i, c in enumerate(grid)), _in_rows(grid), "")


def _problem(cells: str, answer: str, id_: str, shots: tuple[tuple[str, str], ...] = ()) -> Problem:
    return Problem("sudoku9", _in_rows(cells), answer, 81 - cells.count("0"), id_, shots)


def _in_rows(cells: str) -> str:
    return "\n".join(cells[i : i + 9] for i in range(0, 81, 9))


def _shots() -> tuple[tuple[str, str], ...]:
    rng = random.Random("shots")
    return tuple((p.prompt, p.answer) for p in (sudoku9_problem(rng, 45) for _ in range(SHOTS)))


def _make(n: int, seed: int) -> list[Problem]:
    rng, shots = random.Random(seed), _shots()
    made = (sudoku9_problem(rng, rng.choice(CLUES)) for _ in range(n))  # of 10 to the 12th grids, none comes twice
    return [_problem("".join(p.prompt.split()), p.answer, f"made/{seed}/{i}", shots) for i, p in enumerate(made)]


def _load(data: Path | None) -> list[Problem]:
    """Every line of 81 cells in the text files below ``sudoku``, an empty cell as 0 or a point; they come without solutions."""
    assert data is not None, "made where no folder is given"
    found, shots = [], _shots()
    for file in sorted((data / "sudoku").rglob("*.txt")):
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
        puzzles = [line.replace(".", "0") for line in lines if re.fullmatch(r"[\d.]{81}", line)]
        found += [_problem(cells, "", f"{file.stem}/{i}", shots) for i, cells in enumerate(puzzles)]
    if not found:
        raise InvalidInputError("data", str(data), "holds no 9 x 9 puzzles in sudoku/**/*.txt; leave it out for made ones")
    return found


def sudoku9_solved(puzzle: str, text: str) -> bool:
    """Whether ``text`` is a complete, valid grid that keeps every clue; white space is ignored."""
    given, cells = "".join(puzzle.split()), "".join(text.split())
    if len(cells) != 81 or set(cells) - set("123456789"):
        return False
    whole = all(len({cells[i] for i in unit}) == 9 for unit in UNITS)
    return whole and all(g in ("0", c) for g, c in zip(given, cells, strict=True))


def _ask(puzzle: str) -> str:
    return f"Solve this Sudoku; 0 is an empty cell. Answer with the nine rows of the full grid and nothing else.\n{puzzle}"


SUDOKU9 = Task(
    name="sudoku9",
    version=1,
    source="with a data folder norvig/pytudes' puzzles, MIT; else made here, 36 to 55 clues. Shots: made here",
    styles={
        "3shot": as_text(3, lambda q: f"Input:\n{q}\nOutput:\n"),
        "0shot-chat": in_one_turn(0, _ask),
        "plain": as_text(0, str),
    },
    stop={"3shot": ("\n\n", "Input")},
    load=_load,
    make=_make,
    judge=lambda problem, text: Score(sudoku9_solved(problem.prompt, text)),
)

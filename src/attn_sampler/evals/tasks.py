"""The two tasks of the embedded model: arithmetic word problems and 4 x 4 Sudoku, each with an exact scorer.

Both generators are pure functions of a ``random.Random``; nothing here imports torch. A problem belongs to the *held-out*
split when the CRC-32 of its prompt is divisible by 16; training code drops those, evaluation draws only from them.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import permutations

from attn_sampler.errors import InvalidInputError, UnknownNameError

HELD_OUT_MODULUS = 16


@dataclass(frozen=True)
class Problem:
    """One problem: the prompt, a reference answer, and what a scorer needs."""

    task: str
    prompt: str
    answer: str
    difficulty: int  # word problems: number of steps; Sudoku: number of clues


def is_held_out(prompt: str) -> bool:
    """Whether this prompt is reserved for evaluation (1 in 16, by CRC-32)."""
    return zlib.crc32(prompt.encode()) % HELD_OUT_MODULUS == 0


# --- arithmetic word problems ---------------------------------------------------------------------------------------

PEOPLE = (
    ("Tom", "He"), ("Sam", "He"), ("Ben", "He"), ("Max", "He"), ("Leo", "He"), ("Jack", "He"),
    ("Anna", "She"), ("Mia", "She"), ("Sara", "She"), ("Lily", "She"), ("Zoe", "She"), ("Emma", "She"),
)  # fmt: skip
THINGS = (
    "apples", "pears", "books", "coins", "cards", "pens", "shells", "stamps",
    "eggs", "cookies", "marbles", "balls", "stones", "roses", "keys", "hats",
)  # fmt: skip
CONTAINERS = ("boxes", "bags", "jars", "baskets")
GAINS = ("buys", "finds", "gets", "wins")
LOSSES = ("sells", "loses", "gives away", "drops")


@dataclass(frozen=True)
class Ranges:
    """How large the numbers of a word problem get.

    Attributes:
        start: a number given at the start.
        change: a number gained, lost, or by which two people differ.
        factor: number of containers, things in each, friends, price.
        value: what gains and prices lead to at most (``factor`` squared where containers begin the story); a comparison can add
            ``change``, a sum doubles it.
    """

    start: int = 9
    change: int = 5
    factor: int = 4
    value: int = 12


RANGES = Ranges()


def word_problem(rng: random.Random, steps: int, ranges: Ranges = RANGES) -> Problem:
    """A word problem that takes exactly ``steps`` (1 to 3) equations; its answer shows each of them, then ``#### n``."""
    if steps not in (1, 2, 3):
        raise InvalidInputError("steps", steps, "word problems have 1, 2 or 3 steps")
    (name, pronoun), (other, _) = rng.sample(PEOPLE, 2)
    thing = rng.choice(THINGS)
    text: list[str] = []
    equations: list[str] = []

    def step(a: int, op: str, b: int) -> int:
        value = {"+": a + b, "-": a - b, "*": a * b, "/": a // b}[op]
        equations.append(f"{a} {op} {b} = {value}")
        return value

    left = steps
    if rng.random() < 0.35:
        groups, each = rng.randint(2, ranges.factor), rng.randint(2, ranges.factor)
        text.append(f"{name} has {groups} {rng.choice(CONTAINERS)} with {each} {thing} each.")
        value = step(groups, "*", each)
        left -= 1
    else:
        value = rng.randint(2, ranges.start)
        text.append(f"{name} has {value} {thing}.")

    # How the problem ends, and how many equations that takes.
    endings = ["plain"]
    if left >= 1:
        endings += ["compare", "price", "share"]
    if left >= 2:
        endings += ["together", "together"]
    ending = rng.choice(endings)
    ending_steps = {"plain": 0, "compare": 1, "price": 1, "share": 1, "together": 2}[ending]

    for _ in range(left - ending_steps):
        if value >= 2 and (rng.random() < 0.5 or value + ranges.change > ranges.value):
            amount = rng.randint(1, min(ranges.change, value - 1))
            text.append(f"{pronoun} {rng.choice(LOSSES)} {amount}.")
            value = step(value, "-", amount)
        else:
            amount = rng.randint(1, ranges.change)
            text.append(f"{pronoun} {rng.choice(GAINS)} {amount} more.")
            value = step(value, "+", amount)

    prices = [k for k in range(2, ranges.factor + 1) if value * k <= ranges.value]
    shares = [k for k in range(2, ranges.factor + 1) if value % k == 0]
    if (ending == "price" and not prices) or (ending == "share" and not shares):
        ending = "compare"
    if ending == "plain":
        text.append(f"How many {thing} does {name} have?")
    elif ending == "price":
        price = rng.choice(prices)
        text.append(f"Each costs {price} dollars. How many dollars do the {thing} cost?")
        value = step(value, "*", price)
    elif ending == "share":
        friends = rng.choice(shares)
        text.append(f"{pronoun} shares them with {friends} friends. How many {thing} does each friend get?")
        value = step(value, "/", friends)
    else:
        first = value
        more = value < 2 or rng.random() < 0.5
        amount = rng.randint(1, ranges.change if more else min(ranges.change, value - 1))
        text.append(f"{other} has {amount} {'more' if more else 'fewer'} than {name}.")
        value = step(value, "+" if more else "-", amount)
        if ending == "compare":
            text.append(f"How many {thing} does {other} have?")
        else:
            text.append(f"How many {thing} do they have together?")
            value = step(first, "+", value)
    return Problem("word", " ".join(text), "\n".join([*equations, f"#### {value}"]), steps)


def sum_problem(rng: random.Random, steps: int, ranges: Ranges = RANGES) -> Problem:
    """A bare chain of sums and differences, worked in the same form."""
    value = rng.randint(1, ranges.value)
    text, equations = str(value), []
    for _ in range(steps):
        plus = value < 2 or (rng.random() < 0.5 and value + ranges.change <= 2 * ranges.value)
        amount = rng.randint(1, ranges.value if plus and value + ranges.value <= 2 * ranges.value else min(ranges.change, value))
        result = value + amount if plus else value - amount
        text += f" {'+' if plus else '-'} {amount}"
        equations.append(f"{value} {'+' if plus else '-'} {amount} = {result}")
        value = result
    return Problem("sum", f"What is {text}?", "\n".join([*equations, f"#### {value}"]), steps)


def word_problems(n: int, seed: int, steps: tuple[int, ...] = (1, 2, 3)) -> list[Problem]:
    """``n`` distinct held-out word problems, the step counts in turn; the same list for the same seed."""
    rng = random.Random(seed)
    found: dict[str, Problem] = {}
    while len(found) < n:
        problem = word_problem(rng, steps[len(found) % len(steps)])
        if is_held_out(problem.prompt):
            found.setdefault(problem.prompt, problem)
    return list(found.values())


def final_number(text: str) -> int | None:
    """The integer after the last ``####``, or None where there is none."""
    found = re.findall(r"####\s*(-?\d+)", text)
    return int(found[-1]) if found else None


# --- 4 x 4 Sudoku ---------------------------------------------------------------------------------------------------


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
    return "Sudoku:\n" + _in_rows(cells)


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


def problems(task: str, n: int, seed: int) -> list[Problem]:
    """``n`` held-out problems of a task of the embedded model."""
    makers = {"sudoku4": sudoku_problems, "word": word_problems}
    if task not in makers:
        raise UnknownNameError("task", task, makers)
    return makers[task](n, seed)


def sudoku_solved(prompt: str, text: str) -> bool:
    """Whether ``text`` is a complete, valid grid that keeps every clue of ``prompt`` (any valid completion counts)."""
    given = "".join(re.findall(r"[0-4]", prompt))
    cells = "".join(text.split())
    if len(cells) != 16 or set(cells) - set("1234") or not _units_complete(cells):
        return False
    return all(g in ("0", c) for g, c in zip(given, cells, strict=True))


def solved(problem: Problem, text: str) -> bool:
    """Whether ``text`` answers ``problem``."""
    if problem.task == "sudoku4":
        return sudoku_solved(problem.prompt, text)
    return final_number(text) == final_number(problem.answer)

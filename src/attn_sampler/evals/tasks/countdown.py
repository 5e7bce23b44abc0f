"""Countdown: reach a target from 3, 4 or 5 numbers, each used once, by + - * / (as in arXiv 2410.14157 and Dream's evaluation).

A problem is ``15,44,79,50`` (the last is the target), an answer ``44-15=29,79-29=50``, one equation per step. Scored by validity:
any way that uses every number and every result but the last exactly once.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from fractions import Fraction
from functools import partial
from pathlib import Path

from attn_sampler.errors import InvalidInputError, check_number
from attn_sampler.evals.tasks.files import local, records
from attn_sampler.evals.tasks.formats import as_text
from attn_sampler.evals.tasks.task import Problem, Score, Task

__all__ = ["COUNTDOWN", "countdown_problem", "countdown_solved"]

SHOTS = 8
TARGETS = range(10, 101)  # of problems made here; Dream's targets lie there too


def countdown_problem(rng: random.Random, count: int) -> Problem:
    """A problem with ``count`` numbers from 1 to 99 that has a solution in whole, positive steps."""
    check_number("count", count, low=2, high=6, integer=True)
    while True:
        numbers = [rng.randint(1, 99) for _ in range(count)]
        left, equations = list(numbers), []
        while len(left) > 1:
            a, b = sorted((left.pop(rng.randrange(len(left))) for _ in range(2)), reverse=True)
            ways = {"+": a + b, "-": a - b, "*": a * b} | ({"/": a // b} if a % b == 0 else {})
            op = rng.choice(sorted(op for op, value in ways.items() if value > 0))
            equations.append(f"{a}{op}{b}={ways[op]}")
            left.append(ways[op])
        if left[0] in TARGETS:
            return _problem(",".join(map(str, [*numbers, left[0]])), ",".join(equations), "")


def _problem(question: str, answer: str, id_: str, shots: tuple[tuple[str, str], ...] = ()) -> Problem:
    count = question.count(",")
    return Problem(f"countdown{count}", question, answer, count, id_, shots)


def _shots(count: int) -> tuple[tuple[str, str], ...]:
    rng = random.Random(f"shots {count}")
    return tuple((p.prompt, p.answer) for p in (countdown_problem(rng, count) for _ in range(SHOTS)))


def _make(count: int, n: int, seed: int) -> list[Problem]:
    rng, shots = random.Random(seed), _shots(count)
    found: dict[str, Problem] = {}
    while len(found) < n:
        made = countdown_problem(rng, count)
        if all(made.prompt != question for question, _ in shots):
            found.setdefault(made.prompt, _problem(made.prompt, made.answer, f"made/{seed}/{len(found)}", shots))
    return list(found.values())


def _load(count: int, data: Path | None) -> list[Problem]:
    assert data is not None, "made where no folder is given"
    file, shots = local(data, "countdown", f"cd{count}_test.jsonl"), _shots(count)
    rows = records(file)
    for row in rows:
        if not re.fullmatch(rf"\d+(,\d+){{{count}}}", row.get("input", "")):
            raise InvalidInputError("data", str(file), f"{row.get('input')!r} is not {count} numbers and a target")
    return [_problem(row["input"], row["output"], f"cd{count}/{i}", shots) for i, row in enumerate(rows)]


def countdown_solved(question: str, text: str) -> tuple[bool, str]:
    """Whether the equations of ``text`` lead to the target; why not."""
    *numbers, target = (Fraction(number) for number in question.split(","))
    left, value = Counter(numbers), None
    steps = [step.strip() for step in re.split(r"[,\n]", text.strip())]
    for step in steps:
        found = re.fullmatch(r"(\d{1,18})\s*([-+*/])\s*(\d{1,18})\s*=\s*(-?\d{1,18})", step)
        if not found:
            return False, "not an equation"
        a, b, value = Fraction(found[1]), Fraction(found[3]), Fraction(found[4])
        for number in (a, b):
            left[number] -= 1
            if left[number] < 0:
                return False, "a number that is not there"
        if (found[2] == "/" and not b) or {"+": a + b, "-": a - b, "*": a * b, "/": a / (b or 1)}[found[2]] != value:
            return False, "a wrong equation"
        left[value] += 1
    if value != target:
        return False, "another target"
    return (True, "") if left.total() == 1 else (False, "a number left over")


def _judge(problem: Problem, text: str) -> Score:
    solved, why = countdown_solved(problem.prompt, text)
    return Score(solved, {"why": why})


def _task(count: int) -> Task:
    return Task(
        name=f"countdown{count}",
        version=1,
        source=f"with a data folder DreamLM/Dream's cd{count}_test.jsonl, 1000 problems, Apache-2.0; else made, as the shots are",
        styles={
            "8shot": as_text(8, lambda q: f"Input: {q}\nOutput:", lambda a: f" {a}"),
            "plain": as_text(0, str),
        },
        stop={"8shot": ("\n",)},
        load=partial(_load, count),
        make=partial(_make, count),
        judge=_judge,
    )


COUNTDOWN = tuple(_task(count) for count in (3, 4, 5))

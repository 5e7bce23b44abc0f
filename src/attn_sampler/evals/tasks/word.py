"""Arithmetic word problems in a few short sentences, made here; a task of the embedded model.

The generators are pure functions of a ``random.Random``. A problem belongs to the *held-out* split when the CRC-32 of its prompt
is divisible by 16; training code drops those, evaluation draws only from them.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from attn_sampler.errors import InvalidInputError
from attn_sampler.evals.tasks.task import Problem, Score, Task, is_held_out

__all__ = [
    "CONTAINERS", "GAINS", "LOSSES", "PEOPLE", "RANGES", "THINGS", "WORD", "Ranges", "final_number", "sum_problem",
    "word_problem", "word_problems",
]  # fmt: skip

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


def _judge(problem: Problem, text: str) -> Score:
    found = final_number(text)
    return Score(found == final_number(problem.answer), {"extracted": "" if found is None else str(found)})


WORD = Task(
    name="word",
    version=1,
    source="made by attn_sampler.evals.tasks.word_problems: held-out problems of the embedded model's generator, 1 to 3 steps",
    styles={"plain": lambda problem: problem.prompt},
    judge=_judge,
    make=word_problems,
)

"""The evaluation tasks: every reference answer is right, the held-out split is kept, the scorers score exactly."""

from __future__ import annotations

import random
import re
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attn_sampler import InvalidInputError
from attn_sampler.evals import tasks
from attn_sampler.evals.tasks import (
    final_number,
    is_held_out,
    solved,
    sudoku_grids,
    sudoku_problem,
    sudoku_prompt,
    sudoku_solved,
    word_problem,
    word_problems,
)

SEEDS = st.integers(0, 2**32)


# --- word problems ----------------------------------------------------------------------------------------------------


def read(prompt: str) -> int:
    """Solves a problem from its English text alone."""
    value = other = 0
    for sentence in re.findall(r"[^.?]+[.?]", prompt):
        numbers = [int(n) for n in re.findall(r"\d+", sentence)]
        match sentence.split():
            case [_, "has", _, box, "with", *_] if box in tasks.CONTAINERS:
                value = numbers[0] * numbers[1]
            case ["Each", "costs", *_]:
                value *= numbers[0]
            case [_, "shares", *_]:
                value //= numbers[0]
            case [_, "has", _, "more" | "fewer" as direction, *_]:
                other = value + (numbers[0] if direction == "more" else -numbers[0])
            case ["How", "many", *rest]:
                if "together?" in rest:
                    return value + other
                if other and "does" in rest:
                    return other
                return value
            case [_, "has", *_]:
                value = numbers[0]
            case [_, verb, *_] if any(gain.startswith(verb) for gain in tasks.GAINS):
                value += numbers[0]
            case [_, verb, *_] if any(loss.startswith(verb) for loss in tasks.LOSSES):
                value -= numbers[0]
            case ["How", *_]:
                pass
            case _:
                raise AssertionError(sentence)
    return value


@settings(max_examples=300)
@given(SEEDS, st.integers(1, 3))
def test_the_reference_answer_is_right(seed: int, steps: int) -> None:
    problem = word_problem(random.Random(seed), steps)
    *equations, last = problem.answer.split("\n")
    assert len(equations) == problem.difficulty == steps
    values = []
    for equation in equations:
        a, op, b, value = re.fullmatch(r"(\d+) ([-+*/]) (\d+) = (\d+)", equation).groups()  # type: ignore[union-attr]
        exact = {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b), "/": int(a) / int(b)}[op]
        assert exact == int(value), "division comes out even"
        values.append(int(value))
    most = 2 * max(tasks.RANGES.value, tasks.RANGES.factor**2) + tasks.RANGES.change
    assert all(0 <= value <= most for value in values), "numbers that a small model can learn"
    assert last == f"#### {values[-1]}"
    assert read(problem.prompt) == values[-1], "the text says the same as the equations"
    assert solved(problem, problem.answer)
    assert not solved(problem, problem.answer + "1")
    assert problem.task == "word"


@given(SEEDS, st.integers(1, 3))
def test_a_seed_is_a_problem(seed: int, steps: int) -> None:
    assert word_problem(random.Random(seed), steps) == word_problem(random.Random(seed), steps)


def test_word_problems_are_held_out_distinct_and_the_same_for_a_seed() -> None:
    found = word_problems(90, seed=7)
    assert found == word_problems(90, seed=7)
    assert found != word_problems(90, seed=8)
    assert len({p.prompt for p in found}) == 90
    assert all(is_held_out(p.prompt) for p in found)
    assert [p.difficulty for p in found] == [1, 2, 3] * 30
    assert {p.difficulty for p in word_problems(5, seed=0, steps=(2,))} == {2}


def test_about_one_in_sixteen_is_held_out() -> None:
    rng = random.Random(0)
    prompts = {word_problem(rng, 3).prompt for _ in range(4000)}
    share = sum(map(is_held_out, prompts)) / len(prompts)
    assert abs(share - 1 / 16) < 5 * (1 / 16 * 15 / 16 / len(prompts)) ** 0.5
    assert all(is_held_out(p) == (zlib.crc32(p.encode()) % 16 == 0) for p in prompts)


@pytest.mark.parametrize("steps", [0, 4, -1])
def test_steps_out_of_range(steps: int) -> None:
    with pytest.raises(InvalidInputError, match="1, 2 or 3"):
        word_problem(random.Random(0), steps)


@pytest.mark.parametrize(
    ("text", "number"),
    [("#### 7", 7), ("1 + 2 = 3\n####3", 3), ("#### 1 #### -2", -2), ("7", None), ("", None), ("####", None), ("#### x", None)],
)
def test_final_number(text: str, number: int | None) -> None:
    assert final_number(text) == number


# --- Sudoku -----------------------------------------------------------------------------------------------------------


def valid(grid: str) -> bool:
    units = [[(r, c) for c in range(4)] for r in range(4)] + [[(r, c) for r in range(4)] for c in range(4)]
    units += [[(r + i, c + j) for i in (0, 1) for j in (0, 1)] for r in (0, 2) for c in (0, 2)]
    return all({grid[4 * r + c] for r, c in unit} == set("1234") for unit in units)


def test_there_are_288_grids() -> None:
    grids = sudoku_grids()
    assert len(set(grids)) == len(grids) == 288
    assert all(map(valid, grids))


def test_the_prompt_of_a_puzzle() -> None:
    assert sudoku_prompt("4000310410300000") == "Sudoku:\n4000\n3104\n1030\n0000"
    assert sudoku_prompt("4000\n3104 1030\n0000\n") == sudoku_prompt("4000310410300000")


@pytest.mark.parametrize("puzzle", ["", "400031041030000", "40003104103000000", "5000310410300000", "x000310410300000"])
def test_what_is_no_puzzle(puzzle: str) -> None:
    with pytest.raises(InvalidInputError, match="16 digits") as caught:
        sudoku_prompt(puzzle)
    assert caught.value.field == "puzzle"


@given(SEEDS, st.integers(0, 16))
def test_a_puzzle_keeps_its_clues_and_its_answer_solves_it(seed: int, clues: int) -> None:
    problem = sudoku_problem(random.Random(seed), clues)
    cells = problem.prompt.removeprefix("Sudoku:\n").replace("\n", "")
    assert sum(c != "0" for c in cells) == problem.difficulty == clues
    assert valid(problem.answer.replace("\n", ""))
    assert solved(problem, problem.answer)
    assert problem.prompt == sudoku_prompt(cells)


@given(SEEDS, st.integers(0, 16))
def test_any_valid_completion_counts_and_nothing_else(seed: int, clues: int) -> None:
    """Against the definition, over all grids and over grids with one wrong cell."""
    rng = random.Random(seed)
    problem = sudoku_problem(rng, clues)
    cells = problem.prompt.removeprefix("Sudoku:\n").replace("\n", "")
    for grid in rng.sample(sudoku_grids(), 40):
        assert solved(problem, grid) == all(c in ("0", g) for c, g in zip(cells, grid, strict=True))
        i = rng.randrange(16)
        spoilt = grid[:i] + rng.choice([d for d in "01234" if d != grid[i]]) + grid[i + 1 :]
        assert not solved(problem, spoilt)


@pytest.mark.parametrize(
    "text", ["", "1234", "1234\n3412\n2143\n432", "1234\n3412\n2143\n43211", "1234 3412 2143 4321 .", "#### 7"]
)
def test_an_incomplete_grid_is_not_solved(text: str) -> None:
    assert not sudoku_solved(sudoku_prompt("0" * 16), text)


def test_white_space_in_a_grid_does_not_matter() -> None:
    assert sudoku_solved(sudoku_prompt("0" * 16), " 1234\n3412\n2143\n4321\n")


@pytest.mark.parametrize("clues", [-1, 17])
def test_clues_out_of_range(clues: int) -> None:
    with pytest.raises(InvalidInputError, match="0 to 16"):
        sudoku_problem(random.Random(0), clues)

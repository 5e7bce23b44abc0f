"""The model inside the package: it loads through the same code as any LLaDA checkpoint, and it does what its card says."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import attn_sampler as ats
from attn_sampler.engine import EMBEDDED
from attn_sampler.evals.statistics import wilson
from attn_sampler.evals.tasks import solved, sudoku_problem, word_problems

FLOOR_SUDOKU, FLOOR_WORDS = 0.93, 0.93


@pytest.fixture(scope="module")
def engine() -> ats.Engine:
    return ats.load(max_rows=64)


def test_it_fits_the_package() -> None:
    assert sum(file.stat().st_size for file in Path(EMBEDDED).iterdir()) <= 12e6


def test_every_number_and_word_of_its_tasks_is_one_token(engine: ats.Engine) -> None:
    """What the training relied on: a number is the same one token whatever stands before it."""
    assert engine.tokenizer is not None
    for n in range(100):
        (number,) = engine.tokenizer.encode(str(n))
        for text in (f"has {n}", f"3 + {n}", f"#### {n}", f"pens.\n{n}"):
            assert engine.tokenizer.encode(text)[-1] == number
            assert engine.tokenizer.encode(f"{text} pens")[-2] == number


@given(text=st.text(min_size=1, max_size=40).filter(lambda text: "<|" not in text))
def test_its_tokenizer_loses_nothing(engine: ats.Engine, text: str) -> None:
    assert engine.tokenizer is not None
    assert engine.tokenizer.decode(engine.tokenizer.encode(text), clean_up_tokenization_spaces=False) == text


def test_the_documented_contract(engine: ats.Engine) -> None:
    params = ats.SamplingParams(sampler="attention", threshold=0.9, max_new_tokens=64)
    results = engine.generate(["What is 3 + 4?", [12, 34, 5]], params)
    first = results[0]
    assert first.completion_tokens == len(first.token_ids)
    assert first.prompt_tokens > 0
    assert first.forwards > 0
    assert first.elapsed_s > 0
    assert first.finish_reason in ("stop", "length")
    steps = list(engine.stream("What is 3 + 4?", params))
    assert "".join(ats.text_deltas(steps)) == first.text


def test_wilson_interval_against_published_values() -> None:
    """Newcombe, Statistics in Medicine 17 (1998), table I: 81 of 263 gives 0.2553 to 0.3662."""
    low, high = wilson(81, 263, 1.959964)
    assert low == pytest.approx(0.2553, abs=1e-4)
    assert high == pytest.approx(0.3662, abs=1e-4)


def test_it_solves_held_out_problems(engine: ats.Engine) -> None:
    """A floor well under the measured scores (docs/results/embedded.md), so that a broken loader or sampler shows."""
    rng = random.Random(5)
    puzzles = [sudoku_problem(rng, 8) for _ in range(48)]
    sums = word_problems(48, seed=9)
    params = ats.SamplingParams(sampler="confidence", max_new_tokens=24)
    results = engine.generate([p.prompt for p in puzzles + sums], params)
    right = [solved(p, r.text) for p, r in zip(puzzles + sums, results, strict=True)]
    assert sum(right[:48]) >= FLOOR_SUDOKU * 48
    assert sum(right[48:]) >= FLOOR_WORDS * 48

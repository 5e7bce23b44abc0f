"""The recipe that scores the embedded model: its table against one that is counted out from the engine's answers."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

import attn_sampler as ats
from attn_sampler.evals.statistics import wilson
from attn_sampler.evals.tasks import Problem, solved, sudoku_problems, word_problems

RECIPE = Path(__file__).parents[1] / "recipes" / "score_embedded.py"
N, SETTINGS = 3, 4  # the fourth is the one that draws random numbers


def counted(engine: ats.Engine, problems: list[Problem], sampler: str) -> dict[str, Any]:
    params = ats.SamplingParams(sampler=sampler, max_new_tokens=32, seed=0)
    results = engine.generate([problem.prompt for problem in problems], params)
    right = [solved(problem, result.text) for problem, result in zip(problems, results, strict=True)]
    low, high = wilson(sum(right), N)
    levels = sorted({problem.difficulty for problem in problems})
    by = {d: [ok for problem, ok in zip(problems, right, strict=True) if problem.difficulty == d] for d in levels}
    forwards = sum(result.forwards for result in results)
    return {
        "n": N, "solved": sum(right), "accuracy": round(sum(right) / N, 4), "low": round(low, 4), "high": round(high, 4),
        "forwards": round(forwards / N, 2),
        "tokens_per_forward": round(sum(result.completion_tokens for result in results) / forwards, 2),
        "by_difficulty": {str(d): round(sum(some) / len(some), 4) for d, some in by.items()},
    }  # fmt: skip


def test_the_table_is_what_the_engine_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("score_embedded", RECIPE)
    assert spec is not None
    assert spec.loader is not None
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    out, folder = tmp_path / "out" / "scores.json", tmp_path / "answers"
    words = ["--n", str(N), "--only", str(SETTINGS), "--folder", str(folder), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["score_embedded.py", *words])
    recipe.main()
    written = json.loads(out.read_text())
    engine = ats.load()
    tasks = {"sudoku4": sudoku_problems(N, 1), "word": word_problems(N, 1)}
    names = ["confidence", "margin", "entropy", "random"]
    assert written == {task: {name: counted(engine, some, name) for name in names} for task, some in tasks.items()}
    assert "| random |" in out.with_suffix(".md").read_text()
    lines = folder / "samples.jsonl"
    kept = lines.read_text().splitlines(keepends=True)
    lines.write_text("".join(kept[:-2]))  # a run that was cut off goes on
    recipe.main()
    assert len(lines.read_text().splitlines()) == len(kept) == 2 * N * SETTINGS
    assert json.loads(out.read_text()) == written

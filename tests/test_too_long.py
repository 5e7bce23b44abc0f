"""Problems that do not fit the model's context: listed and counted as unsolved, and the run goes on."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
from typer.testing import CliRunner

import attn_sampler as ats
from attn_sampler import Engine, InvalidInputError
from attn_sampler.cli import app
from attn_sampler.evals.metrics import compare, summarise
from attn_sampler.evals.questions import embedded, for_context, questions
from attn_sampler.evals.study import Sample, Setting, Study
from attn_sampler.evals.tasks import Problem, find, problems
from attn_sampler.text import encode

DATA = Path(__file__).parent / "samples"
SETTINGS = [Setting("one by one", "confidence"), Setting("fast", "fast-dllm")]


@pytest.fixture(scope="module")
def engine() -> Engine:
    return ats.load(device="cpu", max_rows=2)


def with_long(at: int, n: int = 3) -> list[Problem]:
    """The first ``n`` problems of a task, and one that is too long in the place ``at``."""
    short = problems("word", n, 3)
    return [*short[:at], dataclasses.replace(short[0], prompt="apples " * 600), *short[at:]]


@pytest.mark.parametrize("at", [0, 2])
def test_the_others_are_answered_as_without_it(at: int, engine: Engine, tmp_path: Path) -> None:
    asked = Study(SETTINGS, {"word": embedded(with_long(at))}, {"max_new_tokens": 32})
    samples = asked.run(engine, tmp_path / "long")
    assert len(samples) == asked.total == 8
    long = [s for s in samples if s.finish_reason == "too_long"]
    assert [(s.setting, s.index, s.solved, s.tokens, s.forwards, s.text) for s in long] == [
        (setting.label, at, False, 0, 0, "") for setting in SETTINGS
    ]
    assert "--max-new-tokens" in str(long[0].detail["error"])
    without = Study(SETTINGS, {"word": embedded(problems("word", 3, 3))}, {"max_new_tokens": 32}).run(engine, tmp_path / "short")
    assert [s.text for s in samples if s not in long] == [s.text for s in without]
    courses = [json.loads(line) for line in (tmp_path / "long" / "examples.jsonl").read_text().splitlines()]
    assert [course["setting"] for course in courses] == [s.label for s in SETTINGS], "of the first problem that fits"
    again = asked.run(engine, tmp_path / "long", on_start=lambda there: pytest.fail("nothing is missing"))
    assert again == samples


def test_it_counts_as_unsolved_and_not_in_means(engine: Engine, tmp_path: Path) -> None:
    samples = Study(SETTINGS, {"word": embedded(with_long(1))}, {"max_new_tokens": 32}).run(engine, tmp_path)

    def fitting(setting: str) -> list[Sample]:
        return [s for s in samples if s.setting == setting and s.finish_reason != "too_long"]

    summaries = summarise(samples)
    for summary in summaries:
        ran = fitting(summary.setting)
        assert (summary.n, summary.too_long, summary.errors) == (4, 1, 0)
        assert summary.accuracy == sum(s.solved for s in ran) / 4
        assert summary.forwards == pytest.approx(sum(s.forwards for s in ran) / 3)
        assert summary.tokens == pytest.approx(sum(s.tokens for s in ran) / 3)
        assert summary.latency_p50_s > 0
        assert summary.log_likelihood == pytest.approx(sum(s.log_likelihood or math.nan for s in ran) / 3)
    (pair,) = compare(samples)
    assert pair.forwards == pytest.approx(summaries[1].forwards - summaries[0].forwards)
    assert pair.forwards_low <= pair.forwards <= pair.forwards_high


def test_a_task_of_which_nothing_fits_is_an_error(engine: Engine, tmp_path: Path) -> None:
    asked = Study(SETTINGS, {"word": embedded(problems("word", 2, 3))}, {"max_new_tokens": 500})
    with pytest.raises(
        InvalidInputError, match=r"max_new_tokens=500: no problem of word fits the context of 512.*--max-new-tokens"
    ):
        asked.run(engine, tmp_path / "r")
    assert not (tmp_path / "r" / "study.json").exists(), "the folder is still free"


def test_the_default_length_leaves_room_for_prompts() -> None:
    asked = questions(find("gsm8k"), data=DATA)
    assert asked.params["max_new_tokens"] == 256
    assert for_context(asked, 512).params["max_new_tokens"] == 128
    assert for_context(asked, 1024) == asked == for_context(asked, 4096)
    given = questions(find("gsm8k"), data=DATA, params={"max_new_tokens": 256})
    assert for_context(given, 512) is given, "what somebody asked for stays"
    word = questions(find("word"), n=2)
    assert for_context(word, 512) is word


def test_the_command_says_it(engine: Engine, tmp_path: Path) -> None:
    asked = ["eval", "--tasks", "gsm8k", "--samplers", "fast-dllm", "--data", str(DATA), "--output", str(tmp_path / "r")]
    task = find("gsm8k")
    lengths = sorted(len(encode(engine.tokenizer, task.prompt(p), False)) for p in task.problems(DATA))
    new = 512 - lengths[-2]
    result = CliRunner().invoke(app, [*asked, "--max-new-tokens", str(new)])
    assert result.exit_code == 0, result.output
    said = f"gsm8k: 1 of {len(lengths)} problems do not fit the model's context with {new} new tokens (by index: "
    assert said in result.stderr
    assert "--max-new-tokens" in result.stderr
    text = (tmp_path / "r" / "report.md").read_text()
    assert said in text
    assert "| too long |" in text
    (row,) = json.loads((tmp_path / "r" / "results.json").read_text())["results"]
    assert (row["too_long"], row["n"]) == (1, len(lengths))

"""Studies: killed anywhere they go on, count nothing twice, and say what the answers say."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import attn_sampler as ats
from attn_sampler import Engine, InvalidInputError, UnknownNameError
from attn_sampler.cli import app
from attn_sampler.evals import ablate
from attn_sampler.evals.statistics import mcnemar
from attn_sampler.evals.study import Sample, Setting, Study, summarise, table
from attn_sampler.evals.tasks import problems, solved


@pytest.fixture(scope="module")
def engine() -> Engine:
    return ats.load(device="cpu", max_rows=4)


def study(n: int = 5) -> Study:
    settings = [Setting("sure", "confidence"), Setting("fast", "fast-dllm", {"threshold": 0.8})]
    return Study(settings, {"word": problems("word", n, 3), "sudoku4": problems("sudoku4", n, 3)})


class KilledError(Exception):
    pass


@pytest.mark.parametrize("after", [1, 9, 20])
@pytest.mark.parametrize("torn", [False, True])
def test_killed_and_started_again(engine: Engine, tmp_path: Path, after: int, torn: bool) -> None:
    whole = study().run(engine, tmp_path / "whole")

    def kill(done: int, total: int) -> None:
        assert total == 20
        if done == after:
            raise KilledError

    with pytest.raises(KilledError):
        study().run(engine, tmp_path / "cut", kill)
    assert engine.unfinished == 0
    file = tmp_path / "cut" / "samples.jsonl"
    assert len(file.read_text().splitlines()) == after
    if torn:
        with file.open("a") as out:
            out.write('{"task": "wo')
    seen: list[int] = []
    again = study().run(engine, tmp_path / "cut", lambda done, total: seen.append(done))
    assert seen == list(range(after + 1, 21)), "what was there is not answered again"
    assert again == whole
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(lines) == 20 == len({(x["task"], x["setting"], x["index"]) for x in lines})


def test_samples_are_what_the_engine_answers(engine: Engine, tmp_path: Path) -> None:
    asked = study()
    for sample in asked.run(engine, tmp_path):
        setting = next(s for s in asked.settings if s.label == sample.setting)
        problem = asked.tasks[sample.task][sample.index]
        steps = list(engine.stream(problem.prompt, asked.params(setting)))
        result, confidences = steps[-1].result, [p for step in steps for p in step.confidences]
        assert result is not None
        assert (sample.text, sample.tokens, sample.forwards) == (result.text, result.completion_tokens, result.forwards)
        assert sample.solved == solved(problem, result.text)
        assert sample.log_likelihood == pytest.approx(sum(map(math.log, confidences)), abs=1e-3)


def test_a_folder_of_something_else_is_left_alone(engine: Engine, tmp_path: Path) -> None:
    study(2).run(engine, tmp_path / "a")
    with pytest.raises(InvalidInputError, match="another study"):
        study(3).run(engine, tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.txt").write_text("mine")
    with pytest.raises(InvalidInputError, match="no study"):
        study(2).run(engine, tmp_path / "b")
    (tmp_path / "c").write_text("a file")
    with pytest.raises(InvalidInputError, match="cannot be used"):
        study(2).run(engine, tmp_path / "c")
    with pytest.raises(InvalidInputError, match="label"):
        Study([Setting("x", "confidence"), Setting("x", "margin")], {})


@given(st.integers(0, 9), st.integers(0, 9))
def test_mcnemar_is_the_binomial_test_counted_out(b: int, c: int) -> None:
    n = b + c
    extreme = sum(abs(2 * sum(coins) - n) >= abs(b - c) for coins in itertools.product((0, 1), repeat=n))
    assert mcnemar(b, c) == pytest.approx(min(1.0, extreme / 2**n))


def test_summary_by_hand() -> None:
    def sample(setting: str, index: int, right: bool, forwards: int) -> Sample:
        return Sample("word", setting, index, 1, "p", "t", right, 12, forwards, -0.5)

    first = [sample("a", i, i < 6, 12) for i in range(10)]
    second = [sample("b", i, i in (0, 1, 2, 7), 4) for i in range(10)]
    a, b = summarise(first + second)
    assert (a.n, a.accuracy, a.forwards, a.tokens_per_forward, a.log_likelihood, a.p) == (10, 0.6, 12, 1.0, -0.5, None)
    assert (b.accuracy, b.tokens_per_forward, b.better, b.worse) == (0.4, 3.0, 1, 3)
    assert b.p == mcnemar(1, 3)
    assert a.low < 0.6 < a.high
    text = table([a, b])
    assert "| a | 60.0 % |" in text
    assert "+1 −3" in text


@pytest.mark.parametrize("name", ablate.ABLATIONS)
def test_every_ablation_is_a_list_of_sound_settings(name: str, engine: Engine) -> None:
    settings = ablate.settings(name, engine.model)
    asked = Study(settings, {})
    assert len({asked.params(setting).sampler for setting in settings}) == len(settings) > 3, "each is another sampler"


def test_a_curve_of_many_layers_is_thinned_out() -> None:
    assert ablate.spread(6) == [1, 2, 3, 4, 5, 6]
    assert ablate.spread(32)[0] == 1
    assert ablate.spread(32)[-1] == 32
    assert len(ablate.spread(32)) == ablate.POINTS
    with pytest.raises(UnknownNameError, match="layers"):
        ablate.settings("layer", dataclasses.make_dataclass("M", [])())


def test_the_command_draws_and_goes_on(tmp_path: Path) -> None:
    asked = ["ablate", "heads", "-n", "2", "--task", "word", "--output", str(tmp_path / "heads")]
    first = CliRunner().invoke(app, asked)
    assert first.exit_code == 0, first.output
    assert "| all 4 heads |" in first.stdout
    assert (tmp_path / "heads" / "table.md").read_text() in first.stdout
    assert (tmp_path / "heads" / "plot.svg").read_text().startswith("<?xml")
    samples = (tmp_path / "heads" / "samples.jsonl").read_text()
    again = CliRunner().invoke(app, asked)
    assert again.stdout == first.stdout
    assert (tmp_path / "heads" / "samples.jsonl").read_text() == samples
    parallel = CliRunner().invoke(app, ["ablate", "rule", "-n", "1", "--output", str(tmp_path / "rule"), "--json"])
    assert {row["task"] for row in json.loads(parallel.stdout)} == {"sudoku4", "word"}

"""Studies: killed anywhere they go on, count nothing twice, and say what the answers say."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

import attn_sampler as ats
from attn_sampler import Engine, InvalidInputError, UnknownNameError
from attn_sampler.cli import app
from attn_sampler.cli.ablate import _limit
from attn_sampler.evals import ablate
from attn_sampler.evals.folder import differences, occupied
from attn_sampler.evals.questions import embedded
from attn_sampler.evals.study import Sample, Setting, Study
from attn_sampler.evals.tasks import problems, solved


@pytest.fixture(scope="module")
def engine() -> Engine:
    return ats.load(device="cpu", max_rows=4)


def study(n: int = 5, threshold: float = 0.8, draws: int = 1) -> Study:
    settings = [Setting("sure", "confidence"), Setting("fast", "fast-dllm", {"threshold": threshold})]
    tasks = {task: embedded(problems(task, n, 3)) for task in ("word", "sudoku4")}
    return Study(settings, tasks, {"max_new_tokens": 32}, draws=draws)


MEASURED = {"elapsed_s": 0.0, "batch_s": 0.0, "peak_bytes": 0, "cpu_s": 0.0}


class KilledError(Exception):
    pass


@pytest.fixture(scope="module")
def whole(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    return study().run(engine, tmp_path_factory.mktemp("whole") / "run")


@pytest.mark.parametrize(("after", "torn"), [(1, True), (9, False), (20, True)])
def test_killed_and_started_again(engine: Engine, whole: list[Sample], tmp_path: Path, after: int, torn: bool) -> None:
    assert [(s.setting, s.task, s.index) for s in whole] == [
        (label, task, i) for label in ("sure", "fast") for task in ("word", "sudoku4") for i in range(5)
    ]

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
    assert [dataclasses.replace(s, **MEASURED) for s in again] == [dataclasses.replace(s, **MEASURED) for s in whole]
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(lines) == 20 == len({(x["task"], x["setting"], x["index"]) for x in lines})
    courses = [json.loads(line) for line in (tmp_path / "cut" / "examples.jsonl").read_text().splitlines()]
    assert {(x["task"], x["setting"]) for x in courses} == {(x["task"], x["setting"]) for x in lines}


def test_samples_are_what_the_engine_answers(engine: Engine, whole: list[Sample]) -> None:
    asked = study()
    for sample in whole[::3]:
        setting = next(s for s in asked.settings if s.label == sample.setting)
        problem = asked.tasks[sample.task].problems[sample.index]
        params = asked.row(setting, sample.task, sample.index)
        steps = list(engine.stream(problem.prompt, params))
        result, confidences = steps[-1].result, [p for step in steps for p in step.confidences]
        assert result is not None
        assert (sample.text, sample.tokens, sample.forwards) == (result.text, result.completion_tokens, result.forwards)
        assert (sample.seed, sample.prompt) == (params.seed, problem.prompt)
        assert sample.solved == solved(problem, result.text)
        assert sample.log_likelihood == pytest.approx(sum(map(math.log, confidences)), abs=1e-3)
        written = {p - step.start: step.forward for step in steps for p in step.positions}
        assert list(sample.order) == [written.get(p, 0) for p in range(32)]


def test_time_is_counted_once(engine: Engine, tmp_path: Path) -> None:
    began = time.perf_counter()
    samples = study().run(engine, tmp_path)
    spent = time.perf_counter() - began
    assert 0 < sum(s.batch_s for s in samples) < spent, "the batch's time, not that of every row in it"
    assert all(0 < s.elapsed_s < spent for s in samples)


def test_every_answer_has_a_seed_of_its_own(engine: Engine, tmp_path: Path) -> None:
    asked = study(1, draws=3)
    assert asked.total == 12
    samples = asked.run(engine, tmp_path)
    assert len({(s.setting, s.task, s.index, s.draw) for s in samples}) == 12
    assert len({s.seed for s in samples}) == 6, "the same under both settings"


def test_a_folder_of_something_else_is_left_alone(engine: Engine, tmp_path: Path) -> None:
    study(2).run(engine, tmp_path / "a")
    with pytest.raises(InvalidInputError, match=r"tasks.word.n was 2, is 3"):
        study(3).run(engine, tmp_path / "a")
    with pytest.raises(InvalidInputError, match=r"settings\[1\].word.options.threshold was 0.8, is 0.7"):
        study(2, threshold=0.7).run(engine, tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.txt").write_text("mine")
    with pytest.raises(InvalidInputError, match="holds no run"):
        study(2).run(engine, tmp_path / "b")
    (tmp_path / "c").write_text("a file")
    with pytest.raises(InvalidInputError, match="cannot be used"):
        study(2).run(engine, tmp_path / "c")
    with pytest.raises(InvalidInputError, match="label"):
        Study([Setting("x", "confidence"), Setting("x", "margin")], {})
    with occupied(tmp_path / "a"), pytest.raises(InvalidInputError, match="another run is writing"):
        study(2).run(engine, tmp_path / "a")


def test_killed_before_the_first_answer(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    (tmp_path / "study.json.part").write_text('{"form')
    assert len(study(1).run(engine, tmp_path)) == 4


def test_differences_say_where() -> None:
    assert differences({"a": [1, {"b": 2}], "c": 1}, {"a": [1, {"b": 2.5}], "d": None, "c": True}) == [
        "a[1].b was 2, is 2.5", "c was 1, is true",
    ]  # fmt: skip
    assert differences({"a": [1, 2]}, {"a": [1]}) == ["a was [1, 2], is [1]"]
    (long,) = differences({"a": "x" * 100 + "yes" + "z" * 100}, {"a": "x" * 100 + "no"})
    assert re.fullmatch('a was …x+yesz+…, is …x+no"', long), "long values are shown where they differ"


def test_what_is_wrong_is_said_before_anything_is_spent(engine: Engine, tmp_path: Path) -> None:
    wrong = dataclasses.replace(problems("word", 1, 3)[0], prompt="", id="word/7")
    asked = Study([Setting("sure", "confidence")], {"word": embedded([*problems("word", 2, 3), wrong])})
    with pytest.raises(InvalidInputError, match="word/7"):
        asked.run(engine, tmp_path)
    assert engine.unfinished == 0
    assert len(study(1).run(engine, tmp_path)) == 4, "and the folder is still free"


@pytest.mark.parametrize("name", ablate.ABLATIONS)
def test_every_ablation_is_a_list_of_sound_settings(name: str, engine: Engine) -> None:
    settings = ablate.settings(name, engine.model)
    asked = Study(settings, {"word": embedded(problems("word", 1, 0))})
    assert len({asked.row(setting, "word").sampler for setting in settings}) == len(settings) > 3, "each is another sampler"


def test_a_curve_of_many_layers_is_thinned_out() -> None:
    assert ablate.spread(6) == [1, 2, 3, 4, 5, 6]
    assert ablate.spread(32)[0] == 1
    assert ablate.spread(32)[-1] == 32
    assert len(ablate.spread(32)) == ablate.POINTS
    with pytest.raises(UnknownNameError, match="layers"):
        ablate.settings("layer", dataclasses.make_dataclass("M", [])())


def test_the_command_draws_and_goes_on(tmp_path: Path) -> None:
    asked = ["ablate", "heads", "--limit", "2", "--tasks", "word", "--output", str(tmp_path / "heads")]
    first = CliRunner().invoke(app, asked)
    assert first.exit_code == 0, first.output
    assert "| all 4 heads |" in first.stdout
    assert (tmp_path / "heads" / "table.md").read_text() in first.stdout
    assert (tmp_path / "heads" / "plot.svg").read_text().startswith("<?xml")
    samples = (tmp_path / "heads" / "samples.jsonl").read_text()
    again = CliRunner().invoke(app, asked)
    assert again.stdout == first.stdout
    assert (tmp_path / "heads" / "samples.jsonl").read_text() == samples
    parallel = CliRunner().invoke(app, ["ablate", "rule", "--limit", "1", "--output", str(tmp_path / "rule"), "--json"])
    assert {row["task"] for row in json.loads(parallel.stdout)} == {"sudoku4", "word"}


def test_an_ablation_takes_the_tasks_and_rows_of_eval(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    folder, samples = tmp_path / "run", Path(__file__).parent / "samples"
    asked = ["ablate", "heads", "--model", str(tiny("llada")), "--output", str(folder)]
    there = ["--tasks", "gsm8k", "--data", str(samples), "--limit", "1", "--style", "plain"]
    rows = ["--max-new-tokens", "8", "--block-length", "4", "--device", "cpu", "--json"]
    done = CliRunner().invoke(app, [*asked, *there, *rows])
    assert done.exit_code == 0, done.output
    assert {(row["task"], row["n"]) for row in json.loads(done.stdout)} == {("gsm8k", 1)}
    about = json.loads((folder / "study.json").read_text())
    assert about["tasks"]["gsm8k"]["style"] == "plain"
    assert {(row["gsm8k"]["max_new_tokens"], row["gsm8k"]["block_length"]) for row in about["settings"]} == {(8, 4)}


def test_an_ablation_of_another_model_names_its_tasks(tmp_path: Path) -> None:
    unnamed = CliRunner().invoke(app, ["ablate", "rule", "--model", "any", "--output", str(tmp_path / "run")])
    assert isinstance(unnamed.exception, InvalidInputError)
    assert unnamed.exception.field == "tasks"
    assert "gsm8k" in unnamed.exception.remedy


def test_ablations_take_200_problems_where_they_are_made_and_all_where_not() -> None:
    assert _limit("sudoku4,word", None, None) == 200
    assert _limit("word", Path("data"), None) == 200, "word problems are always made"
    assert _limit("sudoku4", Path("data"), None) is None
    assert _limit("word,humaneval", None, None) is None
    assert _limit("humaneval", None, 7) == 7

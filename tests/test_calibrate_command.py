"""attn-sampler calibrate and what its files are used for: presets, a bad output, another model or task; the card; the bar."""

from __future__ import annotations

import dataclasses
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import attn_sampler as ats
from attn_sampler import InvalidInputError
from attn_sampler.cli import app
from attn_sampler.cli.loading import own
from attn_sampler.cli.progress import bar
from attn_sampler.cli.questions import model_of
from attn_sampler.evals import card, chosen, presets, published


def refused(*words: str) -> str:
    with pytest.raises(InvalidInputError) as caught:
        CliRunner().invoke(app, list(words), catch_exceptions=False)
    return str(caught.value)


# --- before anything is spent -----------------------------------------------------------------------------------------


def test_an_output_that_cannot_be_written_is_said_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError

    monkeypatch.setattr("attn_sampler.cli.calibrate.load_engine", never)
    (tmp_path / "file").write_text("")
    for output in (tmp_path, tmp_path / "file" / "x.json"):
        assert "cannot be written" in refused("calibrate", "--task", "word", "--limit", "2", "--output", str(output))


def test_looking_leaves_no_file(tmp_path: Path) -> None:
    chosen.check(tmp_path / "a" / "x.json")
    assert not (tmp_path / "a" / "x.json").exists()
    (tmp_path / "kept.json").write_text("kept")
    chosen.check(tmp_path / "kept.json")
    assert (tmp_path / "kept.json").read_text() == "kept"


# --- presets ----------------------------------------------------------------------------------------------------------


def test_calibrate_takes_a_preset_steps_and_temperature(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    words = ["calibrate", "--task", "sudoku4", "--preset", "dream-base", "-m", "embedded", "--style", "plain", "--limit", "2"]
    words += ["--sampler", "fast-dllm", "-o", "threshold=0.5,0.9", "--max-new-tokens", "32", "--steps", "32", "-t", "0.2"]
    result = CliRunner().invoke(app, [*words, "--output", str(file)])
    assert result.exit_code == 0, (result.output, result.exception)
    study = json.loads((tmp_path / "x.json.run" / "study.json").read_text())
    assert study["model"] == "embedded", "-m goes before the preset's model"
    assert study["tasks"]["sudoku4"]["params"] == {"max_new_tokens": 32, "steps": 32, "temperature": 0.2}
    assert chosen.read(file).origin["task"]["name"] == "sudoku4"


def test_the_error_shows_the_name_that_was_typed() -> None:
    for call in (lambda: published.apply("llada-base", ["word"]), lambda: presets.find("llada-base").task("word")):
        with pytest.raises(InvalidInputError, match=r"preset='llada-base': has no published setting of 'word'"):
            call()


def test_embedded_is_a_name_of_the_model() -> None:
    applied = dataclasses.replace(published.apply("llada-base", ["gsm8k"]))
    assert own("embedded") is None
    assert own(None) is None
    assert own("./embedded") == "./embedded"
    assert model_of(None, applied) == applied.model
    assert model_of("embedded", applied) is None
    assert model_of("mine", applied) == "mine"


# --- files of options, used elsewhere ---------------------------------------------------------------------------------

FILES = {"config.json": "ab"}
ORIGIN = {"card": {"model": "some/model", "model_files_sha256": FILES}, "task": {"name": "word"}}


def test_options_chosen_for_something_else() -> None:
    found = chosen.Chosen("attention", {}, ORIGIN)
    assert not chosen.elsewhere("x.json", found, "some/model", ["word"], FILES)
    assert not chosen.elsewhere("x.json", found, "a/copy", ["word"], FILES), "the files count where they are known"
    assert not chosen.elsewhere("x.json", found, "some/model")
    (model,) = chosen.elsewhere("x.json", found, "other")
    assert model == "The options in x.json were chosen for the model some/model, not for other: they may not suit it."
    (files,) = chosen.elsewhere("x.json", found, "some/model", ["word"], {"config.json": "cd"})
    assert "(other files)" in files
    (task,) = chosen.elsewhere("x.json", found, "some/model", ["word", "sudoku4"], FILES)
    assert "chosen on word, not on sudoku4" in task
    assert not chosen.elsewhere("x.json", chosen.Chosen("attention", {}), "other", ["word"], FILES), "nothing is known of it"


def test_the_commands_say_it(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    chosen.write(file, chosen.Chosen("fast-dllm", {"threshold": 0.8}, ORIGIN))
    words = [
        "eval",
        "--tasks",
        "sudoku4",
        "--samplers",
        "confidence",
        "-o",
        f"@{file}",
        "--limit",
        "1",
        "--output",
        str(tmp_path / "r"),
    ]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, (result.output, result.exception)
    said = ("chosen for the model some/model, not for embedded", "chosen on word, not on sudoku4")
    report = (tmp_path / "r" / "report.md").read_text()
    assert all(text in result.stderr and text in report for text in said)
    written = CliRunner().invoke(app, ["generate", "-o", f"@{file}", "--max-new-tokens", "8", "What is 1 + 2?"])
    assert written.exit_code == 0, written.output
    assert said[0] in written.stderr


# --- the card, the bar ------------------------------------------------------------------------------------------------


def test_the_card_says_how_end_tokens_were_handled() -> None:
    engine = ats.load(device="cpu")
    plain = card.card(engine, "embedded", {}, [], 0)["eos"]["handling"]
    assert plain.startswith("a row ends at its first end-of-sequence token")
    assert "(" not in plain
    rows = {"gsm8k": {"confidence_eos_eot_inf": True}, "humaneval": {"logits_eos_inf": True}, "mbpp": {"steps": 4}}
    said = card.card(engine, "embedded", {}, [], 0, rows)["eos"]["handling"]
    assert "on gsm8k end tokens are committed last (confidence_eos_eot_inf)" in said
    assert "on humaneval it is never proposed (logits_eos_inf)" in said
    assert "mbpp" not in said


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_bar_moves_on_a_terminal_and_is_nothing_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    with bar("answers") as on_sample:
        assert on_sample is not None
        on_sample(3, 10)
    assert "answers" in shown.getvalue()
    assert "3/10" in shown.getvalue()
    silent = io.StringIO()
    monkeypatch.setattr(sys, "stderr", silent)
    with bar("answers") as nothing:
        assert nothing is None
    assert not silent.getvalue()

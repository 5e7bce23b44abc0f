"""Starts of a run: a report states the conditions under which its answers were made, not those under which it was written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import attn_sampler as ats
from attn_sampler import Engine
from attn_sampler.evals import card
from attn_sampler.evals.evaluate import evaluate, write
from attn_sampler.evals.questions import embedded
from attn_sampler.evals.report import Evaluation
from attn_sampler.evals.starts import Start, Starts, notes
from attn_sampler.evals.study import Setting, Study
from attn_sampler.evals.tasks import problems

STUDY = Study([Setting("fast", "fast-dllm")], {"word": embedded(problems("word", 3, 5))}, {"max_new_tokens": 32})


class KilledError(Exception):
    pass


def kill_after(answers: int) -> Any:
    def on_sample(done: int, total: int) -> None:
        if done == answers:
            raise KilledError

    return on_sample


@pytest.fixture(scope="module")
def engine() -> Engine:
    return ats.load(device="cpu", max_rows=2)


def about(engine: Engine, **other: Any) -> dict[str, Any]:
    return card.card(engine, "embedded", {}, ["attn-sampler", "eval"], 0) | other


def report(found: Evaluation, folder: Path) -> tuple[str, dict[str, Any]]:
    write(found, folder)
    return (folder / "report.md").read_text(), json.loads((folder / "results.json").read_text())


def test_a_report_written_again_keeps_the_card_of_the_run(engine: Engine, tmp_path: Path) -> None:
    first = report(evaluate(engine, STUDY, tmp_path, about(engine, threads=1)), tmp_path)
    other = about(engine, threads=2, git_commit="0123abc-dirty", command=["another"])
    again = report(evaluate(engine, STUDY, tmp_path, other), tmp_path)
    assert again == first
    assert first[1]["card"]["threads"] == 1
    assert len((tmp_path / "starts.jsonl").read_text().splitlines()) == 1
    assert "Resumed" not in first[0]


def test_a_run_finished_under_other_conditions_says_so(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        evaluate(engine, STUDY, tmp_path, about(engine, threads=1), on_sample=kill_after(1))
    other = about(engine, threads=2, attn_sampler="9.9", packages={"torch": "0.1"})
    text, results = report(evaluate(engine, STUDY, tmp_path, other), tmp_path)
    assert "Resumed once, after 1 answers." in text
    assert "from answer 2 on" in text
    assert "threads was 1, is 2" in text
    assert 'attn_sampler was "0.1.0' in text
    assert 'is "9.9"' in text
    assert "| otherwise than the first |" in text
    assert results["card"]["threads"] == 1
    assert [start["answers"] for start in results["starts"]] == [0, 1]
    assert "threads was 1, is 2" in results["starts"][1]["changed"]
    assert any(line.startswith("packages.torch was") for line in results["starts"][1]["changed"])


def test_costs_measured_by_another_start_count_as_its_work(engine: Engine, tmp_path: Path) -> None:
    evaluate(engine, STUDY, tmp_path, about(engine))
    (tmp_path / "costs.jsonl").unlink()
    found = evaluate(engine, STUDY, tmp_path, about(engine, threads=7))
    assert [start.answers for start in found.starts] == [0, 3]


def test_answers_without_a_card_are_not_given_one(engine: Engine, tmp_path: Path) -> None:
    STUDY.run(engine, tmp_path)
    text, _ = report(evaluate(engine, STUDY, tmp_path, about(engine)), tmp_path)
    assert "The first 3 answers were made without a card" in text


def test_a_start_killed_in_its_line_is_no_start(tmp_path: Path) -> None:
    (tmp_path / "starts.jsonl").write_text('{"began": "2026')
    starts = Starts(tmp_path, {"threads": 1, "command": []})
    starts.begin(2)
    starts.begin(5)
    (one,) = starts.found
    assert (one.answers, one.card["threads"]) == (2, 1)


def test_another_command_for_the_same_run_is_no_change() -> None:
    starts = [Start("", i, {"threads": 1, "command": [str(i)]}) for i in range(3)]
    (resumed,) = notes(starts)
    assert resumed.startswith("Resumed 2 times, after 1, 2 answers.")
    assert not notes(starts[:1])


def test_source_is_told_apart_below_the_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "__init__.py").write_text("a = 1\n")
    monkeypatch.setattr(card.attn_sampler, "__file__", str(tmp_path / "__init__.py"))
    before = card._source()
    assert card._source() == before
    (tmp_path / "__init__.py").write_text("a = 2\n")
    assert card._source() != before

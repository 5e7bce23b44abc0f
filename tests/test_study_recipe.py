"""The recipe of the study: no sampler is missing from it, its settings are accepted, and what it prints is what was found."""

from __future__ import annotations

import importlib
import json
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from attn_sampler import exits, samplers
from attn_sampler.evals.sweep import settings
from attn_sampler.frequencies import Frequencies

RECIPES = Path(__file__).parents[1] / "recipes"


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(RECIPES))
    return importlib.import_module("study")


def test_every_sampler_is_in_one_of_the_two_evaluations(recipe: ModuleType) -> None:
    sequential, parallel, blocks = (set(recipe.PARTS[name].samplers) for name in ("sequential", "parallel", "blocks"))
    assert sequential | parallel == set(samplers.BUILT_IN), "whoever adds a sampler adds it to recipes/study_parts.py"
    assert sequential & parallel == {"confidence"}
    assert blocks <= sequential | parallel


def test_its_settings_are_accepted(recipe: ModuleType, tmp_path: Path) -> None:
    table = tmp_path / "frequencies.json"
    Frequencies.count([1, 2], 640).write(table)
    for part in recipe.PARTS.values():
        _, names, *words = part.command(str(table))
        options = [text for key, text in pairwise(words) if key == "-o"]
        found = settings(names.split(","), options)
        assert found[0].label == "confidence", "all others are compared with it"
        assert len({setting.label for setting in found}) == len(found)
        assert all(len(set(setting.options) & {"threshold", "factor", "gamma", "k"}) <= 1 for setting in found)
    left = {
        str(s.options.get("early_exit"))
        for s in settings(["confidence"], [f"confidence.{recipe.PARTS['sequential'].samplers['confidence'][0]}"])
    }
    assert left == {"None", *exits.names()}, "every early exit"


def found(settings_: dict[str, tuple[float, str]]) -> dict[str, Any]:
    """Results of made-up settings: accuracy and verdict, the first without one."""
    results = [
        {"task": "word", "setting": name, "n": 10, "draws": 1, "accuracy": a, "low": a - 0.1, "high": a + 0.05, "forwards": 4.0,
         "tokens_per_forward": 2.51, "tokens_per_s": 99.7}
        for name, (a, _) in settings_.items()
    ]  # fmt: skip
    first, (top, _) = next(iter(settings_.items()))
    pairs = [
        {"task": "word", "setting": name, "against": first, "difference": a - top, "low": -0.2, "high": 0.1, "p_holm": 0.0123,
         "verdict": verdict}
        for name, (a, verdict) in settings_.items() if name != first
    ]  # fmt: skip
    aup = [
        {"task": "word", "series": "b", "settings": 2, "aup": 12.345},
        {"task": "word", "series": "c", "settings": 1, "aup": 1.0},
    ]
    return {"results": results, "comparisons": pairs, "aup": aup, "series": {}}


def test_it_says_who_is_told_from_the_first_and_by_how_much(recipe: ModuleType) -> None:
    lines = recipe.said(found({"a": (0.9, ""), "b 1": (0.8, "worse"), "b 2": (0.85, "not shown"), "c": (0.82, "worse")}))
    assert lines[0] == "- **word**, 10 problems, a 90.0 % (80.0 – 95.0), 4.0 forwards"
    assert [line.strip() for line in lines if line.startswith("  - ")] == [
        "- better: 0",
        "- not shown: 1",
        "- worse: 2",
        "- AUP: b 12.3",
    ]
    assert [line.split("`")[1] for line in lines if "`" in line] == ["b 2", "c", "b 1"], "the better ones first"
    assert "−10.0 points, 95 % interval −20.0 to +10.0, p 0.012 (Holm)" in lines[-2]
    assert "2.51 tokens per pass" in lines[-2]


def test_what_is_published(recipe: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, target = tmp_path / "run", tmp_path / "docs"
    (folder / "plots").mkdir(parents=True)
    (folder / "plots" / "a.svg").write_text("<svg/>")
    (folder / "report.md").write_text("# Title\n\nConditions.\n\n## word\n")
    (folder / "report.html").write_text("<h1>Title</h1><p>Conditions.</p>")
    (folder / "results.json").write_text(json.dumps({"comparisons": [{"p": 0.123456789}], "n": 500}, indent=1))
    (folder / "samples.jsonl").write_text("{}\n")
    target.mkdir()
    (target / "old.svg").write_text("")
    recipe.publish(folder, target, "Why <it> is so.")
    assert (target / "report.md").read_text() == "# Title\n\nWhy <it> is so.\n\nConditions.\n\n## word\n"
    assert "</h1>\n<p>Why &lt;it&gt; is so.</p><p>Cond" in (target / "report.html").read_text()
    assert json.loads((target / "results.json").read_text()) == {"comparisons": [{"p": 0.1235}], "n": 500}
    assert {path.name for path in target.iterdir()} == {"report.md", "report.html", "results.json", "plots"}
    (folder / "report.html").write_text("<h1></h1>" + "x" * recipe.LARGEST)
    recipe.publish(folder, target, "")
    assert "left out" in capsys.readouterr().out
    assert not (target / "report.html").exists()

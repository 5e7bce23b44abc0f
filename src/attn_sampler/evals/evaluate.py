"""An evaluation: a study, what it costs, its report; one folder that holds it all and goes on where it was killed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attn_sampler import plots
from attn_sampler.engine import Engine
from attn_sampler.evals import cost, metrics
from attn_sampler.evals.folder import append, read_lines, write_whole
from attn_sampler.evals.pages import Picture, markdown, page
from attn_sampler.evals.report import Evaluation, blocks
from attn_sampler.evals.starts import Starts, changes
from attn_sampler.evals.study import Sample, Study

__all__ = ["FORMAT", "VERSION", "evaluate", "write"]

FORMAT, VERSION = "attn-sampler-eval", 1


def evaluate(
    engine: Engine,
    study: Study,
    folder: Path,
    card: Mapping[str, Any],
    notes: tuple[str, ...] = (),
    on_sample: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Run what the folder lacks, and say what all of it says. See `Study.run`.

    Args:
        card: of this start; the report has that of the first start that did something, and what the others had otherwise.
    """
    starts = Starts(folder, card)
    samples = study.run(engine, folder, on_sample, starts.begin)
    summaries = metrics.summarise(samples)
    series = {setting.label: setting.series or setting.label for setting in study.settings}
    courses: dict[str, dict[str, Any]] = {}
    for line in read_lines(folder / "examples.jsonl"):
        courses.setdefault(line["task"], {})[line["setting"]] = {"length": line["length"], "steps": line["steps"]}
    costs = _costs(engine, study, samples, folder / "costs.jsonl", lambda: starts.begin(len(samples)))
    if not starts.found:  # whoever made the answers kept no card
        starts.begin(len(samples))
    return Evaluation(
        starts.found[0].card, series, summaries, metrics.compare(samples), metrics.frontiers(summaries, series),
        metrics.agreement(samples), costs, courses,
        {name: {**asked.describe(), "source": asked.source} for name, asked in study.tasks.items()}, samples, notes,
        starts.found,
    )  # fmt: skip


def _costs(
    engine: Engine, study: Study, samples: Sequence[Sample], file: Path, on_start: Callable[[], None]
) -> dict[str, dict[str, dict[str, float]]]:
    """Shares of the time of every setting on every task; what the file holds is not measured again."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    long = {(s.task, s.index) for s in samples if s.finish_reason == "too_long"}
    for line in read_lines(file):
        found.setdefault(line["task"], {})[line["setting"]] = line["shares"]
    with file.open("a", encoding="utf-8") as out:
        for setting in study.settings:
            for task, asked in study.tasks.items():
                if setting.label in found.get(task, {}):
                    continue
                on_start()
                prompts = [asked.prompt(problem) for i, problem in enumerate(asked.problems) if (task, i) not in long][
                    : engine.max_rows
                ]
                shares = cost.shares(engine, prompts, study.row(setting, task), asked.chat)
                append(out, {"task": task, "setting": setting.label, "shares": shares})
                found.setdefault(task, {})[setting.label] = shares
    return found


def write(found: Evaluation, folder: Path) -> list[Path]:
    """``results.json``, ``report.md`` with ``plots/*.svg``, ``report.html``; the files, the last one is the page."""
    parts = blocks(found)
    results = {
        "format": FORMAT, "version": VERSION, "card": found.card, "tasks": found.tasks,
        "starts": [
            {"began": start.began, "answers": start.answers, "command": start.card["command"], "changed": changed}
            for start, changed in zip(found.starts, changes(found.starts), strict=True)
        ],
        "series": found.series, "notes": list(found.notes),
        "results": [dataclasses.asdict(s) | {"cost": found.costs.get(s.task, {}).get(s.setting, {})} for s in found.summaries],
        "comparisons": [dataclasses.asdict(c) for c in found.comparisons],
        "aup": found.aup, "order_agreement": found.agreement,
    }  # fmt: skip
    write_whole(folder / "results.json", json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    (folder / "plots").mkdir(exist_ok=True)
    for part in parts:
        if isinstance(part, Picture):
            write_whole(folder / "plots" / f"{part.name}.svg", part.svg)
    write_whole(folder / "report.md", markdown(parts))
    write_whole(folder / "report.html", page(f"attn-sampler: {found.card['model']}", parts, plots.inline))
    return [folder / name for name in ("results.json", "report.md", "report.html")]

"""The command that runs the paper's ablations."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from attn_sampler.cli.loading import load_engine
from attn_sampler.cli.options import AsJson, Loading, Model, spread
from attn_sampler.cli.progress import bar
from attn_sampler.errors import check_number

__all__ = ["ablate"]


@spread
def ablate(
    name: Annotated[str, typer.Argument(metavar="NAME", help="layers, heads, rule or threshold.")],
    output: Annotated[Path, typer.Option(metavar="DIR", help="Keeps every answer; a run cut off goes on there.")],
    task: Annotated[list[str] | None, typer.Option(help="sudoku4 or word; repeatable.  [default: both]")] = None,
    n: Annotated[int, typer.Option("-n", help="Problems of each task.")] = 200,
    max_new_tokens: Annotated[int, typer.Option(help="Masks appended to the prompt.")] = 32,
    seed: Annotated[int, typer.Option(help="Of problems and rows.")] = 0,
    model: Model = None,
    as_json: AsJson = False,
    *,
    loading: Loading,
) -> None:
    """What the choices inside Attn-Sampler are worth: layers, heads, the rule, the probability threshold.

    Writes DIR/table.md and DIR/plot.svg (the plot needs the extra plots).
    """
    from attn_sampler import plots
    from attn_sampler.evals import ablate as ablations
    from attn_sampler.evals.metrics import summarise
    from attn_sampler.evals.questions import embedded
    from attn_sampler.evals.report import table
    from attn_sampler.evals.study import Study
    from attn_sampler.evals.tasks import problems

    check_number("n", n, low=1, integer=True)
    plots.check(output / "plot.svg")
    tasks = {one: embedded(problems(one, n, seed)) for one in task or ("sudoku4", "word")}
    engine = load_engine(model, loading)
    settings = ablations.settings(name, engine.model)
    params = {"max_new_tokens": max_new_tokens}
    study = Study(settings, tasks, params, seed=seed, model=model or "embedded")
    with bar("answers") as on_sample:
        summaries = summarise(study.run(engine, output, on_sample))
    text = table(summaries)
    (output / "table.md").write_text(text, encoding="utf-8")
    series = {setting.label: setting.series for setting in settings if setting.series}
    plots.save(plots.frontier(summaries, series) if series else plots.accuracies(summaries), output / "plot.svg")
    typer.echo(json.dumps([dataclasses.asdict(s) for s in summaries]) if as_json else text)
    typer.echo(f"wrote {output}/table.md and {output}/plot.svg", err=True)

"""The command that runs the paper's ablations."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attn_sampler.cli.loading import load_engine
from attn_sampler.cli.options import (
    AsJson,
    BlockLength,
    CachePolicy,
    Data,
    Loading,
    MaxRows,
    Model,
    Raw,
    Style,
    TaskTokens,
    spread,
)  # fmt: skip
from attn_sampler.cli.progress import bar
from attn_sampler.cli.questions import Programs, commanded, conditions, confined, given, named, questions_of
from attn_sampler.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from attn_sampler.evals.metrics import Summary
    from attn_sampler.evals.study import Setting

__all__ = ["ablate"]

OWN_TASKS = "sudoku4,word"  # of the embedded model
MADE = 200  # problems of a task whose problems are made


@spread
def ablate(
    name: Annotated[str, typer.Argument(metavar="NAME", help="layers, heads, rule or threshold.")],
    output: Annotated[Path, typer.Option(metavar="DIR", help="Keeps every answer; a run cut off goes on there.")],
    tasks: Annotated[
        str | None, typer.Option(metavar="NAME,…", help="Tasks, as of eval.  [default: the embedded model's, sudoku4,word]")
    ] = None,
    data: Data = None,
    limit: Annotated[
        int | None, typer.Option(help="Problems of each task.  [default: 200 where they are made, else all]")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of problems and random numbers.")] = 0,
    style: Style = None,
    max_new_tokens: TaskTokens = None,
    block_length: BlockLength = None,
    cache: CachePolicy = None,
    max_rows: MaxRows = 32,
    model: Model = None,
    as_json: AsJson = False,
    raw: Raw = False,
    *,
    loading: Loading,
    programs: Programs,
) -> None:
    """What the choices inside Attn-Sampler are worth: layers, heads, the rule, the probability threshold.

    Writes DIR/table.md and DIR/plot.svg (the plot needs the extra plots).
    """
    from attn_sampler import plots
    from attn_sampler.evals import ablate as ablations
    from attn_sampler.evals.card import card, files_of
    from attn_sampler.evals.metrics import summarise
    from attn_sampler.evals.study import Study

    plots.check(output / "plot.svg")
    if tasks is None and model is not None:
        raise InvalidInputError("tasks", tasks, f"name the tasks, say gsm8k; without --model they are {OWN_TASKS}")
    tasks = OWN_TASKS if tasks is None else tasks
    params = given(max_new_tokens=max_new_tokens, block_length=block_length, cache=cache)
    asked = questions_of(tasks, data, _limit(tasks, data, limit), seed, style, params, raw, programs)
    files = files_of(model, loading.adapter)
    engine = load_engine(model, loading, max_rows=max_rows)
    settings = ablations.settings(name, engine.model)
    about = card(engine, model or "embedded", files, commanded(), seed) | confined(asked)
    study = Study(settings, asked, seed=seed, model=model or "embedded", conditions=conditions(about, loading))
    with bar("answers") as on_sample:
        summaries = summarise(study.run(engine, output, on_sample))
    text = _write(summaries, settings, output)
    typer.echo(json.dumps([dataclasses.asdict(s) for s in summaries]) if as_json else text)
    typer.echo(f"wrote {output}/table.md and {output}/plot.svg", err=True)


def _limit(tasks: str, data: Path | None, limit: int | None) -> int | None:
    """Problems of each task; those that are made have no end, so there it is `MADE` where nothing is said."""
    from attn_sampler.evals.tasks import find

    made = all(task.make is not None and (data is None or task.load is None) for task in map(find, named("tasks", tasks)))
    return MADE if limit is None and made else limit


def _write(summaries: Sequence[Summary], settings: Sequence[Setting], output: Path) -> str:
    """The table, which goes into the folder with its plot."""
    from attn_sampler import plots
    from attn_sampler.evals.report import table
    from attn_sampler.frontier import frontier

    text = table(summaries)
    (output / "table.md").write_text(text, encoding="utf-8")
    series = {setting.label: setting.series for setting in settings if setting.series}
    plots.save(frontier(summaries, series) if series else plots.accuracies(summaries), output / "plot.svg")
    return text

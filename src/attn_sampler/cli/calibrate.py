"""The command that picks a sampler's options for a model and a task."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    Steps,
    Style,
    SweptOption,
    SweptTemperature,
    TaskTokens,
    spread,
)  # fmt: skip
from attn_sampler.cli.progress import bar
from attn_sampler.cli.questions import Programs, commanded, conditions, confined, given, model_of, questions_of
from attn_sampler.errors import InvalidInputError, check_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from attn_sampler.evals.calibrate import Point

__all__ = ["calibrate"]


@spread
def calibrate(
    task: Annotated[str, typer.Option(help="One task.")],
    output: Annotated[Path, typer.Option(metavar="FILE", help="The options as JSON, for -o @FILE.")],
    sampler: Annotated[str, typer.Option(help="Whose options are picked.")] = "attention",
    option: SweptOption = None,
    preset: Annotated[
        str | None, typer.Option(help="Published settings of a model: prompts, lengths, options; other options go before them.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Sequential sampler.  [default: SAMPLER-sequential where there is one, else confidence]")
    ] = None,
    limit: Annotated[int, typer.Option(help="Calibration problems.")] = 200,
    seed: Annotated[int, typer.Option(help="Of problems and random numbers; evaluate with another one.")] = 1000,
    folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keeps every answer; a run cut off goes on there.  [default: FILE.run]")
    ] = None,
    data: Data = None,
    style: Style = None,
    max_new_tokens: TaskTokens = None,
    block_length: BlockLength = None,
    steps: Steps = None,
    temperature: SweptTemperature = None,
    cache: CachePolicy = None,
    max_rows: MaxRows = 32,
    model: Model = None,
    as_json: AsJson = False,
    raw: Raw = False,
    *,
    loading: Loading,
    programs: Programs,
) -> None:
    """Pick a sampler's options: the fastest setting whose accuracy is not significantly below sequential decoding."""
    from attn_sampler.evals import calibrate as calibration
    from attn_sampler.evals.card import card, files_of
    from attn_sampler.evals.chosen import check, write
    from attn_sampler.evals.published import apply
    from attn_sampler.evals.questions import for_context, prints
    from attn_sampler.evals.starts import Starts, notes
    from attn_sampler.evals.study import Study

    check_number("limit", limit, low=1, integer=True)
    if "," in task:
        raise InvalidInputError("task", task, "calibrate on one task at a time")
    check(output)
    params = given(
        block_length=block_length, cache=cache, max_new_tokens=max_new_tokens, steps=steps, temperature=temperature
    )  # fmt: skip
    applied = None if preset is None else apply(preset, [task])
    asked = questions_of(task, data, limit, seed, style, params, raw, programs, applied)
    defaults = {} if applied is None else {applied.sampler: applied.options}
    swept = calibration.candidates(sampler, option or (), against, defaults)
    model = model_of(model, applied)
    files = files_of(model, loading.adapter)
    engine = load_engine(model, loading, max_rows=max_rows)
    asked = {name: for_context(questions, engine.model.context_length) for name, questions in asked.items()}
    about = card(engine, model or "embedded", files, commanded(), seed, {task: asked[task].params}) | confined(asked)
    study = Study(swept, asked, seed=seed, model=model or "embedded", conditions=conditions(about, loading))
    folder = folder or output.with_name(output.name + ".run")
    starts = Starts(folder, about)
    with bar("answers") as on_sample:
        samples = study.run(engine, folder, on_sample, starts.begin)
    if not starts.found:  # whoever made the answers kept no card
        starts.begin(len(samples))
    points = calibration.frontier(samples, swept)
    base = calibration.sequential(samples, swept)
    origin = {
        "rule": f"fewest forward passes among the settings that are not significantly below {swept[0].sampler} "
        f"(one-sided exact McNemar test, {calibration.LEVEL})",
        "sequential": {"sampler": swept[0].sampler} | dataclasses.asdict(base),
        "frontier": [dataclasses.asdict(point) for point in points],
        "task": {"name": task} | asked[task].describe(), "problems": prints(asked[task]), "card": starts.found[0].card,
        "starts": notes(starts.found),
    }  # fmt: skip
    for note in notes(starts.found):
        typer.echo(note, err=True)
    chosen, best = calibration.choose(points, swept, origin)
    write(output, chosen)
    if as_json:
        typer.echo(output.read_text(encoding="utf-8"), nl=False)
    else:
        _print(base, points, best)
    typer.echo(f"wrote {output}: give it as -o @{output}", err=True)


def _print(base: Any, points: Sequence[Point], best: Point | None) -> None:
    width = max(len(point.setting) for point in points)
    typer.echo(f"{'sequential':<{width}}  {100 * base.accuracy:5.1f} %  {base.forwards:6.1f} forwards")
    for point in points:
        mark = "  ← chosen" if point is best else "" if point.kept else "  below"
        s = point.summary
        typer.echo(
            f"{point.setting:<{width}}  {100 * s.accuracy:5.1f} %  {s.forwards:6.1f} forwards  "
            f"{100 * point.difference:+5.1f} points ({100 * point.low:+.1f} – {100 * point.high:+.1f}), "
            f"p {point.p_below:.2g}{mark}"
        )
    if best is None:
        typer.echo("no setting holds its accuracy and is faster: the sequential one is kept")
    else:
        typer.echo(f"with {best.summary.n} problems it may still cost up to {max(0.0, -100 * best.low):.1f} points", err=True)

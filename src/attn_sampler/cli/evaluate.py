"""The command that evaluates samplers on tasks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attn_sampler.cli.loading import load_engine
from attn_sampler.cli.options import (
    AsJson,
    BlockLength,
    CachePolicy,
    Data,
    Limit,
    Loading,
    MaxRows,
    Model,
    Raw,
    Steps,
    Style,
    SweptOption,
    SweptTemperature,
    Tasks,
    TaskTokens,
    TopK,
    TopP,
    spread,
)  # fmt: skip
from attn_sampler.cli.progress import bar
from attn_sampler.cli.questions import Programs, commanded, conditions, confined, given, model_of, named, questions_of
from attn_sampler.errors import InvalidInputError, check_number

if TYPE_CHECKING:
    from attn_sampler.evals.questions import Questions
    from attn_sampler.evals.report import Evaluation

__all__ = ["evaluate"]


@spread
def evaluate(
    tasks: Tasks,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Keeps every answer; a run cut off goes on there.")],
    samplers: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,…",
            help="The first is what the others are compared with.  [default: confidence,attention, or the preset's]",
        ),
    ] = None,
    option: SweptOption = None,
    data: Data = None,
    limit: Limit = None,
    samples: Annotated[int, typer.Option(help="Answers per problem, for pass@k; give a --temperature, too.")] = 1,
    seed: Annotated[int, typer.Option(help="Of problems and random numbers.")] = 0,
    preset: Annotated[
        str | None,
        typer.Option(help="Published settings of a model: prompts, lengths, sampler; other options go before them."),
    ] = None,
    style: Style = None,
    max_new_tokens: TaskTokens = None,
    block_length: BlockLength = None,
    steps: Steps = None,
    temperature: SweptTemperature = None,
    top_p: TopP = None,
    top_k: TopK = None,
    cache: CachePolicy = None,
    max_rows: MaxRows = 32,
    model: Model = None,
    as_json: AsJson = False,
    raw: Raw = False,
    *,
    loading: Loading,
    programs: Programs,
) -> None:
    """Evaluate samplers on tasks: what they solve, how fast, and which differences are real.

    Writes DIR/results.json, samples.jsonl, report.md and report.html (needs the extra plots).
    """
    from attn_sampler import plots
    from attn_sampler.evals.card import card, files_of
    from attn_sampler.evals.evaluate import evaluate as run
    from attn_sampler.evals.evaluate import write
    from attn_sampler.evals.published import apply
    from attn_sampler.evals.questions import for_context
    from attn_sampler.evals.report import unfit
    from attn_sampler.evals.speed import busy_note
    from attn_sampler.evals.starts import notes as notes_on
    from attn_sampler.evals.study import Study
    from attn_sampler.evals.sweep import settings

    check_number("samples", samples, low=1, integer=True)
    plots.check(output / "plot.svg")
    params = given(
        block_length=block_length, steps=steps, temperature=temperature, top_p=top_p, top_k=top_k, cache=cache,
        max_new_tokens=max_new_tokens,
    )  # fmt: skip
    applied = None if preset is None else apply(preset, named("tasks", tasks))
    asked = questions_of(tasks, data, limit, seed, style, params, raw, programs, applied)
    if samples > 1 and not all(questions.params.get("temperature") for questions in asked.values()):
        raise InvalidInputError("samples", samples, "at temperature 0 all answers are the same: give --temperature, e.g. 0.8")
    defaults = {} if applied is None else {applied.sampler: applied.options}
    names = samplers or ("confidence,attention" if applied is None else applied.sampler)
    chosen = settings(named("samplers", names), option or (), defaults)
    model = model_of(model, applied)
    files = files_of(model, loading.adapter)
    notes = (*(() if applied is None else applied.notes), *_seen(option or (), asked, model or "embedded", files))
    engine = load_engine(model, loading, max_rows=max_rows)
    asked = {name: for_context(questions, engine.model.context_length) for name, questions in asked.items()}
    about = card(engine, model or "embedded", files, commanded(), seed, {name: q.params for name, q in asked.items()})
    about |= confined(asked)
    kept = conditions(about, loading, "device", "max_rows")
    study = Study(chosen, asked, seed=seed, draws=samples, model=model or "embedded", conditions=kept)
    with bar("answers") as on_sample:
        found = run(engine, study, output, about, notes, on_sample)
    files_written = write(found, output)
    device = str(found.card["device"])
    about_tasks = (
        note for task in asked
        for note in (*unfit(found, task), *busy_note(device, task, [s for s in found.summaries if s.task == task]))
    )  # fmt: skip
    for note in (*about_tasks, *notes_on(found.starts)):
        typer.echo(note, err=True)
    if as_json:
        typer.echo((output / "results.json").read_text(encoding="utf-8"), nl=False)
    else:
        _print(found)
    typer.echo(f"wrote {', '.join(map(str, files_written))}", err=True)


def _seen(options: Sequence[str], asked: dict[str, Questions], model: str, files: dict[str, str]) -> tuple[str, ...]:
    """What to say where a sampler was calibrated on problems that are evaluated here, or for something else than this."""
    from attn_sampler.evals.chosen import elsewhere, read
    from attn_sampler.evals.questions import prints

    notes = []
    for text in options:
        if text.startswith("@"):
            chosen = read(text[1:])
            notes += elsewhere(text[1:], chosen, model, list(asked), files)
            used = set(chosen.origin.get("problems", ()))
            both = {task: len(used & set(prints(questions))) for task, questions in asked.items()}
            shown = ", ".join(f"{n} of {len(asked[task].problems)} problems of {task}" for task, n in both.items() if n)
            if shown:
                notes.append(f"Seen before: {shown} were used to choose the options in {text[1:]}. Their results are too good.")
    for note in notes:
        typer.echo(note, err=True)
    return tuple(notes)


def _print(found: Evaluation) -> None:
    """A short table per task; the report says more."""
    from attn_sampler.evals.speed import BUSY_MARK, busy

    summaries = found.summaries
    verdicts = {(c.task, c.setting, c.against): c for c in found.comparisons}
    width = max(len(s.setting) for s in summaries)
    for task in dict.fromkeys(s.task for s in summaries):
        some = [s for s in summaries if s.task == task]
        typer.echo(f"{task}, {some[0].n} problems")
        for s in some:
            c = verdicts.get((task, s.setting, some[0].setting))
            against = "" if c is None else f"{100 * c.difference:+6.1f} points, p {c.p_holm:.2g}: {c.verdict}"
            mark = BUSY_MARK if busy(str(found.card["device"]), s) else ""
            typer.echo(
                f"  {s.setting:<{width}}  {100 * s.accuracy:5.1f} % ({100 * s.low:.1f} – {100 * s.high:.1f})"
                f"  {s.tokens_per_forward:5.2f} tokens/forward  {s.tokens_per_s:7.1f} tokens/s{mark}  {against}".rstrip()
            )

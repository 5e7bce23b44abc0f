"""The command of the order laboratory."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attn_sampler.cli.loading import load_engine
from attn_sampler.cli.options import AsJson, Loading, Model, Raw, spread
from attn_sampler.cli.progress import bar
from attn_sampler.errors import InvalidInputError

if TYPE_CHECKING:
    from attn_sampler.engine import Engine
    from attn_sampler.evals.order import Item

__all__ = ["order"]

COLUMNS = (
    ("surrogate", "surrogate"), ("surrogate_gain", "gain"), ("log_likelihood", "log-likelihood"), ("gap", "gap"),
    ("regret", "regret"), ("over_random", "over random"),
)  # fmt: skip
GUTTER = 2  # spaces between columns


@spread
def order(
    prompt: Annotated[str | None, typer.Argument(help="Without it and --file, held-out problems of the embedded model.")] = None,
    target: Annotated[
        str | None, typer.Option(help="Text whose likelihood is measured.  [default: the model's own answer]")
    ] = None,
    file: Annotated[Path | None, typer.Option(help='JSON Lines with "prompt" and perhaps "target".')] = None,
    task: Annotated[list[str] | None, typer.Option(help="sudoku4 or word; repeatable.  [default: both]")] = None,
    n: Annotated[int, typer.Option("-n", help="Problems of each task.")] = 30,
    own: Annotated[bool, typer.Option("--own", help="Problems get the model's own answers, not the reference ones.")] = False,
    sampler: Annotated[str, typer.Option(help="Writes the own answers.")] = "confidence",
    model: Model = None,
    max_new_tokens: Annotated[int, typer.Option(help="Masks behind the prompt; the target fills the first of them.")] = 32,
    random_orders: Annotated[int, typer.Option("--random", help="Random orders per prompt.")] = 32,
    best_up_to: Annotated[int, typer.Option(help="Longest target, tokens, whose truly best order is found (2^n canvases).")] = 10,
    norm: Annotated[str, typer.Option(help="Attention matrix: global (the true one) or local.")] = "global",
    seed: Annotated[int, typer.Option(help="Of problems, random orders and intervals.")] = 0,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keep a record per prompt; a run cut off goes on there.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw it: .png, .svg or .pdf (extra: plots).")] = None,
    as_json: AsJson = False,
    raw: Raw = False,
    *,
    loading: Loading,
) -> None:
    """How likely a target is in every order, beside what attention says of the order."""
    from attn_sampler import plots
    from attn_sampler.evals.order import Settings, measure
    from attn_sampler.evals.order_summary import summary

    settings = Settings(max_new_tokens, random_orders, best_up_to, norm, seed)  # type: ignore[arg-type]
    if prompt is not None and file is not None:
        raise InvalidInputError("prompt", prompt, "give a prompt or --file, not both")
    if target is not None and prompt is None:
        raise InvalidInputError("target", target, "give the prompt that it answers, too")
    given = _given(prompt, target, file)
    if plot is not None:
        plots.check(plot)
    engine = load_engine(model, loading)
    items = _items(engine, given, task, n, own, sampler, settings.max_new_tokens, seed, raw)
    records = []
    with bar("prompts") as on_record:
        for record in measure(engine, items, settings, out):
            records.append(record)
            if on_record is not None:
                on_record(len(records), len(items))
    groups = summary(records, seed)
    conditions = {"model": model or "embedded", "prompts": len(items)} | dataclasses.asdict(settings)
    answers = own or any(wanted is None for _, wanted in given)
    conditions["targets"] = f"own answers ({sampler}) where none is given" if answers else "given"
    if plot is not None:
        plots.save(plots.order_laboratory(groups), plot)
        typer.echo(f"wrote {plot}", err=True)
    if as_json:
        typer.echo(json.dumps({"conditions": conditions, "groups": groups}, ensure_ascii=False))
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for group in groups:
        typer.echo("\n".join(_lines(group, width)) + "\n")
    typer.echo(", ".join(f"{k} {v}" for k, v in conditions.items()), err=True)


def _given(prompt: str | None, target: str | None, file: Path | None) -> list[tuple[str, str | None]]:
    """Prompts with their targets, where the caller brings any."""
    if file is None:
        return [] if prompt is None else [(prompt, target)]
    try:
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InvalidInputError("file", str(file), f"cannot be read ({error})") from error
    for line in lines:
        known = isinstance(line, dict) and isinstance(line.get("prompt"), str)
        if not known or not isinstance(line.get("target", ""), str):
            raise InvalidInputError("file", line, 'every line is an object with "prompt" and perhaps "target", both text')
    if not lines:
        raise InvalidInputError("file", str(file), "it is empty: give at least one line")
    return [(line["prompt"], line.get("target")) for line in lines]


def _items(
    engine: Engine, given: Sequence[tuple[str, str | None]], task: list[str] | None, n: int, own: bool, sampler: str,
    max_new_tokens: int, seed: int, raw: bool,
) -> list[Item]:  # fmt: skip
    """Prompts and targets as the model gets them; what has no target is answered by the model."""
    from attn_sampler.evals.order import answered, item, task_items
    from attn_sampler.params import SamplingParams

    params = SamplingParams(sampler=sampler, max_new_tokens=max_new_tokens, seed=seed)
    chat = False if raw else None
    if not given:
        items = task_items(engine, task or ["sudoku4", "word"], n, seed)
        if not own:
            return items
        answers = answered(engine, [one.prompt for one in items], params)
        return [dataclasses.replace(answer, task=one.task) for one, answer in zip(items, answers, strict=True)]
    if own and any(target is not None for _, target in given):
        raise InvalidInputError("own", own, "targets are given: leave out either")
    asked = [prompt for prompt, target in given if target is None]
    answers = iter(answered(engine, asked, params, chat=chat) if asked else [])
    return [next(answers) if target is None else item(engine, prompt, target, chat=chat) for prompt, target in given]


def _lines(group: dict[str, Any], width: int | None) -> list[str]:
    """A group as text: what it is, a table of its orders, what is one number for all of them.

    Args:
        width: characters of a line at most, where the names and one column fit; None for no limit.
    """
    head = ["order", *group["orders"]]
    columns = [[title, *(_cell(cells[key]) for cells in group["orders"].values())] for key, title in COLUMNS]
    lines = [_title(group)]
    for some in _fitting(head, columns, width):
        shown = [_aligned(head, left=True), *map(_aligned, some)]
        lines += ["".join(row) for row in zip(*shown, strict=True)]
    lines.append(
        f"ideal {_cell(group['ideal'])}; rank correlation of surrogate and gap over random orders "
        f"{_cell(group['rank_correlation'])}, over named orders {_cell(group['rank_correlation_named'])}"
    )
    if group["bound_reached"][0] < 1:
        lines.append(f"the surrogate's lower bound is {_cell(group['bound_reached'])} of what local search found")
    return lines


def _title(group: dict[str, Any]) -> str:
    known, n = group["best_known"], group["prompts"]
    best = "the best order is known" if known == n else "best: of the orders tried"
    if 0 < known < n:
        best = f"the best order is known for {known} of them, else of the orders tried"
    count = f"{n} prompt{'' if n == 1 else 's'}"
    if group["per"] == "target":
        return f"{group['task']}, {group['tokens']} tokens, {count}, {best}"
    low, high = group["lengths"]
    return f"{group['task']}, all lengths ({low} to {high} tokens), {count}, {best}; nats and surrogate per token"


def _fitting(head: Sequence[str], columns: Sequence[list[str]], width: int | None) -> list[list[list[str]]]:
    """The columns in as few tables as it takes for each, the names in front, to be no wider than ``width``."""
    tables: list[list[list[str]]] = [[]]
    first = used = max(map(len, head))
    for column in columns:
        wide = GUTTER + max(map(len, column))
        if width is not None and tables[-1] and used + wide > width:
            tables.append([])
            used = first
        tables[-1].append(column)
        used += wide
    return tables


def _aligned(column: Sequence[str], left: bool = False) -> list[str]:
    """Cells of the width of the widest one, names to the left, numbers to the right behind a gutter."""
    width = max(map(len, column))
    return [f"{cell:<{width}}" if left else f"{cell:>{GUTTER + width}}" for cell in column]


def _cell(values: Sequence[float | None]) -> str:
    """``mean (low to high)``; the interval only where there is one."""
    mean, low, high = values
    if mean is None:
        return "–"
    return f"{mean:z.3f}" if low is None or high is None else f"{mean:z.3f} ({low:z.3f} – {high:z.3f})"

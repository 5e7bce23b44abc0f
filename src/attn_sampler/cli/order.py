"""The command of the order laboratory."""

from __future__ import annotations

import dataclasses
import json
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

COLUMNS = (("surrogate_gain", "gain"), ("log_likelihood", "log-likelihood"), ("regret", "regret"), ("over_random", "over random"))


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
    from attn_sampler.evals.order import Settings, measure, summary

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
    for group in groups:
        _print_group(group)
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


def _print_group(group: dict[str, Any]) -> None:
    best = "the best order is known" if group["best"] == "exact" else "best: of the orders tried"
    count = f"{group['prompts']} prompt{'' if group['prompts'] == 1 else 's'}"
    typer.echo(f"{group['task']}, {group['tokens']} tokens, {count}, {best}")
    width = 16 if group["prompts"] == 1 else 27  # one prompt has no interval
    typer.echo(f"{'order':<24}" + "".join(f"{title:>{width}}" for _, title in COLUMNS))
    for name, cells in group["orders"].items():
        typer.echo(f"{name:<24}" + "".join(f"{_cell(cells[key]):>{width}}" for key, _ in COLUMNS))
    typer.echo(f"ideal {_cell(group['ideal'])}; rank correlation of surrogate and gap {_cell(group['rank_correlation'])}")
    if group["bound_reached"][0] < 1:
        typer.echo(f"the surrogate's lower bound is {_cell(group['bound_reached'])} of what local search found")
    typer.echo("")


def _cell(values: Sequence[float | None]) -> str:
    """``mean (low to high)``; the interval only where there is one."""
    mean, low, high = values
    if mean is None:
        return "–"
    return f"{mean:z.3f}" if low is None or high is None or low == high else f"{mean:z.3f} ({low:z.3f} – {high:z.3f})"

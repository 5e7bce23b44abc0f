"""What `eval`, `calibrate` and `ablate` make of their words: tasks with their questions, parameters of the rows."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attn_sampler.cli.loading import own
from attn_sampler.cli.options import AllowCode, Loading
from attn_sampler.errors import InvalidInputError, UnknownNameError

if TYPE_CHECKING:
    from attn_sampler.evals.published import Applied
    from attn_sampler.evals.questions import Questions

__all__ = ["Programs", "commanded", "conditions", "confined", "given", "model_of", "named", "questions_of"]


@dataclass(frozen=True)
class Programs:
    """Whether programs that the model wrote may run, and where."""

    allow_code: AllowCode = False
    allow_unconfined: Annotated[
        bool, typer.Option("--allow-unconfined", help="Run them where the system cannot keep them from network and files, too.")
    ] = False


def confined(tasks: Iterable[str]) -> dict[str, str]:
    """For the card: how programs are shut in, where one of the tasks runs any; said on stderr where something is open to them."""
    from attn_sampler.evals.sandbox import confinement, missing
    from attn_sampler.evals.tasks import find

    if not any(find(task).runs_code for task in tasks):
        return {}
    if missing():
        typer.echo(f"warning: programs that the model writes are {confinement()}", err=True)
    return {"programs": confinement()}


def named(field: str, text: str) -> list[str]:
    """``a,b`` → a, b."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise InvalidInputError(field, text, "give at least one name")
    return list(dict.fromkeys(names))


def given(**params: Any) -> dict[str, Any]:
    """Those that are."""
    return {key: value for key, value in params.items() if value is not None}


def model_of(model: str | None, applied: Applied | None) -> str | None:
    """The model of ``--model``, else the preset's; None for the embedded one."""
    return applied.model if model is None and applied is not None else own(model)


def conditions(about: Mapping[str, Any], loading: Loading, *more: str) -> dict[str, Any]:
    """What of a card a run's folder belongs to, beside its settings and problems; ``more`` names further entries."""
    return {key: about[key] for key in ("model_files_sha256", "dtype", *more)} | {"quantize": loading.quantize}


def commanded() -> list[str]:
    """The words of this command line."""
    return [Path(sys.argv[0]).name, *sys.argv[1:]]


def questions_of(
    tasks: str,
    data: Path | None,
    n: int | None,
    seed: int,
    style: Sequence[str] | None,
    params: dict[str, Any],
    raw: bool,
    programs: Programs,
    applied: Applied | None = None,
) -> dict[str, Questions]:
    """The questions of every task named; what the command says goes before the preset, and that before the task."""
    from attn_sampler.evals import questions
    from attn_sampler.evals.tasks import find

    found = {name: find(name) for name in named("tasks", tasks)}
    styles = {text.rpartition("=")[0]: text.rpartition("=")[2] for text in style or ()}
    for name in styles:
        if name and name not in found:
            raise UnknownNameError("task of --style", name, found)
    published = ({}, {}) if applied is None else (applied.styles, applied.params)
    return {
        name: questions.questions(
            task, data=data, n=n, seed=seed, style=styles.get(name, styles.get("", published[0].get(name))),
            params={**published[1].get(name, {}), **params},
            chat=False if raw else None, allow_code=programs.allow_code,
            allow_unconfined=programs.allow_unconfined,
        )
        for name, task in found.items()
    }  # fmt: skip

"""The commands about model families and checkpoints."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from attn_sampler.cli.options import AsJson, Device, Dtype, Family
from attn_sampler.errors import InvalidInputError

__all__ = ["check", "list_models", "models", "tiny"]

models = typer.Typer(invoke_without_command=True, help="List the model families that load; write and check checkpoints.")


@models.callback()
def list_models(context: typer.Context, as_json: AsJson = False) -> None:
    if context.invoked_subcommand is not None:
        if as_json:
            raise InvalidInputError("json", True, f"write it behind the command: models {context.invoked_subcommand} --json")
        return
    from attn_sampler.models import FAMILIES

    rows = [
        {
            "family": name,
            "checkpoints": family.checkpoints,
            "runs_as": family.stock if isinstance(family.stock, str) else ", ".join(family.stock.values()),
            "attention": family.attention,
            "shifted": family.shifted,
            "mask_token": family.mask_token,
            "settings": dict(family.settings),
            "source": family.source,
        }
        for name, family in FAMILIES.items()
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        shift = ", logits shifted by one" if row["shifted"] else ""
        facts = f"{row['runs_as']}, {row['attention']}{shift}, mask {row['mask_token']}"
        typer.echo(f"{row['family']}\n    {row['checkpoints']}\n    {facts}")


@models.command()
def tiny(
    family: Annotated[str | None, typer.Argument(metavar="FAMILY", help="A name that --list shows.")] = None,
    folder: Annotated[Path | None, typer.Argument(metavar="DIR", help="Is made; must not hold anything.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the weights.")] = 0,
    listed: Annotated[bool, typer.Option("--list", help="Print the names.")] = False,
) -> None:
    """Write a tiny random checkpoint in the real layout of a family."""
    from attn_sampler.models.tiny import LAYOUTS, write

    if listed:
        for name, layout in LAYOUTS.items():
            typer.echo(f"{name}: family {layout.family}, model_type {layout.config['model_type']}, mask {layout.mask}")
        return
    if family is None or folder is None:
        raise InvalidInputError("family" if family is None else "folder", None, "give FAMILY and DIR, or --list")
    write(family, folder, seed=seed)
    typer.echo(f"wrote {folder}: load it with family={LAYOUTS[family].family!r}", err=True)


@models.command()
def check(
    source: Annotated[str, typer.Argument(metavar="DIR_OR_ID", help="Checkpoint directory or Hub id.")],
    family: Family = None,
    mask_id: Annotated[int | None, typer.Option(help="Where the checkpoint names no mask token.")] = None,
    as_json: AsJson = False,
    dtype: Dtype = "auto",
    device: Device = None,
) -> None:
    """Look a checkpoint over before the first run; exit code 1 if something fails."""
    from attn_sampler.models.check import check as points_of

    points = points_of(source, family=family, mask_id=mask_id, dtype=dtype, device=device)
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(point) for point in points], indent=2))
    else:
        for point in points:
            typer.echo(f"{point.outcome:<9}  {point.name:<9}  {point.says}")
    if any(point.outcome == "failed" for point in points):
        raise typer.Exit(1)

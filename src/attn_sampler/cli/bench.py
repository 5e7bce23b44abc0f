"""The commands that measure speed."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from attn_sampler.cli.loading import hush
from attn_sampler.cli.options import AsJson, Sampler

__all__ = ["attention", "bench", "bench_cache", "selection"]

bench = typer.Typer(no_args_is_help=True, help="Measure speed.")


@bench.command()
def attention(
    as_json: AsJson = False,
    canvas: Annotated[int, typer.Option(help="Positions.")] = 512,
    window: Annotated[int, typer.Option(help="Positions asked about.")] = 32,
    rounds: Annotated[int, typer.Option(help="Rounds measured.")] = 15,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """What attention statistics cost beside a plain forward pass."""
    from attn_sampler.bench.attention import measure

    result = measure(canvas=canvas, window=window, rounds=rounds, device=device)
    if as_json:
        typer.echo(json.dumps(result))
        return
    for name in ("columns_over_plain", "local_over_plain", "columns_over_eager"):
        typer.echo(f"{name}: {result[name]:.3f} (rounds {result[name + '_low']:.3f} to {result[name + '_high']:.3f})")
    conditions = {k: f"{v:.1f}" if isinstance(v, float) else v for k, v in result.items() if "_over_" not in k}
    typer.echo(", ".join(f"{k} {v}" for k, v in conditions.items()), err=True)


@bench.command("cache")
def bench_cache(
    as_json: AsJson = False,
    canvas: Annotated[list[int] | None, typer.Option(help="Positions; repeatable.  [default: 128 256 512 1024 2048]")] = None,
    rounds: Annotated[int, typer.Option(help="Rounds measured.")] = 3,
    sampler: Sampler = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """What KV caches save, and how much memory they take."""
    from attn_sampler.bench.cache import measure

    records = measure(
        canvases=canvas or (128, 256, 512, 1024, 2048), rounds=rounds, sampler=sampler or "confidence", device=device
    )
    if as_json:
        typer.echo(json.dumps(records))
        return
    for r in records:
        spread = f"{r['over_none_low']:.3f} to {r['over_none_high']:.3f}"
        size = f"{r['cache_bytes'] / 2**20:.1f} MiB"
        typer.echo(
            f"canvas {r['canvas']:5}  {r['policy']:18} {r['ms_per_token']:8.1f} ms/token  "
            f"{r['over_none']:.3f} of none ({spread})  {size}"
        )
    _conditions(records[0], ("canvas", "policy", "cache_bytes"))


@bench.command()
def selection(
    as_json: AsJson = False,
    sampler: Annotated[list[str] | None, typer.Option(help="Name; repeatable.  [default: all]")] = None,
    rows: Annotated[int, typer.Option(help="Rows in the batch.")] = 16,
    rounds: Annotated[int, typer.Option(help="Rounds measured.")] = 5,
) -> None:
    """What choosing costs beside the embedded model's forward pass."""
    from attn_sampler.bench.selection import measure

    hush()
    records = measure(names=sampler, rows=rows, rounds=rounds)
    if as_json:
        typer.echo(json.dumps(records))
        return
    for r in records:
        low, high = (100 * r[f"select_over_forward_{end}"] for end in ("low", "high"))
        share = f"{100 * r['select_over_forward']:5.2f} % ({low:.2f} to {high:.2f})"
        typer.echo(f"{r['sampler']:28} {share}  of {r['ms_per_forward']:.1f} ms")
    _conditions(records[0], ("sampler",))


def _conditions(record: dict[str, Any], but: tuple[str, ...]) -> None:
    shown = {k: v for k, v in record.items() if k not in but and not isinstance(v, float)}
    typer.echo(", ".join(f"{k} {v}" for k, v in shown.items()), err=True)

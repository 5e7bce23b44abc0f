"""The command. Text goes to stdout, everything else to stderr; exit codes: 0 done, 1 failed, 2 wrong usage.

Nothing heavy is imported until a command runs, so that ``--help`` answers at once. One file per group of commands: functions and
sub-commands that know nothing of the app, which is put together here.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from attn_sampler import __version__
from attn_sampler.cli import ablate, about, bench, calibrate, evaluate, frequencies, generate, models, order, replay
from attn_sampler.errors import AttnSamplerError, InvalidInputError

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Attention-guided sampling for diffusion language models.",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"attn-sampler {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    pass


COMMANDS = {
    "generate": generate.generate, "infill": generate.infill, "samplers": about.samplers, "env": about.env,
    "replay": replay.replay, "ablate": ablate.ablate, "eval": evaluate.evaluate, "calibrate": calibrate.calibrate,
    "frequencies": frequencies.frequencies, "order": order.order,
}  # fmt: skip
for name, command in COMMANDS.items():
    app.command(name)(command)
app.add_typer(bench.bench, name="bench")
app.add_typer(models.models, name="models")


def main() -> None:
    """Entry point of the command."""
    try:
        app()
    except AttnSamplerError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2 if isinstance(error, InvalidInputError) else 1)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)

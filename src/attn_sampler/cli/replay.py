"""The command that plays a recorded run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attn_sampler.errors import InvalidInputError

__all__ = ["replay"]


def replay(
    file: Annotated[Path, typer.Argument(help="A file written with --trace.")],
    html: Annotated[Path | None, typer.Option(metavar="OUT", help="Also write it as one standalone HTML page.")] = None,
    delay: Annotated[float, typer.Option(help="Seconds per forward pass.")] = 0.15,
) -> None:
    """Play a recorded run in the terminal."""
    from attn_sampler.replay import to_html
    from attn_sampler.trace import read
    from attn_sampler.view import replay_in_terminal

    trace = read(file)
    if html is not None:
        try:
            html.write_text(to_html(trace), encoding="utf-8")
        except OSError as error:
            raise InvalidInputError("html", str(html), f"cannot be written ({error.strerror})") from error
        typer.echo(f"wrote {html}", err=True)
    replay_in_terminal(trace, delay)

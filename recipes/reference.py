"""Writes docs/command.md from the command itself. ``--check`` fails where the page is stale."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from typer.main import get_command

from attn_sampler.cli import app

PAGE = Path(__file__).parents[1] / "docs" / "command.md"


def page() -> str:
    """Every command with its arguments and options, one table each."""
    parts = ["# Command reference", "", "Made by `make docs` from the command itself.", ""]
    for words, command in _commands("attn-sampler", get_command(app)):
        parts += [f"## {words}", "", command.help or "", ""]
        rows = [_row(parameter) for parameter in command.params if parameter.name != "help"]
        if rows:
            parts += ["| option | meaning |", "|---|---|", *rows, ""]
    return "\n".join(parts)


def _commands(words: str, command: Any) -> list[tuple[str, Any]]:
    found = [(words, command)]
    for name, child in getattr(command, "commands", {}).items():
        found += _commands(f"{words} {name}", child)
    return found


def _row(parameter: Any) -> str:
    names = ", ".join(f"`{name}`" for name in parameter.opts)
    if parameter.param_type_name == "argument":
        names = f"`{parameter.metavar or parameter.name.upper()}`"
    return f"| {names} | {(getattr(parameter, 'help', None) or '').replace('|', chr(92) + '|')} |"


def main() -> None:
    fresh = page()
    if "--check" in sys.argv:
        if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != fresh:
            sys.exit(f"{PAGE.name} is stale: run `make docs`")
        return
    PAGE.write_text(fresh, encoding="utf-8")


if __name__ == "__main__":
    main()

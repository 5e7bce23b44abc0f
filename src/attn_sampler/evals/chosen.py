"""A sampler's options in a file: what `attn-sampler calibrate` writes and ``-o @file`` reads."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attn_sampler import samplers as registry
from attn_sampler.errors import InvalidInputError

__all__ = ["Chosen", "check", "elsewhere", "read", "write"]

FORMAT, VERSION = "attn-sampler-options", 1


@dataclass(frozen=True)
class Chosen:
    """A sampler and its options, and where they come from.

    Attributes:
        origin: model, task, problems, frontier …: plain JSON types, not read back but for reports.
    """

    sampler: str
    options: Mapping[str, Any]
    origin: Mapping[str, Any] = field(default_factory=dict)


def write(file: Path, chosen: Chosen) -> None:
    """As JSON."""
    content = {"format": FORMAT, "version": VERSION, **dataclasses.asdict(chosen)}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise InvalidInputError("output", str(file), f"cannot be written ({error.strerror})") from error


def check(file: Path) -> None:
    """Whether `write` will do, before anything is spent; leaves no file behind.

    Raises:
        InvalidInputError: it cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        new = not file.exists()
        with file.open("a"):
            pass
        if new:
            file.unlink()
    except OSError as error:
        raise InvalidInputError("output", str(file), f"cannot be written ({error.strerror})") from error


def elsewhere(
    file: str, chosen: Chosen, model: str, tasks: Sequence[str] = (), files: Mapping[str, str] | None = None
) -> list[str]:
    """What to say where options are used for another model or task than they were chosen for.

    Args:
        file: its name, for the message.
        model, files: what they are used for, by name; with ``files`` (as the card has them) by these.
        tasks: none: not known.
    """
    card, task = chosen.origin.get("card", {}), chosen.origin.get("task", {}).get("name")
    old, known = card.get("model"), card.get("model_files_sha256")
    out = []
    if (known != files) if known and files else (old is not None and old != model):
        weights = " (other files)" if old == model else ""
        out.append(f"The options in {file} were chosen for the model {old}{weights}, not for {model}: they may not suit it.")
    others = [name for name in tasks if task is not None and name != task]
    if others:
        out.append(f"The options in {file} were chosen on {task}, not on {', '.join(others)}: they may not suit.")
    return out


def read(file: str | Path) -> Chosen:
    """
    Raises:
        InvalidInputError: no such file, not one of these, or options that the sampler does not have.
    """
    shown = f"@{file}"
    try:
        found = json.loads(Path(file).expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InvalidInputError("option", shown, f"cannot be read ({error})") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise InvalidInputError("option", shown, "give a file that `attn-sampler calibrate` wrote")
    if found.get("version") != VERSION:
        raise InvalidInputError("option", shown, f"it is of version {found.get('version')}; this library reads version {VERSION}")
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in found["options"].items()}
    registry.build(found["sampler"], options)  # says what is wrong with them
    return Chosen(found["sampler"], options, found.get("origin", {}))

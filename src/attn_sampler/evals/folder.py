"""A run's folder: what it is for, who is writing there now, and JSON Lines that survive a kill."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attn_sampler.errors import InvalidInputError

__all__ = ["append", "claim", "differences", "occupied", "read_lines", "write_whole"]

SHOWN = 5  # differences in a message
SHORT = 60  # characters of a value in it


@contextmanager
def occupied(folder: Path) -> Iterator[None]:
    """Nobody else writes to the folder meanwhile. The lock ends with the process, however that ends.

    Raises:
        InvalidInputError: another process is at work there, or the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise InvalidInputError("output", str(folder), f"cannot be used ({error})") from error
    with file:
        try:
            import fcntl
        except ImportError:  # where there is none (Windows), two runs in one folder are the user's to avoid
            yield
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InvalidInputError("output", str(folder), "another run is writing there; wait for it, or end it") from error
        yield


def claim(folder: Path, name: str, description: Mapping[str, Any]) -> None:
    """Note in ``folder/name`` what the folder is for.

    Raises:
        InvalidInputError: it is for something else (the message says what differs), or holds files and no note.
    """
    note, wanted = folder / name, json.loads(json.dumps(description))
    try:
        if note.exists():
            found = differences(json.loads(note.read_text(encoding="utf-8")), wanted)
            if found:
                more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
                remedy = f"holds another run: {'; '.join(found[:SHOWN])}{more}. Give a folder of its own"
                raise InvalidInputError("output", str(folder), remedy)
            return
        if any(file.name not in (".lock", f"{name}.part") for file in folder.iterdir()):  # a kill may leave these behind
            raise InvalidInputError("output", str(folder), "is not empty and holds no run; give a new folder")
        write_whole(note, json.dumps(wanted, indent=1, ensure_ascii=False) + "\n")
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InvalidInputError("output", str(folder), f"cannot be used ({error})") from error


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Where two JSON values differ, one line each: ``settings[1].options.threshold was 0.9, is 0.8``."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        return [d for key in keys for d in differences(old.get(key), new.get(key), f"{path}.{key}" if path else str(key))]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [d for i, (a, b) in enumerate(zip(old, new, strict=True)) for d in differences(a, b, f"{path}[{i}]")]
    if type(old) is type(new) and old == new:
        return []
    was, now = (json.dumps(value, ensure_ascii=False) for value in (old, new))
    same = 0
    if max(len(was), len(now)) > SHORT:
        same = next((i for i, (a, b) in enumerate(zip(was, now, strict=False)) if a != b), min(len(was), len(now)))
    return [f"{path} was {_short(was, same)}, is {_short(now, same)}"]


def _short(text: str, same: int) -> str:
    """A long text from a little before the place where another one departs from it."""
    begin = max(0, min(same, len(text)) - SHORT // 3)
    return ("…" if begin else "") + text[begin : begin + SHORT] + ("…" if begin + SHORT < len(text) else "")


def append(file: Any, line: Mapping[str, Any]) -> None:
    """One line at the end of an open file, given to the operating system before this returns."""
    file.write(json.dumps(line, ensure_ascii=False) + "\n")
    file.flush()


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The whole lines; a last one that a kill cut off is dropped, from the file too."""
    if not file.exists():
        return []
    raw = file.read_bytes()
    whole = raw[: raw.rfind(b"\n") + 1]
    if len(whole) < len(raw):
        with file.open("r+b") as out:
            out.truncate(len(whole))
    try:
        return [json.loads(line) for line in whole.decode().split("\n")[:-1]]
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InvalidInputError("output", str(file), f"a line of it is damaged ({error}); mend or remove the line") from error


def write_whole(file: Path, text: str) -> None:
    """The file as it was or with the new text, never a part of it."""
    part = file.with_name(file.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(file)

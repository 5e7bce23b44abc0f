"""The starts of a run: which of its answers were made under which conditions, so that no report claims what was not so.

``starts.jsonl`` holds a line per start that had something left to do: when it began, how many answers were there, its card. A
start that only writes the report anew leaves no line, and its own conditions enter no report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attn_sampler.evals.folder import append, differences, read_lines

__all__ = ["Start", "Starts", "changes", "notes"]

NO_CONDITION = ("command",)  # of a card: two commands can ask for the same run


@dataclass(frozen=True)
class Start:
    """One start of a run.

    Attributes:
        began: UTC, ISO 8601.
        answers: that were there before it.
        card: its reproduction card, see `attn_sampler.evals.card.card`.
    """

    began: str
    answers: int
    card: Mapping[str, Any]


class Starts:
    """The starts of the run in a folder; this process's own joins them when it has something to do."""

    def __init__(self, folder: Path, card: Mapping[str, Any]) -> None:
        self._file, self._card, self._begun = folder / "starts.jsonl", card, False

    def begin(self, answers: int) -> None:
        """Something is about to be done, with so many answers there; noted once."""
        if self._begun:
            return
        self._begun = True
        read_lines(self._file)  # a torn line goes
        with self._file.open("a", encoding="utf-8") as out:
            append(out, {"began": datetime.now(UTC).isoformat(timespec="seconds"), "answers": answers, "card": self._card})

    @property
    def found(self) -> list[Start]:
        """All of them, the first one first."""
        return [Start(**line) for line in read_lines(self._file)]


def changes(starts: Sequence[Start]) -> list[list[str]]:
    """Of every start, what its card says otherwise than that of the first one: ``threads was 1, is 2``."""
    cards = [{key: value for key, value in start.card.items() if key not in NO_CONDITION} for start in starts]
    return [differences(cards[0], card) for card in cards]


def notes(starts: Sequence[Start]) -> list[str]:
    """What a reader of the numbers has to know of the starts; nothing where one start did it all."""
    out = []
    if starts and starts[0].answers:
        out.append(f"The first {starts[0].answers} answers were made without a card: nobody noted under which conditions.")
    if len(starts) < 2:
        return out
    times = "once" if len(starts) == 2 else f"{len(starts) - 1} times"
    places = ", ".join(str(start.answers) for start in starts[1:])
    out.append(
        f"Resumed {times}, after {places} answers. Rows that were under way at a stop were begun anew, so some of their time may "
        "count twice."
    )
    changed = [
        f"from answer {start.answers + 1} on {'; '.join(found)}"
        for start, found in zip(starts, changes(starts), strict=True) if found
    ]  # fmt: skip
    if changed:
        out.append(f"Conditions changed between the starts; the card is that of the first one: {', and '.join(changed)}.")
    return out

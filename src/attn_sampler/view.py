"""The canvas in a terminal: `render` is pure, `Watch` and `replay_in_terminal` are thin.

A mask is ``░`` where the model was asked in this step and ``·`` elsewhere, a token its text: on orange, bold and underlined, in
the step that commits it, afterwards coloured from orange (low) to blue (high). Colour-blind eyes tell the two apart, and every
colour between them has contrast with a white and with a black background. Without colour, bold and underline remain.
"""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.live import Live
from rich.style import Style
from rich.text import Text

from attn_sampler.errors import check_choice, check_number
from attn_sampler.frames import Cell, Frame, TraceStep

if TYPE_CHECKING:
    from attn_sampler.results import Step
    from attn_sampler.trace import Trace

__all__ = ["ColourBy", "Watch", "ramp", "render", "replay_in_terminal"]

ColourBy = Literal["confidence", "score"]
"""A probability, or the place of the score among those of its step (scores of different samplers have different units)."""

NEW = Style(color="#000000", bgcolor="#f0a830", bold=True, underline=True)
REMASKED = Style(color="#c2540a", bold=True)
DIM = Style(dim=True)
PLAIN = Style()
STOPS = ((0xC2, 0x54, 0x0A), (0x7A, 0x6C, 0x78), (0x1F, 0x74, 0xC8))  # contrast >= 3.9 with white and with black
LINE_END = "\u21b5"
END = "\u220e"
BIDIRECTIONAL = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # they reorder what stands around them
FRAMES_PER_S = 30  # drawn at most; a terminal over ssh shows no more


def ramp(value: float) -> str:
    """Foreground colour of a number from 0 (orange) to 1 (blue), as ``#rrggbb``. NaN counts as 0."""
    place = min(max(value, 0.0), 1.0) * (len(STOPS) - 1) if value == value else 0.0
    i = min(int(place), len(STOPS) - 2)
    return "#" + "".join(f"{round(a + (b - a) * (place - i)):02x}" for a, b in zip(STOPS[i], STOPS[i + 1], strict=True))


def render(
    frames: Frame | Sequence[Frame],
    *,
    sampler: str = "",
    labels: Sequence[str] = (),
    colour_by: ColourBy = "confidence",
    legend: bool = True,
    max_lines: int | None = None,
) -> RenderableType:
    """The answers of some rows, each as its canvas stands, and a line of numbers below.

    Args:
        frames: one per row.
        sampler: its name.
        labels: a heading per row, such as its prompt; shown where there are several rows.
        colour_by: what the colours of older tokens mean.
        legend: whether to explain the colours.
        max_lines: lines of the terminal; the canvas is cut to what just happened. None: all of it.
    """
    check_choice("colour_by", colour_by, ("confidence", "score"))
    frames = [frames] if isinstance(frames, Frame) else list(frames)
    several = len(frames) > 1
    each = None if max_lines is None else max(1, (max_lines - 3) // max(1, len(frames)) - several)
    parts: list[RenderableType] = []
    for i, frame in enumerate(frames):
        if several:
            parts.append(_heading(frame, labels[i] if i < len(labels) else f"row {frame.row}"))
        parts.append(_Lines(_answer(frame, colour_by), each))
    return Group(*parts, _footer(frames, sampler, colour_by if legend else None))


def _answer(frame: Frame, colour_by: ColourBy) -> Text:
    text = Text(overflow="fold")
    ended = not any(frame.masked[: frame.end])  # then nobody will fill the masks behind the end
    for i, cell in enumerate(frame.cells[frame.start :], frame.start):
        if cell.piece is None and ended:
            continue
        if cell.piece is None:
            text.append("░" if i in frame.window else "·", REMASKED if i in frame.remasked else DIM)
            continue
        style = NEW if i in frame.new else _older(cell, colour_by) if i < frame.end else DIM
        if cell.token in frame.eos_ids:
            text.append(END, style if i in frame.new else DIM)
            continue
        lines = _visible(cell.piece).split("\n")
        for line, _ in pairwise(lines):  # a line break shows itself only while it is news
            text.append(line + (LINE_END if i in frame.new else ""), style)
            text.append("\n")
        text.append(lines[-1], style)
    return text


def _older(cell: Cell, colour_by: ColourBy) -> Style:
    value = cell.confidence if colour_by == "confidence" else cell.rank
    return PLAIN if value is None else Style(color=ramp(value))


def _visible(piece: str) -> str:
    """Control characters as pictures: what a model writes must not drive the terminal."""
    if piece.isprintable():
        return piece
    harmful = [c != "\n" and (unicodedata.category(c) in ("Cc", "Cs") or c in BIDIRECTIONAL) for c in piece]
    pictures = (chr(0x2400 + ord(c)) if ord(c) < 32 else "\ufffd" for c in piece)
    return "".join(picture if bad else c for c, bad, picture in zip(piece, harmful, pictures, strict=True))


def _heading(frame: Frame, label: str) -> Text:
    numbers = f"{_count(frame.tokens, 'token')}, {_count(frame.forward, 'forward')}  "
    return Text.assemble((numbers, DIM), (" ".join(_visible(label).split()), "bold"), no_wrap=True, overflow="ellipsis")


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


def _footer(frames: Sequence[Frame], sampler: str, colour_by: ColourBy | None) -> Text:
    tokens, forwards = sum(frame.tokens for frame in frames), sum(frame.forward for frame in frames)
    rate = f"{tokens / forwards:.2f} per forward" if forwards else ""
    last = max((frame.forward for frame in frames), default=0)
    facts = [f"forward {last}", _count(tokens, "token"), rate, _visible(sampler)]
    line = Text("\n" + " · ".join(fact for fact in facts if fact), DIM)
    if colour_by is not None:
        low, high = ("unsure", "sure") if colour_by == "confidence" else ("low score", "high")
        line.append(f" · {low} ")
        for i in range(5):
            line.append("■", Style(color=ramp(i / 4), dim=False))
        line.append(f" {high}")
    return line


@dataclass(frozen=True)
class _Lines:
    """Text cut to at most ``count`` lines, those that end with the lowest new token."""

    text: Text
    count: int | None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        lines = list(self.text.wrap(console, options.max_width, overflow="fold"))
        if self.count is not None and len(lines) > self.count:
            news = [n for n, line in enumerate(lines, 1) if any(span.style is NEW for span in line.spans)]
            bottom = min(len(lines), max(self.count, news[-1] + 1 if news else 0))
            lines = lines[bottom - self.count : bottom]
        yield from lines


class Watch:
    """Draws the canvas while it fills, on stderr; a context manager whose `step` fits `Engine.generate(on_step=...)`.

    Does nothing where the console is no terminal.

    Args:
        piece: token id → its text.
        mask_id, eos_ids: of the model. An infill's rows end at no token: give no ``eos_ids``.
        sampler, labels, colour_by: see `render`; ``labels`` in the order of the prompts.
        delay_s: least time that each picture stays, so that the eye can follow a fast model.
        console: another one than stderr.

    Attributes:
        slept_s: time spent waiting for the eye before the latest Step was made; `Result.elapsed_s` holds it too.
    """

    def __init__(
        self,
        piece: Callable[[int], str],
        *,
        mask_id: int,
        eos_ids: Collection[int] = (),
        sampler: str = "",
        labels: Sequence[str] = (),
        colour_by: ColourBy = "confidence",
        delay_s: float = 0.0,
        console: Console | None = None,
    ) -> None:
        check_number("delay_s", delay_s, low=0)
        check_choice("colour_by", colour_by, ("confidence", "score"))
        self._piece, self._mask_id, self._eos_ids = piece, mask_id, tuple(eos_ids)
        self._sampler, self._labels, self._delay_s = sampler, labels, delay_s
        self._colour_by: ColourBy = colour_by
        self._console = Console(stderr=True) if console is None else console
        self._live: Live | None = None
        self._frames: dict[int, Frame] = {}  # the engine's row number → the canvas so far
        self._moved: set[int] = set()  # rows that changed since the last pause
        self._shown_s = self._paused_s = 0.0  # when the last picture was drawn, and when the last pause ended
        self._slept_s = self.slept_s = 0.0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            # stdout stays where it points: what a caller prints there may go to a file
            self._live = Live(console=self._console, auto_refresh=False, redirect_stdout=False, vertical_overflow="crop")
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        if self._live is not None:
            self._live.update(self._picture(None))
            self._live.stop()
            self._live = None

    def step(self, step: Step) -> None:
        """Draw one Step."""
        self.slept_s = self._slept_s
        if self._live is None:
            return
        before = self._frames.get(step.row)
        if before is None:
            before = Frame.before(step, self._piece, self._mask_id, self._eos_ids, len(self._frames))
        self._show(step.row, before.after(TraceStep.of(step, before, self._piece)))

    def _show(self, row: int, frame: Frame) -> None:
        assert self._live is not None
        if row in self._moved:  # the other rows of this forward pass have had their turn
            began = time.monotonic()
            time.sleep(max(0.0, self._delay_s - (began - self._paused_s)))
            self._slept_s += time.monotonic() - began
            self._moved.clear()
        if not self._moved:
            self._paused_s = time.monotonic()
        self._moved.add(row)
        self._frames[row] = frame
        if self._delay_s or time.monotonic() - self._shown_s >= 1 / FRAMES_PER_S:
            self._live.update(self._picture(self._console.height), refresh=True)
            self._shown_s = time.monotonic()

    def _picture(self, max_lines: int | None) -> RenderableType:
        return render(
            list(self._frames.values()), sampler=self._sampler, labels=self._labels, colour_by=self._colour_by,
            legend=not self._console.no_color, max_lines=max_lines,
        )  # fmt: skip


def replay_in_terminal(
    trace: Trace, delay_s: float = 0.15, *, colour_by: ColourBy = "confidence", console: Console | None = None
) -> None:
    """Play a trace; where the console is no terminal, print only how it ended.

    Args:
        delay_s: time between forward passes.
        colour_by: see `render`.
        console: another one than stderr.
    """
    check_number("delay_s", delay_s, low=0)
    console = Console(stderr=True) if console is None else console
    rows = [[row.opening, *row.frames()] for row in trace.rows]
    if not rows:
        return
    sampler = ", ".join(dict.fromkeys(str(row.params.get("sampler", "")) for row in trace.rows))
    legend = not console.no_color and console.is_terminal

    def picture(i: int, max_lines: int | None) -> RenderableType:
        frames = [row[min(i, len(row) - 1)] for row in rows]
        labels = [row.prompt for row in trace.rows]
        return render(frames, sampler=sampler, labels=labels, colour_by=colour_by, legend=legend, max_lines=max_lines)

    last = max(map(len, rows)) - 1
    if not console.is_terminal:
        console.print(picture(last, None))
        return
    with Live(console=console, auto_refresh=False, redirect_stdout=False, vertical_overflow="crop") as live:
        for i in range(last + 1):
            live.update(picture(i, console.height), refresh=True)
            time.sleep(delay_s)
        live.update(picture(last, None))

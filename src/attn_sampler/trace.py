"""A run as a file: write it while it happens, read it back, replay the canvas.

JSON Lines, each line flushed as it is written, so that a killed run leaves a readable trace: one line on the file (format,
version, model), then for every row one line before its first forward pass, one per `Step`, one for its result. A row without a
result is unfinished. JSON lacks NaN and the infinities: they are the strings ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``.
Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType, UnionType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from attn_sampler.errors import InvalidInputError
from attn_sampler.frames import Cell, Frame, TraceStep

if TYPE_CHECKING:
    from attn_sampler.params import SamplingParams
    from attn_sampler.results import Step

__all__ = ["FORMAT", "VERSION", "Trace", "TraceRow", "TraceWriter", "read"]

FORMAT, VERSION = "attn-sampler-trace", 1
T = TypeVar("T")


@dataclass(frozen=True)
class TraceRow:
    """One row of a trace.

    Attributes:
        row: its number, from 0, in the order of the prompts.
        prompt: as text.
        params: `SamplingParams.to_dict`.
        opening: the canvas before the first forward pass.
        steps: one per forward pass.
        result: `Result.to_dict`; None where the run was cut off.
    """

    row: int
    prompt: str
    params: dict[str, Any]
    opening: Frame
    steps: tuple[TraceStep, ...]
    result: dict[str, Any] | None

    @property
    def finished(self) -> bool:
        return self.result is not None

    def frames(self) -> Iterator[Frame]:
        """The canvas after each forward pass."""
        frame = self.opening
        for step in self.steps:
            frame = frame.after(step)
            yield frame

    def to_dict(self) -> dict[str, Any]:
        """The row's lines of the file in one: plain JSON types."""
        steps = [_plain(dataclasses.asdict(step)) for step in self.steps]
        return _opening(self.opening, self.prompt, self.params) | {"steps": steps, "result": _plain(self.result)}


@dataclass(frozen=True)
class Trace:
    """A run.

    Attributes:
        model: name of the model.
        written_by: version of attn-sampler that ran it.
        mask_id: the mask token.
        rows: one per prompt; none where the run was cut off during its first forward pass.
    """

    model: str
    written_by: str
    mask_id: int
    rows: tuple[TraceRow, ...]

    @property
    def finished(self) -> bool:
        return bool(self.rows) and all(row.finished for row in self.rows)

    def frames(self) -> Iterator[Frame]:
        """The canvas after each forward pass, row by row."""
        for row in self.rows:
            yield from row.frames()

    def to_dict(self) -> dict[str, Any]:
        """The whole trace as plain JSON types."""
        return _heading(self.model, self.written_by, self.mask_id) | {"rows": [row.to_dict() for row in self.rows]}


def _heading(model: str, written_by: str, mask_id: int) -> dict[str, Any]:
    return {"format": FORMAT, "version": VERSION, "attn_sampler": written_by, "model": model, "mask_id": mask_id}


def _opening(frame: Frame, prompt: str, params: dict[str, Any]) -> dict[str, Any]:
    pieces = [cell.piece for cell in frame.cells]
    canvas = {"start": frame.start, "eos_ids": list(frame.eos_ids), "ids": frame.ids, "pieces": pieces}
    return {"row": frame.row, "prompt": prompt, "params": _plain(params)} | canvas


def _plain(value: Any) -> Any:
    """Plain JSON types; numbers that JSON lacks as strings, under names that Python's float and JavaScript's Number both read."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


class TraceWriter:
    """Writes Steps as they happen; a context manager. ``step`` fits `Engine.generate(on_step=...)`.

    Args:
        path: file to write; one that exists is replaced.
        piece: token id → its text.
        mask_id, eos_ids: of the model. An infill's rows end at no token: give no ``eos_ids``.
        params: one for all rows, or one per row in the order of the prompts.
        prompts: the prompts as text, in their order; without them, the joined pieces.
        model: name of the model.

    Raises:
        InvalidInputError: the file cannot be written.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        piece: Callable[[int], str],
        mask_id: int,
        params: SamplingParams | Sequence[SamplingParams],
        eos_ids: Collection[int] = (),
        prompts: Sequence[str] = (),
        model: str = "",
    ) -> None:
        from attn_sampler import __version__

        self._piece, self._mask_id, self._eos_ids = piece, mask_id, tuple(eos_ids)
        self._params, self._prompts = params, prompts
        self._frames: dict[int, Frame] = {}  # the engine's row number → the canvas so far
        try:  # a lone surrogate, escaped with a backslash, is just what JSON would have written
            self._file = Path(path).open("w", encoding="utf-8", errors="backslashreplace", newline="\n")  # noqa: SIM115
        except OSError as error:
            remedy = f"cannot be written ({error.strerror}); give a file in a directory that exists"
            raise InvalidInputError("trace", str(path), remedy) from error
        self._line(_heading(model, __version__, mask_id))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def _line(self, record: dict[str, Any]) -> None:
        self._file.write(json.dumps(_plain(record), ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n")
        self._file.flush()

    def step(self, step: Step) -> None:
        """Write one Step, and the row's heading before its first.

        Raises:
            InvalidInputError: the Step does not follow from the one before: a Step of its row is missing.
        """
        before = self._frames.get(step.row) or self._open(step)
        line = TraceStep.of(step, before, self._piece)
        frame = before.after(line)
        if frame.ids != step.ids:
            raise InvalidInputError("step", f"row {step.row}, forward {step.forward}", "give every Step of a row, in order")
        self._frames[step.row] = frame
        self._line({"row": frame.row} | dataclasses.asdict(line))
        if step.result is not None:
            self._line({"row": frame.row, "result": step.result.to_dict()})

    def _open(self, step: Step) -> Frame:
        n = len(self._frames)  # rows are admitted in the order of their prompts, so they appear in it
        if isinstance(self._params, Sequence) and n >= len(self._params):
            raise InvalidInputError("params", f"{len(self._params)} of them", "give one for all rows, or one for each")
        params = self._params[n] if isinstance(self._params, Sequence) else self._params
        frame = Frame.before(step, self._piece, self._mask_id, () if params.ignore_eos else self._eos_ids, n)
        given = "".join(cell.piece or "" for cell in frame.cells[: step.start])
        self._line(_opening(frame, self._prompts[n] if n < len(self._prompts) else given, params.to_dict()))
        return frame


class _Line:
    """One line of a file; its values are checked as they are taken, for the file may come from anywhere."""

    def __init__(self, path: Path, number: int, text: bytes) -> None:
        self._path, self._number = path, number
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self.error("is not JSON") from error
        if not isinstance(values, dict):
            raise self.error("is not a JSON object")
        self.values: dict[str, Any] = values

    def error(self, reason: str) -> InvalidInputError:
        remedy = f"line {self._number} of {self._path.name} {reason}; give a file that TraceWriter wrote"
        return InvalidInputError("trace", str(self._path), remedy)

    def take(self, key: str, kind: type[T]) -> T:
        value = self.values.get(key)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self.error(f"lacks {key!r} ({kind.__name__})")
        return value

    def many(self, key: str, kind: type | UnionType, *, length: int | None = None, below: int | None = None) -> tuple[Any, ...]:
        """A list of ``length`` values; integers from 0 to ``below`` - 1 where that is given."""
        values = self.take(key, list)
        if length is not None and len(values) != length:
            raise self.error(f"has {len(values)} {key!r} instead of {length}")
        try:  # an infinity is written as a string
            values = [float(value) for value in values] if kind is float else values
        except (TypeError, ValueError, OverflowError) as error:
            raise self.error(f"has {key!r} that are not numbers") from error
        if any(not isinstance(value, kind) or isinstance(value, bool) for value in values):
            raise self.error(f"has {key!r} of the wrong type")
        if below is not None and any(not 0 <= value < below for value in values):
            raise self.error(f"has {key!r} outside the canvas of {below}")
        return tuple(values)


def _lines(path: Path) -> list[_Line]:
    try:
        *texts, last = path.read_bytes().split(b"\n")
    except OSError as error:
        raise InvalidInputError("trace", str(path), f"cannot be read ({error.strerror}); give a trace file") from error
    if not texts and not last:
        raise InvalidInputError("trace", str(path), "the file is empty; run the generation again")
    lines = [_Line(path, n, text) for n, text in enumerate(texts, 1)]
    if last:  # no line end: the run was killed while it wrote, or an editor took the line end away
        try:
            lines.append(_Line(path, len(texts) + 1, last))
        except InvalidInputError:
            if not lines:
                raise
    return lines


def _read_row(line: _Line, mask_id: int) -> TraceRow:
    ids = line.many("ids", int)
    pieces = line.many("pieces", str | None, length=len(ids))
    start = line.take("start", int)
    if not 0 <= start <= len(ids):
        raise line.error("has a 'start' outside the canvas")
    cells = tuple(Cell(t, piece, None if piece is None else 0) for t, piece in zip(ids, pieces, strict=True))
    frame = Frame(line.take("row", int), 0, start, cells, mask_id, line.many("eos_ids", int))
    return TraceRow(frame.row, line.take("prompt", str), line.take("params", dict), frame, (), None)


def _read_step(line: _Line, size: int) -> TraceStep:
    positions = line.many("positions", int, below=size)
    window = line.many("window", int, below=size)
    n = len(positions)
    return TraceStep(
        line.take("forward", int), positions, line.many("tokens", int, length=n), line.many("pieces", str, length=n),
        line.many("confidences", float, length=n), window, line.many("scores", float, length=len(window)),
        line.many("remasked", int, below=size), line.take("settled", int), line.take("delta", str),
    )  # fmt: skip


def read(path: str | Path) -> Trace:
    """Read a trace. A last line that was cut off is left out: its row reads as unfinished.

    Raises:
        InvalidInputError: no such file, empty, or not a trace of this version; names the file, the line and what to do.
    """
    head, *lines = _lines(Path(path))
    if head.values.get("format") != FORMAT:
        raise head.error(f"does not begin a trace (its format is not {FORMAT!r})")
    if head.values.get("version") != VERSION:
        raise head.error(f"says version {head.values.get('version')!r}, this attn-sampler reads version {VERSION}")
    mask_id, rows, steps = head.take("mask_id", int), dict[int, TraceRow](), dict[int, list[TraceStep]]()
    for line in lines:
        n = line.take("row", int)
        if "ids" in line.values:
            if n in rows:
                raise line.error(f"begins row {n} again")
            rows[n], steps[n] = _read_row(line, mask_id), []
        elif n not in rows or rows[n].finished:
            raise line.error(f"belongs to row {n}, which has {'ended' if n in rows else 'not begun'}")
        elif "result" in line.values:
            result = line.take("result", dict)
            if not isinstance(result.get("finish_reason"), str) or not isinstance(result.get("completion_tokens"), int):
                raise line.error("has a 'result' without finish_reason or completion_tokens")
            rows[n] = dataclasses.replace(rows[n], result=result)
        else:
            steps[n].append(_read_step(line, len(rows[n].opening.cells)))
    done = tuple(dataclasses.replace(row, steps=tuple(steps[n])) for n, row in rows.items())
    return Trace(head.take("model", str), head.take("attn_sampler", str), mask_id, done)

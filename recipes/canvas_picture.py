"""Draw a canvas being filled, from a trace file, as one SVG for the README.

    python recipes/canvas_picture.py trace.jsonl docs/images/canvas.svg [--row 0] [--panels 5]

Each panel is the answer after a forward pass: the first, the last, and some evenly between. Colours stand for the score; they
follow the reader's light or dark setting.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path

from rich.cells import cell_len

from attn_sampler.errors import InvalidInputError
from attn_sampler.frames import Cell, Frame
from attn_sampler.trace import TraceRow, read

CHAR, SIDE, LINE, PAD = 13.2, 4.0, 33.0, 24.0  # width of a character, room beside a token, height of a line, margin: pixels
WIDTH = 960.0  # of the picture at most, pixels

# ColorBrewer YlGnBu, colour-blind safe; reversed in the dark, so that "high" always stands out
RAMP = ("#f4f7c6", "#d5eeb3", "#a3dbb8", "#64c3bf", "#32a5c2", "#2080b8", "#24539e", "#1c3185", "#0c1f5c")
INKS = ("#000", "#000", "#000", "#000", "#000", "#fff", "#fff", "#fff", "#fff")
STYLE = """
text { font: 22px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: #1c1d20; white-space: pre; }
.note { font-size: 14px; font-family: system-ui, "Segoe UI", "Liberation Sans", sans-serif; fill: #63666d; }
.page { fill: #fff; stroke: #dfdfda; } .mask { fill: url(#hatch); } .new { fill: none; stroke: #d8590b; stroke-width: 2.5; }
.given { fill: none; } .h0 { fill: #e7e8e5; } .h1 { stroke: #d0d1ce; }
"""
DARK = """
text { fill: #ececea; } .note { fill: #9da1a9; } .page { fill: #1b1d21; stroke: #34373d; } .new { stroke: #ffa04d; }
.h0 { fill: #2a2d32; } .h1 { stroke: #43474f; }
"""

Place = tuple[int, float, float, float]  # position on the canvas, x, y and width in pixels


def spot(cell: Cell, eos_ids: Sequence[int]) -> str:
    """What a cell shows on its line."""
    if cell.piece is None:
        return " "
    return "∎" if cell.token in eos_ids else cell.piece.replace("\n", "↵") or " "


def lay_out(final: Frame) -> list[Place]:
    """Where every cell of the answer stands: as in the finished text, so that panels can be compared."""
    places: list[Place] = []
    x = y = 0.0
    for i in range(final.start, final.end):
        cell = final.cells[i]
        width = max(1, cell_len(spot(cell, final.eos_ids))) * CHAR + 2 * SIDE
        if x and x + width > WIDTH - 2 * PAD:
            x, y = 0.0, y + LINE
        places.append((i, x, y, width))
        x += width
        if "\n" in (cell.piece or ""):
            x, y = 0.0, y + LINE
    return places


def draw_cell(frame: Frame, place: Place, low: float, high: float) -> str:
    """One position: a hatched box, or its text on the colour of its score."""
    i, x, y, width = place
    cell = frame.cells[i]
    box = f'x="{x + 1:.1f}" y="{y + 1:.1f}" width="{width - 2:.1f}" height="{LINE - 4:.1f}" rx="3"'
    if cell.piece is None:
        return f'<rect class="mask" {box}/>'
    known = cell.score is not None and math.isfinite(cell.score)
    shade = round((cell.score - low) / (high - low) * (len(RAMP) - 1)) if known and cell.score is not None and high > low else 0
    name = "given" if cell.forward == 0 else f"c{shade}"
    parts = [f'<rect class="{name}" {box}/>']
    text = spot(cell, frame.eos_ids)
    if text.strip():
        long, lead = cell_len(text.strip()) * CHAR, len(text) - len(text.lstrip())
        length = f'textLength="{long:.1f}" lengthAdjust="spacingAndGlyphs"'  # whatever font the reader has, a token keeps its box
        shown = escape("".join(c if c.isprintable() else "\ufffd" for c in text.strip()))
        parts.append(f'<text class="t{name}" x="{x + SIDE + lead * CHAR:.1f}" y="{y + 22.5:.1f}" {length}>{shown}</text>')
    if i in frame.new:
        parts.append(f'<rect class="new" {box}/>')
    return "".join(parts)


def style() -> str:
    light = [f".c{i} {{ fill: {c}; }} .tc{i} {{ fill: {INKS[i]}; }}" for i, c in enumerate(RAMP)]
    dark = [f".c{i} {{ fill: {c}; }} .tc{i} {{ fill: {INKS[-1 - i]}; }}" for i, c in enumerate(reversed(RAMP))]
    return STYLE + "\n".join(light) + "\n@media (prefers-color-scheme: dark) {" + DARK + "\n".join(dark) + "\n}"


def note(x: float, y: float, text: str) -> str:
    return f'<text class="note" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def draw_legend(y: float) -> str:
    parts = [note(PAD, y, "score: low")]
    parts += [f'<rect class="c{i}" x="{PAD + 76 + 15 * i}" y="{y - 12}" width="15" height="14"/>' for i in range(len(RAMP))]
    x = PAD + 84 + 15 * len(RAMP)
    parts.append(f'<rect class="mask" x="{x + 58}" y="{y - 13}" width="13" height="16" rx="3"/>')
    parts.append(f'<rect class="new" x="{x + 138}" y="{y - 12}" width="13" height="14" rx="3"/>')
    texts = ((x, "high"), (x + 78, "mask"), (x + 159, "committed in this forward pass"))
    return "".join([*parts, *(note(place, y, text) for place, text in texts)])


def draw(row: TraceRow, panels: int) -> str:
    """The whole picture."""
    frames = list(row.frames())
    if not frames:
        raise InvalidInputError("row", row.row, "it holds no forward pass")
    chosen = [frames[i] for i in sorted({round(k * (len(frames) - 1) / max(1, panels - 1)) for k in range(panels)})]
    places = lay_out(frames[-1])
    scores = [score for step in row.steps for score in step.scores if math.isfinite(score)] or [0.0]
    wide = max(160.0, *(x + width for _, x, _, width in places))  # room for the caption in any case
    high = max(y for _, _, y, _ in places) + LINE + 56
    across = max(1, min(len(chosen), int((WIDTH - PAD) // (wide + PAD))))
    prompt = " ".join(row.prompt.split())
    body = [note(PAD, PAD + 12, prompt if len(prompt) <= 120 else prompt[:119] + "…")]
    for n, frame in enumerate(chosen):
        left, top = PAD + n % across * (wide + PAD), 2 * PAD + 12 + n // across * high
        body.append(note(left, top + 12, f"forward {frame.forward} · {frame.tokens} token{'' if frame.tokens == 1 else 's'}"))
        moved = ((i, left + x, top + 24 + y, width) for i, x, y, width in places)
        body += [draw_cell(frame, place, min(scores), max(scores)) for place in moved]
    bottom = 2 * PAD + 24 + -(-len(chosen) // across) * high
    return frame_picture(max(across * (wide + PAD) + PAD, WIDTH), bottom + PAD, [*body, draw_legend(bottom)])


def frame_picture(width: float, height: float, body: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" role="img">'
        f"<title>A canvas being filled</title><style>{style()}</style><defs>"
        '<pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
        '<rect class="h0" width="6" height="6"/><line class="h1" x1="1.5" y1="0" x2="1.5" y2="6" stroke-width="3"/>'
        f'</pattern></defs><rect class="page" x=".5" y=".5" width="{width - 1:.0f}" height="{height - 1:.0f}" rx="10"/>'
        + "\n".join(body)
        + "</svg>\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw a canvas being filled, from a trace file.")
    parser.add_argument("trace", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--row", type=int, default=0)
    parser.add_argument("--panels", type=int, default=5)
    args = parser.parse_args()
    rows = read(args.trace).rows
    if not 0 <= args.row < len(rows) or args.panels < 1:
        sys.exit(f"--row {args.row}: give 0 to {len(rows) - 1}, and at least one panel")
    args.picture.parent.mkdir(parents=True, exist_ok=True)
    args.picture.write_text(draw(rows[args.row], args.panels), encoding="utf-8")


if __name__ == "__main__":
    main()

"""A report as blocks, written as Markdown or as one standalone HTML page from the same blocks."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["Block", "Code", "Heading", "Picture", "Table", "Text", "markdown", "page"]


@dataclass(frozen=True)
class Heading:
    text: str
    level: int = 2


@dataclass(frozen=True)
class Text:
    """A paragraph, without markup."""

    text: str


@dataclass(frozen=True)
class Code:
    text: str


@dataclass(frozen=True)
class Table:
    """The first column is text, the others are numbers; ``words`` of them are text too, counted from the right."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 0


@dataclass(frozen=True)
class Picture:
    """``name`` is its file without ending, ``alt`` says in words what it shows."""

    name: str
    alt: str
    svg: str


Block = Heading | Text | Code | Table | Picture


def markdown(blocks: Sequence[Block], folder: str = "plots") -> str:
    """Pictures are links to ``folder/name.svg``."""
    out = []
    for block in blocks:
        match block:
            case Heading(text, level):
                out.append(f"{'#' * level} {text}")
            case Text(text):
                out.append(text)
            case Code(text):
                out.append(f"```sh\n{text}\n```")
            case Picture(name, alt):
                out.append(f"![{alt}]({folder}/{name}.svg)")
            case Table(header, rows):
                lines = [header, ["---"] * len(header), *rows]
                out.append("\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines))
    return "\n\n".join(out) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def page(title: str, blocks: Sequence[Block], inline: Callable[[str, str], str]) -> str:
    """One file that needs no other: light and dark by the reader's choice, tables that scroll on a narrow screen.

    Args:
        inline: svg, name → an ``<svg>`` element in the colours ``--ink`` and ``--grid``.
    """
    body = "\n".join(_element(block, inline) for block in blocks)
    return PAGE.replace("{{title}}", html.escape(title)).replace("{{body}}", body)


def _element(block: Block, inline: Callable[[str, str], str]) -> str:
    match block:
        case Heading(text, level):
            return f"<h{level}>{html.escape(text)}</h{level}>"
        case Text(text):
            return f"<p>{html.escape(text)}</p>"
        case Code(text):
            return f"<pre><code>{html.escape(text)}</code></pre>"
        case Picture(name, alt, svg):
            words = html.escape(alt)
            return f'<figure role="img" aria-label="{words}">{inline(svg, name)}<figcaption>{words}</figcaption></figure>'
        case Table(header, rows, words):
            numbers = len(header) - words
            head = "".join(f"<th scope=col{_side(i, numbers)}>{html.escape(cell)}</th>" for i, cell in enumerate(header))
            lines = "\n".join(
                "<tr>" + "".join(f"<td{_side(i, numbers)}>{html.escape(cell)}</td>" for i, cell in enumerate(row)) + "</tr>"
                for row in rows
            )
            return f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>\n{lines}\n</tbody></table></div>"


def _side(i: int, numbers: int) -> str:
    return " class=n" if 0 < i < numbers else ""


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{{title}}</title>
<style>
:root { color-scheme: light dark; --ink: #222; --grid: #ddd; --paper: #fff; --soft: #f4f4f4; --quiet: #666 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --grid: #444; --paper: #16181c; --soft: #23262c; --quiet: #a0a0a0 } }
body { margin: 0 auto; padding: 1rem; max-width: 68rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif }
h1 { font-size: 1.5rem } h2 { font-size: 1.2rem; margin-top: 2.2rem } h3 { font-size: 1rem }
.wide { overflow-x: auto; margin: 1rem 0 }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .7rem .3rem 0; border-bottom: 1px solid var(--grid); text-align: left; vertical-align: top }
th { font-weight: 600 } td:first-child { white-space: nowrap } .n { text-align: right; white-space: nowrap }
tbody tr:hover { background: var(--soft) }
pre { overflow-x: auto; padding: .7rem; background: var(--soft); font-size: .85rem }
figure { margin: 1.2rem 0 } figure svg { max-width: 100%; height: auto } figcaption { color: var(--quiet); font-size: .85rem }
</style>
</head>
<body>
{{body}}
</body>
</html>
"""

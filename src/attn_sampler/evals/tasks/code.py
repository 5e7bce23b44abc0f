"""The program in an answer."""

from __future__ import annotations

import builtins
import re
from collections.abc import Iterator
from io import StringIO
from tokenize import COMMENT, NAME, TokenInfo, generate_tokens

__all__ = ["called_names", "fenced", "upto"]


def fenced(text: str, wanted: str = "") -> str | None:
    """The first fenced block that holds ``wanted``, else the first one; None where there is none. The last may be open."""
    blocks = re.findall(r"```[a-zA-Z0-9]*[ \t]*\r?\n(.*?)(?:```|\Z)", text, re.DOTALL)
    return next((block for block in blocks if wanted in block), blocks[0] if blocks else None)


def upto(text: str, stops: tuple[str, ...]) -> str:
    """``text`` before the first of the stop strings."""
    return text[: min((i for i in (text.find(stop) for stop in stops) if i >= 0), default=len(text))]


def called_names(tests: str, reference: str) -> tuple[str, ...]:
    """Names that ``tests`` use and ``reference`` defines at its top level, sorted; what the program has to define.

    Raises:
        ValueError: they share none.
    """
    used = {name.string for before, name, _ in _names(tests) if before.string != "."}
    defined = {
        name.string
        for before, name, after in _names(reference)
        if (before.string in ("def", "class") and before.start[1] == 0) or (after.string == "=" and name.start[1] == 0)
    }
    if not used & defined:
        raise ValueError(f"the tests use {sorted(used - set(dir(builtins)))}, the reference defines {sorted(defined)}")
    return tuple(sorted(used & defined))


def _names(source: str) -> Iterator[tuple[TokenInfo, TokenInfo, TokenInfo]]:
    """Every name with the tokens around it. Not a syntax tree: making one warns of the escape sequences in old programs."""
    tokens = [t for t in generate_tokens(StringIO(f"\n{source}\n").readline) if t.type != COMMENT]
    yield from (three for three in zip(tokens, tokens[1:], tokens[2:], strict=False) if three[1].type == NAME)

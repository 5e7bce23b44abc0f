"""A trace as one web page: a time slider over the canvas, without any request to anywhere.

The page itself is ``replay.html`` beside this file; the trace goes into it as JSON. ``#step=3`` in the address opens it after the
third forward pass, ``#row=1&step=3`` that of the second row.
"""

from __future__ import annotations

import json
from importlib import resources

from attn_sampler.errors import InvalidInputError
from attn_sampler.trace import Trace

__all__ = ["to_html"]

PLACE = "__TRACE__"


def to_html(trace: Trace) -> str:
    """A standalone page, pure ASCII where the trace goes, so that no text in it can end the script it stands in.

    Raises:
        InvalidInputError: the trace holds no row.
    """
    if not trace.rows:
        raise InvalidInputError("trace", trace.model, "no forward pass was recorded; run the generation again")
    data = json.dumps(trace.to_dict(), allow_nan=False, separators=(",", ":"))
    for character in "<>&":  # inside strings only: no other part of JSON holds them
        data = data.replace(character, f"\\u{ord(character):04x}")
    page = resources.files("attn_sampler").joinpath("replay.html").read_text(encoding="utf-8")
    before, _, after = page.partition(PLACE)
    return before + data + after

"""Runs the Python blocks of docs/add-a-sampler.md that have a text block below them, in order, and writes what they print into
it. ``--check`` fails where the page is stale: after a change of the code, or of the embedded model."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "add-a-sampler.md"
SHOWN = re.compile(r"```python\n((?:(?!```).)*?)```\n\n```text\n(.*?)```\n", re.DOTALL)


def refresh(page: str) -> str:
    """The page with the output of its blocks as it is now."""
    namespace: dict[str, Any] = {}

    def run(block: re.Match[str]) -> str:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block[1], PAGE.name, "exec"), namespace)
        return f"```python\n{block[1]}```\n\n```text\n{printed.getvalue()}```\n"

    return SHOWN.sub(run, page)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "examples" / "sampler_package"))
    page = PAGE.read_text()
    fresh = refresh(page)
    if "--check" not in sys.argv:
        PAGE.write_text(fresh)
    elif fresh != page:
        sys.exit(f"{PAGE.name} is stale: run `make docs`")

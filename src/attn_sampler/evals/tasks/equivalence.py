"""Whether two LaTeX answers mean the same, by math-verify in a process of its own.

A model can write a tower of powers that no computer algebra ever finishes, in C code that no signal interrupts: so the comparison
has a clock and a memory limit, and a process that can be ended. It is started when it is first needed and ends with ours.
"""

from __future__ import annotations

import atexit
import json
import select
import subprocess
import sys
from threading import Lock
from typing import Any

__all__ = ["equivalent"]

CLOCK_S = 10.0
START_S = 120.0  # importing sympy, on a busy machine
MEMORY_BYTES = 4 << 30


class Comparer:
    """Asks the process, starts it anew where it had to be ended."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._turn = Lock()

    def ask(self, gold: str, answer: str) -> bool:
        with self._turn:
            if self._process is None:
                code = f"from {equivalent.__module__} import serve; serve()"
                self._process = subprocess.Popen(
                    [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
                )
                self._line(START_S)
            return self._line(CLOCK_S, json.dumps([gold, answer]).encode() + b"\n") == b"true\n"

    def _line(self, clock_s: float, question: bytes = b"") -> bytes:
        """What it says next; nothing where it ended (out of memory) or had to be."""
        process = self._process
        if process is None:
            return b""
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(question)
            process.stdin.flush()
            said = process.stdout.readline() if select.select([process.stdout], [], [], clock_s)[0] else b""
        except OSError:
            said = b""
        if not said:
            self.close()
        return said

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


_comparer = Comparer()
atexit.register(_comparer.close)


def equivalent(gold: str, answer: str) -> bool:
    """Whether math-verify finds them equal; False where it cannot tell within 10 s."""
    return _comparer.ask(gold, answer)


def serve() -> None:
    """Answer questions on standard input until it ends."""
    import logging
    import resource

    from math_verify import LatexExtractionConfig, parse, verify

    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    print("ready", flush=True)
    for line in sys.stdin:
        # read as LaTeX alone: the reader of plain expressions hands text to Python's eval
        never: Any = None
        gold, answer = (parse(f"${text}$", [LatexExtractionConfig()], parsing_timeout=never) for text in json.loads(line))
        print(json.dumps(bool(verify(gold, answer, timeout_seconds=None))), flush=True)

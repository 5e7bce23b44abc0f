"""Running programs that a model wrote, as if an enemy had written them.

**What is kept from a program** (as root, and as anybody where user namespaces are allowed): the network, every file but Python's
library and the system's shared objects (read-only), other processes, the tests and the expected values. It gets an empty working
folder in memory, an own user without rights, limits of CPU time, memory, file size, open files and processes, and a wall clock,
after which the kernel ends its whole process tree.

**How success is told**: the tests run in another process than the program, see `inside`. The program can answer calls of its
functions and nothing else; to pass, the answers have to be right. A marker on standard output, an exit status, a patched
``assert``, an object that equals everything: none of them is ever looked at.

**What remains**: a hole in the kernel, and the time of one CPU core until the clock runs out. Where the kernel or a container
refuses namespaces nothing is run, unless the caller says so: then what `missing` names is open to the program, the network and
readable files, and unless we are root the processes of the same user. Do that in a container or a virtual machine of its own.
Only the standard library can be imported, so that a verdict does not depend on what is installed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import attn_sampler
from attn_sampler.errors import InvalidInputError, check_number

__all__ = ["Limits", "Verdict", "check", "confinement", "missing", "run_tests"]

GRACE_S = 2.0  # for the supervisor to end what is left, after the wall clock


@dataclass(frozen=True)
class Limits:
    """What one program may use.

    Attributes:
        wall_s: clock time of the whole run, seconds.
        cpu_s: processor time of each process, whole seconds.
        memory_mb: address space of each process, MiB.
        file_mb: size of each file, MiB.
        processes: at once, threads counted.
    """

    wall_s: float = 10.0
    cpu_s: int = 8
    memory_mb: int = 512
    file_mb: int = 4
    processes: int = 4

    def __post_init__(self) -> None:
        check_number("wall_s", self.wall_s, low=0, open_low=True)
        for name in ("cpu_s", "memory_mb", "file_mb", "processes"):
            check_number(name, getattr(self, name), low=1, integer=True)

    def resources(self) -> dict[str, int]:
        """For `resource.setrlimit`."""
        return {
            "CPU": self.cpu_s, "AS": self.memory_mb << 20, "FSIZE": self.file_mb << 20, "NPROC": self.processes, "NOFILE": 64,
            "CORE": 0, "MSGQUEUE": 0, "MEMLOCK": 0,
        }  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """How a program did.

    Attributes:
        outcome: ``"passed"``, ``"failed"`` (an assertion), ``"error"`` (an exception, an exit, a limit), ``"timeout"``.
        message: of the exception.
        seconds: clock time.
    """

    outcome: str
    message: str = ""
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        return self.outcome == "passed"


def run_tests(
    program: str,
    tests: str,
    *,
    names: tuple[str, ...],
    setup: str = "",
    limits: Limits | None = None,
    confined: bool = True,
) -> Verdict:
    """Run a program that a model wrote against tests.

    Args:
        program: source of the program. Hostile.
        tests: statements; they pass when they end without an exception.
        names: what the tests use of the program; called over there, values come back as plain data.
        setup: statements that run before the tests, e.g. imports and definitions of the problem's own.
        confined: in namespaces; False runs it without, see `missing`.

    Raises:
        InvalidInputError: this system cannot confine a program, or not at all.
    """
    limits = limits or Limits()
    if confined:
        check(False)
    job = json.dumps({"program": program, "tests": tests, "names": list(names), "setup": setup}).encode()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="attn-sampler-", ignore_cleanup_errors=True) as folder:
        process = _start(f"main({folder!r}, {limits.resources()!r}, {limits.wall_s + GRACE_S}, {confined})")
        try:
            said, _ = process.communicate(job, timeout=limits.wall_s)
        except subprocess.TimeoutExpired:
            return Verdict("timeout", f"after {limits.wall_s:g} s", time.monotonic() - begun)
        finally:
            _end(process)
    return _verdict(said, time.monotonic() - begun)


@cache
def missing() -> tuple[str, ...]:
    """What cannot be kept from a program on this machine, and why; empty where everything is enforced."""
    with tempfile.TemporaryDirectory(prefix="attn-sampler-") as folder:
        process = _start(f"probe({folder!r})")
        said, _ = process.communicate()
    why = said.decode() or ("" if process.returncode == 0 else "the probe failed")
    open_to_it = ["the network", "files that everybody may read", "places where everybody may write"]
    if os.name == "posix" and os.geteuid():
        open_to_it += ["your files", "your other processes"]
    return tuple(f"{what} ({why})" for what in open_to_it) if why else ()


def check(allow_unconfined: bool) -> None:
    """Refuse to run programs where something cannot be kept from them and nobody allowed that.

    Raises:
        InvalidInputError: which says what, and why.
    """
    if missing() and not allow_unconfined:
        remedy = (
            f"programs would not be kept from {'; '.join(missing())}; use a machine that allows namespaces, or, where that does "
        )
        raise InvalidInputError("allow_unconfined", False, f"{remedy}no harm, give --allow-unconfined (allow_unconfined=True)")


def confinement() -> str:
    """How programs are shut in on this machine, in one sentence, for a card."""
    return f"not kept from {'; '.join(missing())}" if missing() else "in namespaces: no network, no files, no other processes"


def _start(call: str) -> subprocess.Popen[bytes]:
    """A process of this Python that makes a call of `inside`: no environment, a session of its own."""
    if os.name != "posix":
        raise InvalidInputError("allow_code", True, "programs can be confined on Linux, in part on macOS; use a Linux machine")
    root = str(Path(attn_sampler.__file__).parents[1])
    start = f"import sys; sys.path.append({root!r}); from attn_sampler.evals.sandbox.inside import main, probe; sys.path.pop()"
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-B", "-c", f"{start}; {call}"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={}, start_new_session=True,
    )  # fmt: skip


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the supervisor, which ends the rest; then its whole process group, whatever it did."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
    with suppress(ProcessLookupError, PermissionError):  # nothing is left of it
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(BrokenPipeError):
                pipe.close()


def _verdict(said: bytes, seconds: float) -> Verdict:
    try:
        found: dict[str, str] = json.loads(said)
        verdict = Verdict(found["outcome"], found["message"], seconds)
    except (ValueError, KeyError, TypeError):
        return Verdict("error", "the judge was ended before it could tell", seconds)
    if verdict.outcome == "unusable":
        remedy = (
            f"without namespaces programs run as a user without rights, but {verdict.message}; use a Python that all may read"
        )
        raise InvalidInputError("allow_code", True, remedy)
    return verdict

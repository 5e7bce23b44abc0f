"""What runs in the process started for one program: a supervisor, the judge that holds the tests, and the program.

Three processes, each with less rights than the one before it:

- the *supervisor* builds the jail, forks the judge, waits for it, and ends what is left;
- the *judge*, first process of its own process tree, forks the program and only then reads the tests; it runs them with stand-ins
  for the program's functions, which call over a socket;
- the *program* defines its functions and answers calls.

So the program never shares a process with the tests: it has no assert, comparison, frame or exit status to tamper with, knows
neither tests nor expected values, and what it sends is only ever taken for the value of a function call (`values`). The verdict
is written by the judge on a pipe that the program does not have.
"""

from __future__ import annotations

import builtins
import json
import os
import signal
import socket
import sys
import types
from pathlib import Path
from typing import Any

from attn_sampler.evals.sandbox import confine
from attn_sampler.evals.sandbox.values import Handle, pack, unpack

MAX_MESSAGE_BYTES = 16 << 20
FIRST_USER = 0x50000000  # ids from here on are nobody's; each run takes two


class Line:
    """JSON messages, one per line, over a socket; longer ones than `MAX_MESSAGE_BYTES` end the talk."""

    def __init__(self, end: socket.socket) -> None:
        self._end, self._rest = end, b""

    def send(self, message: object) -> None:
        self._end.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> Any:
        parts, size = [self._rest], len(self._rest)
        while b"\n" not in parts[-1]:
            parts.append(self._end.recv(1 << 16))
            size += len(parts[-1])
            if not parts[-1]:
                raise EOFError("the program ended before it answered")
            if size > MAX_MESSAGE_BYTES:
                raise ValueError(f"the program answered with more than {MAX_MESSAGE_BYTES} bytes")
        line, _, self._rest = b"".join(parts).partition(b"\n")
        return json.loads(line)


# --- the program ------------------------------------------------------------------------------------------------------


def program(end: socket.socket) -> None:
    """Run the source that comes first, then answer calls, until the judge is gone."""
    line = Line(end)
    kept: list[Any] = []

    def keep(value: Any) -> int:
        kept.append(value)
        return len(kept) - 1

    module = types.ModuleType("program")  # not "__main__": a guarded script must not run
    sys.modules["program"] = module
    space = module.__dict__
    request = line.receive()
    while True:
        try:
            if "source" in request:
                exec(compile(request["source"], "<program>", "exec"), space)
                answer: Any = None
            elif "name" in request:
                answer = pack(space[request["name"]], keep)
            else:
                positional, named = (unpack(part, kept.__getitem__) for part in request["arguments"])
                answer = pack(kept[request["call"]](*positional, **named), keep)
            reply = {"value": answer}
        except BaseException as error:  # SystemExit and KeyboardInterrupt are failures of the program like any other
            reply = {"error": type(error).__name__, "message": str(error)[:300]}
        line.send(reply)
        request = line.receive()


# --- the judge --------------------------------------------------------------------------------------------------------


class ProgramError(Exception):
    """Something other than a built-in exception came out of a call."""


def judge(line: Line, job: dict[str, Any]) -> dict[str, str]:
    """Load the program, run the tests against it."""

    def ask(**request: object) -> Any:
        line.send(request)
        reply = line.receive()
        if "error" in reply:
            kind = getattr(builtins, str(reply["error"]), None)
            if isinstance(kind, type) and issubclass(kind, Exception) and kind not in (UnicodeDecodeError, UnicodeEncodeError):
                raise kind(str(reply["message"]))
            raise ProgramError(f"{reply['error']}: {reply['message']}")
        return reply["value"]

    def call(number: int, positional: tuple[object, ...], named: dict[str, object]) -> object:
        arguments = [pack(part, _stays) for part in (positional, named)]
        return unpack(ask(call=number, arguments=arguments), lambda n: Handle(n, call))

    try:
        ask(source=job["program"])
    except Exception as error:
        return _told("error", error)
    space: dict[str, Any] = {"__name__": "tests"}
    try:
        exec(compile(job["setup"], "<setup>", "exec"), space)
        for name in job["names"]:
            try:
                space[name] = unpack(ask(name=name), lambda n: Handle(n, call))
            except KeyError:
                return {"outcome": "error", "message": f"defines no {name!r}"}
        exec(compile(job["tests"], "<tests>", "exec"), space)
    except AssertionError as error:
        return _told("failed", error)
    except Exception as error:
        return _told("error", error)
    return {"outcome": "passed", "message": ""}


def _stays(value: object) -> int:
    raise ValueError(f"a test hands over a {type(value).__name__}, which has no plain form")


def _told(outcome: str, error: Exception) -> dict[str, str]:
    return {"outcome": outcome, "message": f"{type(error).__name__}: {str(error)[:300]}".removesuffix(": ")}


# --- the processes ----------------------------------------------------------------------------------------------------


def run_judge(limits: dict[str, int], users: tuple[int, int]) -> None:
    """Fork the program with its limits, read the tests from standard input, write the verdict to standard output."""
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        ours.close()
        null = os.open("/dev/null", os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)
        os.closerange(3, theirs.fileno())
        os.closerange(theirs.fileno() + 1, 1 << 20)
        confine.become_nobody(users[0])
        confine.limit(limits)
        confine.no_new_rights()
        program(theirs)
    theirs.close()
    confine.become_nobody(users[1])
    confine.limit({name: limits[name] for name in ("AS", "FSIZE", "CORE")} | {"CPU": 2 * limits["CPU"]})
    confine.no_new_rights()
    confine.hide_memory()
    confine.when_parent_ends(signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    job = json.loads(sys.stdin.buffer.read())
    if not os.access(os.__file__, os.R_OK):  # an import would fail that elsewhere does not
        os.write(1, json.dumps({"outcome": "unusable", "message": f"{os.__file__} can be read by its owner alone"}).encode())
        return
    try:
        verdict: dict[str, Any] = judge(Line(ours), job)
    except BaseException as error:  # whatever the program's answers did to the judge is the program's failure
        verdict = {"outcome": "error", "message": f"{type(error).__name__}: {str(error)[:300]}"}
    os.write(1, json.dumps(verdict).encode())


def sweep(user: int) -> None:
    """End all processes of a run that had no process tree of its own."""
    if os.geteuid() == 0:
        for number in (user, user + 1):
            killer = os.fork()
            if killer == 0:
                confine.become_nobody(number)
                if os.geteuid() == number:  # its signals reach all processes of that user and no other
                    os.kill(-1, signal.SIGKILL)
                os._exit(0)
            os.waitpid(killer, 0)
    tasks = Path(f"/proc/self/task/{os.getpid()}/children")  # orphans are adopted, so none escapes by a double fork
    while tasks.exists() and (left := tasks.read_text().split()):
        for process in left:
            os.kill(int(process), signal.SIGKILL)
        os.waitpid(-1, 0)


def main(folder: str, limits: dict[str, int], wall_s: float, confined: bool) -> None:
    """The supervisor.

    Args:
        folder: empty; the jail's mount point, or else the working folder.
        limits: of the program, for `confine.limit`.
        wall_s: after which it ends everything, should the evaluator be gone by then.
        confined: in namespaces.
    """
    user = FIRST_USER + 2 * (os.getpid() % (1 << 22))
    if confined:
        confine.new_namespaces()
        confine.enter_jail(Path(folder))
    else:
        os.chdir(folder)
        if os.geteuid() == 0:
            os.chown(folder, user, user)
    confine.adopt_orphans()
    confine.hide_memory()  # only now: before, it would hide /proc/self from ourselves
    judging = os.fork()
    if judging == 0:
        try:
            run_judge(limits, (user, user + 1))
        finally:
            os._exit(0)

    def stop(*_: object) -> None:
        os.kill(judging, signal.SIGKILL)  # in namespaces the first of its process tree: the kernel ends the rest
        if not confined:
            sweep(user)
        os._exit(1)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, wall_s)
    confine.when_parent_ends(signal.SIGTERM)
    os.waitpid(judging, 0)
    if not confined:
        sweep(user)


def probe(folder: str) -> None:
    """Write why namespaces and jail cannot be had here; nothing where they can."""
    try:
        confine.new_namespaces()
        confine.enter_jail(Path(folder))
    except OSError as error:
        os.write(1, str(error.strerror or error).encode())

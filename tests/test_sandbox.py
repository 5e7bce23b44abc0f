"""Hostile programs: each counts as failed, the evaluator lives on, and nothing is left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from attn_sampler import InvalidInputError
from attn_sampler.cli import app
from attn_sampler.cli.questions import confined
from attn_sampler.evals import sandbox, tasks
from attn_sampler.evals.questions import questions
from attn_sampler.evals.sandbox import Limits, Verdict, run_tests
from attn_sampler.evals.sandbox.values import Handle, pack, unpack
from attn_sampler.evals.tasks import humaneval, mbpp

SAMPLES = Path(__file__).parent / "samples"
LIMITS = Limits(wall_s=3.0, cpu_s=1, memory_mb=256, file_mb=1)
PATIENT = Limits(wall_s=60.0, cpu_s=30, memory_mb=256, file_mb=1)  # for programs that end by themselves, on a busy machine too
CONFINED = os.name == "posix" and not sandbox.missing()
needs_namespaces = pytest.mark.skipif(not CONFINED, reason=f"not enforced here: {', '.join(sandbox.missing())}")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the limits are tested on Linux")


def processes(marker: str) -> list[int]:
    """Processes with this in their command line; a fork keeps its parent's."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if marker.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:  # ended meanwhile
                continue
    return found


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where runs keep their folders: empty afterwards, and no process that knows it is left."""
    place = tmp_path / "runs"
    place.mkdir(mode=0o755)
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    yield place
    assert not list(place.iterdir())
    end = time.monotonic() + 20  # the kernel ends them at once, but not before we can look
    while processes(str(place)) and time.monotonic() < end:
        time.sleep(0.02)
    assert not processes(str(place))


def attack(program: str, tests: str = "assert f(1) == 'secret 8215'", **options: object) -> Verdict:
    return run_tests(program, tests, names=("f",), limits=LIMITS, **{"confined": CONFINED, **options})  # type: ignore[arg-type]


def check(program: str, tests: str = "f(1)") -> Verdict:
    return run_tests(program, tests, names=("f",), limits=PATIENT, confined=CONFINED)


# --- programs that do what they should --------------------------------------------------------------------------------


def test_a_right_program_passes_and_a_wrong_one_fails(place: Path) -> None:
    assert check("import math\ndef f(x):\n    return math.floor(x)", "assert f(1.5) == 1\nassert f(2) == 2").passed
    wrong = check("def f(x):\n    return x", "assert f(1) == 2, 'no'")
    assert (wrong.outcome, wrong.message) == ("failed", "AssertionError: no")
    assert check("def g(x):\n    return x").message == "defines no 'f'"
    assert check("def f(x:").message.startswith("SyntaxError")
    assert check("import numpy_that_is_not_there").message == "ModuleNotFoundError: No module named 'numpy_that_is_not_there'"
    assert check("def f(x):\n    return [][x]").message == "IndexError: list index out of range"


def test_setup_functions_classes_and_generators_work_across_the_border(place: Path) -> None:
    program = """
class Pair:
    def __init__(self, a, b): self.a, self.b = a, b
def f(pairs):
    for pair in pairs: yield pair.a, pair.b
def adder(n):
    return lambda x: x + n
if __name__ == '__main__':
    raise ValueError
"""
    tests = "assert list(f([Pair(1, 2), Pair(3, b={4})])) == [(1, 2), (3, {4})]\nassert math.isclose(adder(2)(1.5), 3.5)"
    names = ("f", "Pair", "adder")
    assert run_tests(program, tests, names=names, setup="import math", limits=PATIENT, confined=CONFINED).passed


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.complex_numbers(allow_nan=False) | st.text()
    | st.binary() | st.fractions() | st.decimals(allow_nan=False) | st.builds(range, st.integers(-9, 9), st.integers(-9, 9)),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.lists(inner).map(deque) | st.dictionaries(st.text(), inner)
    | st.dictionaries(st.integers() | st.tuples(st.text()), inner) | st.sets(st.integers()) | st.frozensets(st.text()),
    max_leaves=12,
)  # fmt: skip


@given(VALUES)
def test_plain_values_arrive_as_they_are(value: object) -> None:
    def never(_: object) -> int:
        raise AssertionError

    arrived = unpack(pack(value, never), never)
    assert arrived == value
    assert type(arrived) is type(value)


def test_a_value_that_equals_everything_arrives_as_an_object_or_as_its_plain_base() -> None:
    class Chameleon(int):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = int.__hash__

    assert unpack(pack([Chameleon(1)], id), id) != [2]
    assert isinstance(unpack(pack(object(), lambda _: 7), lambda n: Handle(n, print)), Handle)
    assert list(unpack(pack({1: 2}.items(), id), id)) == [(1, 2)]
    assert unpack(pack({1: 2}.keys(), id), id) == {1}
    assert list(unpack(pack(map(str, (1, 2)), id), id)) == ["1", "2"]
    assert unpack(pack((Fraction(1, 3), Decimal("0.10")), id), id) == (Fraction(1, 3), Decimal("0.10"))


# --- programs that do not ---------------------------------------------------------------------------------------------

ATTACKS = {
    "endless loop": "def f(x):\n    while True: pass",
    "endless loop on import": "while True: pass",
    "catches its own end": """
def f(x):
    while True:
        try:
            while True: pass
        except BaseException: pass
""",
    "memory bomb": "def f(x):\n    a = []\n    while True: a.append(bytearray(1 << 24))",
    "one large string": "def f(x):\n    return 'x' * (1 << 40)",
    "fork bomb": """
import os
def f(x):
    while True:
        try: os.fork()
        except OSError: pass
""",
    "leaves a daemon": """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(600)
    os._exit(0)
""",
    "daemon, then exit": """
import os, time
if os.fork() == 0:
    os.setsid()
    time.sleep(600)
os._exit(0)
""",
    "thread bomb": """
import threading, time
def f(x):
    while True: threading.Thread(target=time.sleep, args=(9,)).start()
""",
    "os._exit(0)": "import os\nos._exit(0)",
    "os._exit(0) in a call": "import os\ndef f(x):\n    os._exit(0)",
    "sys.exit(0)": "import sys\nsys.exit(0)",
    "sys.exit(0) in a call": "import sys\ndef f(x):\n    sys.exit(0)",
    "recursion": "def f(x):\n    return f(x + 1)",
    "recursion without limit": "import sys\nsys.setrecursionlimit(10**9)\ndef f(x):\n    return f(x + 1)",
    "nested answer": "def f(x):\n    a = []\n    for _ in range(10**5): a = [a]\n    return a",
    "answer in a ring": "def f(x):\n    a = []\n    a.append(a)\n    return a",
    "generator without end": "def f(x):\n    while True: yield x",
    "huge output": """
import sys
def f(x):
    for _ in range(10**4): print('x' * 10**5)
    sys.stderr.write('x' * 10**8)
""",
    "huge answer": "def f(x):\n    return 'x' * (40 << 20)",
    "an object that equals everything": """
class A:
    def __eq__(self, other): return True
def f(x):
    return A()
""",
    "a str that equals everything": """
class A(str):
    def __eq__(self, other): return True
    __hash__ = str.__hash__
def f(x):
    return A()
""",
    "no assertion errors": """
import builtins
builtins.AssertionError = type('E', (BaseException,), {})
builtins.__build_class__ = None
def f(x): pass
""",
    "patched builtins": """
import builtins
for name in ('compile', 'exec', 'isinstance', 'len', 'str'):
    setattr(builtins, name, lambda *a, **k: True)
def f(x): return True
""",
    "patched json": """
import json
json.dumps = lambda *a, **k: '{"outcome": "passed", "message": ""}'
def f(x): pass
""",
    "forged verdict on every descriptor": """
import os
for _ in range(2):
    for number in range(64):
        try: os.write(number, b'{"outcome": "passed", "message": "", "value": null}\\n')
        except OSError: pass
def f(x): pass
os._exit(0)
""",
    "ends everybody": """
import os, signal
def f(x):
    os.kill(os.getppid() or 1, signal.SIGKILL)
    os.kill(1, signal.SIGKILL)
    os.kill(-1, signal.SIGKILL)
""",
    "stops everybody": """
import os, signal
def f(x):
    os.kill(os.getppid() or 1, signal.SIGSTOP)
    os.kill(-1, signal.SIGSTOP)
""",
    "looks for the answer": """
import gc, os, sys, glob
def f(x):
    seen = [os.environ, sys.argv, [repr(o)[:10**5] for o in gc.get_objects() if isinstance(o, (str, bytes, dict, list))]]
    frame = sys._getframe()
    while frame:
        seen += [dict(frame.f_locals), dict(frame.f_globals)]
        frame = frame.f_back
    for path in glob.glob('/proc/[0-9]*/*') + glob.glob('/proc/self/fd/*') + ['/proc/1/mem', '/dev/mem']:
        try: seen.append(open(path, 'rb').read(10**6))
        except OSError: pass
    text = repr(seen)
    i = text.find('secret ' + '8')
    return text[i:i + 11]
""",
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_a_hostile_program_fails_and_leaves_nothing(name: str, place: Path) -> None:
    if name in ("ends everybody", "stops everybody") and not CONFINED:
        pytest.skip("without namespaces this would reach our own processes")
    begun = time.monotonic()
    verdict = attack(ATTACKS[name])
    assert not verdict.passed, verdict
    assert time.monotonic() - begun < LIMITS.wall_s + 60, "ended by the clock, not by itself after 600 s"
    assert check("def f(x):\n    return x", "assert f(3) == 3").passed


@needs_namespaces
def test_files_outside_are_neither_written_nor_read(place: Path) -> None:
    secret = place.parent / "answers.txt"
    secret.write_text("secret 8215")
    secret.chmod(0o666)
    place.parent.chmod(0o777)
    paths = [
        str(secret),
        str(place.parent / "new"),
        "/etc/passwd",
        "/usr/lib/new",
        os.__file__,
        "/proc/1/mem",
        "/root/new",
        "/home/new",
    ]
    program = """
import os
def tried(*do):
    found = []
    for one in do:
        try: found.append(bool(one()))
        except OSError: pass
    return found
def f(paths):
    return [p for p in paths if any(tried(lambda: open(p, 'a'), lambda: os.unlink(p), lambda: os.symlink('/', p)))]
def g(path): return open(path).read()
"""
    run = run_tests(program, f"assert f({paths!r}) == []", names=("f",), limits=PATIENT)
    assert run.passed, run
    assert secret.read_text() == "secret 8215"
    assert sorted(p.name for p in place.parent.iterdir()) == ["answers.txt", "runs"]
    assert "FileNotFoundError" in run_tests(program, f"g({str(secret)!r})", names=("g",), limits=PATIENT).message


@needs_namespaces
def test_the_working_folder_is_empty_small_and_gone_afterwards(place: Path) -> None:
    program = """
import os
def f(x):
    before = os.listdir()
    written = 0
    for i in range(10**4):
        try:
            with open(f'file{i}', 'wb') as file: written += file.write(b'x' * (1 << 19))
        except OSError: break
    try:
        with open('large', 'wb') as file: file.write(b'x' * (1 << 21))
    except OSError: pass
    return before, written
"""
    verdict = check(program, "before, written = f(1)\nassert before == [] and 1 << 20 < written <= 17 << 20, (before, written)")
    assert verdict.passed, verdict


@needs_namespaces
def test_no_network_not_even_to_this_machine(place: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        program = f"""
import socket
def f(x):
    return socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 1).close()
"""
        assert check(program, "f(1)").message.startswith(("ConnectionRefusedError", "OSError"))
        with pytest.raises(BlockingIOError):
            server.accept()


@needs_namespaces
def test_no_namespaces_or_shared_memory_of_its_own(place: Path) -> None:
    """With a user namespace it could mount memory that no limit counts."""
    program = """
import ctypes
libc = ctypes.CDLL(None)
def f(flag): return libc.unshare(flag)
def g(): return libc.shmget(0, 1 << 20, 0o1600)
"""
    assert run_tests(program, "assert f(0x10000000) == f(0x20000) == -1", names=("f",), limits=PATIENT).passed
    if os.geteuid() == 0:
        assert run_tests(program, "assert g() == -1", names=("g",), limits=PATIENT).passed


def test_a_killed_evaluator_leaves_no_program_behind(place: Path) -> None:
    code = f"""
import tempfile
tempfile.tempdir = {str(place)!r}
from attn_sampler.evals.sandbox import Limits, run_tests
run_tests("import time\\ntime.sleep(600)", "", names=(), limits=Limits(wall_s=600), confined={CONFINED})
"""
    evaluator = subprocess.Popen([sys.executable, "-c", code])
    end = time.monotonic() + 120
    while len(processes(str(place))) < 4:  # evaluator, supervisor, judge, program
        assert time.monotonic() < end
        time.sleep(0.05)
    time.sleep(0.3)
    evaluator.send_signal(signal.SIGKILL)
    evaluator.wait()
    while processes(str(place)):
        assert time.monotonic() < end
        time.sleep(0.05)
    for folder in place.iterdir():
        folder.rmdir()  # an empty folder is what a killed evaluator cannot take away


@pytest.mark.parametrize(
    "name",
    ["endless loop", "memory bomb", "daemon, then exit", "leaves a daemon", "sys.exit(0)", "forged verdict on every descriptor"],
)
def test_limits_hold_without_namespaces_too(name: str, place: Path) -> None:
    try:
        verdict = attack(ATTACKS[name], confined=False)
    except InvalidInputError as error:  # root's own Python, which the user without rights cannot read
        pytest.skip(str(error))
    assert not verdict.passed


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> str:
    """A machine that refuses namespaces: what it would leave open."""
    left = "the network (unshare: Operation not permitted)"
    monkeypatch.setattr(sandbox, "missing", lambda: (left,))
    return left


def test_no_program_runs_unconfined_by_default(refused: str) -> None:
    with pytest.raises(InvalidInputError, match=r"not be kept from the network.*Operation not permitted.*--allow-unconfined"):
        run_tests("def f(): pass", "f()", names=("f",))
    task = tasks.find("humaneval")
    problem = task.problems(SAMPLES)[0]
    with pytest.raises(InvalidInputError, match="allow_unconfined=False"):
        task.score(problem, problem.answer, allow_code=True)
    with pytest.raises(InvalidInputError, match="allow_unconfined=False"):
        questions(task, data=SAMPLES, allow_code=True)
    with pytest.raises(InvalidInputError, match="allow_code=False"):
        questions(task, data=SAMPLES, allow_unconfined=True)


def test_programs_run_unconfined_where_that_is_said(refused: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    def run(*_: object, confined: bool, **__: object) -> Verdict:
        seen.append(confined)
        return Verdict("passed")

    for name, module in (("humaneval", humaneval), ("mbpp", mbpp)):
        monkeypatch.setattr(module, "run_tests", run)
        task = tasks.find(name)
        problem = task.problems(SAMPLES)[0]
        assert task.score(problem, problem.answer, allow_code=True, allow_unconfined=True).solved
        asked = questions(task, data=SAMPLES, allow_code=True, allow_unconfined=True)
        assert asked.score(asked.problems[0], asked.problems[0].answer).solved
    assert seen == [False] * 4
    monkeypatch.setattr(sandbox, "missing", lambda: ())
    task.score(problem, problem.answer, allow_code=True, allow_unconfined=True)
    assert seen[-1], "allowed is not asked for: where namespaces can be had they are used"


def test_the_command_warns_and_the_report_says_it(refused: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mbpp, "run_tests", lambda *_, **__: Verdict("failed"))
    words = ["eval", "--tasks", "mbpp", "--style", "0shot", "--data", str(SAMPLES), "--allow-code"]
    words += ["--samplers", "fast-dllm", "--max-new-tokens", "16", "--output", str(tmp_path / "r")]
    with pytest.raises(InvalidInputError, match="allow_unconfined=False"):
        CliRunner().invoke(app, words, catch_exceptions=False)
    result = CliRunner().invoke(app, [*words, "--allow-unconfined"])
    assert result.exit_code == 0, result.output
    assert f"warning: programs that the model writes are not kept from {refused}" in result.stderr
    assert f"Programs that the model wrote were not kept from {refused}." in (tmp_path / "r" / "report.md").read_text()
    assert json.loads((tmp_path / "r" / "results.json").read_text())["card"]["programs"] == f"not kept from {refused}"


def test_the_card_says_how_programs_are_shut_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "missing", lambda: ())
    assert confined(["word", "mbpp"]) == {"programs": "in namespaces: no network, no files, no other processes"}
    assert confined(["word", "gsm8k"]) == {}


def test_wrong_limits_are_named() -> None:
    with pytest.raises(InvalidInputError, match="wall_s=0"):
        Limits(wall_s=0)
    with pytest.raises(InvalidInputError, match="processes=0"):
        Limits(processes=0)

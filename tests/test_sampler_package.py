"""The page on adding a sampler, and the package that it ends with: installed without a network, used by its name."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "examples" / "sampler_package"
PAGE = (ROOT / "docs" / "add-a-sampler.md").read_text()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment of a process that has the package beside the library."""
    folder = tmp_path_factory.mktemp("package")
    shutil.copytree(PACKAGE, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        *offline,
        "--target",
        str(folder / "site"),
        str(folder / "source"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder / "site"), os.environ.get("PYTHONPATH", "")])}


def python(environment: dict[str, str], *words: str) -> str:
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def block(kind: str, number: int = 0) -> str:
    return re.findall(rf"```{kind}\n(.*?)```\n", PAGE, re.DOTALL)[number]


def test_the_page_shows_the_package() -> None:
    code = (PACKAGE / "attn_sampler_fading.py").read_text()
    assert block("python") == code
    assert block("toml") == (PACKAGE / "pyproject.toml").read_text()
    assert sum(bool(line.strip()) for line in code.splitlines()) < 25


def test_what_the_page_prints_is_what_comes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where this fails after a change of the embedded model: ``make docs``."""
    spec = importlib.util.spec_from_file_location("doc_output", ROOT / "recipes" / "doc_output.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.syspath_prepend(str(PACKAGE))
    assert module.refresh(PAGE) == PAGE
    assert len(module.SHOWN.findall(PAGE)) == 2


def test_the_command_knows_the_package(installed: dict[str, str]) -> None:
    command = ["-c", "from attn_sampler.cli import main; main()"]
    assert block("text", 2) in python(installed, *command, "samplers")
    question = re.search(r'generate ("[^"]*") (--sampler fading .*)', PAGE)
    assert question is not None
    words = [json.loads(question[1]), *question[2].split(), "--json"]
    answer = json.loads(python(installed, *command, "generate", *words))
    assert answer["forwards"] > 0
    assert answer["text"]


def test_its_name_is_enough_in_python(installed: dict[str, str]) -> None:
    code = """
import attn_sampler as ats
from attn_sampler import samplers

params = ats.SamplingParams(sampler="fading", decay=0.5)
assert params.sampler.decay == 0.5
assert type(params.sampler).__module__ == "attn_sampler_fading"
try:
    ats.SamplingParams(sampler="fadng")
except ats.UnknownNameError as error:
    print(error.suggestion)
print("fading" in samplers.names())
"""
    assert python(installed, "-c", code).split() == ["fading", "True"]


def test_it_keeps_what_every_sampler_owes(installed: dict[str, str]) -> None:
    """The property tests take every registered sampler, so that this one is put through them too."""
    out = python(installed, "-m", "pytest", "tests/test_samplers.py", "-k", "fading", "-p", "no:cacheprovider", "-rA")
    assert len(re.findall(r"^PASSED .*\[fading\]", out, re.MULTILINE)) == 4

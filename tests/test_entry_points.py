"""Samplers and early exits of other packages: the sound ones are found, a broken one is an error of its own and of no other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from attn_sampler import AttnSamplerError, EntryPointError, SamplingParams, UnknownNameError, exits, samplers

MODULE = '''
from dataclasses import dataclass
from attn_sampler.exits.sched import Sched
from attn_sampler.samplers.confidence import Confidence

class Bare:
    """All that is wanted, but no dataclass."""
    name, paper, needs, select, test = "bare", "none", None, None, None

@dataclass(frozen=True)
class Silent:
    """Cannot choose."""
    name = "silent"
    paper = "none"

number = 3
'''
SAMPLERS = {
    "absent": "nosuchmodule:Thing",
    "forgotten": "plugin_a:Thing",
    "raising": "plugin_raises:Thing",
    "odd": "no module name at all",
    "bare": "plugin_a:Bare",
    "silent": "plugin_a:Silent",
    "number": "plugin_a:number",
    "sound": "plugin_a:Confidence",
    "twice": "plugin_a:Confidence",
    "margin": "plugin_a:Confidence",
}
EXITS = {"absent": "nosuchmodule:Thing", "silent": "plugin_a:Silent", "sound": "plugin_a:Sched", "sched": "plugin_a:Sched"}
BROKEN = [
    ("absent", "cannot be loaded (ModuleNotFoundError: No module named 'nosuchmodule')", "repair or update the package"),
    ("forgotten", "cannot be loaded (AttributeError: ", "repair or update the package"),
    ("raising", "cannot be loaded (ZeroDivisionError: ", "repair or update the package"),
    ("odd", "cannot be loaded (", "repair or update the package"),
    ("bare", "is no dataclass", "name a frozen dataclass with name, paper, needs, select"),
    ("silent", "lacks needs, select", "name a frozen dataclass with name, paper, needs, select"),
    ("number", "lacks name, paper, needs, select", "name a frozen dataclass"),
    ("margin", "is in this library and in package 'plugin-a' (plugin_a:Confidence)", "two cannot share a name"),
]


def distribution(folder: Path, name: str, **groups: dict[str, str]) -> None:
    """What an installer writes beside a package's modules."""
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    sections = [
        f"[attn_sampler.{group}]\n" + "".join(f"{k} = {v}\n" for k, v in points.items()) for group, points in groups.items()
    ]
    (info / "entry_points.txt").write_text("\n".join(sections))


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Two packages on the path, most of whose entry points are no good."""
    distribution(tmp_path, "plugin-a", samplers=SAMPLERS, exits=EXITS)
    distribution(tmp_path, "plugin-b", samplers={"twice": "plugin_a:Confidence"})
    (tmp_path / "plugin_a.py").write_text(MODULE)
    (tmp_path / "plugin_raises.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    caches = [find.cache_clear for find in (samplers.find, exits.find)]
    for clear in caches:
        clear()
    yield tmp_path
    for clear in caches:
        clear()
    sys.modules.pop("plugin_a", None)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(("name", "problem", "remedy"), BROKEN)
def test_a_broken_sampler_names_entry_point_package_and_remedy(name: str, problem: str, remedy: str) -> None:
    for ask in (
        samplers.find,
        samplers.describe,
        lambda name: SamplingParams(sampler=name),
        lambda name: samplers.build(name, {}),
    ):
        with pytest.raises(EntryPointError) as caught:
            ask(name)
        error, text = caught.value, str(caught.value)
        assert isinstance(error, AttnSamplerError)
        assert (error.name, error.package) == (name, "plugin-a")
        assert f"sampler {name!r}" in text
        assert SAMPLERS[name] in text
        assert problem in text
        assert error.remedy in text
        assert error.remedy.startswith(remedy)
        assert error.remedy.endswith("pip uninstall plugin-a")


@pytest.mark.usefixtures("installed")
def test_what_went_wrong_in_the_package_is_the_cause() -> None:
    with pytest.raises(EntryPointError) as caught:
        samplers.find("raising")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.usefixtures("installed")
def test_two_packages_cannot_share_a_name() -> None:
    with pytest.raises(
        EntryPointError, match=r"is in package 'plugin-[ab]' .* and in package 'plugin-[ab]' .*pip uninstall plugin-[ab]"
    ):
        samplers.find("twice")


@pytest.mark.usefixtures("installed")
def test_early_exits_likewise() -> None:
    with pytest.raises(EntryPointError, match=r"early_exit 'absent' of package 'plugin-a'.*nosuchmodule.*repair"):
        exits.find("absent")
    with pytest.raises(EntryPointError, match="lacks test: name a frozen dataclass with name, paper, test, or"):
        exits.build("silent")
    with pytest.raises(EntryPointError, match="'sched' is in this library and in package 'plugin-a'"):
        SamplingParams(early_exit="sched:low=1")
    assert exits.build("sound").name == "sched"
    assert exits.build("prophet").name == "prophet"


@pytest.mark.usefixtures("installed")
def test_the_others_are_as_they_were() -> None:
    names = samplers.names()
    assert {*SAMPLERS, "confidence", "attention"} <= set(names)
    assert len(names) == len(set(names))
    assert SamplingParams(sampler="sound", k=2).sampler == samplers.build("confidence", {"k": 2})
    for name in set(names) - set(SAMPLERS):
        assert samplers.build(name, {}).name == name
    with pytest.raises(UnknownNameError, match="did you mean 'absent'"):
        samplers.find("absend")


def command(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}
    code = "from attn_sampler.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False, env=environment)


def test_the_command_lists_the_others_and_says_which_are_broken(installed: Path) -> None:
    broken = sorted([name for name, *_ in BROKEN] + ["twice"])
    done = command(installed, "samplers", "--json")
    assert done.returncode == 0, done.stderr
    listed = [row["name"] for row in json.loads(done.stdout)]
    assert len(listed) == len(samplers.names()) - len(broken)
    assert {"confidence", "attention", "wino"} <= set(listed)
    lines = done.stderr.splitlines()
    assert [line.split("'")[1] for line in lines] == broken
    assert all(line.startswith("left out: sampler ") and "pip uninstall plugin-" in line for line in lines)


def test_the_command_ends_with_the_error_and_no_traceback(installed: Path) -> None:
    done = command(installed, "generate", "3 + 4 = ", "--sampler", "absent")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: sampler 'absent' of package 'plugin-a'")
    assert len(done.stderr.splitlines()) == 1

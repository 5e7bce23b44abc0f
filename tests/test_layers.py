"""The import graph points one way; the package's names are complete and cost nothing until they are used."""

from __future__ import annotations

import ast
import graphlib
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import attn_sampler

SOURCE = Path(attn_sampler.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))

# Lowest first. A module may import from its own layer and from those below. A new module has to be given a place here.
LAYERS: dict[str, tuple[str, ...]] = {
    "errors": ("errors",),
    "algorithm": (
        "canvas", "blocks", "rng", "propose", "seam", "scores", "rules", "frequencies", "options", "registry", "samplers",
        "exits", "params", "orders",
    ),
    "models": ("attention", "models", "cache"),
    "engine": ("text", "turns", "rows", "state", "asked", "report", "results", "batch", "engine"),
    "consumers of Steps": ("frames", "trace", "replay", "view", "plots", "frontier"),
    "edges": ("bench", "evals", "server", "cli"),
}  # fmt: skip
LEVEL = {unit: level for level, units in enumerate(LAYERS.values()) for unit in units}
ORDER = LAYERS["algorithm"]  # the reading order: each imports only what stands before it
# Third-party packages, and the only units that may import them.
HOMES = {
    "transformers": {"attention", "models", "bench", "cli"},
    "safetensors": {"models"},
    "huggingface_hub": {"models", "evals"},
    "accelerate": {"models"},
    "torchao": {"models"},
    "lm_eval": {"evals"},
    "tqdm": {"evals"},
    "matplotlib": {"plots", "frontier"},
    "rich": {"view", "cli"},
    "typer": {"cli"},
}


def unit(path: Path) -> str:
    return path.relative_to(SOURCE).with_suffix("").parts[0]


def imports(path: Path) -> Iterator[str]:
    """Full names of what a file imports anywhere, also inside functions, but not what only a type checker sees."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    unseen = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in unseen:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def units_imported(path: Path) -> set[str]:
    found = set()
    for name in imports(path):
        top, _, rest = name.partition(".")
        if top == "attn_sampler" and rest.split(".")[0] not in ("", "__version__"):
            found.add(rest.split(".")[0])
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_down(path: Path) -> None:
    own = unit(path)
    if own == "__init__":
        assert not units_imported(path), "the package loads nothing of itself until it is asked"
        return
    assert own in LEVEL, f"give {own} a layer in this test, and say it in the design"
    for other in units_imported(path):
        assert LEVEL[other] <= LEVEL[own], f"{own} imports {other}, which lies above it"
        if own in ORDER and other in ORDER:
            assert ORDER.index(other) <= ORDER.index(own), f"{own} imports {other}, which is read after it"


def test_no_file_imports_itself_by_way_of_others() -> None:
    """Reading order exists: files can be put in a row in which each imports only what stands before it."""
    files = {".".join(["attn_sampler", *p.relative_to(SOURCE).with_suffix("").parts]).removesuffix(".__init__"): p for p in FILES}
    needs: dict[str, set[str]] = {}
    for name, path in files.items():
        modules = (full if full in files else full.rpartition(".")[0] for full in imports(path))
        needs[name] = set(modules) & set(files) - {name, "attn_sampler"}
    graphlib.TopologicalSorter(needs).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_third_party_packages_stay_where_they_belong(path: Path) -> None:
    own = unit(path)
    packages = {name.split(".")[0] for name in imports(path)} - set(sys.stdlib_module_names) - {"attn_sampler"}
    if own in LAYERS["errors"] + LAYERS["algorithm"]:
        assert packages <= {"torch", "jaxtyping"}
    for package in packages & set(HOMES):
        assert own in HOMES[package], f"{package} is imported in {own}"


@pytest.mark.parametrize("name", ORDER)
def test_the_algorithm_touches_nothing_outside(name: str) -> None:
    """It neither prints nor opens files, and waits for no device: `.item()` would."""
    for path in [SOURCE / f"{name}.py"] if (SOURCE / f"{name}.py").exists() else sorted((SOURCE / name).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
                assert called not in {"print", "open", "item", "manual_seed", "seed", "getLogger"}, f"{path}:{node.lineno}"


def test_no_global_state_is_set() -> None:
    banned = {"manual_seed", "set_default_dtype", "set_default_device", "set_num_threads", "basicConfig", "set_grad_enabled"}
    for path in FILES:
        called = {n.attr for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Attribute)}
        if unit(path) not in ("cli", "bench"):  # a command owns its process
            assert not called & banned, path


def declared(path: Path) -> list[str] | None:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__":
            return ast.literal_eval(node.value)
    return None


@pytest.mark.parametrize("path", [p for p in FILES if declared(p) is not None], ids=lambda path: str(path.relative_to(SOURCE)))
def test_all_is_sorted_and_every_name_exists(path: Path) -> None:
    names = declared(path)
    assert names

    def kind(name: str) -> tuple[int, str]:  # CONSTANTS, Classes, functions; each part in alphabetical order
        return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)

    assert names == sorted(names, key=kind)
    assert len(set(names)) == len(names)
    dotted = ".".join(["attn_sampler", *path.relative_to(SOURCE).with_suffix("").parts]).removesuffix(".__init__")
    if dotted == "attn_sampler.evals.lm_eval.model":
        pytest.importorskip("lm_eval", reason="needs lm-eval: pip install -e '.[eval]'")
    module = importlib.import_module(dotted)
    assert all(hasattr(module, name) for name in names)


def test_the_package_names_everything_it_has() -> None:
    tree = ast.parse((SOURCE / "__init__.py").read_text(encoding="utf-8"))
    checked = {
        alias.name: node.module
        for outer in tree.body
        if isinstance(outer, ast.If)
        for node in ast.walk(outer)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(attn_sampler.__all__) == {*checked, "__version__"} == {*attn_sampler._HOME, "__version__"}
    assert {name: f"attn_sampler.{home}" for name, home in attn_sampler._HOME.items()} == checked
    assert dir(attn_sampler) == sorted(attn_sampler.__all__)
    for name in attn_sampler.__all__:
        assert getattr(attn_sampler, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        attn_sampler.no_such_name  # noqa: B018
    errors = importlib.import_module("attn_sampler.errors")
    public = {n for n, x in vars(errors).items() if isinstance(x, type) and issubclass(x, Exception)}
    assert public <= set(attn_sampler.__all__), "whoever catches an error finds it by name"


@pytest.mark.parametrize("module", ["attn_sampler", "attn_sampler.errors", "attn_sampler.evals.tasks"])
def test_importing_does_not_load_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'rich', 'typer')))"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_version_is_that_of_the_project() -> None:
    from importlib.metadata import version

    assert attn_sampler.__version__ == version("attn-sampler")

"""The reproduction card: everything that a number depends on and that somebody else needs to get it again."""

from __future__ import annotations

import hashlib
import platform
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import attn_sampler
from attn_sampler.engine import EMBEDDED, Engine
from attn_sampler.models import checkpoint

__all__ = ["card", "files_of", "lines"]

PACKAGES = ("torch", "transformers", "tokenizers", "safetensors")
KINDS = (".json", ".safetensors", ".jinja", ".model", ".txt")
GIT_TIMEOUT_S = 5.0
EOS_OPTIONS = {  # of SamplingParams
    "ignore_eos": "rows go on behind it",
    "logits_eos_inf": "it is never proposed",
    "confidence_eos_eot_inf": "end tokens are committed last",
}


def files_of(model: str | None, adapter: str | None = None) -> dict[str, str]:
    """SHA-256 of every file of a checkpoint that decides what it computes, and of its adapter's."""
    folders = {"": checkpoint.find(EMBEDDED if model is None else model, None)}
    if adapter is not None:
        folders["adapter/"] = checkpoint.find(adapter, None, file="adapter_config.json", field="adapter")
    found = {}
    for prefix, folder in folders.items():
        for file in sorted(folder.iterdir()):
            if file.is_file() and file.suffix in KINDS:
                with file.open("rb") as content:
                    found[prefix + file.name] = hashlib.file_digest(content, "sha256").hexdigest()
    return found


def card(
    engine: Engine,
    model: str,
    files: dict[str, str],
    command: Sequence[str],
    seed: int,
    rows: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Plain JSON types.

    Args:
        files: as `files_of` gives them.
        command: words of the command line.
        rows: task → parameters of its rows; what they say of end-of-sequence tokens goes into the card.
    """
    device = engine.model.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    dtype = getattr(engine.model, "dtype", None)
    return {
        "model": model,
        "model_files_sha256": files,
        "attn_sampler": attn_sampler.__version__,
        "git_commit": _commit(),
        "source_sha256": _source(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "device": f"{device.type}: {name}",
        "threads": torch.get_num_threads(),
        "dtype": None if dtype is None else str(dtype).removeprefix("torch."),
        "max_rows": engine.max_rows,
        "seed": seed,
        "random_numbers": "every answer has a seed of its own (samples.jsonl), made of this one, its task, problem and draw",
        "eos": {
            "ids": list(engine.model.eos_ids),
            "handling": _ends(rows or {}),
        },
        "command": list(command),
    }


def _ends(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """How end-of-sequence tokens were handled, with the tasks where it was otherwise."""
    said = [
        "a row ends at its first end-of-sequence token; tokens are counted up to it, it included; what the model wrote behind "
        "it, the prompt and padding are counted nowhere"
    ]
    for name, meaning in EOS_OPTIONS.items():
        tasks = [task for task, params in rows.items() if params.get(name)]
        if tasks:
            said.append(f"on {', '.join(tasks)} {meaning} ({name})")
    return "; ".join(said)


def _processor() -> str:
    """The processor's name where Linux tells it, else the kind of machine."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit that this package's own source is tracked in, with ``-dirty`` behind it where files differ; None for a wheel."""
    folder = Path(attn_sampler.__file__).parent

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=GIT_TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if git("ls-files", "--error-unmatch", "__init__.py") is None:  # an environment inside somebody else's repository
        return None
    commit, changed = git("rev-parse", "HEAD"), git("status", "--porcelain", "--untracked-files=no", ".")
    return commit if not commit or not changed else f"{commit}-dirty"


def _source() -> str:
    """SHA-256 of this package's source: two states of the same commit with ``-dirty`` behind it are told apart."""
    folder = Path(attn_sampler.__file__).parent
    files = sorted(folder.rglob("*.py"))
    listed = "".join(f"{file.relative_to(folder)} {hashlib.sha256(file.read_bytes()).hexdigest()}\n" for file in files)
    return hashlib.sha256(listed.encode()).hexdigest()


def lines(card: dict[str, Any]) -> list[tuple[str, str]]:
    """The card as (name, text), for a table."""
    out: list[tuple[str, str]] = []
    for key, value in card.items():
        name = key.replace("_", " ")
        if key == "command":
            out.append((name, shlex.join(value)))
        elif isinstance(value, dict):
            out += [(f"{name}: {k}", ", ".join(map(str, v)) if isinstance(v, list) else str(v)) for k, v in value.items()]
        else:
            out.append((name, "–" if value is None else str(value)))
    return out

"""Where the problems are read from: a folder of local files, or the published files on the Hugging Face Hub.

Local: ``DATA/TASK/**/NAME``, any folder in between (``gsm8k/grade-school-math/test.jsonl``). JSON lines, also gzipped; the Hub's
copies are JSON lines or Parquet with the same fields.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from attn_sampler.errors import InvalidInputError, MissingDependencyError

__all__ = ["local", "published", "records"]


def local(data: Path, folder: str, name: str) -> Path:
    """The file of that name below ``data/folder``.

    Raises:
        InvalidInputError: there is none, or more than one.
    """
    found = sorted((data / folder).rglob(name))
    if len(found) != 1:
        what = f"holds {len(found)} files {name!r} below {folder!r}" if found else f"holds no {folder}/**/{name}"
        raise InvalidInputError("data", str(data), f"{what}; give a folder with one, or leave it out for the published files")
    return found[0]


def published(repository: str, name: str) -> Path:
    """A file of a data set on the Hub, downloaded once (``HF_HOME``, ``HF_ENDPOINT`` and offline mode as everywhere).

    Raises:
        InvalidInputError: it cannot be had.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(hf_hub_download(repository, name, repo_type="dataset"))
    except (HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0]
        remedy = f"{name} of the data set {repository} cannot be downloaded ({reason}); give a folder with the files (--data DIR)"
        raise InvalidInputError("data", None, remedy) from error


def records(file: Path) -> list[dict[str, Any]]:
    """The rows of a file.

    Raises:
        InvalidInputError: it is not what its name says, or empty.
    """
    try:
        found = _parquet(file) if file.suffix == ".parquet" else _json_lines(file)
    except (OSError, ValueError, EOFError) as error:
        raise InvalidInputError("data", str(file), f"cannot be read ({error})") from error
    if not found or not all(isinstance(row, dict) for row in found):
        raise InvalidInputError("data", str(file), "holds no JSON objects; give JSON lines")
    return found


def _json_lines(file: Path) -> list[dict[str, Any]]:
    raw = file.read_bytes()
    text = (gzip.decompress(raw) if file.suffix == ".gz" else raw).decode()
    return [json.loads(line) for line in text.split("\n") if line.strip()]  # splitlines() would cut at U+2028 inside a string


def _parquet(file: Path) -> list[dict[str, Any]]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise MissingDependencyError("pyarrow", "eval") from error
    return parquet.read_table(file).to_pylist()

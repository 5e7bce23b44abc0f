"""A checkpoint directory: its config, its tensors one shard at a time, its tokenizer, its ids."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from attn_sampler.errors import CheckpointError, InvalidInputError
from attn_sampler.models.family import Family

__all__ = ["find", "read_json", "tensors", "tensors_of", "tokenizer"]

_PATTERNS = ["*.json", "*.safetensors", "*.jinja", "*.txt", "tokenizer.model"]


def find(source: str | Path, revision: str | None, *, file: str = "config.json", field: str = "model") -> Path:
    """The directory of a checkpoint: a local one, or a Hub id downloaded into (or found in) the Hub cache.

    Args:
        file: what a directory must have.
        field: the argument that ``source`` was given as.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        if revision is not None:
            raise InvalidInputError("revision", revision, f"{path} is a local directory; only a Hub id has revisions")
        if not (path / file).is_file():
            raise CheckpointError(f"{path} is no {'checkpoint' if field == 'model' else field}: it has no {file}")
        return path
    if path.exists():
        raise CheckpointError(f"{path} is a file; give the directory that holds {file} and the weights")
    text = str(source)
    if text.startswith((".", "/", "~")) or text.count("/") != 1:
        example = "GSAI-ML/LLaDA-8B-Instruct" if field == "model" else "someone/their-adapter"
        raise InvalidInputError(field, text, f"no such directory; give one, or a Hub id such as {example}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return Path(snapshot_download(text, revision=revision, allow_patterns=_PATTERNS))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(f"{text} is neither a local directory nor available from the Hub: {reason}") from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one where the file is absent."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no JSON object")
    return content


def _shards(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise CheckpointError(f"{index} has no weight_map")
        names = sorted(set(weight_map.values()))
    elif (folder / "model.safetensors").is_file():
        names = ["model.safetensors"]
    else:
        raise CheckpointError(f"{folder} has no model.safetensors and no model.safetensors.index.json")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(f"{folder} lacks {', '.join(missing)}, which its index names")
    return [folder / name for name in names]


def tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Every tensor with its name on disk, memory-mapped, one shard after the other."""
    for shard in _shards(folder):
        yield from tensors_of(shard)


def tensors_of(shard: Path) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of one safetensors file with its name."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(shard, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (a safetensors handle is no mapping)
                yield name, file.get_tensor(name)
    except SafetensorError as error:
        raise CheckpointError(f"{shard} cannot be read ({error}); it is truncated or no safetensors file") from error


def tokenizer(folder: Path, family: Family) -> Any | None:
    """The tokenizer with its chat template, the family's options set in it; None where the directory has none."""
    import transformers

    kinds = {"tokenizer.json": "PreTrainedTokenizerFast", "merges.txt": family.slow_tokenizer, "vocab.txt": "BertTokenizer"}
    file = next((name for name in kinds if (folder / name).is_file()), None)
    if file is None:
        return None
    try:
        tok = getattr(transformers, kinds[file]).from_pretrained(folder)
    except Exception as error:  # the tokenizers library raises bare Exception on a broken file
        raise CheckpointError(f"{folder / file} cannot be read: {error}") from error
    tok.model_max_length = sys.maxsize  # the engine checks lengths, with an error instead of a warning
    if family.chat_options and isinstance(tok.chat_template, str):
        fixed = "".join(f"{{%- set {key} = {json.dumps(value)} -%}}" for key, value in family.chat_options.items())
        tok.chat_template = fixed + tok.chat_template
    return tok

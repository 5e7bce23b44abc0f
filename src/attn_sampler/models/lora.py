"""LoRA adapters (arXiv 2106.09685) as PEFT saves them, added to the weights while these are loaded.

W + scale · B A is computed tensor by tensor in float32, so the network is the stock class with other numbers in it: nothing is
wrapped, and a forward pass costs what it did. An adapter names its modules as the class that it was trained on did. That is the
checkpoint's own layout (the authors' class), or the stock class; both names are looked for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attn_sampler.errors import CheckpointError
from attn_sampler.models import checkpoint

__all__ = ["Lora"]

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# Fields of adapter_config.json that change what the adapter computes, and stand for nothing where they are empty.
_REFUSED = {
    "use_dora": "DoRA scales the merged columns",
    "use_qalora": "QALoRA pools the inputs",
    "use_bdlora": "its matrices are block-diagonal",
    "lora_bias": "its up-projections have biases",
    "layer_replication": "it repeats layers",
    "target_parameters": "it adapts parameters that are no layer's weight",
    "trainable_token_indices": "it replaces rows of the embedding",
    "alora_invocation_tokens": "an activated LoRA is switched on inside the text",
    "arrow_config": "it routes between adapters",
}
_PLAIN_STARTS = (
    None,
    True,
    False,
    "gaussian",
    "orthogonal",
    "eva",
)  # others (pissa, olora, corda, loftq) move the base weights too


class _Pair(NamedTuple):
    down: Tensor  # A: rank × inputs
    up: Tensor  # B: outputs × rank
    scale: float


class Lora:
    """An adapter directory: low-rank changes by module, and whole tensors that replace the checkpoint's (``modules_to_save``)."""

    def __init__(self, source: str | Path, revision: str | None = None) -> None:
        self.folder = checkpoint.find(source, revision, file=_CONFIG, field="adapter")
        config = checkpoint.read_json(self.folder / _CONFIG)
        self._refuse(config)
        self.pairs: dict[str, _Pair] = {}
        self.whole: dict[str, Tensor] = {}
        self._read(config)
        self.used: set[str] = set()

    def _refuse(self, config: Mapping[str, Any]) -> None:
        kind = config.get("peft_type")
        if kind != "LORA":
            raise CheckpointError(f"{self.folder / _CONFIG}: peft_type={kind!r}; only plain LoRA can be merged")
        for field, reason in _REFUSED.items():
            if config.get(field):
                raise CheckpointError(f"{self.folder / _CONFIG}: {field}={config[field]!r} is not supported ({reason})")
        start = config.get("init_lora_weights", True)
        if start not in _PLAIN_STARTS:
            remedy = (
                "it changed the base weights as well: convert it to a plain LoRA when saving (PEFT's path_initial_model_for_...)"
            )
            raise CheckpointError(f"{self.folder / _CONFIG}: init_lora_weights={start!r} is not supported; {remedy}")

    def _read(self, config: Mapping[str, Any]) -> None:
        downs: dict[str, Tensor] = {}
        ups: dict[str, Tensor] = {}
        if not (self.folder / _WEIGHTS).is_file():
            raise CheckpointError(f"{self.folder} has no {_WEIGHTS}")
        for key, tensor in checkpoint.tensors_of(self.folder / _WEIGHTS):
            name = key.removeprefix("base_model.model.").replace(".base_layer.", ".").replace(".modules_to_save.", ".")
            if found := re.fullmatch(r"(.+)\.lora_([AB])\.weight", name):
                (downs if found[2] == "A" else ups)[found[1]] = tensor
            elif found := re.fullmatch(r"(.+)\.lora_embedding_([AB])", name):  # (rank, words) and (width, rank)
                (ups if found[2] == "A" else downs)[found[1]] = tensor.T
            elif "lora_" in name:
                raise CheckpointError(f"{self.folder / _WEIGHTS}: {key} is no part of a plain LoRA")
            else:
                self.whole[name] = tensor
        if not downs and not self.whole:
            raise CheckpointError(f"{self.folder / _WEIGHTS} holds no adapter")
        for name in sorted(downs.keys() ^ ups.keys()):
            raise CheckpointError(f"{self.folder / _WEIGHTS}: {name} has only one of lora_A and lora_B")
        for name, down in downs.items():
            self.pairs[name] = _Pair(down, ups[name], self._scale(config, name, down, ups[name]))

    def _scale(self, config: Mapping[str, Any], name: str, down: Tensor, up: Tensor) -> float:
        rank, alpha = _of(config, "r", "rank_pattern", name), _of(config, "lora_alpha", "alpha_pattern", name)
        for field, value in (("r", rank), ("lora_alpha", alpha)):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise CheckpointError(f"{self.folder / _CONFIG}: {field}={value!r}; it must be a number")
        if down.ndim != 2 or up.ndim != 2 or not down.shape[0] == up.shape[1] == rank:
            shapes = f"lora_A {list(down.shape)} and lora_B {list(up.shape)}"
            raise CheckpointError(f"{self.folder}: {name} has {shapes}; {_CONFIG} says rank {rank}")
        return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)

    def merged(self, name: str, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
        """The tensor ``name`` with the adapter in it, in ``dtype``; None is the tensor's own.

        Whoever rounds it further gives float32, so that it is rounded once.
        """
        if name in self.whole:
            self.used.add(name)
            new = self.whole[name]
            if new.shape != tensor.shape:
                shapes = f"{list(new.shape)}, the checkpoint's {list(tensor.shape)}"
                raise CheckpointError(f"{self.folder}: the adapter's {name} has shape {shapes}")
            tensor = new.to(tensor.dtype if dtype is None else dtype)
        pair = self.pairs.get(name.removesuffix(".weight")) if name.endswith(".weight") else None
        if pair is None:
            return tensor
        self.used.add(name.removesuffix(".weight"))
        shape = [pair.up.shape[0], pair.down.shape[1]]
        if list(tensor.shape) != shape:
            raise CheckpointError(f"{self.folder}: the adapter changes {shape} of {name}, whose shape is {list(tensor.shape)}")
        change = pair.scale * (pair.up.float() @ pair.down.float())
        return (tensor.float() + change).to(tensor.dtype if dtype is None else dtype)

    def changes(self, name: str) -> bool:
        """Whether the adapter has something for a tensor."""
        return name in self.whole or (name.endswith(".weight") and name.removesuffix(".weight") in self.pairs)

    def finish(self) -> None:
        """Raise if anything of the adapter found no place."""
        left = sorted((self.pairs.keys() | self.whole.keys()) - self.used)
        if left:
            shown = ", ".join(left[:8]) + (f" and {len(left) - 8} more" if len(left) > 8 else "")
            raise CheckpointError(
                f"{self.folder}: the checkpoint stores no weights for {shown}; was it trained on another model?"
            )


def _of(config: Mapping[str, Any], field: str, patterns: str, module: str) -> Any:
    """A module's own rank or alpha, by the first pattern that its name ends with; else that of all."""
    for pattern, value in (config.get(patterns) or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return config.get(field)

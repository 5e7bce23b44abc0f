"""A stock class with the weights of a checkpoint in it: made without memory, filled tensor by tensor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from attn_sampler.errors import CheckpointError, InvalidInputError, MissingDependencyError
from attn_sampler.models import checkpoint
from attn_sampler.models.family import Family
from attn_sampler.models.lora import Lora

__all__ = ["build"]


def build(
    folder: Path, family: Family, raw: Mapping[str, Any], dtype: torch.dtype | None, place: Any, lora: Lora | None = None
) -> Any:
    """The family's stock class in evaluation mode; no second copy of the weights, on disk or in memory.

    Args:
        dtype: of the weights; None for what they are stored in.
        place: a torch.device, ``"auto"``, or module → device.
        lora: merged into the weights on their way.

    Raises:
        CheckpointError: sizes that no network has; tensors missing, unexpected or of a wrong shape.
    """
    net = _empty(family, raw)
    where = _device_map(net, place, dtype)
    fill = _Filling(net, folder, where, dtype)
    sums = None if dtype is None else torch.float32  # what is merged is rounded once, when it is put
    for name, tensor in checkpoint.tensors(folder):
        pieces = family.pieces(name, net.config)
        if pieces is None or any(piece.target not in fill.expected for piece in pieces):
            fill.unexpected.append(name)
            continue
        if lora is not None and lora.changes(name):
            tensor = lora.merged(name, tensor, sums)
            fill.changed |= {piece.target for piece in pieces}
        for piece in pieces:
            part = tensor if piece.rows is None else tensor[slice(*piece.rows)]
            if lora is not None and piece.target != name and not piece.into and lora.changes(piece.target):
                part = lora.merged(piece.target, part, sums)
                fill.changed.add(piece.target)
            fill.put(name, part, piece.target, piece.into)
    if lora is not None:
        fill.add_stored_only_there(lora)
        lora.finish()
    fill.finish(getattr(type(net), "_tied_weights_keys", None) or {})
    for name, buffer in list(net.named_buffers()):
        owner, leaf = _owner(net, name)
        setattr(owner, leaf, buffer.to(_device_of(name, where)))
    if len(set(where.values())) > 1:
        try:
            from accelerate import dispatch_model  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise MissingDependencyError("accelerate", "device-map") from error
        net = dispatch_model(net, where)
    return net.eval()


def _empty(family: Family, raw: Mapping[str, Any]) -> Any:
    """The network with its parameters on the meta device and its tables (rotary frequencies, position ids) in place.

    Tables are no weights: stored nowhere, and made anew in float32. Casting them with the model (``model.to(bfloat16)``)
    would move the logits by more than 1.
    """
    import transformers

    settings = family.settings_of(raw)
    stock = family.stock if isinstance(family.stock, str) else family.stock[raw["model_type"]]
    kind = getattr(transformers, stock)
    try:
        config = kind.config_class(**settings)
        with torch.device("meta"):
            net = kind(config)
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError, AttributeError, KeyError) as error:
        raise CheckpointError(f"config.json describes no {stock}: {str(error).splitlines()[0]}") from error
    stored = set(net.state_dict())
    for prefix, module in net.named_modules():
        tables = [leaf for leaf, _ in module.named_buffers(recurse=False) if f"{prefix}.{leaf}".lstrip(".") not in stored]
        for leaf in tables:
            module._buffers[leaf] = torch.empty_like(module._buffers[leaf], device="cpu")
        if tables:
            net._init_weights(module)
    return net


def _owner(net: nn.Module, name: str) -> tuple[nn.Module, str]:
    parent, _, leaf = name.rpartition(".")
    return net.get_submodule(parent), leaf


class _Filling:
    """Weights on their way from the shards into a network."""

    def __init__(self, net: Any, folder: Path, where: Mapping[str, Any], dtype: torch.dtype | None) -> None:
        self.net, self.folder, self.where, self.dtype = net, folder, where, dtype
        self.expected: dict[str, Tensor] = dict(net.state_dict(keep_vars=True))
        self.strict = tuple(getattr(net, "_keep_in_fp32_modules_strict", None) or ())
        self.seen: dict[str, int] = {}  # elements filled
        self.unexpected: list[str] = []
        self.changed: set[str] = set()  # by an adapter

    def put(self, name: str, tensor: Tensor, target: str, into: tuple[int | slice, ...]) -> None:
        """Set a tensor of the network, or a part of it."""
        room = self.expected[target]
        shape = list(room[into].shape) if into else list(room.shape)
        if list(tensor.shape) != shape:
            raise CheckpointError(f"{self.folder}: tensor {name} has shape {list(tensor.shape)}, the config says {shape}")
        exact = any(word in target for word in self.strict)
        dtype = torch.float32 if exact else self.dtype or tensor.dtype
        device = _device_of(target, self.where)
        if not into:
            self._set(target, tensor.to(device=device, dtype=dtype))
        else:
            if target not in self.seen:
                self._set(target, torch.empty(room.shape, device=device, dtype=dtype))
            owner, leaf = _owner(self.net, target)
            getattr(owner, leaf).data[into].copy_(tensor)
        self.seen[target] = self.seen.get(target, 0) + tensor.numel()

    def _set(self, target: str, tensor: Tensor) -> None:
        owner, leaf = _owner(self.net, target)
        parameter = isinstance(self.expected[target], nn.Parameter)
        setattr(owner, leaf, nn.Parameter(tensor, requires_grad=False) if parameter else tensor)

    def add_stored_only_there(self, lora: Lora) -> None:
        """Whole tensors of an adapter that the checkpoint lacks: a head that it shares with the embedding."""
        dtype = self.net.get_input_embeddings().weight.dtype
        for name in lora.whole.keys() & (self.expected.keys() - self.seen.keys()):
            self.put(name, lora.whole[name].to(dtype), name, ())
            lora.used.add(name)

    def finish(self, tied: Mapping[str, str]) -> None:
        """Share what the class ties and the shards do not hold; raise if anything is left over."""
        for name, source in tied.items():
            if name in self.expected and name not in self.seen and source in self.seen and self._shares(name):
                if source in self.changed:
                    raise CheckpointError(f"the adapter changes {source}, which {name} shares: a merge would change both")
                owner, leaf = _owner(self.net, name)
                setattr(owner, leaf, self.net.get_parameter(source))
                self.seen[name] = self.expected[name].numel()
        missing = sorted(name for name, room in self.expected.items() if self.seen.get(name, 0) < room.numel())
        if missing or self.unexpected:
            parts = [
                f"missing: {', '.join(missing)}" if missing else "",
                f"unexpected: {', '.join(self.unexpected)}" if self.unexpected else "",
            ]
            raise CheckpointError(f"{self.folder}: tensors do not fit the config; " + "; ".join(filter(None, parts)))

    def _shares(self, name: str) -> bool:
        return name.endswith("bias") or bool(self.net.config.tie_word_embeddings)


def _device_map(net: Any, place: Any, dtype: torch.dtype | None) -> dict[str, Any]:
    if isinstance(place, torch.device):
        return {"": place}
    if place == "auto":
        try:
            from accelerate import infer_auto_device_map  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise MissingDependencyError("accelerate", "device-map") from error
        return infer_auto_device_map(net, dtype=dtype, no_split_module_classes=list(net._no_split_modules or ()))
    return place


def _device_of(name: str, where: Mapping[str, Any]) -> Any:
    """The entry of a device map that covers ``name``: the longest matching prefix."""
    fitting = [key for key in where if key == "" or name == key or name.startswith(key + ".")]
    if not fitting:
        if "rotary_emb" in name:  # maps often leave it out; it goes with the embeddings
            return _device_of("model.embed_tokens.weight", where)
        raise InvalidInputError("device_map", dict(where), f"it places no device for {name}")
    return where[max(fitting, key=len)]

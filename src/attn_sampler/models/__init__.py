"""Model families: checkpoints on disk → stock transformers classes behind one seam, without remote code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from attn_sampler.errors import CheckpointError, InvalidInputError, MissingDependencyError
from attn_sampler.models import checkpoint, llada
from attn_sampler.models.adapter import TransformersModel

__all__ = ["FAMILIES", "load_model"]

FAMILIES: dict[str, tuple[str, str]] = {
    "llada": ("LLaDA-8B-Base, LLaDA-8B-Instruct, LLaDA-1.5, the embedded model", "LlamaForCausalLM, full attention"),
}
"""Family → checkpoints, and the stock class that runs them."""

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


def load_model(
    source: str | Path,
    *,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device | None = None,
    device_map: str | Mapping[str, str | int] | None = None,
    mask_id: int | None = None,
    eos_ids: Sequence[int] | None = None,
    revision: str | None = None,
) -> tuple[TransformersModel, Any | None]:
    """The model and its tokenizer (None where the checkpoint has none). See `attn_sampler.load`."""
    folder = checkpoint.find(source, revision)
    raw = checkpoint.read_json(folder / "config.json")
    if not llada.matches(raw):
        known = "; ".join(f"{name} ({text})" for name, (text, _) in FAMILIES.items())
        raise CheckpointError(
            f"{folder / 'config.json'}: model_type={raw.get('model_type')!r} is not supported. Families: {known}"
        )
    tok = checkpoint.tokenizer(folder)
    facts = llada.facts(raw)
    net = _build(folder, llada.config(raw), _dtype(dtype), _placement(device, device_map))
    vocab = net.config.vocab_size
    mask = facts["mask_id"] if mask_id is None else mask_id
    if mask is None and tok is not None:
        mask = tok.mask_token_id
    if mask is None:
        raise InvalidInputError("mask_id", None, "the checkpoint names no mask token: give load(..., mask_id=)")
    _check_id("mask_id", mask, vocab)
    ends = checkpoint.eos_ids(raw, folder, tok, llada.END_OF_TURN) if eos_ids is None else tuple(eos_ids)
    for i in ends:
        _check_id("eos_ids", i, vocab)
        if i == mask:
            raise InvalidInputError("eos_ids", ends, f"id {i} is the mask id")
    pad = facts["pad_id"] if facts["pad_id"] is not None else (ends[0] if ends else 0)
    model = TransformersModel(net, mask_id=mask, eos_ids=ends, pad_id=pad, context_length=facts["context_length"])
    return model, tok


def _check_id(field: str, value: object, vocab: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < vocab:
        raise InvalidInputError(field, value, f"give a token id from 0 to {vocab - 1}")


def _dtype(dtype: str | torch.dtype) -> torch.dtype | None:
    """None for the dtype that the weights are stored in."""
    if isinstance(dtype, torch.dtype):
        if dtype not in _DTYPES.values():
            raise InvalidInputError("dtype", dtype, f"give auto, {', '.join(_DTYPES)}")
        return dtype
    if dtype == "auto":
        return None
    if dtype not in _DTYPES:
        raise InvalidInputError("dtype", dtype, f"give auto, {', '.join(_DTYPES)}")
    return _DTYPES[dtype]


def _placement(device: str | torch.device | None, device_map: str | Mapping[str, str | int] | None) -> Any:
    """A torch.device, or a device map; exactly one of the two may be given."""
    if device is not None and device_map is not None:
        raise InvalidInputError("device_map", device_map, f"give it or device={device!r}, not both")
    if device_map is not None and not isinstance(device_map, str):
        return dict(device_map)
    if device_map == "auto":
        return "auto"
    name = device if device_map is None else device_map
    if name is None or name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        place = torch.device(name)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        raise InvalidInputError("device", name, f"not available here ({str(error).splitlines()[0]})") from error
    return place


def _build(folder: Path, settings: dict[str, Any], dtype: torch.dtype | None, place: Any) -> Any:
    """The stock class on the meta device, then every tensor put in place as its shard is read: no second copy."""
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.device("meta"):
        net = LlamaForCausalLM(LlamaConfig(**settings))
    where = _device_map(net, place, dtype)
    expected = dict(net.named_parameters())
    unexpected, seen = [], set()
    for name, tensor in checkpoint.tensors(folder):
        target = llada.rename(name)
        if target is None or target not in expected:
            unexpected.append(name)
            continue
        if tensor.shape != expected[target].shape:
            shapes = f"{list(tensor.shape)}, the config says {list(expected[target].shape)}"
            raise CheckpointError(f"{folder}: tensor {name} has shape {shapes}")
        parent, _, leaf = target.rpartition(".")
        placed = tensor.to(device=_device_of(target, where), dtype=dtype or tensor.dtype)
        setattr(net.get_submodule(parent), leaf, torch.nn.Parameter(placed, requires_grad=False))
        seen.add(target)
    missing = sorted(set(expected) - seen)
    if missing or unexpected:
        parts = [
            f"missing: {', '.join(missing)}" if missing else "",
            f"unexpected: {', '.join(unexpected)}" if unexpected else "",
        ]
        raise CheckpointError(f"{folder}: tensors do not fit the config; " + "; ".join(filter(None, parts)))
    # Rotary tables are no parameters. They are made anew in float32: on the meta device they hold nothing, and casting
    # them with the model (`model.to(bfloat16)`) would move the logits by more than 1.
    rotary = net.model.rotary_emb
    net.model.rotary_emb = type(rotary)(net.config).to(_device_of("model.rotary_emb", where))
    if len(set(where.values())) > 1:
        try:
            from accelerate import dispatch_model  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise MissingDependencyError("accelerate", "device-map") from error
        net = dispatch_model(net, where)
    return net


def _device_map(net: Any, place: Any, dtype: torch.dtype | None) -> dict[str, Any]:
    if isinstance(place, torch.device):
        return {"": place}
    if place == "auto":
        try:
            from accelerate import infer_auto_device_map  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise MissingDependencyError("accelerate", "device-map") from error
        return infer_auto_device_map(net, dtype=dtype, no_split_module_classes=["LlamaDecoderLayer"])
    return place


def _device_of(name: str, where: Mapping[str, Any]) -> Any:
    """The entry of a device map that covers ``name``: the longest matching prefix."""
    fitting = [key for key in where if key == "" or name == key or name.startswith(key + ".")]
    if not fitting:
        if name == "model.rotary_emb":  # maps often leave it out; it goes with the embeddings
            return _device_of("model.embed_tokens.weight", where)
        raise InvalidInputError("device_map", dict(where), f"it places no device for {name}")
    return where[max(fitting, key=len)]

"""Model families: checkpoints on disk → stock transformers classes behind one seam, without remote code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from attn_sampler.errors import CheckpointError, InvalidInputError, UnknownNameError, check_number
from attn_sampler.models import (
    a2d,
    checkpoint,
    dream,
    fast_dllm_v2,
    illada,
    llada,
    llada2,
    llada_moe,
    masked_lm,
    open_dcoder,
    parallel,
    sdar,
)
from attn_sampler.models.adapter import TransformersModel
from attn_sampler.models.family import Family, number
from attn_sampler.models.int8 import check_quantize, to_int8
from attn_sampler.models.loading import build
from attn_sampler.models.lora import Lora

__all__ = ["FAMILIES", "family_of", "load_model", "load_tokenizer"]

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        llada.FAMILY, illada.FAMILY, llada_moe.FAMILY, llada2.FAMILY, dream.FAMILY, open_dcoder.FAMILY, fast_dllm_v2.FAMILY,
        sdar.FAMILY, a2d.MDLM, a2d.BD3LM, *masked_lm.FAMILIES,
    )
}  # fmt: skip
"""Every family by its name."""

REFUSED: dict[str, str] = {
    "ReFusion": "it is causal: it drafts slots of tokens at free positions and verifies them autoregressively, so it has no "
    "canvas whose masks a sampler could order",
    "DiffusionGemma": "it denoises random tokens instead of masks (uniform-state diffusion) and has no mask token",
}
"""Diffusion language models that are none of masked diffusion, and why."""

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


def load_model(
    source: str | Path,
    *,
    family: str | None = None,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device | None = None,
    device_map: str | Mapping[str, str | int] | None = None,
    mask_id: int | None = None,
    eos_ids: Sequence[int] | None = None,
    block_length: int | None = None,
    revision: str | None = None,
    adapter: str | Path | None = None,
    quantize: str | None = None,
    tp_plan: str | None = None,
) -> tuple[TransformersModel, Any | None]:
    """The model and its tokenizer (None where the checkpoint has none). See `attn_sampler.load`."""
    weights, place = _dtype(dtype), _placement(device, device_map)
    check_quantize(quantize, place)
    if eos_ids is not None and (isinstance(eos_ids, (str, bytes)) or not isinstance(eos_ids, Sequence)):
        raise InvalidInputError("eos_ids", eos_ids, "give a list of token ids")
    folder = checkpoint.find(source, revision)
    raw = checkpoint.read_json(folder / "config.json")
    facts = family_of(raw, family, folder / "config.json")
    block = _block_length(facts, raw, block_length)
    tok = checkpoint.tokenizer(folder, facts)
    net = build(folder, facts, raw, weights, place, None if adapter is None else Lora(adapter))
    group = None
    if tp_plan is not None:
        if not isinstance(place, torch.device) or quantize is not None:
            raise InvalidInputError("tp_plan", tp_plan, "it does not go with device_map or quantize")
        group = parallel.shard(net, tp_plan, place)
    if quantize is not None:
        net = to_int8(net)
    vocab = net.config.vocab_size
    mask = _mask_id(facts, raw, tok, vocab) if mask_id is None else mask_id
    _check_id("mask_id", mask, vocab)
    ends = _end_ids(facts, raw, folder, tok, vocab) if eos_ids is None else tuple(eos_ids)
    for i in ends:
        _check_id("eos_ids", i, vocab)
        if i == mask:
            raise InvalidInputError("eos_ids", ends, f"id {i} is the mask id")
    pad = raw.get("pad_token_id")
    pad = pad if isinstance(pad, int) and 0 <= pad < vocab else ends[0] if ends else 0
    return TransformersModel(net, facts, mask_id=mask, eos_ids=ends, pad_id=pad, block_length=block, group=group), tok


def load_tokenizer(source: str | Path, *, family: str | None = None, revision: str | None = None) -> tuple[Any | None, int]:
    """The tokenizer without the model (None where the checkpoint has none), and the model's number of tokens."""
    folder = checkpoint.find(source, revision)
    raw = checkpoint.read_json(folder / "config.json")
    facts = family_of(raw, family, folder / "config.json")
    return checkpoint.tokenizer(folder, facts), number(facts.settings_of(raw), "vocab_size")


def family_of(raw: Mapping[str, Any], name: str | None, path: Path) -> Family:
    """The family of a config.json.

    Raises:
        CheckpointError: no family fits, several do, or the named one does not.
    """
    if name is not None and name not in FAMILIES:
        raise UnknownNameError("family", str(name), FAMILIES)
    what = f"{path}: model_type={raw.get('model_type')!r}"
    hints = str([raw.get("model_type"), raw.get("architectures"), raw.get("auto_map")]).lower()
    for refused, reason in REFUSED.items():
        if refused.lower() in hints.replace("_", ""):
            raise CheckpointError(f"{what} is {refused}: {reason}. It is not supported")
    found = {family.name: family.matches(raw) for family in FAMILIES.values()}
    sure = [family for family, match in found.items() if match == "yes"]
    perhaps = [family for family, match in found.items() if match == "maybe"]
    if name in sure or name in perhaps:
        return FAMILIES[str(name)]
    if name is not None:
        fitting = ", ".join(sure + perhaps) or "no family"
        raise CheckpointError(f"{what} is no {name} checkpoint; {fitting} fits it")
    if sure:
        return FAMILIES[sure[0]]
    if perhaps:
        choices = " or ".join(f"family={option!r} ({FAMILIES[option].checkpoints})" for option in perhaps)
        raise CheckpointError(f"{what} does not tell its family. If it is a diffusion model, say which: {choices}")
    raise CheckpointError(f"{what} is not supported. Families: {', '.join(FAMILIES)}")


def _block_length(family: Family, raw: Mapping[str, Any], given: int | None) -> int | None:
    """Of the block-causal mask: given, or in config.json (SDAR's ``block_size``, Fast-dLLM's ``bd_size``), or the usual one."""
    if family.block_length is None:
        if given is not None:
            remedy = f"{family.name} has full attention; blocks are a choice of each row there (SamplingParams)"
            raise InvalidInputError("block_length", given, remedy)
        return None
    if given is not None:
        check_number("block_length", given, low=1, integer=True)
        return given
    stored = raw.get("block_size", raw.get("bd_size"))
    return stored if isinstance(stored, int) and stored > 0 else family.block_length


def _mask_id(family: Family, raw: Mapping[str, Any], tok: Any | None, vocab: int) -> Any:
    """From config.json, the tokenizer, or what the published checkpoints have, in this order."""
    if raw.get("mask_token_id") is not None:
        return raw["mask_token_id"]
    if tok is not None:
        found = tok.get_vocab().get(family.mask_token)
        found = tok.mask_token_id if found is None else found
        if found is not None:
            return found
    if family.mask_id is not None and family.mask_id < vocab:
        return family.mask_id
    raise InvalidInputError("mask_id", None, "the checkpoint names no mask token: give load(..., mask_id=)")


def _end_ids(family: Family, raw: Mapping[str, Any], folder: Path, tok: Any | None, vocab: int) -> tuple[int, ...]:
    """All ids that end an answer: of config, generation config and tokenizer, and the family's end-of-turn tokens."""
    found: list[int] = []
    for value in (raw.get("eos_token_id"), checkpoint.read_json(folder / "generation_config.json").get("eos_token_id")):
        found += value if isinstance(value, list) else [] if value is None else [value]
    if tok is None:
        found += [i for i in family.ends.values() if i is not None and i < vocab]
    else:
        end = tok.sep_token_id if tok.eos_token_id is None else tok.eos_token_id  # BERT's end is its separator
        vocabulary = tok.get_vocab()
        found += [] if end is None else [end]
        found += [vocabulary[text] for text in family.ends if text in vocabulary]
    return tuple(dict.fromkeys(found))


def _check_id(field: str, value: object, vocab: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < vocab:
        raise InvalidInputError(field, value, f"give a token id from 0 to {vocab - 1}")


def _dtype(dtype: object) -> torch.dtype | None:
    """None for the dtype that the weights are stored in."""
    if isinstance(dtype, str) and dtype == "auto":
        return None
    if isinstance(dtype, torch.dtype) and dtype in _DTYPES.values():
        return dtype
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise InvalidInputError("dtype", dtype, f"give auto, {', '.join(_DTYPES)}")
    return _DTYPES[dtype]


def _placement(device: object, device_map: object) -> Any:
    """A torch.device, or a device map; exactly one of the two may be given."""
    if device is not None and device_map is not None:
        raise InvalidInputError("device_map", device_map, f"give it or device={device!r}, not both")
    if isinstance(device_map, Mapping):
        for place in device_map.values():
            if place != "disk":
                _device("device_map", place)
        return dict(device_map)
    if device_map == "auto":
        return "auto"
    if device_map is not None and not isinstance(device_map, (str, torch.device)):
        raise InvalidInputError("device_map", device_map, 'give "auto", a device, or module → device')
    name = device if device_map is None else device_map
    if name is None or name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return _device("device", name)


def _device(field: str, name: Any) -> torch.device:
    try:
        place = torch.device(name)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise InvalidInputError(field, name, f"not available here ({str(error).splitlines()[0]})") from error
    if place.type == "meta":
        raise InvalidInputError(field, name, "not available here (the meta device holds no weights)")
    return place

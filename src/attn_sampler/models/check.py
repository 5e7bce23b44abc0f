"""What to look at before the first run of a checkpoint: facts that no error reports when they are wrong.

A wrong shift, a causal mask or a rounded rotary table still give fluent text, only worse. Each point says what was compared and
with which numbers; ``"unchecked"`` means that it could not be told here, and why.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attn_sampler.errors import CheckpointError, InvalidInputError
from attn_sampler.models import checkpoint, family_of, load_model
from attn_sampler.models.adapter import TransformersModel
from attn_sampler.models.family import Family
from attn_sampler.models.layouts import LAYOUTS, SIZES

__all__ = ["Outcome", "Point", "check"]

Outcome = Literal["passed", "failed", "unchecked"]

AFTER_LOADING = ("mask", "ends", "head", "rotary", "types", "finite", "attention", "causal", "probe")


@dataclass(frozen=True)
class Point:
    """One point of the checklist.

    Attributes:
        name: of the point.
        outcome: ``"unchecked"`` where the checkpoint does not allow an answer.
        says: what was found, in words and numbers.
    """

    name: str
    outcome: Outcome
    says: str


def check(
    source: str | Path,
    *,
    family: str | None = None,
    mask_id: int | None = None,
    block_length: int | None = None,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device | None = None,
    revision: str | None = None,
) -> list[Point]:
    """The checklist of a checkpoint directory or Hub id, in order. Arguments as those of `attn_sampler.load`.

    Runs a handful of forward passes over at most 2 blocks + 1 positions. A point that fails is reported, not raised.

    Raises:
        InvalidInputError: an argument is wrong (no such directory, no such family, no such device …).
        CheckpointError: there is no checkpoint to look at.
    """
    folder = checkpoint.find(source, revision)
    raw = checkpoint.read_json(folder / "config.json")
    try:
        facts = family_of(raw, family, folder / "config.json")
    except CheckpointError as error:
        return [Point("family", "failed", str(error)), *_not_reached("config", "loads", *AFTER_LOADING)]
    shift = "row i - 1 predicts token i (shifted)" if facts.shifted else "row i predicts token i"
    points = [Point("family", "passed", f"{facts.name}: {facts.attention} attention, {shift}"), _config(facts, raw)]
    try:
        model, tok = load_model(folder, family=facts.name, mask_id=mask_id, block_length=block_length, dtype=dtype, device=device)
    except CheckpointError as error:
        return [*points, Point("loads", "failed", str(error)), *_not_reached(*AFTER_LOADING)]
    except InvalidInputError as error:
        if error.field != "mask_id" or mask_id is not None:
            raise
        return [*points, *_not_reached("loads"), Point("mask", "failed", str(error)), *_not_reached(*AFTER_LOADING[1:])]
    names = [name for name, _ in checkpoint.tensors(folder)]
    fit = f"{len(names)} tensors on disk: none missing, none unexpected, all of the shapes that the config gives"
    points.append(Point("loads", "passed", fit))
    points += [_mask(model, tok), _ends(model, tok), _head(model, raw, names), _rotary(model, raw), _types(model)]
    return points + _behaviour(model, tok)


def _not_reached(*names: str) -> list[Point]:
    return [Point(name, "unchecked", "not reached") for name in names]


# --- the files --------------------------------------------------------------------------------------------------------


def _config(facts: Family, raw: Mapping[str, Any]) -> Point:
    """Keys, and values that are no sizes, against the published configs of the family."""
    published = [
        layout.config
        for layout in LAYOUTS.values()
        if layout.family == facts.name and layout.config["model_type"] == raw.get("model_type")
    ]
    if not published:
        return Point("config", "unchecked", f"no published config of {facts.name} has model_type={raw.get('model_type')!r}")
    known = {key: [config[key] for config in published if key in config] for config in published for key in config}
    more = sorted(set(raw) - set(known))
    less = sorted(set(known) - set(raw))
    other = [
        f"{key}={raw[key]!r} (published: {' or '.join(dict.fromkeys(map(repr, values)))})"
        for key, values in known.items()
        if key in raw and key not in SIZES and raw[key] not in values
    ]
    parts = [("differs in", other), ("has besides", more), ("lacks", less)]
    found = "; ".join(f"{what} {', '.join(items)}" for what, items in parts if items)
    if found:
        return Point("config", "unchecked", f"{found}. Whether that matters is not told by the files")
    return Point("config", "passed", f"{len(known)} keys as published; sizes and ids are the checkpoint's own")


def _mask(model: TransformersModel, tok: Any | None) -> Point:
    mask, rows, usual = model.mask_id, model.vocab_size, model.family.mask_token
    inside = f"id {mask} is one of {rows} embedding rows"  # what is outside does not load
    if tok is None:
        return Point("mask", "unchecked", f"{inside}; there is no tokenizer to compare it with")
    text = tok.convert_ids_to_tokens(mask)
    by_name = tok.get_vocab().get(usual)
    if text is None:
        return Point("mask", "failed", f"the tokenizer has no token {mask}")
    if by_name is not None and by_name != mask:
        return Point("mask", "failed", f"the mask id is {mask} ({text!r}), but the tokenizer's {usual!r} is id {by_name}")
    back = tok.encode(tok.decode([mask], skip_special_tokens=False), add_special_tokens=False)
    if tok.convert_tokens_to_ids(text) != mask or back != [mask]:
        return Point("mask", "failed", f"{text!r} is id {mask}, but decoded and encoded again it is {back}")
    strange = "" if by_name == mask else f" (the family's usual string is {usual!r})"
    return Point("mask", "passed", f"{text!r}{strange} → {mask} → {text!r}; {inside}")


def _ends(model: TransformersModel, tok: Any | None) -> Point:
    if not model.eos_ids:
        return Point("ends", "unchecked", "no id ends an answer: answers always have their full length")
    shown = [f"{i}" if tok is None else f"{i} ({tok.convert_ids_to_tokens(i)!r})" for i in model.eos_ids]
    lost = [] if tok is None else [i for i in model.eos_ids if tok.convert_ids_to_tokens(i) is None]
    if lost:
        return Point("ends", "failed", f"the tokenizer has no token {', '.join(map(str, lost))}, which should end an answer")
    return Point("ends", "passed", f"an answer ends at {', '.join(shown)}")


def _head(model: TransformersModel, raw: Mapping[str, Any], names: list[str]) -> Point:
    """A stored head is used whatever the config says; some configs say ``tie_word_embeddings`` all the same."""
    net: Any = model.net
    head, table = net.get_output_embeddings(), net.get_input_embeddings()
    target = next(name for name, module in net.named_modules() if module is head) + ".weight"
    stored = any(piece.target == target for name in names for piece in model.family.pieces(name, net.config) or ())
    says = f"config: tie_word_embeddings={raw.get('tie_word_embeddings', 'absent')}"
    if not stored:
        shared = head.weight is table.weight
        return Point("head", "passed" if shared else "failed", f"none stored; the embedding is the head ({says})")
    equal = head.weight.shape == table.weight.shape and torch.equal(head.weight, table.weight)
    return Point("head", "passed", f"stored and used, {'equal to' if equal else 'different from'} the embedding ({says})")


def _rotary(model: TransformersModel, raw: Mapping[str, Any]) -> Point:
    tables = {n: b for n, b in model.net.named_buffers() if n.endswith("inv_freq") and "original" not in n}
    if not tables:
        return Point("rotary", "unchecked", "there is no rotary embedding")
    shown, wrong = [], []
    for name, table in tables.items():
        key = "global_rope_theta" if "full_attention" in name else "local_rope_theta" if "sliding" in name else "rope_theta"
        theta = raw.get(key) or (raw.get("rope_parameters") or {}).get("rope_theta")
        if theta is None:
            return Point("rotary", "unchecked", f"config.json gives no {key}")
        heads = raw.get("num_attention_heads") or raw.get("n_heads") or 1
        head_dim = raw.get("head_dim") or (raw.get("hidden_size") or raw.get("d_model") or 0) // heads
        size = raw.get("rotary_dim") or int(head_dim * (raw.get("partial_rotary_factor") or 1))
        want = float(theta) ** (-2 / size)
        first, second = float(table[0]), float(table[1])
        text = f"{name}: {str(table.dtype).removeprefix('torch.')}, {2 * len(table)} dimensions, {first:.6g}, {second:.6g}"
        shown.append(f"{text} (wanted 1, {want:.6g})")
        good = table.dtype == torch.float32 and first == 1.0 and abs(second / want - 1) < 1e-5 and 2 * len(table) == size
        wrong += [] if good else [name]
    return Point("rotary", "failed" if wrong else "passed", "; ".join(shown))


def _types(model: TransformersModel) -> Point:
    """Rotary tables (above) and the routers' expert biases are float32 whatever the weights are."""
    weights = sorted({str(p.dtype).removeprefix("torch.") for p in model.net.parameters()})
    biases = {b.dtype for n, b in model.net.named_buffers() if n.endswith("e_score_correction_bias")}
    if not biases:
        return Point("types", "passed", f"weights in {', '.join(weights)}")
    said = ", ".join(str(dtype).removeprefix("torch.") for dtype in biases)
    return Point(
        "types", "passed" if biases == {torch.float32} else "failed", f"weights in {', '.join(weights)}, expert biases in {said}"
    )


# --- forward passes ---------------------------------------------------------------------------------------------------


def _behaviour(model: TransformersModel, tok: Any | None) -> list[Point]:
    ids = _canvas(model)
    logits = model.logits(ids)
    if not bool(logits.isfinite().all()):
        says = f"logits of {ids.shape[1]} positions hold NaN or infinity"
        return [Point("finite", "failed", says), *_not_reached(*AFTER_LOADING[6:])]
    largest = float(logits.abs().max())
    points = [Point("finite", "passed", f"logits of {ids.shape[1]} positions are finite, at most {largest:.3g} in size")]
    noise = largest * float(torch.finfo(model.dtype).eps)
    points.append(_attention(model, ids, logits, noise))
    points.append(_causal(model, ids, logits, noise))
    return [*points, _probe(model, tok)]


def _canvas(model: TransformersModel) -> Int[Tensor, "one length"]:
    """Two blocks and one position, or 16; the second half masked."""
    length = min(16 if model.block_length is None else 2 * model.block_length + 1, model.context_length)
    ids = torch.arange(length, device=model.device) * 7 % model.vocab_size
    ids = torch.where(ids == model.mask_id, ids - 1, ids)
    ids[length // 2 : -1] = model.mask_id
    return ids[None]


def _attention(
    model: TransformersModel, ids: Int[Tensor, "one length"], logits: Float[Tensor, "one length vocab"], noise: float
) -> Point:
    """Whether row 0 sees what the family's mask lets it see."""

    def moved(position: int) -> float:
        other = ids.clone()
        other[0, position] = next(i for i in range(model.vocab_size) if i not in (int(ids[0, position]), model.mask_id))
        return float((model.logits(other)[0, 0] - logits[0, 0]).abs().max())

    last, block = ids.shape[1] - 1, model.block_length
    far = moved(last)
    if block is None:
        says = f"full: with another last token (of {last + 1}), row 0 moves by {far:.3g}"
        return Point("attention", "passed" if far > noise else "failed", says)
    says = f"block-causal {block}: with another token {last}, in a later block, row 0 moves by {far:.3g}"
    good = far <= 8 * noise
    if block > 1:
        near = moved(block - 1)
        says += f"; with another token {block - 1}, in its own block, by {near:.3g}"
        good = good and near > noise
    return Point("attention", "passed" if good else "failed", says)


def _causally(model: TransformersModel) -> TransformersModel:
    """The same network with blocks of one position, which is the causal mask."""
    causal = copy.copy(model)
    causal.block_length = 1
    return causal


def _causal(
    model: TransformersModel, ids: Int[Tensor, "one length"], logits: Float[Tensor, "one length vocab"], noise: float
) -> Point:
    if model.block_length == 1:
        return Point("causal", "unchecked", "blocks of one position are the causal mask")
    moved = float((_causally(model).logits(ids) - logits).abs().max())
    return Point("causal", "passed" if moved > noise else "failed", f"under a causal mask the logits move by up to {moved:.3g}")


def _probe(model: TransformersModel, tok: Any | None) -> Point:
    """A fact that a trained model knows. Where its answer stands one row off, the shift is wrong."""
    name = "probe"
    if tok is None:
        return Point(name, "unchecked", "there is no tokenizer to ask with")
    text = f"The capital of France is{tok.convert_ids_to_tokens(model.mask_id)}."
    if tok.chat_template:
        turn = [{"role": "user", "content": "What is the capital of France?"}]
        chat = tok.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
        ids = tok.encode(chat, add_special_tokens=False) + tok.encode(text, add_special_tokens=False)
    else:
        ids = tok.encode(text)
    if ids.count(model.mask_id) != 1 or len(ids) > model.context_length:
        return Point(name, "unchecked", "the tokenizer does not make one mask of its mask string")
    place = ids.index(model.mask_id)
    answers = [tok.encode(word, add_special_tokens=False) for word in (" Paris", "Paris")]
    wanted = sorted({answer[0] for answer in answers if answer})
    canvas = torch.tensor([ids], device=model.device)

    def ask(model: TransformersModel) -> tuple[list[float], list[int]]:
        """Of each row: the probability of the answer, and the first choice."""
        logits = model.logits(canvas)[0].float()
        logits = logits.index_fill(1, torch.tensor(model.mask_id, device=model.device), -torch.inf)
        return logits.softmax(-1)[:, wanted].amax(-1).tolist(), logits.argmax(-1).tolist()

    (here, first), (causal, _) = ask(model), ask(_causally(model))
    rows = {"at the masked row": place, "one row before": place - 1, "one row behind": place + 1}
    numbers = ", ".join(f"{here[row]:.3g} {where}" for where, row in rows.items() if 0 <= row < len(ids))
    whole = min(len(answer) for answer in answers if answer) == 1
    word = "'Paris'" if whole else f"{tok.decode(wanted[:1])!r}, the first piece of 'Paris'"
    says = f"'The capital of France is': probability of {word} {numbers}; under a causal mask {causal[place]:.3g}"
    if whole and first[place] in wanted:
        return Point(name, "passed", f"{says}. It is the first choice at the masked row")
    beside = [row for row in (place - 1, place + 1) if row < len(ids) and first[row] in wanted]
    if whole and beside:
        return Point(name, "failed", f"{says}. It is the first choice one row off: the family's logit shift does not fit")
    return Point(name, "unchecked", f"{says}. Not the first choice there: these weights do not know it, so it tells nothing")

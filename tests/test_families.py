"""What distinguishes the families, and how a checkpoint tells which one it is.

Logits against the authors' code are in test_golden_models.py; here are the conventions around them, and the encoders, whose
own transformers class is the slow twin.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformers.utils import logging

import attn_sampler as ats
from attn_sampler import CheckpointError, InvalidInputError, SamplingParams, UnknownNameError
from attn_sampler.attention import AttentionAsk
from attn_sampler.models import FAMILIES
from attn_sampler.models.adapter import TransformersModel
from attn_sampler.models.seam import Ask
from attn_sampler.models.tiny import LAYOUTS
from attn_sampler.seam import Attention

Tiny = Callable[[str], Path]
ENCODERS = ("bert", "roberta", "distilbert", "modernbert")
DECODERS = [name for name in LAYOUTS if LAYOUTS[name].family not in ENCODERS]
TOLERANCE = 3e-4  # of logits of size 20; a wrong row or mask moves them by more than 1


def load(layout: str, tiny: Tiny, **arguments: Any) -> ats.Engine:
    return ats.load(tiny(layout), device="cpu", family=LAYOUTS[layout].family, **arguments)


def net_of(engine: ats.Engine) -> Any:
    assert isinstance(engine.model, TransformersModel)
    return engine.model.net


def canvas(engine: ats.Engine, length: int = 70) -> Tensor:
    """Text with masks in it, one row."""
    ids = torch.arange(length) * 7 % 250
    ids[length // 2 :: 2] = engine.model.mask_id
    return ids[None]


def block_causal(length: int, block: int | None) -> Tensor:
    """The additive mask, written once more."""
    mask = torch.zeros(1, 1, length, length)
    for i in range(length):
        for j in range(length):
            if block is not None and j // block > i // block:
                mask[0, 0, i, j] = -torch.inf
    return mask


def raw_logits(engine: ats.Engine, ids: Tensor, block: int | None) -> Tensor:
    """Of the stock class itself, under transformers' own attention, unshifted."""
    net = net_of(engine)
    used = net.config._attn_implementation
    net.set_attn_implementation("sdpa")
    try:
        with torch.inference_mode():
            return net(input_ids=ids, attention_mask=block_causal(ids.shape[1], block), use_cache=False).logits
    finally:
        net.set_attn_implementation(used)


# --- shift and mask ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", DECODERS)
def test_row_i_predicts_token_i(layout: str, tiny: Tiny) -> None:
    """Random weights do not show a wrong shift; the rows of the network do."""
    engine, family = load(layout, tiny), FAMILIES[LAYOUTS[layout].family]
    ids = canvas(engine)
    raw, got = raw_logits(engine, ids, family.block_length), engine.logits(ids)
    if family.shifted:
        torch.testing.assert_close(got[:, 1:], raw[:, :-1], atol=TOLERANCE, rtol=0)
        assert (got[:, 1:] - raw[:, 1:]).abs().max() > 1
    else:
        torch.testing.assert_close(got, raw, atol=TOLERANCE, rtol=0)
        assert (got[:, 1:] - raw[:, :-1]).abs().max() > 1


@pytest.mark.parametrize("layout", sorted(FAMILIES))
def test_recommended_settings_are_settings(layout: str, tiny: Tiny) -> None:
    """Of a length that fits into the tiny context."""
    settings = dict(FAMILIES[layout].settings)
    settings["max_new_tokens"] = min(settings.get("max_new_tokens", 64), 256)
    row = load(layout, tiny).prepare([200, 201], SamplingParams(**settings))
    assert sum(row.masked) >= settings["max_new_tokens"]


def test_which_families_are_shifted_and_which_have_blocks() -> None:
    assert {name for name, family in FAMILIES.items() if family.shifted} == {"dream", "open-dcoder", "fast-dllm-v2"}
    blocks = {"fast-dllm-v2": 32, "llada2": 32, "sdar": 4, "a2d-bd3lm": 32}
    assert {name: family.block_length for name, family in FAMILIES.items() if family.block_length} == blocks


@pytest.mark.parametrize("layout", ["dream", "open-dcoder", "fast-dllm-v2", "llada", "sdar"])
def test_a_mask_without_a_left_neighbour(layout: str, tiny: Tiny) -> None:
    """A shifted network has no row that predicts position 0."""
    engine = load(layout, tiny)
    params = SamplingParams(sampler="confidence")
    if FAMILIES[LAYOUTS[layout].family].shifted:
        with pytest.raises(InvalidInputError, match="position 0"):
            engine.infill([ats.Hole(1), [5, 6]], params)
    else:
        assert engine.infill([ats.Hole(1), [5, 6]], params).completion_tokens == 1
    assert engine.infill([[5], ats.Hole(1)], params).completion_tokens == 1


@pytest.mark.parametrize("layout", ["sdar", "fast-dllm-v2", "a2d-bd3lm", "llada2"])
def test_block_length_changes_the_mask(layout: str, tiny: Tiny) -> None:
    engine = load(layout, tiny, block_length=8)
    ids = canvas(engine, 20)
    raw, got = raw_logits(engine, ids, 8), engine.logits(ids)
    shift = engine.model.shift
    torch.testing.assert_close(got[:, shift:], raw[:, : 20 - shift], atol=TOLERANCE, rtol=0)
    assert (got - load(layout, tiny).logits(ids)).abs().max() > 1


@pytest.mark.parametrize("layout", ["llada", "dream", "a2d-mdlm", "modernbert"])
def test_block_length_is_of_block_causal_models_only(layout: str, tiny: Tiny) -> None:
    with pytest.raises(InvalidInputError, match="full attention") as caught:
        load(layout, tiny, block_length=8)
    assert caught.value.field == "block_length"


@pytest.mark.parametrize("value", [0, -4, 2.5, True, "8"])
def test_block_lengths_that_are_none(value: Any, tiny: Tiny) -> None:
    with pytest.raises(InvalidInputError) as caught:
        load("sdar", tiny, block_length=value)
    assert caught.value.field == "block_length"


def changed(tiny: Tiny, layout: str, tmp_path: Path, remove: tuple[str, ...] = (), **values: Any) -> Path:
    """A copy with another config.json."""
    folder = Path(shutil.copytree(tiny(layout), tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text()) | values
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k not in remove}))
    return folder


@pytest.mark.parametrize(
    ("layout", "values", "remove", "block"),
    [
        ("sdar", {"block_size": 16}, (), 16),
        ("sdar", {}, ("block_size",), 4),  # older configs lack it
        ("fast-dllm-v2", {"bd_size": 16}, (), 16),
        ("fast-dllm-v2", {}, ("bd_size",), 32),
    ],
)
def test_the_checkpoint_says_its_block_length(
    layout: str, values: dict[str, int], remove: tuple[str, ...], block: int, tiny: Tiny, tmp_path: Path
) -> None:
    assert ats.load(changed(tiny, layout, tmp_path, remove, **values), device="cpu").model.block_length == block


# --- which family -----------------------------------------------------------------------------------------------------


def refused(folder: Path, *says: str, error: type[Exception] = CheckpointError, **arguments: Any) -> None:
    with pytest.raises(error) as caught:
        ats.load(folder, device="cpu", **arguments)
    for text in says:
        assert text in str(caught.value)


def test_a_plain_qwen2_may_be_an_autoregressive_one(tiny: Tiny) -> None:
    refused(tiny("open-dcoder"), "model_type='qwen2'", "does not tell its family", "family='open-dcoder'", "fredzzp/open-dcoder")


@pytest.mark.parametrize("layout", ["a2d-mdlm", "a2d-bd3lm-qwen2"])
def test_the_two_kinds_of_a2d_have_one_config(layout: str, tiny: Tiny) -> None:
    refused(tiny(layout), "does not tell its family", "family='a2d-mdlm'", "family='a2d-bd3lm'")
    for name, block in (("a2d-mdlm", None), ("a2d-bd3lm", 32)):
        assert ats.load(tiny(layout), device="cpu", family=name).model.block_length == block


@pytest.mark.parametrize(
    ("config", "name", "reason"),
    [
        (
            {
                "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3",
                "auto_map": {"AutoModelForCausalLM": "modeling_refusion.Qwen3ForCausalLM"},
            },
            "ReFusion", "causal",
        ),
        (
            {"architectures": ["DiffusionGemmaForBlockDiffusion"], "model_type": "diffusion_gemma"},
            "DiffusionGemma", "no mask token",
        ),
    ],
)  # fmt: skip
def test_diffusion_models_of_another_kind(config: dict[str, Any], name: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    refused(tmp_path, f"is {name}", reason, "not supported")
    refused(tmp_path, f"is {name}", reason, family="sdar")  # naming a family does not make it one


def test_a_plain_qwen3_is_not_guessed(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}))
    refused(tmp_path, "model_type='qwen3'", "not supported")


@pytest.mark.parametrize(
    ("name", "suggestion"), [("lada", "llada"), ("llada_moe", "llada-moe"), ("a2d", "a2d-mdlm"), ("xyz", None)]
)
def test_a_family_that_does_not_exist(name: str, suggestion: str | None, tiny: Tiny) -> None:
    with pytest.raises(UnknownNameError, match="known: a2d-bd3lm") as caught:
        ats.load(tiny("llada"), device="cpu", family=name)
    assert caught.value.field == "family"
    assert caught.value.suggestion == suggestion


@pytest.mark.parametrize(
    ("layout", "family", "fits"),
    [
        ("llada", "llada-moe", "llada fits it"),  # both call themselves llada
        ("llada-moe", "llada", "llada-moe fits it"),
        ("dream", "open-dcoder", "dream fits it"),
        ("open-dcoder", "dream", "open-dcoder fits it"),
        ("a2d-mdlm", "sdar", "a2d-mdlm, a2d-bd3lm fits it"),
        ("bert", "roberta", "bert fits it"),
    ],
)
def test_a_family_that_does_not_fit(layout: str, family: str, fits: str, tiny: Tiny) -> None:
    refused(tiny(layout), f"is no {family} checkpoint", fits, family=family)


def test_the_two_that_call_themselves_llada(tiny: Tiny) -> None:
    for layout in ("llada", "llada-moe"):
        model = ats.load(tiny(layout), device="cpu").model
        assert isinstance(model, TransformersModel)
        assert model.family.name == layout


# --- data types -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["llada", "llada2", "dream", "modernbert"])
def test_bfloat16_leaves_the_tables_alone(layout: str, tiny: Tiny) -> None:
    engine, exact = load(layout, tiny, dtype="bfloat16"), load(layout, tiny)
    tables, wanted = (
        {n: b for n, b in net_of(e).named_buffers() if "inv_freq" in n or "e_score_correction_bias" in n} for e in (engine, exact)
    )
    assert tables
    assert any("e_score_correction_bias" in name for name in tables) == (layout == "llada2")
    for name, table in tables.items():
        assert table.dtype == torch.float32
        assert torch.equal(table, wanted[name])
    assert {p.dtype for p in net_of(engine).parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(("layout", "times"), [("llada", 2.0), ("sdar", 1.25)])
def test_casting_a_loaded_model_is_a_trap(layout: str, times: float, tiny: Tiny) -> None:
    """``model.to(bfloat16)`` rounds the rotary table: far from the start, queries and keys turn by wrong angles.

    Mean difference from float32 at positions 300 to 399 (tiny random weights, CPU): LLaDA 0.34 with ``dtype=`` and 1.05 after the
    cast, SDAR 0.24 and 0.34 (a larger rotary base, so its angles are smaller).
    """
    exact = load(layout, tiny)
    ids = canvas(exact, 400)
    want = exact.logits(ids)
    loaded = load(layout, tiny, dtype="bfloat16")
    cast = load(layout, tiny)
    net_of(cast).to(torch.bfloat16)
    cast.model.dtype = torch.bfloat16  # type: ignore[attr-defined]
    assert net_of(cast).model.rotary_emb.inv_freq.dtype == torch.bfloat16
    right, wrong = ((engine.logits(ids).float() - want)[:, 300:].abs().mean() for engine in (loaded, cast))
    assert wrong > times * right


def test_casting_a_loaded_model_rounds_the_routers_bias(tiny: Tiny) -> None:
    """The biases decide between experts by small differences."""
    net = net_of(load("llada2", tiny))
    name = next(n for n, _ in net.named_buffers() if "e_score_correction_bias" in n)
    kept = net.get_buffer(name).clone()
    rounded = net.to(torch.bfloat16).get_buffer(name)
    assert rounded.dtype == torch.bfloat16
    assert 1e-5 < (rounded.float() - kept).abs().max() < 1e-3


# --- ids --------------------------------------------------------------------------------------------------------------


def without_tokenizer(tiny: Tiny, layout: str, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(tiny(layout), tmp_path / "model"))
    (folder / "tokenizer.json").unlink()
    return folder


@pytest.mark.parametrize("layout", ["fast-dllm-v2", "llada-moe", "llada2", "a2d-mdlm"])
def test_a_mask_that_only_the_tokenizer_names(layout: str, tiny: Tiny, tmp_path: Path) -> None:
    """Their config.json has no mask id; the published one (151665 ...) lies outside this small vocabulary."""
    words = LAYOUTS[layout].words
    assert load(layout, tiny).model.mask_id == words[LAYOUTS[layout].mask]
    folder, family = without_tokenizer(tiny, layout, tmp_path), LAYOUTS[layout].family
    refused(folder, "names no mask token", "mask_id=", error=InvalidInputError, family=family)
    assert ats.load(folder, device="cpu", family=family, mask_id=7).model.mask_id == 7


def test_the_mask_that_stands_in_no_file(tiny: Tiny, tmp_path: Path) -> None:
    """iLLaDA's is 5, in every vocabulary."""
    assert ats.load(without_tokenizer(tiny, "illada", tmp_path), device="cpu").model.mask_id == 5


def test_config_comes_before_tokenizer(tiny: Tiny, tmp_path: Path) -> None:
    assert ats.load(changed(tiny, "llada", tmp_path, mask_token_id=9), device="cpu").model.mask_id == 9


@pytest.mark.parametrize(
    ("layout", "ends"),
    [
        ("llada", ("<|endoftext|>", "<|eot_id|>")),
        ("llada2", ("<|endoftext|>", "<|role_end|>")),
        ("dream", ("<|endoftext|>", "<|im_end|>")),
        ("sdar", ("<|endoftext|>", "<|im_end|>")),
        ("fast-dllm-v2", ("<|im_end|>", "<|endoftext|>")),
        ("a2d-mdlm", ("<|im_end|>", "<|endoftext|>")),
        ("open-dcoder", ("<|endoftext|>", "<|im_end|>")),
        ("illada", ("<eos>",)),
        ("bert", ("[SEP]",)),
        ("roberta", ("</s>",)),
        ("modernbert", ("[SEP]",)),
    ],
)
def test_every_id_that_ends_an_answer(layout: str, ends: tuple[str, ...], tiny: Tiny) -> None:
    """The end of the sequence first, then the end of the turn, which several configs do not name."""
    assert load(layout, tiny).model.eos_ids == tuple(LAYOUTS[layout].words[text] for text in ends)


def test_an_end_of_turn_ends_the_answer(tiny: Tiny) -> None:
    """The first token that the network would write is declared an end: nothing of the answer is left."""
    engine = load("llada", tiny)
    params = SamplingParams(sampler="left-to-right", max_new_tokens=4)
    (free,) = engine.generate([[1, 2, 3]], params)
    (result,) = ats.load(tiny("llada"), device="cpu", eos_ids=[free.token_ids[0]]).generate([[1, 2, 3]], params)
    assert result.finish_reason == "stop"
    assert result.token_ids == free.token_ids[:1]


# --- encoders against their own class ---------------------------------------------------------------------------------

LENGTH = 40  # ModernBERT's local layers see 8 positions to each side


def stock(layout: str, tiny: Tiny) -> Any:
    kind = getattr(transformers, str(FAMILIES[layout].stock))
    loud = logging.get_verbosity()
    logging.set_verbosity_error()  # it lists the unused pooler
    try:
        return kind.from_pretrained(tiny(layout), attn_implementation="eager").eval()
    finally:
        logging.set_verbosity(loud)


def padded(engine: ats.Engine, padding: str) -> tuple[Tensor, Tensor | None]:
    """Two rows, the second shorter."""
    ids = (torch.arange(2 * LENGTH).view(2, LENGTH) * 7 + 5) % 250
    ids = torch.where(ids == engine.model.pad_id, 9, ids)
    ids[:, 12::3] = engine.model.mask_id
    if padding == "none":
        return ids, None
    mask = torch.ones_like(ids)
    mask[1, slice(0, 11) if padding == "left" else slice(LENGTH - 11, LENGTH)] = 0
    return ids.masked_fill(mask == 0, engine.model.pad_id), mask


@pytest.mark.parametrize("padding", ["none", "left", "right"])
@pytest.mark.parametrize("layout", ENCODERS)
def test_encoders_equal_their_own_class(layout: str, padding: str, tiny: Tiny) -> None:
    engine, twin = load(layout, tiny), stock(layout, tiny)
    ids, mask = padded(engine, padding)
    with torch.inference_mode():
        want = twin(input_ids=ids, attention_mask=mask).logits
    real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
    got = engine.logits(ids, mask)
    assert (got - want)[real].abs().max() < TOLERANCE
    assert want[real].abs().max() > 5


@pytest.mark.parametrize("padding", ["none", "left", "right"])
@pytest.mark.parametrize(("norm", "width"), [("global", 24), ("local", 8)])
@pytest.mark.parametrize("layout", ENCODERS)
def test_attention_statistics_equal_the_eager_matrices(layout: str, norm: Any, width: int, padding: str, tiny: Tiny) -> None:
    """Mean over layers and heads, of the window's columns as they are (global) or of each row normalised in it (local).

    A local window of 8 positions lies inside ModernBERT's local layers, so that no mask cuts through it.
    """
    engine, twin = load(layout, tiny), stock(layout, tiny)
    ids, mask = padded(engine, padding)
    with torch.inference_mode():
        matrices = torch.stack(twin(input_ids=ids, attention_mask=mask, output_attentions=True).attentions)
    assert len(matrices) == engine.model.num_layers
    low = 14 if width == 8 else 3
    keys = torch.arange(low, low + width).expand(2, width)
    if padding != "none":  # the second row's window lies between its paddings
        keys = torch.stack([keys[0], keys[0] + (9 if padding == "left" else 0)])
    yes = torch.ones_like(keys, dtype=torch.bool)
    rows = torch.arange(2)
    window = torch.stack([matrices[:, r][..., keys[r][:, None], keys[r]] for r in range(2)])  # row, layer, head, query, key
    if norm == "local":
        window = window / window.sum(-1, keepdim=True)
    want = window.mean((1, 2))
    ask = AttentionAsk(Attention(norm=norm, pairwise=True), rows, keys, yes, keys, yes)
    valid = None if mask is None else mask.bool()
    (got,) = engine.model.predict(ids, valid, [Ask(rows, keys, ask)])
    assert got.pairwise is not None
    assert got.columns is not None
    assert (got.pairwise - want).abs().max() < 1e-5
    assert (got.columns - want.sum(1)).abs().max() < 1e-4


def test_modernbert_looks_only_near_in_its_local_layers(tiny: Tiny) -> None:
    """Layers 0 and 3 of 4 are global; all others see 8 positions to each side."""
    engine = load("modernbert", tiny)
    ids, _ = padded(engine, "none")
    every = torch.arange(LENGTH)[None]
    yes, row = torch.ones_like(every, dtype=torch.bool), torch.tensor([0])
    far = (torch.arange(LENGTH)[:, None] - torch.arange(LENGTH)).abs() > 8
    for layer in range(4):
        ask = AttentionAsk(Attention(norm="global", layers=(layer,), pairwise=True), row, every, yes, every, yes)
        (got,) = engine.model.predict(ids, None, [Ask(row, every, ask)])
        assert got.pairwise is not None
        assert (float(got.pairwise[0][far].max()) > 0) == (layer in (0, 3))


# --- rows -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", sorted(FAMILIES))
def test_a_row_in_a_ragged_batch_equals_itself_alone(layout: str, tiny: Tiny) -> None:
    """Padding, positions, blocks and local windows of every family at once."""
    engine = load(layout, tiny)
    params = SamplingParams(sampler="attention", max_new_tokens=5, ignore_eos=True, seed=1)
    prompts = [[i * 7 % 140 + 110 for i in range(length)] for length in (27, 59)]  # both answers end a block of 32
    together = engine.generate(prompts, params)
    for prompt, result in zip(prompts, together, strict=True):
        (alone,) = engine.generate([prompt], params)
        assert alone.token_ids == result.token_ids
        assert alone.forwards == result.forwards

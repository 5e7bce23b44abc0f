"""LoRA adapters: merged weights equal PEFT's own merge, whichever class they were trained on; the rest is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import attn_sampler as ats
from attn_sampler import CheckpointError, Engine, InvalidInputError
from attn_sampler.models.lora import _of

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT 0.21 reads it
IDS = [[5, 9, 30, 7, 21, 11, 3, 40]]
CONFIG = {"peft_type": "LORA", "r": 4, "lora_alpha": 8}


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) / shape[-1] ** 0.5


def pair(name: str, outputs: int, inputs: int, rank: int = 4) -> dict[str, Tensor]:
    stem = f"base_model.model.{name}"
    return {f"{stem}.lora_A.weight": noise(rank, inputs), f"{stem}.lora_B.weight": noise(outputs, rank, seed=1)}


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    def write(tensors: dict[str, Tensor], **config: Any) -> Path:
        folder = tmp_path / "adapter"
        folder.mkdir(exist_ok=True)
        (folder / "adapter_config.json").write_text(json.dumps(CONFIG | config))
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "adapter_model.safetensors")
        return folder

    return write


def weight(engine: Engine, name: str) -> Tensor:
    return engine.model.net.get_parameter(name)  # type: ignore[attr-defined]


# --- where a change goes ------------------------------------------------------------------------------------------------


def test_names_of_the_checkpoint_and_of_the_stock_class_mean_the_same(tiny: Callable[[str], Path], save: Any) -> None:
    plain = ats.load(tiny("llada"), device="cpu")
    target = "model.layers.1.mlp.down_proj.weight"
    outputs, inputs = weight(plain, target).shape
    change = 2.0 * noise(outputs, 4, seed=1) @ noise(4, inputs)
    merged = []
    for name in ("model.transformer.blocks.1.ff_out", "model.layers.1.mlp.down_proj"):
        engine = ats.load(tiny("llada"), device="cpu", dtype="float32", adapter=save(pair(name, outputs, inputs)))
        torch.testing.assert_close(weight(engine, target), weight(plain, target).float() + change)
        merged.append(engine.logits(IDS))
        for other, parameter in engine.model.net.named_parameters():  # type: ignore[attr-defined]
            assert other == target or torch.equal(parameter, weight(plain, other).to(parameter.dtype))
    assert torch.equal(*merged)
    assert not torch.equal(merged[0], plain.logits(IDS))


def test_one_matrix_on_disk_that_is_three_here(tiny: Callable[[str], Path], save: Any) -> None:
    plain = ats.load(tiny("llada2"), device="cpu")
    names = [f"model.layers.0.self_attn.{x}_proj.weight" for x in "qkv"]
    before = torch.cat([weight(plain, name) for name in names]).float()
    folder = save(pair("model.layers.0.attention.query_key_value", *before.shape))
    engine = ats.load(tiny("llada2"), device="cpu", dtype="float32", adapter=folder)
    change = 2.0 * noise(len(before), 4, seed=1) @ noise(4, before.shape[1])
    torch.testing.assert_close(torch.cat([weight(engine, name) for name in names]), before + change)


@pytest.mark.parametrize("layout", ["llada-moe", "llada2"])
def test_one_expert_of_a_fused_tensor(tiny: Callable[[str], Path], save: Any, layout: str) -> None:
    plain = ats.load(tiny(layout), device="cpu")
    fused = weight(plain, "model.layers.1.mlp.experts.gate_up_proj").float()
    half, hidden = fused.shape[1] // 2, fused.shape[2]
    folder = save(pair("model.layers.1.mlp.experts.2.up_proj", half, hidden))
    engine = ats.load(tiny(layout), device="cpu", dtype="float32", adapter=folder)
    moved = weight(engine, "model.layers.1.mlp.experts.gate_up_proj") - fused
    torch.testing.assert_close(moved[2, half:], 2.0 * noise(half, 4, seed=1) @ noise(4, hidden), atol=1e-5, rtol=0)
    moved[2, half:] = 0
    assert not moved.any()


def test_scales(tiny: Callable[[str], Path], save: Any) -> None:
    name, target = "model.transformer.blocks.0.attn_out", "model.layers.0.self_attn.o_proj.weight"
    before = weight(ats.load(tiny("llada"), device="cpu"), target).float()
    size = before.shape[0]
    step = noise(size, 4, seed=1) @ noise(4, size)
    for scale, config in (
        (2.0, {}),
        (4.0, {"use_rslora": True}),
        (0.25, {"alpha_pattern": {"attn_out": 1}}),
        (2.0, {"alpha_pattern": {"out": 1}}),  # a pattern is whole parts of the name
        (1.0, {"alpha_pattern": {r"blocks\.0\.attn_out": 4, "attn_out": 1}}),
        (2.0, {"r": 64, "rank_pattern": {"attn_out": 4}}),
    ):
        engine = ats.load(tiny("llada"), device="cpu", dtype="float32", adapter=save(pair(name, size, size), **config))
        torch.testing.assert_close(weight(engine, target), before + scale * step)


def test_whole_tensors_replace_the_checkpoints(tiny: Callable[[str], Path], save: Any) -> None:
    plain = ats.load(tiny("llada"), device="cpu")
    new = noise(*weight(plain, "lm_head.weight").shape)
    for name in ("lm_head.weight", "model.transformer.ff_out.weight"):
        engine = ats.load(tiny("llada"), device="cpu", dtype="float32", adapter=save({f"base_model.model.{name}": new}))
        assert torch.equal(weight(engine, "lm_head.weight"), new)


def tied(tiny: Callable[[str], Path]) -> Path:
    folder = tiny("a2d-mdlm-tied")
    assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"]
    return folder


def test_what_is_shared_is_not_changed_twice(tiny: Callable[[str], Path], save: Any) -> None:
    folder = tied(tiny)
    plain = ats.load(folder, family="a2d-mdlm", device="cpu")
    words, width = weight(plain, "model.embed_tokens.weight").shape
    stem = "base_model.model.model.embed_tokens"
    tensors = {f"{stem}.lora_embedding_A": noise(4, words), f"{stem}.lora_embedding_B": noise(width, 4, seed=1)}
    with pytest.raises(CheckpointError, match="would change both"):
        ats.load(folder, family="a2d-mdlm", device="cpu", adapter=save(tensors))
    head = noise(words, width)
    engine = ats.load(folder, family="a2d-mdlm", device="cpu", adapter=save({"base_model.model.lm_head.weight": head}))
    torch.testing.assert_close(weight(engine, "lm_head.weight"), head.to(engine.model.dtype))  # type: ignore[attr-defined]
    assert torch.equal(weight(engine, "model.embed_tokens.weight"), weight(plain, "model.embed_tokens.weight"))
    with pytest.raises(CheckpointError, match="stores no weights for lm_head"):
        ats.load(folder, family="a2d-mdlm", device="cpu", adapter=save(pair("lm_head", words, width)))


def test_the_dtype_of_the_weights_stays(tiny: Callable[[str], Path], save: Any) -> None:
    engine = ats.load(
        tiny("llada"), device="cpu", dtype="bfloat16", adapter=save(pair("model.layers.0.self_attn.q_proj", 64, 64))
    )
    assert {p.dtype for p in engine.model.net.parameters()} == {torch.bfloat16}  # type: ignore[attr-defined]


# --- what is refused ----------------------------------------------------------------------------------------------------

PLAIN = pair("model.layers.0.self_attn.q_proj", 64, 64)


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"peft_type": "IA3"}, "peft_type='IA3'"),
        ({"use_dora": True}, r"use_dora=True .*DoRA"),
        ({"lora_bias": True}, "lora_bias"),
        ({"layer_replication": [[0, 1]]}, "layer_replication"),
        ({"target_parameters": ["experts.gate_up_proj"]}, "target_parameters"),
        ({"trainable_token_indices": [3]}, "trainable_token_indices"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa'"),
        ({"r": 5}, r"lora_A \[4, 64\] and lora_B \[64, 4\]; .* rank 5"),
        ({"lora_alpha": None}, "lora_alpha=None"),
        ({"lora_alpha": "8"}, "lora_alpha='8'"),
    ],
)
def test_configs(tiny: Callable[[str], Path], save: Any, config: dict[str, Any], match: str) -> None:
    with pytest.raises(CheckpointError, match=match):
        ats.load(tiny("llada"), device="cpu", adapter=save(PLAIN, **config))


@pytest.mark.parametrize(
    ("tensors", "match"),
    [
        ({}, "holds no adapter"),
        (dict(list(PLAIN.items())[:1]), "only one of"),
        (pair("model.layers.9.self_attn.q_proj", 64, 64), r"no weights for model\.layers\.9\.self_attn\.q_proj"),
        (pair("model.layers.0.self_attn.q_proj", 64, 32), r"\[64, 32\] of model\.layers\.0\.self_attn\.q_proj"),
        (PLAIN | {"base_model.model.model.x.lora_magnitude_vector": noise(4)}, "no part of a plain LoRA"),
        (PLAIN | {"base_model.model.score.weight": noise(4, 4)}, "no weights for score"),
        ({"base_model.model.lm_head.weight": noise(4, 4)}, "has shape"),
    ],
)
def test_tensors(tiny: Callable[[str], Path], save: Any, tensors: dict[str, Tensor], match: str) -> None:
    with pytest.raises(CheckpointError, match=match):
        ats.load(tiny("llada"), device="cpu", adapter=save(tensors))


def test_directories(tiny: Callable[[str], Path], tmp_path: Path, save: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"^adapter='/no/such'"):
        ats.load(tiny("llada"), device="cpu", adapter="/no/such")
    with pytest.raises(CheckpointError, match=r"no adapter: it has no adapter_config\.json"):
        ats.load(tiny("llada"), device="cpu", adapter=tiny("llada"))
    folder = save(PLAIN)
    whole = (folder / "adapter_model.safetensors").read_bytes()
    (folder / "adapter_model.safetensors").write_bytes(whole[:-10])
    with pytest.raises(CheckpointError, match="cannot be read"):
        ats.load(tiny("llada"), device="cpu", adapter=folder)
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no adapter_model\.safetensors"):
        ats.load(tiny("llada"), device="cpu", adapter=folder)


def test_the_command_takes_one(tiny: Callable[[str], Path], save: Any, monkeypatch: Any, capsys: Any) -> None:
    from attn_sampler.cli import main

    target = "model.transformer.blocks.0.q_proj"
    for words in (["generate", "--ids", "5 6 7", "--max-new-tokens", "4"], ["infill", "ab[[2]]"]):
        line = ["attn-sampler", *words, "-m", str(tiny("llada")), "--device", "cpu", "--adapter"]
        monkeypatch.setattr("sys.argv", [*line, str(save(pair(target, 64, 64)))])
        main_exit(main)
        assert "forwards" in capsys.readouterr().err
        monkeypatch.setattr("sys.argv", [*line, "/no/such"])
        assert main_exit(main) == 2
        assert "adapter" in capsys.readouterr().err


def main_exit(main: Callable[[], None]) -> int:
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


# --- against PEFT -------------------------------------------------------------------------------------------------------

CASES = {
    "plain": {"target_modules": ["q_proj", "v_proj", "down_proj"]},
    "all linear, rslora": {"target_modules": "all-linear", "use_rslora": True},
    "patterns": {
        "target_modules": ["q_proj", "o_proj"],
        "rank_pattern": {"o_proj": 2, r"layers\.0\.self_attn\.q_proj": 3},
        "alpha_pattern": {r"0\.self_attn\.o_proj": 32},
    },
    "with a whole head": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
}


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`:UserWarning")
@pytest.mark.parametrize("case", CASES)
def test_merged_as_by_peft(tiny: Callable[[str], Path], tmp_path: Path, case: str) -> None:
    peft = pytest.importorskip("peft")
    ours = ats.load(tiny("llada"), device="cpu", dtype="float32")
    net = ours.model.net  # type: ignore[attr-defined]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        wrapped = peft.get_peft_model(net, peft.LoraConfig(r=4, lora_alpha=12, **CASES[case]))
        for name, parameter in wrapped.named_parameters():
            if parameter.requires_grad:  # B starts at zero: an adapter that does nothing
                parameter.data = torch.randn_like(parameter) * 0.1 if "lora" in name else parameter.data * 1.5
    wrapped.save_pretrained(tmp_path / "peft")
    merged = wrapped.merge_and_unload()
    ids = torch.tensor(IDS)
    with torch.inference_mode():
        mask = torch.zeros(1, 1, ids.shape[1], ids.shape[1])
        wanted = merged(input_ids=ids, attention_mask=mask, is_causal=False).logits
    found = ats.load(tiny("llada"), device="cpu", dtype="float32", adapter=tmp_path / "peft").logits(ids)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    assert not torch.allclose(found, ats.load(tiny("llada"), device="cpu", dtype="float32").logits(ids), atol=1e-2)


def test_an_encoder_merged_as_by_peft(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    net = ats.load(tiny("bert"), device="cpu", dtype="float32").model.net  # type: ignore[attr-defined]
    wrapped = peft.get_peft_model(net, peft.LoraConfig(r=4, target_modules=["query", "dense"], bias="lora_only"))
    for i, (name, parameter) in enumerate(wrapped.named_parameters()):
        if parameter.requires_grad:
            parameter.data = parameter.data + 0.1 * noise(*parameter.shape, seed=i) if "lora" in name else parameter.data + 0.5
    wrapped.save_pretrained(tmp_path)
    with torch.inference_mode():
        wanted = wrapped.merge_and_unload()(input_ids=torch.tensor(IDS)).logits
    found = ats.load(tiny("bert"), device="cpu", dtype="float32", adapter=tmp_path).logits(IDS)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("module", ["layers.0.self_attn.q_proj", "q_proj", "layers.10.self_attn.q_proj", "layers.0.mlp.xq_proj"])
def test_patterns_mean_what_they_mean_to_peft(module: str) -> None:
    other = pytest.importorskip("peft.utils.other")
    patterns = {r"0\.self_attn\.q_proj": 1, "q_proj": 2, r".*\.mlp\..*": 3}
    wanted = patterns.get(other.get_pattern_key(patterns.keys(), module), 9)
    assert _of({"r": 9, "rank_pattern": patterns}, "r", "rank_pattern", module) == wanted


def test_the_saved_file_is_what_peft_reads(tiny: Callable[[str], Path], save: Any) -> None:
    """The names written by hand above are the ones that PEFT itself writes."""
    peft = pytest.importorskip("peft")
    engine = ats.load(tiny("llada"), device="cpu", dtype="float32")
    wrapped = peft.get_peft_model(engine.model.net, peft.LoraConfig(r=4, target_modules=["q_proj"]))  # type: ignore[attr-defined]
    folder = save({})
    wrapped.save_pretrained(folder)
    names = set(load_file(folder / "adapter_model.safetensors"))
    assert set(pair("model.layers.0.self_attn.q_proj", 64, 64)) <= names

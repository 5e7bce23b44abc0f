"""The checklist says what is wrong with a checkpoint, and does not say more than it can know."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from attn_sampler import CheckpointError, InvalidInputError, UnknownNameError
from attn_sampler.models import check as checking
from attn_sampler.models.adapter import TransformersModel
from attn_sampler.models.check import Point, check

Tiny = Callable[[str], Path]
NAMES = ["family", "config", "loads", "mask", "ends", "head", "rotary", "types", "finite", "attention", "causal", "probe"]


@pytest.fixture
def folder(tiny: Tiny, tmp_path: Path) -> Path:
    """A LLaDA that a test may spoil."""
    return Path(shutil.copytree(tiny("llada"), tmp_path / "model"))


def points(folder: Path, **arguments: Any) -> dict[str, Point]:
    found = check(folder, device="cpu", **arguments)
    assert [point.name for point in found] == NAMES, "always all of them, in this order"
    return {point.name: point for point in found}


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def is_only_failure(found: dict[str, Point], name: str, *says: str) -> None:
    assert [point.name for point in found.values() if point.outcome == "failed"] == [name]
    for text in says:
        assert text in found[name].says


def test_nothing_to_look_at(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(InvalidInputError, match="no such directory"):
        check(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="no config"):
        check(tmp_path)
    with pytest.raises(UnknownNameError, match="'llada'"):
        check(folder, family="lada")
    with pytest.raises(InvalidInputError, match="mask_id=999"):
        check(folder, mask_id=999, device="cpu")
    with pytest.raises(InvalidInputError, match="block_length"):
        check(folder, block_length=4, device="cpu")


def test_a_config_of_no_family(folder: Path) -> None:
    edit(folder / "config.json", model_type="gpt2")
    found = points(folder)
    is_only_failure(found, "family", "gpt2")
    assert {point.says for name, point in found.items() if name != "family"} == {"not reached"}


def test_a_config_that_differs(folder: Path) -> None:
    """The published keys are known; what another key does is not."""
    config = json.loads((folder / "config.json").read_text())
    del config["init_fn"]
    (folder / "config.json").write_text(json.dumps(config | {"rope_theta": 10000.0, "attention_sinks": 4}))
    found = points(folder)
    assert found["config"].outcome == "unchecked"
    for text in ("rope_theta=10000.0 (published: 500000.0)", "besides attention_sinks", "lacks init_fn"):
        assert text in found["config"].says
    assert found["rotary"].outcome == "passed", "the rotary table follows the checkpoint's own value"


def test_a_missing_tensor(folder: Path) -> None:
    shard = folder / "model-00001-of-00002.safetensors"
    tensors = load_file(shard)
    tensors.pop("model.transformer.blocks.0.q_proj.weight")
    save_file(tensors, shard)
    found = points(folder)
    is_only_failure(found, "loads", "missing", "model.layers.0.self_attn.q_proj.weight")
    assert found["mask"].says == "not reached"


def test_no_mask_is_named(golden: Path) -> None:
    found = points(golden / "models" / "llada2")
    is_only_failure(found, "mask", "mask_id")
    found = points(golden / "models" / "llada2", mask_id=283)
    assert "failed" not in {point.outcome for point in found.values()}
    assert "no tokenizer" in found["mask"].says
    assert "no tokenizer" in found["probe"].says


def test_the_mask_id_is_another_token(folder: Path) -> None:
    edit(folder / "config.json", mask_token_id=65)
    is_only_failure(points(folder), "mask", "mask id is 65", "'<|mdm_mask|>' is id 260")
    edit(folder / "config.json", mask_token_id=270)  # one of the rows behind the tokenizer's last token
    is_only_failure(points(folder), "mask", "no token 270")


def test_an_end_that_the_tokenizer_does_not_know(folder: Path) -> None:
    edit(folder / "config.json", eos_token_id=280)
    is_only_failure(points(folder), "ends", "no token 280")


def test_ends_are_named(folder: Path) -> None:
    assert points(folder)["ends"].says == "an answer ends at 257 ('<|endoftext|>'), 263 ('<|eot_id|>')"


@pytest.mark.parametrize(
    ("layout", "says"),
    [
        ("a2d-mdlm", "different from the embedding (config: tie_word_embeddings=True)"),
        ("a2d-mdlm-tied", "none stored; the embedding is the head (config: tie_word_embeddings=True)"),
        ("modernbert", "none stored; the embedding is the head"),
        ("sdar", "different from the embedding (config: tie_word_embeddings=False)"),
    ],
)
def test_where_the_head_comes_from(layout: str, says: str, tiny: Tiny) -> None:
    found = points(tiny(layout), family="a2d-mdlm" if layout.startswith("a2d") else None)
    assert found["head"].outcome == "passed"
    assert says in found["head"].says


def test_a_stored_head_that_equals_the_embedding(folder: Path) -> None:
    tensors = {name: x for shard in folder.glob("*.safetensors") for name, x in load_file(shard).items()}
    for shard in folder.glob("*.safetensors"):
        shard.unlink()
    (folder / "model.safetensors.index.json").unlink()
    tensors["model.transformer.ff_out.weight"] = tensors["model.transformer.wte.weight"].clone()
    save_file(tensors, folder / "model.safetensors")
    assert "equal to the embedding" in points(folder)["head"].says


def test_nan_weights(folder: Path) -> None:
    shard = folder / "model-00002-of-00002.safetensors"
    tensors = load_file(shard)
    tensors["model.transformer.ln_f.weight"][0] = float("nan")
    save_file(tensors, shard)
    found = points(folder)
    is_only_failure(found, "finite", "NaN")
    assert found["attention"].says == found["probe"].says == "not reached"


def spoil(monkeypatch: pytest.MonkeyPatch, change: Callable[[TransformersModel], Any]) -> None:
    """Every model that the checklist loads is changed before it is looked at."""

    def load(*args: Any, **kwargs: Any) -> Any:
        model, tok = load_model(*args, **kwargs)
        change(model)
        return model, tok

    load_model = checking.load_model
    monkeypatch.setattr(checking, "load_model", load)


def test_a_network_cast_after_loading(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    def cast(model: TransformersModel) -> None:
        model.net.to(torch.bfloat16)
        model.dtype = torch.bfloat16

    spoil(monkeypatch, cast)
    found = points(tiny("llada2"))
    assert {point.name for point in found.values() if point.outcome == "failed"} == {"rotary", "types"}
    assert "bfloat16" in found["rotary"].says
    assert "expert biases in bfloat16" in found["types"].says


def test_bfloat16_weights_pass(tiny: Tiny) -> None:
    for layout in ("llada2", "dream", "modernbert"):
        found = points(tiny(layout), dtype="bfloat16")
        assert "failed" not in {point.outcome for point in found.values()}
        assert found["types"].says.startswith("weights in bfloat16") or layout == "llada2"
        assert "float32" in found["rotary"].says


def test_a_wrong_rotary_base(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def turn(model: TransformersModel) -> None:
        net: Any = model.net
        net.model.rotary_emb.inv_freq[1:] *= 1.01

    spoil(monkeypatch, turn)
    is_only_failure(points(folder), "rotary", "wanted 1, 0.193923")


@pytest.mark.parametrize(("layout", "failing"), [("llada", {"attention", "causal"}), ("sdar", {"attention", "causal"})])
def test_a_causal_network(layout: str, failing: set[str], tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ``AutoModelForCausalLM`` of a stock class gives: no error, no warning, and half of the context unseen."""
    logits = TransformersModel.logits

    def causal(self: TransformersModel, ids: Tensor, valid: Tensor | None = None) -> Tensor:
        other = copy.copy(self)
        other.block_length = 1
        return logits(other, ids, valid)

    monkeypatch.setattr(TransformersModel, "logits", causal)
    found = points(tiny(layout))
    assert {point.name for point in found.values() if point.outcome == "failed"} == failing
    assert "by 0" in found["attention"].says


def test_a_block_causal_model_that_sees_later_blocks(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    logits = TransformersModel.logits

    def full(self: TransformersModel, ids: Tensor, valid: Tensor | None = None) -> Tensor:
        other = copy.copy(self)
        other.block_length = self.block_length if self.block_length == 1 else None
        return logits(other, ids, valid)

    monkeypatch.setattr(TransformersModel, "logits", full)
    is_only_failure(points(tiny("sdar")), "attention", "in a later block")


@pytest.mark.parametrize(("off", "outcome"), [(0, "passed"), (1, "failed"), (-1, "failed"), (5, "unchecked")])
@pytest.mark.parametrize("layout", ["llada", "modernbert"])  # with and without a chat format
def test_the_probe(layout: str, off: int, outcome: str, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that knows the capital of France, ``off`` rows from where it should say so."""
    folder = Path(shutil.copytree(tiny(layout), tmp_path / "model"))
    tok = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tok.add_tokens([" Paris"])
    tok.save(str(folder / "tokenizer.json"))
    paris = tok.token_to_id(" Paris")
    logits = TransformersModel.logits

    def knows(self: TransformersModel, ids: Tensor, valid: Tensor | None = None) -> Tensor:
        found = logits(self, ids, valid).clone()
        if int((ids == self.mask_id).sum()) == 1:
            place = (int((ids[0] == self.mask_id).nonzero()) + off) % ids.shape[1]
            found[:, place, paris] = 50.0 if self.block_length is None else 5.0
        return found

    monkeypatch.setattr(TransformersModel, "logits", knows)
    point = points(folder)["probe"]
    assert point.outcome == outcome
    assert "probability of 'Paris' " in point.says
    if off == 0:
        assert "1 at the masked row" in point.says

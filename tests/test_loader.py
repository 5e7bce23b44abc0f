"""Checkpoints: the real layout loads shard by shard into the stock class, and everything wrong with one is said by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers

import attn_sampler as ats
from attn_sampler import CheckpointError, InvalidInputError, SamplingParams

INDEX = "model.safetensors.index.json"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
PARAMS = SamplingParams(sampler="confidence", max_new_tokens=4, ignore_eos=True)


@pytest.fixture
def folder(golden: Path, tmp_path: Path) -> Path:
    """A copy of a checkpoint that a test may spoil."""
    return Path(shutil.copytree(golden / "models" / "llada_gqa", tmp_path / "model"))


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def retensor(path: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    content = load_file(path)
    change(content)
    save_file(content, path)


def add_tokenizer(folder: Path, special: list[str]) -> None:
    """A word-level tokenizer as the ``tokenizers`` library writes it, with a chat template beside it."""
    words = {f"w{i}": i for i in range(200)} | {"[unk]": 200}
    tok = Tokenizer(models.WordLevel(words, unk_token="[unk]"))
    tok.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tok.add_special_tokens(special)
    tok.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": special[0], "model_max_length": 4}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}w1 {{ m['content'] }} {% endfor %}{% if add_generation_prompt %}w2{% endif %}"
    )


# --- what loads -------------------------------------------------------------------------------------------------------


def test_facts_come_from_the_checkpoint(folder: Path) -> None:
    engine = ats.load(folder, device="cpu")
    model = engine.model
    assert (model.mask_id, model.eos_ids, model.pad_id) == (283, (270,), 270)
    assert (model.vocab_size, model.context_length, model.num_layers, model.num_heads) == (288, 512, 3, 4)
    assert engine.tokenizer is None


def test_the_path_may_be_text_or_a_path(folder: Path) -> None:
    (one,), (two,) = (ats.load(source, device="cpu").generate([[1]], PARAMS) for source in (folder, str(folder)))
    assert one.token_ids == two.token_ids


def test_one_file_without_an_index_is_the_same_checkpoint(folder: Path, llada_gqa: ats.Engine) -> None:
    tensors = {name: x for shard in SHARDS for name, x in load_file(folder / shard).items()}
    for name in (*SHARDS, INDEX):
        (folder / name).unlink()
    save_file(tensors, folder / "model.safetensors")
    ids = [[1, 283, 5]]
    assert torch.equal(ats.load(folder, device="cpu").logits(ids), llada_gqa.logits(ids))


@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16", torch.bfloat16])
def test_rotary_tables_stay_float32(dtype: Any, folder: Path, llada_gqa: ats.Engine) -> None:
    engine = ats.load(folder, dtype=dtype, device="cpu")
    net: Any = engine.model.net  # type: ignore[attr-defined]
    want = torch.float32 if dtype in ("auto", "float32") else torch.bfloat16
    assert {p.dtype for p in net.parameters()} == {want}
    assert not any(p.requires_grad for p in net.parameters())
    assert not any(x.is_meta for x in [*net.parameters(), *net.buffers()])
    inv_freq = net.model.rotary_emb.inv_freq
    assert inv_freq.dtype == torch.float32
    assert torch.equal(inv_freq, llada_gqa.model.net.model.rotary_emb.inv_freq)  # type: ignore[attr-defined]
    exact = 500000.0 ** (-torch.arange(0, 16, 2) / 16)
    torch.testing.assert_close(inv_freq, exact)
    # Far from the start a rounded table turns queries and keys by wrong angles: measured 0.86, and 0.34 as it is.
    ids = [[i % 280 for i in range(300)]]
    assert (engine.logits(ids).float() - llada_gqa.logits(ids)).abs().mean() < 0.5


def test_auto_is_what_the_weights_are_stored_in(folder: Path) -> None:
    for shard in SHARDS:
        retensor(folder / shard, lambda tensors: tensors.update({k: x.bfloat16() for k, x in tensors.items()}))
    engine = ats.load(folder, device="cpu")
    assert engine.model.dtype == torch.bfloat16  # type: ignore[attr-defined]
    assert len(engine.generate([[1, 2]], PARAMS)[0].token_ids) == 4
    assert ats.load(folder, dtype="float32", device="cpu").model.dtype == torch.float32  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "place", [{"device": "cpu"}, {"device": torch.device("cpu")}, {"device_map": {"": "cpu"}}, {"device_map": "cpu"}]
)
def test_placement(place: dict[str, Any], folder: Path) -> None:
    assert ats.load(folder, **place).model.device == torch.device("cpu")


@pytest.mark.parametrize("model", ["llada_gqa", "llada_moe"])
def test_placed_by_accelerate(model: str, golden: Path) -> None:
    pytest.importorskip("accelerate", reason="the extra device-map is not installed")
    path, ids = golden / "models" / model, [[5, 6, 7, 283]]
    placed = ats.load(path, device_map="auto", mask_id=283)
    assert torch.equal(placed.logits(ids).cpu(), ats.load(path, device="cpu", mask_id=283).logits(ids))


def test_overrides(folder: Path) -> None:
    model = ats.load(folder, device="cpu", mask_id=5, eos_ids=[7, 9]).model
    assert (model.mask_id, model.eos_ids) == (5, (7, 9))
    assert ats.load(folder, device="cpu", eos_ids=[]).model.eos_ids == ()


def test_all_ids_that_end_an_answer(folder: Path) -> None:
    """Config, generation config, tokenizer, and the end-of-turn string; each once, in this order."""
    edit(folder / "generation_config.json", lambda c: c.update(eos_token_id=[270, 11]))
    assert ats.load(folder, device="cpu").model.eos_ids == (270, 11)
    add_tokenizer(folder, ["<end>", "<|eot_id|>"])
    assert ats.load(folder, device="cpu").model.eos_ids == (270, 11, 201, 202)
    (folder / "generation_config.json").unlink()
    edit(folder / "config.json", lambda c: c.pop("eos_token_id"))
    assert ats.load(folder, device="cpu").model.eos_ids == (201, 202)


def test_without_a_tokenizer_it_takes_ids(llada_gqa: ats.Engine) -> None:
    (result,) = llada_gqa.generate([[1, 2]], PARAMS)
    assert result.text == ""
    assert len(result.token_ids) == 4
    with pytest.raises(InvalidInputError, match="no tokenizer"):
        llada_gqa.generate(["text"], PARAMS)


def test_a_tokenizer_with_a_chat_template(folder: Path) -> None:
    add_tokenizer(folder, ["<end>"])
    engine = ats.load(folder, device="cpu")
    steps = list(engine.stream("w7 w8 w9", PARAMS))
    assert steps[0].ids[: steps[0].start] == [1, 7, 8, 9, 2], (
        "more than model_max_length, and no warning: the engine checks lengths"
    )
    assert next(iter(engine.stream("w7", PARAMS, chat=False))).start == 1
    assert steps[-1].result is not None
    assert steps[-1].result.text == engine.tokenizer.decode(steps[-1].result.token_ids, skip_special_tokens=True)  # type: ignore[union-attr]


def test_the_mask_may_come_from_the_tokenizer(folder: Path) -> None:
    edit(folder / "config.json", lambda c: c.pop("mask_token_id"))
    with pytest.raises(InvalidInputError, match=r"load\(\.\.\., mask_id=\)"):
        ats.load(folder, device="cpu")
    add_tokenizer(folder, ["<end>", "<m>"])
    edit(folder / "tokenizer_config.json", lambda c: c.update(mask_token="<m>"))
    assert ats.load(folder, device="cpu").model.mask_id == 202


# --- what does not ----------------------------------------------------------------------------------------------------


def refused(folder: Any, *says: str, error: type[Exception] = CheckpointError, **arguments: Any) -> None:
    with pytest.raises(error) as caught:
        ats.load(folder, **({"device": "cpu"} | arguments))
    for text in says:
        assert text in str(caught.value)


def test_not_a_directory(folder: Path, tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "no such directory", error=InvalidInputError)
    refused("./nowhere/at/all", "no such directory", error=InvalidInputError)
    refused(folder / "config.json", "give the directory")


def test_no_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    refused(folder, "no checkpoint", "config.json")


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", INDEX])
@pytest.mark.parametrize("content", [b"{", b"", b"[]", b"\xff\xfe"])
def test_broken_json(name: str, content: bytes, folder: Path) -> None:
    (folder / name).write_bytes(content)
    refused(folder, name)


@pytest.mark.parametrize("kind", ["llama", "llada_moe", None])
def test_another_family(kind: str | None, folder: Path) -> None:
    edit(folder / "config.json", lambda c: c.update(model_type=kind))
    refused(folder, repr(kind), "Families: llada, ")


def test_the_other_model_that_calls_itself_llada(folder: Path) -> None:
    edit(folder / "config.json", lambda c: c.pop("d_model"))
    refused(folder, "not supported")


@pytest.mark.parametrize(
    ("key", "value"), [("alibi", True), ("activation_type", "gelu"), ("include_bias", True), ("weight_tying", True)]
)
def test_a_variant_that_is_not_supported(key: str, value: Any, folder: Path) -> None:
    edit(folder / "config.json", lambda c: c.update({key: value}))
    refused(folder, key, repr(value))


def test_a_config_that_lacks_sizes(folder: Path) -> None:
    edit(folder / "config.json", lambda c: (c.pop("n_heads"), c.pop("vocab_size")))
    refused(folder, "n_heads", "vocab_size")


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, -1])
def test_a_truncated_shard(keep: float, folder: Path) -> None:
    data = (folder / SHARDS[1]).read_bytes()
    (folder / SHARDS[1]).write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])
    refused(folder, SHARDS[1], "truncated")


def test_a_missing_shard(folder: Path) -> None:
    (folder / SHARDS[0]).unlink()
    refused(folder, SHARDS[0], "index names")


def test_no_weights(folder: Path) -> None:
    for name in (*SHARDS, INDEX):
        (folder / name).unlink()
    refused(folder, "no model.safetensors")


@pytest.mark.parametrize("weight_map", [None, {}, []])
def test_an_empty_index(weight_map: Any, folder: Path) -> None:
    edit(folder / INDEX, lambda c: c.update(weight_map=weight_map))
    refused(folder, INDEX, "weight_map")


def test_missing_tensors_are_listed(folder: Path) -> None:
    def drop(tensors: dict[str, torch.Tensor]) -> None:
        for name in [n for n in tensors if ".q_proj." in n or "ln_f" in n]:
            del tensors[name]

    for shard in SHARDS:
        retensor(folder / shard, drop)
    refused(folder, "missing", "model.norm.weight", *(f"model.layers.{i}.self_attn.q_proj.weight" for i in range(3)))


def test_unexpected_tensors_are_listed(folder: Path) -> None:
    extra = {
        "model.transformer.blocks.0.q_proj.bias": torch.zeros(2),
        "model.transformer.blocks.9.q_proj.weight": torch.zeros(2, 2),
    }
    retensor(folder / SHARDS[0], lambda tensors: tensors.update(extra))
    refused(folder, "unexpected", *extra)


def test_a_wrong_shape(folder: Path) -> None:
    name = "model.transformer.ff_out.weight"
    shard = next(s for s in SHARDS if name in load_file(folder / s))
    retensor(folder / shard, lambda tensors: tensors.update({name: torch.zeros(5, 64)}))
    refused(folder, name, "[5, 64]", "[288, 64]")


def test_a_broken_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    refused(folder, "tokenizer.json")


@pytest.mark.parametrize(
    ("arguments", "field", "says"),
    [
        ({"dtype": "int8"}, "dtype", "bfloat16"),
        ({"dtype": torch.int32}, "dtype", "bfloat16"),
        ({"dtype": None}, "dtype", "bfloat16"),
        ({"device": "nonsense"}, "device", "not available"),
        ({"device": "cuda:99"}, "device", "not available"),
        ({"device": "cpu", "device_map": "cpu"}, "device_map", "not both"),
        ({"device": None, "device_map": {"model": "cpu"}}, "device_map", "lm_head"),
        ({"device": None, "device_map": {}}, "device_map", "no device for"),
        ({"mask_id": 288}, "mask_id", "from 0 to 287"),
        ({"mask_id": -1}, "mask_id", "from 0 to 287"),
        ({"mask_id": True}, "mask_id", "from 0 to 287"),
        ({"mask_id": "m"}, "mask_id", "from 0 to 287"),
        ({"eos_ids": [270, 288]}, "eos_ids", "from 0 to 287"),
        ({"eos_ids": ["<end>"]}, "eos_ids", "from 0 to 287"),
        ({"eos_ids": [283]}, "eos_ids", "is the mask id"),
        ({"max_rows": 0}, "max_rows", "at least 1"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else None,
)
def test_wrong_arguments(arguments: dict[str, Any], field: str, says: str, golden: Path) -> None:
    with pytest.raises(InvalidInputError) as caught:
        ats.load(golden / "models" / "llada_gqa", **({"device": "cpu"} | arguments))
    assert caught.value.field == field
    assert says in caught.value.remedy


@pytest.mark.parametrize(
    "arguments",
    [
        {"eos_ids": 270},
        {"dtype": ["float32"]},
        {"device": None, "device_map": {"": "nonsense"}},
        {"device": None, "device_map": 3},
        {"device": "meta"},
        {"revision": "main"},  # of a directory there are no revisions: no argument is ignored
    ],
    ids=str,
)
def test_arguments_of_a_wrong_kind(arguments: dict[str, Any], golden: Path) -> None:
    with pytest.raises(InvalidInputError):
        ats.load(golden / "models" / "llada_gqa", **({"device": "cpu"} | arguments))


@pytest.mark.parametrize(("key", "value"), [("d_model", "64"), ("n_heads", 5), ("n_heads", 0)])
def test_a_config_with_impossible_sizes(key: str, value: Any, folder: Path) -> None:
    edit(folder / "config.json", lambda c: c.update({key: value}))
    refused(folder, key)


def test_a_mask_id_in_the_config_that_is_no_id(folder: Path) -> None:
    edit(folder / "config.json", lambda c: c.update(mask_token_id="x"))
    refused(folder, "mask_id='x'", "from 0 to 287", error=InvalidInputError)


def test_a_hub_id_while_offline() -> None:
    refused("nobody/no-such-model", "nobody/no-such-model", "neither a local directory nor")
    refused("not a hub id", "no such directory", error=InvalidInputError)
    refused("a/b/c", "no such directory", error=InvalidInputError)

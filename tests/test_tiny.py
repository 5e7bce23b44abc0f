"""Tiny checkpoints: the real layout, loading without a remark, and working all the way to text."""

from __future__ import annotations

import filecmp
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

import attn_sampler as ats
from attn_sampler import CheckpointError, InvalidInputError, SamplingParams, UnknownNameError
from attn_sampler.models import FAMILIES
from attn_sampler.models.check import check
from attn_sampler.models.tiny import LAYOUTS, write
from test_cli import run

Tiny = Callable[[str], Path]
NAMES = list(LAYOUTS)
PROMPT = "Tom has 3 apples and 4 pears"  # 28 bytes, so that four more end a block
INDEX = "model.safetensors.index.json"
SAME = {
    "llada_gqa": "llada", "llada_mha": "llada", "dream": "dream", "fast_dllm_v2": "fast-dllm-v2", "llada_moe": "llada-moe",
    "llada2": "llada2", "sdar": "sdar", "a2d_qwen3_untied": "a2d-mdlm", "a2d_qwen3_tied": "a2d-mdlm-tied",
    "a2d_qwen2": "a2d-mdlm-qwen2",
}  # fmt: skip


LOADED: dict[str, ats.Engine] = {}


def engine(layout: str, tiny: Tiny) -> ats.Engine:
    if layout not in LOADED:
        LOADED[layout] = ats.load(tiny(layout), device="cpu", family=LAYOUTS[layout].family)
    return LOADED[layout]


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


# --- what is written --------------------------------------------------------------------------------------------------


def test_every_family_has_a_layout() -> None:
    assert {layout.family for layout in LAYOUTS.values()} == set(FAMILIES)
    assert set(FAMILIES) <= set(LAYOUTS)


@pytest.mark.parametrize(("golden_name", "layout"), SAME.items())
def test_the_layout_is_that_of_the_golden_checkpoints(golden_name: str, layout: str, golden: Path, tiny: Tiny) -> None:
    """They have the key and tensor names of the authors' own code."""
    theirs, ours = golden / "models" / golden_name, tiny(layout)
    for name in ("config.json", "generation_config.json"):
        assert set(read(theirs / name)) == set(read(ours / name))
    assert set(read(theirs / INDEX)["weight_map"]) == set(read(ours / INDEX)["weight_map"])


@pytest.mark.parametrize("layout", NAMES)
def test_two_shards_and_their_index(layout: str, tiny: Tiny) -> None:
    index = read(tiny(layout) / INDEX)
    found, total = {}, 0
    for file in sorted(set(index["weight_map"].values())):
        with safe_open(tiny(layout) / file, framework="pt") as shard:
            for name in shard.keys():  # noqa: SIM118
                tensor = shard.get_tensor(name)
                assert tensor.dtype == torch.float32 or name.endswith("position_ids")
                found[name], total = file, total + tensor.nbytes
    assert found == index["weight_map"]
    assert total == index["metadata"]["total_size"]
    assert len(set(found.values())) == 2


def test_the_seed_decides(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write("llada2", tmp_path / name, seed=seed)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    same, other, errors = filecmp.cmpfiles(tmp_path / "a", tmp_path / "b", files, shallow=False)
    assert (same, other, errors) == (files, [], [])
    _, other, _ = filecmp.cmpfiles(tmp_path / "a", tmp_path / "c", files, shallow=False)
    assert other == [name for name in files if name.endswith(".safetensors")]


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'llada'"):
        write("lada", tmp_path / "a")
    for seed in (-1, 1.5, True):
        with pytest.raises(InvalidInputError, match="seed="):
            write("llada", tmp_path / "a", seed=seed)  # type: ignore[arg-type]
    assert not (tmp_path / "a").exists(), "nothing is made before the arguments are checked"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes").write_text("mine")
    for folder in (tmp_path / "full", tmp_path / "full" / "notes"):
        with pytest.raises(InvalidInputError, match="no empty directory"):
            write("llada", folder)
    with pytest.raises(InvalidInputError, match="cannot be made"):
        write("llada", tmp_path / "full" / "notes" / "deeper")
    assert (tmp_path / "full" / "notes").read_text() == "mine"


# --- what can be done with it -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", NAMES)
def test_it_loads_and_writes(layout: str, tiny: Tiny) -> None:
    """Loading raises where a tensor is missing, unexpected or of a wrong shape."""
    one = engine(layout, tiny)
    assert one.model.mask_id == one.tokenizer.convert_tokens_to_ids(LAYOUTS[layout].mask)  # type: ignore[union-attr]
    for sampler in ("attention", "confidence"):
        (result,) = one.generate([PROMPT], SamplingParams(sampler=sampler, max_new_tokens=4, ignore_eos=True), chat=False)
        assert len(result.token_ids) == 4
        assert one.model.mask_id not in result.token_ids


@pytest.mark.parametrize("layout", NAMES)
def test_confidences_spread(layout: str, tiny: Tiny) -> None:
    """Otherwise every order would do, and no test of a sampler would say anything."""
    model = engine(layout, tiny).model
    ids = torch.arange(4 * 40).view(4, 40) * 7 % 256
    masked = torch.zeros_like(ids, dtype=torch.bool)
    masked[:, 1::2] = True
    chances = model.logits(ids.masked_fill(masked, model.mask_id), None).softmax(-1)
    chances[..., model.mask_id] = 0
    low, high = chances.amax(-1)[masked].quantile(torch.tensor([0.1, 0.9])).tolist()
    assert low < 0.5
    assert high > 0.5
    assert chances.argmax(-1)[masked].unique().numel() > 5


@pytest.mark.parametrize("layout", NAMES)
def test_it_passes_the_checklist(layout: str, tiny: Tiny) -> None:
    points = {point.name: point for point in check(tiny(layout), family=LAYOUTS[layout].family, device="cpu")}
    assert not [point for point in points.values() if point.outcome == "failed"]
    learnt = layout in ("bert", "roberta", "distilbert")  # positions are learnt, not turned
    assert {name for name, point in points.items() if point.outcome == "unchecked"} == {"probe"} | (
        {"rotary"} if learnt else set()
    )
    assert "do not know it" in points["probe"].says


@pytest.mark.parametrize("layout", [n for n in NAMES if LAYOUTS[n].family in ("a2d-mdlm", "a2d-bd3lm", "open-dcoder")])
def test_what_does_not_tell_its_family(layout: str, tiny: Tiny) -> None:
    with pytest.raises(CheckpointError, match="does not tell its family"):
        ats.load(tiny(layout), device="cpu")


# --- the tokenizer ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", NAMES)
def test_text_goes_there_and_back(layout: str, tiny: Tiny) -> None:
    tok: Any = engine(layout, tiny).tokenizer
    text = "Tom has 3 apples.\n  Ça va? 你好" if not LAYOUTS[layout].words.pieces else "tom has 3 apples ."
    ids = tok.encode(text, add_special_tokens=False)
    back = tok.decode(ids, clean_up_tokenization_spaces=False)
    assert back == text or (LAYOUTS[layout].words.pieces and back.replace(" ", "") == text.replace(" ", ""))
    for token in (*LAYOUTS[layout].words.before, *LAYOUTS[layout].words.after):
        assert tok.encode(token, add_special_tokens=False) == [LAYOUTS[layout].words[token]]
        assert tok.decode([LAYOUTS[layout].words[token]]) == token
        assert tok.decode([LAYOUTS[layout].words[token]], skip_special_tokens=True) in ("", token)
    assert tok.decode([tok.convert_tokens_to_ids(LAYOUTS[layout].mask)], skip_special_tokens=True) == ""


CHATML = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
ROLES = "<role>SYSTEM</role>detailed thinking off<|role_end|><role>HUMAN</role>Hi<|role_end|><role>ASSISTANT</role>"
QWEN = "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
CHATS = {
    "llada": "<|startoftext|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "dream": "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n" + CHATML,
    "fast-dllm-v2": QWEN + CHATML,
    "llada-moe": ROLES,
    "llada2": ROLES,
    "sdar": CHATML,
    "a2d-mdlm": CHATML + "<think>\n\n</think>\n\n",  # its authors switch thinking off
    "a2d-bd3lm-qwen2": QWEN + CHATML,
    "modernbert-chat": "[Question]\nHi\n[/Question]\n\n[Answer]\n",
}


@pytest.mark.parametrize(("layout", "text"), CHATS.items())
def test_chat_formats(layout: str, text: str, tiny: Tiny) -> None:
    one = engine(layout, tiny)
    row = one.prepare("Hi", SamplingParams(max_new_tokens=1))
    assert row.ids[: row.start] == one.tokenizer.encode(text, add_special_tokens=False)  # type: ignore[union-attr]
    assert one.tokenizer.decode(row.ids[: row.start]) == text  # type: ignore[union-attr]


def test_a_system_text_replaces_the_default(tiny: Tiny) -> None:
    messages = [{"role": "system", "content": "Rhyme."}, {"role": "user", "content": "Hi"}]
    for layout, text in {
        "dream": "<|im_start|>system\nRhyme.<|im_end|>\n" + CHATML,
        "llada2": ROLES.replace("detailed", "Rhyme.\ndetailed"),
        "llada-moe": ROLES.replace("detailed", "Rhyme.detailed"),
        "modernbert-chat": "[SYS]\nRhyme.\n[/SYS]\n\n[Question]\nHi\n[/Question]\n\n[Answer]\n",
    }.items():
        tok: Any = engine(layout, tiny).tokenizer
        assert tok.apply_chat_template(messages, add_generation_prompt=True, tokenize=False) == text


def test_vocab_and_merges_give_the_ids_of_tokenizer_json(tiny: Tiny) -> None:
    """Dream has no tokenizer.json: its own class reads vocab.json and merges.txt, and so does the stock Qwen2 one."""
    from attn_sampler.models.tiny import _tokenizer

    assert {path.name for path in tiny("dream").iterdir()} >= {"vocab.json", "merges.txt"}
    assert not (tiny("dream") / "tokenizer.json").exists()
    slow: Any = engine("dream", tiny).tokenizer
    fast = PreTrainedTokenizerFast(tokenizer_object=_tokenizer(LAYOUTS["dream"].words))
    for text in ("Hello, world", "  two\n\nlines ", "<|im_start|>user\nHi<|im_end|>\n<|mask|>", "naïve 日本"):
        assert slow.encode(text) == fast.encode(text)


def test_older_encoders_have_other_files(tiny: Tiny, tmp_path: Path) -> None:
    """RoBERTa as vocab.json and merges.txt (read as Qwen2's it would lose its frame and its mask), BERT as vocab.txt."""
    for layout in ("roberta", "bert"):
        fast: Any = engine(layout, tiny).tokenizer
        folder = Path(shutil.copytree(tiny(layout), tmp_path / layout))
        rust = Tokenizer.from_file(str(folder / "tokenizer.json"))
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (folder / name).unlink()
        vocabulary = rust.get_vocab()
        if layout == "roberta":
            rust.model.save(str(folder))
            (folder / "vocab.json").write_text(json.dumps(vocabulary))
        else:
            (folder / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.get)))  # type: ignore[arg-type]
        one = ats.load(folder, device="cpu")
        assert one.model.mask_id == engine(layout, tiny).model.mask_id
        assert one.model.eos_ids == engine(layout, tiny).model.eos_ids
        for text in ("Tom's 123 apples", "a<mask>b", "a [MASK] b"):
            assert one.tokenizer.encode(text) == fast.encode(text)  # type: ignore[union-attr]


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "models", "tiny", "--list") == 0
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()] == NAMES
    assert run(monkeypatch, "models", "tiny", "a2d-mdlm-qwen2", str(tmp_path / "x"), "--seed", "1") == 0
    assert "family='a2d-mdlm'" in capsys.readouterr().err
    for words, says in (
        (("tiny", "llada", str(tmp_path / "x")), "no empty directory"),
        (("tiny", "lada", str(tmp_path / "y")), "did you mean 'llada'"),
        (("tiny", "llada"), "--list"),
        (("tiny",), "--list"),
        (("--json", "tiny", "--list"), "models tiny --json"),
    ):
        assert run(monkeypatch, "models", *words) == 2
        assert says in capsys.readouterr().err


def test_the_command_checks(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "models", "check", str(tiny("llada"))) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith(("passed", "unchecked")) for line in lines)
    assert run(monkeypatch, "models", "check", str(tiny("a2d-mdlm"))) == 1  # which of two it is, only the caller knows
    assert "family='a2d-bd3lm'" in capsys.readouterr().out
    assert run(monkeypatch, "models", "check", str(tiny("a2d-mdlm")), "--family", "a2d-bd3lm", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"name": "attention", "outcome": "passed"}.items() <= next(r for r in rows if r["name"] == "attention").items()
    assert run(monkeypatch, "models", "check", "./no-such-directory") == 2
    assert run(monkeypatch, "models", "check", str(tiny("llada")), "--family", "lada") == 2
    broken = Path(shutil.copytree(tiny("llada"), tmp_path / "broken"))
    (broken / "model-00002-of-00002.safetensors").unlink()
    assert run(monkeypatch, "models", "check", str(broken)) == 1
    assert "failed     loads" in capsys.readouterr().out


def test_generate_takes_the_family(tiny: Tiny, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("generate", "Hi", "-m", str(tiny("a2d-mdlm")), "--max-new-tokens", "2")
    assert run(monkeypatch, *words) == 1
    assert "family='a2d-mdlm'" in capsys.readouterr().err
    assert run(monkeypatch, *words, "--family", "a2d-mdlm") == 0
    assert "2 tokens" in capsys.readouterr().err
    infill = ("infill", "a[[1]]b", "-m", str(tiny("a2d-mdlm")), "--family", "a2d-mdlm")
    assert run(monkeypatch, *infill) == 0

"""The examples on made-up weights: what they convert is what the stock class has, and what they print is counted right."""

from __future__ import annotations

import importlib.util
import json
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

import attn_sampler as ats

EXAMPLES = Path(__file__).parents[1] / "examples"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"ACDEFGHIKLMNPQRSTVWY"]


@pytest.fixture(scope="module")
def antiberty() -> ModuleType:
    spec = importlib.util.spec_from_file_location("example_antiberty", EXAMPLES / "antiberty.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def network() -> BertForMaskedLM:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = BertForMaskedLM(
            BertConfig(
                vocab_size=len(WORDS), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                max_position_embeddings=160, initializer_range=0.3,
            )
        )  # fmt: skip
    return net.eval()


def state_of(net: BertForMaskedLM) -> dict[str, torch.Tensor]:
    """Named and equipped as in the package: heads of its own, an old buffer, tied tensors stored twice."""
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    state["bert.embeddings.position_ids"] = torch.arange(160)[None]
    for name, size in (("bert.pooler.dense", 32), ("cls.species", 6), ("cls.chain", 2), ("cls.graft", 2)):
        state |= {f"{name}.weight": torch.ones(size, 32), f"{name}.bias": torch.ones(size)}
    return state


@pytest.fixture(scope="module")
def made(antiberty: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[BertForMaskedLM, Path]:
    """A network, and the checkpoint that the example made of a wheel which holds it."""
    folder, net = tmp_path_factory.mktemp("antiberty"), network()
    torch.save(state_of(net), folder / "weights.bin")
    config = {k: v for k, v in net.config.to_dict().items() if v is not None} | {
        "_name_or_path": "/home/someone",
        "architectures": ["X"],
    }
    with zipfile.ZipFile(folder / "fake.whl", "w") as wheel:
        wheel.writestr(antiberty.WEIGHTS + "config.json", json.dumps(config))
        wheel.write(folder / "weights.bin", antiberty.WEIGHTS + "pytorch_model.bin")
        wheel.writestr(antiberty.VOCAB, "\n".join(WORDS))
    antiberty.convert(folder / "fake.whl", folder / "out")
    return net, folder / "out"


def test_the_converted_checkpoint_is_the_network(made: tuple[BertForMaskedLM, Path]) -> None:
    net, folder = made
    ids = torch.tensor([[2, 7, 4, 9, 4, 3]])
    with torch.inference_mode():
        wanted = net(input_ids=ids).logits
        assert torch.equal(BertForMaskedLM.from_pretrained(folder)(input_ids=ids).logits, wanted)
    engine = ats.load(folder, device="cpu")
    torch.testing.assert_close(engine.logits(ids), wanted, atol=1e-5, rtol=0)
    assert (engine.model.mask_id, engine.model.eos_ids) == (4, (3,))
    assert "someone" not in (folder / "config.json").read_text()


def test_a_letter_is_a_token(made: tuple[BertForMaskedLM, Path]) -> None:
    tok: Any = ats.load(made[1], device="cpu").tokenizer
    assert tok.encode("[CLS]ACY[SEP]", add_special_tokens=False) == [2, 5, 6, 24, 3]
    assert tok.decode([2, 5, 6, 24, 3], skip_special_tokens=True) == "ACY"


def test_a_head_of_its_own_is_not_lost_in_silence(antiberty: ModuleType) -> None:
    state = state_of(network())
    state["cls.predictions.decoder.weight"] += 1
    with pytest.raises(ValueError, match=r"decoder\.weight is not bert\.embeddings"):
        antiberty.masked_lm(state)


def test_the_chains_are_cut_at_the_loops(antiberty: ModuleType) -> None:
    for chain in antiberty.ANTIBODIES.values():
        parts = chain.split()
        assert len(parts) == 7
        assert set("".join(parts)) <= set(WORDS)
        assert parts[0][21] == "C"  # the disulphide, and the tryptophans around the loops
        assert parts[2].startswith("W")
        assert "C" in parts[4][-3:]
        assert parts[6].startswith("WG")


def test_residues_are_counted(antiberty: ModuleType, made: tuple[BertForMaskedLM, Path]) -> None:
    engine = ats.load(made[1], device="cpu")
    one, many = (antiberty.fill(engine, (1, 5), "confidence", {"k": k}) for k in (128, 1))
    for filled, chain in zip(one, antiberty.ANTIBODIES.values(), strict=True):
        parts = chain.split()
        ids = engine.tokenizer.encode(
            "[CLS]" + "".join("[MASK]" * len(p) if i in (1, 5) else p for i, p in enumerate(parts)) + "[SEP]",
            add_special_tokens=False,
        )  # type: ignore[union-attr]
        logits = engine.logits(ids)[0].clone()
        logits[:, [3, 4]] = -torch.inf  # neither the end nor the mask is ever proposed
        guesses = [WORDS[int(logits[i].argmax())] for i, token in enumerate(ids) if token == 4]
        assert filled.text == "".join(g if len(g) == 1 else "?" for g in guesses)
        assert filled.truth == parts[1] + parts[5]
        assert filled.recovered == sum(a == b for a, b in zip(filled.text, filled.truth, strict=True))
        assert filled.forwards == 1
    assert [filled.forwards for filled in many] == [len(filled.truth) for filled in many]


def test_every_residue_is_held_out_once(antiberty: ModuleType, made: tuple[BertForMaskedLM, Path]) -> None:
    outcomes = list(antiberty.held_out(ats.load(made[1], device="cpu")))
    assert len(outcomes) == sum(len(chain.replace(" ", "")) for chain in antiberty.ANTIBODIES.values())
    assert sum(kind == "loop" for kind, _ in outcomes) == sum(
        len("".join(c.split()[1::2])) for c in antiberty.ANTIBODIES.values()
    )

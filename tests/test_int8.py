"""Int8 weights: the logits stay near, memory shrinks, and what is not covered is refused rather than left as it is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import attn_sampler as ats
from attn_sampler import InvalidInputError, MissingDependencyError, SamplingParams, UnknownNameError

IDS = [[5, 9, 30, 7, 21, 11, 3, 40]]


@pytest.fixture
def torchao() -> Any:
    return pytest.importorskip("torchao.quantization")


def net_of(engine: ats.Engine) -> Any:
    return engine.model.net  # type: ignore[attr-defined]


@pytest.mark.parametrize("layout", ["llada", "dream", "sdar", "bert", "modernbert"])
def test_logits_are_those_of_the_rounded_weights(torchao: Any, tiny: Callable[[str], Path], layout: str) -> None:
    """The twin: the same network with the rounded weights written back, each within half a step of what it was."""
    plain, small = (ats.load(tiny(layout), device="cpu", dtype="float32", quantize=how) for how in (None, "int8"))
    before = plain.logits(IDS)
    for name, parameter in net_of(plain).named_parameters():
        rounded = net_of(small).get_parameter(name)
        if hasattr(rounded, "qdata"):
            step = parameter.abs().amax(1, keepdim=True) / 127.5
            assert ((rounded.dequantize() - parameter).abs() <= 0.501 * step).all()
            parameter.data = rounded.dequantize()
    torch.testing.assert_close(small.logits(IDS), plain.logits(IDS), atol=2e-4, rtol=0)
    assert not torch.allclose(plain.logits(IDS), before, atol=1e-3)


def test_bfloat16_stays_bfloat16(torchao: Any, tiny: Callable[[str], Path]) -> None:
    small = ats.load(tiny("llada"), device="cpu", dtype="bfloat16", quantize="int8")
    assert small.logits(IDS).dtype == torch.bfloat16


def test_what_is_int8_and_what_is_not(torchao: Any, tiny: Callable[[str], Path]) -> None:
    small = net_of(ats.load(tiny("llada"), device="cpu", quantize="int8"))
    kinds = {name: hasattr(parameter, "qdata") for name, parameter in small.named_parameters()}
    assert {name for name, is_int8 in kinds.items() if is_int8} == {name for name in kinds if "_proj." in name}
    assert not kinds["lm_head.weight"]
    assert not kinds["model.embed_tokens.weight"]


@pytest.mark.parametrize("sampler", ["attention", "confidence"])
def test_it_generates(torchao: Any, sampler: str) -> None:
    plain, small = ats.load(device="cpu"), ats.load(device="cpu", quantize="int8")
    prompt = "Sudoku:\n0200\n4302\n3401\n0004"
    one, two = (e.generate([prompt], SamplingParams(sampler=sampler, max_new_tokens=32))[0].text for e in (plain, small))
    assert one == two


def test_with_an_adapter_the_sum_is_rounded(torchao: Any, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    import json

    from safetensors.torch import save_file

    stem = "base_model.model.model.layers.0.self_attn.q_proj"
    pair = {f"{stem}.lora_A.weight": torch.ones(1, 64), f"{stem}.lora_B.weight": torch.ones(64, 1)}
    save_file(pair, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 1, "lora_alpha": 1}))
    small, both = (ats.load(tiny("llada"), device="cpu", quantize="int8", adapter=a) for a in (None, tmp_path))
    one, two = (net_of(e).get_parameter("model.layers.0.self_attn.q_proj.weight").dequantize() for e in (small, both))
    torch.testing.assert_close(two - one, torch.ones(64, 64), atol=0.05, rtol=0)


def test_fused_experts_are_refused(torchao: Any, tiny: Callable[[str], Path]) -> None:
    for layout in ("llada-moe", "llada2"):
        with pytest.raises(InvalidInputError, match="fused"):
            ats.load(tiny(layout), device="cpu", quantize="int8")


def test_wrong_values(torchao: Any, tiny: Callable[[str], Path]) -> None:
    with pytest.raises(UnknownNameError, match="int8"):
        ats.load(tiny("llada"), device="cpu", quantize="int4")
    with pytest.raises(InvalidInputError, match="device map"):
        ats.load(tiny("llada"), device_map={"": "cpu"}, quantize="int8")


def test_without_the_library(tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torchao", "torchao.quantization"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match=r"attn-sampler\[int8\]") as found:
        ats.load(tiny("llada"), device="cpu", quantize="int8")
    assert found.value.extra == "int8"


def test_the_command(torchao: Any, tiny: Callable[[str], Path], monkeypatch: Any, capsys: Any) -> None:
    from attn_sampler.cli import main

    for words in (["generate", "--ids", "5 6 7", "--max-new-tokens", "4"], ["infill", "ab[[2]]"]):
        monkeypatch.setattr(
            "sys.argv", ["attn-sampler", *words, "-m", str(tiny("llada")), "--device", "cpu", "--quantize", "int8"]
        )
        with pytest.raises(SystemExit) as stop:
            main()
        assert not stop.value.code
        assert "forwards" in capsys.readouterr().err


def test_the_bench_counts_bytes(torchao: Any) -> None:
    from attn_sampler.bench.int8 import random_model

    found = random_model(hidden=64, layers=2, heads=4, vocab=32, canvas=16, rounds=1)
    linear, rest = 2 * (4 * 64 * 64 + 3 * 64 * 192), 2 * 32 * 64 + 5 * 64
    channels = 2 * (4 * 64 + 2 * 192 + 64)
    assert found["bytes"] == 4 * (linear + rest)
    assert (
        found["bytes_int8"] == linear + 4 * rest + (4 + 1) * channels
    )  # a float32 scale and an int8 zero point for each channel
    assert 0 < found["logit_change_mean"] < found["logit_deviation"]

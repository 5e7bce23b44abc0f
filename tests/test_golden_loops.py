"""Whole runs equal those of the authors' own loops: the same ids, the same number of forwards, the same step for each token.

All runs of a file go through one ragged batch with parameters of their own, so this also is parity of the batching.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import attn_sampler as ats
from attn_sampler import Engine, Result, SamplingParams, Step

LOOPS = Path(__file__).parent / "golden" / "loops"
MODELS = LOOPS.parent / "models"


def runs_of(name: str) -> list[dict[str, Any]]:
    content = json.loads((LOOPS / f"{name}.json").read_text())
    # Cached forwards see other keys, so their outputs differ by design; only the runs without a cache apply.
    return [run | {"model": content["model"]} for run in content["runs"] if run["settings"].get("cache", "none") == "none"]


def llada(settings: dict[str, Any]) -> SamplingParams:
    names = ("steps", "block_length", "cfg_scale", "logits_eos_inf", "confidence_eos_eot_inf")
    rest = {name: settings[name] for name in names if name in settings}
    return SamplingParams(sampler="confidence", max_new_tokens=settings["gen_length"], ignore_eos=True, **rest)


def fast_dllm(settings: dict[str, Any]) -> SamplingParams:
    lengths = {"max_new_tokens": settings["gen_length"], "block_length": settings["block_length"], "ignore_eos": True}
    if settings["threshold"] is not None:
        return SamplingParams(sampler="fast-dllm", threshold=settings["threshold"], **lengths)
    if settings["factor"] is not None:
        return SamplingParams(sampler="fast-dllm-factor", factor=settings["factor"], compat="reference", **lengths)
    return SamplingParams(sampler="confidence", steps=settings["steps"], **lengths)


def eb(settings: dict[str, Any]) -> SamplingParams:
    n = settings["gen_length"]  # the reference has no blocks
    return SamplingParams(sampler="eb", gamma=settings["gamma"], max_new_tokens=n, block_length=n, ignore_eos=True)


def klass(settings: dict[str, Any]) -> SamplingParams:
    return SamplingParams(
        sampler="klass",
        threshold=settings["conf_threshold"],
        kl_threshold=settings["kl_threshold"],
        history=settings["history"],
        max_new_tokens=settings["gen_length"],
        steps=settings["steps"],
        block_length=settings["block_length"],
        ignore_eos=True,
    )


READ = {
    "llada_generate__llada_gqa": llada,
    "llada_generate__llada_mha": llada,
    "fast_dllm_v1__llada_gqa": fast_dllm,
    "fast_dllm_v1__llada_mha": fast_dllm,
    "eb_sampler": eb,
    "klass_llada": klass,
}


def commit_steps(steps: list[Step], length: int) -> list[int]:
    """0-based forward that wrote each generated position."""
    when = {position: step.forward - 1 for step in steps for position in step.positions}
    assert sum(len(step.positions) for step in steps) == len(when) == length, "each position is written exactly once"
    return [when[steps[0].start + i] for i in range(length)]


@cache
def replayed(name: str) -> list[tuple[Result, list[int]]]:
    """All runs of a file in one batch: result and commit steps of each."""
    runs = runs_of(name)
    engine = ats.load(MODELS / runs[0]["model"], device="cpu")
    seen: dict[int, list[Step]] = {}
    results = engine.generate(
        [run["prompt_ids"] for run in runs],
        [READ[name](run["settings"]) for run in runs],
        on_step=lambda step: seen.setdefault(step.row, []).append(step),
    )
    return [(r, commit_steps(seen[row], len(r.token_ids))) for r, row in zip(results, sorted(seen), strict=True)]


def every_run() -> list[Any]:
    out = []
    for name in READ:
        for i, run in enumerate(runs_of(name)):
            shown = {k: v for k, v in run["settings"].items() if v not in (None, False, "none", "low_confidence")}
            out.append(pytest.param(name, i, id=f"{name}-{i}-{'-'.join(f'{k}={v}' for k, v in shown.items())}"))
    return out


@pytest.mark.parametrize(("name", "i"), every_run())
def test_run_equals_the_reference(name: str, i: int) -> None:
    run = runs_of(name)[i]
    result, when = replayed(name)[i]
    assert result.token_ids == run["output_ids"][len(run["prompt_ids"]) :]
    assert result.forwards == run["nfe"]
    assert "commit_step" not in run or when == run["commit_step"]


@pytest.mark.parametrize("name", ["llada_generate__llada_gqa", "eb_sampler", "klass_llada"])
def test_streamed_alone_the_run_is_the_same(name: str, llada_gqa: Engine) -> None:
    run = runs_of(name)[-1]
    steps = list(llada_gqa.stream(run["prompt_ids"], READ[name](run["settings"])))
    assert [step.forward for step in steps] == list(range(1, run["nfe"] + 1))
    assert steps[-1].ids == run["output_ids"]
    assert commit_steps(steps, run["settings"]["gen_length"]) == run["commit_step"]


@pytest.mark.parametrize("i", range(12))
def test_guided_and_left_padded_batches(i: int, llada_gqa: Engine) -> None:
    """The reference pads on the left; here the same prompts go in unpadded, as rows of different length."""
    run = runs_of("llada_generate_cfg_and_batch")[i]
    rows = zip(run["prompt_ids"], run["settings"]["attention_mask"], strict=True)
    prompts = [[t for t, real in zip(prompt, mask, strict=True) if real] for prompt, mask in rows]
    results = llada_gqa.generate(prompts, llada(run["settings"]))
    width = len(run["prompt_ids"][0])
    assert [r.token_ids for r in results] == [ids[width:] for ids in run["output_ids"]]
    assert {r.forwards for r in results} == {run["nfe"]}


@pytest.mark.parametrize("i", range(12))
def test_end_token_options(i: int) -> None:
    run = runs_of("llada_generate_eos_options")[i]
    settings = run["settings"]
    engine = ats.load(MODELS / "llada_gqa", device="cpu", eos_ids=(settings["eos_id"], settings["eot_id"]))
    plain = settings | {"logits_eos_inf": False, "confidence_eos_eot_inf": False}
    with_option, without = engine.generate([run["prompt_ids"]] * 2, [llada(settings), llada(plain)])
    n = len(run["prompt_ids"])
    assert with_option.token_ids == run["output_ids"][n:]
    assert with_option.forwards == run["nfe"]
    assert without.token_ids == run["output_ids_without_option"][n:]

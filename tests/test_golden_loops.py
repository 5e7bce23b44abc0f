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


COUNTS = {
    "dream_diffusion_generate": 22,
    "dream_left_padded_batch": 8,
    "eb_sampler": 16,
    "fast_dllm_v1__llada_gqa": 36,
    "fast_dllm_v1__llada_mha": 18,
    "fast_dllm_v1_dream_block": 12,
    "fast_dllm_v2_generate": 35,
    "klass_llada": 18,
    "llada21_generate": 12,
    "llada2_generate": 14,
    "llada_generate__llada_gqa": 12,
    "llada_generate__llada_mha": 12,
    "llada_generate_cfg_and_batch": 12,
    "llada_generate_eos_options": 12,
    "llada_moe_generate": 9,
    "sdar_generate": 24,
}
"""Runs of every file: all of them are compared."""


def runs_of(name: str) -> list[dict[str, Any]]:
    content = json.loads((LOOPS / f"{name}.json").read_text())
    return [run | {"model": content["model"]} for run in content["runs"]]


def llada(settings: dict[str, Any]) -> SamplingParams:
    names = ("steps", "block_length", "cfg_scale", "logits_eos_inf", "confidence_eos_eot_inf")
    rest = {name: settings[name] for name in names if name in settings}
    return SamplingParams(sampler="confidence", max_new_tokens=settings["gen_length"], ignore_eos=True, **rest)


def fast_dllm(settings: dict[str, Any]) -> SamplingParams:
    lengths = {"max_new_tokens": settings["gen_length"], "block_length": settings["block_length"], "ignore_eos": True}
    lengths["cache"] = settings.get("cache", "none")
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


def llada_moe(settings: dict[str, Any]) -> SamplingParams:
    return fast_dllm(settings | {"factor": None}) if settings["alg"] == "threshold" else llada(settings)


def fast_dllm_on_dream(settings: dict[str, Any]) -> SamplingParams:
    cache = "dual" if settings["dual_cache"] else "prefix"
    lengths = {"max_new_tokens": settings["max_new_tokens"], "block_length": settings["block_length"], "ignore_eos": True}
    return SamplingParams(sampler="fast-dllm", threshold=settings["threshold"], cache=cache, **lengths)


def dream(settings: dict[str, Any]) -> SamplingParams:
    n = settings["max_new_tokens"]  # no block_length: the method has none
    options = {"alg": settings["alg"], "eps": settings["eps"], "compat": "reference", "top_k": settings.get("top_k") or 0}
    return SamplingParams(sampler="dream", max_new_tokens=n, steps=settings["steps"], ignore_eos=True, **options)


def sdar(settings: dict[str, Any]) -> SamplingParams:
    lengths = {"max_new_tokens": settings["gen_length"], "ignore_eos": True}
    if settings["sampling"] == "top_k_1":  # its confidence is among one token, so always 1: every threshold takes whole blocks
        return SamplingParams(sampler="fast-dllm", threshold=0, **lengths)
    if settings["remasking_strategy"] == "low_confidence_dynamic":
        return SamplingParams(sampler="fast-dllm", threshold=settings["confidence_threshold"], **lengths)
    if settings["remasking_strategy"] == "low_confidence_static":
        return SamplingParams(sampler="confidence", k=settings["block_length"] // settings["denoising_steps"], **lengths)
    return SamplingParams(sampler="left-to-right", **lengths)


def llada2(settings: dict[str, Any]) -> SamplingParams:
    edits = {name: settings[name] for name in ("editing_threshold", "max_post_steps") if name in settings}
    k = settings["num_to_transfer"] if edits else settings["block_length"] // settings["steps"]
    options = {"threshold": settings["threshold"], "max_new_tokens": settings["gen_length"]}
    return SamplingParams(sampler="llada2", k=k, **options, **edits)


def fast_dllm_v2(settings: dict[str, Any]) -> SamplingParams:
    return SamplingParams(
        sampler="fast-dllm-v2",
        threshold=settings["threshold"],
        sub_block_length=settings["small_block_size"],
        max_new_tokens=settings["max_new_tokens"],
        cache="block" if settings["variant"] == "no_block_cache" else "sub-block",
        compat="reference" if settings["variant"] == "block_cache_stale_upstream" else "none",
    )


READ = {
    "llada_generate__llada_gqa": llada,
    "llada_generate__llada_mha": llada,
    "fast_dllm_v1__llada_gqa": fast_dllm,
    "fast_dllm_v1__llada_mha": fast_dllm,
    "eb_sampler": eb,
    "klass_llada": klass,
    "llada_moe_generate": llada_moe,
    "fast_dllm_v1_dream_block": fast_dllm_on_dream,
    "dream_diffusion_generate": dream,
}
"""Files whose runs have one model, one prompt each, and no end of their own."""


def test_no_run_is_left_out() -> None:
    """Every test takes all runs of its files, and the expected number of passes follows from the reference's by a stated rule."""
    assert {path.stem: len(runs_of(path.stem)) for path in LOOPS.glob("*.json")} == COUNTS


def load(model: str, **arguments: Any) -> Engine:
    """The checkpoint, with the mask id where its config.json lacks one (as the real ones do)."""
    meta = json.loads((MODELS / model / "meta.json").read_text())
    return ats.load(MODELS / model, device="cpu", mask_id=meta["mask_id"], **arguments)


def commit_steps(steps: list[Step], length: int) -> list[int]:
    """0-based forward that wrote each generated position."""
    when = {position: step.forward - 1 for step in steps for position in step.positions}
    assert sum(len(step.positions) for step in steps) == len(when) == length, "each position is written exactly once"
    return [when[steps[0].start + i] for i in range(length)]


@cache
def replayed(name: str) -> list[tuple[Result, list[int]]]:
    """All runs of a file in one batch: result and commit steps of each."""
    runs = runs_of(name)
    engine = load(runs[0]["model"])
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
        assert len(runs_of(name)) == COUNTS[name]
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


@pytest.mark.parametrize("i", range(COUNTS["llada_generate_cfg_and_batch"]))
def test_guided_and_left_padded_batches(i: int, llada_gqa: Engine) -> None:
    """The reference pads on the left; here the same prompts go in unpadded, as rows of different length."""
    run = runs_of("llada_generate_cfg_and_batch")[i]
    rows = zip(run["prompt_ids"], run["settings"]["attention_mask"], strict=True)
    prompts = [[t for t, real in zip(prompt, mask, strict=True) if real] for prompt, mask in rows]
    results = llada_gqa.generate(prompts, llada(run["settings"]))
    width = len(run["prompt_ids"][0])
    assert [r.token_ids for r in results] == [ids[width:] for ids in run["output_ids"]]
    assert {r.forwards for r in results} == {run["nfe"]}


@pytest.mark.parametrize("i", range(COUNTS["llada_generate_eos_options"]))
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


@pytest.mark.parametrize("i", range(COUNTS["dream_left_padded_batch"]))
def test_dream_with_left_padded_batches(i: int) -> None:
    run = runs_of("dream_left_padded_batch")[i]
    rows = zip(run["prompt_ids"], run["settings"]["attention_mask"], strict=True)
    prompts = [[t for t, real in zip(prompt, mask, strict=True) if real] for prompt, mask in rows]
    results = load("dream").generate(prompts, dream(run["settings"]))
    width = len(run["prompt_ids"][0])
    assert [r.token_ids for r in results] == [ids[width:] for ids in run["output_ids"]]
    assert {r.forwards for r in results} == {run["nfe"]}


@pytest.mark.parametrize("cache", ["none", "block"])
@pytest.mark.parametrize(("block_length", "count"), [(4, 21), (8, 3)])
def test_sdar(block_length: int, count: int, cache: str) -> None:
    """The reference fills its cache in passes that write nothing: one for the prompt's whole blocks, if it has any, and one after
    every block. Here those positions run with the next block's first pass, or not at all after the last."""
    runs = [run for run in runs_of("sdar_generate") if run["settings"]["block_length"] == block_length]
    assert len(runs) == count
    engine = load("sdar", block_length=block_length)
    params = [with_cache(sdar(run["settings"]), cache) for run in runs]
    results = engine.generate([run["prompt_ids"] for run in runs], params)
    for run, result in zip(runs, results, strict=True):
        n, new = len(run["prompt_ids"]), run["settings"]["gen_length"]
        whole = n // block_length
        assert result.token_ids == run["output_ids"][n : n + new]
        assert result.forwards == run["nfe"] - (whole > 0) - (-(-(n + new) // block_length) - whole)


def with_cache(params: SamplingParams, cache: str, **more: Any) -> SamplingParams:
    settings = params.to_dict()
    options = settings.pop("options")
    return SamplingParams(**settings | options | {"cache": cache} | more)


def ended(step: Step, eos: int, length: int) -> bool:
    """Whether the answer's first end token has nothing masked before it."""
    answer = step.ids[step.start : step.start + length]
    return eos in answer and step.start + answer.index(eos) < min(step.masked, default=len(step.ids))


@pytest.mark.parametrize("cache", ["none", "block"])
@pytest.mark.parametrize("i", range(COUNTS["llada2_generate"]))
def test_llada2(i: int, cache: str) -> None:
    """The reference fills the block that holds the end; with ``eos_early_stop`` it looks for an end in passes that write an end
    token. Here the answer ends as soon as nothing before its end is masked, or, with ``compat="reference"``, with the block."""
    run = runs_of("llada2_generate")[i]
    settings, eos, length = run["settings"], run["settings"]["eos_id"], run["settings"]["gen_length"]
    engine, params = load("llada2", eos_ids=[eos]), with_cache(llada2(settings), cache)
    steps = list(engine.stream(run["prompt_ids"], with_cache(params, cache, compat="reference")))
    assert steps[-1].result is not None
    assert steps[-1].result.token_ids == run["output_ids"]
    noticed = [step.forward for step in steps if ended(step, eos, length) and eos in step.tokens and settings["eos_early_stop"]]
    assert (noticed or [len(steps)])[0] == run["nfe"]
    result = engine.generate([run["prompt_ids"]], params)[0]
    assert result.token_ids == run["output_ids"]
    assert result.forwards == next(step.forward for step in steps if ended(step, eos, length) or step.finished)


@pytest.mark.parametrize("cache", ["none", "block"])
@pytest.mark.parametrize("i", range(COUNTS["llada21_generate"]))
def test_llada21(i: int, cache: str) -> None:
    """With edits the reference writes all blocks and cuts the answer afterwards, as ``ignore_eos`` does here. Without that the
    answer ends with the block that holds its end."""
    run = runs_of("llada21_generate")[i]
    eos = run["settings"]["eos_id"]
    engine, params = load("llada2", eos_ids=[eos]), with_cache(llada2(run["settings"]), cache)
    steps = list(engine.stream(run["prompt_ids"], with_cache(params, cache, ignore_eos=True)))
    assert len(steps) == run["nfe"]
    assert steps[-1].result is not None
    everything = steps[-1].result.token_ids
    assert everything[: everything.index(eos) + 1 if eos in everything else None] == run["output_ids"]
    result = engine.generate([run["prompt_ids"]], params)[0]
    assert result.token_ids == run["output_ids"]
    ends = (eos in everything[: max(0, step.settled - step.start)] or step.finished for step in steps)
    assert result.forwards == next(step.forward for step, end in zip(steps, ends, strict=True) if end)


@pytest.mark.parametrize("i", range(COUNTS["fast_dllm_v2_generate"]))
def test_fast_dllm_v2(i: int) -> None:
    """The reference runs the prompt's whole blocks in a pass of their own, which writes a token only where nothing of the prompt
    is left over. One of its copies keeps the block cache of the block before: 8 of the runs."""
    run = runs_of("fast_dllm_v2_generate")[i]
    settings, n = run["settings"], len(run["prompt_ids"])
    engine = load("fast_dllm_v2", eos_ids=[settings["stop_token"]])
    want = run["output_ids"][n:]
    for policy in ["none", "block"] if settings["variant"] == "no_block_cache" else ["sub-block"]:
        settled: list[int] = []
        for step in engine.stream(run["prompt_ids"], with_cache(fast_dllm_v2(settings | {"max_new_tokens": 128}), policy)):
            settled = step.ids[n : step.settled]
            if len(settled) >= len(want):  # the reference stops after the first token of a further block
                break
        assert settled[: len(want)] == want
        assert step.forward == run["nfe"] - (n > 32 and n % 32 > 0)

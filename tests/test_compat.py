"""``compat="reference"``: slips of the authors' code, against plain loops that make them; the golden runs are in
test_golden_loops.py and test_golden_block_samplers.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import attn_sampler as ats
from attn_sampler import Engine, SamplingParams
from attn_sampler.propose import Choice, propose
from fakes import TableModel, random_table

MODELS = Path(__file__).parent / "golden" / "models"
BLOCK, SUB = 32, 8


def fast_dllm_v2() -> Engine:
    mask_id = json.loads((MODELS / "fast_dllm_v2" / "meta.json").read_text())["mask_id"]
    return ats.load(MODELS / "fast_dllm_v2", device="cpu", mask_id=mask_id, eos_ids=[])


def written_without_a_prompt(engine: Engine, length: int, threshold: float) -> tuple[list[int], int]:
    """Fast-dLLM v2's loop on a canvas that has no prompt: ids, and passes that write something.

    The first position, which no row predicts, comes from its own; that of a later block from the block before, alone.
    """
    model = engine.model
    ids, forwards = [model.mask_id] * length, 0

    def ask(length: int) -> Tensor:
        logits = engine.logits([ids[:length]])[0].float()
        return logits.masked_fill(torch.arange(logits.shape[1]) == model.mask_id, -torch.inf).softmax(-1)

    for low in range(0, length, BLOCK):
        if low:
            ids[low] = int(ask(low + BLOCK)[low].argmax())
            forwards += 1
        for first in range(low, low + BLOCK, SUB):
            while left := [j for j in range(first, first + SUB) if ids[j] == model.mask_id]:
                p = ask(low + BLOCK)
                forwards += 1
                sure = [j for j in left if p[j].max() > threshold]
                for j in sure or [max(left, key=lambda j: float(p[j].max()))]:
                    ids[j] = int(p[j].argmax())
    return ids, forwards


@pytest.mark.parametrize(("cache", "threshold"), [("none", 0.6), ("none", 0.4), ("block", 0.6), ("sub-block", 0.6)])
def test_fast_dllm_v2_forgets_a_prompt_of_one_block(threshold: float, cache: str) -> None:
    """In a batch whose other rows, of other lengths, keep theirs. On an empty canvas every mask is equally sure, 0.72 here: a
    higher threshold would leave the order of the first passes to rounding."""
    engine = fast_dllm_v2()
    prompts = [[(5 * i + n) % 250 for i in range(n)] for n in (BLOCK, BLOCK - 1, BLOCK, 2 * BLOCK)]
    new = {"max_new_tokens": 2 * BLOCK, "ignore_eos": True, "cache": cache, "threshold": threshold}
    other = SamplingParams(sampler="fast-dllm-v2", compat="reference" if cache != "sub-block" else "none", **new)
    forgets = SamplingParams(sampler="fast-dllm-v2", compat="reference", **new)
    lost, *_ = results = engine.generate(prompts, [forgets, other, SamplingParams(sampler="fast-dllm-v2", **new), other])
    assert results[0].token_ids != results[2].token_ids
    for prompt, result in zip(prompts[1:], results[1:], strict=True):
        assert result.token_ids == engine.generate([prompt], SamplingParams(sampler="fast-dllm-v2", **new))[0].token_ids
    if cache == "sub-block":
        assert lost.token_ids == engine.generate([prompts[0][::-1]], forgets)[0].token_ids, "it never reads the prompt"
    else:
        assert (lost.token_ids, lost.forwards) == written_without_a_prompt(engine, 2 * BLOCK, threshold)


SPREAD, NEW, EOS, TURN, MASK = 12, 8, 3, 5, 9


def scores_of(engine: Engine, params: SamplingParams) -> tuple[list[dict[int, float]], list[list[int]]]:
    """Scores of all masks at every pass, and the positions that it wrote."""
    steps = list(engine.stream([1, 2], params))
    return [dict(zip(s.window, s.scores, strict=True)) for s in steps], [s.positions for s in steps]


@pytest.mark.parametrize("compat", ["none", "reference"])
@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_noise_spares_the_end_of_sequence_token(temperature: float, compat: str) -> None:
    """LLaDA sets end tokens to -inf in what it takes for the clean logits; with noise only the end-of-turn token is there."""
    table = random_table(4, 2 + NEW, SPREAD, 2.0).double()
    table[:, [EOS, TURN]] += 2.0
    table[4, EOS] = table[6, TURN] = 12.0
    engine = Engine(TableModel(table, mask_id=MASK, eos_ids=(EOS, TURN)))
    params = SamplingParams(
        sampler="confidence", compat=compat, max_new_tokens=NEW, ignore_eos=True, temperature=temperature, seed=11,
        confidence_eos_eot_inf=True,
    )  # fmt: skip
    got, written = scores_of(engine, params)
    place = torch.arange(2 + NEW)[None]
    banned = torch.zeros(1, SPREAD).masked_fill(torch.arange(SPREAD) == MASK, -torch.inf)
    zero, heat = torch.zeros(1, dtype=torch.long), torch.tensor([temperature], dtype=torch.float64)
    seen = set()
    for t, (scores, positions) in enumerate(zip(got, written, strict=True)):
        choice = Choice(heat, torch.ones(1), zero, zero + 11, zero + t, samples=temperature > 0, filters=False)
        tokens = propose(table[None], choice, place, banned).tokens[0].tolist()
        clean = np.exp(table.numpy())
        clean[:, MASK] = 0
        clean[:, TURN] = 0
        if compat == "none" or temperature == 0:
            clean[:, EOS] = 0
        clean /= clean.sum(1, keepdims=True)
        wanted = {j: clean[j, tokens[j]] for j in scores}
        assert scores == pytest.approx(wanted, abs=1e-9)
        assert positions == [max(wanted, key=lambda j: (wanted[j], -j))]
        seen |= {tokens[j] for j in scores}
    assert {EOS, TURN} <= seen, "both end tokens are proposed"


def test_noise_spares_it_in_the_rows_that_ask_for_it() -> None:
    """Rows of both kinds, warm and cold, in one batch."""
    table = random_table(4, 2 + NEW, SPREAD, 2.0)
    table[:, [EOS, TURN]] += 2.0
    kinds: list[dict[str, Any]] = [
        {"compat": compat, "temperature": heat, "confidence_eos_eot_inf": flag}
        for compat in ("none", "reference") for heat in (0.0, 1.5) for flag in (True, False)
    ]  # fmt: skip
    params = [SamplingParams(sampler="confidence", max_new_tokens=NEW, ignore_eos=True, seed=3, **kind) for kind in kinds]
    engine = Engine(TableModel(table, mask_id=MASK, eos_ids=(EOS, TURN), moving=True))
    together = engine.generate([[1, 2]] * len(params), params)
    assert [r.token_ids for r in together] == [engine.generate([[1, 2]], p)[0].token_ids for p in params]


def test_llada2_fills_the_block_that_holds_the_end() -> None:
    """The answer is the same; the passes are those of the whole block."""
    table = random_table(8, 34, SPREAD, 1.0)
    table[9, EOS] = 50.0  # written first
    engine = Engine(TableModel(table, mask_id=MASK, eos_ids=(EOS,)))
    new = {"sampler": "llada2", "max_new_tokens": 32, "block_length": 16, "threshold": 1.0}
    short, whole = engine.generate([[1, 2]] * 2, [SamplingParams(**new), SamplingParams(**new, compat="reference")])
    assert short.token_ids == whole.token_ids
    assert short.token_ids[-1] == EOS
    assert len(short.token_ids) <= 8
    assert short.forwards < whole.forwards == 16


@pytest.mark.parametrize("k", [1, 3])
def test_entropy_with_the_wrong_sign(k: int) -> None:
    """KLASS's baseline: the least certain positions first."""
    table = random_table(5, 2 + NEW, SPREAD, 2.0).double()
    params = SamplingParams(sampler="entropy", compat="reference", k=k, max_new_tokens=NEW, ignore_eos=True)
    _, written = scores_of(Engine(TableModel(table, mask_id=MASK)), params)
    p = np.delete(table.numpy(), MASK, 1)
    p = np.exp(p) / np.exp(p).sum(1, keepdims=True)
    nats = -(p * np.log(p)).sum(1)
    order = sorted(range(2, 2 + NEW), key=lambda j: -nats[j])
    assert written == [sorted(order[i : i + k]) for i in range(0, NEW, k)]

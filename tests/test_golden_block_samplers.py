"""Samplers of block-causal models against their reference: LLaDA2's fill and edit, step by step and over whole runs, and one
step of Fast-dLLM v2."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attn_sampler import Engine, SamplingParams, samplers
from fakes import TableModel
from test_golden_samplers import cases_of, each, window_of


def test_one_step_of_fill_and_edit() -> None:
    """``k`` is the quota of a step there; here an option, or the quota of a row with a step budget."""
    for case in cases_of("refine_step_diffusers"):
        params, tokens = case["params"], torch.tensor([case["tokens"]])
        revisable = ~torch.tensor([case["masked"]]).bool() & ~torch.tensor([case["frozen"]]).bool()
        options = {"threshold": params["threshold"], "editing_threshold": params["editing_threshold"] or None}
        for k, quota in ((params["k"], 1), (1, params["k"])):
            window = replace(window_of(case, quota), current=tokens, revisable=revisable)
            answer = samplers.build("llada2", {**options, "k": k}).select(window, {})
            edited = torch.zeros_like(revisable) if answer.rewrite is None else answer.rewrite
            assert answer.commit[0].nonzero()[:, 0].tolist() == case["filled"]
            assert edited[0].nonzero()[:, 0].tolist() == case["edited"]
            after = torch.where(answer.commit | edited, window.proposal.tokens, tokens)
            assert after[0].tolist() == case["tokens_after"]


@each("llada21_refine_sequence")
def test_whole_runs_of_fill_and_edit(case: dict[str, Any]) -> None:
    """A stub network answers forward t with logits[t]; the canvas of the reference ends with the active block."""
    params, start = case["params"], len(case["prompt"])

    def network(ids: Tensor, t: int) -> Tensor:
        logits = torch.tensor(case["logits"][t], dtype=torch.float64)
        return F.pad(logits, (0, 0, 0, ids.shape[1] - len(logits))).expand(len(ids), -1, -1)

    model = TableModel(network, mask_id=case["mask_id"], vocab_size=len(case["logits"][0][0]))
    model.block_length = case["block"]
    assert not params["eos_early_stop"]
    steps = list(
        Engine(model).stream(
            case["prompt"],
            SamplingParams(
                sampler="llada2",
                max_new_tokens=case["max_new_tokens"],
                ignore_eos=True,
                threshold=params["threshold"],
                editing_threshold=params["editing_threshold"],
                max_post_steps=params["max_post_steps"],
                k=params["num_to_transfer"],
            ),
        )
    )
    canvases = [case["prompt"] + [case["mask_id"]] * (len(case["final"]) - start), *(step.ids for step in steps)]
    assert len(steps) == model.forwards == case["nfe"]
    assert [canvas[: len(want)] for canvas, want in zip(canvases, case["canvas"], strict=False)] == case["canvas"]
    assert canvases[-1] == case["final"]


@each("fast_dllm_v2_step")
def test_one_step_of_fast_dllm_v2(case: dict[str, Any]) -> None:
    """Row j - 1 of the raw logits predicts position j; the step is asked about the first sub-block that has a mask."""
    raw, params = torch.tensor(case["raw_logits"], dtype=torch.float64), case["params"]
    model = TableModel(torch.cat([raw[:1], raw[:-1]]), mask_id=case["mask_id"], eos_ids=(case["stop_id"],))
    model.block_length = params["block"]
    prompt = case["block_before"][: len(case["prompt"])]
    assert prompt == case["prompt"]
    step = next(
        Engine(model).stream(
            prompt,
            SamplingParams(
                sampler="fast-dllm-v2",
                max_new_tokens=params["block"] - len(prompt),
                sub_block_length=params["small_block"],
                threshold=params["threshold"],
            ),
        )
    )
    assert step.positions == case["selected"]
    assert step.ids == case["block_after"]
    assert step.positions[0] // params["small_block"] == case["sub_block"]

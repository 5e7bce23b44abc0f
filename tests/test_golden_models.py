"""Logits equal those of the authors' modelling file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import attn_sampler as ats
from attn_sampler import Engine

TOLERANCE = 3e-4  # golden/ORIGIN.md; a causal mask or a wrong shift gives differences above 15
FULL, BLOCK = ("unpadded", "left_padded", "right_padded"), ("aligned", "unaligned", "short")
A2D = ("a2d_qwen2", "a2d_qwen3_tied", "a2d_qwen3_untied")
CASES = [
    *((model, None, case) for model in ("llada_mha", "llada_gqa", "llada_moe", "dream") for case in FULL),
    *((model, None, case) for model in ("fast_dllm_v2", "llada2", "sdar") for case in BLOCK),
    *((model, "a2d-mdlm", case) for model in A2D for case in FULL),
    *((model, "a2d-bd3lm", "block32") for model in A2D),
]


@pytest.mark.parametrize(("model", "family", "case"), CASES)
def test_logits_equal_the_reference(model: str, family: str | None, case: str, golden: Path) -> None:
    folder = golden / "models" / model
    meta = json.loads((folder / "meta.json").read_text())
    with np.load(folder / "cases.npz") as data:
        arrays = {name.partition("__")[2]: data[name] for name in data.files if name.startswith(f"{case}__")}
    mask = arrays.get("attention_mask")
    engine = ats.load(folder, device="cpu", family=family, mask_id=meta["mask_id"])
    got = engine.logits(torch.from_numpy(arrays["input_ids"]), mask)
    real = torch.ones(got.shape[:2], dtype=torch.bool) if mask is None else torch.from_numpy(mask).bool()
    want = torch.from_numpy(arrays["logits"])
    if meta["logits_shift"]:  # stored as the network gives them; the first position has no left neighbour
        want, real = want.roll(1, 1), real & real.roll(1, 1)
        real[:, 0] = False
    assert got.shape == want.shape
    assert real.sum() > 20
    assert (got - want)[real].abs().max() <= TOLERANCE


def test_logits_take_lists_single_rows_and_a_mask_of_ones(llada_gqa: Engine, golden: Path) -> None:
    with np.load(golden / "models" / "llada_gqa" / "cases.npz") as data:
        ids = data["unpadded__input_ids"]
    row = llada_gqa.logits(torch.from_numpy(ids))
    assert torch.equal(row, llada_gqa.logits(ids[0].tolist()))
    assert torch.equal(row, llada_gqa.logits(ids.tolist()))
    torch.testing.assert_close(row, llada_gqa.logits(ids.tolist(), np.ones_like(ids).tolist()), atol=TOLERANCE, rtol=0)


def test_padding_is_not_seen(llada_gqa: Engine) -> None:
    """What stands in masked-out positions cannot matter."""
    ids = torch.tensor([[5, 6, 7, 283, 283, 9, 9]])
    other = torch.tensor([[5, 6, 7, 283, 283, 100, 200]])
    mask = [[1, 1, 1, 1, 1, 0, 0]]
    assert torch.equal(llada_gqa.logits(ids, mask)[:, :5], llada_gqa.logits(other, mask)[:, :5])
    assert not torch.equal(llada_gqa.logits(ids)[:, :5], llada_gqa.logits(other)[:, :5])

"""Logits equal those of the authors' modelling file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from attn_sampler import Engine

TOLERANCE = 3e-4  # golden/ORIGIN.md; a causal mask or a shift gives differences above 15


@pytest.mark.parametrize("case", ["unpadded", "left_padded", "right_padded"])
@pytest.mark.parametrize("model", ["llada_mha", "llada_gqa"])
def test_logits_equal_the_reference(model: str, case: str, golden: Path, request: pytest.FixtureRequest) -> None:
    with np.load(golden / "models" / model / "cases.npz") as data:
        arrays = {name.partition("__")[2]: data[name] for name in data.files if name.startswith(case)}
    mask = arrays.get("attention_mask")
    got = request.getfixturevalue(model).logits(torch.from_numpy(arrays["input_ids"]), mask)
    real = torch.ones(got.shape[:2], dtype=torch.bool) if mask is None else torch.from_numpy(mask).bool()
    want = torch.from_numpy(arrays["logits"])
    assert got.shape == want.shape
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

"""The shadow block: a second prediction of each position that does not attend to the token standing there."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from attn_sampler import Engine, InvalidInputError, SamplingParams
from attn_sampler.cache import Slots, Stretch
from attn_sampler.models.seam import Ask, Model


def canvas(engine: Engine, lengths: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Ragged rows of random tokens, about half of them masks."""
    rng = torch.Generator().manual_seed(3)
    ids = torch.randint(0, 40, (len(lengths), max(lengths)), generator=rng)
    ids[torch.rand(ids.shape, generator=rng) < 0.5] = engine.model.mask_id
    return ids, torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


def asked(rows: list[int], low: list[int], width: list[int]) -> Ask:
    """Positions low .. low + width - 1 of each row; narrower rows repeat their last."""
    place = torch.arange(max(width))
    positions = torch.stack([a + place.clamp(max=w - 1) for a, w in zip(low, width, strict=True)])
    return Ask(torch.tensor(rows), positions, unseen=torch.stack([place < w for w in width]))


def by_definition(model: Model, ids: Tensor, low: int, high: int) -> Tensor:
    """One row: the stock class on canvas + shadow with its mask written out entry by entry."""
    n, b = len(ids), high - low
    bias = torch.full((n + b, n + b), -torch.inf)
    bias[:n, :n] = 0
    for i in range(b):
        for j in range(n):
            if j != low + i:
                bias[n + i, j] = 0
        bias[n + i, n:] = 0
    both = torch.cat([ids, torch.full((b,), model.mask_id)])[None]
    places = torch.cat([torch.arange(n), torch.arange(low, high)])[None]
    with torch.inference_mode():
        out = model.net.base_model(  # type: ignore[attr-defined]
            input_ids=both, attention_mask=bias[None, None], position_ids=places, use_cache=False, is_causal=False
        )
        return model.family.head(model.net, out.last_hidden_state[0, n:])  # type: ignore[attr-defined]


def test_it_is_the_forward_pass_written_out(llada_gqa: Engine) -> None:
    model, lengths = llada_gqa.model, (20, 13, 17)
    ids, valid = canvas(llada_gqa, lengths)
    low, width = [5, 4], [8, 6]
    plain = model.predict(ids, valid, [replace(asked([0, 2], low, width), unseen=None)])[0]
    (got,) = model.predict(ids, valid, [asked([0, 2], low, width)])
    torch.testing.assert_close(got.logits, plain.logits, atol=1e-4, rtol=1e-5)
    assert got.unseen is not None
    assert plain.unseen is None
    for k, row in enumerate([0, 2]):
        want = by_definition(model, ids[row, : lengths[row]], low[k], low[k] + width[k])
        torch.testing.assert_close(got.unseen[k, : width[k]], want, atol=1e-4, rtol=1e-5)


def test_beside_rows_with_a_cache(llada_gqa: Engine) -> None:
    """Row 1 computes a part of its canvas only; row 0 has its shadow all the same, and the slots keep the canvas' size."""
    model = llada_gqa.model
    ids, valid = canvas(llada_gqa, (20, 16))
    slots, every = Slots(), torch.tensor([0, 0])
    model.predict(ids, valid, [], Stretch(slots, every, torch.tensor([20, 16]), 20))
    stretch = Stretch(slots, torch.tensor([0, 4]), torch.tensor([20, 12]), 20)
    (got,) = model.predict(ids, valid, [asked([0], [5], [8])], stretch)
    assert got.unseen is not None
    torch.testing.assert_close(got.unseen[0], by_definition(model, ids[0], 5, 13), atol=1e-4, rtol=1e-5)
    (later,) = model.predict(ids, valid, [Ask(torch.tensor([1]), torch.tensor([[4, 5]]))], stretch)
    (plain,) = model.predict(ids, valid, [Ask(torch.tensor([1]), torch.tensor([[4, 5]]))])
    torch.testing.assert_close(later.logits, plain.logits, atol=1e-4, rtol=1e-5)


def test_what_it_cannot_work_with(llada_gqa: Engine) -> None:
    with pytest.raises(InvalidInputError, match="beyond the active block") as caught:
        llada_gqa.generate([[1, 2]], SamplingParams(sampler="wino", max_new_tokens=8, cache="dual"))
    assert caught.value.field == "cache"
    with pytest.raises(InvalidInputError, match="guidance") as caught:
        llada_gqa.generate([[1, 2]], SamplingParams(sampler="wino", max_new_tokens=8, cfg_scale=0.5))
    assert caught.value.field == "cfg_scale"

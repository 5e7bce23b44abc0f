"""KLASS's two forms, with few steps and with ``compat="reference"``, against a plain loop; golden runs: test_golden_*.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from attn_sampler import Engine, SamplingParams
from fakes import TableModel, random_table

VOCAB, MASK, NEW = 8, 7, 24


def drifting(seed: int) -> torch.Tensor:
    """Logits of 30 passes, (pass, position, vocab): some positions settle early, some late, some are never sure."""
    start, end = (random_table(seed + i, (NEW + 1) * VOCAB, 1, 3.0).reshape(NEW + 1, VOCAB).double() for i in range(2))
    pace = torch.linspace(0.5, 12, NEW + 1)[torch.randperm(NEW + 1, generator=torch.Generator().manual_seed(seed))]
    share = (-torch.arange(30)[:, None] / pace).exp()[..., None].double()
    return start * share + 2 * end * (1 - share)


def plain(logits: np.ndarray, block: int, steps: int | None, o: dict[str, Any]) -> list[list[int]]:
    """Positions that each pass writes."""
    p_all = np.exp(np.delete(logits, MASK, 2)[:, 1:])
    p_all /= p_all.sum(2, keepdims=True)
    past, before = np.zeros((NEW, o["history"])), np.zeros_like(p_all[0])
    left, out, dream = set(range(NEW)), [], o["form"] == "dream"
    for low in range(0, NEW, block):
        per = block if steps is None else steps // (NEW // block)
        for step in range(per):
            here = [j for j in sorted(left) if low <= j < low + block]
            if not here:
                break
            p = p_all[len(out)]
            kl = (p * (np.log(p + 1e-12) - np.log(before + 1e-12))).sum(1)
            past, before, conf = np.concatenate([past[:, 1:], kl[:, None]], 1), p, p.max(1)
            sure = {j for j in here if (conf[j] >= o["threshold"] if dream else conf[j] > o["threshold"])}
            ready = {j for j in sure if (past[j] < o["kl_threshold"]).all() and (dream or step >= o["history"] - 1)}
            if o["unmask"] != "all" and ready:
                ready = {max(ready, key=lambda j: conf[j]) if o["unmask"] == "max_conf" else min(ready, key=lambda j: kl[j])}
            by_confidence = sorted(here, key=lambda j: -conf[j])
            share = block // per + (step < block % per)
            if o["compat"] == "reference":
                chosen = ready or set(by_confidence[: 1 if dream else share])
                chosen = set(here) if step == per - 1 else chosen  # there they stay masked
            else:
                due = sum(block // per + (i < block % per) for i in range(step + 1)) - (block - len(here))
                owed = 1 if steps is None else block if step == per - 1 else max(1, share, due)
                chosen = ready if len(ready) >= min(owed, len(here)) else ready | set(by_confidence[:owed])
            left -= chosen
            out.append(sorted(chosen))
    return out


@pytest.mark.parametrize("unmask", ["all", "max_conf", "min_kl"])
@pytest.mark.parametrize("compat", ["none", "reference"])
@pytest.mark.parametrize("form", ["llada", "dream"])
def test_against_a_plain_loop(form: str, compat: str, unmask: str) -> None:
    ahead = 0
    for seed in range(4):
        logits = drifting(seed)
        model = TableModel(lambda ids, t, logits=logits: logits[t].expand(len(ids), -1, -1), mask_id=MASK, vocab_size=VOCAB)
        for steps in (None, 6, 12, NEW):
            o = {"threshold": 0.6, "kl_threshold": 0.05, "history": 2, "form": form, "unmask": unmask, "compat": compat}
            params = SamplingParams(
                sampler="klass",
                max_new_tokens=NEW,
                block_length=None if form == "dream" else 8,
                steps=steps,
                ignore_eos=True,
                **o,
            )
            model.forwards = 0
            written = [[p - 1 for p in step.positions] for step in Engine(model).stream([0], params)]
            assert written == plain(logits.numpy(), NEW if form == "dream" else 8, steps, o)
            ahead += any(len(positions) > 1 for positions in written[:-1])
    assert ahead or unmask != "all", "something was ready"


def test_one_of_the_ready_by_chance() -> None:
    """The same one for the same seed; not always the one that another rule takes."""
    logits = drifting(1)
    model = TableModel(lambda ids, t: logits[t].expand(len(ids), -1, -1), mask_id=MASK, vocab_size=VOCAB)
    orders = {}
    for name, seed in (("random", 1), ("random", 2), ("max_conf", 1), ("min_kl", 1)):
        options = {"threshold": 0.3, "kl_threshold": 0.5, "unmask": name, "form": "dream"}
        params = SamplingParams(sampler="klass", max_new_tokens=NEW, ignore_eos=True, seed=seed, **options)
        for _ in range(2):
            model.forwards = 0
            order = [step.positions for step in Engine(model).stream([0], params)]
            assert orders.setdefault((name, seed), order) == order
    assert all(len(positions) == 1 for order in orders.values() for positions in order)
    assert len({str(order) for order in orders.values()}) == 4

"""What Dream leaves to chance has the distribution of its authors: which positions ``origin`` writes, what ``alg_temp`` draws.

Seeds are fixed, so each outcome is; a frequency may be five standard deviations off, which one in a million draws would be.
"""

from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch
from torch import Tensor

from attn_sampler import Engine, SamplingParams, samplers
from attn_sampler.propose import Choice, propose
from attn_sampler.seam import Selection, Window
from fakes import TableModel, random_table

DRAWS = 20_000
EPS = 1e-3
VOCAB, MASK = 8, 7


def drawn(logits: Tensor, steps: int, step: int = 0, **options: object) -> Selection:
    """One selection of as many rows as there are draws, all with these logits (width, vocab), each with a seed of its own."""
    width = len(logits)
    zero, seed = torch.zeros(DRAWS, dtype=torch.long), torch.arange(DRAWS)
    choice = Choice(zero.double(), zero + 1.0, zero, seed, zero + step, samples=False, filters=False)
    positions = torch.arange(3, 3 + width).expand(DRAWS, -1)
    window = Window(
        positions, torch.ones(DRAWS, width).bool(), propose(logits.expand(DRAWS, -1, -1), choice, positions), zero + 1,
        zero + step, seed, zero + step, steps=zero + steps, choice=choice,
    )  # fmt: skip
    return samplers.build("dream", options).select(window, {})


def check_frequency(hits: Tensor, chance: float) -> None:
    """Of independent trials (draws), within five standard deviations."""
    n = hits.numel()
    assert abs(float(hits.double().mean()) - chance) <= 5 * math.sqrt(chance * (1 - chance) / n) + 1e-12, (hits.sum(), chance * n)


def share(step: int, steps: int) -> float:
    """Of what is still masked, the part that this step uncovers: 1 - t(i + 1) / t(i), the times even from 1 to EPS."""
    now, then = (1 + (EPS - 1) * i / steps for i in (step, step + 1))
    return 1.0 if step == steps - 1 else 1 - then / now


@pytest.mark.parametrize("compat", ["none", "reference"])
@pytest.mark.parametrize(("steps", "step"), [(8, 0), (8, 3), (40, 0), (3, 1)])
def test_origin_writes_every_mask_with_the_same_chance_of_its_own(steps: int, step: int, compat: str) -> None:
    """Counts are binomial; where none is written, ``compat="none"`` writes one."""
    n, p = 12, share(step, steps)
    answer = drawn(random_table(0, n, VOCAB), steps, step, alg="origin", compat=compat)
    count = answer.commit.sum(1)
    chances = [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]
    if compat == "none":
        chances[:2] = [0.0, chances[0] + chances[1]]
    for k, chance in enumerate(chances):
        check_frequency(count == k, chance)
    none = 0.0 if compat == "reference" else (1 - p) ** n
    for column in answer.commit.mT:  # the one that is written instead of none is any of them
        check_frequency(column, p + none / n)
    if compat == "reference":
        for a, b in combinations(answer.commit.mT, 2):
            check_frequency(a & b, p * p)
        assert answer.hold is not None
        assert torch.equal(answer.hold, count == 0)


def test_the_last_step_of_origin_writes_all() -> None:
    assert drawn(random_table(0, 5, VOCAB), 4, 3, alg="origin").commit.all()


def test_the_first_counts_of_whole_runs_are_binomial() -> None:
    """Through the engine: a row's seed is what its chances come from, forward by forward."""
    rows, n, steps = 400, 16, 4
    model = TableModel(random_table(1, 32, VOCAB), mask_id=MASK)
    first: dict[int, int] = {}
    params = [
        SamplingParams(
            sampler="dream", alg="origin", compat="reference", max_new_tokens=n, steps=steps, seed=seed, ignore_eos=True
        )
        for seed in range(rows)
    ]
    results = Engine(model, max_rows=rows).generate(
        [[1]] * rows, params, on_step=lambda step: first.setdefault(step.row, len(step.positions))
    )
    assert all(result.forwards <= steps and MASK not in result.token_ids for result in results)
    p = share(0, steps)
    written = torch.tensor(list(first.values())).double()
    assert abs(float(written.mean()) - n * p) <= 5 * math.sqrt(n * p * (1 - p) / rows)
    assert abs(float(written.var()) - n * p * (1 - p)) <= 5 * n * p * (1 - p) * math.sqrt(2 / rows)


def sureness(alg: str, logits: Tensor) -> Tensor:
    p = logits.double().softmax(-1)
    best = p.sort(-1, descending=True).values
    return {"maskgit_plus": best[:, 0], "topk_margin": best[:, 0] - best[:, 1], "entropy": (p * p.log()).sum(-1)}[alg]


@pytest.mark.parametrize("alg", ["maskgit_plus", "topk_margin", "entropy"])
@pytest.mark.parametrize("alg_temp", [0.1, 0.4, 3.0])
def test_positions_are_drawn_from_the_softmax_of_confidence_over_alg_temp(alg: str, alg_temp: float) -> None:
    logits = random_table(5, 5, VOCAB, 1.5)
    chances = (sureness(alg, logits) / alg_temp).softmax(-1).tolist()
    one = drawn(logits, 5, alg=alg, alg_temp=alg_temp).commit
    assert (one.sum(1) == 1).all()
    for column, chance in zip(one.mT, chances, strict=True):
        check_frequency(column, chance)


@pytest.mark.parametrize("alg", ["maskgit_plus", "entropy"])
def test_two_positions_are_drawn_one_after_the_other_without_replacement(alg: str) -> None:
    logits = random_table(5, 5, VOCAB, 1.5)
    chances = (sureness(alg, logits) / 0.3).softmax(-1).tolist()
    two = drawn(logits, 2, alg=alg, alg_temp=0.3).commit
    assert (two.sum(1) == 2).all()
    for a, b in combinations(range(5), 2):
        chance = chances[a] * chances[b] * (1 / (1 - chances[a]) + 1 / (1 - chances[b]))
        check_frequency(two[:, a] & two[:, b], chance)


def test_as_alg_temp_falls_the_surest_position_is_drawn() -> None:
    logits = random_table(5, 5, VOCAB, 1.5)
    for alg in ("maskgit_plus", "topk_margin", "entropy"):
        plain, cold = drawn(logits, 5, alg=alg).commit, drawn(logits, 5, alg=alg, alg_temp=1e-4).commit
        assert torch.equal(plain, cold)
        assert (plain.int().argmax(1) == sureness(alg, logits).argmax()).all()

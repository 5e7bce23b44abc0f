"""WINO: against the authors' code, against a slow twin, and what its options reduce to."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from attn_sampler import Engine, Hole, SamplingParams
from attn_sampler.propose import Proposal
from attn_sampler.samplers.wino import Wino
from attn_sampler.seam import Memory, Window
from fakes import TableModel, one_hot, random_table
from test_golden_samplers import each

VOCAB, MASK = 8, 7


@each("wino_sequence")
def test_a_block_of_the_authors(case: dict[str, Any]) -> None:
    """A stub network answers forward t with block_logits[t], and with shadow_logits[t] for the copy, whatever the canvas is."""

    def answers(name: str) -> Any:
        logits = torch.tensor(case[name], dtype=torch.float64)
        whole = torch.cat([torch.zeros(len(logits), case["prompt_length"], logits.shape[2]), logits], 1)
        return lambda ids, t: whole[t].expand(len(ids), -1, -1)

    vocab = len(case["block_logits"][0][0])
    model = TableModel(answers("block_logits"), unseen=answers("shadow_logits"), mask_id=case["mask_id"], vocab_size=vocab)
    params = SamplingParams(
        sampler="wino",
        draft_threshold=case["params"]["tau1"],
        verify_threshold=case["params"]["tau2"],
        max_new_tokens=case["block_length"],
        block_length=case["block_length"],
        ignore_eos=True,
    )
    steps = list(Engine(model).stream([0] * case["prompt_length"], params))
    assert [step.ids[case["prompt_length"] :] for step in steps] == case["tokens"][1:]
    assert len(steps) == model.forwards == case["nfe"]


class Slow:
    """One row's block, from the formula."""

    def __init__(self, sampler: Wino) -> None:
        self.sampler, self.verifiable, self.drafted = sampler, set[int](), 30

    def step(self, p: list[float], q: list[float], masked: list[int], quota: int, final: bool) -> tuple[set[int], set[int]]:
        ranked = sorted(masked, key=lambda i: (-p[i], i))
        passing = [i for i in ranked if p[i] > self.sampler.draft_threshold]
        most = min(max(int(0.7 * len(masked)), 5), 20)
        drafted = set(ranked[: max(min(max(len(passing), 1), most), quota)])
        taken = set[int]()
        if len(drafted) > 1 and not final:
            doubtful = sorted((i for i in self.verifiable if q[i] < self.sampler.verify_threshold), key=lambda i: (q[i], i))
            taken = set(doubtful if len(doubtful) < self.drafted else doubtful[: self.drafted - 1])
        self.verifiable = (self.verifiable | drafted) - taken
        self.drafted = len(drafted)
        return drafted, taken


def drawn(seed: int, rows: int, width: int, digits: int) -> Tensor:
    """Probabilities, rounded so that ties occur."""
    return torch.rand(rows, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).round(decimals=digits)


@given(
    widths=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    draft=st.sampled_from([0.0, 0.3, 0.6, 1.0]),
    verify=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    budget=st.booleans(),
    seed=st.integers(0, 10**6),
    digits=st.sampled_from([1, 6]),
)
def test_the_slow_twin(widths: list[int], draft: float, verify: float, budget: bool, seed: int, digits: int) -> None:
    """Ragged rows through two blocks each; every row's block takes at most as many passes as it has masks, or as planned."""
    sampler, width = Wino(draft_threshold=draft, verify_threshold=verify), max(widths)
    own = torch.arange(width) < torch.tensor(widths)[:, None]
    positions = torch.minimum(torch.arange(width).expand(len(widths), -1), torch.tensor(widths)[:, None] - 1)
    zero = torch.zeros(len(widths), dtype=torch.long)
    plan = torch.tensor([max(1, w // 3) if budget else w for w in widths])
    memory: Memory = {}
    for block in range(2):
        twins, masked = [Slow(sampler) for _ in widths], own.clone()
        for step in range(int(plan.max())):
            p, q = (drawn(seed + 1000 * block + 2 * step + k, len(widths), width, digits) for k in (0, 1))
            left = masked.sum(1)
            quota = torch.where(torch.tensor(budget), -(-left // (plan - step).clamp(min=1)), 1).clamp(min=1)
            proposal = Proposal(torch.zeros_like(positions), p, torch.zeros(*p.shape, 2))
            window = Window(
                positions, masked, proposal, quota, zero + step, zero, zero + step, steps=plan, leave_one_out=q,
                revisable=own & ~masked,
            )  # fmt: skip
            answer = sampler.select(window, memory)
            memory = answer.memory
            assert answer.remask is not None
            for k, twin in enumerate(twins):
                if left[k] == 0:
                    continue
                got = tuple(set(flags[k].nonzero()[:, 0].tolist()) for flags in (answer.commit, answer.remask))
                where = masked[k].nonzero()[:, 0].tolist()
                assert got == twin.step(p[k].tolist(), q[k].tolist(), where, int(quota[k]), step + 1 >= plan[k])
            masked = (masked & ~answer.commit) | (answer.remask & (left > 0)[:, None])
        assert not masked.any(), "a block ends within its plan"


@given(block=st.integers(1, 12), count=st.integers(1, 2), seed=st.integers(0, 99), prompt=st.lists(st.integers(0, 6), min_size=1))
def test_nothing_drafted_in_parallel_is_the_confidence_sampler(block: int, count: int, seed: int, prompt: list[int]) -> None:
    """A threshold of 1 drafts the best mask alone, and one draft takes nothing back."""
    model = TableModel(random_table(seed, 64, VOCAB), mask_id=MASK, moving=True, unseen=random_table(seed + 1, 64, VOCAB))
    where = {"max_new_tokens": block * count, "block_length": block, "ignore_eos": True}
    strict = Engine(model).stream(prompt, SamplingParams(sampler="wino", draft_threshold=1.0, **where))
    plain = Engine(model).stream(prompt, SamplingParams(sampler="confidence", **where))
    assert [(step.positions, step.ids) for step in strict] == [(step.positions, step.ids) for step in plain]


def test_certain_tokens_go_as_fast_as_the_limits_allow() -> None:
    """32 masks: 70 % is 22, so 20; then 70 % of 12 is 8; then 4 of the 5 that always may. What is certain is never taken back."""
    tokens = [i % MASK for i in range(40)]
    model = TableModel(one_hot(tokens, VOCAB), mask_id=MASK, unseen=one_hot(tokens, VOCAB))
    steps = list(Engine(model).stream([1, 2], SamplingParams(sampler="wino", max_new_tokens=32, ignore_eos=True)))
    assert [len(step.positions) for step in steps] == [20, 8, 4]
    assert steps[-1].ids[2:] == tokens[2:34]


def test_a_verify_threshold_of_zero_takes_nothing_back() -> None:
    for verify, goes_back in ((0.0, False), (0.9, True)):
        model = TableModel(random_table(3, 64, VOCAB), mask_id=MASK, moving=True, unseen=random_table(4, 64, VOCAB))
        params = SamplingParams(sampler="wino", verify_threshold=verify, max_new_tokens=24, block_length=24, ignore_eos=True)
        left = [24, *(len(step.masked) for step in Engine(model).stream([1], params))]
        written = [before - after for before, after in pairwise(left)]
        assert any(n < 1 for n in written) == goes_back


def test_given_tokens_of_a_block_are_never_taken_back() -> None:
    model = TableModel(random_table(5, 64, VOCAB), mask_id=MASK, moving=True, unseen=random_table(6, 64, VOCAB))
    params = SamplingParams(sampler="wino", draft_threshold=0.2, max_new_tokens=12, block_length=12)
    result = Engine(model).infill([[1], Hole(4), [2, 3], Hole(5)], params)
    assert [result.token_ids[i] for i in (0, 5, 6)] == [1, 2, 3]
    assert MASK not in result.token_ids

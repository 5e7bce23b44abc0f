"""DAWN's stray index: what the accident in the authors' last loop does to what is written, and what is left of it here."""

from __future__ import annotations

from attn_sampler import Engine, Hole, SamplingParams, samplers
from fakes import TableModel, random_table
from test_pairwise import FREE, Row, batch_of


def test_what_it_does_to_a_choice() -> None:
    """In the authors' code it writes the canvas's first position. Behind a prompt that is a given token, so nothing is left of it
    here; only a block that begins with the canvas can show it, and there it is one more commit."""
    plain, stray = (samplers.build("dawn", {**FREE, "compat": compat}) for compat in ("none", "reference"))
    more = {True: 0, False: 0}
    for seed in range(300):
        row = Row(seed, seed % 3, [True] * 8, 2.0)
        window = batch_of([row], [1], "canvas")
        a, b = (set(sampler.select(window, {}).commit[0].nonzero()[:, 0].tolist()) for sampler in (plain, stray))
        assert b - a <= {0}
        assert a <= b
        more[row.low > 0] += b != a
    assert more[False] > 0
    assert more[True] == 0


def test_through_the_engine() -> None:
    """With a prompt the runs are the same and the prompt stays; a template that begins with a hole may go another way."""
    ways = set[bool]()
    for seed in range(12):
        attention = random_table(seed + 1, 48, 48, 2.0)
        model = TableModel(random_table(seed, 48, 8, 2.0), mask_id=7, moving=True, attention=attention, num_layers=8)
        plain, stray = (
            SamplingParams(sampler="dawn", max_new_tokens=12, block_length=12, ignore_eos=True, compat=compat, **FREE)
            for compat in ("none", "reference")
        )
        one, other = ([step.ids for step in Engine(model).stream([seed % 7], params)] for params in (plain, stray))
        assert one == other
        assert all(ids[0] == seed % 7 for ids in other)
        holes = [Engine(model).infill([Hole(12), [1]], params) for params in (plain, stray)]
        ways.add(holes[0].token_ids == holes[1].token_ids and holes[0].forwards == holes[1].forwards)
    assert ways == {True, False}

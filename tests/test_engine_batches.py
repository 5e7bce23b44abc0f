"""Row k of any batch equals that prompt alone, whatever shares its forward passes and whenever they join or leave."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attn_sampler import Engine, Hole, InvalidInputError, Result, SamplingParams, Step, samplers
from fakes import TableModel, random_table

VOCAB, MASK, EOS = 9, 8, 7

CONFIGS: list[dict[str, Any]] = [{"sampler": name} for name in samplers.names()] + [
    {"sampler": "attention", "rows": "masked", "norm": "global", "diag": False, "threshold": 0.5},
    {"sampler": "attention", "rows": "block", "norm": "global", "sub_block_length": 3},
    {"sampler": "attention", "window": "leftmost", "sub_block_length": 2, "layers": (1,), "heads": (0,)},
    {"sampler": "attention", "refresh": "subblock", "sub_block_length": 3, "threshold": 0.4},
    {"sampler": "fast-dllm", "threshold": 0.5},
    {"sampler": "klass", "threshold": 0.3, "kl_threshold": 2.0, "history": 1},
    {"sampler": "confidence", "k": 2},
    {"sampler": "wino", "draft_threshold": 0.2, "verify_threshold": 0.5},
    {"sampler": "attention-fixed", "score_threshold": 0.9, "k": 1},
    {"sampler": "dinfer-hierarchy", "threshold": 0.6, "low": 0.2, "remask": 0.5},
    {"sampler": "dream", "alg": "origin"},
    {"sampler": "dream", "alg": "maskgit_plus", "alg_temp": 0.3},
    {"sampler": "dream", "alg": "topk_margin", "compat": "reference"},
    {"sampler": "llada2", "threshold": 0.6, "k": 2, "editing_threshold": 0.5, "max_post_steps": 3},
    {"sampler": "confidence", "early_exit": "sched:high=4,low=1,max_change_ratio=0.5"},
    {"sampler": "fast-dllm", "early_exit": "prophet:early=4,middle=2,late=1,region_start=1,region_length=3"},
]
UNGUIDED = {name for name in samplers.names() if samplers.build(name, {}).needs.leave_one_out}
"""What does not go with guidance."""
NOISE: list[dict[str, Any]] = [
    {},
    {"temperature": 0.7},
    {"temperature": 1.3, "top_p": 0.8},
    {"temperature": 0.5, "top_k": 3},
    {"temperature": 2.0, "top_p": 0.9, "top_k": 4},
]

Job = tuple[list[int], dict[str, Any]]
"""A prompt and its parameters."""


@st.composite
def jobs(draw: st.DrawFn, vocab: int, eos: int, longest: int) -> Job:
    tokens = st.integers(0, vocab - 1).filter(lambda t: t != eos)
    prompt = draw(st.lists(tokens, min_size=1, max_size=longest))
    block, count = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    rest = {
        "max_new_tokens": block * count,
        "block_length": block,
        "seed": draw(st.integers(0, 2**63 - 1)),
        "ignore_eos": draw(st.booleans()),
        "cfg_scale": draw(st.sampled_from([0.0, 0.0, 0.5])),
        "confidence_eos_eot_inf": draw(st.booleans()),
    }
    config = draw(st.sampled_from(CONFIGS))
    if config["sampler"] in UNGUIDED:
        rest["cfg_scale"] = 0.0
    return prompt, {**config, **draw(st.sampled_from(NOISE)), **rest}


def same(left: Result, right: Result) -> bool:
    names = ("text", "token_ids", "finish_reason", "prompt_tokens", "completion_tokens", "forwards", "seed")
    return all(getattr(left, name) == getattr(right, name) for name in names)


def table_engine(seed: int, max_rows: int = 32) -> Engine:
    """Logits and attention change with every commit; the logits are exactly the same for a row alone and in a batch."""
    attention = random_table(seed + 1, 31, 31, 2.0)
    model = TableModel(random_table(seed, 31, VOCAB, 2.0), mask_id=MASK, eos_ids=(EOS,), moving=True, attention=attention)
    return Engine(model, max_rows=max_rows)


# --- the property -----------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(batch=st.lists(jobs(287, 270, 12).filter(lambda job: 283 not in job[0]), min_size=2, max_size=4))
def test_a_row_of_a_ragged_batch_equals_that_prompt_alone(batch: list[Job], llada_gqa: Engine) -> None:
    """On a network in float32: mixed samplers, temperature 0 and seeds, guidance, different lengths."""
    params = [SamplingParams(**given) for _, given in batch]
    together = llada_gqa.generate([prompt for prompt, _ in batch], params)
    for (prompt, _), one, result in zip(batch, params, together, strict=True):
        (alone,) = llada_gqa.generate([prompt], one)
        assert same(result, alone)


@settings(max_examples=40)
@given(
    batch=st.lists(st.tuples(jobs(VOCAB - 1, EOS, 7), st.integers(0, 5), st.none() | st.integers(1, 4)), min_size=1, max_size=5),
    seed=st.integers(0, 99),
    max_rows=st.integers(1, 5),
)
def test_rows_that_join_leave_and_wait_disturb_nobody(batch: list[tuple[Job, int, int | None]], seed: int, max_rows: int) -> None:
    """Each row is admitted at some step, and perhaps cancelled so many steps later."""
    engine = table_engine(seed, max_rows)
    params = [SamplingParams(**given) for (_, given), _, _ in batch]
    numbers: dict[int, int] = {}
    taken: dict[int, list[Step]] = {i: [] for i in range(len(batch))}
    for clock in range(2000):  # remdm alone may spend 66 forwards on a block of two
        for i, ((prompt, _), joins, _) in enumerate(batch):
            if joins == clock:
                numbers[engine.admit(prompt, params[i])] = i
        for step in engine.step():
            taken[numbers[step.row]].append(step)
        for number, i in numbers.items():
            leaves = batch[i][2]
            if leaves is not None and len(taken[i]) == leaves:
                engine.cancel(number)
        if len(numbers) == len(batch) and not engine.unfinished:
            break
    assert engine.unfinished == 0
    assert max(rows for rows, _ in engine.model.lengths) <= 2 * max_rows  # type: ignore[attr-defined]
    for i, ((prompt, _), _, leaves) in enumerate(batch):
        alone = list(table_engine(seed).stream(prompt, params[i]))
        assert [step.ids for step in taken[i]] == [step.ids for step in alone[:leaves]]
        for step, want in zip(taken[i], alone[:leaves], strict=True):
            assert step.scores == pytest.approx(want.scores, abs=1e-6)
        if leaves is None or len(alone) <= leaves:
            assert taken[i][-1].result is not None
            assert same(taken[i][-1].result, alone[-1].result)  # type: ignore[arg-type]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: "-".join(map(str, config.values())))
def test_a_row_that_joins_a_group_with_memory_starts_afresh(config: dict[str, Any]) -> None:
    """Also one whose answer begins at position 0: no number may pass for another row's memory."""
    params = SamplingParams(**config, max_new_tokens=12, block_length=6, ignore_eos=True, seed=1)
    engine = table_engine(5)
    engine.admit([1, 2, 3], params)
    engine.step()
    joined = engine.infill([Hole(6), [4, 5]], params)
    assert same(joined, table_engine(5).infill([Hole(6), [4, 5]], params))


def test_answers_and_holes_share_a_batch() -> None:
    template = [[1, 2], Hole(3), [3], Hole(2)]
    params = [
        SamplingParams(**config, max_new_tokens=6, block_length=3, seed=i, temperature=i % 2) for i, config in enumerate(CONFIGS)
    ]
    engine = table_engine(4)
    rows = [engine.prepare_infill(template, p) if i % 3 else engine.prepare([1] * (i % 5 + 1), p) for i, p in enumerate(params)]
    for i, (p, result) in enumerate(zip(params, engine.run(rows), strict=True)):
        alone = table_engine(4)
        assert same(result, alone.infill(template, p) if i % 3 else alone.generate([[1] * (i % 5 + 1)], p)[0])


def test_every_sampler_in_one_batch_in_any_order(llada_gqa: Engine) -> None:
    every = [SamplingParams(**config, max_new_tokens=8, block_length=8, seed=i) for i, config in enumerate(CONFIGS)]
    prompts = [list(range(10, 11 + i % 5)) for i in range(len(every))]
    forward = llada_gqa.generate(prompts, every)
    backward = llada_gqa.generate(prompts[::-1], every[::-1])[::-1]
    assert all(same(a, b) for a, b in zip(forward, backward, strict=True))


def test_a_seed_repeats_the_answer_and_another_changes_it(llada_gqa: Engine) -> None:
    hot = {"sampler": "confidence", "temperature": 1.5, "max_new_tokens": 16}
    first, second = llada_gqa.generate([[1, 2, 3]] * 2, SamplingParams(**hot))
    assert first.token_ids == second.token_ids, "one params is one seed"
    (again,) = llada_gqa.generate([[1, 2, 3]], SamplingParams(**hot, seed=first.seed))
    assert again.token_ids == first.token_ids
    others = llada_gqa.generate([[1, 2, 3]] * 32, [SamplingParams(**hot, seed=seed) for seed in range(32)])
    assert len({tuple(other.token_ids) for other in others}) > 24, "two seeds may happen to agree, but seldom"


# --- the queue --------------------------------------------------------------------------------------------------------


def test_no_more_than_max_rows_share_a_forward() -> None:
    engine = table_engine(0, max_rows=2)
    params = SamplingParams(sampler="confidence", max_new_tokens=4, ignore_eos=True)
    results = engine.generate([[i] for i in range(1, 6)], params)
    assert [rows for rows, _ in engine.model.lengths] == [2] * 8 + [1] * 4  # type: ignore[attr-defined]
    assert [r.forwards for r in results] == [4] * 5, "waiting is no forward"
    assert all(same(r, table_engine(0).generate([[i]], params)[0]) for i, r in enumerate(results, 1))


def test_the_canvas_shrinks_when_the_longest_row_ends() -> None:
    engine = table_engine(0)
    short = SamplingParams(sampler="left-to-right", max_new_tokens=6, ignore_eos=True)
    long = SamplingParams(sampler="left-to-right", max_new_tokens=2, ignore_eos=True)
    engine.generate([[1], [1] * 20], [short, long])
    assert engine.model.lengths == [(2, 22)] * 2 + [(1, 7)] * 4  # type: ignore[attr-defined]


def test_cancel() -> None:
    engine = table_engine(0, max_rows=1)
    params = SamplingParams(sampler="confidence", max_new_tokens=3, ignore_eos=True)
    active, waiting, last = (engine.admit([1, 2], params) for _ in range(3))
    assert [step.row for step in engine.step()] == [active]
    engine.cancel(waiting)
    engine.cancel(active)
    engine.cancel(active)  # twice does nothing
    engine.cancel(12345)
    assert engine.unfinished == 1
    assert [step.row for _ in range(3) for step in engine.step()] == [last] * 3
    assert engine.step() == []
    assert engine.unfinished == 0
    forwards = engine.model.forwards  # type: ignore[attr-defined]
    assert engine.step() == []
    assert engine.model.forwards == forwards, "nothing to do is no forward"  # type: ignore[attr-defined]


# --- streams ----------------------------------------------------------------------------------------------------------


PARAMS = SamplingParams(sampler="confidence", max_new_tokens=8, ignore_eos=True)


def test_interleaved_streams_share_forwards() -> None:
    engine = table_engine(2)
    streams: dict[int, Iterator[Step]] = {i: engine.stream([i], PARAMS) for i in (1, 2, 3)}
    taken: dict[int, list[Step]] = {i: [] for i in streams}
    while streams:
        for i in list(streams):
            step = next(streams[i], None)
            if step is None:
                del streams[i]
            else:
                taken[i].append(step)
    for i, steps in taken.items():
        assert [s.ids for s in steps] == [s.ids for s in table_engine(2).stream([i], PARAMS)]
    # a stream enters at its first `next`, when those before it have had a step: nine forwards at most, not twenty-four
    assert engine.model.forwards <= 8 + 2  # type: ignore[attr-defined]


def test_admitted_rows_keep_their_steps_while_a_stream_runs() -> None:
    engine = table_engine(2)
    number = engine.admit([1], PARAMS)
    streamed = list(engine.stream([2], PARAMS))
    assert len(streamed) == 8
    mine: list[Step] = []
    while not mine or not mine[-1].finished:
        mine += engine.step()
    assert {step.row for step in mine} == {number}
    assert [s.ids for s in mine] == [s.ids for s in table_engine(2).stream([1], PARAMS)]


def test_closing_a_stream_cancels_its_row() -> None:
    engine = table_engine(2)
    stream = engine.stream([1], PARAMS)
    next(stream)
    assert engine.unfinished == 1
    stream.close()  # type: ignore[attr-defined]
    assert engine.unfinished == 0
    unstarted = engine.stream([1], PARAMS)
    unstarted.close()  # type: ignore[attr-defined]
    assert engine.unfinished == 0


def test_cancelling_the_row_of_a_stream_ends_the_stream_with_an_error() -> None:
    engine = table_engine(2)
    stream = engine.stream([1], PARAMS)
    engine.cancel(next(stream).row)
    with pytest.raises(InvalidInputError, match="cancelled"):
        next(stream)


def test_a_failing_callback_leaves_no_rows_behind() -> None:
    def fail(step: Step) -> None:
        raise KeyError(step.row)

    engine = table_engine(2, max_rows=1)
    with pytest.raises(KeyError):
        engine.generate([[1], [2]], PARAMS, on_step=fail)
    assert engine.unfinished == 0
    assert engine.step() == []


def test_a_wrong_prompt_admits_none_of_the_batch() -> None:
    engine = table_engine(2)
    with pytest.raises(InvalidInputError):
        engine.generate([[1], []], PARAMS)
    assert engine.unfinished == 0


def test_threads_may_share_an_engine() -> None:
    engine = table_engine(2, max_rows=3)
    prompts = [[i, j] for i in range(4) for j in range(3)]
    with ThreadPoolExecutor(4) as pool:
        parts = pool.map(lambda i: engine.generate(prompts[3 * i : 3 * i + 3], PARAMS), range(4))
        results = [result for part in parts for result in part]
    assert all(same(result, table_engine(2).generate([p], PARAMS)[0]) for result, p in zip(results, prompts, strict=True))
    assert engine.unfinished == 0


def test_async_streams_run_side_by_side() -> None:
    engine = table_engine(2)

    async def collect(token: int) -> list[Step]:
        return [step async for step in engine.astream([token], PARAMS)]

    async def main() -> list[list[Step]]:
        return list(await asyncio.gather(*(collect(i) for i in (1, 2, 3, 4))))

    for i, steps in enumerate(asyncio.run(main()), 1):
        assert [s.ids for s in steps] == [s.ids for s in table_engine(2).stream([i], PARAMS)]
    assert engine.unfinished == 0
    assert engine.model.forwards < 4 * 8, "some forwards were shared"  # type: ignore[attr-defined]


def test_a_stream_that_waits_for_a_place_does_not_hold_up_the_others() -> None:
    engine = table_engine(2, max_rows=1)
    order: list[int] = []

    async def collect(token: int) -> None:
        async for _ in engine.astream([token], PARAMS):
            order.append(token)
            await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(collect(1), collect(2))

    asyncio.run(main())
    assert order.index(2) >= 4, "the first stream was still told about its own steps"


def test_leaving_an_async_stream_cancels_its_row() -> None:
    engine = table_engine(2)

    async def main() -> None:
        stream = engine.astream([1], PARAMS)
        async for _ in stream:
            break
        assert engine.unfinished == 1
        await stream.aclose()  # type: ignore[attr-defined]
        assert engine.unfinished == 0

    asyncio.run(main())


def test_a_task_cancelled_in_the_middle_of_a_forward_waits_for_nobody_and_leaves_the_others_alone() -> None:
    engine = table_engine(2)
    predict, inside, cancelled = engine.model.predict, threading.Event(), threading.Event()

    def held(*args: Any) -> Any:
        inside.set()
        assert cancelled.wait(120)
        return predict(*args)

    engine.model.predict = held  # type: ignore[method-assign]

    async def collect(token: int) -> list[Step]:
        return [step async for step in engine.astream([token], PARAMS)]

    async def main() -> list[Step]:
        doomed, other = asyncio.create_task(collect(1)), asyncio.create_task(collect(2))
        assert await asyncio.to_thread(inside.wait, 120)
        engine.cancel(engine.admit([3], PARAMS))  # neither waits for the forward pass, which waits for us
        doomed.cancel()
        asyncio.get_running_loop().call_soon(cancelled.set)  # the forward ends after the task was told
        with pytest.raises(asyncio.CancelledError):
            await doomed
        return await other

    assert [s.ids for s in asyncio.run(main())] == [s.ids for s in table_engine(2).stream([2], PARAMS)]
    assert engine.unfinished == 0

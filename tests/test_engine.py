"""Endings, text, holes, and rows that go wrong."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import attn_sampler as ats
from attn_sampler import Engine, Hole, SamplingParams, Step, samplers
from fakes import ByteTokenizer, ChatTokenizer, TableModel, Tokenizer, one_hot, random_table

ORDERS = ["left-to-right", "random", "confidence", "fast-dllm"]


def writer(tokens: list[int], vocab: int, mask: int, eos: tuple[int, ...] = (), tokenizer: Any = None, seed: int = 0) -> Engine:
    """A model that writes these tokens at these positions, surer of some than of others."""
    strength = torch.linspace(6, 14, len(tokens))[torch.randperm(len(tokens), generator=torch.Generator().manual_seed(seed))]
    return Engine(TableModel(one_hot(tokens, vocab, 1.0) * strength[:, None], mask_id=mask, eos_ids=eos), tokenizer)


# --- endings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("end", [8, 9])  # either of two end tokens
def test_the_first_end_token_ends_the_row_and_is_its_last_token(order: str, end: int) -> None:
    engine = writer([0, 0, 1, 2, 3, end, 4, 8, 9, 5], 11, 10, (8, 9))
    (result,) = engine.generate([[7, 7]], SamplingParams(sampler=order, max_new_tokens=8, seed=0))
    assert result.token_ids == [1, 2, 3, end]
    assert result.finish_reason == "stop"
    assert (result.prompt_tokens, result.completion_tokens) == (2, 4)
    assert result.tokens_per_forward == 4 / result.forwards
    assert result.text == "", "no tokenizer, no text"


def test_a_row_ends_as_soon_as_everything_before_its_end_token_is_there() -> None:
    engine = writer([0, 1, 2, 8, 3, 4, 5], 10, 9, (8,))
    (result,) = engine.generate([[7]], SamplingParams(sampler="left-to-right", max_new_tokens=6))
    assert result.forwards == 3
    table = one_hot([0, 1, 2, 8, 3, 4, 5], 10, 8.0)
    table[3] *= 2  # the end token is what the model is surest of
    table[4:] *= 1.5
    steps = list(
        Engine(TableModel(table, mask_id=9, eos_ids=(8,))).stream([7], SamplingParams(sampler="confidence", max_new_tokens=6))
    )
    assert steps[0].positions == [3]
    assert not steps[0].finished, "positions before it are still masked"
    assert steps[-1].result is not None
    assert steps[-1].result.token_ids == [1, 2, 8]


def test_an_end_token_as_the_last_token_is_a_stop_and_none_at_all_is_a_length() -> None:
    params = SamplingParams(sampler="confidence", max_new_tokens=3)
    (result,) = writer([0, 1, 2, 8], 10, 9, (8,)).generate([[7]], params)
    assert (result.token_ids, result.finish_reason) == ([1, 2, 8], "stop")
    (result,) = writer([0, 1, 2, 3], 10, 9, (8,)).generate([[7]], params)
    assert (result.token_ids, result.finish_reason) == ([1, 2, 3], "length")


def test_ignore_eos_goes_on_and_keeps_everything() -> None:
    engine = writer([0, 1, 8, 2, 8], 10, 9, (8,))
    (result,) = engine.generate([[7]], SamplingParams(sampler="confidence", max_new_tokens=4, ignore_eos=True))
    assert (result.token_ids, result.finish_reason, result.completion_tokens) == ([1, 8, 2, 8], "length", 4)


def test_an_end_token_in_the_prompt_ends_nothing() -> None:
    (result,) = writer([0, 1, 2], 10, 9, (8,)).generate([[8]], SamplingParams(sampler="confidence", max_new_tokens=2))
    assert result.token_ids == [1, 2]


def test_logits_eos_inf_bans_the_end_token() -> None:
    table = one_hot([0, 8, 8], 10, 9.0)
    table[:, 4] = 5.0
    params = SamplingParams(sampler="confidence", max_new_tokens=2, logits_eos_inf=True)
    (result,) = Engine(TableModel(table, mask_id=9, eos_ids=(8,))).generate([[7]], params)
    assert result.token_ids == [4, 4]


@pytest.mark.parametrize("temperature", [0.0, 3.0])
@pytest.mark.parametrize("sampler", samplers.names())
def test_the_mask_token_is_never_written(sampler: str, temperature: float) -> None:
    table = random_table(0, 24, 6)
    table[:, 5] = 30.0  # the model wants nothing more than a mask
    engine = Engine(TableModel(table, mask_id=5, attention=random_table(1, 24, 24)))
    params = SamplingParams(sampler=sampler, max_new_tokens=12, temperature=temperature, seed=0)
    (result,) = engine.generate([[1, 2]], params)
    assert 5 not in result.token_ids
    assert result.forwards <= (12 if sampler != "remdm" else 12 + 2 * 32), "its loops fill nothing"


# --- text -------------------------------------------------------------------------------------------------------------


LETTERS = "abcdefghij .!"


def typist(text: str, order: int = 0) -> Engine:
    tokenizer = Tokenizer(LETTERS)
    return writer([0, *tokenizer.encode(text)], len(LETTERS) + 1, len(LETTERS), (), tokenizer, order)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("stop", [("hi!",), ("!", "zz"), ("f g", "hi!"), (" g",)])
def test_a_stop_string_ends_the_text_before_it(order: str, stop: tuple[str, ...]) -> None:
    full = "abc def ghi!jj.ab"
    params = SamplingParams(
        sampler=order, max_new_tokens=len(full), stop=stop, seed=0, block_length=1 if order == "random" else None
    )
    steps = list(typist(full).stream([1], params))
    result = steps[-1].result
    assert result is not None
    first = min(full.find(s) for s in stop if s in full)
    assert result.text == full[:first] == "".join(ats.text_deltas(steps))
    assert result.finish_reason == "stop"
    decoded = Tokenizer(LETTERS).decode(result.token_ids)
    assert any(s in decoded for s in stop), "the ids reach to the end of the stop string"
    assert not any(s in decoded[:-1] for s in stop), "and no further"
    assert result.completion_tokens == len(result.token_ids)


def test_a_stop_string_that_never_comes_changes_nothing() -> None:
    (result,) = typist("abc abc").generate([[1]], SamplingParams(sampler="confidence", max_new_tokens=7, stop="abd"))
    assert (result.text, result.finish_reason) == ("abc abc", "length")


@settings(max_examples=30)
@given(
    text=st.text(st.sampled_from("aé€😀 b"), min_size=1, max_size=8),
    sampler=st.sampled_from(ORDERS),
    seed=st.integers(0, 99),
    stop=st.sampled_from([(), ("b ",), ("€",), ("aé", "😀")]),
)
def test_deltas_join_to_the_text_whatever_the_order(text: str, sampler: str, seed: int, stop: tuple[str, ...]) -> None:
    """Characters of up to four tokens, written in any order."""
    tokens = list(text.encode())
    engine = writer([0, *tokens], 257, 256, (), ByteTokenizer(), seed)
    steps = list(engine.stream([1], SamplingParams(sampler=sampler, max_new_tokens=len(tokens), stop=stop, seed=seed)))
    result = steps[-1].result
    assert result is not None
    assert "".join(ats.text_deltas(steps)) == result.text
    cut = min((text.find(s) for s in stop if s in text), default=len(text))
    assert result.text == text[:cut]


def test_text_leaves_special_tokens_out() -> None:
    tokenizer = Tokenizer("abc", ["<end>", "<mask>"])
    (result,) = writer([0, 0, 1, 3, 2], 5, 4, (3,), tokenizer).generate(
        ["ab"[:1]], SamplingParams(sampler="confidence", max_new_tokens=4)
    )
    assert (result.text, result.token_ids) == ("ab", [0, 1, 3])


def test_prompts_may_be_text_ids_or_messages() -> None:
    tokenizer = ChatTokenizer("ab<>")
    engine = writer([0] * 9, 5, 4, (), tokenizer)
    params = SamplingParams(sampler="confidence", max_new_tokens=1)
    starts: list[list[int]] = []
    for prompt, chat in (("ab", None), ("ab", True), ("ab", False), ([0, 1], None), ([{"role": "user", "content": "b"}], None)):
        starts += [step.ids[: step.start] for step in engine.stream(prompt, params, chat=chat)]
    assert starts == [[2, 0, 1, 3], [2, 0, 1, 3], [0, 1], [0, 1], [2, 1, 3]]
    assert engine.generate("ab", params)[0].prompt_tokens == 4, "one string is one prompt"


# --- holes ------------------------------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(
    parts=st.lists(st.integers(1, 4) | st.text(LETTERS, min_size=1, max_size=4), min_size=1, max_size=5).filter(
        lambda parts: any(isinstance(part, int) for part in parts)
    ),
    sampler=st.sampled_from([*ORDERS, "eb", "klass"]),
    block_length=st.sampled_from([1, 2, 4, 8, None]),
    prompt=st.none() | st.just("ab"),
)
def test_infill_fills_every_hole_and_changes_nothing_else(
    parts: list[int | str], sampler: str, block_length: int | None, prompt: str | None
) -> None:
    seen: list[Step] = []
    written = "jihgfedcba" * 4
    params = SamplingParams(sampler=sampler, max_new_tokens=8, block_length=block_length, seed=0)
    template = [Hole(part) if isinstance(part, int) else part for part in parts]
    result = typist(written).infill(template, params, prompt=prompt, on_step=seen.append)
    shown = len(prompt or "")
    want, place = "", shown
    for part in parts:
        # position i of the canvas holds character i - 1 of what the model writes; position 0 holds its first token
        want += "".join(("a" + written)[place + i] for i in range(part)) if isinstance(part, int) else part
        place = shown + len(want)
    assert result.text == want == "".join(ats.text_deltas(seen))
    assert Tokenizer(LETTERS).decode(result.token_ids) == want
    holes = sum(part for part in parts if isinstance(part, int))
    assert (result.completion_tokens, result.prompt_tokens) == (holes, len(want) + shown - holes)
    assert result.finish_reason == "length"
    given = [i for i in range(len(want) + shown) if i not in seen[0].masked + seen[0].positions]
    assert all([step.ids[i] for i in given] == [seen[0].ids[i] for i in given] for step in seen)


def test_infill_of_a_marked_text_and_of_ids() -> None:
    engine = typist("jihgfedcba")
    params = SamplingParams(sampler="confidence", max_new_tokens=4)
    marked = engine.infill("ab[[2]]c", params)
    assert marked.text == engine.infill(["ab", Hole(2), "c"], params).text == engine.infill([[0, 1], Hole(2), [2]], params).text
    assert marked.text == "abihc"


def test_infill_never_proposes_an_end_token() -> None:
    table = one_hot([8] * 6, 10, 9.0)
    table[:, 4] = 5.0
    engine = Engine(TableModel(table, mask_id=9, eos_ids=(7, 8)))
    assert engine.infill([[1], Hole(3), [2]], SamplingParams(sampler="confidence")).token_ids == [1, 4, 4, 4, 2]


# --- the head, the result ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sampler", "width"), [("confidence", 8), ("attention", 4), ("left-to-right", 8)])
def test_the_head_is_computed_for_the_window_only(sampler: str, width: int, llada_gqa: Engine) -> None:
    options = {"sub_block_length": 4} if sampler == "attention" else {}
    params = SamplingParams(sampler=sampler, max_new_tokens=32, block_length=8, ignore_eos=True, **options)
    shapes: set[tuple[int, ...]] = set()
    head = llada_gqa.model.net.lm_head  # type: ignore[attr-defined]
    handle = head.register_forward_hook(lambda _, inputs, output: shapes.add(tuple(inputs[0].shape)))
    try:
        llada_gqa.generate([list(range(1, 30)), [1, 2]], params)
    finally:
        handle.remove()
    assert {shape[1] for shape in shapes} == {width}
    assert max(shape[0] for shape in shapes) == 2


def test_results_and_parameters_are_plain_values() -> None:
    params = SamplingParams(sampler="confidence", max_new_tokens=2, seed=5)
    (result,) = writer([0, 1, 2], 10, 9).generate([[7]], params)
    assert result.seed == 5
    assert result.elapsed_s > 0
    shown = result.to_dict()
    names = {"text", "token_ids", "finish_reason", "prompt_tokens", "completion_tokens", "forwards", "elapsed_s", "seed"}
    assert set(shown) == names | {"tokens_per_forward"}
    with pytest.raises(dataclasses.FrozenInstanceError):
        params.seed = 6  # type: ignore[misc]


# --- more steps than masks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted({*samplers.names()} - {"dream", "remdm"}))  # whose course follows from the budget
def test_a_budget_above_the_masks_changes_nothing(name: str) -> None:
    """LLaDA's quota of m masks over more than m steps is one each, m times, and then nothing is left."""
    for block in (5, 10):
        model = TableModel(
            random_table(3, 32, 8), mask_id=7, moving=True, attention=random_table(4, 32, 32), unseen=random_table(5, 32, 8)
        )
        params = (
            SamplingParams(sampler=name, max_new_tokens=10, block_length=block, steps=steps, ignore_eos=True, seed=0)
            for steps in (None, 40, 10**6)
        )
        plain, *more = ([(step.positions, step.ids) for step in Engine(model).stream([1, 2], p)] for p in params)
        assert more == [plain, plain]


def test_holes_may_take_more_steps_than_there_are_new_tokens_by_default() -> None:
    model = TableModel(random_table(3, 128, 8), mask_id=7)
    result = Engine(model).infill(
        [[1], Hole(96)], SamplingParams(sampler="confidence", block_length=32, max_new_tokens=32, steps=96)
    )
    assert result.forwards == 96

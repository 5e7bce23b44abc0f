"""Wrong input gives a typed error at once, which names field, value and remedy; never a hang, never a wrong answer."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from attn_sampler import AttnSamplerError, Engine, Hole, InvalidInputError, SamplingParams
from fakes import ChatTokenizer, TableModel, Tokenizer, random_table

LETTERS = "abcdef[]0123"
MASK, VOCAB = len(LETTERS), len(LETTERS) + 1
PARAMS = SamplingParams(sampler="confidence", max_new_tokens=4)


def engine(tokenizer: Any = None, *, attention: bool = True, context_length: int = 32) -> Engine:
    statistics = random_table(1, 40, 40) if attention else None
    model = TableModel(random_table(0, 40, VOCAB), mask_id=MASK, attention=statistics, context_length=context_length)
    return Engine(model, tokenizer)


def raised(call: Any) -> InvalidInputError:
    with pytest.raises(InvalidInputError) as caught:
        call()
    error = caught.value
    assert str(error) == f"{error.field}={shown(error.value)}: {error.remedy}"
    assert error.remedy
    return error


def shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


# --- prompts ----------------------------------------------------------------------------------------------------------

PROMPTS = {
    "empty text": ("", "at least one token"),
    "no ids": ([], "at least one token"),
    "mask id": ([1, MASK], "use infill"),
    "id too large": ([1, VOCAB], f"from 0 to {VOCAB - 1}"),
    "negative id": ([-1], f"from 0 to {VOCAB - 1}"),
    "far too large": ([10**30], f"from 0 to {VOCAB - 1}"),
    "floats": ([1.0, 2.0], "token ids"),
    "flags": ([True, False], "token ids"),
    "mixed": ([1, "a"], "token ids"),
    "nested": ([[1, 2]], "token ids"),
    "bytes": (b"ab", "token ids"),
    "number": (7, "token ids"),
    "none": (None, "token ids"),
    "tensor": (torch.tensor([1, 2]), "token ids"),
    "empty message": ([{}], '"role" and "content"'),
    "message without content": ([{"role": "user"}], '"role" and "content"'),
    "too long": ([1] * 29, "longer than the context of 32"),
    "far too long": ([1] * 100_000, "longer than the context of 32"),
}


@pytest.mark.parametrize(("prompt", "remedy"), PROMPTS.values(), ids=PROMPTS)
@pytest.mark.parametrize("entry", ["generate", "stream", "admit", "infill"])
def test_prompts(entry: str, prompt: Any, remedy: str) -> None:
    own = engine(ChatTokenizer(LETTERS))
    calls = {
        "generate": lambda: own.generate([[1], prompt], PARAMS),
        "stream": lambda: own.stream(prompt, PARAMS),
        "admit": lambda: own.admit(prompt, PARAMS),
        "infill": lambda: own.infill([Hole(4)], PARAMS, prompt=prompt),
    }
    if prompt is None and entry == "infill":
        return  # no prompt is a prompt there
    error = raised(calls[entry])
    assert error.field == "prompt"
    assert remedy in error.remedy
    assert own.unfinished == 0


def test_a_message_with_other_keys() -> None:
    error = raised(lambda: engine(ChatTokenizer(LETTERS)).generate([[{"role": "user", "text": "a"}]], PARAMS))
    assert '"content"' in error.remedy


def test_a_text_that_has_no_tokens() -> None:
    class Dropping(Tokenizer):
        def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
            return [self.alphabet.index(c) for c in text if c in self.alphabet]

    assert raised(lambda: engine(Dropping(LETTERS)).generate(["  "], PARAMS)).field == "prompt"


def test_the_longest_prompt_that_fits_does() -> None:
    (result,) = engine().generate([[1] * 28], PARAMS)
    assert len(result.token_ids) == 4


@pytest.mark.parametrize("prompt", ["ab", [{"role": "user", "content": "a"}]])
def test_text_without_a_tokenizer(prompt: Any) -> None:
    assert "give token ids" in raised(lambda: engine().generate([prompt], PARAMS)).remedy


def test_messages_without_a_chat_template() -> None:
    error = raised(lambda: engine(Tokenizer(LETTERS)).generate([[{"role": "user", "content": "a"}]], PARAMS))
    assert "no chat template" in error.remedy


@pytest.mark.parametrize("prompts", [[], (), 7, None, {"a": 1}])
def test_what_is_no_list_of_prompts(prompts: Any) -> None:
    assert raised(lambda: engine().generate(prompts, PARAMS)).field == "prompts"


@pytest.mark.parametrize("count", [0, 1, 3])
def test_one_params_for_all_or_one_each(count: int) -> None:
    error = raised(lambda: engine().generate([[1], [2]], [PARAMS] * count))
    assert error.field == "params"
    assert "one for each of 2" in error.remedy


@pytest.mark.parametrize("params", [[{"max_new_tokens": 4}], {"max_new_tokens": 4}, ["confidence"]])
def test_what_is_no_params(params: Any) -> None:
    assert raised(lambda: engine().generate([[1]], params)).field == "params"


def test_a_length_far_beyond_the_context_takes_no_memory() -> None:
    error = raised(lambda: engine().generate([[1]], SamplingParams(sampler="confidence", max_new_tokens=10**5, block_length=10)))
    assert "longer than the context" in error.remedy


@pytest.mark.parametrize("call", ["generate", "infill"])
def test_a_length_that_no_memory_holds(call: str) -> None:
    huge = 2**60
    calls = {
        "generate": lambda: engine().generate([[1]], SamplingParams(sampler="confidence", max_new_tokens=huge)),
        "infill": lambda: engine().infill([Hole(huge)], PARAMS),
    }
    assert "longer than the context" in raised(calls[call]).remedy


# --- parameters that only the model can check -------------------------------------------------------------------------


def test_stop_strings_need_a_tokenizer() -> None:
    error = raised(lambda: engine().generate([[1]], SamplingParams(sampler="confidence", stop="a", max_new_tokens=4)))
    assert (error.field, error.value) == ("stop", ("a",))


@pytest.mark.parametrize("field", ["layers", "heads"])
def test_layers_and_heads_that_the_model_has_not(field: str) -> None:
    params = SamplingParams(sampler="attention", max_new_tokens=4, **{field: (0, 2)})
    error = raised(lambda: engine().generate([[1]], params))
    assert (error.field, error.value) == (field, (0, 2))
    assert "from 0 to 1" in error.remedy


def test_attention_of_a_model_without_statistics() -> None:
    assert raised(lambda: engine(attention=False).generate([[1]], SamplingParams(max_new_tokens=4))).field == "sampler"


@pytest.mark.parametrize(
    ("lengths", "remedy"),
    [
        ({"max_new_tokens": 12, "block_length": 4, "steps": 4}, "multiple of the number of blocks (3)"),
        ({"max_new_tokens": 12, "block_length": 4, "steps": 1}, "multiple of the number of blocks (3)"),
        ({"max_new_tokens": 16, "block_length": 16, "steps": 1, "sampler": "attention"}, "at least 2"),
    ],
)
def test_steps_that_do_not_fit_the_blocks(lengths: dict[str, Any], remedy: str) -> None:
    error = raised(lambda: engine().generate([[1]], SamplingParams(**{"sampler": "confidence"} | lengths)))
    assert (error.field, error.value) == ("steps", lengths["steps"])
    assert remedy in error.remedy


# --- holes ------------------------------------------------------------------------------------------------------------

TEMPLATES: dict[str, tuple[Any, str]] = {
    "no hole": ("abc", "[[n]]"),
    "no hole in a list": (["ab", [1]], "at least one Hole"),
    "nothing": ([], "at least one Hole"),
    "empty hole": ("a[[0]]", "at least 1"),
    "mask id": ([Hole(2), [MASK]], "mask token"),
    "id too large": ([Hole(2), [VOCAB]], "from 0 to"),
    "empty piece": ([Hole(2), ""], "at least one token"),
    "number": ([Hole(2), 7], "token ids"),
    "too long": ([Hole(33)], "longer than the context"),
    "too long with text": ([[1] * 20, Hole(13)], "longer than the context"),
}


@pytest.mark.parametrize(("template", "remedy"), TEMPLATES.values(), ids=TEMPLATES)
def test_templates(template: Any, remedy: str) -> None:
    own = engine(Tokenizer(LETTERS))
    assert remedy in raised(lambda: own.infill(template, PARAMS)).remedy
    assert own.unfinished == 0


def test_infill_takes_no_stop_strings() -> None:
    params = SamplingParams(sampler="confidence", stop="a")
    assert raised(lambda: engine(Tokenizer(LETTERS)).infill([Hole(2)], params)).field == "stop"


@pytest.mark.parametrize("template", [7, None, Hole(2)])
def test_what_is_no_template(template: Any) -> None:
    raised(lambda: engine(Tokenizer(LETTERS)).infill(template, PARAMS))


# --- engine and logits ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_rows", [0, -1, 1.5, "2", None])
def test_max_rows(max_rows: Any) -> None:
    error = raised(lambda: Engine(engine().model, max_rows=max_rows))
    assert error.field == "max_rows"


@pytest.mark.parametrize(
    ("ids", "mask", "field"),
    [
        ([], None, "ids"),
        ([[]], None, "ids"),
        ([[[1]]], None, "ids"),
        ([[VOCAB]], None, "ids"),
        ([[-1]], None, "ids"),
        ([[1, 2]], [[1, 1], [1, 1]], "attention_mask"),
    ],
)
def test_logits(ids: Any, mask: Any, field: str) -> None:
    assert raised(lambda: engine().logits(ids, mask)).field == field


@pytest.mark.parametrize(
    ("ids", "mask"),
    [
        ([[1.5, 2.0]], None),
        ([[1], [2, 3]], None),
        ("ab", None),
        ([[2**70]], None),
        ([[1, 2]], [[1]]),
        ([[1, 2]], [1, 1, 1]),
        ([[1, 2]], [[0.0, -1e4]]),
        ([[1, 2]], [[1, 2]]),
    ],
)
def test_what_is_no_tensor_of_ids(ids: Any, mask: Any) -> None:
    error = raised(lambda: engine().logits(ids, mask))
    assert error.field == ("ids" if mask is None else "attention_mask")


def test_every_error_of_the_library_has_one_root() -> None:
    with pytest.raises(AttnSamplerError):
        engine().generate([[]], PARAMS)

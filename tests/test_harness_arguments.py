"""lm-eval's generation arguments become sampling parameters, or are refused. (lm-eval itself is not needed for this.)"""

from __future__ import annotations

from typing import Any

import pytest

from attn_sampler.errors import InvalidInputError, UnknownNameError
from attn_sampler.evals.lm_eval.generation import MAX_NEW_TOKENS, params_of, typed
from attn_sampler.params import SamplingParams

GSM8K = {"until": ["Question:", "</s>", ""], "do_sample": False, "temperature": 0.0}


def test_what_nobody_says_has_a_default() -> None:
    params = params_of({}, {})
    assert (params.max_new_tokens, params.temperature, params.stop, params.sampler.name) == (
        MAX_NEW_TOKENS, 0.0, (), "attention"
    )  # fmt: skip


def test_a_task_and_the_model_arguments_together() -> None:
    own = {"sampler": "fast-dllm", "threshold": 0.8, "block_length": 16, "max_new_tokens": 64}
    params = params_of(own, GSM8K)
    expected = SamplingParams(**own, stop=("Question:", "</s>"), seed=params.seed)  # type: ignore[arg-type]
    assert params == expected
    assert params_of({"block_length": 48}, {"max_gen_toks": 480}).block_length == 48
    assert params_of(own, {"until": "\n\n", "steps": 32}).steps == 32


@pytest.mark.parametrize("name", ["max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens"])
def test_the_length_under_any_of_its_names(name: str) -> None:
    assert params_of({}, {name: 40}).max_new_tokens == 40


@pytest.mark.parametrize(
    ("own", "asked", "temperature"),
    [
        ({}, {"do_sample": False, "temperature": 0.8}, 0.0),
        ({}, {"do_sample": True}, 1.0),
        ({}, {"do_sample": True, "temperature": 0.8}, 0.8),
        ({}, {"temperature": 0.8}, 0.8),
        ({"temperature": 0.2}, {"until": []}, 0.2),
        ({"temperature": 0.2}, {"do_sample": True}, 0.2),
        ({"temperature": 0.2}, {"do_sample": True, "temperature": 0.2}, 0.2),
    ],
)
def test_temperature(own: dict[str, Any], asked: dict[str, Any], temperature: float) -> None:
    assert params_of(own, asked).temperature == temperature


def test_a_requests_noise_is_its_own() -> None:
    seeds = [params_of({"seed": 3}, GSM8K, *request).seed for request in (("a", 0), ("a", 1), ("b", 0), ("a", 0))]
    assert seeds[0] == seeds[3]
    assert len(set(seeds)) == 3
    assert params_of({}, GSM8K, "a").seed != seeds[0]


def test_text_is_read_as_the_samplers_option() -> None:
    assert typed({"sampler": "attention", "threshold": "0.9", "layers": "0,2-3", "block_length": 8}) == {
        "sampler": "attention", "threshold": 0.9, "layers": (0, 2, 3), "block_length": 8,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("own", "asked", "says"),
    [
        ({"temperature": 0.2}, GSM8K, "temperature=0.2: the task or --gen_kwargs say 0.0.*do_sample=true,temperature=0.2"),
        ({"max_new_tokens": 64}, {"max_gen_toks": 128}, "max_new_tokens=64: .* say 128.*--gen_kwargs max_gen_toks=64"),
        ({"threshold": 0.9}, {"threshold": 0.8}, "threshold=0.9: .* say 0.8"),
        ({}, {"max_gen_toks": 128, "max_tokens": 64}, "max_gen_toks=.*: give one number"),
        ({}, {"num_beams": 4}, "num_beams=4: masked diffusion has no beams"),
        ({}, {"do_sample": "perhaps"}, "do_sample='perhaps'"),
        ({}, {"seed": -3}, "seed=-3"),
        ({}, {"until": [3]}, "stop="),
    ],
)
def test_what_cannot_be_meant_is_refused(own: dict[str, Any], asked: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInputError, match=says):
        params_of(own, asked)


def test_a_misspelt_argument_is_not_lost() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'temperature'"):
        params_of({}, {"temprature": 0.7})
    assert params_of({}, {"num_beams": 1}).temperature == 0

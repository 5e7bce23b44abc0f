"""Parameters are checked once, when they are made: junk raises `InvalidInputError`, and nothing else ever."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from attn_sampler import InvalidInputError, SamplingParams, UnknownNameError, samplers
from attn_sampler.samplers.confidence import Confidence
from fakes import TableModel, one_hot

NUMBERS = (
    st.integers(-(2**70), 2**70) | st.sampled_from([0, 1, 2, 8, 64, -1, True]) | st.floats(allow_nan=True, allow_infinity=True)
)
JUNK = (
    NUMBERS
    | st.none()
    | st.text(max_size=3)
    | st.binary(max_size=2)
    | st.sampled_from(
        [*samplers.names(), Confidence(), object(), "local", "all", "score", (), (0,), [0], {0}, {}, {"a": 1}, ("a", "")]
    )
    | st.lists(st.integers(-1, 3), max_size=2).map(tuple)
)
OWN = [f.name for f in dataclasses.fields(SamplingParams)]
OPTIONS = sorted({f.name for name in samplers.names() for f in dataclasses.fields(samplers.find(name))})


def check_valid(params: SamplingParams) -> None:
    assert params.max_new_tokens >= 1
    assert 1 <= params.positions_per_block <= params.max_new_tokens
    assert params.block_length is None or params.max_new_tokens % params.block_length == 0
    assert params.steps is None or 1 <= params.steps < 2**63
    assert params.temperature == 0 or 1e-6 <= params.temperature < float("inf")
    assert 0 < params.top_p <= 1
    assert 0 <= params.top_k < 2**63
    assert 0 <= params.seed < 2**63
    assert 0 <= params.cfg_scale < float("inf")
    assert all(isinstance(s, str) and s for s in params.stop)
    assert {params.sampler, params.sampler} == {params.sampler}, "rows are grouped by their sampler"
    params.sampler.needs  # noqa: B018
    hash(params)


def make(**given: Any) -> SamplingParams | InvalidInputError:
    try:
        return SamplingParams(**given)
    except InvalidInputError as error:
        return error


@settings(max_examples=400)
@given(st.dictionaries(st.sampled_from(OWN), JUNK, max_size=4))
def test_any_junk_is_refused_or_makes_valid_parameters(given: dict[str, Any]) -> None:
    made = make(**given)
    if isinstance(made, SamplingParams):
        check_valid(made)


@settings(max_examples=400)
@given(st.sampled_from(samplers.names()), st.dictionaries(st.sampled_from(OPTIONS), JUNK, max_size=3))
def test_any_junk_as_an_option(name: str, options: dict[str, Any]) -> None:
    made = make(sampler=name, **options)
    if isinstance(made, SamplingParams):
        check_valid(made)
        assert made.sampler == samplers.build(name, options)
    else:
        assert any(option in str(made) for option in options), "the message names the option"


@given(st.dictionaries(st.text(min_size=1, max_size=5), st.integers(), min_size=1, max_size=2))
def test_a_name_that_is_no_parameter(given: dict[str, Any]) -> None:
    with pytest.raises(UnknownNameError):
        SamplingParams(**{f"x{name}": value for name, value in given.items()})


# --- each limit, and what the message says ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "field", "remedy"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens", "at least 1"),
        ({"max_new_tokens": -3}, "max_new_tokens", "at least 1"),
        ({"max_new_tokens": 2.0}, "max_new_tokens", "an integer"),
        ({"max_new_tokens": True}, "max_new_tokens", "an integer"),
        ({"block_length": 0}, "block_length", "at least 1"),
        ({"block_length": -8}, "block_length", "at least 1"),
        ({"max_new_tokens": 64, "block_length": 24}, "block_length", "must divide max_new_tokens=64"),
        ({"max_new_tokens": 8, "block_length": 16}, "block_length", "must divide"),
        ({"steps": 0}, "steps", "at least 1"),
        ({"temperature": -0.1}, "temperature", "at least 0"),
        ({"temperature": float("nan")}, "temperature", "at least 0"),
        ({"temperature": float("inf")}, "temperature", "at least 0"),
        ({"temperature": 1e-9}, "temperature", "give 0, or at least"),
        ({"temperature": "hot"}, "temperature", "a number"),
        ({"top_p": 0}, "top_p", "lower end excluded"),
        ({"top_p": 1.01}, "top_p", "from 0 to 1"),
        ({"top_k": -1}, "top_k", "at least 0"),
        ({"top_k": 1.5}, "top_k", "an integer"),
        ({"seed": -1}, "seed", "from 0"),
        ({"seed": 2**63}, "seed", "from 0"),
        ({"cfg_scale": -1}, "cfg_scale", "at least 0"),
        ({"cfg_scale": float("inf")}, "cfg_scale", "at least 0"),
        ({"stop": ""}, "stop", "empty"),
        ({"stop": ["a", ""]}, "stop", "empty"),
        ({"stop": 5}, "stop", "string"),
        ({"stop": None}, "stop", "string"),
        ({"ignore_eos": 1}, "ignore_eos", "True or False"),
        ({"logits_eos_inf": "no"}, "logits_eos_inf", "True or False"),
        ({"confidence_eos_eot_inf": None}, "confidence_eos_eot_inf", "True or False"),
        ({"sampler": "attention", "threshold": 1.5}, "threshold", "from 0 to 1"),
        ({"sampler": "attention", "threshold": -0.1}, "threshold", "from 0 to 1"),
        ({"sampler": "attention", "threshold": float("nan")}, "threshold", "from 0 to 1"),
        ({"sampler": "attention", "rows": "masked rows"}, "rows", "did you mean 'masked'"),
        ({"sampler": "attention", "norm": 3}, "norm", "known: global, local"),
        ({"sampler": "attention", "diag": 1}, "diag", "true or false"),
        ({"sampler": "attention", "sub_block_length": 0}, "sub_block_length", "at least 1"),
        ({"sampler": "attention", "layers": ()}, "layers", "at least one index"),
        ({"sampler": "attention", "layers": [0]}, "layers", "a tuple"),
        ({"sampler": "attention", "heads": (-1,)}, "heads", "at least 0"),
        ({"sampler": "attention", "refresh": "subblock", "window": "leftmost"}, "refresh", "consecutive"),
        ({"sampler": "attention", "fallback": "confidence"}, "fallback", "did you mean 'conf'"),
        ({"sampler": "fast-dllm", "threshold": 2}, "threshold", "from 0 to 1"),
        ({"sampler": "fast-dllm-factor", "factor": -1}, "factor", "at least 0"),
        ({"sampler": "fast-dllm-factor", "compat": True}, "compat", "known: none, reference"),
        ({"sampler": "eb", "gamma": -0.5}, "gamma", "at least 0"),
        ({"sampler": "klass", "history": 0}, "history", "at least 1"),
        ({"sampler": "klass", "kl_threshold": -1}, "kl_threshold", "at least 0"),
        ({"sampler": "confidence", "k": 0}, "k", "at least 1"),
        ({"sampler": 5}, "sampler", "give a name"),
        ({"sampler": None}, "sampler", "give a name"),
        ({"sampler": Confidence(), "k": 2}, "options", "on the sampler object"),
        ({"sampler": ""}, "sampler", "known: adas, attention"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else None,
)
def test_the_error_names_field_value_and_remedy(given: dict[str, Any], field: str, remedy: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        SamplingParams(**given)
    error = caught.value
    assert error.field == field
    assert error.remedy in str(error)
    assert remedy in error.remedy
    assert str(error).startswith(f"{field}=")
    if field in given:
        assert error.value is given[field] or str(error.value) == str(given[field]) or error.value in given[field]
    assert isinstance(error, ValueError), "also what a caller may already catch"


def test_a_long_value_is_shortened_in_the_message() -> None:
    with pytest.raises(InvalidInputError) as caught:
        SamplingParams(stop=["x" * 5000, ""])
    assert len(str(caught.value)) < 300
    assert caught.value.value == ["x" * 5000, ""]


@dataclasses.dataclass(frozen=True)
class Listed(Confidence):
    """Frozen, but its option has no hash."""

    weights: list[int] = dataclasses.field(default_factory=list)


@pytest.mark.parametrize("sampler", [Confidence, Listed()], ids=["class", "no hash"])
def test_what_is_no_sampler(sampler: Any) -> None:
    """``sampler=Confidence`` instead of ``sampler=Confidence()``, for one."""
    with pytest.raises(InvalidInputError, match="sampler"):
        SamplingParams(sampler=sampler)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((field, 2**63) for field in ("top_k", "max_new_tokens", "k")),
        *((field, 10**400) for field in ("top_k", "max_new_tokens", "steps", "temperature", "top_p", "cfg_scale", "seed", "k")),
        ("top_k", 10**5000),
    ],
    ids=lambda value: value if isinstance(value, str) else {2**63: "int64", 10**400: "float"}.get(value, "repr"),
)
def test_an_integer_too_large_for_a_tensor_or_a_float(field: str, value: int) -> None:
    with pytest.raises(InvalidInputError):
        SamplingParams(**{"sampler": "confidence", field: value})


# --- good values ------------------------------------------------------------------------------------------------------


@st.composite
def good(draw: st.DrawFn) -> dict[str, Any]:
    block, count = draw(st.integers(1, 40)), draw(st.integers(1, 4))
    return {
        "sampler": draw(st.sampled_from(samplers.names())),
        "max_new_tokens": block * count,
        "block_length": draw(st.sampled_from([block, None])),
        "steps": draw(st.none() | st.integers(1, 2 * block * count)),
        "temperature": draw(st.just(0.0) | st.floats(1e-6, 1e6)),
        "top_p": draw(st.floats(0, 1, exclude_min=True)),
        "top_k": draw(st.integers(0, 10**6)),
        "seed": draw(st.integers(0, 2**63 - 1)),
        "stop": draw(st.lists(st.text(min_size=1, max_size=4), max_size=3)),
        "ignore_eos": draw(st.booleans()),
        "cfg_scale": draw(st.floats(0, 100)),
    }


@given(good())
@example({"sampler": "attention", "layers": (0, 2), "heads": (1,)})
def test_values_survive_and_go_through_json(given: dict[str, Any]) -> None:
    params = SamplingParams(**given)
    check_valid(params)
    for name, value in given.items():
        if name == "stop":
            assert params.stop == tuple(value)
        elif name != "sampler" and name in OWN:
            assert getattr(params, name) == value
    shown = params.to_dict()
    assert shown["sampler"] == params.sampler.name
    back = json.loads(json.dumps(shown))
    assert back.keys() == {*OWN, "options"}
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in back.pop("options").items()}
    assert SamplingParams(**back, **options) == params


def test_replacing_a_value_checks_again() -> None:
    params = SamplingParams(max_new_tokens=8, seed=1)
    assert dataclasses.replace(params, max_new_tokens=4) == SamplingParams(max_new_tokens=4, seed=1)
    with pytest.raises(InvalidInputError, match="steps"):
        dataclasses.replace(params, steps=0)


def test_a_seed_is_drawn_and_kept() -> None:
    seeds = {SamplingParams().seed for _ in range(20)}
    assert len(seeds) == 20
    assert SamplingParams(seed=3) == SamplingParams(seed=3)
    assert SamplingParams() != SamplingParams()


def test_a_large_but_valid_top_k_runs() -> None:
    """What the parameters accept, the engine can run."""
    from attn_sampler import Engine

    engine = Engine(TableModel(one_hot([0, 1, 2, 3], 6), mask_id=5))
    (result,) = engine.generate([[1]], SamplingParams(sampler="confidence", max_new_tokens=3, temperature=0.1, top_k=2**63 - 1))
    assert result.token_ids == [1, 2, 3]

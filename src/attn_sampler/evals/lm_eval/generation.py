"""lm-eval's generation arguments → `SamplingParams`. Nothing here imports lm-eval.

A task's YAML and ``--gen_kwargs`` come merged, as one mapping; ``--model_args`` come with the model. Where the two disagree
nobody can tell which was meant, and the answer would change silently: that is refused.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

from attn_sampler import samplers
from attn_sampler.errors import InvalidInputError, check_number
from attn_sampler.options import parse
from attn_sampler.params import SamplingParams

__all__ = ["MAX_NEW_TOKENS", "params_of", "typed"]

MAX_NEW_TOKENS = 256  # where neither the task nor the caller says: lm-eval's own default
LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")  # lm-eval takes any of them


def typed(given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments as `SamplingParams` takes them: text that belongs to an option of the sampler is read as that option."""
    name = given.get("sampler", "attention")
    if not isinstance(name, str):
        return dict(given)
    kind = samplers.find(name)
    options = {f.name for f in dataclasses.fields(kind)}
    return {
        key: parse(f"sampler {name!r}", kind, key, value) if key in options and isinstance(value, str) else value
        for key, value in given.items()
    }


def params_of(own: Mapping[str, Any], asked: Mapping[str, Any], context: str = "", copy: int = 0) -> SamplingParams:
    """The parameters of one request.

    Args:
        own: of ``--model_args``.
        asked: of the task and ``--gen_kwargs``: lm-eval's names, and any parameter or sampler option of ours.
        context, copy: the request and the number of its like before it: a request's random numbers are the same wherever it
            stands, and others in each of its repeats.

    Raises:
        InvalidInputError: the two disagree, or what is asked cannot be done.
    """
    rest = dict(asked)
    until = rest.pop("until", None) or []
    said: dict[str, Any] = {"stop": tuple(text for text in ([until] if isinstance(until, str) else until) if text)}
    said |= _temperature(rest.pop("do_sample", None), rest.pop("temperature", None), own)
    said |= _length({name: rest.pop(name) for name in LENGTHS if name in rest}, own)
    if rest.pop("num_beams", 1) != 1:
        raise InvalidInputError("num_beams", asked["num_beams"], "masked diffusion has no beams: --gen_kwargs num_beams=1")
    rest = typed({"sampler": own.get("sampler", "attention"), **rest})
    for name, value in rest.items():
        _agree(name, own, value, f"{name}={own.get(name)}")
    values = {"max_new_tokens": MAX_NEW_TOKENS, "seed": 0, **own, **rest, **said}
    check_number("seed", values["seed"], low=0, integer=True)
    text = repr((values["seed"], context, copy))
    values["seed"] = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1
    return SamplingParams(**values)


def _agree(name: str, own: Mapping[str, Any], value: object, instead: str) -> None:
    if name in own and own[name] != value:
        remedy = f"the task or --gen_kwargs say {value!r}: leave it out of --model_args, or give --gen_kwargs {instead}"
        raise InvalidInputError(name, own[name], remedy)


def _temperature(sample: object, temperature: Any, own: Mapping[str, Any]) -> dict[str, Any]:
    """What ``do_sample`` and ``temperature`` come to. Many tasks say ``do_sample: false`` beside a temperature: that is 0."""
    if sample not in (None, True, False):
        raise InvalidInputError("do_sample", sample, "give true or false")
    if sample is False:
        temperature = 0.0
    elif temperature is None:
        if not sample or "temperature" in own:
            return {}
        temperature = 1.0  # what transformers' generate takes
    _agree("temperature", own, temperature, f"do_sample=true,temperature={own.get('temperature')}")
    return {"temperature": temperature}


def _length(given: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    if len(set(given.values())) > 1:
        raise InvalidInputError("max_gen_toks", dict(given), "give one number, under the name that the task has for it")
    said: dict[str, Any] = {}
    for name, value in given.items():
        _agree("max_new_tokens", own, value, f"{name}={own.get('max_new_tokens')}")
        said["max_new_tokens"] = value
    return said

"""Settings from text: samplers, and what ``-o`` says about their options, as a list of settings with labels.

``-o attention.threshold=0.8,0.9`` sweeps an option of one sampler, ``-o threshold=0.8,0.9`` that of every sampler that has it.
Several options of one sampler give every combination. The same option twice adds values; that is also how options that are lists
of indices are swept, whose commas belong to the value (``-o attention.layers=0,1 -o attention.layers=2,3``). Two parameters of
the row are swept like options of every sampler: ``early_exit`` (``confidence.early_exit=none,prophet``; one with its own options
stands alone: ``early_exit=sched:mode=linear,high=6``) and ``block_length``, since a sampler may have windows of its own.
"""

from __future__ import annotations

import dataclasses
import itertools
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Union

from attn_sampler import exits
from attn_sampler import samplers as registry
from attn_sampler.errors import InvalidInputError, UnknownNameError, check_number
from attn_sampler.evals.chosen import Chosen, read
from attn_sampler.evals.study import Setting
from attn_sampler.frequencies import Frequencies

__all__ = ["settings", "shown"]

ROW = ("early_exit", "block_length")  # parameters of the row that a sampler may have values of its own for


def settings(
    samplers: Sequence[str], options: Sequence[str], defaults: Mapping[str, Mapping[str, Any]] | None = None
) -> list[Setting]:
    """One setting per combination of option values, in the order of the samplers and of the values.

    Args:
        samplers: names.
        options: texts of ``-o``: ``sampler.option=values``, ``option=values``, or ``@file`` that `attn-sampler calibrate` wrote;
            the option is one of the sampler or of `ROW`.
        defaults: sampler → options that hold unless ``options`` say otherwise.

    Raises:
        UnknownNameError: no such sampler, or none of them has the option.
        InvalidInputError: a text or a value is wrong, or a sampler is named twice.
    """
    files = [read(text[1:]) for text in options if text.startswith("@")]
    names = list(samplers) + [f.sampler for f in files if f.sampler not in samplers]
    if len(set(names)) != len(names):
        raise InvalidInputError(
            "samplers", ",".join(names), "name every sampler once; -o sampler.option=v1,v2 gives several settings"
        )
    values: dict[str, dict[str, list[Any]]] = {name: {} for name in names}
    fixed = {name: {k for f in files if f.sampler == name for k in f.options} for name in names}
    for chosen in files:
        _take(values, chosen)
    for text in options:
        if not text.startswith("@"):
            for name, option, value in _parsed(text, names):
                if option in fixed[name]:
                    raise InvalidInputError(
                        "option", text, f"@file says {option}={values[name][option][0]!r} already: leave out one"
                    )
                values[name].setdefault(option, []).append(value)
    for name in names:
        for option, value in (defaults or {}).get(name, {}).items():
            values[name].setdefault(option, [value])
    return [setting for name in names for setting in _combinations(name, values[name])]


def _take(values: Mapping[str, dict[str, list[Any]]], chosen: Chosen) -> None:
    for option, value in chosen.options.items():
        known = values[chosen.sampler].setdefault(option, [value])
        if known != [value]:
            raise InvalidInputError("option", option, f"two files say {known[0]!r} and {value!r}: give one")


def _parsed(text: str, names: Sequence[str]) -> list[tuple[str, str, Any]]:
    """(sampler, option, value) of one ``-o``."""
    key, equals, given = text.partition("=")
    if not equals or not key or not given:
        raise InvalidInputError(
            "option", text, "write it as sampler.option=v1,v2, or as option=v1,v2 for every sampler that has it"
        )
    owner, dot, option = key.rpartition(".")
    if dot:
        if owner not in names:
            raise UnknownNameError("sampler of -o", owner, names)
        owners = [owner]
    else:
        owners = [name for name in names if option in _fields(name)]
        if not owners:
            raise UnknownNameError("option", option, sorted({field for name in names for field in _fields(name)}))
    return [(name, option, _value(name, option, part)) for name in owners for part in _parts(name, option, given)]


def _fields(sampler: str) -> list[str]:
    """Options of the sampler, and the parameters of the row that are swept like them."""
    return [*(field.name for field in dataclasses.fields(registry.find(sampler))), *ROW]


def _value(sampler: str, option: str, text: str) -> Any:
    if option not in ROW:
        return registry.parse_option(sampler, option, text)
    if text.lower() == "none":
        return None
    if option == "early_exit":
        exits.parse(text)  # it is said now if it is wrong
        return text
    if not text.isdigit():
        raise InvalidInputError(option, text, "give a number of positions, or none for the sampler's own")
    check_number(option, int(text), low=1, integer=True)
    return int(text)


def _parts(sampler: str, option: str, text: str) -> list[str]:
    """The text cut at its commas, unless they belong to the value."""
    if option in ROW:
        return [text] if ":" in text else [part.strip() for part in text.split(",")]
    hint = typing.get_type_hints(registry.find(sampler)).get(option)
    arms = typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)
    return [text] if any(typing.get_origin(arm) is tuple for arm in arms) else [part.strip() for part in text.split(",")]


def _combinations(name: str, options: Mapping[str, Sequence[Any]]) -> list[Setting]:
    """Every combination. Settings that differ in one number only, the one with the most values, are a series: a line of a plot
    and a curve of the AUP. Values of another option are another curve, and a line through both would say nothing.
    """
    values = {option: list(dict.fromkeys(found)) for option, found in options.items()}
    swept = [option for option, found in options.items() if len(found) > 1]
    numbers = [option for option in swept if all(_is_number(value) for value in values[option])]
    along = max(numbers, key=lambda option: len(values[option]), default=None)
    fixed = {option: found[0] for option, found in values.items() if option not in swept}
    out = []
    for combination in itertools.product(*(values[option] for option in swept)):
        chosen = dict(zip(swept, combination, strict=True))
        registry.build(name, {k: v for k, v in (fixed | chosen).items() if k not in ROW})  # a value out of its range is said now
        series = fixed | {option: value for option, value in chosen.items() if option != along}
        out.append(Setting(_label(name, fixed | chosen), name, fixed | chosen, _label(name, series)))
    return out


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _label(name: str, options: Mapping[str, Any]) -> str:
    named = {option: value for option, value in options.items() if option not in ROW or value is not None}
    return " ".join([name, *(f"{option}={shown(value)}" for option, value in named.items())])


def shown(value: Any) -> str:
    """An option's value as it would be typed; a table of frequencies by the beginning of its digest."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, Frequencies):
        return value.digest[:8]
    return f"{value:g}" if isinstance(value, float) else str(value)

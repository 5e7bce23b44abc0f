"""The early exits, one short file each, and the registry that finds them by name.

An early exit stands beside any sampler and asks, after every forward pass, whether the rest of the answer is clear enough to be
written at once. Packages add their own through the entry-point group ``attn_sampler.exits`` (name → a frozen dataclass that
follows `attn_sampler.seam.EarlyExit`).
"""

from __future__ import annotations

import dataclasses
import importlib
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from attn_sampler import options as texts
from attn_sampler.errors import InvalidInputError, UnknownNameError
from attn_sampler.seam import EarlyExit

__all__ = ["build", "find", "names", "parse"]

GROUP = "attn_sampler.exits"
BUILT_IN = {"prophet": "prophet:Prophet", "sched": "sched:Sched"}


def names() -> list[str]:
    """Every registered name, built in and from entry points, sorted."""
    return sorted({*BUILT_IN, *(point.name for point in entry_points(group=GROUP))})


@cache
def find(name: str) -> type[Any]:
    """The early exit registered under ``name``."""
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
    for point in entry_points(group=GROUP):
        if point.name == name:
            return point.load()
    raise UnknownNameError("early_exit", name, names())


def build(value: str | EarlyExit) -> EarlyExit:
    """The early exit that a text names (see `parse`); an instance is taken as it is."""
    if isinstance(value, str):
        return parse(value)
    if isinstance(value, type) or not (dataclasses.is_dataclass(value) and isinstance(value, EarlyExit)):
        remedy = "give a name, name:option=value,option=value, or a frozen dataclass object with name, paper and test"
        raise InvalidInputError("early_exit", value, remedy)
    try:
        hash(value)
    except TypeError:
        remedy = "rows are grouped by it, so give a frozen dataclass whose options have a hash (tuples, not lists)"
        raise InvalidInputError("early_exit", value, remedy) from None
    return value


def parse(text: str) -> EarlyExit:
    """``"prophet"``, or with options ``"sched:mode=linear,low=0"``."""
    name, colon, rest = text.partition(":")
    kind, given = find(name), {}
    for item in rest.split(",") if colon else ():
        option, equals, value = item.partition("=")
        if not equals:
            raise InvalidInputError("early_exit", text, "write its options as name:option=value,option=value")
        if option in given:
            raise InvalidInputError("early_exit", text, f"it sets {option} twice")
        given[option] = texts.parse(f"early exit {name!r}", kind, option, value)
    return kind(**given)

"""The early exits, one short file each, and the registry that finds them by name.

An early exit stands beside any sampler and asks, after every forward pass, whether the rest of the answer is clear enough to be
written at once. Packages add their own through the entry-point group ``attn_sampler.exits`` (name → a frozen dataclass that
follows `attn_sampler.seam.EarlyExit`).
"""

from __future__ import annotations

from functools import cache
from typing import Any

from attn_sampler import options as texts
from attn_sampler.errors import InvalidInputError
from attn_sampler.registry import Registry, check_hash, check_object
from attn_sampler.seam import EarlyExit

__all__ = ["build", "find", "names", "parse"]

BUILT_IN = {"prophet": "prophet:Prophet", "sched": "sched:Sched"}
REGISTRY = Registry("early_exit", __name__, "attn_sampler.exits", BUILT_IN, EarlyExit)


def names() -> list[str]:
    """Every registered name, built in and from entry points, sorted."""
    return REGISTRY.names()


@cache
def find(name: str) -> type[Any]:
    """The early exit registered under ``name``."""
    return REGISTRY.find(name)


def build(value: str | EarlyExit) -> EarlyExit:
    """The early exit that a text names (see `parse`); an instance is taken as it is."""
    if isinstance(value, str):
        return parse(value)
    forms = "give a name, name:option=value,option=value, or a frozen dataclass object with name, paper and test"
    check_object("early_exit", value, EarlyExit, forms)
    check_hash("early_exit", value, value, "it")
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

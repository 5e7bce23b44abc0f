"""Option values from text: what ``-o option=text`` and ``early_exit="name:option=text"`` mean, by the option's declared type."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any, Literal, Union

from attn_sampler.errors import InvalidInputError, UnknownNameError

__all__ = ["parse"]


def parse(owner: str, kind: type[Any], option: str, text: str) -> object:
    """The value of one option of the dataclass ``kind``, which messages call ``owner``."""
    known = [f.name for f in dataclasses.fields(kind)]
    if option not in known:
        raise UnknownNameError(f"option of {owner}", option, known)
    return _value(option, text, typing.get_type_hints(kind)[option])


def _value(option: str, text: str, hint: Any) -> object:
    if typing.get_origin(hint) in (Union, types.UnionType):
        if text.lower() == "none":
            return None
        hint = next(arm for arm in typing.get_args(hint) if arm is not type(None))
    if typing.get_origin(hint) is Literal:
        return text  # who declared it checks the choice, and lists it
    if typing.get_origin(hint) is tuple:
        return _indices(option, text)
    if hint is bool:
        if text.lower() not in ("true", "false"):
            raise InvalidInputError(option, text, "give true or false")
        return text.lower() == "true"
    if hasattr(hint, "read"):  # a type whose values are kept in files: the text is a path
        return hint.read(text)
    try:
        return hint(text)
    except ValueError:
        raise InvalidInputError(option, text, f"give {'an integer' if hint is int else 'a number'}") from None


def _indices(option: str, text: str) -> tuple[int, ...]:
    """``0,3,7-9`` → (0, 3, 7, 8, 9)."""
    out: list[int] = []
    for part in text.split(","):
        low, dash, high = part.strip().partition("-")
        if not low.isdigit() or (dash and not high.isdigit()):
            raise InvalidInputError(option, text, "give indices such as 0,3,7-9")
        out += range(int(low), int(high or low) + 1)
    return tuple(out)

"""Values of a hostile process as plain data.

A program under test answers a call with JSON that is rebuilt here as a plain value of a built-in type. No pickle, and no object
of the program's own making: its ``__eq__`` never takes part in a comparison. Whatever has no plain form is a `Handle`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, ItemsView, Iterator, KeysView, ValuesView
from decimal import Decimal
from fractions import Fraction
from itertools import islice
from typing import Any

__all__ = ["Handle", "pack", "unpack"]

MAX_DEPTH = 100  # of nested containers
MAX_ITEMS = 200_000  # of one container; a generator without end stops here


class Handle:
    """An object that stays in the program's process: a function, a class, an instance of one. Calling it calls it there."""

    def __init__(self, number: int, call: Callable[..., object]) -> None:
        self.number, self._call = number, call

    def __call__(self, *args: object, **named: object) -> object:
        return self._call(self.number, args, named)


def pack(value: Any, keep: Callable[[Any], int], depth: int = 0) -> Any:
    """``value`` as JSON: a scalar, or a list of a tag and what is in it.

    Args:
        keep: stores an object that has no plain form and gives its number.
    """
    if depth > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH}")

    def inner(items: Any) -> list[Any]:
        found = [pack(item, keep, depth + 1) for item in islice(items, MAX_ITEMS + 1)]
        if len(found) > MAX_ITEMS:
            raise ValueError(f"more than {MAX_ITEMS} items")
        return found

    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return "".join(value)
    if isinstance(value, int):
        return int(value) if abs(value) < 2**53 else ["int", hex(value)]
    if isinstance(value, float):
        return ["float", float.hex(value)]
    if isinstance(value, complex):
        return ["complex", float.hex(value.real), float.hex(value.imag)]
    if isinstance(value, (bytes, bytearray)):
        return [type(value).__name__, bytes(value).hex()]
    if isinstance(value, Fraction):
        return ["Fraction", hex(value.numerator), hex(value.denominator)]
    if isinstance(value, Decimal):
        return ["Decimal", str(value)]
    if isinstance(value, range):
        return ["range", hex(value.start), hex(value.stop), hex(value.step)]
    for kind in (list, tuple, set, frozenset, deque):
        if isinstance(value, kind):
            return [kind.__name__, *inner(value)]
    if isinstance(value, dict):
        return ["dict", inner(value.keys()), inner(value.values())]
    if isinstance(value, (KeysView, ItemsView, ValuesView)):
        return [f"dict {next(n for n, t in _VIEWS.items() if isinstance(value, t))}", *inner(value)]
    if isinstance(value, Iterator):
        return ["iterator", *inner(value)]
    if isinstance(value, Handle):
        return ["object", value.number]
    return ["object", keep(value)]


_VIEWS = {"keys": KeysView, "items": ItemsView, "values": ValuesView}
_BUILD: dict[str, Callable[..., object]] = {
    "int": lambda x: int(x, 16),
    "float": float.fromhex,
    "complex": lambda real, imaginary: complex(float.fromhex(real), float.fromhex(imaginary)),
    "bytes": bytes.fromhex,
    "bytearray": bytearray.fromhex,
    "Fraction": lambda top, bottom: Fraction(int(top, 16), int(bottom, 16)),
    "Decimal": Decimal,
    "range": lambda *ends: range(*(int(x, 16) for x in ends)),
}
_COLLECT: dict[str, Callable[[list[Any]], object]] = {
    "list": list, "tuple": tuple, "set": set, "frozenset": frozenset, "deque": deque, "iterator": iter,
    "dict keys": lambda items: dict.fromkeys(items).keys(),
    "dict items": lambda items: dict(items).items(),
    "dict values": lambda items: dict(enumerate(items)).values(),
}  # fmt: skip


def unpack(data: Any, fetch: Callable[[int], object]) -> Any:
    """The value that `pack` wrote.

    Args:
        fetch: the object of a number: a `Handle` where it lives elsewhere, itself where it lives here.
    """
    if not isinstance(data, list):
        return data
    tag, *rest = data
    if tag in _BUILD:
        return _BUILD[tag](*rest)
    if tag == "object":
        return fetch(rest[0])
    if tag == "dict":
        keys, values = ([unpack(item, fetch) for item in part] for part in rest)
        return dict(zip(keys, values, strict=True))
    return _COLLECT[tag]([unpack(item, fetch) for item in rest])

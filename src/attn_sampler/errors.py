"""Errors, all typed, all saying what to do.

AttnSamplerError
├── InvalidInputError       a value that the caller gave is wrong (also a ValueError)
│   ├── UnknownNameError    a name (sampler, option, model family) that does not exist; suggests the nearest one
│   └── TooLongError        a prompt and the new tokens do not fit the model's context
├── CheckpointError         a model directory that cannot be loaded: what is wrong with it, file by file
├── EntryPointError         a sampler or early exit of another package cannot be used; names the package
├── RowError                one row failed; the others can go on
│   ├── ModelOutputError    the model returned something that no token can be chosen from (NaN)
│   └── SamplerError        a sampler broke its contract (committed nothing, or outside its candidates)
└── MissingDependencyError  an optional package is needed; names the extra to install (also an ImportError)
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable

__all__ = [
    "AttnSamplerError",
    "CheckpointError",
    "EntryPointError",
    "InvalidInputError",
    "MissingDependencyError",
    "ModelOutputError",
    "RowError",
    "SamplerError",
    "TooLongError",
    "UnknownNameError",
    "check_choice",
    "check_number",
]


class AttnSamplerError(Exception):
    """Root of every error that this library raises on purpose."""


class InvalidInputError(AttnSamplerError, ValueError):
    """A value that the caller gave is wrong.

    Attributes:
        field: name of the parameter.
        value: what was given.
        remedy: what to give instead.
    """

    def __init__(self, field: str, value: object, remedy: str) -> None:
        try:
            shown = repr(value)
        except ValueError:  # Python writes no integer of more than 4300 digits
            shown = f"<{type(value).__name__}>"
        super().__init__(f"{field}={shown if len(shown) <= 80 else shown[:77] + '...'}: {remedy}")
        self.field, self.value, self.remedy = field, value, remedy


class UnknownNameError(InvalidInputError):
    """A name that does not exist. The remedy names the nearest one and lists them all."""

    def __init__(self, field: str, value: str, known: Iterable[str]) -> None:
        known = sorted(known)
        near = difflib.get_close_matches(str(value), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        super().__init__(field, value, f"{hint}known: {', '.join(known) or 'none'}")
        self.suggestion = near[0] if near else None


class TooLongError(InvalidInputError):
    """A prompt and the new tokens do not fit the model's context.

    Attributes:
        given, new: tokens of the prompt; tokens that were to be written.
        context: of the model, tokens.
    """

    def __init__(self, field: str, given: int, new: int, context: int) -> None:
        remedy = f"with {new} new tokens that is longer than the context of {context}: shorten it, or ask for fewer"
        super().__init__(field, f"{given} tokens", f"{remedy} (max_new_tokens, --max-new-tokens)")
        self.given, self.new, self.context = given, new, context


class CheckpointError(AttnSamplerError):
    """A model directory that cannot be loaded."""


class EntryPointError(AttnSamplerError):
    """What another package registers under an entry point cannot be used.

    Attributes:
        name: of the entry point, as it was asked for.
        package: the distribution that registers it.
        remedy: what to do about it.
    """

    def __init__(self, name: str, package: str, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}: {remedy}")
        self.name, self.package, self.remedy = name, package, remedy


class RowError(AttnSamplerError):
    """One row failed; the others can go on.

    Attributes:
        row: its number.
    """

    def __init__(self, row: int, message: str) -> None:
        super().__init__(f"row {row}: {message}")
        self.row = row


class ModelOutputError(RowError):
    """The model returned something that no token can be chosen from."""


class SamplerError(RowError):
    """A sampler broke its contract."""


class MissingDependencyError(AttnSamplerError, ImportError):
    """An optional package is missing.

    Attributes:
        extra: the extra of this package that brings it.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed: pip install 'attn-sampler[{extra}]'")
        self.extra = extra


def check_number(
    field: str, value: object, *, low: float, high: float = float("inf"), integer: bool = False, open_low: bool = False
) -> None:
    """Raise `InvalidInputError` unless ``value`` is a number in [low, high] (or (low, high] with ``open_low``).

    It must also fit into int64 (with ``integer``) or be finite as a float64.
    """
    kind, noun = (int, "an integer") if integer else ((int, float), "a number")
    largest = 2**63 - 1 if integer else sys.float_info.max
    span = f"{'above' if open_low else 'at least'} {low:g}" if high == float("inf") else (
        f"from {low:g} to {high:g}{' (the lower end excluded)' if open_low else ''}"
    )  # fmt: skip
    if isinstance(value, bool) or not isinstance(value, kind):
        raise InvalidInputError(field, value, f"give {noun} {span}")
    if not low <= value <= high or (open_low and value == low):
        raise InvalidInputError(field, value, f"give {noun} {span}")
    if value > largest:
        raise InvalidInputError(field, value, f"give {noun} {span}, at most {largest:g}")


def check_choice(field: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise `UnknownNameError` unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise UnknownNameError(field, str(value), choices)

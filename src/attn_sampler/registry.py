"""Names to classes, for samplers and early exits: built in, or from other packages through an entry-point group.

A name resolves lazily, so listing names imports nothing.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from attn_sampler.errors import InvalidInputError, UnknownNameError

__all__ = ["Registry", "check_hash", "check_object"]


@dataclasses.dataclass(frozen=True)
class Registry:
    """Where the classes of one kind are.

    Attributes:
        kind: what an error calls them.
        package: of those built in.
        group: entry-point group of those of other packages.
        built_in: name → "module:Class", the module relative to the package.
    """

    kind: str
    package: str
    group: str
    built_in: Mapping[str, str]

    def names(self) -> list[str]:
        """Every registered name, sorted."""
        return sorted({*self.built_in, *(point.name for point in entry_points(group=self.group))})

    def find(self, name: str) -> type[Any]:
        """The class registered under ``name``."""
        if name in self.built_in:
            module, _, attribute = self.built_in[name].partition(":")
            return getattr(importlib.import_module(f"{self.package}.{module}"), attribute)
        for point in entry_points(group=self.group):
            if point.name == name:
                return point.load()
        raise UnknownNameError(self.kind, name, self.names())


def check_object(kind: str, value: object, protocol: type[Any], forms: str) -> None:
    """Raise unless ``value`` is a dataclass object that follows ``protocol``; ``forms`` says what may be given."""
    if isinstance(value, type) or not (dataclasses.is_dataclass(value) and isinstance(value, protocol)):
        raise InvalidInputError(kind, value, forms)


def check_hash(kind: str, value: object, built: object, grouped: str) -> None:
    """Raise unless what was built of ``value`` has a hash: rows are grouped by it, as ``grouped`` says."""
    try:
        hash(built)
    except TypeError:
        remedy = f"rows are grouped by {grouped}, so give a frozen dataclass whose options have a hash (tuples, not lists)"
        raise InvalidInputError(kind, value, remedy) from None

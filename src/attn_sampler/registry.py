"""Names to classes, for samplers and early exits: built in, or from other packages through an entry-point group.

A name resolves lazily, so listing names imports nothing, and a broken package is an error only where its name is asked for.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from attn_sampler.errors import EntryPointError, InvalidInputError, UnknownNameError

__all__ = ["Registry", "check_hash", "check_object"]


@dataclasses.dataclass(frozen=True)
class Registry:
    """Where the classes of one kind are.

    Attributes:
        kind: what an error calls them.
        package: of those built in.
        group: entry-point group of those of other packages.
        built_in: name → "module:Class", the module relative to the package.
        protocol: what each class follows.
    """

    kind: str
    package: str
    group: str
    built_in: Mapping[str, str]
    protocol: type[Any]

    def names(self) -> list[str]:
        """Every registered name, sorted."""
        return sorted({*self.built_in, *(point.name for point in entry_points(group=self.group))})

    def find(self, name: str) -> type[Any]:
        """The class registered under ``name``.

        Raises:
            UnknownNameError: nobody registers the name.
            EntryPointError: another package does, and its entry point cannot be loaded, is of the wrong kind, or has the name of
                something built in or of a third package.
        """
        points = list(entry_points(group=self.group, name=name))
        homes = [f"package {_package(point)!r} ({point.value})" for point in points]
        if points and (len(points) > 1 or name in self.built_in):
            homes = ["this library", *homes] if name in self.built_in else homes
            remedy = f"two cannot share a name, so rename the entry point or run pip uninstall {_package(points[-1])}"
            raise EntryPointError(name, _package(points[-1]), f"{self.kind} {name!r} is in {' and in '.join(homes)}", remedy)
        if points:
            return self._load(points[0])
        if name not in self.built_in:
            raise UnknownNameError(self.kind, name, self.names())
        module, _, attribute = self.built_in[name].partition(":")
        return getattr(importlib.import_module(f"{self.package}.{module}"), attribute)

    def _load(self, point: EntryPoint) -> type[Any]:
        """The class behind another package's entry point."""
        package = _package(point)
        where = f"{self.kind} {point.name!r} of package {package!r}, entry point {point.value!r}"
        try:
            kind = point.load()
        except Exception as error:  # whatever the import of somebody's module raises
            problem = f"{where}, cannot be loaded ({type(error).__name__}: {error})"
            remedy = f"repair or update the package, or run pip uninstall {package}"
            raise EntryPointError(point.name, package, problem, remedy) from error
        members = [*self.protocol.__annotations__, *(name for name in vars(self.protocol) if not name.startswith("_"))]
        missing = [name for name in members if not hasattr(kind, name)]
        if missing or not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
            lack = f"lacks {', '.join(missing)}" if missing else "is no dataclass"
            remedy = f"name a frozen dataclass with {', '.join(members)}, or run pip uninstall {package}"
            raise EntryPointError(point.name, package, f"{where}, {lack}", remedy)
        return kind


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "unknown"


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

"""How often each token occurs in a text: what PC-Sampler (arXiv 2508.13021) weighs a token's probability against."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from attn_sampler.errors import InvalidInputError, check_number

__all__ = ["Frequencies"]

FORMAT, VERSION = "attn-sampler-frequencies", 1
REMEDY = "make one with `attn-sampler frequencies CORPUS --output FILE`"


@dataclass(frozen=True, init=False)
class Frequencies:
    """A table of token counts. Tables are equal when their counts are; the counts themselves are no field, so that a table
    costs nothing to hash and a trace names it by its digest.

    Attributes:
        vocab_size: ids run from 0 to this, excluded.
        total: tokens counted.
        digest: SHA-256 of the counts.
    """

    vocab_size: int
    total: int
    digest: str

    def __init__(self, counts: Int[Tensor, " vocab"]) -> None:
        total = int(counts.sum())
        if total <= 0 or bool((counts < 0).any()):
            raise InvalidInputError("counts", total, "give counts of at least one token, none of them negative")
        listed = ",".join(map(str, counts.tolist()))
        object.__setattr__(self, "vocab_size", len(counts))
        object.__setattr__(self, "total", total)
        object.__setattr__(self, "digest", hashlib.sha256(listed.encode()).hexdigest())
        self.__dict__["counts"] = counts.cpu().clone()

    @property
    def counts(self) -> Int[Tensor, " vocab"]:
        """Occurrences of each id."""
        return self.__dict__["counts"]

    def shares(self, device: torch.device) -> Float64[Tensor, " vocab"]:
        """Count over total; a token that does not occur counts as one occurrence, as in the authors' code."""
        return _shares(self, device)

    @classmethod
    def count(cls, ids: Iterable[int], vocab_size: int) -> Self:
        """Count the ids of a tokenized text."""
        check_number("vocab_size", vocab_size, low=1, integer=True)
        found = torch.tensor(list(ids), dtype=torch.long)
        if not len(found):
            raise InvalidInputError("ids", [], "give at least one token")
        if int(found.min()) < 0 or int(found.max()) >= vocab_size:
            wrong = int(found.min()) if int(found.min()) < 0 else int(found.max())
            raise InvalidInputError("ids", wrong, f"give token ids from 0 to {vocab_size - 1}")
        return cls(torch.bincount(found, minlength=vocab_size))

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """The table in a file.

        Raises:
            InvalidInputError: no such file, or no table of this version.
        """
        shown = str(path)
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise InvalidInputError("frequencies", shown, f"cannot be read ({error.strerror}); {REMEDY}") from error
        except (ValueError, RecursionError) as error:
            raise InvalidInputError("frequencies", shown, f"is not JSON; {REMEDY}") from error
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise InvalidInputError("frequencies", shown, f"is no table of token frequencies; {REMEDY}")
        if values.get("version") != VERSION:
            remedy = f"is of version {values.get('version')!r}, this attn-sampler reads version {VERSION}; {REMEDY}"
            raise InvalidInputError("frequencies", shown, remedy)
        try:
            return cls(_counts(values))
        except (TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
            raise InvalidInputError("frequencies", shown, f"is damaged ({error}); {REMEDY}") from error

    def write(self, path: str | Path) -> None:
        """Write the table to a file: the ids that occur, with their counts."""
        occurring = self.counts.nonzero()[:, 0]
        counts = dict(zip(map(str, occurring.tolist()), self.counts[occurring].tolist(), strict=True))
        values = {"format": FORMAT, "version": VERSION, "vocab_size": self.vocab_size, "total": self.total, "counts": counts}
        try:
            Path(path).write_text(json.dumps(values) + "\n", encoding="utf-8")
        except OSError as error:
            raise InvalidInputError("output", str(path), f"cannot be written ({error.strerror})") from error


def _counts(values: dict[str, Any]) -> Int[Tensor, " vocab"]:
    check_number("vocab_size", values.get("vocab_size"), low=1, high=2**24, integer=True)
    counts = torch.zeros(values["vocab_size"], dtype=torch.long)
    ids = [int(i) for i in values["counts"]]
    if ids and not 0 <= min(ids) <= max(ids) < len(counts):
        raise ValueError(f"ids outside its vocabulary of {len(counts)}")
    counts[ids] = torch.tensor(list(values["counts"].values()), dtype=torch.long)
    return counts


@lru_cache(maxsize=8)
def _shares(table: Frequencies, device: torch.device) -> Float64[Tensor, " vocab"]:
    return (table.counts.clamp(min=1).double() / table.total).to(device)

"""Solutions of 9 x 9 grids that come without one: candidates as bits, singles until none is left, then the narrowest cell."""

from __future__ import annotations

from attn_sampler.evals.tasks.sudoku9 import UNITS

PEERS = [{j for unit in UNITS if i in unit for j in unit} - {i} for i in range(81)]
ALL = 0b111_111_111


def solution(puzzle: str) -> str:
    """The first grid that keeps the clues, its 81 digits; 0 is an empty cell, white space is ignored."""
    cells = "".join(puzzle.split())
    found = _filled([ALL if c == "0" else 1 << (int(c) - 1) for c in cells])
    assert found, "no grid keeps these clues"
    return "".join(str(left.bit_length()) for left in found)


def _filled(left: list[int]) -> list[int] | None:
    if not _narrowed(left):
        return None
    unclear = [i for i in range(81) if left[i] & (left[i] - 1)]
    if not unclear:
        return left
    i = min(unclear, key=lambda i: left[i].bit_count())
    tried = (_filled([*left[:i], 1 << k, *left[i + 1 :]]) for k in range(9) if left[i] >> k & 1)
    return next((found for found in tried if found), None)


def _narrowed(left: list[int]) -> bool:
    """Take out what cannot be, in place, until nothing changes; False where a cell or a unit has nothing left."""
    told: set[int] = set()  # cells whose peers know of them
    while fresh := [i for i in range(81) if i not in told and not left[i] & (left[i] - 1)]:
        while fresh:
            i = fresh.pop()
            told.add(i)
            for j in PEERS[i]:
                if left[j] & left[i]:
                    left[j] ^= left[i]
                    if not left[j]:
                        return False
                    if not left[j] & (left[j] - 1):
                        fresh.append(j)
        if not all(_placed(left, unit) for unit in UNITS):
            return False
    return True


def _placed(left: list[int], unit: list[int]) -> bool:
    """A digit with one cell left in the unit goes there; False where a digit has none."""
    once = twice = 0
    for i in unit:
        twice |= once & left[i]
        once |= left[i]
    lone = once & ~twice
    for i in unit:
        if only := left[i] & lone:
            left[i] = only
            if only & (only - 1):  # two digits that have no other cell
                return False
    return once == ALL

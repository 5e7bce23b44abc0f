"""DOS, the Dependency-Oriented Sampler (arXiv 2603.15340): first what the known context supports best.

Score: the share of a position's own attention, one layer's mean over heads, that goes to tokens already known, prompt included.
The ``k`` best per step, or with ``gamma`` the longest prefix of that order within EB's entropy bound (DOS+EB). Where
Attn-Sampler asks how much the others look at a mask (its column), this asks how much the mask looks at what is known (its row).
The paper tunes the layer per model and task and reports little difference among the first ten or so; the default is the one at
7/32 of the depth. Written from the paper; its code was not available.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from attn_sampler import rules, scores
from attn_sampler.errors import check_number
from attn_sampler.seam import Attention, Memory, Needs, Selection, Window

__all__ = ["Dos"]

SPAN = (7 / 32, 8 / 32)  # layer 7 of LLaDA's 32, one of the paper's best


@dataclass(frozen=True)
class Dos:
    """Highest attention to known tokens first.

    Options:
        k: positions committed per step, at least.
        gamma: entropy bound in nats up to which more are committed in the same order (DOS+EB); None for none.
        layer: index of the layer that is read; None for the one at 7/32 of the depth.
    """

    name: ClassVar[str] = "dos"
    paper: ClassVar[str] = "arXiv:2603.15340"

    k: int = 1
    gamma: float | None = None
    layer: int | None = None

    def __post_init__(self) -> None:
        check_number("k", self.k, low=1, integer=True)
        if self.gamma is not None:
            check_number("gamma", self.gamma, low=0)
        if self.layer is not None:
            check_number("layer", self.layer, low=0, integer=True)

    @property
    def needs(self) -> Needs:
        layers, span = ((self.layer,), None) if self.layer is not None else (None, SPAN)
        return Needs(attention=Attention("all", "global", layers=layers, span=span, known_mass=True, layers_option="layer"))

    def select(self, window: Window, memory: Memory) -> Selection:
        score, least = window.known_mass, window.quota.clamp(min=self.k)
        assert score is not None, "the sampler's needs ask for it"
        if self.gamma is None:
            return Selection(rules.top_k(score, window.candidates, least), score)
        place = rules.rank(score, window.candidates)
        commit = rules.entropy_bound(scores.entropy(window), window.candidates, least, self.gamma, place)
        return Selection(commit, score)

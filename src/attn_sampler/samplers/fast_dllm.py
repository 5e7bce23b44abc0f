"""Fast-dLLM v1 (arXiv 2505.22618): commit everything that is confident enough, in parallel.

Both rules order by confidence. The threshold test is ``>=`` (v2 of the same authors uses ``>``).

``apart`` is our own addition, NOT the paper's: of two positions that pass the threshold but attend to each other only the surer
is committed. On the embedded model attention between masks goes with their mutual information, which is what a parallel commit
ignores (docs/log.md has the measurement). DAPD (arXiv 2603.12996) joins masks alike, but orders them by attention and has no
threshold at the start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from attn_sampler import rules, scores
from attn_sampler.errors import check_choice, check_number
from attn_sampler.seam import Attention, Memory, Needs, Selection, Window

__all__ = ["FastDllmFactor", "FastDllmThreshold"]

CERTAIN = 0.99  # confidence from which a position makes none wait and waits for none: 0.95 and 0.9 were worse (docs/log.md)
DEPTH = 0.7  # share of the model's depth from which on attention counts: earlier layers say less of who depends on whom


@dataclass(frozen=True)
class FastDllmThreshold:
    """Every position whose confidence reaches the threshold, and the best one in any case.

    Options:
        threshold: confidence from which a position is committed.
        apart: attention, mean of both directions, above which two of these positions are not committed together (our addition):
            the less confident one waits, but for those from 0.99 on. The mean of the last 30 % of the layers; None asks for no
            attention.
    """

    name: ClassVar[str] = "fast-dllm"
    paper: ClassVar[str] = "arXiv:2505.22618"

    threshold: float = 0.9
    apart: float | None = None

    def __post_init__(self) -> None:
        check_number("threshold", self.threshold, low=0, high=1)
        if self.apart is not None:
            check_number("apart", self.apart, low=0)

    @property
    def needs(self) -> Needs:
        if self.apart is None:
            return Needs()
        return Needs(attention=Attention("masked", "global", span=(DEPTH, 1.0), pairwise=True))

    def select(self, window: Window, memory: Memory) -> Selection:
        score, masked = scores.confidence(window), window.candidates
        chosen = rules.threshold(score, masked, window.quota, self.threshold)
        if self.apart is not None:
            assert window.pairwise is not None, "the sampler's needs ask for the matrix"
            unsure = chosen & (score < CERTAIN)
            conflict = (window.pairwise + window.pairwise.mT) / 2 > self.apart
            conflict = conflict & unsure[:, None] & unsure[:, :, None]
            chosen = rules.at_least(rules.independent_set(score, chosen, conflict), score, masked, window.quota)
        return Selection(chosen, score)


@dataclass(frozen=True)
class FastDllmFactor:
    """As many of the most confident positions as keep (n + 1)(1 - c_n) within the factor.

    Options:
        factor: the bound; larger commits more.
        compat: ``"reference"`` also commits the last candidate when only it fails, as the authors' code does.
    """

    name: ClassVar[str] = "fast-dllm-factor"
    paper: ClassVar[str] = "arXiv:2505.22618"

    factor: float = 1.0
    compat: Literal["none", "reference"] = "none"

    def __post_init__(self) -> None:
        check_number("factor", self.factor, low=0)
        check_choice("compat", self.compat, ("none", "reference"))

    @property
    def needs(self) -> Needs:
        return Needs()

    def select(self, window: Window, memory: Memory) -> Selection:
        score = scores.confidence(window)
        quirk = self.compat == "reference"
        return Selection(rules.factor(score, window.candidates, window.quota, self.factor, quirk), score)

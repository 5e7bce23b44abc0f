"""The parallel decoders of dInfer (arXiv 2510.08666): a threshold that follows the best position, and divide and conquer.

The authors' code leaves out positions whose most likely token is the mask. Here the mask token is never proposed, to any sampler,
so that such a position stands in with its next best token. Everything else equals their code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from attn_sampler import rules, scores
from attn_sampler.errors import check_number
from attn_sampler.seam import Memory, Needs, Selection, Window

__all__ = ["DInferHierarchy", "DInferThreshold"]


@dataclass(frozen=True)
class DInferThreshold:
    """Every position whose confidence reaches the threshold, or is as good as that of the best one.

    Options:
        threshold: confidence from which a position is committed.
    """

    name: ClassVar[str] = "dinfer"
    paper: ClassVar[str] = "arXiv:2510.08666"

    threshold: float = 0.9

    def __post_init__(self) -> None:
        check_number("threshold", self.threshold, low=0, high=1)

    @property
    def needs(self) -> Needs:
        return Needs()

    def select(self, window: Window, memory: Memory) -> Selection:
        score = scores.confidence(window)
        return Selection(rules.capped_threshold(score, window.candidates, window.quota, self.threshold), score)


@dataclass(frozen=True)
class DInferHierarchy:
    """The best position of every run of masks, so that each pass splits every run.

    Options:
        threshold: confidence above which any position is committed.
        low: confidence above which the best position of its run is.
        remask: a committed token of the block goes back to being a mask where the best token now has less confidence; None for
            never.
    """

    name: ClassVar[str] = "dinfer-hierarchy"
    paper: ClassVar[str] = "arXiv:2510.08666"

    threshold: float = 0.9
    low: float = 0.4
    remask: float | None = None

    def __post_init__(self) -> None:
        check_number("threshold", self.threshold, low=0, high=1)
        check_number("low", self.low, low=0, high=1)
        if self.remask is not None:
            check_number("remask", self.remask, low=0, high=1, open_low=True)

    @property
    def needs(self) -> Needs:
        return Needs(revises=self.remask is not None)

    def select(self, window: Window, memory: Memory) -> Selection:
        score, masked = scores.confidence(window), window.candidates
        doubtful = torch.zeros_like(masked)
        if self.remask is not None and window.revisable is not None:
            doubtful = window.revisable & (score < self.remask) & masked.any(1, keepdim=True)
        free = masked | doubtful  # what is doubtful competes as if it were a mask
        chosen = (best_of_runs(score, free) & (score > self.low)) | (free & (score > self.threshold))
        # As many more as are owed after what goes back to being a mask: the number of masks falls at every pass.
        owed = doubtful.sum(1) + torch.minimum(window.quota, masked.sum(1))
        chosen = chosen | rules.top_k(chosen.to(score.dtype), free, owed, tie=score)
        if self.remask is None:
            return Selection(chosen, score)
        return Selection(chosen & masked, score, rewrite=chosen & doubtful, remask=doubtful & ~chosen)


def best_of_runs(confidence: Float[Tensor, "rows width"], candidates: Bool[Tensor, "rows width"]) -> Bool[Tensor, "rows width"]:
    """The most confident candidate of every run of neighbouring candidates (with an exact tie, all of them)."""
    confidence = confidence.masked_fill(~candidates, -torch.inf)
    starts = candidates & ~F.pad(candidates[:, :-1], (1, 0))
    run = starts.cumsum(1)  # others carry the number of the run before them, and -inf
    best = torch.full_like(F.pad(confidence, (0, 1)), -torch.inf).scatter_reduce(1, run, confidence, "amax")
    return candidates & (confidence == best.gather(1, run))

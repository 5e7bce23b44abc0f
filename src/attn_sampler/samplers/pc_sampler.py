"""PC-Sampler (arXiv 2508.13021): earlier positions first, and tokens that are more than frequent.

A model is sure of tokens that are common everywhere, punctuation and line ends above all, so confidence alone writes them first.
The score multiplies the confidence by the token's surprise in a background text and by a weight that falls along the block:

    exp(-decay place) min(-p log(f(token) + 1e-9), alpha)

``place`` counts from the start of the block, ``f`` is the token's share of the background text. ``mode="linear"`` is the
companion in the authors' code, a sum of the two parts instead of a product.

Deviations: in ``"linear"`` the scale from 0 to 1 spans the masks that may be committed (the authors': the whole block, written
positions included); scores are float64, so that no place of a long block underflows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float64
from torch import Tensor

from attn_sampler import rules
from attn_sampler.errors import InvalidInputError, check_choice, check_number
from attn_sampler.frequencies import Frequencies
from attn_sampler.seam import Memory, Needs, Selection, Window

__all__ = ["PcSampler"]

EPSILON = 1e-9  # inside the logarithm, and below the spread of the linear form, as in the authors' code


@dataclass(frozen=True)
class PcSampler:
    """Confidence calibrated by how common the token is anyway, weighted towards the start of the block.

    Options:
        frequencies: table of token frequencies (`attn_sampler.frequencies.Frequencies`, on the command line the file that
            ``attn-sampler frequencies`` wrote); None weighs every token alike, with a calibration of 1.
        decay: how fast the weight falls along the block; with ``"linear"`` the share of the place in the score, 0 to 1.
        alpha: calibrated confidence at most.
        mode: ``"exponential"``, or ``"linear"``, the authors' companion.
        k: positions per forward; a step budget (``steps``) can only raise it.
    """

    name: ClassVar[str] = "pc-sampler"
    paper: ClassVar[str] = "arXiv:2508.13021"

    frequencies: Frequencies | None = None
    decay: float = 0.25
    alpha: float = 10.0
    mode: Literal["exponential", "linear"] = "exponential"
    k: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.frequencies, Frequencies | None):
            raise InvalidInputError("frequencies", self.frequencies, "give Frequencies.read(path), or None for no table")
        check_choice("mode", self.mode, ("exponential", "linear"))
        check_number("decay", self.decay, low=0, high=1 if self.mode == "linear" else float("inf"))
        check_number("alpha", self.alpha, low=0, open_low=True)
        check_number("k", self.k, low=1, integer=True)

    @property
    def needs(self) -> Needs:
        return Needs(vocab_size=None if self.frequencies is None else self.frequencies.vocab_size)

    def select(self, window: Window, memory: Memory) -> Selection:
        score = self.score(window)
        return Selection(rules.top_k(score, window.candidates, window.quota.clamp(min=self.k)), score)

    def score(self, window: Window) -> Float64[Tensor, "rows width"]:
        calibrated = (window.proposal.confidence.double() * self._surprise(window)).clamp(max=self.alpha)
        place = (window.positions - window.positions[:, :1]).double()
        if self.mode == "exponential":
            return (-self.decay * place).exp() * calibrated
        low = calibrated.masked_fill(~window.candidates, torch.inf).amin(1, keepdim=True)
        high = calibrated.masked_fill(~window.candidates, -torch.inf).amax(1, keepdim=True)
        length = place[:, -1:] + 1  # entries beyond a row's own width repeat its last position
        return (1 - self.decay) * (calibrated - low) / (high - low).clamp(min=EPSILON) + self.decay * (1 - place / length)

    def _surprise(self, window: Window) -> Float64[Tensor, "rows width"] | float:
        if self.frequencies is None:
            return 1.0
        return -(self.frequencies.shares(window.positions.device)[window.proposal.tokens] + EPSILON).log()

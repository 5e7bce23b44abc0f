"""KLASS (arXiv 2511.05664): commit what is both confident and stable from one forward to the next.

Stable means that the last ``history`` values of KL(p_t || p_{t-1}) at the position are all below ``kl_threshold``. The memory
spans the whole answer, because the reference keeps it across blocks: a block's first steps compare with the block before. Where
less is ready than the step owes, the most confident are committed too (the authors' code does so only where nothing is ready, and
may then leave masks behind when ``steps`` is below the answer's length). Deviation: probabilities in the logits' own precision
(float32 at least) where the authors' code has float64; with p near 1e-12 in both logs the difference is below 1e-6 nats.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from attn_sampler import rules, scores
from attn_sampler.errors import check_number
from attn_sampler.seam import Memory, Needs, Selection, Window

__all__ = ["Klass"]

EPSILON = 1e-12  # inside both logarithms, as in the authors' code


@dataclass(frozen=True)
class Klass:
    """Confident positions whose distribution has stopped moving (KL divergence between forwards).

    Options:
        threshold: confidence above which a position may be ready.
        kl_threshold: KL divergence in nats below which it counts as stable.
        history: consecutive stable forwards wanted.
    """

    name: ClassVar[str] = "klass"
    paper: ClassVar[str] = "arXiv:2511.05664"

    threshold: float = 0.9
    kl_threshold: float = 0.01
    history: int = 2

    def __post_init__(self) -> None:
        check_number("threshold", self.threshold, low=0, high=1)
        check_number("kl_threshold", self.kl_threshold, low=0)
        check_number("history", self.history, low=1, integer=True)

    @property
    def needs(self) -> Needs:
        return Needs(scope="answer")

    def select(self, window: Window, memory: Memory) -> Selection:
        confidence = scores.confidence(window)
        p = window.proposal.logits.softmax(-1)
        log_p = (p + EPSILON).log_().sub_(math.log(EPSILON))  # zero is probability 0, which the first forward is compared with
        before = memory["log_p"] if memory else torch.zeros_like(p)
        kl = (log_p - before).mul_(p).sum(-1)
        past = memory["kl"] if memory else torch.zeros(*kl.shape, self.history, dtype=kl.dtype, device=kl.device)
        past = torch.cat([past[..., 1:], kl[..., None]], -1)
        warm = (window.step_in_block >= self.history - 1)[:, None]
        ready = window.candidates & (confidence > self.threshold) & (past < self.kl_threshold).all(-1) & warm
        slow = rules.top_k(confidence, window.candidates, window.quota)
        short = ready.sum(1) < torch.minimum(window.quota, window.candidates.sum(1))
        commit = ready | (slow & short[:, None])
        return Selection(commit, confidence, {"log_p": log_p, "kl": past})

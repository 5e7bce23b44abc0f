"""The samplers of Dream 7B (arXiv 2508.15487): a shrinking share of the masks per step.

With time running from 1 to ``eps`` in equal steps, step i uncovers the share 1 - t(i+1)/t(i) of what is still masked, the last
step everything. Confidences are those of the filtered distribution: after temperature, top-p and top-k.

The authors' code rounds the number down, so that early steps may commit nothing and still cost a forward pass. Here every step
commits at least one position; ``compat="reference"`` rounds as they do. Their random numbers cannot be reproduced, the
distributions are theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attn_sampler import rules, scores
from attn_sampler.errors import check_choice, check_number
from attn_sampler.propose import scaled
from attn_sampler.rng import ORDER, uniform
from attn_sampler.seam import Memory, Needs, Selection, Window

__all__ = ["Dream"]


@dataclass(frozen=True)
class Dream:
    """Dream's schedule with one of its four orders.

    Options:
        alg: ``"entropy"``, ``"maskgit_plus"`` (probability of the token), ``"topk_margin"``, or ``"origin"`` (by chance).
        alg_temp: 0 takes the best positions; above, positions are drawn from softmax(confidence / alg_temp).
        eps: where the schedule's time ends.
        compat: ``"reference"`` lets a step commit nothing.
    """

    name: ClassVar[str] = "dream"
    paper: ClassVar[str] = "arXiv:2508.15487"

    alg: Literal["entropy", "maskgit_plus", "topk_margin", "origin"] = "entropy"
    alg_temp: float = 0.0
    eps: float = 1e-3
    compat: Literal["none", "reference"] = "none"

    def __post_init__(self) -> None:
        check_choice("alg", self.alg, ("entropy", "maskgit_plus", "topk_margin", "origin"))
        check_number("alg_temp", self.alg_temp, low=0)
        check_number("eps", self.eps, low=0, high=1, open_low=True)
        check_choice("compat", self.compat, ("none", "reference"))

    @property
    def needs(self) -> Needs:
        return Needs(one_block=True)

    def select(self, window: Window, memory: Memory) -> Selection:
        assert window.steps is not None, "the engine plans the steps of every row"
        step, steps = window.step_in_block.double(), window.steps.double().clamp(min=1)
        now, then = (1 + (self.eps - 1) * (step + i) / steps for i in (0, 1))
        share = torch.where(step >= steps - 1, 1.0, 1 - then / now)
        least = 1 if self.compat == "none" else 0
        if self.alg == "origin":
            chance = _chance(window)
            commit, score = window.candidates & (chance < share[:, None]), 1 - chance
            commit = commit | rules.top_k(score, window.candidates, torch.full_like(window.steps, least))
        else:
            score = self._score(window)
            if self.alg_temp > 0:  # the largest of score / alg_temp plus Gumbel noise are such a draw without replacement
                score = score / self.alg_temp - (-_chance(window).log()).log()
            count = (window.candidates.sum(1) * share).long().clamp(min=least)
            commit = rules.top_k(score, window.candidates, count)
        return Selection(commit, score, hold=window.candidates.any(1) & ~commit.any(1))

    def _score(self, window: Window) -> Float[Tensor, "rows width"]:
        """How sure each candidate is in the filtered distribution."""
        logits, choice = window.proposal.logits, window.choice
        assert choice is not None
        (score,) = scores.measured(
            lambda logits, tokens: (_sureness(self.alg, logits.softmax(-1), tokens),),
            window.candidates,
            scaled(logits, choice) if choice.samples or choice.filters else logits,
            window.proposal.tokens,
        )
        return score


def _sureness(alg: str, p: Float[Tensor, "positions vocab"], tokens: Int[Tensor, " positions"]) -> Float[Tensor, " positions"]:
    if alg == "maskgit_plus":
        return p.gather(-1, tokens[:, None])[:, 0]
    if alg == "topk_margin":
        best = p.topk(2, -1).values
        return best[:, 0] - best[:, 1]
    return (p + 1e-10).log_().mul_(p).sum(-1)


def _chance(window: Window) -> Float[Tensor, "rows width"]:
    """A random number per position, uniform in (0, 1)."""
    return uniform(window.seed, window.forward, window.positions, ORDER)[..., 0]

"""The log-likelihood of a text under a masked diffusion model: estimated as LLaDA does, or exact under one order.

Such a model has no one log-likelihood. What LLaDA reports (arXiv 2502.09992, Algorithm 3) is a lower bound that equals the mean
over all n! orders in which the n tokens could be written: draw l from 1 … n, mask l of the tokens, and weigh the log-probability
of the masked ones by n / l. `monte_carlo` estimates it and says how far off it may be. Under one named order the log-likelihood
is a sum of n terms and exact; `Likelihood` chooses.

Differences from LLaDA's own evaluation, none of which changes what is estimated:

- The draws of l are spread over 1 … n systematically from one random start, so their values differ by little else than the tokens
  drawn. (LLaDA does so within each batch, rounding to integers.) The standard error is that of systematic samples.
- Where all subsets are fewer than the draws asked for, all are taken: short answers are exact.
- The draws belong to the request: its own seed makes them, whatever stands before it or beside it.
- A block-causal model's target is cut at its blocks, whose log-likelihoods add up: it was never trained to see masks in an
  earlier block.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from attn_sampler import scores
from attn_sampler.cache import Stretch
from attn_sampler.errors import InvalidInputError, check_choice, check_number
from attn_sampler.evals.likelihood import (
    RULES,
    Rule,
    Target,
    follow,
    given_subsets,
    log_likelihood,
    place_blocks,
    subset_log_likelihood,
    written_greedily,
)
from attn_sampler.models.seam import Ask, Model, Prediction
from attn_sampler.rng import ORDER, uniform

__all__ = ["METHODS", "Estimate", "Guided", "Likelihood", "monte_carlo"]

FIXED = ("left-to-right", "right-to-left", "random")
DECIDED = {name.split(",")[0]: rule for name, rule in RULES.items()}  # option lists are cut at commas
METHODS = ("monte-carlo", *FIXED, *DECIDED)
"""Ways to a log-likelihood: an estimate of the mean over all orders; fixed orders; orders that the model decides as it goes."""


@dataclass(frozen=True)
class Estimate:
    """A log-likelihood.

    Attributes:
        value: nats.
        standard_error: of the estimate, nats; 0 where it is exact, None where one draw cannot tell.
        canvases: that went through the model.
    """

    value: float
    standard_error: float | None
    canvases: int

    def __add__(self, other: Estimate) -> Estimate:
        """Of two independent texts together."""
        errors = (self.standard_error, other.standard_error)
        error = None if errors[0] is None or errors[1] is None else math.hypot(errors[0], errors[1])
        return Estimate(self.value + other.value, error, self.canvases + other.canvases)


# --- the mean over all orders ---------------------------------------------------------------------------------------


def monte_carlo(model: Model, target: Target, draws: int, seed: int = 0, max_rows: int = 32) -> Estimate:
    """LLaDA's estimate from ``draws`` canvases, ``max_rows`` of them in a forward pass; exact where 2^n ≤ ``draws``.

    With draws v_1 … v_m in ascending order of l, the variance of their mean is taken as Σ (v_{k+1} - v_k)² / 2m(m-1), the
    successive-difference estimate for systematic samples (Wolter, Introduction to Variance Estimation, 2007, §8.2). What l adds
    to a difference makes it too large rather than too small.
    """
    n = len(target.tokens)
    if 1 << n <= draws:
        return Estimate(float((subset_log_likelihood(model, target, max_rows) * _weights(n, target)).sum()), 0.0, 1 << n)
    masked = _masked(n, draws, seed, target.canvas.device)
    values = given_subsets(model, target, ~masked, max_rows).sum(1) * n / masked.sum(1)
    mean = float(values.mean())
    if draws == 1 or not math.isfinite(mean):
        return Estimate(mean, None, draws)
    return Estimate(mean, float(values.diff().square().sum() / (2 * draws * (draws - 1))) ** 0.5, draws)


def _weights(n: int, target: Target) -> Float64[Tensor, "subsets 1"]:
    """What each subset of written tokens weighs in the mean: P(l) P(subset | l) n / l = 1 / (l C(n, l)) with l tokens masked."""
    of_size = [0.0, *(1 / (left * math.comb(n, left)) for left in range(1, n + 1))]
    table = torch.tensor(of_size, dtype=torch.float64, device=target.canvas.device)
    bits = torch.arange(1 << n, device=table.device)[:, None] >> torch.arange(n, device=table.device) & 1
    return table[n - bits.sum(1)][:, None]


def _masked(n: int, draws: int, seed: int, device: torch.device) -> Bool[Tensor, "draws n"]:
    """Which tokens each draw masks: l of them, l ascending from draw to draw and uniform over 1 … n on the whole."""
    numbers = torch.arange(draws + 1, device=device)
    noise = uniform(torch.full_like(numbers, seed), numbers, torch.arange(n, device=device).repeat(draws + 1, 1), ORDER)[..., 0]
    count = ((noise[-1, 0] + numbers[:-1]) / draws * n).long().clamp(max=n - 1) + 1  # clamp: against rounding up to n
    return noise[:-1].argsort(1).argsort(1) < count[:, None]


# --- guidance -------------------------------------------------------------------------------------------------------


class Guided:
    """A model under classifier-free guidance: logits = l_u + (1 + scale)(l_c - l_u), l_u with the prompt masked (LLaDA).

    Args:
        given: tokens at the beginning of every canvas that are the prompt.
    """

    def __init__(self, model: Model, given: int, scale: float) -> None:
        self.model, self.given, self.scale = model, given, scale

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def predict(
        self,
        ids: Int[Tensor, "rows length"],
        valid: Bool[Tensor, "rows length"] | None,
        asks: Sequence[Ask],
        stretch: Stretch | None = None,
    ) -> list[Prediction]:
        """As the model's own; two passes."""
        blind = ids.clone()
        blind[:, : self.given] = self.model.mask_id
        bare = [Ask(ask.rows, ask.positions) for ask in asks]
        seen, unseen = self.model.predict(ids, valid, asks), self.model.predict(blind, valid, bare)
        return [
            dataclasses.replace(c, logits=u.logits + (1 + self.scale) * (c.logits - u.logits))
            for c, u in zip(seen, unseen, strict=True)
        ]


# --- the choice -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Likelihood:
    """How the log-likelihood of a target behind a prompt is found.

    Attributes:
        method: one of `METHODS`. ``"random"`` is one order drawn per request.
        draws: canvases per request of ``"monte-carlo"`` (for a block-causal model, per block).
        seed: of the draws and the random order.
        cfg_scale: classifier-free guidance, 0 for none.
        check_greedy: whether `greedy` is asked for at all.
    """

    method: str = "monte-carlo"
    draws: int = 128
    seed: int = 0
    cfg_scale: float = 0.0
    check_greedy: bool = True

    def __post_init__(self) -> None:
        check_choice("likelihood", self.method, METHODS)
        check_number("mc_num", self.draws, low=1, integer=True)
        check_number("seed", self.seed, low=0, integer=True)
        check_number("cfg_scale", self.cfg_scale, low=0)
        if not isinstance(self.check_greedy, bool):
            raise InvalidInputError("check_greedy", self.check_greedy, "give True or False")

    def of(self, model: Model, prompt: Sequence[int], target: Sequence[int], max_rows: int = 32) -> tuple[Estimate, bool]:
        """The log-likelihood of ``target`` behind ``prompt``, and whether the model writes just this by itself.

        That is tried with its most likely token, one per pass, in the order of the method, by confidence where this has none, as
        LLaDA does; it ends at the first other token. False without ``check_greedy``.
        """
        net = cast("Model", Guided(model, len(prompt), self.cfg_scale)) if self.cfg_scale > 0 else model
        parts = place_blocks(net, prompt, target)
        seeds = [_seed(self.seed, prompt, target, number) for number in range(len(parts))]
        found = [self._part(net, part, seed, max_rows) for part, seed in zip(parts, seeds, strict=True)]
        greedy = self.check_greedy and all(written_greedily(net, part, self._rule) for part in parts)
        return sum(found[1:], found[0]), greedy

    def _part(self, model: Model, target: Target, seed: int, max_rows: int) -> Estimate:
        if self.method == "monte-carlo":
            return monte_carlo(model, target, self.draws, seed, max_rows)
        n = len(target.tokens)
        if self.method in DECIDED:
            return Estimate(float(follow(model, target, [DECIDED[self.method]])[1].sum()), 0.0, n)
        places = torch.arange(n, device=target.canvas.device)
        if self.method == "random":
            zero = torch.zeros(1, dtype=torch.long, device=places.device)
            places = uniform(zero + seed, zero, places[None], ORDER)[0, :, 0].argsort()
        elif self.method == "right-to-left":
            places = places.flip(0)
        return Estimate(float(log_likelihood(model, target, places[None], max_rows).sum()), 0.0, n)

    @property
    def _rule(self) -> Rule:
        if self.method == "left-to-right":
            return Rule(scores.left_to_right)
        if self.method == "right-to-left":
            return Rule(lambda window: -scores.left_to_right(window))
        return DECIDED.get(self.method, DECIDED["confidence"])


def _seed(seed: int, prompt: Sequence[int], target: Sequence[int], number: int) -> int:
    """A request's own, the same wherever it stands."""
    text = repr((seed, list(prompt), list(target), number))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1

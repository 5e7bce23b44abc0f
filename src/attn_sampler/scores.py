"""Where: one number per position of a window, higher first.

Every score is a pure function of the `Window`; probabilities are softmax at temperature 1 of the proposal's logits.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from attn_sampler.rng import ORDER, uniform
from attn_sampler.seam import Window

__all__ = ["column_sum", "confidence", "entropy", "left_to_right", "logit_gap", "margin", "random"]


def confidence(window: Window) -> Float[Tensor, "rows width"]:
    """Probability of the proposed token."""
    return window.proposal.confidence


def margin(window: Window) -> Float[Tensor, "rows width"]:
    """Probability of the most likely token minus that of the second."""
    best = window.proposal.logits.softmax(-1).topk(2, -1).values
    return best[..., 0] - best[..., 1]


def logit_gap(window: Window) -> Float[Tensor, "rows width"]:
    """The highest logit minus the second."""
    best = window.proposal.logits.topk(2, -1).values
    return best[..., 0] - best[..., 1]


def entropy(window: Window) -> Float[Tensor, "rows width"]:
    """Entropy of the distribution in nats (a *low* entropy is a sure position; samplers order by its negative)."""
    log_p = window.proposal.logits.log_softmax(-1)
    log_p.clamp_(min=torch.finfo(log_p.dtype).min)  # in place: a copy as large as the logits costs as much as the sum
    return -log_p.exp().mul_(log_p).sum(-1)


def random(window: Window) -> Float[Tensor, "rows width"]:
    """Uniform numbers from the row's own seed."""
    return uniform(window.seed, window.forward, window.positions, ORDER)[..., 0]


def left_to_right(window: Window) -> Float[Tensor, "rows width"]:
    """Minus the position."""
    return -window.positions.to(window.proposal.confidence.dtype)


def column_sum(window: Window) -> Float[Tensor, "rows width"]:
    """Attention column sums, mean over layers and query heads (arXiv 2604.08564)."""
    assert window.columns is not None, "the sampler's needs ask for no attention"
    return window.columns

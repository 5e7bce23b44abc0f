"""Where: one number per position of a window, higher first.

Every score is a pure function of the `Window`; probabilities are softmax at temperature 1 of the proposal's logits.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attn_sampler.rng import ORDER, uniform
from attn_sampler.seam import Window

__all__ = [
    "column_sum",
    "confidence",
    "entropy",
    "left_to_right",
    "logit_gap",
    "margin",
    "measured",
    "random",
]

PIECE = 2**17  # numbers of the largest value that are measured together on a CPU: half a megabyte in float32


def confidence(window: Window) -> Float[Tensor, "rows width"]:
    """Probability of the proposed token."""
    return window.proposal.confidence


def margin(window: Window) -> Float[Tensor, "rows width"]:
    """Probability of a candidate's most likely token minus that of its second."""
    return measured(_margin, window.candidates, window.proposal.logits)[0]


def _margin(logits: Float[Tensor, "positions vocab"]) -> tuple[Float[Tensor, " positions"]]:
    best = logits.softmax(-1).topk(2, -1).values
    return (best[:, 0] - best[:, 1],)


def logit_gap(window: Window) -> Float[Tensor, "rows width"]:
    """The highest logit minus the second."""
    best = window.proposal.logits.topk(2, -1).values
    return best[..., 0] - best[..., 1]


def entropy(window: Window) -> Float[Tensor, "rows width"]:
    """Entropy of a candidate's distribution in nats (a *low* entropy is a sure position; samplers order by its negative)."""
    return measured(_entropy, window.candidates, window.proposal.logits)[0]


def _entropy(logits: Float[Tensor, "positions vocab"]) -> tuple[Float[Tensor, " positions"]]:
    log_p = logits.log_softmax(-1)
    log_p.clamp_(min=torch.finfo(log_p.dtype).min)  # in place: a copy as large as the logits costs as much as the sum
    return (-log_p.exp().mul_(log_p).sum(-1),)


def measured(
    measure: Callable[..., tuple[Tensor, ...]], wanted: Bool[Tensor, "rows width"], *values: Tensor
) -> tuple[Tensor, ...]:
    """What ``measure`` says of each wanted position; others hold that or 0, whichever is cheaper: rules look at candidates only.

    On a CPU, and with many numbers, it is asked of the wanted positions alone where they are clearly fewer than all, and of so
    many at a time that its intermediate values stay in the cache. Elsewhere of all at once: to ask which are wanted would make
    the host wait for the device.

    Args:
        measure: from values of shape (positions, …), each position by itself, to tensors of shape (positions, …).
        values: tensors of shape (rows, width, …), the largest first.

    Returns:
        tensors of shape (rows, width, …).
    """
    flat = [value.flatten(0, 1) for value in values]
    if wanted.device.type == "cpu" and values[0].numel() > PIECE // 2:
        got = _in_pieces(measure, wanted.reshape(-1), flat)
    else:
        got = measure(*flat)
    return tuple(value.unflatten(0, wanted.shape) for value in got)


def _in_pieces(
    measure: Callable[..., tuple[Tensor, ...]], wanted: Bool[Tensor, " positions"], values: list[Tensor]
) -> tuple[Tensor, ...]:
    count, index = len(wanted), wanted.nonzero()[:, 0]
    # A position never goes alone: torch may split its sum over threads, and then it is not the same to the last bit.
    some = 1 < len(index) <= 0.75 * count
    count = len(index) if some else count
    pieces = max(1, min(-(-count * values[0][0].numel() // PIECE), count // 2))
    out: tuple[Tensor, ...] = ()
    for i in range(pieces):
        part = slice(count * i // pieces, count * (i + 1) // pieces)
        got = measure(*(value.index_select(0, index[part]) if some else value[part] for value in values))
        if not out:
            out = tuple((value.new_zeros if some else value.new_empty)((len(wanted), *value.shape[1:])) for value in got)
        for whole, value in zip(out, got, strict=True):
            if some:
                whole.index_copy_(0, index[part], value)
            else:
                whole[part] = value
    return out


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

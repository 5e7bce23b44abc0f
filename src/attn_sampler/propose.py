"""Which token: logits → one token per position and how sure the model is of it.

The convention is LLaDA's (arXiv 2502.09992): noise chooses the token, the confidence is its probability under the clean
distribution at temperature 1. Temperature, then top-p, then top-k filter what noise may choose (Dream's order).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from attn_sampler.rng import TOKENS, uniform

__all__ = ["Choice", "Proposal", "propose", "scaled"]


@dataclass(frozen=True)
class Choice:
    """How each row wants its tokens chosen.

    Attributes:
        temperature: 0 takes the most likely token.
        top_p: nucleus kept, 1 for all.
        top_k: number of tokens kept, 0 for all.
        seed, forward: address of the row's random numbers.
    """

    temperature: Float[Tensor, " rows"]
    top_p: Float[Tensor, " rows"]
    top_k: Int[Tensor, " rows"]
    seed: Int[Tensor, " rows"]
    forward: Int[Tensor, " rows"]
    samples: bool  # whether any row has a temperature above 0; kept beside it so that no step has to ask the device
    filters: bool  # whether any row has top_p < 1 or top_k > 0


@dataclass(frozen=True)
class Proposal:
    """One token per position of a window.

    Attributes:
        tokens: the token that would be written.
        confidence: its probability, softmax at temperature 1.
        logits: what the confidence was computed from (float32 at least, banned ids at -inf).
    """

    tokens: Int[Tensor, "rows width"]
    confidence: Float[Tensor, "rows width"]
    logits: Float[Tensor, "rows width vocab"]


def propose(
    logits: Float[Tensor, "rows width vocab"],
    choice: Choice,
    positions: Int[Tensor, "rows width"],
    banned: Float[Tensor, "rows vocab"] | None = None,
    unsure: Float[Tensor, "rows vocab"] | None = None,
) -> Proposal:
    """Choose a token for every position of the window.

    Args:
        logits: row ``i`` predicts position ``i`` of the window.
        choice: per-row settings.
        positions: absolute positions, the address of each position's noise.
        banned: added to the logits (0 or -inf): ids that can never be written, the mask id among them.
        unsure: added before the confidence alone is computed (0 or -inf): ids that may be written but count as probability 0.
    """
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    if banned is not None:
        logits = logits + banned[:, None].to(logits.dtype)
    tokens = logits.argmax(-1)
    if choice.samples:
        tokens = torch.where(choice.temperature[:, None] > 0, _sample(logits, choice, positions), tokens)
    if unsure is not None:
        logits = logits + unsure[:, None].to(logits.dtype)
    return Proposal(tokens, logits.softmax(-1).gather(-1, tokens[..., None])[..., 0], logits)


def _sample(
    logits: Float[Tensor, "rows width vocab"], choice: Choice, positions: Int[Tensor, "rows width"]
) -> Int[Tensor, "rows width"]:
    """Gumbel-max in float64; float32 noise measurably narrows the distribution (arXiv 2409.02908)."""
    noise = uniform(choice.seed, choice.forward, positions, TOKENS, logits.shape[-1])
    return (scaled(logits, choice) - (-noise.log()).log()).argmax(-1)


def scaled(logits: Float[Tensor, "rows width vocab"], choice: Choice) -> Float64[Tensor, "rows width vocab"]:
    """What noise chooses from: logits over temperature (1 where it is 0), outside top-p and top-k -inf."""
    out = logits.double() / torch.where(choice.temperature > 0, choice.temperature, 1.0)[:, None, None]
    return _filter(out, choice.top_p, choice.top_k) if choice.filters else out


def _filter(
    logits: Float[Tensor, "rows width vocab"], top_p: Float[Tensor, " rows"], top_k: Int[Tensor, " rows"]
) -> Float[Tensor, "rows width vocab"]:
    """Drop what lies outside the nucleus (the token that crosses top_p stays), then outside the top_k."""
    ordered, index = torch.sort(logits, dim=-1, descending=True, stable=True)
    before = ordered.softmax(-1).cumsum(-1).roll(1, -1)
    before[..., 0] = 0.0
    rank = torch.arange(logits.shape[-1], device=logits.device)
    limit = torch.where(top_k > 0, top_k, logits.shape[-1])
    drop = ((before > top_p[:, None, None]) & (top_p < 1)[:, None, None]) | (rank >= limit[:, None, None])
    return torch.empty_like(logits).scatter_(-1, index, ordered.masked_fill(drop, -torch.inf))

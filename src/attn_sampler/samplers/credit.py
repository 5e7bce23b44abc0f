"""CreditDecoding (arXiv 2510.06133): a token that has been likely at earlier forward passes is trusted sooner.

Per position and token of the active block a credit C, zero at the block's first pass:

    C ← beta C;    C[j, v_j] += p(v_j) ** gamma    for every mask j, v_j its most likely token
    fused logits = logits + alpha log(1 + C)

Tokens and confidences come from the fused logits; the rule is dInfer's threshold (`attn_sampler.rules.capped_threshold`), as in
the reference, dInfer's code. Token, temperature, top-p and top-k work on the fused logits too, with the noise that the plain ones
would have had.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attn_sampler import rules, scores
from attn_sampler.errors import check_number
from attn_sampler.propose import Proposal, propose
from attn_sampler.seam import Memory, Needs, Selection, Window

__all__ = ["Credit"]


@dataclass(frozen=True)
class Credit:
    """Every position whose confidence, past likelihood added, reaches the threshold.

    Options:
        threshold: confidence from which a position is committed.
        alpha: weight of the credit in the logits; 0 for none.
        gamma: power of a probability that is earned as credit.
        beta: share of the credit that is left after a forward pass.
    """

    name: ClassVar[str] = "credit"
    paper: ClassVar[str] = "arXiv:2510.06133"

    threshold: float = 0.9
    alpha: float = 0.7
    gamma: float = 0.2
    beta: float = 0.8

    def __post_init__(self) -> None:
        check_number("threshold", self.threshold, low=0, high=1)
        check_number("alpha", self.alpha, low=0)
        check_number("gamma", self.gamma, low=0)
        check_number("beta", self.beta, low=0, high=1)

    @property
    def needs(self) -> Needs:
        return Needs()

    def select(self, window: Window, memory: Memory) -> Selection:
        logits, choice = window.proposal.logits, window.choice
        if choice is not None and not choice.samples:  # the proposal is the most likely token already
            best, token = window.proposal.confidence, window.proposal.tokens
        else:
            best, token = logits.softmax(-1).max(-1)
        tokens, credit = earned(memory, token, best**self.gamma, window, self.beta)
        proposal = fused(window, logits.clone().scatter_add_(-1, tokens, credit.log1p().mul_(self.alpha)))
        commit = rules.capped_threshold(proposal.confidence, window.candidates, window.quota, self.threshold)
        return Selection(commit, proposal.confidence, {"tokens": tokens, "credit": credit}, proposal=proposal)


def earned(
    memory: Memory, token: Int[Tensor, "rows width"], gain: Float[Tensor, "rows width"], window: Window, beta: float
) -> tuple[Int[Tensor, "rows width slots"], Float[Tensor, "rows width slots"]]:
    """Tokens that have credit at each position, every one in one slot, and how much; a slot without credit is 0.

    A forward pass adds one slot, into which its token's credit moves. A block takes at most as many passes as the window has
    positions, so slots older than that are of a block that is over.
    """
    gain = gain.masked_fill(~window.candidates, 0.0)
    if not memory:
        return token[..., None], gain[..., None]
    left = memory["credit"] * (beta * (window.step_in_block > 0).to(gain.dtype))[:, None, None]
    same = memory["tokens"] == token[..., None]
    gain = gain + left.masked_fill(~same, 0.0).sum(-1)
    tokens = torch.cat([memory["tokens"], token[..., None]], -1)
    credit = torch.cat([left.masked_fill(same, 0.0), gain[..., None]], -1)
    width = token.shape[1]
    return tokens[..., -width:], credit[..., -width:]


def fused(window: Window, logits: Float[Tensor, "rows width vocab"]) -> Proposal:
    """The proposal from changed logits, chosen as the row wants it.

    A token that may be written but counts as probability 0 (``confidence_eos_eot_inf``) is at -inf in the window's logits, so it
    could not be chosen again: it stays what it was.
    """
    assert window.choice is not None, "the engine says how tokens are chosen"
    plain = window.proposal
    if window.choice.samples:
        new = propose(logits, window.choice, window.positions)
        tokens, confidence = new.tokens, new.confidence
    else:
        tokens, confidence = scores.measured(_most_likely, window.candidates, logits)
    unsure = plain.logits.gather(-1, plain.tokens[..., None])[..., 0] == -torch.inf
    return Proposal(torch.where(unsure, plain.tokens, tokens), confidence.masked_fill(unsure, 0.0), logits)


def _most_likely(logits: Float[Tensor, "positions vocab"]) -> tuple[Int[Tensor, " positions"], Float[Tensor, " positions"]]:
    tokens = logits.argmax(-1)
    return tokens, logits.softmax(-1).gather(-1, tokens[:, None])[:, 0]

"""How likely a model finds a given target when it is written in a given order, one position at a time.

A masked diffusion model has a log-likelihood for every order: the sum over positions of log p(token | what was written before).
Here the target's own token is written at every step (teacher forcing), and the model's probability of it is taken from the canvas
before. What stands on the canvas is known beforehand for every step of a given order, so steps and orders alike are rows of a
batch. Nothing is generated, so this does not go through the engine.

Probabilities are a softmax in float32 over every token but the mask, which can never be written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from attn_sampler import rules, scores
from attn_sampler.attention import AttentionAsk
from attn_sampler.errors import InvalidInputError, ModelOutputError
from attn_sampler.models.seam import Ask, Model, Prediction
from attn_sampler.propose import Choice, propose
from attn_sampler.seam import Attention, Window

__all__ = [
    "RULES",
    "Rule",
    "Target",
    "attention_matrix",
    "follow",
    "given_subsets",
    "ideal",
    "log_likelihood",
    "place_blocks",
    "place_target",
    "subset_log_likelihood",
    "written_greedily",
]

Norm = Literal["global", "local"]


@dataclass(frozen=True)
class Target:
    """A target in its canvas.

    Attributes:
        canvas: the prompt, the target's positions as masks, and behind them masks that stay masks.
        positions: the target's, on the canvas.
        tokens: what belongs there.
    """

    canvas: Int[Tensor, " length"]
    positions: Int[Tensor, " n"]
    tokens: Int[Tensor, " n"]


def place_target(model: Model, prompt: Sequence[int], target: Sequence[int], max_new_tokens: int, *, at_least: int = 2) -> Target:
    """``target`` at the beginning of ``max_new_tokens`` masks behind ``prompt``: the canvas that a sampler would begin with.

    A block-causal model gets its last block whole, as in generation.

    Args:
        at_least: tokens that the target must have; where orders are compared, two.

    Raises:
        InvalidInputError: the target has too few tokens, more than there are masks, or holds the mask token; the canvas is longer
            than the context; an id does not exist.
    """
    if len(target) < at_least:
        needs = "an order needs at least two tokens" if at_least > 1 else "there is nothing to predict"
        raise InvalidInputError("target", list(target), f"{needs}: give a longer target")
    if len(target) > max_new_tokens:
        remedy = f"the target has {len(target)} tokens: give at least that many masks, or a shorter target"
        raise InvalidInputError("max_new_tokens", max_new_tokens, remedy)
    if not prompt:
        raise InvalidInputError("prompt", prompt, "give at least one token")
    for field, ids in (("prompt", prompt), ("target", target)):
        for i in ids:
            if not 0 <= i < model.vocab_size:
                raise InvalidInputError(field, i, f"give token ids from 0 to {model.vocab_size - 1}")
            if i == model.mask_id:
                raise InvalidInputError(field, i, "this is the mask token, which can never be written: leave it out")
    length = len(prompt) + max_new_tokens
    if model.block_length is not None:
        length = min(length + -length % model.block_length, max(model.context_length, length))
    if length > model.context_length:
        remedy = f"with {max_new_tokens} masks that is longer than the context of {model.context_length}; shorten one of them"
        raise InvalidInputError("prompt", f"{len(prompt)} tokens", remedy)
    canvas = torch.tensor([*prompt, *[model.mask_id] * (length - len(prompt))], device=model.device)
    positions = len(prompt) + torch.arange(len(target), device=model.device)
    return Target(canvas, positions, torch.tensor(list(target), device=model.device))


def place_blocks(model: Model, prompt: Sequence[int], target: Sequence[int]) -> list[Target]:
    """``target`` behind ``prompt`` and nothing after it, cut where a block-causal model's blocks end.

    Each part has those before it as its prompt, so that their log-likelihoods add up. With full attention there is one.

    Raises:
        InvalidInputError: as `place_target`; one token is enough.
    """
    ids, end = [*prompt, *target], len(prompt) + len(target)
    block = model.block_length
    inner = [] if block is None else [cut for cut in range(0, end, block) if cut > len(prompt)]
    cuts = [len(prompt), *inner, end]
    return [place_target(model, ids[:start], ids[start:stop], stop - start, at_least=1) for start, stop in pairwise(cuts)]


# --- given orders ---------------------------------------------------------------------------------------------------


def log_likelihood(
    model: Model, target: Target, orders: Int[Tensor, "orders n"], max_rows: int = 32
) -> Float64[Tensor, "orders n"]:
    """Log-probability in nats of the token at each position when it is written at its turn in each order.

    One canvas for every order and position, ``max_rows`` of them in a forward pass; the head of the model runs for one position
    per canvas.
    """
    places, turns = orders.flatten(), orders.argsort(1)  # turns: when each position is written
    written = (turns[:, None, :] < torch.arange(orders.shape[1], device=orders.device)[:, None]).flatten(0, 1)
    parts = []
    for place, before in zip(places.split(max_rows), written.split(max_rows), strict=True):
        ask = Ask(torch.arange(len(place), device=place.device), target.positions[place][:, None])
        (prediction,) = model.predict(_partly_written(model, target, before), None, [ask])
        parts.append(_log_p(model, prediction, target.tokens[place][:, None])[:, 0])
    out = torch.zeros(orders.shape, dtype=torch.float64, device=orders.device)
    return out.scatter(1, orders, torch.cat(parts).view(orders.shape))


def ideal(model: Model, target: Target, max_rows: int = 32) -> Float64[Tensor, " n"]:
    """Log-probability of the token at each position when all others of the target are visible: the full-context ideal.

    Its sum minus an order's log-likelihood is that order's permutation dependency gap (arXiv 2604.08564).
    """
    n = len(target.tokens)
    hidden = target.canvas.scatter(0, target.positions, target.tokens).repeat(n, 1)
    hidden = hidden.scatter(1, target.positions[:, None], model.mask_id)
    parts = []
    for some in torch.arange(n, device=hidden.device).split(max_rows):
        ask = Ask(torch.arange(len(some), device=some.device), target.positions[some, None])
        (prediction,) = model.predict(hidden[some], None, [ask])
        parts.append(_log_p(model, prediction, target.tokens[some, None])[:, 0])
    return torch.cat(parts)


def subset_log_likelihood(model: Model, target: Target, max_rows: int = 32) -> Float64[Tensor, "subsets n"]:
    """Log-probability of each token given each subset of the others: with this table every order's likelihood is known.

    Rows are numbered by the bits of the subset, as in `attn_sampler.orders.subset_costs`; 0 where the position is in the subset.
    2^n canvases go through the model: for short targets only.
    """
    n = len(target.tokens)
    subsets = torch.arange(1 << n, device=target.canvas.device)
    written = ((subsets[:, None] >> torch.arange(n, device=subsets.device)) & 1).bool()
    return given_subsets(model, target, written, max_rows)


def given_subsets(
    model: Model, target: Target, written: Bool[Tensor, "subsets n"], max_rows: int = 32
) -> Float64[Tensor, "subsets n"]:
    """Log-probability of each token given each of some subsets of the others; 0 where the position is in the subset."""
    parts = []
    for some in written.split(max_rows):
        ask = Ask(torch.arange(len(some), device=some.device), target.positions.repeat(len(some), 1))
        (prediction,) = model.predict(_partly_written(model, target, some), None, [ask])
        parts.append(_log_p(model, prediction, target.tokens.expand_as(some)).masked_fill(some, 0.0))
    return torch.cat(parts)


def _partly_written(model: Model, target: Target, written: Bool[Tensor, "rows n"]) -> Int[Tensor, "rows length"]:
    fill = torch.where(written, target.tokens, model.mask_id)
    return target.canvas.repeat(len(written), 1).scatter(1, target.positions.expand_as(fill), fill)


def _log_p(model: Model, prediction: Prediction, tokens: Int[Tensor, "rows width"]) -> Float64[Tensor, "rows width"]:
    """Log-probability of ``tokens`` under the prediction."""
    logits = prediction.logits.float().index_fill(-1, torch.tensor([model.mask_id], device=tokens.device), -torch.inf)
    found = (logits.gather(-1, tokens[..., None])[..., 0] - logits.logsumexp(-1)).double()
    if found.isnan().any():
        raise ModelOutputError(int(found.isnan().any(1).nonzero()[0, 0]), "the model returned NaN")
    return found


# --- orders that the model decides as it goes -----------------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    """An order decided anew at every forward pass: the masked position of the target with the highest score comes next.

    Attributes:
        score: higher first.
        attention: whether it looks at the attention matrix.
    """

    score: Callable[[Window], Float[Tensor, "rows width"]]
    attention: bool = False


def _masked_net(window: Window) -> Float[Tensor, "rows width"]:
    """Column minus row sums of the attention matrix over the rows and columns still masked."""
    assert window.pairwise is not None
    inner = window.pairwise * window.candidates[:, :, None] * window.candidates[:, None, :]
    return inner.sum(1) - inner.sum(2)


RULES: dict[str, Rule] = {
    "confidence": Rule(scores.confidence),
    "margin": Rule(scores.margin),
    "entropy": Rule(lambda window: -scores.entropy(window)),
    "attention, re-computed": Rule(scores.column_sum, attention=True),  # the paper's Algorithm 1 with the target as its window
    "net, re-computed": Rule(_masked_net, attention=True),
}
"""The scores of the library's samplers over the whole target, one position per pass; the last is not the paper's."""


def follow(
    model: Model, target: Target, chosen: Sequence[Rule], norm: Norm = "global"
) -> tuple[Int[Tensor, "rules n"], Float64[Tensor, "rules n"]]:
    """The order that each rule takes, and the log-probability of the token at each position, as in `log_likelihood`.

    One row per rule. The rule looks at the same forward pass that the probability is read from.
    """
    rows = torch.arange(len(chosen), device=target.canvas.device)
    left = torch.ones((len(chosen), len(target.tokens)), dtype=torch.bool, device=rows.device)
    out = torch.zeros(left.shape, dtype=torch.float64, device=rows.device)
    order = []
    for _ in target.tokens:
        prediction, _, place = _look(model, target, left, chosen, norm)
        out[rows, place] = _log_p(model, prediction, target.tokens.expand_as(left))[rows, place]
        left = left.scatter(1, place[:, None], False)
        order.append(place)
    return torch.stack(order, 1), out


def written_greedily(model: Model, target: Target, rule: Rule, norm: Norm = "global") -> bool:
    """Whether the model itself would write the target: its most likely token at the position that the rule takes, one per pass.

    Ends at the first token that is another one.
    """
    left = torch.ones((1, len(target.tokens)), dtype=torch.bool, device=target.canvas.device)
    for _ in target.tokens:
        _, window, place = _look(model, target, left, [rule], norm)
        if window.proposal.tokens[0, place] != target.tokens[place]:
            return False
        left = left.scatter(1, place[:, None], False)
    return True


def _look(
    model: Model, target: Target, left: Bool[Tensor, "rules n"], chosen: Sequence[Rule], norm: Norm
) -> tuple[Prediction, Window, Int[Tensor, " rules"]]:
    """One forward pass with what is ``left`` masked: what the model says, what a rule sees, the position that each takes."""
    rows = torch.arange(len(chosen), device=left.device)
    ask = _ask(model, target, rows, norm if any(rule.attention for rule in chosen) else None)
    (prediction,) = model.predict(_partly_written(model, target, ~left), None, [ask])
    window = _window(model, ask, prediction, left)
    score = torch.stack([rule.score(window)[row] for row, rule in enumerate(chosen)])
    return prediction, window, rules.top_k(score, left, torch.ones_like(rows)).int().argmax(1)


def attention_matrix(model: Model, target: Target, norm: Norm = "global") -> Float[Tensor, "n n"]:
    """Attention among the target's positions while all of them are masks, mean over layers and query heads.

    Row i is the query that position i is *predicted* from: its left neighbour's where the model's logits are shifted.

    Args:
        norm: ``"global"``, the true attention, of which prompt and tail have their share; ``"local"``, a softmax over the
            target's own keys.
    """
    ask = _ask(model, target, target.positions.new_zeros(1), norm)
    (prediction,) = model.predict(target.canvas[None], None, [ask])
    assert prediction.pairwise is not None
    return prediction.pairwise[0]


def _ask(model: Model, target: Target, rows: Int[Tensor, " some"], norm: Norm | None) -> Ask:
    """Logits of every position of the target and, unless ``norm`` is None, the attention among them."""
    positions = target.positions.repeat(len(rows), 1)
    if norm is None:
        return Ask(rows, positions)
    if model.num_layers == 0:
        raise InvalidInputError("model", type(model).__name__, "it has no attention statistics: take another one")
    block = model.block_length
    if norm == "local" and block is not None and int(target.positions[0]) // block != int(target.positions[-1]) // block:
        remedy = f'the target spans several blocks of {block} positions, of which the earlier do not see the later: give "global"'
        raise InvalidInputError("norm", norm, remedy)
    real = torch.ones_like(positions, dtype=torch.bool)
    statistics = Attention(norm=norm, pairwise=True)
    return Ask(rows, positions, AttentionAsk(statistics, rows, positions - model.shift, real, positions, real))


def _window(model: Model, ask: Ask, prediction: Prediction, left: Bool[Tensor, "rows n"]) -> Window:
    """What a score sees: the target's positions, those still masked being candidates."""
    nothing, zero = torch.zeros_like(ask.rows), torch.zeros(len(ask.rows), device=left.device)
    banned = torch.zeros((len(left), model.vocab_size), device=left.device)
    banned[:, model.mask_id] = -torch.inf
    choice = Choice(zero, zero + 1, nothing, nothing, nothing, samples=False, filters=False)
    return Window(
        positions=ask.positions, candidates=left, proposal=propose(prediction.logits, choice, ask.positions, banned),
        quota=nothing + 1, step_in_block=nothing, seed=nothing, forward=nothing,
        columns=prediction.columns, pairwise=prediction.pairwise,
    )  # fmt: skip

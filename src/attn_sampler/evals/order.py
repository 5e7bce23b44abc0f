"""The order laboratory: how good the attention surrogate is, and every order by it, measured on a model's own likelihoods.

One record per prompt: what the target's log-likelihood is under each named order and under random ones, what the surrogate says
of the same orders, and how far each is from the best. Records go to a JSON Lines file as they are made; a run that was cut off
goes on where it stopped. `attn_sampler.evals.order_summary` turns them into means with intervals over prompts.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attn_sampler import orders
from attn_sampler.engine import Engine
from attn_sampler.errors import InvalidInputError, check_choice, check_number
from attn_sampler.evals.likelihood import (
    RULES,
    Norm,
    Target,
    attention_matrix,
    follow,
    ideal,
    log_likelihood,
    place_target,
    subset_log_likelihood,
)
from attn_sampler.evals.statistics import spearman
from attn_sampler.evals.tasks import problems
from attn_sampler.models.seam import Model
from attn_sampler.params import SamplingParams
from attn_sampler.rng import ORDER, uniform
from attn_sampler.text import encode

__all__ = ["Item", "Record", "Settings", "answered", "examine", "item", "measure", "task_items"]

Record = dict[str, Any]

FORMAT, VERSION = "attn-sampler-orders", 1


@dataclass(frozen=True)
class Settings:
    """What a run measures.

    Attributes:
        max_new_tokens: masks behind the prompt; the target fills the first of them, the others stay masks.
        random_orders: random orders per prompt.
        best_up_to: targets of at most so many tokens get their truly best order, from all 2^n canvases.
        norm: of the attention matrix, ``"global"`` (the true one) or ``"local"``.
        seed: of the random orders and the bootstrap.
    """

    max_new_tokens: int = 32
    random_orders: int = 32
    best_up_to: int = 10
    norm: Norm = "global"
    seed: int = 0

    def __post_init__(self) -> None:
        check_number("max_new_tokens", self.max_new_tokens, low=2, integer=True)
        check_number("random_orders", self.random_orders, low=2, integer=True)
        check_number("best_up_to", self.best_up_to, low=0, high=16, integer=True)
        check_number("seed", self.seed, low=0, integer=True)
        check_choice("norm", self.norm, ("global", "local"))


@dataclass(frozen=True)
class Item:
    """A prompt and its target.

    Attributes:
        task: what it is averaged with, beside its number of tokens.
        prompt: as text, or its ids.
        prompt_ids, target_ids: as the model gets them.
    """

    task: str
    prompt: str
    prompt_ids: tuple[int, ...]
    target_ids: tuple[int, ...]


# --- prompts and targets --------------------------------------------------------------------------------------------


def item(engine: Engine, prompt: str, target: str, task: str = "prompt", *, chat: bool | None = None) -> Item:
    """A prompt and a target given as text."""
    given = encode(engine.tokenizer, prompt, chat)
    return Item(task, prompt, tuple(given), tuple(encode(engine.tokenizer, target, False, field="target")))


def answered(
    engine: Engine, prompts: Sequence[str], params: SamplingParams, task: str = "prompt", *, chat: bool | None = None
) -> list[Item]:
    """Prompts with the model's own answers as targets, without the end-of-sequence token.

    The answer is what ``params`` makes of it: an order close to that sampler's own is favoured.
    """
    results = engine.generate(prompts, params, chat=chat)
    ends = set(engine.model.eos_ids)
    return [
        Item(task, prompt, tuple(encode(engine.tokenizer, prompt, chat)), tuple(i for i in result.token_ids if i not in ends))
        for prompt, result in zip(prompts, results, strict=True)
    ]


def task_items(engine: Engine, tasks: Sequence[str], n: int, seed: int) -> list[Item]:
    """``n`` held-out problems of each task with reference answers: ``"sudoku4"`` (4 to 12 clues), ``"word"`` (1 to 3 steps)."""
    check_number("n", n, low=1, integer=True)
    found = [problem for task in tasks for problem in problems(task, n, seed)]
    return [item(engine, problem.prompt, problem.answer, problem.task) for problem in found]


# --- one prompt -----------------------------------------------------------------------------------------------------


def examine(model: Model, thing: Item, settings: Settings, number: int = 0, max_rows: int = 32) -> Record:
    """Everything about one prompt, as plain JSON types.

    Args:
        number: of the prompt in its run: the address of its random orders.
        max_rows: canvases in a forward pass.
    """
    target = place_target(model, thing.prompt_ids, thing.target_ids, settings.max_new_tokens)
    matrix = attention_matrix(model, target, settings.norm).double()
    drawn = _random_orders(settings, number, len(matrix), matrix.device)
    named = _named_orders(matrix, drawn)
    value = _best_value(model, target, settings, max_rows, named)
    asked = torch.cat([torch.stack(list(named.values())), drawn])
    likelihood = log_likelihood(model, target, asked, max_rows).sum(1)
    taken, along = follow(model, target, list(RULES.values()), settings.norm)
    together = torch.cat([asked[: len(named)], taken])
    likelihoods, costs = torch.cat([likelihood[: len(named)], along.sum(1)]), orders.surrogate(matrix, together)
    random_costs = orders.surrogate(matrix, drawn)
    correlation = spearman(random_costs, -likelihood[len(named) :])
    exact = len(matrix) <= orders.EXACT_LIMIT
    return {
        "number": number, "task": thing.task, "prompt": thing.prompt, "tokens": len(matrix),
        "ideal": float(ideal(model, target, max_rows).sum()),
        "best": float(torch.cat([likelihoods, likelihood]).max()) if value is None else value,
        "best_is_exact": value is not None,
        "surrogate_mean": float(orders.mean_surrogate(matrix)),
        "surrogate_bound": float(costs[0]) if exact else float(orders.lower_bound(matrix)),
        "rank_correlation": None if math.isnan(correlation) else correlation,
        "orders": {
            name: {"order": order, "surrogate": cost, "log_likelihood": found}
            for name, order, cost, found in zip(
                [*named, *RULES], together.tolist(), costs.tolist(), likelihoods.tolist(), strict=True
            )
        },
        "random": {"surrogate": random_costs.tolist(), "log_likelihood": likelihood[len(named) :].tolist()},
    }  # fmt: skip


def _random_orders(settings: Settings, number: int, n: int, device: torch.device) -> Int[Tensor, "orders n"]:
    count = settings.random_orders
    seed, address = torch.full((count,), settings.seed), number * count + torch.arange(count)
    return uniform(seed, address, torch.arange(n).expand(count, n), ORDER)[..., 0].argsort(dim=1, stable=True).to(device)


def _named_orders(matrix: Float[Tensor, "n n"], drawn: Int[Tensor, "orders n"]) -> dict[str, Int[Tensor, " n"]]:
    """Orders that the attention of the masked target decides alone, and left-to-right. The first is the surrogate's best."""
    cheap = {
        "attention": orders.rank_order(matrix),
        "attention, no diagonal": orders.rank_order(matrix, diagonal=False),
        "attention, masked rows": orders.greedy_order(matrix),
        "net": orders.rank_order(matrix, net=True),
        "net, masked rows": orders.greedy_order(matrix, net=True),
        "left-to-right": torch.arange(len(matrix), device=matrix.device),
    }
    if len(matrix) <= orders.EXACT_LIMIT:
        return {"exact": orders.exact_order(matrix)} | cheap
    found = orders.local_search(matrix, torch.cat([torch.stack(list(cheap.values())), drawn]))
    return {"local search": found[orders.surrogate(matrix, found).argmin()]} | cheap


def _best_value(
    model: Model, target: Target, settings: Settings, max_rows: int, named: dict[str, Int[Tensor, " n"]]
) -> float | None:
    """The highest log-likelihood that any order has, and its order into ``named``; None where the target is too long for it."""
    if len(target.tokens) > settings.best_up_to:
        return None
    named["best"], cost = orders.path_over_subsets(-subset_log_likelihood(model, target, max_rows))
    return -float(cost)


# --- a run ----------------------------------------------------------------------------------------------------------


def measure(engine: Engine, things: Sequence[Item], settings: Settings, out: Path | None = None) -> Iterator[Record]:
    """One record per item, in their order. With ``out``, records that it holds are given back and the others are appended.

    Raises:
        InvalidInputError: ``out`` holds another run: other settings, other prompts, or another model.
    """
    header = {
        "format": FORMAT, "version": VERSION, "settings": dataclasses.asdict(settings),
        "prompts": [[thing.task, thing.prompt, list(thing.target_ids)] for thing in things],
    }  # fmt: skip
    done = [] if out is None else _resume(out, header)
    if done:
        _check_model(engine, things[0], settings, done[0], out)
    yield from done
    for number in range(len(done), len(things)):
        record = examine(engine.model, things[number], settings, number, engine.max_rows)
        if out is not None:
            with out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
        yield record


def _resume(out: Path, header: Mapping[str, Any]) -> list[Record]:
    """The records of a file that a run of the same header began, without a last line that was cut off; else a new file."""
    try:
        text = out.read_text(encoding="utf-8") if out.exists() else ""
        whole, _, _ = text.rpartition("\n")
        lines = [json.loads(line) for line in whole.splitlines()]
        if lines and lines[0] != header:
            raise InvalidInputError("out", str(out), "it holds another run, of other settings or prompts: give another file")
        if not lines:
            out.parent.mkdir(parents=True, exist_ok=True)
            whole = json.dumps(header, ensure_ascii=False)
        out.write_text(whole + "\n", encoding="utf-8")
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InvalidInputError("out", str(out), f"cannot be gone on with ({error}): give another file") from error
    return lines[1:]


def _check_model(engine: Engine, thing: Item, settings: Settings, record: Record, out: Path | None) -> None:
    """Whether the first prompt has the likelihood and the attention that the file says, up to rounding.

    Both, because a good model's log-likelihood in full context may be 0 to three digits, and so may a better one's.
    """
    target = place_target(engine.model, thing.prompt_ids, thing.target_ids, settings.max_new_tokens)
    likely = float(ideal(engine.model, target, engine.max_rows).sum())
    mean = float(orders.mean_surrogate(attention_matrix(engine.model, target, settings.norm)))
    close = math.isclose(mean, record["surrogate_mean"], rel_tol=1e-3)
    if not close or not math.isclose(likely, record["ideal"], rel_tol=1e-3, abs_tol=1e-3):
        raise InvalidInputError("out", str(out), "it holds a run of another model, or of other weights: give another file")

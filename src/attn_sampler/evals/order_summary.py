"""What the records of the order laboratory say: means over prompts with intervals, per task and length and over all lengths."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from attn_sampler.evals.order import Record
from attn_sampler.evals.statistics import bootstrap, spearman

__all__ = ["MEASURES", "summary"]

MEASURES = ("surrogate", "surrogate_gain", "log_likelihood", "gap", "regret", "over_random")
SCALED = {"surrogate", "log_likelihood", "gap", "regret", "over_random"}  # those that grow with the target
OPTIMA = ("exact", "local search")  # the surrogate's best order: by its exact search, or beyond its limit the best found
BEST = "best"  # the order of the highest likelihood: chosen by what it is measured by


def summary(records: Sequence[Record], seed: int = 0) -> list[dict[str, Any]]:
    """Means over the prompts of each task and target length, each as [mean, low, high] with a 95 % bootstrap interval.

    A task with targets of several lengths has one more group, all of its prompts, whose ``tokens`` is None and whose ``per`` is
    ``"token"``: what grows with the target is divided by its tokens before it is averaged, and orders are those that all lengths
    have. Lengths of a single prompt are in that group only.

    Per order, in nats ``log_likelihood``, ``gap``, the full-context ideal minus it, ``regret``, the best order's minus it, and
    ``over_random``, it minus the mean of the prompt's random orders; ``surrogate``, the attention that it costs, and
    ``surrogate_gain``, the share of the greatest possible improvement on an average order (0: an average order; 1: the optimum
    or, beyond `orders.EXACT_LIMIT` positions, the best that was found). ``random`` is the mean of the random orders.

    Per group: ``rank_correlation`` of surrogate and gap over a prompt's random orders, 1 if the surrogate ranks them rightly;
    ``rank_correlation_named``, the same over the prompt's named orders, equal ones once, without ``best``; ``best_known``, of how
    many prompts the truly best order is known; ``bound_reached``, lower bound ÷ the best surrogate found (1: proved optimal).
    """
    tasks: dict[str, dict[int, list[Record]]] = {}
    for record in records:
        tasks.setdefault(record["task"], {}).setdefault(record["tokens"], []).append(record)
    found = []
    for task, lengths in tasks.items():
        several = len(lengths) > 1
        found += [_group(task, some, seed) for some in lengths.values() if len(some) > 1 or not several]
        if several:
            found.append(_group(task, [record for some in lengths.values() for record in some], seed))
    return found


def _group(task: str, records: Sequence[Record], seed: int) -> dict[str, Any]:
    lengths = sorted({record["tokens"] for record in records})
    names, per_token = _names(records), len(lengths) > 1
    rows = []
    for record in records:
        scale = record["tokens"] if per_token else 1
        optimum = _order(record, names[0])["surrogate"]
        row = [record["ideal"] / scale, _correlation(record), _named_correlation(record)]
        row.append(record["surrogate_bound"] / optimum if optimum else 1.0)
        for name in names:
            found = _measures(record, name, optimum)
            row += [found[key] / (scale if key in SCALED else 1) for key in MEASURES]
        rows.append(row)
    cells = _cells(rows, seed)
    width = len(MEASURES)
    return {
        "task": task, "tokens": None if per_token else lengths[0], "lengths": [lengths[0], lengths[-1]],
        "per": "token" if per_token else "target", "prompts": len(records),
        "best_known": sum(record["best_is_exact"] for record in records),
        "ideal": cells[0], "rank_correlation": cells[1], "rank_correlation_named": cells[2], "bound_reached": cells[3],
        "orders": {
            name: dict(zip(MEASURES, cells[4 + width * i : 4 + width * (i + 1)], strict=True)) for i, name in enumerate(names)
        },
    }  # fmt: skip


def _cells(rows: Sequence[Sequence[float]], seed: int) -> list[list[float | None]]:
    """Column by column [mean, low, high]; None where a number is not defined. A mean of one prompt has no interval."""
    values = torch.tensor(rows, dtype=torch.float64)
    low, high = bootstrap(values, seed)
    if len(rows) == 1:
        low, high = (torch.full_like(low, math.nan) for _ in range(2))
    triples = torch.stack([values.nanmean(0), low, high], 1).tolist()
    return [[None if math.isnan(number) else number for number in triple] for triple in triples]


def _names(records: Sequence[Record]) -> list[str]:
    """Orders that every record has, its own optimum of the surrogate first, and ``random``."""
    optima = dict.fromkeys(next(name for name in OPTIMA if name in record["orders"]) for record in records)
    common = [
        name for name in records[0]["orders"]
        if name not in OPTIMA and all(name in record["orders"] for record in records)
    ]  # fmt: skip
    return [" or ".join(name for name in OPTIMA if name in optima), *common, "random"]


def _order(record: Record, name: str) -> dict[str, Any]:
    """One order of one prompt; an optimum by whichever name the prompt has it, random orders as their mean."""
    if name == "random":
        return {key: sum(values) / len(values) for key, values in record["random"].items()}
    found = record["orders"]
    return found[name] if name in found else next(found[optimum] for optimum in OPTIMA if optimum in found)


def _measures(record: Record, name: str, optimum: float) -> dict[str, float]:
    """`MEASURES` of one order of one prompt; the gain is NaN where all orders cost the same."""
    one, random = _order(record, name), _order(record, "random")
    cost, found = one["surrogate"], one["log_likelihood"]
    room = record["surrogate_mean"] - optimum
    return {
        "surrogate": cost, "surrogate_gain": (record["surrogate_mean"] - cost) / room if room > 0 else math.nan,
        "log_likelihood": found, "gap": record["ideal"] - found, "regret": record["best"] - found,
        "over_random": found - random["log_likelihood"],
    }  # fmt: skip


def _correlation(record: Record) -> float:
    return math.nan if record["rank_correlation"] is None else record["rank_correlation"]


def _named_correlation(record: Record) -> float:
    """Of surrogate and gap, which is the ideal minus the likelihood, over the different orders that have a name."""
    different = {tuple(one["order"]): one for name, one in record["orders"].items() if name != BEST}.values()
    costs = torch.tensor([one["surrogate"] for one in different], dtype=torch.float64)
    return spearman(costs, -torch.tensor([one["log_likelihood"] for one in different], dtype=torch.float64))

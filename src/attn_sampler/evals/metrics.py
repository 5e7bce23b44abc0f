"""What samples say: accuracy with its interval, pairs of settings compared problem by problem, speed, passes, likelihood.

The unit of every interval and test is the problem, not the answer: drawing more answers of the same problems makes no new ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from attn_sampler.evals.statistics import (
    bootstrap,
    bootstrap_ratio,
    clustered,
    clustered_difference,
    holm,
    mcnemar,
    pass_at_k,
    ranks,
    sign_flip,
)
from attn_sampler.evals.study import Sample

__all__ = ["Comparison", "Summary", "agreement", "aup", "compare", "frontiers", "summarise"]

AUP_ALPHA, AUP_DROP = 3.0, 5.0  # d3LLM's, the second in points of accuracy
LEVEL = 0.05  # of a false alarm
ORDERS = 200  # problems whose orders are compared
TOO_LONG = "too_long"


@dataclass(frozen=True)
class Summary:
    """One setting on one task.

    Attributes:
        n, draws: problems, and answers of each.
        accuracy: share of the answers that are right, each problem counting the same (so with one answer each: pass@1).
        low, high: its 95 % interval: Wilson's; with several answers per problem as many as they are worth, see
            `attn_sampler.evals.statistics.clustered`.
        pass_at_k: k → chance that k answers of a problem hold a right one; k = 1, 2, 4 … and all draws.
        forwards: mean per answer, without those that were too long.
        tokens: likewise, up to the first end-of-sequence token.
        tokens_per_forward: all tokens ÷ all forward passes; `tpf_low` to `tpf_high` is its 95 % bootstrap interval.
        seconds: time of the engine for the whole group, batch by batch; not a sum over rows.
        tokens_per_s: all tokens ÷ seconds.
        cpu_share: share of the seconds in which the thread that ran the passes had a processor; None where that is not known.
        latency_p50_s, latency_p95_s: percentiles over answers of the time in the batch.
        peak_bytes: peak memory during the group, see `attn_sampler.evals.cost.Peak`.
        log_likelihood: mean per answer, nats; None where one was 0.
        better, worse: problems that only this setting solves, and only the first setting of the study (one answer each).
        p: of this comparison, as in `Comparison`; None for the first setting.
        errors: answers that failed in the engine; they count as wrong.
        too_long: answers for which prompt and new tokens do not fit the context; they count as wrong, too.
        details: means of the scorer's other numbers and verdicts, e.g. ``"strict"`` beside ``"flexible"``.
    """

    task: str
    setting: str
    n: int
    draws: int
    accuracy: float
    low: float
    high: float
    pass_at_k: Mapping[int, float]
    forwards: float
    tokens: float
    tokens_per_forward: float
    tpf_low: float
    tpf_high: float
    seconds: float
    tokens_per_s: float
    cpu_share: float | None
    latency_p50_s: float
    latency_p95_s: float
    peak_bytes: int | None
    log_likelihood: float | None
    better: int
    worse: int
    p: float | None
    errors: int
    too_long: int
    details: Mapping[str, float]


@dataclass(frozen=True)
class Comparison:
    """Two settings on the same problems of one task.

    Attributes:
        difference: accuracy of ``setting`` minus that of ``against``; ``low`` to ``high``: its 95 % interval, Newcombe's
            for pairs, with several answers per problem `attn_sampler.evals.statistics.clustered_difference`.
        better, worse: problems where ``setting`` has more right answers, and fewer.
        p: exact McNemar test with one answer per problem, else a sign-flip test of the problems' differences.
        p_holm: p, corrected for the number of settings that are compared with this ``against`` on this task (Holm).
        verdict: ``"better"`` or ``"worse"`` where p_holm is below 0.05, else ``"not shown"``.
        forwards, forwards_low, forwards_high: mean difference in forward passes per problem, with its bootstrap interval.
    """

    task: str
    setting: str
    against: str
    difference: float
    low: float
    high: float
    better: int
    worse: int
    p: float
    p_holm: float
    verdict: str
    forwards: float
    forwards_low: float
    forwards_high: float


Groups = dict[str, dict[str, dict[int, list[Sample]]]]  # task → setting → problem → answers


def _grouped(samples: Iterable[Sample]) -> Groups:
    out: Groups = {}
    for sample in samples:
        out.setdefault(sample.task, {}).setdefault(sample.setting, {}).setdefault(sample.index, []).append(sample)
    return out


def summarise(samples: Iterable[Sample]) -> list[Summary]:
    """Every setting on every task, compared with the first setting problem by problem."""
    out = []
    for task, settings in _grouped(samples).items():
        first = next(iter(settings))
        against = {c.setting: c for c in _against(task, settings, first)}
        out += [_summary(task, setting, problems, against.get(setting)) for setting, problems in settings.items()]
    return out


def _summary(task: str, setting: str, problems: Mapping[int, Sequence[Sample]], against: Comparison | None) -> Summary:
    answers = [answer for some in problems.values() for answer in some]
    n, draws = len(problems), min(map(len, problems.values()))
    rates = _rates(problems)
    ran = [a for a in answers if a.finish_reason != TOO_LONG]
    low, high = clustered(rates, draws)
    tokens, forwards = _per_problem(problems, "tokens"), _per_problem(problems, "forwards")
    total, passes = float(tokens.sum()), float(forwards.sum())
    seconds = sum(a.batch_s for a in answers)
    cpu = [a.cpu_s for a in ran if a.cpu_s is not None]
    latency = sorted(a.elapsed_s for a in ran if a.finish_reason != "error") or [math.nan]
    ks = sorted({*(2**i for i in range(draws.bit_length())), draws})
    likelihoods = [a.log_likelihood for a in ran if a.log_likelihood is not None]
    peaks = [a.peak_bytes for a in answers if a.peak_bytes is not None]
    tpf = bootstrap_ratio(tokens, forwards) if passes else (0.0, 0.0)
    return Summary(
        task=task, setting=setting, n=n, draws=draws, accuracy=sum(rates) / n, low=low, high=high,
        pass_at_k={
            k: sum(pass_at_k(len(some), sum(a.solved for a in some), k) for some in problems.values()) / n
            for k in ks if k <= draws
        },
        forwards=passes / max(1, len(ran)), tokens=total / max(1, len(ran)), tokens_per_forward=total / passes if passes else 0.0,
        tpf_low=tpf[0], tpf_high=tpf[1], seconds=seconds, tokens_per_s=total / seconds if seconds else 0.0,
        cpu_share=sum(cpu) / seconds if seconds and len(cpu) == len(ran) else None,
        latency_p50_s=_percentile(latency, 0.5), latency_p95_s=_percentile(latency, 0.95),
        peak_bytes=max(peaks, default=None),
        log_likelihood=sum(likelihoods) / len(ran) if 0 < len(likelihoods) == len(ran) else None,
        better=against.better if against else 0, worse=against.worse if against else 0, p=against.p if against else None,
        errors=sum(a.finish_reason == "error" for a in answers), too_long=len(answers) - len(ran), details=_details(answers),
    )  # fmt: skip


def _details(answers: Sequence[Sample]) -> dict[str, float]:
    """Means over the answers; what an answer lacks counts as 0, as for one without a number."""
    found = {name: value for a in answers for name, value in a.detail.items()}
    names = [name for name, value in found.items() if isinstance(value, (bool, int, float))]
    return {name: sum(float(a.detail.get(name, 0)) for a in answers) / len(answers) for name in names}


def _rates(problems: Mapping[int, Sequence[Sample]]) -> list[float]:
    return [sum(a.solved for a in problems[i]) / len(problems[i]) for i in sorted(problems)]


def _per_problem(problems: Mapping[int, Sequence[Sample]], name: str) -> Any:
    return torch.tensor([sum(getattr(a, name) for a in problems[i]) for i in sorted(problems)], dtype=torch.float64)


def _percentile(ordered: Sequence[float], q: float) -> float:
    """Linear between the two nearest."""
    place = q * (len(ordered) - 1)
    i = math.floor(place)
    return ordered[i] + (place - i) * (ordered[min(i + 1, len(ordered) - 1)] - ordered[i])


def compare(samples: Iterable[Sample]) -> list[Comparison]:
    """Every setting against every one that stands before it, task by task, on the problems that both answered."""
    out = []
    for task, settings in _grouped(samples).items():
        names = list(settings)
        for i, against in enumerate(names):
            out += _against(task, {name: settings[name] for name in names[i:]}, against)
    return out


def _against(task: str, settings: Mapping[str, Mapping[int, Sequence[Sample]]], against: str) -> list[Comparison]:
    """All others against one, with their p-values corrected for each other."""
    others = [_pair(task, name, problems, against, settings[against]) for name, problems in settings.items() if name != against]
    known = [c for c in others if c is not None]
    out = []
    for c, p in zip(known, holm([c.p for c in known]), strict=True):
        verdict = "not shown" if p >= LEVEL else "better" if c.difference > 0 else "worse"
        out.append(replace(c, p_holm=p, verdict=verdict))
    return out


def _pair(
    task: str, setting: str, problems: Mapping[int, Sequence[Sample]], against: str, base: Mapping[int, Sequence[Sample]]
) -> Comparison | None:
    """Two settings on the problems that both answered; None where there are none."""
    both = sorted(set(problems) & set(base))
    if not both:
        return None
    mine, theirs = ({i: x[i] for i in both} for x in (problems, base))
    a, b = _rates(mine), _rates(theirs)
    change = [x - y for x, y in zip(a, b, strict=True)]
    better, worse = sum(d > 0 for d in change), sum(d < 0 for d in change)
    passes = _mean_forwards(mine) - _mean_forwards(theirs)
    values = torch.stack([torch.tensor(change, dtype=torch.float64), passes], 1)
    low, high = (x.tolist() for x in bootstrap(values))
    draws = min(len(some) for x in (mine, theirs) for some in x.values())
    low[0], high[0] = clustered_difference(a, b, draws)
    mean = values.nanmean(0).tolist()
    single = all(len(some) == 1 for x in (mine, theirs) for some in x.values())
    p = mcnemar(better, worse) if single else sign_flip(change)
    return Comparison(
        task, setting, against, mean[0], low[0], high[0], better, worse, p, p, "not shown", mean[1], low[1], high[1]
    )  # fmt: skip


def _mean_forwards(problems: Mapping[int, Sequence[Sample]]) -> Any:
    """Per answer; NaN for a problem that was too long."""
    count = [math.nan if problems[i][0].finish_reason == TOO_LONG else len(problems[i]) for i in sorted(problems)]
    return _per_problem(problems, "forwards") / torch.tensor(count, dtype=torch.float64)


def aup(points: Sequence[tuple[float, float]], best: float) -> float:
    """Accuracy under parallelism (d3LLM, arXiv 2601.07568), in percent × tokens per forward.

    Sorted by tokens per forward ρ, with accuracies y in percent, y₁ that of the lowest ρ, and without the points whose y is more
    than 5 below y₁: ρ₁ y₁ + Σ ½ (ρᵢ − ρᵢ₋₁) (yᵢ W(yᵢ) + yᵢ₋₁ W(yᵢ₋₁)), where W(y) = min(1, exp(−3 (1 − y / best))).

    Args:
        points: (tokens per forward, accuracy from 0 to 1) of the settings of one sampler that differ in one number.
        best: highest accuracy of all methods compared, from 0 to 1; values with different ``best`` do not compare.
    """
    if not points or best <= 0:
        return 0.0
    ordered = sorted((x, 100 * y) for x, y in points)
    kept = [(x, y) for x, y in ordered if y >= ordered[0][1] - AUP_DROP - 1e-9]

    def weighted(y: float) -> float:
        return y * min(1.0, math.exp(-AUP_ALPHA * (1 - y / (100 * best))))

    area = kept[0][0] * kept[0][1]
    for (x0, y0), (x1, y1) in pairwise(kept):
        area += (x1 - x0) * (weighted(y0) + weighted(y1)) / 2
    return area


def frontiers(summaries: Sequence[Summary], series: Mapping[str, str]) -> list[dict[str, Any]]:
    """AUP of every series on every task: ``task``, ``series``, ``settings``, ``aup``."""
    out = []
    for task in dict.fromkeys(s.task for s in summaries):
        some = [s for s in summaries if s.task == task]
        best = max(s.accuracy for s in some)
        for line in dict.fromkeys(series.get(s.setting, s.setting) for s in some):
            points = [s for s in some if series.get(s.setting, s.setting) == line]
            value = aup([(s.tokens_per_forward, s.accuracy) for s in points], best)
            out.append({"task": task, "series": line, "settings": len(points), "aup": value})
    return out


def agreement(samples: Iterable[Sample]) -> list[dict[str, Any]]:
    """How alike the orders of two settings are: Spearman's rank correlation of the passes in which positions were written.

    Over the positions up to the first end of either answer, mean over problems (the first answer of each of the first 200);
    problems where one side wrote everything in one pass have no order and are left out.

    Returns:
        one record per task: ``settings`` and ``matrix`` (None where no problem is left).
    """
    out = []
    for task, settings in _grouped(samples).items():
        n, answers = len(settings), list(settings.values())
        looked = [set(sorted(problems)[:ORDERS]) for problems in answers]
        total, count = torch.zeros(n, n, dtype=torch.float64), torch.zeros(n, n, dtype=torch.long)
        for k in sorted(set().union(*looked)):
            has = [i for i, problems in enumerate(answers) if k in problems]
            found = _alike([answers[i][k][0] for i in has])
            known = ~found.isnan() & torch.tensor([k in looked[i] for i in has])[:, None]
            pairs = (torch.tensor(has)[:, None], torch.tensor(has))
            total[pairs] += found.where(known, 0.0)
            count[pairs] += known
        means = torch.where(count > 0, total / count, math.nan).tolist()
        matrix = [[1.0 if i == j else _finite(means[max(i, j)][min(i, j)]) for j in range(n)] for i in range(n)]
        out.append({"task": task, "settings": list(settings), "matrix": matrix})
    return out


def _alike(answers: Sequence[Sample]) -> Float64[Tensor, "answers answers"]:
    """Spearman's correlation of every two orders, over the positions that both answers reach; NaN where one has no order.

    Answers that end in different places share a different number of positions with each other: one product per number.
    """
    tokens = torch.tensor([answer.tokens for answer in answers])
    shared = torch.minimum(tokens[:, None], tokens)
    out = torch.full(shared.shape, math.nan, dtype=torch.float64)
    for length in shared.unique().tolist():
        if length < 2:
            continue
        reach = (tokens >= length).nonzero()[:, 0]
        centred = ranks(torch.tensor([answers[i].order[:length] for i in reach.tolist()])) - (length - 1) / 2
        squares = centred.square().sum(1)
        found = centred @ centred.T / (squares[:, None] * squares).sqrt()  # 0 ÷ 0 where one is constant
        pairs = (reach[:, None], reach)
        out[pairs] = found.where(shared[pairs] == length, out[pairs])
    return out


def _finite(x: float) -> float | None:
    return None if math.isnan(x) else x

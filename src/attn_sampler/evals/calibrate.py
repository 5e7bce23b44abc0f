"""Calibration: the fastest setting of a sampler whose accuracy is not significantly below that of sequential decoding."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attn_sampler import samplers as registry
from attn_sampler.errors import InvalidInputError
from attn_sampler.evals.chosen import Chosen
from attn_sampler.evals.metrics import Summary, compare, summarise
from attn_sampler.evals.statistics import mcnemar_below
from attn_sampler.evals.study import Sample, Setting
from attn_sampler.evals.sweep import settings

__all__ = ["LEVEL", "Point", "candidates", "choose", "frontier", "sequential"]

THRESHOLDS = "1,0.95,0.9,0.85,0.8,0.7,0.6,0.5"
LEVEL = 0.05  # of taking a setting for worse that is as good


@dataclass(frozen=True)
class Point:
    """A setting on the frontier.

    Attributes:
        difference, low, high: its accuracy minus the sequential one's on the same problems, with its 95 % interval.
        p_below: one-sided exact McNemar test of being worse.
        kept: not significantly below.
    """

    setting: str
    options: Mapping[str, Any]
    summary: Summary
    difference: float
    low: float
    high: float
    p_below: float
    kept: bool


def candidates(
    sampler: str, options: Sequence[str], against: str | None, defaults: Mapping[str, Mapping[str, Any]] | None = None
) -> list[Setting]:
    """The sequential setting, then every setting of the sampler that may be chosen.

    Args:
        options: texts of ``-o``; without any, the sampler's ``threshold`` is swept.
        defaults: sampler → options that hold unless ``options`` say otherwise.
        against: the sequential sampler; None: ``SAMPLER-sequential`` where there is one, else ``confidence``.
    """
    fields = [field.name for field in dataclasses.fields(registry.find(sampler))]
    if not any("," in text for text in options):
        if "threshold" not in fields:
            remedy = f"it has no threshold: name an option and its values, -o OPTION=v1,v2 (it has {', '.join(fields) or 'none'})"
            raise InvalidInputError("sampler", sampler, remedy)
        options = [*options, f"threshold={THRESHOLDS}"]
    swept = settings([sampler], options, defaults)
    base = against or (f"{sampler}-sequential" if f"{sampler}-sequential" in registry.names() else "confidence")
    registry.find(base)
    return [Setting("sequential", base, {}, "sequential"), *swept]


def frontier(samples: Sequence[Sample], swept: Sequence[Setting]) -> list[Point]:
    """Every setting with its test against the sequential one, fewest forward passes first."""
    summaries = {s.setting: s for s in summarise(samples)}
    found = {c.setting: c for c in compare(samples) if c.against == swept[0].label}
    points = []
    for setting in swept[1:]:
        c = found[setting.label]
        p = mcnemar_below(c.better, c.worse)
        points.append(
            Point(
                setting.label, setting.options, summaries[setting.label], c.difference, c.low, c.high, p, p >= LEVEL
            )
        )  # fmt: skip
    return sorted(points, key=lambda point: (point.summary.forwards, -point.summary.accuracy))


def sequential(samples: Sequence[Sample], swept: Sequence[Setting]) -> Summary:
    """What the settings are measured by."""
    return next(s for s in summarise(samples) if s.setting == swept[0].label)


def choose(points: Sequence[Point], swept: Sequence[Setting], origin: Mapping[str, Any]) -> tuple[Chosen, Point | None]:
    """The fastest setting that is kept; the sequential one, and no point, where none is."""
    best = next((point for point in points if point.kept), None)
    setting = swept[0] if best is None else next(s for s in swept if s.label == best.setting)
    assert isinstance(setting.sampler, str)
    return Chosen(setting.sampler, dict(setting.options), origin), best

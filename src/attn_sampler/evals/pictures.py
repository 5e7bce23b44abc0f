"""The pictures of a report's task: which settings are in them, and what is said of those that are not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from attn_sampler import plots
from attn_sampler.evals.metrics import Summary
from attn_sampler.evals.pages import Block, Picture, Text
from attn_sampler.evals.study import Sample
from attn_sampler.frontier import frontier

__all__ = ["coincident", "pictures", "representatives", "written_shares"]


def pictures(
    task: str,
    summaries: Sequence[Summary],
    samples: Sequence[Sample],
    series: Mapping[str, str],
    courses: Mapping[str, Mapping[str, Any]],
    agreement: Mapping[str, Any] | None,
) -> list[Block]:
    """Accuracy against speed with every setting; orders, scores and agreement with one setting of each line, and a word on which.

    Args:
        summaries, samples: of this task.
        series: setting → line of the plots; a setting that it lacks is its own line.
        courses: setting → course of the first problem.
        agreement: the record of `metrics.agreement` for this task.
    """
    series = {s.setting: series.get(s.setting, s.setting) for s in summaries}
    against = f"{task}: share solved against tokens per"
    out: list[Block] = [
        _picture(f"{task}-forwards", f"{against} forward pass", frontier(summaries, series)),
        _picture(f"{task}-seconds", f"{against} second", frontier(summaries, series, "tokens_per_s")),
    ]
    same = coincident(samples)
    chosen, common = representatives([s.setting for s in summaries], series)
    names = [name for name in chosen if not any(name in group and group[0] in chosen and name != group[0] for group in same)]
    out += _said(summaries, same, names, common)
    order = f"{task}: in which pass each position was written"
    grids = {name: written_shares([x for x in samples if x.setting == name]) for name in names}
    grids = {name: grid for name, grid in grids.items() if grid}
    out += [_picture(f"{task}-order", order, plots.written_when(grids, order))] if grids else []
    scores = f"{task}: scores of the first problem, and what was written (dots)"
    shown = {name: courses[name] for name in names if courses.get(name, {}).get("steps")}
    out += [_picture(f"{task}-scores", scores, plots.score_maps(shown, scores))] if shown else []
    return [*out, *_agreement(task, names, agreement)]


def _agreement(task: str, names: Sequence[str], found: Mapping[str, Any] | None) -> list[Block]:
    place = {name: i for i, name in enumerate(found["settings"])} if found else {}
    known = [name for name in names if name in place]
    if found is None or len(known) < 2:
        return []
    matrix = [[found["matrix"][place[a]][place[b]] for b in known] for a in known]
    alt = f"{task}: rank correlation between the orders"
    return [_picture(f"{task}-agreement", alt, plots.agreement(known, matrix, alt))]


def _said(summaries: Sequence[Summary], same: Sequence[Sequence[str]], names: Sequence[str], common: str) -> list[Block]:
    """What coincides, and what is left out."""
    out: list[Block] = []
    if same:
        groups = "; ".join(" = ".join(group) for group in same)
        out.append(Text(f"The same tokens, written in the same passes, in every answer: {groups}."))
    if len(names) < len(summaries):
        where = f", the one nearest to {common} where that is swept, else its first" if common else ", its first"
        alone = "; of those that coincide the first" if same else ""
        out.append(
            Text(
                f"The pictures below show {len(names)} of the {len(summaries)} settings, one of each line of the plots"
                f"{where}{alone}. The others are left out of them."
            )
        )
    return out


def coincident(samples: Sequence[Sample]) -> list[list[str]]:
    """Groups of settings of one task that gave the same text in the same passes, answer by answer; groups of one are left out.

    Whoever has other problems, or failed at one, coincides with nobody.
    """
    answers: dict[str, dict[tuple[int, int], Any]] = {}
    for s in samples:
        said = None if s.finish_reason == "error" else (s.text, tuple(s.order), s.forwards)
        answers.setdefault(s.setting, {})[s.index, s.draw] = said
    groups: dict[Any, list[str]] = {}
    for setting, found in answers.items():
        if None not in found.values():
            groups.setdefault(tuple(sorted(found.items())), []).append(setting)
    return [group for group in groups.values() if len(group) > 1]


def representatives(settings: Sequence[str], series: Mapping[str, str]) -> tuple[list[str], str]:
    """One setting of every line: the one whose value is nearest to the value that most lines have, else the line's first.

    Args:
        settings: labels, as `sweep.settings` makes them: those of a line differ from its name in one ``option=number``.

    Returns:
        the settings, in order, and the common values as text (``"threshold=0.9"``), those of options that several lines sweep.
    """
    lines: dict[str, list[str]] = {}
    for setting in settings:
        lines.setdefault(series.get(setting, setting), []).append(setting)
    swept = {line: {setting: _number(setting, line) for setting in some} for line, some in lines.items()}
    counts: dict[str, Counter[float]] = {}
    for found in swept.values():
        for option, value in filter(None, found.values()):
            counts.setdefault(option, Counter())[value] += 1
    common = {option: max(values, key=lambda value: values[value]) for option, values in counts.items()}
    out = []
    for line, some in lines.items():
        distance = {s: abs(x[1] - common[x[0]]) for s, x in swept[line].items() if x is not None}
        out.append(min(distance, key=lambda s: distance[s]) if len(distance) == len(some) else some[0])
    shared = {option for option, values in counts.items() if max(values.values()) > 1}
    return out, " and ".join(f"{option}={common[option]:g}" for option in common if option in shared)


def _number(setting: str, line: str) -> tuple[str, float] | None:
    """What a setting says beyond its line: option and number, None where it is something else."""
    named = set(line.split())
    option, equals, text = " ".join(word for word in setting.split() if word not in named).partition("=")
    try:
        return (option, float(text)) if equals else None
    except ValueError:
        return None


def _picture(name: str, alt: str, figure: Any) -> Picture:
    return Picture(name, alt, plots.svg(figure))


def written_shares(samples: Sequence[Sample]) -> list[list[float]]:
    """(passes, positions): share of the answers whose position was written in that pass, among those that reach so far."""
    length = max((s.tokens for s in samples), default=0)
    passes = max((max(s.order[: s.tokens], default=0) for s in samples), default=0)
    grid = [[0.0] * length for _ in range(passes)]
    reach = [sum(s.tokens > p for s in samples) for p in range(length)]
    for sample in samples:
        for p, forward in enumerate(sample.order[: sample.tokens]):
            if forward:
                grid[forward - 1][p] += 1 / reach[p]
    return grid

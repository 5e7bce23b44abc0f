"""Plots: one small function per picture, measured values in, a matplotlib `Figure` out. Nothing else imports matplotlib.

Figures are made without pyplot, so no backend is chosen and no state is shared. Colours are those of Okabe and Ito, which people
with colour-vision deficiencies can tell apart; every colour has a marker of its own. `save` writes by the file's ending.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from attn_sampler.errors import InvalidInputError, MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from attn_sampler.evals.study import Summary

__all__ = ["ENDINGS", "check", "order_laboratory", "save"]

P = ParamSpec("P")
T = TypeVar("T")


COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
INK = "#333333"
ENDINGS = (".png", ".svg", ".pdf")
UNDATED: dict[str, dict[str, Any]] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "0",
}


def _styled(draw: Callable[P, T]) -> Callable[P, T]:
    """``draw`` under `STYLE`, which nobody else sees; names the extra where matplotlib is missing."""

    @functools.wraps(draw)
    def inner(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            import matplotlib as mpl
        except ImportError as error:
            raise MissingDependencyError("matplotlib", "plots") from error
        with mpl.rc_context(STYLE):
            return draw(*args, **kwargs)

    return inner


@_styled
def check(path: Path) -> None:
    """Raise unless a figure can be written there: before a long run, not after it."""
    if path.suffix not in ENDINGS:
        raise InvalidInputError("plot", str(path), f"give a name that ends in one of: {', '.join(ENDINGS)}")


@_styled
def order_laboratory(groups: Sequence[Mapping[str, Any]]) -> Figure:
    """What `attn_sampler.evals.order.summary` found: surrogate, regret and rank correlation, a colour per task and length."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for group in groups for name in group["orders"]))
    labels = [f"{group['task']}, {group['tokens']} tokens (n = {group['prompts']})" for group in groups]
    figure = Figure(figsize=(9.0, 1.5 + 0.34 * len(names)), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=[3, 3, 1.6])
    for axes, measure in ((left, "surrogate_gain"), (middle, "regret")):
        for i, group in enumerate(groups):
            cells = [group["orders"].get(name, {}).get(measure) for name in names]
            _intervals(axes, cells, i, len(groups), labels[i])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_yticks(range(len(names)), names if axes is left else [""] * len(names))
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
    left.set_xlabel("surrogate: share of the best\nimprovement on an average order")
    left.axvline(0, color=INK, linewidth=0.8)
    middle.set_xlabel("regret in log-likelihood, nats\n(0 is the best order)")
    middle.set_xlim(left=-0.02 * middle.get_xlim()[1])
    for i, group in enumerate(groups):
        _intervals(right, [group["rank_correlation"]], i, len(groups), labels[i])
    right.axvline(0, color=INK, linewidth=0.8)
    right.set_xlim(-1, 1)
    right.set_ylim(0.5, -0.5)
    right.set_yticks([])
    right.set_xlabel("rank correlation of\nsurrogate and gap")
    handles, shown = left.get_legend_handles_labels()
    figure.legend(handles, shown, loc="outside upper center", ncols=min(len(groups), 4), frameon=False)
    return figure


@_styled
def accuracies(summaries: Sequence[Summary]) -> Figure:
    """Share solved with its interval, a line per setting and a colour per task."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(s.setting for s in summaries))
    tasks = list(dict.fromkeys(s.task for s in summaries))
    figure = Figure(figsize=(6.0, 1.3 + 0.3 * len(names)), layout="constrained")
    axes = figure.subplots()
    for i, task in enumerate(tasks):
        found = {s.setting: (s.accuracy, s.low, s.high) for s in summaries if s.task == task}
        n = max(s.n for s in summaries if s.task == task)
        _intervals(axes, [found.get(name) for name in names], i, len(tasks), f"{task} (n = {n})")
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), names)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel("share solved, 95 % interval")
    figure.legend(loc="outside upper center", ncols=len(tasks), frameon=False)
    return figure


@_styled
def frontier(summaries: Sequence[Summary], series: Mapping[str, str]) -> Figure:
    """Share solved against tokens per forward, a panel per task and a line per series.

    Args:
        series: setting → the line that it is a point of.
    """
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(s.task for s in summaries))
    lines = list(dict.fromkeys(series.values()))
    figure = Figure(figsize=(4.2 * len(tasks), 3.6), layout="constrained")
    for axes, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        some = [s for s in summaries if s.task == task]
        for i, line in enumerate(lines):
            points = sorted((s.tokens_per_forward, s.accuracy, s.low, s.high) for s in some if series.get(s.setting) == line)
            x, y = [p[0] for p in points], [p[1] for p in points]
            spread = [[p[1] - p[2] for p in points], [p[3] - p[1] for p in points]]
            axes.errorbar(
                x, y, yerr=spread, label=line, marker=MARKERS[i % len(MARKERS)], color=COLOURS[i % len(COLOURS)], markersize=4,
                linewidth=1, elinewidth=0.6,
            )  # fmt: skip
        axes.set_title(f"{task} (n = {max(s.n for s in some)})", fontsize=9)
        axes.set_xlabel("tokens per forward pass")
        axes.set_ylabel("share solved, 95 % interval")
    handles, shown = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, shown, loc="outside upper center", ncols=min(len(lines), 4), frameon=False)
    return figure


def _intervals(axes: Axes, cells: Sequence[Sequence[float | None] | None], i: int, of: int, label: str) -> None:
    """One series of [mean, low, high], one line of the plot each; series ``i`` of ``of`` is moved off the line a little."""
    known = [(y, *(x for x in cell if x is not None)) for y, cell in enumerate(cells) if cell is not None and None not in cell]
    offset = (i - (of - 1) / 2) * 0.7 / max(of, 1)
    spread = [[mean - low for _, mean, low, _ in known], [high - mean for _, mean, _, high in known]]
    axes.errorbar(
        [mean for _, mean, _, _ in known], [y + offset for y, *_ in known], xerr=spread, markersize=4, linewidth=1, label=label,
        fmt=MARKERS[i % len(MARKERS)], color=COLOURS[i % len(COLOURS)],
    )  # fmt: skip


@_styled
def save(figure: Figure, path: Path) -> None:
    """Write a figure; the ending says how. The same figure gives the same bytes."""
    check(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150, facecolor="white", metadata=UNDATED.get(path.suffix))
    except OSError as error:
        raise InvalidInputError("plot", str(path), f"cannot be written ({error.strerror})") from error

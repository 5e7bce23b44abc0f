"""The picture of accuracy against speed, however many lines it has: several panels, and one line where lines coincide."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from attn_sampler.plots import COLOURS, GRID, MARKERS, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from attn_sampler.evals.metrics import Summary

__all__ = ["frontier", "merged"]

Speed = Literal["tokens_per_forward", "tokens_per_s"]
ALONE = len(COLOURS)  # lines that one panel holds
DASHES = ("-", "--", "-.", ":")
BEHIND = "#bbbbbb"  # lines of the other panels


@styled
def frontier(summaries: Sequence[Summary], series: Mapping[str, str], x: Speed = "tokens_per_forward") -> Figure:
    """Share solved with its 95 % interval against speed, a line per series, its points in the order in which they come.

    Lines whose points all lie on those of another are drawn once, under both names. Up to seven lines are one panel per task; of
    more, each panel has six in colour beside the first one, which all are compared with, and the others in grey behind them.

    Args:
        series: setting → the line that it is a point of.
        x: ``"tokens_per_forward"`` or ``"tokens_per_s"``.
    """
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(s.task for s in summaries))
    lines = merged(summaries, series, x)
    shown = _parts(list(lines))
    panels = [(task, some) for some in shown for task in tasks]
    columns = len(tasks) if len(tasks) > 1 else min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.6 * columns, (2.9 + 0.17 * max(map(len, shown))) * rows), layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False, sharex="col", sharey="col" if len(tasks) > 1 else "all").flat)
    for axes, (task, some) in zip(grid, panels, strict=False):
        _panel(axes, [s for s in summaries if s.task == task], lines, some, x)
        axes.set_ylabel(f"{task} (n = {max(s.n for s in summaries if s.task == task)}): share solved")
        axes.tick_params(labelbottom=True, labelleft=True)
    for spare in grid[len(panels) :]:
        spare.remove()
    return figure


def _parts(names: Sequence[str]) -> list[dict[str, int]]:
    """Lines of each panel with the number of their look: all in one, or the first in each and the others in even parts."""
    if len(names) <= ALONE:
        return [{name: i for i, name in enumerate(names)}]
    first, rest = names[0], names[1:]
    count = -(-len(rest) // (ALONE - 1))
    cuts = [round(i * len(rest) / count) for i in range(count + 1)]
    return [{first: ALONE - 1} | {name: i for i, name in enumerate(rest[a:b])} for a, b in pairwise(cuts)]


def merged(summaries: Sequence[Summary], series: Mapping[str, str], x: Speed) -> dict[str, list[str]]:
    """Name of a drawn line → its settings; a line whose points lie on those of another, on every task, has none of its own."""
    settings: dict[str, list[str]] = {}
    for s in summaries:
        if s.setting in series and s.setting not in settings.setdefault(series[s.setting], []):
            settings[series[s.setting]].append(s.setting)
    points = {
        line: {(s.task, round(getattr(s, x), 9), round(s.accuracy, 9)) for s in summaries if s.setting in some}
        for line, some in settings.items()
    }
    on: dict[str, list[str]] = {}
    names = list(points)
    for i, line in enumerate(names[1:], 1):  # the first one stays: all are compared with it
        fits = [over for over in names if over != line and points[line] <= points[over]]
        longest = max(fits, key=lambda over: len(points[over]), default=line)
        if len(points[longest]) > len(points[line]) or names.index(longest) < i:
            on.setdefault(longest, []).append(line)
    hidden = {line for some in on.values() for line in some}
    return {
        line + (f" (on it: {', '.join(on[line])})" if line in on else ""): some
        for line, some in settings.items()
        if line not in hidden
    }


def _panel(
    axes: Axes, summaries: Sequence[Summary], lines: Mapping[str, Sequence[str]], shown: Mapping[str, int], x: Speed
) -> None:
    """One task: the lines that are shown, before all others."""
    from matplotlib.ticker import PercentFormatter

    for name, settings in lines.items():
        found = {s.setting: s for s in summaries}
        points = [found[setting] for setting in settings if setting in found]
        across, up = [getattr(s, x) for s in points], [s.accuracy for s in points]
        if name not in shown:
            axes.plot(across, up, "-" if len(points) > 1 else ".", color=BEHIND, linewidth=0.8, markersize=4, zorder=1)
            continue
        i = shown[name]
        spread = [[s.accuracy - s.low for s in points], [s.high - s.accuracy for s in points]]
        axes.errorbar(
            across, up, yerr=spread, label="\n".join(textwrap.wrap(name, 68, subsequent_indent="   ")), color=COLOURS[i],
            marker=MARKERS[i], linestyle=DASHES[i % len(DASHES)], markersize=5, linewidth=1.2, elinewidth=0.7, capsize=2,
            capthick=0.7, zorder=3, alpha=0.85,
        )  # fmt: skip
    axes.set_xlabel("tokens per forward pass" if x == "tokens_per_forward" else "tokens per second")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, fontsize=7.5, borderaxespad=0.3)

"""Plots: one small function per picture, measured values in, a matplotlib `Figure` out. `frontier` alone beside it imports
matplotlib.

Figures are made without pyplot, so no backend is chosen and no state is shared. Colours are those of Okabe and Ito, which people
with colour-vision deficiencies can tell apart; every colour has a marker of its own. `save` writes by the file's ending, `svg`
and `inline` give a picture for a page that may be light or dark.
"""

from __future__ import annotations

import functools
import io
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from attn_sampler.errors import InvalidInputError, MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from attn_sampler.evals.metrics import Summary

__all__ = [
    "COLOURS", "ENDINGS", "GRID", "INK", "MARKERS", "accuracies", "agreement", "check", "inline", "order_laboratory", "save",
    "score_maps", "styled", "svg", "written_when",
]  # fmt: skip

P = ParamSpec("P")
T = TypeVar("T")


INK, GRID = "#333333", "#dddddd"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", INK)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
FEW = 6  # panels that share one range
PAPER = '<rect width="100%" height="100%" fill="white"/>'
ENDINGS = (".png", ".svg", ".pdf")
UNDATED: dict[str, dict[str, Any]] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
STYLE: dict[Any, Any] = {
    "font.size": 9,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "0",
}


def styled(draw: Callable[P, T]) -> Callable[P, T]:
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


@styled
def check(path: Path) -> None:
    """Raise unless a figure can be written there: before a long run, not after it."""
    if path.suffix not in ENDINGS:
        raise InvalidInputError("plot", str(path), f"give a name that ends in one of: {', '.join(ENDINGS)}")


PANELS = (  # of the order laboratory: measure, whether it grows with the target, what the axis says
    ("surrogate", True, "surrogate per token"),
    ("surrogate_gain", False, "surrogate's gain on an average\norder (1 is its best order's)"),
    ("log_likelihood", True, "log-likelihood per token, nats"),
    ("regret", True, "regret per token, nats\n(0 is the best order)"),
)


@styled
def order_laboratory(groups: Sequence[Mapping[str, Any]]) -> Figure:
    """What `attn_sampler.evals.order_summary.summary` found: a line per order, a colour per task and length.

    What grows with the target is drawn per token, so that lengths compare.
    """
    from matplotlib.figure import Figure

    names = [*dict.fromkeys(name for group in groups for name in group["orders"] if name != "random"), "random"]
    figure = Figure(figsize=(13.0, 1.6 + 0.34 * len(names)), layout="constrained")
    *panels, last = figure.subplots(1, len(PANELS) + 1, width_ratios=[3] * len(PANELS) + [2])
    for axes, (measure, grows, label) in zip(panels, PANELS, strict=True):
        for i, group in enumerate(groups):
            scale = group["tokens"] if grows and group["per"] == "target" else 1
            cells = [_divided(group["orders"].get(name, {}).get(measure), scale) for name in names]
            _intervals(axes, cells, i, len(groups), _group_label(group))
        _lines(axes, names if axes is panels[0] else [""] * len(names))
        axes.set_xlabel(label)
        axes.locator_params(axis="x", nbins=4)
    panels[1].axvline(0, color=INK, linewidth=0.8)
    panels[3].set_xlim(left=-0.02 * panels[3].get_xlim()[1])
    for i, group in enumerate(groups):
        cells = [group["rank_correlation"], group["rank_correlation_named"]]
        _intervals(last, cells, i, len(groups), _group_label(group))
    last.axvline(0, color=INK, linewidth=0.8)
    last.set_xlim(-1, 1)
    _lines(last, ["random\norders", "named\norders"])
    last.set_xlabel("rank correlation of\nsurrogate and gap")
    handles, shown = panels[0].get_legend_handles_labels()
    figure.legend(handles, shown, loc="outside upper center", ncols=min(len(groups), 5), frameon=False)
    return figure


def _group_label(group: Mapping[str, Any]) -> str:
    """Task, length and number of prompts of a group of the order laboratory."""
    low, high = group["lengths"]
    length = f"{low} tokens" if low == high else f"all, {low} to {high} tokens"
    return f"{group['task']}, {length} (n = {group['prompts']})"


def _divided(cell: Sequence[float | None] | None, by: float) -> list[float | None] | None:
    return None if cell is None else [None if x is None else x / by for x in cell]


def _lines(axes: Axes, names: Sequence[str]) -> None:
    """One line of the plot per name, from the top."""
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), names)
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)


@styled
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
    _lines(axes, names)
    axes.set_xlabel("share solved, 95 % interval")
    figure.legend(loc="outside upper center", ncols=len(tasks), frameon=False)
    return figure


@styled
def written_when(shares: Mapping[str, Sequence[Sequence[float]]], title: str) -> Figure:
    """The order of unmasking: which share of the answers had a position written in which forward pass, a panel per setting.

    Args:
        shares: setting → (passes, positions), each column adding up to 1 at most.
    """
    from matplotlib.colors import LinearSegmentedColormap, to_rgba

    shade = LinearSegmentedColormap.from_list("shade", [to_rgba(COLOURS[0], 0.15), to_rgba(COLOURS[0], 1.0)])  # on any paper
    passes = max(len(grid) for grid in shares.values())
    figure, panels = _panels(shares, title, "position in the answer", "forward pass")
    image = None
    for axes, (name, grid) in zip(panels, shares.items(), strict=False):
        cells = [[x if x > 0 else float("nan") for x in row] for row in grid]
        image = axes.imshow(cells, cmap=shade, vmin=0, vmax=1, aspect="auto", extent=_cells(grid), interpolation="nearest")
        _entitle(axes, name, len(shares) > FEW, passes, len(grid))
    if image is not None:
        figure.colorbar(image, ax=panels, label="share of the answers", shrink=0.8)
    return figure


@styled
def score_maps(courses: Mapping[str, Mapping[str, Any]], title: str) -> Figure:
    """What the order went by in every pass of one answer, a panel per setting; dots are what was written.

    Scores of different samplers are different things, so a colour is a rank: 1 for the highest score of the pass, 0 the lowest.

    Args:
        courses: setting → ``length`` and ``steps``, each with ``window``, ``scores`` and ``written``, as a study keeps them.
    """
    figure, panels = _panels(courses, title, "position in the answer", "forward pass")
    passes = max(len(course["steps"]) for course in courses.values())
    image = None
    for axes, (name, course) in zip(panels, courses.items(), strict=False):
        grid = [_ranks(step, course["length"]) for step in course["steps"]]
        image = axes.imshow(grid, cmap="cividis", vmin=0, vmax=1, aspect="auto", extent=_cells(grid), interpolation="nearest")
        dots = [(p, i + 1) for i, step in enumerate(course["steps"]) for p in step["written"]]
        axes.plot(*zip(*dots, strict=True), "o", markersize=3, color=COLOURS[1], markeredgecolor="white", markeredgewidth=0.4)
        _entitle(axes, name, len(courses) > FEW, passes, len(grid))
    if image is not None:
        figure.colorbar(image, ax=panels, label="rank of the score in the pass", shrink=0.8)
    return figure


def _ranks(step: Mapping[str, Any], length: int) -> list[float]:
    """Rank of each position's score among those asked about, from 0 to 1, equal ones the higher; NaN where nothing was asked."""
    row = [float("nan")] * length
    known = [(-float("inf") if score is None else score, p) for score, p in zip(step["scores"], step["window"], strict=True)]
    for score, p in known:
        if 0 <= p < length:
            row[p] = (sum(other <= score for other, _ in known) - 1) / max(1, len(known) - 1)
    return row


def _cells(grid: Sequence[Sequence[float]]) -> tuple[float, float, float, float]:
    """Cell centres at position 0, 1 … from the left and pass 1, 2 … from the top."""
    return -0.5, len(grid[0]) - 0.5, len(grid) + 0.5, 0.5


def _panels(named: Mapping[str, Any], title: str, xlabel: str, ylabel: str) -> tuple[Figure, list[Axes]]:
    """One panel per name, at most three beside each other; of more than six five, each with a range of passes of its own."""
    from matplotlib.figure import Figure

    many = len(named) > FEW
    columns = min(5 if many else 3, len(named))
    rows = -(-len(named) // columns)
    figure = Figure(figsize=(1.2 + (2.1 if many else 2.5) * columns, 0.5 + (2.0 if many else 2.2) * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=not many).flat)
    for spare in panels[len(named) :]:
        spare.remove()
    for i in range(len(named)):
        panels[i].set_ylabel(ylabel if i % columns == 0 else "")
        below = i + columns >= len(named)
        panels[i].set_xlabel(xlabel if below else "")
        panels[i].tick_params(labelbottom=below)
    figure.suptitle(title, fontsize=9)
    return figure, panels[: len(named)]


def _entitle(axes: Axes, name: str, many: bool, passes: int, own: int) -> None:
    """Name of a panel and its range of passes, its own where there are many panels: beside 90 of one, 3 could not be seen."""
    from matplotlib.ticker import MaxNLocator

    axes.set_ylim((own if many else passes) + 0.5, 0.5)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_title(textwrap.fill(name, 28) if many else name, fontsize=7 if many else 9)


@styled
def agreement(names: Sequence[str], matrix: Sequence[Sequence[float | None]], title: str) -> Figure:
    """Rank correlations between the orders of settings, in numbers and colours."""
    from matplotlib.figure import Figure

    n, small = len(names), len(names) > 14
    side = (0.38, 0.3) if small else (0.52, 0.42)
    figure = Figure(figsize=(2.2 + side[0] * n, 1.5 + side[1] * n), layout="constrained")
    axes = figure.subplots()
    cells = [[float("nan") if x is None else x for x in row] for row in matrix]
    image = axes.imshow(cells, cmap="PuOr", vmin=-1, vmax=1, interpolation="nearest")
    for i, row in enumerate(matrix):
        for j, x in enumerate(row):
            colour = INK if x is None else "white" if abs(x) > 0.6 else "black"
            axes.text(j, i, "–" if x is None else f"{x:z.2f}", ha="center", va="center",
                      fontsize=6 if small else 8, color=colour)  # fmt: skip
    axes.set_xticks(range(n), names, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(n), names)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_title(title, fontsize=9)
    figure.colorbar(image, ax=axes, label="rank correlation", shrink=0.8)
    return figure


def _look(i: int) -> dict[str, Any]:
    """Marker and colour of series ``i``: a marker comes back with another colour, so 49 series differ."""
    turn = i // len(MARKERS)
    return {"marker": MARKERS[i % len(MARKERS)], "color": COLOURS[(i + turn) % len(COLOURS)]}


def _intervals(axes: Axes, cells: Sequence[Sequence[float | None] | None], i: int, of: int, label: str) -> None:
    """One series of [mean, low, high], one line of the plot each; series ``i`` of ``of`` is moved off the line a little.

    A mean without an interval is a point; without a mean nothing is drawn.
    """
    known = [(y, [cell[0] if x is None else x for x in cell]) for y, cell in enumerate(cells) if cell and cell[0] is not None]
    offset = (i - (of - 1) / 2) * 0.7 / max(of, 1)
    spread = [[mean - low for _, (mean, low, _) in known], [high - mean for _, (mean, _, high) in known]]
    axes.errorbar(
        [mean for _, (mean, *_) in known], [y + offset for y, _ in known], xerr=spread, markersize=4, linewidth=1, label=label,
        linestyle="none", **_look(i),
    )  # fmt: skip


@styled
def save(figure: Figure, path: Path) -> None:
    """Write a figure; the ending says how. The same figure gives the same bytes."""
    check(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150, facecolor="white", metadata=UNDATED.get(path.suffix))
    except OSError as error:
        raise InvalidInputError("plot", str(path), f"cannot be written ({error.strerror})") from error


@styled
def svg(figure: Figure) -> str:
    """The figure as an ``<svg>`` element on white, its words as text; `inline` makes one for a page of it."""
    import matplotlib as mpl

    out = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none"}):  # text as text: a quarter of the bytes of glyphs
        figure.savefig(out, format="svg", transparent=True, metadata=UNDATED[".svg"])
    text = out.getvalue()
    text = _compact(text[text.index("<svg") :])
    return re.sub(r"(<svg[^>]*>)", rf"\g<1>\n {PAPER}", text, count=1)


def _compact(text: str) -> str:
    """An SVG that looks the same in fewer bytes: a report has ten."""
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub("'DejaVu Sans', [^;\"]*sans-serif", "DejaVu Sans, sans-serif", text)  # not every font there is
    text = re.sub(r' (?:d|x|y)="[^"]*"', lambda found: re.sub(r"(\.\d\d)\d+", r"\g<1>", found[0]), text)  # 1/100 of a point
    text = re.sub(r"\n\s+", "\n", text)
    return re.sub(r"(<g[^>]*)>((?:\n<use [^>]*/>)+)(?=\n</g>)", _once, text)


def _once(found: re.Match[str]) -> str:
    """A group of markers of one style, which the group then says for all of them."""
    styles = set(re.findall(r' style="[^"]*"', found[2]))
    if len(styles) != 1 or "style" in found[1]:
        return found[0]
    (style,) = styles
    return f"{found[1]}{style}>{found[2].replace(style, '')}"


def inline(text: str, name: str) -> str:
    """What `svg` gives without its paper, ink and grid in the page's colours ``--ink`` and ``--grid``.

    Args:
        name: of this picture on its page, in front of every id in it, since a page has several.
    """
    text = text.replace(PAPER, "").replace(INK, "var(--ink)").replace(GRID, "var(--grid)")
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)

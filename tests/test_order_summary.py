"""Tables of the order laboratory by hand: groups, units, both rank correlations, the text of the command."""

from __future__ import annotations

import re
from typing import Any

import pytest

from attn_sampler import plots
from attn_sampler.cli import order as command
from attn_sampler.evals.order_summary import MEASURES, summary


def record(tokens: int, best: float, exact: float, attention: float, correlation: float | None = None) -> dict[str, Any]:
    first = "exact" if tokens <= 20 else "local search"
    return {
        "task": "made", "tokens": tokens, "ideal": -1.0, "best": best, "best_is_exact": tokens < 6, "surrogate_mean": 3.0,
        "surrogate_bound": 1.0, "rank_correlation": correlation,
        "orders": {
            first: {"order": [0, 1], "surrogate": 1.0, "log_likelihood": exact},
            "attention": {"order": [1, 0], "surrogate": 2.0, "log_likelihood": attention},
        },
        "random": {"surrogate": [2.0, 4.0], "log_likelihood": [-5.0, -7.0]},
    }  # fmt: skip


def test_a_table_of_one_length() -> None:
    (group,) = summary([record(4, -2.0, -3.0, -4.0, 0.5), record(4, -2.0, -5.0, -2.0, 0.1)])
    assert (group["tokens"], group["lengths"], group["per"], group["prompts"], group["best_known"]) == (4, [4, 4], "target", 2, 2)
    found = group["orders"]["attention"]
    assert tuple(found) == MEASURES
    assert [found[key][0] for key in MEASURES] == [2.0, 0.5, -3.0, 2.0, 1.0, 3.0]
    assert found["log_likelihood"] == [-3.0, -4.0, -2.0]
    assert group["rank_correlation"] == [pytest.approx(0.3), 0.1, 0.5]
    assert group["rank_correlation_named"] == [0.0, -1.0, 1.0], "right for the first prompt, wrong for the second"
    assert group["orders"]["random"]["surrogate"] == [3.0, 3.0, 3.0]
    assert group["orders"]["random"]["over_random"] == [0.0, 0.0, 0.0]


def test_lengths_of_one_prompt_are_in_the_table_of_all_per_token() -> None:
    groups = summary([record(4, -2.0, -3.0, -4.0), record(8, -1.0, -2.0, -2.0), record(4, -2.0, -2.0, -4.0)])
    assert [(g["tokens"], g["prompts"]) for g in groups] == [(4, 2), (None, 3)]
    group = groups[1]
    assert (group["lengths"], group["per"], group["best_known"]) == ([4, 8], "token", 2)
    found = group["orders"]["attention"]
    assert found["log_likelihood"][0] == pytest.approx((-4 / 4 - 4 / 4 - 2 / 8) / 3)
    assert found["gap"][0] == pytest.approx((3 / 4 + 3 / 4 + 1 / 8) / 3)
    assert found["regret"][0] == pytest.approx((2 / 4 + 2 / 4 + 1 / 8) / 3)
    assert found["surrogate"][0] == pytest.approx((2 / 4 + 2 / 4 + 2 / 8) / 3)
    assert found["surrogate_gain"][0] == 0.5, "a share is one at any length"
    assert group["ideal"][0] == pytest.approx((-1 / 4 - 1 / 4 - 1 / 8) / 3)


def test_one_prompt_has_no_interval_and_many_lengths_have_one() -> None:
    (alone,) = summary([record(5, -1.0, -1.0, -1.0)])
    assert alone["orders"]["attention"]["log_likelihood"] == [-1.0, None, None]
    assert alone["rank_correlation"] == [None, None, None]
    (group,) = summary([record(n, -1.0, -1.0, -float(n * n)) for n in range(3, 15)])
    assert group["prompts"] == 12
    mean, low, high = group["orders"]["attention"]["log_likelihood"]
    assert mean == pytest.approx(-sum(range(3, 15)) / 12)
    assert low < mean < high


def test_the_optimum_beyond_exact_search_stands_in_the_same_line_and_what_some_lengths_lack_in_none() -> None:
    short, long = record(5, -1.0, -1.5, -1.0), record(25, -1.0, -4.0, -1.0)
    short["orders"]["best"] = {"order": [0, 1], "surrogate": 1.0, "log_likelihood": -1.0}
    (group,) = summary([short, long])
    assert list(group["orders"]) == ["exact or local search", "attention", "random"]
    assert group["orders"]["exact or local search"]["log_likelihood"][0] == pytest.approx((-1.5 / 5 - 4 / 25) / 2)


def test_equal_orders_and_the_likeliest_do_not_count_in_the_named_correlation() -> None:
    one = record(4, -2.0, -3.0, -4.0)
    (before,) = summary([one])
    one["orders"]["net"] = dict(one["orders"]["attention"])
    one["orders"]["best"] = {"order": [2, 0], "surrogate": 9.0, "log_likelihood": -2.0}
    (after,) = summary([one])
    assert before["rank_correlation_named"] == after["rank_correlation_named"] == [1.0, None, None]


@pytest.mark.parametrize("width", [None, 100, 40])
def test_columns_never_touch_and_keep_to_the_width(width: int | None) -> None:
    wide = [record(4, -100.0, -3000.123, -428.991), record(4, -368.5, -1.0, -22222.2)]
    (group,) = summary(wide)
    lines = command._lines(group, width)
    rows = [line for line in lines if line.startswith("attention ")]
    shown = [cell for row in rows for cell in re.split(r" {2,}", row)[1:]]
    cells = group["orders"]["attention"]
    assert shown == [command._cell(cells[key]) for key in MEASURES], "every number is there, apart from its neighbours"
    assert len(rows) == 1 if width is None else len(rows) > 1
    assert width is None or max(map(len, lines[1:-1])) <= max(width, 60), "or one column, where two do not fit"
    assert lines[0] == "made, 4 tokens, 2 prompts, the best order is known"


def test_the_title_of_all_lengths_says_its_unit() -> None:
    groups = summary([record(4, -2.0, -3.0, -4.0), record(8, -1.0, -2.0, -2.0)])
    assert command._lines(groups[0], None)[0] == (
        "made, all lengths (4 to 8 tokens), 2 prompts, the best order is known for 1 of them, else of the orders tried; "
        "nats and surrogate per token"
    )


def drawn(axes: Any) -> list[float]:
    """Where the points of the first series lie."""
    return list(axes.lines[0].get_xdata())


def test_the_plot_draws_every_measure_per_token() -> None:
    groups = summary([record(4, -2.0, -3.0, -4.0), record(4, -2.0, -3.0, -2.0), record(8, -1.0, -2.0, -2.0)])
    figure = plots.order_laboratory(groups)
    labels = " ".join(axes.get_xlabel() for axes in figure.axes)
    assert all(word in labels for word in ("surrogate per token", "log-likelihood", "regret", "rank correlation"))
    likelihood = next(axes for axes in figure.axes if "log-likelihood" in axes.get_xlabel())
    assert drawn(likelihood)[:2] == pytest.approx([-3.0 / 4, -3.0 / 4]), "exact and attention, four tokens"
    single = plots.order_laboratory(summary([record(5, -1.0, -1.0, -1.0)]))
    assert len(drawn(single.axes[0])) == 3, "a mean without an interval is drawn, too"

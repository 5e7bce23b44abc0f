"""The pictures of a report: every line and every sampler is in one, and what is left out is said."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attn_sampler import plots
from attn_sampler.evals.metrics import agreement, summarise
from attn_sampler.evals.pages import Picture, Text
from attn_sampler.evals.pictures import coincident, pictures, representatives
from attn_sampler.evals.study import Sample
from attn_sampler.evals.sweep import settings
from attn_sampler.frontier import ALONE, BEHIND, _parts, frontier, merged
from test_metrics import sample


def point(setting: str, forwards: int, right: int) -> list[Sample]:
    """Ten answers of a setting, of which so many are right."""
    return [sample(setting, i, i < right, forwards) for i in range(10)]


SPEEDS = {
    "first": (12, 9),
    "a 1": (6, 9),
    "a 2": (4, 8),
    "b 1": (6, 9),
    "c 1": (6, 7),
    "c 2": (4, 8),
    "d 1": (4, 8),
    "d 2": (6, 9),
}


def test_lines_that_coincide_are_drawn_once_under_all_names() -> None:
    some = summarise([x for setting, (forwards, right) in SPEEDS.items() for x in point(setting, forwards, right)])
    lines = merged(some, {setting: setting.split()[0] for setting in SPEEDS}, "tokens_per_forward")
    assert lines == {"first": ["first"], "a (on it: b, d)": ["a 1", "a 2"], "c": ["c 1", "c 2"]}
    above = merged(some, {"first": "first", "b 1": "b", "a 1": "a", "a 2": "a"}, "tokens_per_forward")
    assert list(above) == ["first", "a (on it: b)"], "the longer one carries the shorter, whichever comes first"


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 3), st.integers(6, 8)), min_size=1, max_size=20))
def test_no_line_and_no_point_is_lost(found: list[tuple[int, int, int]]) -> None:
    series = {f"{line} {i}": str(line) for i, (line, _, _) in enumerate(found)}
    some = summarise([x for i, (line, f, right) in enumerate(found) for x in point(f"{line} {i}", f, right)])
    lines = merged(some, series, "tokens_per_forward")
    named = [name for text in lines for name in re.findall(r"\d", text)]
    assert sorted(named) == sorted(set(series.values())), "every name is said once"
    places = {s.setting: (s.tokens_per_forward, s.accuracy) for s in some}
    assert {places[x] for shown in lines.values() for x in shown} == set(places.values())


@pytest.mark.parametrize("count", range(1, 40))
def test_every_line_is_in_colour_once_and_the_first_in_every_panel(count: int) -> None:
    names = [f"line {i}" for i in range(count)]
    parts = _parts(names)
    assert all(names[0] in part for part in parts)
    assert [name for part in parts for name in part if name != names[0]] == names[1:]
    assert all(len(set(part.values())) == len(part) <= ALONE for part in parts), "no two lines of a panel look alike"
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_picture_of_many_lines_has_panels_with_all_lines_in_each() -> None:
    lines = {f"s{i}": (f"line {i}", 12 - i % 9, 9 - i // 4) for i in range(20)}
    some = summarise([x for name, (_, f, right) in lines.items() for x in point(name, f, right)])
    figure = frontier(some, {name: line for name, (line, _, _) in lines.items()})
    assert len(figure.axes) == 4
    for axes in figure.axes:
        assert len(axes.containers) + sum(line.get_color() == BEHIND for line in axes.lines) == 20
    assert len({axes.get_ylim() for axes in figure.axes}) == 1 == len({axes.get_xlim() for axes in figure.axes})


def test_one_setting_of_every_line_near_the_common_value() -> None:
    swept = settings(
        ["confidence", "fast-dllm", "klass", "clad", "eb", "attention"],
        ["fast-dllm.threshold=0.95,0.8,0.6", "klass.threshold=0.95,0.8", "clad.threshold=0.9,0.75", "eb.gamma=0.1,0.5",
         "attention.threshold=0.7,0.8", "attention.fallback=score,conf"],
    )  # fmt: skip
    chosen, common = representatives([s.label for s in swept], {s.label: s.series for s in swept})
    assert common == "threshold=0.8", "two lines and both of attention have it"
    assert chosen == [
        "confidence", "fast-dllm threshold=0.8", "klass threshold=0.8", "clad threshold=0.75", "eb gamma=0.1",
        "attention threshold=0.8 fallback=score", "attention threshold=0.8 fallback=conf",
    ]  # fmt: skip
    assert representatives(["x", "y"], {}) == (["x", "y"], ""), "without series every setting is its own line"


def test_settings_that_did_the_same_are_named() -> None:
    a = [sample("a", i, True, 4) for i in range(3)]
    b = [replace(x, setting="b", elapsed_s=9.0, log_likelihood=-9.0) for x in a]
    c = [*(replace(x, setting="c") for x in a[:2]), replace(a[2], setting="c", order=[1, 1, 1, 1])]
    failed = [replace(x, setting=name, finish_reason="error") for x in a for name in ("d", "e")]
    assert coincident([*a, *c, *b, *failed]) == [["a", "b"]]
    assert coincident([*a, *b[:2]]) == [], "other problems"


def test_what_is_left_out_is_said_and_nothing_else_is() -> None:
    answers = {f"s{i} threshold={t}": (i, t) for i in range(9) for t in (0.9, 0.8)}
    samples = [
        replace(sample(name, k, True, 4 + i, order=[1 + (k + i) % 3, 2, 1, 3]), text=f"{min(i, 7)}")
        for name, (i, _) in answers.items() for k in range(4)
    ]  # fmt: skip
    found = summarise(samples)
    series = {name: name.split()[0] for name in answers}
    course = {"length": 4, "steps": [{"window": [0, 1], "scores": [0.1, 0.2], "written": [0]}]}
    parts = pictures("word", found, samples, series, dict.fromkeys(answers, course), agreement(samples)[0])
    words = " ".join(part.text for part in parts if isinstance(part, Text))
    assert "s0 threshold=0.9 = s0 threshold=0.8" in words
    assert "show 9 of the 18 settings" in words
    assert "nearest to threshold=0.9" in words
    drawn = {part.name: part.svg for part in parts if isinstance(part, Picture)}
    assert list(drawn) == [f"word-{x}" for x in ("forwards", "seconds", "order", "scores", "agreement")]
    for name in ("order", "scores", "agreement"):
        assert all(f">s{i} threshold=0.9<" in drawn[f"word-{name}"] for i in range(9)), "every sampler"
    alone = pictures("word", found[:1], samples[:4], {}, {}, None)
    assert not any(isinstance(part, Text) for part in alone), "nothing is left out"


def test_a_picture_in_a_page_has_its_words_as_text_and_loses_nothing() -> None:
    some = summarise([*point("a & b", 4, 9), *point("c", 2, 8)])
    text = plots.svg(frontier(some, {"a & b": "a & b", "c": "c"}))
    assert ">a &amp; b<" in text
    assert "tokens per forward pass" in text
    assert "<!--" not in text
    assert text == plots.svg(frontier(some, {"a & b": "a & b", "c": "c"}))
    assert not re.search(r' (?:d|x|y)="[^"]*\.\d{3}', text)


def test_markers_of_one_style_say_it_once() -> None:
    same = '<g clip-path="url(#a)">\n<use x="1" style="fill: red"/>\n<use x="2" style="fill: red"/>\n</g>'
    assert plots._compact(same) == '<g clip-path="url(#a)" style="fill: red">\n<use x="1"/>\n<use x="2"/>\n</g>'
    other = same.replace("red", "blue", 1)
    assert plots._compact(other) == other

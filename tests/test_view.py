"""The canvas in a terminal: pure, exact, legible without colour, harmless where there is no terminal."""

from __future__ import annotations

import io
import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import attn_sampler as ats
from attn_sampler.errors import InvalidInputError
from attn_sampler.frames import Frame, TraceStep
from attn_sampler.results import Step
from attn_sampler.trace import TraceWriter, read
from attn_sampler.view import ColourBy, Watch, ramp, render, replay_in_terminal
from made_runs import EOS, MASK, PIECES, piece, run, runs

WORDS = [[(0, 2), (2, 3)], [(1, 7), (3, 4)], [(4, 5), (5, 1)]]
BOLD_UNDERLINED = "\x1b[1;4m"


def console(width: int = 200, **kwargs: object) -> Console:
    settings = {"file": io.StringIO(), "width": width, "height": 40, "force_terminal": True, "color_system": "truecolor"} | kwargs
    return Console(**settings)  # pyright: ignore[reportArgumentType]


def shown(on: Console) -> str:
    assert isinstance(on.file, io.StringIO)
    return on.file.getvalue()


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def frames_of(steps: list[Step], eos_ids: tuple[int, ...] = (EOS,)) -> list[Frame]:
    frames = [Frame.before(steps[0], piece, MASK, eos_ids)]
    for step in steps:
        frames.append(frames[-1].after(TraceStep.of(step, frames[-1], piece)))
    return frames


def lines_of(frame: Frame, on: Console | None = None, **kwargs: object) -> list[str]:
    on = on or console()
    on.print(render(frame, **kwargs))  # pyright: ignore[reportArgumentType]
    return [line.rstrip() for line in plain(shown(on)).splitlines()]


def test_masks_then_tokens_then_line_breaks() -> None:
    empty, first, second, last = (lines_of(f)[:-2] for f in frames_of(run(WORDS)))
    assert empty == ["······"]
    assert first == ["a░ b░░░"]
    assert second == ["a␛[31m b↵", "░░"]  # the escape character must not reach the terminal
    assert last == ["a␛[31m b", "é∎"]


def test_masks_behind_the_end_go_when_all_before_it_is_written() -> None:
    *_, before, last = (lines_of(f)[0] for f in frames_of(run([[(0, 2)], [(2, 1)], [(1, 2)]])))
    assert before == "a░∎░░░"
    assert last == "aa∎"


@given(runs())
def test_shows_exactly_the_tokens(steps: list[Step]) -> None:
    pictures = {"\u2028": "\u2028", "\x1b[31m": "␛[31m"}
    for frame in frames_of(steps, eos_ids=())[1:]:
        expected = ""
        for i, cell in enumerate(frame.cells[frame.start :], frame.start):
            if cell.piece is None:
                expected += "░" if i in frame.window else "·"
            else:
                text = pictures.get(cell.piece, cell.piece)
                expected += text.replace("\n", "↵\n") if i in frame.new else text
        on = console(width=500)
        on.print(render(frame))
        got = plain(shown(on)).rsplit("\n\n", 1)[0]
        assert [line.rstrip() for line in got.split("\n")] == [line.rstrip() for line in expected.split("\n")]


@given(runs(), st.sampled_from(["confidence", "score"]))
def test_render_is_pure(steps: list[Step], colour_by: ColourBy) -> None:
    frame = frames_of(steps)[-1]
    before = repr(frame)
    outputs = []
    for _ in range(2):
        on = console()
        on.print(render(frame, sampler="x", colour_by=colour_by))
        outputs.append(shown(on))
    assert outputs[0] == outputs[1]
    assert repr(frame) == before


def test_footer_counts_up_to_the_end() -> None:
    *_, last = frames_of(run([[(0, 2)], [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1)]]))
    assert lines_of(last, sampler="attention")[-1] == "forward 2 · 2 tokens · 1.00 per forward · attention · unsure ■■■■■ sure"
    assert lines_of(frames_of(run(WORDS))[0], legend=False)[-1] == "forward 0 · 0 tokens"


def test_several_rows_have_headings() -> None:
    frames = [frames_of(run(WORDS))[1], frames_of(run(WORDS[:1]))[1]]
    on = console(width=60)
    on.print(render(frames, labels=["one\ntwo", "a very long prompt " * 9]))
    lines = plain(shown(on)).splitlines()
    assert lines[0].rstrip() == "2 tokens, 1 forward  one two"
    assert lines[2].startswith("2 tokens, 1 forward  a very long")
    assert lines[2].rstrip().endswith("…")
    assert "4 tokens · 2.00 per forward" in plain(shown(on))


def test_a_tall_canvas_is_cut_to_what_is_new() -> None:
    commits = [[(i, 4)] for i in range(30)]
    frames = frames_of(run(commits, length=31))
    lines = lines_of(frames[20], max_lines=10)
    assert len(lines) == 9
    assert "↵" in "".join(lines[:-2])
    assert len(lines_of(frames[20])) > 20


def test_new_tokens_are_legible_without_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    on = console()
    on.print(render(frames_of(run(WORDS))[2], legend=not on.no_color))
    text = shown(on)
    assert f"{BOLD_UNDERLINED}␛[31m" in text  # new
    assert text.startswith("a")  # older: plain
    assert not re.search(r"\x1b\[[0-9;]*(3[0-9]|4[0-9]|38;|48;)", text)
    assert "■" not in text


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


@given(st.floats())
def test_every_colour_has_contrast_with_white_and_black(value: float) -> None:
    light = luminance(ramp(value))
    assert 1.05 / (light + 0.05) >= 3.9
    assert (light + 0.05) / 0.05 >= 3.9


def test_colours_run_from_orange_to_blue() -> None:
    reds_and_blues = [(int(c[1:3], 16), int(c[5:], 16)) for c in (ramp(i / 10) for i in range(11))]
    assert all(a[0] > b[0] and a[1] < b[1] for a, b in pairwise(reds_and_blues))
    assert ramp(float("nan")) == ramp(0) == ramp(-3)


def test_older_tokens_are_coloured() -> None:
    frame = frames_of(run(WORDS))[2]
    cases: tuple[tuple[ColourBy, float], ...] = (("confidence", 1 / 3), ("score", 4 / 6))
    for colour_by, value in cases:
        on = console()
        on.print(render(frame, colour_by=colour_by, legend=False))
        r, g, b = (int(ramp(value)[i : i + 2], 16) for i in (1, 3, 5))
        assert f"\x1b[38;2;{r};{g};{b}ma" in shown(on)
    with pytest.raises(InvalidInputError, match="did you mean 'score'"):
        render(frame, colour_by="scores")  # pyright: ignore[reportArgumentType]


def test_watch_draws_every_step() -> None:
    on = console()
    with Watch(piece, mask_id=MASK, eos_ids=[EOS], sampler="toy", delay_s=1e-6, console=on) as watch:
        for step in run(WORDS, row=5):
            watch.step(step)
    text = plain(shown(on))
    for expected in ("a░ b░░░", "forward 2 · 4 tokens", "é∎", "· toy"):
        assert expected in text
    assert text.rstrip().endswith("sure")
    assert "\x1b[?25h" in shown(on)  # the cursor is back


def test_watch_shows_the_end_even_if_steps_come_too_fast() -> None:
    on = console()
    with Watch(piece, mask_id=MASK, console=on) as watch:
        for step in run(WORDS):
            watch.step(step)
    assert "forward 3 · 6 tokens" in plain(shown(on))


def test_watch_gives_the_terminal_back_after_an_error() -> None:
    on = console()
    with pytest.raises(KeyboardInterrupt), Watch(piece, mask_id=MASK, console=on) as watch:  # noqa: PT012
        watch.step(run(WORDS)[0])
        raise KeyboardInterrupt
    assert "\x1b[?25h" in shown(on)


class Clock:
    """Time that passes only in ``sleep``."""

    def __init__(self) -> None:
        self.now, self.sleeps = 100.0, list[float]()

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.sleeps.append(seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("attn_sampler.view.time", clock)
    return clock


def test_watch_waits_once_per_forward_pass_not_per_row(clock: Clock) -> None:
    rows = [run(WORDS, row=n) for n in range(4)]
    slept = []
    with Watch(piece, mask_id=MASK, delay_s=5, console=console()) as watch:
        for steps in zip(*rows, strict=True):
            clock.now += 1.0  # the forward pass, which counts towards the delay
            for step in steps:
                watch.step(step)
                slept.append(watch.slept_s)
    assert clock.sleeps == [4.0] * (len(WORDS) - 1), "between two passes, for the rest of the delay"
    assert slept == [0.0] * 5 + [4.0] * 4 + [8.0] * 3, "what had been slept when a Step was made, not after it was shown"


def test_watch_is_silent_and_quick_without_a_terminal(clock: Clock) -> None:
    on = console(force_terminal=False)
    with Watch(piece, mask_id=MASK, delay_s=5, console=on) as watch:
        for step in run(WORDS):
            watch.step(step)
    assert shown(on) == ""
    assert clock.sleeps == []
    assert watch.slept_s == 0


def test_a_negative_delay_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="delay_s=-1"):
        Watch(piece, mask_id=MASK, delay_s=-1)


def test_replay_in_terminal(tmp_path: Path) -> None:
    params = ats.SamplingParams(sampler="margin", seed=0)
    with TraceWriter(tmp_path / "t", piece=piece, mask_id=MASK, eos_ids=[EOS], params=params, prompts=["first", "second"]) as out:
        for step in [*run(WORDS), *run(WORDS[:1], row=1)]:
            out.step(step)
    trace, on, pipe = read(tmp_path / "t"), console(), console(force_terminal=False, color_system="auto")
    replay_in_terminal(trace, 0.0, console=on)
    text = plain(shown(on))
    for expected in ("······", "second", "margin", "forward 3 · 8 tokens · 2.00 per forward"):
        assert expected in text
    replay_in_terminal(trace, 9.0, console=pipe)
    assert shown(pipe).splitlines()[1:3] == ["a␛[31m b", "é∎"]
    assert "\x1b" not in shown(pipe)
    with pytest.raises(InvalidInputError, match="delay_s"):
        replay_in_terminal(trace, float("nan"), console=on)


def test_no_control_character_reaches_the_terminal() -> None:
    every = [chr(i) for i in range(0x110)] + ["\u202e", "\ud800", "\u2066"]
    pieces = PIECES + every
    steps = run([[(i, len(PIECES) + i) for i in range(len(every))]], length=len(every))
    before = Frame.before(steps[0], pieces.__getitem__, MASK)
    on = console(width=1000, no_color=True)
    on.print(render(before.after(TraceStep.of(steps[0], before, pieces.__getitem__))))
    text = plain(shown(on)).replace("\n", "")
    assert all(c.isprintable() or c in "\xa0\xad" for c in text)
    text.encode()

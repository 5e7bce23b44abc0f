"""Text at the edges: what is emitted never changes and joins to the text; prompts and templates are read as written."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from attn_sampler import Hole, InvalidInputError
from attn_sampler.text import Transcript, encode, parse_template
from fakes import ByteTokenizer, ChatTokenizer, Tokenizer

BYTES = ByteTokenizer()


@st.composite
def splits(draw: st.DrawFn) -> tuple[str, list[int]]:
    """A text, and how many of its bytes have settled at each step."""
    text = draw(st.text(st.sampled_from("abé€😀\n "), max_size=10))
    n = len(text.encode())
    return text, [*sorted(draw(st.lists(st.integers(0, n), max_size=8))), n]


stops = st.lists(st.text(st.sampled_from("abé€ "), min_size=1, max_size=3), max_size=2).map(tuple)


def told(text: str, settled: list[int], stop: tuple[str, ...]) -> tuple[list[str], Transcript]:
    data, transcript = list(text.encode()), Transcript(BYTES.decode, stop)
    return [transcript.update(data[:n], i == len(settled) - 1) for i, n in enumerate(settled)], transcript


@settings(max_examples=150)
@given(splits())
def test_deltas_join_to_the_text_whatever_the_split(case: tuple[str, list[int]]) -> None:
    text, settled = case
    deltas, transcript = told(text, settled, ())
    assert "".join(deltas) == transcript.text == text
    assert not transcript.stopped
    for emitted in itertools.accumulate(deltas):
        assert text.startswith(emitted), "half a character is never shown"


def ended_by(text: str, settled: list[int], stop: tuple[str, ...]) -> int:
    """Where the text ends: before the leftmost stop string of the first settled text that holds one."""
    for n in settled:
        so_far = BYTES.decode(list(text.encode()[:n]))
        places = [so_far.find(s) for s in stop if s in so_far]
        if places:
            return min(places)
    return len(text)


@settings(max_examples=150)
@given(splits(), stops)
def test_a_stop_string_ends_the_text(case: tuple[str, list[int]], stop: tuple[str, ...]) -> None:
    text, settled = case
    # A longer stop string that began before a shorter one inside it depends on what settles together; leave that out.
    stop = tuple(s for s in stop if not any(other != s and other in s for other in stop))
    if split_character(text, settled, stop):
        return  # the case of the next test
    deltas, transcript = told(text, settled, stop)
    end = ended_by(text, settled, stop)
    assert "".join(deltas) == transcript.text == text[:end]
    assert transcript.stopped == (end < len(text))
    if transcript.stopped:
        data = list(text.encode())[: next(n for n in settled if ended_by(text, [n], stop) < len(text))]
        kept = transcript.cut(data)
        assert kept == data[: len(kept)]
        assert any(s in BYTES.decode(kept) for s in stop)
        assert not any(s in BYTES.decode(kept[:-1]) for s in stop)


def split_character(text: str, settled: list[int], stop: tuple[str, ...]) -> bool:
    """Whether some step ends within a character that follows the beginning of a stop string."""
    for n in settled:
        whole = BYTES.decode(list(text.encode()[:n])).rstrip("\ufffd")
        cut_inside = len(whole.encode()) < n
        if cut_inside and any(whole.endswith(s[:k]) for s in stop for k in range(1, len(s))):
            return True
    return False


def test_a_stop_string_whose_second_character_is_cut_in_two() -> None:
    deltas, transcript = told("xaé!", [2, 3, 4, 5], ("aé",))
    assert "".join(deltas) == transcript.text == "x"


def test_the_beginning_of_a_stop_string_is_held_back_until_it_is_clear() -> None:
    deltas, _ = told("ab ab!", [1, 2, 3, 4, 5, 6], ("ab!",))
    assert deltas == ["", "", "ab ", "", "", ""]
    deltas, _ = told("ab ab.", [1, 2, 3, 4, 5, 6], ("ab!",))
    assert deltas == ["", "", "ab ", "", "", "ab."]


def test_nothing_is_emitted_after_the_end_or_without_a_tokenizer() -> None:
    transcript = Transcript(BYTES.decode, ("b",))
    assert transcript.update(list(b"ab"), False) == "a"
    assert transcript.stopped
    assert transcript.update(list(b"abc"), True) == ""
    assert transcript.text == "a"
    silent = Transcript(None, ())
    assert silent.update([1, 2], True) == ""
    assert silent.text == ""


def test_an_emitted_prefix_is_kept_when_the_decoder_changes_its_mind() -> None:
    """Some decoders drop or add a space when more follows; deltas must still join to the text."""
    transcript = Transcript(lambda ids: "x y"[: len(ids)] if len(ids) < 3 else "xy!", ())
    deltas = [transcript.update([0] * n, n == 4) for n in range(1, 5)]
    assert "".join(deltas) == transcript.text


@given(st.lists(st.integers(1, 99) | st.text(st.characters(exclude_characters="[]"), min_size=1), min_size=1, max_size=6))
@example([1, 2])
def test_a_template_is_text_and_holes(parts: list[int | str]) -> None:
    if not any(isinstance(part, int) for part in parts):
        with pytest.raises(InvalidInputError, match="hole"):
            parse_template("".join(map(str, parts)))
        return
    parsed = parse_template("".join(f"[[{part}]]" if isinstance(part, int) else part for part in parts))
    assert [part.length for part in parsed if isinstance(part, Hole)] == [part for part in parts if isinstance(part, int)]
    assert "".join(p for p in parsed if isinstance(p, str)) == "".join(p for p in parts if isinstance(p, str))
    assert "" not in parsed


@pytest.mark.parametrize("text", ["[1]", "[[x]]", "[[-1]]", "[[]]", ""])
def test_a_text_without_a_hole_is_no_template(text: str) -> None:
    with pytest.raises(InvalidInputError, match=r"\[\[n\]\]"):
        parse_template(text)


@pytest.mark.parametrize("length", [0, -1, 1.5, "3", True])
def test_a_hole_has_a_positive_length(length: object) -> None:
    with pytest.raises(InvalidInputError, match="hole"):
        Hole(length)  # type: ignore[arg-type]
    if length == 0:
        with pytest.raises(InvalidInputError, match="hole"):
            parse_template("a[[0]]")


def test_prompts() -> None:
    plain, chat = Tokenizer("ab<>"), ChatTokenizer("ab<>")
    assert encode(plain, "ab", None) == [0, 1]
    assert encode(chat, "ab", None) == [2, 0, 1, 3]
    assert encode(chat, "ab", False) == [0, 1]
    assert encode(chat, [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], None) == [2, 0, 3, 2, 1, 3]
    assert encode(None, [3, 1, 2], None) == encode(None, (3, 1, 2), None) == [3, 1, 2]
    with pytest.raises(InvalidInputError, match="no chat template"):
        encode(plain, "ab", True)

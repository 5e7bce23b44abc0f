"""Trace files: what was written is what is read, and the frames are the canvases that the engine showed."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import attn_sampler as ats
from attn_sampler.errors import InvalidInputError
from attn_sampler.results import Step
from attn_sampler.trace import FORMAT, VERSION, Trace, TraceWriter, read
from made_runs import EOS, MASK, piece, run, runs

PARAMS = ats.SamplingParams(sampler="confidence", seed=2**62 + 1)
FULL = [[(0, 2)], [(1, 3), (3, 4)], [(2, 2), (4, 1), (5, 1)]]


def write(path: Path, steps: list[Step], **kwargs: object) -> Path:
    given = {"piece": piece, "mask_id": MASK, "eos_ids": (EOS,), "params": PARAMS, "model": "toy"} | kwargs
    with TraceWriter(path, **given) as writer:  # pyright: ignore[reportArgumentType]
        for step in steps:
            writer.step(step)
    return path


def through_file(steps: list[Step], **kwargs: object) -> Trace:
    with tempfile.TemporaryDirectory() as folder:
        return read(write(Path(folder) / "t.jsonl", steps, **kwargs))


@given(runs())
def test_frames_are_the_canvases_of_the_steps(steps: list[Step]) -> None:
    (row,) = through_file(steps).rows
    frames = list(row.frames())
    assert [f.ids for f in frames] == [s.ids for s in steps]
    assert [[i for i, m in enumerate(f.masked) if m] for f in frames] == [s.masked for s in steps]
    for frame, step in zip(frames, steps, strict=True):
        assert (frame.forward, frame.start) == (step.forward, step.start)
        assert frame.new == {i for i in step.positions if i not in step.masked}
        assert [c.piece for c in frame.cells] == [None if i in step.masked else piece(t) for i, t in enumerate(step.ids)]


@given(runs())
def test_every_value_of_a_step_survives(steps: list[Step]) -> None:
    (row,) = through_file(steps).rows
    for got, step in zip(row.steps, steps, strict=True):
        assert got.forward == step.forward
        assert (list(got.positions), list(got.tokens)) == (step.positions, step.tokens)
        assert list(got.confidences) == step.confidences
        assert list(got.window) == step.window
        assert list(map(repr, got.scores)) == list(map(repr, step.scores))  # repr: NaN, -0.0 and infinities too
        assert (got.settled, got.delta) == (step.settled, step.delta)
    assert row.params == PARAMS.to_dict()
    last = steps[-1].result
    assert row.result == (None if last is None else last.to_dict())
    assert row.finished == (last is not None)


@given(runs())
def test_what_was_read_is_plain_json(steps: list[Step]) -> None:
    values = through_file(steps).to_dict()
    assert json.loads(json.dumps(values, allow_nan=False)) == values


def test_file_is_json_lines_with_the_prompt_as_text(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", run(FULL), prompts=["Q?"])
    head, opening, *steps, result = map(json.loads, path.read_text("utf-8").splitlines())
    version = ats.__version__
    assert head == {"format": FORMAT, "version": VERSION, "attn_sampler": version, "model": "toy", "mask_id": MASK}
    assert opening["prompt"] == "Q?"
    assert opening["pieces"] == ["a", " b", *[None] * 6]
    assert opening["ids"] == [2, 3, *[MASK] * 6]
    assert len(steps) == 3
    assert steps[1]["pieces"] == [" b", "\n"]
    assert result["result"]["finish_reason"] == "length"
    assert read(path).rows[0].prompt == "Q?"


def test_prompt_falls_back_to_its_pieces(tmp_path: Path) -> None:
    assert read(write(tmp_path / "t.jsonl", run(FULL))).rows[0].prompt == "a b"


def test_rows_are_numbered_in_order_of_appearance(tmp_path: Path) -> None:
    first, second = run(FULL, row=17), run(FULL[:2], row=23)
    each = [ats.SamplingParams(sampler="margin", seed=1), ats.SamplingParams(sampler="entropy", seed=2, ignore_eos=True)]
    mixed = [first[0], second[0], first[1], second[1], first[2]]
    trace = read(write(tmp_path / "t.jsonl", mixed, params=each, prompts=["one", "two"]))
    assert [(r.row, r.prompt, r.params["sampler"], r.finished) for r in trace.rows] == [
        (0, "one", "margin", True),
        (1, "two", "entropy", False),
    ]
    assert [frame.ids for frame in trace.frames()] == [s.ids for s in first + second]
    assert not trace.finished
    assert [r.opening.eos_ids for r in trace.rows] == [(EOS,), ()]


def test_tokens_after_the_first_end_do_not_count(tmp_path: Path) -> None:
    (row,) = read(write(tmp_path / "t.jsonl", run(FULL))).rows
    assert [frame.tokens for frame in row.frames()] == [1, 3, 5]  # of the two ends, at offsets 4 and 5, the first


def test_rank_and_score_of_a_commit(tmp_path: Path) -> None:
    (row,) = read(write(tmp_path / "t.jsonl", run([[(0, 2), (1, 3)]]))).rows
    (frame,) = row.frames()
    assert [frame.cells[i].score for i in (2, 3)] == [2.0, 3.0]  # of 2, 3, 0, 1, 2, 3
    assert [frame.cells[i].rank for i in (2, 3)] == [4 / 6, 1.0]


def test_written_line_by_line(tmp_path: Path) -> None:
    path, steps = tmp_path / "t.jsonl", run(FULL)
    writer = TraceWriter(path, piece=piece, mask_id=MASK, params=PARAMS)
    assert read(path).rows == ()
    for n, step in enumerate(steps, 1):
        writer.step(step)
        (row,) = read(path).rows
        assert len(row.steps) == n
        assert row.finished == (n == len(steps))
    writer.close()


def test_lone_surrogates_survive(tmp_path: Path) -> None:
    trace = read(write(tmp_path / "t.jsonl", run(FULL), prompts=["bad \udce9 byte"]))
    assert trace.rows[0].prompt == "bad \udce9 byte"


def test_cut_anywhere_it_reads_as_unfinished(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", run(FULL))
    whole, full = path.read_bytes(), read(path)
    head = whole.index(b"\n")
    for n in range(head, len(whole) - 1):  # without its line end alone, the last line is still whole
        path.write_bytes(whole[:n])
        trace = read(path)
        assert not trace.finished
        for row in trace.rows:
            assert row.steps == full.rows[0].steps[: len(row.steps)]
    path.write_bytes(whole[:-1])
    assert read(path) == full
    path.write_bytes(whole[: head // 2])
    with pytest.raises(InvalidInputError, match=r"line 1 of t.jsonl is not JSON"):
        read(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'"format":"attn-sampler-trace"', b'"format":"other"', "line 1 of t.jsonl does not begin a trace"),
        (b'"version":1', b'"version":2', "line 1 of t.jsonl says version 2"),
        (b'"mask_id":0', b'"mask_id":true', "line 1 of t.jsonl lacks 'mask_id'"),
        (b'"start":2', b'"start":9', "line 2 of t.jsonl has a 'start'"),
        (b'"params":{', b'"params":7,"p":{', "line 2 of t.jsonl lacks 'params'"),
        (b'"forward":1', b'"forward":"1"', "line 3 of t.jsonl lacks 'forward'"),
        (b'"positions":[2]', b'"positions":[8]', "line 3 of t.jsonl has 'positions' outside"),
        (b'"tokens":[2]', b'"tokens":[]', "line 3 of t.jsonl has 0 'tokens' instead of 1"),
        (b'"pieces":["a"]', b'"pieces":[5]', "line 3 of t.jsonl has 'pieces' of the wrong type"),
        (b'"scores":[2.0', b'"scores":["x"', "line 3 of t.jsonl has 'scores' that are not numbers"),
        (b'{"row":0,"forward":2', b'{"row":4,"forward":2', "line 4 of t.jsonl belongs to row 4, which has not begun"),
        (b'{"row":0,"forward":2', b'[]\n{"row":0,"forward":2', "line 4 of t.jsonl is not a JSON object"),
        (b'{"row":0,"forward":2', b'\n{"row":0,"forward":2', "line 4 of t.jsonl is not JSON"),
        (b'"finish_reason"', b'"reason"', "line 6 of t.jsonl has a 'result' without finish_reason"),
    ],
)
def test_a_foreign_file_is_named_with_its_line(tmp_path: Path, old: bytes, new: bytes, message: str) -> None:
    path = write(tmp_path / "t.jsonl", run(FULL))
    whole = path.read_bytes()
    assert old in whole
    path.write_bytes(whole.replace(old, new, 1))
    with pytest.raises(InvalidInputError, match=message) as caught:
        read(path)
    assert str(caught.value).endswith("give a file that TraceWriter wrote")


def test_rows_begin_once_and_end_once(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", run(FULL))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines, lines[1]]))
    with pytest.raises(InvalidInputError, match=r"line 7 of t.jsonl begins row 0 again"):
        read(path)
    path.write_bytes(b"".join([*lines, lines[2]]))
    with pytest.raises(InvalidInputError, match=r"line 7 of t.jsonl belongs to row 0, which has ended"):
        read(path)


@given(st.data())
def test_a_damaged_file_is_an_error_or_a_trace(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "t.jsonl", run(FULL))
        damaged = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(st.integers(0, len(damaged) - 1))
            damaged[at : at + data.draw(st.integers(0, 20))] = data.draw(
                st.binary(max_size=4) | st.sampled_from([b"9" * 400, b"]"])
            )
        path.write_bytes(bytes(damaged))
        try:
            trace = read(path)
        except InvalidInputError:
            return
        for frame in trace.frames():
            assert len(frame.ids) == len(frame.cells)


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"No such file.*give a trace file"):
        read(tmp_path / "nothing")
    with pytest.raises(InvalidInputError, match="directory"):
        read(tmp_path)
    (tmp_path / "empty").touch()
    with pytest.raises(InvalidInputError, match="empty"):
        read(tmp_path / "empty")
    with pytest.raises(InvalidInputError, match="give a file in a directory that exists"):
        write(tmp_path / "no" / "t.jsonl", [])


def test_a_missing_step_is_an_error(tmp_path: Path) -> None:
    steps = run(FULL)
    with pytest.raises(InvalidInputError, match=r"row 0, forward 3.*give every Step"):
        write(tmp_path / "t.jsonl", [steps[0], steps[2]])


def test_params_for_every_row(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="params='1 of them'"):
        write(tmp_path / "t.jsonl", [*run(FULL), *run(FULL, row=1)], params=[PARAMS])


def test_reading_needs_no_torch() -> None:
    code = "import sys, attn_sampler.trace, attn_sampler.view, attn_sampler.replay; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""What `-o` says: settings with their labels, and the series that they are points of."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from attn_sampler import InvalidInputError
from attn_sampler.evals.questions import questions
from attn_sampler.evals.study import Study
from attn_sampler.evals.sweep import settings
from attn_sampler.evals.tasks import find
from attn_sampler.frequencies import Frequencies


def labels(samplers: str, *options: str) -> list[str]:
    return [setting.label for setting in settings(samplers.split(","), options)]


def test_settings() -> None:
    assert labels("confidence,attention") == ["confidence", "attention"]
    assert labels("attention", "attention.threshold=0.8,0.9") == ["attention threshold=0.8", "attention threshold=0.9"]
    assert labels("attention", "threshold=0.8", "threshold=0.8", "threshold=0.9")[1:] == ["attention threshold=0.9"]
    both = settings(["attention", "fast-dllm"], ["threshold=0.8,0.9", "attention.fallback=conf"])
    assert [s.label for s in both] == [
        "attention fallback=conf threshold=0.8", "attention fallback=conf threshold=0.9",
        "fast-dllm threshold=0.8", "fast-dllm threshold=0.9",
    ]  # fmt: skip
    assert {s.series for s in both} == {"attention fallback=conf", "fast-dllm"}
    lists = settings(["attention"], ["layers=0,1", "layers=2", "sub_block_length=none,8"])
    assert [s.options["layers"] for s in lists] == [(0, 1), (0, 1), (2,), (2,)]
    assert [s.options["sub_block_length"] for s in lists] == [None, 8, None, 8]


def test_a_series_varies_in_one_number() -> None:
    """Two options swept together are no curve: sorted by speed their points zig-zag between the values of the other option."""
    both = settings(["attention"], ["threshold=0.95,0.9,0.8", "fallback=score,conf"])
    assert [s.series for s in both] == ["attention fallback=score", "attention fallback=conf"] * 3
    assert [s.label for s in both][:2] == ["attention threshold=0.95 fallback=score", "attention threshold=0.95 fallback=conf"]
    numbers = settings(["attention-fixed"], ["k=1,2", "score_threshold=0.8,0.9,1"])
    assert {s.series for s in numbers} == {"attention-fixed k=1", "attention-fixed k=2"}, "along the number with the most values"
    words = settings(["attention"], ["fallback=score,conf"])
    assert [s.series for s in words] == [s.label for s in words], "no number, no curve"
    with_none = settings(["attention"], ["sub_block_length=none,8", "threshold=0.8,0.9"])
    assert {s.series for s in with_none} == {"attention sub_block_length=none", "attention sub_block_length=8"}
    assert {s.series for s in settings(["attention"], ["threshold=0.9"])} == {"attention threshold=0.9"}


def test_parameters_of_the_row_are_swept_like_options() -> None:
    options = ["confidence.early_exit=none,prophet", "dcd.block_length=32", "dcd.threshold=0.9,0.7"]
    found = settings(["confidence", "dcd"], options)
    assert [(s.label, s.options) for s in found] == [
        ("confidence", {"early_exit": None}),
        ("confidence early_exit=prophet", {"early_exit": "prophet"}),
        ("dcd block_length=32 threshold=0.9", {"block_length": 32, "threshold": 0.9}),
        ("dcd block_length=32 threshold=0.7", {"block_length": 32, "threshold": 0.7}),
    ]
    assert len({s.series for s in found}) == 3
    whole = settings(["confidence"], ["early_exit=sched:mode=linear,high=6", "early_exit=none"])
    assert [s.options["early_exit"] for s in whole] == ["sched:mode=linear,high=6", None], "commas of its own options"
    asked = Study(found, {"word": questions(find("word"), n=1)}, {"block_length": 8})
    rows = [asked.row(setting, "word") for setting in found]
    assert [row.block_length for row in rows] == [8, 8, 32, 32]
    assert [row.early_exit is None for row in rows] == [True, False, True, True]


def test_a_table_is_named_by_its_digest(tmp_path: Path) -> None:
    table = Frequencies.count([1, 1, 2], 640)
    table.write(tmp_path / "table.json")
    (setting,) = settings(["pc-sampler"], [f"frequencies={tmp_path / 'table.json'}"])
    assert setting.options == {"frequencies": table}
    assert setting.label == f"pc-sampler frequencies={table.digest[:8]}"
    asked = Study([setting], {"word": questions(find("word"), n=1)}).describe()
    assert json.loads(json.dumps(asked))["settings"][0]["word"]["options"]["frequencies"]["digest"] == table.digest


@pytest.mark.parametrize(
    ("samplers", "option", "message"),
    [
        ("attention", "early_exit=profet", "did you mean 'prophet'"),
        ("attention", "attention.block_length=0", "block_length=0"),
        ("attention", "block_length=1.5", "give a number of positions"),
        ("atention", None, "did you mean 'attention'"),
        ("attention,attention", None, "name every sampler once"),
        ("attention", "threshold", "sampler.option=v1,v2"),
        ("attention", "threshold=", "sampler.option=v1,v2"),
        ("attention", "threshold=0.8,x", "give a number"),
        ("attention", "threshold=0.8,7", "threshold"),
        ("attention", "treshold=0.8", "did you mean 'threshold'"),
        ("attention", "fast-dllm.threshold=0.8", "known: attention"),
        ("attention", "attention.gamma=1", "gamma"),
        ("attention", "@nowhere.json", "cannot be read"),
    ],
)
def test_settings_refused(samplers: str, option: str | None, message: str) -> None:
    with pytest.raises(InvalidInputError, match=re.escape(message)):
        labels(samplers, *([] if option is None else [option]))

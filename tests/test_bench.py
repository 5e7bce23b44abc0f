"""Benchmarks run and say what they measured; how fast this machine is says nothing about the code."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from attn_sampler import UnknownNameError
from attn_sampler.bench import selection
from attn_sampler.cli import app


def test_the_cost_of_selection() -> None:
    records = selection.measure(names=["confidence", "wino", "dapd"], rows=2, max_new_tokens=4, rounds=2)
    assert [r["sampler"] for r in records] == ["confidence", "wino", "dapd"]
    for r in records:
        assert 0 < r["select_over_forward_low"] <= r["select_over_forward"] <= r["select_over_forward_high"]
        assert r["ms_per_forward"] > 0
        assert r["rows"] == 2
    with pytest.raises(UnknownNameError, match="klass"):
        selection.measure(names=["klas"], rows=1, max_new_tokens=1, rounds=1)


def test_the_command() -> None:
    asked = ["bench", "selection", "--sampler", "confidence", "--rows", "2", "--rounds", "1"]
    told = CliRunner().invoke(app, asked)
    assert told.exit_code == 0, told.output
    assert told.stdout.startswith("confidence ")
    assert "rows 2" in told.stderr
    (record,) = json.loads(CliRunner().invoke(app, [*asked, "--json"]).stdout)
    assert record["sampler"] == "confidence"

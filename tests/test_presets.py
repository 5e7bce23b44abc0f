"""Presets say what differs, and the page names every one of them and those that are missing."""

from __future__ import annotations

import re
from pathlib import Path

from attn_sampler.evals import presets, published

PAGE = (Path(__file__).parents[1] / "docs" / "tasks.md").read_text(encoding="utf-8")


def test_the_page_names_every_preset() -> None:
    listed = re.search(r"^Presets: (.*?)\. None has", PAGE, re.DOTALL | re.MULTILINE)
    assert listed is not None
    assert re.findall(r"`([^`]+)`", listed[1]) == presets.names()
    for missing in ("Open-dCoder", "ReFusion"):
        assert re.search(rf"^\| {missing} \|.*not in the library", PAGE, re.MULTILINE)


def test_a_beginning_token_and_the_cutting_of_code_are_said() -> None:
    lm_eval = ("gsm8k", "math500", "humaneval", "mbpp")
    for name, tasks in (("dream-base", lm_eval), ("fast-dllm-dream", ("gsm8k",)), ("fast-dllm-dream-parallel", ("gsm8k",))):
        for task in tasks:
            assert "add_bos" in presets.find(name).task(task).differs, (name, task)
    differs = presets.find("dream-base").task("humaneval").differs
    assert "escape_until" in differs
    assert "postprocess_code.py" in differs
    assert any("add_bos" in note for note in published.apply("dream-base", ["humaneval"]).notes), "and so the report says it"


def test_fast_dllm_on_dream_in_parallel() -> None:
    applied = published.apply("fast-dllm-dream-parallel", ["gsm8k"])
    assert (applied.sampler, applied.options) == ("fast-dllm", {"threshold": 0.9})
    assert applied.params["gsm8k"] == {"max_new_tokens": 256, "block_length": 32}
    assert applied.model == presets.find("fast-dllm-dream").model
    assert "steps are 8" in presets.find("fast-dllm-dream-parallel").task("gsm8k").differs

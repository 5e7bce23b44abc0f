"""What a report says of time: a busy machine is marked, whatever it was that day."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import attn_sampler as ats
from attn_sampler.evals.metrics import Summary, summarise
from attn_sampler.evals.pages import Table, Text
from attn_sampler.evals.questions import embedded
from attn_sampler.evals.speed import busy, speed
from attn_sampler.evals.study import Sample, Setting, Study
from attn_sampler.evals.tasks import problems

CPU, GPU = "cpu: some processor", "cuda: some card"
SAMPLE = Sample(
    task="word", setting="a", index=0, draw=0, seed=1, difficulty=1, prompt="p", text="t", solved=True, detail={}, tokens=10,
    forwards=5, finish_reason="stop", elapsed_s=2.0, batch_s=1.0, peak_bytes=None, log_likelihood=-0.5, order=[1], cpu_s=0.9,
)  # fmt: skip


def summaries(**cpu_s: float | None) -> list[Summary]:
    """Of settings with two answers of a second each, of which the thread had so much of a processor."""
    return summarise(dataclasses.replace(SAMPLE, setting=name, index=i, cpu_s=x) for name, x in cpu_s.items() for i in range(2))


def test_a_busy_machine_is_marked() -> None:
    found = summaries(quiet=0.97, busy=0.4, busier=0.25)
    assert [s.cpu_share for s in found] == [0.97, 0.4, 0.25]
    table, note, _ = speed(CPU, "word", found, {})
    assert isinstance(table, Table)
    assert isinstance(note, Text)
    assert [row[1] for row in table.rows] == ["10.0", "10.0 *", "10.0 *"]
    assert note.text.startswith("* word: the machine was busy")
    assert "25 % to 40 %" in note.text


def test_a_quiet_machine_is_not() -> None:
    (table, _) = speed(CPU, "word", summaries(quiet=0.9, unknown=None), {})
    assert isinstance(table, Table)
    assert not any("*" in cell for row in table.rows for cell in row)
    assert summaries(unknown=None)[0].cpu_share is None
    assert not busy(GPU, summaries(waits=0.1)[0]), "the thread waits for the device"


def test_processor_time_is_kept_beside_the_time(tmp_path: Path) -> None:
    asked = Study([Setting("fast", "fast-dllm")], {"word": embedded(problems("word", 3, 5))}, {"max_new_tokens": 16})
    samples = asked.run(ats.load(device="cpu", max_rows=2), tmp_path)
    spent = [sample.cpu_s for sample in samples if sample.cpu_s is not None]
    assert len(spent) == 3
    assert 0 < sum(spent) <= sum(sample.batch_s for sample in samples) + 0.05, "one thread has one processor at most"
    assert asked.run(ats.load(device="cpu"), tmp_path) == samples, "and it is read again"


def test_memory_has_a_column_where_it_is_known() -> None:
    (one,) = summaries(a=0.9)
    known = dataclasses.replace(one, peak_bytes=3 << 20)
    for device, name in ((CPU, "memory added, MiB"), (GPU, "peak memory, MiB")):
        (table,) = speed(device, "word", [known, one], {})
        assert isinstance(table, Table)
        column = table.header.index(name)
        assert [row[column] for row in table.rows] == ["3", "–"]
    (table, note) = speed(CPU, "word", [one], {})
    assert isinstance(table, Table)
    assert isinstance(note, Text)
    assert not any("memory" in name for name in table.header)
    assert {len(row) for row in table.rows} == {len(table.header)}
    assert "does not tell the peak memory" in note.text

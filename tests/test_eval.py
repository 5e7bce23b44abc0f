"""attn-sampler eval and calibrate: whole runs, killed ones, the page, what is refused."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from typer.testing import CliRunner, Result

import attn_sampler as ats
from attn_sampler import InvalidInputError, SamplingParams, UnknownNameError, plots
from attn_sampler.cli import app
from attn_sampler.evals import calibrate, card, chosen, cost, pages, presets, published
from attn_sampler.evals.sweep import settings
from attn_sampler.evals.tasks import find

ASKED = [
    "eval", "--tasks", "word,sudoku4", "--samplers", "fast-dllm,attention", "-o", "attention.threshold=0.7,0.9", "--limit", "4",
    "--max-rows", "3",
]  # fmt: skip
ANSWERS = 2 * 3 * 4
MEASURED = ("elapsed_s", "batch_s", "peak_bytes", "cpu_s")


def run(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def samples(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


def said(line: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if key not in MEASURED}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("eval") / "run"
    result = run(*ASKED, "--output", str(folder))
    assert result.exit_code == 0, result.output
    return folder, result.stdout


# --- a run ------------------------------------------------------------------------------------------------------------


def test_one_folder_says_it_all(done: tuple[Path, str]) -> None:
    folder, shown = done
    results = json.loads((folder / "results.json").read_text())
    assert len(results["results"]) == 6
    assert {r["setting"] for r in results["results"]} == {"fast-dllm", "attention threshold=0.7", "attention threshold=0.9"}
    assert len(results["comparisons"]) == 2 * 3, "every pair on every task"
    assert len(results["aup"]) == 2 * 2
    assert all(0 <= r["cost"]["sampler_share"] < 1 for r in results["results"])
    about = results["card"]
    assert about["eos"]["ids"] == list(ats.load(device="cpu").model.eos_ids)
    assert about["packages"]["torch"] == torch.__version__
    assert about["model_files_sha256"] == card.files_of(None)
    assert {len(digest) for digest in about["model_files_sha256"].values()} == {64}
    assert len(samples(folder)) == ANSWERS
    assert "attention threshold=0.7" in shown
    text = (folder / "report.md").read_text()
    for picture in re.findall(r"\]\((.*?\.svg)\)", text):
        ElementTree.parse(folder / picture)
    assert text.count(".svg)") == 2 * 5


def test_the_same_again_answers_nothing_again(done: tuple[Path, str]) -> None:
    folder, _ = done
    before = (folder / "samples.jsonl").read_bytes(), (folder / "results.json").read_text()
    result = run(*ASKED, "--output", str(folder), "--json")
    assert result.exit_code == 0, result.output
    assert ((folder / "samples.jsonl").read_bytes(), (folder / "results.json").read_text()) == before
    assert json.loads(result.stdout) == json.loads(before[1])


def test_a_changed_setting_is_refused_with_what_differs(done: tuple[Path, str]) -> None:
    folder, _ = done
    words = [word.replace("0.9", "0.8") for word in ASKED]
    with pytest.raises(InvalidInputError, match=r"settings\[2\].label was \"attention threshold=0.9\", is") as caught:
        CliRunner().invoke(app, [*words, "--output", str(folder)], catch_exceptions=False)
    assert "threshold was 0.9, is 0.8" in str(caught.value)


def test_killed_anywhere_it_goes_on(done: tuple[Path, str], tmp_path: Path) -> None:
    """A process is killed as it writes; what it wrote is kept, and the end is that of the run that nobody killed."""
    folder = tmp_path / "run"
    command = [sys.executable, "-c", "from attn_sampler.cli import main; main()", *ASKED, "--output", str(folder)]
    file, kept = folder / "samples.jsonl", b""
    for wanted in (1, 13):
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        ends = time.monotonic() + 120
        while not file.exists() or file.read_bytes().count(b"\n") < wanted:
            assert child.poll() is None, "it ended before it was killed"
            assert time.monotonic() < ends
            time.sleep(0.002)
        child.send_signal(signal.SIGKILL)
        child.wait()
        now = file.read_bytes()
        assert now.startswith(kept[: kept.rfind(b"\n") + 1]), "nothing is lost"
        kept = now
    with file.open("ab") as out:  # as if the kill had come in the middle of a line
        out.write(b'{"task": "wo')
    result = run(*ASKED, "--output", str(folder))
    assert result.exit_code == 0, result.output
    lines = samples(folder)
    keys = {(x["task"], x["setting"], x["index"], x["draw"]) for x in lines}
    assert len(lines) == len(keys) == ANSWERS, "nothing is counted twice"
    order = sorted(map(json.dumps, map(said, lines)))
    assert order == sorted(map(json.dumps, map(said, samples(done[0])))), "and it is what an unbroken run says"
    first, again = (json.loads((f / "results.json").read_text())["results"] for f in (done[0], folder))
    for a, b in zip(first, again, strict=True):
        for key in ("accuracy", "forwards", "tokens", "tokens_per_forward", "pass_at_k", "p"):
            assert a[key] == b[key]


def test_several_answers_per_problem(tmp_path: Path) -> None:
    words = ["eval", "--tasks", "word", "--samplers", "fast-dllm", "--limit", "3", "--output", str(tmp_path / "r")]
    with pytest.raises(InvalidInputError, match="temperature"):
        CliRunner().invoke(app, [*words, "--samples", "4"], catch_exceptions=False)
    result = run(*words, "--samples", "4", "-t", "0.9")
    assert result.exit_code == 0, result.output
    (row,) = json.loads((tmp_path / "r" / "results.json").read_text())["results"]
    assert set(row["pass_at_k"]) == {"1", "2", "4"}
    assert row["draws"] == 4
    assert "pass@4" in (tmp_path / "r" / "report.md").read_text()
    found = samples(tmp_path / "r")
    assert len({x["seed"] for x in found}) == 12
    one = found[0]  # an answer can be had again by itself
    params = SamplingParams(sampler="fast-dllm", max_new_tokens=32, temperature=0.9, seed=one["seed"])
    assert ats.load(device="cpu").generate([one["prompt"]], params)[0].text == one["text"]


# --- the page ---------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Every tag and attribute; whether what is opened is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_needs_no_other_file(done: tuple[Path, str]) -> None:
    text = (done[0] / "report.html").read_text()
    page = Page()
    page.feed(text)
    assert not page.open
    links = [x[key] for _, x in page.seen for key in ("href", "src", "xlink:href") if x.get(key)]
    assert links
    assert all(link.startswith(("#", "data:")) for link in links if link)
    assert not re.search(r"@import|url\((?!#)", text)
    ids = [x["id"] for _, x in page.seen if "id" in x]
    assert len(ids) == len(set(ids)), "ids of one picture do not meet those of another"
    assert {link[1:] for link in links if link and link.startswith("#")} <= set(ids)
    assert sum(tag == "svg" for tag, _ in page.seen) == 2 * 5
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text
    assert plots.INK not in text, "ink is the page's"
    assert plots.PAPER not in text
    assert plots.PAPER in (done[0] / "plots" / "word-order.svg").read_text(), "a file stands on white"


def test_what_a_model_is_called_cannot_break_the_page() -> None:
    nasty = "<script>alert(1)</script> | \"&'"
    blocks = [pages.Heading(nasty), pages.Text(nasty), pages.Code(nasty), pages.Table([nasty, "n"], [[nasty, nasty]])]
    text = pages.page(nasty, blocks, lambda svg, name: "<svg></svg>")
    assert "<script>" not in text
    (table,) = [line for line in pages.markdown(blocks).split("\n\n") if line.startswith("|")]
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 3 for line in table.splitlines())


# --- presets ----------------------------------------------------------------------------------------------------------


def test_a_preset_says_what_the_command_does_not(tmp_path: Path) -> None:
    """Dream's settings on its Sudoku, with the embedded model; the sampler's own options come from the preset, too."""
    words = ["eval", "--tasks", "sudoku4", "--preset", "dream-base", "--limit", "2", "--style", "plain", "--max-new-tokens", "32"]
    model = str(Path(ats.__file__).parent / "pretrained")
    result = run(*words, "--steps", "32", "-m", model, "--output", str(tmp_path / "r"))
    assert result.exit_code == 0, (result.output, result.exception)
    study = json.loads((tmp_path / "r" / "study.json").read_text())
    (setting,) = study["settings"]
    assert setting["label"] == "dream alg=entropy"
    assert setting["sudoku4"]["options"]["alg"] == "entropy"
    assert study["tasks"]["sudoku4"]["params"] == {"max_new_tokens": 32, "steps": 32}
    assert "Published for sudoku4" in (tmp_path / "r" / "report.md").read_text()


def test_every_preset_can_be_put_to_use() -> None:
    for name in presets.names():
        preset = presets.find(name)
        for task in preset.tasks:
            applied = published.apply(name, [task])
            assert settings([applied.sampler], [], {applied.sampler: applied.options})
            SamplingParams(sampler=applied.sampler, **applied.options, **applied.params[task])
            assert applied.styles[task] in find(task).styles
    with pytest.raises(InvalidInputError, match="no published setting of 'word'"):
        published.apply("llada-base", ["word"])
    with pytest.raises(UnknownNameError, match="did you mean 'llada-base'"):
        published.apply("llada-bse", ["gsm8k"])


# --- calibration ------------------------------------------------------------------------------------------------------


def test_calibrate_writes_what_generate_and_eval_take(tmp_path: Path) -> None:
    file = tmp_path / "word.json"
    words = ["calibrate", "--task", "word", "--sampler", "attention", "-o", "threshold=0.5,0.9", "--limit", "6"]
    result = run(*words, "--output", str(file))
    assert result.exit_code == 0, result.output
    found = chosen.read(file)
    frontier = found.origin["frontier"]
    assert len(frontier) == 2
    assert frontier == sorted(frontier, key=lambda point: point["summary"]["forwards"])
    first = next((point for point in frontier if point["kept"]), None)
    if first is None:
        assert (found.sampler, dict(found.options)) == ("attention-sequential", {})
    else:
        assert (found.sampler, dict(found.options)) == ("attention", first["options"])
    said = run("generate", "-o", f"@{file}", "--max-new-tokens", "16", "What is 1 + 2?")
    assert said.exit_code == 0, said.output
    assert f"{found.sampler}:" in said.stderr
    asked = ["eval", "--tasks", "word", "--samplers", "fast-dllm", "-o", f"@{file}", "--limit", "6"]
    seen = run(*asked, "--seed", "1000", "--output", str(tmp_path / "seen"))
    assert seen.exit_code == 0, (seen.output, seen.exception)
    assert "Seen before: 6 of 6 problems of word" in seen.stderr
    assert "Seen before" in (tmp_path / "seen" / "report.md").read_text()
    with pytest.raises(InvalidInputError, match="leave out one"):
        CliRunner().invoke(app, ["generate", "-o", f"@{file}", "--sampler", "eb", "x"], catch_exceptions=False)


def test_candidates() -> None:
    swept = calibrate.candidates("attention", [], None)
    assert (swept[0].sampler, len(swept)) == ("attention-sequential", 9)
    assert calibrate.candidates("fast-dllm", [], None)[0].sampler == "confidence"
    assert [s.label for s in calibrate.candidates("eb", ["gamma=0.1,1"], None)] == ["sequential", "eb gamma=0.1", "eb gamma=1"]
    with pytest.raises(InvalidInputError, match="no threshold"):
        calibrate.candidates("eb", [], None)
    with pytest.raises(UnknownNameError, match="confidence"):
        calibrate.candidates("attention", [], "confidense")


@pytest.mark.parametrize(
    ("content", "message"),
    [("[]", "calibrate"), ('{"format": "attn-sampler-options", "version": 9}', "version 9"), ("{", "cannot be read"),
     ('{"format": "attn-sampler-options", "version": 1, "sampler": "attention", "options": {"threshold": 3}}', "threshold")],
)  # fmt: skip
def test_files_refused(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "x.json"
    file.write_text(content)
    with pytest.raises(InvalidInputError, match=message):
        chosen.read(file)


# --- cost -------------------------------------------------------------------------------------------------------------


def test_shares_of_the_time() -> None:
    engine = ats.load(device="cpu", max_rows=2)
    prompts = ["What is 1 + 2?", "What is 2 + 2 + 2?"]
    params = SamplingParams(sampler="attention-sequential", max_new_tokens=16, seed=0, ignore_eos=True)
    found = cost.shares(engine, prompts, params)
    assert found["passes"] == cost.PASSES
    assert 0 < found["sampler_share"] < 0.5
    assert -0.5 < found["attention_share"] < 0.9
    plain = cost.shares(engine, prompts, SamplingParams(sampler="confidence", max_new_tokens=16, seed=0, ignore_eos=True))
    assert plain["attention_share"] == 0.0
    assert engine.unfinished == 0


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the system cannot set the mark back")
def test_peak_memory() -> None:
    peak = cost.Peak(torch.device("cpu"))
    before = peak.bytes()
    assert before is not None
    held = torch.ones(64 * 2**20, dtype=torch.uint8)
    after = peak.bytes()
    assert after is not None
    assert after - before > 32 * 2**20
    assert len(held)

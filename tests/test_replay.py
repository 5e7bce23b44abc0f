"""The web page: whole, closed in itself, and holding exactly the trace."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

import attn_sampler as ats
from attn_sampler.errors import InvalidInputError
from attn_sampler.replay import to_html
from attn_sampler.trace import Trace, TraceWriter, read
from made_runs import EOS, MASK, piece, run

VOID = {"meta", "link", "input", "wbr", "br"}
WORDS = [[(0, 6), (2, 10)], [(1, 7), (3, 4)], [(4, 5), (5, 1)]]  # "</script><!--", U+2028, an escape character, ...
PICTURE = Path(__file__).parents[1] / "recipes" / "canvas_picture.py"


class Page(HTMLParser):
    """Checks that every element is closed; collects scripts, ids and addresses."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        values = dict(attrs)
        self.ids += [values["id"] or ""] if "id" in values else []
        self.addresses += [values[name] or "" for name in ("src", "href", "action") if name in values]
        if tag == "script":
            self.scripts.append((values, ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            values, text = self.scripts[-1]
            self.scripts[-1] = (values, text + data)


def trace_of(path: Path, prompts: tuple[str, ...] = ("one", "two"), words: list[list[tuple[int, int]]] | None = None) -> Trace:
    params = ats.SamplingParams(sampler="fast-dllm", seed=2**62 + 1, stop=["</script>"])
    with TraceWriter(path, piece=piece, mask_id=MASK, eos_ids=[EOS], params=params, prompts=prompts, model="<b>&") as out:
        for row in range(len(prompts)):
            for step in run(words or WORDS, row=row):
                out.step(step)
    return read(path)


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    return trace_of(tmp_path / "t.jsonl")


def test_page_holds_exactly_the_trace(trace: Trace) -> None:
    page = Page(to_html(trace))
    data, program = page.scripts
    assert data[0] == {"type": "application/json", "id": "trace"}
    assert json.loads(data[1]) == trace.to_dict()
    assert "JSON.parse" in program[1]
    assert len(trace.to_dict()["rows"]) == 2


@given(st.text(alphabet=st.sampled_from("<>/!-&'\"\\\u2028\ud800script __TRACE__\n")))
def test_no_text_ends_the_script(tmp_path_factory: pytest.TempPathFactory, prompt: str) -> None:
    trace = trace_of(tmp_path_factory.mktemp("t") / "t.jsonl", (f"</script><script>alert(1)</script>{prompt}",))
    html = to_html(trace)
    page = Page(html)
    assert len(page.scripts) == 2
    assert json.loads(page.scripts[0][1]) == trace.to_dict()
    assert "alert(1)</script>" not in html
    html.encode()


def test_page_asks_nobody_for_anything(trace: Trace) -> None:
    html = to_html(trace)
    assert Page(html).addresses == ["data:,"]
    assert "default-src 'none'" in html
    outside = html.replace("http://www.w3.org/2000/svg", "")  # the name of a vocabulary, not an address
    assert not re.search(r"https?://|@import|url\(|fetch\(|XMLHttpRequest|innerHTML|eval\(", outside)


def test_the_program_names_only_elements_that_exist(trace: Trace) -> None:
    page = Page(to_html(trace))
    used = set(re.findall(r'\$\("(\w+)"\)', page.scripts[1][1]))
    assert used <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert {"play", "slider", "canvas", "row", "chart", "tip"} <= used


def test_infinities_are_numbers_of_javascript(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    trace_of(path)
    path.write_text(path.read_text("utf-8").replace('"scores":[2.0,', '"scores":["-Infinity",'), encoding="utf-8")
    trace = read(path)
    assert trace.rows[0].steps[0].scores[0] == float("-inf")
    assert json.loads(Page(to_html(trace)).scripts[0][1])["rows"][0]["steps"][0]["scores"][0] == "-Infinity"


def test_a_trace_without_rows_is_an_error() -> None:
    with pytest.raises(InvalidInputError, match="no forward pass was recorded"):
        to_html(Trace("toy", "0", MASK, ()))


def draw(path: Path, *options: str) -> tuple[int, Path, str]:
    out = path.with_suffix(".svg")
    command = [sys.executable, str(PICTURE), str(path), str(out), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, out, done.stderr


def test_picture_for_the_readme(tmp_path: Path) -> None:
    trace_of(tmp_path / "t.jsonl")
    code, out, _ = draw(tmp_path / "t.jsonl", "--row", "1", "--panels", "3")
    assert code == 0
    texts = [node.text for node in ElementTree.parse(out).iter() if node.tag.endswith("text")]
    assert [t for t in texts if t and t.startswith("forward")] == [
        "forward 1 · 2 tokens", "forward 2 · 4 tokens", "forward 3 · 6 tokens"
    ]  # fmt: skip
    assert "two" in texts
    code, _, error = draw(tmp_path / "t.jsonl", "--row", "2")
    assert code == 1
    assert "give 0 to 1" in error

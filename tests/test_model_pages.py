"""The pages on models: every family has one, their links lead somewhere, their examples run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from attn_sampler.models import FAMILIES, REFUSED

DOCS = Path(__file__).parents[1] / "docs"
PAGES = [DOCS / "models.md", *sorted((DOCS / "models").glob("*.md"))]
IDS = [str(page.relative_to(DOCS)) for page in PAGES]


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_family_stands_in_the_index() -> None:
    index = (DOCS / "models.md").read_text(encoding="utf-8")
    for name in FAMILIES:
        assert re.search(rf"^\|.*\[`{name}`\]\(models/[\w-]+\.md", index, re.MULTILINE), name
    for name in REFUSED:
        assert f"| {name} " in index
    for page in PAGES[1:]:
        assert f"(models/{page.name}" in index, f"nothing leads to {page.name}"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text(encoding="utf-8")):
        name, _, anchor = target.partition("#")
        other = (page.parent / name).resolve() if name else page
        assert other.is_file(), target
        assert not anchor or anchor in anchors(other), target


@pytest.mark.parametrize("page", [DOCS / "how-it-works.md", DOCS / "tutorial.md", *sorted(DOCS.glob("decisions/*.md"))], ids=str)
def test_links_to_the_index_lead_somewhere(page: Path) -> None:
    for anchor in re.findall(r"\]\((?:\.\./)?models\.md#([\w-]+)\)", page.read_text(encoding="utf-8")):
        assert anchor in anchors(DOCS / "models.md")


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_examples_run(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    space: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(page), "exec"), space)
    if page.name == "bring-your-own.md":
        assert capsys.readouterr().out == "b'the cat sat on the mat.'\n"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_commands_and_calls_name_real_options(page: Path) -> None:
    """Blocks that need a download are not run; what they name must exist all the same."""
    from attn_sampler import SamplingParams

    text = page.read_text(encoding="utf-8")
    for name in re.findall(r'family="([\w-]+)"|--family ([\w-]+)', text):
        assert "".join(name) in FAMILIES
    for call in re.findall(r"SamplingParams\(([^)]*)\)", text):
        SamplingParams(**eval(f"dict({call})"))

"""The command as people use it: what goes to stdout, what to stderr, and with which exit code it ends."""

from __future__ import annotations

import inspect
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from attn_sampler import samplers
from attn_sampler.cli import main
from attn_sampler.cli.options import Dtype, Family, Loading, Output, spread

PROMPT = "Tom has 3 apples. He buys 4 more. How many apples does Tom have?"
NAMES = {
    "text", "token_ids", "finish_reason", "prompt_tokens", "completion_tokens", "forwards", "elapsed_s", "seed",
}  # fmt: skip


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """The exit code of ``attn-sampler WORDS``."""
    monkeypatch.setattr(sys, "argv", ["attn-sampler", *words])
    try:
        main()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0
    return 0


def test_help_loads_no_torch() -> None:
    code = (
        "import sys; sys.argv = ['attn-sampler', 'generate', '--help']\n"
        "from attn_sampler.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'transformers', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--max-new-tokens" in done.stdout


def test_a_group_of_options_is_one_value_to_the_command() -> None:
    """`spread`: the options are the group's fields, in its place; the command gets the group, defaults where nothing is given."""
    seen: list[tuple[str, Loading, Output]] = []

    @spread
    def command(model: str = "m", *, output: Output, loading: Loading) -> None:
        """Does it."""
        seen.append((model, loading, output))

    taken = inspect.signature(command).parameters
    assert list(taken) == ["model", "watch", "as_json", "trace", "family", "adapter", "quantize", "dtype", "device"]
    assert (taken["dtype"].default, taken["dtype"].annotation, taken["family"].annotation) == ("auto", Dtype, Family)
    assert command.__doc__ == "Does it."
    command(model="x", family="dream", as_json=True)
    assert seen == [("x", Loading(family="dream"), Output(as_json=True))]
    app = typer.Typer()
    app.command()(command)
    assert CliRunner().invoke(app, ["--watch", "--dtype", "float32", "--trace", "run.jsonl"]).exit_code == 0
    assert seen[1] == ("m", Loading(dtype="float32"), Output(watch=True, trace=Path("run.jsonl")))
    assert CliRunner().invoke(app, ["--loading", "x"]).exit_code == 2


def test_generate_prints_one_json_object_per_prompt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "generate", PROMPT, "What is 3 + 4?", "--json", "--max-new-tokens", "24") == 0
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["prompt"] for row in rows] == [PROMPT, "What is 3 + 4?"]
    assert all(set(row) >= NAMES for row in rows)
    assert all(row["completion_tokens"] == len(row["token_ids"]) for row in rows)
    assert "tokens per forward" in err


def test_text_alone_goes_to_stdout(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "generate", PROMPT, "--watch", "--seed", "1", "--max-new-tokens", "24") == 0
    plain = capsys.readouterr().out
    assert run(monkeypatch, "generate", PROMPT, "--json", "--seed", "1", "--max-new-tokens", "24") == 0
    assert json.loads(capsys.readouterr().out)["text"] + "\n" == plain


@pytest.mark.parametrize("words", [(), ("-",)])
def test_prompt_from_stdin(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(PROMPT + "\n"))
    assert run(monkeypatch, "generate", *words, "--json", "--max-new-tokens", "24") == 0
    assert json.loads(capsys.readouterr().out)["prompt"] == PROMPT


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("generate", ""), "prompt=''"),
        (("generate", PROMPT, "--sampler", "atention"), "did you mean 'attention'"),
        (("generate", PROMPT, "-o", "treshold=0.5"), "did you mean 'threshold'"),
        (("generate", PROMPT, "-o", "threshold"), "key=value"),
        (("generate", PROMPT, "-o", "threshold=high"), "give a number"),
        (("generate", PROMPT, "--threshold", "1.5"), "from 0 to 1"),
        (("generate", PROMPT, "--threshold", "0.5", "--sampler", "random"), "threshold"),
        (("generate", PROMPT, "--max-new-tokens", "0"), "max_new_tokens=0"),
        (("generate", PROMPT, "--max-new-tokens", "9999"), "context"),
        (("generate", PROMPT, "--block-length", "7"), "block_length=7"),
        (("generate", PROMPT, "--device", "abacus"), "device"),
        (("generate", PROMPT, "--trace", "/no/such/directory/run.jsonl"), "trace="),
        (("generate", "1 2 x", "--ids"), "integers"),
        (("generate", "<|mask|>"), "mask token"),
        (("generate", PROMPT, "-m", "./no-such-directory"), "no such directory"),
        (("infill", "no hole"), "[[n]]"),
        (("replay", "no-such-file.jsonl"), "no-such-file.jsonl"),
    ],
)
def test_wrong_usage_exits_with_2(
    words: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *words) == 2
    out, err = capsys.readouterr()
    assert not out
    assert message in err
    assert "Traceback" not in err


def test_broken_checkpoint_exits_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "generate", PROMPT, "-m", str(tmp_path)) == 1
    assert "config.json" in capsys.readouterr().err


def test_unknown_flag_exits_with_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "generate", PROMPT, "--samplr", "attention") == 2


def test_infill_keeps_what_was_given(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "infill", "3 + 4 =[[1]]\\n####[[1]]", "--prompt", PROMPT, "--json") == 0
    row = json.loads(capsys.readouterr().out)
    assert row["text"].startswith("3 + 4 =")
    assert "\n####" in row["text"]
    assert row["completion_tokens"] == 2


def test_interrupt_prints_what_has_settled(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import attn_sampler.engine as engine

    advance = engine.Engine._advance
    count = iter(range(1000))

    def interrupted(self: engine.Engine) -> None:
        if next(count) == 12:
            raise KeyboardInterrupt
        advance(self)

    monkeypatch.setattr(engine.Engine, "_advance", interrupted)
    assert run(monkeypatch, "generate", "Sudoku:\n4000\n3104\n1030\n0000", "--sampler", "left-to-right") == 1
    out, err = capsys.readouterr()
    assert "interrupted" in err
    assert 0 < len(out.strip()) < 23  # some of the grid's 19 tokens


def test_trace_replays_and_becomes_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trace, page = tmp_path / "run.jsonl", tmp_path / "run.html"
    assert run(monkeypatch, "generate", PROMPT, "--trace", str(trace), "--max-new-tokens", "24") == 0
    capsys.readouterr()
    assert run(monkeypatch, "replay", str(trace), "--html", str(page), "--delay", "0") == 0
    assert "<html" in page.read_text(encoding="utf-8")


def test_samplers_lists_every_option_with_its_default(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "samplers", "--json") == 0
    listed = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert sorted(listed) == samplers.names()
    for name, row in listed.items():
        rebuilt = samplers.build(name, {k: tuple(v) if isinstance(v, list) else v for k, v in row["options"].items()})
        assert rebuilt == samplers.build(name, {})
        assert row["paper"]
        assert row["summary"]


def test_version_models_and_env(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from attn_sampler import __version__

    assert run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"attn-sampler {__version__}\n"
    assert run(monkeypatch, "models", "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["family"] == "llada"
    assert run(monkeypatch, "env") == 0
    assert "torch: " in capsys.readouterr().out

"""PC-Sampler: against the authors' scores, against a slow twin, what its options reduce to; tables of token frequencies."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from attn_sampler import Engine, InvalidInputError, SamplingParams, samplers
from attn_sampler.cli import frequencies
from attn_sampler.engine import EMBEDDED
from attn_sampler.frequencies import Frequencies
from attn_sampler.models import load_tokenizer
from attn_sampler.propose import Proposal
from attn_sampler.samplers.pc_sampler import PcSampler
from attn_sampler.seam import Window
from fakes import TableModel, random_table
from test_cli import PROMPT, run
from test_golden_samplers import cases_of

VOCAB, MASK = 8, 7


def window_of(p: Tensor, tokens: Tensor, candidates: Tensor, vocab: int, widths: list[int], quota: int = 1) -> Window:
    rows, width = p.shape
    positions = 9 + torch.minimum(torch.arange(width).expand(rows, -1), torch.tensor(widths)[:, None] - 1)
    zero = torch.zeros(rows, dtype=torch.long)
    proposal = Proposal(tokens, p, torch.zeros(rows, width, vocab))
    return Window(positions, candidates, proposal, zero + quota, zero, zero, zero)


def test_the_authors_scores_and_choices() -> None:
    """Their table has shares with seven digits: counts out of ten million, one more id for what is missing from that."""
    for case in cases_of("pc_sampler"):
        p, tokens = torch.tensor([case["p"]], dtype=torch.float64), torch.tensor([case["argmax"]])
        counts = (torch.tensor(case["frequency"], dtype=torch.float64) * 1e7).round().long()
        table = Frequencies(torch.cat([counts, 10**7 - counts.sum(0, keepdim=True)]))
        options = {"decay": case["params"]["lambda"], "alpha": case["params"]["alpha"], "frequencies": table}
        everywhere = torch.ones_like(p).bool()
        for quota, k in ((case["params"]["k"], 1), (1, case["params"]["k"])):
            window = window_of(p, tokens, everywhere, table.vocab_size, [p.shape[1]], quota)
            answer = PcSampler(**options, k=k).select(window, {})
            np.testing.assert_allclose(answer.score[0].numpy(), case["score"], rtol=1e-5)
            assert answer.commit[0].nonzero()[:, 0].tolist() == case["selected"]


def slow(sampler: PcSampler, p: list[float], tokens: list[int], masked: list[int], counts: list[int]) -> dict[int, float]:
    """The scores of one row's masks, from the formula."""
    calibrated = {}
    for i in masked:
        share = max(counts[tokens[i]], 1) / sum(counts)
        calibrated[i] = min(p[i] * (1.0 if sampler.frequencies is None else -math.log(share + 1e-9)), sampler.alpha)
    if sampler.mode == "exponential":
        return {i: math.exp(-sampler.decay * i) * c for i, c in calibrated.items()}
    low, high = min(calibrated.values()), max(calibrated.values())
    return {
        i: (1 - sampler.decay) * (c - low) / max(high - low, 1e-9) + sampler.decay * (len(p) - i) / len(p)
        for i, c in calibrated.items()
    }


@given(
    widths=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    mode=st.sampled_from(["exponential", "linear"]),
    decay=st.sampled_from([0.0, 0.25, 1.0]),
    alpha=st.sampled_from([0.5, 10.0]),
    table=st.booleans(),
    quota=st.integers(1, 3),
    seed=st.integers(0, 10**6),
)
def test_the_slow_twin(widths: list[int], mode: Any, decay: float, alpha: float, table: bool, quota: int, seed: int) -> None:
    rng, rows, width = torch.Generator().manual_seed(seed), len(widths), max(widths)
    p = torch.rand(rows, width, generator=rng, dtype=torch.float64)
    tokens = torch.randint(0, VOCAB, (rows, width), generator=rng)
    counts = torch.randint(0, 50, (VOCAB,), generator=rng)
    candidates = (torch.rand(rows, width, generator=rng) < 0.7) & (torch.arange(width) < torch.tensor(widths)[:, None])
    candidates[:, 0] = True
    sampler = PcSampler(Frequencies(counts) if table else None, decay, alpha, mode)
    answer = sampler.select(window_of(p, tokens, candidates, VOCAB, widths, quota), {})
    for k, w in enumerate(widths):
        masked = candidates[k].nonzero()[:, 0].tolist()
        want = slow(sampler, p[k, :w].tolist(), tokens[k, :w].tolist(), masked, counts.tolist())
        assert answer.score[k, masked].tolist() == pytest.approx(list(want.values()), rel=1e-12, abs=1e-12)
        best = sorted(masked, key=lambda i: (-float(answer.score[k, i]), i))[:quota]
        assert answer.commit[k].nonzero()[:, 0].tolist() == sorted(best)


@pytest.mark.parametrize(
    ("options", "base"),
    [({"decay": 0.0}, "confidence"), ({"decay": 0.0, "mode": "linear"}, "confidence"), ({"decay": 300.0}, "left-to-right"),
     ({"decay": 1.0, "mode": "linear"}, "left-to-right")],
)  # fmt: skip
def test_without_a_table_the_ends_are_plain_orders(options: dict[str, Any], base: str) -> None:
    where = {"max_new_tokens": 24, "block_length": 12, "ignore_eos": True, "steps": 12}
    orders = []
    for name, given_ in (("pc-sampler", options), (base, {})):
        model = TableModel(random_table(7, 64, VOCAB), mask_id=MASK, moving=True)
        orders.append([s.positions for s in Engine(model).stream([1, 2], SamplingParams(sampler=name, **given_, **where))])
    assert orders[0] == orders[1]


def test_no_place_of_a_long_block_is_lost() -> None:
    """In float32 exp(-place) is 0 from place 104 on, and every later position ties."""
    p = torch.linspace(0.1, 0.9, 512)[None].float()
    window = window_of(p, torch.zeros_like(p).long(), torch.ones_like(p).bool(), VOCAB, [512])
    assert (PcSampler(decay=1.0).score(window) > 0).all()


def test_common_tokens_wait() -> None:
    """Equally sure of both, the sampler writes the rare token first."""
    table = Frequencies(torch.tensor([1000, 10, 0, 0, 0, 0, 0, 0]))
    p = torch.full((1, 2), 0.9)
    window = window_of(p, torch.tensor([[0, 1]]), torch.ones(1, 2).bool(), VOCAB, [2])
    assert PcSampler(decay=0.0).select(window, {}).commit.tolist() == [[True, False]]
    assert PcSampler(table, decay=0.0).select(window, {}).commit.tolist() == [[False, True]]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"decay": -1}, "decay"),
        ({"decay": 2, "mode": "linear"}, "decay"),
        ({"alpha": 0}, "alpha"),
        ({"mode": "exp"}, "mode"),
        ({"k": 0}, "k"),
        ({"frequencies": "table.json"}, "frequencies"),
        ({"frequencies": (1, 2)}, "frequencies"),
    ],
)
def test_wrong_options(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        SamplingParams(sampler="pc-sampler", **options)
    assert caught.value.field == field


# --- tables -----------------------------------------------------------------------------------------------------------


def test_a_table_is_its_counts(tmp_path: Path) -> None:
    table = Frequencies.count([3, 1, 3, 3], 5)
    assert table.counts.tolist() == [0, 1, 0, 3, 0]
    assert table.shares(torch.device("cpu")).tolist() == [0.25, 0.25, 0.25, 0.75, 0.25]
    table.write(tmp_path / "table.json")
    again = Frequencies.read(tmp_path / "table.json")
    assert again.counts.tolist() == table.counts.tolist()
    assert {again, table} == {table}
    assert Frequencies.count([3, 1, 3, 1], 5) != table != Frequencies.count([3, 1, 3, 3], 6)


def test_a_table_groups_rows_and_is_named_in_a_trace() -> None:
    """The counts stay out of what a trace says of a row; their digest tells tables apart."""
    params = SamplingParams(sampler="pc-sampler", frequencies=Frequencies.count(range(5), 5))
    same = SamplingParams(sampler="pc-sampler", frequencies=Frequencies.count(range(5), 5))
    assert params.sampler == same.sampler
    assert hash(params.sampler) == hash(same.sampler)
    shown = json.loads(json.dumps(params.to_dict()))["options"]["frequencies"]
    assert set(shown) == {"vocab_size", "total", "digest"}
    assert dataclasses.replace(params.sampler, k=2).frequencies is params.sampler.frequencies  # type: ignore[attr-defined]


@pytest.mark.parametrize(("ids", "size", "field"), [([], 5, "ids"), ([5], 5, "ids"), ([-1, 2], 5, "ids"), ([0], 0, "vocab_size")])
def test_what_cannot_be_counted(ids: list[int], size: int, field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        Frequencies.count(ids, size)
    assert caught.value.field == field


HEAD = {"format": "attn-sampler-frequencies", "version": 1}


@pytest.mark.parametrize(
    ("content", "remedy"),
    [
        (None, "cannot be read"),
        ("nonsense", "not JSON"),
        ("[1]", "no table"),
        ('{"a": 1}', "no table"),
        (json.dumps(HEAD | {"version": 2}), "version 2"),
        (json.dumps(HEAD), "damaged"),
        (json.dumps(HEAD | {"vocab_size": 4, "counts": {"9": 1}}), "damaged"),
        (json.dumps(HEAD | {"vocab_size": 4, "counts": {"1": -1}}), "damaged"),
        (json.dumps(HEAD | {"vocab_size": 4, "counts": {}}), "damaged"),
        (json.dumps(HEAD | {"vocab_size": 4, "counts": {"x": 1}}), "damaged"),
        (json.dumps(HEAD | {"vocab_size": 4, "counts": {"1": "x"}}), "damaged"),
        (json.dumps(HEAD | {"vocab_size": 4, "counts": [1]}), "damaged"),
        (json.dumps(HEAD | {"vocab_size": -4, "counts": {"1": 1}}), "damaged"),
        (json.dumps(HEAD | {"vocab_size": 1e30, "counts": {"1": 1}}), "damaged"),
    ],
)
def test_a_wrong_file(content: str | None, remedy: str, tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InvalidInputError) as caught:
        samplers.parse_option("pc-sampler", "frequencies", str(path))
    assert caught.value.field == "frequencies"
    assert remedy in caught.value.remedy
    assert "attn-sampler frequencies" in caught.value.remedy


def test_a_table_of_another_vocabulary() -> None:
    params = SamplingParams(sampler="pc-sampler", frequencies=Frequencies.count([1], 9), max_new_tokens=4)
    with pytest.raises(InvalidInputError, match="for a vocabulary of 9, this model has 8"):
        Engine(TableModel(random_table(0, 8, VOCAB), mask_id=MASK)).generate([[1]], params)


# --- the command ------------------------------------------------------------------------------------------------------


def test_count_and_use_a_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    corpus, table = tmp_path / "corpus.txt", tmp_path / "table.json"
    corpus.write_text("Tom has 3 apples.\n\nHe buys 4 more.\n", encoding="utf-8")
    assert run(monkeypatch, "frequencies", str(corpus), "--output", str(table)) == 0
    assert f"wrote {table}" in capsys.readouterr().err
    found = samplers.parse_option("pc-sampler", "frequencies", str(table))
    assert isinstance(found, Frequencies)
    words = ("--sampler", "pc-sampler", "-o", f"frequencies={table}", "--max-new-tokens", "8", "--json")
    assert run(monkeypatch, "generate", PROMPT, *words) == 0
    assert json.loads(capsys.readouterr().out)["completion_tokens"]


def test_pieces_of_a_corpus_add_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(f"Tom has {n} apples." for n in range(50)), encoding="utf-8")
    whole = frequencies.count([corpus], None, None)
    monkeypatch.setattr(frequencies, "PIECE", 40)
    assert frequencies.count([corpus], None, None) == whole


def test_files_and_folders_are_counted_together_and_each_file_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder, table = tmp_path / "corpus", tmp_path / "table.json"
    (folder / "below").mkdir(parents=True)
    texts = ["Tom has 3 apples.", "He buys 4 more.", "Ann eats 2 plums.", "How many are left?"]
    (folder / "b.txt").write_text(texts[0], encoding="utf-8")
    (folder / "below" / "a.jsonl").write_text(json.dumps({"text": texts[1], "id": 1}) + "\n\n", encoding="utf-8")
    (folder / "picture.bin").write_bytes(b"\xff")
    (tmp_path / "one.md").write_text(texts[2], encoding="utf-8")
    (tmp_path / "asked.jsonl").write_text(json.dumps({"text": texts[3]}) + "\n", encoding="utf-8")
    given = [folder, tmp_path / "one.md", tmp_path / "asked.jsonl", folder / "b.txt"]
    assert run(monkeypatch, "frequencies", *map(str, given), "--output", str(table)) == 0
    assert "tokens of 4 files" in capsys.readouterr().err
    tokenizer, size = load_tokenizer(EMBEDDED)
    assert tokenizer is not None
    ids = [i for text in texts for i in tokenizer.encode(text, add_special_tokens=False)]
    assert Frequencies.read(table) == Frequencies.count(ids, size)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is not JSON"),
        ("[1]", "line 2 has no text in the field 'text'; name another with --field (none)"),
        ('{"prompt": "a", "n": 1}', "line 2 has no text in the field 'text'; name another with --field (prompt)"),
        (None, "holds no .txt or .jsonl file"),
    ],
)
def test_a_folder_that_cannot_be_counted(
    line: str | None, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    name = "corpus.md" if line is None else "corpus.jsonl"
    (folder / name).write_text('{"text": "a"}\n' + f"{line}\n", encoding="utf-8")
    assert run(monkeypatch, "frequencies", str(folder), "--output", str(tmp_path / "table.json")) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "corpus" in said


def test_another_field_of_json_lines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    corpus, table = tmp_path / "corpus.jsonl", tmp_path / "table.json"
    corpus.write_text(json.dumps({"text": "Tom", "answer": "He buys 4 more."}) + "\n", encoding="utf-8")
    assert run(monkeypatch, "frequencies", str(corpus), "--field", "answer", "--output", str(table)) == 0
    plain = tmp_path / "plain.txt"
    plain.write_text("He buys 4 more.", encoding="utf-8")
    assert Frequencies.read(table) == frequencies.count([plain], None, None)


@pytest.mark.parametrize(
    ("content", "message"), [(None, "cannot be read"), (b"", "holds no token"), (b"\xff\xfe\x00", "not UTF-8")]
)
def test_a_corpus_that_cannot_be_counted(
    content: bytes | None,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    corpus = tmp_path / "corpus.txt"
    if content is not None:
        corpus.write_bytes(content)
    assert run(monkeypatch, "frequencies", str(corpus), "--output", str(tmp_path / "table.json")) == 2
    assert message in capsys.readouterr().err


def test_a_checkpoint_without_a_tokenizer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model = str(Path(__file__).parent / "golden" / "models" / "llada_gqa")
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("a")
    assert run(monkeypatch, "frequencies", str(corpus), "--output", str(tmp_path / "t.json"), "--model", model) == 2
    assert "no tokenizer" in capsys.readouterr().err

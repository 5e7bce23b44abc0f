"""Likelihoods under orders against one forward pass per order and step; runs that go on; what the laboratory makes of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import attn_sampler as ats
from attn_sampler import orders
from attn_sampler.cli import main
from attn_sampler.errors import InvalidInputError, ModelOutputError
from attn_sampler.evals import likelihood, order
from attn_sampler.evals.order import Item, Settings
from attn_sampler.evals.statistics import bootstrap, spearman
from fakes import TableModel, Tokenizer, one_hot, random_table

VOCAB, MASK = 12, 11
SMALL = Settings(max_new_tokens=8, random_orders=4, best_up_to=5)


def fake(seed: int = 0, **given: Any) -> TableModel:
    """Every write changes all that is predicted and all attention."""
    attention = random_table(seed + 1, 29, 29, 1.0)
    return TableModel(random_table(seed, 31, VOCAB, 1.0), mask_id=MASK, moving=True, attention=attention, **given)


def items(*lengths: int) -> list[Item]:
    return [Item("made", f"prompt {n}", (1, 2, n % 9), tuple((3 * i + n) % 10 for i in range(n))) for n in lengths]


def slow(engine: ats.Engine, target: likelihood.Target, one: list[int]) -> list[float]:
    """Log-probability per position: one row, one whole-canvas forward pass per step."""
    ids = target.canvas.clone()
    out = [0.0] * len(one)
    for j in one:
        logits = engine.logits(ids[None]).clone()[0, target.positions[j]].float()
        logits[engine.model.mask_id] = -torch.inf
        out[j] = float(logits.log_softmax(-1)[target.tokens[j]])
        ids[target.positions[j]] = target.tokens[j]
    return out


def placed(engine: ats.Engine, n: int = 5, masks: int = 8) -> likelihood.Target:
    special = {engine.model.mask_id}
    ids = [i for i in range(5, 60) if i not in special]
    return likelihood.place_target(engine.model, ids[:4], ids[10 : 10 + n], masks)


LAYOUTS = ["llada", "dream", "fast-dllm-v2", "sdar", "bert"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_likelihoods_equal_one_forward_pass_per_order_and_step(layout: str, tiny: Callable[[str], Path]) -> None:
    engine = ats.load(tiny(layout), device="cpu")
    target = placed(engine)
    some = torch.tensor([[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 0, 4, 1, 3]])
    found = likelihood.log_likelihood(engine.model, target, some, max_rows=2)
    for row, one in zip(found, some.tolist(), strict=True):
        assert row.tolist() == pytest.approx(slow(engine, target, one), abs=2e-4)
    full = likelihood.ideal(engine.model, target, max_rows=2)
    for j in range(5):
        last = [*(i for i in range(5) if i != j), j]
        assert float(full[j]) == pytest.approx(slow(engine, target, last)[j], abs=2e-4)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rules_are_asked_from_the_pass_that_gives_the_likelihood(layout: str, tiny: Callable[[str], Path]) -> None:
    engine = ats.load(tiny(layout), device="cpu")
    target = placed(engine)
    taken, found = likelihood.follow(engine.model, target, list(likelihood.RULES.values()))
    again = likelihood.log_likelihood(engine.model, target, taken)
    assert torch.allclose(found, again, atol=2e-4)
    assert all(sorted(one) == list(range(5)) for one in taken.tolist())


def test_rules_by_their_definitions() -> None:
    model = fake()
    (thing,) = items(5)
    target = likelihood.place_target(model, thing.prompt_ids, thing.target_ids, 8)
    taken, _ = likelihood.follow(model, target, list(likelihood.RULES.values()))
    for name, one in zip(likelihood.RULES, taken.tolist(), strict=True):
        ids, left = target.canvas.clone(), list(range(5))
        for j in one:
            p = model.logits(ids[None], None)[0, target.positions].index_fill(-1, torch.tensor([MASK]), -torch.inf).softmax(-1)
            now = likelihood.attention_matrix(model, likelihood.Target(ids, target.positions, target.tokens))
            top = p.topk(2).values
            score = {
                "confidence": top[:, 0],
                "margin": top[:, 0] - top[:, 1],
                "entropy": p.xlogy(p).sum(-1),
                "attention, re-computed": now.sum(0),
                "net, re-computed": now[left].sum(0) - now[:, left].sum(1),
            }[name]
            assert j == max(left, key=lambda i: float(score[i])), name
            left.remove(j)
            ids[target.positions[j]] = target.tokens[j]


def test_confidence_takes_the_samplers_order_through_its_own_answer(llada_gqa: ats.Engine) -> None:
    prompt = [5, 6, 7, 8]
    row = llada_gqa.prepare(prompt, ats.SamplingParams(sampler="confidence", max_new_tokens=6, ignore_eos=True))
    steps: list[ats.Step] = []
    (result,) = llada_gqa.run([row], on_step=steps.append)
    target = likelihood.place_target(llada_gqa.model, prompt, result.token_ids, 6)
    taken, found = likelihood.follow(llada_gqa.model, target, [likelihood.RULES["confidence"]])
    assert taken[0].tolist() == [p - len(prompt) for step in steps for p in step.positions]
    assert found[0, taken[0]].exp().tolist() == pytest.approx([c for step in steps for c in step.confidences], abs=1e-5)


def test_the_table_of_subsets_holds_every_order() -> None:
    model = fake()
    (thing,) = items(5)
    target = likelihood.place_target(model, thing.prompt_ids, thing.target_ids, 8)
    table = likelihood.subset_log_likelihood(model, target, max_rows=7)
    each = torch.tensor(list(permutations(range(5))))
    direct = likelihood.log_likelihood(model, target, each, max_rows=50).sum(1)
    for one, value in zip(each.tolist(), direct, strict=True):
        before = [sum(1 << i for i in one[:place]) for place in range(5)]
        assert float(table[before, one].sum()) == pytest.approx(float(value), abs=1e-5)
    best, cost = orders.path_over_subsets(-table)
    assert -float(cost) == pytest.approx(float(direct.max()), abs=1e-5)
    assert best.tolist() == each[direct.argmax()].tolist()


@pytest.mark.parametrize("norm", ["global", "local"])
def test_the_attention_matrix_is_the_windows(norm: likelihood.Norm) -> None:
    model = fake()
    target = likelihood.place_target(model, [1, 2, 3], [4, 5, 6], 5)
    found = likelihood.attention_matrix(model, target, norm)
    assert model.attention is not None
    turn = int(model._turn(target.canvas[None], None))
    place = (torch.arange(8) + turn) % len(model.attention)
    logits = model.attention[place][:, place]
    seen = slice(3, 6) if norm == "local" else slice(0, 8)
    assert torch.allclose(
        found, logits[3:6, seen].softmax(-1)[:, : 3 if norm == "local" else 8][:, -3 if norm == "local" else 3 :][:, :3]
    )


def test_a_shifted_models_rows_are_those_that_predict(tiny: Callable[[str], Path]) -> None:
    """Row i of the matrix is the query of the left neighbour, whose hidden state the logits of position i come from."""
    engine = ats.load(tiny("dream"), device="cpu")
    target = placed(engine)
    found = likelihood.attention_matrix(engine.model, target)
    whole = _unshifted(engine.model, target.canvas, torch.cat([target.positions[:1] - 1, target.positions]))
    assert torch.allclose(found, whole[:-1, 1:], atol=1e-6)


def _unshifted(model: Any, canvas: Tensor, positions: Tensor) -> Tensor:
    from attn_sampler.attention import AttentionAsk
    from attn_sampler.models.seam import Ask
    from attn_sampler.seam import Attention

    rows, real = torch.zeros(1, dtype=torch.long), torch.ones((1, len(positions)), dtype=torch.bool)
    statistics = Attention(norm="global", pairwise=True)
    where = positions[None]
    (prediction,) = model.predict(
        canvas[None], None, [Ask(rows, where, AttentionAsk(statistics, rows, where, real, where, real))]
    )
    return prediction.pairwise[0]


# --- wrong input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "target", "masks", "says"),
    [
        ([1], [2], 8, r"target=\[2\]: an order needs at least two tokens"),
        ([1], [2] * 9, 8, r"max_new_tokens=8: the target has 9 tokens"),
        ([], [2, 3], 8, r"prompt=\[\]: give at least one token"),
        ([1], [2, MASK], 8, r"target=11: this is the mask token"),
        ([1, MASK], [2, 3], 8, r"prompt=11: this is the mask token"),
        ([1], [2, 99], 8, r"target=99: give token ids from 0 to 11"),
        ([1] * 30, [2, 3], 8, r"prompt='30 tokens': with 8 masks that is longer than the context of 32"),
    ],
)
def test_what_cannot_be_placed_is_refused(prompt: list[int], target: list[int], masks: int, says: str) -> None:
    with pytest.raises(InvalidInputError, match=says):
        likelihood.place_target(fake(context_length=32), prompt, target, masks)


def test_models_that_cannot_are_refused(tiny: Callable[[str], Path]) -> None:
    blind = TableModel(random_table(0, 31, VOCAB), mask_id=MASK)
    target = likelihood.place_target(blind, [1], [2, 3], 4)
    with pytest.raises(InvalidInputError, match="it has no attention statistics"):
        likelihood.attention_matrix(blind, target)
    taken, _ = likelihood.follow(blind, target, [likelihood.RULES["confidence"]])  # which needs none
    assert sorted(taken[0].tolist()) == [0, 1]
    broken = TableModel(torch.full((9, VOCAB), torch.nan), mask_id=MASK)
    with pytest.raises(ModelOutputError, match="NaN"):
        likelihood.ideal(broken, target)


def test_local_attention_across_blocks_is_refused(tiny: Callable[[str], Path]) -> None:
    engine = ats.load(tiny("sdar"), device="cpu")
    length = engine.model.block_length
    assert length is not None
    target = placed(engine, length + 1, 2 * length)
    assert len(target.canvas) % length == 0
    with pytest.raises(InvalidInputError, match=r"norm='local': the target spans several blocks of \d+ positions"):
        likelihood.attention_matrix(engine.model, target, "local")
    assert float(likelihood.attention_matrix(engine.model, target)[0, -1]) == 0.0  # the first block does not see the second


@pytest.mark.parametrize(
    ("field", "value"), [("random_orders", 1), ("best_up_to", 17), ("norm", "row"), ("max_new_tokens", 1), ("seed", -1)]
)
def test_settings_are_checked(field: str, value: Any) -> None:
    with pytest.raises(InvalidInputError, match=f"{field}="):
        Settings(**{field: value})


# --- one prompt -------------------------------------------------------------------------------------------------------


def test_a_record_agrees_with_itself() -> None:
    model = fake()
    (thing,) = items(5)
    record = order.examine(model, thing, SMALL)
    target = likelihood.place_target(model, thing.prompt_ids, thing.target_ids, 8)
    matrix = likelihood.attention_matrix(model, target)
    assert list(record["orders"])[:7] == [
        "exact", "attention", "attention, no diagonal", "attention, masked rows", "net", "net, masked rows", "left-to-right",
    ]  # fmt: skip
    for one in record["orders"].values():
        assert one["log_likelihood"] == pytest.approx(sum(slow(ats.Engine(model), target, one["order"])), abs=1e-4)
        assert one["surrogate"] == pytest.approx(float(orders.surrogate(matrix, torch.tensor([one["order"]]))))
        assert one["surrogate"] >= record["surrogate_bound"] - 1e-9
        assert one["log_likelihood"] <= record["best"] + 1e-5
    assert record["best_is_exact"]
    assert record["orders"]["best"]["log_likelihood"] == pytest.approx(record["best"], abs=1e-5)
    json.dumps(record)


def test_beyond_twenty_positions_the_order_is_searched_and_bounded() -> None:
    (thing,) = items(22)
    record = order.examine(fake(), thing, Settings(max_new_tokens=24, random_orders=3))
    assert next(iter(record["orders"])) == "local search"
    best = record["orders"]["local search"]["surrogate"]
    assert 0 < record["surrogate_bound"] <= best
    assert best <= min(one["surrogate"] for one in record["orders"].values()) + 1e-9
    assert not record["best_is_exact"]


def test_random_orders_are_the_prompts_own() -> None:
    drawn = [order._random_orders(SMALL, number, 6, torch.device("cpu")) for number in (0, 1, 0)]
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[1])
    assert drawn[0].sort(1).values.tolist() == [list(range(6))] * 4


# --- a run ------------------------------------------------------------------------------------------------------------


def engine_of(seed: int = 0) -> ats.Engine:
    return ats.Engine(fake(seed), Tokenizer("abcdefghij"))


def test_a_run_cut_off_anywhere_goes_on_and_counts_nothing_twice(tmp_path: Path) -> None:
    things, whole = items(4, 5, 4), tmp_path / "whole.jsonl"
    records = list(order.measure(engine_of(), things, SMALL, whole))
    text = whole.read_bytes()
    for cut in (0, 1, len(text) // 3, text.index(b"\n") + 1, text.rindex(b"\n", 0, -1) + 1, len(text) - 1, len(text)):
        part = tmp_path / "part.jsonl"
        part.write_bytes(text[:cut])
        engine = engine_of()
        assert list(order.measure(engine, things, SMALL, part)) == records
        assert part.read_bytes() == text
        if cut == len(text):
            assert engine.model.forwards == 2  # type: ignore[attr-defined]  # whether it is the same model


def test_a_run_stopped_between_prompts_goes_on(tmp_path: Path) -> None:
    things, out = items(4, 5, 4), tmp_path / "new" / "run.jsonl"
    run = order.measure(engine_of(), things, SMALL, out)
    first = next(run)
    run.close()
    assert next(order.measure(engine_of(), things, SMALL, out)) == first
    assert len(list(order.measure(engine_of(), things, SMALL, out))) == 3


def test_a_file_of_another_run_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "run.jsonl"
    list(order.measure(engine_of(), items(4), SMALL, out))
    with pytest.raises(InvalidInputError, match="of other settings or prompts"):
        list(order.measure(engine_of(), items(4), Settings(max_new_tokens=8, random_orders=5), out))
    with pytest.raises(InvalidInputError, match="of other settings or prompts"):
        list(order.measure(engine_of(), items(5), SMALL, out))
    with pytest.raises(InvalidInputError, match="another model, or of other weights"):
        list(order.measure(engine_of(7), items(4), SMALL, out))
    looks_elsewhere = fake()
    assert looks_elsewhere.attention is not None
    looks_elsewhere.attention *= 1.1
    with pytest.raises(InvalidInputError, match="another model, or of other weights"):
        list(order.measure(ats.Engine(looks_elsewhere), items(4), SMALL, out))
    out.write_text("no records\n")
    with pytest.raises(InvalidInputError, match="cannot be gone on with"):
        list(order.measure(engine_of(), items(4), SMALL, out))
    assert out.read_text() == "no records\n"


def test_own_answers_are_targets_without_their_end() -> None:
    table = one_hot([0, 1, 2, 5, 6, 7, 7, 7, 7], VOCAB, 20.0)
    engine = ats.Engine(TableModel(table, mask_id=MASK, eos_ids=(7,)), Tokenizer("abcdefghijkl"))
    (thing,) = order.answered(engine, ["abc"], ats.SamplingParams(sampler="confidence", max_new_tokens=6))
    assert thing.prompt_ids == (0, 1, 2)
    assert thing.target_ids == (5, 6)


def test_problems_are_held_out_and_the_same_for_a_seed() -> None:
    from attn_sampler.evals.tasks import is_held_out

    class Both(Tokenizer):
        def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
            return [3] * len(text)

    engine = ats.Engine(fake(), Both(""))
    found = order.task_items(engine, ["sudoku4", "word"], 4, 1)
    assert [thing.task for thing in found] == ["sudoku4"] * 4 + ["word"] * 4
    assert all(is_held_out(thing.prompt) for thing in found)
    assert found == order.task_items(engine, ["sudoku4", "word"], 4, 1)
    with pytest.raises(InvalidInputError, match="task='chess'"):
        order.task_items(engine, ["chess"], 4, 1)


# --- statistics -------------------------------------------------------------------------------------------------------


def test_the_bootstrap_covers_the_mean_as_often_as_it_says() -> None:
    data = torch.randn(40, 300, generator=torch.Generator().manual_seed(0), dtype=torch.float64)  # 300 studies of 40 prompts
    low, high = bootstrap(data)
    inside = ((low <= 0) & (high >= 0)).double().mean()
    assert 0.90 <= float(inside) <= 0.98
    same = [bootstrap(data, seed=1)[0] for _ in range(2)]
    assert torch.equal(*same)


def test_spearman() -> None:
    x = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert spearman(x, x.exp()) == 1.0
    assert spearman(x, -x) == -1.0
    assert spearman(torch.tensor([1.0, 2.0, 2.0, 3.0]), torch.tensor([1.0, 3.0, 2.0, 4.0])) == pytest.approx(0.9487, abs=1e-4)
    assert spearman(torch.ones(3), torch.arange(3.0)) != spearman(torch.ones(3), torch.arange(3.0))  # NaN


# --- the command ------------------------------------------------------------------------------------------------------

PROMPT = "Tom has 3 apples. He buys 4 more. How many apples does Tom have?"


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["attn-sampler", "order", *words])
    try:
        main()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0
    return 0


def test_the_command_on_one_prompt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    plot = tmp_path / "new" / "orders.svg"
    words = (PROMPT, "--target", "3 + 4 = 7", "--random", "4", "--best-up-to", "0", "--plot", str(plot))
    assert run(monkeypatch, *words, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["conditions"]["targets"] == "given"
    (group,) = found["groups"]
    assert group["tokens"] == 5
    assert {"exact", "attention", "net", "confidence", "margin", "entropy", "left-to-right", "random"} <= set(group["orders"])
    assert {"surrogate", "log_likelihood", "gap", "regret"} < set(group["orders"]["net"])
    first = plot.read_bytes()
    assert run(monkeypatch, *words) == 0
    assert plot.read_bytes() == first
    out, err = capsys.readouterr()
    assert "prompt, 5 tokens, 1 prompt, best: of the orders tried" in out
    assert "rank correlation" in out
    assert "random_orders 4" in err


def test_the_command_on_a_file(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file, out = tmp_path / "prompts.jsonl", tmp_path / "records.jsonl"
    file.write_text(json.dumps({"prompt": PROMPT, "target": "3 + 4 = 7"}) + "\n" + json.dumps({"prompt": PROMPT}) + "\n")
    words = ("--file", str(file), "--random", "2", "--best-up-to", "0", "--out", str(out), "--json")
    assert run(monkeypatch, *words) == 0
    found = json.loads(capsys.readouterr().out)
    assert sum(group["prompts"] for group in found["groups"]) == 2
    assert found["conditions"]["targets"] == "own answers (confidence) where none is given"
    kept = out.read_bytes()
    assert run(monkeypatch, *words) == 0
    assert json.loads(capsys.readouterr().out) == found
    assert out.read_bytes() == kept


def test_a_file_of_many_lengths_gives_one_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "many.jsonl"
    targets = ("3 + 4", "3 + 4 = 7", "3 + 4 = 7 + 4")
    file.write_text("".join(json.dumps({"prompt": PROMPT, "target": target}) + "\n" for target in targets))
    assert run(monkeypatch, "--file", str(file), "--random", "2", "--best-up-to", "0") == 0
    out = capsys.readouterr().out
    assert out.count("random orders") == 1
    assert "prompt, all lengths (3 to 7 tokens), 3 prompts" in out
    assert " – " in next(line for line in out.splitlines() if line.startswith("confidence"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--target", "7"), "give the prompt that it answers"),
        ((PROMPT, "--file", "x"), "give a prompt or --file, not both"),
        (("--file", "no-such-file"), "cannot be read"),
        ((PROMPT, "--target", "3 + 4 = 7", "--own"), "leave out either"),
        (("--norm", "row"), "norm='row': known: global, local"),
        ((PROMPT, "--target", "3 + 4 = 7", "--plot", "orders.txt", "--random", "2", "--best-up-to", "0"), "ends in one of"),
        (("--task", "chess"), "task='chess'"),
    ],
)
def test_wrong_words_say_what_to_do(
    words: tuple[str, ...], says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *words) == 2
    assert says in capsys.readouterr().err


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from attn_sampler import plots
    from attn_sampler.errors import MissingDependencyError

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match=r"attn-sampler\[plots\]"):
        plots.order_laboratory([])

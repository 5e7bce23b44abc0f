"""What makes attention-guided order good, or bad: one token per forward pass, orders compared on the same held-out problems.

    python recipes/attention_orders.py --out runs/attention_orders
    python recipes/attention_orders.py --out runs/attention_orders --confirm "NAME" --confirm "NAME"

The first command looks for promising orders on calibration problems (`--only` narrows it to some), the second puts those named on
other problems. Both compare with the confidence order, with random order, and with random order in windows of 8, the control for
what the window does by itself. Both go on where they were stopped; docs/log.md has what they found. Several tokens per pass:
attention_parallel.py; what attention knows at all: attention_signals.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor

import attn_sampler as ats
from attn_sampler import rules, scores
from attn_sampler.attention import AttentionAsk
from attn_sampler.cache import Stretch
from attn_sampler.engine import Engine
from attn_sampler.evals.metrics import Comparison, compare, summarise
from attn_sampler.evals.pages import Table, Text, markdown
from attn_sampler.evals.questions import Questions, embedded
from attn_sampler.evals.report import table
from attn_sampler.evals.study import Sample, Setting, Study
from attn_sampler.evals.tasks import sudoku_problems, word_problems
from attn_sampler.models.seam import Ask, Model, Prediction
from attn_sampler.seam import Attention, Memory, Needs, Selection, Window

CALIBRATION, CONFIRMATION = 101, 202  # seeds of the problems


@dataclass(frozen=True)
class Mixed:
    """One token per forward pass: attention column sums mixed with the log of the confidence.

    score = ``confidence`` · log p + ``weight`` · f(column sum) + ``chance`` · u, with f the z-score over the candidates of the
    window or the logarithm (then weights of 1 and 1 are the product, confidence × column), u a random number: the control for
    what the window does without any order inside it.

    Options beside those of attention-sequential:
        weight: of the attention; negative turns the order around.
        confidence: weight of the log-probability.
        chance: weight of the random number.
        form: f, ``"z"`` or ``"product"``.
        sinks: what is done with each column's mean over all query rows of the canvas: ``"removed"`` takes it from the column
            (times the rows summed), ``"divided"`` divides by it, ``"dropped"`` puts columns last whose mean is over twice the
            window's.
    """

    name: ClassVar[str] = "mixed"
    paper: ClassVar[str] = "none: an experiment"

    weight: float = 1.0
    confidence: float = 0.0
    chance: float = 0.0
    form: Literal["z", "product"] = "z"
    sinks: Literal["kept", "removed", "divided", "dropped"] = "kept"
    rows: Literal["all", "masked", "block"] = "all"
    norm: Literal["local", "global"] = "local"
    diag: bool = True
    sub_block_length: int | None = 8
    layers: tuple[int, ...] | None = None
    heads: tuple[int, ...] | None = None

    @property
    def needs(self) -> Needs:
        if self.weight == 0:
            return Needs(sub_block_length=self.sub_block_length)
        wanted = Attention(self.rows, self.norm, self.diag, self.layers, self.heads, sinks=self.sinks != "kept")
        return Needs(sub_block_length=self.sub_block_length, attention=wanted)

    def select(self, window: Window, memory: Memory) -> Selection:
        p = window.proposal.confidence
        score = self.confidence * p.clamp(min=1e-30).log()
        if self.chance != 0:
            score = score + self.chance * scores.random(window)
        if self.weight != 0:
            column = self.column(window)
            f = standardised(column, window) if self.form == "z" else column.clamp(min=1e-9).log()
            score = score + self.weight * f
        return Selection(rules.top_k(score, window.candidates, window.quota, tie=p), score)

    def column(self, window: Window) -> Float[Tensor, "rows width"]:
        """Column sums as the options want them."""
        assert window.columns is not None, "the sampler's needs ask for them"
        if window.sinks is None:
            return window.columns
        if self.sinks == "removed":
            return window.columns - window.sinks * window.candidates.sum(1, keepdim=True)
        if self.sinks == "divided":
            return window.columns / window.sinks.clamp(min=1e-9)
        there = window.candidates.to(window.sinks.dtype)
        mean = (window.sinks * there).sum(1, keepdim=True) / there.sum(1, keepdim=True).clamp(min=1)
        return window.columns.masked_fill(window.sinks > 2 * mean, 0.0)


@dataclass(frozen=True)
class Weighted:
    """A model whose column sums are a weighted sum over its layers in place of their mean.

    The seam knows equal weights only: every question is asked once per layer, in the same forward pass.
    """

    model: Model
    weights: tuple[float, ...]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def predict(self, ids: Tensor, valid: Tensor | None, asks: Sequence[Ask], stretch: Stretch | None = None) -> list[Prediction]:
        split = [replace(ask, attention=one_layer(ask, layer)) for ask in asks for layer in range(len(self.weights))]
        found = self.model.predict(ids, valid, split, stretch)
        out = []
        for i in range(len(asks)):
            parts = found[i * len(self.weights) :][: len(self.weights)]
            columns = [w * part.columns for w, part in zip(self.weights, parts, strict=True) if part.columns is not None]
            out.append(replace(parts[0], columns=torch.stack(columns).sum(0) if columns else None))
        return out


def one_layer(ask: Ask, layer: int) -> AttentionAsk | None:
    """What is asked of attention, of this layer alone."""
    if ask.attention is None:
        return None
    return replace(ask.attention, statistics=replace(ask.attention.statistics, layers=(layer,)))


def standardised(x: Float[Tensor, "rows width"], window: Window) -> Float[Tensor, "rows width"]:
    """Zero mean and unit variance over each row's candidates."""
    there = window.candidates.to(x.dtype)
    n = there.sum(1, keepdim=True).clamp(min=1)
    centred = (x - (x * there).sum(1, keepdim=True) / n) * there
    return centred / ((centred**2).sum(1, keepdim=True) / n).sqrt().clamp(min=1e-9)


def variants(model_layers: int, model_heads: int) -> list[Setting]:
    """Everything that is looked at; the first is what the others are compared with."""
    a = "attention-sequential"
    whole = {"sub_block_length": None}
    out = [
        Setting("confidence", "confidence"),
        Setting("random", "random"),
        Setting("random in windows of 8", Mixed(weight=0.0, chance=1.0)),
        Setting("confidence in windows of 8", Mixed(weight=0.0, confidence=1.0)),
        Setting("margin", "margin"),
        Setting("entropy", "entropy"),
        Setting("left-to-right", "left-to-right"),
        Setting("attention (the paper's)", a),
        Setting("attention, ascending", Mixed(weight=-1.0)),
        Setting("attention, rows=masked", a, {"rows": "masked"}),
        Setting("attention, rows=block", a, {"rows": "block", "norm": "global"}),
        Setting("attention, diag=False", a, {"diag": False}),
        Setting("attention, norm=global", a, {"norm": "global"}),
        Setting("attention, refresh=subblock", a, {"refresh": "subblock"}),
        Setting("attention, whole block", a, whole),
        Setting("attention, whole block, global", a, {**whole, "norm": "global"}),
        Setting("attention, whole block, global, ascending", Mixed(weight=-1.0, sub_block_length=None, norm="global")),
        Setting("attention, whole block, rows=masked", a, {**whole, "rows": "masked"}),
        Setting("attention, whole block, no sinks", Mixed(sinks="removed", norm="global", sub_block_length=None)),
        Setting("attention, whole block, divided by sinks", Mixed(sinks="divided", norm="global", sub_block_length=None)),
        Setting("attention, whole block, sinks last", Mixed(sinks="dropped", norm="global", sub_block_length=None)),
        Setting("net", "attention-net-sequential"),
        Setting("net, whole block", "attention-net-sequential", whole),
        Setting("exact", "attention-exact-sequential"),
    ]
    for layer in range(model_layers):
        out.append(Setting(f"layer {layer}, whole block", a, {**whole, "layers": (layer,)}))
        out.append(Setting(f"layer {layer}, whole block, ascending", Mixed(weight=-1.0, sub_block_length=None, layers=(layer,))))
    for weight in (-1.0, -0.3, -0.1, -0.03, 0.03, 0.1, 0.3, 1.0):
        mixed = Mixed(weight=weight, confidence=1.0, sub_block_length=None)
        out.append(Setting(f"log p {weight:+g} z(column), whole block", mixed))
    for label, width in (("whole block", None), ("windows of 8", 8)):
        for power in (-0.3, 0.1, 0.3, 1.0):
            product = Mixed(weight=power, confidence=1.0, form="product", sub_block_length=width)
            out.append(Setting(f"confidence × column^{power:g}, {label}", product))
    return out


def weighted(weights: tuple[float, ...]) -> list[Setting]:
    """What is looked at on the model whose column sums are weighted over its layers."""
    named = ", ".join(f"{w:+.2f}" for w in weights)
    whole = Mixed(norm="global", sub_block_length=None)
    mixed = replace(whole, confidence=1.0, weight=0.03)
    return [Setting(f"layers weighted ({named})", whole), Setting(f"log p +0.03 z(layers weighted {named})", mixed)]


def against(samples: Sequence[Sample]) -> str:
    """Markdown: every setting against confidence, random order, and random order in windows of 8, problem by problem."""
    bases = ("confidence", "random", "random in windows of 8")
    found = [c for c in compare(samples) if c.against in bases]
    out: list[Text | Table] = []
    for task in dict.fromkeys(c.task for c in found):
        lines: dict[str, dict[str, Comparison]] = {}
        for c in found:
            if c.task == task:
                lines.setdefault(c.setting, {})[c.against] = c
        header = ["setting", *(cell for base in bases for cell in (f"against {base}", "interval", "p", "Holm"))]
        rows = [[setting, *(cell for base in bases for cell in _cells(line.get(base)))] for setting, line in lines.items()]
        out += [Text(f"**{task}**, pairs"), Table(header, rows)]
    return markdown(out)


def _cells(c: Comparison | None) -> list[str]:
    if c is None:
        return [""] * 4
    interval = f"{100 * c.low:+.1f} – {100 * c.high:+.1f}"
    return [f"{100 * c.difference:+.1f} (+{c.better} −{c.worse})", interval, f"{c.p:.2g}", f"{c.p_holm:.2g}"]


def problems(names: Sequence[str], n: int, seed: int) -> dict[str, Questions]:
    """Few clues and many steps: where every order is right there is nothing to see."""
    made = {
        "sudoku4": lambda: sudoku_problems(n, seed, clues=(4, 5, 6, 7, 8)),
        "word": lambda: word_problems(n, seed, steps=(2, 3)),
    }
    return {name: embedded(made[name]()) for name in names}


def progress(done: int, total: int) -> None:
    print(f"\r{done}/{total}", end="", file=sys.stderr, flush=True)


def chosen(every: list[Setting], wanted: Sequence[str], parser: argparse.ArgumentParser) -> list[Setting]:
    """The first three, which all are compared with, and what is wanted; all of them where nothing is."""
    unknown = set(wanted) - {setting.label for setting in every}
    if unknown:
        parser.error(f"no setting is called {sorted(unknown)}: give labels of the table")
    return [s for i, s in enumerate(every) if i < 3 or s.label in wanted] if wanted else every


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=None)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--n", type=int, default=400, help="problems of each task")
    parser.add_argument("--task", action="append", choices=("sudoku4", "word"), help="one of the two tasks alone")
    parser.add_argument("--only", action="append", default=[], help="look at these orders alone; repeatable")
    parser.add_argument("--confirm", action="append", default=[], help="put these orders on fresh problems; repeatable")
    parser.add_argument("--weights", type=float, nargs="+", help="weight of every layer, for two more settings")
    args = parser.parse_args()
    engine = ats.load(args.model, max_rows=64)
    every = variants(engine.model.num_layers, engine.model.num_heads)
    every = chosen(every, args.confirm or args.only, parser)
    seed, part = (CONFIRMATION, "confirmation") if args.confirm else (CALIBRATION, "calibration")
    tasks = problems(args.task or ("sudoku4", "word"), args.n, seed)
    rest = {"params": {"max_new_tokens": 32}, "model": args.model or "embedded"}
    samples = Study(every, tasks, **rest).run(engine, args.out / part, progress)
    if args.weights:
        model = cast(Model, Weighted(engine.model, tuple(args.weights)))
        more = Study(weighted(tuple(args.weights)), tasks, **rest, conditions={"weights": args.weights})
        samples += more.run(Engine(model, engine.tokenizer, max_rows=64), args.out / f"{part}-weighted", progress)
    print(f"\nfloat32, CPU, torch {torch.__version__}, problems of seed {seed}\n", file=sys.stderr)
    print(table(summarise(samples)) + "\n" + against(samples))


if __name__ == "__main__":
    main()

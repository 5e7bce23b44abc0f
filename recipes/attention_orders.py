"""What makes attention-guided order good, or bad: one token per forward pass, orders compared on the same held-out problems.

    python recipes/attention_orders.py --out runs/attention_orders
    python recipes/attention_orders.py --out runs/attention_orders --confirm "NAME" --confirm "NAME"

The first command looks for promising orders on calibration problems, the second puts those named on other problems and compares
them with the confidence order there. Both go on where they were stopped; docs/log.md has what they found.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

import attn_sampler as ats
from attn_sampler import rules, scores
from attn_sampler.evals.metrics import summarise
from attn_sampler.evals.questions import embedded
from attn_sampler.evals.report import table
from attn_sampler.evals.study import Setting, Study
from attn_sampler.evals.tasks import sudoku_problems, word_problems
from attn_sampler.seam import Attention, Memory, Needs, Selection, Window

CALIBRATION, CONFIRMATION = 101, 202  # seeds of the problems


@dataclass(frozen=True)
class Mixed:
    """One token per forward pass: z-scored attention column sums mixed with the log of the confidence.

    score = ``confidence`` · log p + ``weight`` · z(column sum) + ``chance`` · u, z over the candidates of the window, u a random
    number: the control for what the window does without any order inside it.

    Options beside those of attention-sequential:
        weight: of the attention; negative turns the order around.
        confidence: weight of the log-probability.
        chance: weight of the random number.
        sinks: ``"removed"`` takes from each column its mean over all query rows of the canvas, times the rows summed.
    """

    name: ClassVar[str] = "mixed"
    paper: ClassVar[str] = "none: an experiment"

    weight: float = 1.0
    confidence: float = 0.0
    chance: float = 0.0
    sinks: Literal["kept", "removed"] = "kept"
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
        wanted = Attention(self.rows, self.norm, self.diag, self.layers, self.heads, sinks=self.sinks == "removed")
        return Needs(sub_block_length=self.sub_block_length, attention=wanted)

    def select(self, window: Window, memory: Memory) -> Selection:
        p = window.proposal.confidence
        score = self.confidence * p.clamp(min=1e-30).log()
        if self.chance != 0:
            score = score + self.chance * scores.random(window)
        if self.weight != 0:
            assert window.columns is not None
            column = window.columns
            if window.sinks is not None:
                column = column - window.sinks * window.candidates.sum(1, keepdim=True)
            score = score + self.weight * standardised(column, window)
        return Selection(rules.top_k(score, window.candidates, window.quota, tie=p), score)


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
        Setting("confidence in windows of 8", Mixed(weight=0.0, confidence=1.0)),
        Setting("random in windows of 8", Mixed(weight=0.0, chance=1.0)),
        Setting("margin", "margin"),
        Setting("entropy", "entropy"),
        Setting("random", "random"),
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
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=None)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--n", type=int, default=400, help="problems of each task")
    parser.add_argument("--confirm", action="append", default=[], help="put these orders on fresh problems; repeatable")
    args = parser.parse_args()
    engine = ats.load(args.model, max_rows=64)
    every = variants(engine.model.num_layers, engine.model.num_heads)
    seed, part = CALIBRATION, "calibration"
    if args.confirm:
        unknown = set(args.confirm) - {setting.label for setting in every}
        if unknown:
            parser.error(f"--confirm {unknown}: give labels of the first table")
        every = [every[0], *(setting for setting in every[1:] if setting.label in args.confirm)]
        seed, part = CONFIRMATION, "confirmation"
    # few clues and many steps: where every order is right there is nothing to see
    drawn = {"sudoku4": sudoku_problems(args.n, seed, clues=(4, 5, 6, 7, 8)), "word": word_problems(args.n, seed, steps=(2, 3))}
    tasks = {name: embedded(problems) for name, problems in drawn.items()}
    study = Study(every, tasks, {"max_new_tokens": 32}, model=args.model or "embedded")
    samples = study.run(engine, args.out / part, lambda i, n: print(f"\r{i}/{n}", end="", file=sys.stderr, flush=True))
    print(f"\nfloat32, CPU, torch {torch.__version__}, problems of seed {seed}\n", file=sys.stderr)
    print(table(summarise(samples)))


if __name__ == "__main__":
    main()

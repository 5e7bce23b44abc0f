"""Several tokens per forward pass: does attention say which may be written together, or in which order?

    python recipes/attention_parallel.py --out runs/attention_parallel --n 200
    python recipes/attention_parallel.py --out runs/attention_parallel --n 400 --second
    python recipes/attention_parallel.py --out runs/attention_parallel --n 1000 --confirm "NAME=MATCH" --confirm "NAME=MATCH"

The first command sweeps every idea over its speed, on calibration problems, and compares it with Fast-dLLM's threshold *at the
same number of tokens per forward pass*; the second does so more finely for what the first found. The third puts settings of the
second on fresh problems, each beside the baseline named after the ``=``. All go on where they were stopped; docs/log.md has what
they found, docs/results/attention-parallel.md the tables.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import torch

import attn_sampler as ats
from attention_orders import CALIBRATION, CONFIRMATION, problems, progress
from attention_rules import Apart, Load, MixedThreshold
from attn_sampler.evals.metrics import Summary, compare, summarise
from attn_sampler.evals.pages import Table, Text, markdown
from attn_sampler.evals.statistics import holm
from attn_sampler.evals.study import Sample, Setting, Study

Series = tuple[str, Any, str, tuple[float, ...]]
"""Name, sampler, its option that sets the speed, that option's values."""

LAST = (4, 5)  # layers whose attention goes best with mutual information, by attention_signals.py


def variants(series: Iterator[Series], taus: Sequence[float], gammas: Sequence[float]) -> Iterator[Setting]:
    """Baselines first, then every idea at several speeds; a series is one idea."""
    for tau in taus:
        yield Setting(f"fast-dllm {tau:g}", "fast-dllm", {"threshold": tau}, "fast-dllm")
    for gamma in gammas:
        yield Setting(f"eb {gamma:g}", "eb", {"gamma": gamma}, "eb")
    for name, sampler, knob, values in series:
        for value in values:
            yield Setting(f"{name}, {knob} {value:g}", replace(sampler, **{knob: value}), series=name)


def first_look() -> Iterator[Setting]:
    """Everything, coarsely."""
    yield from variants(ideas(), (0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.5, 0.4, 0.3), (0.1, 0.3, 0.6, 1.0, 1.5))
    for f in (0.6, 1.2, 2.0):
        yield Setting(f"fast-dllm-factor {f:g}", "fast-dllm-factor", {"factor": f}, "fast-dllm-factor")


def second_look() -> Iterator[Setting]:
    """What the first look found, finer, its controls, and the published sampler that is closest."""
    yield from variants(
        closer(), (0.9, 0.85, 0.825, 0.8, 0.775, 0.75, 0.725, 0.7, 0.65, 0.6), (0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.1)
    )
    for tau in (0.9, 0.7):
        yield Setting(f"dapd {tau:g}", "dapd", {"threshold": tau}, "dapd")


def matching() -> Iterator[Setting]:
    """Baselines at the very speeds that the second look found, for the confirmation."""
    none: Iterator[Series] = iter(())
    yield from variants(none, (0.92, 0.815, 0.755), (0.28, 0.55))
    for certain in (0.94, 0.88):
        yield Setting(f"sure ones and one more, certain {certain:g}", Apart(threshold=0.0, certain=certain, ties="all"))


def closer() -> Iterator[Series]:
    for limit in (0.02, 0.05, 0.07):
        yield f"apart {limit:g}, layers 4 5", Apart(limit=limit, layers=LAST), "threshold", (0.9, 0.75, 0.6, 0.45)
    yield "sure ones and one more", Apart(threshold=0.0, ties="all"), "certain", (0.99, 0.96, 0.93, 0.9, 0.86, 0.82, 0.78, 0.72)
    for layers in ((5,), (3, *LAST), (2, 3, *LAST)):
        named = " ".join(map(str, layers))
        yield f"apart 0.05, layers {named}", Apart(limit=0.05, layers=layers), "threshold", (0.75, 0.6)
    for certain in (0.95, 0.9):
        some = Apart(limit=0.05, certain=certain, layers=LAST)
        yield f"apart 0.05, layers 4 5, certain {certain:g}", some, "threshold", (0.75, 0.6)
    yield "apart 0.05, layers 4 5, shuffled", Apart(limit=0.05, ties="shuffled", layers=LAST), "threshold", (0.75, 0.6)
    yield "load, scale 30", Load(scale=30.0), "bound", (0.1, 0.2, 0.35)
    yield "load, scale 30, layers 4 5", Load(scale=30.0, layers=LAST), "bound", (0.05, 0.1, 0.2)
    yield "load, scale 30, shuffled", Load(scale=30.0, ties="shuffled"), "bound", (0.1, 0.2)
    yield "load, all tied", Load(ties="all"), "bound", (0.2, 0.35, 0.6)


def ideas() -> Iterator[Series]:
    speeds = (0.8, 0.55)
    for power in (-0.3, -0.1, 0.1, 0.3, 1.0):
        yield f"p × column^{power:g}", MixedThreshold(weight=power), "threshold", speeds
    for weight in (-0.1, 0.1):
        yield f"log p {weight:+g} z(column)", MixedThreshold(weight=weight, form="z"), "threshold", speeds
        yield f"log p {weight:+g} z(net)", MixedThreshold(weight=weight, form="z", statistic="net"), "threshold", speeds
        yield f"p × column^{weight:g}, masked rows", MixedThreshold(weight=weight, rows="masked"), "threshold", speeds
        yield f"p × column^{weight:g}, by sinks", MixedThreshold(weight=weight, divided=True), "threshold", speeds
        yield f"p × column^{weight:g}, layers 4 5", MixedThreshold(weight=weight, layers=LAST), "threshold", speeds
        yield f"p × column^{weight:g}, layer 2", MixedThreshold(weight=weight, layers=(2,)), "threshold", speeds
        walk = MixedThreshold(weight=weight, form="z", rule="walk")
        yield f"dynamic threshold on log p {weight:+g} z(column)", walk, "threshold", speeds
    yield "dynamic threshold on columns", MixedThreshold(weight=10.0, form="z", rule="walk"), "threshold", speeds
    for power in (-0.3, 0.3, 1.0):
        yield f"best of p × column^{power:g}", MixedThreshold(weight=power, rule="best"), "threshold", speeds
    for layers, where in ((None, ""), (LAST, ", layers 4 5")):
        for weight in (-0.3, -1.0, -3.0):
            hang = MixedThreshold(weight=weight, statistic="hang", form="plain", layers=layers)
            yield f"log p {weight:+g} hang{where}", hang, "threshold", speeds
        for limit in (0.02, 0.05, 0.1):
            yield f"apart {limit:g}{where}", Apart(limit=limit, layers=layers), "threshold", (0.6, 0.35)
        for scale in (3.0, 10.0, 30.0):
            yield f"load, scale {scale:g}{where}", Load(scale=scale, layers=layers), "bound", (0.1, 0.35)
    for ties in ("even", "shuffled"):
        control = Load(scale=10.0, ties=ties, layers=LAST)
        yield f"load, scale 10, layers 4 5, {ties}", control, "bound", (0.1, 0.35)
    yield "load, all tied", Load(ties="all"), "bound", (0.1, 0.35)


def at_speed(line: Sequence[Summary], speed: float) -> float | None:
    """Accuracy of a sweep at so many tokens per forward pass, linear between its two neighbours; None outside of it."""
    points = sorted((s.tokens_per_forward, s.accuracy) for s in line)
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 <= speed <= x1:
            return y0 + (speed - x0) / (x1 - x0) * (y1 - y0) if x1 > x0 else y0
    return None


def sweep(samples: Sequence[Sample], series: dict[str, str]) -> str:
    """Markdown: every setting with its distance to Fast-dLLM's threshold at the same speed."""
    out: list[Text | Table] = []
    found = summarise(samples)
    for task in dict.fromkeys(s.task for s in found):
        some = [s for s in found if s.task == task]
        base = [s for s in some if series[s.setting] == "fast-dllm"]
        rows = []
        for s in some:
            expected = at_speed(base, s.tokens_per_forward)
            rows.append([
                s.setting, f"{100 * s.accuracy:.1f} %", f"{100 * s.low:.1f} – {100 * s.high:.1f}", f"{s.tokens_per_forward:.2f}",
                "" if expected is None else f"{100 * (s.accuracy - expected):+.1f}",
            ])  # fmt: skip
        header = ["setting", "solved", "95 % interval", "tokens per forward", "points over fast-dllm at that speed"]
        out += [Text(f"**{task}**, {some[0].n} problems"), Table(header, rows)]
    return markdown(out)


def matched(samples: Sequence[Sample], pairs: Sequence[tuple[str, str]]) -> str:
    """Markdown: every setting against its own baseline on the same problems, Holm-corrected over all of them."""
    found, compared = {(s.task, s.setting): s for s in summarise(samples)}, compare(samples)
    lines = [c for c in compared if (c.setting, c.against) in pairs]
    rows = []
    for c, p in zip(lines, holm([c.p for c in lines]), strict=True):
        a, b = found[c.task, c.setting], found[c.task, c.against]
        rows.append([
            c.task, c.setting, f"{100 * a.accuracy:.1f} %", f"{a.tokens_per_forward:.2f}", c.against, f"{100 * b.accuracy:.1f} %",
            f"{b.tokens_per_forward:.2f}", f"{100 * c.difference:+.1f}", f"{100 * c.low:+.1f} – {100 * c.high:+.1f}",
            f"+{c.better} −{c.worse}", f"{c.p:.2g}", f"{p:.2g}",
        ])  # fmt: skip
    header = ["task", "setting", "solved", "tokens per forward", "against", "solved", "tokens per forward", "points",
              "95 % interval", "only it / only the other", "p", "p (Holm)"]  # fmt: skip
    return markdown([Table(header, rows)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=None)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--n", type=int, default=200, help="problems of each task")
    parser.add_argument("--task", action="append", choices=("sudoku4", "word"), help="one of the two tasks alone")
    parser.add_argument("--second", action="store_true", help="the second, finer look")
    parser.add_argument("--only", action="append", default=[], help="look at this series alone, beside the baseline; repeatable")
    parser.add_argument("--confirm", action="append", default=[], help="SETTING=BASELINE, on fresh problems; repeatable")
    parser.add_argument("--seed", type=int, default=CONFIRMATION, help="of the fresh problems")
    args = parser.parse_args()
    looked = chain(second_look(), matching()) if args.confirm else second_look() if args.second else first_look()
    every = {setting.label: setting for setting in looked}
    seed, part = CALIBRATION, "second" if args.second else "first"
    pairs = [(left, right) for left, _, right in (text.rpartition("=") for text in args.confirm)]
    if pairs:
        names = dict.fromkeys([right for _, right in pairs] + [left for left, _ in pairs])  # baselines stand first
        unknown = [name for name in names if name not in every]
        if unknown:
            parser.error(f"no setting is called {unknown}: give labels of the first table")
        every = {name: every[name] for name in names}
        seed, part = args.seed, f"confirmation-{args.seed}"
    elif args.only:
        every = {label: s for label, s in every.items() if s.series in ("fast-dllm", *args.only)}
    tasks = problems(args.task or ("sudoku4", "word"), args.n, seed)
    study = Study(list(every.values()), tasks, {"max_new_tokens": 32}, model=args.model or "embedded")
    samples = study.run(ats.load(args.model, max_rows=64), args.out / part, progress)
    print(f"\nfloat32, CPU, torch {torch.__version__}, problems of seed {seed}\n", file=sys.stderr)
    print(matched(samples, pairs) if pairs else sweep(samples, {s.label: s.series for s in every.values()}))


if __name__ == "__main__":
    main()

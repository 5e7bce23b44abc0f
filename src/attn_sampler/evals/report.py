"""The report of an evaluation: tables, plots and the reproduction card as blocks of a page."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from attn_sampler.evals import card as cards
from attn_sampler.evals.metrics import TOO_LONG, Comparison, Summary
from attn_sampler.evals.pages import Block, Code, Heading, Table, Text, markdown
from attn_sampler.evals.pictures import pictures
from attn_sampler.evals.speed import speed
from attn_sampler.evals.starts import Start, changes
from attn_sampler.evals.starts import notes as notes_on
from attn_sampler.evals.study import Sample

__all__ = ["Evaluation", "blocks", "table", "unfit"]

PANELS = 6  # settings in a picture with a panel each
MATRIX = 14  # settings in a matrix
LISTED = 20  # problems named in a sentence
FAULTS = {"errors": "failed", "too_long": "too long"}


@dataclass(frozen=True)
class Evaluation:
    """What was found.

    Attributes:
        series: setting → line of the plots.
        aup: as `metrics.frontiers` gives it.
        agreement: as `metrics.agreement` gives it.
        costs: task → setting → shares of the time, as `cost.shares` gives them.
        courses: task → setting → course of the first problem.
        tasks: task → what was asked (`Questions.describe`), with its source.
        notes: what a reader has to know beside the numbers.
        starts: of the run, with their cards; ``card`` is that of the first one.
    """

    card: Mapping[str, Any]
    series: Mapping[str, str]
    summaries: Sequence[Summary]
    comparisons: Sequence[Comparison]
    aup: Sequence[Mapping[str, Any]]
    agreement: Sequence[Mapping[str, Any]]
    costs: Mapping[str, Mapping[str, Mapping[str, float]]]
    courses: Mapping[str, Mapping[str, Mapping[str, Any]]]
    tasks: Mapping[str, Mapping[str, Any]]
    samples: Sequence[Sample] = field(repr=False)
    notes: Sequence[str] = ()
    starts: Sequence[Start] = ()


def blocks(found: Evaluation) -> list[Block]:
    """The whole report, with its title."""
    tasks = list(dict.fromkeys(s.task for s in found.summaries))
    out: list[Block] = [Heading(f"{found.card['model']}: {', '.join(tasks)}", 1), Text(_conditions(found))]
    out += [Text(note) for note in (*notes_on(found.starts), *found.notes)]
    if found.card.get("programs", "").startswith("not"):
        out.append(Text(f"Programs that the model wrote were {found.card['programs']}."))
    for task in tasks:
        some = [s for s in found.summaries if s.task == task]
        out += [Heading(f"{task}: {some[0].n} problems" + (f", {some[0].draws} answers each" if some[0].draws > 1 else ""))]
        out += [Text(note) for note in unfit(found, task)]
        out += [
            _accuracy(some),
            *_pass_at_k(some),
            *_details(some),
            *_pairs(found, task),
            *speed(str(found.card["device"]), task, some, found.costs.get(task, {})),
            *_aup(found, task),
        ]
        samples = [x for x in found.samples if x.task == task]
        alike = next((a for a in found.agreement if a["task"] == task), None)
        out += pictures(task, some, samples, found.series, found.courses.get(task, {}), alike)
    out += [Heading("Tasks"), _tasks(found)]
    out += [Heading("Reproduction"), Code(shlex.join(found.card["command"]))]
    out += [Table(["", ""], cards.lines({k: v for k, v in found.card.items() if k != "command"}), words=1)]
    out += _starts(found)
    return [*out, Heading("How to read this"), *map(Text, READING)]


def _conditions(found: Evaluation) -> str:
    card = found.card
    return (
        f"attn-sampler {card['attn_sampler']}, {card['device']}, {card['dtype']}, {card['threads']} threads, "
        f"up to {card['max_rows']} rows in a batch, seed {card['seed']}."
    )


def _tasks(found: Evaluation) -> Table:
    rows = [
        [
            name,
            str(asked.get("version", "")),
            str(asked["n"]),
            asked.get("style", ""),
            _row(asked["params"]),
            asked.get("source", ""),
        ]
        for name, asked in found.tasks.items()
    ]
    return Table(["task", "version", "problems", "prompt", "rows", "source"], rows, words=3)


def unfit(found: Evaluation, task: str) -> list[str]:
    """What to say of the problems that do not fit the model's context; nothing where all of them do."""
    long = sorted({s.index for s in found.samples if s.task == task and s.finish_reason == TOO_LONG})
    if not long:
        return []
    listed = ", ".join(str(i) for i in long[:LISTED]) + (" …" if len(long) > LISTED else "")
    new = found.tasks[task]["params"].get("max_new_tokens", "so many")
    return [
        f"{task}: {len(long)} of {found.tasks[task]['n']} problems do not fit the model's context with {new} new tokens "
        f"(by index: {listed}). They count as unsolved, and not in the means of forward passes, tokens and latency. Fewer new "
        "tokens (--max-new-tokens) or a shorter --style make room."
    ]


def _starts(found: Evaluation) -> list[Block]:
    """Every start, where there was more than one."""
    rows = [
        [start.began, str(start.answers), "; ".join(changed) or "–", shlex.join(start.card["command"])]
        for start, changed in zip(found.starts, changes(found.starts), strict=True)
    ]
    header = ["started", "answers there", "otherwise than the first", "command"]
    return [Text("Starts:"), Table(header, rows, words=2)] if len(rows) > 1 else []


def _row(params: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in params.items())


def _accuracy(some: Sequence[Summary]) -> Table:
    rows = [
        [s.setting, _percent(s.accuracy), f"{100 * s.low:.1f} – {100 * s.high:.1f}", f"{s.forwards:.1f}", f"{s.tokens:.1f}",
         f"{s.tokens_per_forward:.2f}", f"{s.tpf_low:.2f} – {s.tpf_high:.2f}"]
        + [str(getattr(s, name)) for name in FAULTS if any(getattr(x, name) for x in some)]
        for s in some
    ]  # fmt: skip
    header = ["setting", "solved", "95 % interval", "forwards", "tokens", "tokens per forward", "95 % interval"]
    return Table(header + [words for name, words in FAULTS.items() if any(getattr(s, name) for s in some)], rows)


def _pass_at_k(some: Sequence[Summary]) -> list[Block]:
    if some[0].draws == 1:
        return []
    ks = list(some[0].pass_at_k)
    rows = [[s.setting, *(_percent(s.pass_at_k[k]) for k in ks)] for s in some]
    return [Table(["setting", *(f"pass@{k}" for k in ks)], rows)]


def _details(some: Sequence[Summary]) -> list[Block]:
    """What else the scorer says, as means."""
    names = list(some[0].details)
    return (
        [Table(["setting", *names], [[s.setting, *(f"{s.details.get(x, 0.0):.3f}" for x in names)] for s in some])]
        if names
        else []
    )


def _pairs(found: Evaluation, task: str) -> list[Block]:
    """Which differences from the first setting are real."""
    first = next(s.setting for s in found.summaries if s.task == task)
    rows = [
        [c.setting, f"{100 * c.difference:+.1f}", f"{100 * c.low:+.1f} – {100 * c.high:+.1f}", f"+{c.better} −{c.worse}",
         f"{c.p:.2g}", f"{c.p_holm:.2g}", f"{c.forwards:+.1f}", f"{c.forwards_low:+.1f} – {c.forwards_high:+.1f}", c.verdict]
        for c in found.comparisons if c.task == task and c.against == first
    ]  # fmt: skip
    if not rows:
        return []
    header = ["setting", "points", "95 % interval", "only it / only the first", "p", "p (Holm)", "forwards", "95 % interval",
              "difference in accuracy"]  # fmt: skip
    return [Text(f"Against {first}, on the same problems:"), Table(header, rows, words=1)]


def _aup(found: Evaluation, task: str) -> list[Block]:
    rows = [[a["series"], str(a["settings"]), f"{a['aup']:.1f}"] for a in found.aup if a["task"] == task]
    return [Table(["sampler", "settings", "AUP"], rows)] if any(a["settings"] > 1 for a in found.aup) else []


def table(summaries: Sequence[Summary]) -> str:
    """Markdown, one short table per task, with the likelihood of the answers: for studies of one choice."""
    out: list[Block] = []
    header = ["setting", "solved", "95 % interval", "forwards", "tokens per forward", "log-likelihood", "against the first", "p"]
    for task in dict.fromkeys(s.task for s in summaries):
        some = [s for s in summaries if s.task == task]
        rows = [
            [s.setting, _percent(s.accuracy), f"{100 * s.low:.1f} – {100 * s.high:.1f}", f"{s.forwards:.1f}",
             f"{s.tokens_per_forward:.2f}", "–" if s.log_likelihood is None else f"{s.log_likelihood:.3f}",
             *(("", "") if s.p is None else (f"+{s.better} −{s.worse}", f"{s.p:.2g}"))]
            for s in some
        ]  # fmt: skip
        out += [Text(f"**{task}**, {some[0].n} problems"), Table(header, rows)]
    return markdown(out)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


READING = (
    "Solved: share of the answers that the task's scorer accepts; Wilson's interval, several answers of a problem "
    "counting for as many as their spread within and between problems says. The unit is the problem everywhere.",
    "Against the first setting: the same problems under both settings. p is McNemar's exact test (a sign-flip test where a "
    "problem has several answers), p (Holm) is corrected for the number of settings; a difference counts as shown below "
    '0.05. "Not shown" does not mean equal: the interval says how large a difference can still hide.',
    "Tokens: written up to the first end-of-sequence token, it included; prompt, padding and what stands behind the end are "
    "counted nowhere. Forwards: passes that a row took part in.",
    "Time is that of the engine's passes over a task under a setting, batch by batch, without loading, warm-up and scoring; "
    "tokens per second are all tokens by that time. Rows share a pass, so no row has a time of its own: latency is from "
    "joining the batch to the end, in this batch. Work on rows that a kill cut off is done again and counts again where its "
    "batch had ended other rows.",
    "Peak memory: on a GPU allocated by torch, weights included; on a CPU (memory added) what the process had resident at most "
    "beyond what it had at the start of the setting.",
    "Shares of the time: measured beside the run on passes over a batch, each with attention statistics and without, by turns "
    "first; of the statistics the median over the passes and its 95 % interval, or where that holds 0 the most that it allows.",
    "AUP: accuracy under parallelism as d3LLM defines it (arXiv 2601.07568); its best accuracy is that of this table, so "
    "values of different reports do not compare.",
)

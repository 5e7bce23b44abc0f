"""A study: settings × problems on one model, kept sample by sample in a folder, so that it can be killed and taken up again.

The folder holds ``study.json``, what is being run, and ``samples.jsonl``, one line per answered problem. A second run of the same
study reads the lines that are whole, answers what is missing and counts nothing twice; a folder of another study is refused.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from attn_sampler.engine import Engine, Result
from attn_sampler.errors import InvalidInputError
from attn_sampler.evals.statistics import mcnemar, wilson
from attn_sampler.evals.tasks import Problem, solved
from attn_sampler.params import SamplingParams
from attn_sampler.seam import Sampler

__all__ = ["Sample", "Setting", "Study", "Summary", "summarise", "table"]


@dataclass(frozen=True)
class Setting:
    """A sampler with its options under a name, as a line of a table.

    Attributes:
        series: settings of one series are one line of a plot.
    """

    label: str
    sampler: str | Sampler
    options: Mapping[str, Any] = field(default_factory=dict)
    series: str = ""


@dataclass(frozen=True)
class Sample:
    """One answered problem.

    Attributes:
        tokens: up to and including the first end-of-sequence token.
        log_likelihood: sum over all commits of the log of the model's probability of the token when it was written, nats: the
            answer's likelihood under the order in which it was written.
    """

    task: str
    setting: str
    index: int
    difficulty: int
    prompt: str
    text: str
    solved: bool
    tokens: int
    forwards: int
    log_likelihood: float


@dataclass(frozen=True)
class Study:
    """What is run.

    Attributes:
        settings: lines of the table; labels are unique.
        tasks: name → problems.
        max_new_tokens, seed: of every row.
        model: its name, for the record.
    """

    settings: Sequence[Setting]
    tasks: Mapping[str, Sequence[Problem]]
    max_new_tokens: int = 32
    seed: int = 0
    model: str = "embedded"

    def __post_init__(self) -> None:
        labels = [setting.label for setting in self.settings]
        if len(set(labels)) != len(labels):
            raise InvalidInputError("settings", labels, "give every setting a label of its own")

    def params(self, setting: Setting) -> SamplingParams:
        return SamplingParams(
            sampler=setting.sampler, max_new_tokens=self.max_new_tokens, seed=self.seed, **setting.options
        )  # fmt: skip

    def describe(self) -> dict[str, Any]:
        """What tells this study from another one, as plain JSON types."""
        return {
            "model": self.model, "max_new_tokens": self.max_new_tokens, "seed": self.seed,
            "settings": [{"label": s.label, **self.params(s).to_dict()} for s in self.settings],
            "tasks": {name: {"n": len(problems), "sha256": _digest(problems)} for name, problems in self.tasks.items()},
        }  # fmt: skip

    def run(self, engine: Engine, folder: Path, on_sample: Callable[[int, int], None] | None = None) -> list[Sample]:
        """Answer what the folder does not hold yet; all samples, in the order of settings, tasks and problems.

        Args:
            on_sample: called with the number of samples there are and will be, after each one.

        Raises:
            InvalidInputError: the folder holds another study, or cannot be written.
        """
        _claim(folder, self.describe())
        found = {(s.task, s.setting, s.index): s for s in _read(folder / "samples.jsonl")}
        wanted = [(t, s, i) for s in self.settings for t, problems in self.tasks.items() for i in range(len(problems))]
        total = len(wanted)
        with (folder / "samples.jsonl").open("a", encoding="utf-8") as file:
            for setting in self.settings:
                params = self.params(setting)
                missing = [(t, i) for t, s, i in wanted if s is setting and (t, setting.label, i) not in found]
                for task, index, result, log_likelihood in _answers(
                    engine, params, [(t, i, self.tasks[t][i]) for t, i in missing]
                ):
                    problem = self.tasks[task][index]
                    sample = Sample(
                        task, setting.label, index, problem.difficulty, problem.prompt, result.text, solved(problem, result.text),
                        result.completion_tokens, result.forwards, round(log_likelihood, 4),
                    )  # fmt: skip
                    found[task, setting.label, index] = sample
                    file.write(json.dumps(asdict(sample), ensure_ascii=False) + "\n")
                    file.flush()
                    if on_sample is not None:
                        on_sample(len(found), total)
        return [found[t, s.label, i] for t, s, i in wanted]


def _answers(
    engine: Engine, params: SamplingParams, asked: Sequence[tuple[str, int, Problem]]
) -> Iterable[tuple[str, int, Result, float]]:
    """Results as they come, with their log-likelihoods; rows join the batch as others leave it."""
    waiting = iter(asked)
    likelihood: dict[int, float] = defaultdict(float)
    running: dict[int, tuple[str, int]] = {}

    def admit(count: int) -> None:
        for task, index, problem in islice(waiting, count):
            running[engine.admit(problem.prompt, params)] = (task, index)

    admit(2 * engine.max_rows)  # one batch waits behind the one that runs
    try:
        while running:
            for step in engine.step():
                likelihood[step.row] += sum(math.log(p) if p > 0 else -math.inf for p in step.confidences)
                if step.result is not None:
                    yield *running.pop(step.row), step.result, likelihood.pop(step.row)
                    admit(1)
    finally:
        for row in running:
            engine.cancel(row)


def _digest(problems: Sequence[Problem]) -> str:
    text = json.dumps([[p.task, p.prompt, p.answer, p.difficulty] for p in problems], ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _claim(folder: Path, description: dict[str, Any]) -> None:
    """Note what the folder is for; a folder of something else is left alone."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        note = folder / "study.json"
        if note.exists():
            if json.loads(note.read_text(encoding="utf-8")) != json.loads(json.dumps(description)):
                raise InvalidInputError("output", str(folder), "holds another study; give a folder of its own")
            return
        if any(folder.iterdir()):
            raise InvalidInputError("output", str(folder), "is not empty and holds no study; give a new folder")
        part = note.with_suffix(".part")
        part.write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
        part.replace(note)
    except (OSError, json.JSONDecodeError) as error:
        raise InvalidInputError("output", str(folder), f"cannot be used ({error})") from error


def _read(file: Path) -> list[Sample]:
    """The whole lines; one that a kill cut off is dropped from the file too."""
    if not file.exists():
        return []
    raw = file.read_bytes()
    whole = raw[: raw.rfind(b"\n") + 1]
    if len(whole) < len(raw):
        with file.open("r+b") as out:
            out.truncate(len(whole))
            os.fsync(out.fileno())
    return [Sample(**json.loads(line)) for line in whole.decode().splitlines()]


@dataclass(frozen=True)
class Summary:
    """One setting on one task.

    Attributes:
        low, high: 95 % Wilson interval of the accuracy.
        forwards: mean per problem.
        tokens_per_forward: tokens up to the first end-of-sequence token, over all forward passes.
        log_likelihood: mean per problem, nats.
        better, worse: problems that only this setting solves, and only the first setting of the study.
        p: of the exact McNemar test of these two numbers; None for the first setting.
    """

    task: str
    setting: str
    n: int
    accuracy: float
    low: float
    high: float
    forwards: float
    tokens_per_forward: float
    log_likelihood: float
    better: int
    worse: int
    p: float | None


def summarise(samples: Iterable[Sample]) -> list[Summary]:
    """Every setting on every task, compared with the first setting problem by problem."""
    groups: dict[tuple[str, str], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.task, sample.setting), []).append(sample)
    first: dict[str, dict[int, bool]] = {}
    out = []
    for (task, setting), some in groups.items():
        right = {s.index: s.solved for s in some}
        base = first.setdefault(task, right)
        better = sum(right[i] and not base[i] for i in right if i in base)
        worse = sum(base[i] and not right[i] for i in right if i in base)
        n, forwards = len(some), sum(s.forwards for s in some)
        low, high = wilson(sum(right.values()), n)
        p = None if base is right else mcnemar(better, worse)
        tokens, likelihood = sum(s.tokens for s in some), sum(s.log_likelihood for s in some)
        out.append(
            Summary(
                task,
                setting,
                n,
                sum(right.values()) / n,
                low,
                high,
                forwards / n,
                tokens / forwards,
                likelihood / n,
                better,
                worse,
                p,
            )
        )
    return out


def table(summaries: Sequence[Summary]) -> str:
    """Markdown, one table per task."""
    lines: list[str] = []
    for task in dict.fromkeys(s.task for s in summaries):
        some = [s for s in summaries if s.task == task]
        lines += [f"**{task}**, {some[0].n} problems", ""]
        lines += [
            "| setting | solved | 95 % interval | forwards | tokens per forward | log-likelihood | against the first | p |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for s in some:
            against, p = ("", "") if s.p is None else (f"+{s.better} −{s.worse}", f"{s.p:.2g}")
            cells = (
                s.setting, f"{100 * s.accuracy:.1f} %", f"{100 * s.low:.1f} – {100 * s.high:.1f}", f"{s.forwards:.1f}",
                f"{s.tokens_per_forward:.2f}", f"{s.log_likelihood:.3f}", against, p,
            )  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)

"""A study: settings × questions on one model, kept sample by sample in a folder, so that it can be killed and taken up again.

The folder holds ``study.json``, what is being run; ``samples.jsonl``, one line per answer; ``examples.jsonl``, the course of the
first problem under every setting. A second run of the same study reads the lines that are whole, answers what is missing and
counts nothing twice; a folder of another study is refused, with what differs.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from attn_sampler.engine import Engine
from attn_sampler.errors import InvalidInputError, RowError, check_number
from attn_sampler.evals.cost import Peak
from attn_sampler.evals.folder import append, claim, occupied, read_lines
from attn_sampler.evals.questions import Questions
from attn_sampler.evals.tasks import Prompt
from attn_sampler.params import SamplingParams
from attn_sampler.results import Result, Step
from attn_sampler.seam import Sampler

__all__ = ["Sample", "Setting", "Study"]

FORMAT = 2  # of study.json and samples.jsonl


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
    """One answer.

    Attributes:
        index, draw: of the problem; of its answers, where several are drawn.
        seed: of the row's random numbers.
        solved, detail: what the scorer says.
        tokens: up to and including the first end-of-sequence token.
        finish_reason: as the engine says, or ``"error"``: the row failed and counts as unsolved.
        elapsed_s: from joining the batch to the end: a row's latency *in this batch*.
        batch_s: time of the engine since the previous sample of this task and setting: these add up to the time of the group.
        peak_bytes: peak memory so far in this group, see `attn_sampler.evals.cost.Peak`.
        log_likelihood: sum over all commits of the log of the model's probability of the token when it was written, nats: the
            answer's likelihood under the order in which it was written. None where one of them was 0.
        order: for every position of the answer the forward pass that wrote it (last), 0 where none did.
    """

    task: str
    setting: str
    index: int
    draw: int
    seed: int
    difficulty: int
    prompt: Prompt
    text: str
    solved: bool
    detail: Mapping[str, float | bool | str]
    tokens: int
    forwards: int
    finish_reason: str
    elapsed_s: float
    batch_s: float
    peak_bytes: int | None
    log_likelihood: float | None
    order: Sequence[int]


@dataclass(frozen=True)
class Study:
    """What is run.

    Attributes:
        settings: lines of the table; labels are unique. The first is what the others are compared with.
        tasks: name → questions.
        params: of every row, under those of the questions and of the setting (`SamplingParams`).
        seed: of all random numbers of the rows; every answer has one of its own, the same under every setting.
        draws: answers per problem.
        model: its name, for the record.
        conditions: what else tells this study from another one, plain JSON types.
    """

    settings: Sequence[Setting]
    tasks: Mapping[str, Questions]
    params: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    draws: int = 1
    model: str = "embedded"
    conditions: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_number("draws", self.draws, low=1, integer=True)
        labels = [setting.label for setting in self.settings]
        if len(set(labels)) != len(labels):
            raise InvalidInputError("settings", labels, "give every setting a label of its own")

    @property
    def total(self) -> int:
        """Answers of the whole study."""
        return len(self.settings) * self.draws * sum(len(q.problems) for q in self.tasks.values())

    def row(self, setting: Setting, task: str, index: int = 0, draw: int = 0) -> SamplingParams:
        """Parameters of one answer."""
        address = f"{self.seed}/{task}/{index}/{draw}".encode()
        seed = int.from_bytes(hashlib.sha256(address).digest()[:8]) >> 1
        given = {**self.params, **self.tasks[task].params, **setting.options}
        return SamplingParams(sampler=setting.sampler, seed=seed, **given)

    def describe(self) -> dict[str, Any]:
        """What tells this study from another one, as plain JSON types."""
        rows = [
            {"label": s.label} | {t: {k: v for k, v in self.row(s, t).to_dict().items() if k != "seed"} for t in self.tasks}
            for s in self.settings
        ]
        return {
            "format": FORMAT, "model": self.model, **self.conditions, "seed": self.seed, "draws": self.draws,
            "tasks": {name: q.describe() for name, q in self.tasks.items()}, "settings": rows,
        }  # fmt: skip

    def run(
        self,
        engine: Engine,
        folder: Path,
        on_sample: Callable[[int, int], None] | None = None,
        on_start: Callable[[int], None] | None = None,
    ) -> list[Sample]:
        """Answer what the folder does not hold yet; all samples, in the order of settings, tasks, problems and draws.

        Args:
            on_sample: called with the number of samples there are and will be, after each one.
            on_start: called with the number of samples there are, before a missing one is answered; not where none is missing.

        Raises:
            InvalidInputError: the folder holds another study or is in use, or a prompt does not fit the model.
        """
        with occupied(folder):
            self._check(engine)
            claim(folder, "study.json", self.describe())
            found = {(s.task, s.setting, s.index, s.draw): s for s in map(_sample, read_lines(folder / "samples.jsonl"))}
            read_lines(folder / "examples.jsonl")  # a torn line goes
            if on_start is not None and len(found) < self.total:
                on_start(len(found))
            groups = [(s, t) for s in self.settings for t in self.tasks]
            wanted = {(s.label, t): [(i, d) for i in range(len(self.tasks[t].problems)) for d in range(self.draws)]
                      for s, t in groups}  # fmt: skip
            with (folder / "samples.jsonl").open("a", encoding="utf-8") as samples, \
                 (folder / "examples.jsonl").open("a", encoding="utf-8") as examples:  # fmt: skip
                for setting, task in groups:
                    missing = [(i, d) for i, d in wanted[setting.label, task] if (task, setting.label, i, d) not in found]
                    for sample, course in self._answer(engine, setting, task, missing) if missing else ():
                        if course is not None:  # first: a sample that is there is never answered again
                            append(examples, {"task": task, "setting": setting.label, **course})
                        append(samples, asdict(sample))
                        found[task, setting.label, sample.index, sample.draw] = sample
                        if on_sample is not None:
                            on_sample(len(found), self.total)
            return [found[t, s.label, i, d] for s, t in groups for i, d in wanted[s.label, t]]

    def _check(self, engine: Engine) -> None:
        """Whether every prompt fits and every setting works with the model, before anything is spent."""
        for task, asked in self.tasks.items():
            for n, setting in enumerate(self.settings):
                for i, problem in enumerate(asked.problems if n == 0 else asked.problems[:1]):
                    try:
                        engine.prepare(asked.prompt(problem), self.row(setting, task, i), chat=asked.chat)
                    except InvalidInputError as error:
                        remedy = f"{error.remedy} (task {task}, problem {problem.id or i}, setting {setting.label!r})"
                        raise InvalidInputError(error.field, error.value, remedy) from error

    def _answer(
        self, engine: Engine, setting: Setting, task: str, missing: Sequence[tuple[int, int]]
    ) -> Iterator[tuple[Sample, dict[str, Any] | None]]:
        """Samples of one group as they come; with the first problem's, its course."""
        asked = self.tasks[task]
        prompts = {i: asked.prompt(asked.problems[i]) for i, _ in missing}
        rows = [(key, prompts[key[0]], self.row(setting, task, *key)) for key in missing]
        _warm_up(engine, rows[0][1], rows[0][2], asked.chat)
        peak = Peak(engine.model.device)
        for (index, draw), params, answer in _answers(engine, rows, asked.chat):
            problem = asked.problems[index]
            if isinstance(answer.outcome, Result):
                out = answer.outcome
                score = asked.score(problem, out.text)
                said = (out.text, score.solved, dict(score.detail), out.completion_tokens, out.forwards, out.finish_reason)
                elapsed = out.elapsed_s
            else:
                said, elapsed = ("", False, {"error": str(answer.outcome)}, 0, answer.forwards, "error"), 0.0
            sample = Sample(
                task, setting.label, index, draw, params.seed, problem.difficulty, prompts[index], *said, round(elapsed, 6),
                round(answer.batch_s, 6), peak.bytes(), _finite(answer.log_likelihood), answer.order,
            )  # fmt: skip
            yield sample, answer.course if (index, draw) == (0, 0) else None


@dataclass
class _Answer:
    """One row as it runs."""

    outcome: Result | RowError | None = None
    forwards: int = 0
    batch_s: float = 0.0
    log_likelihood: float = 0.0
    order: list[int] = field(default_factory=list)
    steps: list[dict[str, Any]] | None = None

    @property
    def course(self) -> dict[str, Any]:
        """Of every pass: where the sampler looked, with which scores, and what was written there."""
        return {"length": len(self.order), "steps": self.steps}

    def follow(self, step: Step) -> None:
        self.forwards = step.forward
        self.log_likelihood += sum(math.log(p) if p > 0 else -math.inf for p in step.confidences)
        self.order = self.order or [0] * (len(step.ids) - step.start)
        for position in step.positions:
            self.order[position - step.start] = step.forward
        if self.steps is not None:
            self.steps.append({
                "window": [p - step.start for p in step.window], "scores": [_finite(x) for x in step.scores],
                "written": [p - step.start for p in step.positions],
            })  # fmt: skip


Asked = tuple[tuple[int, int], Prompt, SamplingParams]


def _answers(
    engine: Engine, asked: Sequence[Asked], chat: bool | None
) -> Iterator[tuple[tuple[int, int], SamplingParams, _Answer]]:
    """Rows as they end; others join the batch in their place, so none waits and a row's time is its time in the batch."""
    waiting = iter(asked)
    running: dict[int, tuple[tuple[int, int], SamplingParams, _Answer]] = {}
    spent = 0.0

    def admit(count: int) -> None:
        for key, prompt, params in islice(waiting, count):
            answer = _Answer(steps=[] if key == (0, 0) else None)
            running[engine.admit(prompt, params, chat=chat)] = (key, params, answer)

    admit(engine.max_rows)
    try:
        while running:
            began = time.perf_counter()
            try:
                steps: Sequence[Step] = engine.step()
                ended = [(step.row, step.result) for step in steps if step.result is not None]
            except RowError as error:  # the row is gone, the others go on
                steps, ended = (), [(error.row, error)]
            spent += time.perf_counter() - began
            for step in steps:
                running[step.row][2].follow(step)
            for row, outcome in ended:
                key, params, answer = running.pop(row)
                answer.outcome, answer.batch_s, spent = outcome, spent, 0.0
                yield key, params, answer
            admit(len(ended))
    finally:
        for row in running:
            engine.cancel(row)


def _warm_up(engine: Engine, prompt: Prompt, params: SamplingParams, chat: bool | None) -> None:
    """Two passes of one row, not counted: the first ones of a process and of a sampler load and plan."""
    row = engine.admit(prompt, params, chat=chat)
    try:
        for _ in range(2):
            engine.step()
    except RowError:
        pass  # it fails again where it counts
    finally:
        engine.cancel(row)


def _sample(line: Mapping[str, Any]) -> Sample:
    return Sample(**line)


def _finite(x: float) -> float | None:
    """JSON has no infinity."""
    return round(x, 5) if math.isfinite(x) else None

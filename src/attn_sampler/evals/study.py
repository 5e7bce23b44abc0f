"""A study: settings × questions on one model, kept sample by sample in a folder, so that it can be killed and taken up again.

The folder holds ``study.json``, what is being run; ``samples.jsonl``, one line per answer; ``examples.jsonl``, the course of the
first problem under every setting. A second run of the same study reads the lines that are whole, answers what is missing and
counts nothing twice; a folder of another study is refused, with what differs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from attn_sampler.engine import Engine
from attn_sampler.errors import InvalidInputError, TooLongError, check_number
from attn_sampler.evals.answers import answers, finite, warm_up
from attn_sampler.evals.cost import Peak
from attn_sampler.evals.folder import append, claim, occupied, read_lines
from attn_sampler.evals.questions import Questions
from attn_sampler.evals.tasks import Prompt
from attn_sampler.params import SamplingParams
from attn_sampler.results import Result
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
        finish_reason: as the engine says; ``"error"``: the row failed, ``"too_long"``: prompt and new tokens do not fit the
            context; both count as unsolved, and `detail` says why.
        elapsed_s: from joining the batch to the end: a row's latency *in this batch*.
        batch_s: time of the engine since the previous sample of this task and setting: these add up to the time of the group.
        peak_bytes: peak memory so far in this group, see `attn_sampler.evals.cost.Peak`; None where the system does not tell.
        log_likelihood: sum over all commits of the log of the model's probability of the token when it was written, nats: the
            answer's likelihood under the order in which it was written. None where one of them was 0.
        order: for every position of the answer the forward pass that wrote it (last), 0 where none did.
        cpu_s: for how much of `batch_s` the thread that ran the passes had a processor; None in a folder of an older version.
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
    cpu_s: float | None = None


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
            InvalidInputError: the folder holds another study or is in use, a setting or a prompt does not suit the model, or no
                problem of a task fits its context. Of a task of which some fit, the others are samples that say so.
        """
        with occupied(folder):
            long = self._check(engine)
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
                    for sample, course in self._answer(engine, setting, task, missing, long[task]) if missing else ():
                        if course is not None:  # first: a sample that is there is never answered again
                            append(examples, {"task": task, "setting": setting.label, **course})
                        append(samples, asdict(sample))
                        found[task, setting.label, sample.index, sample.draw] = sample
                        if on_sample is not None:
                            on_sample(len(found), self.total)
            return [found[t, s.label, i, d] for s, t in groups for i, d in wanted[s.label, t]]

    def _check(self, engine: Engine) -> dict[str, dict[int, str]]:
        """Whether settings and prompts suit the model, before anything is spent; task → problem → why it does not fit."""
        found: dict[str, dict[int, str]] = {}
        for task, asked in self.tasks.items():
            long: dict[int, TooLongError] = {}
            for i in range(len(asked.problems)):
                try:
                    self._prepare(engine, self.settings[0], task, i)
                except TooLongError as error:
                    long[i] = error
            fits = [i for i in range(len(asked.problems)) if i not in long]
            if long and not fits:
                least = min(long.values(), key=lambda error: error.given)
                remedy = f"no problem of {task} fits the context of {least.context}: the shortest prompt has {least.given} tokens"
                raise InvalidInputError(
                    "max_new_tokens", least.new, f"{remedy}; give fewer (--max-new-tokens), or a shorter --style"
                )
            for setting in self.settings[1:] if fits else ():
                self._prepare(engine, setting, task, fits[0])
            found[task] = {i: str(error) for i, error in long.items()}
        return found

    def _prepare(self, engine: Engine, setting: Setting, task: str, index: int) -> None:
        asked = self.tasks[task]
        problem = asked.problems[index]
        try:
            engine.prepare(asked.prompt(problem), self.row(setting, task, index), chat=asked.chat)
        except TooLongError:
            raise
        except InvalidInputError as error:
            remedy = f"{error.remedy} (task {task}, problem {problem.id or index}, setting {setting.label!r})"
            raise InvalidInputError(error.field, error.value, remedy) from error

    def _answer(
        self, engine: Engine, setting: Setting, task: str, missing: Sequence[tuple[int, int]], long: Mapping[int, str]
    ) -> Iterator[tuple[Sample, dict[str, Any] | None]]:
        """Samples of one group as they come; with the first problem's, its course. ``long``: which do not fit, and why."""
        asked = self.tasks[task]
        prompts = {i: asked.prompt(asked.problems[i]) for i, _ in missing}
        rows = []
        for key in missing:
            params = self.row(setting, task, *key)
            if key[0] in long:
                said = ("", False, {"error": long[key[0]]}, 0, 0, "too_long", 0.0, 0.0, None, None, [])
                about = (asked.problems[key[0]].difficulty, prompts[key[0]])
                yield Sample(task, setting.label, *key, params.seed, *about, *said), None
            else:
                rows.append((key, prompts[key[0]], params))
        if not rows:
            return
        first = next(i for i in range(len(asked.problems)) if i not in long)
        warm_up(engine, rows[0][1], rows[0][2], asked.chat)
        peak = Peak(engine.model.device)
        for (index, draw), params, answer in answers(engine, rows, asked.chat, (first, 0)):
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
                round(answer.batch_s, 6), peak.bytes(), finite(answer.log_likelihood), answer.order, round(answer.cpu_s, 6),
            )  # fmt: skip
            yield sample, answer.course if (index, draw) == (first, 0) else None


def _sample(line: Mapping[str, Any]) -> Sample:
    return Sample(**line)

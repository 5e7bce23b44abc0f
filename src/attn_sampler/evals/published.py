"""A preset put to use: whose settings, for which tasks, and what a report has to say beside its numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attn_sampler.errors import InvalidInputError
from attn_sampler.evals import presets
from attn_sampler.params import SamplingParams

__all__ = ["Applied", "apply"]


@dataclass(frozen=True)
class Applied:
    """A preset's settings of some tasks.

    Attributes:
        sampler, options: the published sampler; the same for all of the tasks.
        styles, params: by task; the parameters are those of a row, without the sampler.
        notes: the published accuracy, and what differs here.
    """

    model: str
    sampler: str
    options: Mapping[str, Any]
    styles: Mapping[str, str]
    params: Mapping[str, Mapping[str, Any]]
    notes: Sequence[str]


def apply(name: str, tasks: Sequence[str]) -> Applied:
    """The preset of that name for these tasks.

    Raises:
        UnknownNameError: no such preset.
        InvalidInputError: it says nothing of a task, or has another sampler for another task.
    """
    preset = presets.find(name)
    found = {task: preset.task(task) for task in tasks}
    own = {field.name for field in dataclasses.fields(SamplingParams)}
    samplers = [{k: v for k, v in one.params.items() if k == "sampler" or k not in own} for one in found.values()]
    if any(sampler != samplers[0] for sampler in samplers):
        raise InvalidInputError("preset", name, f"its samplers differ among {', '.join(tasks)}: give one task at a time")
    options = dict(samplers[0])
    notes = []
    for task, one in found.items():
        accuracy = "no accuracy is stated" if one.accuracy is None else f"{one.accuracy:g} % solved"
        differs = f" What differs here: {one.differs}." if one.differs else ""
        notes.append(f"Published for {task}: {accuracy} ({preset.source}; {preset.model}).{differs}")
    return Applied(
        preset.model, options.pop("sampler"), options, {task: one.style for task, one in found.items()},
        {task: {k: v for k, v in one.params.items() if k in own - {"sampler"}} for task, one in found.items()}, notes,
    )  # fmt: skip

"""Options that several commands have, each said once; `spread` lets a command take a group of them as one value."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

__all__ = [
    "Adapter", "AllowCode", "AsJson", "BlockLength", "CachePolicy", "Data", "Device", "Dtype", "EarlyExit", "Family",
    "Limit", "Loading", "MaxNewTokens", "MaxRows", "Model", "Option", "Output", "Quantize", "Raw", "RefreshEvery",
    "RefreshTokens", "Sampler", "Seed", "Steps", "Stop", "Style", "SweptOption", "SweptTemperature",
    "TaskTokens", "Tasks", "Temperature", "Threshold", "TopK", "TopP", "TraceFile", "Watch", "spread",
]  # fmt: skip

# Which model, which sampler, how many tokens
Model = Annotated[
    str | None, typer.Option("-m", "--model", help="Checkpoint directory, Hub id or embedded.  [default: embedded]")
]
Sampler = Annotated[str | None, typer.Option("--sampler", help="See `attn-sampler samplers`.  [default: attention]")]
Option = Annotated[
    list[str] | None,
    typer.Option(
        "-o", "--option", metavar="KEY=VALUE|@FILE", help="Option of the sampler, or a file of `calibrate`; repeatable."
    ),
]
MaxNewTokens = Annotated[int | None, typer.Option(help="Masks appended to the prompt.  [default: 64]")]
BlockLength = Annotated[int | None, typer.Option(help="Positions per block.  [default: at most 32]")]
Steps = Annotated[int | None, typer.Option(help="Total forward passes at most.  [default: as many as the sampler takes]")]
Threshold = Annotated[float | None, typer.Option(help="The sampler's threshold (short for -o threshold=X).")]
Temperature = Annotated[float | None, typer.Option("-t", "--temperature", help="0 takes the most likely token.  [default: 0]")]
SweptTemperature = Annotated[float | None, typer.Option("-t", "--temperature", help="0 takes the most likely token.")]
TopP = Annotated[float | None, typer.Option(help="Nucleus to choose from.  [default: 1]")]
TopK = Annotated[int | None, typer.Option(help="Number of tokens to choose from, 0 for all.  [default: 0]")]
Seed = Annotated[int | None, typer.Option(help="Seed of the random numbers.  [default: drawn, shown with --json]")]
Stop = Annotated[list[str] | None, typer.Option(help="String that ends the text; repeatable.")]
CachePolicy = Annotated[
    str | None,
    typer.Option("--cache", help="none, block, sub-block, prefix or dual.  [default: block where it is exact, else none]"),
]
RefreshEvery = Annotated[int | None, typer.Option(help="Passes after which --cache prefix or dual computes everything again.")]
RefreshTokens = Annotated[int | None, typer.Option(help="New tokens after which these caches do so.")]
EarlyExit = Annotated[
    str | None, typer.Option(help="prophet or sched may end the run early; options as name:option=value,option=value.")
]
Watch = Annotated[bool, typer.Option("--watch", help="Show the canvas filling (on a terminal).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object per result.")]
TraceFile = Annotated[Path | None, typer.Option("--trace", metavar="FILE", help="Write the run to a file, for `replay`.")]
Raw = Annotated[bool, typer.Option("--raw", help="Take the prompt as it is, without the chat template.")]
Dtype = Annotated[str, typer.Option(help="Of the weights: auto, float32, bfloat16, float16.")]
Family = Annotated[str | None, typer.Option(help="See `attn-sampler models`.  [default: as config.json says]")]
Adapter = Annotated[str | None, typer.Option(help="LoRA adapter to merge into the weights: a directory or Hub id.")]
Quantize = Annotated[str | None, typer.Option(help="int8 keeps the linear layers' weights as int8.  [default: no]")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 …  [default: cuda where there is one]")]

# Evaluations
Tasks = Annotated[str, typer.Option(metavar="NAME,…", help="Tasks, separated by commas.")]
Data = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Folder with the tasks' files.  [default: the published ones, from the Hub]")
]
Limit = Annotated[int | None, typer.Option(help="Problems of each task.  [default: all; 500 of those that are made]")]
Style = Annotated[
    list[str] | None,
    typer.Option(metavar="[TASK=]NAME", help="How problems are put to the model; repeatable.  [default: the task's first style]"),
]
TaskTokens = Annotated[int | None, typer.Option(help="Masks appended to the prompt.  [default: the task's]")]
AllowCode = Annotated[bool, typer.Option("--allow-code", help="Run programs that the model wrote, shut in.")]
MaxRows = Annotated[int, typer.Option(help="Rows that share a forward pass.")]
SweptOption = Annotated[
    list[str] | None,
    typer.Option(
        "-o", "--option", metavar="[SAMPLER.]KEY=V1,V2,…|@FILE",
        help="Options of the samplers, several values sweep them; @FILE is one that `calibrate` wrote. Repeatable.",
    ),
]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Loading:
    """How a checkpoint becomes a model; the words of `attn_sampler.load`."""

    family: Family = None
    adapter: Adapter = None
    quantize: Quantize = None
    dtype: Dtype = "auto"
    device: Device = None


@dataclasses.dataclass(frozen=True)
class Output:
    """What shows and keeps a run, beside the text that it writes."""

    watch: Watch = False
    as_json: AsJson = False
    trace: TraceFile = None


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """The command with an option for every field of the dataclasses that it takes.

    A parameter of a dataclass type, say ``loading: Loading``, gives way to one parameter per field, with the field's name, type
    and default; a call makes the dataclass of them. `inspect.signature`, where typer looks, shows what the result takes.
    """
    types = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: kind for name, kind in types.items() if dataclasses.is_dataclass(kind)}
    taken: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        if parameter.name in groups:
            group = groups[parameter.name]
            hints = get_type_hints(group, include_extras=True)
            taken += [
                inspect.Parameter(x.name, parameter.KEYWORD_ONLY, default=x.default, annotation=hints[x.name])
                for x in dataclasses.fields(group)
            ]
        else:
            taken.append(parameter.replace(kind=parameter.KEYWORD_ONLY, annotation=types[parameter.name]))

    @wraps(command)
    def run(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{x.name: given.pop(x.name) for x in dataclasses.fields(group) if x.name in given})
        command(**given)

    run.__signature__ = inspect.Signature(taken)  # pyright: ignore[reportAttributeAccessIssue]
    return run

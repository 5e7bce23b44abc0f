"""The command. Text goes to stdout, everything else to stderr; exit codes: 0 done, 1 failed, 2 wrong usage.

Nothing heavy is imported until a command runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attn_sampler import __version__
from attn_sampler.errors import AttnSamplerError, InvalidInputError

if TYPE_CHECKING:
    from attn_sampler.engine import Engine, Step
    from attn_sampler.params import SamplingParams

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Attention-guided sampling for diffusion language models.",
)

DEMO_DELAY_S = 0.12  # a small model on a CPU fills a canvas faster than the eye can follow

Model = Annotated[
    str | None, typer.Option("-m", "--model", help="Checkpoint directory or Hub id.  [default: the embedded model]")
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
TopP = Annotated[float | None, typer.Option(help="Nucleus to choose from.  [default: 1]")]
TopK = Annotated[int | None, typer.Option(help="Number of tokens to choose from, 0 for all.  [default: 0]")]
Seed = Annotated[int | None, typer.Option(help="Seed of the random numbers.  [default: drawn, shown with --json]")]
Stop = Annotated[list[str] | None, typer.Option(help="String that ends the text; repeatable.")]
CachePolicy = Annotated[
    str | None,
    typer.Option("--cache", help="none, block, sub-block, prefix or dual.  [default: block where it is exact, else none]"),
]
RefreshEvery = Annotated[int | None, typer.Option(help="Passes after which --cache prefix or dual computes everything again.")]
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


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"attn-sampler {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    pass


@app.command()
def generate(
    prompts: Annotated[
        list[str] | None, typer.Argument(metavar="[PROMPT]...", help="Prompts; - or none reads one from stdin.")
    ] = None,
    model: Model = None,
    sampler: Sampler = None,
    option: Option = None,
    max_new_tokens: MaxNewTokens = None,
    block_length: BlockLength = None,
    steps: Steps = None,
    threshold: Threshold = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    top_k: TopK = None,
    seed: Seed = None,
    stop: Stop = None,
    cache: CachePolicy = None,
    refresh_every: RefreshEvery = None,
    early_exit: EarlyExit = None,
    watch: Watch = False,
    as_json: AsJson = False,
    trace: TraceFile = None,
    raw: Raw = False,
    ids: Annotated[bool, typer.Option("--ids", help="Prompts are token ids, separated by spaces.")] = False,
    family: Family = None,
    adapter: Adapter = None,
    quantize: Quantize = None,
    dtype: Dtype = "auto",
    device: Device = None,
) -> None:
    """Answer prompts."""
    texts = _read_prompts(prompts)
    params = _params(
        sampler, option, threshold, max_new_tokens=max_new_tokens, block_length=block_length, steps=steps,
        temperature=temperature, top_p=top_p, top_k=top_k, seed=seed, stop=stop, cache=cache, refresh_every=refresh_every,
        early_exit=early_exit,
    )  # fmt: skip
    engine = load_engine(model, dtype, family=family, adapter=adapter, quantize=quantize, device=device)
    given: list[Any] = [_ids(text) for text in texts] if ids else list(texts)
    rows = [engine.prepare(prompt, params, chat=False if raw else None) for prompt in given]
    _run(engine, rows, params, texts, model, watch, as_json, trace, ends=True)


@app.command()
def infill(
    template: Annotated[str, typer.Argument(help="Text in which [[n]] is a hole of n tokens.")],
    prompt: Annotated[str | None, typer.Option(help="What the filled text answers.")] = None,
    model: Model = None,
    sampler: Sampler = None,
    option: Option = None,
    block_length: BlockLength = None,
    steps: Steps = None,
    threshold: Threshold = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    top_k: TopK = None,
    seed: Seed = None,
    cache: CachePolicy = None,
    refresh_every: RefreshEvery = None,
    early_exit: EarlyExit = None,
    watch: Watch = False,
    as_json: AsJson = False,
    trace: TraceFile = None,
    raw: Raw = False,
    family: Family = None,
    adapter: Adapter = None,
    quantize: Quantize = None,
    dtype: Dtype = "auto",
    device: Device = None,
) -> None:
    """Fill the holes of a text."""
    params = _params(
        sampler, option, threshold, max_new_tokens=block_length, block_length=block_length,
        temperature=temperature, top_p=top_p, top_k=top_k, seed=seed, steps=steps, cache=cache,
        refresh_every=refresh_every, early_exit=early_exit,
    )  # fmt: skip
    engine = load_engine(model, dtype, family=family, adapter=adapter, quantize=quantize, device=device)
    row = engine.prepare_infill(template.replace("\\n", "\n"), params, prompt=prompt, chat=False if raw else None)
    _run(engine, [row], params, [template], model, watch, as_json, trace, ends=False)


def _read_prompts(prompts: list[str] | None) -> list[str]:
    if prompts and prompts != ["-"]:
        return prompts
    if not prompts and sys.stdin.isatty():
        raise InvalidInputError("prompt", None, "give one as an argument, or pipe it in")
    text = sys.stdin.read().rstrip("\n")
    return [text]


def _ids(text: str) -> list[int]:
    try:
        return [int(part) for part in text.replace(",", " ").split()]
    except ValueError:
        raise InvalidInputError("prompt", text, "with --ids, give integers separated by spaces") from None


def _params(sampler: str | None, option: list[str] | None, threshold: float | None, **given: Any) -> SamplingParams:
    from attn_sampler import samplers
    from attn_sampler.evals.chosen import read
    from attn_sampler.params import SamplingParams

    files = [read(text[1:]) for text in option or [] if text.startswith("@")]
    name = sampler or (files[0].sampler if files else "attention")
    options: dict[str, Any] = {}
    for found in files:
        if found.sampler != name:
            raise InvalidInputError("sampler", name, f"the file of -o @ is for {found.sampler!r}: leave out one of them")
        options |= found.options
    for text in option or []:
        if text.startswith("@"):
            continue
        key, equals, value = text.partition("=")
        if not equals:
            raise InvalidInputError("option", text, "write it as key=value, or @file for one that `calibrate` wrote")
        options[key] = samplers.parse_option(name, key, value)
    if threshold is not None:
        options["threshold"] = threshold
    return SamplingParams(sampler=name, **{k: v for k, v in given.items() if v is not None}, **options)


def load_engine(model: str | None, dtype: str, **given: Any) -> Engine:
    """The model of ``--model``."""
    from attn_sampler.engine import load

    hush()
    return load(model, dtype=dtype, **given)


def hush() -> None:
    """Keep what the libraries below print while loading off the terminal."""
    import logging

    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    for name in ("torchao", "torch.utils._pytree"):  # where torchao is installed: GPU kernels that do not load, enums
        logging.getLogger(name).setLevel(logging.ERROR)


def _run(
    engine: Engine,
    rows: Sequence[Any],
    params: SamplingParams,
    labels: list[str],
    model: str | None,
    watch: bool,
    as_json: bool,
    trace: Path | None,
    *,
    ends: bool,
) -> None:
    """Drain the rows into everything that follows them, then print the answers."""
    from attn_sampler.trace import TraceWriter
    from attn_sampler.view import Watch as View

    sinks: list[Any] = []
    view = None
    eos_ids = engine.model.eos_ids if ends else ()
    texts: dict[int, str] = {}

    def on_step(step: Step) -> None:
        texts[step.row] = texts.get(step.row, "") + step.delta
        for sink in sinks:
            sink.step(step)

    with ExitStack() as stack:
        if trace is not None:
            writer = TraceWriter(
                trace, piece=engine.piece, mask_id=engine.model.mask_id, params=params, eos_ids=eos_ids, prompts=labels,
                model=model or "embedded",
            )  # fmt: skip
            sinks.append(stack.enter_context(writer))
        if watch:
            delay = DEMO_DELAY_S if model is None else 0.0
            view = View(
                engine.piece, mask_id=engine.model.mask_id, eos_ids=eos_ids, sampler=params.sampler.name, labels=labels,
                delay_s=delay,
            )  # fmt: skip
            sinks.append(stack.enter_context(view))
        try:
            results = engine.run(rows, on_step=on_step)
        except KeyboardInterrupt:
            stack.close()
            typer.echo("interrupted; what had settled:", err=True)
            for text in texts.values():
                typer.echo(text)
            raise typer.Exit(1) from None
    for label, result in zip(labels, results, strict=True):
        if as_json:
            typer.echo(json.dumps({"prompt": label} | result.to_dict(), ensure_ascii=False))
        else:
            typer.echo(result.text if engine.tokenizer is not None else " ".join(map(str, result.token_ids)))
    forwards, tokens = sum(r.forwards for r in results), sum(r.completion_tokens for r in results)
    rate = f"{tokens / forwards:.2f} tokens per forward"
    seconds = max(r.elapsed_s for r in results) - (view.slept_s if view is not None else 0.0)
    typer.echo(f"{params.sampler.name}: {tokens} tokens in {forwards} forwards, {rate}, {seconds:.2f} s", err=True)


@app.command()
def samplers(as_json: AsJson = False) -> None:
    """List the samplers, their options with defaults, their papers."""
    from attn_sampler import samplers as registry

    found = [registry.describe(name) for name in registry.names()]
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for item in found:
        options = item["options"]
        assert isinstance(options, dict)
        shown = ", ".join(f"{k}={'none' if v is None else v}" for k, v in options.items())
        typer.echo(f"{item['name']}\n    {item['summary']}\n    {shown}\n    {item['paper']}")


@app.command()
def env() -> None:
    """Print versions and devices, for bug reports."""
    import platform
    from importlib.metadata import version

    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu, {torch.get_num_threads()} threads"
    packages = {name: version(name) for name in ("torch", "transformers", "tokenizers", "safetensors")}
    facts = {"attn-sampler": __version__, "python": platform.python_version(), **packages, "platform": platform.platform()}
    for name, value in (facts | {"device": device}).items():
        typer.echo(f"{name}: {value}")


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="A file written with --trace.")],
    html: Annotated[Path | None, typer.Option(metavar="OUT", help="Also write it as one standalone HTML page.")] = None,
    delay: Annotated[float, typer.Option(help="Seconds per forward pass.")] = 0.15,
) -> None:
    """Play a recorded run in the terminal."""
    from attn_sampler.replay import to_html
    from attn_sampler.trace import read
    from attn_sampler.view import replay_in_terminal

    trace = read(file)
    if html is not None:
        try:
            html.write_text(to_html(trace), encoding="utf-8")
        except OSError as error:
            raise InvalidInputError("html", str(html), f"cannot be written ({error.strerror})") from error
        typer.echo(f"wrote {html}", err=True)
    replay_in_terminal(trace, delay)


from attn_sampler import cli_ablate, cli_bench, cli_calibrate, cli_eval, cli_frequencies, cli_lab, cli_models  # noqa: E402, F401 (their commands need the app and the options above)


def main() -> None:
    """Entry point of the command."""
    try:
        app()
    except AttnSamplerError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2 if isinstance(error, InvalidInputError) else 1)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)

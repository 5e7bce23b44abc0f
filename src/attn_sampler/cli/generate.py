"""The commands that write text: new answers, and what fills the holes of a template."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attn_sampler.cli.loading import load_engine
from attn_sampler.cli.options import (
    BlockLength,
    CachePolicy,
    EarlyExit,
    Loading,
    MaxNewTokens,
    Model,
    Option,
    Output,
    Raw,
    RefreshEvery,
    RefreshTokens,
    Sampler,
    Seed,
    Steps,
    Stop,
    Temperature,
    Threshold,
    TopK,
    TopP,
    spread,
)  # fmt: skip
from attn_sampler.errors import InvalidInputError

if TYPE_CHECKING:
    from attn_sampler.engine import Engine
    from attn_sampler.params import SamplingParams
    from attn_sampler.results import Result, Step

__all__ = ["generate", "infill"]

DEMO_DELAY_S = 0.12  # a small model on a CPU fills a canvas faster than the eye can follow


@spread
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
    refresh_tokens: RefreshTokens = None,
    early_exit: EarlyExit = None,
    *,
    output: Output,
    raw: Raw = False,
    ids: Annotated[bool, typer.Option("--ids", help="Prompts are token ids, separated by spaces.")] = False,
    loading: Loading,
) -> None:
    """Answer prompts."""
    texts = _read_prompts(prompts)
    params = _params(
        sampler, option, threshold, model, max_new_tokens=max_new_tokens, block_length=block_length, steps=steps,
        temperature=temperature, top_p=top_p, top_k=top_k, seed=seed, stop=stop, cache=cache, refresh_every=refresh_every,
        refresh_tokens=refresh_tokens, early_exit=early_exit,
    )  # fmt: skip
    engine = load_engine(model, loading)
    given: list[Any] = [_ids(text) for text in texts] if ids else list(texts)
    rows = [engine.prepare(prompt, params, chat=False if raw else None) for prompt in given]
    _run(engine, rows, params, texts, model, output, ends=True)


@spread
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
    refresh_tokens: RefreshTokens = None,
    early_exit: EarlyExit = None,
    *,
    output: Output,
    raw: Raw = False,
    loading: Loading,
) -> None:
    """Fill the holes of a text."""
    params = _params(
        sampler, option, threshold, model, max_new_tokens=block_length, block_length=block_length,
        temperature=temperature, top_p=top_p, top_k=top_k, seed=seed, steps=steps, cache=cache,
        refresh_every=refresh_every, refresh_tokens=refresh_tokens, early_exit=early_exit,
    )  # fmt: skip
    engine = load_engine(model, loading)
    row = engine.prepare_infill(template.replace("\\n", "\n"), params, prompt=prompt, chat=False if raw else None)
    _run(engine, [row], params, [template], model, output, ends=False)


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


def _params(
    sampler: str | None, option: list[str] | None, threshold: float | None, model: str | None, **given: Any
) -> SamplingParams:
    from attn_sampler import samplers
    from attn_sampler.evals.chosen import elsewhere, read
    from attn_sampler.params import SamplingParams

    files = [read(text[1:]) for text in option or [] if text.startswith("@")]
    for text, found in zip((text for text in option or [] if text.startswith("@")), files, strict=True):
        for note in elsewhere(text[1:], found, model or "embedded"):
            typer.echo(note, err=True)
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


def _run(
    engine: Engine,
    rows: Sequence[Any],
    params: SamplingParams,
    labels: list[str],
    model: str | None,
    output: Output,
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
        if output.trace is not None:
            writer = TraceWriter(
                output.trace, piece=engine.piece, mask_id=engine.model.mask_id, params=params, eos_ids=eos_ids, prompts=labels,
                model=model or "embedded",
            )  # fmt: skip
            sinks.append(stack.enter_context(writer))
        if output.watch:
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
    _print(engine, params, labels, results, output.as_json, view.slept_s if view is not None else 0.0)


def _print(
    engine: Engine, params: SamplingParams, labels: list[str], results: Sequence[Result], as_json: bool, slept_s: float
) -> None:
    """The answers, and on stderr what they took; ``slept_s`` was spent for the eye."""
    for label, result in zip(labels, results, strict=True):
        if as_json:
            typer.echo(json.dumps({"prompt": label} | result.to_dict(), ensure_ascii=False))
        else:
            typer.echo(result.text if engine.tokenizer is not None else " ".join(map(str, result.token_ids)))
    forwards, tokens = sum(r.forwards for r in results), sum(r.completion_tokens for r in results)
    rate = f"{tokens / forwards:.2f} tokens per forward"
    seconds = max(r.elapsed_s for r in results) - slept_s
    typer.echo(f"{params.sampler.name}: {tokens} tokens in {forwards} forwards, {rate}, {seconds:.2f} s", err=True)

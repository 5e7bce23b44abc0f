"""The engine as a model of lm-evaluation-harness: ``lm_eval --model attn_sampler --model_args pretrained=...,sampler=...``."""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import lm_eval.models  # noqa: F401  # pyright: ignore[reportMissingImports]
import torch
from lm_eval.api.model import TemplateLM  # pyright: ignore[reportMissingImports]
from lm_eval.api.registry import model_registry  # pyright: ignore[reportMissingImports]
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window  # pyright: ignore[reportMissingImports]
from tqdm import tqdm

from attn_sampler import __version__, samplers
from attn_sampler.engine import Engine, load
from attn_sampler.errors import InvalidInputError, UnknownNameError
from attn_sampler.evals.estimate import Estimate, Likelihood
from attn_sampler.evals.lm_eval.generation import params_of, typed
from attn_sampler.params import SamplingParams

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance  # pyright: ignore[reportMissingImports]

__all__ = ["AttnSamplerLM"]

NAME = "attn_sampler"
MODEL = ("family", "dtype", "device_map", "mask_id", "revision", "adapter", "quantize", "tp_plan")  # of attn_sampler.load
LIKELIHOOD = {"likelihood": "method", "mc_num": "draws", "check_greedy": "check_greedy"}  # ours → Likelihood's
MAX_ROWS = 32
logger = logging.getLogger("lm_eval.attn_sampler")  # below lm-eval's own, so that it speaks where lm-eval does


class AttnSamplerLM(TemplateLM):
    """Any model that `attn_sampler.load` takes, with any sampler.

    Args:
        pretrained: checkpoint directory or Hub id; None, or ``"embedded"``, for the model inside the package.
        batch_size: rows that share a forward pass at most; ``"auto"`` is 32.
        device: lm-eval says ``cuda:0`` unless told otherwise; without CUDA that is the CPU.
        max_batch_size, trust_remote_code: lm-eval hands them to every model. Batches need no upper limit of their own, and no
            code of a checkpoint is ever run.
        arguments: of `attn_sampler.load` (family, dtype, device_map, mask_id, revision, adapter, quantize, tp_plan); of
            `Likelihood` (``likelihood``, its method; ``mc_num``, its draws; check_greedy); all others as `SamplingParams` takes
            them, ``seed`` (0) and ``cfg_scale`` being the likelihood's too.

    Attributes:
        engine: what runs.
        estimates: of every log-likelihood so far, in the order of the requests: values, standard errors, canvases.
    """

    def __init__(
        self,
        pretrained: str | None = None,
        *,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
        trust_remote_code: bool = False,
        **arguments: Any,
    ) -> None:
        super().__init__()
        self._own = self._sampling(arguments)
        said = {ours: arguments[theirs] for theirs, ours in LIKELIHOOD.items() if theirs in arguments}
        self._how = Likelihood(seed=self._own.get("seed", 0), cfg_scale=self._own.get("cfg_scale", 0.0), **said)
        self._pretrained = pretrained or "embedded"
        self.engine = load(
            None if self._pretrained == "embedded" else pretrained,
            device=_device(device, "device_map" in arguments),
            max_rows=_rows(batch_size),
            **{name: arguments[name] for name in MODEL if name in arguments},
        )
        self.tokenizer = _tokenizer(self.engine)
        self._lead, self._tail = self._specials()
        self.estimates: list[Estimate] = []

    @staticmethod
    def _sampling(arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments that are `SamplingParams`'; tried at once, so that a misspelt one does not wait for the model."""
        sampler = arguments.get("sampler", "attention")
        options = {f.name for f in dataclasses.fields(samplers.find(sampler) if isinstance(sampler, str) else sampler)}
        sampling = {f.name for f in dataclasses.fields(SamplingParams)} - {"stop"} | options
        for name in arguments:
            if name not in {*sampling, *MODEL, *LIKELIHOOD}:
                raise UnknownNameError("model argument", name, {*sampling, *MODEL, *LIKELIHOOD, "pretrained"})
        own = typed({name: value for name, value in arguments.items() if name in sampling})
        lengths = () if "max_new_tokens" in own else ("block_length", "steps")  # to be tried with each request's own
        SamplingParams(**{name: value for name, value in own.items() if name not in lengths})
        return own

    # --- text and tokens ----------------------------------------------------------------------------------------------

    @property
    def eot_token_id(self) -> int:
        """Ends an answer."""
        if not self.engine.model.eos_ids:
            raise InvalidInputError("pretrained", self._pretrained, "it names no end-of-sequence token")
        return self.engine.model.eos_ids[0]

    @property
    def prefix_token_id(self) -> int:
        """What a text without a prompt is behind."""
        begin = self.tokenizer.bos_token_id
        return self.eot_token_id if begin is None else begin

    @property
    def max_length(self) -> int:
        """Longest canvas."""
        return self.engine.model.context_length

    @property
    def tokenizer_name(self) -> str:
        """In the names of lm-eval's request caches."""
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The messages as the checkpoint's template writes them; open for an answer, or for the last message to go on."""
        if not self.tokenizer.chat_template:
            raise InvalidInputError("apply_chat_template", True, f"{self._pretrained} has no chat template: leave it out")
        return self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Ids of a text. The tokenizer's own tokens: none (False), those in front (None), or those behind too (True).

        A text that begins with those in front, as a chat template's does, gets none.
        """
        plain = list(self.tokenizer.encode(string, add_special_tokens=False))
        if add_special_tokens is False or (self._lead and plain[: len(self._lead)] == self._lead):
            return plain
        return [*self._lead, *plain, *(self._tail if add_special_tokens else [])]

    def _specials(self) -> tuple[list[int], list[int]]:
        """What the tokenizer puts before and behind a text."""
        plain, whole = (list(self.tokenizer.encode("a", add_special_tokens=special)) for special in (False, True))
        start = next((i for i in range(len(whole)) if whole[i : i + len(plain)] == plain), 0)
        return whole[:start], whole[start + len(plain) :]

    # --- what lm-eval asks for ----------------------------------------------------------------------------------------

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """The answers, in the order of the requests. All of them are admitted, hence checked, before the first forward pass."""
        texts: dict[int, str] = {}
        running: dict[int, int] = {}
        copies: Counter[str] = Counter()
        try:
            for index, request in enumerate(requests):
                args: tuple[Any, ...] = request.args
                context, asked = args
                same = repr((context, asked))
                params = params_of(self._own, asked, context, copies[same])
                copies[same] += 1
                running[self.engine.admit(self.tok_encode(context, True), params)] = index
            with tqdm(total=len(requests), disable=disable_tqdm, desc="Running generate_until requests") as bar:
                while running:
                    for step in self.engine.step():
                        if step.result is not None:
                            index = running.pop(step.row)
                            texts[index] = step.result.text
                            self.cache_hook.add_partial("generate_until", requests[index].args, step.result.text)
                            bar.update()
        finally:
            for row in running:
                self.engine.cancel(row)
        return [texts[index] for index in range(len(requests))]

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[tuple[str, str] | None, list[int], list[int]]], disable_tqdm: bool = False, **kwargs: Any
    ) -> list[tuple[float, bool]]:
        out = []
        for given, context, continuation in tqdm(requests, disable=disable_tqdm, desc="Running loglikelihood requests"):
            estimate, greedy = self._how.of(self.engine.model, context, continuation, self.engine.max_rows)
            out.append((estimate.value, greedy))
            self.estimates.append(estimate)
            if given is not None:
                self.cache_hook.add_partial("loglikelihood", given, out[-1])
        self._say(self.estimates[len(self.estimates) - len(out) :])
        return out

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of whole texts behind the prefix token, a longer text as windows of the context length that add up."""
        how = dataclasses.replace(self._how, check_greedy=False)
        out: list[float] = []
        for request in tqdm(requests, disable=disable_tqdm, desc="Running loglikelihood_rolling requests"):
            (text,) = request.args
            ids = self.tok_encode(text, add_special_tokens=False)
            # the canvas holds what is predicted too, unlike a causal model's input: one less than its length
            windows = get_rolling_token_windows(ids, self.prefix_token_id, self.max_length - 1, 1)
            found = Estimate(0.0, 0.0, 0)
            for window in windows:
                context, continuation = make_disjoint_window(window)
                found += how.of(self.engine.model, context, continuation, self.engine.max_rows)[0]
            self.estimates.append(found)
            out.append(found.value)
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, found.value)
        self._say(self.estimates[len(self.estimates) - len(out) :])
        return out

    # --- what is told about it ----------------------------------------------------------------------------------------

    def get_model_info(self) -> dict[str, Any]:
        """For the ``config`` of lm-eval's results."""
        return {
            "attn_sampler": __version__,
            "sampling": {name: _plain(value) for name, value in self._own.items()},
            "likelihood": dataclasses.asdict(self._how) | _summary(self.estimates),
        }

    def _say(self, estimates: list[Estimate]) -> None:
        found = _summary(estimates)
        if not found["requests"]:
            return
        mean, most = (found[f"standard_error_{name}"] for name in ("mean", "max"))
        size = "unknown (one draw)" if mean is None else f"{mean:.4g} nats on average, {most:.4g} at most"
        logger.info("%s log-likelihood of %d requests: standard error %s", self._how.method, found["requests"], size)


def _summary(estimates: Iterable[Estimate]) -> dict[str, Any]:
    errors = [estimate.standard_error for estimate in estimates]
    known = [error for error in errors if error is not None]
    mean, most = (sum(known) / len(known), max(known)) if known and len(known) == len(errors) else (None, None)
    return {"requests": len(errors), "standard_error_mean": mean, "standard_error_max": most}


def _plain(value: object) -> object:
    """For JSON."""
    return value if isinstance(value, (str, int, float, list, tuple)) else repr(value)


def _tokenizer(engine: Engine) -> Any:
    if engine.tokenizer is None:
        raise InvalidInputError("pretrained", "a checkpoint without a tokenizer", "lm-eval asks in text: give one that has it")
    return engine.tokenizer


def _device(device: str | None, mapped: bool) -> str | None:
    """lm-eval's default asks for a GPU even where there is none, and beside any device map."""
    if device == "cuda:0" and (mapped or not torch.cuda.is_available()):
        if not mapped:
            logger.warning("no CUDA device here: running on the CPU")
        return None
    return device


def _rows(batch_size: int | str | None) -> int:
    if batch_size is None or str(batch_size).startswith("auto"):
        return MAX_ROWS
    if not str(batch_size).isdigit():
        raise InvalidInputError("batch_size", batch_size, 'give a number of rows or "auto"')
    return int(batch_size)


# lm-eval's own models stand before it (imported above): the table of a registry that is not empty is never filled.
if NAME not in model_registry:  # newer releases have it from our entry point
    model_registry.register(NAME, target=AttnSamplerLM)

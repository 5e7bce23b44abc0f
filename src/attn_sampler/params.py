"""What one row is asked to do: frozen, validated once, the only home of the defaults."""

from __future__ import annotations

import dataclasses
import secrets
from dataclasses import dataclass
from typing import Any

from attn_sampler import exits, samplers
from attn_sampler.errors import InvalidInputError, UnknownNameError, check_choice, check_number
from attn_sampler.seam import EarlyExit, Sampler

__all__ = ["SamplingParams"]

POLICIES = ("none", "block", "sub-block", "prefix", "dual")  # of the KV cache, see cache.py
BLOCK_LENGTH = 32  # unless told, the last block shorter where it does not divide
LOWEST_TEMPERATURE = 1e-6  # below it logits / temperature overflows, and it is argmax anyway


@dataclass(frozen=True, init=False)
class SamplingParams:
    """Parameters of one row. Any keyword that is none of these is an option of the sampler, e.g. ``threshold=0.9``.

    Attributes:
        sampler: the sampler with its options (built from a name and the remaining keywords).
        max_new_tokens: masks appended to the prompt, tokens.
        block_length: blocks are finished left to right; must divide ``max_new_tokens``. None: at most 32. A block-causal
            model's blocks are its own, counted from position 0.
        steps: total forward passes at most, an equal share per block (so a multiple of the number of blocks); every step then
            commits at least LLaDA's quota. More steps than masks owe no more than one commit each: they leave room to
            samplers that take tokens back, and stretch the schedules of ``dream`` and of early exits.
            Unset: as many as the sampler takes, at least one commit each.
        temperature: 0 takes the most likely token.
        top_p: nucleus that noise may choose from, in (0, 1].
        top_k: number of tokens that noise may choose from, 0 for all.
        seed: of the row's own random numbers; drawn once, and kept here, when not given.
        stop: strings that end the text (they are not part of it).
        ignore_eos: go on after an end-of-sequence token and keep everything.
        cfg_scale: classifier-free guidance (LLaDA), logits = l_u + (1 + cfg_scale)(l_c - l_u); 0 for none.
        logits_eos_inf: the end-of-sequence token is never proposed (LLaDA).
        confidence_eos_eot_inf: end tokens count as confidence 0, so they are committed last (LLaDA).
        cache: KV cache policy (`attn_sampler.cache`): ``"none"``, ``"block"``, ``"sub-block"``, ``"prefix"`` or ``"dual"``. None:
            ``"block"`` for a block-causal model, where it is exact, ``"none"`` for the others.
        refresh_every: forward passes within a block after which ``"prefix"`` and ``"dual"`` compute the whole canvas again.
        refresh_tokens: tokens written (or taken back) since these last did so, after which they do it again; of both the first.
        early_exit: a test beside the sampler that may fill all masks at once: a name (``"prophet"``), a name with options
            (``"sched:mode=linear,high=6"``) or an `attn_sampler.seam.EarlyExit`.
    """

    sampler: Sampler
    max_new_tokens: int
    block_length: int | None
    steps: int | None
    temperature: float
    top_p: float
    top_k: int
    seed: int
    stop: tuple[str, ...]
    ignore_eos: bool
    cfg_scale: float
    logits_eos_inf: bool
    confidence_eos_eot_inf: bool
    cache: str | None
    refresh_every: int | None
    refresh_tokens: int | None
    early_exit: EarlyExit | None

    def __init__(
        self,
        *,
        sampler: str | Sampler = "attention",
        max_new_tokens: int = 64,
        block_length: int | None = None,
        steps: int | None = None,
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int = 0,
        seed: int | None = None,
        stop: str | tuple[str, ...] | list[str] = (),
        ignore_eos: bool = False,
        cfg_scale: float = 0.0,
        logits_eos_inf: bool = False,
        confidence_eos_eot_inf: bool = False,
        cache: str | None = None,
        refresh_every: int | None = None,
        refresh_tokens: int | None = None,
        early_exit: str | EarlyExit | None = None,
        **options: Any,
    ) -> None:
        own = {f.name for f in dataclasses.fields(SamplingParams)}
        check_number("max_new_tokens", max_new_tokens, low=1, integer=True)
        if block_length is not None:
            check_number("block_length", block_length, low=1, integer=True)
            if max_new_tokens % block_length:
                raise InvalidInputError("block_length", block_length, f"must divide max_new_tokens={max_new_tokens}")
        if steps is not None:
            check_number("steps", steps, low=1, integer=True)
        check_number("temperature", temperature, low=0)
        if 0 < temperature < LOWEST_TEMPERATURE:
            raise InvalidInputError("temperature", temperature, f"give 0, or at least {LOWEST_TEMPERATURE}")
        check_number("top_p", top_p, low=0, high=1, open_low=True)
        check_number("top_k", top_k, low=0, integer=True)
        if seed is not None:
            check_number("seed", seed, low=0, high=2**63 - 1, integer=True)
        check_number("cfg_scale", cfg_scale, low=0)
        for name, flag in (
            ("ignore_eos", ignore_eos),
            ("logits_eos_inf", logits_eos_inf),
            ("confidence_eos_eot_inf", confidence_eos_eot_inf),
        ):
            if not isinstance(flag, bool):
                raise InvalidInputError(name, flag, "give True or False")
        if cache is not None:
            check_choice("cache", cache, POLICIES)
        for name, count in (("refresh_every", refresh_every), ("refresh_tokens", refresh_tokens)):
            if count is not None:
                check_number(name, count, low=1, integer=True)
                if cache not in ("prefix", "dual"):
                    raise InvalidInputError(name, count, 'only cache="prefix" and cache="dual" grow stale')
        if cfg_scale > 0 and cache not in (None, "none"):
            raise InvalidInputError("cache", cache, 'guidance (cfg_scale) works with cache="none" only')
        leaves = None if early_exit is None else exits.build(early_exit)
        if leaves is not None and cache not in (None, "none"):
            raise InvalidInputError("cache", cache, 'an early exit looks at the whole answer in every pass: give "none"')
        stops = (stop,) if isinstance(stop, str) else stop
        if not isinstance(stops, (tuple, list)) or not all(isinstance(text, str) and text for text in stops):
            raise InvalidInputError("stop", stop, "give a string or a list of strings, none of them empty")
        values = {
            "sampler": _build(sampler, options, own), "max_new_tokens": max_new_tokens, "block_length": block_length,
            "steps": steps, "temperature": float(temperature), "top_p": float(top_p), "top_k": top_k,
            "seed": secrets.randbits(63) if seed is None else seed, "stop": tuple(stops), "ignore_eos": ignore_eos,
            "cfg_scale": float(cfg_scale), "logits_eos_inf": logits_eos_inf,
            "confidence_eos_eot_inf": confidence_eos_eot_inf, "cache": cache, "refresh_every": refresh_every,
            "refresh_tokens": refresh_tokens, "early_exit": leaves,
        }  # fmt: skip
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def positions_per_block(self) -> int:
        """`block_length`, or its default."""
        if self.block_length is not None:
            return self.block_length
        return self.max_new_tokens if self.sampler.needs.one_block else min(BLOCK_LENGTH, self.max_new_tokens)

    def to_dict(self) -> dict[str, Any]:
        """All values as plain JSON types, the sampler as its name with its options beside it."""
        out = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        if self.early_exit is not None:
            out["early_exit"] = {"name": self.early_exit.name, "options": dataclasses.asdict(self.early_exit)}  # type: ignore[call-overload]
        return out | {"sampler": self.sampler.name, "options": dataclasses.asdict(self.sampler), "stop": list(self.stop)}  # type: ignore[call-overload]


def _build(sampler: str | Sampler, options: dict[str, Any], own: set[str]) -> Sampler:
    if isinstance(sampler, str) and options:
        known = {f.name for f in dataclasses.fields(samplers.find(sampler))}
        for option in options:
            if option not in known:  # a misspelt parameter just as well as a misspelt option
                raise UnknownNameError(f"parameter (sampler {sampler!r})", option, known | own)
    return samplers.build(sampler, options)

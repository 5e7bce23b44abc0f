"""The samplers, one short file each, and the registry that finds them by name.

A name resolves lazily, so listing names imports no sampler. Packages add their own through the entry-point group
``attn_sampler.samplers`` (name → a frozen dataclass that follows `attn_sampler.seam.Sampler`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cache
from typing import Any

from attn_sampler.errors import InvalidInputError, UnknownNameError
from attn_sampler.options import parse
from attn_sampler.registry import Registry, check_hash, check_object
from attn_sampler.seam import Sampler

__all__ = ["build", "describe", "names", "parse_option"]

BUILT_IN = {
    "adas": "adas:Adas",
    "attention": "attention:AttentionParallel",
    "attention-exact": "attention_exact:ExactParallel",
    "attention-exact-sequential": "attention_exact:ExactSequential",
    "attention-fixed": "attention_fixed:AttentionFixed",
    "attention-net": "attention_net:NetParallel",
    "attention-net-sequential": "attention_net:NetSequential",
    "attention-sequential": "attention:AttentionSequential",
    "clad": "clad:Clad",
    "confidence": "confidence:Confidence",
    "credit": "credit:Credit",
    "dapd": "dapd:Dapd",
    "dawn": "dawn:Dawn",
    "dcd": "dcd:DeferredCommitment",
    "dinfer": "dinfer:DInferThreshold",
    "dinfer-hierarchy": "dinfer:DInferHierarchy",
    "dos": "dos:Dos",
    "dream": "dream:Dream",
    "eb": "eb:EntropyBounded",
    "entropy": "entropy:Entropy",
    "fast-dllm": "fast_dllm:FastDllmThreshold",
    "fast-dllm-factor": "fast_dllm:FastDllmFactor",
    "fast-dllm-v2": "fast_dllm_v2:FastDllmV2",
    "klass": "klass:Klass",
    "llada2": "llada2:Llada2",
    "left-to-right": "left_to_right:LeftToRight",
    "localleap": "localleap:LocalLeap",
    "margin": "margin:Margin",
    "pc-sampler": "pc_sampler:PcSampler",
    "random": "random:Random",
    "remdm": "remdm:ReMdm",
    "slowfast": "slowfast:SlowFast",
    "wino": "wino:Wino",
}
REGISTRY = Registry("sampler", __name__, "attn_sampler.samplers", BUILT_IN, Sampler)


def names() -> list[str]:
    """Every registered name, built in and from entry points, sorted."""
    return REGISTRY.names()


@cache
def find(name: str) -> type[Any]:
    """The sampler class registered under ``name``."""
    return REGISTRY.find(name)


def build(sampler: str | Sampler, options: Mapping[str, object]) -> Sampler:
    """The sampler of this name with these options; an instance is taken as it is."""
    if isinstance(sampler, str):
        kind = find(sampler)
        known = [f.name for f in dataclasses.fields(kind)]
        for option in options:
            if option not in known:
                raise UnknownNameError(f"option of sampler {sampler!r}", option, known)
        built: Sampler = kind(**options)
    else:
        check_object("sampler", sampler, Sampler, "give a name or a frozen dataclass object with name, paper, needs and select")
        if options:
            raise InvalidInputError("options", dict(options), "set the options on the sampler object itself")
        built = sampler
    check_hash("sampler", sampler, built, "sampler")
    return built


def parse_option(sampler: str, option: str, text: str) -> object:
    """An option's value from the text of ``-o option=text``, by the option's declared type."""
    return parse(f"sampler {sampler!r}", find(sampler), option, text)


def describe(name: str) -> dict[str, object]:
    """Name, one-line summary, paper and options with their defaults."""
    kind = find(name)
    options = {f.name: None if f.default is dataclasses.MISSING else f.default for f in dataclasses.fields(kind)}
    return {"name": name, "summary": (kind.__doc__ or "").strip().split("\n")[0], "paper": kind.paper, "options": options}

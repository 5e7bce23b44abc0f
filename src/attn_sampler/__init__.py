"""Attention-guided sampling for diffusion language models.

    import attn_sampler as ats
    engine = ats.load()
    print(engine.generate(["Tom has 3 apples. He buys 4 more. How many apples does Tom have?"])[0].text)

Names resolve on first use, so that importing the package (and the command's ``--help``) does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from attn_sampler.engine import Engine, load
    from attn_sampler.errors import (
        AttnSamplerError,
        CheckpointError,
        EntryPointError,
        InvalidInputError,
        MissingDependencyError,
        ModelOutputError,
        RowError,
        SamplerError,
        TooLongError,
        UnknownNameError,
    )
    from attn_sampler.frequencies import Frequencies
    from attn_sampler.params import SamplingParams
    from attn_sampler.results import Result, Step
    from attn_sampler.text import Hole, text_deltas

_HOME = {
    "AttnSamplerError": "errors",
    "CheckpointError": "errors",
    "Engine": "engine",
    "EntryPointError": "errors",
    "Frequencies": "frequencies",
    "Hole": "text",
    "InvalidInputError": "errors",
    "MissingDependencyError": "errors",
    "ModelOutputError": "errors",
    "Result": "results",
    "RowError": "errors",
    "SamplerError": "errors",
    "SamplingParams": "params",
    "Step": "results",
    "TooLongError": "errors",
    "UnknownNameError": "errors",
    "load": "engine",
    "text_deltas": "text",
}

__all__ = [
    "AttnSamplerError",
    "CheckpointError",
    "Engine",
    "EntryPointError",
    "Frequencies",
    "Hole",
    "InvalidInputError",
    "MissingDependencyError",
    "ModelOutputError",
    "Result",
    "RowError",
    "SamplerError",
    "SamplingParams",
    "Step",
    "TooLongError",
    "UnknownNameError",
    "__version__",
    "load",
    "text_deltas",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__

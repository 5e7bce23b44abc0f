"""The engine that a command asks for; nothing heavy is imported before that."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from attn_sampler.cli.options import Loading

if TYPE_CHECKING:
    from attn_sampler.engine import Engine

__all__ = ["hush", "load_engine", "own"]


def load_engine(model: str | None, loading: Loading, **more: Any) -> Engine:
    """The model of ``--model`` (``embedded`` is the one in the package), loaded as the other options say.

    Args:
        more: as `attn_sampler.load` takes it.
    """
    from attn_sampler.engine import load

    hush()
    return load(own(model), **dataclasses.asdict(loading), **more)


def own(model: str | None) -> str | None:
    """None for the embedded model, also under the name that reports give it; a folder of that name is ``./embedded``."""
    return None if model == "embedded" else model


def hush() -> None:
    """Keep what the libraries below print while loading off the terminal."""
    import logging

    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    for name in ("torchao", "torch.utils._pytree"):  # where torchao is installed: GPU kernels that do not load, enums
        logging.getLogger(name).setLevel(logging.ERROR)

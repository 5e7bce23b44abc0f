"""Set-up shared by all tests: shapes are checked while they run, nothing is random, nothing is downloaded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, runtime_checkable

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported: it reads the variable once

import jaxtyping
import pytest
import torch
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from attn_sampler import Engine

# Every module whose signatures name tensor shapes is checked. The edges (params, engine, text, the samplers' options) are
# not: there the library itself must answer wrong types with its own errors, and tests hand them in on purpose.
SHAPED = (
    "canvas", "blocks", "rng", "propose", "seam", "scores", "rules", "orders", "attention", "state", "asked", "report",
    "batch", "models.seam", "models.adapter", "evals.likelihood", "evals.statistics",
)  # fmt: skip
jaxtyping.install_import_hook([f"attn_sampler.{name}" for name in SHAPED], "typecheck.typechecked")

from attn_sampler.models.seam import Model  # noqa: E402 (the hook has to stand before it)

runtime_checkable(Model)  # beartype looks at protocols with isinstance

settings.register_profile(
    "fixed", derandomize=True, deadline=None, max_examples=40, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("fixed")
torch.set_num_threads(1)  # one order of summation on every machine, and no quarrel over cores

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def golden() -> Path:
    return GOLDEN


@pytest.fixture(scope="session")
def llada_gqa() -> Engine:
    """Two key heads for four query heads."""
    import attn_sampler as ats

    return ats.load(GOLDEN / "models" / "llada_gqa", device="cpu")


@pytest.fixture(scope="session")
def llada_mha() -> Engine:
    import attn_sampler as ats

    return ats.load(GOLDEN / "models" / "llada_mha", device="cpu")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Layout → a tiny checkpoint of it, written once. Copy it before spoiling it."""
    from attn_sampler.models.tiny import write

    written: dict[str, Path] = {}

    def folder(layout: str) -> Path:
        if layout not in written:
            written[layout] = tmp_path_factory.mktemp(layout)
            write(layout, written[layout])
        return written[layout]

    return folder

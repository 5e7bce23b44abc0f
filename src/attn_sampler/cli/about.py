"""The commands that say what there is: samplers, versions."""

from __future__ import annotations

import json

import typer

from attn_sampler import __version__
from attn_sampler.cli.options import AsJson
from attn_sampler.errors import EntryPointError

__all__ = ["env", "samplers"]


def samplers(as_json: AsJson = False) -> None:
    """List the samplers, their options with defaults, their papers. Those of other packages that are broken go to stderr."""
    from attn_sampler import samplers as registry

    found: list[dict[str, object]] = []
    for name in registry.names():
        try:
            found.append(registry.describe(name))
        except EntryPointError as error:
            typer.echo(f"left out: {error}", err=True)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for item in found:
        options = item["options"]
        assert isinstance(options, dict)
        shown = ", ".join(f"{k}={'none' if v is None else v}" for k, v in options.items())
        typer.echo(f"{item['name']}\n    {item['summary']}\n    {shown}\n    {item['paper']}")


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

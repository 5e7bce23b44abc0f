"""lm-eval's own command, knowing ``--model attn_sampler``: for releases that do not look for models in other packages.

lm-eval up to 0.4.13 finds models in its own table only. Later ones read the entry-point group ``lm_eval.models``, in which this
package names its model too, so that plain ``lm_eval`` does.
"""

from __future__ import annotations

import sys

from attn_sampler.errors import AttnSamplerError, MissingDependencyError

__all__ = ["main"]


def main() -> None:
    """Run ``lm_eval`` with the arguments of this process; exit code 1 on this library's errors, without a traceback."""
    try:
        try:
            from lm_eval.__main__ import cli_evaluate  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]
        except ModuleNotFoundError as error:
            raise MissingDependencyError(error.name or "lm-eval", "eval") from error
        import attn_sampler.evals.lm_eval.model  # noqa: F401 (it registers itself)

        cli_evaluate()
    except AttnSamplerError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

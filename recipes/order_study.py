"""The order laboratory's published figures: docs/results/orders.{json,md}, docs/images/orders.svg, the example in docs/orders.md.

    python recipes/order_study.py [--n 40] [--records runs/orders.jsonl]

Held-out problems of both tasks, embedded model. Records are kept as they are made, so that a run can be taken up again; a file of
other weights is refused, so take another one (or delete it) after the weights have changed.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from typer.testing import CliRunner

import attn_sampler as ats
from attn_sampler import plots
from attn_sampler.cli import app
from attn_sampler.evals.order import Settings, measure, summary, task_items

PROMPT, TARGET = "Tom has 3 apples. He buys 4 more. How many apples does Tom have?", "3 + 4 = 7"
DOCS = Path(__file__).parents[1] / "docs"
COLUMNS = (
    ("surrogate_gain", "surrogate"), ("log_likelihood", "log-likelihood"), ("regret", "regret"), ("over_random", "over random"),
)  # fmt: skip
EXPLAINED = """`surrogate`: share of the greatest possible improvement on an average order by Σ_j Σ_{i before j} A_ij (1 is its
exact optimum). `log-likelihood` of the reference answer in nats; `regret`: the best order's minus it; `over random`: it minus the
mean of the prompt's random orders. `rank correlation`: Spearman's, of surrogate and gap over a prompt's random orders, mean over
prompts; 1 if the surrogate ranks orders rightly. Brackets: 95 % percentile bootstrap over prompts, 2000 resamples. *Re-computed*
orders look at a new forward pass for every position, the other orders by attention at one of the masked answer."""


def cell(values: Sequence[float | None]) -> str:
    mean, low, high = values
    return "–" if mean is None else f"{mean:z.2f} ({low:z.2f} – {high:z.2f})"


def page(groups: Sequence[dict[str, Any]], conditions: str) -> str:
    """The tables in Markdown."""
    parts = [
        "# Orders, measured",
        "",
        "Made by `python recipes/order_study.py`. [What it means](../orders.md).",
        "",
        EXPLAINED,
        "",
    ]
    parts += [conditions, ""]
    for group in groups:
        best = "exact, over all orders" if group["best"] == "exact" else "of the orders tried"
        parts += [f"## {group['task']}, {group['tokens']} tokens", ""]
        parts += [
            f"{group['prompts']} prompts; full-context ideal {cell(group['ideal'])}; rank correlation "
            f"{cell(group['rank_correlation'])}; best order: {best}.", "",
        ]  # fmt: skip
        parts += ["| order | " + " | ".join(title for _, title in COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
        for name, cells in group["orders"].items():
            parts.append(f"| {name} | " + " | ".join(cell(cells[key]) for key, _ in COLUMNS) + " |")
        parts.append("")
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=40, help="problems of each task")
    parser.add_argument("--records", type=Path, default=Path("runs/orders.jsonl"))
    args = parser.parse_args()
    engine, settings = ats.load(), Settings()
    items = task_items(engine, ["sudoku4", "word"], args.n, settings.seed)
    records = []
    for record in measure(engine, items, settings, args.records):
        records.append(record)
        print(f"\r{len(records)} of {len(items)}", end="", file=sys.stderr, flush=True)
    groups = summary(records, settings.seed)
    facts = {
        "n": args.n, "max_new_tokens": settings.max_new_tokens, "random_orders": settings.random_orders, "norm": settings.norm,
        "seed": settings.seed, "dtype": "float32", "torch": torch.__version__, "machine": platform.machine(),
    }  # fmt: skip
    (DOCS / "results" / "orders.json").write_text(json.dumps({"conditions": facts, "groups": groups}, indent=1) + "\n")
    told = (
        f"Conditions: embedded model, {args.n} held-out problems of each task, reference answers at the beginning of "
        f"{settings.max_new_tokens} masks, {settings.random_orders} random orders per prompt, attention {settings.norm}, mean "
        f"over layers and heads, seed {settings.seed}, float32, CPU, torch {torch.__version__}."
    )
    (DOCS / "results" / "orders.md").write_text(page(groups, told), encoding="utf-8")
    plots.save(plots.order_laboratory(groups), DOCS / "images" / "orders.svg")
    example = CliRunner().invoke(app, ["order", PROMPT, "--target", TARGET], catch_exceptions=False).stdout.strip()
    text = (DOCS / "orders.md").read_text(encoding="utf-8")
    text = re.sub(r"(?<=```text\n).*?(?=\n```)", lambda _: example, text, count=1, flags=re.DOTALL)
    (DOCS / "orders.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

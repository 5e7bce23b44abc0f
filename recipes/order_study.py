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
from attn_sampler.evals.order import Settings, measure, task_items
from attn_sampler.evals.order_summary import summary

PROMPT, TARGET = "Tom has 3 apples. He buys 4 more. How many apples does Tom have?", "3 + 4 = 7"
DOCS = Path(__file__).parents[1] / "docs"
COLUMNS = (
    ("surrogate", "surrogate"), ("surrogate_gain", "gain"), ("log_likelihood", "log-likelihood"), ("gap", "gap"),
    ("regret", "regret"), ("over_random", "over random"),
)  # fmt: skip
EXPLAINED = """`surrogate`: Σ_j Σ_{i before j} A_ij, the attention that the order costs. `gain`: share of the greatest possible
improvement on an average order by it (1 is its exact optimum). `log-likelihood` of the reference answer in nats; `gap`: the
full-context ideal minus it; `regret`: the best order's minus it; `over random`: it minus the mean of the prompt's random orders.
`rank correlation`: Spearman's, of surrogate and gap over a prompt's orders, mean over prompts; 1 if the surrogate ranks orders
rightly; over its random orders, and over the named ones (equal orders once, without `best`, which the likelihood itself chose).
Brackets: 95 % percentile bootstrap over prompts, 2000 resamples. *Re-computed* orders look at a new forward pass for every
position, the other orders by attention at one of the masked answer. Where a table is of all lengths, nats and surrogate are per
token of the target."""


def cell(values: Sequence[float | None], digits: int = 2) -> str:
    mean, low, high = values
    if mean is None:
        return "–"
    shown = f"{mean:z.{digits}f}"
    return shown if low is None or high is None else f"{shown} ({low:z.{digits}f} – {high:z.{digits}f})"


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
        low, high = group["lengths"]
        length = f"{low} tokens" if group["per"] == "target" else f"all lengths ({low} to {high} tokens), per token"
        digits = 2 if group["per"] == "target" else 3
        parts += [f"## {group['task']}, {length}", ""]
        parts += [
            f"{group['prompts']} prompts; full-context ideal {cell(group['ideal'], digits)}; rank correlation over random orders "
            f"{cell(group['rank_correlation'])}, over named orders {cell(group['rank_correlation_named'])}; the best order is "
            f"known for {group['best_known']} of {group['prompts']}, else it is the best of those tried.", "",
        ]  # fmt: skip
        parts += ["| order | " + " | ".join(title for _, title in COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
        for name, cells in group["orders"].items():
            parts.append(f"| {name} | " + " | ".join(cell(cells[key], digits) for key, _ in COLUMNS) + " |")
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

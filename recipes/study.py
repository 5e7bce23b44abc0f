"""The study of all samplers on the embedded model: two evaluations, their reports in docs/results, the picture of the README.

    python recipes/study.py --out runs/study

Samplers that write one token per forward pass are one evaluation, those that write several the other, with their thresholds
swept; both have the confidence order first, which all are compared with. Stopped at any moment it goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

from attn_sampler import plots
from attn_sampler.evals.metrics import Summary

ROOT = Path(__file__).parent.parent
SEQUENTIAL = (
    "confidence", "margin", "entropy", "attention-sequential", "attention-net-sequential", "attention-exact-sequential", "dos",
    "pc-sampler", "left-to-right", "random", "dream",
)  # fmt: skip
THREE = "0.95,0.8,0.6"
PARALLEL = {
    "confidence": (), "fast-dllm": ("threshold=0.95,0.9,0.8,0.7,0.6",),
    "attention": ("threshold=0.95,0.9,0.8,0.7,0.6", "fallback=score,conf"),
    "attention-net": (f"threshold={THREE}",), "attention-exact": (f"threshold={THREE}",), "klass": (f"threshold={THREE}",),
    "dinfer": (f"threshold={THREE}",), "dinfer-hierarchy": (f"threshold={THREE}",), "credit": (f"threshold={THREE}",),
    "slowfast": (f"threshold={THREE}",), "dcd": (f"threshold={THREE}",), "llada2": (f"threshold={THREE}",),
    "localleap": ("threshold=0.95,0.9,0.8",), "dapd": ("threshold=0.95,0.8",), "clad": ("threshold=0.9,0.75",),
    "dawn": ("threshold=0.95,0.8",), "fast-dllm-factor": ("factor=0.3,1,2",), "eb": ("gamma=0.01,0.1,0.5",),
    "adas": ("factor=0.3,1,2",), "wino": ("draft_threshold=0.9,0.8,0.6",),
}  # fmt: skip
SHOWN = ("confidence", "fast-dllm", "klass", "eb", "attention", "attention, fallback=conf", "attention-net")


def evaluate(names: list[str], options: list[str], folder: Path, limit: int) -> None:
    command = [sys.executable, "-c", "from attn_sampler.cli import main; main()", "eval", "--tasks", "sudoku4,word"]
    command += ["--limit", str(limit), "--max-rows", "64", "--samplers", ",".join(names), "--output", str(folder)]
    subprocess.run([*command, *(part for option in options for part in ("-o", option))], check=True)


def publish(folder: Path, name: str) -> None:
    """The parts of an evaluation's folder that are read, not the answers."""
    target = ROOT / "docs" / "results" / name
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    shutil.copy(folder / "report.md", target / "report.md")
    shutil.copytree(folder / "plots", target / "plots")


def picture(folder: Path) -> None:
    """Accuracy against tokens per forward pass, for a few samplers: all of them are in the report."""
    found = json.loads((folder / "results.json").read_text())
    summaries = [Summary(**{k: v for k, v in result.items() if k != "cost"}) for result in found["results"]]
    lines = {
        setting: f"{line}, fallback=conf" if "fallback=conf" in setting else line for setting, line in found["series"].items()
    }
    series = {setting: line for setting, line in lines.items() if line in SHOWN}
    plots.save(plots.frontier([s for s in summaries if s.setting in series], series), ROOT / "docs" / "images" / "study.svg")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=500, help="problems of each task")
    args = parser.parse_args()
    evaluate(list(SEQUENTIAL), [], args.out / "sequential", args.limit)
    swept = [f"{name}.{option}" for name, options in PARALLEL.items() for option in options]
    evaluate(list(PARALLEL), swept, args.out / "parallel", args.limit)
    for part in ("sequential", "parallel"):
        publish(args.out / part, f"study-{part}")
    picture(args.out / "parallel")


if __name__ == "__main__":
    main()

"""What each sampler scores with the embedded model on held-out problems: the table of docs/results/embedded.md.

    python recipes/score_embedded.py --sudoku DIRECTORY --out docs/results/embedded.json

``DIRECTORY`` holds sudoku_4x4_{4,6,8,10,12}.jsonl of the Dream repository (eval/data); without it, held-out puzzles are drawn
from the generator. Every answer is kept in --folder, so that a run can be taken up again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import attn_sampler as ats
from attn_sampler.evals.card import files_of
from attn_sampler.evals.metrics import summarise
from attn_sampler.evals.questions import embedded
from attn_sampler.evals.study import Sample, Setting, Study
from attn_sampler.evals.tasks import Problem, sudoku_problems, sudoku_prompt, word_problems

ROOT = Path(__file__).parents[1]
SETTINGS = [
    Setting("confidence", "confidence"),
    Setting("margin", "margin"),
    Setting("entropy", "entropy"),
    Setting("random", "random"),
    Setting("left-to-right", "left-to-right"),
    Setting("attention, sequential", "attention-sequential"),
    Setting("attention, parallel 0.9", "attention"),
    Setting("attention, parallel 0.9, fallback=conf", "attention", {"fallback": "conf"}),
    Setting("attention, parallel 0.9, whole block", "attention", {"sub_block_length": None}),
    Setting("Fast-dLLM 0.9", "fast-dllm"),
    Setting("Fast-dLLM factor 1", "fast-dllm-factor"),
    Setting("EB 0.1", "eb"),
    Setting("KLASS 0.9 / 0.01", "klass"),
]
NEW_TOKENS = 32


def sudokus(folder: Path | None, n: int) -> list[Problem]:
    """Puzzles of the Dream files, all of them, or ``n`` held-out ones of the generator."""
    if folder is not None:
        rows = [
            (json.loads(line)["input"], clues)
            for clues in (4, 6, 8, 10, 12)
            for line in (folder / f"sudoku_4x4_{clues}.jsonl").read_text().splitlines()
        ]
        return [Problem("sudoku4", sudoku_prompt(puzzle), "", clues) for puzzle, clues in rows]
    return sudoku_problems(n, seed=1)


class Scores(Study):
    """A study whose rows all have the seed 0, as in every published table; only `random` draws numbers."""

    def row(self, setting: Setting, task: str, index: int = 0, draw: int = 0) -> ats.SamplingParams:
        return replace(super().row(setting, task, index, draw), seed=0)


def records(samples: Sequence[Sample]) -> dict[str, dict[str, dict[str, Any]]]:
    """task → label → what is published of it."""
    out: dict[str, dict[str, dict[str, Any]]] = {}
    for s in summarise(samples):
        levels: dict[int, list[bool]] = {}
        for answer in samples:
            if (answer.task, answer.setting) == (s.task, s.setting):
                levels.setdefault(answer.difficulty, []).append(answer.solved)
        out.setdefault(s.task, {})[s.setting] = {
            "n": s.n, "solved": sum(map(sum, levels.values())), "accuracy": round(s.accuracy, 4), "low": round(s.low, 4),
            "high": round(s.high, 4), "forwards": round(s.forwards, 2), "tokens_per_forward": round(s.tokens_per_forward, 2),
            "by_difficulty": {str(level): round(sum(right) / len(right), 4) for level, right in sorted(levels.items())},
        }  # fmt: skip
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=None)
    parser.add_argument("--sudoku", type=Path, default=None)
    parser.add_argument("--n", type=int, default=600, help="word problems (and drawn puzzles)")
    parser.add_argument("--every", type=int, default=1, help="take each so many-th puzzle of the directory")
    parser.add_argument("--only", type=int, default=len(SETTINGS), help="first so many settings")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "scores", help="keeps every answer; one per study")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    engine = ats.load(args.model, max_rows=64)
    problems = {"sudoku4": sudokus(args.sudoku, args.n)[:: args.every], "word": word_problems(args.n, seed=1)}
    study = Scores(
        SETTINGS[: args.only], {task: embedded(some) for task, some in problems.items()}, {"max_new_tokens": NEW_TOKENS},
        model=args.model or "embedded", conditions={"model_files_sha256": files_of(args.model)},
    )  # fmt: skip
    done = records(study.run(engine, args.folder, show))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(done, indent=1) + "\n")
    text = page(done)
    args.out.with_suffix(".md").write_text(text)
    print(text)


def show(done: int, total: int) -> None:
    if done % 500 == 0 or done == total:
        print(f"{done} of {total} answers", file=sys.stderr, flush=True)


TITLES = {"sudoku4": "4 × 4 Sudoku", "word": "Arithmetic word problems"}
SOURCES = {
    "sudoku4": "Puzzles of the Dream repository with 4, 6, 8, 10 and 12 clues, as many of each; none was seen in training.",
    "word": "Fresh problems of one, two and three steps, a third each, held out by their prompts.",
}
HEAD = """# Scores of the embedded model

Made by `python recipes/score_embedded.py --sudoku DIR --out docs/results/embedded.json` with the weights in the package:
{tokens} new tokens, one block, temperature 0, float32, CPU, torch {torch}, one thread. Forward passes are per problem, tokens are
counted up to the first end-of-sequence token, intervals are Wilson's at 95 %. `embedded.json` holds the same by difficulty.

Goals for the model, with the confidence sampler, one token per forward pass:
"""
GOALS = {"sudoku4": 0.95, "word": 0.9}


def page(done: dict[str, dict[str, dict[str, Any]]]) -> str:
    """The table as a page."""
    lines = [HEAD.format(tokens=NEW_TOKENS, torch=torch.__version__)]
    for task, rows in done.items():
        r = rows["confidence"]
        by = ", ".join(f"{level}: {100 * share:.1f} %" for level, share in r["by_difficulty"].items())
        unit = "clues" if task == "sudoku4" else "steps"
        verdict = "reached" if r["accuracy"] >= GOALS[task] else "**not reached**"
        lines.append(f"- {TITLES[task]}: {100 * GOALS[task]:.0f} %, {verdict} with {100 * r['accuracy']:.1f} %. By {unit}: {by}.")
    for task, rows in done.items():
        lines += ["", f"## {TITLES[task]}", "", f"{SOURCES[task]} n = {next(iter(rows.values()))['n']}.", ""]
        lines += ["| sampler | solved | 95 % interval | forwards | tokens per forward |", "|---|---|---|---|---|"]
        for label, r in rows.items():
            interval = f"{100 * r['low']:.1f} – {100 * r['high']:.1f}"
            lines.append(
                f"| {label} | {100 * r['accuracy']:.1f} % | {interval} | {r['forwards']:.1f} | {r['tokens_per_forward']:.2f} |"
            )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

"""What each sampler scores with the embedded model on held-out problems: the table of docs/results/embedded.md.

    python recipes/score_embedded.py --sudoku DIRECTORY --out docs/results/embedded.json

``DIRECTORY`` holds sudoku_4x4_{4,6,8,10,12}.jsonl of the Dream repository (eval/data); without it, held-out puzzles are drawn
from the generator. Results are kept after every line of the table, so that a run can be taken up again.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

import attn_sampler as ats
from attn_sampler.evals.statistics import wilson
from attn_sampler.evals.tasks import Problem, solved, sudoku_problems, sudoku_prompt, word_problems

SETTINGS: list[tuple[str, str, dict[str, object]]] = [
    ("confidence", "confidence", {}),
    ("margin", "margin", {}),
    ("entropy", "entropy", {}),
    ("random", "random", {"seed": 0}),
    ("left-to-right", "left-to-right", {}),
    ("attention, sequential", "attention-sequential", {}),
    ("attention, parallel 0.9", "attention", {}),
    ("attention, parallel 0.9, fallback=conf", "attention", {"fallback": "conf"}),
    ("attention, parallel 0.9, whole block", "attention", {"sub_block_length": None}),
    ("Fast-dLLM 0.9", "fast-dllm", {}),
    ("Fast-dLLM factor 1", "fast-dllm-factor", {}),
    ("EB 0.1", "eb", {}),
    ("KLASS 0.9 / 0.01", "klass", {}),
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


def score(engine: ats.Engine, problems: list[Problem], sampler: str, options: dict[str, object]) -> dict[str, object]:
    """Solved, forwards and tokens of one sampler on one task."""
    params = ats.SamplingParams(sampler=sampler, max_new_tokens=NEW_TOKENS, **options)  # type: ignore[arg-type]
    results = engine.generate([p.prompt for p in problems], params)
    right = [solved(p, r.text) for p, r in zip(problems, results, strict=True)]
    low, high = wilson(sum(right), len(right))
    by = {}
    for level in sorted({p.difficulty for p in problems}):
        some = [ok for p, ok in zip(problems, right, strict=True) if p.difficulty == level]
        by[str(level)] = round(sum(some) / len(some), 4)
    forwards, tokens = sum(r.forwards for r in results), sum(r.completion_tokens for r in results)
    return {
        "n": len(right), "solved": sum(right), "accuracy": round(sum(right) / len(right), 4), "low": round(low, 4),
        "high": round(high, 4), "forwards": round(forwards / len(results), 2), "tokens_per_forward": round(tokens / forwards, 2),
        "by_difficulty": by,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--sudoku", type=Path, default=None)
    parser.add_argument("--n", type=int, default=600, help="word problems (and drawn puzzles)")
    parser.add_argument("--every", type=int, default=1, help="take each so many-th puzzle of the directory")
    parser.add_argument("--only", type=int, default=len(SETTINGS), help="first so many settings")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    engine = ats.load(args.model, max_rows=64)
    tasks = {"sudoku4": sudokus(args.sudoku, args.n)[:: args.every], "word": word_problems(args.n, seed=1)}
    done = json.loads(args.out.read_text()) if args.out.exists() else {}
    for label, sampler, options in SETTINGS[: args.only]:
        for task, problems in tasks.items():
            if label in done.get(task, {}):
                continue
            found = score(engine, problems, sampler, options)
            done.setdefault(task, {})[label] = found
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(done, indent=1) + "\n")
            print(task, label, json.dumps(found), file=sys.stderr, flush=True)
    text = page(done)
    args.out.with_suffix(".md").write_text(text)
    print(text)


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

"""The study of all samplers on the embedded model: three evaluations, their reports in docs/results, the pictures of the README.

    python recipes/study.py --out runs/study

- **sequential**: samplers that write one token per forward pass, and two early exits beside confidence and attention;
- **parallel**: those that write several, with their thresholds swept; the answer is one block of 32;
- **blocks**: those whose windows or blocks are a part of their rule, on the same answers in blocks of 8.

Every registered sampler is in one of the first two. Each evaluation has the confidence order first, which all are compared with.
``pc-sampler`` gets a table of token frequencies, counted on answers of the generator that the embedded model was trained with,
which leaves the problems asked here out. Stopped at any moment it goes on where it was; at the end it prints what the log and the
README say of it, in numbers.
"""

from __future__ import annotations

import argparse
import html
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attn_sampler import plots
from attn_sampler.evals.metrics import Summary
from attn_sampler.frontier import frontier
from study_parts import PARTS, SHOWN, Part

ROOT = Path(__file__).parent.parent
FREQUENCIES = "frequencies.json"
STEPS = range(17408, 17472)  # of the training, whose last step was 17499: their batches are what frequencies are counted on
LARGEST = 1_900_000  # bytes of a file that is published


def background(file: Path) -> None:
    """Count how often each token is written in the answers of 64 batches of the training, one end token each."""
    import torch
    from tokenizers import Tokenizer

    from attn_sampler.engine import EMBEDDED
    from attn_sampler.frequencies import Frequencies
    from attn_sampler.models import load_tokenizer
    from embedded import EOS, Data

    data = Data(Tokenizer.from_file(str(Path(EMBEDDED) / "tokenizer.json")))
    written = []
    for step in STEPS:
        for ids, start in data.batch(step, 64):
            behind = torch.arange(ids.shape[1]) >= start[:, None]
            ends = (behind & (ids == EOS)).cumsum(1)
            written += ids[behind & ((ends == 0) | ((ends == 1) & (ids == EOS)))].tolist()
    file.parent.mkdir(parents=True, exist_ok=True)
    Frequencies.count(written, load_tokenizer(EMBEDDED)[1]).write(file)


def evaluate(part: Part, folder: Path, frequencies: Path, limit: int) -> None:
    command = [sys.executable, "-c", "from attn_sampler.cli import main; main()", "eval", "--tasks", "sudoku4,word"]
    command += ["--limit", str(limit), "--max-rows", "64", *part.command(str(frequencies)), "--output", str(folder)]
    subprocess.run(command, check=True)


def publish(folder: Path, target: Path, why: str) -> None:
    """The parts of an evaluation's folder that are read, not the answers; results in one line, to four digits.

    Args:
        why: goes below the title.
    """
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    shutil.copytree(folder / "plots", target / "plots")
    title, rest = (folder / "report.md").read_text(encoding="utf-8").split("\n\n", 1)
    (target / "report.md").write_text(f"{title}\n\n{why}\n\n{rest}", encoding="utf-8")
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"), parse_float=lambda x: float(f"{float(x):.4g}"))
    first, rest = (folder / "report.html").read_text(encoding="utf-8").split("</h1>", 1)
    for name, text in (
        ("report.html", f"{first}</h1>\n<p>{html.escape(why)}</p>{rest}"),
        ("results.json", json.dumps(results, ensure_ascii=False, separators=(",", ":")) + "\n"),
    ):
        size = len(text.encode())
        if size <= LARGEST:
            (target / name).write_text(text, encoding="utf-8")
        else:
            print(f"left out: {target / name}, {size} bytes are more than {LARGEST}")


def pictures(found: Mapping[str, Any], images: Path) -> None:
    """Accuracy against tokens per forward pass and per second, for a few samplers: all of them are in the report."""
    summaries = [Summary(**{k: v for k, v in result.items() if k != "cost"}) for result in found["results"]]
    series = {setting: line for setting, line in found["series"].items() if line in SHOWN}
    some = [s for s in summaries if s.setting in series]
    plots.save(frontier(some, series), images / "study.svg")
    plots.save(frontier(some, series, "tokens_per_s"), images / "study-seconds.svg")


def said(found: Mapping[str, Any]) -> list[str]:
    """What an evaluation says of each task, as lines of a list: who is told from the first setting, who is not, by how much."""
    out = []
    for task in dict.fromkeys(result["task"] for result in found["results"]):
        results = {result["setting"]: result for result in found["results"] if result["task"] == task}
        first = next(iter(results))
        against = {c["setting"]: c for c in found["comparisons"] if c["task"] == task and c["against"] == first}
        out.append(f"- **{task}**, {results[first]['n']} problems, {first} {_solved(results[first])}, "
                   f"{results[first]['forwards']:.1f} forwards")  # fmt: skip
        for verdict in ("better", "not shown", "worse"):
            names = [name for name in results if name in against and against[name]["verdict"] == verdict]
            out.append(f"  - {verdict}: {len(names)}")
            for name in sorted(names, key=lambda name: -results[name]["accuracy"]):
                result, c = results[name], against[name]
                out.append(
                    f"    - `{name}` {_solved(result)}, {result['tokens_per_forward']:.2f} tokens per pass, "
                    f"{result['forwards']:.1f} forwards, {result['tokens_per_s']:.0f} tokens/s; "
                    f"{_points(c['difference'])} points, 95 % interval {_points(c['low'])} to {_points(c['high'])}, "
                    f"p {c['p_holm']:.2g} (Holm)"
                )
        curves = sorted((a for a in found["aup"] if a["task"] == task and a["settings"] > 1), key=lambda a: -a["aup"])
        out += ["  - AUP: " + ", ".join(f"{a['series']} {a['aup']:.1f}" for a in curves)] if curves else []
    return out


def _solved(result: Mapping[str, Any]) -> str:
    return f"{100 * result['accuracy']:.1f} % ({100 * result['low']:.1f} – {100 * result['high']:.1f})"


def _points(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "−")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=500, help="problems of each task")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where reports and pictures go")
    args = parser.parse_args()
    table = args.out / FREQUENCIES
    if not table.exists():
        background(table)
    for name, part in PARTS.items():
        evaluate(part, args.out / name, table, args.limit)
    for name, part in PARTS.items():
        publish(args.out / name, args.docs / "results" / f"study-{name}", part.why)
        found = json.loads((args.out / name / "results.json").read_text(encoding="utf-8"))
        print(f"\n## {name}: {len(found['results'])} lines, {sum(r['n'] * r['draws'] for r in found['results'])} answers\n")
        print("\n".join(said(found)))
        if name == "parallel":
            pictures(found, args.docs / "images")


if __name__ == "__main__":
    main()

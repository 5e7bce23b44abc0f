"""MATH-500: problems of MATH (arXiv 2103.03874) that arXiv 2305.20050 held out; scored by math-verify (extra "eval")."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from attn_sampler.errors import MissingDependencyError
from attn_sampler.evals.tasks.equivalence import equivalent
from attn_sampler.evals.tasks.files import local, published, records
from attn_sampler.evals.tasks.formats import as_text, in_one_turn
from attn_sampler.evals.tasks.task import Problem, Score, Task

__all__ = ["MATH500", "final_answer"]

# Written for this library in the form of the four-shot prompt of arXiv 2206.14858, whose own examples are not in our data.
SHOTS = (
    (
        "For which $x$ is $\\sqrt{2x-6}$ a real number?",
        "The radicand must not be negative: $2x - 6 \\ge 0$, so $x \\ge 3$. These $x$ form the interval $[3,\\infty)$.\n"
        "Final Answer: The final answer is $[3,\\infty)$. I hope it is correct.",
    ),
    (
        "Two fair dice are thrown. What is the probability that the sum is $9$?",
        "Of $36$ equally likely pairs, $(3,6)$, $(4,5)$, $(5,4)$ and $(6,3)$ add up to $9$. "
        "That is $\\frac{4}{36} = \\frac{1}{9}$.\nFinal Answer: The final answer is $\\frac{1}{9}$. I hope it is correct.",
    ),
    (
        "If $3^a = 5$, what is $9^a$?",
        "Since $9 = 3^2$, we have $9^a = (3^a)^2 = 5^2 = 25$.\nFinal Answer: The final answer is $25$. I hope it is correct.",
    ),
    (
        "A line through $(1,2)$ and $(3,8)$ meets the $y$-axis at $(0,b)$. Find $b$.",
        "Its slope is $\\frac{8-2}{3-1} = 3$, so $b = 2 - 3 \\cdot 1 = -1$.\n"
        "Final Answer: The final answer is $-1$. I hope it is correct.",
    ),
)  # fmt: skip


def _load(data: Path | None) -> list[Problem]:
    file = published("HuggingFaceH4/MATH-500", "test.jsonl") if data is None else local(data, "math500", "math500.jsonl")
    return [
        Problem(
            "math500", row["problem"], row["solution"], int(row["level"]), row["unique_id"], SHOTS,
            {"answer": row["answer"], "subject": row["subject"]},
        )
        for row in records(file)
    ]  # fmt: skip


def final_answer(text: str) -> str | None:
    """What the last ``\\boxed{…}`` holds; else what follows "final answer is" or "answer is"; None where nothing is marked."""
    start = text.rfind("\\boxed{")
    if start >= 0:
        depth = 0
        for i in range(start + len("\\boxed"), len(text)):
            depth += {"{": 1, "}": -1}.get(text[i], 0) if text[i - 1] != "\\" else 0
            if not depth:
                return text[start + len("\\boxed{") : i].strip()
        return None
    found = re.findall(r"answer is:?\s*(.+?)\s*(?:\.\s|\.?$|I hope)", text, re.IGNORECASE | re.MULTILINE)
    return found[-1].strip().strip("$").strip() if found else None


def _judge(problem: Problem, text: str) -> Score:
    if importlib.util.find_spec("math_verify") is None:
        raise MissingDependencyError("math-verify", "eval")
    found, gold = final_answer(text), problem.facts["answer"]
    if found is None:
        return Score(False, {"extracted": ""})
    same = re.sub(r"\s", "", found) == re.sub(r"\s", "", gold)
    return Score(same or equivalent(gold, found), {"extracted": found, "literal": same})


def _boxed(question: str) -> str:
    return f"{question}\nPlease reason step by step, and put your final answer within \\boxed{{}}."


def _minerva(question: str) -> str:
    return f"Problem:\n{question}\n\nSolution:"


def _after_space(answer: str) -> str:
    return f" {answer}"


MATH500 = Task(
    name="math500",
    version=1,
    source="HuggingFaceH4/MATH-500 (openai/prm800k's held-out 500 of hendrycks/math), MIT",
    styles={
        "boxed-0shot-chat": in_one_turn(0, _boxed),
        "boxed-0shot": as_text(0, _boxed),
        "minerva-4shot": as_text(4, _minerva, _after_space),
        "minerva-4shot-chat": in_one_turn(4, _minerva, _after_space),
        "minerva-0shot-chat": in_one_turn(0, _minerva),
    },
    stop={"minerva-4shot": ("Problem:",), "boxed-0shot": ("Problem:",)},
    load=_load,
    judge=_judge,
)

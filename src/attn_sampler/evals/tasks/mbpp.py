"""MBPP: write a Python function that passes its tests (arXiv 2108.07732); the full test split, and its hand-verified part.

The reference of problem 123 sums divisors one by one and takes seconds: it is known to fail where programs get the usual 3 s, and
passes on our clock of 10 s unless the machine is slow.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from attn_sampler.errors import InvalidInputError
from attn_sampler.evals.sandbox import Limits, run_tests
from attn_sampler.evals.tasks.code import called_names, fenced, upto
from attn_sampler.evals.tasks.files import local, published, records
from attn_sampler.evals.tasks.formats import as_text, as_turns, in_one_turn
from attn_sampler.evals.tasks.task import Problem, Score, Task

__all__ = ["MBPP", "MBPP_SANITIZED", "program"]

TEST = range(11, 511)  # task ids of the test split
SHOTS = (2, 3, 4)  # of the paper's prompts


def _rows(name: str, data: Path | None) -> list[dict[str, Any]]:
    if data is not None:
        return records(local(data, "mbpp", {"mbpp": "mbpp.jsonl", "mbpp-sanitized": "mbpp_sanitized.jsonl"}[name]))
    folder = {"mbpp": "full", "mbpp-sanitized": "sanitized"}[name]
    files = (f"{folder}/{split}-00000-of-00001.parquet" for split in ("prompt", "test"))
    return [row for file in files for row in records(published("google-research-datasets/mbpp", file))]


def _load(name: str, data: Path | None) -> list[Problem]:
    rows = {int(row["task_id"]): row for row in _rows(name, data)}
    if not set(SHOTS) <= rows.keys():
        raise InvalidInputError("data", str(data), f"the file of {name} lacks the problems {SHOTS}, which are shown as examples")
    shots = tuple((_with_tests(rows[i]), _code(rows[i])) for i in SHOTS)
    return [
        Problem(name, _with_tests(row), _code(row), id=f"{name}/{number}", shots=shots, facts=_facts(row))
        for number, row in rows.items()
        if number in TEST
    ]  # fmt: skip


def _with_tests(row: dict[str, Any]) -> str:
    """The task in words and its tests, between them the sentence of the paper's prompt."""
    return f"{(row.get('text') or row['prompt']).strip()} Your code should pass these tests:\n\n" + "\n".join(row["test_list"])


def _code(row: dict[str, Any]) -> str:
    return row["code"].replace("\r", "").strip()


def _facts(row: dict[str, Any]) -> dict[str, Any]:
    tests, after = "\n".join(row["test_list"]), (row.get("test_setup_code") or "").replace("\r", "")
    return {
        "tests": tests,
        "setup": "\n".join(row.get("test_imports", ())),
        "after": after,  # builds arguments of the program's own classes, so it runs there
        "names": called_names(tests, f"{_code(row)}\n{after}"),
    }


def program(text: str) -> str:
    """The program in an answer: a fenced block, or else the text between ``[BEGIN]`` and ``[DONE]``."""
    text = upto(text.split("[BEGIN]")[-1] if "```" not in text else text, ("[DONE]",))
    block = fenced(text, "def ")
    return upto(text, ("```",)) if block is None else block


def _judge(problem: Problem, text: str, timeout_s: float | None = None, confined: bool = True) -> Score:
    limits = Limits() if timeout_s is None else Limits(wall_s=timeout_s)
    facts = problem.facts
    source = f"{program(text)}\n{facts['after']}"
    verdict = run_tests(
        source, facts["tests"], names=facts["names"], setup=facts["setup"], limits=limits, confined=confined
    )  # fmt: skip
    return Score(verdict.passed, {"outcome": verdict.outcome, "message": verdict.message})


def _expert(task: str) -> str:
    return f"You are an expert Python programmer, and here is your task: {task}\n"


def _begin(task: str) -> str:
    return f"{_expert(task)}[BEGIN]\n"


def _done(code: str) -> str:
    return f"{code}\n[DONE]"


def _between(code: str) -> str:
    return f"[BEGIN]\n{code}\n[DONE]"


def _fence(task: str) -> str:
    return f"{_expert(task)}Give the program in a ```python block."


_STYLES = {
    "3shot-chat": as_turns(3, _expert, _between),
    "3shot": as_text(3, _begin, _done),
    "3shot-one-turn": in_one_turn(3, _begin, _done),
    "0shot": as_text(0, _begin),
    "fence-0shot-chat": in_one_turn(0, _fence),
}

MBPP = Task(
    name="mbpp",
    version=1,
    source="google-research-datasets/mbpp, full, test split (task ids 11 to 510), 500 problems, CC-BY-4.0; shots: 2, 3, 4",
    styles=_STYLES,
    stop={"3shot": ("[DONE]",), "0shot": ("[DONE]",)},
    load=partial(_load, "mbpp"),
    judge=_judge,
    runs_code=True,
)
MBPP_SANITIZED = Task(
    name="mbpp-sanitized",
    version=1,
    source="google-research-datasets/mbpp, sanitized, test split (task ids 11 to 510), 257 problems, CC-BY-4.0; shots: 2, 3, 4",
    styles=_STYLES,
    stop={"3shot": ("[DONE]",), "0shot": ("[DONE]",)},
    load=partial(_load, "mbpp-sanitized"),
    judge=_judge,
    runs_code=True,
)

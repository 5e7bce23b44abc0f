"""HumanEval: complete a function so that its tests pass (arXiv 2107.03374)."""

from __future__ import annotations

from pathlib import Path

from attn_sampler.evals.sandbox import Limits, run_tests
from attn_sampler.evals.tasks.code import fenced, upto
from attn_sampler.evals.tasks.files import local, published, records
from attn_sampler.evals.tasks.formats import as_text, in_one_turn
from attn_sampler.evals.tasks.task import Problem, Score, Task

__all__ = ["HUMANEVAL", "program"]

STOPS = ("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint(", "\n```", "\nassert ", "\n@")  # where a completed function has ended


def _load(data: Path | None) -> list[Problem]:
    name = "openai_humaneval/test-00000-of-00001.parquet"
    rows = records(published("openai/openai_humaneval", name) if data is None else local(data, "humaneval", "HumanEval.jsonl.gz"))
    return [
        Problem(
            "humaneval", row["prompt"], row["canonical_solution"], id=row["task_id"],
            facts={"entry_point": row["entry_point"], "tests": f"{row['test']}\ncheck({row['entry_point']})"},
        )
        for row in rows
    ]  # fmt: skip


def program(problem: Problem, text: str) -> str:
    """The whole program: a fenced block, else the text, after the prompt; a whole function takes that part's place."""
    definition = f"def {problem.facts['entry_point']}("
    before = problem.prompt[: problem.prompt.rfind(definition)]
    block = fenced(text, definition)
    code = text if block is None else block
    if definition in code:
        return before + code
    return problem.prompt + upto(code, STOPS)


def _judge(problem: Problem, text: str, timeout_s: float | None = None, confined: bool = True) -> Score:
    limits = Limits() if timeout_s is None else Limits(wall_s=timeout_s)
    # What the prompt defines besides the function is the problem's own, and the tests use it as it stands there.
    verdict = run_tests(
        program(problem, text), problem.facts["tests"], names=(problem.facts["entry_point"],), setup=problem.prompt,
        limits=limits, confined=confined,
    )  # fmt: skip
    return Score(verdict.passed, {"outcome": verdict.outcome, "message": verdict.message})


def _complete(prompt: str) -> str:
    return f"Complete the following python code:\n{prompt}"


def _instruct(prompt: str) -> str:
    return f"Write a solution to the following problem and make sure that it passes the tests:\n```python\n{prompt.rstrip()}\n```"


HUMANEVAL = Task(
    name="humaneval",
    version=1,
    source="openai/human-eval, 164 problems, MIT",
    styles={
        "complete-chat": in_one_turn(0, _complete),
        "completion": as_text(0, str),
        "instruct-chat": in_one_turn(0, _instruct),
    },
    stop={"completion": STOPS},
    load=_load,
    judge=_judge,
    runs_code=True,
)

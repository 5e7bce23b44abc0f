"""GSM8K, grade-school word problems (arXiv 2110.14168), scored by the final number.

*Strict*: the number after ``####`` or ``The answer is``; *flexible*: the last number of the text. Both as in
lm-evaluation-harness, but compared as numbers, so that 18.00 equals 18. Solved means flexible: chat models follow neither form.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from pathlib import Path

from attn_sampler.evals.tasks.files import local, published, records
from attn_sampler.evals.tasks.formats import as_text, as_turns, in_one_turn
from attn_sampler.evals.tasks.task import Problem, Score, Task

__all__ = ["GSM8K"]

SHOTS = 8
NUMBER = r"-?\$?\d[\d,]*(?:\.\d+)?|-?\$?\.\d+"


def _load(data: Path | None) -> list[Problem]:
    def rows(split: str) -> list[dict[str, str]]:
        if data is not None:
            return records(local(data, "gsm8k", f"{split}.jsonl"))
        return records(published("openai/gsm8k", f"main/{split}-00000-of-00001.parquet"))

    test, train = rows("test"), rows("train")
    shots = tuple((row["question"], row["answer"]) for row in train[:SHOTS])
    return [Problem("gsm8k", row["question"], row["answer"], id=f"test/{i}", shots=shots) for i, row in enumerate(test)]


def strict(text: str) -> Decimal | None:
    """The number after the last ``####`` or ``The answer is``."""
    found = re.findall(rf"(?:####|[Tt]he answer is:?)\s*\$?\s*({NUMBER})", text)
    return _number(found[-1]) if found else None


def flexible(text: str) -> Decimal | None:
    """The last number."""
    found = re.findall(rf"(?<![\d.])(?:{NUMBER})", text)
    return _number(found[-1]) if found else None


def _number(text: str) -> Decimal | None:
    try:
        return Decimal(text.replace(",", "").replace("$", ""))
    except InvalidOperation:
        return None


def _judge(problem: Problem, text: str) -> Score:
    gold = strict(problem.answer)
    found = {"strict": strict(text), "flexible": flexible(text)}
    verdicts = {name: number is not None and number == gold for name, number in found.items()}
    number = found["flexible"]
    return Score(verdicts["flexible"], {**verdicts, "extracted": "" if number is None else str(number)})


def _spelt_out(answer: str) -> str:
    """A solution without calculator notes, its end as in chain-of-thought prompts."""
    text = re.sub(r"<<.*?>>", "", answer)
    return re.sub(r"\n#### (.*)$", r" The answer is \1.", text)


def _q(question: str) -> str:
    return f"Q: {question}\nA:"


def _question(question: str) -> str:
    return f"Question: {question}\nAnswer:"


def _llada(question: str) -> str:
    return f"Question: {question}\nLet's think step by step\nAnswer:"


def _dinfer(question: str) -> str:
    return f"Question: {question}\nPlease reason step by step\nAnswer:"


def _boxed(question: str) -> str:
    return f"{question}\nPlease reason step by step, and put your final answer within \\boxed{{}}."


def _after_space(answer: str) -> str:
    return f" {answer}"


def _spelt_out_after_space(answer: str) -> str:
    return f" {_spelt_out(answer)}"


GSM8K = Task(
    name="gsm8k",
    version=1,
    source="openai/grade-school-math, test split, 1319 problems, MIT; shots: the first 8 of the training split",
    styles={
        "boxed-0shot-chat": in_one_turn(0, _boxed),
        "plain": as_text(0, str),
        "5shot": as_text(5, _question, _after_space),
        "5shot-chat": in_one_turn(5, _question, _after_space),
        "0shot-chat": in_one_turn(0, _question),
        "cot-8shot": as_text(8, _q, _spelt_out_after_space),
        "cot-5shot-chat": in_one_turn(5, _q, _spelt_out_after_space),
        "cot-0shot-chat": in_one_turn(0, _q),
        "steps-4shot-chat": as_turns(4, _llada, _spelt_out),
        "steps-4shot": as_text(4, _dinfer, _spelt_out_after_space),
    },
    stop={"5shot": ("\nQuestion:",), "cot-8shot": ("\nQ:",), "steps-4shot": ("\nQuestion:",)},
    load=_load,
    judge=_judge,
)

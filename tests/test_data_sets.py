"""The tasks that are read from files: reference answers score 100 %, wrong ones do not, prompts are what their style says."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import sys
from pathlib import Path

import pytest

from attn_sampler import InvalidInputError, MissingDependencyError, SamplingParams, UnknownNameError
from attn_sampler.evals import presets, tasks
from attn_sampler.evals.tasks import Problem, Task, files, find
from attn_sampler.evals.tasks.code import called_names, fenced
from attn_sampler.evals.tasks.countdown import countdown_solved
from attn_sampler.evals.tasks.equivalence import equivalent
from attn_sampler.evals.tasks.gsm8k import flexible, strict
from attn_sampler.evals.tasks.humaneval import program as completed
from attn_sampler.evals.tasks.math500 import final_answer
from attn_sampler.evals.tasks.mbpp import program as written
from attn_sampler.evals.tasks.sudoku9 import sudoku9_solved
from grids import solution

SAMPLES = Path(__file__).parent / "samples"
DATA = Path(os.environ.get("ATTN_SAMPLER_DATA", Path(__file__).parents[2] / "shared" / "data"))
SIZES = {
    "gsm8k": 1319, "math500": 500, "humaneval": 164, "mbpp": 500, "mbpp-sanitized": 257, "countdown3": 1000, "countdown4": 1000,
    "countdown5": 1000, "sudoku4": 540, "sudoku9": 531,
}  # fmt: skip
READ = [name for name in SIZES if not find(name).runs_code]
RUN = [name for name in SIZES if find(name).runs_code]
# MBPP 123: the reference sums divisors one by one and takes seconds; on a slow machine it does not end in time.
ALLOWED = {"allow_code": True, "allow_unconfined": True}  # the references and our own programs, where namespaces are refused, too
KNOWN_TO_FAIL = {"mbpp/123", "mbpp-sanitized/123"}


def failures(task: Task, problems: list[Problem]) -> set[str]:
    return {
        p.id for p in problems if not task.score(p, p.answer or solution(p.prompt), **ALLOWED).solved
    }  # fmt: skip


@pytest.mark.parametrize("name", SIZES)
def test_reference_answers_of_a_few_problems_score_100_percent(name: str) -> None:
    problems = find(name).problems(SAMPLES)
    assert len(problems) >= 3
    assert not failures(find(name), problems) - KNOWN_TO_FAIL
    assert {problem.task for problem in problems} == {name}
    assert len({problem.id for problem in problems}) == len(problems)


@pytest.mark.parametrize("name", READ)
def test_reference_answers_of_the_whole_data_set_score_100_percent(name: str) -> None:
    problems = whole(name)
    assert len(problems) == SIZES[name]
    assert not failures(find(name), problems[::5] if name == "sudoku9" else problems)  # those come without answers


@pytest.mark.parametrize("name", RUN)
def test_reference_programs_of_every_20th_problem_pass(name: str) -> None:
    problems = whole(name)
    assert len(problems) == SIZES[name]
    assert not failures(find(name), problems[::20])


def test_no_4_x_4_puzzle_of_the_data_set_is_one_that_the_embedded_model_was_trained_on() -> None:
    left_out = set((Path(__file__).parents[1] / "recipes" / "heldout_sudoku.txt").read_text().split())
    cells = ["".join(p.prompt.removeprefix("Sudoku:").split()) for p in whole("sudoku4")]
    assert {hashlib.sha256(c.encode()).hexdigest()[:16] for c in cells} <= left_out


@pytest.mark.slow
def test_a_grid_is_found_for_every_9_x_9_puzzle_and_scores() -> None:
    assert not failures(find("sudoku9"), whole("sudoku9"))


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN)
def test_reference_programs_of_the_whole_data_set_pass(name: str) -> None:
    assert failures(find(name), whole(name)) <= KNOWN_TO_FAIL


def whole(name: str) -> list[Problem]:
    if not DATA.is_dir():
        pytest.skip(f"needs the data sets in {DATA} (or where ATTN_SAMPLER_DATA says)")
    return find(name).problems(DATA)


@pytest.mark.parametrize("name", tasks.names())
def test_every_style_puts_the_question_and_no_answer_of_its_own(name: str) -> None:
    task = find(name)
    for problem in task.problems(SAMPLES, 2):
        for style in task.styles:
            prompt = task.prompt(problem, style)
            text = prompt if isinstance(prompt, str) else "\n".join(message["content"] for message in prompt)
            assert problem.prompt.removeprefix("Sudoku:\n").strip() in text
            if isinstance(prompt, list):
                assert [m["role"] for m in prompt] == ["user", "assistant"] * (len(prompt) // 2) + ["user"]
            shots = int(style.split("shot")[0].split("-")[-1]) if "shot" in style else 0
            shown = [answer for _, answer in problem.shots if answer.split()[0] in text]
            assert len(shown) >= shots
            assert style in {*task.styles}
        assert set(task.stop) <= set(task.styles)
        assert task.prompt(problem) == task.prompt(problem, next(iter(task.styles)))


def test_styles_are_word_for_word() -> None:
    problem = find("gsm8k").problems(SAMPLES)[0]
    text = find("gsm8k").prompt(problem, "cot-8shot")
    assert isinstance(text, str)
    assert text.startswith("Q: Natalia sold clips to 48 of her friends in April")
    assert "Natalia sold 48+24 = 72 clips altogether in April and May. The answer is 72.\n\nQ: Weng" in text
    assert text.endswith("at the farmers' market?\nA:")
    assert text.count("Q: ") == 9
    turns = find("gsm8k").prompt(problem, "steps-4shot-chat")
    assert len(turns) == 9
    task = find("mbpp")
    mbpp = task.prompt(task.problems(SAMPLES)[0], "3shot")
    assert isinstance(mbpp, str)
    assert mbpp.startswith(
        "You are an expert Python programmer, and here is your task: Write a function to find the similar elements"
    )
    assert mbpp.endswith("[BEGIN]\n")
    assert mbpp.count("[DONE]") == 3


def test_names_versions_and_unknown_names() -> None:
    assert tasks.names() == sorted([*SIZES, "word"])
    assert all(find(name).version >= 1 and find(name).source for name in tasks.names())
    with pytest.raises(UnknownNameError, match="did you mean 'gsm8k'"):
        find("gsm8")
    with pytest.raises(UnknownNameError, match="did you mean 'plain'"):
        find("word").prompt(find("word").problems(None, 1)[0], "plane")


def test_fewer_problems_are_drawn_the_same_way_for_the_same_seed() -> None:
    task = find("countdown3")
    some = task.problems(SAMPLES, 2, seed=3)
    assert some == task.problems(SAMPLES, 2, seed=3)
    assert len({tuple(p.id for p in task.problems(SAMPLES, 2, seed=seed)) for seed in range(9)}) > 1
    with pytest.raises(InvalidInputError, match=r"n=99.*has 4 problems"):
        task.problems(SAMPLES, 99)
    with pytest.raises(InvalidInputError, match="n=0"):
        task.problems(SAMPLES, 0)


@pytest.mark.parametrize("name", ["countdown3", "countdown5", "sudoku4", "sudoku9", "word"])
def test_made_problems_are_distinct_and_their_answers_right(name: str) -> None:
    problems = find(name).problems(None, 40, seed=5)
    assert len({p.prompt for p in problems}) == 40
    assert not failures(find(name), problems)
    assert problems == find(name).problems(None, 40, seed=5)
    assert problems != find(name).problems(None, 40, seed=6)
    assert not any(p.prompt == question for p in problems for question, _ in p.shots)


# --- scorers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected_strict", "expected_flexible"),
    [
        ("... #### 18", 18, 18), ("#### $1,234.50.", 1234.5, 1234.5), ("The answer is -7. Or 3 of them", -7, 3),
        ("it is \\boxed{42}", None, 42),
        ("5-3=2", None, 2), ("no number", None, None), ("#### 18.00", 18, 18), ("18 apples. ", None, 18), ("", None, None),
        ("$.50", None, 0.5),
    ],
)  # fmt: skip
def test_gsm8k_extraction(text: str, expected_strict: float | None, expected_flexible: float | None) -> None:
    assert strict(text) == expected_strict
    assert flexible(text) == expected_flexible


def test_gsm8k_tells_strict_from_flexible() -> None:
    problem = find("gsm8k").problems(SAMPLES)[0]
    score = find("gsm8k").score(problem, "So she makes $18.")
    assert score.solved
    assert score.detail == {"strict": False, "flexible": True, "extracted": "18"}
    assert not find("gsm8k").score(problem, "18 or 19").solved
    assert not find("gsm8k").score(problem, "").solved


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("so $\\boxed{\\frac{1}{2}}$.", "\\frac{1}{2}"), ("\\boxed{1} no, \\boxed{\\{1\\}}", "\\{1\\}"), ("\\boxed{open", None),
        ("Final Answer: The final answer is $x^2$. I hope it is correct.", "x^2"), ("The answer is 3.5", "3.5"),
        ("nothing", None),
    ],
)  # fmt: skip
def test_math_extraction(text: str, expected: str | None) -> None:
    assert final_answer(text) == expected


def test_math_is_scored_by_meaning(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("math_verify", reason="the extra 'eval' is not installed")
    task = find("math500")
    problem = next(p for p in task.problems(SAMPLES) if "pi" in p.facts["answer"])
    assert task.score(problem, "It is $\\boxed{(3, \\pi/2)}$.").solved
    assert not task.score(problem, "It is $\\boxed{(3, \\pi/3)}$.").solved
    assert not task.score(problem, "I cannot say.").solved
    assert equivalent("\\frac{1}{2}", "0.5")
    assert not equivalent("2", "3")
    monkeypatch.setattr("attn_sampler.evals.tasks.equivalence.CLOCK_S", 0.5)
    assert not equivalent("42", "9^{9^{9^{9^9}}}")  # no computer algebra ends this
    monkeypatch.undo()
    assert equivalent("1,000", "1000")


def test_math_without_math_verify_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"attn-sampler\[eval\]"):
        find("math500").score(find("math500").problems(SAMPLES)[0], "\\boxed{1}")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("44-15=29,79-29=50", ""), ("44 - 15 = 29\n79 - 29 = 50", ""), ("44-15=29", "another target"),
        ("44-15=30,79-29=50", "a wrong equation"),
        ("50-0=50", "a number that is not there"), ("79-44=35,15+35=51", "a wrong equation"),
        ("44/0=50", "a number that is not there"),
        ("", "not an equation"), ("44-15=29,79-29=50 yes", "not an equation"),
        ("44-15=29,44-15=29", "a number that is not there"),
        ("79-44=35,35+15=50", ""),
    ],
)  # fmt: skip
def test_countdown_is_scored_by_validity(text: str, why: str) -> None:
    assert countdown_solved("15,44,79,50", text) == (not why, why)


def test_countdown_wants_every_number_and_no_division_by_zero() -> None:
    assert countdown_solved("5,5,50,50", "5-5=0") == (False, "another target")
    assert countdown_solved("20,30,7,50", "20+30=50") == (False, "a number left over")
    assert countdown_solved("5,5,7,7", "5-5=0,7/0=7") == (False, "a wrong equation")


def test_sudoku9_is_scored_by_validity() -> None:
    problem = find("sudoku9").problems(None, 1)[0]
    assert sudoku9_solved(problem.prompt, problem.answer)
    assert not sudoku9_solved(problem.prompt, problem.answer[:-1])
    assert not sudoku9_solved(problem.prompt, problem.prompt)
    other = problem.answer.translate(str.maketrans("123456789", "234567891"))  # valid, but not of this puzzle
    assert not sudoku9_solved(problem.prompt, other)
    assert sudoku9_solved("0" * 81, other)


# --- programs ---------------------------------------------------------------------------------------------------------


def test_programs_run_only_when_that_is_allowed() -> None:
    for name in RUN:
        problem = find(name).problems(SAMPLES)[0]
        with pytest.raises(InvalidInputError, match=r"allow_code=False.*--allow-code"):
            find(name).score(problem, problem.answer)


def test_humaneval_takes_completions_fences_and_whole_functions() -> None:
    task = find("humaneval")
    problem = task.problems(SAMPLES)[1]  # find_zero; the tests use poly of the prompt
    assert problem.id == "HumanEval/32"
    whole_function = problem.prompt[problem.prompt.index("def find_zero") :] + problem.answer
    for text in (
        problem.answer,
        problem.answer + "\n\nprint(find_zero([1, 2]))\n\ndef more(:",
        f"Here:\n```python\n{whole_function}```\nIt works.",
        f"```\n{problem.prompt}{problem.answer}\n",
        whole_function,
    ):
        assert task.score(problem, text, **ALLOWED).solved, text
    for text in ("    return 0", "```python\ndef find_zero(xs): return 0\n```", "", "I cannot."):
        assert not task.score(problem, text, **ALLOWED).solved, text
    forged = "    return 0\n\npoly = lambda *a: 0\n```python\npoly = lambda *a: 0\ndef find_zero(xs): return 0\n```"
    assert not task.score(problem, forged, **ALLOWED).solved
    assert completed(problem, "    return 0\n# done").endswith("    return 0")


def test_mbpp_takes_markers_and_fences() -> None:
    task = find("mbpp")
    problem = task.problems(SAMPLES)[0]
    for text in (
        f"{problem.answer}\n[DONE]\nmore",
        f"[BEGIN]\n{problem.answer}\n[DONE]",
        f"Sure:\n```python\n{problem.answer}\n```\nDone.",
    ):
        assert task.score(problem, text, **ALLOWED).solved, text
    score = task.score(problem, "[BEGIN]\ndef remove_Occ(s, ch): return s\n[DONE]", **ALLOWED)
    assert not score.solved
    assert score.detail["outcome"] == "failed"
    assert task.score(problem, "while True: pass", **ALLOWED, timeout_s=0.5).detail["outcome"] == "timeout"
    assert written("a\n[DONE]\nb").strip() == "a"
    assert fenced("```py\na\n```\n```\ndef b\n```", "def b") == "def b\n"


def test_names_of_a_test_are_those_that_the_reference_defines() -> None:
    assert called_names("assert len(f(Pair(1))) == K", "import os\nK = 1\nclass Pair: pass\ndef f(x): pass\ndef g(): pass") == (
        "K",
        "Pair",
        "f",
    )
    with pytest.raises(ValueError, match="the tests use"):
        called_names("assert h(1)", "def f(): pass")


# --- files ------------------------------------------------------------------------------------------------------------


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"holds no gsm8k/\*\*/test.jsonl"):
        find("gsm8k").problems(tmp_path)
    for name in ("sudoku4", "sudoku9"):
        with pytest.raises(InvalidInputError, match="holds no"):
            find(name).problems(tmp_path)
    (tmp_path / "gsm8k" / "a").mkdir(parents=True)
    for folder, text in ((".", "{"), ("a", "[1]")):
        (tmp_path / "gsm8k" / folder / "test.jsonl").write_text(text)
    with pytest.raises(InvalidInputError, match="holds 2 files"):
        find("gsm8k").problems(tmp_path)
    for folder in (".", "a"):
        with pytest.raises(InvalidInputError, match=r"cannot be read|holds no JSON objects"):
            files.records(tmp_path / "gsm8k" / folder / "test.jsonl")
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(b'{"a": "1\xe2\x80\xa82"}\n')[:-4])
    with pytest.raises(InvalidInputError, match="cannot be read"):
        files.records(tmp_path / "x.jsonl.gz")
    (tmp_path / "y.jsonl.gz").write_bytes(gzip.compress(b'{"a": "1\xe2\x80\xa82"}\n'))
    assert files.records(tmp_path / "y.jsonl.gz") == [{"a": "1\u20282"}]


def rows(path: str) -> list[dict[str, object]]:
    return files.records(SAMPLES / path)


@pytest.mark.parametrize(
    ("name", "hub"),
    [
        (
            "gsm8k",
            {"main/test-00000-of-00001.parquet": "gsm8k/test.jsonl", "main/train-00000-of-00001.parquet": "gsm8k/train.jsonl"},
        ),
        ("math500", {"test.jsonl": "math500/math500.jsonl"}),
        ("humaneval", {"openai_humaneval/test-00000-of-00001.parquet": "humaneval/HumanEval.jsonl.gz"}),
        ("mbpp", {f"full/{split}-00000-of-00001.parquet": "mbpp/mbpp.jsonl" for split in ("prompt", "test")}),
        (
            "mbpp-sanitized",
            {f"sanitized/{split}-00000-of-00001.parquet": "mbpp/mbpp_sanitized.jsonl" for split in ("prompt", "test")},
        ),
    ],
)
def test_published_files_are_read_as_the_local_ones(
    name: str, hub: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No network here: a download that gives the samples in the Hub's formats."""

    def download(repository: str, file: str, repo_type: str) -> str:
        assert repo_type == "dataset"
        out = tmp_path / Path(file).name
        if out.suffix == ".parquet":
            pyarrow = pytest.importorskip("pyarrow", reason="the extra 'eval' is not installed")
            parquet = pytest.importorskip("pyarrow.parquet")
            parquet.write_table(pyarrow.Table.from_pylist(rows(hub[file])), out)
        else:
            out.write_text("\n".join(json.dumps(row) for row in rows(hub[file])))
        return str(out)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert find(name).problems() == find(name).problems(SAMPLES)


def test_a_download_that_fails_says_what_to_give(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: object, **__: object) -> str:
        raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    with pytest.raises(InvalidInputError, match=r"no route to host.*--data DIR"):
        find("gsm8k").problems()


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"attn-sampler\[eval\]"):
        files.records(tmp_path / "x.parquet")


# --- presets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", presets.names())
def test_presets_are_settings_of_existing_tasks_and_samplers(name: str) -> None:
    preset = presets.find(name)
    assert preset.model.count("/") == 1
    assert preset.source
    for task, published in preset.tasks.items():
        assert published.style in find(task).styles
        params = SamplingParams(**published.params)
        assert params.steps is None or params.steps % max(1, params.max_new_tokens // params.positions_per_block) == 0
        assert published.accuracy is None or 0 < published.accuracy < 100


def test_presets_are_found_by_name() -> None:
    published = presets.find("llada-instruct-blocks").task("gsm8k")
    assert (published.accuracy, published.params["block_length"], published.params["steps"]) == (78.6, 8, 256)
    with pytest.raises(UnknownNameError, match=r"did you mean 'llada-1\.5'"):
        presets.find("llada-1-5")
    with pytest.raises(InvalidInputError, match="no published setting of 'mbpp'"):
        presets.find("llada-instruct-blocks").task("mbpp")


def test_the_page_names_every_task_style_and_preset() -> None:
    page = (Path(__file__).parents[1] / "docs" / "tasks.md").read_text(encoding="utf-8")
    for name in presets.names():
        assert f"`{name}`" in page
    for name in tasks.names():
        assert f"`{name}`" in page or name in ("countdown4", "countdown5")
        assert all(f"`{style}`" in page for style in find(name).styles), name

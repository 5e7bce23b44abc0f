"""lm-evaluation-harness runs our model: through its Python entry and its command, offline, against the engine itself."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import attn_sampler as ats
from attn_sampler.errors import InvalidInputError, UnknownNameError
from attn_sampler.evals.estimate import Likelihood
from attn_sampler.evals.lm_eval.generation import params_of
from attn_sampler.evals.tasks import final_number

if find_spec("lm_eval") is None:
    pytest.skip("lm-eval is not installed (0.6 GB): pip install -e '.[eval]'", allow_module_level=True)

ROOT = Path(__file__).parents[1]
TASK = ROOT / "tests" / "harness_task" / "gsm8k_words.yaml"
PROBLEMS = [json.loads(line) for line in (TASK.parent / "problems.jsonl").read_text().splitlines()]
SAMPLING = {"sampler": "attention", "threshold": 0.9, "max_new_tokens": 32}
CHOICES = {
    "task": "choices", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": "tests/harness_task/problems.jsonl"}},
    "output_type": "multiple_choice", "test_split": "test", "doc_to_text": "{{question}}", "target_delimiter": " ",
    "doc_to_choice": ["1", "{{answer.split('#### ')[-1]}}"], "doc_to_target": 1,
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}  # fmt: skip

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:lm_eval.*", "ignore::DeprecationWarning:datasets.*", "ignore::DeprecationWarning:dill.*"
)


@pytest.fixture(scope="module")
def model_class() -> Any:
    from attn_sampler.evals.lm_eval.model import AttnSamplerLM

    return AttnSamplerLM


@pytest.fixture
def evaluate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """lm-eval's entry, from the repository's root, its data cache thrown away afterwards."""
    import datasets.config
    import lm_eval
    from lm_eval.tasks import TaskManager

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path))
    manager = TaskManager(include_path=str(TASK.parent), include_defaults=False)

    def run(tasks: list[Any], **given: Any) -> dict[str, Any]:
        return lm_eval.simple_evaluate(tasks=tasks, task_manager=manager, bootstrap_iters=0, **given)  # type: ignore[return-value]

    return run


def asked(*args: Any) -> Any:
    return SimpleNamespace(args=args)


def answers(context: Callable[[str], Any], **given: Any) -> list[str]:
    """What the engine itself writes."""
    params = ats.SamplingParams(**SAMPLING, stop="Question:", seed=0, **given)
    return [one.text for one in ats.load(device="cpu").generate([context(p["question"]) for p in PROBLEMS], params)]


def strict(text: str) -> str:
    found = re.search(r"#### (-?[0-9.,]+)", text)
    return found[1] if found else ""


def check_gsm8k(results: dict[str, Any], texts: list[str]) -> None:
    """Both of GSM8K's scores, counted again from what the engine wrote."""
    scores = results["results"]["gsm8k_words"]
    gold = [strict(p["answer"]) for p in PROBLEMS]
    flexible = [final_number(text) == final_number(p["answer"]) for text, p in zip(texts, PROBLEMS, strict=True)]
    exact = [strict(text) == answer for text, answer in zip(texts, gold, strict=True)]
    assert scores["exact_match,strict-match"] == pytest.approx(sum(exact) / len(exact))
    assert scores["exact_match,flexible-extract"] == pytest.approx(sum(flexible) / len(flexible))


# --- generation -------------------------------------------------------------------------------------------------------


def test_gsm8k_through_lm_evals_python_entry(evaluate: Callable[..., Any], model_class: Any) -> None:
    given = {"model": "attn_sampler", "model_args": SAMPLING, "batch_size": 5, "device": "cpu", "apply_chat_template": True}
    results = evaluate(["gsm8k_words"], **given)
    texts = answers(lambda question: [{"role": "user", "content": question}])
    assert any(texts)
    samples = [s for s in results["samples"]["gsm8k_words"] if s["filter"] == "strict-match"]
    assert [s["resps"][0][0] for s in sorted(samples, key=lambda s: s["doc_id"])] == texts
    check_gsm8k(results, texts)
    assert results["config"]["sampling"] == SAMPLING


def test_gsm8k_through_the_lm_eval_command(tmp_path: Path) -> None:
    command = [
        str(Path(sys.executable).parent / "lm_eval"), "--model", "attn_sampler",
        "--model_args", ",".join(f"{name}={value}" for name, value in SAMPLING.items()),
        "--tasks", str(TASK.relative_to(ROOT)), "--batch_size", "8", "--device", "cpu", "--apply_chat_template",
        "--output_path", str(tmp_path / "out"), "--log_samples",
    ]  # fmt: skip
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_DATASETS_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(command, cwd=ROOT, env=os.environ | offline, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "|gsm8k_words|" in done.stdout
    (file,) = (tmp_path / "out").rglob("results_*.json")
    check_gsm8k(json.loads(file.read_text()), answers(lambda question: [{"role": "user", "content": question}]))


def test_without_a_chat_template_the_text_is_the_prompt(evaluate: Callable[..., Any], model_class: Any) -> None:
    lm = model_class(**SAMPLING, batch_size=4, device="cpu")
    results = evaluate(["gsm8k_words"], model=lm, limit=3)
    direct = lm.engine.generate(
        [p["question"] for p in PROBLEMS[:3]], ats.SamplingParams(**SAMPLING, stop="Question:"), chat=False
    )
    texts = {s["doc_id"]: s["resps"][0][0] for s in results["samples"]["gsm8k_words"]}
    assert [texts[i] for i in range(3)] == [one.text for one in direct]


def test_examples_as_turns_of_a_conversation(evaluate: Callable[..., Any], model_class: Any) -> None:
    task = {"task": "turns", **_yaml(), "fewshot_split": "test", "num_fewshot": 2}
    lm = model_class(**SAMPLING, device="cpu")
    results = evaluate([task], model=lm, limit=1, apply_chat_template=True, fewshot_as_multiturn=True)
    context = results["samples"]["turns"][0]["arguments"][0][0]
    assert re.fullmatch(
        r"(<\|user\|>[^<]+<\|assistant\|>[^<]+<\|eos\|>){2}<\|user\|>[^<]+<\|assistant\|>", context
    ), context  # fmt: skip


def _yaml() -> dict[str, Any]:
    return {
        "dataset_path": "json", "dataset_kwargs": CHOICES["dataset_kwargs"], "output_type": "generate_until",
        "test_split": "test", "doc_to_text": "{{question}}", "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        "generation_kwargs": {"until": ["Question:"], "do_sample": False},
    }  # fmt: skip


def test_stop_strings_lengths_and_repeats(model_class: Any) -> None:
    lm = model_class(sampler="confidence", batch_size=3, device="cpu")
    context = lm.apply_chat_template([{"role": "user", "content": PROBLEMS[0]["question"]}])
    lengths: list[dict[str, Any]] = [{"max_gen_toks": 32}, {"until": ["\n"], "max_gen_toks": 32}, {"max_gen_toks": 3}]
    whole, cut, short = lm.generate_until([asked(context, one) for one in lengths], disable_tqdm=True)
    assert cut == whole.split("\n")[0]
    assert len(lm.tok_encode(short)) <= 3
    hot = asked(context, {"do_sample": True, "temperature": 3.0, "max_gen_toks": 16})
    first, second, third = lm.generate_until([hot] * 3, disable_tqdm=True)
    assert len({first, second, third}) > 1, "each repeat draws anew"
    assert lm.generate_until([asked(context, {"max_gen_toks": 32}), hot], disable_tqdm=True)[1] == first


def test_a_request_that_cannot_run_stops_all_before_they_start(model_class: Any) -> None:
    lm = model_class(device="cpu")
    fine, long = asked("Tom", {"max_gen_toks": 8}), asked("Tom " * 600, {"max_gen_toks": 8})
    with pytest.raises(InvalidInputError, match="longer than the context of 512"):
        lm.generate_until([fine, long], disable_tqdm=True)
    assert lm.engine.unfinished == 0


# --- log-likelihood ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["monte-carlo", "left-to-right"])
def test_multiple_choice_by_either_likelihood(method: str, evaluate: Callable[..., Any], model_class: Any) -> None:
    lm = model_class(likelihood=method, mc_num=16, device="cpu", seed=7, check_greedy=False)
    results = evaluate([CHOICES], model=lm, limit=2)
    how = Likelihood(method, draws=16, seed=7, check_greedy=False)
    for sample in results["samples"]["choices"]:
        for arguments, response in zip(sample["arguments"], sample["resps"], strict=True):
            context, continuation = (lm.tok_encode(text) for text in arguments)
            whole = lm.tok_encode("".join(arguments))
            assert whole == context + continuation, "these texts have no token across the boundary"
            expected, _ = how.of(lm.engine.model, context, continuation)
            assert response[0][0] == pytest.approx(expected.value, abs=1e-9)
    told = results["config"]["likelihood"]
    assert (told["method"], told["requests"]) == (method, 4)
    assert told["standard_error_max"] == max(one.standard_error for one in lm.estimates)


def test_the_standard_error_is_logged(model_class: Any, caplog: pytest.LogCaptureFixture) -> None:
    lm = model_class(mc_num=4, device="cpu")
    with caplog.at_level("INFO", logger="lm_eval.attn_sampler"):
        lm.loglikelihood([asked(PROBLEMS[0]["question"], " 4 * 3 = 12")], disable_tqdm=True)
    assert re.search(r"monte-carlo log-likelihood of 1 requests: standard error [0-9.e-]+ nats on average", caplog.text)


def test_a_text_without_a_prompt_and_one_longer_than_the_context(model_class: Any) -> None:
    lm = model_class(likelihood="left-to-right", device="cpu")
    model, text = lm.engine.model, PROBLEMS[0]["question"]
    ids = lm.tok_encode(text)
    (rolling,) = lm.loglikelihood_rolling([asked(text)], disable_tqdm=True)
    ((alone, _),) = lm.loglikelihood([asked("", text)], disable_tqdm=True)
    whole, _ = Likelihood("left-to-right").of(model, [model.eos_ids[0]], ids)
    assert rolling == pytest.approx(alone) == pytest.approx(whole.value)
    long = " ".join(p["question"] for p in PROBLEMS * 3)
    count = len(lm.tok_encode(long))
    assert count > model.context_length
    quick = model_class(mc_num=1, device="cpu", batch_size=8)
    (value,) = quick.loglikelihood_rolling([asked(long)], disable_tqdm=True)
    assert value < 0
    assert quick.estimates[0].canvases == -(-count // (model.context_length - 1)), "every window once"


# --- what lm-eval looks up ----------------------------------------------------------------------------------------------


def test_the_model_is_registered_and_named_as_an_entry_point(model_class: Any) -> None:
    from lm_eval.api.registry import Registry, get_model

    assert get_model("attn_sampler") is model_class
    assert get_model("dummy") is not None, "lm-eval's own models are still there"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (name, value), *others = project["entry-points"]["lm_eval.models"].items()
    assert (name, others) == ("attn_sampler", [])
    registry: Any = Registry("model")
    registry.register(name, target=EntryPoint(name, value, "lm_eval.models"))
    assert registry.get(name) is model_class


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"smapler": "margin"}, UnknownNameError, "did you mean 'sampler'"),
        ({"sampler": "margni"}, UnknownNameError, "did you mean 'margin'"),
        ({"likelihood": "left to right"}, UnknownNameError, "did you mean 'left-to-right'"),
        ({"batch_size": "many"}, InvalidInputError, "batch_size='many'"),
        ({"block_length": 24, "max_new_tokens": 32}, InvalidInputError, "block_length=24"),
        ({"device": "cpu", "dtype": "float8"}, InvalidInputError, "dtype='float8'"),
    ],
)
def test_wrong_model_arguments_are_named(given: dict[str, Any], error: type[Exception], says: str, model_class: Any) -> None:
    with pytest.raises(error, match=says):
        model_class(**given)


def test_checkpoints_without_a_tokenizer_or_a_template(model_class: Any, golden: Path, tiny: Callable[[str], Path]) -> None:
    with pytest.raises(InvalidInputError, match="lm-eval asks in text"):
        model_class(pretrained=str(golden / "models" / "llada_gqa"), device="cpu")
    lm = model_class(device="cpu", batch_size="auto")
    assert lm.engine.max_rows == 32
    lm.tokenizer.chat_template = None
    with pytest.raises(InvalidInputError, match="no chat template"):
        lm.apply_chat_template([{"role": "user", "content": "x"}])


def test_a_tokenizers_own_tokens_come_once(model_class: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = model_class(device="cpu")
    assert lm.tok_encode("Tom") == lm.tokenizer.encode("Tom", add_special_tokens=False)
    monkeypatch.setattr(lm, "_lead", [0])
    monkeypatch.setattr(lm, "_tail", [2])
    plain = lm.tok_encode("Tom", add_special_tokens=False)
    assert lm.tok_encode("Tom") == [0, *plain]
    assert lm.tok_encode("Tom", add_special_tokens=True) == [0, *plain, 2]
    assert lm.tok_encode("<|eos|>Tom") == lm.tok_encode("<|eos|>Tom", add_special_tokens=True) == [0, *plain]


def test_parameters_reach_the_rows(model_class: Any) -> None:
    lm = model_class(**SAMPLING, steps=16, device="cpu")
    assert params_of(lm._own, {"until": ["\n"]}).steps == 16

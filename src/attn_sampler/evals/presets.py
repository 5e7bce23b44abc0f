"""Published evaluation settings, per model and task: what to run to compare with a paper's number.

A preset says how the authors' own evaluation was set (style of the prompt, length, blocks, steps, sampler, end-of-sequence
handling), the accuracy they published, and where this library's run differs. Two published models have no preset: ReFusion, whose
decoding is not in the library, and Open-dCoder, whose sampler P2 is not; docs/tasks.md says more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from attn_sampler.errors import InvalidInputError, UnknownNameError

__all__ = ["Preset", "Published", "find", "names"]

MATH = "published on all 5000 problems of MATH"
SHOTS = "the shots are the first ones of the training file"
BOTH = f"{MATH}; the four examples are this library's own"
WORDS = "their prompt has other words"
OWN = "the shots are this library's own"
BOS = "they put a beginning-of-sequence token before the prompt (add_bos), here there is one only where the tokenizer adds it"
CUT = (
    "they let the model write on past stop strings (escape_until) and cut programs out with their own postprocess_code.py, "
    "here a program ends at this library's stop strings"
)
BEGIN = "they suppress end tokens at the first position only, which is not done here"


@dataclass(frozen=True)
class Published:
    """A model on a task.

    Attributes:
        style: of the task's prompts.
        params: of `attn_sampler.SamplingParams`.
        accuracy: published, per cent; None where the source states none.
        differs: what is not as published, beside the library's fixed versions of the data.
    """

    style: str
    params: Mapping[str, Any] = field(hash=False)
    accuracy: float | None = None
    differs: str = ""


@dataclass(frozen=True)
class Preset:
    """A model's published settings.

    Attributes:
        model: on the Hub.
        source: whose evaluation this is.
        name: as it is typed.
    """

    model: str
    source: str
    tasks: Mapping[str, Published] = field(hash=False)
    name: str = ""

    def task(self, name: str) -> Published:
        """The setting of a task.

        Raises:
            InvalidInputError: none was published.
        """
        if name not in self.tasks:
            raise InvalidInputError(
                "preset", self.name, f"has no published setting of {name!r}, only of {', '.join(self.tasks)} ({self.source})"
            )
        return self.tasks[name]


def names() -> list[str]:
    """All presets, sorted."""
    return sorted(_PRESETS)


def find(name: str) -> Preset:
    """The preset of that name.

    Raises:
        UnknownNameError: there is none; the nearest one is named.
    """
    if name not in _PRESETS:
        raise UnknownNameError("preset", name, _PRESETS)
    return replace(_PRESETS[name], name=name)


def _llada(length: int, block: int | None = None, **more: Any) -> dict[str, Any]:
    """LLaDA's generate: one commit in each step, of the most confident token."""
    return {"sampler": "confidence", "max_new_tokens": length, "block_length": block or length, "steps": length} | more


def _dream(length: int, **more: Any) -> dict[str, Any]:
    """Dream's diffusion_generate with alg="entropy": one commit in each step on average."""
    return {"sampler": "dream", "alg": "entropy", "max_new_tokens": length, "steps": length} | more


LAST: dict[str, Any] = {"confidence_eos_eot_inf": True}  # end tokens are committed last
NEVER: dict[str, Any] = {"logits_eos_inf": True}  # the end-of-sequence token is never proposed


def _fast_dllm_v2(model: str, gsm8k: float, math: float, humaneval: float, mbpp: float) -> Preset:
    params = {"sampler": "fast-dllm-v2", "max_new_tokens": 2048, "threshold": 1.0, "sub_block_length": 8}
    return Preset(
        model, "Fast-dLLM v2, README (chat, greedy, blocks of 32, sub-blocks of 8)",
        {
            "gsm8k": Published("0shot-chat", params, gsm8k),
            "math500": Published("minerva-0shot-chat", params, math, MATH),
            "humaneval": Published("instruct-chat", params, humaneval, "published with EvalPlus"),
            "mbpp": Published("fence-0shot-chat", params, mbpp, "published with EvalPlus"),
        },
    )  # fmt: skip


_PRESETS = {
    "llada-base": Preset(
        "GSAI-ML/LLaDA-8B-Base", "LLaDA, eval_llada.py (lm-eval 0.4.8, no chat)",
        {
            "gsm8k": Published("5shot", _llada(1024), 70.3, SHOTS),
            "math500": Published("minerva-4shot", _llada(1024), 31.4, BOTH),
            "humaneval": Published("completion", _llada(1024), 35.4),
            "mbpp": Published("3shot", _llada(1024), 40.0),
        },
    ),
    "llada-instruct": Preset(
        "GSAI-ML/LLaDA-8B-Instruct", "LLaDA, OpenCompass, pure diffusion",
        {
            "gsm8k": Published("steps-4shot-chat", _llada(512, **LAST), 69.4, SHOTS),
            "math500": Published("boxed-0shot-chat", _llada(512, **LAST), 31.9, MATH),
            "humaneval": Published("complete-chat", _llada(512, **NEVER), 49.4),
            "mbpp": Published("3shot-chat", _llada(256, **LAST), 41.0),
        },
    ),
    "llada-instruct-blocks": Preset(
        "GSAI-ML/LLaDA-8B-Instruct", "LLaDA, OpenCompass, semi-autoregressive",
        {
            "gsm8k": Published("steps-4shot-chat", _llada(256, 8), 78.6, SHOTS),
            "math500": Published("boxed-0shot-chat", _llada(512, 64), 42.2, MATH),
        },
    ),
    "llada-1.5": Preset(
        "GSAI-ML/LLaDA-1.5", "LLaDA 1.5, OpenCompass",
        {
            "gsm8k": Published("steps-4shot-chat", _llada(256, 16, **LAST), 83.8, SHOTS),
            "math500": Published("boxed-0shot-chat", _llada(1024, 128), 42.6, MATH),
            "humaneval": Published("complete-chat", _llada(512, 32), 52.4),
            "mbpp": Published("3shot-chat", _llada(512, 32), 42.8),
        },
    ),
    "fast-dllm-llada": Preset(
        "GSAI-ML/LLaDA-8B-Instruct", "Fast-dLLM (lm-eval, no chat template), threshold 0.9 with caches",
        {
            "gsm8k": Published(
                "5shot",
                {"sampler": "fast-dllm", "threshold": 0.9, "max_new_tokens": 256, "block_length": 32, "cache": "dual"}, 78.5,
                f"{SHOTS}; which of its caches is not said, here the dual one",
            ),
        },
    ),
    "fast-dllm-llada-sequential": Preset(
        "GSAI-ML/LLaDA-8B-Instruct", "Fast-dLLM (lm-eval, no chat template), its baseline",
        {
            "gsm8k": Published("5shot", _llada(256, 32), 79.3, SHOTS),
            "humaneval": Published("completion", _llada(256, 32), 41.5),
        },
    ),
    "fast-dllm-dream": Preset(
        "Dream-org/Dream-v0-Base-7B", "Fast-dLLM (lm-eval), its baseline",
        {"gsm8k": Published("5shot", _dream(256), None, f"{SHOTS}; {BOS}")},
    ),
    "fast-dllm-dream-parallel": Preset(
        "Dream-org/Dream-v0-Base-7B", "Fast-dLLM (lm-eval), confidence threshold 0.9",
        {
            "gsm8k": Published(
                "5shot", {"sampler": "fast-dllm", "threshold": 0.9, "max_new_tokens": 256, "block_length": 32}, None,
                f"{SHOTS}; {BOS}; their steps are 8, here a row takes the passes that the threshold asks for; the length of "
                "their blocks is not said, here 32",
            ),
        },
    ),
    "dllm-llada": Preset(
        "GSAI-ML/LLaDA-8B-Instruct", "dllm (lm-eval, chat)",
        {
            "gsm8k": Published("cot-5shot-chat", _llada(512), None, f"{SHOTS}; {BEGIN}"),
            "math500": Published("minerva-4shot-chat", _llada(512), None, f"{BOTH}; {BEGIN}"),
            "humaneval": Published("instruct-chat", _llada(512, **NEVER), None, "their answer begins with the prompt's code"),
            "mbpp": Published("3shot-one-turn", _llada(256), None, BEGIN),
        },
    ),
    "dream-base": Preset(
        "Dream-org/Dream-v0-Base-7B", "Dream, eval.py (lm-eval) and eval_planning.py",
        {
            "gsm8k": Published("cot-8shot", _dream(256, top_p=0.95), None, f"{SHOTS}; {BOS}"),
            "math500": Published("minerva-4shot", _dream(512, top_p=0.95), None, f"{BOTH}; {BOS}"),
            "humaneval": Published("completion", _dream(512, temperature=0.2, top_p=0.95), None, f"{BOS}; {CUT}"),
            "mbpp": Published("3shot", _dream(512, temperature=0.2, top_p=0.95), None, BOS),
            **{
                f"countdown{count}": Published("8shot", _dream(32), None, OWN)
                for count in (3, 4, 5)
            },
            "sudoku4": Published("8shot", _dream(24), None, OWN),
        },
    ),
    "dream-instruct": Preset(
        "Dream-org/Dream-v0-Instruct-7B", "Dream, eval.py (lm-eval, chat)",
        {
            "gsm8k": Published("cot-0shot-chat", _dream(256, temperature=0.1, top_p=0.9)),
            "math500": Published("minerva-0shot-chat", _dream(512, temperature=0.1, top_p=0.9), None, MATH),
            "humaneval": Published("instruct-chat", _dream(768, temperature=0.1, top_p=0.9)),
            "mbpp": Published("fence-0shot-chat", _dream(1024, temperature=0.1, top_p=0.9), None, WORDS),
        },
    ),
    "dream-coder-base": Preset(
        "Dream-org/Dream-Coder-v0-Base-7B", "Dream-Coder, lm-eval",
        {
            "gsm8k": Published("cot-8shot", _dream(256), None, SHOTS),
            "math500": Published("minerva-4shot", _dream(512), None, BOTH),
            "humaneval": Published("completion", _dream(512, temperature=0.2, top_p=0.9)),
            "mbpp": Published("0shot", _dream(512, temperature=0.1, top_p=0.9)),
        },
    ),
    "dream-coder-instruct": Preset(
        "Dream-org/Dream-Coder-v0-Instruct-7B", "Dream-Coder, Instruct (chat)",
        {
            "humaneval": Published("instruct-chat", _dream(768, temperature=0.1, top_p=0.95), None, WORDS),
            "mbpp": Published("fence-0shot-chat", _dream(768, temperature=0.1, top_p=0.95), None, WORDS),
        },
    ),
    "fast-dllm-v2-7b": _fast_dllm_v2("Efficient-Large-Model/Fast_dLLM_v2_7B", 83.7, 61.6, 63.4, 63.0),
    "fast-dllm-v2-1.5b": _fast_dllm_v2("Efficient-Large-Model/Fast_dLLM_v2_1.5B", 62.0, 38.1, 43.9, 50.0),
    "llada-moe": Preset(
        "inclusionAI/LLaDA-MoE-7B-A1B-Instruct", "dInfer, thresholds from 0.76 to 0.8",
        {
            name: Published(
                style, {"sampler": "dinfer", "threshold": 0.8, "max_new_tokens": 1024, "block_length": 64}, None, why
            )
            for name, style, why in (("gsm8k", "steps-4shot", SHOTS), ("mbpp-sanitized", "fence-0shot-chat", WORDS))
        },
    ),
    "sdar": Preset(
        "JetLM/SDAR-4B-Chat", "SDAR, OpenCompass (0-shot, greedy)",
        {
            name: Published(style, {"sampler": "fast-dllm", "threshold": 0.95, "max_new_tokens": 4096})
            for name, style in (
                ("gsm8k", "boxed-0shot-chat"), ("math500", "boxed-0shot-chat"), ("humaneval", "complete-chat"),
                ("mbpp-sanitized", "fence-0shot-chat"),
            )
        },
    ),
    "tiny-a2d-mdlm": Preset(
        "dllm-hub/Qwen3-0.6B-diffusion-mdlm-v0.1", "dllm (lm-eval, chat)",
        {
            "gsm8k": Published("cot-5shot-chat", _llada(256), None, SHOTS),
            "math500": Published("minerva-0shot-chat", _llada(256), None, MATH),
            "humaneval": Published("instruct-chat", _llada(256)),
            "mbpp": Published("fence-0shot-chat", _llada(256), None, WORDS),
        },
    ),
    "tiny-a2d-bd3lm": Preset(
        "dllm-hub/Qwen3-0.6B-diffusion-bd3lm-v0.1", "dllm (lm-eval, chat)",
        {
            "gsm8k": Published("cot-0shot-chat", _llada(256, 32)),
            "math500": Published("minerva-0shot-chat", _llada(256, 32), None, MATH),
            "humaneval": Published("instruct-chat", _llada(256, 32)),
            "mbpp": Published("fence-0shot-chat", _llada(256, 32), None, WORDS),
        },
    ),
    "bert-chat": Preset(
        "dllm-hub/ModernBERT-large-chat-v0.1", "dllm (lm-eval, chat)",
        {
            "gsm8k": Published("0shot-chat", _llada(256, 32)),
            "math500": Published("minerva-4shot-chat", _llada(256, 32), None, BOTH),
        },
    ),
}  # fmt: skip

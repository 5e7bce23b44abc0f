"""Special tokens and chat formats of every family, around one token per byte or per character instead of a learnt vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

__all__ = [
    "A2D2_WORDS", "A2D3_WORDS", "BERT_CHAT", "BERT_WORDS", "DCODER_WORDS", "DREAM_WORDS", "FAST_WORDS", "ILLADA_WORDS",
    "LLADA_WORDS", "MODERN_WORDS", "MOE_WORDS", "ROBERTA_WORDS", "SDAR_WORDS", "Vocabulary", "role_chat",
]  # fmt: skip


@dataclass(frozen=True)
class Vocabulary:
    """Special tokens, at their places around one token per byte (``pieces=False``) or per character (``True``, WordPiece).

    Attributes:
        after, before: special tokens with the ids after, or before, the ordinary ones.
        roles: what tokenizer_config.json calls them (``"eos_token"`` …).
        tokenizer_class: likewise.
        frame: tokens put around a text that is no chat.
        chat: the chat template, None where the checkpoint has none.
        files: ``"fast"`` for tokenizer.json, ``"slow"`` for vocab.json and merges.txt.
    """

    after: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    roles: Mapping[str, str] = field(default_factory=dict)
    tokenizer_class: str = "PreTrainedTokenizerFast"
    frame: tuple[str, str] | None = None
    chat: str | None = None
    pieces: bool = False
    files: str = "fast"

    def __getitem__(self, token: str) -> int:
        """The id of a special token (those after the ordinary ones: of byte vocabularies only)."""
        return self.before.index(token) if token in self.before else len(self.before) + 256 + self.after.index(token)


# --- chat formats -----------------------------------------------------------------------------------------------------

_LLADA_CHAT = (
    "{% for m in messages %}{% if loop.first %}<|startoftext|>{% endif %}"
    "<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)


def _chatml(system: str | None, *, thinking: bool = False) -> str:
    """The Qwen form: a system text where none is given; with a switch that puts an empty thought before the answer."""
    default = f"{{% if messages[0]['role'] != 'system' %}}<|im_start|>system\n{system}<|im_end|>\n{{% endif %}}" if system else ""
    empty = "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}" if thinking else ""
    return (
        f"{default}{{% for m in messages %}}<|im_start|>{{{{ m['role'] }}}}\n{{{{ m['content'] }}}}<|im_end|>\n{{% endfor %}}"
        f"{{% if add_generation_prompt %}}<|im_start|>assistant\n{empty}{{% endif %}}"
    )


def role_chat(gap: str) -> str:
    return (
        "{% set given = messages[0]['role'] == 'system' %}<role>SYSTEM</role>"
        "{% if given %}{{ messages[0]['content'] }}" + gap + "{% endif %}detailed thinking off<|role_end|>"
        "{% for m in messages %}{% if m['role'] != 'system' %}"
        "<role>{{ 'HUMAN' if m['role'] == 'user' else 'ASSISTANT' }}</role>{{ m['content'] }}<|role_end|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<role>ASSISTANT</role>{% endif %}"
    )


BERT_CHAT = (
    "{% for m in messages %}{% if m['role'] == 'system' %}[SYS]\n{{ m['content'] }}\n[/SYS]\n\n"
    "{% elif m['role'] == 'user' %}[Question]\n{{ m['content'] }}\n[/Question]\n\n"
    "{% else %}[Answer]\n{{ m['content'] }}\n[/Answer]\n\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}[Answer]\n{% endif %}"
)

# --- tokenizers -------------------------------------------------------------------------------------------------------

LLADA_WORDS = Vocabulary(
    (
        "<|startoftext|>", "<|endoftext|>", "[CLS]", "[gMASK]", "<|mdm_mask|>", "<|start_header_id|>", "<|end_header_id|>",
        "<|eot_id|>",
    ),
    roles={"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "cls_token": "[CLS]"},
    chat=_LLADA_CHAT,
)  # fmt: skip
MOE_WORDS = Vocabulary(
    ("<|startoftext|>", "<|endoftext|>", "[CLS]", "[gMASK]", "<|mask|>", "<role>", "</role>", "<|role_end|>"),
    roles={"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"},
    chat=role_chat(""),
)
_QWEN = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_PAD = {"pad_token": "<|endoftext|>"}
DREAM_WORDS = Vocabulary(
    (*_QWEN, "<|beginoftext|>", "<|mask|>"),
    roles=_PAD | {"bos_token": "<|beginoftext|>", "eos_token": "<|endoftext|>", "mask_token": "<|mask|>"},
    tokenizer_class="DreamTokenizer",
    chat=_chatml("You are a helpful assistant."),
    files="slow",
)
FAST_WORDS = Vocabulary(
    (*_QWEN, "|<MASK>|"),
    roles=_PAD | {"eos_token": "<|im_end|>"},
    tokenizer_class="Qwen2Tokenizer",
    chat=_chatml("You are Qwen, created by Alibaba Cloud. You are a helpful assistant."),
)
SDAR_WORDS = Vocabulary(
    (*_QWEN, "<think>", "</think>", "<|MASK|>"),
    roles=_PAD | {"eos_token": "<|endoftext|>", "mask_token": "<|MASK|>"},
    tokenizer_class="Qwen2Tokenizer",
    chat=_chatml(None, thinking=True),
)
A2D3_WORDS = Vocabulary(
    (*_QWEN, "<think>", "</think>", "<|mask|>"),
    roles=_PAD | {"eos_token": "<|im_end|>", "mask_token": "<|mask|>"},
    tokenizer_class="Qwen2Tokenizer",
    chat=_chatml(None, thinking=True),
)
A2D2_WORDS = replace(FAST_WORDS, after=(*_QWEN, "<|mask|>"), roles=A2D3_WORDS.roles)
DCODER_WORDS = Vocabulary(
    (*_QWEN, "<M>"), roles=_PAD | {"eos_token": "<|endoftext|>", "mask_token": "<M>"}, tokenizer_class="Qwen2Tokenizer"
)
ILLADA_WORDS = Vocabulary(before=("<bos>", "<pad>", "<eos>", "<unk>", "<reserved>", "<[MASK]>"), roles={"eos_token": "<eos>"})
BERT_WORDS = Vocabulary(
    before=("[PAD]", *(f"[unused{i}]" for i in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"),  # the ids of bert-base-uncased
    roles={
        "pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]",
    },
    tokenizer_class="BertTokenizer",
    frame=("[CLS]", "[SEP]"),
    pieces=True,
)  # fmt: skip
ROBERTA_WORDS = Vocabulary(
    ("<mask>",),
    before=("<s>", "<pad>", "</s>", "<unk>"),
    roles={
        "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>",
        "sep_token": "</s>", "mask_token": "<mask>",
    },
    tokenizer_class="RobertaTokenizer",
    frame=("<s>", "</s>"),
)  # fmt: skip
MODERN_WORDS = Vocabulary(("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"), roles=BERT_WORDS.roles, frame=("[CLS]", "[SEP]"))

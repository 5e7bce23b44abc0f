"""What the study of all samplers runs: three evaluations, the settings of each, and what a reader of its report should know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["PARTS", "SHOWN", "Part"]

THREE = "0.95,0.8,0.6"
EXITS = "early_exit=none,prophet,sched"
ONE_BY_ONE = (
    "One token per forward pass, but for the early exits, which write all that is left at once, and remdm, which masks tokens "
    "again. The table of frequencies that pc-sampler has under one of its settings was counted on answers of the generator that "
    "the embedded model was trained with, none of which is asked here."
)
ONE_BLOCK = (
    "The answer is one block of 32. There fast-dllm, dinfer, slowfast, dcd and llada2 are one rule, everything above the "
    "threshold: dcd's sliding window of 32 masks holds the whole answer, in slowfast's exploring phase of six passes, which few "
    "answers outlast, everything above the threshold is written wherever it is, llada2 overwrites nothing by default, and dinfer "
    "differs from fast-dllm in exact ties only. Below the tables the report says which settings did exactly the same. In blocks "
    "of 8, with windows to match, slowfast, dcd and llada2 with overwriting are told apart: study-blocks. With apart=0.05, our "
    "own addition, fast-dllm writes of two positions that attend to each other only the surer."
)
BLOCKS_OF_8 = (
    "The same answers in blocks of 8 from left to right. slowfast and dcd have no blocks, so theirs is the whole answer "
    "(block_length=32), slowfast with exploring phases of two passes instead of six, dcd with a sliding window of 8 masks, not "
    "32. llada2 is run with and without overwriting what it wrote; without, it is fast-dllm, as is dinfer but for exact ties."
)


@dataclass(frozen=True)
class Part:
    """One evaluation.

    Attributes:
        samplers: name → what ``-o`` says of it; ``@`` stands for the table of frequencies.
        why: what a reader of its report should know beside the numbers.
        options: of the command, for all rows.
    """

    samplers: Mapping[str, Sequence[str]]
    why: str
    options: Sequence[str] = ()

    def command(self, frequencies: str) -> list[str]:
        """The words of ``attn-sampler eval`` that say the settings."""
        swept = [f"{name}.{text.replace('@', frequencies)}" for name, texts in self.samplers.items() for text in texts]
        return ["--samplers", ",".join(self.samplers), *(word for text in swept for word in ("-o", text)), *self.options]


PARTS = {
    "sequential": Part(
        {
            "confidence": (EXITS,), "margin": (), "entropy": (), "attention-sequential": (EXITS,), "attention-net-sequential": (),
            "attention-exact-sequential": (), "dos": (), "pc-sampler": ("frequencies=none", "frequencies=@"),
            "left-to-right": (), "random": (), "dream": (), "remdm": ("loops=8,32",),
        },
        ONE_BY_ONE,
    ),
    "parallel": Part(
        {
            "confidence": (), "fast-dllm": ("threshold=0.95,0.9,0.8,0.7,0.6", "apart=none,0.05"),
            "attention": ("threshold=0.95,0.9,0.8,0.7,0.6", "fallback=score,conf"),
            "attention-net": (f"threshold={THREE}",), "attention-exact": (f"threshold={THREE}",), "attention-fixed": ("k=2,4,8",),
            "klass": (f"threshold={THREE}",), "dinfer": (f"threshold={THREE}",), "dinfer-hierarchy": (f"threshold={THREE}",),
            "credit": (f"threshold={THREE}",), "slowfast": (f"threshold={THREE}",), "dcd": (f"threshold={THREE}",),
            "llada2": (f"threshold={THREE}",), "fast-dllm-v2": (f"threshold={THREE}",), "localleap": ("threshold=0.95,0.9,0.8",),
            "dapd": ("threshold=0.95,0.8",), "clad": ("threshold=0.9,0.75",), "dawn": ("threshold=0.95,0.8",),
            "fast-dllm-factor": ("factor=0.3,1,2",), "eb": ("gamma=0.01,0.1,0.5",), "adas": ("factor=0.3,1,2",),
            "wino": ("draft_threshold=0.9,0.8,0.6",),
        },
        ONE_BLOCK,
    ),
    "blocks": Part(
        {
            "confidence": (), "fast-dllm": ("threshold=0.9,0.7",), "dinfer": ("threshold=0.9,0.7",),
            "dinfer-hierarchy": ("threshold=0.9,0.7",),
            "slowfast": ("block_length=32", "exploration=2", "threshold=0.9,0.7"),
            "dcd": ("block_length=32", "sub_block_length=8", "threshold=0.9,0.7"),
            "llada2": ("editing_threshold=none,0.9", "threshold=0.9,0.7"), "localleap": ("threshold=0.9,0.8",),
            "attention": ("threshold=0.9,0.7",), "klass": ("threshold=0.9,0.7",), "wino": ("draft_threshold=0.9,0.7",),
        },
        BLOCKS_OF_8,
        ("--block-length", "8"),
    ),
}  # fmt: skip
SHOWN = (
    "confidence", "fast-dllm apart=none", "fast-dllm apart=0.05", "klass", "eb",
    "attention fallback=score", "attention fallback=conf",
)  # fmt: skip

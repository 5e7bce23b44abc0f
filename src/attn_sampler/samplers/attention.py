"""Attn-Sampler (arXiv 2604.08564): commit in descending order of the attention matrix's column sums.

Score: column sum over the window of the self-attention matrix, mean over layers and query heads, re-computed at every forward.
Sequential (Algorithm 1): the highest score, one position per forward. Parallel (Algorithm 2): the dynamic attention threshold
(`attn_sampler.rules.attention_threshold`). The text of the algorithms and any code of the authors were not available; every open
point is an option, and its default is argued for in ``docs/samplers/attention.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attn_sampler import rules, scores
from attn_sampler.errors import InvalidInputError, check_choice, check_number
from attn_sampler.seam import Attention, Memory, Needs, Selection, Window

__all__ = ["AttentionParallel", "AttentionSequential", "DynamicThreshold", "WindowAttention"]


@dataclass(frozen=True)
class WindowAttention:
    """What all samplers share that order a window by its own attention: where they look, and the sequential rule."""

    norm: Literal["local", "global"] = "local"
    sub_block_length: int | None = 8
    window: Literal["consecutive", "leftmost"] = "consecutive"
    layers: tuple[int, ...] | None = None
    heads: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        check_choice("norm", self.norm, ("local", "global"))
        if self.sub_block_length is not None:
            check_number("sub_block_length", self.sub_block_length, low=1, integer=True)
        check_choice("window", self.window, ("consecutive", "leftmost"))
        for field, indices in (("layers", self.layers), ("heads", self.heads)):
            if indices is None:
                continue
            if not isinstance(indices, tuple) or not indices:
                raise InvalidInputError(field, indices, "give a tuple of at least one index, or None for all")
            for index in indices:
                check_number(field, index, low=0, integer=True)

    def choose(self, score: Float[Tensor, "rows width"], window: Window) -> Bool[Tensor, "rows width"]:
        """How many, once the scores are known."""
        return rules.top_k(score, window.candidates, window.quota, tie=window.proposal.confidence)


@dataclass(frozen=True)
class DynamicThreshold(WindowAttention):
    """The parallel rule in place of the sequential one."""

    threshold: float = 0.9
    fallback: Literal["score", "conf"] = "score"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("threshold", self.threshold, low=0, high=1)
        check_choice("fallback", self.fallback, ("score", "conf"))

    def choose(self, score: Float[Tensor, "rows width"], window: Window) -> Bool[Tensor, "rows width"]:
        confidence = window.proposal.confidence
        return rules.attention_threshold(score, confidence, window.candidates, window.quota, self.threshold, self.fallback)


@dataclass(frozen=True)
class AttentionSequential(WindowAttention):
    """Attn-Sampler, sequential: the highest attention column sum first, one position per forward (or the step budget's quota).

    Options:
        norm: softmax over the sub-block's own keys (local), or the true attention matrix (global).
        sub_block_length: positions of the block considered at a time; None for the whole block.
        window: sub-blocks as consecutive stretches, or the leftmost masked positions of the block.
        layers, heads: indices used (None for all), for ablations.
        rows: query rows summed: all of the sub-block, the still masked ones, or the whole active block.
        diag: whether a position's attention to itself counts.
        refresh: scores from every forward, or from the first forward of each sub-block.
    """

    name: ClassVar[str] = "attention-sequential"
    paper: ClassVar[str] = "arXiv:2604.08564"

    rows: Literal["all", "masked", "block"] = "all"
    diag: bool = True
    refresh: Literal["forward", "subblock"] = "forward"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("rows", self.rows, ("all", "masked", "block"))
        check_choice("refresh", self.refresh, ("forward", "subblock"))
        if not isinstance(self.diag, bool):
            raise InvalidInputError("diag", self.diag, "give true or false")
        if self.refresh == "subblock" and self.window == "leftmost":
            raise InvalidInputError("refresh", self.refresh, 'needs window="consecutive": a leftmost window moves at every step')

    @property
    def needs(self) -> Needs:
        statistics = Attention(self.rows, self.norm, self.diag, self.layers, self.heads)
        return Needs(sub_block_length=self.sub_block_length, cut=self.window, attention=statistics)

    def select(self, window: Window, memory: Memory) -> Selection:
        score = scores.column_sum(window)
        keep: dict[str, Tensor] = {}
        if self.refresh == "subblock":
            place = window.positions[:, 0] + 1  # 0 is a row without memory
            if memory:
                score = torch.where((memory["place"] == place)[:, None], memory["columns"], score)
            keep = {"columns": score, "place": place}
        return Selection(self.choose(score, window), score, keep)


@dataclass(frozen=True)
class AttentionParallel(DynamicThreshold, AttentionSequential):
    """Attn-Sampler, parallel: every sure position whose column sum exceeds that of all unsure ones.

    Options beside those of the sequential form:
        threshold: probability above which a position counts as sure; 1 gives the sequential rule.
        fallback: what is committed when nothing passes: the highest score, or the highest confidence.
    """

    name: ClassVar[str] = "attention"

"""Rules for several tokens per forward pass that look at attention: the experiments of attention_parallel.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attention_orders import standardised
from attn_sampler import rules, scores
from attn_sampler.seam import Attention, Memory, Needs, Selection, Window


@dataclass(frozen=True)
class MixedThreshold:
    """Fast-dLLM's threshold on a mixture of confidence and attention, or the paper's rule on it.

    score = log p + ``weight`` · f(statistic)

    Options:
        threshold: on the score (its exponential), or on p alone.
        statistic: ``"column"`` sums; ``"net"``, column less row sums over the masks; ``"hang"``, how much attention goes to masks
            that are unsure, Σ_j A[i, j] (1 - p_j).
        form: f is the z-score over the candidates, the logarithm (the product p · statistic^weight) or nothing.
        rule: ``"score"``: all whose score reaches the threshold; ``"best"``: all whose p does, and where none does the highest
            score; ``"walk"``: the paper's dynamic threshold down the scores.
        rows, norm, layers, divided: whose attention, and whether columns are divided by their mean over the canvas (sinks).
    """

    name: ClassVar[str] = "mixed-threshold"
    paper: ClassVar[str] = "none: an experiment"

    threshold: float = 0.9
    weight: float = 0.0
    statistic: Literal["column", "net", "hang"] = "column"
    form: Literal["z", "product", "plain"] = "product"
    rule: Literal["score", "best", "walk"] = "score"
    rows: Literal["all", "masked"] = "all"
    layers: tuple[int, ...] | None = None
    divided: bool = False

    @property
    def needs(self) -> Needs:
        pairwise = self.statistic != "column"
        rows = "masked" if pairwise else self.rows
        wanted = Attention(rows, "global", not pairwise, self.layers, pairwise=pairwise, sinks=self.divided)
        return Needs(attention=wanted, one_block=True)

    def select(self, window: Window, memory: Memory) -> Selection:
        p, masked = window.proposal.confidence, window.candidates
        x = self.measured(window)
        if self.form == "product":
            there = masked.to(x.dtype)
            mean = (x * there).sum(1, keepdim=True) / there.sum(1, keepdim=True).clamp(min=1)
            x = (x / mean.clamp(min=1e-9)).clamp(min=1e-9).log()
        elif self.form == "z":
            x = standardised(x, window)
        score = (p.clamp(min=1e-30).log() + self.weight * x).exp()
        if self.rule == "walk":
            return Selection(rules.attention_threshold(score, p, masked, window.quota, self.threshold, "conf"), score)
        passed = masked & ((score if self.rule == "score" else p) >= self.threshold)
        return Selection(rules.at_least(passed, score, masked, window.quota), score)

    def measured(self, window: Window) -> Float[Tensor, "rows width"]:
        if self.statistic == "column":
            assert window.columns is not None
            return window.columns if window.sinks is None else window.columns / window.sinks.clamp(min=1e-9)
        attention = between(window)
        if self.statistic == "net":
            return (attention - attention.mT).sum(1)
        return (attention * (1 - window.proposal.confidence)[:, None]).sum(2)


@dataclass(frozen=True)
class Apart:
    """All above a threshold, but not two that attend to each other: down the confidences, one tied to none before it.

    Options:
        threshold: confidence from which a position is considered.
        limit: attention, mean of both directions, above which two are tied; who is surer than ``certain`` ties nobody.
        ties: ``"attention"``, or a control: ``"shuffled"`` takes that of other positions, ``"all"`` ties every two unsure ones.
    """

    name: ClassVar[str] = "apart"
    paper: ClassVar[str] = "none: an experiment, after arXiv:2603.12996"

    threshold: float = 0.7
    limit: float = 0.05
    certain: float = 0.99
    ties: Literal["attention", "shuffled", "all"] = "attention"
    layers: tuple[int, ...] | None = None

    @property
    def needs(self) -> Needs:
        return Needs(attention=Attention("masked", "global", layers=self.layers, pairwise=True), one_block=True)

    def select(self, window: Window, memory: Memory) -> Selection:
        p, masked = window.proposal.confidence, window.candidates
        passed = rules.threshold(p, masked, window.quota, self.threshold)
        unsure = p < self.certain
        attention = symmetric(window)
        if self.ties == "shuffled":
            attention = shuffled(attention, window)
        tied = both(window) & ((attention > self.limit) | (self.ties == "all")) & unsure[:, None] & unsure[:, :, None]
        return Selection(rules.at_least(rules.independent_set(p, passed, tied), p, masked, window.quota), p)


@dataclass(frozen=True)
class Load:
    """What a position may share with those written in the same pass, bounded: entropy where attention says that they are tied.

    Down the confidences a position is written if

        min(H_i, Σ_{j written before it in this pass} min(H_i, H_j) · min(1, scale · A[i, j])) ≤ bound

    with A the mean of both directions: mutual information is at most the smaller entropy, and little where there is no attention.

    Options:
        bound: nats.
        ties: ``"attention"``, or a control: ``"even"`` gives every pair of a row their mean, ``"shuffled"`` the attention of
            other positions, ``"all"`` ties everything (no attention).
        floor: confidence below which only the first is written.
    """

    name: ClassVar[str] = "load"
    paper: ClassVar[str] = "none: an experiment, after arXiv:2505.24857"

    bound: float = 0.1
    scale: float = 10.0
    floor: float = 0.0
    ties: Literal["attention", "even", "shuffled", "all"] = "attention"
    layers: tuple[int, ...] | None = None

    @property
    def needs(self) -> Needs:
        wanted = Attention("masked", "global", layers=self.layers, pairwise=True)
        return Needs(attention=None if self.ties == "all" else wanted, one_block=True)

    def select(self, window: Window, memory: Memory) -> Selection:
        p, masked = window.proposal.confidence, window.candidates
        entropy, place = scores.entropy(window), rules.rank(p, masked)
        shared = torch.minimum(entropy[:, None], entropy[:, :, None]) * self.tied(window)
        taken = torch.zeros_like(masked)
        for n in range(masked.shape[1]):
            now = (place == n) & masked
            load = torch.minimum((shared * taken[:, None]).sum(2), entropy)
            taken = taken | (now & (((load <= self.bound) & (p >= self.floor)) | (n < window.quota)[:, None]))
        return Selection(taken, p)

    def tied(self, window: Window) -> Float[Tensor, "rows width width"]:
        """How much of its entropy each two positions may share, from 0 to 1."""
        if self.ties == "all":
            return torch.ones_like(window.proposal.confidence)[:, None].expand(-1, window.candidates.shape[1], -1)
        attention = symmetric(window)
        if self.ties == "even":
            pairs = both(window)
            mean = (attention * pairs).sum((1, 2)) / pairs.sum((1, 2)).clamp(min=1)
            attention = mean[:, None, None] * pairs
        elif self.ties == "shuffled":
            attention = shuffled(attention, window)
        return (self.scale * attention).clamp(max=1.0)


def both(window: Window) -> Bool[Tensor, "rows width width"]:
    """Pairs of two different candidates."""
    masked = window.candidates
    return masked[:, :, None] & masked[:, None] & ~torch.eye(masked.shape[1], dtype=torch.bool, device=masked.device)


def between(window: Window) -> Float[Tensor, "rows width width"]:
    """Attention from candidates to other candidates."""
    assert window.pairwise is not None, "the sampler's needs ask for it"
    return window.pairwise * both(window)


def symmetric(window: Window) -> Float[Tensor, "rows width width"]:
    """The same, mean of both directions."""
    attention = between(window)
    return (attention + attention.mT) / 2


def shuffled(attention: Float[Tensor, "rows width width"], window: Window) -> Float[Tensor, "rows width width"]:
    """The same numbers between other candidates, who is who by the row's own random numbers."""
    shuffle = scores.random(window).masked_fill(~window.candidates, 2.0).argsort(1)  # candidates come first
    there = window.candidates.to(torch.int8).argsort(dim=1, descending=True, stable=True)
    source = torch.empty_like(shuffle).scatter_(1, there, shuffle)
    attention = attention.gather(1, source[:, :, None].expand_as(attention))
    return attention.gather(2, source[:, None].expand_as(attention))

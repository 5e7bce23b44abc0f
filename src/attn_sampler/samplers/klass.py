"""KLASS (arXiv 2511.05664): commit what is both confident and stable from one forward to the next.

Stable means that the last ``history`` values of KL(p_t || p_{t-1}) at the position are all below ``kl_threshold``. The memory
spans the whole answer, because the reference keeps it across blocks: a block's first steps compare with the block before. Where
less is ready than the step owes, the most confident are committed too. The authors' code does so only where nothing is ready, and
may then leave masks behind when ``steps`` is below the answer's length; so does ``compat="reference"``, but that a block's last
step fills them. Their code for Dream (``form="dream"``) has no blocks and takes confidences from the threshold on.

Deviation: probabilities in the logits' own precision (float32 at least) where the authors' code has float64; with p near 1e-12 in
both logs the difference is below 1e-6 nats.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attn_sampler import blocks, rules, scores
from attn_sampler.errors import check_choice, check_number
from attn_sampler.seam import Memory, Needs, Selection, Window

__all__ = ["Klass"]

EPSILON = 1e-12  # inside both logarithms, as in the authors' code


@dataclass(frozen=True)
class Klass:
    """Confident positions whose distribution has stopped moving (KL divergence between forwards).

    Options:
        threshold: confidence above which a position may be ready.
        kl_threshold: KL divergence in nats below which it counts as stable.
        history: consecutive stable forwards wanted.
        form: ``"llada"`` (blocks, confidence above the threshold) or ``"dream"`` (the answer is one block, threshold included).
        unmask: which of several ready positions: ``"all"``, or one, by ``"max_conf"``, ``"min_kl"`` or ``"random"``.
        compat: ``"reference"`` commits nothing beside what is ready, where anything is.
    """

    name: ClassVar[str] = "klass"
    paper: ClassVar[str] = "arXiv:2511.05664"

    threshold: float = 0.9
    kl_threshold: float = 0.01
    history: int = 2
    form: Literal["llada", "dream"] = "llada"
    unmask: Literal["all", "max_conf", "min_kl", "random"] = "all"
    compat: Literal["none", "reference"] = "none"

    def __post_init__(self) -> None:
        check_number("threshold", self.threshold, low=0, high=1)
        check_number("kl_threshold", self.kl_threshold, low=0)
        check_number("history", self.history, low=1, integer=True)
        check_choice("form", self.form, ("llada", "dream"))
        check_choice("unmask", self.unmask, ("all", "max_conf", "min_kl", "random"))
        check_choice("compat", self.compat, ("none", "reference"))

    @property
    def needs(self) -> Needs:
        return Needs(scope="answer", one_block=self.form == "dream")

    def select(self, window: Window, memory: Memory) -> Selection:
        confidence = scores.confidence(window)
        before = (memory["log_p"],) if memory else ()
        kl, log_p = scores.measured(moved, unwritten(window), window.proposal.logits, *before)
        past = memory["kl"] if memory else torch.zeros(*kl.shape, self.history, dtype=kl.dtype, device=kl.device)
        past = torch.cat([past[..., 1:], kl[..., None]], -1)
        stable = (past < self.kl_threshold).all(-1)
        if self.form == "dream":
            ready = window.candidates & (confidence >= self.threshold) & stable
        else:
            warm = (window.step_in_block >= self.history - 1)[:, None]
            ready = window.candidates & (confidence > self.threshold) & stable & warm
        if self.unmask != "all":
            best = {"max_conf": confidence, "min_kl": -kl, "random": scores.random(window)}[self.unmask]
            ready = rules.top_k(best, ready, torch.ones_like(window.quota))
        commit = ready | self._beside(window, confidence, ready)
        return Selection(commit, confidence, {"log_p": log_p, "kl": past})

    def _beside(
        self, window: Window, confidence: Float[Tensor, "rows width"], ready: Bool[Tensor, "rows width"]
    ) -> Bool[Tensor, "rows width"]:
        """What is committed although it is not ready."""
        candidates = window.candidates
        if self.compat == "none":
            short = ready.sum(1) < torch.minimum(window.quota, candidates.sum(1))
            return rules.top_k(confidence, candidates, window.quota) & short[:, None]
        assert window.steps is not None, "the engine plans the steps of every row"
        assert window.block_masked is not None, "and counts the masks that a block began with"
        count = blocks.quota(window.block_masked, window.steps.clamp(min=1), window.step_in_block)
        best = rules.top_k(confidence, candidates, torch.ones_like(count) if self.form == "dream" else count)
        last = window.step_in_block + 1 >= window.steps
        return torch.where(last[:, None], candidates, best & ~ready.any(1, keepdim=True))


def moved(
    logits: Float[Tensor, "positions vocab"], before: Float[Tensor, "positions vocab"] | None = None
) -> tuple[Float[Tensor, " positions"], Float[Tensor, "positions vocab"]]:
    """KL divergence in nats from the distribution before, and the logarithm of this one, less that of `EPSILON`.

    Zero is probability 0 then, which is what the first forward is compared with.
    """
    p = logits.softmax(-1)
    log_p = (p + EPSILON).log_().sub_(math.log(EPSILON))
    return p.mul_(log_p if before is None else log_p - before).sum(-1), log_p


def unwritten(window: Window) -> Bool[Tensor, "rows width"]:
    """The masks that are left in the answer, and perhaps more: what lies before the active block, or stands in it, is done with.

    At a block's first forward some of its masks may not be candidates yet.
    """
    inside, first = window.in_block, (window.step_in_block == 0)[:, None]
    assert inside is not None, "the engine says which positions are the block's"
    return (inside.cumsum(1) > 0) & (window.candidates | ~inside | first)

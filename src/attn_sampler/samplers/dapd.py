"""DAPD, dependency-aware parallel decoding (arXiv 2603.12996): commit together only what does not attend to each other.

Two masks are joined where their attention, mean of both directions and of the heads of the last layers, exceeds a limit that
grows from ``tau_min`` to ``tau_max`` as masks disappear. Down the product of a mask's summed attention and its confidence,
every mask is committed that is joined to none before it (Welsh and Powell's greedy colouring, its first colour). Once less than
the share ``switch`` of the masks is left, all above ``threshold``, at least one. The method has no blocks: the answer is one,
unless ``block_length`` is asked for.

Deviations: a step that owes more than it finds goes on with the most confident masks. Checked against the re-implementation in
the code of CLAD (arXiv 2605.29607), which averages the last quarter of the layers and lacks the paper's rule for confidences of
exactly 1; the authors' own code was not available.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from attn_sampler import rules, scores
from attn_sampler.errors import InvalidInputError, check_number
from attn_sampler.seam import Attention, Memory, Needs, Selection, Window

__all__ = ["Dapd"]


@dataclass(frozen=True)
class Dapd:
    """An independent set of masks in the attention graph, later every confident one.

    Options:
        tau_min, tau_max: attention above which two masks are joined, at the start and at the end.
        switch: share of the masks below which confidence alone decides.
        threshold: confidence above which a mask is committed then.
        depth: share of the model's depth from which on layers are averaged.
        certain: whether a confidence of 1 is committed in any case.
    """

    name: ClassVar[str] = "dapd"
    paper: ClassVar[str] = "arXiv:2603.12996"

    tau_min: float = 0.01
    tau_max: float = 0.05
    switch: float = 0.5
    threshold: float = 0.9
    depth: float = 0.7
    certain: bool = True

    def __post_init__(self) -> None:
        check_number("tau_min", self.tau_min, low=0)
        check_number("tau_max", self.tau_max, low=0)
        if self.tau_max < self.tau_min:
            raise InvalidInputError("tau_max", self.tau_max, f"give at least tau_min, which is {self.tau_min}")
        check_number("switch", self.switch, low=0, high=1)
        check_number("threshold", self.threshold, low=0, high=1)
        check_number("depth", self.depth, low=0, high=1)
        if not isinstance(self.certain, bool):
            raise InvalidInputError("certain", self.certain, "give true or false")

    @property
    def needs(self) -> Needs:
        return Needs(attention=Attention(norm="global", span=(self.depth, 1.0), pairwise=True), one_block=True)

    def select(self, window: Window, memory: Memory) -> Selection:
        assert window.pairwise is not None, "the sampler's needs ask for the matrix"
        assert window.block_masked is not None, "the engine counts the masks of every block"
        confidence, masked = scores.confidence(window), window.candidates
        others = ~torch.eye(masked.shape[1], dtype=torch.bool, device=masked.device)
        attention = window.pairwise * (masked[:, :, None] & masked[:, None] & others)
        joint = (attention + attention.mT) / 2
        left = masked.sum(1) / window.block_masked.clamp(min=1)
        limit = self.tau_min + (self.tau_max - self.tau_min) * (1 - left)
        weight = joint.sum(2) * confidence
        apart = rules.independent_set(weight, masked, joint > limit[:, None, None])
        late = (left < self.switch)[:, None]
        commit = torch.where(late, masked & (confidence > self.threshold), apart)
        if self.certain:
            commit = commit | (masked & (confidence >= 1))
        commit = rules.at_least(commit, confidence, masked, window.quota)
        return Selection(commit, torch.where(late, confidence, weight))

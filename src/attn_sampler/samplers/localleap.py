"""LocalLeap (arXiv 2510.07081): near a sure position a lower threshold is enough.

Anchors are the masks whose confidence reaches ``threshold``. A mask at most ``radius`` positions from an anchor is committed
from ``relaxed`` on, any other from ``threshold`` on, and the most confident one in any case. The authors' repository could not be
read; the rule is that of another group's code (lizhuo-luo/DAWN), whose selections this one repeats exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F

from attn_sampler import rules, scores
from attn_sampler.errors import check_number
from attn_sampler.seam import Memory, Needs, Selection, Window

__all__ = ["LocalLeap"]


@dataclass(frozen=True)
class LocalLeap:
    """Every position whose confidence reaches the threshold, and near those a lower one suffices.

    Options:
        threshold: confidence from which a position is committed, and is an anchor for others.
        relaxed: confidence from which a position near an anchor is committed, at most ``threshold``.
        radius: how far an anchor reaches, positions.
    """

    name: ClassVar[str] = "localleap"
    paper: ClassVar[str] = "arXiv:2510.07081"

    threshold: float = 0.9
    relaxed: float = 0.75
    radius: int = 4

    def __post_init__(self) -> None:
        check_number("threshold", self.threshold, low=0, high=1)
        check_number("relaxed", self.relaxed, low=0, high=self.threshold)
        check_number("radius", self.radius, low=0, integer=True)

    @property
    def needs(self) -> Needs:
        return Needs()

    def select(self, window: Window, memory: Memory) -> Selection:
        score = scores.confidence(window)
        commit = rules.threshold(score, window.candidates, window.quota, self.threshold)
        anchors = window.candidates & (score >= self.threshold)
        radius = min(self.radius, score.shape[1])
        near = F.max_pool1d(anchors.to(score.dtype)[:, None], 2 * radius + 1, stride=1, padding=radius)[:, 0] > 0
        return Selection(commit | (window.candidates & near & (score >= self.relaxed)), score)

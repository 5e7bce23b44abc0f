"""DAWN (arXiv 2602.06953): dependencies read off the attention matrix say which masks may be written together.

A is the attention, mean over the heads and the last layers. Columns whose mean over all rows exceeds ``tau_sink`` are sinks and
do not count, nor does the diagonal; i *depends* on j where A[i, j] >= ``tau_edge``. Committed are the masks of the block with

- confidence at least ``threshold`` (C);
- confidence at least ``tau_induce`` that depend on an anchor: a written token up to the block's end, prompt included, which the
  model would now write with at least ``threshold`` (D);
- of the others with at least ``tau_low`` that depend on nothing in both C and D: down the confidences, every one that neither
  depends on one before it nor the other way round.

Where that gives fewer than the step owes, the most confident others join.

The authors' last loop goes round once per position that it started with. Where dependencies have struck some out it runs out of
positions, and then takes the first of the canvas. ``compat="reference"`` does so where that is a mask of the active block, which
takes a template that begins with a hole; a prompt's first token, which the authors' code overwrites, is never touched here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from attn_sampler import rules, scores
from attn_sampler.errors import check_choice, check_number
from attn_sampler.seam import Attention, Memory, Needs, Selection, Window

__all__ = ["Dawn"]


@dataclass(frozen=True)
class Dawn:
    """Sure positions, those that hang on sure context, and others that do not depend on each other.

    Options:
        threshold: confidence from which a mask is committed and a token is an anchor.
        tau_sink: mean attention above which a column is a sink.
        tau_edge: attention from which a position depends on another.
        tau_induce: confidence from which a mask that depends on an anchor is committed.
        tau_low: confidence from which independent masks are.
        last: layers averaged, counted from the last.
        compat: ``"reference"`` also commits the canvas's first position, if it is a mask of the block, when the independent
            positions are fewer than those they were chosen from, as the authors' code does.
    """

    name: ClassVar[str] = "dawn"
    paper: ClassVar[str] = "arXiv:2602.06953"

    threshold: float = 0.9
    tau_sink: float = 0.01
    tau_edge: float = 0.07
    tau_induce: float = 0.7
    tau_low: float = 0.75
    last: int = 4
    compat: Literal["none", "reference"] = "none"

    def __post_init__(self) -> None:
        check_number("threshold", self.threshold, low=0, high=1)
        check_number("tau_sink", self.tau_sink, low=0)
        check_number("tau_edge", self.tau_edge, low=0, open_low=True)
        check_number("tau_induce", self.tau_induce, low=0, high=1)
        check_number("tau_low", self.tau_low, low=0, high=1)
        check_number("last", self.last, low=1, integer=True)
        check_choice("compat", self.compat, ("none", "reference"))

    @property
    def needs(self) -> Needs:
        statistics = Attention("block", "global", last=self.last, pairwise=True, sinks=True)
        return Needs(scope="canvas", attention=statistics)

    def select(self, window: Window, memory: Memory) -> Selection:
        assert window.pairwise is not None, "the sampler's needs ask for the matrix"
        assert window.sinks is not None, "and for the sinks"
        assert window.in_block is not None, "the engine says where the block lies"
        everywhere = scores.confidence(window)
        queries, width = window.pairwise.shape[1:]
        first = window.in_block.int().argmax(1, keepdim=True)
        columns = torch.arange(width, device=first.device)
        place = first + torch.arange(queries, device=first.device)  # of each query among the columns; past the end: padding
        here = place.clamp(max=width - 1)
        masked = window.candidates.gather(1, here) & (place < width)
        confidence = everywhere.gather(1, here)

        counts = (window.sinks <= self.tau_sink)[:, None] & (columns != here[:, :, None])
        depends = (window.pairwise >= self.tau_edge) & counts
        anchors = ~window.candidates & (everywhere >= self.threshold)
        sure = masked & (confidence >= self.threshold)
        induced = masked & (confidence >= self.tau_induce) & (depends & anchors[:, None]).any(2)
        inside = depends.gather(2, here[:, None].expand(-1, queries, -1))
        open_ = masked & (confidence >= self.tau_low) & ~sure & ~induced & ~(inside & (sure & induced)[:, None]).any(2)
        apart = rules.independent_set(confidence, open_, inside | inside.mT)
        if self.compat == "reference":  # the window begins with the canvas
            apart = apart | (masked & (here == 0) & (open_ & ~apart).any(1, keepdim=True))
        chosen = sure | induced | apart
        chosen = rules.at_least(chosen, confidence, masked, window.quota)
        commit = window.candidates & chosen.gather(1, (columns - first).clamp(0, queries - 1))
        return Selection(commit, everywhere)

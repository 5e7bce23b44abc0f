"""SlowFast sampling (arXiv 2506.10848): look how far the text is clear, then fill that stretch.

Cycles run from left to right. A cycle begins where the last one ended, at ``low``:

- **slow**, ``exploration`` forward passes: each estimates the cycle's end, one beyond the farthest mask whose confidence reaches
  ``cycle_confidence``, until the last ``history`` estimates have a standard deviation below ``max_std``; if they never do, it is
  their mean. Commits anywhere from ``low`` on.
- **fast**: commits within [low, end) until nothing in it is masked.

Each pass commits every mask of its stretch that reaches ``threshold``, or else the best one. The authors' code also cuts the
canvas off at the cycle's end in fast passes (it never writes there) and goes on with the passes of a slow phase when no mask is
left; here every pass sees the whole canvas, and a finished block is left at once (with ``compat="reference"`` at the slow phase's
end, as there).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from attn_sampler import rules, scores
from attn_sampler.errors import check_choice, check_number
from attn_sampler.seam import Memory, Needs, Selection, Window

__all__ = ["SlowFast"]


@dataclass(frozen=True)
class SlowFast:
    """Cycles of exploring passes, which find how far the text is clear, and filling passes up to there.

    Options:
        threshold: confidence from which a position is committed.
        cycle_confidence: confidence from which a position counts as clear.
        exploration: passes of a slow phase.
        history: estimates that have to agree.
        max_std: standard deviation below which they do, positions.
        compat: ``"reference"`` goes on with a slow phase when no mask is left, as the authors' code does; a step budget ends it.
    """

    name: ClassVar[str] = "slowfast"
    paper: ClassVar[str] = "arXiv:2506.10848"

    threshold: float = 0.9
    cycle_confidence: float = 0.3
    exploration: int = 6
    history: int = 2
    max_std: float = 1.0
    compat: Literal["none", "reference"] = "none"

    def __post_init__(self) -> None:
        check_number("threshold", self.threshold, low=0, high=1)
        check_number("cycle_confidence", self.cycle_confidence, low=0, high=1)
        check_number("exploration", self.exploration, low=1, integer=True)
        check_number("history", self.history, low=1, integer=True)
        check_number("max_std", self.max_std, low=0)
        check_choice("compat", self.compat, ("none", "reference"))

    @property
    def needs(self) -> Needs:
        return Needs(one_block=True, revises=self.compat == "reference")  # of which only ``hold`` is used

    def select(self, window: Window, memory: Memory) -> Selection:
        score, candidates = scores.confidence(window), window.candidates
        zero, entered = torch.zeros_like(window.quota), window.step_in_block == 0
        kept = {name: value.masked_fill(entered, 0) for name, value in memory.items()}
        spent, low, high = (kept.get(name, zero) for name in ("spent", "low", "high"))  # high 0: not known yet
        ends = [kept.get(f"end{i}", zero) for i in range(self.history)]  # the newest first, 0 for none

        place = torch.arange(score.shape[1], device=score.device)
        ahead = candidates & (place >= low[:, None])
        slow = spent < self.exploration
        searching = slow & (high == 0)
        clear = torch.where(ahead & (score >= self.cycle_confidence), place + 1, 0).amax(1)
        ends = [torch.where(searching, new, old) for new, old in zip([torch.maximum(clear, low + 1), *ends], ends, strict=False)]
        past = torch.stack(ends).double()
        agreed = searching & (past > 0).all(0) & (past.std(0, correction=0) < self.max_std)
        given_up = searching & ~agreed & (spent == self.exploration - 1)
        high = torch.where(agreed, ends[0], high)
        high = torch.where(given_up, (past.sum(0) / (past > 0).sum(0).clamp(min=1)).long(), high)

        stretch = ahead & (slow[:, None] | (place < high[:, None]))
        best = rules.top_k(stretch.to(score.dtype), candidates, window.quota, tie=score)  # of the stretch, as far as it goes
        commit = (stretch & (score >= self.threshold)) | best
        spent = spent + slow.long()
        waiting = ahead & ~commit & (place < high[:, None])
        finished = (spent >= self.exploration) & ~waiting.any(1)
        keep = {"spent": spent, "high": high} | {f"end{i}": end for i, end in enumerate(ends)}
        keep = {name: value.masked_fill(finished, 0) for name, value in keep.items()}
        hold = None
        if self.compat == "reference":
            hold = window.another & (spent < self.exploration) & ~(candidates & ~commit).any(1)
        return Selection(commit, score, keep | {"low": torch.where(finished, high, low)}, hold=hold)

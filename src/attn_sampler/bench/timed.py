"""Clocks around parts of a step."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import torch

from attn_sampler.seam import Memory, Needs, Sampler, Selection, Window

__all__ = ["Clock", "TimedSampler"]


@dataclass
class Clock:
    """Seconds, also on a device that works on after the call returns."""

    device: torch.device
    seconds: float = 0.0

    def timed(self, call: Any, *args: Any) -> Any:
        self._wait()
        began = time.perf_counter()
        try:
            return call(*args)
        finally:
            self._wait()
            self.seconds += time.perf_counter() - began

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


@dataclass(frozen=True)
class TimedSampler:
    """A sampler whose `select` is on the clock."""

    inner: Sampler
    clock: Clock = field(compare=False)

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def paper(self) -> str:
        return self.inner.paper

    @property
    def needs(self) -> Needs:
        return self.inner.needs

    def select(self, window: Window, memory: Memory) -> Selection:
        return self.clock.timed(self.inner.select, window, memory)

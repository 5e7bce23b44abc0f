"""Clocks around parts of a step."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from attn_sampler.seam import Memory, Needs, Sampler, Selection, Window

__all__ = ["Clock", "TimedSampler"]


@dataclass
class Clock:
    """Seconds, also on a device that works on after the call returns.

    Attributes:
        now: wall-clock time, or `time.process_time`, which leaves out what other processes take of a busy machine.
    """

    device: torch.device
    seconds: float = 0.0
    now: Callable[[], float] = time.perf_counter

    def timed(self, call: Any, *args: Any) -> Any:
        self._wait()
        began = self.now()
        try:
            return call(*args)
        finally:
            self._wait()
            self.seconds += self.now() - began

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

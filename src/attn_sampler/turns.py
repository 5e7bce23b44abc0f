"""A lock that goes to whoever has waited longest."""

from __future__ import annotations

import threading
from collections import deque

__all__ = ["Turns"]


class Turns:
    """A reentrant lock, first come, first served: ``with turns: ...``.

    A `threading.RLock` may go to the thread that has just released it again and again, whoever else waits.
    """

    def __init__(self) -> None:
        self._queue: deque[int] = deque()  # ids of threads, the holder first
        self._depth = 0  # how often the holder has entered
        self._moved = threading.Condition()

    def __enter__(self) -> None:
        me = threading.get_ident()
        with self._moved:
            if self._depth and self._queue[0] == me:
                self._depth += 1
                return
            self._queue.append(me)
            try:
                self._moved.wait_for(lambda: self._queue[0] == me)
            except BaseException:  # an interrupt must not leave a turn that nobody takes
                self._queue.remove(me)
                self._moved.notify_all()
                raise
            self._depth = 1

    def __exit__(self, *_: object) -> None:
        with self._moved:
            self._depth -= 1
            if not self._depth:
                self._queue.popleft()
                self._moved.notify_all()

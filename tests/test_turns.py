"""The lock of the engine: first come, first served."""

from __future__ import annotations

import threading
import time

import pytest

from attn_sampler.turns import Turns


def wait_in_line(turns: Turns, people: int) -> None:
    deadline = time.monotonic() + 120
    while len(turns._queue) < people:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_the_holder_comes_after_all_who_were_waiting() -> None:
    turns, order = Turns(), []

    def come(name: int) -> None:
        with turns:
            order.append(name)

    threads = [threading.Thread(target=come, args=(i,)) for i in range(5)]
    with turns:
        for i, thread in enumerate(threads):
            thread.start()
            wait_in_line(turns, i + 2)
    come(5)
    for thread in threads:
        thread.join()
    assert order == list(range(6))


def test_the_holder_may_enter_again() -> None:
    turns = Turns()
    with turns:
        with turns:
            pass
        other = threading.Thread(target=turns.__enter__)
        other.start()
        wait_in_line(turns, 2)
        assert turns._queue[0] == threading.get_ident()
    other.join(10)
    assert not other.is_alive()


def test_an_error_inside_passes_the_turn_on() -> None:
    turns = Turns()
    with pytest.raises(KeyError), turns:
        raise KeyError
    assert not turns._queue


def test_who_is_interrupted_while_waiting_leaves_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = Turns()
    monkeypatch.setattr(turns._moved, "wait_for", lambda ready: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        turns.__enter__()
    assert not turns._queue

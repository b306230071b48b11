"""Reading ahead: the next read is under way while the last one is used, and none is when the caller goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing
from functools import partial
from typing import Any

import pytest

from grym_fetch.disk.read_ahead import read_ahead
from grym_fetch.runtime.threads import WorkerThreads


def zero() -> int:
    """A read that takes no time."""
    return 0


class NoThread(WorkerThreads):
    """A pool whose threads are all busy: what it is given never begins."""

    def lend(self, function: Callable[..., Any], args: tuple[object, ...]) -> Future[Any] | None:
        """Queue it."""
        return Future()


async def two_threads() -> WorkerThreads:
    """A pool that has done some work."""
    pool = WorkerThreads("read", 2)
    await pool.compute(int)
    return pool


async def test_the_next_read_comes_while_the_last_one_is_used() -> None:
    """In another thread; the results come in order."""
    pool = await two_threads()
    has_begun = [threading.Event() for _ in range(4)]
    used: list[int] = []

    def read(number: int) -> int:
        has_begun[number].set()
        return number

    def use_all() -> None:
        for number in read_ahead(pool, [partial(read, number) for number in range(4)]):
            assert number == 3 or has_begun[number + 1].wait(10)
            assert number >= 2 or not has_begun[number + 2].is_set()
            used.append(number)

    await pool.compute(use_all)
    pool.close()
    assert used == [0, 1, 2, 3]


def test_where_no_thread_is_idle_the_caller_reads() -> None:
    """Two that prove would otherwise wait for each other's threads."""
    pool = NoThread("read", 1)
    assert list(read_ahead(pool, [partial(abs, number) for number in range(4)])) == [0, 1, 2, 3]
    assert not list(read_ahead(pool, list[Callable[[], int]]()))


async def test_nothing_is_read_any_more_once_it_is_closed() -> None:
    """The descriptor may be closed then."""
    pool = await two_threads()
    has_begun, may_end, has_ended = threading.Event(), threading.Event(), threading.Event()

    def slow() -> int:
        has_begun.set()
        may_end.wait(10)
        has_ended.set()
        return 1

    def use_one() -> None:
        with closing(read_ahead(pool, [zero, slow])) as results:
            assert next(results) == 0
            assert has_begun.wait(10)
            threading.Timer(0.01, may_end.set).start()
        assert has_ended.is_set()

    await pool.compute(use_one)
    pool.close()


async def test_what_a_read_raises_comes_in_its_turn() -> None:
    """Whichever thread made it."""
    pool = await two_threads()

    def fail() -> int:
        raise OSError(5, "input/output error")

    def use_all() -> None:
        results = read_ahead(pool, [zero, fail, zero])
        assert next(results) == 0
        with pytest.raises(OSError, match="input/output"):
            next(results)

    await pool.compute(use_all)
    pool.close()

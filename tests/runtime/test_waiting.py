"""Waiting that outlasts cancellation: it ends when the work is over, and no cancellation is lost."""

from __future__ import annotations

import asyncio

import pytest

from grym_fetch.runtime.waiting import wait_uncancelled


async def turns(count: int = 5) -> None:
    """Let all other tasks run for a while."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_it_waits_for_all() -> None:
    """The wait ends when the last task is done, not the first."""
    one, two = (asyncio.get_running_loop().create_future() for _ in range(2))
    waiting = asyncio.ensure_future(wait_uncancelled([one, two]))
    await turns()
    one.set_result(None)
    await turns()
    assert not waiting.done()
    two.set_result(None)
    await waiting


async def test_nothing_to_wait_for() -> None:
    """Without work, or with finished work, it returns without giving others a turn."""
    over = asyncio.get_running_loop().create_future()
    over.set_result(1)
    with pytest.raises(StopIteration):
        wait_uncancelled([]).send(None)
    with pytest.raises(StopIteration):
        wait_uncancelled([over]).send(None)


async def test_outcomes_are_not_raised() -> None:
    """Failed or cancelled work is over; its outcome is for its owner to read."""
    failed, cancelled = (asyncio.get_running_loop().create_future() for _ in range(2))
    waiting = asyncio.ensure_future(wait_uncancelled([failed, cancelled]))
    await turns()
    failed.set_exception(OSError("disk"))
    cancelled.cancel()
    await waiting
    assert isinstance(failed.exception(), OSError)
    assert cancelled.cancelled()


@pytest.mark.parametrize("times", [1, 2, 7])
async def test_a_cancellation_waits_and_is_not_lost(times: int) -> None:
    """However often the waiting task is cancelled, it waits until the work is over, and is then cancelled."""
    work = asyncio.get_running_loop().create_future()
    waiting = asyncio.ensure_future(wait_uncancelled([work]))
    await turns()
    for _ in range(times):
        waiting.cancel()
        await turns()
        assert not waiting.done()
    assert not work.cancelled()
    work.set_result("written")
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert work.result() == "written"


async def test_a_cancellation_that_comes_with_the_end() -> None:
    """A cancellation in the same turn in which the work ends is raised, too."""
    work = asyncio.get_running_loop().create_future()
    waiting = asyncio.ensure_future(wait_uncancelled([work]))
    await turns()
    work.set_result(None)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()


async def test_a_cancellation_before_it_began() -> None:
    """A task that is already cancelled still waits for its work."""
    work = asyncio.get_running_loop().create_future()

    async def cancelled_then_waiting() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await wait_uncancelled([work])

    task = asyncio.ensure_future(cancelled_then_waiting())
    await turns()
    task.cancel()
    await turns()
    assert not task.done()
    work.set_result(None)
    await asyncio.wait([task])
    assert task.cancelled()


async def test_the_work_itself_is_not_cancelled() -> None:
    """Cancelling the wait does not affect the awaited tasks: they run to their end."""
    go_on = asyncio.Event()
    ended: list[str] = []

    async def write() -> None:
        await go_on.wait()
        ended.append("written")

    tasks = [asyncio.ensure_future(write()) for _ in range(3)]
    waiting = asyncio.ensure_future(wait_uncancelled(tasks))
    await turns()
    waiting.cancel()
    await turns()
    go_on.set()
    await asyncio.wait([waiting])
    assert ended == ["written"] * 3
    assert waiting.cancelled()

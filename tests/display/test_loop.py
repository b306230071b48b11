from __future__ import annotations

import asyncio
import logging
import threading

import anyio
import pytest

from grym_fetch.core.events import Event, ProgressMade, RunFinished, RunStarted
from grym_fetch.display.loop import show
from tests.display.scripted import Bus, Clock, Recorder, draw_at_once, settle, start

STARTED = RunStarted(assets=1, bytes=10)
FINISHED = RunFinished(verified=1, reused=0, failed=0, downloaded_bytes=10, seconds=1.0)


def progress(number: int) -> ProgressMade:
    return ProgressMade(asset="a", bytes=number, total=10_000, rate=1.0)


async def test_the_first_news_is_drawn_at_once() -> None:
    """However long nothing came before it: until then a person sees nothing."""
    clock, bus = Clock(), Bus()
    view = Recorder(clock)
    showing = start(show(bus, view, clock=clock, sleep=clock.sleep, draw=draw_at_once))
    await clock.advance(1.03)
    before = clock.now
    bus.put(STARTED)
    await settle()
    assert (view.drawn_at[-1], view.drawn_events[-1]) == (before, 1)
    bus.finish()
    await clock.finish(showing)


@pytest.mark.shows("U9")
async def test_there_are_at_most_ten_drawings_a_second() -> None:
    """Ten thousand events in ten seconds make a hundred drawings, and every state is applied."""
    clock, bus = Clock(), Bus()
    view = Recorder(clock)
    showing = start(show(bus, view, clock=clock, sleep=clock.sleep, draw=draw_at_once))
    for number in range(10_000):
        bus.put(progress(number))
        if number % 10 == 0:
            await clock.advance(0.01)
    pauses = [later - earlier for earlier, later in zip(view.drawn_at, view.drawn_at[1:], strict=False)]
    assert min(pauses) > 0.0999
    assert 70 <= len(view.drawn_at) <= 100
    bus.finish()
    await clock.finish(showing)
    assert view.applied[-1] == progress(9_999)


async def test_the_picture_moves_while_nothing_happens() -> None:
    """Countdowns are redrawn several times a second even without an event."""
    clock, bus = Clock(), Bus([STARTED])
    view = Recorder(clock)
    showing = start(show(bus, view, clock=clock, sleep=clock.sleep, draw=draw_at_once))
    await clock.advance(10.0)
    assert 10 <= len(view.drawn_at) <= 41
    bus.finish()
    await clock.finish(showing)


async def test_the_last_state_is_drawn_and_the_terminal_given_back() -> None:
    """When the bus is closed, the last drawing has every event, and the view is closed once, without delay."""
    clock, bus = Clock(), Bus([STARTED, FINISHED])
    bus.finish()
    view = Recorder(clock)
    await clock.finish(start(show(bus, view, clock=clock, sleep=clock.sleep, draw=draw_at_once)))
    assert (view.applied, view.drawn_events, view.closed) == ([STARTED, FINISHED], [2], 1)
    assert clock.now - 100.0 < 0.05


async def test_cancelling_gives_the_terminal_back() -> None:
    """A cancelled display still closes its view."""
    clock, bus = Clock(), Bus([STARTED])
    view = Recorder(clock)
    async with anyio.create_task_group() as tasks:

        async def showing() -> None:
            await show(bus, view, clock=clock, sleep=clock.sleep, draw=draw_at_once)

        tasks.start_soon(showing)
        await clock.advance(0.5)
        tasks.cancel_scope.cancel()
    assert view.closed == 1


@pytest.mark.shows("U6", "U7")
async def test_a_blocked_drawing_stops_neither_the_draining_nor_the_end() -> None:
    """With a stuck terminal, the bus is still emptied, and the end waits only for a bounded time."""
    clock, bus = Clock(), Bus([STARTED])
    blocked, reached = threading.Event(), threading.Event()

    def never_returns() -> None:
        reached.set()
        blocked.wait()

    view = Recorder(clock, never_returns)
    showing = start(show(bus, view, clock=clock, sleep=clock.sleep))
    await clock.advance(0.2)
    assert await asyncio.to_thread(reached.wait, 60)
    for number in range(1_000):
        bus.put(progress(number))
        await clock.advance(0.03)
        assert bus.is_empty
    assert len(view.drawn_at) == 1
    bus.finish()
    before = clock.now
    await clock.finish(showing)
    assert clock.now - before < 2.5
    blocked.set()


async def test_drawings_run_in_one_thread_that_is_not_the_loop() -> None:
    """All drawings and the closing run in order in the same daemon thread."""
    bus = Bus([STARTED, FINISHED])
    bus.finish()
    threads: list[threading.Thread] = []
    view = Recorder(Clock(), lambda: threads.append(threading.current_thread()))
    await show(bus, view)
    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()
    assert threads[0].daemon
    assert view.closed == 1


@pytest.mark.shows("D16")
async def test_where_there_is_no_thread_the_loop_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the machine gives no thread, neither the display nor the run fails."""
    bus = Bus([STARTED, FINISHED])
    bus.finish()
    threads: list[threading.Thread] = []

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    view = Recorder(Clock(), lambda: threads.append(threading.current_thread()))
    await show(bus, view)
    assert threads == [threading.main_thread()]
    assert view.closed == 1


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(5, "gone"), ValueError("closed")])
@pytest.mark.shows("U7")
async def test_a_broken_stream_ends_the_drawing_and_not_the_draining(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """After a failed write nothing more is drawn, events are still taken, and no error is raised."""
    clock, bus = Clock(), Bus([STARTED])

    def breaks() -> None:
        raise error

    view = Recorder(clock, breaks)
    showing = start(show(bus, view, clock=clock, sleep=clock.sleep, draw=draw_at_once))
    for number in range(100):
        bus.put(progress(number))
        await clock.advance(0.1)
        assert bus.is_empty
    bus.finish()
    await clock.finish(showing)
    assert len(view.drawn_at) == 1
    assert caplog.records == []


class Faulty(Recorder):
    def apply(self, event: Event, now: float) -> None:
        raise KeyError("a bug")


@pytest.mark.shows("U5")
async def test_a_fault_of_the_display_is_logged_once_and_isolated(caplog: pytest.LogCaptureFixture) -> None:
    """A bug in a view costs the picture, never the run."""
    clock, bus = Clock(), Bus([STARTED, FINISHED])
    bus.finish()
    view = Faulty(clock)
    with caplog.at_level(logging.ERROR):
        await clock.finish(start(show(bus, view, clock=clock, sleep=clock.sleep, draw=draw_at_once)))
    assert len(caplog.records) == 1
    assert (view.drawn_at, view.closed, bus.is_empty) == ([], 1, True)

"""The bus: emitting never waits, progress is conflated, and all else comes once and in order, for every listener."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import threading
from collections import Counter
from collections.abc import Coroutine
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import grym_fetch.runtime.bus
from grym_fetch.core.events import AssetFailed, AssetReused, AssetVerifying, Event, ProgressMade, RunStarted
from grym_fetch.runtime.bus import CALLBACK_TIMEOUT_S, EventBus, Subscription, is_coroutine_callable
from tests.support.fakes import VirtualLoop
from tests.support.project import Project


def progress(asset: str, done: int) -> ProgressMade:
    """A progress event of an asset."""
    return ProgressMade(asset=asset, bytes=done, total=1000, rate=1.0)


def verifying(asset: str, done: int = 0) -> AssetVerifying:
    """A change of an asset's state."""
    return AssetVerifying(asset=asset, bytes=done, total=1000)


def new_bus() -> EventBus:
    """A bus whose clock stands still."""
    return EventBus(lambda: 0.0)


async def everything(subscription: Subscription) -> list[Event]:
    """Read until the bus is closed."""
    return [event async for event in subscription]


async def test_a_reader_that_waits_hears_before_the_loop_is_held_up() -> None:
    """Behind a task and `asyncio.wait`, as the display waits; one that does not read holds nobody up."""
    bus = new_bus()
    bus.subscribe()
    subscription, seen = bus.subscribe(), []

    async def reader() -> None:
        waiting = asyncio.ensure_future(subscription.wait())
        await asyncio.wait({waiting}, timeout=60)
        seen.extend(subscription.drain())

    task = asyncio.create_task(reader())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    bus.emit(started := RunStarted(assets=1, bytes=1))
    await bus.heard()
    assert seen == [started]
    await task


# -- a subscription -----------------------------------------------------------------------------------------------


def test_events_are_stamped() -> None:
    """The bus adds the time to each event that somebody hears."""
    times = iter([1.5, 2.5])
    bus = EventBus(lambda: next(times))
    subscription = bus.subscribe()
    bus.emit(verifying("a"))
    bus.emit(progress("a", 1))
    assert [got.time for got in subscription.drain()] == [1.5, 2.5]


def test_emitting_needs_no_listener_and_no_loop() -> None:
    """An event without listeners is dropped; emitting is an ordinary call."""
    bus = new_bus()
    bus.emit(verifying("a"))
    assert bus.subscribe().drain() == []


def test_each_subscription_gets_everything_from_then_on() -> None:
    """Subscriptions are independent: each gets every event after it began, whatever the others take."""
    bus = new_bus()
    first = bus.subscribe()
    bus.emit(verifying("a", 1))
    second = bus.subscribe()
    bus.emit(verifying("a", 2))
    assert first.drain() == [verifying("a", 1), verifying("a", 2)]
    assert second.drain() == [verifying("a", 2)]
    assert first.drain() == []


happenings = st.lists(
    st.one_of(
        st.builds(progress, st.sampled_from("abc"), st.integers(0, 9)),
        st.builds(verifying, st.sampled_from("abc"), st.integers(0, 9)),
        st.just(RunStarted(assets=3, bytes=3000)),
        st.just(None),
    ),
    max_size=60,
)


@given(happenings)
@pytest.mark.shows("U6")
def test_what_is_kept(steps: list[Event | None]) -> None:
    """Of the progress between two state changes of an asset only the latest is kept; all else is kept, in order."""
    bus = new_bus()
    subscription = bus.subscribe()
    model: list[Event] = []
    for step in steps:
        if step is None:
            assert subscription.drain() == model
            model = []
            continue
        bus.emit(step)
        if isinstance(step, ProgressMade):
            mine = [event for event in model if event.asset == step.asset]
            if mine and isinstance(mine[-1], ProgressMade):
                model = [event for event in model if event is not mine[-1]]
        model.append(step)
    assert subscription.drain() == model


@pytest.mark.shows("U6")
async def test_a_reader_that_does_not_read_costs_little() -> None:
    """After 10,000 unread events, at most one progress per asset is queued, and every other event."""
    bus = new_bus()
    subscription = bus.subscribe()
    for number in range(10_000):
        bus.emit(progress(f"asset {number % 4}", number))
        if number % 1000 == 0:
            bus.emit(AssetReused(asset=f"reused {number}", path="p"))
    queued = list(subscription._queue.values())
    assert len(queued) == 4 + 10
    assert {event.bytes for event in queued if isinstance(event, ProgressMade)} == {9996, 9997, 9998, 9999}
    assert [event.asset for event in queued if not isinstance(event, ProgressMade)] == [
        f"reused {number}" for number in range(0, 10_000, 1000)
    ]
    assert len(subscription._latest_progress) == 4
    await bus.aclose()
    assert await everything(subscription) == queued


async def test_a_reader_that_reads_slowly_loses_nothing_but_stale_progress() -> None:
    """While a reader handles one event, incoming progress is conflated; state changes all come, once and in order."""
    bus = new_bus()
    subscription = bus.subscribe()
    bus.emit(verifying("a", 0))
    seen: list[Event] = []
    async for event in subscription:
        seen.append(event)
        if len(seen) == 200:
            await bus.aclose()
        elif len(seen) < 200:
            for done in range(50):
                bus.emit(progress("a", done))
            bus.emit(verifying("a", len(seen)))
    changes = [event for event in seen if not isinstance(event, ProgressMade)]
    assert changes == [verifying("a", number) for number in range(len(changes))]
    assert len(changes) == 200
    assert all(event == progress("a", 49) for event in seen if isinstance(event, ProgressMade))
    assert max(Counter(event for event in seen if not isinstance(event, ProgressMade)).values()) == 1


def test_the_last_progress_is_not_lost() -> None:
    """The progress before a state change is delivered before it, so that 100 % is seen."""
    bus = new_bus()
    subscription = bus.subscribe()
    for done in (1, 500, 1000):
        bus.emit(progress("a", done))
    bus.emit(verifying("a"))
    bus.emit(progress("b", 7))
    assert subscription.drain() == [progress("a", 1000), verifying("a"), progress("b", 7)]


def test_a_state_change_is_a_border() -> None:
    """Progress before a state change is not replaced by progress after it: it stays in its place."""
    bus = new_bus()
    subscription = bus.subscribe()
    events = [progress("a", 1000), verifying("a"), progress("a", 0), verifying("a", 1), progress("a", 5)]
    for event in events:
        bus.emit(event)
    assert subscription.drain() == events


async def test_progress_taken_is_not_taken_back() -> None:
    """Progress that a reader already has is followed by newer progress, not replaced by it."""
    bus = new_bus()
    subscription = bus.subscribe()
    reader = subscription.__aiter__()
    for done in (1, 2):
        bus.emit(progress("a", done))
        assert await anext(reader) == progress("a", done)
    assert subscription.is_empty


async def test_waiting_ends_with_an_event_or_the_end() -> None:
    """A waiting reader is woken by the next event, and by the end."""
    bus = new_bus()
    subscription = bus.subscribe()
    waiting = asyncio.ensure_future(subscription.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    bus.emit(verifying("a"))
    assert await waiting is True
    subscription.drain()
    waiting = asyncio.ensure_future(subscription.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    await bus.aclose()
    assert await waiting is False


async def test_closing_ends_every_iteration() -> None:
    """When the bus closes, each reader gets what is queued and then its end; later events reach nobody."""
    bus = new_bus()
    waiting, behind = bus.subscribe(), bus.subscribe()
    reading = asyncio.ensure_future(everything(waiting))
    await asyncio.sleep(0)
    bus.emit(verifying("a", 1))
    bus.emit(verifying("a", 2))
    await bus.aclose()
    bus.emit(verifying("a", 3))
    assert await reading == await everything(behind) == [verifying("a", 1), verifying("a", 2)]
    await bus.aclose()


async def test_a_subscription_after_the_end_is_at_its_end() -> None:
    """A subscription to a closed bus ends at once."""
    bus = new_bus()
    await bus.aclose()
    reading = asyncio.ensure_future(everything(bus.subscribe()))
    for _ in range(3):
        await asyncio.sleep(0)
    try:
        assert reading.done(), "waits for ever"
        assert reading.result() == []
    finally:
        reading.cancel()


async def test_who_unsubscribes_hears_no_more() -> None:
    """A closed subscription ends at once, drops what was queued, and the bus forgets it; closing twice is fine."""
    bus = new_bus()
    async with bus.subscribe() as subscription:
        bus.emit(verifying("a"))
    bus.emit(verifying("b"))
    assert subscription.drain() == await everything(subscription) == []
    assert bus._subscriptions == []
    subscription.close()
    bus.unsubscribe(subscription)


async def test_one_event_can_be_awaited_alone() -> None:
    """A subscription is an async iterator itself: `anext` takes the next event, and a wait given up takes none."""
    bus = new_bus()
    subscription = bus.subscribe()
    waiting = asyncio.create_task(anext(subscription))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    for number in range(2):
        bus.emit(verifying("a", number))
    assert [await anext(subscription), await anext(subscription)] == [verifying("a", 0), verifying("a", 1)]
    await bus.aclose()
    assert await anext(subscription, None) is None


async def test_reading_can_stop_and_go_on() -> None:
    """A reader that stops keeps its place: the next loop begins with the next event."""
    bus = new_bus()
    subscription = bus.subscribe()
    for number in range(3):
        bus.emit(verifying("a", number))
    async for event in subscription:
        assert event == verifying("a", 0)
        break
    await bus.aclose()
    assert await everything(subscription) == [verifying("a", 1), verifying("a", 2)]


# -- callbacks ----------------------------------------------------------------------------------------------------


class AsyncObject:
    """A callable object whose call is a coroutine."""

    def __init__(self) -> None:
        self.seen: list[Event] = []

    async def __call__(self, event: Event) -> None:
        self.seen.append(event)


async def test_every_kind_of_callback() -> None:
    """A function, a coroutine function, a lambda that returns a coroutine, a partial and an object are all called."""
    bus = new_bus()
    seen: list[list[Event]] = [[] for _ in range(5)]

    async def asynchronous(where: list[Event], event: Event) -> None:
        await asyncio.sleep(0)
        where.append(event)

    async def plain(event: Event) -> None:
        seen[1].append(event)

    callable_object = AsyncObject()
    bus.call(seen[0].append)
    bus.call(plain)
    bus.call(lambda event: asynchronous(seen[2], event))
    bus.call(functools.partial(asynchronous, seen[3]))
    bus.call(callable_object)
    seen[4] = callable_object.seen
    events = [verifying("a", number) for number in range(20)]
    for event in events:
        bus.emit(event)
    await bus.aclose(patience=30.0)
    assert seen == [events] * 5


async def test_a_sync_callback_runs_beside_the_loop_and_an_async_one_in_it() -> None:
    """A function may block, so it runs in a thread; a coroutine function may use the loop."""
    bus = new_bus()
    threads: dict[str, threading.Thread] = {}

    def synchronous(event: Event) -> None:
        threads["sync"] = threading.current_thread()

    async def asynchronous(event: Event) -> None:
        threads["async"] = threading.current_thread()

    bus.call(synchronous)
    bus.call(asynchronous)
    bus.emit(verifying("a"))
    await bus.aclose(patience=30.0)
    assert threads["async"] is threading.current_thread()
    assert threads["sync"] is not threading.current_thread()


async def test_a_callback_gets_one_event_at_a_time() -> None:
    """A callback is never called while it is still handling the event before."""
    bus = new_bus()
    busy = 0
    most = 0

    async def slow(event: Event) -> None:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        for _ in range(3):
            await asyncio.sleep(0)
        busy -= 1

    bus.call(slow)
    for number in range(10):
        bus.emit(verifying("a", number))
    await bus.aclose(patience=30.0)
    assert (most, busy) == (1, 0)


def in_virtual_time(story: Coroutine[object, object, None]) -> None:
    """Run it in a loop with virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(story)


@pytest.mark.shows("U6")
def test_a_slow_callback_gets_everything_in_the_end() -> None:
    """A callback that needs a second for each of a hundred events has had all of them when the bus is closed."""

    async def story() -> None:
        bus, began = new_bus(), asyncio.get_running_loop().time()
        seen: list[Event] = []

        async def slow(event: Event) -> None:
            await asyncio.sleep(1.0)
            seen.append(event)

        bus.call(slow)
        events = [verifying("a", number) for number in range(100)]
        for event in events:
            bus.emit(event)
        await bus.settle()
        assert asyncio.get_running_loop().time() <= began + 1.0, "who emits waited for it"
        await bus.aclose()
        assert seen == events

    in_virtual_time(story())


@pytest.mark.shows("U6", "B61")
def test_ctrl_c_does_not_wait_for_a_slow_callback(tmp_path: Path) -> None:
    """A program cancelled within the manager's block ends a second later, however far behind a callback is."""
    project = Project(tmp_path / "project")
    project.add("a", ["https://origin.example/a"], b"a")
    began, ended, running = 0.0, 0.0, asyncio.Event()

    async def story() -> None:
        nonlocal began
        async with project.manager() as manager:

            async def slow(event: Event) -> None:
                await asyncio.sleep(0.5)

            manager.on_event(slow)
            for number in range(100):
                manager._bus.emit(verifying("a", number))
            began = asyncio.get_running_loop().time()
            running.set()
            await asyncio.Event().wait()

    async def whole() -> None:
        nonlocal ended
        task = asyncio.ensure_future(story())
        await running.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        ended = asyncio.get_running_loop().time()

    in_virtual_time(whole())
    assert 0.9 <= ended - began <= 1.1


@pytest.mark.shows("U6")
def test_a_callback_that_never_returns_is_left_when_the_bus_closes() -> None:
    """One event that takes too long ends it; the other callbacks have had everything."""

    async def story() -> None:
        bus, began = new_bus(), asyncio.get_running_loop().time()
        seen: list[Event] = []

        async def never(event: Event) -> None:
            await asyncio.Event().wait()

        async def slow(event: Event) -> None:
            await asyncio.sleep(1.0)
            seen.append(event)

        bus.call(never)
        bus.call(slow)
        events = [verifying("a", number) for number in range(10)]
        for event in events:
            bus.emit(event)
        await bus.aclose()
        assert seen == events
        assert asyncio.get_running_loop().time() <= began + 10.0 + CALLBACK_TIMEOUT_S
        assert asyncio.all_tasks() == {asyncio.current_task()}

    in_virtual_time(story())


@pytest.mark.shows("U5", "S13")
async def test_nothing_is_kept_for_a_callback_that_raised() -> None:
    """Its queue is dropped with it: events that nobody will take would fill memory one by one."""
    bus = new_bus()
    bus.call(lambda _: 1 / 0)
    [subscription] = bus._subscriptions
    bus.emit(verifying("a", 1))
    await bus.settle(grace=30.0, stuck=30.0)
    for number in range(1000):
        bus.emit(verifying("a", number))
    assert subscription.is_empty
    assert bus._subscriptions == []
    await bus.aclose()


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.shows("U5")
async def test_a_callback_that_raises_is_dropped(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """A callback that raises is logged once and not called again; the others and the emitter are not affected."""
    bus = new_bus()
    calls = 0

    def broken(event: Event) -> None:
        nonlocal calls
        calls += 1
        raise RuntimeError("the user's fault")

    async def broken_too(event: Event) -> None:
        broken(event)

    seen: list[Event] = []
    bus.call(broken if kind == "sync" else broken_too)
    bus.call(seen.append)
    events = [verifying("a", number) for number in range(5)]
    with caplog.at_level(logging.ERROR, logger="grym_fetch.runtime.bus"):
        for event in events:
            bus.emit(event)
        await bus.settle(grace=30.0, stuck=30.0)
        bus.emit(AssetFailed(asset="a", error="X", message="m"))
        await bus.aclose(patience=30.0)
    assert calls == 1
    assert seen[:5] == events
    assert len(seen) == 6
    assert [record.message for record in caplog.records] == ["a callback raised and will not be called again"]
    assert "the user's fault" in caplog.text
    assert bus._pumps == {}


@pytest.mark.shows("U6")
async def test_a_callback_that_blocks_holds_up_nobody() -> None:
    """While one callback blocks its thread, events are emitted, others get them, and the bus can be closed."""
    bus = new_bus()
    entered, release = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    blocked: list[Event] = []

    def blocking(event: Event) -> None:
        blocked.append(event)
        loop.call_soon_threadsafe(entered.set)
        release.wait(60)

    arrived = asyncio.Event()
    seen: list[Event] = []

    async def quick(event: Event) -> None:
        seen.append(event)
        if len(seen) == 100:
            arrived.set()

    bus.call(blocking)
    bus.call(quick)
    try:
        bus.emit(verifying("a", 0))
        await entered.wait()
        for number in range(1, 100):
            bus.emit(verifying("a", number))
        await arrived.wait()
        await bus.settle(grace=0.0)
        assert seen == [verifying("a", number) for number in range(100)]
        assert blocked == [verifying("a", 0)]
        await bus.aclose(patience=0.0)
        for _ in range(3):
            await asyncio.sleep(0)
        assert bus._pumps == {}
    finally:
        release.set()


@pytest.mark.shows("U6")
async def test_what_a_callback_returns_too_late_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function that returns an awaitable after listening has ended leaves no coroutine behind."""
    bus = new_bus()
    entered, release, dropped = asyncio.Event(), threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    drop = grym_fetch.runtime.bus._drop

    def drop_and_tell(outcome: object) -> None:
        drop(outcome)
        if outcome in made:  # and not something returned late by a callback of another test
            loop.call_soon_threadsafe(dropped.set)

    monkeypatch.setattr("grym_fetch.runtime.bus._drop", drop_and_tell)
    made: list[Coroutine[object, object, None]] = []

    async def answer() -> None:
        raise AssertionError("nobody asked")

    class Late:
        def __call__(self, event: Event) -> object:
            loop.call_soon_threadsafe(entered.set)
            release.wait(60)
            made.append(answer())
            return made[0]

    bus.call(Late())
    bus.emit(verifying("a", 0))
    await entered.wait()
    await bus.aclose(patience=0.0)
    release.set()
    await dropped.wait()
    assert inspect.getcoroutinestate(made[0]) == inspect.CORO_CLOSED


async def test_a_callback_that_is_stopped_hears_no_more() -> None:
    """The function returned by `call` stops the callback: queued events are dropped."""
    bus = new_bus()
    seen: list[Event] = []

    async def note(event: Event) -> None:
        seen.append(event)

    stop = bus.call(note)
    bus.emit(verifying("a", 1))
    await bus.settle(grace=30.0, stuck=30.0)
    bus.emit(verifying("a", 2))
    stop()
    stop()
    bus.emit(verifying("a", 3))
    await bus.settle(grace=30.0, stuck=30.0)
    await bus.aclose(patience=30.0)
    assert seen == [verifying("a", 1)]


@pytest.mark.shows("U6")
async def test_a_callback_may_stop_itself_and_emit() -> None:
    """A callback may emit events and stop itself without harm."""
    bus = new_bus()
    seen: list[Event] = []

    async def once(event: Event) -> None:
        seen.append(event)
        bus.emit(verifying("a", 2))
        stop()

    stop = bus.call(once)
    listener = bus.subscribe()
    bus.emit(verifying("a", 1))
    await bus.settle(grace=30.0, stuck=30.0)
    await bus.aclose(patience=30.0)
    assert seen == [verifying("a", 1)]
    assert await everything(listener) == [verifying("a", 1), verifying("a", 2)]


async def test_settle_waits_for_what_was_emitted() -> None:
    """After settling, callbacks have handled every event before it, including the last one."""
    bus = new_bus()
    done: list[int] = []

    async def slow(event: Event) -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        assert isinstance(event, AssetVerifying)
        done.append(event.bytes)

    bus.call(slow)
    for number in range(10):
        bus.emit(verifying("a", number))
    await bus.settle(grace=30.0, stuck=30.0)
    assert done == list(range(10))
    await bus.settle(grace=30.0, stuck=30.0)
    await bus.aclose(patience=30.0)


@pytest.mark.posix
def test_settle_does_not_wait_for_who_sleeps() -> None:
    """A callback stuck in one event is left behind at once; one that makes progress is waited for."""

    async def story() -> None:
        bus = new_bus()
        seen: list[Event] = []
        wake = asyncio.Event()

        async def sleeps(event: Event) -> None:
            await wake.wait()

        async def gets_on(event: Event) -> None:
            await asyncio.sleep(0.09)
            seen.append(event)

        bus.call(sleeps)
        bus.call(gets_on)
        for number in range(50):
            bus.emit(verifying("a", number))
        await bus.settle(grace=30.0, stuck=0.1)
        assert len(seen) == 50
        wake.set()
        await bus.aclose(patience=30.0)

    in_virtual_time(story())


async def test_settle_does_not_wait_for_readers() -> None:
    """A subscription read by its owner is not waited for: nobody knows when that will happen."""
    bus = new_bus()
    bus.subscribe()
    bus.emit(verifying("a"))
    async with asyncio.timeout(60):
        await bus.settle(grace=3600.0)


async def test_closing_lets_callbacks_finish() -> None:
    """Queued events still reach the callbacks at the end; one that takes too long is cancelled."""
    bus = new_bus()
    seen: list[Event] = []
    ended: list[str] = []
    never = asyncio.Event()

    async def note(event: Event) -> None:
        seen.append(event)

    async def stuck(event: Event) -> None:
        try:
            await never.wait()
        finally:
            ended.append("cancelled")

    bus.call(note)
    for number in range(3):
        bus.emit(verifying("a", number))
    await bus.aclose(patience=30.0)
    assert seen == [verifying("a", number) for number in range(3)]
    other = new_bus()
    other.call(stuck)
    other.emit(verifying("a"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await other.aclose(patience=0.0)
    await asyncio.sleep(0)
    assert ended == ["cancelled"]


@pytest.mark.parametrize(
    ("callback", "expected"),
    [
        pytest.param(print, False, id="function"),
        pytest.param(AsyncObject(), True, id="async object"),
        pytest.param(everything, True, id="coroutine function"),
        pytest.param(functools.partial(everything), True, id="partial"),
        pytest.param(object(), False, id="not callable"),
    ],
)
def test_what_makes_a_coroutine(callback: object, expected: bool) -> None:
    """A coroutine function, and an object whose call is one, are told from everything else."""
    assert is_coroutine_callable(callback) is expected

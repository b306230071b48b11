"""The pub/sub bus: events are emitted in one place and heard by many listeners.

Rules: `EventBus.emit` is synchronous and never waits, so no listener can slow a transfer. Every listener has its own
queue. In it, progress is conflated per asset (only the latest is kept, unless something else about that asset came
after it); every other event is kept, once and in order. So a queue is bounded by the number of state changes, which is
finite, and not by time. A callback that raises is logged and dropped; the others and the transfers continue.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Self

from grym_fetch.core.events import Event, ProgressMade
from grym_fetch.runtime.threads import DaemonThread

log = logging.getLogger(__name__)

SLOW_CALLBACK_S = 0.05
"""A callback that takes longer than this for one event is slow, and nobody waits for it to catch up."""
CALLBACK_TIMEOUT_S = 2.0
"""When everything else is over, a callback that takes longer than this for one event gets no more events."""
LOOK_S = 0.25
"""How often an idle stream looks whether its server is stopping."""
HURRIED_CLOSE_S = 1.0
"""The time that callbacks get for all remaining events when the program is in a hurry."""
TURNS_UNTIL_HEARD = 10
"""Turns of the loop from an event to a reader that waits for it, with all that `asyncio.wait` puts between them."""

EventCallback = Callable[[Event], object] | Callable[[Event], Awaitable[object]]


class Subscription:
    """One listener's queue: an async iterator of events that ends when the bus or the subscription is closed.

    Or when the server is stopping in which the program runs, if that is uvicorn: see `AssetManager.events`.

    For a single reader: two iterators on one subscription would take each other's events.
    """

    def __init__(self, bus: EventBus, is_over: Callable[[], bool] | None = None) -> None:
        self._bus = bus
        self._is_over = is_over
        """Whether nobody wants to hear more; looked at now and then."""
        # Numbered in emission order; a dict keeps that order and allows removing a stale progress event anywhere.
        self._queue: dict[int, Event] = {}
        self._number = 0
        self._latest_progress: dict[str | None, int] = {}
        self._ready = asyncio.Event()
        self._closed = False
        self.handled = asyncio.Event()
        """Set while a reader that reports back (see `EventBus.call`) has handled everything queued."""
        self.handled.set()
        self.moved = asyncio.Event()
        """Set whenever such a reader has handled one more event."""
        self.took_s = 0.0
        """How long such a reader took for its last event, as far as anybody has waited for it."""

    def put(self, event: Event) -> None:
        """Queue an event. Called by the bus."""
        if self._closed:
            return
        self._number += 1
        # Progress before a state change stays before it; of the progress since then, only the latest is kept.
        stale = self._latest_progress.pop(event.asset, None)
        if isinstance(event, ProgressMade):
            self._latest_progress[event.asset] = self._number
            if stale is not None:
                del self._queue[stale]
        self._queue[self._number] = event
        self._ready.set()
        self.handled.clear()

    def drain(self) -> list[Event]:
        """Remove and return everything queued now. Never waits."""
        events = list(self._queue.values())
        self._queue.clear()
        self._latest_progress.clear()
        if not self._closed:
            self._ready.clear()
        return events

    async def wait(self) -> bool:
        """Wait until `drain` would return something (True), or until nothing more can come (False)."""
        while self._is_over is not None and not self._closed:
            if self._is_over():
                self._bus.unsubscribe(self)
                self.finish()
            elif self._ready.is_set():
                break
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await self._ready.wait()
        await self._ready.wait()
        return bool(self._queue)

    def finish(self) -> None:
        """End the iteration after what is queued. Called by the bus when it closes."""
        self._closed = True
        self._ready.set()

    def close(self) -> None:
        """Stop listening; what is queued is dropped."""
        self._bus.unsubscribe(self)
        self.finish()
        self._queue.clear()
        self.handled.set()
        self.moved.set()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is queued."""
        return not self._queue

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        if not await self.wait():
            raise StopAsyncIteration
        # One at a time: what the reader has not taken yet stays in the queue, where it is conflated.
        number, event = next(iter(self._queue.items()))
        del self._queue[number]
        if self._latest_progress.get(event.asset) == number:
            del self._latest_progress[event.asset]
        if not self._queue and not self._closed:
            self._ready.clear()
        return event


class EventBus:
    """Hands every emitted event to every subscription. ``wall_clock`` stamps events with seconds since the epoch."""

    def __init__(self, wall_clock: Callable[[], float]) -> None:
        self._wall_clock = wall_clock
        self._subscriptions: list[Subscription] = []
        self._pumps: dict[asyncio.Task[None], Subscription] = {}
        self._closes_within: float | None = None
        self.is_closed = False

    @property
    def is_heard(self) -> bool:
        """Whether anybody listens: if not, a run over very many assets need not even make its events."""
        return bool(self._subscriptions)

    def emit(self, event: Event) -> None:
        """Emit an event, stamped with the time. Never waits and never raises."""
        if not self._subscriptions:
            return
        # In place: events are made to be emitted, and a copy with `replace` would cost more than everything else here.
        object.__setattr__(event, "time", self._wall_clock())
        for subscription in self._subscriptions:
            subscription.put(event)

    def subscribe(self, *, is_over: Callable[[], bool] | None = None) -> Subscription:
        """Return a subscription to everything emitted from now on. It ends once ``is_over``, if given, says so."""
        subscription = Subscription(self, is_over)
        if self.is_closed:
            subscription.finish()
        else:
            self._subscriptions.append(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Stop sending to a subscription. Idempotent."""
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)

    def call(self, callback: EventCallback) -> Callable[[], None]:
        """Call ``callback`` with each event, one at a time and in order. Returns a function that stops it.

        An async callback runs in the event loop. A sync one runs in a thread of its own, so that it may block; one that
        never returns does not keep the program from ending.
        """
        subscription = self.subscribe()
        task = asyncio.get_running_loop().create_task(_pump(subscription, callback), name="event callback")
        self._pumps[task] = subscription
        task.add_done_callback(lambda done: self._pumps.pop(done, None))
        return subscription.close

    async def settle(self, *, grace: float | None = 1.0, stuck: float = SLOW_CALLBACK_S) -> None:
        """Give callbacks up to ``grace`` seconds (None: any time) to handle what was emitted so far.

        Does not wait for one that takes longer than ``stuck`` seconds for a single event, or has just done so.
        """
        behind = [each for each in self._pumps.values() if each.took_s < stuck and not each.handled.is_set()]
        if behind:
            with suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await asyncio.gather(*(_follow(each, each.handled.is_set, stuck) for each in behind))

    async def heard(self) -> None:
        """Let readers that are waiting for events take what was emitted, before something holds up the loop.

        Never waits for one that is busy.
        """
        for _ in range(TURNS_UNTIL_HEARD):
            if all(each.is_empty for each in self._subscriptions):
                break
            await asyncio.sleep(0)
        # Their own turn, in which they do something about it.
        await asyncio.sleep(0)

    def hurry(self) -> None:
        """Make sure that a callback that is far behind does not delay the end of the program, such as after Ctrl-C."""
        self._closes_within = HURRIED_CLOSE_S

    async def aclose(self, *, patience: float = CALLBACK_TIMEOUT_S) -> None:
        """End all subscriptions. Callbacks get everything queued, however long that takes, unless in a `hurry`.

        One that takes longer than ``patience`` seconds for a single event is cancelled.
        """
        self.is_closed = True
        for subscription in self._subscriptions:
            subscription.finish()
        self._subscriptions.clear()
        # A callback that closes the bus cannot be waited for.
        pumps = {task: listener for task, listener in self._pumps.items() if task is not asyncio.current_task()}
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._closes_within):
                    await asyncio.gather(*(_follow(each, task.done, patience) for task, each in pumps.items()))
        finally:
            late = [task for task in pumps if not task.done()]
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=patience)


async def _follow(subscription: Subscription, is_there: Callable[[], bool], patience: float) -> None:
    """Wait until a callback has caught up, or takes longer than ``patience`` seconds for one event."""
    while not is_there():
        subscription.moved.clear()
        try:
            async with asyncio.timeout(patience):
                await subscription.moved.wait()
        except TimeoutError:
            subscription.took_s = max(subscription.took_s, patience)
            return


async def _pump(subscription: Subscription, callback: EventCallback) -> None:
    is_async = is_coroutine_callable(callback)
    loop = asyncio.get_running_loop()
    thread = DaemonThread("callback", _drop)
    try:
        async for event in subscription:
            began = loop.time()
            if is_async:
                outcome = callback(event)
            else:
                outcome = await thread.compute(callback, event)
            if inspect.isawaitable(outcome):
                await outcome
            if subscription.is_empty:
                subscription.handled.set()
            subscription.moved.set()
            subscription.took_s = loop.time() - began
    except (Exception, SystemExit):  # a task that ended with SystemExit would take the loop along
        log.exception("a callback raised and will not be called again")
    finally:
        thread.stop()
        subscription.close()


def _drop(outcome: object) -> None:
    """Nobody will await this: close a coroutine, so that Python does not warn about it."""
    if inspect.iscoroutine(outcome):
        outcome.close()


def is_coroutine_callable(callback: object) -> bool:
    """Whether a call returns a coroutine: an ``async def``, or an object whose ``__call__`` is one."""
    return inspect.iscoroutinefunction(callback) or inspect.iscoroutinefunction(type(callback).__dict__.get("__call__"))

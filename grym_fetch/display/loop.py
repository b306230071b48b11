"""The loop between the bus and a view: it drains all the time, and draws now and then.

Rules: drawing happens in its own thread, so that a stopped terminal or a full pipe stops neither the event loop nor the
draining. There is at most one drawing at a time, and at most ten per second. An error while drawing ends the drawing,
not the run. Time is an argument.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from grym_fetch.core.events import Event
from grym_fetch.display.lines import Chronicle
from grym_fetch.display.model import DisplayModel
from grym_fetch.runtime.threads import begin_daemon
from grym_fetch.runtime.waiting import shielded

REDRAW_INTERVAL_S = 0.1
"""The minimum time between two drawings."""
IDLE_INTERVAL_S = 0.25
"""Redraw after this long without an event, because countdowns and spinners move."""
DRAIN_INTERVAL_S = 0.02
"""The minimum time between two drainings: lets the bus conflate, and bounds the work of a busy run."""
CLOSE_TIMEOUT_S = 1.0
"""The most that a stopped terminal may delay the end."""

Drawing = Callable[[], None]
Sleep = Callable[[float], Awaitable[None]]
Draw = Callable[[Drawing], Awaitable[None]]

_logger = logging.getLogger("grym_fetch.display")


class EventSource(Protocol):
    """What a display reads: a subscription to the bus."""

    def drain(self) -> list[Event]:
        """Return everything queued now, in order. Never blocks."""
        ...

    async def wait(self) -> bool:
        """Return True as soon as `drain` would return something, False once the bus is closed and empty."""
        ...


class View(Protocol):
    """Shows events to a person."""

    def apply(self, event: Event, now: float) -> None:
        """Process an event. Must be fast and do no I/O, because it runs in the event loop."""
        ...

    def prepare(self, now: float) -> Drawing | None:
        """Return the drawing of the state at ``now``, to run in a thread; None if nothing has changed."""
        ...

    def close(self) -> None:
        """Restore the terminal. Runs in the drawing thread, after the last drawing."""
        ...

    def say(self, text: str) -> None:
        """Show a line of text, such as a log record, without breaking the display. Any thread may call this."""
        ...

    def came_back(self) -> None:
        """The process was stopped and goes on: others may have written below what is shown. From a signal handler."""
        ...

    def try_beside(self, write: Callable[[], object]) -> bool:
        """Call ``write``, which writes to the same terminal, unless that would break what is shown there.

        Returns whether it was called. Any thread may call this.
        """
        ...

    @property
    def model(self) -> DisplayModel:
        """The state of the run as the view knows it."""
        ...

    @property
    def chronicle(self) -> Chronicle:
        """The permanent lines of the view."""
        ...


async def show(
    subscription: EventSource,
    view: View,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Sleep = asyncio.sleep,
    draw: Draw | None = None,
) -> None:
    """Show everything from ``subscription`` until the bus is closed. Cancelling also restores the terminal.

    ``draw`` runs a drawing and may take any time; by default it is a daemon thread, so that a terminal that never
    responds cannot keep the process alive.
    """
    if draw is None:
        try:
            thread = _DrawingThread()
        except RuntimeError:  # no thread can be started: a display that may be slow is better than none
            await show(subscription, view, clock=clock, sleep=sleep, draw=_draw_here)
            return
        try:
            await show(subscription, view, clock=clock, sleep=sleep, draw=thread)
        finally:
            thread.stop()
        return
    running = _Show(subscription, view, clock, sleep, draw)
    try:
        await running.run()
    finally:
        with shielded():
            await running.close()


class _Show:
    def __init__(
        self, subscription: EventSource, view: View, clock: Callable[[], float], sleep: Sleep, draw: Draw
    ) -> None:
        self._subscription = subscription
        self._view = view
        self._clock = clock
        self._sleep = sleep
        self._draw = draw
        self._drawing: asyncio.Task[None] | None = None
        self._given_up = False
        self._news = False
        """Whether something came that has not been drawn."""

    async def run(self) -> None:
        waiting = asyncio.ensure_future(self._subscription.wait())
        drawn_at = self._clock()
        has_begun = False
        try:
            while True:
                due_at = drawn_at + (REDRAW_INTERVAL_S if self._news else IDLE_INTERVAL_S)
                await self._first(waiting, seconds=max(due_at - self._clock(), DRAIN_INTERVAL_S))
                if waiting.done():
                    if not waiting.result():
                        return
                    self._take()
                    if has_begun:
                        await self._sleep(DRAIN_INTERVAL_S)
                    waiting = asyncio.ensure_future(self._subscription.wait())
                now = self._clock()
                # The first news is drawn at once: until then a person sees nothing.
                is_due = now - drawn_at >= (REDRAW_INTERVAL_S if self._news else IDLE_INTERVAL_S)
                if is_due or (self._news and not has_begun):
                    had_news = self._news
                    if self._start_drawing(now):
                        drawn_at, has_begun = now, has_begun or had_news
        finally:
            waiting.cancel()

    async def close(self) -> None:
        """Draw the last state and restore the terminal, unless the terminal does not accept it in time."""
        self._take()
        if await self._drawing_ended() and self._news and self._start_drawing(self._clock()):
            await self._drawing_ended()
        # Behind a stuck drawing, closing is queued: if the terminal responds again, it is restored.
        stuck = self._drawing
        self._drawing = asyncio.ensure_future(self._draw(self._view.close))
        await self._drawing_ended()
        for left in (stuck, self._drawing):
            if left is not None and not left.done():
                left.cancel()

    def _take(self) -> None:
        now = self._clock()
        for event in self._subscription.drain():
            self._news = True
            if self._given_up:
                continue
            try:
                self._view.apply(event, now)
            except Exception as error:  # noqa: BLE001 - a fault in the display must not cost anyone a download
                self._give_up(error)

    def _start_drawing(self, now: float) -> bool:
        """Start a drawing unless one is still running; return whether it could."""
        if self._drawing is not None and not self._drawing.done():
            return False
        self._notice_failure()
        self._news = False
        if self._given_up:
            return True
        try:
            drawing = self._view.prepare(now)
        except Exception as error:  # noqa: BLE001 - as above
            self._give_up(error)
            return True
        if drawing is not None:
            self._drawing = asyncio.ensure_future(self._draw(drawing))
        return True

    async def _drawing_ended(self) -> bool:
        if self._drawing is not None:
            await self._first(self._drawing, seconds=CLOSE_TIMEOUT_S)
            if not self._drawing.done():
                return False
            self._notice_failure()
        return True

    def _notice_failure(self) -> None:
        if self._drawing is not None and self._drawing.done() and not self._drawing.cancelled():
            error = self._drawing.exception()
            if error is not None:
                self._give_up(error)

    def _give_up(self, error: BaseException) -> None:
        # A lost terminal (OSError) or a closed stream (ValueError) is no one's fault.
        if not self._given_up and not isinstance(error, OSError | ValueError):
            _logger.error("The display failed and is switched off.", exc_info=error)
        self._given_up = True

    async def _first(self, future: asyncio.Future[bool] | asyncio.Future[None], *, seconds: float) -> None:
        """Return when ``future`` is done or ``seconds`` have passed."""
        timer = asyncio.ensure_future(self._sleep(seconds))
        try:
            await asyncio.wait({future, timer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()


async def _draw_here(drawing: Drawing) -> None:
    drawing()


class _DrawingThread:
    """Runs drawings one after the other. A daemon: unlike an executor's worker, it does not delay the exit."""

    def __init__(self) -> None:
        self._drawings: queue.SimpleQueue[tuple[Drawing, asyncio.Future[None]] | None] = queue.SimpleQueue()
        begin_daemon("grym-fetch display", self._run)

    async def __call__(self, drawing: Drawing) -> None:
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._drawings.put((drawing, ended))
        await ended

    def stop(self) -> None:
        self._drawings.put(None)

    def _run(self) -> None:
        while (job := self._drawings.get()) is not None:
            drawing, ended = job
            error: BaseException | None = None
            try:
                drawing()
            except BaseException as caught:  # noqa: BLE001 - handed to the loop, which decides
                error = caught
            try:
                ended.get_loop().call_soon_threadsafe(_settle, ended, error)
            except RuntimeError:  # the loop is closed: nobody is waiting any longer
                return


def _settle(ended: asyncio.Future[None], error: BaseException | None) -> None:
    if ended.done():
        return
    if error is None:
        ended.set_result(None)
    else:
        ended.set_exception(error)

"""Shows long work on this machine, done without a manager: the display of a sync, in a thread of its own.

Rules: the work goes on in the thread that it began in, which signals interrupt; telling never makes it wait. Where no
thread can be started, nothing is shown.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from grym_fetch.cli import streams
from grym_fetch.cli.options import Common
from grym_fetch.core.events import Event
from grym_fetch.display.choice import Display, choose_display
from grym_fetch.display.lines import Telling
from grym_fetch.runtime.bus import EventBus, Subscription
from grym_fetch.runtime.threads import begin_daemon

LAST_FRAME_S = 3.0
"""How long the end may wait for the last lines to be drawn."""


@contextmanager
def showing(common: Common) -> Iterator[Callable[[Event], None]]:
    """Yield what events are told to, from any thread. At the end, all of them have been shown."""
    try:
        with _showing(common) as tell:
            yield tell
    except (KeyboardInterrupt, SystemExit) as error:  # a signal; see `runner.ending_in_order`
        if not common.quiet:
            # Below the ``^C`` of a terminal.
            below = "\n" if isinstance(error, KeyboardInterrupt) and streams.sheet().is_terminal else ""
            streams.tell(below + streams.sheet().prose(streams.interrupted("")))
        raise


@contextmanager
def _showing(common: Common) -> Iterator[Callable[[Event], None]]:
    display = choose_display(
        stream=sys.stderr,
        environ=os.environ,
        quiet=common.quiet,
        names={},
        telling=Telling(verbose=common.verbose, tells="progress"),
        progress=streams.progress_beside(common.progress, json=common.json),
        interval=common.progress_interval,
    )
    board = None if display is None else _Board.begun(display)
    if display is None or board is None:
        yield lambda _: None
        return
    try:
        if display.is_live:
            with streams.sharing(display, json=common.json):
                try:
                    yield board.tell
                finally:
                    board.end()
        else:
            yield board.tell
    finally:
        board.end()


class _Board:
    """A display in a thread, with a loop of its own."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._ready = threading.Event()
        self._over = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._bus = EventBus(time.time)
        self._subscription: Subscription | None = None

    @classmethod
    def begun(cls, display: Display) -> _Board | None:
        board = cls(display)
        try:
            begin_daemon("grym-fetch board", board._run)
        except RuntimeError:  # no thread can be started
            return None
        board._ready.wait()
        return board

    def tell(self, event: Event) -> None:
        """Show an event. Never waits."""
        assert self._loop is not None
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._bus.emit, event)

    def end(self) -> None:
        """Wait until everything is shown, or the terminal does not take it."""
        assert self._loop is not None
        assert self._subscription is not None
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._subscription.finish)
        self._over.wait(LAST_FRAME_S)

    def _run(self) -> None:
        try:
            asyncio.run(self._show())
        finally:
            self._ready.set()
            self._over.set()

    async def _show(self) -> None:
        self._loop, self._subscription = asyncio.get_running_loop(), self._bus.subscribe()
        self._ready.set()
        await self._display.run(self._subscription)

"""Named worker threads for blocking work.

Rule: work handed to a thread cannot be taken back. A task that is cancelled meanwhile still waits for it to end, so
that no descriptor is closed and no file renamed under a thread that uses it. At the end of the interpreter, when no
executor takes work any more, it is done where it is asked for, so that what has arrived is still recorded.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from queue import SimpleQueue
from typing import TypeVar

from grym_fetch.runtime.waiting import wait_uncancelled

T = TypeVar("T")


class WorkerThreads:
    """A few threads with a name, started on first use and ended by `close`."""

    def __init__(self, name: str, count: int) -> None:
        self._executor = ThreadPoolExecutor(count, thread_name_prefix=f"grym-fetch-{name}")
        self._is_closed = False

    async def compute(self, function: Callable[..., T], *args: object) -> T:
        """Call ``function(*args)`` in a thread. A cancellation is raised only once the call is over."""
        try:
            work = asyncio.get_running_loop().run_in_executor(self._executor, function, *args)
        except RuntimeError as error:
            if self._is_closed or "cannot schedule" not in str(error):
                raise
            self._executor.shutdown()  # what was asked for before is done first
            return function(*args)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await wait_uncancelled([work])
            if not work.cancelled():
                work.exception()  # retrieved: a cancelled task has no use for it
            raise

    def close(self) -> None:
        """End the threads once they have done what they are doing; work that has not begun is dropped."""
        self._is_closed = True
        self._executor.shutdown(wait=False, cancel_futures=True)


class DaemonThread:
    """One thread for foreign code, which may never return: it holds up neither who gives up on it nor the interpreter.

    ``drop`` gets what comes back to nobody.
    """

    def __init__(self, name: str, drop: Callable[[object], None]) -> None:
        self._name = f"grym-fetch-{name}"
        self._drop = drop
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    async def compute(self, function: Callable[..., object], *args: object) -> object:
        """Call ``function(*args)`` in the thread. On cancellation it is left to itself."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[object] = loop.create_future()
        context = copy_context()

        def tell(outcome: object, error: BaseException | None) -> None:
            if future.cancelled():
                self._drop(outcome)
            elif error is None:
                future.set_result(outcome)
            else:
                future.set_exception(error)

        def work() -> None:
            outcome, failure = None, None
            try:
                outcome = context.run(function, *args)
            except BaseException as error:  # noqa: BLE001 - raised where it is awaited
                failure = error
            try:
                loop.call_soon_threadsafe(tell, outcome, failure)
            except RuntimeError:  # the loop is closed
                self._drop(outcome)

        self._work.put(work)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        return await future

    def stop(self) -> None:
        """Let the thread end once it has done what it is doing."""
        self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()

"""Named worker threads for blocking work.

Rule: work handed to a thread cannot be taken back. A task cancelled meanwhile still waits for it to end, so that no
descriptor is closed and no file renamed while a thread uses it. When the interpreter is shutting down and executors no
longer accept work, it runs in the calling thread, so that what has arrived is still recorded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from grym_fetch.runtime.waiting import wait_uncancelled

T = TypeVar("T")


class WorkerThreads:
    """A few named threads, started on first use and ended by `close`."""

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
            self._executor.shutdown()  # earlier work is finished first
            return function(*args)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await wait_uncancelled([work])
            if not work.cancelled():
                work.exception()  # retrieved: a cancelled task has no use for it
            raise

    def close(self) -> None:
        """End the threads after their current work; work that has not started is dropped."""
        self._is_closed = True
        self._executor.shutdown(wait=False, cancel_futures=True)

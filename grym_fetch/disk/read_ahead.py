"""Reading back while what was read before is hashed: two cores work on one file.

Rules: the results come in order. At most one call is ahead, so that two buffers are enough. It is over before this is:
no descriptor is closed while it is read from.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import TypeVar

from grym_fetch.core.world import ThreadPool

T = TypeVar("T")


def read_ahead(pool: ThreadPool, calls: Sequence[Callable[[], T]]) -> Generator[T, None, None]:
    """Yield the result of each call. While it is used, a thread of the pool makes the next call, if one is idle.

    Close this if you do not use it to its end. Raises what the calls raise.
    """
    begun: Future[T] | None = None
    try:
        for number, call in enumerate(calls):
            # If no thread was idle, it has not begun: waiting could mean to wait for ourselves.
            result = call() if begun is None or begun.cancel() else begun.result()
            begun = None
            if number + 1 < len(calls):
                with suppress(RuntimeError):  # the interpreter ends, and no thread takes more work
                    begun = pool.lend(calls[number + 1], ())
            yield result
    finally:
        if begun is not None and not begun.cancel():
            wait([begun])

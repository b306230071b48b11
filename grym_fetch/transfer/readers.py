"""Where the readers of an asset meet the transfer that fetches it.

Rules: a reader says which bytes it waits for, and these are fetched first. What it gets was judged in memory, after it
was read back. No read of the part file is under way once the transfer publishes or gives it up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from grym_fetch.core.ranges import ByteRange
from grym_fetch.runtime.waiting import wait_uncancelled


class Readable(Protocol):
    """What a transfer has on hand. Implemented by `DownloadState`."""

    size: int | None

    async def read_judged(self, position: int) -> tuple[int, bytes] | None:
        """The piece around a position and where it begins, if it is there and right."""


class Readers:
    """The readers of one asset, whether or not it is being fetched now."""

    def __init__(self) -> None:
        self.wanted: list[ByteRange] = []
        """What readers wait for now, the first one first."""
        self._content: Readable | None = None
        self._hurry: Callable[[], None] = lambda: None
        self._reads: set[asyncio.Task[tuple[int, bytes] | None]] = set()
        self.change = asyncio.Event()
        """Set, and replaced by another one, as soon as there may be more to read."""

    def begin(self, content: Readable, hurry: Callable[[], None]) -> None:
        """The asset is being fetched. ``hurry`` is called when a reader begins to wait."""
        self._content, self._hurry = content, hurry
        self.tell()

    async def end(self) -> None:
        """Nothing is read from this transfer any more. Returns when no read is under way."""
        self._content, self._hurry = None, lambda: None
        await wait_uncancelled(list(self._reads))

    def tell(self) -> None:
        """There may be more to read, or something else has changed."""
        self.change.set()
        self.change = asyncio.Event()

    @property
    def size(self) -> int | None:
        """The length of what is being fetched, if it is known."""
        return None if self._content is None else self._content.size

    async def read(self, position: int) -> tuple[int, bytes] | None:
        """The piece around a position and where it begins; None if it is not there yet. Raises `StorageError`."""
        if self._content is None:
            return None
        # A task of its own, since a reader that goes away must not take its hands off the disk early.
        read = asyncio.get_running_loop().create_task(self._content.read_judged(position))
        self._reads.add(read)
        read.add_done_callback(self._has_read)
        return await asyncio.shield(read)

    def _has_read(self, read: asyncio.Task[tuple[int, bytes] | None]) -> None:
        self._reads.discard(read)
        if not read.cancelled():
            read.exception()  # its reader may be gone

    @contextmanager
    def waiting_for(self, wanted: ByteRange) -> Iterator[None]:
        """Have these bytes fetched first, as long as this lasts."""
        self.wanted.append(wanted)
        try:
            self._hurry()
            yield
        finally:
            self.wanted.remove(wanted)

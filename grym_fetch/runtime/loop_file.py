"""An asset as a blocking binary file, over a reader that lives in the manager's loop.

Rules: an interrupted read (Ctrl-C) has ended in the loop before the exception propagates. Once the asset is all there,
reads go to its file directly.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class LoopCaller(Protocol):
    """Calls into a loop in another thread. Implemented by `LoopThread`."""

    @property
    def is_of_another_process(self) -> bool:
        """Whether this process was forked from the one that runs the thread."""

    @property
    def is_current(self) -> bool:
        """Whether the caller is in the loop."""

    def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run ``work`` there, and wait for its end."""

    def call(self, function: Callable[[], T]) -> T:
        """Call a function that does not wait."""


class AsyncReader(Protocol):
    """What reads an asset in the loop. Implemented by `AssetReader`."""

    @property
    def size(self) -> int:
        """The length in bytes."""

    async def open(self) -> None:
        """Get ready."""

    async def readinto_at(self, position: int, view: memoryview) -> int:
        """Wait for bytes."""

    def readinto_now(self, position: int, view: memoryview) -> int | None:
        """The same without waiting and in any thread; None if it has to wait."""

    async def aclose(self) -> None:
        """Let go."""


class AssetFile(io.RawIOBase):
    """An asset as a binary file, whose bytes may still be on their way: a read waits for them.

    Anything that takes a file takes it: `zipfile`, `tarfile`, `io.BufferedReader`. A read gives all the bytes that were
    asked for, up to the end, or raises. Closed with ``with`` or `close`.
    """

    _is_open = False
    """A file that is collected is closed, also one that could not be opened."""

    def __init__(self, thread: LoopCaller, owner: object, make: Callable[[], AsyncReader]) -> None:
        super().__init__()
        self._thread = thread
        self._owner = owner  # a reader needs the manager alive
        self._position = 0
        self._reader = reader = thread.call(make)
        thread.run(reader.open)
        self._is_open = True

    @property
    def size(self) -> int:
        """The asset's length in bytes."""
        return self._reader.size

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position of the next byte to be read."""
        self._check_open()
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Set the position, as for any file, and return it."""
        self._check_open()
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}.get(whence)
        if base is None or base + offset < 0:
            raise ValueError(f"cannot seek to {offset} from {whence}")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        """Fill the buffer, or as much of it as there is up to the end; return how many bytes. Waits for them."""
        self._check_open()
        with memoryview(buffer) as whole, whole.cast("B") as view:
            count = self._reader.readinto_now(self._position, view)
            if count is None:
                count = self._thread.run(lambda: self._reader.readinto_at(self._position, view))
        self._position += count
        return count

    def close(self) -> None:
        """Close it; a download that nobody else waits for stops, unless it is to go on. Idempotent."""
        if self.closed:
            return
        super().close()
        if not self._is_open or self._thread.is_of_another_process:
            return
        if self._thread.is_current:  # collected there, where nothing may wait
            asyncio.get_running_loop().create_task(self._reader.aclose())
            return
        with suppress(CancelledError):  # the manager was closed first
            self._thread.run(self._reader.aclose)

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on a closed asset")

"""From the bytes of one response to pieces on the stage.

Rules: a piece is stored when it is full or old enough, one at a time. What has arrived is stored even if the
connection breaks off or the attempt is cancelled, at whatever moment: it counts as on hand already, so nobody would ask
for it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any

from grym_fetch.core.origins import Origin
from grym_fetch.core.world import Clock
from grym_fetch.runtime.buffers import Buffers
from grym_fetch.runtime.waiting import wait_uncancelled
from grym_fetch.transfer.state import DownloadState

FLUSH_INTERVAL_S = 1.0
"""A piece is stored when it is full or this old, so that a slow link loses little in a crash."""


class PieceWriter:
    """Collects the bytes of one response into pieces; stores one while the next one arrives."""

    def __init__(self, state: DownloadState, origin: Origin, clock: Clock, buffers: Buffers) -> None:
        self.origin = origin
        self._state = state
        self._clock = clock
        self._buffers = buffers
        self._buffer: bytearray | None = None
        self._start = 0
        self._length = 0
        self._since = 0.0
        self._storing: asyncio.Task[None] | None = None

    def space(self, most: int) -> memoryview:
        """Where the next bytes go, at most ``most`` of them."""
        if self._buffer is None:
            self._buffer = self._buffers.take()
        return memoryview(self._buffer)[self._length : self._length + most]

    def continues_at(self, start: int) -> bool:
        """Whether bytes at ``start`` follow the last ones."""
        return not self._length or start == self._start + self._length

    async def filled(self, start: int, count: int) -> None:
        """``count`` bytes of the content at ``start`` are in `space`. Waits if the disk is slower than the network."""
        now = self._clock.monotonic()
        if not self._length:
            self._start, self._since = start, now
        self._length += count
        is_full = self._length == self._buffers.size or count == self._state.room_in_piece(start)
        if is_full or now - self._since >= FLUSH_INTERVAL_S:
            await self._flush()

    async def add(self, stretches: Iterable[tuple[int, bytes]]) -> None:
        """Add bytes that were received elsewhere, each stretch with its start: all, even if cancelled meanwhile."""
        await _to_its_end(self._add(stretches))

    async def _add(self, stretches: Iterable[tuple[int, bytes]]) -> None:
        for start, data in stretches:
            if not self.continues_at(start):
                await self._flush()
            at, left = start, data
            while left:
                space = self.space(min(len(left), self._state.room_in_piece(at)))
                count = len(space)
                space[:] = left[:count]
                await self.filled(at, count)
                at, left = at + count, left[count:]

    async def _flush(self) -> None:
        await self._settle()
        assert self._buffer is not None
        data = self._buffers.lend(self._buffer, self._length)
        self._buffer, self._length = None, 0
        storing = self._state.store(self._start, data, self.origin, keep=not self._buffers.are_scarce)
        self._storing = asyncio.get_running_loop().create_task(storing)

    async def _settle(self) -> None:
        """Wait until the current piece is stored; raise its error if that failed."""
        storing, self._storing = self._storing, None
        if storing is not None:
            await _ended(storing)

    async def close(self) -> None:
        """Store the rest, even if the connection broke off, or the attempt was cancelled or is cancelled meanwhile."""
        try:
            if self._length or self._storing is not None:
                await _to_its_end(self._store_rest())
        finally:
            if self._buffer is not None:
                self._buffers.give(self._buffer)
                self._buffer = None

    async def _store_rest(self) -> None:
        if self._length:
            await self._flush()
        await self._settle()


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Do all of this, then raise its error or the cancellation that came meanwhile."""
    await _ended(asyncio.get_running_loop().create_task(work))


async def _ended(task: asyncio.Task[None]) -> None:
    try:
        await wait_uncancelled([task])
    finally:
        # The disk's error comes before a cancellation: bytes that count as on hand are not on the disk.
        if (error := task.exception()) is not None:
            raise error

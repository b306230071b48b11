"""From the bytes of one response to pieces on the stage.

Rules: a piece is stored when it is full or old enough, one at a time. What has arrived counts as on hand at once, so
all of it is stored, even if the connection breaks off or the attempt is cancelled, at whatever moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

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

    async def add(self, parts: Iterable[tuple[int, bytes]]) -> None:
        """Add bytes that were received elsewhere, each with its place. A cancellation waits until all are added."""
        adding = asyncio.get_running_loop().create_task(self._add(parts))
        try:
            await wait_uncancelled([adding])
        finally:
            if (error := adding.exception()) is not None:
                raise error

    async def _add(self, parts: Iterable[tuple[int, bytes]]) -> None:
        for start, data in parts:
            if not self.continues_at(start):
                await self._flush()
            here, end = start, start + len(data)
            while here < end:
                space = self.space(min(end - here, self._state.room_in_piece(here)))
                count = len(space)
                space[:] = data[here - start : here - start + count]
                await self.filled(here, count)
                here += count

    async def end_piece(self) -> None:
        """Store what there is: what comes next does not follow it, and must not make do with the rest of the buffer."""
        if self._length:
            await self._flush()

    async def _flush(self) -> None:
        try:
            await self._settle()
        except asyncio.CancelledError:
            self._begin_storing()
            raise
        self._begin_storing()

    def _begin_storing(self) -> None:
        assert self._buffer is not None
        data = self._buffers.lend(self._buffer, self._length)
        self._buffer, self._length = None, 0
        storing = self._state.store(self._start, data, self.origin, keep=not self._buffers.are_scarce)
        self._storing = asyncio.get_running_loop().create_task(storing)

    async def _settle(self) -> None:
        """Wait until the current piece is stored; raise its error if that failed."""
        storing, self._storing = self._storing, None
        if storing is None:
            return
        try:
            await wait_uncancelled([storing])
        finally:
            # The disk's error comes before a cancellation: bytes that count as on hand are not on the disk.
            if (error := storing.exception()) is not None:
                raise error

    async def close(self) -> None:
        """Store the rest, even after the connection broke off or the attempt was cancelled."""
        try:
            try:
                if self._length:
                    await self._flush()
            finally:
                await self._settle()
        finally:
            if self._buffer is not None:
                self._buffers.give(self._buffer)
                self._buffer = None

"""Reads one asset, also while it is being fetched: `AssetReader`.

Rules: a read returns all the bytes asked for, up to the asset's end, or raises: never fewer, which would look like the
end. Bytes of a download under way are handed out once their piece was found right; once the whole is verified, the
reader turns to the file. It holds the download as any other caller does, so several readers share one.
"""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Self

from grym_fetch.core.errors import AssetMissing, StorageError, UnverifiedRead
from grym_fetch.core.ranges import ByteRange
from grym_fetch.core.segments import MIB
from grym_fetch.core.text import safe_text
from grym_fetch.disk.folders import close_each, open_regular, storage_errors
from grym_fetch.runtime import system

if TYPE_CHECKING:
    from grym_fetch.core.manifest import Asset
    from grym_fetch.engine.coordinator import Coordinator
    from grym_fetch.transfer.readers import Readers
    from grym_fetch.transfer.result import FetchResult

WANTED_BYTES = 16 * MIB
"""The most that a reader asks for at once before everything else: the rest of a long read is fetched in file order."""
READ_AHEAD_BYTES = 4 * MIB
"""What one that reads on where its last read ended is given beforehand."""


class AssetReader:
    """A binary file to be read with ``await``, whose bytes may still be on their way.

    An async context manager, made by `AssetManager.open_asset`. `seek` and `tell` do not wait. One task at a time may
    use it.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        asset: Asset,
        *,
        accept: Callable[[], Awaitable[None]],
        unverified_ok: bool,
        keep_downloading: bool,
    ) -> None:
        self._coordinator = coordinator
        self._asset = asset
        self._accept = accept
        self._unverified_ok = unverified_ok
        self._keep_downloading = keep_downloading
        self._position = 0
        self._size: int | None = None
        self._file: int | None = None
        self._fetch: asyncio.Task[FetchResult] | None = None
        self._readers: Readers | None = None
        self._block = 0, b""
        """The last piece, and where it begins: small reads follow each other."""
        self._read_up_to = 0
        self._is_closed = False

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        await self.aclose()

    async def open(self) -> None:
        """Begin, and wait until the size is known: what ``async with`` does. Raises what `open_asset` says."""
        try:
            await self._open()
        except BaseException:
            await self.aclose()
            raise

    async def _open(self) -> None:
        await self._accept()
        asset, engine = self._asset, self._coordinator.engine
        if (path := engine.local_files.find_verified(asset)) is not None:
            self._turn_to(path)
            return
        is_judged = asset.pinned and asset.pieces is not None
        # A stand-in never has pieces, and is small: it is read once it is there.
        if not (is_judged or self._unverified_ok or asset.is_stand_in):
            raise UnverifiedRead(asset.id, is_pinned=asset.pinned)
        self._readers = readers = engine.fetcher.readers(asset)
        self._fetch = self._coordinator.begin(asset)
        self._fetch.add_done_callback(lambda _: readers.tell())
        if not (is_judged or self._unverified_ok):
            self._readers = None
            await asyncio.wait([self._fetch])
        while self._file is None and self._known_size() is None:
            change = readers.change
            if self._fetch.done():
                self._turn_to_result(self._fetch)
            elif self._known_size() is None:
                await change.wait()

    def _known_size(self) -> int | None:
        if self._readers is not None and self._size is None:
            self._size = self._readers.size if self._asset.size is None else self._asset.size
        return self._size

    @property
    def size(self) -> int:
        """The asset's length in bytes."""
        size = self._known_size()
        if size is None:
            raise ValueError("the asset is not open yet: use `async with`")
        return size

    def tell(self) -> int:
        """The position of the next byte that `read` returns."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position and return it; ``whence`` 0: from the beginning, 1: from here, 2: from the end."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}.get(whence)
        if base is None or base + offset < 0:
            raise ValueError(f"cannot seek to {offset} from {whence}")
        self._position = base + offset
        return self._position

    async def read(self, count: int = -1) -> bytes:
        """Read ``count`` bytes, or all that is left if it is negative; fewer only at the end. Waits for them.

        Raises what `AssetManager.download_asset` raises if the download fails, `AssetMissing` if the manager is closed
        before they are there, and `ValueError` after `aclose`.
        """
        left = max(0, self.size - self._position)
        data = bytearray(left if count < 0 else min(count, left))
        await self.readinto(data)
        return bytes(data)

    async def readinto(self, buffer: bytearray | memoryview) -> int:
        """Fill the buffer, or as much of it as is left; return how many bytes. Waits, and raises, as `read`."""
        with memoryview(buffer) as whole, whole.cast("B") as view:
            count = await self.readinto_at(self._position, view)
        self._position += count
        return count

    async def readinto_at(self, position: int, view: memoryview) -> int:
        """`readinto` from this position, which leaves the reader's own alone."""
        count = max(0, min(len(view), self.size - position))
        done = 0
        while done < count:
            here = position + done
            data = await self._from_file(here, count - done) or await self._from_download(here, position + count)
            if data is not None:
                data = data[: count - done]
                view[done : done + len(data)] = data
                done += len(data)
        self._read_up_to = position + done
        return done

    def readinto_now(self, position: int, view: memoryview) -> int | None:
        """Fill what there is from the file, from any thread; None if the asset is not all there yet."""
        if self._is_closed:
            raise ValueError("read of a closed asset")
        if self._file is None:
            return None
        done, count = 0, max(0, min(len(view), self.size - position))
        while done < count:
            with storage_errors(Path(self._asset.local_path)):
                more = system.preadv(self._file, view[done:count], position + done)
            self._refuse_end(more)
            done += more
        return done

    async def _from_file(self, position: int, count: int) -> bytes | None:
        if self._is_closed:
            raise ValueError("read of a closed asset")
        if self._file is None:
            return None
        with storage_errors(Path(self._asset.local_path)):
            data = await asyncio.to_thread(system.pread, self._file, min(count, WANTED_BYTES), position)
        self._refuse_end(len(data))
        return data

    def _refuse_end(self, count: int) -> None:
        if not count:
            raise StorageError(safe_text(self._asset.local_path), "the file was cut off while it was read")

    async def _from_download(self, position: int, stop: int) -> bytes | None:
        """What there is from here on of the piece that has this position. None once there is a file to turn to."""
        start, data = self._block
        if not start <= position < start + len(data):
            if (block := await self._wait_for(position, stop)) is None:
                return None
            self._block = start, data = block
        return data[position - start :]

    async def _wait_for(self, position: int, stop: int) -> tuple[int, bytes] | None:
        readers, fetch = self._readers, self._fetch
        assert readers is not None
        assert fetch is not None
        with readers.waiting_for(self._wanted(position, stop)):
            while True:
                if self._is_closed:
                    raise ValueError("read of a closed asset")
                change = readers.change
                if fetch.done():
                    self._turn_to_result(fetch)
                    return None
                if (block := await readers.read(position)) is not None:
                    return block
                await change.wait()

    def _wanted(self, position: int, stop: int) -> ByteRange:
        """What to fetch now: whole pieces, since they are judged as wholes."""
        if position == self._read_up_to and position:
            stop = max(stop, position + READ_AHEAD_BYTES)
        stop = min(stop, position + WANTED_BYTES)
        if (pieces := self._asset.pieces) is not None:
            position, stop = position // pieces.size * pieces.size, -(-stop // pieces.size) * pieces.size
        return ByteRange(position, max(position + 1, min(stop, self.size)))

    def _turn_to_result(self, fetch: asyncio.Task[FetchResult]) -> None:
        if fetch.cancelled():
            raise AssetMissing(self._asset.id, "the manager was closed before it was all there")
        self._turn_to(str(fetch.result().path))

    def _turn_to(self, path: str) -> None:
        """The asset is there and verified: from now on it is a plain file."""
        with storage_errors(Path(path)):
            self._file = open_regular(path, follow=True)
            self._size = os.fstat(self._file).st_size
        self._block = 0, b""

    async def aclose(self) -> None:
        """Close it. A download that nobody else waits for stops, and what has arrived is kept, unless it is to go on.

        Idempotent.
        """
        self._is_closed = True
        fetch, self._fetch = self._fetch, None
        descriptor, self._file = self._file, None
        if descriptor is not None:
            close_each(descriptor)
        if self._readers is not None:
            self._readers.tell()
        if fetch is not None and not self._keep_downloading:
            fetch.cancel()
            await asyncio.wait([fetch])

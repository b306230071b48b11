"""One stage: the part file and the journal of an asset under way, until they become the file in its place.

Rules: a stage belongs to one process, and one thread writes to it. While data arrives, it is flushed only in the
background; publishing flushes the part, renames it, and flushes the folder, in this order. Data that a failed flush may
have lost is never counted as written again.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import logging
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from grym_fetch.core.errors import StorageError, UnsafePath
from grym_fetch.core.events import LinkMode
from grym_fetch.core.http import Validator
from grym_fetch.core.journal import JournalEncoder, JournalState, Piece, piece_digest, read_journal
from grym_fetch.core.ranges import ByteRange, IntervalSet
from grym_fetch.core.text import safe_text
from grym_fetch.core.world import ThreadPool, Use
from grym_fetch.disk.atomic import NewFile
from grym_fetch.disk.claims import open_ours
from grym_fetch.disk.copying import batches, copy_range, runs
from grym_fetch.disk.folders import (
    close_each,
    is_at,
    open_child,
    open_folder,
    open_regular,
    read_into,
    remove_tree,
    require_space,
    storage_error,
    storage_errors,
    sync,
    write_at,
)
from grym_fetch.disk.sharing import OpenFile, share
from grym_fetch.disk.verified import FileSignature, mark_time, signature_in_place
from grym_fetch.runtime import system
from grym_fetch.runtime.forks import close_copy, forget_in_child
from grym_fetch.runtime.waiting import wait_uncancelled

log = logging.getLogger(__name__)

FLUSH_EVERY_BYTES = 128 * 1024 * 1024
"""Bytes between two flushes in the background, so that the last flush is short."""
READ_BLOCK_BYTES = 1024 * 1024
"""Bytes read back at a time: few enough to be in the processor's cache when they are hashed."""
TAKEN = "taken"
"""The name, in a stage, of a file taken from elsewhere."""
COPY_BLOCK_BYTES = 4 * 1024 * 1024
"""Bytes copied at a time to a folder that is a separate mount."""


@dataclass(frozen=True, slots=True)
class StageKey:
    """Identifies a stage: a path in the assets folder, and a content."""

    local_path: str
    content: str

    @property
    def path_key(self) -> str:
        """Stands for the path in file names, whatever characters it has."""
        return hashlib.sha256(self.local_path.encode()).hexdigest()[:24]

    @property
    def content_key(self) -> str:
        """Stands for the content in file names."""
        return hashlib.sha256(self.content.encode()).hexdigest()[:16]

    @property
    def in_names(self) -> tuple[str, str]:
        """Both, which begin the name of each stage."""
        return self.path_key, self.content_key


@dataclass(frozen=True, slots=True)
class StageThreads:
    """The threads of a stage: one that writes, and others that read back and flush."""

    write: ThreadPool
    read: ThreadPool
    flush: ThreadPool

    def close(self) -> None:
        """End them."""
        self.write.close()
        self.read.close()
        self.flush.close()


class DiskStage:
    """Implements `grym_fetch.core.world.Stage`.

    The stage is the folder ``name`` in ``root``, a descriptor of this user's folder of stages. ``journal`` is the open
    and locked journal (see claims.py). The stage closes both in the end. ``shown`` is its path, for messages.
    """

    def __init__(
        self,
        assets_dir: Path,
        key: StageKey,
        root: int,
        name: str,
        journal: int,
        threads: StageThreads,
        flushed_folders: set[tuple[str, ...]],
        *,
        shown: Path,
    ) -> None:
        self._assets_dir = assets_dir
        self._final = assets_dir / key.local_path
        self._flushed_folders = flushed_folders
        self._key = key
        self._root = root
        self._name = name
        self._folder = shown
        self._threads = threads
        self._lock = threading.Lock()
        self._part, self._journal = -1, journal
        self._part_name = "part"
        self._link: LinkMode | None = None
        """How the part was taken from another file, if it was."""
        self.published: FileSignature | None = None
        """The signature of the published file, taken from the descriptor whose bytes were hashed."""
        self._unflushed = 0
        self._flushing: asyncio.Task[None] | None = None
        self._lost: OSError | None = None
        """Why a flush of the part failed, if one did: some of its bytes may then not be on the disk."""
        forget_in_child(self)
        try:
            folder = open_child(root, name)
            try:
                self._part = open_ours(folder, "part", 0, 0o666)
            finally:
                os.close(folder)
            self.recovered = self._recover()
            self._encoder = JournalEncoder(self.recovered.chain)
            if self.recovered.asset is None:
                self._append(self._encoder.header(key.content))
        except BaseException:
            self._close()
            raise

    def _recover(self) -> JournalState:
        length = os.fstat(self._journal).st_size
        data = bytearray()
        while len(data) < length and (block := system.pread(self._journal, 1 << 20, len(data))):
            data += block
        state = read_journal(bytes(data))
        if state.asset != self._key.content:
            state = JournalState()
        # Cut off a damaged end before anything is appended: the reader stops at the first bad byte.
        os.ftruncate(self._journal, state.valid_bytes)
        if state.asset is None:
            os.ftruncate(self._part, 0)
        else:
            state.pieces.drop(os.fstat(self._part).st_size, 1 << 62)
        return state

    def _append(self, record: bytes) -> None:
        written = os.write(self._journal, record)
        if written != len(record):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async def write(self, start: int, data: bytes | memoryview, origin: int) -> Piece:
        """Write a piece and record it."""
        piece = await self._threads.write.compute(self._write, start, data, origin)
        self._count_unflushed(len(data))
        return piece

    def _count_unflushed(self, count: int) -> None:
        self._unflushed += count
        if self._unflushed >= FLUSH_EVERY_BYTES and (self._flushing is None or self._flushing.done()):
            self._unflushed = 0
            self._flushing = asyncio.get_running_loop().create_task(self._flush(), name="background flush")

    def _write(self, start: int, data: bytes | memoryview, origin: int) -> Piece:
        with storage_errors(self._final):
            self._check_is_ours()
            write_at(self._part, data, start)
            if self._lost is not None:
                raise self._lost
            piece = Piece(start, start + len(data), piece_digest(data), origin)
            with self._lock:
                self._append(self._encoder.piece(piece))
            return piece

    async def seed(self, source: Path, pieces: Iterable[Piece]) -> None:
        """Copy these pieces from a file and claim them, as if an earlier run had left them; what is there stays.

        They are proved like other claims. What cannot be copied is not claimed. Only before the first `write`.
        """
        claimed = IntervalSet(piece.range for piece in self.recovered.pieces)
        missing = [piece for piece in pieces if claimed.next_gap(piece.start, piece.stop) == piece.range]
        with storage_errors(source):
            descriptor = open_regular(str(source), follow=True)
        try:
            for some in batches(missing):
                await self._threads.write.compute(self._seed, descriptor, some)
                self._count_unflushed(sum(piece.stop - piece.start for piece in some))
        finally:
            close_each(descriptor)

    def _seed(self, source: int, pieces: Sequence[Piece]) -> None:
        with storage_errors(self._final):
            for run in runs(pieces):
                self._check_is_ours()
                if not copy_range(source, self._part, ByteRange(run[0].start, run[-1].stop)):
                    continue
                if self._lost is not None:
                    raise self._lost
                with self._lock:
                    for piece in run:
                        self._append(self._encoder.piece(piece))
                        self.recovered.pieces.add(piece)

    async def take(
        self, source: OpenFile, expected: FileSignature, modes: Sequence[LinkMode], *, mode: int | None = None
    ) -> LinkMode:
        """Use a whole file, which had the ``expected`` signature when it was verified, instead of the part.

        Nothing more can be written then: only `publish`, `discard` or `close`. ``mode``: the new file's, unless it is a
        hard link. Raises like `share`.
        """
        return await self._threads.read.compute(self._take, source, expected, modes, mode)

    def _take(self, source: OpenFile, expected: FileSignature, modes: Sequence[LinkMode], mode: int | None) -> LinkMode:
        with storage_errors(self._final):
            self._check_is_ours()
            folder = open_child(self._root, self._name)
            try:
                # Never under the name of a part, which the next process would write to.
                was_right = source.signature == expected
                with suppress(FileNotFoundError):
                    system.unlink(TAKEN, dir_fd=folder)
                if was_right:
                    # What a dead process left may be a hard link to the source, whose change of state this was.
                    expected = expected._replace(ctime_ns=source.signature.ctime_ns)
                shared = share(source, expected, folder, TAKEN, modes, room=self._assets_dir)
            finally:
                close_each(folder)
            part, self._part, self._part_name, self._link = self._part, shared.descriptor, TAKEN, shared.link
            close_each(part)
            if mode is not None and shared.link is not LinkMode.HARDLINK:
                system.fchmod(self._part, mode)
            return shared.link

    def _check_is_ours(self) -> None:
        """Check that name and descriptor are the same file: a stage is renamed by one and written through the other."""
        if not is_at(self._part, self._root, f"{self._name}/{self._part_name}"):
            reason = "the download under way was removed or taken over by somebody else; run it again"
            raise StorageError(safe_text(str(self._folder)), reason)

    async def _flush(self) -> None:
        try:
            await self._threads.flush.compute(self._flush_part, True)
        except OSError as error:
            log.warning("flushing in the background failed: %s", os.strerror(error.errno or 0))

    def _flush_part(self, data_only: bool) -> None:
        """Flush the part; remember if that ever failed. Raises `OSError`.

        The kernel reports a failed flush once, marks the lost pages clean, and goes on showing them to readers: the
        next flush would succeed, and the next process could prove pieces that are not on the disk. So nothing of this
        part is used again: a journal without its beginning claims nothing.
        """
        if self._lost is not None:
            raise self._lost
        try:
            sync(self._part, data_only=data_only)
        except OSError as error:
            self._lost = error
            os.ftruncate(self._journal, 0)
            raise

    async def read(self, start: int, stop: int) -> bytes:
        """Read bytes back."""
        return await self._threads.read.compute(self._read, start, stop)

    def _read(self, start: int, stop: int) -> bytes:
        with storage_errors(self._folder / "part"):
            return system.pread(self._part, stop - start, start)

    async def feed(self, start: int, stop: int, use: Use) -> int:
        """Read bytes back and use each block at once: hashing then takes one thread call, not two."""
        return await self._threads.read.compute(self._feed, start, stop, use)

    def _feed(self, start: int, stop: int, use: Use) -> int:
        block = memoryview(bytearray(min(READ_BLOCK_BYTES, stop - start)))
        at = start
        with storage_errors(self._folder / "part"):
            while at < stop and (count := read_into(self._part, block[: stop - at], at)):
                use(block[:count])
                at += count
        return at - start

    async def prove(self, pieces: Sequence[Piece], use: Use) -> int:
        """Read pieces back, compare their digests, and use each that is right; stop at the first that is not."""
        return await self._threads.read.compute(self._prove, pieces, use)

    def _prove(self, pieces: Sequence[Piece], use: Use) -> int:
        memory = memoryview(bytearray(max(piece.stop - piece.start for piece in pieces)))
        with storage_errors(self._folder / "part"):
            for number, piece in enumerate(pieces):
                data = memory[: piece.stop - piece.start]
                if read_into(self._part, data, piece.start) < len(data) or piece_digest(data) != piece.digest:
                    return number
                use(data)
        return len(pieces)

    async def note_size(self, size: int) -> None:
        """Record the content's length. Raises `DiskFull` if the rest does not fit; then it is not recorded."""

        def note() -> None:
            with storage_errors(self._final):
                require_space(self._assets_dir, size - system.allocated_bytes(os.fstat(self._part)))
                with self._lock:
                    self._append(self._encoder.size(size))

        await self._threads.write.compute(note)

    async def note_origin(self, number: int, url: str, validator: Validator) -> None:
        """Record an origin's validator."""
        await self._note(lambda: self._encoder.origin(number, url, validator))

    async def note_void(self, start: int, stop: int) -> None:
        """Record that claims which touch this range no longer hold."""
        await self._note(lambda: self._encoder.void(start, stop))

    async def _note(self, record: Callable[[], bytes]) -> None:
        def note() -> None:
            with storage_errors(self._folder / "journal"), self._lock:
                self._append(record())

        await self._threads.write.compute(note)

    async def publish(self, size: int) -> Path:
        """Make the part durable and rename it into place."""
        await self._end_flushing()
        path = await self._threads.flush.compute(self._publish, size)
        self._close()
        return path

    def _publish(self, size: int) -> Path:
        final = self._final
        *parents, name = self._key.local_path.split("/")
        with storage_errors(final):
            if self._link is not LinkMode.HARDLINK:
                if os.fstat(self._part).st_size != size:
                    os.ftruncate(self._part, size)
                mark_time(self._part)
            self._flush_part(False)
            folder = open_folder(self._assets_dir, tuple(parents), create=True, flushed=self._flushed_folders)
            try:
                self._rename(folder, name, final)
                sync(folder)
            finally:
                os.close(folder)
        self._close_files()  # not every system lets go of a name that is open
        self._remove_folder()
        return final

    def _rename(self, folder: int, name: str, final: Path) -> None:
        self._check_is_ours()
        before = os.fstat(self._part)
        try:
            system.rename(f"{self._name}/{self._part_name}", name, folder=self._root, into=folder)
            if self._link is LinkMode.HARDLINK:
                # rename(2) does nothing between two names of one file. Removing one later would change the signature.
                with suppress(FileNotFoundError):
                    system.unlink(f"{self._name}/{self._part_name}", dir_fd=self._root)
        except OSError as error:
            if error.errno == errno.EXDEV:
                self.published = self._copy_across(folder, name)
                return
            if error.errno in (errno.EISDIR, errno.ENOTEMPTY, errno.EEXIST):
                raise UnsafePath(safe_text(str(final)), "a folder is in the way") from error
            raise storage_error(error, final) from error
        self.published = signature_in_place(self._part, before, folder, name, final)

    def _copy_across(self, folder: int, name: str) -> FileSignature:
        """For a folder that is a separate mount: make a complete, flushed copy there, and give it the name."""
        with NewFile(folder, name) as copy:
            at = 0
            while block := system.pread(self._part, COPY_BLOCK_BYTES, at):
                copy.write(block)
                at += len(block)
            mark_time(copy.descriptor)
            kept = os.dup(copy.descriptor)
            try:
                before = os.fstat(kept)
                copy.replace()
                return signature_in_place(kept, before, folder, name, self._final)
            finally:
                os.close(kept)

    async def discard(self) -> None:
        """Delete the part and the journal."""
        await self._end_flushing()
        self._close_files()
        try:
            if self._root >= 0:
                await self._threads.write.compute(self._remove_folder)
        finally:
            self._close()

    def _remove_folder(self) -> None:
        remove_tree(self._root, self._name)

    async def close(self) -> None:
        """Close the files, which stay for the next process."""
        try:
            await self._end_flushing()
        finally:
            self._close()

    async def _end_flushing(self) -> None:
        if self._flushing is not None:
            await wait_uncancelled([self._flushing])

    def _close(self) -> None:
        self._close_files()
        root, self._root = self._root, -1
        if root >= 0:
            close_each(root)

    def forget(self) -> None:
        """In a forked child: close the copies of the parent's descriptors."""
        for descriptor in (self._part, self._journal, self._root):
            close_copy(descriptor)
        self._part = self._journal = self._root = -1

    def _close_files(self) -> None:
        descriptors = (self._part, self._journal)
        self._part = self._journal = -1
        # Published data was flushed; kept data is proved when it is read back.
        close_each(*(descriptor for descriptor in descriptors if descriptor >= 0))

"""The store of a machine: each content once, for all projects, under the name of its digest.

::

    <store>/objects/<algorithm>/<two digits>/<digest>    read-only files
    <store>/.grym-fetch/                                 as in an assets folder (state.py): locks, stages, stamps, and
        users/<user>.<project key>                       which files of which project came from here (users.py)

Rules: an object is put in place as an asset is, so it is verified bytes or is not there. It is handed out only if its
signature is that of the moment when this user verified it; otherwise it is read again, and removed if it is wrong. A
project that has its own copy of a file needs the store no longer: whatever happens to the store costs a download, never
a file. What fails here is logged and never fails an asset.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import GrymFetchError, StorageError
from grym_fetch.core.events import LinkMode
from grym_fetch.core.text import safe_text
from grym_fetch.core.world import ThreadPools
from grym_fetch.disk.assets_folder import AssetsFolder
from grym_fetch.disk.folders import close_each, is_at, make_root, open_folder
from grym_fetch.disk.locks import FileLock
from grym_fetch.disk.sharing import READ_BITS, OpenFile, modes_from
from grym_fetch.disk.stage import StageKey
from grym_fetch.disk.verified import FileSignature, wait_for_tick
from grym_fetch.runtime import system
from grym_fetch.runtime.threads import WorkerThreads
from grym_fetch.store.stamps import StoreStamps, object_path
from grym_fetch.store.users import Use, UseLog

log = logging.getLogger(__name__)

Digest = Callable[[int, Path, Checksum, Callable[[int], None]], Awaitable[tuple[str, FileSignature]]]
"""Hashes an open file; returns its hex digest and its signature. See `LocalFiles.digest_open`."""


@dataclass(frozen=True, slots=True)
class InStore:
    """A file that the store took: how, and the file's signature since."""

    link: LinkMode
    signature: FileSignature


class MachineStore:
    """The store at ``place``, for the project whose files are in ``assets_dir``. Nothing is made before it is needed.

    ``link_mode``: how files come out of it and get into it, see `modes_from`.
    """

    def __init__(
        self,
        place: Path,
        assets_dir: Path,
        *,
        link_mode: str,
        digest: Digest,
        stamps: StoreStamps | None = None,
        make_threads: ThreadPools = WorkerThreads,
    ) -> None:
        self.place = place
        self.modes = modes_from(link_mode)
        self._assets_dir = assets_dir
        self._digest = digest
        self._disk = AssetsFolder(place, threads=1, make_threads=make_threads)
        self._threads = make_threads("store", 1)
        self._stamps = stamps or StoreStamps(place)
        self._uses = UseLog(self._disk.state, assets_dir)
        self._is_told = False

    def has(self, checksum: Checksum | None, size: int | None) -> bool:
        """Whether something of this checksum and size is there. Reads no byte of it."""
        if checksum is None:
            return False
        with suppress(OSError):
            figures = os.stat(self.place / object_path(checksum), follow_symlinks=False)
            return stat.S_ISREG(figures.st_mode) and size in (None, figures.st_size)
        return False

    async def lock(self, checksum: Checksum) -> FileLock | None:
        """The lock of a content, not acquired yet; None if the store cannot be written to."""
        try:
            await self._threads.compute(self._prepare)
            return self._disk.lock(StageKey(object_path(checksum), str(checksum)))
        except (OSError, StorageError) as error:
            self._tell(error)
            return None

    async def try_lock(self, lock: FileLock) -> bool:
        """Take a lock if it is free. True as well if that fails: only bandwidth depends on it."""
        try:
            return await self._disk.try_lock(lock)
        except StorageError as error:
            self._tell(error)
            return True

    def _prepare(self) -> None:
        make_root(self.place)
        close_each(self._disk.state.open("stage", create=True))
        for name in ("locks", "users"):
            close_each(self._disk.state.open_shared(name, create=True))

    async def find(
        self, checksum: Checksum, size: int | None, on_read: Callable[[int, int], None]
    ) -> tuple[OpenFile, FileSignature] | None:
        """Open what the store has of this checksum, and return it with its signature if it is right.

        ``on_read`` is told how many bytes of how many were read, if they have to be. Raises nothing of the store's.
        """
        try:
            source = await self._threads.compute(self._open, checksum)
        except (OSError, StorageError) as error:
            if not isinstance(error, FileNotFoundError):
                self._tell(error)
            return None
        signature = None
        try:
            signature = await self._verify(source, checksum, size, on_read)
        except GrymFetchError as error:
            self._tell(error)
        finally:
            if signature is None:
                source.close()
        return None if signature is None else (source, signature)

    def _open(self, checksum: Checksum) -> OpenFile:
        path = object_path(checksum)
        *parents, name = path.split("/")
        return OpenFile.at(open_folder(self.place, tuple(parents), create=False), name, self.place / path)

    async def _verify(
        self, source: OpenFile, checksum: Checksum, size: int | None, on_read: Callable[[int, int], None]
    ) -> FileSignature | None:
        figures = os.fstat(source.descriptor)
        known: bool | None = False
        if size in (None, figures.st_size):
            known = await self._threads.compute(self._stamps.judge_again, checksum, figures)
        if known is None:
            await self._threads.compute(wait_for_tick, figures)
            began_ns, total = time.time_ns(), figures.st_size
            on_read(0, total)
            digest, signature = await self._digest(
                source.descriptor, source.path, checksum, lambda count: on_read(count, total)
            )
            if digest == checksum.hexdigest and signature == source.signature:
                if signature.was_settled(began_ns):
                    self._stamps.record(checksum, signature)
                return signature
        elif known:
            return FileSignature.of(figures)
        log.warning("the store's %s is damaged, and is not used: it was changed since", safe_text(str(source.path)))
        with suppress(OSError):  # another user's, in a shared store
            if is_at(source.descriptor, source.folder, source.name):
                system.unlink(source.name, dir_fd=source.folder)
        return None

    def note_taken(self, checksum: Checksum, link: LinkMode, signature: FileSignature) -> None:
        """An object was put into the project by ``link``; the project's file has this signature."""
        if link is LinkMode.HARDLINK:
            self._stamps.record(checksum, signature)

    async def note_use(self, local_path: str, checksum: Checksum) -> None:
        """Remember that this file of the project came from the store, or is in it, so that it is not removed."""
        await self.note_uses([(local_path, checksum)])

    async def note_uses(self, files: Iterable[tuple[str, Checksum]]) -> None:
        """`note_use` for several files."""
        now = int(time.time())
        uses = [Use(local_path, object_path(checksum), now) for local_path, checksum in files]
        try:
            await self._threads.compute(self._uses.note, uses)
        except (OSError, StorageError) as error:
            self._tell(error)

    async def keep(
        self, local_path: str, checksum: Checksum, signature: FileSignature, *, exclusive: bool = False
    ) -> InStore | None:
        """Put a file of the project, verified when it had this signature, into the store. None if that is impossible.

        Also None if the store has it already. ``exclusive``: this process holds a trustworthy lock on the content.
        """
        try:
            await self._threads.compute(self._prepare)
            if await self._threads.compute(self._has_right, checksum):
                await self.note_use(local_path, checksum)
                return None
            source = await self._threads.compute(self._open_own, local_path)
            try:
                kept = await self._put(source, checksum, signature, exclusive=exclusive)
            finally:
                source.close()
        except (OSError, StorageError) as error:
            self._tell(error)
            return None
        self._stamps.record(checksum, kept.signature)
        await self.note_use(local_path, checksum)
        return kept

    def _has_right(self, checksum: Checksum) -> bool:
        try:
            figures = os.stat(self.place / object_path(checksum), follow_symlinks=False)
        except FileNotFoundError:
            return False
        return bool(self._stamps.judge_again(checksum, figures))

    def _open_own(self, local_path: str) -> OpenFile:
        *parents, name = local_path.split("/")
        folder = open_folder(self._assets_dir, tuple(parents), create=False)
        return OpenFile.at(folder, name, self._assets_dir / local_path)

    async def _put(self, source: OpenFile, checksum: Checksum, signature: FileSignature, *, exclusive: bool) -> InStore:
        path = object_path(checksum)
        await self._threads.compute(self._make_folders, path)
        stage = await self._disk.open_stage(StageKey(path, str(checksum)), exclusive=exclusive)
        try:
            modes = await self._threads.compute(self._modes_into, source)
            link = await stage.take(source, signature, modes, mode=READ_BITS)
            await stage.publish(signature.size)
            assert stage.published is not None
            return InStore(link, stage.published)
        finally:
            await stage.discard()

    def _modes_into(self, source: OpenFile) -> tuple[LinkMode, ...]:
        """How a file may get into the store: no hard link to one that others who use the store could not read."""
        figures, above = os.fstat(source.descriptor), os.stat(self.place)
        is_shared = above.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        is_of_team = figures.st_mode & stat.S_IRGRP and figures.st_gid == above.st_gid
        if is_shared and not (figures.st_mode & stat.S_IROTH or is_of_team):
            return tuple(mode for mode in self.modes if mode is not LinkMode.HARDLINK)
        return self.modes

    def _make_folders(self, path: str) -> None:
        """Make the folders of an object; whoever may write to the store may write to them."""
        *parents, _ = path.split("/")
        for depth in range(1, len(parents) + 1):
            folder = open_folder(self.place, tuple(parents[:depth]), create=True)
            try:
                self._disk.state.share(folder)
            finally:
                close_each(folder)

    def _tell(self, error: Exception) -> None:
        """Say once why the store cannot be used as it should be: the assets are fetched all the same."""
        reason = error if isinstance(error, GrymFetchError) else os.strerror(getattr(error, "errno", 0) or 0)
        (log.debug if self._is_told else log.warning)(
            "the store %s cannot be used, and assets are fetched without it: %s", safe_text(str(self.place)), reason
        )
        self._is_told = True

    def close(self) -> None:
        """End the threads."""
        self._disk.close()
        self._threads.close()

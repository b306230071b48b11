"""Many small files put in place together: written, flushed, renamed and remembered in one go.

Rules: each of them is treated like a large file: its digest is right, its bytes are on the disk before it gets its
final name, no symlink is followed, and only files are replaced. They share one run of the thread, one flush of each
folder and one write to the verified cache; if all are written before the first is flushed, the file system's journal
commits only once. A file for which anything goes wrong is left out, and nothing of it stays.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import GrymFetchError, StorageError
from grym_fetch.core.world import Threads
from grym_fetch.disk.claims import new_name
from grym_fetch.disk.folders import (
    NEW_FILE,
    close_each,
    file_path,
    open_child,
    open_folder,
    remove_tree,
    storage_errors,
    sync,
    write_all,
)
from grym_fetch.disk.owner import Owner, is_left_behind
from grym_fetch.disk.state import StateFolder
from grym_fetch.disk.verified import VerifiedFile, mark_time, signature_in_place
from grym_fetch.runtime import system
from grym_fetch.runtime.descriptors import spare_descriptors

PATH_KEY, CONTENT_KEY = "0" * 24, "0" * 16
"""Used in the names of the folder and the lock, which for a single asset have the hashes of its path and content."""
QUICK_S = 0.02
"""Wait for a disk that puts files in place within this time; see `SmallFileWriter.calm`."""
MAX_OPEN_FILES = 64
"""The most files open at a time, if the process may open that many. Each is flushed through the descriptor that wrote
it, since a write error need not be reported to another one."""


@dataclass(frozen=True, slots=True, eq=False)
class SmallFile:
    """The bytes that belong at ``local_path``, if their checksum is right."""

    local_path: str
    data: bytes | bytearray
    checksum: Checksum


class SmallFileWriter:
    """Puts small files in place in one assets folder. The folder for unfinished ones is made on first use.

    ``flushed_folders``: see `open_folder`.
    """

    def __init__(self, state: StateFolder, threads: Threads, flushed_folders: set[tuple[str, ...]]) -> None:
        self._assets_dir = state.assets_dir
        self._state = state
        self._threads = threads
        self._flushed_folders = flushed_folders
        self._folder: str | None = None
        self._numbers = itertools.count()
        self._open_at_once = 1
        self._opening = threading.Lock()
        self._under_way = 0
        self._is_quick = False
        self._is_calm = asyncio.Event()
        self._is_calm.set()

    async def put(self, files: Sequence[SmallFile]) -> list[VerifiedFile | None]:
        """Put these in place; durable on return. Returns each file as it is now there; None for one that failed.

        Raises `StorageError` if not even a start could be made.
        """
        self._under_way += 1
        if self._is_quick:
            self._is_calm.clear()
        try:
            return await self._threads.compute(self._put_timed, files)
        finally:
            self._under_way -= 1
            if not self._under_way or not self._is_quick:
                self._is_calm.set()

    async def calm(self) -> None:
        """Wait until the files under way are in place, if the disk is fast.

        They take hundreds of short system calls. The interpreter runs one thread at a time, and switches threads at
        each of these calls: beside a busy event loop they take five times as long as beside an idle one, and they slow
        the loop down. A slow disk does not need the interpreter while it works; then there is no wait.
        """
        await self._is_calm.wait()

    async def close(self) -> None:
        """Remove the folder for unfinished files; the next run removes anything left behind."""
        folder, self._folder = self._folder, None
        if folder is not None:
            with suppress(OSError, StorageError):
                await self._threads.compute(self._remove, folder)

    def _remove(self, folder: str) -> None:
        with self._state.opened("stage") as root:
            remove_tree(root, folder)

    def _put_timed(self, files: Sequence[SmallFile]) -> list[VerifiedFile | None]:
        began = time.monotonic()
        try:
            return self._put(files)
        finally:
            self._is_quick = time.monotonic() - began < QUICK_S

    def _put(self, files: Sequence[SmallFile]) -> list[VerifiedFile | None]:
        with storage_errors(self._state.own / "stage"):
            folder = self._open()
        try:
            with self._parents(files) as parents:
                usable = [file for file in files if _parent(file) in parents and file.checksum.is_of(file.data)]
                placed: dict[SmallFile, VerifiedFile] = {}
                for start in range(0, len(usable), self._open_at_once):
                    placed |= self._place(folder, usable[start : start + self._open_at_once], parents)
                durable = _flushed({_parent(file): parents[_parent(file)] for file in placed})
                return [placed.get(file) if _parent(file) in durable else None for file in files]
        finally:
            close_each(folder)

    def _open(self) -> int:
        with self._opening, self._state.opened("stage") as root:
            if self._folder is None:
                _clear_away(root)
                name = new_name(PATH_KEY, CONTENT_KEY, Owner.this())
                system.mkdir(name, 0o700, dir_fd=root)
                self._folder = name
                self._open_at_once = spare_descriptors(MAX_OPEN_FILES)
            return open_child(root, self._folder)

    @contextmanager
    def _parents(self, files: Sequence[SmallFile]) -> Iterator[dict[str, int]]:
        """Open the folders that the files belong in, made if need be; those that cannot be used are left out."""
        opened: dict[str, int] = {}
        try:
            for parent in dict.fromkeys(map(_parent, files)):
                parts = tuple(parent.split("/")) if parent else ()
                with suppress(OSError, GrymFetchError):
                    opened[parent] = open_folder(self._assets_dir, parts, create=True, flushed=self._flushed_folders)
            yield opened
        finally:
            close_each(*opened.values())

    def _place(self, folder: int, files: Sequence[SmallFile], parents: dict[str, int]) -> dict[SmallFile, VerifiedFile]:
        """Write, flush and rename; return those that are in place. Each stays open until it has been checked."""
        written: list[tuple[SmallFile, str, int]] = []
        whole: set[str] = set()
        placed: dict[SmallFile, VerifiedFile] = {}
        try:
            for file in files:
                name = str(next(self._numbers))
                with suppress(OSError):
                    written.append((file, name, system.open_descriptor(name, NEW_FILE, 0o666, dir_fd=folder)))
                    write_all(written[-1][2], file.data)
                    mark_time(written[-1][2])
                    whole.add(name)
            # All are written before the first is flushed: then one flush covers the others too.
            for _, name, descriptor in written:
                try:
                    sync(descriptor)
                except OSError:
                    whole.discard(name)
            for file, name, descriptor in written:
                if name in whole:
                    with suppress(OSError, StorageError):
                        placed[file] = self._rename(folder, name, descriptor, file, parents[_parent(file)])
        finally:
            close_each(*(descriptor for _, _, descriptor in written))
            for file, name, _ in written:
                if file not in placed:
                    _remove(folder, name)
        return placed

    def _rename(self, folder: int, staged: str, descriptor: int, file: SmallFile, parent: int) -> VerifiedFile:
        """Give a file its name, and return it as it is now there. Raises ``OSError`` or `StorageError`."""
        name = file.local_path.rpartition("/")[2]
        with suppress(FileNotFoundError):
            mode = system.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
                raise OSError
        before = os.fstat(descriptor)
        system.rename(staged, name, folder=folder, into=parent)
        path = file_path(str(self._assets_dir), file.local_path)
        return VerifiedFile(path, str(file.checksum), signature_in_place(descriptor, before, parent, name, path))


def _clear_away(root: int) -> None:
    """Remove what killed processes left behind: a few small files, not worth resuming."""
    for name in system.listdir(root):
        fields = name.split(".")
        is_ours = fields[0] == PATH_KEY and len(fields) == 4
        if is_ours and is_left_behind(Owner.parse(fields[2]), Path(name), above=root):
            remove_tree(root, name)


def _remove(folder: int, name: str) -> None:
    """Remove an unfinished file if possible; otherwise it goes with the folder, or in the next run."""
    with suppress(OSError):
        system.unlink(name, dir_fd=folder)


def _parent(file: SmallFile) -> str:
    return file.local_path.rpartition("/")[0]


def _flushed(folders: dict[str, int]) -> set[str]:
    """Flush these folders; return the names of those for which that worked."""
    done = set()
    for parent, descriptor in folders.items():
        with suppress(OSError):
            sync(descriptor)
            done.add(parent)
    return done

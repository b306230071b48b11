"""Many small files put in place together: written, flushed, renamed and remembered in one go.

Rules: what holds for a large file holds for each of them: its digest is right, its bytes are on the disk before it gets
its final name, no symlink is followed, and nothing that is not a file is replaced. They share the turn of the thread,
the flush of each folder and the write to the verified cache; files that are all written before the first one is flushed
cost the journal of the file system a single commit. A file for which anything goes wrong is left out, and nothing of it
stays.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
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
from grym_fetch.disk.folders import (
    NEW_FILE,
    close_each,
    open_folder,
    remove_tree,
    storage_errors,
    sync,
    write_all,
)
from grym_fetch.disk.owner import Owner, is_left_behind
from grym_fetch.disk.verified import FileSignature, VerifiedFile
from grym_fetch.runtime.descriptors import spare_descriptors

PATH_KEY, CONTENT_KEY = "0" * 24, "0" * 16
"""Stand in the names of the folder and of the lock, which for one asset have the hashes of its place and content."""
QUICK_S = 0.02
"""A disk that puts files in place within this time is waited for; see `SmallFileWriter.calm`."""
MAX_OPEN_FILES = 64
"""The most files open at a time, if the process may open as many. Each is flushed through the descriptor that wrote it,
since another one need not be told of an error."""


@dataclass(frozen=True, slots=True, eq=False)
class SmallFile:
    """The bytes that belong at ``local_path``, if their checksum is right."""

    local_path: str
    data: bytes | bytearray
    checksum: Checksum


class SmallFileWriter:
    """Puts small files of one assets folder in place. The folder for unfinished ones is made on first use.

    ``flushed_folders``: see `open_folder`.
    """

    def __init__(
        self, assets_dir: Path, state_dir: Path, threads: Threads, flushed_folders: set[tuple[str, ...]]
    ) -> None:
        self._assets_dir = assets_dir
        self._stage_dir = state_dir / "stage"
        self._threads = threads
        self._flushed_folders = flushed_folders
        self._folder: Path | None = None
        self._numbers = itertools.count()
        self._open_at_once = 1
        self._opening = threading.Lock()
        self._under_way = 0
        self._is_quick = False
        self._is_calm = asyncio.Event()
        self._is_calm.set()

    async def put(self, files: Sequence[SmallFile]) -> list[VerifiedFile | None]:
        """Put these in place; durable on return. Returns each one as it is there, None for one that failed.

        Raises `StorageError` if nothing could be done at all.
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
        """Wait until the files under way are in place, if the disk is quick.

        They take hundreds of short system calls. The interpreter runs one thread at a time, and changes threads at each
        of these calls: beside a busy event loop they take five times as long as beside an idle one, and slow it down. A
        slow disk does not need the interpreter while it works; then nobody waits here.
        """
        await self._is_calm.wait()

    async def close(self) -> None:
        """Remove the folder for unfinished files; what stays is removed by the next run."""
        folder, self._folder = self._folder, None
        if folder is not None:
            with suppress(StorageError):
                await self._threads.compute(remove_tree, folder)

    def _put_timed(self, files: Sequence[SmallFile]) -> list[VerifiedFile | None]:
        began = time.monotonic()
        try:
            return self._put(files)
        finally:
            self._is_quick = time.monotonic() - began < QUICK_S

    def _put(self, files: Sequence[SmallFile]) -> list[VerifiedFile | None]:
        with storage_errors(self._stage_dir):
            folder = self._open()
        try:
            with self._parents(files) as parents:
                usable = [file for file in files if _parent(file) in parents and file.checksum.is_of(file.data)]
                staged = self._write(folder, usable)
                placed = [file for file, name in staged.items() if self._rename(folder, name, file, parents)]
                durable = _flushed({_parent(file): parents[_parent(file)] for file in placed})
                verified = {file: self._verified(file, parents) for file in placed if _parent(file) in durable}
                return [verified.get(file) for file in files]
        finally:
            close_each(folder)

    def _open(self) -> int:
        with self._opening:
            if self._folder is None:
                self._clear_away()
                name = f"{PATH_KEY}.{CONTENT_KEY}.{Owner.this().encode()}.{secrets.token_hex(4)}"
                (self._stage_dir / name).mkdir(mode=0o700)
                self._folder = self._stage_dir / name
                self._open_at_once = spare_descriptors(MAX_OPEN_FILES)
            return os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)

    def _clear_away(self) -> None:
        """Remove what killed processes have left: a few small files, not worth resuming."""
        for entry in os.scandir(self._stage_dir):
            fields = entry.name.split(".")
            is_ours = fields[0] == PATH_KEY and len(fields) == 4
            if is_ours and is_left_behind(Owner.parse(fields[2]), Path(entry.path)):
                remove_tree(entry.path)

    @contextmanager
    def _parents(self, files: Sequence[SmallFile]) -> Iterator[dict[str, int]]:
        """The folders that the files belong in, made if need be and open; without those that cannot be used."""
        opened: dict[str, int] = {}
        try:
            for parent in dict.fromkeys(map(_parent, files)):
                parts = tuple(parent.split("/")) if parent else ()
                with suppress(OSError, GrymFetchError):
                    opened[parent] = open_folder(self._assets_dir, parts, create=True, flushed=self._flushed_folders)
            yield opened
        finally:
            close_each(*opened.values())

    def _write(self, folder: int, files: Sequence[SmallFile]) -> dict[SmallFile, str]:
        """Write and flush; return the temporary names of those that are on the disk."""
        staged: dict[SmallFile, str] = {}
        for start in range(0, len(files), self._open_at_once):
            staged |= self._write_some(folder, files[start : start + self._open_at_once])
        return staged

    def _write_some(self, folder: int, files: Sequence[SmallFile]) -> dict[SmallFile, str]:
        written: list[tuple[SmallFile, str, int]] = []
        staged: dict[SmallFile, str] = {}
        try:
            for file in files:
                name = str(next(self._numbers))
                with suppress(OSError):
                    written.append((file, name, os.open(name, NEW_FILE, 0o666, dir_fd=folder)))
                    write_all(written[-1][2], file.data)
                    staged[file] = name
            # All are written before the first is flushed: then one flush takes the others along.
            for file, _, descriptor in written:
                try:
                    sync(descriptor)
                except OSError:
                    staged.pop(file, None)
        finally:
            close_each(*(descriptor for _, _, descriptor in written))
            for file, name, _ in written:
                if file not in staged:
                    _remove(folder, name)
        return staged

    @staticmethod
    def _rename(folder: int, staged: str, file: SmallFile, parents: dict[str, int]) -> bool:
        parent, name = parents[_parent(file)], file.local_path.rpartition("/")[2]
        try:
            with suppress(FileNotFoundError):
                mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
                if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
                    raise OSError
            os.rename(staged, name, src_dir_fd=folder, dst_dir_fd=parent)
        except OSError:
            _remove(folder, staged)
            return False
        return True

    def _verified(self, file: SmallFile, parents: dict[str, int]) -> VerifiedFile | None:
        name = file.local_path.rpartition("/")[2]
        try:
            figures = os.stat(name, dir_fd=parents[_parent(file)], follow_symlinks=False)
        except OSError:
            return None
        return VerifiedFile(f"{self._assets_dir}/{file.local_path}", str(file.checksum), FileSignature.of(figures))


def _remove(folder: int, name: str) -> None:
    """Remove an unfinished file as far as possible; what stays goes with the folder, or with the next run."""
    with suppress(OSError):
        os.unlink(name, dir_fd=folder)


def _parent(file: SmallFile) -> str:
    return file.local_path.rpartition("/")[0]


def _flushed(folders: dict[str, int]) -> set[str]:
    """Flush these; return those for which that worked."""
    done = set()
    for parent, descriptor in folders.items():
        with suppress(OSError):
            sync(descriptor)
            done.add(parent)
    return done

"""The assets folder: where stages are kept, whom they belong to, and how much space there is.

All our files are in the assets folder, so that the last step is a rename within one file system::

    <assets>/.grym-fetch/                            see state.py
        locks/<path key>.lock                        see locks.py
        user-<number>/                               0700
            stage/<path key>.<content key>.<owner>.<nonce>/
                part                                 the bytes so far (stage.py)
                journal                              which of them were written (core/journal.py)
            verified.log                             see verified.py

Rules: a stage belongs to one process, which its name identifies; a dead owner's stage is claimed by renaming it, so two
writers never share a file.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from grym_fetch.core.errors import StorageError
from grym_fetch.core.git_folders import may_make_a_repository
from grym_fetch.core.world import ThreadPools
from grym_fetch.disk.claims import claim, is_abandoned, make, new_name, remove
from grym_fetch.disk.folders import (
    NEW_FILE,
    check_destination,
    close_each,
    closed_folders,
    make_root,
    remove_tree,
    require_space,
    storage_errors,
    usable_bytes,
    write_all,
)
from grym_fetch.disk.locks import FileLock
from grym_fetch.disk.owner import Owner
from grym_fetch.disk.repository import check_is_not_gits, check_makes_no_repository, git_own_folder
from grym_fetch.disk.small_files import CONTENT_KEY, PATH_KEY, SmallFileWriter
from grym_fetch.disk.stage import DiskStage, StageKey, StageThreads
from grym_fetch.disk.state import StateFolder
from grym_fetch.runtime import system
from grym_fetch.runtime.threads import WorkerThreads

PROBE_BYTES = 64 * 1024
"""A disk that cannot take this many more bytes is full."""


class AssetsFolder:
    """The assets folder, which need not exist yet: nothing is made before `prepare`.

    ``part`` names a part of the assets that only this process fetches: then no other part has to wait for it.
    """

    def __init__(
        self, assets_dir: Path, *, threads: int = 2, make_threads: ThreadPools = WorkerThreads, part: str = ""
    ) -> None:
        self.assets_dir = assets_dir
        self._part = part
        self.state = StateFolder(assets_dir)
        self._threads = make_threads("disk", threads)
        reading, flushing = make_threads("read", threads), make_threads("flush", threads)
        # One thread writes to a file: two would only wait for each other in the kernel.
        self._sets = tuple(StageThreads(make_threads("write", 1), reading, flushing) for _ in range(threads))
        self._turns = itertools.cycle(self._sets)
        self._owner = Owner.this()
        self._is_prepared = False
        self._flushed_folders: set[tuple[str, ...]] = set()
        """The folders whose parents this process has flushed since."""
        self.small_file_writer = SmallFileWriter(self.state, self._threads, self._flushed_folders)

    def path_of(self, local_path: str) -> Path:
        """Where an asset belongs."""
        return self.assets_dir / local_path

    async def prepare(self) -> None:
        """Make our own folders; once is enough. Raises `StorageError`."""
        if not self._is_prepared:
            await self._threads.compute(self._prepare)
            self._is_prepared = True

    def _prepare(self) -> None:
        with storage_errors(self.assets_dir):
            make_root(self.assets_dir)
            os.close(self.state.open("stage", create=True))
            os.close(self.state.open_locks(create=True))

    def lock(self, key: StageKey) -> FileLock:
        """The lock of an asset, not acquired yet."""
        return FileLock(self.state.open_locks, f"{key.path_key}.lock")

    @property
    def lock_of_small_files(self) -> FileLock:
        """The lock of the process that fetches small assets, many at a time."""
        key = hashlib.sha256(self._part.encode()).hexdigest()[: len(PATH_KEY)] if self._part else PATH_KEY
        return FileLock(self.state.open_locks, f"{key}.lock")

    async def try_lock(self, lock: FileLock) -> bool:
        """Take a lock if it is free."""

        def take() -> bool:
            with storage_errors(self.state.top / "locks"):
                return lock.try_acquire()

        return await self._threads.compute(take)

    async def free_bytes(self) -> int:
        """Bytes that can still be written here, less a small reserve."""
        return await self._threads.compute(usable_bytes, self.assets_dir)

    async def check_usable(self) -> None:
        """Raise `StorageError` if not even a small stage can be made: no space, no inodes, a quota, or read-only."""
        await self._threads.compute(self._check_usable)

    def _check_usable(self) -> None:
        with storage_errors(self.assets_dir), self.state.opened("stage", create=True) as root:
            name = new_name(PATH_KEY, CONTENT_KEY, self._owner)
            try:
                # Find out the reason before anything is given back.
                with storage_errors(self.assets_dir):
                    system.mkdir(name, 0o700, dir_fd=root)
                    for each, size in (("part", PROBE_BYTES), ("journal", 1)):
                        descriptor = system.open_descriptor(f"{name}/{each}", NEW_FILE, 0o600, dir_fd=root)
                        try:
                            write_all(descriptor, bytes(size))
                        finally:
                            close_each(descriptor)
            finally:
                remove_tree(root, name)

    async def check_destination(self, local_path: str) -> None:
        """Raise `UnsafePath` if a file could not be put there, or would lie in a git repository's own folder."""
        await self._threads.compute(check_destination, self.assets_dir, local_path)
        if "/" in local_path:  # the assets folder itself was looked at before
            await self._threads.compute(check_is_not_gits, self.path_of(local_path).parent)
        if may_make_a_repository(local_path):
            await self._threads.compute(check_makes_no_repository, self.assets_dir, local_path)

    async def closed_folders(self, folders: Iterable[str]) -> set[str]:
        """Return the folders in which nothing can, or may, be put."""
        return await self._threads.compute(self._closed_folders, frozenset(folders))

    def _closed_folders(self, folders: frozenset[str]) -> set[str]:
        closed = closed_folders(self.assets_dir, folders)
        return closed | {each for each in folders - closed if each and git_own_folder(self.path_of(each)) is not None}

    async def open_stage(self, key: StageKey, *, exclusive: bool, size: int | None = None) -> DiskStage:
        """Open a stage: an abandoned one if there is one, else a new one.

        ``exclusive``: this process holds a trustworthy lock on the asset, so every other stage of it is abandoned,
        except perhaps one of another machine (see `is_abandoned`).
        ``size``: the content's length, if known. Raises `DiskFull` if the rest does not fit; then nothing is made.
        """
        opened: list[DiskStage] = []
        try:
            await self._threads.compute(lambda: opened.append(self._open_stage(key, exclusive, size)))
        except asyncio.CancelledError:
            for stage in opened:
                await stage.close()
            raise
        return opened[0]

    def _open_stage(self, key: StageKey, exclusive: bool, size: int | None) -> DiskStage:
        shown = self.state.own / "stage"
        if size is not None:
            require_space(self.assets_dir, size - self.staged_bytes([key])[0])
        with storage_errors(shown):
            root = self.state.open("stage")
            try:
                journal = None
                while journal is None:
                    name = self._new_name(key)
                    journal = self._claim(root, key, name, exclusive)
                    if journal is None:
                        journal = make(root, name)
            except BaseException:
                os.close(root)
                raise
            turn = next(self._turns)
            return DiskStage(self.assets_dir, key, root, name, journal, turn, self._flushed_folders, shown=shown / name)

    def _new_name(self, key: StageKey) -> str:
        return new_name(key.path_key, key.content_key, self._owner)

    def _claim(self, root: int, key: StageKey, name: str, exclusive: bool) -> int | None:
        """Claim the fullest abandoned stage of this content and return its journal; remove the other abandoned ones."""
        abandoned = [
            each
            for each in system.listdir(root)
            if each.startswith(f"{key.path_key}.") and _is_free(root, each, exclusive=exclusive)
        ]
        # Stages of an older content of the same asset come last.
        abandoned.sort(
            key=lambda each: (each.split(".")[1] == key.content_key, _allocated(root, f"{each}/part")), reverse=True
        )
        claimed: int | None = None
        try:
            for each in abandoned:
                if claimed is None and each.split(".")[1] == key.content_key:
                    claimed = claim(root, each, name, _owner_of(each))
                else:
                    remove(root, each, self._new_name(key), _owner_of(each))
        except BaseException:
            if claimed is not None:
                close_each(claimed)
            raise
        return claimed

    def staged_bytes(self, keys: Sequence[StageKey]) -> list[int]:
        """Bytes of each content that earlier runs left on the disk: an estimate for a plan, not a promise."""
        stages: dict[tuple[str, str], list[str]] = {}
        try:
            with self.state.opened("stage") as root:
                for name in system.listdir(root):
                    match name.split("."):
                        case [path_key, content_key, *_]:
                            stages.setdefault((path_key, content_key), []).append(name)
                if not stages:
                    return [0] * len(keys)
                return [
                    max((_allocated(root, f"{name}/part") for name in stages.get(key.in_names, ())), default=0)
                    for key in keys
                ]
        except (OSError, StorageError):
            return [0] * len(keys)

    def close(self) -> None:
        """End the threads."""
        self._threads.close()
        for threads in self._sets:
            threads.close()


def _is_free(root: int, name: str, *, exclusive: bool) -> bool:
    """Whether a stage is abandoned, and ours to use: it has the same owner as the folder of stages."""
    try:
        figures = system.stat(name, dir_fd=root, follow_symlinks=False)
    except OSError:
        return False
    if not stat.S_ISDIR(figures.st_mode) or figures.st_uid != os.fstat(root).st_uid:
        return False
    return is_abandoned(root, name, _owner_of(name), exclusive=exclusive)


def _owner_of(name: str) -> Owner | None:
    fields = name.split(".")
    return Owner.parse(fields[2]) if len(fields) == 4 else None


def _allocated(root: int, path: str) -> int:
    try:
        return system.allocated_bytes(system.stat(path, dir_fd=root, follow_symlinks=False))
    except OSError:
        return 0

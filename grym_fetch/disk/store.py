"""The disk: where stages lie, who they belong to, and what space there is.

Everything of ours lies in the assets folder, so that the last step is a rename within one file system::

    <assets>/.grym-fetch/                            0700
        locks/<path key>.lock                        see locks.py
        stage/<path key>.<content key>.<owner>.<nonce>/
            part                                     the bytes so far (stage.py)
            journal                                  which of them were written (core/journal.py)
        verified.log                                 see verified.py

Rules: a stage belongs to one process, which its name says; a dead owner's stage is claimed by renaming it, so two
writers never share a file.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
from contextlib import suppress
from pathlib import Path

from grym_fetch.core.paths import STATE_FOLDER
from grym_fetch.core.world import ThreadPools
from grym_fetch.disk.folders import (
    check_destination,
    make_root,
    open_folder,
    remove_tree,
    require_space,
    storage_errors,
    usable_bytes,
)
from grym_fetch.disk.locks import FileLock
from grym_fetch.disk.owner import Owner, is_abandoned
from grym_fetch.disk.small_files import PATH_KEY, SmallFileWriter
from grym_fetch.disk.stage import DiskStage, StageKey, StageThreads
from grym_fetch.runtime.threads import WorkerThreads


class DiskStore:
    """The assets folder, which need not exist yet: nothing is made before `prepare`."""

    def __init__(self, assets_dir: Path, *, threads: int = 2, make_threads: ThreadPools = WorkerThreads) -> None:
        self.assets_dir = assets_dir
        self.state_dir = assets_dir / STATE_FOLDER
        self._threads = make_threads("disk", threads)
        reading, flushing = make_threads("read", threads), make_threads("flush", threads)
        # One thread writes to a file: two would wait for each other in the kernel, and waste time doing so.
        self._sets = tuple(StageThreads(make_threads("write", 1), reading, flushing) for _ in range(threads))
        self._turns = itertools.cycle(self._sets)
        self._owner = Owner.this()
        self._is_prepared = False
        self._flushed_folders: set[tuple[str, ...]] = set()
        """The folders that this process has flushed into their parents."""
        self.small_file_writer = SmallFileWriter(assets_dir, self.state_dir, self._threads, self._flushed_folders)

    def path_of(self, local_path: str) -> Path:
        """Where an asset belongs."""
        return self.assets_dir / local_path

    async def prepare(self) -> None:
        """Make our own folders, once. Raises `StorageError`."""
        if not self._is_prepared:
            await self._threads.compute(self._prepare)
            self._is_prepared = True

    def _prepare(self) -> None:
        with storage_errors(self.assets_dir):
            make_root(self.assets_dir)
            for name in ("locks", "stage"):
                descriptor = open_folder(self.assets_dir, (STATE_FOLDER, name), create=True)
                os.close(descriptor)
            os.chmod(self.state_dir, 0o700)
            # "x": neither a file that is there is written to, nor one that a symlink there leads to.
            with suppress(FileExistsError), open(self.state_dir / ".gitignore", "x", encoding="ascii") as marker:
                marker.write("*\n")

    def lock(self, key: StageKey) -> FileLock:
        """The lock of an asset, not held yet."""
        return FileLock(self.state_dir / "locks" / f"{key.path_key}.lock")

    @property
    def lock_of_small_files(self) -> FileLock:
        """The lock of the process that fetches small assets, many at a time."""
        return FileLock(self.state_dir / "locks" / f"{PATH_KEY}.lock")

    async def try_lock(self, lock: FileLock) -> bool:
        """Take a lock if it is free."""

        def take() -> bool:
            with storage_errors(self.state_dir):
                return lock.try_acquire()

        return await self._threads.compute(take)

    async def free_bytes(self) -> int:
        """Bytes that may still be written here, less a small reserve."""
        return await self._threads.compute(usable_bytes, self.assets_dir)

    async def check_destination(self, local_path: str) -> None:
        """Raise `UnsafePath` if a file could not be put there."""
        await self._threads.compute(check_destination, self.assets_dir, local_path)

    async def open_stage(self, key: StageKey, *, exclusive: bool, size: int | None = None) -> DiskStage:
        """Open a stage: an abandoned one if there is any, else a new one.

        ``exclusive``: this process holds a trustworthy lock on the asset, so every other stage of it is abandoned,
        except perhaps one of another machine (see `is_abandoned`).
        ``size``: the content's length if it is known. Raises `DiskFull` if the rest does not fit; then nothing is made.
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
        root = self.state_dir / "stage"
        if size is not None:
            require_space(self.assets_dir, size - self.staged_bytes(key))
        with storage_errors(root):
            name = f"{key.path_key}.{key.content_key}.{self._owner.encode()}.{secrets.token_hex(4)}"
            folder = root / name
            if not self._claim(root, key, folder, exclusive):
                folder.mkdir(mode=0o700)
            return DiskStage(self.assets_dir, key, folder, next(self._turns), self._flushed_folders)

    def _claim(self, root: Path, key: StageKey, folder: Path, exclusive: bool) -> bool:
        """Claim the fullest abandoned stage of this content by renaming it; remove the other abandoned ones."""
        abandoned = [
            entry
            for entry in os.scandir(root)
            if entry.name.startswith(f"{key.path_key}.") and _is_free(Path(entry.path), exclusive=exclusive)
        ]
        mine = [entry for entry in abandoned if entry.name.split(".")[1] == key.content_key]
        mine.sort(key=lambda entry: _allocated(Path(entry.path) / "part"), reverse=True)
        claimed = False
        for entry in mine:
            if claimed:
                remove_tree(entry.path)
                continue
            try:
                os.rename(entry.path, folder)
                claimed = True
            except FileNotFoundError:
                continue  # another process was faster
        for entry in abandoned:
            if entry not in mine:
                remove_tree(entry.path)  # an older content of the same asset
        return claimed

    def staged_bytes(self, key: StageKey) -> int:
        """Bytes of this content that earlier runs left on the disk: an estimate for a plan, not a promise."""
        try:
            entries = list(os.scandir(self.state_dir / "stage"))
        except OSError:
            return 0
        prefix = f"{key.path_key}.{key.content_key}."
        return max((_allocated(Path(e.path) / "part") for e in entries if e.name.startswith(prefix)), default=0)

    def close(self) -> None:
        """End the threads."""
        self._threads.close()
        for threads in self._sets:
            threads.close()


def _is_free(stage: Path, *, exclusive: bool) -> bool:
    fields = stage.name.split(".")
    return is_abandoned(Owner.parse(fields[2]) if len(fields) == 4 else None, stage, exclusive=exclusive)


def _allocated(path: Path) -> int:
    try:
        return os.stat(path, follow_symlinks=False).st_blocks * 512
    except OSError:
        return 0

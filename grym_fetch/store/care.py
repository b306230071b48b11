"""What the machine's store holds, who uses it, whether it is undamaged, and what of it nobody needs.

Rules: nothing is removed that a project has: a file with a second name, or one of which a project has noted that it has
a copy. A project whose disk is not there may still have it; one that was moved has noted nothing under its new path.
Everything here blocks.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import StorageError
from grym_fetch.core.paths import STATE_FOLDER
from grym_fetch.disk.folders import close_each, open_folder, open_regular, storage_errors, sync
from grym_fetch.disk.local_files import hash_open
from grym_fetch.disk.locks import FileLock
from grym_fetch.disk.prune import Pruned, PruneReport
from grym_fetch.disk.prune import prune as prune_folder
from grym_fetch.disk.stage import StageKey
from grym_fetch.disk.state import StateFolder
from grym_fetch.disk.verified import FileSignature, wait_for_tick
from grym_fetch.manifest_files.neighbours import is_used_by_manifests
from grym_fetch.runtime import system
from grym_fetch.store.stamps import OBJECTS, StoreStamps, object_path
from grym_fetch.store.users import USERS, StoreUser, forget_user, store_users

_NO_FOLDER = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_DIGEST = re.compile(r"[0-9a-f]{64}|[0-9a-f]{128}")


@dataclass(frozen=True, slots=True)
class UsedBy:
    """A file of a project that came from the store, or is in it."""

    assets_dir: Path
    local_path: str


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A content in the store. ``links``: how many other names it has; ``used_at``: when it was last linked or taken."""

    checksum: Checksum
    size: int
    links: int
    used_at: float
    used_by: tuple[UsedBy, ...]

    @property
    def is_used(self) -> bool:
        """Whether a project has it, as far as is known."""
        return bool(self.links or self.used_by)


def may_be_store(place: Path) -> bool:
    """Whether a folder is a store, or empty: other folders are named by mistake."""
    try:
        names = os.listdir(place)
        return not names or OBJECTS in names or os.path.isdir(place / STATE_FOLDER / USERS)
    except OSError:
        return os.path.isdir(place)  # what is wrong with it is said later


def survey(place: Path) -> list[StoredFile]:
    """Everything in the store at ``place``, the largest first. Raises `StorageError`."""
    uses: dict[str, list[tuple[StoreUser, str, int]]] = {}
    with storage_errors(place):
        with suppress(FileNotFoundError):
            for user in store_users(StateFolder(place)):
                for use in user.uses:
                    uses.setdefault(use.object, []).append((user, use.local_path, use.time))
        found = [
            StoredFile(
                checksum,
                figures.st_size,
                figures.st_nlink - 1,
                max([figures.st_ctime, *(when for _, _, when in uses.get(object_path(checksum), ()))]),
                tuple(
                    UsedBy(user.assets_dir, local_path)
                    for user, local_path, _ in uses.get(object_path(checksum), ())
                    if _may_have(user, local_path, figures.st_size)
                ),
            )
            for checksum, figures in _objects(place)
        ]
    return sorted(found, key=lambda each: (-each.size, each.checksum.hexdigest))


def _objects(place: Path) -> Iterator[tuple[Checksum, os.stat_result]]:
    for algorithm in _names(place, OBJECTS):
        for digits in _names(place, OBJECTS, algorithm):
            try:
                folder = open_folder(place, (OBJECTS, algorithm, digits), create=False)
            except OSError as error:
                if error.errno not in _NO_FOLDER:
                    raise
                continue
            try:
                for name in sorted(system.listdir(folder)):
                    with suppress(OSError, ValueError):
                        figures = system.stat(name, dir_fd=folder, follow_symlinks=False)
                        if _DIGEST.fullmatch(name) and stat.S_ISREG(figures.st_mode):
                            yield Checksum.parse(f"{algorithm}:{name}"), figures
            finally:
                close_each(folder)


def _names(place: Path, *parts: str) -> list[str]:
    try:
        folder = open_folder(place, parts, create=False)
    except OSError as error:
        if error.errno not in _NO_FOLDER:
            raise  # what cannot be read may hold anything
        return []
    try:
        return sorted(system.listdir(folder))
    finally:
        close_each(folder)


def _may_have(user: StoreUser, local_path: str, size: int) -> bool:
    """Whether a project still has a file, or it cannot be known."""
    if user.is_gone:
        return False
    try:
        return os.lstat(user.assets_dir / local_path).st_size == size
    except FileNotFoundError:
        return not os.path.isdir(user.assets_dir)  # its disk may be elsewhere just now
    except (OSError, ValueError):
        return True


def damaged(place: Path, on_read: Callable[[int, int], None]) -> Iterator[StoredFile]:
    """Read everything in the store, and yield what is not what its name says: it is never handed out.

    ``on_read`` is told how many bytes of how many were read. Raises `StorageError`.
    """
    stamps, stored = StoreStamps(place), survey(place)
    total, done = sum(each.size for each in stored), 0
    for each in stored:

        def tell(count: int, before: int = done) -> None:
            on_read(before + count, total)

        with storage_errors(place / object_path(each.checksum)):
            try:
                right = _is_right(place, each.checksum, stamps, tell)
            except FileNotFoundError:
                right = True  # removed in the meantime
        done += each.size
        on_read(done, total)
        if not right:
            yield each


def _is_right(place: Path, checksum: Checksum, stamps: StoreStamps, on_read: Callable[[int], None]) -> bool:
    *parents, name = object_path(checksum).split("/")
    folder = open_folder(place, tuple(parents), create=False)
    try:
        descriptor = open_regular(name, folder)
    finally:
        close_each(folder)
    try:
        wait_for_tick(os.fstat(descriptor))
        began_ns, hasher = time.time_ns(), checksum.new_hasher()

        def go_on(count: int) -> bool:
            on_read(count)
            return True

        signature = FileSignature.of(hash_open(descriptor, hasher, go_on))
    finally:
        close_each(descriptor)
    actual = Checksum(checksum.algorithm, hasher.hexdigest())
    if signature.was_settled(began_ns):
        stamps.record(checksum, signature, actual)
    return actual == checksum


def prune_store(
    place: Path, *, older_than_s: float = 0.0, max_bytes: int | None = None, dry_run: bool, now: float
) -> PruneReport:
    """Remove what no project has, and what killed processes left behind. Raises `StorageError`.

    ``older_than_s``: only what was not taken for so many seconds. ``max_bytes``: only until the store is no larger,
    what was not taken for longest first.
    """
    state = StateFolder(place)
    with storage_errors(place):
        known = _notes(state)
    stored = survey(place)
    left = sum(each.size for each in stored)
    removed: list[Pruned] = []
    in_use = 0
    for each in sorted(stored, key=lambda each: each.used_at):
        is_old = now - each.used_at >= older_than_s
        if each.is_used or not is_old or (max_bytes is not None and left <= max_bytes):
            continue
        if not dry_run and not _remove(place, each, known):
            in_use += 1
            continue
        left -= each.size
        removed.append(Pruned("object", each.checksum.hexdigest, "no project uses it", each.size))
    for user in () if dry_run else tuple(store_users(state)) if place.is_dir() else ():
        if user.is_gone:
            forget_user(state, user)
    # The partial downloads of an assets folder that is the store as well are its project's to remove.
    wanted: dict[tuple[str, str], str] | None = None if is_used_by_manifests(state) else {}
    rest = prune_folder(place, wanted, dry_run=dry_run) if place.is_dir() else PruneReport((), 0)
    return PruneReport((*removed, *rest.removed), in_use + rest.in_use)


def _notes(state: StateFolder) -> dict[str, tuple[int, int]]:
    """The size and time of each file in which a project notes what it has from the store."""
    notes: dict[str, tuple[int, int]] = {}
    with suppress(FileNotFoundError):
        folder = state.open_shared(USERS)
        try:
            for name in system.listdir(folder):
                with suppress(OSError):
                    figures = system.stat(name, dir_fd=folder, follow_symlinks=False)
                    notes[name] = figures.st_size, figures.st_mtime_ns
        finally:
            close_each(folder)
    return notes


def _is_used(state: StateFolder, path: str, size: int) -> bool:
    """Whether a project has noted that it has this object, and may have it still."""
    return any(
        use.object == path and _may_have(user, use.local_path, size) for user in store_users(state) for use in user.uses
    )


def _remove(place: Path, stored: StoredFile, known: dict[str, tuple[int, int]]) -> bool:
    """Remove an object unless somebody takes it at this moment, or has since it was seen. Returns whether it is gone.

    ``known``: the `_notes` before it was seen.
    """
    path = object_path(stored.checksum)
    *parents, name = path.split("/")
    state = StateFolder(place)
    with suppress(OSError, StorageError):
        lock = FileLock(lambda: state.open_locks(create=True), f"{StageKey(path, '').path_key}.lock")
        if not lock.try_acquire():
            return False
        try:
            if _notes(state) != known and _is_used(state, path, stored.size):
                return False
            folder = open_folder(place, tuple(parents), create=False)
            try:
                if system.stat(name, dir_fd=folder, follow_symlinks=False).st_nlink > 1:
                    return False
                system.unlink(name, dir_fd=folder)
                sync(folder)
                return True
            finally:
                close_each(folder)
        finally:
            lock.release()
    return False

"""Removes what earlier runs left in the assets folder and nobody needs: on demand, and a little at each sync.

Rules: a stage is removed only if its owner is certainly gone and nobody holds the asset's lock; a lock file only if
nobody holds the lock; an entry of the verified cache only if its file has changed or is gone. Anything doubtful stays
(another machine's stage where locks do not work, or one that was written to lately), and so does any file not ours.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from grym_fetch.core.errors import StorageError
from grym_fetch.disk.claims import is_abandoned, new_name, remove
from grym_fetch.disk.folders import FOLDER, open_child, storage_errors
from grym_fetch.disk.locks import FileLock, Flock, open_lock, try_flock
from grym_fetch.disk.owner import Owner
from grym_fetch.disk.piece_sums import FOLDER as SUMS_FOLDER
from grym_fetch.disk.small_files import PATH_KEY
from grym_fetch.disk.stage import StageKey
from grym_fetch.disk.state import StateFolder, is_of_gone_project, read_state, state_home
from grym_fetch.disk.verified import LOG, decode_entries, encode_entry, replace_log
from grym_fetch.runtime import system

_STAGE = re.compile(r"([0-9a-f]{24})\.([0-9a-f]{16})\.([^.]+)\.([0-9a-f]{8})")
_SUMS = re.compile(r"[0-9a-f]{16}")
_LOCK = re.compile(r"[0-9a-f]{24}\.lock")
_PROJECT = re.compile(r"[0-9a-f]{24}")

MAX_PRUNED_LOG_BYTES = 64 * 1024 * 1024
"""A longer log of verified files is left as it is: it is not held."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """Something that was removed, or would be in a dry run, and how many bytes that frees.

    ``kind`` is ``download``, ``lock``, ``verified`` (entries of the verified cache), ``pieces`` (the sums of a
    content's pieces), ``project`` (what the user's state folder keeps for a project that is gone), ``orphan`` (a file
    in the assets folder that no asset names) or ``object`` (a file in the machine's store).
    """

    kind: str
    name: str
    reason: str
    bytes: int
    asset: str | None = None


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What was removed, and how many stages were left because they are or may be in use.

    ``orphans`` are files in the assets folder that no asset names, if they were looked for; they are among ``removed``
    only if they were to be deleted.
    """

    removed: tuple[Pruned, ...]
    in_use: int
    orphans: tuple[Pruned, ...] = ()

    @property
    def bytes(self) -> int:
        """Bytes freed on the disk."""
        return sum(item.bytes for item in self.removed)


def prune(
    assets_dir: Path,
    wanted: Mapping[tuple[str, str], str] | None,
    *,
    dry_run: bool,
    also_listed: Callable[[], Collection[str] | None] = tuple,
) -> PruneReport:
    """Remove abandoned downloads, unused locks, stale cache entries and the state of projects that are gone.

    Blocking: for a thread.

    ``wanted`` maps the path key and the content key of a stage to the id of the asset in the manifest; None if that is
    not known: then partial downloads and piece sums stay. ``also_listed``: the content keys that other manifests have,
    asked only if sums would go; None if not all of them are known: then sums stay. With ``dry_run`` nothing is changed.
    """
    state = StateFolder(assets_dir)
    removed: list[Pruned] = []
    in_use = 0
    with storage_errors(state.top):
        with _opened(state.open_locks) as locks:
            # Listed first: whoever removes a stage holds its lock, and with that the lock file goes, too.
            lock_sizes = {name: _allocated(locks, name) for name in _names(locks) if _LOCK.fullmatch(name)}
        with _opened(lambda: state.open("stage")) as stages:
            for name in _names(stages):
                match = _STAGE.fullmatch(name)
                if wanted is None or match is None or not _is_folder(stages, name):
                    continue
                path_key, content_key, owner, _ = match.groups()
                asset = wanted.get((path_key, content_key))
                size = _allocated(stages, name)
                if not _remove_stage(state, stages, name, path_key, Owner.parse(owner), dry_run=dry_run):
                    in_use += 1
                    continue
                is_wanted = asset is not None or path_key == PATH_KEY
                reason = "an interrupted download" if is_wanted else "no longer in the manifest"
                removed.append(Pruned("download", name, reason, size, asset))
        with _opened(state.open_locks) as locks:
            for name, size in lock_sizes.items():
                if locks is not None and _remove_lock(state, locks, name, dry_run=dry_run):
                    removed.append(Pruned("lock", name, "nobody holds it", size))
        with _opened(state.open) as own:
            if own is not None and (stale := _remove_stale_entries(own, dry_run=dry_run)) is not None:
                removed.append(stale)
        with _opened(lambda: state.open(SUMS_FOLDER)) as sums:
            if wanted is not None:
                listed = {content_key for _, content_key in wanted}
                removed += _remove_unwanted_sums(sums, listed, also_listed, dry_run=dry_run)
    removed += _remove_gone_projects(dry_run=dry_run)
    return PruneReport(tuple(removed), in_use)


def remove_leftovers(assets_dir: Path, local_paths: Iterable[str]) -> None:
    """Remove the stages that dead processes left for these paths, as far as possible. Blocking: for a thread."""
    state = StateFolder(assets_dir)
    path_keys = {StageKey(local_path, "").path_key for local_path in local_paths}
    with suppress(OSError, StorageError), _opened(lambda: state.open("stage")) as stages:
        for name in _names(stages):
            match = _STAGE.fullmatch(name)
            if match is not None and match[1] in path_keys:
                _remove_stage(state, stages, name, match[1], Owner.parse(match[3]), dry_run=False)


@contextmanager
def _opened(open_folder: Callable[[], int]) -> Iterator[int | None]:
    """Open a folder for the length of the block; yields None if there is none."""
    try:
        folder = open_folder()
    except FileNotFoundError:
        yield None
        return
    try:
        yield folder
    finally:
        os.close(folder)


def _names(folder: int | None) -> list[str]:
    return [] if folder is None else sorted(system.listdir(folder))


def _is_folder(above: int | None, name: str) -> bool:
    try:
        return stat.S_ISDIR(system.stat(name, dir_fd=above, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _allocated(above: int | None, name: str) -> int:
    """Bytes that a file, or the files in a folder, take up on the disk."""
    total = 0
    with suppress(OSError):
        figures = system.stat(name, dir_fd=above, follow_symlinks=False)
        total = system.allocated_bytes(figures) if figures.st_nlink else 0
        if stat.S_ISDIR(figures.st_mode) and above is not None:
            folder = open_child(above, name)
            try:
                for each in system.listdir(folder):
                    total += system.allocated_bytes(system.stat(each, dir_fd=folder, follow_symlinks=False))
            finally:
                os.close(folder)
    return total


def _remove_stage(
    state: StateFolder, stages: int | None, name: str, path_key: str, owner: Owner | None, *, dry_run: bool
) -> bool:
    """Remove a stage if it is certainly abandoned. Returns whether it was removed, or would be in a dry run."""
    if stages is None or owner is None or owner.is_alive:
        return False
    with _held(state, f"{path_key}.lock", dry_run=dry_run) as excludes_others:
        if excludes_others is None or not is_abandoned(stages, name, owner, exclusive=excludes_others):
            return False
        if dry_run:
            return True
        # Claim it under our own name first, as a download does: if locks do not work, only one process gets it.
        content_key = name.split(".")[1]
        return remove(stages, name, new_name(path_key, content_key, Owner.this()), owner)


@contextmanager
def _held(state: StateFolder, name: str, *, dry_run: bool) -> Iterator[bool | None]:
    """Hold a lock. Yields whether it excludes others; None if it is busy. A dry run makes no lock file."""
    if dry_run:
        with _opened(state.open_locks) as locks:
            yield True if locks is None else _is_free(locks, name)
        return
    lock = FileLock(lambda: state.open_locks(create=True), name)
    if not lock.try_acquire():
        yield None
        return
    try:
        yield lock.is_trustworthy
    finally:
        lock.release()


def _is_free(locks: int, name: str) -> bool | None:
    """What `_held` would yield, without changing anything."""
    try:
        descriptor = open_lock(locks, name, create=False)
    except FileNotFoundError:
        return True
    try:
        match try_flock(descriptor):
            case Flock.TAKEN:
                return True
            case Flock.BUSY:
                return None
            case Flock.UNSUPPORTED:
                return False
    finally:
        os.close(descriptor)


def _remove_lock(state: StateFolder, locks: int, name: str, *, dry_run: bool) -> bool:
    """Remove a lock file that nobody holds. Returns whether it was removed, or would be in a dry run."""
    try:
        with _held(state, name, dry_run=dry_run) as excludes_others:
            if dry_run or not excludes_others:
                return bool(excludes_others)
        system.stat(name, dir_fd=locks, follow_symlinks=False)
    except FileNotFoundError:
        return True  # its holder removed the file when it released the lock
    except (OSError, StorageError):
        return False  # a symlink, or something that is not a file
    return False  # it belongs to another user


def _remove_gone_projects(*, dry_run: bool) -> Iterator[Pruned]:
    """Remove what this user's state folder keeps for projects that are gone, as far as possible."""
    try:
        home = system.open_descriptor(state_home(), FOLDER)
    except OSError:
        return
    try:
        if os.fstat(home).st_uid != system.user_id():
            return
        for name in _names(home):
            if not _PROJECT.fullmatch(name) or not _is_gone(home, name):
                continue
            size = _allocated(home, name)
            with suppress(OSError):
                if not dry_run:
                    system.rmtree(name, dir_fd=home)
                yield Pruned("project", name, "its project is gone", size)
    finally:
        os.close(home)


def _is_gone(home: int, name: str) -> bool:
    try:
        folder = open_child(home, name)
    except OSError:
        return False
    try:
        return is_of_gone_project(folder)
    finally:
        os.close(folder)


def _remove_unwanted_sums(
    sums: int | None, wanted: set[str], also_listed: Callable[[], Collection[str] | None], *, dry_run: bool
) -> Iterator[Pruned]:
    """Remove the sums of contents that no asset of any manifest has."""
    unwanted = [name for name in _names(sums) if _SUMS.fullmatch(name) and name not in wanted]
    if not unwanted or (others := also_listed()) is None:
        return
    for name in unwanted:
        if name not in others:
            size = _allocated(sums, name)
            if not dry_run:
                system.unlink(name, dir_fd=sums)
            yield Pruned("pieces", name, "no longer in the manifest", size)


def _remove_stale_entries(own: int, *, dry_run: bool) -> Pruned | None:
    """Rewrite the verified cache's log without the entries that no longer hold."""
    old = read_state(own, LOG, MAX_PRUNED_LOG_BYTES + 1)
    if old is None or len(old) > MAX_PRUNED_LOG_BYTES:
        return None
    lines = old.splitlines()
    entries = decode_entries(lines)
    kept = [entry for entry in entries.values() if entry.is_unchanged]
    new_bytes = sum(len(encode_entry(entry)) for entry in kept)
    if new_bytes >= len(old):
        return None
    if not dry_run:
        replace_log(own, kept)
    outdated = len(entries) - len(kept)
    reason = (
        f"{outdated} of {len(entries)} are of files that have changed or gone" if outdated else "written more than once"
    )
    return Pruned("verified", LOG, reason, len(old) - new_bytes)

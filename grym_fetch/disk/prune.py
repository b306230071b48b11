"""Removes what earlier runs left in the assets folder and nobody needs: on demand, and a little at each sync.

Rules: a stage is removed only if its owner is certainly gone and nobody holds the asset's lock; a lock file only if
nobody holds the lock; an entry of the verified cache only if its file has changed or gone. If in doubt (another
machine's stage where locks do not work, or one that was written to lately) it stays, and so does any name not of ours.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from grym_fetch.core.paths import STATE_FOLDER
from grym_fetch.disk.folders import storage_errors
from grym_fetch.disk.locks import FileLock, Flock, try_flock
from grym_fetch.disk.owner import Owner, is_abandoned
from grym_fetch.disk.small_files import PATH_KEY
from grym_fetch.disk.stage import StageKey
from grym_fetch.disk.verified import decode_entries, encode_entry, replace_log

_STAGE = re.compile(r"([0-9a-f]{24})\.([0-9a-f]{16})\.([^.]+)\.([0-9a-f]{8})")
_LOCK = re.compile(r"[0-9a-f]{24}\.lock")


@dataclass(frozen=True, slots=True)
class Pruned:
    """Something that was removed, or would be, and how many bytes that frees.

    ``kind`` is ``download``, ``lock`` or ``verified``, which are entries of the verified cache.
    """

    kind: str
    name: str
    reason: str
    bytes: int
    asset: str | None = None


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What was removed, and how many stages were left because they are, or may be, in use."""

    removed: tuple[Pruned, ...]
    in_use: int

    @property
    def bytes(self) -> int:
        """Bytes freed on the disk."""
        return sum(item.bytes for item in self.removed)


def prune(assets_dir: Path, wanted: Mapping[tuple[str, str], str], *, dry_run: bool) -> PruneReport:
    """Remove abandoned downloads, unused lock files and stale cache entries. Blocking: for a thread.

    ``wanted`` maps the path key and the content key of a stage to the id of the manifest's asset. With ``dry_run``
    nothing is changed.
    """
    state = assets_dir / STATE_FOLDER
    removed: list[Pruned] = []
    in_use = 0
    with storage_errors(state):
        for entry in _entries(state / "stage"):
            match = _STAGE.fullmatch(entry.name)
            if match is None or not entry.is_dir(follow_symlinks=False):
                continue
            path_key, content_key, owner, _ = match.groups()
            asset = wanted.get((path_key, content_key))
            size = _allocated(Path(entry.path))
            if not _remove_stage(state, entry.name, path_key, Owner.parse(owner), dry_run=dry_run):
                in_use += 1
                continue
            reason = (
                "an interrupted download" if asset is not None or path_key == PATH_KEY else "no longer in the manifest"
            )
            removed.append(Pruned("download", entry.name, reason, size, asset))
        for entry in _entries(state / "locks"):
            size = _allocated(Path(entry.path))
            if _LOCK.fullmatch(entry.name) and _remove_lock(Path(entry.path), dry_run=dry_run):
                removed.append(Pruned("lock", entry.name, "nobody holds it", size))
        if (stale := _remove_stale_entries(state / "verified.log", dry_run=dry_run)) is not None:
            removed.append(stale)
    return PruneReport(tuple(removed), in_use)


def remove_leftovers(assets_dir: Path, local_paths: Iterable[str]) -> None:
    """Remove the stages that dead processes have left for these places, as far as possible. Blocking: for a thread."""
    state = assets_dir / STATE_FOLDER
    path_keys = {StageKey(local_path, "").path_key for local_path in local_paths}
    with suppress(OSError):
        for entry in _entries(state / "stage"):
            match = _STAGE.fullmatch(entry.name)
            if match is not None and match[1] in path_keys:
                _remove_stage(state, entry.name, match[1], Owner.parse(match[3]), dry_run=False)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except FileNotFoundError:
        return []


def _allocated(path: Path) -> int:
    """Bytes that a file, or the files in a folder, take on the disk."""
    total = 0
    with suppress(OSError):
        figures = os.stat(path, follow_symlinks=False)
        total = figures.st_blocks * 512 if figures.st_nlink else 0
        for entry in _entries(path) if path.is_dir() and not path.is_symlink() else ():
            total += entry.stat(follow_symlinks=False).st_blocks * 512
    return total


def _remove_stage(state: Path, name: str, path_key: str, owner: Owner | None, *, dry_run: bool) -> bool:
    """Remove a stage if it is certainly abandoned. Returns whether it was removed, or would be."""
    if owner is None or owner.is_alive:
        return False
    with _held(state / "locks" / f"{path_key}.lock", dry_run=dry_run) as excludes_others:
        if excludes_others is None or not is_abandoned(owner, state / "stage" / name, exclusive=excludes_others):
            return False
        if not dry_run:
            # Claimed under our own name first, as by a download: if locks do not work, only one of us gets it.
            ours = state / "stage" / f"{name.rpartition('.')[0].rpartition('.')[0]}.{Owner.this().encode()}.{_nonce()}"
            try:
                os.rename(state / "stage" / name, ours)
            except FileNotFoundError:
                return False
            shutil.rmtree(ours)
    return True


def _nonce() -> str:
    return secrets.token_hex(4)


@contextmanager
def _held(path: Path, *, dry_run: bool) -> Iterator[bool | None]:
    """Hold a lock. Yields whether it excludes others, None if it is busy. A dry run makes no lock file."""
    if dry_run:
        yield _is_free(path)
        return
    path.parent.mkdir(mode=0o700, exist_ok=True)
    lock = FileLock(path)
    if not lock.try_acquire():
        yield None
        return
    try:
        yield lock.is_trustworthy
    finally:
        lock.release()


def _is_free(path: Path) -> bool | None:
    """What `_held` would yield. Changes nothing."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
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


def _remove_lock(path: Path, *, dry_run: bool) -> bool:
    try:
        with _held(path, dry_run=dry_run) as excludes_others:
            return bool(excludes_others)  # its holder removes the file when it gives the lock back
    except OSError:
        return False  # a symlink, or somebody else's file


def _remove_stale_entries(log: Path, *, dry_run: bool) -> Pruned | None:
    """Write the verified cache's log anew, without the entries that no longer hold."""
    try:
        descriptor = os.open(log, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with open(descriptor, "rb") as file:
        if os.fstat(descriptor).st_uid != os.geteuid():
            return None
        old = file.read()
    lines = old.splitlines()
    entries = decode_entries(lines)
    kept = [entry for entry in entries.values() if entry.is_unchanged]
    new_bytes = sum(len(encode_entry(entry)) for entry in kept)
    if new_bytes >= len(old):
        return None
    if not dry_run:
        replace_log(log, kept)
    outdated = len(entries) - len(kept)
    reason = (
        f"{outdated} of {len(entries)} are of files that have changed or gone" if outdated else "written more than once"
    )
    return Pruned("verified", log.name, reason, len(old) - new_bytes)

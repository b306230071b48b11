"""Changes ``assets.json`` on the disk: all of a change, or nothing of it.

Rules: what is written must parse, and is written beside the file, flushed, and renamed over it, so that at every
instant the file is whole, old or new. Two of our own processes take turns (an flock on the folder). An editor takes
none, so the file is read once more right before the rename; if it is not what the change began with, the change is
made again from what is there now. A symlink stays one: the file that it leads to is written.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from grym_fetch.core.errors import EditRefused, ManifestError, Problem
from grym_fetch.core.manifest import Manifest
from grym_fetch.core.manifest_parser import ParsedManifest, parse_manifest
from grym_fetch.core.manifest_text import ManifestText
from grym_fetch.core.text import safe_text
from grym_fetch.disk.folders import storage_errors, sync
from grym_fetch.disk.project import MAX_MANIFEST

log = logging.getLogger(__name__)

ATTEMPTS = 5
"""How often a change is made anew because somebody else has written the file meanwhile."""
_BUSY = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES})
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK})
_NEW = '{{\n  "version": "1.0",\n  "updated": "{now}",\n  "assets": []\n}}\n'

Change = Callable[[ManifestText, Manifest], ManifestText]
"""Returns the changed text, given the text and what it means. Called again where the file has changed meanwhile."""


def edit_manifest(path: Path, change: Change) -> ParsedManifest | None:
    """Change the manifest and return what it is now; None if another process is changing it: try again later.

    Blocking: for a thread. Raises `EditRefused` if the result would be no good manifest, `ManifestError` if it is none
    now, `StorageError` if it cannot be written, and whatever ``change`` raises.
    """
    real = Path(os.path.realpath(path))
    source = safe_text(str(path))
    with storage_errors(path), _folder(real.parent) as folder:
        if not _lock(folder):
            return None
        for _ in range(ATTEMPTS):
            old = _read(folder, real.name)
            changed = change(ManifestText.read(old), parse_manifest(old, source).manifest)
            new = changed.encode()
            parsed = _accepted(new, source)
            if new == old or _replace(folder, real.name, old, new):
                return parsed
    raise EditRefused(source, [Problem("file", "", "somebody else keeps writing it; try again")])


def create_manifest(path: Path, now: float) -> bool:
    """Make a manifest without assets, whole or not at all; False if there is one already. ``now`` since the epoch."""
    data = ManifestText.read(_NEW.format(now="").encode()).touch(now).encode()
    with storage_errors(path), _folder(path.parent) as folder:
        beside = _write_beside(folder, path.name, data, 0o666 & ~_umask())
        try:
            # Unlike a rename, a link never replaces what another process has made meanwhile.
            os.link(beside, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS or path.exists():
                raise
            os.rename(beside, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        finally:
            _remove(folder, beside)
        sync(folder)
    return True


@contextmanager
def _folder(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)  # and with it goes the lock


def _lock(folder: int) -> bool:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # No locks on this file system: the look before the rename must do.
        return error.errno not in _BUSY
    return True


def _read(folder: int, name: str) -> bytes:
    with open(os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder), "rb") as file:
        return file.read(MAX_MANIFEST)


def _accepted(new: bytes, source: str) -> ParsedManifest:
    try:
        return parse_manifest(new, source)
    except ManifestError as error:
        raise EditRefused(source, list(error.problems)) from None


def _replace(folder: int, name: str, old: bytes, new: bytes) -> bool:
    """Put ``new`` in the place of ``old``; False, and nothing is done, if something else is there by now."""
    figures = os.stat(name, dir_fd=folder)
    beside = _write_beside(folder, name, new, stat.S_IMODE(figures.st_mode), owner=(figures.st_uid, figures.st_gid))
    try:
        if _read(folder, name) != old:
            log.info("%s was written by somebody else meanwhile", safe_text(name))
            os.unlink(beside, dir_fd=folder)
            return False
        os.rename(beside, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        _remove(folder, beside)
        raise
    sync(folder)
    return True


def _write_beside(folder: int, name: str, data: bytes, mode: int, *, owner: tuple[int, int] | None = None) -> str:
    """Write a new file, flush it, and return its name. Where that fails nothing is left."""
    beside = f".{name[:200]}.{secrets.token_hex(4)}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(beside, flags, 0o600, dir_fd=folder)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            if owner is not None:
                with suppress(OSError):  # only root may give a file away
                    os.fchown(descriptor, *owner)
            os.fchmod(descriptor, mode)
            sync(descriptor)
        finally:
            os.close(descriptor)
    except BaseException:
        _remove(folder, beside)
        raise
    return beside


def _remove(folder: int, name: str) -> None:
    with suppress(OSError):
        os.unlink(name, dir_fd=folder)


def _umask() -> int:
    """What this process does not grant. Linux tells without changing it; elsewhere the usual is assumed."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            return next(int(line.split()[1], 8) for line in file if line.startswith("Umask:"))
    except (OSError, StopIteration, ValueError):
        return 0o022

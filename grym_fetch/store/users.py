"""Which files of which projects came from the store, so that nothing is removed that a project still has.

Each user writes one file for each project: a line for the assets folder, then one for each file that came from the
store. All users may read all of them: a line of another user's can only keep something from being removed.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from grym_fetch.core.checked_lines import decode_line, encode_line
from grym_fetch.core.errors import StorageError
from grym_fetch.disk.folders import close_each, read_regular, write_all
from grym_fetch.disk.state import StateFolder, is_gone, nearest
from grym_fetch.runtime import system

USERS = "users"
_NAME = re.compile(r"(\d{1,10})\.[0-9a-f]{24}")
_MAX_BYTES = 64 * 1024 * 1024
_MAX_TIME_S = 1 << 40
"""Seconds since the epoch: a line with more is not ours, and would not fit into a float either."""


@dataclass(frozen=True, slots=True)
class Use:
    """A file of a project, the object that it came from, and when (seconds since the epoch)."""

    local_path: str
    object: str
    time: int = field(compare=False)


@dataclass(frozen=True, slots=True)
class StoreUser:
    """A project that has used the store. ``name`` is that of its file among the users."""

    name: str
    owner: int
    assets_dir: Path
    is_gone: bool
    """Whether its folder was certainly removed, and not only unmounted."""
    uses: tuple[Use, ...]


class UseLog:
    """What one project of this user has from the store."""

    def __init__(self, store: StateFolder, assets_dir: Path) -> None:
        self._store = store
        self._assets_dir = os.path.realpath(assets_dir)
        key = hashlib.sha256(os.fsencode(self._assets_dir)).hexdigest()[:24]
        self._name = f"{system.user_id()}.{key}"
        self._known: set[Use] | None = None

    def note(self, uses: Iterable[Use]) -> None:
        """Add files. Raises ``OSError`` or `StorageError`. Blocking: for a thread."""
        folder = self._store.open_shared(USERS, create=True)
        try:
            if self._known is None:
                user = _read(folder, self._name)
                self._known = set(user.uses) if user is not None else set()
            new = dict.fromkeys(use for use in uses if use not in self._known)
            if new:
                self._append(folder, b"".join(encode_line([use.local_path, use.object, use.time]) for use in new))
                self._known.update(new)
        finally:
            close_each(folder)

    def _append(self, folder: int, line: bytes) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | system.O_NOFOLLOW | system.O_NONBLOCK | system.O_NOCTTY
        descriptor = system.open_descriptor(self._name, flags, 0o644, dir_fd=folder)
        try:
            figures = os.fstat(descriptor)
            if not stat.S_ISREG(figures.st_mode) or figures.st_nlink > 1:
                # Whoever may write to the store may give any file of ours this name (link(2)).
                raise PermissionError(
                    errno.EACCES, "what is in its place is not a regular file with this name alone", self._name
                )
            if not figures.st_size:
                system.fchmod(descriptor, 0o644)  # whatever the umask is
                device = os.stat(nearest(self._assets_dir)).st_dev
                line = encode_line([self._assets_dir, device]) + line
            write_all(descriptor, line)
        finally:
            close_each(descriptor)


def store_users(store: StateFolder) -> Iterator[StoreUser]:
    """All projects that have used the store. Raises ``OSError`` or `StorageError`."""
    try:
        folder = store.open_shared(USERS)
    except FileNotFoundError:
        return
    try:
        for name in sorted(system.listdir(folder)):
            with suppress(OSError):
                if (user := _read(folder, name)) is not None:
                    yield user
    finally:
        close_each(folder)


def forget_user(store: StateFolder, user: StoreUser) -> None:
    """Remove a project's file, if it may be removed."""
    with suppress(OSError, StorageError):
        folder = store.open_shared(USERS)
        try:
            system.unlink(user.name, dir_fd=folder)
        finally:
            close_each(folder)


def _may_be_path(text: str) -> bool:
    """Whether this is no mere text, forged by another user, at which calls of the system raise ``ValueError``."""
    with suppress(UnicodeEncodeError):
        return b"\0" not in os.fsencode(text)
    return False


def _read(folder: int, name: str) -> StoreUser | None:
    """Read one user's file; None if it is not there, not theirs, or damaged from the beginning."""
    match = _NAME.fullmatch(name)
    try:
        figures = system.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if match is None or not stat.S_ISREG(figures.st_mode) or figures.st_uid != int(match[1]):
        return None
    place, device, uses = "", -1, dict[Use, None]()
    for line in read_regular(name, folder, limit=_MAX_BYTES, owner=figures.st_uid).splitlines():
        with suppress(ValueError):
            match decode_line(line):
                case [str(place), int(device)]:
                    pass
                case [str(local_path), str(content), int(time)] if 0 <= time < _MAX_TIME_S:
                    uses[Use(local_path, content, time)] = None
    if not os.path.isabs(place) or not _may_be_path(place):
        return None
    return StoreUser(name, figures.st_uid, Path(place), is_gone(place, device), tuple(uses))

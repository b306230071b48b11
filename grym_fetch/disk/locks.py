"""Locks between processes. They save bandwidth; they are not what makes a download correct.

Rules: all users of a folder share its locks. A lock is an flock, so a dead holder blocks nobody. Only the holder
unlinks the lock file, while it holds the lock; whoever gets a lock checks that the file still has its name. If flock
does nothing here (some network file systems), that is noticed, and nothing that depends on the lock is done. If it
excludes only processes of the same machine (Lustre's ``localflock``, NFS's ``local_lock``), that cannot be noticed: see
`is_abandoned` in claims.py.

A forked child closes its copies of its parent's locks. A child that was not forked through Python may still hold one
for a parent that is dead; nobody waits for such a lock.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from enum import Enum, auto

from grym_fetch.core.errors import UnsafePath
from grym_fetch.core.text import safe_text
from grym_fetch.disk.folders import is_at
from grym_fetch.disk.owner import Owner
from grym_fetch.runtime import system
from grym_fetch.runtime.forks import close_copy, forget_in_child

_BUSY = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES})
_READ_ONLY = frozenset({errno.EBADF, errno.EINVAL})
"""The errors of writing to a descriptor that was opened for reading only."""
_LOCK_FLAGS = system.O_NOFOLLOW | system.O_NONBLOCK | system.O_NOCTTY


class Flock(Enum):
    """The outcome of `try_flock`."""

    TAKEN = auto()
    BUSY = auto()
    """Somebody else holds it."""
    UNSUPPORTED = auto()
    """This file system has no locks (ENOLCK, ENOTSUP, …)."""


def try_flock(descriptor: int) -> Flock:
    """Lock an open file or folder, without waiting. The lock lasts as long as the descriptor is open."""
    try:
        system.lock(descriptor)
    except OSError as error:
        return Flock.BUSY if error.errno in _BUSY else Flock.UNSUPPORTED
    return Flock.TAKEN


class FileLock:
    """An exclusive lock on one asset: a file ``name`` in a folder. `holder` says who holds it if it is busy.

    ``open_folder`` returns a new descriptor of the folder, and may make the folder.
    """

    def __init__(self, open_folder: Callable[[], int], name: str) -> None:
        forget_in_child(self)
        self._open_folder = open_folder
        self._name = name
        self._folder = -1
        self._descriptor: int | None = None
        self.is_trustworthy = False
        """Whether flock really excludes others here. Known once the lock is held."""
        self.holder = ""
        self._dead: Owner | None = None
        """The dead process that was named as the holder last time."""

    def try_acquire(self) -> bool:
        """Take the lock if nobody has it. Raises ``OSError`` if the lock file cannot be opened."""
        folder = self._open_folder()
        try:
            if self._take(folder):
                folder, self._folder = -1, folder
        finally:
            if folder >= 0:
                os.close(folder)
        if self._descriptor is None:
            return False
        try:
            if self.is_trustworthy:
                self.is_trustworthy = self._excludes_others()
                self._note_holder(self._descriptor)
        except OSError:
            self.release()
            raise
        return True

    def _take(self, folder: int) -> bool:
        while True:
            descriptor = open_lock(folder, self._name, create=True)
            outcome = try_flock(descriptor)
            if outcome is Flock.BUSY:
                before, (self.holder, owner) = self._dead, _read_holder(descriptor)
                self._dead = owner if owner is not None and owner.is_dead else None
                # Wait until it is named twice: a new holder takes a moment to replace the dead one's name with its own.
                if self._dead is not None and self._dead == before:
                    # Go on as without locks: whoever holds it is not working.
                    self._descriptor, self.is_trustworthy = descriptor, False
                    return True
                os.close(descriptor)
                return False
            # Its last holder may have unlinked the file between our open and our lock: lock the one that is there now.
            # Without locks, go on: a lock saves bandwidth, and staging is private anyway.
            if outcome is Flock.UNSUPPORTED or is_at(descriptor, folder, self._name):
                self._descriptor = descriptor
                self.is_trustworthy = outcome is Flock.TAKEN
                return True
            os.close(descriptor)

    def _excludes_others(self) -> bool:
        second = open_lock(self._folder, self._name, create=False)
        try:
            return try_flock(second) is Flock.BUSY
        finally:
            os.close(second)

    @staticmethod
    def _note_holder(descriptor: int) -> None:
        if os.fstat(descriptor).st_nlink > 1:
            return  # whoever may work in the folder may give any file of ours this name (link(2))
        this = {"pid": os.getpid(), "host": socket.gethostname(), "owner": Owner.this().encode()}
        record = json.dumps(this).encode()
        try:
            os.ftruncate(descriptor, 0)
            system.pwrite(descriptor, record, 0)
        except OSError as error:
            if error.errno not in _READ_ONLY:
                raise

    def release(self) -> None:
        """Release the lock. Idempotent."""
        descriptor, self._descriptor = self._descriptor, None
        folder, self._folder = self._folder, -1
        if descriptor is None:
            return
        try:
            if self.is_trustworthy and is_at(descriptor, folder, self._name):
                system.unlink(self._name, dir_fd=folder)
        except OSError:
            pass  # a lock file that stays behind is empty and harmless; another user's cannot be removed
        finally:
            for each in (descriptor, folder):
                with suppress(OSError):  # it is closed all the same (close(2)), and thus unlocked
                    os.close(each)

    def forget(self) -> None:
        """In a forked child: close the copy of the parent's descriptor. Closing a copy does not unlock the file."""
        descriptor, self._descriptor = self._descriptor, None
        folder, self._folder = self._folder, -1
        for each in (descriptor, folder):
            if each is not None:
                close_copy(each)


def open_lock(folder: int, name: str, *, create: bool) -> int:
    """Open a lock file, which another user may have made. Raises ``OSError``, or `UnsafePath` if it is not a file."""
    descriptor = -1
    while descriptor < 0:
        try:
            descriptor = _open_existing(folder, name)
        except FileNotFoundError:
            if not create:
                raise
            # Never O_CREAT without O_EXCL: fs.protected_regular forbids that for another user's file (sysctl fs(5)).
            with suppress(FileExistsError):
                descriptor = system.open_descriptor(
                    name, _LOCK_FLAGS | os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder
                )
                # Whoever may work in the folder may lock the file, whatever the umask is.
                with suppress(OSError):
                    system.fchmod(descriptor, stat.S_IMODE(os.fstat(folder).st_mode) & 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UnsafePath(safe_text(name), "something that is not a file is in the place of a lock; remove it")
    return descriptor


def _open_existing(folder: int, name: str) -> int:
    try:
        return system.open_descriptor(name, _LOCK_FLAGS | os.O_RDWR, dir_fd=folder)
    except PermissionError:
        return system.open_descriptor(name, _LOCK_FLAGS | os.O_RDONLY, dir_fd=folder)  # enough for a lock


def _read_holder(descriptor: int) -> tuple[str, Owner | None]:
    """Who holds a lock: in words, and as an `Owner` if the file names one."""
    try:
        record = json.loads(system.pread(descriptor, 500, 0))
        holder = f"process {int(record['pid'])} on {safe_text(str(record['host']), limit=80)}"
        return holder, Owner.parse(str(record.get("owner", "")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return "another process", None  # anybody may have written the file

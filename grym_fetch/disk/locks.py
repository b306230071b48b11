"""Locks between processes. They save bandwidth; they are not what makes a download correct.

Rules: a lock is an flock, so a dead holder blocks nobody. Only its holder unlinks its file, while it holds the lock;
whoever gets a lock checks that the file still has its path. If flock does nothing here (some network file systems),
that is noticed, and nothing that depends on the lock is done. If it excludes only processes of the same machine
(Lustre's ``localflock``, NFS's ``local_lock``), that cannot be noticed: see `is_abandoned` in owner.py.

A forked child closes what it has of its parent's locks. Where it holds one all the same, because it was forked by other
means, it does so for a process that may be dead, and nobody waits for that.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from contextlib import suppress
from enum import Enum, auto
from pathlib import Path
from weakref import WeakSet

from grym_fetch.core.text import safe_text
from grym_fetch.disk.folders import is_at
from grym_fetch.disk.owner import Owner

_BUSY = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES})


class Flock(Enum):
    """The outcome of `try_flock`."""

    TAKEN = auto()
    BUSY = auto()
    """Somebody else has it."""
    UNSUPPORTED = auto()
    """This file system has no locks (ENOLCK, ENOTSUP, …)."""


def try_flock(descriptor: int) -> Flock:
    """Lock an open file or folder, without waiting. The lock lasts for as long as it is open."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return Flock.BUSY if error.errno in _BUSY else Flock.UNSUPPORTED
    return Flock.TAKEN


class FileLock:
    """An exclusive lock on one asset. `holder` says who has it if it is busy."""

    def __init__(self, path: Path) -> None:
        _locks.add(self)
        self._path = path
        self._descriptor: int | None = None
        self.is_trustworthy = False
        """Whether flock really excludes others here. Known once the lock is held."""
        self.holder = ""

    def try_acquire(self) -> bool:
        """Take the lock if nobody has it. Raises ``OSError`` if the lock file cannot be opened."""
        while True:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
            match try_flock(descriptor):
                case Flock.BUSY:
                    self.holder, owner = _read_holder(descriptor)
                    if owner is not None and owner.is_dead:
                        self._descriptor = descriptor  # as without locks: whoever holds it does not work
                        return True
                    os.close(descriptor)
                    return False
                case Flock.UNSUPPORTED:
                    # Go on without: a lock saves bandwidth, and staging is private anyway.
                    self._descriptor = descriptor
                    return True
                case Flock.TAKEN:
                    pass
            if is_at(descriptor, self._path):
                break
            # Its last holder unlinked the file between our open and our lock: lock the one that is there now.
            os.close(descriptor)
        self._descriptor = descriptor
        try:
            self.is_trustworthy = self._excludes_others()
            this = {"pid": os.getpid(), "host": socket.gethostname(), "owner": Owner.this().encode()}
            record = json.dumps(this).encode()
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, record, 0)
        except OSError:
            self.release()
            raise
        return True

    def _excludes_others(self) -> bool:
        second = os.open(self._path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            return try_flock(second) is Flock.BUSY
        finally:
            os.close(second)

    def release(self) -> None:
        """Give the lock back. Idempotent."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        try:
            if self.is_trustworthy and is_at(descriptor, self._path):
                os.unlink(self._path)
        except OSError:
            pass  # a lock file that stays behind is empty and harmless
        finally:
            with suppress(OSError):  # it is closed all the same (close(2)), and so unlocked
                os.close(descriptor)

    def forget(self) -> None:
        """In a forked child: close what is the parent's. Closing a copy of a descriptor does not unlock it."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with suppress(OSError):
                os.close(descriptor)


_locks: WeakSet[FileLock] = WeakSet()


def _forget_all() -> None:
    for lock in list(_locks):
        lock.forget()


os.register_at_fork(after_in_child=_forget_all)


def _read_holder(descriptor: int) -> tuple[str, Owner | None]:
    """Who holds a lock: in words, and as far as it can be asked whether it lives."""
    try:
        record = json.loads(os.pread(descriptor, 500, 0))
        holder = f"process {int(record['pid'])} on {safe_text(str(record['host']), limit=80)}"
        return holder, Owner.parse(str(record.get("owner", "")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "another process", None

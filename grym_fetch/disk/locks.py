"""Locks between processes. They save bandwidth; they are not what makes a download correct.

Rules: a lock is an flock, so a dead holder blocks nobody. Its file is unlinked by its holder only, while held; whoever
gets a lock checks that the file is still the one at that path. Where flock is a no-op (some network file systems)
that is found out, and what depends on the lock is not done. Where it holds on each machine by itself (Lustre's
``localflock``, NFS's ``local_lock``) that cannot be found out: what another machine has just written to is left to it.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from grym_fetch.core.text import safe_text
from grym_fetch.disk.folders import is_at

_BUSY = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES})
QUIET = 180.0
"""Seconds after which a stage of another machine that nobody writes to counts as abandoned: longer than any wait for a
server, and than a network file system keeps what was written to itself."""
LONG_AGO = 24 * 3600.0
"""Seconds. What takes no more than minutes was not begun before that by somebody who is still at it."""


@dataclass(frozen=True, slots=True)
class Owner:
    """A process, named so that it can be told from a later one with the same number.

    ``boot`` names the system's start and the process namespace, ``host`` the machine, as a hash; empty if not known.
    """

    pid: int
    started: str
    boot: str
    host: str

    @classmethod
    def this(cls) -> Owner:
        """The running process."""
        host = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
        return cls(os.getpid(), _start_of(os.getpid()), _boot_id(), host)

    @classmethod
    def parse(cls, text: str) -> Owner | None:
        """Read what `encode` wrote; None for anything else."""
        pid, *others = text.split("-")
        if len(others) not in (2, 3) or not pid.isdigit():
            return None
        started, boot, host = (*others, "")[:3]  # the first versions did not name the machine
        return cls(int(pid), started, boot, host)

    def encode(self) -> str:
        """A short text that is safe in a file name."""
        return f"{self.pid}-{self.started}-{self.boot}-{self.host}"

    @property
    def is_dead(self) -> bool:
        """Whether this process certainly runs no more. False where that cannot be known."""
        if not self.boot or self.boot != _boot_id():
            # Another machine, or this one before it was started anew: cannot be told apart here.
            return False
        return _start_of(self.pid) != self.started

    @property
    def may_be_elsewhere(self) -> bool:
        """Whether it may run on another machine, whose locks are perhaps not seen here.

        Not if it is of this start of this system, in whichever container, or of an earlier one of this machine.
        """
        this = Owner.this()
        return self.boot[:_BOOT] != this.boot[:_BOOT] and self.host != this.host


def is_abandoned(owner: Owner | None, stage: Path, *, exclusive: bool) -> bool:
    """Whether nobody is at work on a stage. ``exclusive``: we hold its lock, and it excludes others on this machine."""
    if not exclusive:
        return owner is not None and owner.is_dead
    return owner is None or not owner.may_be_elsewhere or _is_quiet(stage)


def is_left_behind(owner: Owner | None, folder: Path) -> bool:
    """Whether a folder that no lock guards is nobody's: its owner is dead, or cannot be asked and made it long ago."""
    if owner is None:
        return False
    return owner.is_dead or (owner.boot != Owner.this().boot and _age(folder) > LONG_AGO)


def _is_quiet(stage: Path) -> bool:
    return _age(stage, stage / "part", stage / "journal") > QUIET


def _age(*places: Path) -> float:
    """Seconds since the last of these was written to."""
    times = []
    for place in places:
        with suppress(OSError):
            times.append(os.stat(place, follow_symlinks=False).st_mtime)
    return time.time() - max(times, default=0.0)


_BOOT = 16
"""Digits that name a start of the system."""


def _start_of(pid: int) -> str:
    """When a process was started, in clock ticks since boot; empty if there is none, or no /proc."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            # proc(5): the command may hold spaces and brackets, so count from the last bracket.
            return file.read().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _boot_id() -> str:
    """Names this boot of this machine, and the process namespace: in another container the numbers mean others."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip().replace("-", "")[:_BOOT]
        namespace = "".join(char for char in os.readlink("/proc/self/ns/pid") if char.isdigit())
    except OSError:
        return ""
    return f"{boot}{namespace}"


class Flock(Enum):
    """What came of asking for a lock."""

    TAKEN = auto()
    BUSY = auto()
    """Somebody else has it."""
    UNSUPPORTED = auto()
    """This file system has no locks (ENOLCK, ENOTSUP, …)."""


def try_flock(descriptor: int) -> Flock:
    """Lock an open file or folder, if nobody has it locked, for as long as it is open."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return Flock.BUSY if error.errno in _BUSY else Flock.UNSUPPORTED
    return Flock.TAKEN


class FileLock:
    """An exclusive lock on one asset. `holder` says who has it if it cannot be taken."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self.is_trustworthy = False
        """Whether flock really excludes others here. Known once the lock is taken."""
        self.holder = ""

    def try_acquire(self) -> bool:
        """Take the lock if nobody has it. Raises ``OSError`` if the lock file cannot be opened."""
        while True:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
            match try_flock(descriptor):
                case Flock.BUSY:
                    self.holder = _read_holder(descriptor)
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
            # Its last holder unlinked the file between our open and our lock: take the one that is there now.
            os.close(descriptor)
        self._descriptor = descriptor
        try:
            self.is_trustworthy = self._excludes_others()
            record = json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode()
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


def _read_holder(descriptor: int) -> str:
    try:
        record = json.loads(os.pread(descriptor, 500, 0))
        return f"process {int(record['pid'])} on {safe_text(str(record['host']), limit=80)}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"

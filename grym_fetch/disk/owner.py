"""Identifies a process, and tells whether anybody still uses what it has made.

Rule: a process counts as dead only if that is certain.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from grym_fetch.runtime import system
from grym_fetch.runtime.system import boot_id, process_start

LEFT_BEHIND_AFTER_S = 24 * 3600.0
"""A folder whose owner cannot be checked counts as abandoned after this long: the work takes minutes."""
_NUMBER = re.compile(r"[0-9]{1,10}")
"""A process number; ``str.isdigit`` also takes digits that ``int`` does not."""


@dataclass(frozen=True, slots=True)
class Owner:
    """A process, identified so that it is not confused with a later one of the same number.

    ``boot`` identifies the boot and the process namespace, ``host`` the machine, as a hash; empty if not known.
    """

    pid: int
    started: str
    boot: str
    host: str

    @classmethod
    def this(cls) -> Owner:
        """The running process."""
        host = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
        started = process_start(os.getpid()) or ""
        return cls(os.getpid(), started, boot_id() if started else "", host)

    @classmethod
    def parse(cls, text: str) -> Owner | None:
        """Read what `encode` wrote; None for anything else."""
        pid, *others = text.split("-")
        if len(others) not in (2, 3) or not _NUMBER.fullmatch(pid):
            return None
        started, boot, host = (*others, "")[:3]  # the first versions did not record the machine
        return cls(int(pid), started, boot, host)

    def encode(self) -> str:
        """A short text that is safe in a file name."""
        return f"{self.pid}-{self.started}-{self.boot}-{self.host}"

    @property
    def is_dead(self) -> bool:
        """Whether this process is certainly no longer running. False if that cannot be known."""
        # From another boot: another machine, or this one before a restart. The two cannot be told apart here.
        started = process_start(self.pid) if self._is_of_this_boot else None
        return started is not None and started != self.started

    @property
    def is_alive(self) -> bool:
        """Whether this process is certainly running: on this machine, since this boot."""
        return self._is_of_this_boot and not self.is_dead

    @property
    def may_be_elsewhere(self) -> bool:
        """Whether it may be running on another machine, whose locks may not be seen here.

        False if it is from this boot of this system, in any container, or from an earlier boot of this machine.
        """
        this = Owner.this()
        return self.boot[:_BOOT_DIGITS] != this.boot[:_BOOT_DIGITS] and self.host != this.host

    @property
    def _is_of_this_boot(self) -> bool:
        return bool(self.boot) and self.boot == boot_id()


def is_left_behind(owner: Owner | None, folder: Path, *, above: int | None = None) -> bool:
    """Whether a folder without a lock is abandoned: its owner is dead, or began long ago and cannot be checked."""
    if owner is None:
        return False
    return owner.is_dead or (owner.boot != Owner.this().boot and _age_s(folder, above=above) > LEFT_BEHIND_AFTER_S)


def _age_s(place: Path, *, above: int | None) -> float:
    """Seconds since it was last written to."""
    try:
        return time.time() - system.stat(place, dir_fd=above, follow_symlinks=False).st_mtime
    except OSError:
        return time.time()


_BOOT_DIGITS = 16
"""The digits that identify a boot of the system; those of the namespace follow."""

"""A log file that is rotated: opened, written and renamed through the descriptor of its folder.

Rules: a link in the file's place is not followed and a pipe is not waited for; only a regular file that belongs to this
user and has no other name is written to, even after a rotation. Processes that share a file take turns to rotate it, so
that each old file is renamed once.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

from grym_fetch.disk.folders import is_at, open_child, write_all
from grym_fetch.disk.locks import Flock, try_flock
from grym_fetch.runtime import system

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | system.O_NOFOLLOW | system.O_NONBLOCK | system.O_NOCTTY


class LogFile:
    """An open log. Raises ``OSError`` if the file in its place must not be written to.

    ``below`` is a folder in ``folder`` that is made if need be, and must not be a symlink; ``folder`` itself is where
    the user said, symlink or not. Beyond ``max_bytes`` the file becomes ``<name>.1``; ``keep`` old files are kept.
    """

    def __init__(self, folder: Path, name: str, *, below: str = "", max_bytes: int, keep: int) -> None:
        self._name = name
        self._max_bytes = max_bytes
        self._keep = keep
        self._file = -1
        self._folder = system.open_descriptor(folder, os.O_RDONLY | system.O_DIRECTORY)
        try:
            if below:
                with suppress(FileExistsError):
                    system.mkdir(below, dir_fd=self._folder)
                above, self._folder = self._folder, open_child(self._folder, below)
                os.close(above)
            self._file = self._open()
        except BaseException:
            self.close()
            raise

    def write(self, line: bytes) -> None:
        """Append a line; rotate first if it does not fit. Raises ``OSError``."""
        size = os.fstat(self._file).st_size
        if size and size + len(line) > self._max_bytes:
            self._rotate()
        write_all(self._file, line)

    def close(self) -> None:
        """Close the file. Idempotent."""
        for descriptor in (self._file, self._folder):
            if descriptor >= 0:
                with suppress(OSError):
                    os.close(descriptor)
        self._file = self._folder = -1

    def _open(self) -> int:
        descriptor = system.open_descriptor(self._name, _FLAGS, 0o666, dir_fd=self._folder)
        figures = os.fstat(descriptor)
        if stat.S_ISREG(figures.st_mode) and figures.st_uid == system.user_id() and figures.st_nlink <= 1:
            return descriptor
        os.close(descriptor)
        raise PermissionError(
            errno.EPERM, "what is in its place is not a regular file that belongs to this user alone", self._name
        )

    def _rotate(self) -> None:
        turn = system.open_lock(self._folder)
        try:
            # If somebody else is rotating, write a few more lines to the full file. Where there are no locks, go on.
            if try_flock(turn) is Flock.BUSY:
                return
            if is_at(self._file, self._folder, self._name):
                self._rename_each()
            fresh = self._open()
            os.close(self._file)
            self._file = fresh
        finally:
            os.close(turn)

    def _rename_each(self) -> None:
        names = [self._name, *(f"{self._name}.{number}" for number in range(1, self._keep + 1))]
        for newer, older in zip(reversed(names[:-1]), reversed(names[1:]), strict=True):
            with suppress(FileNotFoundError):
                system.rename(newer, older, folder=self._folder, into=self._folder)

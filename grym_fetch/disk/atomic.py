"""Files that appear whole: written next to their final place, flushed, and only then given their name.

Rules: whichever call fails and whenever the process dies, the name refers to the old file, to the whole new one, or, if
there was no file before, to nothing. No symlink is followed: a symlink with that name is replaced, never the file it
leads to. The temporary file is removed on failure; only a killed process can leave one behind. Every ``OSError`` is
raised unchanged: the caller knows which path it is about.
"""

from __future__ import annotations

import errno
import os
import secrets
from contextlib import suppress
from types import TracebackType
from typing import Self

from grym_fetch.disk.folders import NEW_FILE, exists, sync, write_all
from grym_fetch.runtime import system

PRIVATE = 0o600
"""The mode of a file that only this user may read and write."""
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
"""The errors of file systems that have no hard links (FAT, some FUSE and SMB), or allow no more of them."""


class NewFile:
    """A temporary file that is to get a name in ``folder``, an open descriptor.

    A context manager: the file is removed unless it got its name. ``mode`` is its initial mode, less the umask.
    """

    def __init__(self, folder: int, name: str, *, mode: int = 0o666) -> None:
        self._folder = folder
        self._name = name
        # Shortened: the name itself may be as long as the file system allows.
        self.temporary = f".{name[:40]}.{secrets.token_hex(8)}.tmp"
        self._descriptor = system.open_descriptor(self.temporary, NEW_FILE, mode, dir_fd=folder)
        self._is_named = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._close()
        finally:
            if not self._is_named:
                with suppress(OSError):
                    system.unlink(self.temporary, dir_fd=self._folder)

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes."""
        write_all(self._descriptor, data)

    def take_after(self, old: os.stat_result) -> None:
        """Give the file the permissions of another file, and its owner where that is allowed."""
        with suppress(OSError):  # only root may give a file away
            system.fchown(self._descriptor, old.st_uid, old.st_gid)
        system.fchmod(self._descriptor, old.st_mode & 0o7777)

    @property
    def descriptor(self) -> int:
        """The open file, until it is flushed."""
        return self._descriptor

    def flush(self) -> None:
        """Flush the bytes to the disk and close the file; nothing can be added after that. Idempotent."""
        if self._descriptor >= 0:
            sync(self._descriptor)
            self._close()

    def replace(self) -> None:
        """Give the file its name, durably, replacing any file that has it."""
        self.flush()
        system.rename(self.temporary, self._name, folder=self._folder, into=self._folder)
        self._is_named = True
        sync(self._folder)

    def create(self) -> None:
        """Give the file its name, durably. Raises `FileExistsError` if anything has it, even a dangling symlink."""
        self.flush()
        rename_new(self._folder, self.temporary, self._name)
        self._is_named = True
        sync(self._folder)

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def rename_new(folder: int, old: str, new: str) -> None:
    """Rename a file in a folder to a name that is still free. Raises `FileExistsError` if anything has it.

    A plain rename would replace anything that has appeared under the name in the meantime; a hard link does not.
    Without hard links there is a short gap between the check and the rename.
    """
    try:
        system.link(old, new, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if exists(folder, new):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new) from None
        system.rename(old, new, folder=folder, into=folder)
    else:
        system.unlink(old, dir_fd=folder)


def replace_file(folder: int, name: str, data: bytes, *, mode: int = 0o666) -> None:
    """Write a file with these bytes under the name, durably, replacing any file that has it."""
    with NewFile(folder, name, mode=mode) as new:
        new.write(data)
        new.replace()


def create_file(folder: int, name: str, data: bytes, *, mode: int = 0o666) -> None:
    """Make a file with these bytes, durably. Raises `FileExistsError` if anything has the name."""
    with NewFile(folder, name, mode=mode) as new:
        new.write(data)
        new.create()

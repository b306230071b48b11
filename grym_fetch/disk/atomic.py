"""Files that appear whole: written beside their place, flushed, and only then given their name.

Rules: whichever call fails and whenever the process dies, the name stands for the old file, the whole new one, or, if
there was none, for nothing. No symlink is followed: one that has the name is replaced, never the file it leads to. A
failure removes the temporary file; only a killed process can leave one. Every ``OSError`` is raised as it is: the
caller knows which path it is about.
"""

from __future__ import annotations

import errno
import os
import secrets
from contextlib import suppress
from types import TracebackType
from typing import Self

from grym_fetch.disk.folders import NEW_FILE, exists, sync, write_all

PRIVATE = 0o600
"""The mode of a file that is this user's alone."""
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK})
"""What file systems answer that have no hard links (FAT, some FUSE and SMB), or no more of them."""


class NewFile:
    """A file on its way to its name in a folder, which is an open descriptor.

    A context manager: the file is removed unless it got its name. ``mode`` are its first permissions, less the umask.
    """

    def __init__(self, folder: int, name: str, *, mode: int = 0o666) -> None:
        self._folder = folder
        self._name = name
        # Cut short: the name itself may be as long as the file system allows.
        self._temporary = f".{name[:40]}.{secrets.token_hex(8)}.tmp"
        self._descriptor = os.open(self._temporary, NEW_FILE, mode, dir_fd=folder)
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
                    os.unlink(self._temporary, dir_fd=self._folder)

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes."""
        write_all(self._descriptor, data)

    def take_after(self, old: os.stat_result) -> None:
        """Give the file the permissions of another one, and its owner where that is allowed."""
        with suppress(OSError):  # only root may give a file away
            os.fchown(self._descriptor, old.st_uid, old.st_gid)
        os.fchmod(self._descriptor, old.st_mode & 0o7777)

    @property
    def descriptor(self) -> int:
        """The open file, until it is flushed."""
        return self._descriptor

    def flush(self) -> None:
        """Put the bytes on the disk and close the file; nothing can be added any more. Idempotent."""
        if self._descriptor >= 0:
            sync(self._descriptor)
            self._close()

    def replace(self) -> None:
        """Give the file its name, durably, in the place of whatever file has it."""
        self.flush()
        os.rename(self._temporary, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        self._is_named = True
        sync(self._folder)

    def create(self) -> None:
        """Give the file its name, durably. Raises `FileExistsError` if anything has it, be it a dangling symlink."""
        self.flush()
        rename_new(self._folder, self._temporary, self._name)
        self._is_named = True
        sync(self._folder)

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def rename_new(folder: int, old: str, new: str) -> None:
    """Rename a file of a folder to a name that nothing has yet. Raises `FileExistsError` if anything has it.

    A rename alone would replace what has appeared under the name meanwhile; a hard link does not. Without hard links
    there is an instant between the look and the rename.
    """
    try:
        os.link(old, new, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if exists(folder, new):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new) from None
        os.rename(old, new, src_dir_fd=folder, dst_dir_fd=folder)
    else:
        os.unlink(old, dir_fd=folder)


def replace_file(folder: int, name: str, data: bytes, *, mode: int = 0o666) -> None:
    """Put a file with these bytes in the place of whatever file has the name, durably."""
    with NewFile(folder, name, mode=mode) as new:
        new.write(data)
        new.replace()


def create_file(folder: int, name: str, data: bytes, *, mode: int = 0o666) -> None:
    """Make a file with these bytes, durably. Raises `FileExistsError` if anything has the name."""
    with NewFile(folder, name, mode=mode) as new:
        new.write(data)
        new.create()

"""Copies that can be trusted: hashed on the way, flushed, read back, and only then given their name.

Rules: a copy is written to a draft next to its final name, ``.<name>.grym-part``. A draft belongs to the process that
has locked it; a dead process's draft is unlinked, never written to, because it may already be the final file under a
second name. Files and folders are flushed before anything relies on them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from grym_fetch.core.digest import Checksum, new_hasher
from grym_fetch.core.errors import Locked, NotWritable
from grym_fetch.core.text import safe_text
from grym_fetch.disk.atomic import rename_new
from grym_fetch.disk.folders import sync, write_all
from grym_fetch.disk.locks import Flock, try_flock
from grym_fetch.runtime import system
from grym_fetch.runtime.system import read_again, read_ahead

STRIDE_BYTES = 4 * 1024 * 1024
"""Bytes read, hashed and written at a time."""
_PAGE_BYTES = 64 * 1024
"""A run of zeros of this length becomes a hole."""
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | system.O_NOFOLLOW
_READ = os.O_RDONLY | system.O_NOFOLLOW | system.O_NONBLOCK


DRAFT_SUFFIX = ".grym-part"


def draft_name(name: str) -> str:
    """The name of a file's draft."""
    return f".{name}{DRAFT_SUFFIX}"


OnBytes = Callable[[int], None]
"""Is told how many bytes of a file are copied, or read, by now."""


def _unheard(count: int) -> None:
    pass


def digest_of(descriptor: int, on_read: OnBytes = _unheard) -> Checksum:
    """Read a whole file and return its SHA-256."""
    hasher = new_hasher("sha256")
    at = 0
    while block := system.pread(descriptor, STRIDE_BYTES, at):
        hasher.update(block)
        at += len(block)
        on_read(at)
    return Checksum("sha256", hasher.hexdigest())


def lock(descriptor: int, shown: Path | str) -> None:
    """Lock a file or folder as long as it is open. Raises `Locked` if another process has locked it."""
    if try_flock(descriptor) is Flock.BUSY:
        raise Locked(safe_text(str(shown)), "another process is at work here; wait for its end")


class Draft:
    """A file that is being written next to its final name. A context manager: it is removed unless published.

    ``mode`` is its mode until it gets another one; a copy begins private, because its original may be private.
    """

    def __init__(self, folder: int, name: str, *, mode: int = 0o666) -> None:
        self._folder = folder
        self._final = name
        self._name = draft_name(name)
        remove_dead_draft(folder, name)
        self._descriptor = system.open_descriptor(self._name, _NEW, mode, dir_fd=folder)
        self._is_published = False
        lock(self._descriptor, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)
        if not self._is_published:
            with suppress(OSError):
                system.unlink(self._name, dir_fd=self._folder)

    def write(self, data: bytes) -> None:
        """Append bytes."""
        write_all(self._descriptor, data)

    def _write_sparse(self, block: bytes) -> None:
        """Append bytes, leaving a hole for each page of zeros: a file full of holes must not fill a disk."""
        zeros = bytes(_PAGE_BYTES)
        start = 0
        for at in range(0, len(block), _PAGE_BYTES):
            page = block[at : at + _PAGE_BYTES]
            if page == zeros:
                self.write(block[start:at])
                os.lseek(self._descriptor, _PAGE_BYTES, os.SEEK_CUR)
                start = at + _PAGE_BYTES
        self.write(block[start:])

    def set_mode(self, mode: int) -> None:
        """Give the file these permissions."""
        system.fchmod(self._descriptor, mode & 0o777)

    def copy(
        self, source: int, *, umask: int = 0, on_copied: OnBytes = _unheard, on_read: OnBytes = _unheard
    ) -> Checksum:
        """Copy a file's bytes, mode and times; flush, read back, and return the SHA-256.

        Only the permissions of the mode are copied, less the ``umask``.
        Raises `NotWritable` if the bytes read back are not those that were written.
        """
        hasher = new_hasher("sha256")
        figures = os.fstat(source)
        read_ahead(source)
        at = 0
        has_holes = system.allocated_bytes(figures) < figures.st_size
        while block := system.pread(source, STRIDE_BYTES, at):
            hasher.update(block)
            if has_holes:
                self._write_sparse(block)
            else:
                self.write(block)
            at += len(block)
            on_copied(at)
        if has_holes:
            os.ftruncate(self._descriptor, at)
        with suppress(OSError):  # a file system may have neither modes nor times
            system.fchmod(self._descriptor, figures.st_mode & 0o777 & ~umask)
            system.utime(self._descriptor, ns=(figures.st_atime_ns, figures.st_mtime_ns))
        sync(self._descriptor)
        read_again(self._descriptor)
        written = Checksum("sha256", hasher.hexdigest())
        if digest_of(self._descriptor, on_read) != written:
            raise NotWritable(safe_text(self._final), "what was written is not what is read back: the disk is failing")
        return written

    def publish(self, *, replace: bool = False) -> None:
        """Give the draft its name, durably. Raises `FileExistsError` if the name is taken, unless ``replace``."""
        sync(self._descriptor)
        if replace:
            system.rename(self._name, self._final, folder=self._folder, into=self._folder)
        else:
            rename_new(self._folder, self._name, self._final)
        self._is_published = True
        sync(self._folder)


def remove_dead_draft(folder: int, name: str) -> None:
    """Unlink a draft that a dead process left behind. Raises `Locked` if its owner is alive."""
    try:
        descriptor = system.open_descriptor(draft_name(name), _READ, dir_fd=folder)
    except FileNotFoundError:
        return
    try:
        lock(descriptor, name)
        with suppress(FileNotFoundError):
            system.unlink(draft_name(name), dir_fd=folder)
    finally:
        os.close(descriptor)


def write_file(folder: int, name: str, data: bytes) -> None:
    """Replace a small file as a whole and flush it to the disk; a reader sees the old or the new one."""
    with Draft(folder, name) as draft:
        with suppress(FileNotFoundError):
            draft.set_mode(system.stat(name, dir_fd=folder).st_mode)
        draft.write(data)
        draft.publish(replace=True)

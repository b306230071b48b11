"""Copies a stretch of one file to the same place in another: shared by the file system where it can, else copied."""

from __future__ import annotations

import errno
import os

from grym_fetch.core.ranges import ByteRange

_BLOCK_BYTES = 4 * 1024 * 1024
_NOT_HERE = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF})
"""What a system answers that cannot copy between these two files by itself."""


def copy_range(source: int, target: int, stretch: ByteRange) -> bool:
    """Copy a stretch. False if the source ends before it does, or cannot be read; other errors are raised.

    Where the file system can (Btrfs, XFS), both then share the blocks, and this takes no space.
    """
    at = _copy_in_kernel(source, target, stretch)
    while at < stretch.stop:
        try:
            block = os.pread(source, min(_BLOCK_BYTES, stretch.stop - at), at)
        except OSError:
            return False
        if not block:
            return False
        view = memoryview(block)
        while view:
            count = os.pwrite(target, view, at)
            view, at = view[count:], at + count
    return True


def _copy_in_kernel(source: int, target: int, stretch: ByteRange) -> int:
    """Copy as far as the kernel does; return where that ended."""
    at = stretch.start
    try:
        while at < stretch.stop:
            count = os.copy_file_range(source, target, stretch.stop - at, at, at)
            if not count:
                break
            at += count
    except OSError as error:
        if error.errno not in _NOT_HERE | {errno.EIO}:
            raise
    return at

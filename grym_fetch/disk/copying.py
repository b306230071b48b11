"""Copies a stretch of one file to the same place in another: shared by the file system where it can, else copied."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence

from grym_fetch.core.journal import Piece
from grym_fetch.core.ranges import ByteRange
from grym_fetch.disk.folders import write_at
from grym_fetch.runtime import system
from grym_fetch.runtime.system import copy_in_kernel

_BLOCK_BYTES = 4 * 1024 * 1024
SEED_BYTES = 64 * 1024 * 1024
"""Bytes copied from a damaged file at a time."""
_NOT_HERE = frozenset(
    {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EPERM, errno.EBADF}
)
"""What a system answers that cannot copy between these two files by itself."""


def batches(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """Some pieces at a time, so that copying them can be cancelled in between."""
    some: list[Piece] = []
    for piece in pieces:
        some.append(piece)
        if piece.stop - some[0].start >= SEED_BYTES:
            yield some
            some = []
    if some:
        yield some


def runs(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """The pieces that follow each other, together: a file system shares whole stretches."""
    run: list[Piece] = []
    for piece in pieces:
        if run and run[-1].stop != piece.start:
            yield run
            run = []
        run.append(piece)
    if run:
        yield run


def copy_range(source: int, target: int, stretch: ByteRange) -> bool:
    """Copy a stretch. False if the source ends before it does, or cannot be read; other errors are raised.

    Where the file system can (Btrfs, XFS), both then share the blocks, and this takes no space.
    """
    at = _copy_in_kernel(source, target, stretch)
    while at < stretch.stop:
        try:
            block = system.pread(source, min(_BLOCK_BYTES, stretch.stop - at), at)
        except OSError:
            return False
        if not block:
            return False
        write_at(target, block, at)
        at += len(block)
    return True


def _copy_in_kernel(source: int, target: int, stretch: ByteRange) -> int:
    """Copy as far as the kernel does; return where that ended."""
    at = stretch.start
    try:
        while at < stretch.stop:
            count = copy_in_kernel(source, target, stretch.stop - at, at)
            if not count:
                break
            at += count
    except OSError as error:
        if error.errno not in _NOT_HERE | {errno.EIO}:
            raise
    return at

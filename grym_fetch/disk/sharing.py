"""Gives the bytes of one file to another without copying them, where the file system can.

Rules: a reflink is tried first, then a hard link, then a copy. A hard link is read-only, because whoever writes through
one name changes the file of all; so a writable file that has another name already is copied. The source is used through
the descriptor that was judged: if its name refers to another file by now, or its signature changes meanwhile, what was
made is removed.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from grym_fetch.core.events import LinkMode
from grym_fetch.core.ranges import ByteRange
from grym_fetch.core.text import safe_text
from grym_fetch.disk.copying import copy_range
from grym_fetch.disk.folders import close_each, is_at, open_regular, require_space
from grym_fetch.disk.verified import FileSignature, ReplacedMeanwhile
from grym_fetch.runtime import system

WRITE_BITS = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
READ_BITS = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH
_NO_REFLINK = frozenset(
    {
        errno.EOPNOTSUPP,
        errno.ENOTSUP,
        errno.EXDEV,
        errno.EINVAL,
        errno.ENOTTY,
        errno.ENOSYS,
        errno.EPERM,
        errno.EACCES,
        errno.ETXTBSY,
    }
)
_NO_LINK = frozenset(
    # EPERM and EACCES: no hard links here, or the file is another user's (fs.protected_hardlinks, sysctl fs(5)).
    {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.ENOENT}
)


@dataclass(frozen=True, slots=True)
class OpenFile:
    """An open file, the open folder that it was found in, and its name there. ``path`` is for messages."""

    folder: int
    name: str
    descriptor: int
    path: Path

    @classmethod
    def opened(cls, path: Path, *, follow: bool = False) -> Self:
        """Open a file to take its bytes. ``follow``: also through symlinks. Raises ``OSError``."""
        place = Path(os.path.realpath(path)) if follow else path
        folder = system.open_descriptor(place.parent, os.O_RDONLY | system.O_DIRECTORY)
        return cls.at(folder, place.name, place)

    @classmethod
    def at(cls, folder: int, name: str, path: Path) -> Self:
        """Open a file in an open folder, which then belongs to the source. Raises ``OSError``; the folder is closed."""
        try:
            return cls(folder, name, open_regular(name, folder), path)
        except BaseException:
            close_each(folder)
            raise

    @property
    def signature(self) -> FileSignature:
        """The file's signature now."""
        return FileSignature.of(os.fstat(self.descriptor))

    def close(self) -> None:
        """Close the file and its folder."""
        close_each(self.descriptor, self.folder)


@dataclass(frozen=True, slots=True)
class Shared:
    """What was made: a descriptor of it, and how."""

    descriptor: int
    link: LinkMode


def modes_from(choice: str, *, may_link: bool = True) -> tuple[LinkMode, ...]:
    """What to try, in order. ``choice`` is ``auto`` or a `LinkMode`, behind which there is always the copy."""
    modes = tuple(LinkMode) if choice == "auto" else (LinkMode(choice), LinkMode.COPY)
    return tuple(dict.fromkeys(mode for mode in modes if may_link or mode is not LinkMode.HARDLINK))


def share(
    source: OpenFile, expected: FileSignature, folder: int, name: str, modes: Sequence[LinkMode], *, room: Path
) -> Shared:
    """Make a new file in ``folder`` with the bytes that the source had when it had the ``expected`` signature.

    It is not flushed. ``room``: a folder on its file system, which must have space for a copy. Raises ``OSError``,
    `DiskFull`, and `ReplacedMeanwhile` if the source was changed; nothing is left behind then.
    """
    for mode in modes:
        if source.signature != expected:
            break
        made = _MAKERS[mode](source, folder, name, room)
        after = source.signature
        if mode is LinkMode.HARDLINK:
            # A link, even one that was taken back, changes the time of the last change of state, and nothing else.
            expected = expected._replace(ctime_ns=after.ctime_ns)
        if made is None:
            continue
        if after == expected:
            return Shared(made, mode)
        close_each(made)
        system.unlink(name, dir_fd=folder)
        break
    else:
        raise OSError(errno.EOPNOTSUPP, "cannot be shared in any of the ways allowed", str(source.path))
    raise ReplacedMeanwhile(safe_text(str(source.path)), "somebody else changed this file while it was taken")


def _reflink(source: OpenFile, folder: int, name: str, _: Path) -> int | None:
    made = _new(folder, name)
    try:
        system.clone(made, source.descriptor)
    except OSError as error:
        _undo(made, folder, name)
        if error.errno in _NO_REFLINK:
            return None
        raise
    return made


def _hard_link(source: OpenFile, folder: int, name: str, _: Path) -> int | None:
    try:
        system.link(source.name, name, src_dir_fd=source.folder, dst_dir_fd=folder)
    except OSError as error:
        if error.errno in _NO_LINK:
            return None
        raise
    try:
        figures = os.fstat(source.descriptor)
        # Its owner could make another user's file writable again.
        if is_at(source.descriptor, folder, name) and figures.st_uid == system.user_id():
            mode = stat.S_IMODE(figures.st_mode)
            # A third name is somebody else's, who writes through it: the mode would be taken from that one, too.
            if mode & WRITE_BITS and figures.st_nlink <= 2:
                with suppress(OSError):  # another user's
                    system.fchmod(source.descriptor, mode & ~WRITE_BITS)
            if not os.fstat(source.descriptor).st_mode & WRITE_BITS:
                return os.dup(source.descriptor)
    except BaseException:
        system.unlink(name, dir_fd=folder)
        raise
    system.unlink(name, dir_fd=folder)
    return None


def _copy(source: OpenFile, folder: int, name: str, room: Path) -> int | None:
    size = os.fstat(source.descriptor).st_size
    require_space(room, size)
    made = _new(folder, name)
    try:
        if not copy_range(source.descriptor, made, ByteRange(0, size)):
            raise OSError(errno.EIO, "cannot be read to its end", str(source.path))
    except BaseException:
        _undo(made, folder, name)
        raise
    return made


_MAKERS = {LinkMode.REFLINK: _reflink, LinkMode.HARDLINK: _hard_link, LinkMode.COPY: _copy}


def _new(folder: int, name: str) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | system.O_NOFOLLOW
    return system.open_descriptor(name, flags, 0o666, dir_fd=folder)


def _undo(made: int, folder: int, name: str) -> None:
    close_each(made)
    with suppress(OSError):
        system.unlink(name, dir_fd=folder)

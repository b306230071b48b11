"""Folders, opened through descriptors so that no part of a path can be swapped, and operations on descriptors.

Rules: no symlink is followed below the assets folder; every part of a path is opened from its parent's descriptor.
`storage_errors` turns an ``OSError`` into one of our errors, with the path that it is about.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from grym_fetch.core.errors import DiskFull, GrymFetchError, NotWritable, StorageError, UnsafePath
from grym_fetch.core.figures import lacking
from grym_fetch.core.text import safe_text
from grym_fetch.runtime import system

log = logging.getLogger(__name__)

_MAX_LINE_BYTES = 64 * 1024
_CUT = b"\0"
_READ_BYTES = 1024 * 1024
RESERVE_BYTES = 1024 * 1024
"""Bytes kept free for journals and folders when space is counted."""

NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | system.O_NOFOLLOW
"""Flags to create a file for writing; fails if it exists."""
FILE = os.O_RDONLY | system.O_NOFOLLOW | system.O_NONBLOCK | system.O_NOCTTY
"""Flags to open a file that others may have put there: follows no link, waits for no pipe. Check its type."""
FOLDER = os.O_RDONLY | system.O_DIRECTORY | system.O_NOFOLLOW
"""Flags to open a folder, but not through a symlink."""
# The errors of file systems that have no fsync for this kind of file (SMB, some FUSE).
_SYNC_UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY})
_CANNOT_FLUSH: set[int] = set()
"""The devices for which this was already logged."""
_FULL = {
    errno.ENOSPC: "no space left on the device",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is larger than this file system or limit allows",
}
_NO_INODES = "no inodes left: the file system can hold no more files, though it may have space; delete some (see df -i)"
_UNSAFE = {
    errno.ELOOP: "a symlink is in the way, and none is followed here",
    errno.ENOTDIR: "something on the way is not a folder",
    errno.EISDIR: "a folder is in the way",
    errno.ENXIO: "something that is neither a file nor a folder is in the way",
    errno.ENAMETOOLONG: "the name is too long for this file system",
}
_ADVICE = {
    errno.ENOSPC: "free some space, and run the command again: nothing is lost, and it goes on from there",
    errno.EDQUOT: "free some space, and run the command again: nothing is lost, and it goes on from there",
}


def file_path(folder: str, local_path: str) -> str:
    """The path of a file in a folder, in this system's spelling. As text: joining paths takes ten times as long."""
    return f"{folder}/{local_path}" if os.sep == "/" else os.path.join(folder, local_path.replace("/", os.sep))


def path_from(folder: str | Path, path: str | Path) -> str:
    """A path as seen from a folder; a full one if there is none, as for another drive of Windows."""
    try:
        return os.path.relpath(path, folder)
    except ValueError:
        return os.path.abspath(path)


@contextmanager
def storage_errors(path: object) -> Iterator[None]:
    """Turn any ``OSError`` raised in the block into a `StorageError` about ``path``."""
    try:
        yield
    except GrymFetchError:
        raise
    except OSError as error:
        raise storage_error(error, path) from error


def storage_error(error: OSError, path: object) -> StorageError:
    """Return our error for one from the operating system."""
    number = error.errno or 0
    shown = safe_text(str(path))
    if number == errno.ENOSPC and not _has_inodes(path):
        return DiskFull(shown, _NO_INODES)
    if number in _FULL:
        advice = _ADVICE.get(number)
        return DiskFull(shown, _FULL[number] + (f"; {advice}" if advice else ""))
    if number in _UNSAFE:
        return UnsafePath(shown, _UNSAFE[number])
    return NotWritable(shown, f"cannot use this path: {os.strerror(number).lower()}")


def _has_inodes(path: object) -> bool:
    """Whether the file system of this path, which need not exist, has inodes left for new files."""
    for place in (Path(str(path)), *Path(str(path)).parents):
        with suppress(OSError, ValueError):
            return system.has_inodes(place)
    return True


def sync(descriptor: int, *, data_only: bool = False) -> None:
    """Flush a file or folder to the disk. If the file system cannot do that, log it once and go on.

    An error is never retried: after a failed fsync the kernel may have dropped the data and call it clean.
    """
    try:
        system.flush(descriptor, data_only=data_only)
    except OSError as error:
        if error.errno not in _SYNC_UNSUPPORTED:
            raise
        device = os.fstat(descriptor).st_dev
        if device not in _CANNOT_FLUSH:
            _CANNOT_FLUSH.add(device)
            log.warning("this file system cannot flush to the disk on demand (%s)", os.strerror(error.errno or 0))


def write_all(descriptor: int, data: bytes | bytearray | memoryview) -> None:
    """Write all of it: one call may write only a part."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def write_at(descriptor: int, data: bytes | bytearray | memoryview, at: int) -> None:
    """Write all of it there: one call may write only a part."""
    view = memoryview(data)
    while view:
        count = system.pwrite(descriptor, view, at)
        view, at = view[count:], at + count


def read_into(descriptor: int, memory: memoryview, start: int) -> int:
    """Fill the memory from ``start`` on, as far as there are bytes; return how many there were."""
    at = 0
    while at < len(memory) and (count := system.preadv(descriptor, memory[at:], start + at)):
        at += count
    return at


def close_each(*descriptors: int) -> None:
    """Close these; if one fails, log it and close the others. The failed one is closed all the same (close(2)).

    For descriptors that nothing depends on any longer: whatever had to be durable was flushed before.
    """
    for descriptor in descriptors:
        try:
            os.close(descriptor)
        except OSError as error:
            log.warning("closing a file failed: %s", os.strerror(error.errno or 0))


def remove_tree(above: int, name: str) -> None:
    """Remove a folder of ours from an open one as far as possible; `prune` removes the rest."""
    with suppress(OSError):  # from a failed close, which rmtree does not ignore
        system.rmtree(name, ignore_errors=True, dir_fd=above)


def make_root(root: Path) -> None:
    """Make the folder ``root`` and those above it, and flush its parent even if the folder existed already.

    Whoever made it may not have flushed that: then a file in it that was reported as done could be lost with it.
    """
    missing = [root]
    while not os.path.exists(missing[-1].parent):
        missing.append(missing[-1].parent)
    for folder in reversed(missing):
        if os.path.islink(folder) and not os.path.exists(folder):
            raise UnsafePath(safe_text(str(folder)), "this is a symlink that leads nowhere; create its target")
        folder.mkdir(exist_ok=True)
        try:
            above = system.open_descriptor(folder.parent, os.O_RDONLY | system.O_DIRECTORY)
        except PermissionError:
            continue  # a folder that may be entered but not read cannot be flushed either
        try:
            sync(above)
        finally:
            os.close(above)


def open_folder(
    root: Path, parts: tuple[str, ...], *, create: bool, flushed: set[tuple[str, ...]] | None = None
) -> int:
    """Return a descriptor of the folder ``root/parts``. ``root`` itself may be reached through symlinks.

    When a folder is made, its parent is flushed, so that a file renamed into the folder is not lost with it. With
    ``flushed``, which remembers the folders done so far, this is done for existing ones too: whoever made one may not
    have flushed its parent yet.
    """
    if create and not root.is_dir():
        make_root(root)
    here = system.open_descriptor(root, os.O_RDONLY | system.O_DIRECTORY)
    try:
        for depth, part in enumerate(parts):
            made = False
            try:
                below = open_child(here, part)
            except FileNotFoundError:
                if not create:
                    raise
                try:
                    system.mkdir(part, dir_fd=here)
                    made = True
                except FileExistsError:
                    pass  # another process was faster
                below = open_child(here, part)
            above, here = here, below
            try:
                if made or (flushed is not None and parts[: depth + 1] not in flushed):
                    sync(above)
                if flushed is not None:
                    flushed.add(parts[: depth + 1])
            finally:
                os.close(above)
    except BaseException:
        os.close(here)
        raise
    return here


def open_child(above: int, name: str) -> int:
    """Return a descriptor of a folder in an open one, never through a symlink."""
    try:
        return system.open_descriptor(name, FOLDER, dir_fd=above)
    except NotADirectoryError:
        # O_NOFOLLOW with O_DIRECTORY reports a symlink as ENOTDIR; tell the two apart for the message.
        if stat.S_ISLNK(system.stat(name, dir_fd=above, follow_symlinks=False).st_mode):
            raise OSError(errno.ELOOP, "symlink", name) from None
        raise


def open_below(above: int, parts: Sequence[str]) -> int:
    """Return a descriptor of a folder below an open one, or a new one of that folder itself; through no symlink."""
    here = os.dup(above)
    for part in parts:
        try:
            below = open_child(here, part)
        finally:
            os.close(here)
        here = below
    return here


@contextmanager
def opened_folder(path: Path) -> Iterator[int]:
    """Open a folder that the user has named, through symlinks too, for the length of the block."""
    descriptor = system.open_descriptor(path, os.O_RDONLY | system.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def check_destination(root: Path, local_path: str) -> None:
    """Raise `UnsafePath` if a file cannot be put there because a folder, a device or a symlink is in the way.

    Raise `NotWritable` if this user may not create anything in its folder, or in the nearest one above that exists.
    """
    *parents, name = local_path.split("/")
    target = root / local_path
    with storage_errors(target):
        folder = _open_usable(root, parents)
        if folder is None:
            return
        try:
            mode = system.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return
        finally:
            os.close(folder)
    if stat.S_ISDIR(mode):
        raise UnsafePath(safe_text(str(target)), "a folder is in the way")
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        raise UnsafePath(safe_text(str(target)), "something that is not a file is in the way")


def is_taken(place: Path) -> bool:
    """Whether anything is there, even a dangling symlink."""
    return os.path.lexists(place)


def delete_file(root: Path, local_path: str) -> bool:
    """Delete a file below ``root``; return whether it was there. Follows no symlink on the way."""
    *parents, name = local_path.split("/")
    with storage_errors(root / local_path):
        try:
            folder = open_folder(root, tuple(parents), create=False)
        except FileNotFoundError:
            return False
        try:
            system.unlink(name, dir_fd=folder)
        except FileNotFoundError:
            return False
        finally:
            os.close(folder)
    return True


def check_deletable(root: Path, local_path: str) -> None:
    """Raise the `StorageError` with which `delete_file` would end, as far as that can be known; delete nothing."""
    *parents, name = local_path.split("/")
    with storage_errors(root / local_path):
        try:
            folder = open_folder(root, tuple(parents), create=False)
        except FileNotFoundError:
            return
        try:
            figures = system.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISDIR(figures.st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            _check_writable(folder, root.joinpath(*parents))
        except FileNotFoundError:
            return
        finally:
            os.close(folder)


def closed_folders(root: Path, folders: Iterable[str]) -> set[str]:
    """Return the folders, relative to ``root``, in which nothing can be put: see `check_destination`."""
    closed: set[str] = set()
    for path in folders:
        try:
            with storage_errors(root / path):
                folder = _open_usable(root, path.split("/") if path else [])
        except StorageError:
            closed.add(path)
        else:
            close_each(*(() if folder is None else (folder,)))
    return closed


def _open_usable(root: Path, parents: list[str]) -> int | None:
    """Open a folder that this user may write to; None if it does not exist but the nearest one above it is writable."""
    try:
        folder = open_folder(root, tuple(parents), create=False)
    except FileNotFoundError:
        _check_writable_above(root, parents)
        return None
    try:
        _check_writable(folder, root.joinpath(*parents))
    except BaseException:
        os.close(folder)
        raise
    return folder


def _check_writable_above(root: Path, parents: list[str]) -> None:
    """`_check_writable` for the nearest folder that exists; does nothing if not even the root does."""
    for count in reversed(range(len(parents))):
        with suppress(FileNotFoundError):
            folder = open_folder(root, tuple(parents[:count]), create=False)
            try:
                _check_writable(folder, root.joinpath(*parents[:count]))
            finally:
                os.close(folder)
            return


def _check_writable(folder: int, shown: Path) -> None:
    if system.may_write(folder):
        return
    if system.is_read_only(folder):
        raise storage_error(OSError(errno.EROFS, os.strerror(errno.EROFS)), shown)
    raise NotWritable(safe_text(str(shown)), f"permission denied: {shut_out(os.fstat(folder))}")


def shut_out(figures: os.stat_result) -> str:
    """Why this user may not write to a folder: its owner and its mode."""
    return (
        f"this folder belongs to {user_name(figures.st_uid)} (mode {figures.st_mode & 0o777:o}), and this user may not "
        "write there"
    )


def user_name(number: int) -> str:
    """What to call a user in a message."""
    name = system.user_name(number)
    return f"user {number}" if name is None else f"'{safe_text(name, limit=80)}'"


def exists(folder: int, name: str) -> bool:
    """Whether anything in the folder has this name, even a dangling symlink."""
    try:
        system.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def is_at(descriptor: int, folder: int, name: str) -> bool:
    """Whether this name, or path, in an open folder still refers to the open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), system.stat(name, dir_fd=folder, follow_symlinks=False))
    except OSError:
        return False


def free_bytes(path: Path) -> int:
    """Bytes that this user may still write to the file system of ``path`` or of its nearest existing parent."""
    probe = path
    while not os.path.exists(probe) and probe != probe.parent:  # unlike Path.exists, never raises
        probe = probe.parent
    with storage_errors(path):
        return system.free_bytes(probe)


def usable_bytes(path: Path) -> int:
    """Bytes that can still be written there, less a small reserve."""
    return max(0, free_bytes(path) - RESERVE_BYTES)


def require_space(path: Path, missing: int) -> None:
    """Raise `DiskFull` if ``missing`` bytes do not fit."""
    free = usable_bytes(path)
    if missing > free:
        raise DiskFull(safe_text(str(path)), f"not enough space: {lacking(missing, free)}")


def open_regular(name: str, folder: int | None = None, *, follow: bool = False) -> int:
    """Open a file to read it. Raises ``OSError`` for anything but a regular file; ``follow``: but not for symlinks."""
    flags = os.O_RDONLY | system.O_NONBLOCK | system.O_NOCTTY | (0 if follow else system.O_NOFOLLOW)
    descriptor = system.open_descriptor(name, flags, dir_fd=folder)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        # ENXIO is what open(2) says of a socket.
        raise OSError(errno.EISDIR if stat.S_ISDIR(mode) else errno.ENXIO, "not a file", name)
    return descriptor


def read_regular(name: str, folder: int | None = None, *, limit: int, owner: int | None = None) -> bytes:
    """Read at most ``limit`` bytes of a file that others may have put there. All our small files are read by this.

    Raises ``OSError`` for symlinks, for anything but a regular file, and for a file that does not belong to ``owner``.
    """
    descriptor = open_regular(name, folder)
    try:
        figures = os.fstat(descriptor)
        if owner is not None and figures.st_uid != owner:
            raise PermissionError(errno.EACCES, "belongs to another user", name)
        data = os.read(descriptor, min(figures.st_size, limit))  # usually all of it
        while len(data) < limit and (more := os.read(descriptor, min(_READ_BYTES, limit - len(data)))):
            data += more
        return data
    finally:
        close_each(descriptor)


def read_beginning(file: Path, limit: int) -> tuple[bytes, int]:
    """Return at most ``limit`` bytes of a file, and its size. Raises `StorageError`."""
    with storage_errors(file):
        descriptor = system.open_descriptor(file, os.O_RDONLY | system.O_NONBLOCK)
        try:
            return system.pread(descriptor, limit, 0), os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)


def regular_lines(name: str, folder: int, *, limit: int, owner: int) -> Iterator[bytes]:
    """Yield the lines of a file, as `read_regular` reads it but a block at a time, without their ends.

    What comes after ``limit`` bytes is not read; a line that it cuts is left out. Raises the same, on the first one.
    """
    descriptor = open_regular(name, folder)
    try:
        if os.fstat(descriptor).st_uid != owner:
            raise PermissionError(errno.EACCES, "belongs to another user", name)
        rest = b""
        while limit > 0 and (block := os.read(descriptor, min(_READ_BYTES, limit))):
            limit -= len(block)
            *lines, rest = (rest + block).split(b"\n")
            yield from lines
            if len(rest) > _MAX_LINE_BYTES:
                rest = _CUT  # no line of ours is as long; what is left of it will not be one either
        if rest and limit > 0:
            yield rest
    finally:
        close_each(descriptor)

"""Files and folders that are named in an open folder, on Windows: what ``dir_fd`` is elsewhere.

Python has nothing of the kind there, but the system has: NtCreateFile opens a name in an open folder, and a reparse
point (symlink, junction, …) itself instead of what it leads to; NtSetInformationFile renames, links and removes what is
open. An open folder is a descriptor of the C runtime here as elsewhere, so that ``os.fstat`` and ``os.close`` take it.

Rules: everything that is opened may be renamed and removed by others meanwhile, as on other systems; a name that was
removed is free at once, even if the file is still open somewhere (POSIX semantics, where the file system has them).

Sources: NtCreateFile, NtSetInformationFile, OBJECT_ATTRIBUTES, FILE_RENAME_INFORMATION and
FILE_DISPOSITION_INFORMATION_EX in Microsoft's documentation of the driver kit.
"""

from __future__ import annotations

import ctypes
import errno
import msvcrt
import os
import stat
import sys
import time
from pathlib import Path

assert sys.platform == "win32", "for type checkers: this is the module of another system"

KERNEL = ctypes.WinDLL("kernel32", use_last_error=True)
_NT = ctypes.WinDLL("ntdll")
O_DIRECTORY = 1 << 40
"""Open a folder, and nothing else: a flag that ``os.open`` refuses, and only `open_descriptor` takes."""
O_NOFOLLOW = 1 << 41
"""Do not open a reparse point: only `open_descriptor` takes it."""

_READ, _WRITE = 0x8000_0000, 0x4000_0000
_APPEND = 0x4  # FILE_APPEND_DATA alone: each write goes to the end, whoever else writes
_ADD_NAMES = 0x2 | 0x4  # FILE_ADD_FILE, FILE_ADD_SUBDIRECTORY
_READ_ATTRIBUTES, _WRITE_ATTRIBUTES = 0x80, 0x100
_DELETE, _SYNCHRONIZE = 0x1_0000, 0x10_0000
_LIST, _TRAVERSE = 0x1, 0x20
_SHARE_ALL = 0x7
_OPEN, _CREATE, _OPEN_IF = 1, 2, 3
_IS_FOLDER, _WAITS, _IS_NO_FOLDER, _OPEN_REPARSE_POINT = 0x1, 0x20, 0x40, 0x20_0000
_CASE_INSENSITIVE = 0x40
_RENAME, _LINK, _REMOVE = 10, 11, 13
_RENAME_EX, _REMOVE_EX = 65, 64
_REPLACES, _POSIX, _EVEN_READ_ONLY = 0x1, 0x2, 0x40
_REMOVES, _REMOVES_READ_ONLY = 0x1, 0x10
_NOT_KNOWN = frozenset({1, 50, 87, 124})
"""ERROR_INVALID_FUNCTION, NOT_SUPPORTED, INVALID_PARAMETER, INVALID_LEVEL: an older system, or not NTFS."""
_SHARING = frozenset({5, 32, 33})
"""ERROR_ACCESS_DENIED, SHARING_VIOLATION, LOCK_VIOLATION: somebody, often a scanner, has the file open for a moment."""
_PAUSES_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
_WRONG_KIND = {0xC000_0103: errno.ENOTDIR, 0xC000_00BA: errno.EISDIR, 0xC000_0101: errno.ENOTEMPTY}
"""STATUS_NOT_A_DIRECTORY, FILE_IS_A_DIRECTORY, DIRECTORY_NOT_EMPTY, which the Windows API tells less exactly."""
_LONGEST_PATH = 32_768


class _Name(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("most", ctypes.c_uint16), ("text", ctypes.c_void_p))


class _Attributes(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_uint32),
        ("folder", ctypes.c_void_p),
        ("name", ctypes.POINTER(_Name)),
        ("flags", ctypes.c_uint32),
        ("security", ctypes.c_void_p),
        ("quality", ctypes.c_void_p),
    )


class _Outcome(ctypes.Structure):
    _fields_ = (("status", ctypes.c_void_p), ("information", ctypes.c_void_p))


class _NewName(ctypes.Structure):
    """FILE_RENAME_INFORMATION and FILE_LINK_INFORMATION; the name follows."""

    _fields_ = (("flags", ctypes.c_uint32), ("folder", ctypes.c_void_p), ("length", ctypes.c_uint32))


_NAME_AT = _NewName.length.offset + ctypes.sizeof(ctypes.c_uint32)


def _check(status: int, shown: object) -> None:
    """Raise the ``OSError`` for a status of the kernel."""
    status &= 0xFFFF_FFFF
    if status < 0x8000_0000:
        return
    code = _NT.RtlNtStatusToDosError(ctypes.c_uint32(status))
    error = ctypes.WinError(code)
    if (number := _WRONG_KIND.get(status)) is not None:
        raise OSError(number, error.strerror, str(shown))
    error.filename = str(shown)
    raise error


def _full(path: str | Path) -> str:
    """The kernel's own spelling of a path, which may be longer than 260 characters."""
    full = os.path.abspath(path)
    if full.startswith("\\\\?\\"):
        return "\\??\\" + full[4:]
    return "\\??\\UNC\\" + full[2:] if full.startswith("\\\\") else "\\??\\" + full


def _native(path: str | Path, folder: int | None) -> tuple[int | None, str]:
    """The handle of an open folder, and a path in it; or None and a full path."""
    if folder is None:
        return None, _full(path)
    name = os.fspath(path).replace("/", "\\")
    return msvcrt.get_osfhandle(folder), "" if name == "." else name


def _open(path: str | Path, folder: int | None, access: int, *, how: int = _OPEN, options: int = 0) -> int:
    """Return a handle. Raises ``OSError``."""
    above, name = _native(path, folder)
    text = ctypes.create_unicode_buffer(name)
    length = len(name.encode("utf-16-le", "surrogatepass"))
    if length > 0xFFFC:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), str(path))
    wanted = _Attributes(
        size=ctypes.sizeof(_Attributes),
        folder=above,
        name=ctypes.pointer(_Name(length, length + 2, ctypes.addressof(text))),
        flags=_CASE_INSENSITIVE,
    )
    handle, outcome = ctypes.c_void_p(), _Outcome()
    status = _NT.NtCreateFile(
        ctypes.byref(handle),
        ctypes.c_uint32(access | _SYNCHRONIZE),
        ctypes.byref(wanted),
        ctypes.byref(outcome),
        None,
        ctypes.c_uint32(stat.FILE_ATTRIBUTE_NORMAL),
        ctypes.c_uint32(_SHARE_ALL),
        ctypes.c_uint32(how),
        ctypes.c_uint32(options | _WAITS),
        None,
        ctypes.c_uint32(0),
    )
    _check(status, path)
    assert handle.value is not None
    return handle.value


def _descriptor(handle: int, flags: int) -> int:
    try:
        return msvcrt.open_osfhandle(handle, flags | os.O_BINARY | os.O_NOINHERIT)
    except OSError:
        KERNEL.CloseHandle(ctypes.c_void_p(handle))
        raise


def _is_reparse_point(descriptor: int) -> bool:
    return bool(os.fstat(descriptor).st_file_attributes & stat.FILE_ATTRIBUTE_REPARSE_POINT)


def open_descriptor(path: str | Path, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
    """Open a file or folder; with `O_NOFOLLOW` not a reparse point. ``mode`` says nothing here. Raises ``OSError``."""
    del mode
    access = {os.O_RDONLY: _READ, os.O_WRONLY: _WRITE, os.O_RDWR: _READ | _WRITE}[flags & 3]
    if flags & os.O_APPEND:
        access = access & _READ | _APPEND | _READ_ATTRIBUTES | _WRITE_ATTRIBUTES
    options = 0 if access == _READ else _IS_NO_FOLDER
    if flags & O_DIRECTORY:
        access, options = _LIST | _TRAVERSE | _READ_ATTRIBUTES, _IS_FOLDER
    if flags & O_NOFOLLOW:
        options |= _OPEN_REPARSE_POINT
    how = _OPEN if not flags & os.O_CREAT else _CREATE if flags & os.O_EXCL else _OPEN_IF
    descriptor = _descriptor(_open(path, dir_fd, access, how=how, options=options), flags & os.O_APPEND)
    try:
        if flags & O_NOFOLLOW and _is_reparse_point(descriptor):
            raise OSError(errno.ELOOP, "a reparse point is in the way", str(path))
        if flags & os.O_TRUNC:
            os.ftruncate(descriptor, 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def place_of(folder: int) -> str:
    """The path of an open folder, wherever it is by now. Raises ``OSError``."""
    text = ctypes.create_unicode_buffer(_LONGEST_PATH)
    handle = ctypes.c_void_p(msvcrt.get_osfhandle(folder))
    if not KERNEL.GetFinalPathNameByHandleW(handle, text, _LONGEST_PATH, 0):
        raise ctypes.WinError(ctypes.get_last_error())
    return text.value


def stat_in(name: str | Path, *, dir_fd: int | None, follow_symlinks: bool = True) -> os.stat_result:
    """What is known of something in an open folder. Raises ``OSError``."""
    options = 0 if follow_symlinks else _OPEN_REPARSE_POINT
    descriptor = _descriptor(_open(name, dir_fd, _READ_ATTRIBUTES, options=options), 0)
    try:
        # Only lstat says what kind of reparse point it is.
        return os.lstat(place_of(descriptor)) if _is_reparse_point(descriptor) else os.fstat(descriptor)
    finally:
        os.close(descriptor)


def listdir(folder: int) -> list[str]:
    """What is in an open folder. Raises ``OSError``."""
    return os.listdir(place_of(folder))


def mkdir(name: str, mode: int = 0o777, *, dir_fd: int) -> None:
    """Make a folder in an open one; who may use it is inherited, whatever ``mode`` says. Raises ``OSError``."""
    del mode
    os.close(_descriptor(_open(name, dir_fd, _LIST, how=_CREATE, options=_IS_FOLDER), 0))


def unlink(name: str, *, dir_fd: int | None) -> None:
    """Remove a file or a link from an open folder. Raises ``OSError``."""
    _remove(name, dir_fd, is_folder=False)


def rmdir(name: str, *, dir_fd: int) -> None:
    """Remove an empty folder from an open one. Raises ``OSError``."""
    _remove(name, dir_fd, is_folder=True)


def _remove(name: str, folder: int | None, *, is_folder: bool) -> None:
    handle = _open(name, folder, _DELETE | _READ_ATTRIBUTES, options=_OPEN_REPARSE_POINT)
    descriptor = _descriptor(handle, 0)
    try:
        if (stat.S_ISDIR(os.fstat(descriptor).st_mode) and not _is_reparse_point(descriptor)) != is_folder:
            number = errno.ENOTDIR if is_folder else errno.EISDIR
            raise OSError(number, os.strerror(number), name)
        try:
            _set(handle, _REMOVE_EX, ctypes.c_uint32(_REMOVES | _POSIX | _REMOVES_READ_ONLY), name)
        except OSError as error:
            if error.winerror not in _NOT_KNOWN:
                raise
            _set(handle, _REMOVE, ctypes.c_uint8(1), name)
    finally:
        os.close(descriptor)


def _set(handle: int, kind: int, value: ctypes._SimpleCData[int] | ctypes.Array[ctypes.c_char], shown: str) -> None:
    outcome = _Outcome()
    status = _NT.NtSetInformationFile(
        ctypes.c_void_p(handle),
        ctypes.byref(outcome),
        ctypes.byref(value),
        ctypes.c_uint32(ctypes.sizeof(value)),
        ctypes.c_uint32(kind),
    )
    _check(status, shown)


def _named(kind: int, flags: int, handle: int, name: str | Path, folder: int | None) -> None:
    above, path = _native(name, folder)
    text = path.encode("utf-16-le", "surrogatepass")
    head = bytes(_NewName(flags=flags, folder=above, length=len(text)))[:_NAME_AT]
    record = ctypes.create_string_buffer(head + text, max(_NAME_AT + len(text), ctypes.sizeof(_NewName)))
    _set(handle, kind, record, str(name))


def rename(source: str | Path, target: str | Path, *, folder: int | None = None, into: int | None = None) -> None:
    """Rename in one step, over a file that is there, and even if somebody has it open. Raises ``OSError``.

    Where the file system cannot replace an open file (FAT, some network ones), it is tried again for a second.
    """
    for pause in (*_PAUSES_S, None):
        try:
            _rename(source, target, folder, into)
        except PermissionError as error:
            if pause is None or error.winerror not in _SHARING:
                raise
            time.sleep(pause)
        else:
            return


def _rename(source: str | Path, target: str | Path, folder: int | None, into: int | None) -> None:
    handle = _open(source, folder, _DELETE | _READ_ATTRIBUTES, options=_OPEN_REPARSE_POINT)
    descriptor = _descriptor(handle, 0)
    try:
        try:
            _named(_RENAME_EX, _REPLACES | _POSIX | _EVEN_READ_ONLY, handle, target, into)
        except OSError as error:
            if error.winerror not in _NOT_KNOWN:
                raise
            _named(_RENAME, 1, handle, target, into)
    finally:
        os.close(descriptor)


def link(old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
    """Give a file in an open folder a second name in another one. Raises ``OSError``."""
    handle = _open(old, src_dir_fd, _WRITE_ATTRIBUTES | _READ_ATTRIBUTES, options=_OPEN_REPARSE_POINT)
    descriptor = _descriptor(handle, 0)
    try:
        _named(_LINK, 0, handle, new, dst_dir_fd)
    finally:
        os.close(descriptor)


def symlink(target: str, name: str, *, dir_fd: int) -> None:
    """Make a symlink in an open folder; few users may. Raises ``OSError``."""
    os.symlink(target.replace("/", "\\"), os.path.join(place_of(dir_fd), name.replace("/", "\\")))


def readlink(name: str, *, dir_fd: int) -> str:
    """Where a symlink in an open folder leads, with slashes. Raises ``OSError``."""
    return os.readlink(os.path.join(place_of(dir_fd), name.replace("/", "\\"))).replace("\\", "/")


def opened_again(folder: int, access: int) -> int:
    """An open folder once more, for another kind of access; a descriptor. Raises ``OSError``."""
    return _descriptor(_open(".", folder, access, options=_IS_FOLDER), 0)


def may_write(folder: int) -> bool:
    """Whether this process may make names in an open folder."""
    try:
        os.close(opened_again(folder, _ADD_NAMES))
    except PermissionError:
        return False
    return True

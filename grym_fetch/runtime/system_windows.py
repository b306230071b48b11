"""What `system` offers, on Windows. See there; what names files in open folders is in `windows_folders`.

Sources: ReadFile, WriteFile, SetFileTime, LockFileEx, PeekNamedPipe and NtQuerySystemInformation in the Windows API.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import hashlib
import msvcrt
import os
import select
import shutil
import signal
import socket
import stat as modes
import sys
import threading
import time
import winreg
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from pathlib import Path

from grym_fetch.runtime.process_start import process_start

if sys.platform == "win32":  # for type checkers: on other systems, these modules are empty to them
    from grym_fetch.runtime.windows_access import is_private
    from grym_fetch.runtime.windows_folders import (
        KERNEL,
        O_DIRECTORY,
        O_NOFOLLOW,
        link,
        listdir,
        may_write,
        mkdir,
        open_descriptor,
        open_lock,
        place_of,
        readlink,
        rename,
        rmdir,
        symlink,
        unlink,
    )
    from grym_fetch.runtime.windows_folders import stat_in as stat

__all__ = [
    "O_DIRECTORY",
    "O_NOFOLLOW",
    "is_private",
    "link",
    "listdir",
    "may_write",
    "mkdir",
    "open_descriptor",
    "open_lock",
    "process_start",
    "readlink",
    "rename",
    "rmdir",
    "stat",
    "symlink",
    "unlink",
]

assert sys.platform == "win32", "for type checkers: this is the module of another system"

MAX_OPEN_FILES = 8192
"""``_setmaxstdio`` of the C runtime takes no more."""
HAS_MODES = False
RENAMES_OPEN_FOLDERS = False
O_NONBLOCK = 0
O_NOCTTY = 0
_LOCKED_BYTE = 0x7FFF_0000
"""Locks here keep others from reading: lock a byte far behind all content of a lock file."""
_EXCLUSIVE, _AT_ONCE = 0x2, 0x1
_END_OF_FILE = 38
_ACCESS_DENIED = 5
_EPOCH = 116_444_736_000_000_000
"""1970 in steps of 100 ns since 1601."""
_PIPE_PAUSE_S = 0.01
_SOCKET_WORDS = {
    1225: "connection refused", 10061: "connection refused",
    121: "connection timed out", 10060: "connection timed out",
    1231: "network is unreachable", 10051: "network is unreachable",
    1232: "no route to host", 10065: "no route to host",
    64: "connection reset by peer", 10054: "connection reset by peer",
    1236: "software caused connection abort", 10053: "software caused connection abort",
}  # fmt: skip
"""Each by its number in the Windows API and by that in Winsock."""
_MACHINE = r"SOFTWARE\Microsoft\Cryptography"
_TIME_OF_DAY = 3
_BOOT_DIGITS = 16
_alarm: threading.Timer | None = None
_end: Callable[..., object] | None = None


def rmtree(name: str, *, ignore_errors: bool = False, dir_fd: int) -> None:
    """Remove a folder from an open one, and all in it, through no reparse point. Raises ``OSError``."""
    with suppress(OSError) if ignore_errors else nullcontext():
        for _, folders, files, here in fwalk(name, dir_fd):
            for each in files:
                with suppress(OSError) if ignore_errors else nullcontext():
                    unlink(each, dir_fd=here)
            for each in folders:
                with suppress(OSError) if ignore_errors else nullcontext():
                    rmdir(each, dir_fd=here)
        rmdir(name, dir_fd=dir_fd)


def fwalk(name: str, above: int) -> Iterator[tuple[str, list[str], list[str], int]]:
    """Walk through a folder in an open one, from below, as ``os.fwalk`` does: through no reparse point."""
    here = open_descriptor(name, os.O_RDONLY | O_DIRECTORY | O_NOFOLLOW, dir_fd=above)
    try:
        folders: list[str] = []
        files: list[str] = []
        for each in listdir(here):
            is_folder = modes.S_ISDIR(stat(each, dir_fd=here, follow_symlinks=False).st_mode)
            (folders if is_folder else files).append(each)
        for each in folders:
            for path, inner, leaves, there in fwalk(each, here):
                yield f"{name}/{path}", inner, leaves, there
        yield name, folders, files, here
    finally:
        os.close(here)


class _Overlapped(ctypes.Structure):
    """Where to read or write, whatever the file's own position is."""

    _fields_ = (
        ("status", ctypes.c_void_p),
        ("count", ctypes.c_void_p),
        ("low", ctypes.c_uint32),
        ("high", ctypes.c_uint32),
        ("event", ctypes.c_void_p),
    )


def _transfer(call: str, descriptor: int, memory: memoryview, at: int) -> int:
    """Call ReadFile or WriteFile there. The file's own position ends up behind."""
    if not memory:
        return 0
    where, count = _Overlapped(low=at & 0xFFFF_FFFF, high=at >> 32), ctypes.c_uint32()
    first = (ctypes.c_char * len(memory)).from_buffer(memory)
    handle = ctypes.c_void_p(msvcrt.get_osfhandle(descriptor))
    many = ctypes.c_uint32(len(memory))
    if not getattr(KERNEL, call)(handle, first, many, ctypes.byref(count), ctypes.byref(where)):
        if (code := ctypes.get_last_error()) == _END_OF_FILE:
            return 0
        raise ctypes.WinError(code)
    return count.value


def pread(descriptor: int, count: int, at: int) -> bytes:
    """Read up to ``count`` bytes there; the position moves."""
    memory = bytearray(count)
    return bytes(memoryview(memory)[: _transfer("ReadFile", descriptor, memoryview(memory), at)])


def preadv(descriptor: int, memory: memoryview, at: int) -> int:
    """Fill the memory with bytes from there, or a part of it; return how many these are. The position moves."""
    return _transfer("ReadFile", descriptor, memory, at)


def pwrite(descriptor: int, data: memoryview | bytes, at: int) -> int:
    """Write some of it there; the position moves."""
    memory = memoryview(data)
    return _transfer("WriteFile", descriptor, memoryview(bytearray(data)) if memory.readonly else memory, at)


def utime(descriptor: int, *, ns: tuple[int, int]) -> None:
    """Set when an open file was read and written last, in steps of 100 ns (SetFileTime). Raises ``OSError``."""
    read, written = (ctypes.c_uint64(each // 100 + _EPOCH) for each in ns)
    handle = ctypes.c_void_p(msvcrt.get_osfhandle(descriptor))
    if not KERNEL.SetFileTime(handle, None, ctypes.byref(read), ctypes.byref(written)):
        raise ctypes.WinError(ctypes.get_last_error())


def words_for(error: OSError) -> str:
    """What an error is called by its number; Python has no words for those of sockets here, and others differ.

    A library that passes an error on in one of its own keeps the number of Windows in the first one only.
    """
    first = error.__cause__ if isinstance(error.__cause__, OSError) else error
    return _SOCKET_WORDS.get(first.winerror or error.errno or 0) or os.strerror(error.errno or 0)


def lock(descriptor: int) -> None:
    """Lock an open file as long as it is open, without waiting: EACCES if somebody else has it. Raises ``OSError``."""
    where = _Overlapped(low=_LOCKED_BYTE)
    handle = ctypes.c_void_p(msvcrt.get_osfhandle(descriptor))
    if not KERNEL.LockFileEx(handle, _EXCLUSIVE | _AT_ONCE, 0, 1, 0, ctypes.byref(where)):
        raise ctypes.WinError(ctypes.get_last_error())


def fchmod(descriptor: int, mode: int) -> None:
    """Let nobody write to a file, or whoever may; the rest is said by its folder's access list. Raises ``OSError``."""
    os.chmod(place_of(descriptor), mode)


def fchown(descriptor: int, user: int, group: int) -> None:
    """Nothing: whose a file is, is said by its access list."""


def user_id() -> int:
    """What ``st_uid`` is for every file here: whose a file is cannot be told by it."""
    return 0


def user_name(number: int) -> str | None:  # noqa: ARG001
    """None: users have no numbers here."""
    return None


def free_bytes(path: Path) -> int:
    """Bytes that this user may still write to the volume of ``path``. Raises ``OSError``."""
    return shutil.disk_usage(path).free


def has_inodes(path: Path) -> bool:  # noqa: ARG001
    """NTFS makes room for files as long as there is any."""
    return True


def is_read_only(descriptor: int) -> bool:  # noqa: ARG001
    """Not known; the first write tells."""
    return False


def allocated_bytes(figures: os.stat_result) -> int:
    """The size: how much of it is on the disk is not told with it."""
    return figures.st_size


def is_null_device(figures: os.stat_result) -> bool:  # noqa: ARG001
    """False: devices cannot be told apart here."""
    return False


def file_limits() -> tuple[int | None, int | None]:
    """Without limit: sockets do not count among the files of the C runtime, which are many."""
    return None, None


def allow_files(count: int) -> None:
    """Nothing: there is no limit to raise."""


def memory_limits() -> dict[str, int]:
    """Empty: without limit."""
    return {}


def process_limit() -> int | None:
    """None: without limit."""
    return None


def can_reserve(count: int) -> bool:  # noqa: ARG001
    """True: there is no limit."""
    return True


def has_arrived(sock: int) -> bool:
    """Whether there is something to read from a socket, or its end. Takes sockets of any number here."""
    return bool(select.select([sock], [], [], 0)[0])


def wait_for_output(pipe: int, seconds: float) -> bool:
    """Wait until there is something to read from a pipe, or its end; False if there is nothing in that time."""
    until = time.monotonic() + seconds
    while not (is_over := _is_readable(pipe)) and time.monotonic() < until:
        time.sleep(_PIPE_PAUSE_S)
    return is_over


def _is_readable(pipe: int) -> bool:
    """Ask PeekNamedPipe, as nothing waits for anonymous pipes; it fails when the other end is closed."""
    count = ctypes.c_ulong()
    handle = ctypes.c_void_p(msvcrt.get_osfhandle(pipe))
    asked = KERNEL.PeekNamedPipe(handle, None, 0, None, ctypes.byref(count), None)
    return not asked or count.value > 0


def is_in_foreground(terminal: int) -> bool:  # noqa: ARG001
    """True: a console is not taken from a process."""
    return True


def is_open_for_writing(descriptor: int) -> bool:  # noqa: ARG001
    """False: a file that is open elsewhere cannot be removed here anyway."""
    return False


def lost_its_reader(code: int) -> bool:  # noqa: ARG001
    """False: no exit code says so."""
    return False


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Hold nothing back: Ctrl-C reaches every process of the console."""
    yield


@contextmanager
def when_continued(tell: Callable[[], object]) -> Iterator[None]:  # noqa: ARG001
    """Tell nothing: no process is stopped."""
    yield


def on_end_signals(loop: asyncio.AbstractEventLoop, stop: Callable[[signal.Signals], None]) -> None:
    """Call ``stop`` in the loop at Ctrl-C and Ctrl-Break: loops here take no handlers for signals."""

    def tell(number: int, _: object) -> None:
        loop.call_soon_threadsafe(stop, signal.Signals(number))

    for number in (signal.SIGINT, signal.SIGBREAK):
        signal.signal(number, tell)


def on_alarm(end: Callable[..., object]) -> None:
    """Call ``end`` when the time of `set_alarm` is over, in a thread of its own."""
    global _end
    _end = end


def set_alarm(seconds: float) -> None:
    """Let the alarm of `on_alarm` ring after this many seconds; 0: not at all."""
    global _alarm
    if _alarm is not None:
        _alarm.cancel()
    _alarm = None
    if seconds and _end is not None:
        _alarm = threading.Timer(seconds, _end)
        _alarm.daemon = True
        _alarm.start()


def flush(descriptor: int, *, data_only: bool) -> None:  # noqa: ARG001 - there is one kind of flush
    """Flush a file to the disk (FlushFileBuffers). A folder cannot be flushed, and need not be on NTFS's journal."""
    if modes.S_ISDIR(os.fstat(descriptor).st_mode):
        return
    if _flush(descriptor):
        return
    # It was opened to be read, which is not enough here.
    writing = open_descriptor(place_of(descriptor), os.O_WRONLY | O_NOFOLLOW)
    try:
        if not _flush(writing):
            raise ctypes.WinError(_ACCESS_DENIED)
    finally:
        os.close(writing)


def _flush(descriptor: int) -> bool:
    """Call FlushFileBuffers; False if that is not allowed. Not ``os.fsync``, whose errors do not say so."""
    if KERNEL.FlushFileBuffers(ctypes.c_void_p(msvcrt.get_osfhandle(descriptor))):
        return True
    if (code := ctypes.get_last_error()) != _ACCESS_DENIED:
        raise ctypes.WinError(code)
    return False


def flush_everything() -> bool:
    """Only an administrator can: flush one by one."""
    return False


def read_ahead(descriptor: int) -> None:
    """Nothing: that can only be said when a file is opened."""


def read_again(descriptor: int) -> None:
    """Nothing, as for `read_ahead`."""


def copy_in_kernel(source: int, target: int, count: int, at: int) -> int:  # noqa: ARG001
    """Only whole files can be copied by the system here, so nothing is copied."""
    return 0


def clone(target: int, source: int) -> None:  # noqa: ARG001
    """Raise ``OSError`` (EOPNOTSUPP): NTFS cannot."""
    raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))


def exchange(here: int, name: str, there: int, other: str) -> bool:  # noqa: ARG001
    """False: no call does that."""
    return False


class _TimeOfDay(ctypes.Structure):
    """SYSTEM_TIMEOFDAY_INFORMATION; times in steps of 100 ns."""

    _fields_ = (("booted", ctypes.c_int64), ("now", ctypes.c_int64), ("rest", ctypes.c_uint8 * 32))


@cache
def boot_id() -> str:
    """Identifies this boot, in 16 digits: the machine's number and the time of the boot; empty if these are not known.

    A clock that is set moves that time; to processes started later, the boot is then another one.
    """
    record, length = _TimeOfDay(), ctypes.c_uint32()
    size = ctypes.c_uint32(ctypes.sizeof(record))
    ask = ctypes.WinDLL("ntdll").NtQuerySystemInformation
    try:
        with winreg.OpenKey(
            winreg.HKEY_LOCAL_MACHINE, _MACHINE, access=winreg.KEY_READ | winreg.KEY_WOW64_64KEY
        ) as key:
            number, _ = winreg.QueryValueEx(key, "MachineGuid")
    except OSError:
        return ""
    if ask(_TIME_OF_DAY, ctypes.byref(record), size, ctypes.byref(length)):
        return ""
    return hashlib.sha256(f"{number} {record.booted}".encode()).hexdigest()[:_BOOT_DIGITS]


def current_umask() -> int:
    """None of the bits: access lists say who may use a new file."""
    return 0


def unsent_bytes(sock: socket.socket) -> int:  # noqa: ARG001
    """0: it cannot be asked."""
    return 0

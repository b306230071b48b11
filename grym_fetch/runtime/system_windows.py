"""What `system` offers, on Windows. See there; nobody has run this there, only its types are checked.

Open folders are what is missing: ``dir_fd`` raises ``NotImplementedError`` there. Where a promise of `system_posix`
cannot be kept, a call is refused rather than done without it: flags that Windows lacks are numbers that ``os.open``
refuses.

Sources: the C runtime's ``_locking`` and ``_open``; LockFile, MoveFileEx and PeekNamedPipe in the Windows API.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import shutil
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from grym_fetch.runtime.process_start import process_start

__all__ = ["process_start"]

# When it runs, tests on other systems import it.
assert sys.platform == "win32" or not TYPE_CHECKING, "for type checkers: this is the module of another system"

MAX_OPEN_FILES = 8192
"""``_setmaxstdio`` of the C runtime takes no more."""
O_DIRECTORY = 1 << 40
"""Open a folder, and nothing else: only `open_descriptor` takes it, and refuses it."""
O_NOFOLLOW = 1 << 41
"""Do not open a reparse point: only `open_descriptor` takes it."""
O_NONBLOCK = 0
O_NOCTTY = 0
_LOCKED_BYTE = 0x7FFF_0000
"""Locks here keep others from reading: lock a byte far behind all content. ``_locking`` cannot seek beyond 2 GiB."""
_SHARING = frozenset({5, 32, 33})
"""ERROR_ACCESS_DENIED, ERROR_SHARING_VIOLATION, ERROR_LOCK_VIOLATION: a scanner has the file open for a moment."""
_REPLACE_PAUSES_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
_PIPE_PAUSE_S = 0.01
_position_lock = threading.Lock()
_alarm: threading.Timer | None = None
_end: Callable[..., object] | None = None


def open_descriptor(path: str | Path, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
    """Open a file; with `O_NOFOLLOW` not a reparse point (symlink, junction, …). Raises ``OSError``.

    Whether it is one is asked before and compared afterwards, as the C runtime cannot be told not to follow.
    Raises ``NotImplementedError`` for an open folder, and for a file in one.
    """
    if dir_fd is not None or flags & O_DIRECTORY:
        raise NotImplementedError("open folders are missing on Windows")
    plain = flags & ~O_NOFOLLOW | os.O_BINARY | os.O_NOINHERIT
    if not flags & O_NOFOLLOW:
        return os.open(path, plain, mode)
    if flags & os.O_CREAT and not flags & os.O_EXCL:
        raise NotImplementedError("a file that may exist cannot be made without following")
    if flags & os.O_EXCL:
        return os.open(path, plain, mode)  # it is new, so it is not a reparse point
    before = _not_reparse(path)
    descriptor = os.open(path, plain & ~os.O_TRUNC, mode)
    try:
        if not os.path.samestat(before, os.fstat(descriptor)) or not os.path.samestat(before, _not_reparse(path)):
            raise OSError(errno.ELOOP, "somebody else changed this path while it was opened", str(path))
        if flags & os.O_TRUNC:
            os.ftruncate(descriptor, 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _not_reparse(path: str | Path) -> os.stat_result:
    figures = os.lstat(path)
    if figures.st_reparse_tag or figures.st_file_attributes & stat.FILE_ATTRIBUTE_REPARSE_POINT:
        raise OSError(errno.ELOOP, "a reparse point is in the way", str(path))
    return figures


def rename(source: str | Path, target: str | Path, *, folder: int | None = None, into: int | None = None) -> None:
    """Rename over what is there. A file that somebody has open is tried again for a second. Raises ``OSError``."""
    for pause in (*_REPLACE_PAUSES_S, None):
        try:
            os.replace(source, target, src_dir_fd=folder, dst_dir_fd=into)
        except PermissionError as error:
            if pause is None or error.winerror not in _SHARING:
                raise
            time.sleep(pause)
        else:
            return


def pread(descriptor: int, count: int, at: int) -> bytes:
    """Read up to ``count`` bytes there; the position is moved, and put back."""
    with _position_lock:
        before = os.lseek(descriptor, 0, os.SEEK_CUR)
        try:
            os.lseek(descriptor, at, os.SEEK_SET)
            return os.read(descriptor, count)
        finally:
            os.lseek(descriptor, before, os.SEEK_SET)


def preadv(descriptor: int, memory: memoryview, at: int) -> int:
    """Fill the memory with bytes from there, or a part of it; return how many these are."""
    data = pread(descriptor, len(memory), at)
    memory[: len(data)] = data
    return len(data)


def pwrite(descriptor: int, data: memoryview | bytes, at: int) -> int:
    """Write some of it there; the position is moved, and put back."""
    with _position_lock:
        before = os.lseek(descriptor, 0, os.SEEK_CUR)
        try:
            os.lseek(descriptor, at, os.SEEK_SET)
            return os.write(descriptor, data)
        finally:
            os.lseek(descriptor, before, os.SEEK_SET)


def lock(descriptor: int) -> None:
    """Lock an open file as long as it is open, without waiting: EACCES if somebody else has it. Raises ``OSError``."""
    import msvcrt

    with _position_lock:
        before = os.lseek(descriptor, 0, os.SEEK_CUR)
        try:
            os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(descriptor, before, os.SEEK_SET)


def fchmod(descriptor: int, mode: int) -> None:
    """Nothing: who may use a file is said by its access list, which it has from its folder."""


def fchown(descriptor: int, user: int, group: int) -> None:
    """Nothing, as for `fchmod`."""


def user_id() -> int:
    """What ``st_uid`` is for every file here: whose a file is cannot be told by it."""
    return 0


def user_name(number: int) -> str | None:  # noqa: ARG001
    """None: users have no numbers here."""
    return None


def fwalk(name: str, above: int) -> Iterator[tuple[str, list[str], list[str], int]]:
    """Raises ``NotImplementedError``: there are no open folders."""
    raise NotImplementedError("open folders are missing on Windows")


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
    import ctypes
    import msvcrt

    count = ctypes.c_ulong()
    handle = ctypes.c_void_p(msvcrt.get_osfhandle(pipe))
    asked = ctypes.WinDLL("kernel32").PeekNamedPipe(handle, None, 0, None, ctypes.byref(count), None)
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
    if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
        os.fsync(descriptor)


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
    """Raise ``OSError`` (ENOTSUP): NTFS cannot."""
    raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))


def exchange(here: int, name: str, there: int, other: str) -> bool:  # noqa: ARG001
    """False: no call does that."""
    return False


def boot_id() -> str:
    """Empty: nothing identifies a boot."""
    return ""


def current_umask() -> int:
    """None of the bits: access lists say who may use a new file."""
    return 0


def unsent_bytes(sock: socket.socket) -> int:  # noqa: ARG001
    """0: it cannot be asked."""
    return 0

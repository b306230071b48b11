"""What `system` offers, on macOS. See there; nobody has run this on a real one yet, see docs/platforms.md.

Sources: fsync(2), fcntl(2), rename(2) and getsockopt(2) of macOS; SQLite's ``full_fsync`` for what to do without
F_FULLFSYNC. macOS has no process namespaces, so the boot alone says whose process numbers these are.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import sys
import threading

from grym_fetch.runtime.exchange import exchange_by
from grym_fetch.runtime.process_start import process_start

assert sys.platform != "win32", "for type checkers: this is the module of other systems"

__all__ = ["process_start"]

MAX_OPEN_FILES = 10_240
"""OPEN_MAX of <sys/syslimits.h>: setrlimit(2) refuses more, even where the hard limit is infinite."""
_F_FULLFSYNC, _F_RDAHEAD, _F_NOCACHE = 51, 45, 48
_NO_FULL_FLUSH = frozenset({errno.ENOTSUP, errno.EINVAL, errno.ENOTTY, errno.ENODEV})
_RENAME_SWAP = 2
_SO_NWRITE = 0x1024
_BOOT_DIGITS = 16
_umask_lock = threading.Lock()


def flush(descriptor: int, *, data_only: bool) -> None:  # noqa: ARG001 - the full flush has no smaller sister
    """Flush a file or folder to the disk itself: fsync(2) leaves it in the drive's cache. Raises ``OSError``.

    Only fsync where the file system has no full flush (SMB, FUSE).
    """
    try:
        fcntl.fcntl(descriptor, _F_FULLFSYNC)
    except OSError as error:
        if error.errno not in _NO_FULL_FLUSH:
            raise
        os.fsync(descriptor)


def flush_everything() -> bool:
    """Sync(2) returns before anything is written here: flush one by one."""
    return False


def read_ahead(descriptor: int) -> None:
    """Say that a file will be read from its beginning to its end."""
    fcntl.fcntl(descriptor, _F_RDAHEAD, 1)


def read_again(descriptor: int) -> None:
    """Do not cache what is read next. What is in the cache already is still taken from there."""
    fcntl.fcntl(descriptor, _F_NOCACHE, 1)


def copy_in_kernel(source: int, target: int, count: int, at: int) -> int:  # noqa: ARG001
    """Only whole files can be shared here (clonefile(2)), so nothing is copied."""
    return 0


def clone(target: int, source: int) -> None:  # noqa: ARG001
    """Raise ``OSError`` (EOPNOTSUPP): clonefile(2) only makes new files, under a name."""
    raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))


def exchange(here: int, name: str, there: int, other: str) -> bool:
    """Exchange two folders in one step (renameatx_np(2)); False if the file system cannot (HFS+ and others)."""
    return exchange_by("renameatx_np", _RENAME_SWAP, here, name, there, other)


def boot_id() -> str:
    """Identifies this boot, in 16 digits; empty if that is not known."""
    return sysctl("kern.bootsessionuuid").replace("-", "").lower()[:_BOOT_DIGITS]


def sysctl(name: str) -> str:
    """A text that the kernel knows (sysctlbyname(3)); empty if it does not."""
    import ctypes

    call = getattr(ctypes.CDLL(None), "sysctlbyname", None)
    memory = ctypes.create_string_buffer(256)
    length = ctypes.c_size_t(len(memory))
    if call is None or call(name.encode(), memory, ctypes.byref(length), None, ctypes.c_size_t(0)) != 0:
        return ""
    return memory.value.decode("ascii", "replace")


def current_umask() -> int:
    """The process's umask. It can only be read by setting it: a file made in that moment is private, never open."""
    with _umask_lock:
        umask = os.umask(0o077)
        os.umask(umask)
    return umask


def is_open_for_writing(descriptor: int) -> bool:  # noqa: ARG001
    """False: it is not known here."""
    return False


def unsent_bytes(sock: socket.socket) -> int:
    """How many bytes the other side's kernel has not acknowledged (SO_NWRITE)."""
    return sock.getsockopt(socket.SOL_SOCKET, _SO_NWRITE)

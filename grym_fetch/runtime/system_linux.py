"""What `system` offers, on Linux. See there."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
import sys
import termios
from contextlib import suppress
from pathlib import Path

from grym_fetch.runtime.exchange import exchange_by

assert sys.platform not in ("darwin", "win32"), "for type checkers: this is the module of another system"

MAX_OPEN_FILES = 65_536
"""The most files that a process may be allowed to open, as far as we ask for it."""
_RENAME_EXCHANGE = 2
_BOOT_DIGITS = 16
_FICLONE = 0x40049409
_WITH_LEASES = frozenset(
    {"ext2", "ext3", "ext4", "xfs", "btrfs", "bcachefs", "f2fs", "zfs", "tmpfs", "overlay", "vfat", "exfat", "ntfs3"}
)
"""The file systems of this machine, on which a lease is refused only for the sake of a writer."""


def flush(descriptor: int, *, data_only: bool) -> None:
    """Flush a file or folder to the disk; ``data_only``: not its times. Raises ``OSError``."""
    (os.fdatasync if data_only else os.fsync)(descriptor)


def flush_everything() -> bool:
    """Flush all file systems, and return once that is done. False if this system cannot do that."""
    os.sync()
    return True


def read_ahead(descriptor: int) -> None:
    """Say that a file will be read from its beginning to its end."""
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)


def read_again(descriptor: int) -> None:
    """Let what is read next come from the disk, if possible, and not from the cache of what was just written."""
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def copy_in_kernel(source: int, target: int, count: int, at: int) -> int:
    """Copy some of these bytes to the same place in another file; return how many. Raises ``OSError``.

    0 at the end of the source, or if this system cannot do it.
    """
    return os.copy_file_range(source, target, count, at, at)


def clone(target: int, source: int) -> None:
    """Let an empty file share all the bytes of another (FICLONE, ioctl_ficlone(2)). Raises ``OSError``."""
    fcntl.ioctl(target, _FICLONE, source)


def exchange(here: int, name: str, there: int, other: str) -> bool:
    """Exchange two folders in one step (renameat2(2)); False if the system or the file system cannot."""
    return exchange_by("renameat2", _RENAME_EXCHANGE, here, name, there, other)


def process_start(pid: int) -> str | None:
    """When a process started, in clock ticks since boot; empty if there is no such process, None if it is unknown."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            # proc(5): the command may contain spaces and brackets, so count from the last bracket.
            return file.read().rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        return ""
    except (OSError, IndexError):
        return None


def boot_id() -> str:
    """Identifies this boot, in 16 digits, and the process namespace; empty if that is not known.

    Another container gives the numbers to other processes.
    """
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip().replace("-", "")[:_BOOT_DIGITS]
        namespace = "".join(char for char in os.readlink("/proc/self/ns/pid") if char.isdigit())
    except OSError:
        return ""
    return f"{boot}{namespace}"


def _file_system(descriptor: int) -> str:
    """The kind of file system that a file is on; empty if that is not known."""
    try:
        mount = Path(f"/proc/self/fdinfo/{descriptor}").read_text().partition("mnt_id:")[2].split()[0]
        for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
            if line.startswith(f"{mount} "):
                return line.partition(" - ")[2].split(" ")[0]
    except (OSError, IndexError):
        pass
    return ""


def is_open_for_writing(descriptor: int) -> bool:
    """Whether any process has the file open for writing; ``descriptor`` is open for reading. False if that is unknown.

    A read lease is given only if nobody has (fcntl(2)); it is returned at once. SIGURG, which would ask for it back
    in between, does nothing unless it is handled. NFS and SMB also refuse a lease for reasons of their own.
    """
    with suppress(OSError):
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except BlockingIOError:
            return _file_system(descriptor) in _WITH_LEASES
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def current_umask() -> int:
    """The process's umask, read without changing it even briefly, as ``os.umask`` would for all threads."""
    with suppress(OSError, ValueError):
        return int(Path("/proc/self/status").read_text().partition("\nUmask:")[2].split("\n", 1)[0], 8)
    return 0o022


def unsent_bytes(sock: socket.socket) -> int:
    """How many bytes the other side's kernel has not acknowledged (tcp(7), SIOCOUTQ)."""
    (count,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0" * 4))
    return int(count)

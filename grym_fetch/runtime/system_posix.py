"""What `system` offers, where Linux and macOS do not differ. See there.

Each call is looked up in its module when it is needed: tests take calls away, and let them fail.
"""

from __future__ import annotations

import asyncio
import fcntl
import mmap
import os
import resource
import select
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

assert sys.platform != "win32", "for type checkers: this is the module of other systems"

O_DIRECTORY = os.O_DIRECTORY
"""Open a folder, and nothing else."""
O_NOFOLLOW = os.O_NOFOLLOW
"""Do not open a symlink."""
O_NONBLOCK = os.O_NONBLOCK
"""Do not wait for the other end of a pipe."""
O_NOCTTY = os.O_NOCTTY
"""Do not let a terminal become ours."""
HAS_MODES = True
"""Whether the mode of a file says who may write to it."""
RENAMES_OPEN_FOLDERS = True
"""Whether a folder can be renamed while a file in it is open."""
_BLOCK_BYTES = 512


def open_descriptor(path: str | Path, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
    """Open a file or folder, by path or by its name in an open folder; no child inherits it. Raises ``OSError``."""
    return os.open(path, flags, mode, dir_fd=dir_fd)


def rename(source: str | Path, target: str | Path, *, folder: int | None = None, into: int | None = None) -> None:
    """Rename in one step, over what is there: ``source`` in an open folder to ``target`` in another.

    Raises ``OSError``.
    """
    os.rename(source, target, src_dir_fd=folder, dst_dir_fd=into)


def stat(name: str | Path, *, dir_fd: int | None, follow_symlinks: bool = True) -> os.stat_result:
    """What is known of something in an open folder. Raises ``OSError``."""
    return os.stat(name, dir_fd=dir_fd, follow_symlinks=follow_symlinks)


def listdir(folder: int) -> list[str]:
    """What is in an open folder, in no particular order. Raises ``OSError``."""
    return os.listdir(folder)


def mkdir(name: str, mode: int = 0o777, *, dir_fd: int) -> None:
    """Make a folder in an open one. Raises ``OSError``."""
    os.mkdir(name, mode, dir_fd=dir_fd)


def unlink(name: str, *, dir_fd: int | None) -> None:
    """Remove a file or a link from an open folder. Raises ``OSError``."""
    os.unlink(name, dir_fd=dir_fd)


def rmdir(name: str, *, dir_fd: int) -> None:
    """Remove an empty folder from an open one. Raises ``OSError``."""
    os.rmdir(name, dir_fd=dir_fd)


def rmtree(name: str, *, ignore_errors: bool = False, dir_fd: int) -> None:
    """Remove a folder from an open one, and all in it, through no symlink. Raises ``OSError``."""
    shutil.rmtree(name, ignore_errors=ignore_errors, dir_fd=dir_fd)


def link(old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
    """Give a file in an open folder a second name in another one; of a symlink, the link itself. Raises ``OSError``."""
    os.link(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, follow_symlinks=False)


def symlink(target: str, name: str, *, dir_fd: int) -> None:
    """Make a symlink in an open folder. Raises ``OSError``."""
    os.symlink(target, name, dir_fd=dir_fd)


def readlink(name: str, *, dir_fd: int) -> str:
    """Where a symlink in an open folder leads. Raises ``OSError``."""
    return os.readlink(name, dir_fd=dir_fd)


def may_write(folder: int) -> bool:
    """Whether this process may make and remove names in an open folder."""
    return os.access(".", os.W_OK | os.X_OK, dir_fd=folder, effective_ids=True)


def pread(descriptor: int, count: int, at: int) -> bytes:
    """Read up to ``count`` bytes there, wherever the descriptor's position is. Raises ``OSError``."""
    return os.pread(descriptor, count, at)


def preadv(descriptor: int, memory: memoryview, at: int) -> int:
    """Fill the memory with bytes from there, or a part of it; return how many these are. Raises ``OSError``."""
    return os.preadv(descriptor, [memory], at)


def pwrite(descriptor: int, data: memoryview | bytes, at: int) -> int:
    """Write some of it there; return how many bytes these are. Raises ``OSError``."""
    return os.pwrite(descriptor, data, at)


def lock(descriptor: int) -> None:
    """Lock an open file or folder as long as it is open, without waiting. Raises ``OSError``."""
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def utime(descriptor: int, *, ns: tuple[int, int]) -> None:
    """Set when an open file was read and written last. Raises ``OSError``."""
    os.utime(descriptor, ns=ns)


def fchmod(descriptor: int, mode: int) -> None:
    """Change who may use an open file or folder. Raises ``OSError``."""
    os.fchmod(descriptor, mode)


def fchown(descriptor: int, user: int, group: int) -> None:
    """Give an open file or folder to a user and a group; -1: as it is. Raises ``OSError``."""
    os.fchown(descriptor, user, group)


def user_id() -> int:
    """Whose files this process makes, and which it may change."""
    return os.geteuid()


def user_name(number: int) -> str | None:
    """What a user is called; None if the user has no name."""
    import pwd

    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return None


def fwalk(name: str, above: int) -> Iterator[tuple[str, list[str], list[str], int]]:
    """Walk through a folder in an open one, from below, as ``os.fwalk`` does: through no symlink."""
    return os.fwalk(name, topdown=False, dir_fd=above)


def free_bytes(path: Path) -> int:
    """Bytes that this user may still write to the file system of ``path``. Raises ``OSError``."""
    figures = os.statvfs(path)
    return figures.f_bavail * figures.f_frsize


def has_inodes(path: Path) -> bool:
    """Whether the file system of ``path`` can hold another file, as far as it counts them. Raises ``OSError``."""
    figures = os.statvfs(path)
    return figures.f_files == 0 or figures.f_favail > 0  # 0 of 0: some file systems do not count them


def is_private(folder: int) -> bool:
    """Whether only this user can have written what is in an open folder, as far as modes say that."""
    figures = os.fstat(folder)
    return figures.st_uid == user_id() and not figures.st_mode & 0o022


def is_read_only(descriptor: int) -> bool:
    """Whether the file system of an open folder takes no writes. Raises ``OSError``."""
    return bool(os.fstatvfs(descriptor).f_flag & os.ST_RDONLY)


def allocated_bytes(figures: os.stat_result) -> int:
    """Bytes that a file takes on the disk: fewer than its size if it has holes."""
    return figures.st_blocks * _BLOCK_BYTES


def is_null_device(figures: os.stat_result) -> bool:
    """Whether a device is the one that is always empty. Raises ``OSError``."""
    return figures.st_rdev == os.stat(os.devnull).st_rdev


def file_limits() -> tuple[int | None, int | None]:
    """How many files this process may have open, and how far it may raise that; None: without limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _known(soft), _known(hard)


def allow_files(count: int) -> None:
    """Let this process have so many files open. Raises ``ValueError`` or ``OSError``."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def memory_limits() -> dict[str, int]:
    """How many bytes of memory this process may reserve, by the letter that ``ulimit`` has for the limit."""
    # On Linux, RLIMIT_DATA counts whatever is private and writable, the stacks of threads included.
    kinds = {"v": resource.RLIMIT_AS, "d": resource.RLIMIT_DATA}
    found = {letter: _known(resource.getrlimit(kind)[0]) for letter, kind in kinds.items()}
    return {letter: limit for letter, limit in found.items() if limit is not None}


def process_limit() -> int | None:
    """How many processes and threads this user may have; None: without limit."""
    return _known(resource.getrlimit(resource.RLIMIT_NPROC)[0])


def _known(limit: int) -> int | None:
    return None if limit == resource.RLIM_INFINITY else limit


def can_reserve(count: int) -> bool:
    """Whether so many bytes of address space are left."""
    try:
        mmap.mmap(-1, count, flags=mmap.MAP_PRIVATE).close()
    except (OSError, MemoryError):
        return False
    return True


def has_arrived(sock: int) -> bool:
    """Whether there is something to read from a socket, or its end."""
    return _can_read(sock, 0)


def wait_for_output(pipe: int, seconds: float) -> bool:
    """Wait until there is something to read from a pipe, or its end; False if there is nothing in that time."""
    return _can_read(pipe, seconds)


def _can_read(descriptor: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def is_in_foreground(terminal: int) -> bool:
    """Whether a terminal belongs to our group of processes (tcgetpgrp(3)). Raises ``OSError``: it is not ours."""
    return os.tcgetpgrp(terminal) == os.getpgrp()


def lost_its_reader(code: int) -> bool:
    """Whether a child with this exit code ended because nobody read what it wrote."""
    return code == -signal.SIGPIPE


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Hold Ctrl-C back from this thread until the block ends; it never reaches a process that is started there."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def when_continued(tell: Callable[[], object]) -> Iterator[None]:
    """Call ``tell`` whenever this process goes on after it was stopped, as by Ctrl-Z and ``fg``.

    Only in the main thread; in another one, nothing is told.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGCONT, lambda *_: tell())
    try:
        yield
    finally:
        signal.signal(signal.SIGCONT, before)


def on_end_signals(loop: asyncio.AbstractEventLoop, stop: Callable[[signal.Signals], None]) -> None:
    """Call ``stop`` in the loop when this process is asked to end."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop, number)


def on_alarm(end: Callable[..., object]) -> None:
    """Call ``end`` when the time of `set_alarm` is over, whatever the loop is doing then. Only in the main thread."""
    signal.signal(signal.SIGALRM, end)


def set_alarm(seconds: float) -> None:
    """Let the alarm of `on_alarm` ring after this many seconds; 0: not at all."""
    signal.setitimer(signal.ITIMER_REAL, seconds)

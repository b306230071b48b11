"""With this folder in PYTHONPATH, Python is on something like macOS: see `tests.support.darwin`.

The module of Linux is never imported: its name gets the code of macOS's, which is what `runtime.system` then offers.
Nothing of the package is imported here: pytest would warn that it came too late.
"""

from __future__ import annotations

import builtins
import fcntl
import io
import os
import struct
import sys
import termios
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import Any

MACOS = Path(__file__).parents[3] / "grym_fetch" / "runtime" / "system_darwin.py"
_LINUX = "grym_fetch.runtime.system_linux"
_AWAY = ("fdatasync", "posix_fadvise", "copy_file_range", "posix_fallocate")
_real_open, _real_fcntl, _real_find = open, fcntl.fcntl, PathFinder.find_spec


def _asked_by_us() -> bool:
    frame = sys._getframe(2)
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ("pathlib", "io"):
        frame = frame.f_back  # type: ignore[assignment]  # None at the top
    return frame is not None and str(frame.f_globals.get("__name__", "")).startswith("grym_fetch.")


def _open(file: Any, *arguments: Any, **more: Any) -> Any:
    if isinstance(file, str | os.PathLike) and os.fspath(file).startswith(("/proc", "/sys")) and _asked_by_us():
        raise FileNotFoundError(2, "No such file or directory", file)
    return _real_open(file, *arguments, **more)


def _fcntl(descriptor: int, command: int, argument: Any = 0) -> Any:
    if command == 51:
        os.fsync(descriptor)
        return 0
    return 0 if command in (45, 48) else _real_fcntl(descriptor, command, argument)


def boot_session(_: str) -> str:
    """The kernel's text for the boot, from where Linux has it."""
    with _real_open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return str(file.read()).strip().upper()


def unsent(sock: Any) -> int:
    """How many bytes of a socket nobody has received yet, asked as Linux wants it."""
    return int(struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0" * 4))[0])


def _find(_: type, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
    if name == _LINUX:
        return spec_from_file_location(name, Path(__file__).with_name("in_place_of_linux.py"))
    return _real_find(name, path, target)


for _name in _AWAY:
    delattr(os, _name)
builtins.open = io.open = _open
fcntl.fcntl = _fcntl  # type: ignore[assignment]  # takes what is asked of it here
# A finder of our own would come after pytest's, which asks this one.
PathFinder.find_spec = classmethod(_find)  # type: ignore[assignment]

"""With this folder in PYTHONPATH, a Windows Python on Wine is ready for the tests.

Wine tells no device for an open file that was renamed, as it looks it up by its first name; Windows does. Wine renames
a folder in which a file is open; Windows does not, nor does this if this process has it open. Test modules that also
ask POSIX for things find its modules and names: only tests marked ``posix`` use them, and those are not run.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from grym_fetch.runtime import windows_folders

assert sys.platform == "win32", "for type checkers: this is for another system"

_fstat = os.fstat
_NAMES = [name for name in dir(os.stat_result) if name.startswith("st_")]


def fstat(fd: int) -> os.stat_result:
    """The device of the current drive where none is told: the tests use one drive."""
    told = _fstat(fd)
    if told.st_dev:
        return told
    device = os.stat(".").st_dev
    figures = [device if at == 2 else each for at, each in enumerate(told)]
    return os.stat_result(figures, {name: getattr(told, name) for name in _NAMES})


_rename = windows_folders._rename
_DESCRIPTORS = range(3, 256)
_ACCESS_DENIED = 5


def _open_places() -> Iterator[str]:
    for each in _DESCRIPTORS:
        with suppress(OSError):
            yield _plain(windows_folders.place_of(each))


def _plain(path: str) -> str:
    return os.path.abspath(path.removeprefix("\\\\?\\"))


def rename(source: str | Path, target: str | Path, folder: int | None, into: int | None) -> None:
    """Refuse it for a folder in which this process has something open."""
    place = _plain(os.path.join("" if folder is None else windows_folders.place_of(folder), source))
    if os.path.isdir(place) and any(each.startswith(place + os.sep) for each in _open_places()):
        raise OSError(0, "a file in it is open", str(source), _ACCESS_DENIED)
    _rename(source, target, folder, into)


os.fstat = fstat
windows_folders._rename = rename
for _module in ("fcntl", "grp", "pty", "pwd", "resource", "termios", "tty"):
    sys.modules[_module] = ModuleType(_module)
for _name in ("geteuid", "getuid", "getegid", "getgid"):
    setattr(os, _name, lambda: 0)
for _name in ("O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC"):
    setattr(os, _name, 0)
for _name in ("mkfifo", "pwrite"):
    setattr(os, _name, None)
setattr(signal, "SIGKILL", 9)  # noqa: B010 - to a type checker, it is there

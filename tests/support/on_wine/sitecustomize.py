"""With this folder in PYTHONPATH, a Windows Python on Wine is ready for the tests.

Wine tells no device for an open file that was renamed, as it looks it up by its first name; Windows does. Test modules
that also ask POSIX for things find its modules and names: only tests marked ``posix`` use them, and those are not run.
"""

from __future__ import annotations

import os
import signal
import sys
from types import ModuleType

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


os.fstat = fstat
for _module in ("fcntl", "grp", "pty", "pwd", "resource", "termios", "tty"):
    sys.modules[_module] = ModuleType(_module)
for _name in ("geteuid", "getuid", "getegid", "getgid"):
    setattr(os, _name, lambda: 0)
for _name in ("O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC"):
    setattr(os, _name, 0)
for _name in ("mkfifo", "pwrite"):
    setattr(os, _name, None)
setattr(signal, "SIGKILL", 9)  # noqa: B010 - to a type checker, it is there

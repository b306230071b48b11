"""Linux without what Windows lacks, and with what its C runtime has instead, as far as that can be imitated."""

from __future__ import annotations

import os
import signal
import sys
from types import ModuleType, SimpleNamespace

import psutil  # noqa: F401 - before: its module for Linux imports what is taken away
import pytest

_LACKING = (
    *("O_CLOEXEC", "O_DIRECTORY", "O_NOCTTY", "O_NOFOLLOW", "O_NONBLOCK", "fchmod", "fchown", "fdatasync", "fwalk"),
    *("fstatvfs", "getegid", "geteuid", "getpgrp", "getuid", "killpg", "posix_fadvise", "pread", "preadv", "pwrite"),
    *("pwritev", "statvfs", "sync", "tcgetpgrp", "copy_file_range"),
)
_NO_SIGNALS = ("SIGALRM", "SIGHUP", "SIGKILL", "SIGPIPE", "setitimer")
_NO_MODULES = ("fcntl", "grp", "pwd", "resource", "termios")


def pretend(patch: pytest.MonkeyPatch, module: ModuleType) -> None:
    """Give a module, for one test, an ``os`` and a ``signal`` without what Windows lacks; others keep theirs."""
    for whole, lacking in ((os, _LACKING), (signal, _NO_SIGNALS)):
        left = {name: value for name, value in vars(whole).items() if name not in lacking}
        patch.setattr(module, whole.__name__, SimpleNamespace(**left))
    module.os.O_BINARY = module.os.O_NOINHERIT = 0
    module.signal.SIGBREAK = signal.SIGUSR1
    for name in _NO_MODULES:
        patch.setitem(sys.modules, name, None)

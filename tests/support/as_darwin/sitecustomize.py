"""With this folder in PYTHONPATH, Python is on something like macOS: see `tests.support.darwin`.

The module of Linux is never imported: its name gets the code of macOS's, which is what `runtime.system` then offers.
"""

from __future__ import annotations

import builtins
import fcntl
import io
import os
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
_AWAY = ("fdatasync", "posix_fadvise", "copy_file_range")
_real_open, _real_fcntl, _real_readlink = open, fcntl.fcntl, os.readlink


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


def _boot_session(_: str) -> str:
    with _real_open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return str(file.read()).strip().upper()


def _unsent(sock: Any) -> int:
    import struct
    import termios

    return int(struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0" * 4))[0])


for _name in _AWAY:
    delattr(os, _name)
builtins.open = io.open = _open
fcntl.fcntl = _fcntl  # type: ignore[assignment]  # takes what is asked of it here
_NAME = "grym_fetch.runtime.system_linux"
_spec = spec_from_file_location(_NAME, ROOT / "grym_fetch" / "runtime" / "system_darwin.py")
assert _spec is not None
assert _spec.loader is not None
# Put there at once: a finder would come after pytest's own, which finds the plugin's package first.
_module: Any = module_from_spec(_spec)
sys.modules[_NAME] = _module
_spec.loader.exec_module(_module)
_module.sysctl, _module.unsent_bytes = _boot_session, _unsent

"""Linux without what macOS lacks, and with what it has instead, as far as that can be imitated.

`pretend` does it for one test. ``make test-darwin`` does it for whole test modules and the processes they start, by
``tests/support/as_darwin/sitecustomize.py``: there, `grym_fetch.runtime.system` gets the module of macOS.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from typing import Any

import pytest

_FULL_FLUSH, _HINTS = 51, (45, 48)


def took_away() -> Iterator[str]:
    """The names that macOS's ``os`` does not have."""
    yield from ("fdatasync", "posix_fadvise", "copy_file_range", "posix_fallocate")


def as_on_macos(descriptor: int, command: int, argument: Any = 0) -> Any:
    """Do what fcntl(2) does there: flush fully, or take a hint."""
    if command == _FULL_FLUSH:
        os.fsync(descriptor)
        return 0
    return 0 if command in _HINTS else _real_fcntl(descriptor, command, argument)


_real_fcntl = fcntl.fcntl


def boot_session(name: str) -> str:
    """The kernel's text for the boot, from where Linux has it."""
    assert name == "kern.bootsessionuuid"
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip().upper()


def pretend(patch: pytest.MonkeyPatch) -> None:
    """Take the calls away for one test."""
    for name in took_away():
        patch.delattr(os, name)
    patch.setattr(fcntl, "fcntl", as_on_macos)
    patch.setattr("grym_fetch.runtime.system_darwin.sysctl", boot_session)

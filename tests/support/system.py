"""What tests ask of the operating system: what this process has open, who is dead, what an error is called."""

from __future__ import annotations

import errno
import os
from dataclasses import replace

from grym_fetch.disk.owner import Owner


def descriptors() -> int:
    """How many files this process has open."""
    return len(os.listdir("/proc/self/fd"))


def dead_owner() -> Owner:
    """A process of this boot that runs no more: this one's number, at another time."""
    return replace(Owner.this(), started="1")


def named(value: object) -> str:
    """The name of an error number or of a class, for the ids of a table."""
    return errno.errorcode.get(value, "") if isinstance(value, int) else getattr(value, "__name__", "")

"""Closes our descriptors in a forked child, which does not need them and may outlive its parent.

Rules: every object that keeps a descriptor open for longer than a call is registered here while it lives, and closes
the descriptor when asked to. This happens only in the child, before `fork` returns, and must neither wait nor raise.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Protocol
from weakref import WeakSet


class Inherited(Protocol):
    """Something that a child inherits and must not keep."""

    def forget(self) -> None:
        """In a forked child: close the copy of the parent's descriptor. The parent's own stays open."""


_kept: WeakSet[Inherited] = WeakSet()


def forget_in_child(kept: Inherited) -> None:
    """Make this object close its descriptors in every process that is forked from now on."""
    _kept.add(kept)


def close_copy(descriptor: int) -> None:
    """Close a child's copy of a descriptor; do nothing if it is closed already."""
    if descriptor >= 0:
        with suppress(OSError):
            os.close(descriptor)


def _forget_all() -> None:
    for kept in list(_kept):
        kept.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)

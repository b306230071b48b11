"""Closes our descriptors in a forked child, which has no use for them and may outlive its parent.

Rules: whoever keeps a descriptor open for longer than a call is registered here while it lives, and drops it when asked
to. That happens in the child alone, between `fork` and the return from it, and must neither wait nor raise.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Protocol
from weakref import WeakSet


class Inherited(Protocol):
    """What a child inherits and must not keep."""

    def forget(self) -> None:
        """In a forked child: close what is the parent's. The parent's own copy stays open."""


_kept: WeakSet[Inherited] = WeakSet()


def forget_in_child(kept: Inherited) -> None:
    """Have this drop its descriptors in every process that is forked from now on."""
    _kept.add(kept)


def close_copy(descriptor: int) -> None:
    """Close a child's copy of a descriptor; one that is closed already is nothing."""
    if descriptor >= 0:
        with suppress(OSError):
            os.close(descriptor)


def _forget_all() -> None:
    for kept in list(_kept):
        kept.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)

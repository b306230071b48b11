"""Waiting despite cancellation: for work that cannot be taken back, and for tasks that must end first."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any


async def wait_uncancelled(work: Iterable[asyncio.Future[Any]]) -> None:
    """Wait until all of ``work`` is over, however often this task is cancelled meanwhile.

    Does not raise their exceptions. A cancellation during the wait is not lost: it is raised at the end.
    """
    pending = {future for future in work if not future.done()}
    cancelled = False
    while pending:
        try:
            with shielded():
                _, pending = await asyncio.wait(pending)
        except asyncio.CancelledError:
            cancelled = True
            pending = {future for future in pending if not future.done()}
    if cancelled:
        raise asyncio.CancelledError


def shielded() -> AbstractContextManager[object]:
    """Return a shield from anyio's cancellation, which is repeated until it takes effect; asyncio's comes once."""
    # Code that cancels with anyio has imported it. The command line usually has not, which saves 35 ms.
    if "anyio" not in sys.modules:
        return nullcontext()
    import anyio

    return anyio.CancelScope(shield=True)

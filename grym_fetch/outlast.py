"""Waiting that outlasts a cancellation: for work that cannot be taken back, and tasks that must be over first."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import anyio


async def outlast(work: Iterable[asyncio.Future[Any]]) -> None:
    """Wait until all of ``work`` is over, however often this task is cancelled meanwhile.

    Outcomes are not raised. A cancellation that comes during the wait is not lost: it is raised at the end.
    """
    pending = {future for future in work if not future.done()}
    cancelled = False
    while pending:
        try:
            # The shield is for anyio's cancellation, which would come again and again; asyncio's comes once.
            with anyio.CancelScope(shield=True):
                _, pending = await asyncio.wait(pending)
        except asyncio.CancelledError:
            cancelled = True
            pending = {future for future in pending if not future.done()}
    if cancelled:
        raise asyncio.CancelledError

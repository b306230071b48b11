"""The event loop that an `AssetManager` belongs to: the one in which it is first used, until it is closed.

Rule: any other use raises `RuntimeError` at once: in another loop, in a forked process, without a loop, or too late.
"""

from __future__ import annotations

import asyncio
import os

from grym_fetch.runtime.threads import FORKED

_NO_LOOP = (
    "AssetManager needs asyncio, and no asyncio event loop is running here. Under trio, or without a loop, use "
    "grym_fetch.blocking.AssetManager; under trio call it in a worker thread (trio.to_thread.run_sync)"
)
_OTHER_LOOP = (
    "this AssetManager was first used in another event loop, and works only there. Make one for each asyncio.run(), "
    "or use grym_fetch.blocking.AssetManager, which has its own loop"
)
_CLOSED = "this AssetManager was closed; make a new one"
_ENTERED = "an AssetManager can be entered only once, since the end of `async with` closes it; make a new one"


class LoopOwner:
    """The loop of one manager, and whether it is entered or closed."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = os.getpid()
        self._is_entered = False
        self.is_closed = False

    @property
    def is_used(self) -> bool:
        """Whether a loop has been claimed."""
        return self._loop is not None

    def claim(self) -> None:
        """Make the running loop the manager's. Raises `RuntimeError` if it has another one, or is closed."""
        if self._loop is not None and os.getpid() != self._pid:
            raise RuntimeError(FORKED)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError(_NO_LOOP) from None
        if self.is_closed:
            raise RuntimeError(_CLOSED)
        if self._loop is None:
            self._loop, self._pid = loop, os.getpid()
        elif self._loop is not loop:
            raise RuntimeError(_OTHER_LOOP)

    def check_not_entered(self) -> None:
        """Raise `RuntimeError` if an ``async with`` has begun already."""
        if self._is_entered:
            raise RuntimeError(_ENTERED)

    def enter(self) -> None:
        """Remember that an ``async with`` has begun."""
        self._is_entered = True

    def close(self) -> None:
        """Refuse any use from now on."""
        self.is_closed = True

"""Connections that are opened before they are needed, so that their handshakes are not waited for one after the other.

Rules: an opening takes a place of the scheduler's, and gives it up to whatever work comes: work for the same host waits
for it, work for another one ends it. It sends nothing, counts for no origin, and is no failure: if it fails, the work
that comes connects by itself, and says so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

from grym_fetch.core.errors import GrymFetchError
from grym_fetch.core.world import Connection
from grym_fetch.runtime.waiting import wait_uncancelled

log = logging.getLogger(__name__)


@runtime_checkable
class Openable(Protocol):
    """A connection that can be opened without a request. No other one needs to be."""

    async def open(self, url: str) -> None:
        """Open a socket to where ``get(url)`` would send a request. Raises what `Connection.get` raises."""


@dataclass(frozen=True, slots=True)
class Foreseen:
    """Where so many more connections will soon be wanted: ``host`` is that of ``url``."""

    host: str
    url: str
    count: int


@dataclass(frozen=True, slots=True)
class Opening:
    """A connection on its way to be open."""

    connection: Connection
    host: str
    task: asyncio.Task[None]
    began: float
    """By the loop's time."""

    async def joined(self, host: str) -> None:
        """Wait until the connection is free for this host, whatever came of it."""
        try:
            if host == self.host:
                await asyncio.wait([self.task])
        finally:
            self.task.cancel()
            await wait_uncancelled([self.task])


class Openings:
    """Those under way. ``on_end`` gets one that ended by itself, and why it failed, if it did."""

    def __init__(self, on_end: Callable[[Opening, GrymFetchError | None], None]) -> None:
        self._on_end = on_end
        self._under_way: dict[Connection, Opening] = {}
        self._unused: dict[Connection, str] = {}
        """Where each one led that was not used since, whether or not it was opened and is so still."""

    def __len__(self) -> int:
        return len(self._under_way)

    def count(self, host: str) -> int:
        """How many are on their way to this host."""
        return sum(opening.host == host for opening in self._under_way.values())

    def may_begin(self, connection: Connection, host: str) -> bool:
        """Whether this free connection may be opened to the host: once, and not in the place of one that was used."""
        if not isinstance(connection, Openable):
            return False
        return self._unused[connection] != host if connection in self._unused else not connection.host

    def used(self, connection: Connection) -> None:
        """Work has begun over it."""
        self._unused.pop(connection, None)

    def begin(self, connection: Connection, foreseen: Foreseen) -> None:
        """Open this connection."""
        assert isinstance(connection, Openable)
        loop = asyncio.get_running_loop()
        task = loop.create_task(connection.open(foreseen.url), name=f"open {foreseen.host}")
        opening = self._under_way[connection] = Opening(connection, foreseen.host, task, loop.time())
        self._unused[connection] = foreseen.host
        task.add_done_callback(partial(self._ended, opening))

    def _ended(self, opening: Opening, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, GrymFetchError):
            # Not its text, which may have an address with a secret in it.
            log.warning("a connection could not be opened early (%s)", type(error).__name__)
            error = None
        if self._under_way.get(opening.connection) is opening:
            del self._under_way[opening.connection]
            self._on_end(opening, error)

    def take(self, host: str, *, elsewhere: bool) -> Opening | None:
        """Take one on its way to this host; ``elsewhere``: or else any, the last one begun."""
        there = [opening for opening in self._under_way.values() if opening.host == host]
        found = there or (list(self._under_way.values())[-1:] if elsewhere else [])
        return self._under_way.pop(found[0].connection) if found else None

    def cancel(self) -> list[asyncio.Task[None]]:
        """End all of them; return what has to be waited for."""
        tasks = [opening.task for opening in self._under_way.values()]
        self._under_way.clear()
        for task in tasks:
            task.cancel()
        return tasks

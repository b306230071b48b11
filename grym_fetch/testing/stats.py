"""Counts what an ``AssetServer`` was asked for and what it sent, as it happens.

Rules: counts begin at the start, or at the last ``reset``. A connection is open from when the server has accepted it
(with TLS: from the end of the handshake) until it is gone, idle or not. Bytes that were sent may not have arrived.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence

from grym_fetch.testing.answers import RecordedRequest


class RequestStats:
    """The counts of one path or of all."""

    def __init__(self) -> None:
        self._requests: list[RecordedRequest] = []
        self._body_bytes_sent = 0
        self._in_flight = 0
        self._most_in_flight = 0

    @property
    def requests(self) -> Sequence[RecordedRequest]:
        """The requests in the order of their arrival (a copy)."""
        return tuple(self._requests)

    @property
    def body_bytes_sent(self) -> int:
        """Bytes of body handed over to be sent, without the framing."""
        return self._body_bytes_sent

    @property
    def requests_in_flight(self) -> int:
        """Requests that are being answered."""
        return self._in_flight

    @property
    def most_requests_in_flight(self) -> int:
        """The highest ``requests_in_flight`` so far."""
        return self._most_in_flight

    def request_begun(self, request: RecordedRequest) -> None:
        """Count a request that has arrived."""
        self._requests.append(request)
        self._in_flight += 1
        self._most_in_flight = max(self._most_in_flight, self._in_flight)
        self._changed()

    def request_ended(self) -> None:
        """Count a request that was answered or abandoned."""
        self._in_flight -= 1
        self._changed()

    def sent(self, count: int) -> None:
        """Count bytes of body handed over to be sent."""
        self._body_bytes_sent += count
        self._changed()

    def reset(self) -> None:
        """Forget everything except what is open or in flight now."""
        self._requests.clear()
        self._body_bytes_sent = 0
        self._most_in_flight = self._in_flight

    def _changed(self) -> None:
        """A count has changed."""


class ServerStats(RequestStats):
    """A server's counts: all requests, those of a path with ``of``, and TCP connections."""

    def __init__(self) -> None:
        super().__init__()
        self._paths: defaultdict[str, RequestStats] = defaultdict(RequestStats)
        self._opened = 0
        self._open = 0
        self._most_open = 0
        self._watchers: set[asyncio.Event] = set()

    async def until(self, condition: Callable[[ServerStats], bool]) -> None:
        """Wait until the condition holds; it is asked again when a count has changed. Only in the server's loop."""
        changed = asyncio.Event()
        self._watchers.add(changed)
        try:
            while not condition(self):
                changed.clear()
                await changed.wait()
        finally:
            self._watchers.discard(changed)

    def of(self, path: str) -> RequestStats:
        """Return the counts of one path (without query), all zero if it was never requested."""
        return self._paths[path]

    @property
    def connections_opened(self) -> int:
        """TCP connections accepted; with TLS, those whose handshake succeeded."""
        return self._opened

    @property
    def connections_open(self) -> int:
        """TCP connections open now, including idle ones."""
        return self._open

    @property
    def most_open_connections(self) -> int:
        """The highest ``connections_open`` so far."""
        return self._most_open

    def connection_opened(self) -> None:
        """Count a connection that was accepted."""
        self._opened += 1
        self._open += 1
        self._most_open = max(self._most_open, self._open)
        self._changed()

    def connection_closed(self) -> None:
        """Count a connection that is gone."""
        self._open -= 1
        self._changed()

    def _changed(self) -> None:
        for watcher in self._watchers:
            watcher.set()

    def reset(self) -> None:
        """Forget everything except what is open or in flight now, to count a second run separately."""
        super().reset()
        for stats in list(self._paths.values()):
            stats.reset()
        self._opened = 0
        self._most_open = self._open

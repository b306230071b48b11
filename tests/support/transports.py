"""The two ways over which HTTP goes: each test of what a transport does holds for both."""

from __future__ import annotations

from grym_fetch.core.world import Connection
from grym_fetch.net.client import HttpTransport
from grym_fetch.net.session import SessionConnection


class AiohttpTransport(HttpTransport):
    """Everything goes over aiohttp, as otherwise only what goes through a proxy."""

    def connection(self) -> Connection:
        """Return a new place for a connection."""
        return SessionConnection(self.settings)


WAYS = (HttpTransport, AiohttpTransport)

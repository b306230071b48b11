"""The transport for HTTP: makes connections that share settings."""

from __future__ import annotations

from weakref import WeakSet

from grym_fetch.net.plain import PlainConnection
from grym_fetch.net.settings import HttpSettings


class HttpTransport:
    """Makes connections, which find out themselves whether the environment names a proxy for an address."""

    def __init__(self, settings: HttpSettings | None = None) -> None:
        self.settings = settings or HttpSettings()
        self._connections: WeakSet[PlainConnection] = WeakSet()

    def connection(self) -> PlainConnection:
        """Return a new place for a connection."""
        connection = PlainConnection(self.settings)
        self._connections.add(connection)
        return connection

    def forget(self) -> None:
        """In a forked child: leave all sockets to the parent."""
        for connection in list(self._connections):
            connection.forget()

    async def aclose(self) -> None:
        """Do nothing: connections share nothing that needs closing."""

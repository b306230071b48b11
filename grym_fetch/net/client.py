"""The transport for HTTP: makes connections that share settings."""

from __future__ import annotations

from grym_fetch.net.plain import PlainConnection
from grym_fetch.net.settings import HttpSettings


class HttpTransport:
    """Makes connections, which know by themselves whether the environment names a proxy for an address."""

    def __init__(self, settings: HttpSettings | None = None) -> None:
        self.settings = settings or HttpSettings()

    def connection(self) -> PlainConnection:
        """Return a new place for a connection."""
        return PlainConnection(self.settings)

    async def aclose(self) -> None:
        """Do nothing: connections share nothing that needs closing."""

"""HTTP: one place for a connection, one GET, a body as it comes. Which way it goes, the address decides.

Rules: whatever the way, there is at most one socket a place, idle ones included. No redirect is followed, no cookie
kept, nothing decoded, TLS always verified; every foreign exception is mapped where it arises, without its text.
"""

from __future__ import annotations

from collections.abc import Mapping

from yarl import URL

from grym_fetch.core.world import Connection, Response
from grym_fetch.net.plain import PlainConnection
from grym_fetch.net.settings import HttpSettings


class HttpTransport:
    """Makes connections that share settings. Times in seconds."""

    def __init__(
        self,
        *,
        connect_timeout: float = 10.0,
        stall_timeout: float = 30.0,
        allow_private: bool = True,
        user_agent: str = "grym-fetch",
    ) -> None:
        self.settings = HttpSettings(
            connect_timeout=connect_timeout,
            stall_timeout=stall_timeout,
            allow_private=allow_private,
            user_agent=user_agent,
        )

    def connection(self) -> Connection:
        """Return a new place for a connection."""
        return SlotConnection(self.settings)

    async def aclose(self) -> None:
        """Nothing is shared that needs closing."""


class SlotConnection:
    """At most one socket. Kept open between requests to the same host, closed before another host is asked."""

    def __init__(self, settings: HttpSettings) -> None:
        self._settings = settings
        self._plain: Connection = PlainConnection(settings)
        self._session: Connection | None = None
        """Made when there is a proxy: aiohttp is imported then, and not before."""

    @property
    def host(self) -> str:
        """Host and port that the open socket leads to, empty if none is open."""
        return self._plain.host or (self._session.host if self._session is not None else "")

    async def get(self, url: str, fields: Mapping[str, str]) -> Response:
        """Send one GET. Raises `ConnectFailed`, `ConnectionLost`, `Stalled`, `BadResponse` or `PolicyRefused`."""
        proxy = self._settings.proxy_for(URL(url, encoded=True))
        if proxy is None:
            if self._session is not None:
                await self._session.aclose()
            return await self._plain.get(url, fields)
        await self._plain.aclose()
        if self._session is None:
            from grym_fetch.net.session import SessionConnection

            self._session = SessionConnection(self._settings)
        return await self._session.get(url, fields)

    async def aclose(self) -> None:
        """Close the socket, if one is open."""
        try:
            await self._plain.aclose()
        finally:
            if self._session is not None:
                await self._session.aclose()

"""The transport for HTTP. Whether the environment names a proxy for an address decides which way a request goes.

Rules, for both ways: a place has at most one socket, even an idle one. No redirect is followed, no cookie is kept,
nothing is decoded, and TLS is always verified. Every foreign exception is mapped where it arises, without its text.
"""

from __future__ import annotations

from collections.abc import Mapping

from yarl import URL

from grym_fetch.core.world import Connection, Response
from grym_fetch.net.plain import PlainConnection
from grym_fetch.net.proxies import is_socks
from grym_fetch.net.settings import CONNECT_TIMEOUT_S, STALL_TIMEOUT_S, HttpSettings


class HttpTransport:
    """Makes connections that share settings. Times in seconds."""

    def __init__(
        self,
        *,
        connect_timeout: float = CONNECT_TIMEOUT_S,
        stall_timeout: float = STALL_TIMEOUT_S,
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
        """Do nothing: connections share nothing that needs closing."""


class SlotConnection:
    """Holds at most one socket: keeps it for the next request to its host, closes it before asking another host."""

    def __init__(self, settings: HttpSettings) -> None:
        self._settings = settings
        self._plain = PlainConnection(settings)
        self._session: Connection | None = None
        """Made when there is a proxy that speaks HTTP; only then is aiohttp imported."""

    @property
    def host(self) -> str:
        """Host and port that the open socket leads to, empty if none is open."""
        return self._plain.host or (self._session.host if self._session is not None else "")

    @property
    def certificate_ends(self) -> float | None:
        """When the certificate of the last server expires, in seconds since the epoch; None over a proxy or no TLS."""
        return self._plain.certificate_ends if self._session is None else None

    async def get(self, url: str, fields: Mapping[str, str]) -> Response:
        """Send one GET. Raises `ConnectFailed`, `ConnectionLost`, `Stalled`, `BadResponse` or `PolicyRefused`."""
        proxy = self._settings.proxy_for(URL(url, encoded=True))
        if proxy is None or is_socks(proxy):
            if self._session is not None:
                await self._session.aclose()
            return await self._plain.get(url, fields)
        await self._plain.aclose()
        if self._session is None:
            from grym_fetch.net.session import SessionConnection

            self._session = SessionConnection(self._settings)
        return await self._session.get(url, fields)

    def ask_ahead(self, url: str, fields: Mapping[str, str]) -> bool:
        """Send a GET ahead of its turn, if that is possible now. Over a proxy that speaks HTTP it is not."""
        return self._session is None and self._plain.ask_ahead(url, fields)

    @property
    def ahead(self) -> int:
        """How many requests were sent ahead that may still be answered."""
        return self._plain.ahead

    @property
    def is_ahead(self) -> bool:
        """Whether the last response answers a request that was sent ahead."""
        return self._session is None and self._plain.is_ahead

    def lost_ahead(self) -> bool:
        """Return whether requests sent ahead came to nothing, by no fault of ours; forget it."""
        return self._plain.lost_ahead()

    async def aclose(self) -> None:
        """Close the socket, if one is open."""
        try:
            await self._plain.aclose()
        finally:
            if self._session is not None:
                await self._session.aclose()

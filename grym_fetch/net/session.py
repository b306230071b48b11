"""HTTP over an application's own aiohttp session: its connector, proxy, tracing and authentication.

Rules: follows no redirect and decodes nothing. Every exception of aiohttp, asyncio and the operating system is mapped
here, once, and without its text, which may hold an address with a secret. The session still belongs to the application.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping

import aiohttp

from grym_fetch.core.addresses import to_the_letter
from grym_fetch.core.errors import (
    BadResponse,
    CertificateRejected,
    ConnectFailed,
    ConnectionLost,
    GrymFetchError,
    PolicyRefused,
    ProxyRefused,
    Stalled,
)
from grym_fetch.core.http import PROXY_ADVICE, ResponseHead
from grym_fetch.core.world import Connection
from grym_fetch.net.errors import broken_reason, certificate_reason, os_reason, stall_reason
from grym_fetch.net.proxies import refuse_forbidden
from grym_fetch.net.settings import CONNECT_TIMEOUT_S, STALL_TIMEOUT_S


class AiohttpTransport:
    """Fetches over an existing `aiohttp.ClientSession` of the application.

    Proxies, TLS, cookies and the connection limit are the session's. It must have been made with
    ``auto_decompress=False``, because the bytes are verified as they were sent. The time-outs given here replace the
    session's. The manager does not close the session. Addresses are judged as written, not by where a name leads.
    Plain http needs a checksum and gets no token, even on this machine, since the session may have a proxy.

    Args:
        session: where requests are sent.
        connect_timeout: give up on a connection that takes longer to make, in seconds.
        stall_timeout: give up on a connection after this many seconds without data.

    Raises `ValueError` for a session that decompresses.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        *,
        connect_timeout: float = CONNECT_TIMEOUT_S,
        stall_timeout: float = STALL_TIMEOUT_S,
    ) -> None:
        if session.auto_decompress:
            raise ValueError("the session must be made with auto_decompress=False: the bytes are verified as sent")
        self._session = session
        self.connect_timeout = connect_timeout
        self.stall_timeout = stall_timeout

    def connection(self) -> Connection:
        """Return a place for a connection. The session's connector decides which socket it gets."""
        return SessionConnection(self._session, self.connect_timeout, self.stall_timeout)

    async def aclose(self) -> None:
        """Leave the session open: it belongs to the application."""


class SessionConnection:
    """Sends one request at a time; idle sockets are in the session's connector."""

    host = ""

    def __init__(self, session: aiohttp.ClientSession, connect_timeout: float, stall_timeout: float) -> None:
        self._session = session
        self._connect_timeout = connect_timeout
        self.stall_timeout = stall_timeout
        self._timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=connect_timeout, sock_read=stall_timeout, ceil_threshold=60.0
        )

    async def get(self, url: str, fields: Mapping[str, str]) -> SessionResponse:
        """Send one GET. Raises `ConnectFailed`, `ConnectionLost`, `Stalled`, `BadResponse` or `PolicyRefused`."""
        return await self._send("GET", url, fields, None)

    async def post(self, url: str, fields: Mapping[str, str], body: bytes) -> SessionResponse:
        """Send one POST. Raises what `get` raises."""
        return await self._send("POST", url, fields, body)

    async def _send(self, method: str, url: str, fields: Mapping[str, str], body: bytes | None) -> SessionResponse:
        address = to_the_letter(url)
        refuse_forbidden(url, address.host or "", allow_private=True)
        fields = {"Accept-Encoding": "identity", **fields}
        if address.scheme == "http":
            # They are for this machine, but only the session knows whether a proxy would read them.
            fields.pop("Authorization", None)
        try:
            response = await self._session.request(
                method,
                address,
                data=body,
                headers=fields,
                allow_redirects=False,
                raise_for_status=False,
                timeout=self._timeout,
            )
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            raise self.mapped(error, url) from None
        return SessionResponse(self, response, url)

    async def aclose(self) -> None:
        """Do nothing: a finished response has given its socket back."""

    def mapped(self, error: BaseException, url: str, *, in_body: bool = False) -> GrymFetchError:
        """Return our error for a foreign one, by its class and never by its text."""
        match error:
            case aiohttp.ConnectionTimeoutError():
                return ConnectFailed(url, f"no connection within {self._connect_timeout:g} s")
            case aiohttp.SocketTimeoutError() | asyncio.TimeoutError():
                return Stalled(url, stall_reason(self.stall_timeout))
            case aiohttp.ClientConnectorCertificateError():
                why = error.certificate_error
                reason = (
                    certificate_reason(why) if isinstance(why, ssl.SSLCertVerificationError) else "verification failed"
                )
                return CertificateRejected(url, f"the server's certificate was rejected: {reason}")
            case aiohttp.ClientConnectorDNSError():
                return ConnectFailed(url, "the host name cannot be resolved")
            case aiohttp.ClientHttpProxyError() if error.status in (401, 407):
                return ProxyRefused(url, f"the proxy answered {error.status}: {PROXY_ADVICE}")
            case aiohttp.ClientHttpProxyError():
                return ConnectFailed(url, f"the proxy answered {error.status}")
            case aiohttp.ClientProxyConnectionError():
                return ConnectFailed(url, f"no connection to the proxy: {os_reason(error)}")
            case aiohttp.ClientSSLError():
                return ConnectFailed(url, f"the TLS handshake failed: {os_reason(error.os_error)}")
            case aiohttp.ClientConnectorError():
                return ConnectFailed(url, f"cannot connect: {os_reason(error)}")
            case aiohttp.ServerDisconnectedError() if not in_body:
                return ConnectionLost(url, "the server closed the connection without an answer")
            case aiohttp.ClientPayloadError():
                return ConnectionLost(url, "the connection broke off before the end of the content")
            case aiohttp.InvalidURL():
                return PolicyRefused(url, "not a usable address")
            case aiohttp.ClientResponseError():
                return BadResponse(url, broken_reason(error.message))
            case OSError():
                return ConnectionLost(url, f"the connection broke off: {os_reason(error)}")
            case aiohttp.ClientConnectionError():
                return ConnectionLost(url, "the connection broke off")
            case _:
                return BadResponse(url, f"the response could not be read ({type(error).__name__})")


class SessionResponse:
    """A response whose body has not been read yet."""

    def __init__(self, connection: SessionConnection, response: aiohttp.ClientResponse, url: str) -> None:
        self._connection = connection
        self._response = response
        self._url = url
        self._rest = memoryview(b"")
        fields: dict[str, list[str]] = {}
        for name, value in response.raw_headers:
            # As over our own socket, a character stands for a byte. aiohttp's decoding loses bytes that are not UTF-8.
            fields.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1").strip())
        self.head = ResponseHead(response.status, fields, is_local=False)

    async def readinto(self, buffer: memoryview) -> int:
        """Fill the front of ``buffer`` with the next bytes, at least one. Return how many; 0 at the end."""
        if not self._rest:
            try:
                # aiohttp's own time-out begins anew with each byte, even one that is no part of the content.
                async with asyncio.timeout(self._connection.stall_timeout):
                    self._rest = memoryview(await self._response.content.readany())
            except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
                raise self._connection.mapped(error, self._url, in_body=True) from None
        count = min(len(self._rest), len(buffer))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def close(self) -> None:
        """Keep the socket if the body was read to its end; otherwise close it."""
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()

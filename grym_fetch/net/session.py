"""HTTP through a proxy, over aiohttp.

Rules: follows no redirect, sends no cookie, decodes nothing, verifies TLS always. Every exception of aiohttp, asyncio
and the operating system is mapped here, once, and without its text, which may hold an address with a secret in it.

A `SessionConnection` holds an aiohttp session whose connector may open one socket. aiohttp's own limit does not count
idle sockets; this way there are never more sockets than places, idle ones included.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import DefaultResolver

from grym_fetch.core.addresses import forbidden_reason, to_the_letter
from grym_fetch.core.errors import (
    BadResponse,
    BadStatus,
    CertificateRejected,
    ConnectFailed,
    ConnectionLost,
    GrymFetchError,
    PolicyRefused,
    Stalled,
)
from grym_fetch.core.http import PROXY_ADVICE, ResponseHead
from grym_fetch.core.text import safe_text
from grym_fetch.net.errors import broken_reason, certificate_reason, os_reason, stall_reason, tls_reason
from grym_fetch.net.proxies import is_socks, refuse_forbidden
from grym_fetch.net.quiet import is_quiet
from grym_fetch.net.settings import HttpSettings, trust_advice

READ_BUFFER_BYTES = 512 * 1024
"""What a connection may buffer before it stops reading from the socket (at most twice this)."""
MAX_FIELD_BYTES = 16 * 1024
"""Of one header field; with at most 128 fields, this bounds what headers can cost."""
KEEP_ALIVE_S = 30.0
"""How long an idle socket is kept."""


class GuardedResolver(AbstractResolver):
    """Resolves names and refuses forbidden addresses. Because it checks what was resolved, no name can hide one."""

    def __init__(self, *, allow_private: bool) -> None:
        self._resolver = DefaultResolver()
        self._allow_private = allow_private

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        """Resolve ``host``; raises `PolicyRefused` if any of its addresses is forbidden."""
        found = await self._resolver.resolve(host, port, family)  # type: ignore[arg-type]  # as above
        for entry in found:
            reason = forbidden_reason(entry["host"], allow_private=self._allow_private)
            if reason:
                raise PolicyRefused(f"//{host}", f"{safe_text(host)} is {reason}")
        return found

    async def close(self) -> None:
        """Close the resolver beneath."""
        await self._resolver.close()


class SessionConnection:
    """Holds at most one socket: keeps it for the next request to its host, closes it before asking another host."""

    def __init__(self, settings: HttpSettings) -> None:
        self._settings = settings
        self._timeout = aiohttp.ClientTimeout(
            total=None,
            connect=settings.connect_timeout,
            sock_connect=settings.connect_timeout,
            sock_read=settings.stall_timeout,
        )
        self._session: aiohttp.ClientSession | None = None
        self._key: tuple[str, str | None, int | None, str | None] | None = None
        self.host = ""

    async def get(self, url: str, fields: Mapping[str, str]) -> SessionResponse:
        """Send one GET. Raises `ConnectFailed`, `ConnectionLost`, `Stalled`, `BadResponse` or `PolicyRefused`."""
        address = to_the_letter(url)
        proxy = self._settings.proxy_for(address)
        if is_socks(proxy):
            raise PolicyRefused(url, "over aiohttp there is no way through a SOCKS proxy")
        refuse_forbidden(url, address.host or "", allow_private=self._settings.allow_private)
        fields = {**self._settings.fields, **fields}
        if proxy and address.scheme == "http":
            # They were given because the host is this machine. A proxy reads them, and takes itself for that host.
            fields.pop("Authorization", None)
        tls = self._settings.tls_for(url) if address.scheme == "https" else True
        key = (address.scheme, address.host, address.port, proxy)
        if key != self._key or not self._is_quiet():
            await self.aclose()
            self._session, self._key, self.host = self._open_session(guarded=not proxy), key, address.authority
        assert self._session is not None
        try:
            response = await self._session.get(
                address,
                headers=fields,
                allow_redirects=False,
                proxy=proxy,
                ssl=tls,
            )
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            raise _mapped(error, url, self._settings) from None
        if proxy and address.scheme == "http" and response.status == 401 and "Via" not in response.headers:
            # Some proxies (tinyproxy) answer a wrong password as a server would. Only what came from behind has a Via.
            response.close()
            raise BadStatus(url, 401, f"status 401: the server wants credentials, or {PROXY_ADVICE}")
        return SessionResponse(response, url, self._settings, is_local=False if proxy else None)

    def _is_quiet(self) -> bool:
        """Whether nothing has come over the idle socket: aiohttp would take it for the answer to the next request."""
        connector = self._session.connector if self._session is not None else None
        pools = connector._conns.values() if connector is not None else ()  # noqa: SLF001 - no public way to it
        protocols = [protocol for pool in pools for protocol, _ in pool]
        return all(not p.should_close and p.transport is not None and is_quiet(p.transport) for p in protocols)

    def _open_session(self, *, guarded: bool) -> aiohttp.ClientSession:
        # A proxy is the user's own choice and may be anywhere; what lies behind it, the proxy resolves itself.
        resolver = GuardedResolver(allow_private=self._settings.allow_private) if guarded else DefaultResolver()
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=1,
                limit_per_host=1,
                keepalive_timeout=KEEP_ALIVE_S,
                use_dns_cache=False,
                resolver=resolver,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=self._timeout,
            auto_decompress=False,
            trust_env=False,
            read_bufsize=READ_BUFFER_BYTES,
            max_line_size=MAX_FIELD_BYTES,
            max_field_size=MAX_FIELD_BYTES,
        )

    async def aclose(self) -> None:
        """Close the socket, if one is open."""
        session, self._session, self._key, self.host = self._session, None, None, ""
        if session is not None:
            await session.close()


class SessionResponse:
    """A response whose body has not been read yet."""

    def __init__(
        self, response: aiohttp.ClientResponse, url: str, settings: HttpSettings, *, is_local: bool | None = None
    ) -> None:
        self._response = response
        self._url = url
        self._settings = settings
        self._is_broken = False
        self._rest = memoryview(b"")
        fields: dict[str, list[str]] = {}
        for name, value in response.raw_headers:
            # As over a plain connection: a character stands for a byte. aiohttp's own reading loses what is not UTF-8.
            fields.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1").strip())
        self.head = ResponseHead(response.status, fields, is_local=is_local)

    async def readinto(self, buffer: memoryview) -> int:
        """Fill the front of ``buffer`` with what has come, waiting for at least one byte; 0 at the end."""
        if not self._rest:
            self._rest = await self._read()
        count = min(len(self._rest), len(buffer))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    async def _read(self) -> memoryview:
        stream = self._response.content
        try:
            return memoryview(await stream.readany())
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            # aiohttp raises what ended the connection before it gives what had arrived by then. That is up to a
            # MiB: thrown away each time, a server that breaks off early would never get us any further.
            rest = b"".join(stream._buffer)  # noqa: SLF001 - no public way to it
            if rest and not self._is_broken:
                self._is_broken = True
                return memoryview(rest)
            raise _mapped(error, self._url, self._settings, in_body=True) from None

    def close(self) -> None:
        """Keep the socket if the body was read to its end, close it otherwise."""
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()


def _mapped(error: BaseException, url: str, settings: HttpSettings, *, in_body: bool = False) -> GrymFetchError:
    """Return our error for a foreign one: the family decides, never the text."""
    match error:
        case aiohttp.ConnectionTimeoutError():
            return ConnectFailed(url, f"no connection within {settings.connect_timeout:g} s")
        case aiohttp.SocketTimeoutError() | asyncio.TimeoutError():
            return Stalled(url, stall_reason(settings.stall_timeout))
        case aiohttp.ClientConnectorCertificateError():
            why = certificate_reason(error.certificate_error)
            return CertificateRejected(url, f"the server's certificate was rejected: {why}{trust_advice()}")
        case aiohttp.ClientConnectorDNSError():
            return ConnectFailed(url, "the host name cannot be resolved")
        case aiohttp.ClientHttpProxyError() if error.status in (401, 407):
            return BadStatus(url, error.status, f"the proxy answered {error.status}: {PROXY_ADVICE}")
        case aiohttp.ClientHttpProxyError():
            return ConnectFailed(url, f"the proxy answered {error.status}")
        case aiohttp.ClientProxyConnectionError():
            return ConnectFailed(url, f"no connection to the proxy: {os_reason(error)}")
        case aiohttp.ClientSSLError():
            return ConnectFailed(url, f"the TLS handshake failed: {tls_reason(error.os_error)}")
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

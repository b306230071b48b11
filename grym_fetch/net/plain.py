"""HTTP/1.1 over a socket of our own: where it leads, when it is kept, and what goes out over it.

Rules: one socket, one request at a time. A socket is resolved, judged and opened here; what comes over it is the
wire's (`wire`), and what the bytes mean the parser's (`parser`). An address of a name that fails is asked last for a
while (`places`).
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from aiohappyeyeballs import AddrInfoType, start_connection
from yarl import URL

from grym_fetch.core.addresses import forbidden_reason, host_of, to_the_letter
from grym_fetch.core.errors import (
    CertificateRejected,
    ConnectFailed,
    ConnectionLost,
    GrymFetchError,
    PolicyRefused,
)
from grym_fetch.core.http import ResponseHead
from grym_fetch.core.text import safe_text
from grym_fetch.net.errors import certificate_reason, os_reason, tls_reason
from grym_fetch.net.places import Name, address_of
from grym_fetch.net.proxies import dial_through, is_socks, refuse_forbidden, resolves_names
from grym_fetch.net.settings import HttpSettings, trust_advice
from grym_fetch.net.states import State
from grym_fetch.net.tls import certificate_expiry
from grym_fetch.net.wire import Wire

EYEBALLS_DELAY_S = 0.25
"""Before the next address of a host is tried beside the last one (RFC 8305 section 5)."""


_NOWHERE: tuple[Name, str] = ("", 0), ""


class PlainConnection:
    """Holds at most one socket, and keeps it for the next request to the same host if both sides agree."""

    def __init__(self, settings: HttpSettings) -> None:
        self._settings = settings
        self._wire: Wire | None = None
        self._key: tuple[str, str | None, int | None] | None = None
        self._host = ""
        self._peer = _NOWHERE
        """The name and the address that the socket leads to; nowhere that is known, behind a proxy."""
        self._is_proxied = False
        """Whether the socket leads to a proxy, which may be on this machine while the server is not."""
        self.certificate_ends: float | None = None
        """When the certificate of the server that was connected to last expires, in seconds since the epoch."""

    @property
    def host(self) -> str:
        """Host and port that the open socket leads to, empty if none is open."""
        return self._host if self._wire is not None and self._wire.is_open else ""

    async def get(self, url: str, fields: Mapping[str, str]) -> PlainResponse:
        """Send one GET. Raises `ConnectFailed`, `ConnectionLost`, `Stalled`, `BadResponse` or `PolicyRefused`."""
        address = to_the_letter(url)
        proxy = self._settings.proxy_for(address)
        fields = {**self._settings.fields, **fields}
        if proxy and address.scheme == "http":
            # They were given because the host is this machine. A proxy takes itself for that host.
            fields.pop("Authorization", None)
        request = _request(address, url, fields)
        is_for_us = address.scheme == "http" and "Authorization" in fields
        key = (address.scheme, address.host, address.port)
        if self._wire is not None and (key != self._key or not self._wire.is_quiet or self._leads_to_worse):
            await self.aclose()
        if self._wire is not None:
            try:
                return await self._ask(self._wire, request, url, is_for_us=is_for_us, is_fresh=False)
            except ConnectionLost:
                # RFC 9112 section 9.3.1: the server may have closed the idle connection just when we asked.
                if self._wire.state is not State.UNANSWERED:
                    raise
                await self.aclose()
        wire = await self._connect(address, url, proxy)
        self._wire, self._key, self._host, self._is_proxied = wire, key, address.authority, is_socks(proxy)
        return await self._ask(wire, request, url, is_for_us=is_for_us, is_fresh=True)

    @property
    def _leads_to_worse(self) -> bool:
        return self._settings.places.is_worse(*self._peer, asyncio.get_running_loop().time())

    async def _ask(self, wire: Wire, request: bytes, url: str, *, is_for_us: bool, is_fresh: bool) -> PlainResponse:
        """Send a request. ``is_for_us``: only to this machine itself; its name alone (`*.localhost`) proves nothing."""
        try:
            if is_for_us and not wire.is_local:
                reason = f"{safe_text(host_of(url))} is not this machine, and gets no token over plain http"
                raise PolicyRefused(url, reason)
            head = await wire.ask(request, url)
        except BaseException as error:
            if isinstance(error, GrymFetchError) and (is_fresh or wire.state is not State.UNANSWERED):
                self._note_failure()
            wire.abort()
            raise
        if head.status >= 500:
            self._note_failure()
        head = replace(head, is_local=wire.is_local and not self._is_proxied)
        return PlainResponse(wire, head, self._note_failure)

    def _note_failure(self) -> None:
        """The address that the socket leads to has failed."""
        self._settings.places.failed(*self._peer, asyncio.get_running_loop().time())

    async def _connect(self, address: URL, url: str, proxy: str | None) -> Wire:
        loop = asyncio.get_running_loop()
        host, port = address.host or "", address.port or 0
        tls = self._settings.tls_for(url) if address.scheme == "https" else None
        try:
            async with asyncio.timeout(self._settings.connect_timeout):
                if proxy is not None and is_socks(proxy):
                    self._peer = _NOWHERE
                    sock = await self._dial(proxy, host, port, url)
                else:
                    places = await self._resolve(host, port, url)
                    sock = await self._open_socket((host, port), places)
                try:
                    transport, wire = await loop.create_connection(
                        lambda: Wire(self._settings.stall_timeout),
                        sock=sock,
                        ssl=tls,
                        server_hostname=host if tls is not None else None,
                    )
                except BaseException:
                    self._note_failure()
                    raise
                self.certificate_ends = certificate_expiry(transport)
                return wire
        except TimeoutError:
            raise ConnectFailed(url, f"no connection within {self._settings.connect_timeout:g} s") from None
        except ssl.SSLCertVerificationError as error:
            reason = f"the server's certificate was rejected: {certificate_reason(error)}{trust_advice()}"
            raise CertificateRejected(url, reason) from None
        except ssl.SSLError as error:
            raise ConnectFailed(url, f"the TLS handshake failed: {tls_reason(error)}") from None
        except (socket.gaierror, UnicodeError):
            raise ConnectFailed(url, "the host name cannot be resolved") from None
        except OSError as error:
            raise ConnectFailed(url, f"cannot connect: {os_reason(error)}") from None

    async def _open_socket(self, name: Name, found: Sequence[AddrInfoType]) -> socket.socket:
        loop, known = asyncio.get_running_loop(), self._settings.places
        first, last = known.ranked(name, found, loop.time())
        try:
            sock = await start_connection(first, happy_eyeballs_delay=EYEBALLS_DELAY_S)
        except OSError:
            if not last:
                raise
            sock = await start_connection(last, happy_eyeballs_delay=EYEBALLS_DELAY_S)
        except asyncio.CancelledError:
            # Most likely the time is up. Where it is not, nothing but the order of the next try depends on it.
            for place in first:
                known.failed(name, address_of(place), loop.time())
            raise
        self._peer = name, str(sock.getpeername()[0])
        return sock

    async def _dial(self, proxy: str, host: str, port: int, url: str) -> socket.socket:
        """Connect through a SOCKS proxy. What is behind a name, one that is told names finds out by itself."""
        dial = dial_through(proxy, url)
        if resolves_names(proxy):
            refuse_forbidden(url, host, allow_private=self._settings.allow_private)
        else:
            place = (await self._resolve(host, port, url))[0][4]
            host = str(place[0])
        return await dial(host, port)

    async def _resolve(self, host: str, port: int, url: str) -> list[AddrInfoType]:
        """Return the addresses to connect to: exactly those that were checked here."""
        self._judge(host, host, url)  # `169.254.169.254.` is a name to the system, and needs no resolving
        try:
            family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
            found: list[AddrInfoType] = [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))]
        except ValueError:
            found = list(await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM))
        for *_, place in found:
            self._judge(str(place[0]), host, url)
        return found

    def _judge(self, ip: str, host: str, url: str) -> None:
        reason = forbidden_reason(ip, allow_private=self._settings.allow_private)
        if reason:
            raise PolicyRefused(url, f"{safe_text(host)} is {reason}")

    def forget(self) -> None:
        """In a forked child: leave the socket to the parent."""
        if self._wire is not None:
            self._wire.forget()

    async def aclose(self) -> None:
        """Close the socket, if one is open."""
        wire, self._wire, self._key = self._wire, None, None
        if wire is not None:
            wire.abort()
            await wire.closed


class PlainResponse:
    """A response whose body has not been read yet."""

    def __init__(self, wire: Wire, head: ResponseHead, on_failure: Callable[[], None]) -> None:
        self._wire = wire
        self._on_failure = on_failure
        self._is_closed = False
        self.head = head

    async def readinto(self, buffer: memoryview) -> int:
        """Fill the front of ``buffer`` with what has come, waiting for at least one byte; 0 at the end."""
        try:
            return await self._wire.readinto(buffer)
        except GrymFetchError:
            self._on_failure()
            raise

    def close(self) -> None:
        """Keep the socket if the body was read to its end, close it otherwise."""
        if not self._is_closed:
            self._is_closed = True
            self._wire.finish()


def _request(address: URL, url: str, fields: Mapping[str, str]) -> bytes:
    """Return the request's bytes. `PolicyRefused` where a character in it could end a line (RFC 9112 section 11.1)."""
    host = address.host_port_subcomponent or ""
    if address.port is not None and address.is_default_port():
        host = address.host_subcomponent or ""
    lines = [
        f"GET {address.raw_path_qs} HTTP/1.1",
        f"Host: {host}",
        *(f"{name}: {value}" for name, value in fields.items()),
    ]
    text = "\r\n".join(lines)
    if not host or any(not line.isprintable() or not line.isascii() for line in lines) or " " in address.raw_path_qs:
        raise PolicyRefused(url, "not a usable address")
    return f"{text}\r\n\r\n".encode("ascii")

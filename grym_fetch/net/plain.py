"""HTTP/1.1 over our own socket: where it leads, when it is kept, and what is sent over it.

Rules: there is at most one socket, idle ones included. A request may be sent ahead of its turn; a later call for the
same request then gets its answer, and if there is none, the request is sent over a new socket as if it had never been
sent. Names are resolved, and addresses judged and connected to, here, directly or through a proxy (`proxies`,
`tunnel`); `wire` receives the bytes, and `parser` interprets them, whichever way they came. No redirect is followed, no
cookie is kept, nothing is decoded, and TLS is always verified. Every foreign exception is mapped where it arises,
without its text. An address of a name that fails is tried last for a while (`places`); if one refuses, the others are
tried at once.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from aiohappyeyeballs import AddrInfoType, start_connection
from yarl import URL

from grym_fetch.core.addresses import forbidden_reason, host_of, to_the_letter
from grym_fetch.core.errors import ConnectionLost, GrymFetchError, PolicyRefused, ProxyRefused
from grym_fetch.core.http import PROXY_ADVICE, ResponseHead
from grym_fetch.core.text import safe_text
from grym_fetch.net.errors import connect_error
from grym_fetch.net.places import Name, address_of
from grym_fetch.net.proxies import Proxy, dial_through, refuse_forbidden
from grym_fetch.net.settings import HttpSettings
from grym_fetch.net.states import State
from grym_fetch.net.tls import certificate_expiry
from grym_fetch.net.tunnel import open_tunnel, refusal, start_tls
from grym_fetch.net.wire import Wire

FIRST_AHEAD_TIMEOUT_S = 1.0
"""Wait this long for the first such answer over a socket, or four times as long as an answer in turn took."""
AHEAD_TIMEOUT_S = 5.0
"""Wait this long for the answer to a request sent ahead, once its turn has come, before repeating the request.

Some servers and filters drop such requests. If one was only slow to answer, it is no longer asked ahead.
"""
EYEBALLS_DELAY_S = 0.25
"""The delay before the next address of a host is tried in parallel (RFC 8305 section 5)."""
MAX_PLACES = 8
"""How many addresses of a name are asked the same before the last one's refusal counts."""
_NOWHERE: tuple[Name, str] = ("", 0), ""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Request:
    """A request: its destination and its bytes. ``fields`` are those that it was made from."""

    url: str
    fields: Mapping[str, str]
    address: URL
    proxy: Proxy | None
    is_for_us: bool
    """Whether it may go only to this machine itself; a name (`*.localhost`) proves nothing."""
    data: bytes

    @property
    def key(self) -> tuple[str, str | None, int | None]:
        """Two requests can go over one socket only if these are equal."""
        return self.address.scheme, self.address.host, self.address.port

    def is_for(self, url: str, fields: Mapping[str, str]) -> bool:
        """Whether it asks for exactly this."""
        return self.url == url and self.fields == fields


class PlainConnection:
    """Holds at most one socket, and keeps it for the next request to the same host if both sides agree."""

    def __init__(self, settings: HttpSettings) -> None:
        self._settings = settings
        self._wire: Wire | None = None
        self._key: tuple[str, str | None, int | None] | None = None
        self._host = ""
        self._peer = _NOWHERE
        """The name and the address that the socket leads to; `_NOWHERE` behind a proxy."""
        self._is_proxied = False
        """Whether the socket leads to a proxy, which may be on this machine even if the server is not."""
        self._is_read_by_proxy = False
        """Whether that proxy reads the requests, and may answer them itself."""
        self.certificate_ends: float | None = None
        """When the certificate of the last server connected to expires, in seconds since the epoch."""
        self._ahead: deque[_Request] = deque()
        """The requests sent ahead of their turn whose answers nobody has asked for yet."""
        self.is_ahead = False
        self._has_lost_ahead = False
        self._longest_wait = 0.0
        """The longest that an answer in turn has taken over this socket, in seconds."""
        self._is_unasked = False
        """Whether this socket was opened before it was needed, and nothing was asked over it yet."""
        self._has_kept_ahead = False
        """Whether a request sent ahead was answered over this socket."""

    @property
    def host(self) -> str:
        """Host and port that the open socket leads to; empty if none is open."""
        return self._host if self._wire is not None and self._wire.is_open else ""

    async def get(self, url: str, fields: Mapping[str, str]) -> PlainResponse:
        """Send one GET.

        Raises `ConnectFailed`, `ConnectionLost`, `Stalled`, `BadResponse`, `ProxyRefused` or `PolicyRefused`.
        """
        request = self._request_ahead(url, fields) or self._request(url, fields)
        if fields.get("Cache-Control") == "no-cache":
            # Each address of a name may be a separate cache, which no header field can bypass.
            name = request.address.host or "", request.address.port or 0
            self._settings.places.doubt(name, asyncio.get_running_loop().time())
        return await self._send(request)

    async def post(self, url: str, fields: Mapping[str, str], body: bytes) -> PlainResponse:
        """Send one POST, which only asks something: it may be repeated. Raises what `get` raises."""
        return await self._send(self._request(url, fields, body))

    async def _send(self, request: _Request) -> PlainResponse:
        self.is_ahead = False
        if self._ahead and (response := await self._answer_ahead(request)) is not None:
            self.is_ahead = True
            return response
        if self._wire is not None and (request.key != self._key or not self._wire.is_quiet or self._leads_to_worse):
            await self.aclose()
        if self._wire is not None:
            is_first, self._is_unasked = self._is_unasked, False
            try:
                response = await self._ask(self._wire, request, is_fresh=False)
                if not is_first or not self._another_may_have_it(response):
                    return response
            except ConnectionLost:
                # RFC 9112 section 9.3.1: the server may have closed the idle connection just when we asked.
                if self._wire.state is not State.UNANSWERED:
                    raise
            await self.aclose()
        asked: set[str] = set()
        while True:
            response = await self._ask(await self._open(request), request, is_fresh=True)
            # A failure is forgotten after a while, and a name may lead to other addresses each time it is resolved.
            is_over = self._peer[1] in asked or len(asked) == MAX_PLACES - 1
            asked.add(self._peer[1])
            if not self._another_may_have_it(response) or is_over:
                return response
            await self.aclose()

    def _another_may_have_it(self, response: PlainResponse) -> bool:
        """Whether to ask another address of the name, which has not failed lately. This one has, if so."""
        if not _may_be_the_address(response.head.status):
            return False
        self._note_failure()
        return self._leads_to_worse

    async def open(self, url: str) -> None:
        """Open a socket to where ``get(url)`` would send a request, unless one is open there. Sends nothing.

        Not through a proxy, which would be tried with a wrong password several times at once. Raises `ConnectFailed`
        or `PolicyRefused`.
        """
        request = self._request(url, {})
        if request.proxy is not None:
            return
        if self._wire is None or request.key != self._key or not self._wire.is_quiet:
            await self.aclose()
            await self._open(request)
            self._is_unasked = True

    async def _open(self, request: _Request) -> Wire:
        wire = await self._connect(request.address, request.url, request.proxy)
        self._wire, self._key, self._host = wire, request.key, request.address.authority
        self._longest_wait, self._has_kept_ahead, self._is_unasked = 0.0, False, False
        self._is_proxied, self._is_read_by_proxy = request.proxy is not None, _reads(request.proxy, request.address)
        return wire

    def _request(self, url: str, fields: Mapping[str, str], body: bytes | None = None) -> _Request:
        address = to_the_letter(url)
        proxy, given = self._settings.proxy_for(address), fields
        fields = {**self._settings.fields, **fields}
        if proxy is not None and address.scheme == "http":
            # Credentials over http are for this machine only; a proxy would take that host name for its own machine.
            fields.pop("Authorization", None)
        data = _request(address, url, fields, body, reader=proxy if _reads(proxy, address) else None)
        is_for_us = address.scheme == "http" and "Authorization" in fields
        return _Request(url, given, address, proxy, is_for_us, data)

    def ask_ahead(self, url: str, fields: Mapping[str, str]) -> bool:
        """Send a request for a later `get` if the open socket leads there and takes more. Raises `PolicyRefused`.

        Not done over a proxy that speaks HTTP.
        """
        wire = self._wire
        if wire is None or not wire.takes_more or self._leads_to_worse:
            return False
        request = self._request(url, fields)
        if request.key != self._key or (request.is_for_us and not wire.is_local):
            return False
        if request.proxy is not None and not request.proxy.is_socks:
            return False
        wire.send(request.data, url)
        self._ahead.append(request)
        return True

    def _request_ahead(self, url: str, fields: Mapping[str, str]) -> _Request | None:
        """The next request that was sent ahead, if it is for this address with exactly these fields."""
        return self._ahead[0] if self._ahead and self._ahead[0].is_for(url, fields) else None

    @property
    def ahead(self) -> int:
        """How many requests were sent ahead that may still be answered."""
        return len(self._ahead) if self._wire is not None and self._wire.is_open else 0

    def lost_ahead(self) -> bool:
        """Return whether requests sent ahead were lost through no fault of ours, and reset this."""
        is_broken = bool(self._ahead) and not self.ahead and self._wire is not None and self._wire.breaks_its_word
        lost, self._has_lost_ahead = self._has_lost_ahead or is_broken, False
        return lost

    def drop_ahead(self) -> None:
        """Nobody will ask for the answers to requests sent ahead: close the socket, or the server counts it as busy."""
        self._ahead.clear()
        if self._wire is not None:
            self._wire.abort()

    async def _answer_ahead(self, request: _Request) -> PlainResponse | None:
        """The answer to this request, if it is the next one sent ahead and there is an answer."""
        wire = self._wire
        if wire is None or request.key != self._key or request.data != self._ahead.popleft().data:
            await self.aclose()
            return None
        try:
            head = wire.head_now
            if head is None:
                async with asyncio.timeout(min(self._ahead_timeout, self._settings.stall_timeout)):
                    head = await wire.head()
            self._has_kept_ahead = True
        except (GrymFetchError, TimeoutError):
            self._has_lost_ahead = self._has_lost_ahead or wire.breaks_its_word
            await self.aclose()
            return None
        except BaseException:
            self._ahead.clear()
            wire.abort()
            raise
        return self._response(wire, head)

    @property
    def _ahead_timeout(self) -> float:
        """How long to wait for the answer to a request sent ahead."""
        first = AHEAD_TIMEOUT_S if self._has_kept_ahead else max(FIRST_AHEAD_TIMEOUT_S, 4 * self._longest_wait)
        return min(AHEAD_TIMEOUT_S, first)

    @property
    def _leads_to_worse(self) -> bool:
        return self._settings.places.is_worse(*self._peer, asyncio.get_running_loop().time())

    async def _ask(self, wire: Wire, request: _Request, *, is_fresh: bool) -> PlainResponse:
        try:
            if request.is_for_us and not wire.is_local:
                reason = f"{safe_text(host_of(request.url))} is not this machine, and gets no token over plain http"
                raise PolicyRefused(request.url, reason)
            began = asyncio.get_running_loop().time()
            head = await wire.ask(request.data, request.url)
            if not self._longest_wait:  # the first answer over this socket
                wire.keep_session()
            self._longest_wait = max(self._longest_wait, asyncio.get_running_loop().time() - began)
        except BaseException as error:
            if isinstance(error, GrymFetchError) and (is_fresh or wire.state is not State.UNANSWERED):
                self._note_failure()
            wire.abort()
            raise
        if self._is_read_by_proxy:
            self._refuse_as_proxy(wire, head, request.url)
        return self._response(wire, head)

    def _response(self, wire: Wire, head: ResponseHead) -> PlainResponse:
        if head.status >= 500 or head.status in (408, 416, 420, 425, 429, 430):
            self._note_failure()
        is_local = wire.is_local and not self._is_proxied
        return PlainResponse(wire, ResponseHead(head.status, head.fields, is_local=is_local), self._note_failure)

    def _note_failure(self) -> None:
        """The address that the socket leads to has failed."""
        self._settings.places.failed(*self._peer, asyncio.get_running_loop().time())

    @staticmethod
    def _refuse_as_proxy(wire: Wire, head: ResponseHead, url: str) -> None:
        """Raise `ProxyRefused` if the proxy itself has refused."""
        if head.status == 407:
            wire.abort()
            raise refusal(url, head.status)
        if head.status == 401 and "via" not in head.fields:
            # Some proxies (tinyproxy) answer a wrong password as a server would. Only a server's response has Via.
            wire.abort()
            raise ProxyRefused(url, f"status 401: the server wants credentials, or {PROXY_ADVICE}")

    async def _connect(self, address: URL, url: str, proxy: Proxy | None) -> Wire:
        self._peer, self.certificate_ends = _NOWHERE, None
        tls = self._settings.tls_for(url) if address.scheme == "https" else None
        by = asyncio.get_running_loop().time() + self._settings.connect_timeout
        if proxy is None or proxy.is_socks:
            socket_there = self._open_directly(address, url) if proxy is None else self._dial(proxy, address, url)
            return await self._within(by, self._wire_to_server(socket_there, address, tls), url)
        refuse_forbidden(url, address.host or "", allow_private=self._settings.allow_private)
        wire = await self._within(by, self._wire_to_proxy(proxy), url, is_proxy=True)
        if tls is None:
            return wire
        return await self._within(by, self._wire_through(wire, proxy, address, url, tls), url)

    async def _within(self, by: float, work: Awaitable[T], url: str, *, is_proxy: bool = False) -> T:
        """Await ``work`` until the loop's time ``by``, and map its errors."""
        try:
            async with asyncio.timeout_at(by):
                return await work
        except (OSError, UnicodeError) as error:
            raise connect_error(error, url, self._settings.connect_timeout, is_proxy=is_proxy) from None

    async def _open_directly(self, address: URL, url: str) -> socket.socket:
        host, port = address.host or "", address.port or 0
        return await self._open_socket((host, port), await self._resolve(host, port, url))

    async def _dial(self, proxy: Proxy, address: URL, url: str) -> socket.socket:
        """Connect through a SOCKS proxy. A proxy that resolves names gets the name, any other an address."""
        host, port = address.host or "", address.port or 0
        dial = dial_through(proxy, url)
        if proxy.resolves_names:
            refuse_forbidden(url, host, allow_private=self._settings.allow_private)
        else:
            host = str((await self._resolve(host, port, url))[0][4][0])
        return await dial(host, port)

    async def _wire_to_server(
        self, socket_there: Awaitable[socket.socket], address: URL, tls: ssl.SSLContext | None
    ) -> Wire:
        transport, wire = await self._wire_over(await socket_there, tls, address.host)
        self.certificate_ends = certificate_expiry(transport)
        return wire

    async def _wire_to_proxy(self, proxy: Proxy) -> Wire:
        """Connect to a proxy that speaks HTTP. The user has chosen it, so it may be anywhere."""
        sock = await self._open_socket((proxy.host, proxy.port), await _look_up(proxy.host, proxy.port))
        tls = self._settings.tls_for_proxy() if proxy.scheme == "https" else None
        _, wire = await self._wire_over(sock, tls, proxy.host)
        # From here on, a failure may be the server's fault.
        self._peer = _NOWHERE
        return wire

    async def _wire_over(
        self, sock: socket.socket, tls: ssl.SSLContext | None, host: str | None
    ) -> tuple[asyncio.Transport, Wire]:
        try:
            return await asyncio.get_running_loop().create_connection(
                lambda: Wire(self._settings.stall_timeout),
                sock=sock,
                ssl=tls,
                server_hostname=host if tls is not None else None,
            )
        except BaseException:
            self._note_failure()
            raise

    async def _wire_through(self, wire: Wire, proxy: Proxy, address: URL, url: str, tls: ssl.SSLContext) -> Wire:
        """Have the proxy connect to the server, and start TLS with it."""
        settings = self._settings
        tunnel = await open_tunnel(wire, proxy, address, url, settings.fields["User-Agent"])
        transport, wire = await start_tls(tunnel, tls, address.host or "", settings.stall_timeout)
        self.certificate_ends = certificate_expiry(transport)
        return wire

    async def _open_socket(self, name: Name, found: Sequence[AddrInfoType]) -> socket.socket:
        loop, known = asyncio.get_running_loop(), self._settings.places
        first, last = known.ranked(name, found, loop.time())
        try:
            sock = await start_connection(first, happy_eyeballs_delay=EYEBALLS_DELAY_S)
        except OSError:
            if not last:
                raise
            # Otherwise an answer of the others that this one might better would be asked for again and again.
            for place in first:
                known.failed(name, address_of(place), loop.time())
            sock = await start_connection(last, happy_eyeballs_delay=EYEBALLS_DELAY_S)
        except asyncio.CancelledError:
            # Most likely the time is up. If it is not, this only affects the order of the next try.
            for place in first:
                known.failed(name, address_of(place), loop.time())
            raise
        self._peer = name, str(sock.getpeername()[0])
        known.used(*self._peer)
        return sock

    async def _resolve(self, host: str, port: int, url: str) -> list[AddrInfoType]:
        """Return the addresses to connect to: exactly those that were checked here."""
        self._judge(host, host, url)  # `169.254.169.254.` is a name to the system, and needs no resolving
        found = await _look_up(host, port)
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
        self._ahead.clear()
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
        """Fill the front of ``buffer`` with the next bytes, at least one. Return how many; 0 at the end."""
        try:
            return await self._wire.readinto(buffer)
        except GrymFetchError:
            self._on_failure()
            raise

    def close(self) -> None:
        """Keep the socket if the body was read to its end; otherwise close it."""
        if not self._is_closed:
            self._is_closed = True
            self._wire.finish()


def _may_be_the_address(status: int) -> bool:
    """Whether another server of the same name may answer otherwise: one of them is old, empty or shut off.

    Not where it asks to wait or judges the range, nor what is retried after a while anyway.
    """
    return status in (204, 300) or (400 <= status < 500 and status not in (407, 408, 416, 420, 425, 429, 430))


async def _look_up(host: str, port: int) -> list[AddrInfoType]:
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
        return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))]
    except ValueError:
        return list(await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM))


def _reads(proxy: Proxy | None, address: URL) -> bool:
    """Whether a proxy reads the requests to this address and answers them itself; they then have the whole address."""
    return proxy is not None and not proxy.is_socks and address.scheme == "http"


def _request(address: URL, url: str, fields: Mapping[str, str], body: bytes | None, *, reader: Proxy | None) -> bytes:
    """Return the request's bytes. Raises `PolicyRefused` if a character could end a line (RFC 9112 section 11.1).

    ``body``: what a POST sends; None for a GET.
    ``reader``: the proxy that reads it, which wants the whole address (RFC 9112 section 3.2.2) and its own password.
    """
    host = address.host_port_subcomponent or ""  # without the port where that is the usual one
    target = address.raw_path_qs if reader is None else f"http://{host}{address.raw_path_qs}"
    fields = fields if reader is None else {**fields, **reader.fields}
    if body is not None:
        fields = {**fields, "Content-Length": str(len(body))}
    lines = [
        f"{'GET' if body is None else 'POST'} {target} HTTP/1.1",
        f"Host: {host}",
        *(f"{name}: {value}" for name, value in fields.items()),
    ]
    text = "\r\n".join(lines)
    if not host or any(not line.isprintable() or not line.isascii() for line in lines) or " " in target:
        raise PolicyRefused(url, "not a usable address")
    return f"{text}\r\n\r\n".encode("ascii") + (body or b"")

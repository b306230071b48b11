"""HTTP/1.1 over a socket of our own: what a plain connection takes, with no byte copied twice.

The head is read by llhttp (through httptools). From then on a body whose length is known is received straight into the
buffer that will be hashed and written; a chunked one goes through the parser. RFC 9112 section 6 says how a body ends.

Rules: one socket, one request at a time. Bytes beyond a body's end are never taken for a body, and end the connection.
What came before a connection broke off is given first, the error after it. Nothing is parsed leniently but a missing CR
and spaces behind a chunk's length, which common servers send. A head has a deadline of its own: a byte now and then
does not keep a connection.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections import deque
from collections.abc import Mapping
from typing import cast

import httptools
from aiohappyeyeballs import AddrInfoType, start_connection
from yarl import URL

from grym_fetch.core.addresses import forbidden_reason
from grym_fetch.core.errors import (
    BadResponse,
    CertificateRejected,
    ConnectFailed,
    ConnectionLost,
    GrymFetchError,
    PolicyRefused,
    Stalled,
)
from grym_fetch.core.http import ResponseHead
from grym_fetch.core.text import safe_text
from grym_fetch.net.errors import certificate_reason, os_reason
from grym_fetch.net.settings import HttpSettings

MAX_HEAD = 32 * 1024
"""Bytes of a head, interim responses (1xx) included, and of what surrounds the chunks of a body."""
SCRATCH = 64 * 1024
"""Bytes received when nobody is waiting with a buffer; then the socket is left alone."""
EYEBALLS_DELAY = 0.25
"""Seconds before the next address of a host is tried beside the last one (RFC 8305 section 5)."""


class PlainConnection:
    """At most one socket, to one host; kept open between requests where both sides agree."""

    def __init__(self, settings: HttpSettings) -> None:
        self._settings = settings
        self._wire: Wire | None = None
        self._key: tuple[str, str | None, int | None] | None = None
        self._host = ""

    @property
    def host(self) -> str:
        """Host and port that the open socket leads to, empty if none is open."""
        return self._host if self._wire is not None and self._wire.is_reusable else ""

    async def get(self, url: str, fields: Mapping[str, str]) -> PlainResponse:
        """Send one GET. Raises `ConnectFailed`, `ConnectionLost`, `Stalled`, `BadResponse` or `PolicyRefused`."""
        address = URL(url, encoded=True)
        request = _request(address, url, {**self._settings.fields, **fields})
        key = (address.scheme, address.host, address.port)
        if self._wire is not None and (key != self._key or not self._wire.is_reusable):
            await self.aclose()
        if self._wire is not None:
            try:
                return await self._ask(self._wire, request, url)
            except ConnectionLost:
                # RFC 9112 section 9.3.1: the server may have closed the idle connection just when we asked.
                if not self._wire.is_untouched:
                    raise
                await self.aclose()
        wire = await self._connect(address, url)
        self._wire, self._key, self._host = wire, key, address.authority
        return await self._ask(wire, request, url)

    async def _ask(self, wire: Wire, request: bytes, url: str) -> PlainResponse:
        try:
            await wire.ask(request, url)
        except BaseException:
            wire.abort()
            raise
        return PlainResponse(wire)

    async def _connect(self, address: URL, url: str) -> Wire:
        loop = asyncio.get_running_loop()
        host, port = address.host or "", address.port or 0
        try:
            async with asyncio.timeout(self._settings.connect_timeout):
                places = await self._resolve(host, port, url)
                sock = await start_connection(places, happy_eyeballs_delay=EYEBALLS_DELAY, interleave=1)
                secure = address.scheme == "https"
                _, wire = await loop.create_connection(
                    lambda: Wire(self._settings.stall_timeout),
                    sock=sock,
                    ssl=self._settings.tls if secure else None,
                    server_hostname=host if secure else None,
                )
                return wire
        except TimeoutError:
            raise ConnectFailed(url, f"no connection within {self._settings.connect_timeout:g} s") from None
        except ssl.SSLCertVerificationError as error:
            reason = f"the server's certificate was rejected: {certificate_reason(error)}"
            raise CertificateRejected(url, reason) from None
        except ssl.SSLError:
            raise ConnectFailed(url, "the TLS handshake failed") from None
        except (socket.gaierror, UnicodeError):
            raise ConnectFailed(url, "the host name cannot be resolved") from None
        except OSError as error:
            raise ConnectFailed(url, f"cannot connect: {os_reason(error)}") from None

    async def _resolve(self, host: str, port: int, url: str) -> list[AddrInfoType]:
        """Return where to connect to: the very addresses that are checked here, so nothing slips by."""
        try:
            family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
            found: list[AddrInfoType] = [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))]
        except ValueError:
            found = list(await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM))
        for *_, place in found:
            reason = forbidden_reason(str(place[0]), allow_private=self._settings.allow_private)
            if reason:
                raise PolicyRefused(url, f"{safe_text(host)} is {reason}")
        return found

    async def aclose(self) -> None:
        """Close the socket, if one is open."""
        wire, self._wire, self._key = self._wire, None, None
        if wire is not None:
            wire.abort()
            await wire.closed


class PlainResponse:
    """A response whose body has not been read yet."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._is_done = False
        self.head = wire.head

    async def readinto(self, buffer: memoryview) -> int:
        """Fill the front of ``buffer`` with what has come, waiting for at least one byte; 0 at the end."""
        return await self._wire.readinto(buffer)

    def close(self) -> None:
        """Keep the socket if the body was read to its end, close it otherwise."""
        if not self._is_done:
            self._is_done = True
            self._wire.finish()


class Wire(asyncio.BufferedProtocol):
    """One socket's bytes, as heads and bodies. asyncio calls the upper half, the connection the lower one."""

    def __init__(self, stall_timeout: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._stall_timeout = stall_timeout
        self._scratch = memoryview(bytearray(SCRATCH))
        self.closed: asyncio.Future[None] = self._loop.create_future()
        self._waiter: asyncio.Future[None] | None = None
        self._last = self._head_by = 0.0
        self._watchdog: asyncio.TimerHandle | None = None
        self._is_paused = False
        self._is_lost = False
        self.is_reusable = False
        """Whether another request may be sent."""
        self._begin("")
        self._at_end = True

    def _begin(self, url: str) -> None:
        """Forget the last response."""
        self._url = url
        self._parser: httptools.HttpResponseParser | None = None
        self._head_bytes = self._field_bytes = 0
        self._fields: dict[str, list[str]] = {}
        self._has_head = False
        self._is_chunked = False
        self._left: int | None = None
        """Bytes of the body that have not come yet; None where only its end tells."""
        self._keeps_open = False
        self._at_end = False
        self._error: GrymFetchError | None = None
        self._ready: deque[bytes] = deque()
        self._target: memoryview | None = None
        self._filled = 0
        self._is_direct = False
        """Whether asyncio was given the target to fill, and not the scratch buffer."""
        self.is_untouched = True
        """Whether no byte has come since the request was sent."""

    # -- called by asyncio --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """There is a socket."""
        self._transport = cast("asyncio.Transport", transport)
        self.is_reusable = True

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio calls it so
        """Say where to put what comes next: for a body whose end is known, where it is wanted, and no further."""
        if not self._has_head or self._is_chunked:
            return self._scratch
        self._is_direct = self._target is not None and self._filled < len(self._target)
        place = self._target[self._filled :] if self._target is not None and self._is_direct else self._scratch
        if self._left is not None and 0 < self._left < len(place):
            return place[: self._left]
        return place

    def buffer_updated(self, count: int) -> None:
        """``count`` bytes have come."""
        self._last = self._loop.time()
        self.is_untouched = False
        if self._at_end or self._error is not None:
            # Nobody asked for this. Whatever it is, it must not be taken for an answer to the next request.
            self.is_reusable = False
            self._pause()
        elif not self._has_head or self._is_chunked:
            self._parse(self._scratch[:count])
        else:
            self._raw(count)

    def eof_received(self) -> bool:
        """The other side sends no more: the transport closes then."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone; in the middle of something, that is an error."""
        self._is_lost = True
        self.is_reusable = False
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None
        if not self.closed.done():
            self.closed.set_result(None)
        if self._at_end or self._error is not None:
            return
        if not self._has_head:
            cause = f": {os_reason(exc)}" if isinstance(exc, OSError) and exc.errno else ""
            self._fail(ConnectionLost(self._url, f"the server closed the connection without an answer{cause}"))
        elif self._left is None and not self._is_chunked and exc is None:
            self._end()
        elif isinstance(exc, OSError) and exc.errno:
            self._fail(ConnectionLost(self._url, f"the connection broke off: {os_reason(exc)}"))
        else:
            self._fail(ConnectionLost(self._url, "the connection broke off before the end of the content"))

    def _raw(self, count: int) -> None:
        if self._left is not None:
            self._left -= count
        if self._is_direct:
            self._filled += count
            if self._target is not None and self._filled == len(self._target) and self._left != 0:
                self._pause()  # until there is room for more; else what comes now would be copied once more
        else:
            self._ready.append(bytes(self._scratch[:count]))
            self._pause()
        if self._left == 0:
            self._end()
        self._wake()

    # -- called by llhttp ---------------------------------------------------------------------------------------------

    def _parse(self, data: memoryview) -> None:
        if self._parser is None:
            self._parser = httptools.HttpResponseParser(self)
            self._parser.set_dangerous_leniencies(
                lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
            )
        self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if not self._at_end:
                self._fail(BadResponse(self._url, "the response breaks the rules of HTTP"))
            self.is_reusable = False
        # What a body brings counts for nothing here; a head, or the wrapping of chunks, without end does.
        if self._head_bytes > MAX_HEAD + SCRATCH:
            self._fail(BadResponse(self._url, "the response breaks the rules of HTTP: its header has no end"))
        if self._ready and self._target is None and not self._at_end:
            self._pause()
        if self._ready or self._has_head:
            self._wake()

    def on_message_begin(self) -> None:
        """A response begins; behind a complete one, that is not ours."""
        if self._at_end:
            self.is_reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """One field line. Trailer fields are of no use to us."""
        if not self._has_head and not self._at_end:
            self._field_bytes += len(name) + len(value)
            if self._field_bytes > MAX_HEAD:
                raise ValueError("a head without end")
            self._fields.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1").strip())

    def on_headers_complete(self) -> None:
        """The head is there; an interim one (1xx) is passed over."""
        parser = self._parser
        assert parser is not None
        if self._at_end:
            return
        status = parser.get_status_code()
        if 100 <= status < 200:
            self._fields.clear()
            return
        self.head = ResponseHead(status, self._fields)
        self._has_head = True
        self._keeps_open = parser.should_keep_alive()
        lengths = self._fields.get("content-length")
        self._is_chunked = "chunked" in (self.head.get("transfer-encoding") or "").lower()
        if lengths and not self._is_chunked:
            self._left = int(lengths[0])

    def on_body(self, data: bytes) -> None:
        """Part of a body that came along with the head, or in chunks."""
        if self._at_end:
            return
        self._head_bytes = 0
        if self._left is not None:
            self._left -= len(data)
        self._ready.append(data)

    def on_message_complete(self) -> None:
        """The body is over, where the head or the chunks said so."""
        if self._has_head and not self._at_end:
            self._end()

    # -- what became of it --------------------------------------------------------------------------------------------

    def _end(self) -> None:
        self._at_end = True
        self._wake()

    def _fail(self, error: GrymFetchError) -> None:
        self._error = self._error or error
        self.is_reusable = False
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _pause(self) -> None:
        if not self._is_paused and not self._is_lost:
            self._is_paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self._is_paused and not self._is_lost:
            self._is_paused = False
            self._transport.resume_reading()

    # -- called by the connection -------------------------------------------------------------------------------------

    async def ask(self, request: bytes, url: str) -> None:
        """Send a request; return when the head of its response is there, in `head`."""
        self._begin(url)
        self._resume()
        self._transport.write(request)
        # So long for its first byte, and as long for the rest.
        self._head_by = self._loop.time() + 2 * self._stall_timeout
        while not self._has_head:
            if self._error is not None:
                raise self._error
            if self._is_lost:
                raise ConnectionLost(url, "the server closed the connection without an answer")
            await self._wait()

    async def readinto(self, buffer: memoryview) -> int:
        """Fill the front of ``buffer`` with what has come, waiting for at least one byte; 0 at the end."""
        while not self._ready:
            if self._error is not None:
                raise self._error
            if self._at_end:
                return 0
            self._target, self._filled = buffer, 0
            try:
                self._resume()
                await self._wait()
                if self._filled:
                    return self._filled
            finally:
                self._target = None
        return self._take(buffer)

    def _take(self, buffer: memoryview) -> int:
        count = 0
        while self._ready and count < len(buffer):
            data = self._ready.popleft()
            space = len(buffer) - count
            if len(data) > space:
                self._ready.appendleft(data[space:])
                data = data[:space]
            buffer[count : count + len(data)] = data
            count += len(data)
        return count

    async def _wait(self) -> None:
        """Wait until something has come. Raises `Stalled` after too long a silence."""
        self._waiter = self._loop.create_future()
        self._last = self._loop.time()
        if self._watchdog is None:
            # One timer for many waits: it looks when it fires whether it should have.
            self._watchdog = self._loop.call_later(self._stall_timeout, self._look)
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _look(self) -> None:
        self._watchdog = None
        if self._waiter is None:
            return
        now = self._loop.time()
        left = self._last + self._stall_timeout - now
        if not self._has_head and self._head_by <= now:
            self._fail(Stalled(self._url, f"the answer's header was not complete after {2 * self._stall_timeout:g} s"))
        elif left > 0:
            self._watchdog = self._loop.call_later(
                left if self._has_head else min(left, self._head_by - now), self._look
            )
        else:
            self._fail(Stalled(self._url, f"nothing arrived for {self._stall_timeout:g} s"))

    def finish(self) -> None:
        """Be done with the response: the socket stays for another request only if nothing of it can still come."""
        if not (self._at_end and self._keeps_open and self.is_reusable) or self._ready:
            self.abort()

    def abort(self) -> None:
        """Close the socket now, whatever is under way."""
        self.is_reusable = False
        self._transport.abort()


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

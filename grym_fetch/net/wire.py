"""One socket as a state machine: requests go out, heads and bodies come in, and no byte is copied twice.

The head is read by the parser. After it, a body of known length is received directly into the buffer that will be
hashed and written; a chunked body goes through the parser.

Rules: answers come one at a time, in the order of the requests; a request may be sent ahead of its turn. Bytes after
the end of a body are never taken for a body: they begin the next answer, or end the connection if none is due. If a
connection breaks off, the bytes before that are delivered first, then the error. A byte now and then keeps no
connection alive: a head has its own deadline, and of a chunked body only the content counts, not what is around it.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections import deque
from contextlib import suppress
from typing import cast

from grym_fetch.core.addresses import is_loopback_ip
from grym_fetch.core.errors import BadResponse, CertificateRejected, ConnectionLost, GrymFetchError, Stalled
from grym_fetch.core.http import ResponseHead
from grym_fetch.net.errors import BROKEN, is_about_client_certificate, os_reason, stall_reason, tls_reason
from grym_fetch.net.parser import MAX_FEED_BYTES, ResponseParser
from grym_fetch.net.quiet import is_quiet
from grym_fetch.net.states import (
    CHUNKED,
    CLOSED,
    CLOSING,
    CONNECTING,
    DONE,
    ENDED,
    FAILED,
    HEAD,
    IDLE,
    MOVES,
    MUST_CLOSE,
    OPEN,
    PARSED,
    RAW,
    SENT,
    SIZED,
    UNANSWERED,
    UNFINISHED,
    UNTIL_CLOSE,
    IllegalMove,
    State,
)
from grym_fetch.net.tls import keep_session


class Wire(asyncio.BufferedProtocol):
    """One socket. asyncio calls the first half of the methods, the connection the second. Times in seconds."""

    def __init__(self, stall_timeout: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._stall_timeout = stall_timeout
        self.state = CONNECTING
        self.closed: asyncio.Future[None] = self._loop.create_future()
        self._scratch = memoryview(bytearray(MAX_FEED_BYTES))
        """Holds bytes received when no reader is waiting with a buffer; after that, reading is paused."""
        self._waiter: asyncio.Future[None] | None = None
        self._last_arrival = self._head_by = 0.0
        self._watchdog: asyncio.TimerHandle | None = None
        self._ahead: deque[str] = deque()
        """The addresses of the requests that were sent ahead of their turn."""
        self._unsent = b""
        """Requests sent ahead that go out together, at the end of this turn of the loop."""
        self._early = b""
        """The bytes of the next answer that came before the last one was read."""
        self._is_local: bool | None = None
        self._has_proved = False
        """Whether an answer on this socket has shown that the server takes requests ahead of their turn."""
        self.has_answered = False
        """Whether the server has answered a request since the socket was last idle: then the socket is not stale."""
        self._was_broken_off = False
        """Whether requests sent ahead were lost with the last response, unannounced and not through us."""
        self._begin("")

    def _begin(self, url: str) -> None:
        """Forget the last response."""
        self._url = url
        self._parser = ResponseParser()
        self._left: int | None = None
        """Bytes of a raw body still to come; None if only the end of the connection ends the body."""
        self._kept: deque[bytes] = self._parser.body
        """Bytes of the body that have come but were not read."""
        self._error: GrymFetchError | None = None
        """The error to raise after everything kept has been read."""
        self._target: memoryview | None = None
        """The reader's buffer, while it waits for the body, and how much of it is filled."""
        self._filled = 0
        self._is_direct = False
        """Whether asyncio was given the target to fill rather than the scratch buffer."""
        self._is_let_go = False
        """Whether the reader is done with the response, and no other one follows it."""

    def __repr__(self) -> str:
        more = f", {self._left} bytes to come" if self.state is SIZED else ""
        return f"<Wire {self.state.name}{more}>"

    def _move(self, state: State) -> None:
        """Change the state; the only place that does."""
        if state not in MOVES[self.state]:
            raise IllegalMove(f"{self!r} cannot become {state.name}")
        self.state = state

    # -- called by asyncio --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is connected."""
        self._transport = cast("asyncio.Transport", transport)
        self._move(IDLE)

    def forget(self) -> None:
        """In a forked child: make its copy of the socket lead nowhere, so that it ends when the parent closes it.

        It is not closed, because asyncio holds its number and would later close whatever has that number by then.
        """
        sock = None if self.state is CLOSED else self._transport.get_extra_info("socket")
        with suppress(OSError):
            if sock is not None and sock.fileno() >= 0:
                nowhere = os.open(os.devnull, os.O_RDWR)
                os.dup2(nowhere, sock.fileno(), inheritable=False)
                os.close(nowhere)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio calls it so
        """Return the buffer for the next bytes: for a raw body, the reader's own, cut to the rest of the body."""
        if self.state not in RAW:
            return self._scratch
        self._is_direct = self._target is not None and self._filled < len(self._target)
        place = self._target[self._filled :] if self._target is not None and self._is_direct else self._scratch
        if self._left is not None and self._left < len(place):
            return place[: self._left]
        return place

    def buffer_updated(self, count: int) -> None:
        """``count`` bytes have come."""
        if self.state is not CHUNKED:
            self._last_arrival = self._loop.time()
        if self.state in RAW:
            self._receive_body(count)
        elif self.state in PARSED:
            self._parse(self._scratch[:count])
        elif self.state is DONE and self._ahead:
            self._keep_early(self._scratch[:count])
        else:
            # We did not ask for these bytes. They must not be taken for the response to the next request.
            if self.state in (IDLE, DONE):
                self._move(MUST_CLOSE)
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """The other side sends no more. Let the transport close."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone; that is an error if something was under way."""
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None
        self._error = self._error or self._loss(exc)
        self._move(UNANSWERED if self.state is SENT else CLOSED)
        if not self.closed.done():
            self.closed.set_result(None)
        self._wake()

    def _loss(self, exc: Exception | None) -> ConnectionLost | CertificateRejected | None:
        """Return the error that the end of the socket means for the response; None if nothing is missing."""
        if self.state not in UNFINISHED or (self.state is UNTIL_CLOSE and exc is None):
            return None
        if self.state is SENT and isinstance(exc, ssl.SSLError) and is_about_client_certificate(exc):
            # With TLS 1.3 our side of the handshake is over before the server judges the certificate.
            return CertificateRejected(self._url, f"the TLS handshake failed: {tls_reason(exc)}")
        cause = os_reason(exc) if isinstance(exc, OSError) and exc.errno else ""
        if self.state in (SENT, HEAD):
            text = "the server closed the connection without an answer"
            return ConnectionLost(self._url, f"{text}: {cause}" if cause else text)
        if cause:
            return ConnectionLost(self._url, f"the connection broke off: {cause}")
        return ConnectionLost(self._url, "the connection broke off before the end of the content")

    def _parse(self, data: memoryview) -> None:
        parser = self._parser
        if self.state is SENT:
            self._move(HEAD)
        was_head = self.state is HEAD
        problem = parser.feed(data)
        if problem is not None:
            self._fail(BadResponse(self._url, problem))
        elif parser.is_complete:
            self._has_proved = self._has_proved or parser.takes_more
            self._end()
        elif parser.head is not None:
            if self.state is HEAD:
                self._has_proved = self._has_proved or parser.takes_more
                self._left = parser.left
                is_sized = SIZED if parser.left is not None else UNTIL_CLOSE
                self._move(CHUNKED if parser.is_chunked else is_sized)
            if self._kept and self._target is None:
                self._transport.pause_reading()
        if self._kept or parser.is_complete or (was_head and parser.head is not None):
            self._last_arrival = self._loop.time()
            self._wake()

    def _receive_body(self, count: int) -> None:
        if self._left is not None:
            self._left -= count
        if self._is_direct:
            self._filled += count
        else:
            self._kept.append(bytes(self._scratch[:count]))
        if self._left == 0:
            self._end()
        elif not self._is_direct or (self._target is not None and self._filled == len(self._target)):
            self._transport.pause_reading()  # until there is room for more; otherwise it would be copied once more
        self._wake()

    def _end(self) -> None:
        """The response is complete: read on, to notice unrequested bytes before the next request."""
        parser = self._parser
        has_early = bool(self._ahead and parser.keeps_open and parser.surplus)
        can_go_on = has_early or (parser.keeps_open and not parser.has_surplus)
        self._move(DONE if can_go_on else MUST_CLOSE)
        if can_go_on:
            # The loop of Windows hands on what it has, also after a pause: this may be the end of it.
            self._transport.resume_reading()
        if has_early:
            self._keep_early(parser.surplus)

    def _keep_early(self, data: memoryview | bytes) -> None:
        """The next answer begins. Bytes beyond what we keep wait in the operating system until their turn."""
        self._early += data
        if len(self._early) >= MAX_FEED_BYTES:
            self._transport.pause_reading()

    def _fail(self, error: GrymFetchError) -> None:
        self._error = error
        self._move(FAILED)
        self._wake()

    # -- called by the connection -------------------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """Whether a request may be sent."""
        return self.state is IDLE

    @property
    def is_quiet(self) -> bool:
        """Whether a request may be sent, and nothing has come that could be taken for its answer."""
        return self.is_idle and is_quiet(self._transport)

    @property
    def is_local(self) -> bool:
        """Whether the other end is this machine itself."""
        if self._is_local is None:
            place = self._transport.get_extra_info("peername")
            self._is_local = isinstance(place, tuple) and is_loopback_ip(str(place[0]))
        return self._is_local

    @property
    def is_open(self) -> bool:
        """Whether there is a socket that, as far as we know, can be used again."""
        return self.state in OPEN

    @property
    def takes_more(self) -> bool:
        """Whether a request may be sent ahead of its turn: the server has shown that it keeps order and stays open."""
        if self.state is IDLE:
            return self._has_proved and self.is_quiet
        if self.state is SENT:
            return self._has_proved
        return self.state in (SIZED, DONE) and self._parser.takes_more

    async def ask(self, request: bytes, url: str) -> ResponseHead:
        """Send a request; return the head of its response. Raises `ConnectionLost`, `Stalled` or `BadResponse`."""
        if self.state is CLOSED:
            raise ConnectionLost(url, "the server closed the connection without an answer")
        if self.state is MUST_CLOSE:
            raise BadResponse(url, f"{BROKEN}: it came before the request")
        self.send(request, url)
        return await self.head()

    def send(self, request: bytes, url: str) -> None:
        """Send a request. Its response is the next one, or comes after those under way."""
        if self.state is IDLE:
            self._move(SENT)
            self.has_answered = False
            self._begin(url)
            self._transport.write(request)
        elif self.takes_more:
            self._ahead.append(url)
            if not self._unsent:
                self._loop.call_soon(self._flush)
            self._unsent += request
        else:
            raise IllegalMove(f"{self!r} takes no request")

    def _flush(self) -> None:
        """Send the requests made ahead in this turn of the loop, many in one packet."""
        unsent, self._unsent = self._unsent, b""
        if self.state not in ENDED:
            self._transport.write(unsent)

    async def head(self) -> ResponseHead:
        """Wait for the head of the response that is next; raise as `ask` does."""
        # One time-out for the first byte, and another for the rest.
        self._head_by = self._loop.time() + 2 * self._stall_timeout
        while self._parser.head is None or self._is_let_go:
            if self._error is not None or self._is_let_go:
                raise self._error or ConnectionLost(self._url, "the connection is closed")
            await self._wait()
        return self._parser.head

    @property
    def head_now(self) -> ResponseHead | None:
        """The head of the response that is next, if it has come already."""
        return None if self._is_let_go else self._parser.head

    async def readinto(self, buffer: memoryview) -> int:
        """Fill the front of ``buffer`` with the next bytes, at least one. Return how many; 0 at the end."""
        while not self._kept:
            if self._error is not None:
                raise self._error
            if self.state not in UNFINISHED:
                return 0
            self._target, self._filled = buffer, 0
            try:
                self._transport.resume_reading()
                await self._wait()
                if self._filled:
                    return self._filled
            finally:
                self._target = None
        return self._take(buffer)

    def _take(self, buffer: memoryview) -> int:
        count = 0
        while self._kept and count < len(buffer):
            data = self._kept.popleft()
            space = len(buffer) - count
            if len(data) > space:
                self._kept.appendleft(data[space:])
                data = data[:space]
            buffer[count : count + len(data)] = data
            count += len(data)
        return count

    @property
    def breaks_its_word(self) -> bool:
        """Whether the next request was lost although the server has shown that it takes requests ahead.

        Not if the server announced it, if we have closed the socket, or if the server had closed it while it was idle.
        """
        if self._is_let_go:
            return self._was_broken_off
        return self.has_answered or self.state is not UNANSWERED

    def finish(self) -> None:
        """Release the response. The socket is kept for another one only if nothing of this one is left."""
        if self.state is DONE and not self._kept:
            if self._ahead:
                self._go_on()
            else:
                self._move(IDLE)
            return
        self._is_let_go = True
        is_ours = self.state in (*UNFINISHED, DONE)
        is_announced = self._parser.head is not None and not self._parser.keeps_open
        self._was_broken_off = bool(self._ahead) and not is_ours and not is_announced
        self.abort()

    def _go_on(self) -> None:
        """Turn to the answer to the next request."""
        self._move(SENT)
        self.has_answered = True
        self._begin(self._ahead.popleft())
        early, self._early = self._early, b""
        if early:
            self._parse(memoryview(early))

    def keep_session(self) -> None:
        """Keep the TLS session, if there is one, for the next connection to the same server."""
        keep_session(self._transport)

    def leave(self) -> asyncio.Transport:
        """Give the socket away after a response that has no body, whatever its head says (RFC 9110 section 9.3.6).

        Raises `BadResponse` if anything came after it.
        """
        if self._kept or self._parser.has_surplus:
            raise BadResponse(self._url, f"{BROKEN}: something came behind its header")
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None
        self._move(CLOSED)
        return self._transport

    def use(self, transport: asyncio.Transport) -> None:
        """Continue over the same socket through another transport, which adds TLS."""
        self._transport = transport

    def abort(self) -> None:
        """Close the socket now, whatever is under way."""
        if self.state in ENDED:
            return
        if self.state in UNFINISHED:
            self._error = ConnectionLost(self._url, "the connection was closed")
        self._move(CLOSING)
        self._transport.abort()

    # -- waiting ------------------------------------------------------------------------------------------------------

    async def _wait(self) -> None:
        """Wait until something has come or the state has changed. If nothing comes for too long, the response fails."""
        assert self._waiter is None, "the head is awaited by one, then the body by another"
        self._waiter = self._loop.create_future()
        self._last_arrival = self._loop.time()
        if self._watchdog is None:
            # One timer for many waits: when it fires, it checks whether the time is really up.
            self._watchdog = self._loop.call_later(self._stall_timeout, self._look)
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _look(self) -> None:
        self._watchdog = None
        if self._waiter is None or self._waiter.done() or self.state in ENDED:
            return  # or it is being closed already
        now = self._loop.time()
        left = self._last_arrival + self._stall_timeout - now
        for_head = self._head_by - now if self._parser.head is None else left
        if for_head <= 0 < left:
            reason = f"the answer's header was not complete after {2 * self._stall_timeout:g} s (twice --stall-timeout)"
            self._fail(Stalled(self._url, reason))
        elif left > 0:
            self._watchdog = self._loop.call_later(min(left, for_head), self._look)
        else:
            self._fail(Stalled(self._url, stall_reason(self._stall_timeout)))

"""Carries out an ``Answer`` on a connection that aiohttp has accepted.

Rule: every wait can be cancelled, when the server stops or the client goes away.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import format_datetime
from http import HTTPStatus

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from grym_fetch.runtime.system import unsent_bytes
from grym_fetch.testing.answers import Answer, Ending, Framing
from grym_fetch.testing.stats import ServerStats

_PIECE_BYTES = 1 << 18
# How long a reset waits for the bytes before it to arrive: the client may not read them.
_FLUSH_TIMEOUT_S = 1.0


class AnswerWriter:
    """Writes the answer to one request."""

    def __init__(self, request: web.BaseRequest) -> None:
        if request.transport is None:
            raise ConnectionResetError("the client has gone")
        self._transport = request.transport
        self._writer = request.writer
        self._keep_alive = request.keep_alive

    async def write(self, answer: Answer, *, with_body: bool, count: Callable[[int], None]) -> bool:
        """Write the answer, ``count`` its body; return whether the connection can take another request."""
        if answer.delay > 0:
            await asyncio.sleep(answer.delay)
        cut = answer.cut
        if cut is None or cut.after is not None:
            await self._send(_head(answer, keep_alive=self._keep_alive) if answer.raw is None else answer.raw)
            if with_body and answer.raw is None:
                await self._write_body(answer, count)
        if cut is not None:
            await self._break_off(cut.how)
            return False
        if answer.framing is Framing.CHUNKED and with_body:
            await self._send(b"0\r\n\r\n")
        return self._keep_alive and not answer.close and answer.framing is not Framing.CLOSE

    async def _write_body(self, answer: Answer, count: Callable[[int], None]) -> None:
        body, rate = answer.body, answer.rate
        stop = body.stop
        if answer.cut is not None and answer.cut.after is not None:
            stop = min(stop, body.start + answer.cut.after)
        piece = answer.chunk or _PIECE_BYTES
        if rate is not None:
            # Twenty pieces per second, so that a speed display looks smooth.
            piece = max(1, min(piece, int(rate / 20)))
        clock = asyncio.get_running_loop().time
        begun, position = clock(), body.start
        while position < stop:
            end = min(position + piece, stop)
            if answer.hold is not None:
                held_from, gate = answer.hold
                if position < held_from:
                    end = min(end, held_from)
                else:
                    await gate.passed()
            data = body.content.read(position, end)
            pause = answer.interval if position > body.start else 0.0
            if rate is not None:
                pause = max(pause, begun + (position - body.start + len(data)) / rate - clock())
            if rate is not None or position > body.start:
                # At least one turn of the loop, or one fast client would starve the others.
                await asyncio.sleep(pause)
            await self._send(b"%x\r\n%b\r\n" % (len(data), data) if answer.framing is Framing.CHUNKED else data)
            position += len(data)
            count(len(data))

    async def _send(self, data: bytes) -> None:
        if self._transport.is_closing():
            raise ConnectionResetError("the client has gone")
        self._transport.write(data)
        await self._writer.drain()

    async def _break_off(self, how: Ending) -> None:
        if how is Ending.STALL:
            await asyncio.Event().wait()
        if how is Ending.RESET:
            with suppress(TimeoutError):
                async with asyncio.timeout(_FLUSH_TIMEOUT_S):
                    await self._arrived()
            if not self._transport.is_closing():
                sock = self._transport.get_extra_info("socket")
                # With a linger time of zero, closing sends RST and drops unsent data.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self._transport.abort()

    async def _arrived(self) -> None:
        """Wait until the client's kernel has all bytes, where the system tells: RST would overtake them."""
        sock = self._transport.get_extra_info("socket")
        while not self._transport.is_closing():
            if self._transport.get_write_buffer_size() == 0 and unsent_bytes(sock) == 0:
                return
            await asyncio.sleep(0.001)


class Answered(web.StreamResponse):
    """Tells aiohttp that a response was written, and whether the connection stays open."""

    def __init__(self, *, keep_alive: bool) -> None:
        super().__init__()
        self._goes_on = keep_alive

    @property
    def keep_alive(self) -> bool:
        """Whether the connection can take another request."""
        return self._goes_on

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:  # noqa: ARG002
        """Write nothing."""
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Write nothing."""


class CountingServer(web.Server):
    """aiohttp's server, which also counts its connections and can end them all."""

    def __init__(
        self,
        respond: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        stats: ServerStats,
        keepalive_timeout: float,
    ) -> None:
        super().__init__(
            respond,
            handler_cancellation=True,
            access_log=None,
            keepalive_timeout=keepalive_timeout,
            lingering_time=0,
        )
        self._stats = stats
        self._open: dict[web.RequestHandler, asyncio.Transport] = {}
        self._none_open = asyncio.Event()
        self._none_open.set()

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Count a connection."""
        super().connection_made(handler, transport)
        self._open[handler] = transport
        self._none_open.clear()
        self._stats.connection_opened()

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        """Count a connection that is gone."""
        super().connection_lost(handler, exc)
        if self._open.pop(handler, None) is not None:
            self._stats.connection_closed()
        if not self._open:
            self._none_open.set()

    async def abort_connections(self) -> None:
        """End all connections, even with unsent data, and wait until they are gone."""
        for transport in list(self._open.values()):
            transport.abort()
        await self._none_open.wait()


def _head(answer: Answer, *, keep_alive: bool) -> bytes:
    try:
        reason = HTTPStatus(answer.status).phrase
    except ValueError:
        reason = ""
    lines = [f"{answer.version} {answer.status} {reason}"]
    lines += [f"{name}: {value}" for name, value in answer.headers]
    if answer.header("Date") is None:
        lines.append(f"Date: {format_datetime(datetime.now(UTC), usegmt=True)}")
    if not keep_alive and answer.header("Connection") is None:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")

"""A kept socket that received something before any request: it is not used again."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator, Mapping
from types import SimpleNamespace

import pytest

from grym_fetch.net.quiet import is_quiet
from tests.support.fakes import read_some
from tests.support.transports import direct

WAIT_S = 10.0
"""How long a thread waits for the other; only a failure takes this long."""


class HastyServer:
    """Answers one request, and then sends an unrequested second answer; on the next socket, the right one."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/a"
        self.go, self.sent = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        first = self._answer(b"first")
        self.go.wait(WAIT_S)
        first.sendall(self._response(b"forged"))
        self.sent.set()
        self._answer(b"true").close()
        first.close()

    @staticmethod
    def _response(body: bytes) -> bytes:
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)

    def _answer(self, body: bytes) -> socket.socket:
        accepted, _ = self.listener.accept()
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += accepted.recv(1000)
        accepted.sendall(self._response(body))
        return accepted

    def send_too_early(self) -> None:
        """Let it send the second answer; meanwhile this thread's event loop sees nothing."""
        self.go.set()
        assert self.sent.wait(WAIT_S)


@pytest.fixture
def server() -> Iterator[HastyServer]:
    running = HastyServer()
    yield running
    running.listener.close()


@pytest.mark.shows("N5", "S3")
async def test_an_answer_that_lies_there_before_the_question_is_none(server: HastyServer) -> None:
    """Data received by the system but not yet seen by the event loop is not the answer to the next request."""
    connection = direct(stall_timeout=WAIT_S).connection()
    try:
        for body in (b"first", b"true"):
            response = await connection.get(server.url, {})
            assert await read_some(response) == body
            assert await read_some(response) == b""
            response.close()
            if body == b"first":
                server.send_too_early()
    finally:
        await connection.aclose()


async def test_a_closed_socket_is_not_quiet() -> None:
    """If data came or the other side has closed, the socket must not be used."""
    ours, theirs = socket.socketpair()
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)
    transport.pause_reading()
    assert is_quiet(transport)
    theirs.close()
    assert not is_quiet(transport)
    transport.close()
    assert not is_quiet(transport)


async def test_a_socket_that_is_being_closed_here_is_not_quiet() -> None:
    """Nothing has come, but nothing more can be sent either; nor can anything over a transport without a socket."""
    ours, theirs = socket.socketpair()
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)
    transport.pause_reading()
    transport.close()
    assert not is_quiet(transport)
    assert not is_quiet(NoSocket())
    theirs.close()


@pytest.mark.shows("N5")
@pytest.mark.parametrize("below", ["itself", "below TLS"])
async def test_what_the_loop_of_windows_has_read_ahead_is_not_quiet(below: str) -> None:
    """Its reads begin before anything has arrived: then nothing is left for the system to tell."""
    ours, theirs = socket.socketpair()
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)
    try:
        for of_loop, quiet in (
            ({"_read_fut": SimpleNamespace(_ov=SimpleNamespace(pending=True)), "_pending_data_length": -1}, True),
            ({"_read_fut": SimpleNamespace(_ov=SimpleNamespace(pending=False)), "_pending_data_length": -1}, False),
            ({"_read_fut": None, "_pending_data_length": -1}, True),
            ({"_read_fut": None, "_pending_data_length": 7}, False),
        ):
            shown = ReadAhead(transport, of_loop, is_tls=below != "itself")
            assert is_quiet(shown) is quiet
    finally:
        transport.close()
        theirs.close()


class ReadAhead(asyncio.BaseTransport):
    """A transport of the loop of Windows, with or without TLS above it."""

    def __init__(self, real: asyncio.BaseTransport, of_loop: Mapping[str, object], *, is_tls: bool) -> None:
        super().__init__({"socket": real.get_extra_info("socket")})
        if is_tls:
            self._ssl_protocol = SimpleNamespace(_transport=SimpleNamespace(**of_loop))
        else:
            self.__dict__.update(of_loop)

    def is_closing(self) -> bool:
        return False


class NoSocket(asyncio.BaseTransport):
    """A transport over something else."""

    def is_closing(self) -> bool:
        return False

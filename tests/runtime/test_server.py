"""Whether the server that the program runs in is stopping: seen by its signal handlers, as uvicorn sets them."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from grym_fetch.runtime.bus import EventBus
from grym_fetch.runtime.server import stopping
from tests.support.fakes import VirtualLoop


class Server:
    """A server of uvicorn's kind."""

    should_exit = False

    def handle_exit(self, *_: object) -> None:
        self.should_exit = True


@pytest.fixture
def server() -> Iterator[Server]:
    made, before = Server(), signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, made.handle_exit)
    yield made
    signal.signal(signal.SIGTERM, before)


def test_elsewhere_there_is_no_such_server() -> None:
    """An ordinary program, with ordinary handlers."""
    assert stopping() is None


@pytest.mark.posix
def test_a_server_says_when_it_stops(server: Server) -> None:
    """Its handler stays as it is."""
    is_over = stopping()
    assert is_over is not None
    assert not is_over()
    signal.raise_signal(signal.SIGTERM)
    assert is_over()


def test_a_stream_ends_with_its_server(server: Server) -> None:
    """Idle as it is; what comes afterwards is not kept for it."""

    async def listen() -> int:
        bus = EventBus(lambda: 0.0)
        subscription = bus.subscribe(is_over=stopping())
        loop.call_later(60.0, server.handle_exit)
        heard = [event async for event in subscription]
        assert loop.time() - began >= 60.0
        return len(heard) + len(bus._subscriptions)

    loop = VirtualLoop()
    try:
        began = loop.time()
        assert loop.run_until_complete(listen()) == 0
    finally:
        loop.close()

"""A front that allows one connection, and says so without HTTP: it resets, closes or refuses each further one."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from grym_fetch.core.errors import ConnectFailed, ConnectionLost, GrymFetchError
from grym_fetch.core.hosts import Hosts
from grym_fetch.testing import AssetServer, seeded_bytes
from tests.support.authority import trusted_tls
from tests.support.invariants import Recorder
from tests.support.project import KIB, Project

CONTENT = seeded_bytes(700 * KIB, seed=23)
SEEN_BYTES = 100 * KIB
"""How much the first connection gets before a further one has been refused."""


class Front:
    """Forwards the first connection to a server. Each further one, while that is open, ends in its own way.

    ``way``: "reset" at once; "closed" or "cut" after the first bytes of the client, without or within an answer;
    "refused" by the kernel, for nothing listens any more.
    """

    def __init__(self, server: AssetServer, way: str, *, secure: bool) -> None:
        self.refusals: list[GrymFetchError] = []
        self._server = server
        self._way = way
        self._beginning = b"\x16\x03\x03\x00\x7a\x02" if secure else b"HTTP/1.1 50"
        self._is_taken = False
        self._refused = asyncio.Event()
        self._listener: asyncio.Server | None = None

    async def start(self) -> int:
        """Listen; return the port."""
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port: int = self._listener.sockets[0].getsockname()[1]
        return port

    def close(self) -> None:
        """Listen no more."""
        if self._listener is not None:
            self._listener.close()

    def watch(self, refused: Callable[..., bool]) -> Callable[..., bool]:
        """Stand in for `Hosts.refused`: note each refusal that the run has seen."""

        def seen(hosts: Hosts, attempt: object, now: float, error: GrymFetchError, **how: float) -> bool:
            self.refusals.append(error)
            self._refused.set()
            return refused(hosts, attempt, now, error, **how)

        return seen

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_taken:
            await self._refuse(reader, writer)
            return
        self._is_taken = True
        if self._way == "refused":
            self.close()
        try:
            await self._forward(reader, writer)
        finally:
            self._is_taken = False

    async def _refuse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._way != "reset":
            await reader.read(64)
        if self._way == "cut":
            writer.write(self._beginning)
            await writer.drain()
        if self._way != "closed":
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to_there = await asyncio.open_connection("127.0.0.1", self._server.port)

        async def carry(source: asyncio.StreamReader, target: asyncio.StreamWriter, until: int | None) -> None:
            carried = 0
            with suppress(ConnectionError):
                while data := await source.read(16 * KIB):
                    carried += len(data)
                    if until is not None and carried > until:
                        await self._refused.wait()
                    target.write(data)
                    await target.drain()
            target.close()

        async with asyncio.TaskGroup() as group:
            group.create_task(carry(reader, to_there, None))
            group.create_task(carry(there, writer, SEEN_BYTES))


@pytest.fixture(params=["https", "http"])
async def behind(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[AssetServer]:
    """The server behind the front, with and without TLS."""
    context = None
    if request.param == "https":
        context = trusted_tls(tmp_path, monkeypatch)
    async with AssetServer(ssl_context=context) as running:
        yield running


@pytest.mark.parametrize("way", ["reset", "closed", "cut", "refused"])
@pytest.mark.shows("A24")
async def test_a_further_connection_that_is_refused_teaches_a_limit(
    tmp_path: Path, behind: AssetServer, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """It costs no retry and delays nothing: with none allowed, all arrives over the connection that works."""
    scheme = behind.url("/").partition(":")[0]
    front = Front(behind, way, secure=scheme == "https")
    port = await front.start()
    monkeypatch.setattr(Hosts, "refused", front.watch(Hosts.refused))
    project = Project(tmp_path / "project")
    for name in ("a", "b"):
        behind.add(f"/{name}", CONTENT)
        project.add(name, [f"{scheme}://127.0.0.1:{port}/{name}"], CONTENT)
    try:
        async with project.manager(retries=0, parallel=4, stall_timeout=10.0) as manager:
            heard = Recorder(manager)
            await manager.sync()
    finally:
        front.close()
    heard.check()
    assert {path.read_bytes() for path in project.finals().values()} == {CONTENT}
    assert heard.of("retry_scheduled") == []
    assert 0 < len(front.refusals) <= 3
    assert all(isinstance(error, ConnectFailed | ConnectionLost) for error in front.refusals)

"""Connections opened before they are needed: no handshake is waited for that could have been made meanwhile."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from grym_fetch.core.errors import ConnectFailed, GrymFetchError
from grym_fetch.testing import seeded_bytes
from grym_fetch.transfer.openings import Foreseen, Opening, Openings
from tests.support.fakes import ScriptedConnection
from tests.support.project import KIB, Project

CONTENT = seeded_bytes(4096 * KIB, seed=71)
HERE = Foreseen("h:80", "http://h/a", 1)


class Gated(ScriptedConnection):
    """One that is open as soon as ``gate`` is, unless there is an ``error``."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.error = error
        self.was_stopped = False

    async def open(self, url: str) -> None:
        """Wait for the gate."""
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.was_stopped = True
            raise
        if self.error is not None:
            raise self.error
        self.host = "h:80"


class Ended:
    """What has ended by itself, and how."""

    def __init__(self) -> None:
        self.all: list[tuple[Opening, GrymFetchError | None]] = []

    def note(self, opening: Opening, error: GrymFetchError | None) -> None:
        """One has."""
        self.all.append((opening, error))


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.parametrize("error", [None, ConnectFailed("http://h/a", "refused"), ValueError("a bug")])
async def test_one_that_ends_by_itself_is_given_back(error: Exception | None) -> None:
    """With the reason, if it is one of ours; whatever it is, nothing is raised."""
    ended, connection = Ended(), Gated(error)
    openings = Openings(ended.note)
    openings.begin(connection, HERE)
    assert (len(openings), openings.count("h:80"), openings.count("other:80")) == (1, 1, 0)
    connection.gate.set()
    await turns()
    [(opening, reason)] = ended.all
    assert opening.connection is connection
    assert reason is (error if isinstance(error, GrymFetchError) else None)
    assert len(openings) == 0


async def test_work_for_the_same_host_waits_for_it() -> None:
    """And the connection is not given back beside that."""
    ended, connection = Ended(), Gated()
    openings = Openings(ended.note)
    openings.begin(connection, HERE)
    await turns()
    opening = openings.take("h:80", elsewhere=False)
    assert opening is not None
    joined = asyncio.create_task(opening.joined("h:80"))
    await turns()
    assert not joined.done()
    connection.gate.set()
    await joined
    assert (connection.host, connection.was_stopped, ended.all) == ("h:80", False, [])


async def test_work_for_another_host_ends_it() -> None:
    """It is over before the work begins."""
    ended, connection = Ended(), Gated()
    openings = Openings(ended.note)
    openings.begin(connection, HERE)
    await turns()
    assert openings.take("other:80", elsewhere=False) is None
    opening = openings.take("other:80", elsewhere=True)
    assert opening is not None
    await opening.joined("other:80")
    assert (connection.was_stopped, ended.all, len(openings)) == (True, [], 0)


async def test_whoever_is_cancelled_while_waiting_ends_it() -> None:
    """Or it would go on over a connection that somebody else may use."""
    connection = Gated()
    openings = Openings(Ended().note)
    openings.begin(connection, HERE)
    await turns()
    opening = openings.take("h:80", elsewhere=False)
    assert opening is not None
    joined = asyncio.create_task(opening.joined("h:80"))
    await turns()
    joined.cancel()
    with pytest.raises(asyncio.CancelledError):
        await joined
    assert connection.was_stopped


async def test_each_is_opened_once() -> None:
    """A server that closes what is idle, or refuses it, is not connected to again and again; another host may be."""
    connection = Gated()
    openings = Openings(Ended().note)
    assert openings.may_begin(connection, "h:80")
    openings.begin(connection, HERE)
    connection.gate.set()
    await turns()
    await connection.aclose()
    assert not openings.may_begin(connection, "h:80")
    assert openings.may_begin(connection, "other:80")
    openings.used(connection)
    assert openings.may_begin(connection, "h:80")
    connection.host = "h:80"
    assert not openings.may_begin(connection, "other:80")
    assert not openings.may_begin(ScriptedConnection(), "h:80")


class Reluctant:
    """A server of the content that answers nobody before so many sockets are open; ``to``: it redirects at once."""

    def __init__(self, sockets: int, *, to: str = "", refuses_ranges: bool = False) -> None:
        self.enough = asyncio.Event()
        self.open = 0
        self.url = ""
        self.asked: list[str] = []
        self._wanted = sockets
        self._to = to
        self._refuses_ranges = refuses_ranges

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Reluctant]:
        """Listen on a free port."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/a.bin"
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        if self.open >= self._wanted:
            self.enough.set()
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                found = re.search(rb"bytes=([0-9]+)-([0-9]+)", head)
                assert found is not None
                self.asked.append(found[0].decode())
                if self._to:
                    writer.write(f"HTTP/1.1 302 Found\r\nLocation: {self._to}\r\nContent-Length: 0\r\n\r\n".encode())
                    continue
                await self.enough.wait()
                first, last = int(found[1]), int(found[2])
                where = f"Content-Range: bytes {first}-{last}/{len(CONTENT)}"
                writer.write(f"HTTP/1.1 206 OK\r\n{where}\r\nContent-Length: {last + 1 - first}\r\n\r\n".encode())
                writer.write(CONTENT[first : last + 1])
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@pytest.fixture(autouse=True)
def unshared(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a busy machine takes, no connection takes over from another one: that one would be opened again."""
    monkeypatch.setattr("grym_fetch.transfer.segment_choice.STEAL_S", math.inf)


async def fetch(root: Path, url: str, *, max_per_host: int | None = None) -> None:
    project = Project(root)
    path = project.add("a", [url], CONTENT)
    async with project.manager(parallel=4, stall_timeout=5.0, retries=0, max_per_host=max_per_host) as manager:
        await manager.get_asset_path("a")
    assert path.read_bytes() == CONTENT


async def test_the_others_connect_while_the_first_answer_is_on_its_way(tmp_path: Path) -> None:
    """As many as are allowed and will be wanted; all of them are used, and nothing is asked twice."""
    async with Reluctant(4).running() as server:
        await fetch(tmp_path, server.url)
    assert server.open == 4
    assert len(server.asked) == len(set(server.asked))


async def test_no_more_than_a_host_may_have(tmp_path: Path) -> None:
    """`--max-per-host` counts those that are only opened."""
    async with Reluctant(2).running() as server:
        await fetch(tmp_path, server.url, max_per_host=2)
    assert server.open == 2


async def test_behind_a_redirect_the_target_is_connected_to(tmp_path: Path) -> None:
    """As soon as it is known, and before it answers."""
    async with Reluctant(4).running() as target, Reluctant(1, to=target.url).running() as server:
        await fetch(tmp_path, server.url)
    assert target.open == 4
    assert len(server.asked) == 1

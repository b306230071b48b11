"""A server that goes wrong only if requests are sent ahead of their turn: every file arrives, and nothing failed.

It looks like a good one until two requests come at once. Then it swaps answers, drops them, doubles them, or
puts another's bytes under the right head. A request sent ahead and not answered well counts as never sent.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from grym_fetch.core.hosts import TRY_AHEAD
from grym_fetch.testing import seeded_bytes
from grym_fetch.transfer import small_files
from tests.support.invariants import Run, checked_sync
from tests.support.project import Project
from tests.support.sweeps import typical

pytestmark = pytest.mark.shows("N24", "S1", "S12")

Batch = list[bytes]
"""The answers to requests that came at once, in order."""
_REQUEST = re.compile(rb"GET (\S+) HTTP/1\.1\r\n(.*?)\r\n\r\n", re.DOTALL)
_RANGE = re.compile(rb"Range: bytes=(\d+)-(\d+)")


class Pipeline(asyncio.Protocol):
    """One connection: answers what comes at once, wrongly if it is more than one request."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connects."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server.open.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed."""
        self._server.open.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        """Answer every complete request."""
        self._received += data
        found = list(_REQUEST.finditer(self._received))
        if not found:
            return
        self._received = self._received[found[-1].end() :]
        self._server.batches.append(len(found))
        answers = [self._server.answer(request[1].decode(), request[2]) for request in found]
        if len(answers) > 1:
            answers = self._server.bend(answers)
        for answer in answers:
            if answer == CLOSE:
                self._transport.close()
                return
            self._transport.write(answer)


class Server:
    """Serves files by path. ``batches`` has the number of requests that came at once, each time."""

    def __init__(self, bend: Callable[[Batch], Batch]) -> None:
        self.bend = bend
        self.contents: dict[str, bytes] = {}
        self.batches: list[int] = []
        self.asked: list[str] = []
        self.open: set[asyncio.Transport] = set()
        self.port = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Server]:
        """Listen."""
        server = await asyncio.get_running_loop().create_server(lambda: Pipeline(self), "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for transport in list(self.open):
                transport.abort()
            await server.wait_closed()

    def add(self, path: str, content: bytes) -> str:
        """Serve a file; return its address."""
        self.contents[path] = content
        return f"http://127.0.0.1:{self.port}{path}"

    def answer(self, path: str, fields: bytes) -> bytes:
        """The right answer."""
        self.asked.append(path)
        content = self.contents[path]
        wanted = _RANGE.search(fields)
        if wanted is None:
            return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(content), content)
        start, stop = int(wanted[1]), min(int(wanted[2]) + 1, len(content))
        head = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes %d-%d/%d\r\nContent-Length: %d\r\n\r\n"
        return head % (start, stop - 1, len(content), stop - start) + content[start:stop]


CLOSE = b""
"""Instead of an answer, the connection ends."""


def another(answer: bytes) -> bytes:
    """The same head with other bytes."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return head + b"\r\n\r\n" + bytes(byte ^ 1 for byte in body)


def cut(answer: bytes) -> bytes:
    """An answer that ends half-way."""
    return answer[: -len(answer.partition(b"\r\n\r\n")[2]) // 2]


GONE = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
BENDS: dict[str, Callable[[Batch], Batch]] = {
    "swapped": lambda batch: batch[::-1],
    "the second is dropped": lambda batch: [batch[0], *batch[2:]],
    "only the first is answered": lambda batch: batch[:1],
    "none is answered": lambda batch: [],
    "doubled": lambda batch: [answer for answer in batch for _ in range(2)],
    "all are the first": lambda batch: batch[:1] * len(batch),
    "another's bytes": lambda batch: [batch[0], *map(another, batch[1:])],
    "another's bytes at once": lambda batch: list(map(another, batch)),
    "closed after the first": lambda batch: [batch[0], CLOSE],
    "closed at once": lambda batch: [CLOSE],
    "closed within the second": lambda batch: [batch[0], cut(batch[1]), CLOSE],
    "refused": lambda batch: [batch[0], *[GONE] * (len(batch) - 1)],
    "a redirect": lambda batch: [
        b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n" for _ in batch
    ],
    "noise between": lambda batch: [b"noise".join(batch)],
    "the last": lambda batch: [batch[0].replace(b"\r\n", b"\r\nConnection: close\r\n", 1), CLOSE],
}
HONEST = ("the last",)
"""Good servers do this as well: it is still asked ahead."""
CUT = ("closed within the second",)
"""A body that breaks off has begun: that is a failure of this body, as it would be for a request in turn."""
FOUND_LATE = ("another's bytes", "another's bytes at once")
"""Only the digest shows it, and that is computed for many files at once."""


def check(run: Run) -> None:
    """Check that nothing failed, and nothing was counted as a failure."""
    assert run.failures == {}
    assert run.heard.of("retry_scheduled") == run.heard.of("asset_restarted") == []


@pytest.mark.parametrize("same_size", [True, False], ids=["one size", "many sizes"])
@pytest.mark.parametrize("name", typical(BENDS, "swapped", "only the first is answered", "doubled"))
async def test_small_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, same_size: bool) -> None:
    """Each file is checked by its length and its digest, so no other one is ever taken for it."""
    monkeypatch.setattr("grym_fetch.net.plain.AHEAD_TIMEOUT_S", 0.1)
    async with Server(BENDS[name]).running() as server:
        project = Project(tmp_path / "project")
        for n in range(60):
            content = seeded_bytes(2000 if same_size else 100 + n * 7, seed=n)
            project.add(f"a{n}", [server.add(f"/{n}", content)], content)
        server.add("/elsewhere", b"another")
        run = await checked_sync(project, parallel=2, stall_timeout=60.0, may_lose=None)
        check(run)
    assert len(run.heard.of("asset_verified")) == 60
    batched = [count for count in server.batches if count > 1]
    assert batched
    if name not in HONEST:
        assert sum(server.batches) <= 60 + 3 * TRY_AHEAD, "more is lost than what one connection tries"
    if not same_size and name not in (*HONEST, *FOUND_LATE):
        assert len(batched) <= 2, "it is asked ahead again and again"


@pytest.mark.parametrize("name", typical(BENDS, "swapped", "another's bytes", "closed after the first"))
async def test_segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Each segment is checked by its Content-Range, and all of them by the digest: the two files are right."""
    monkeypatch.setattr("grym_fetch.net.plain.AHEAD_TIMEOUT_S", 0.1)
    monkeypatch.setattr("grym_fetch.core.speeds.Speeds.bytes_ahead", lambda *_: 1e9)
    async with Server(BENDS[name]).running() as server:
        project = Project(tmp_path / "project")
        for n in range(2):
            content = seeded_bytes(400_000, seed=n)
            project.add(f"a{n}", [server.add(f"/{n}", content)], content)
        server.add("/elsewhere", b"another")
        run = await checked_sync(project, parallel=1, stall_timeout=60.0, may_lose=None)
    assert run.failures == {}
    assert [count for count in server.batches if count > 1]
    if name not in CUT:
        assert run.heard.of("retry_scheduled") == []


async def test_a_good_server_is_asked_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file is requested once, many at a time, or one at a time if the user wants that."""
    monkeypatch.setattr(small_files, "HUNG_S", 3600.0)
    for pipelining in (True, False):
        async with Server(list).running() as server:
            project = Project(tmp_path / str(pipelining))
            for n in range(60):
                content = seeded_bytes(2000, seed=n)
                project.add(f"a{n}", [server.add(f"/{n}", content)], content)
            run = await checked_sync(project, parallel=2, pipelining=pipelining, may_lose=None, stall_timeout=30.0)
            check(run)
        assert sorted(server.asked) == sorted(server.contents)
        assert (max(server.batches) > 8) is pipelining


class MixedUp(Server):
    """Sends another's bytes under the right head, once: for a range in the second half of the file."""

    has_erred = False

    def answer(self, path: str, fields: bytes) -> bytes:
        """The right answer, or the wrong one."""
        answer = super().answer(path, fields)
        wanted = _RANGE.search(fields)
        if self.has_erred or wanted is None or int(wanted[1]) < len(self.contents[path]) // 2:
            return answer
        self.has_erred = True
        return another(answer)


async def test_a_late_mistake_is_not_taken_for_the_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requested once more, the whole file begins with the same bytes: that says nothing yet about those sent ahead."""
    monkeypatch.setattr("grym_fetch.core.speeds.Speeds.bytes_ahead", lambda *_: 1e9)
    mixed_up = MixedUp(list)
    async with mixed_up.running() as server:
        project = Project(tmp_path / "project")
        content = seeded_bytes(400_000, seed=1)
        project.add("a", [server.add("/a", content)], content)
        run = await checked_sync(project, parallel=1, stall_timeout=60.0, may_lose=None)
    assert run.failures == {}
    assert mixed_up.has_erred


class Signed(Server):
    """The target of redirects: after some answers it answers like a signed address that has expired."""

    left = 3

    def answer(self, path: str, fields: bytes) -> bytes:
        """The right answer, or none once it has expired."""
        self.left -= 1
        return super().answer(path, fields) if self.left >= 0 else GONE


class Signer(Server):
    """Redirects everybody to a fresh address of another server."""

    def __init__(self, end: Signed) -> None:
        super().__init__(list)
        self.end = end

    def answer(self, path: str, fields: bytes) -> bytes:
        """Answer where the file is, for a while."""
        self.asked.append(path)
        self.end.left = Signed.left
        location = f"http://127.0.0.1:{self.end.port}{path}".encode()
        return b"HTTP/1.1 302 Found\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % location


@pytest.mark.parametrize("lasts", [3, 1000], ids=["expires", "lasts"])
async def test_behind_a_redirect_its_end_is_asked_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lasts: int
) -> None:
    """The chain is followed once, and again whenever its end has expired; the end is asked for segments, also ahead."""
    monkeypatch.setattr("grym_fetch.core.speeds.Speeds.bytes_ahead", lambda *_: 1e9)
    monkeypatch.setattr(Signed, "left", lasts)
    signer = Signer(Signed(list))
    async with signer.running(), signer.end.running():
        project = Project(tmp_path / "project")
        content = seeded_bytes(600_000, seed=1)
        signer.end.add("/a", content)
        project.add("a", [f"http://127.0.0.1:{signer.port}/a"], content)
        run = await checked_sync(project, parallel=1, stall_timeout=60.0, may_lose=None)
        check(run)
    assert max(signer.end.batches) > 1
    assert (len(signer.asked) > 1) is (lasts == 3)

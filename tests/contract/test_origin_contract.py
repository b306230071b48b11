"""What an origin does, as the client sees it: one suite for our own server and a real nginx, directly and by proxy.

A behaviour that both share is a fact about HTTP, so our server may stand in for a real one in all other tests.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest

from grym_fetch.core.addresses import Credentials
from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import BadResponse, GrymFetchError, PolicyRefused, TooManyRedirects, TransferError
from grym_fetch.core.http import (
    Asked,
    Broken,
    ErrorStatus,
    OtherRepresentation,
    Partial,
    Unsatisfiable,
    Validator,
    Verdict,
    Whole,
    WrongLength,
)
from grym_fetch.core.origins import Origin
from grym_fetch.core.ranges import ByteRange
from grym_fetch.core.world import Connection
from grym_fetch.net.client import HttpTransport
from grym_fetch.testing import AssetServer, NoRanges, RawAnswer, Redirect, seeded_bytes
from grym_fetch.transfer.request import JudgedResponse, Requester
from tests.support.fakes import read_some
from tests.support.nginx import Location, Nginx
from tests.support.transports import WAYS, AheadTransport, TinyProxy

CONTENT = seeded_bytes(100_003, seed=11)
LONG = seeded_bytes(8 * 1024 * 1024, seed=12)


class Server(Protocol):
    """What the suite needs from either server."""

    def add(self, path: str, content: bytes) -> str:
        """Serve a file; return its address."""

    def without_ranges(self, path: str, content: bytes) -> str:
        """Serve a file and ignore Range."""

    def redirect(self, path: str, to: str) -> str:
        """Redirect to a path; return the redirecting address."""

    def nowhere(self) -> str:
        """An address that is not served."""

    def asked(self, count: int) -> list[tuple[str, int]]:
        """Path and client port of each of the ``count`` requests so far."""


class OurServer:
    """The fault server without faults."""

    def __init__(self, server: AssetServer) -> None:
        self._server = server

    def add(self, path: str, content: bytes) -> str:
        return self._server.add(path, content).url

    def without_ranges(self, path: str, content: bytes) -> str:
        return self._server.add(path, content, faults=[NoRanges()]).url

    def redirect(self, path: str, to: str) -> str:
        return self._server.add(path, faults=[Redirect(to)]).url

    def nowhere(self) -> str:
        return self._server.url("/nowhere")

    def asked(self, count: int) -> list[tuple[str, int]]:
        requests = self._server.stats.requests
        assert len(requests) == count
        return [(request.path, request.remote_port) for request in requests]


class RealServer:
    """nginx."""

    def __init__(self, server: Nginx) -> None:
        self._server = server

    def add(self, path: str, content: bytes) -> str:
        return self._server.add(path, content)

    def without_ranges(self, path: str, content: bytes) -> str:
        self._server.restart(*self._server.locations, Location(path, ranges=False))
        return self._server.add(path, content)

    def redirect(self, path: str, to: str) -> str:
        self._server.restart(*self._server.locations, Location(path, redirect=to))
        return self._server.url(path)

    def nowhere(self) -> str:
        return self._server.url("/nowhere")

    def asked(self, count: int) -> list[tuple[str, int]]:
        records = self._server.sent(at_least=count)
        assert len(records) == count
        return [(record.path, record.remote_port) for record in records]


@pytest.fixture(params=["ours", pytest.param("nginx", marks=pytest.mark.nginx)])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Server]:
    if request.param == "ours":
        async with AssetServer() as ours:
            yield OurServer(ours)
    else:
        yield RealServer(request.getfixturevalue("nginx"))


@pytest.fixture(params=[*WAYS, AheadTransport])
async def connection(request: pytest.FixtureRequest) -> AsyncIterator[Connection]:
    connection = request.param().connection()
    yield connection
    await connection.aclose()


async def ask(connection: Connection, origin: Origin, asked: Asked) -> JudgedResponse:
    """Send a request. Without a checksum, nothing is requested through a proxy."""
    return await Requester(Credentials({})).open(connection, origin, replace(asked, checksum=Checksum.of(CONTENT)))


async def fetch(connection: Connection, origin: Origin, asked: Asked) -> tuple[Verdict, bytes]:
    """Send a request, and read the body to its end."""
    answer = await ask(connection, origin, asked)
    try:
        return answer.verdict, await read_to_the_end(answer)
    finally:
        answer.response.close()


async def read_to_the_end(answer: JudgedResponse) -> bytes:
    """The body."""
    body = bytearray()
    while data := await read_some(answer.response):
        body += data
    return bytes(body)


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 1), (0, 65_536), (4_097, 70_001), (100_002, 100_003), (0, 100_003)], ids=str
)
async def test_range_gives_exactly_these_bytes(server: Server, connection: Connection, start: int, stop: int) -> None:
    """The requested range comes as a Partial of exactly these bytes, with the total and a strong validator."""
    origin = Origin(0, server.add("/a.bin", CONTENT))
    verdict, body = await fetch(connection, origin, Asked(ByteRange(start, stop)))
    assert isinstance(verdict, Partial)
    assert (verdict.range, verdict.total) == (ByteRange(start, stop), len(CONTENT))
    assert verdict.validator.is_strong
    assert body == CONTENT[start:stop]


async def test_range_over_the_end_is_cut(server: Server, connection: Connection) -> None:
    """A range that begins inside the content and ends beyond it is answered up to the content's end."""
    origin = Origin(0, server.add("/a.bin", CONTENT))
    verdict, body = await fetch(connection, origin, Asked(ByteRange(100_000, 200_000)))
    assert isinstance(verdict, Partial)
    assert verdict.range == ByteRange(100_000, 100_003)
    assert body == CONTENT[100_000:]


async def test_whole_file(server: Server, connection: Connection) -> None:
    """Without a range the whole content comes, with its length."""
    origin = Origin(0, server.add("/a.bin", CONTENT))
    verdict, body = await fetch(connection, origin, Asked(None))
    assert isinstance(verdict, Whole)
    assert (verdict.length, verdict.framed) == (len(CONTENT), True)
    assert body == CONTENT


async def test_empty_file(server: Server, connection: Connection) -> None:
    """For a range of an empty file, one server answers unsatisfiable, another sends it whole: both tell its length."""
    origin = Origin(0, server.add("/empty.bin", b""))
    ranged, body = await fetch(connection, origin, Asked(ByteRange(0, 1000)))
    assert ranged == Unsatisfiable(0) or (isinstance(ranged, Whole) and (ranged.length, body) == (0, b""))
    whole, body = await fetch(connection, origin, Asked(None))
    assert isinstance(whole, Whole)
    assert (whole.length, body) == (0, b"")


async def test_beyond_the_end(server: Server, connection: Connection) -> None:
    """A range that begins at the end is unsatisfiable, and the answer gives the total."""
    origin = Origin(0, server.add("/a.bin", CONTENT))
    verdict, _ = await fetch(connection, origin, Asked(ByteRange(len(CONTENT), len(CONTENT) + 5)))
    assert verdict == Unsatisfiable(len(CONTENT))


async def test_if_range_with_the_right_validator(server: Server, connection: Connection) -> None:
    """With the origin's own validator, another part of the same content comes."""
    origin = Origin(0, server.add("/a.bin", CONTENT))
    first, _ = await fetch(connection, origin, Asked(ByteRange(0, 10)))
    assert isinstance(first, Partial)
    asked = Asked(ByteRange(50, 60), len(CONTENT), first.validator, ranges_proven=True)
    assert await fetch(connection, origin, asked) == (
        Partial(ByteRange(50, 60), len(CONTENT), first.validator),
        CONTENT[50:60],
    )


async def test_if_range_with_another_validator(server: Server, connection: Connection) -> None:
    """With the validator of other content no part comes, because the content has changed."""
    origin = Origin(0, server.add("/a.bin", CONTENT))
    other = Validator(etag='"another-content"')
    answer = await ask(connection, origin, Asked(ByteRange(50, 60), len(CONTENT), other, ranges_proven=True))
    answer.response.close()
    assert answer.response.head.status == 200
    assert isinstance(answer.verdict, OtherRepresentation)
    assert answer.verdict.validator.etag != other.etag


async def test_no_ranges_gives_the_whole(server: Server, connection: Connection) -> None:
    """An origin without ranges answers with the whole content, and the client recognises that."""
    origin = Origin(0, server.without_ranges("/plain.bin", CONTENT))
    verdict, body = await fetch(connection, origin, Asked(ByteRange(50, 60)))
    assert isinstance(verdict, Whole)
    assert verdict.length == len(CONTENT)
    assert body == CONTENT


async def test_not_found(server: Server, connection: Connection) -> None:
    """A missing file is a permanent refusal."""
    verdict, _ = await fetch(connection, Origin(0, server.nowhere()), Asked(ByteRange(0, 10)))
    assert verdict == ErrorStatus(404, "status 404: not found")


async def test_redirect_is_followed_and_remembered(server: Server, connection: Connection) -> None:
    """A redirect leads to the same range elsewhere, and from then on that place is asked directly."""
    origin = Origin(0, server.redirect("/old.bin", "/new.bin"))
    server.add("/new.bin", CONTENT)
    _, first = await fetch(connection, origin, Asked(ByteRange(7, 1000)))
    _, second = await fetch(connection, origin, Asked(ByteRange(1000, 2000)))
    assert first + second == CONTENT[7:2000]
    assert [path for path, _ in server.asked(3)] == ["/old.bin", "/new.bin", "/new.bin"]


async def test_keep_alive_reuses_the_socket(server: Server, connection: Connection) -> None:
    """A body read to its end leaves the socket open for the next request."""
    origin = Origin(0, server.add("/a.bin", CONTENT))
    for start in (0, 10, 20):
        await fetch(connection, origin, Asked(ByteRange(start, start + 10)))
    assert len({port for _, port in server.asked(3)}) == 1


async def test_an_abandoned_body_closes_the_socket(server: Server, connection: Connection) -> None:
    """A body given up half-way costs its socket, and the next request gets clean bytes over a new one."""
    origin = Origin(0, server.add("/long.bin", LONG))
    answer = await ask(connection, origin, Asked(None))
    assert LONG.startswith(await read_some(answer.response))
    answer.response.close()
    _, body = await fetch(connection, origin, Asked(ByteRange(5_000_000, 5_001_000)))
    assert body == LONG[5_000_000:5_001_000]
    assert len({port for _, port in server.asked(2)}) == 2


@pytest.mark.shows("N21", "S1")
@pytest.mark.parametrize("coding", ["identity", "gzip", "chunked, identity", "gzip, chunked", "chunked, chunked"])
async def test_a_body_in_any_other_coding_is_none(connection: Connection, coding: str) -> None:
    """Only chunks and a length say where a body ends; with any other coding, a cut would look like the end."""
    body = b"%x\r\n%b\r\n" % (len(CONTENT), CONTENT)
    raw = f"HTTP/1.1 200 OK\r\nTransfer-Encoding: {coding}\r\nConnection: close\r\n\r\n".encode() + body
    async with AssetServer() as server:
        origin = Origin(0, server.add("/a.bin", CONTENT, faults=[RawAnswer(raw)]).url)
        try:
            verdict, _ = await fetch(connection, origin, Asked(None))
        except TransferError:
            return
        assert isinstance(verdict, Broken)


@pytest.mark.nginx
class TestNginxHelper:
    """The helper itself: its log shows what was served."""

    @pytest.fixture
    def slow(self, tmp_path: Path) -> Iterator[Nginx]:
        with Nginx(tmp_path, [Location("/gone/", status=410), Location("/a.bin", limit_rate=50_000_000)]) as server:
            yield server

    async def test_log_and_locations(self, slow: Nginx, connection: Connection) -> None:
        """Each request is in the log with its status, range and bytes."""
        await fetch(connection, Origin(0, slow.add("/a.bin", CONTENT)), Asked(ByteRange(5, 1005)))
        await fetch(connection, Origin(0, slow.url("/gone/b.bin")), Asked(None))
        ranged, gone = slow.sent(at_least=2)[:2]  # a request sent ahead and refused is sent once more
        assert (ranged.method, ranged.path, ranged.status, ranged.range) == ("GET", "/a.bin", 206, "bytes=5-1004")
        assert (gone.path, gone.status, gone.range) == ("/gone/b.bin", 410, None)
        assert slow.bytes_sent("/a.bin") == 1000


# -- odd answers ---------------------------------------------------------------------------------------------------

BODY = CONTENT[:1000]
PINNED = Asked(None, len(BODY), checksum=Checksum.of(BODY))
LENGTH = b"Content-Length: 1000\r\n"
OK = b"HTTP/1.1 200 OK\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nContent-Length: 3\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
ODD: dict[str, tuple[bytes, type, str]] = {
    **{
        f"the label {label.decode()}": (b"HTTP/1.1 200 OK\r\nContent-Encoding: " + label + b"\r\n" + LENGTH, Whole, "")
        for label in (b"gzip", b"x-gzip", b"aws-chunked", b"UTF-8", b"none", b"binary")
    },
    "doubled validators": (b'HTTP/1.1 200 OK\r\nETag: "a"\r\nETag: "a"\r\n' + LENGTH, Whole, ""),
    "a length twice": (OK + LENGTH + LENGTH, Whole, ""),
    "a length twice in one line": (OK + b"Content-Length: 1000, 1000\r\n", Whole, ""),
    "a length with zeros and tabs": (OK + b"Content-Length:\t 0001000 \t\r\n", Whole, ""),
    "a signed length": (OK + b"Content-Length: +1000\r\n", BadResponse, "an invalid Content-Length"),
    "an empty length": (OK + b"Content-Length:\r\n", BadResponse, "an invalid Content-Length"),
    "a length beyond 64 bits": (OK + b"Content-Length: 18446744073709552616\r\n", BadResponse, "Content-Length"),
    "a length with a space before its colon": (OK + b"Content-Length : 1000\r\n", BadResponse, "a Content-Length that"),
    "a folded length": (OK + b"Content-Length:\r\n 1000\r\n", BadResponse, "a folded Content-Length"),
    "a coding with a space before its colon": (
        OK + b"Transfer-Encoding : chunked\r\n" + LENGTH,
        BadResponse,
        "a Transfer-Encoding that",
    ),
    "a field with a space before its colon": (OK + b"X-A : 1\r\n" + LENGTH, Whole, ""),
    "a field with a space in its name": (OK + b"X A: 1\r\n" + LENGTH, Whole, ""),
    "a field without a name": (OK + b": 1\r\n" + LENGTH, Whole, ""),
    "a folded field": (OK + b"X-A: 1\r\n\t 2\r\n" + LENGTH, Whole, ""),
    "an empty type": (OK + b"Content-Type:\r\n" + LENGTH, Whole, ""),
    "no reason": (b"HTTP/1.1 200\r\n" + LENGTH, Whole, ""),
    "line feeds alone": (b"HTTP/1.1 200 OK\nContent-Length: 1000\n\n" + BODY, Whole, ""),
    "early hints": (HINTS + OK + LENGTH + b"\r\n" + BODY, Whole, ""),
    "interim answers": (CONTINUE * 100 + OK + LENGTH + b"\r\n" + BODY, Whole, ""),
    "interim answers without end": (CONTINUE * 20_000 + OK + LENGTH, BadResponse, "its header has no end"),
    "a header without end": (OK + b"X: " + b"a" * 200_000 + b"\r\n" + LENGTH, BadResponse, "its header"),
    "another protocol": (b"HTTP/1.1 101 No\r\nUpgrade: x\r\nConnection: upgrade\r\n", BadResponse, "breaks the rules"),
    "203": (b"HTTP/1.1 203 Changed\r\n" + LENGTH, Whole, ""),
    "chunks with a tab behind the coding": (
        OK + b"Transfer-Encoding: chunked\t\r\n\r\n3e8;a=b\r\n" + BODY + b"\r\n0\r\nX-T: 1\r\n\r\n",
        Whole,
        "",
    ),
    "lengths that differ": (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n" + LENGTH, BadResponse, "Content-Length"),
    "a length in words": (b"HTTP/1.1 200 OK\r\nContent-Length: ten\r\n", BadResponse, "Content-Length"),
    "a length beside chunks": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + LENGTH,
        BadResponse,
        "Content-Length beside Transfer-Encoding",
    ),
    "another length": (b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n1234567", WrongLength, ""),
    "nothing": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", WrongLength, "an empty file"),
    "a page": (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 7\r\n\r\n1234567",
        WrongLength,
        "a web page",
    ),
    "redirects that differ": (b"HTTP/1.1 302 Found\r\nLocation: /a\r\nLocation: /b\r\n", Broken, "Location"),
    "a redirect to a bad place": (b"HTTP/1.1 302 Found\r\nLocation: ftp://h/\r\n", PolicyRefused, "not an http"),
    "a redirect to nowhere": (b"HTTP/1.1 302 Found\r\n", Broken, "without an address"),
    "a redirect to no place": (b"HTTP/1.1 302 Found\r\nLocation:\r\n", Broken, "without an address"),
    "a redirect to a bad port": (b"HTTP/1.1 302 Found\r\nLocation: http://h:99999/\r\n", PolicyRefused, "unreadable"),
    "a redirect to itself": (b"HTTP/1.1 302 Found\r\nLocation: a.bin\r\n", TooManyRedirects, "back to where they came"),
    **{
        f"a redirect to {place.decode()!r}": (b"HTTP/1.1 303 See\r\nLocation: " + place + b"\r\n", Whole, "")
        for place in (
            b"../x/../b.bin",
            b"/b.bin#part",
            b"\t /b.bin \t",
            b"b.bin?x=a b",
            b"./b.bin?X-Amz-Signature=1",
        )
    },
    "redirects that agree": (b"HTTP/1.1 302 Found\r\nLocation: /b.bin\r\nLocation: /b.bin\r\n", Whole, ""),
    "202": (b"HTTP/1.1 202 Accepted\r\n" + LENGTH, Broken, "not ready yet"),
    "403 with a page": (b"HTTP/1.1 403 No\r\nContent-Type: text/html\r\n" + LENGTH, ErrorStatus, "a challenge"),
    "451": (b"HTTP/1.1 451 No\r\n" + LENGTH, ErrorStatus, "legal reasons"),
    "511": (b"HTTP/1.1 511 Login\r\n" + LENGTH, ErrorStatus, "wants a login"),
    "HTTP/2": (b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x80", BadResponse, "speaks HTTP/2"),
    "TLS": (b"\x15\x03\x01\0\x02\x02\x46", BadResponse, "speaks TLS"),
}


@pytest.mark.shows("A29", "N7", "N8", "N10", "N20", "R34")
@pytest.mark.parametrize("through_proxy", [False, True], ids=["direct", "proxy"])
@pytest.mark.parametrize(("head", "expected", "named"), ODD.values(), ids=ODD)
async def test_an_odd_answer_means_the_same_on_every_way(
    monkeypatch: pytest.MonkeyPatch,
    head: bytes,
    expected: type,
    named: str,
    through_proxy: bool,
) -> None:
    """Whether it comes directly or through a proxy, an odd answer has one verdict or error, and one reason."""
    faults = [RawAnswer(head if b"\r\n\r\n" in head else head + b"\r\n" + BODY)]
    async with AssetServer() as server, TinyProxy().running() as proxy:
        server.add("/b.bin", BODY)
        url = server.add("/a.bin", BODY, faults=faults).url
        if through_proxy:
            monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        connection = HttpTransport().connection()
        outcome: Verdict | GrymFetchError
        try:
            answer = await Requester(Credentials({})).open(connection, Origin(0, url), PINNED)
            if isinstance(answer.verdict, Whole):
                assert await read_to_the_end(answer) == BODY
            answer.response.close()
            outcome = answer.verdict
            told = str(answer.refusal or outcome)
        except GrymFetchError as error:
            outcome, told = error, str(error)
        finally:
            await connection.aclose()
        assert bool(proxy.asked) is through_proxy
    assert type(outcome) is expected
    assert named in told

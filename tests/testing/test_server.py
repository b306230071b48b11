"""The server tells the truth by default, and each fault does on the wire what it says.

Rules: a fault that a client library would hide is read from a raw socket. Nothing here waits for time to
pass, except for the faults that are about time.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import pytest
import trustme
from yarl import URL

from grym_fetch.testing import (
    AnswerFault,
    AssetServer,
    BigHeaders,
    ChangeContent,
    Chunked,
    ChunkedCut,
    CloseDelimited,
    ContentLength,
    ContentRange,
    Delay,
    Drip,
    Endless,
    ETag,
    ExpiringRedirect,
    Fault,
    FlipByte,
    FlippingETag,
    Gate,
    Gzip,
    HangBeforeBody,
    HangBeforeHeaders,
    Hold,
    HtmlPage,
    IgnoreIfRange,
    LastModified,
    LongPartial,
    LyingTotal,
    MultipartRanges,
    NoRanges,
    NoValidator,
    RangeNotSatisfiable,
    RawAnswer,
    Redirect,
    RedirectLoop,
    RefuseHead,
    RefuseRanges,
    Reset,
    RetryAfter,
    SeededContent,
    ServedFile,
    ServerGone,
    ShiftRange,
    ShortPartial,
    SliceAs200,
    Stall,
    Status,
    Throttle,
    Truncate,
    WeakETag,
    WrongFile,
    seeded_bytes,
    serve_in_thread,
)

BODY = seeded_bytes(10_000, seed=1)
PATH = "/models/a.bin"
MODIFIED = "Thu, 01 Jan 2026 00:00:00 GMT"


@dataclass(frozen=True)
class Reply:
    """The bytes that came over a raw socket until the server closed it, or until the wanted number of them."""

    head: bytes
    body: bytes
    end: str

    @property
    def status(self) -> int:
        return int(self.head.split(b" ")[1])

    def header(self, name: str) -> str | None:
        for line in self.head.split(b"\r\n")[1:]:
            key, _, value = line.partition(b": ")
            if key.lower() == name.lower().encode():
                return value.decode("latin-1")
        return None


async def ask(
    file: ServedFile, *headers: str, method: str = "GET", target: str | None = None, until: int | None = None
) -> Reply:
    """Send one request by hand; read to the end of the connection, or this many bytes of body."""
    url = URL(file.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    end = "open"
    received = b""
    try:
        lines = [
            f"{method} {target or url.raw_path} HTTP/1.1",
            f"Host: {url.host}:{url.port}",
            *headers,
            "",
            "",
        ]
        writer.write("\r\n".join(lines).encode())
        async with asyncio.timeout(60):
            while until is None or len(received.partition(b"\r\n\r\n")[2]) < until or b"\r\n\r\n" not in received:
                try:
                    piece = await reader.read(1 << 16)
                except ConnectionResetError:
                    end = "reset"
                    break
                if not piece:
                    end = "closed"
                    break
                received += piece
    finally:
        writer.transport.abort()
    head, _, body = received.partition(b"\r\n\r\n")
    return Reply(head, body, end)


async def get(file: ServedFile, *headers: str) -> Reply:
    """Expect one answer and the end of the connection after it."""
    return await ask(file, "Connection: close", *headers)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(auto_decompress=False, timeout=aiohttp.ClientTimeout(total=10)) as opened:
        yield opened


def order(server: AssetServer, *faults: Fault, content: bytes = BODY) -> ServedFile:
    return server.add(PATH, content, faults=faults)


# --- The truth ---

TRUTH: list[tuple[dict[str, str], int, range, str | None]] = [
    ({}, 200, range(10_000), None),
    ({"Range": "bytes=0-"}, 206, range(10_000), "bytes 0-9999/10000"),
    ({"Range": "bytes=0-0"}, 206, range(1), "bytes 0-0/10000"),
    ({"Range": "BYTES=100-199"}, 206, range(100, 200), "bytes 100-199/10000"),
    ({"Range": "bytes=9999-"}, 206, range(9999, 10_000), "bytes 9999-9999/10000"),
    ({"Range": "bytes=9000-99999"}, 206, range(9000, 10_000), "bytes 9000-9999/10000"),
    ({"Range": "bytes=-10"}, 206, range(9990, 10_000), "bytes 9990-9999/10000"),
    ({"Range": "bytes=-99999"}, 206, range(10_000), "bytes 0-9999/10000"),
    ({"Range": "bytes=10000-"}, 416, range(0), "bytes */10000"),
    ({"Range": "bytes=-0"}, 416, range(0), "bytes */10000"),
    ({"Range": "bytes=5-4"}, 200, range(10_000), None),
    ({"Range": "bytes=-"}, 200, range(10_000), None),
    ({"Range": "items=0-9"}, 200, range(10_000), None),
    ({"Range": "bytes=0-1,5-6"}, 200, range(10_000), None),
    ({"Range": "bytes=0-9", "If-Range": "ETAG"}, 206, range(10), "bytes 0-9/10000"),
    ({"Range": "bytes=0-9", "If-Range": '"other"'}, 200, range(10_000), None),
    ({"Range": "bytes=0-9", "If-Range": "W/ETAG"}, 200, range(10_000), None),
    ({"Range": "bytes=0-9", "If-Range": MODIFIED}, 206, range(10), "bytes 0-9/10000"),
    ({"Range": "bytes=0-9", "If-Range": "Fri, 02 Jan 2026 00:00:00 GMT"}, 200, range(10_000), None),
    ({"Range": "bytes=0-9", "If-Range": "rubbish"}, 200, range(10_000), None),
    ({"Range": "bytes=10000-", "If-Range": '"other"'}, 200, range(10_000), None),
    ({"If-Range": "ETAG"}, 200, range(10_000), None),
    ({"If-Match": "ETAG", "Range": "bytes=0-9"}, 206, range(10), "bytes 0-9/10000"),
    ({"If-Match": "*"}, 200, range(10_000), None),
    ({"If-Match": "W/ETAG"}, 412, range(0), None),
    ({"If-Match": '"other"', "Range": "bytes=0-9"}, 412, range(0), None),
    ({"If-Unmodified-Since": "Wed, 31 Dec 2025 00:00:00 GMT"}, 412, range(0), None),
    ({"If-Unmodified-Since": MODIFIED}, 200, range(10_000), None),
    ({"If-None-Match": "W/ETAG"}, 304, range(0), None),
    ({"If-None-Match": '"other"', "If-Modified-Since": MODIFIED}, 200, range(10_000), None),
    ({"If-Modified-Since": MODIFIED}, 304, range(0), None),
]


@pytest.mark.parametrize(("headers", "status", "part", "content_range"), TRUTH)
async def test_truth(
    server: AssetServer,
    session: aiohttp.ClientSession,
    headers: dict[str, str],
    status: int,
    part: range,
    content_range: str | None,
) -> None:
    """Without faults every answer is the one that RFC 9110 requires."""
    file = order(server)
    etag = f'"{file.source.fingerprint()}"'
    sent = {name: value.replace("ETAG", etag) for name, value in headers.items()}
    async with session.get(file.url, headers=sent) as response:
        body = await response.read()
        assert (response.status, response.headers.get("Content-Range")) == (status, content_range)
        if status in (200, 206):
            assert body == BODY[part.start : part.stop]
            assert response.headers["ETag"] == etag
            assert response.headers["Last-Modified"] == MODIFIED
            assert response.headers["Accept-Ranges"] == "bytes"
            assert response.headers["Content-Length"] == str(len(part))
        assert "Date" in response.headers


async def test_file(server: AssetServer) -> None:
    """A served file knows what a client should get."""
    file = server.add("/with space/ü.bin", BODY)
    assert file.url == f"http://127.0.0.1:{server.port}/with%20space/%C3%BC.bin"
    assert (file.size, file.sha256, file.content) == (10_000, hashlib.sha256(BODY).hexdigest(), BODY)
    assert (await get(file)).body == BODY


async def test_head(server: AssetServer, session: aiohttp.ClientSession) -> None:
    """HEAD has the headers of GET without a Range, and no body."""
    file = order(server)
    async with session.head(file.url, headers={"Range": "bytes=0-9"}) as response:
        assert (response.status, response.headers["Content-Length"]) == (200, "10000")
    assert (await ask(file, "Connection: close", method="HEAD")).body == b""


async def test_other_methods_and_paths(server: AssetServer, session: aiohttp.ClientSession) -> None:
    """Another method is answered with 405, a path without a file with 404."""
    file = order(server)
    async with session.post(file.url, data=b"x") as response:
        assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")
    async with session.get(server.url("/nothing")) as response:
        assert response.status == 404


async def test_empty_file(server: AssetServer) -> None:
    """No range of an empty file is satisfiable."""
    file = order(server, content=b"")
    assert (await get(file)).header("Content-Length") == "0"
    assert (await get(file, "Range: bytes=0-")).header("Content-Range") == "bytes */0"


async def test_fresh_date_is_weak(server: AssetServer) -> None:
    """A Last-Modified that is not in the past is not a strong validator (RFC 9110, 8.8.2.2)."""
    soon = "Fri, 01 Jan 2100 00:00:00 GMT"
    file = order(server, LastModified(soon))
    assert (await get(file, "Range: bytes=0-9", f"If-Range: {soon}")).status == 200


async def test_keep_alive(server: AssetServer, session: aiohttp.ClientSession) -> None:
    """One connection serves request after request, and counts once."""
    file = order(server)
    for _ in range(5):
        async with session.get(file.url) as response:
            assert await response.read() == BODY
    assert (server.stats.connections_opened, server.stats.connections_open) == (1, 1)


async def test_tls() -> None:
    """With an SSL context the same server speaks HTTPS."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with AssetServer(ssl_context=context) as server, aiohttp.ClientSession() as session:
        file = order(server)
        assert file.url.startswith("https://")
        async with session.get(file.url, ssl=trusting) as response:
            assert await response.read() == BODY


# --- Content ---


def test_seeded_content_is_one() -> None:
    """Any part of a seeded content is the same as in the whole, and each seed has its own content."""
    whole = seeded_bytes(3_000_001, seed=5)
    content = SeededContent(3_000_001, seed=5)
    for start, stop in [
        (0, 1),
        (4095, 4097),
        (1_048_575, 1_048_577),
        (7, 2_999_999),
        (3_000_000, 3_000_009),
        (9, 9),
    ]:
        assert content.read(start, stop) == whole[start:stop]
    assert content.sha256() == hashlib.sha256(whole).hexdigest()
    assert seeded_bytes(5000, seed=5) == whole[:5000]
    assert seeded_bytes(5000, seed=6) != whole[:5000]


def test_seeded_content_tells_positions() -> None:
    """No 4 KiB of a seeded content occur twice, and no two blocks agree in any position."""
    content = SeededContent(8 << 20, seed=2)
    assert len({content.read(start, start + 4096) for start in range(0, content.size, 4096)}) == 2048
    assert len({content.read((block << 20) + 100, (block << 20) + 200) for block in range(8)}) == 8


async def test_large_lazy_content(server: AssetServer, session: aiohttp.ClientSession) -> None:
    """A seeded content is served without being generated completely."""
    file = server.add("/huge", SeededContent(1 << 50, seed=3))
    async with session.get(file.url, headers={"Range": f"bytes={1 << 49}-{(1 << 49) + 99}"}) as response:
        assert await response.read() == SeededContent(1 << 50, seed=3).read(1 << 49, (1 << 49) + 100)


# --- The connection breaks or is slow ---


@pytest.mark.posix
async def test_reset(server: AssetServer) -> None:
    """Reset: the bytes before it arrive, then RST."""
    reply = await get(order(server, Reset(after=4000)))
    assert (reply.body, reply.end) == (BODY[:4000], "reset")
    assert reply.header("Content-Length") == "10000"


async def test_truncate(server: AssetServer, session: aiohttp.ClientSession) -> None:
    """Truncate: the bytes before it arrive, then FIN; a client that counts sees that it is too early."""
    file = order(server, Truncate(after=4000))
    reply = await ask(file)
    assert (reply.body, reply.end, reply.header("Content-Length")) == (BODY[:4000], "closed", "10000")
    async with session.get(file.url) as response:
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


async def test_truncate_part(server: AssetServer) -> None:
    """Truncate counts the bytes of the body sent, not the positions in the file."""
    reply = await ask(order(server, Truncate(after=10)), "Range: bytes=500-599")
    assert (reply.status, reply.body, reply.end) == (206, BODY[500:510], "closed")


async def test_silent_close(server: AssetServer) -> None:
    """Truncate at the full size: a keep-alive connection that is closed without notice."""
    reply = await ask(order(server, Truncate(after=10_000)))
    assert (reply.body, reply.end, reply.header("Connection")) == (BODY, "closed", None)


@pytest.mark.parametrize(
    ("fault", "received"),
    [(Stall(after=4000), 4000), (HangBeforeBody(), 0)],
)
async def test_stall(server: AssetServer, session: aiohttp.ClientSession, fault: Fault, received: int) -> None:
    """Stall and HangBeforeBody: this many bytes, then nothing on an open connection."""
    file = order(server, fault)
    async with session.get(file.url) as response:
        assert response.status == 200
        assert await response.content.readexactly(received) == BODY[:received]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(response.content.read(1), 0.02)
    assert server.stats.body_bytes_sent == received


async def test_hang_before_headers(server: AssetServer) -> None:
    """HangBeforeHeaders: the request is accepted, and not a byte comes."""
    reply = asyncio.create_task(get(order(server, HangBeforeHeaders())))
    await server.stats.until(lambda stats: stats.requests_in_flight == 1)
    done, _ = await asyncio.wait([reply], timeout=0.02)
    assert done == set()
    reply.cancel()
    await asyncio.wait([reply])


async def test_hold(server: AssetServer, session: aiohttp.ClientSession) -> None:
    """Hold: the bytes up to a position, and the rest once the gate is opened, whatever range is requested."""
    gate = Gate()
    file = order(server, Hold(gate, at=4000))
    async with session.get(file.url) as whole, session.get(file.url, headers={"Range": "bytes=3900-"}) as part:
        assert await whole.content.readexactly(4000) == BODY[:4000]
        assert await part.content.readexactly(100) == BODY[3900:4000]
        assert server.stats.body_bytes_sent == 4100
        await asyncio.to_thread(gate.open)
        assert await whole.content.read() == await part.content.read() == BODY[4000:]
    assert (await get(file)).body == BODY


@pytest.mark.posix
@pytest.mark.parametrize(("fault", "end"), [(ServerGone(), "closed"), (ServerGone(reset=True), "reset")])
async def test_server_gone(server: AssetServer, fault: Fault, end: str) -> None:
    """ServerGone: the connection ends without a byte."""
    assert await ask(order(server, fault)) == Reply(b"", b"", end)


@pytest.mark.posix
async def test_drip(server: AssetServer) -> None:
    """Drip: the complete body comes in pieces, with a pause between two."""
    begun = time.monotonic()
    reply = await get(order(server, Drip(chunk=2500, interval=0.01)))
    assert reply.body == BODY
    assert time.monotonic() - begun >= 0.03


@pytest.mark.posix
async def test_drip_and_throttle(server: AssetServer) -> None:
    """Drip and Throttle combine: the slower of the two decides."""
    begun = time.monotonic()
    reply = await get(order(server, Drip(chunk=2500, interval=0.01), Throttle(rate=1e9)))
    assert reply.body == BODY
    assert time.monotonic() - begun >= 0.03


async def test_throttle_and_delay(server: AssetServer) -> None:
    """Throttle and Delay combine: the body takes size divided by rate, after the delay."""
    begun = time.monotonic()
    reply = await get(order(server, Throttle(rate=200_000), Delay(0.02)))
    assert reply.body == BODY
    assert time.monotonic() - begun >= 0.07


# --- The framing lies ---


@pytest.mark.parametrize("value", ["20000", "100", "-1", "5a", "10000, 10000", ""])
async def test_content_length(server: AssetServer, value: str) -> None:
    """ContentLength: any text in the header, then the true body, then the end of the connection."""
    reply = await ask(order(server, ContentLength(value)))
    assert (reply.header("Content-Length"), reply.body, reply.end) == (value, BODY, "closed")


async def test_content_length_too_low_open(server: AssetServer) -> None:
    """ContentLength with close=False: the surplus is waiting on an open connection."""
    reply = await ask(order(server, ContentLength("100", close=False)), until=10_000)
    assert (reply.body, reply.end) == (BODY, "open")


async def test_chunked(server: AssetServer, session: aiohttp.ClientSession) -> None:
    """Chunked: no length, the body in chunks with a last one; this includes a 206."""
    file = order(server, Chunked())
    async with session.get(file.url, headers={"Range": "bytes=10-99"}) as response:
        assert await response.read() == BODY[10:100]
        assert (response.status, response.headers["Transfer-Encoding"]) == (206, "chunked")
        assert "Content-Length" not in response.headers
    assert (await get(file)).body == b"2710\r\n" + BODY + b"\r\n0\r\n\r\n"


async def test_chunked_cut(server: AssetServer) -> None:
    """ChunkedCut: chunks, then FIN without the last chunk."""
    assert (await get(order(server, ChunkedCut()))).body == b"2710\r\n" + BODY + b"\r\n"
    assert (await get(order(server, ChunkedCut(after=16)))).body == b"10\r\n" + BODY[:16] + b"\r\n"


@pytest.mark.parametrize(("http10", "start"), [(False, b"HTTP/1.1 200"), (True, b"HTTP/1.0 200")])
async def test_close_delimited(server: AssetServer, http10: bool, start: bytes) -> None:
    """CloseDelimited: neither length nor chunks; the body ends with the connection."""
    reply = await ask(order(server, CloseDelimited(http10=http10)))
    assert (reply.body, reply.end) == (BODY, "closed")
    assert reply.head.startswith(start)
    assert reply.header("Connection") == (None if http10 else "close")
    assert reply.header("Content-Length") is None


@pytest.mark.parametrize("chunked", [True, False])
async def test_endless(server: AssetServer, session: aiohttp.ClientSession, chunked: bool) -> None:
    """Endless: after the true bytes come others for as long as somebody reads."""
    async with session.get(order(server, Endless(chunked=chunked)).url) as response:
        assert await response.content.readexactly(10_000) == BODY
        assert len(await response.content.readexactly(3_000_000)) == 3_000_000
        response.close()


async def test_big_headers(server: AssetServer) -> None:
    """BigHeaders: this many fields of this size, even with a redirect."""
    reply = await get(order(server, BigHeaders(count=100, size=1000), Redirect("/x")))
    assert reply.status == 302
    assert reply.head.count(b"X-Padding-") == 100
    assert len(reply.head) > 100_000


async def test_raw_answer(server: AssetServer) -> None:
    """RawAnswer: exactly these bytes, then the end of the connection."""
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\nbad header\r\n\r\nab"
    reply = await ask(order(server, RawAnswer(data)))
    assert (reply.head + b"\r\n\r\n" + reply.body, reply.end) == (data, "closed")


# --- Ranges ---

PART = "Range: bytes=1000-1999"
PARTS: list[tuple[Fault, int, str | None, bytes]] = [
    (NoRanges(), 200, None, BODY),
    (ContentRange(None), 206, None, BODY[1000:2000]),
    (ContentRange("bytes */10000"), 206, "bytes */10000", BODY[1000:2000]),
    (ContentRange("items 0-9/10"), 206, "items 0-9/10", BODY[1000:2000]),
    (LyingTotal(20_000), 206, "bytes 1000-1999/20000", BODY[1000:2000]),
    (LyingTotal("*"), 206, "bytes 1000-1999/*", BODY[1000:2000]),
    (ShiftRange(5), 206, "bytes 1005-2004/10000", BODY[1005:2005]),
    (ShiftRange(-5, truthful=False), 206, "bytes 1000-1999/10000", BODY[995:1995]),
    (ShiftRange(99_999), 206, "bytes 9000-9999/10000", BODY[9000:]),
    (ShortPartial(100), 206, "bytes 1000-1899/10000", BODY[1000:1900]),
    (ShortPartial(99_999), 206, "bytes 1000-1000/10000", BODY[1000:1001]),
    (LongPartial(100), 206, "bytes 1000-1999/10000", BODY[1000:2100]),
    (SliceAs200(), 200, "bytes 1000-1999/10000", BODY[1000:2000]),
    (SliceAs200(content_range=False), 200, None, BODY[1000:2000]),
    (RangeNotSatisfiable("bytes */9"), 416, "bytes */9", b"range not satisfiable\n"),
    (RangeNotSatisfiable(None), 416, None, b"range not satisfiable\n"),
    (RefuseRanges(501), 501, None, b"no ranges here\n"),
]


@pytest.mark.parametrize(("fault", "status", "content_range", "body"), PARTS, ids=[repr(row[0]) for row in PARTS])
async def test_ranged(server: AssetServer, fault: Fault, status: int, content_range: str | None, body: bytes) -> None:
    """Each range fault changes only answers to ranged requests, and frames them correctly."""
    file = order(server, fault)
    reply = await get(file, PART)
    assert (reply.status, reply.header("Content-Range"), reply.body) == (status, content_range, body)
    assert reply.header("Content-Length") == str(len(body))
    whole = await get(file)
    assert (whole.status, whole.body) == (200, BODY)
    assert whole.header("Accept-Ranges") == (None if isinstance(fault, NoRanges) else "bytes")


async def test_long_partial_past_the_end(server: AssetServer) -> None:
    """LongPartial continues past the end of the file with bytes of its own."""
    reply = await get(order(server, LongPartial(100)), "Range: bytes=9000-")
    assert (len(reply.body), reply.body[:1000]) == (1100, BODY[9000:])


async def test_multipart(server: AssetServer) -> None:
    """MultipartRanges: one part, in the multipart form."""
    reply = await get(order(server, MultipartRanges()), PART)
    assert (reply.header("Content-Type"), reply.header("Content-Range")) == (
        "multipart/byteranges; boundary=grym-boundary",
        None,
    )
    assert b"Content-Range: bytes 1000-1999/10000\r\n\r\n" + BODY[1000:2000] + b"\r\n--grym-boundary--" in reply.body


# --- Validators and content ---


@pytest.mark.parametrize(
    ("fault", "etag", "modified"),
    [
        (ETag('"mine"'), '"mine"', MODIFIED),
        (ETag(None), None, MODIFIED),
        (WeakETag(), f'W/"{hashlib.sha256(BODY).hexdigest()[:16]}"', MODIFIED),
        (LastModified("rubbish"), f'"{hashlib.sha256(BODY).hexdigest()[:16]}"', "rubbish"),
        (NoValidator(), None, None),
    ],
    ids=repr,
)
async def test_validators(server: AssetServer, fault: Fault, etag: str | None, modified: str | None) -> None:
    """The validator faults change only the validators."""
    reply = await get(order(server, fault))
    assert (reply.header("ETag"), reply.header("Last-Modified"), reply.body) == (etag, modified, BODY)


async def test_weak_etag_fails_if_range(server: AssetServer) -> None:
    """A weak tag never satisfies If-Range (RFC 9110, 13.1.5)."""
    file = order(server, WeakETag())
    etag = (await get(file)).header("ETag")
    assert (await get(file, PART, f"If-Range: {etag}")).status == 200


async def test_flipping_etag(server: AssetServer) -> None:
    """FlippingETag: each answer has another tag, or the next of the given tags."""
    file = order(server, FlippingETag())
    assert len({(await get(file)).header("ETag") for _ in range(3)}) == 3
    file = order(server, FlippingETag(('"a"', '"b"')))
    assert [(await get(file)).header("ETag") for _ in range(3)] == ['"a"', '"b"', '"a"']


async def test_ignore_if_range(server: AssetServer) -> None:
    """IgnoreIfRange: 206 of the current file, whatever If-Range asks for."""
    reply = await get(order(server, IgnoreIfRange()), PART, 'If-Range: "old"')
    assert (reply.status, reply.body) == (206, BODY[1000:2000])


@pytest.mark.parametrize("keep", [False, True])
async def test_change_content(server: AssetServer, keep: bool) -> None:
    """ChangeContent: other bytes from a certain request on; If-Range notices only if the validators change too."""
    other = seeded_bytes(12_000, seed=9)
    file = order(server, ChangeContent(other, keep_validators=keep, skip=1))
    first = await get(file)
    second = await get(file, PART, f"If-Range: {first.header('ETag')}")
    assert first.body == BODY
    assert (second.status, second.body) == ((206, other[1000:2000]) if keep else (200, other))
    assert (second.header("ETag") == first.header("ETag")) is keep
    assert (second.header("Last-Modified") == first.header("Last-Modified")) is keep


async def test_faults_of_parts_need_a_part(server: AssetServer) -> None:
    """A fault of parts leaves a 200 alone, even one caused by another fault."""
    file = order(server, ContentRange("bytes 0-0/1", times=1), NoRanges(times=1))
    assert (await get(file, PART)).header("Content-Range") is None
    assert (await get(file, PART)).header("Content-Range") == "bytes 0-0/1"


async def test_wrong_file(server: AssetServer) -> None:
    """WrongFile: the size is right, but all bytes differ."""
    body = (await get(order(server, WrongFile()))).body
    assert len(body) == len(BODY)
    assert all(body[start : start + 100] != BODY[start : start + 100] for start in range(0, 10_000, 100))


async def test_flip_byte(server: AssetServer) -> None:
    """FlipByte: one byte differs, in the whole and in each part that has it, under the same ETag."""
    true = await get(order(server))
    file = order(server, FlipByte(at=1500))
    whole = await get(file)
    assert [index for index, byte in enumerate(BODY) if byte != whole.body[index]] == [1500]
    assert (await get(file, PART)).body == whole.body[1000:2000]
    assert (await get(file, "Range: bytes=0-99")).body == BODY[:100]
    assert whole.header("ETag") == true.header("ETag")


async def test_gzip(server: AssetServer) -> None:
    """Gzip: compressed unasked, without ranges, or with ranges of the compressed bytes."""
    reply = await get(order(server, Gzip()), "Accept-Encoding: identity", PART)
    assert (reply.status, reply.header("Content-Encoding"), reply.header("Accept-Ranges")) == (
        200,
        "gzip",
        None,
    )
    assert gzip.decompress(reply.body) == BODY
    assert (reply.header("ETag") or "").startswith("W/")
    part = await get(order(server, Gzip(ranges=True)), "Range: bytes=5-14")
    assert (part.status, part.header("Content-Encoding"), part.body) == (206, "gzip", reply.body[5:15])


# --- Another status ---


@pytest.mark.parametrize(
    ("fault", "status", "headers", "body"),
    [
        (Status(404), 404, {}, b""),
        (Status(500, b"oops", {"X-Id": "7"}), 500, {"X-Id": "7", "Content-Length": "4"}, b"oops"),
        (Status(204), 204, {"Content-Length": None}, b""),
        (RetryAfter("120"), 503, {"Retry-After": "120"}, b"come back later\n"),
        (RetryAfter("-1", status=429, date=MODIFIED), 429, {"Retry-After": "-1", "Date": MODIFIED}, None),
        (RetryAfter(None), 503, {"Retry-After": None}, None),
        (Redirect("//else.where/x", status=307), 307, {"Location": "//else.where/x"}, b"moved\n"),
        (RedirectLoop(), 302, {"Location": PATH}, None),
        (RedirectLoop(growing=True), 302, {"Location": f"{PATH}?hop=1"}, None),
        (HtmlPage(), 200, {"Content-Type": "text/html; charset=utf-8", "ETag": None}, HtmlPage().page),
    ],
    ids=repr,
)
async def test_status(
    server: AssetServer, fault: Fault, status: int, headers: dict[str, str | None], body: bytes | None
) -> None:
    """A status fault answers with its own status, headers and body, ranged or not."""
    reply = await get(order(server, fault), PART)
    assert reply.status == status
    assert {name: reply.header(name) for name in headers} == headers
    assert reply.head.lower().count(b"\r\ndate: ") == 1
    assert body is None or reply.body == body


async def test_redirects_are_followed(server: AssetServer, session: aiohttp.ClientSession) -> None:
    """Redirect leads a client to the file; RedirectLoop never does."""
    target = server.add("/target", BODY)
    server.add("/from", faults=[Redirect("/target")])
    server.add("/loop", faults=[RedirectLoop(growing=True)])
    async with session.get(server.url("/from")) as response:
        assert (str(response.url), await response.read()) == (target.url, BODY)
    with pytest.raises(aiohttp.TooManyRedirects):
        await session.get(server.url("/loop"))
    assert server.stats.of("/loop").requests[-1].query.startswith("hop=")


async def test_expiring_redirect(server: AssetServer) -> None:
    """ExpiringRedirect: its token opens the target this many times; then 403, until the hub gives a new one."""
    hub = server.add("/hub", faults=[ExpiringRedirect("/cdn", uses=2)])
    target = server.add("/cdn", BODY)
    assert (await get(target)).status == 403
    first, second = [(await get(hub)).header("Location") for _ in range(2)]
    assert first is not None
    assert first != second
    statuses = [(await ask(target, "Connection: close", target=first)).status for _ in range(3)]
    assert statuses == [200, 200, 403]
    assert (await ask(target, "Connection: close", target=second)).body == BODY


async def test_expiring_redirect_to_another_server(server: AssetServer, session: aiohttp.ClientSession) -> None:
    """A hub may lead to another origin, whose token expires after a time."""
    async with AssetServer() as cdn:
        target = cdn.add("/signed", BODY)
        hub = server.add("/hub", faults=[ExpiringRedirect(target.url, seconds=60, times=1), Redirect("/hub")])
        late = server.add("/late", faults=[ExpiringRedirect(target.url, seconds=0)])
        async with session.get(hub.url) as response:
            assert await response.read() == BODY
        async with session.get(late.url) as response:
            assert (response.status, response.url.port) == (403, cdn.port)


async def test_expiring_redirect_ordered_later(server: AssetServer) -> None:
    """From the order on, only a token opens the target, before any was given out, too."""
    hub, target = server.add("/hub"), server.add("/cdn", BODY)
    assert (await get(target)).status == 200
    hub.faults = (ExpiringRedirect("/cdn"),)
    assert (await get(target)).status == 403


async def test_refuse_head(server: AssetServer) -> None:
    """RefuseHead: 405 only to HEAD."""
    file = order(server, RefuseHead())
    assert (await ask(file, "Connection: close", method="HEAD")).status == 405
    assert (await get(file)).status == 200


# --- Limits and combination ---


async def test_faults_take_turns(server: AssetServer) -> None:
    """Of several faults the first that applies wins, and only the winner uses up one of its times."""
    file = order(server, Status(503, times=2), Truncate(after=10, times=1))
    replies = [await get(file) for _ in range(4)]
    assert [(reply.status, len(reply.body)) for reply in replies] == [
        (503, 0),
        (503, 0),
        (200, 10),
        (200, 10_000),
    ]


async def test_skip(server: AssetServer) -> None:
    """Skip lets requests pass that the fault could have hit, and counts no others."""
    file = order(server, Status(500, skip=1, times=1, ranged=True))
    asked: list[tuple[str, ...]] = [(PART,), (), (PART,), (PART,)]
    assert [(await get(file, *headers)).status for headers in asked] == [206, 200, 500, 206]


async def test_ranged_false(server: AssetServer) -> None:
    """With ranged=False a fault hits only requests without a Range."""
    file = order(server, Status(500, ranged=False))
    assert ((await get(file)).status, (await get(file, PART)).status) == (500, 206)


async def test_covering(server: AssetServer) -> None:
    """With covering a fault hits only requests for bytes that include this position."""
    file = order(server, Truncate(after=5, covering=1500))
    assert len((await get(file, "Range: bytes=0-1499")).body) == 1500
    assert len((await get(file, "Range: bytes=1500-1999")).body) == 5
    assert len((await get(file)).body) == 5


async def test_new_faults(server: AssetServer) -> None:
    """Faults may be changed while the server runs."""
    file = order(server, Status(500))
    assert (await get(file)).status == 500
    file.faults = [Status(502, times=1)]
    assert [(await get(file)).status for _ in range(2)] == [502, 200]
    assert file.faults == (Status(502, times=1),)


# --- Counters ---


async def test_recorded_requests(server: AssetServer, session: aiohttp.ClientSession) -> None:
    """Each request is recorded with everything a test may ask about."""
    file = order(server)
    headers = {"Range": "bytes=0-9", "If-Range": '"x"', "X-Canary": "tweet"}
    async with session.get(f"{file.url}?token=abc%26", headers=headers) as response:
        await response.read()
    (recorded,) = server.stats.requests
    assert (recorded.method, recorded.path, recorded.query) == ("GET", PATH, "token=abc%26")
    assert (recorded.range, recorded.if_range, recorded.headers["x-canary"]) == ("bytes=0-9", '"x"', "tweet")
    assert recorded.remote_port > 0


async def test_counts_by_path(server: AssetServer) -> None:
    """Requests and body bytes are counted in total and by path; reset starts a new count."""
    first, second = server.add("/1", BODY), server.add("/2", BODY)
    await get(first)
    await get(second, PART)
    await ask(second, "Connection: close", method="HEAD")
    stats = server.stats
    assert (len(stats.requests), stats.body_bytes_sent) == (3, 11_000)
    assert (len(stats.of("/2").requests), stats.of("/2").body_bytes_sent) == (2, 1000)
    assert stats.connections_opened == 3
    stats.reset()
    assert (stats.requests, stats.body_bytes_sent, stats.connections_opened) == ((), 0, 0)
    assert stats.of("/2").requests == ()


async def test_counts_connections(server: AssetServer) -> None:
    """A connection counts while it is open, even when idle or before its first request."""
    file = order(server)
    idle = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(3)]
    await get(file)
    assert (server.stats.most_open_connections, server.stats.most_requests_in_flight) == (4, 1)
    for reader, writer in idle:
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
    await get(file)
    assert (server.stats.connections_opened, server.stats.most_open_connections) == (5, 4)


async def test_counts_requests_in_flight(server: AssetServer, session: aiohttp.ClientSession) -> None:
    """A request is in flight until it is answered or its client has gone."""
    file = order(server, Stall(after=1, times=3))
    stalled = [await session.get(file.url) for _ in range(3)]
    assert server.stats.requests_in_flight == 3
    for response in stalled:
        response.close()
    async with asyncio.timeout(60):
        await server.stats.until(lambda stats: stats.connections_open == stats.requests_in_flight == 0)
    assert (await get(file)).body == BODY
    assert server.stats.of(PATH).most_requests_in_flight == 3


# --- Start and end ---


async def test_refused_connections(server: AssetServer, session: aiohttp.ClientSession) -> None:
    """Refused connections fail at once while open ones continue; accepted again, they use the same port."""
    file = order(server)
    async with session.get(file.url) as response:
        await response.read()
    await server.refuse_connections()
    with pytest.raises(ConnectionRefusedError):
        await get(file)
    async with session.get(file.url) as response:
        assert await response.read() == BODY
    await server.accept_connections()
    assert (await get(file)).body == BODY


@pytest.mark.parametrize("fault", [Stall(after=100), HangBeforeHeaders(), Endless(), Delay(99)], ids=repr)
async def test_fast_end(fault: Fault) -> None:
    """The server ends at once, whatever is being answered, and leaves no task, connection or listener."""
    before = asyncio.all_tasks()
    server = AssetServer()
    await server.start()
    file = order(server, fault)
    url = URL(file.url)
    clients = [await asyncio.open_connection(url.host, url.port) for _ in range(4)]
    for _, writer in clients[:3]:
        writer.write(b"GET /models/a.bin HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(60):
        await server.stats.until(lambda stats: stats.requests_in_flight == 3)
    async with asyncio.timeout(60):
        await server.aclose()
    assert asyncio.all_tasks() == before
    assert (server.stats.connections_open, server.stats.requests_in_flight) == (0, 0)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(url.host, url.port)
    for _, writer in clients:
        writer.transport.abort()
    await server.aclose()


async def test_misuse(server: AssetServer) -> None:
    """A server has no address before its start, is started once, and accepts only absolute paths."""
    with pytest.raises(RuntimeError, match="start it first"):
        _ = AssetServer().add("/a", b"").url
    with pytest.raises(RuntimeError, match="make a new one"):
        await server.start()
    with pytest.raises(ValueError, match="begins with a slash"):
        server.add("a", b"")
    with pytest.raises(LookupError, match="not running"):
        server.add("/a", faults=[ExpiringRedirect("http://127.0.0.1:1/x")])


async def test_own_fault(server: AssetServer) -> None:
    """A project's own fault is a subclass with its own ``bend``."""

    class Teapot(AnswerFault):
        def bend(self, answer, request, hit):  # type: ignore[no-untyped-def]  # a project need not annotate
            return Status(418, b"%d" % hit).bend(answer, request, hit)

    file = order(server, Teapot(times=2))
    assert [(await get(file)).body for _ in range(2)] == [b"0", b"1"]


def test_thread() -> None:
    """Synchronous code gets the same server in a thread, which ends with the block."""
    before = threading.active_count()
    with serve_in_thread() as server:
        file = server.add(PATH, BODY, faults=[Stall(after=10, skip=1)])
        with urllib.request.urlopen(file.url) as response:
            assert response.read() == BODY
        stalled = socket.create_connection(("127.0.0.1", server.port))
        stalled.sendall(b"GET /models/a.bin HTTP/1.1\r\nHost: x\r\n\r\n")
        assert stalled.recv(1) == b"H"
        asyncio.run(server.refuse_connections())
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port))
        asyncio.run(server.accept_connections())
        assert len(server.stats.requests) == 2
    stalled.close()
    assert threading.active_count() == before
    assert server.stats.connections_open == 0


def test_thread_passes_errors_on() -> None:
    """An error in the block is passed on, and the server still ends."""
    before = threading.active_count()
    with pytest.raises(KeyError), serve_in_thread():
        raise KeyError("x")
    assert threading.active_count() == before

"""Our own socket, byte for byte: what a server may send at the wrong moment, and where each byte goes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import count, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_fetch.core.errors import BadResponse, ConnectionLost, GrymFetchError, PolicyRefused, Stalled
from grym_fetch.net.parser import MAX_HEAD_BYTES
from grym_fetch.net.places import Places
from grym_fetch.net.plain import PlainConnection, PlainResponse
from grym_fetch.net.settings import HttpSettings
from grym_fetch.net.wire import Wire
from tests.support.fakes import read_some
from tests.support.properties import examples

CONTENT = bytes(range(256)) * 1000
HEAD = b"HTTP/1.1 200 OK\r\n"


@asynccontextmanager
async def listening(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], **more: float
) -> AsyncIterator[tuple[PlainConnection, str]]:
    """A server that does this with each socket, with a connection to use and an address."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    connection = PlainConnection(HttpSettings(**more))  # type: ignore[arg-type]  # times only
    try:
        yield connection, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/a"
    finally:
        await connection.aclose()
        server.close()
        await server.wait_closed()


class Script:
    """A server that answers each request on a socket with its next answer, in the portions given.

    ``None`` in an answer closes the socket. ``requests`` has what was requested, ``sockets`` the number of sockets.
    """

    def __init__(self, *answers: Sequence[bytes | None]) -> None:
        self.answers = list(answers)
        self.requests: list[bytes] = []
        self.sockets = 0

    @asynccontextmanager
    async def running(self, **more: float) -> AsyncIterator[tuple[PlainConnection, str]]:
        """The server, with a connection to use and an address."""
        async with listening(self._serve, **more) as both:
            yield both

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.sockets += 1
        try:
            while self.answers:
                self.requests.append(await reader.readuntil(b"\r\n\r\n"))
                for portion in self.answers.pop(0):
                    if portion is None:
                        return
                    writer.write(portion)
                    await writer.drain()
                    await asyncio.sleep(0)
            await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


async def body_of(response: PlainResponse, most: int = 1 << 20) -> bytes:
    """Read it to its end, at most ``most`` bytes at a time."""
    body = b""
    try:
        while data := await read_some(response, most):
            body += data
    finally:
        response.close()
    return body


async def asked(connection: PlainConnection, url: str) -> bytes:
    """Send a request, and read the body."""
    return await body_of(await connection.get(url, {}))


def with_length(body: bytes) -> bytes:
    """A response with this body."""
    return HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body


def chunked(body: bytes, size: int) -> bytes:
    """The same body in chunks."""
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    framed = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\n\r\n"


@examples(25)
@given(
    framing=st.sampled_from(["length", "chunked", "close"]),
    cuts=st.lists(st.integers(0, 70_000), max_size=6),
    most=st.sampled_from([1000, 4096, 65_536, 200_000]),
    size=st.integers(0, 66_000),
)
def test_however_it_comes_it_is_the_same_body(framing: str, cuts: list[int], most: int, size: int) -> None:
    """Whatever the framing, the portions on the wire and the receiving buffer, the body is the same."""
    body = CONTENT[:size]
    raw = {
        "length": with_length(body),
        "chunked": chunked(body, 999),
        "close": HEAD + b"\r\n" + body,
    }[framing]
    edges = sorted({0, len(raw), *(min(cut, len(raw)) for cut in cuts)})
    portions: list[bytes | None] = [raw[a:b] for a, b in pairwise(edges)]

    async def run() -> None:
        script = Script([*portions, None] if framing == "close" else portions, [with_length(b"next")])
        async with script.running() as (connection, url):
            assert await body_of(await connection.get(url, {}), most) == body
            assert await asked(connection, url) == b"next"
            assert script.sockets == (2 if framing == "close" else 1)

    asyncio.run(run())


async def test_interim_responses_are_passed_over() -> None:
    """RFC 9110 section 15.2: any number of 1xx may come before the answer; their fields are not part of it."""
    interim = b"HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\nETag: early\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
    async with Script([interim + with_length(b"body")]).running() as (connection, url):
        response = await connection.get(url, {})
        assert (response.head.status, response.head.get("etag")) == (200, None)
        assert await body_of(response) == b"body"


@pytest.mark.shows("N10", "S4")
@pytest.mark.parametrize(
    "portion",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n" * 100,
        HEAD + b"X: " + b"x" * MAX_HEAD_BYTES,
        HEAD + b"X: y\r\n" * 10_000,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"Trailer: t\r\n" * 1000,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"extension" * 1000,
    ],
    ids=["interim", "field", "fields", "trailers", "extension"],
)
async def test_a_head_without_end(portion: bytes) -> None:
    """Endless interim responses, fields, trailers and chunk extensions are cut off after some kilobytes."""
    rest: list[bytes | None] = [b"x" * 8000 if b"Trailer" not in portion and b"100" not in portion else portion] * 50
    async with Script([portion, *rest]).running() as (connection, url):
        with pytest.raises(BadResponse, match="rules of HTTP"):
            await asked(connection, url)


@pytest.mark.shows("N5", "S3")
async def test_what_follows_a_body_is_never_an_answer() -> None:
    """Bytes after a body close the connection: they are not taken for the answer to the next request."""
    forged = with_length(b"forged")
    for portions in ([with_length(b"body") + forged], [with_length(b"body"), forged]):
        script = Script(portions, [with_length(b"true")])
        script.answers *= 2
        async with script.running() as (connection, url):
            assert await asked(connection, url) == b"body"
            await some_turns()
            script.answers = [[with_length(b"true")]] * 2
            assert await asked(connection, url) == b"true"
        assert script.sockets == 2


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter, int], Awaitable[None]]
"""What a server does with a socket, given its number from 1."""


@asynccontextmanager
async def serving(handle: Handler) -> AsyncIterator[tuple[PlainConnection, str]]:
    """A server that does this, with a connection to use and an address."""
    numbers = count(1)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await handle(reader, writer, next(numbers))
        with suppress(ConnectionError):
            await reader.read()
        writer.close()

    async with listening(serve) as both:
        yield both


async def some_turns() -> None:
    """Let the loop look at its sockets: data sent within this process has arrived."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.shows("N5", "R7", "S3")
@pytest.mark.parametrize("together", [True, False], ids=["in one packet", "when it is idle"])
async def test_nothing_behind_a_body_goes_where_its_bytes_go(together: bool) -> None:
    """A body received in place ends where its length says, and what follows costs the connection."""
    waits, is_idle, sent = asyncio.Event(), asyncio.Event(), asyncio.Event()
    body, forged = CONTENT[:1000], with_length(b"forged")

    async def handle(_: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        if number > 1:
            writer.write(with_length(b"true"))
            return
        writer.write(HEAD + b"Content-Length: 1000\r\n\r\n")
        await waits.wait()
        writer.write(body + forged if together else body)
        await is_idle.wait()
        writer.write(forged)
        sent.set()

    async with serving(handle) as (connection, url):
        response = await connection.get(url, {})
        reading = asyncio.ensure_future(body_of(response))
        await asyncio.sleep(0)
        waits.set()
        assert await reading == body
        is_idle.set()
        await sent.wait()
        await some_turns()
        assert connection.host == "", "it would be used again"
        assert await asked(connection, url) == b"true"


async def test_what_comes_before_anybody_reads_is_kept() -> None:
    """A body that arrives while its reader is busy stays complete, and is not read ahead."""
    has_head, sent = asyncio.Event(), asyncio.Event()

    async def handle(_: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(CONTENT))
        await has_head.wait()
        writer.write(CONTENT)
        sent.set()

    async with serving(handle) as (connection, url):
        response = await connection.get(url, {})
        has_head.set()
        await sent.wait()
        await some_turns()
        assert await body_of(response) == CONTENT


@pytest.mark.shows("N17")
async def test_an_idle_connection_that_was_closed_costs_nothing() -> None:
    """A kept socket that closes just as it is used is replaced once, without an error; a new one is not."""
    script = Script([with_length(b"one")], [None], [with_length(b"two")], [None])
    async with script.running() as (connection, url):
        assert await asked(connection, url) == b"one"
        assert await asked(connection, url) == b"two"
        script.answers = [[None], [None]]
        with pytest.raises(ConnectionLost, match="without an answer"):
            await asked(connection, url)
        assert script.sockets == 3


async def test_bytes_before_the_break_come_first() -> None:
    """Bytes that arrived before the break come first, then the error, every time."""
    async with Script([HEAD + b"Content-Length: 9\r\n\r\nbegun", None]).running() as (connection, url):
        response = await connection.get(url, {})
        assert await read_some(response) == b"begun"
        for _ in range(2):
            with pytest.raises(ConnectionLost, match="before the end"):
                await read_some(response)
        response.close()


@pytest.mark.shows("N12")
async def test_a_stall_ends_it_and_a_slow_reader_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only silence while somebody waits counts: a slow reader, on a slow disk, is not the server's fault."""
    async with Script([HEAD + b"Content-Length: 9\r\n\r\nbegun"]).running(stall_timeout=0.05) as (connection, url):
        response = await connection.get(url, {})
        loop, hour_ago = asyncio.get_running_loop(), asyncio.get_running_loop().time
        monkeypatch.setattr(loop, "time", lambda: hour_ago() + 3600)
        await asyncio.sleep(0)  # timers of an hour are due now
        assert await read_some(response) == b"begun"
        with pytest.raises(Stalled, match="nothing arrived"):
            await read_some(response)
        response.close()


@pytest.mark.shows("N10", "N11")
async def test_a_head_that_comes_byte_by_byte_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is never silence, but no complete head either: it has a deadline of twice the stall timeout."""
    loop, real, ahead = asyncio.get_running_loop(), asyncio.get_running_loop().time, 0.0
    monkeypatch.setattr(loop, "time", lambda: real() + ahead)
    ended = asyncio.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal ahead
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD + b"X: ")
        with suppress(ConnectionError):
            for _ in range(20):
                ahead += 5  # half a stall timeout between two bytes
                writer.write(b"x")
                await writer.drain()
                await some_turns()
        writer.close()
        ended.set()

    async with listening(drip, stall_timeout=10.0) as (connection, url):
        with pytest.raises(Stalled, match="header was not complete after 20 s"):
            await connection.get(url, {})
        await ended.wait()


@pytest.mark.shows("N13", "N3")
@pytest.mark.parametrize(
    ("begin", "drop"), [(b"", b"0"), (b"4;x=", b"x"), (b"0\r\n", b"X: 1\r\n")], ids=["length", "extension", "trailers"]
)
async def test_what_is_around_the_chunks_keeps_no_connection_alive(
    monkeypatch: pytest.MonkeyPatch, begin: bytes, drop: bytes
) -> None:
    """Bytes come again and again, but none of the content: that is a stall, or it would take days to come to an end."""
    loop, real, ahead = asyncio.get_running_loop(), asyncio.get_running_loop().time, 0.0
    monkeypatch.setattr(loop, "time", lambda: real() + ahead)
    dropped, ended = 0, asyncio.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal ahead, dropped
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n" + begin)
        with suppress(ConnectionError):
            while dropped < 20:
                dropped += 1
                ahead += 5  # half a stall timeout between two of them
                writer.write(drop)
                await writer.drain()
                await some_turns()
        writer.close()
        ended.set()

    async with listening(drip, stall_timeout=10.0) as (connection, url):
        response = await connection.get(url, {})
        assert await read_some(response, 4) == b"body"
        with pytest.raises(Stalled, match="nothing arrived for 10 s"):
            await read_some(response, 4)
        assert dropped < 10
        response.close()
        await ended.wait()


@pytest.mark.shows("M11", "S7")
@pytest.mark.parametrize("path", ["/a b", "/a\r\nX: y", "/\0", "/ä", "/a\x7f"])
async def test_nothing_can_be_smuggled_into_a_request(path: str) -> None:
    """A character that could end a line, in an address or a field, is refused before anything is sent."""
    script = Script()
    async with script.running() as (connection, url):
        with pytest.raises(PolicyRefused):
            await connection.get(url + path, {})
        with pytest.raises(PolicyRefused):
            await connection.get(url, {"X": f"y{path.replace('a b', chr(10))}"})
    assert script.sockets == 0


@examples(150)
@given(st.binary(max_size=400), st.sampled_from([b"", HEAD, HEAD + b"Content-Length: 3\r\n", b"HTTP/1.1 206 X\r\n"]))
@pytest.mark.shows("S11")
def test_any_bytes_are_an_answer_or_an_error(noise: bytes, prefix: bytes) -> None:
    """Whatever a server sends, there is an answer or one of our errors, nothing else, and never a hang."""

    async def run() -> None:
        async with Script([prefix + noise, None]).running(stall_timeout=5.0) as (connection, url):
            try:
                await asked(connection, url)
            except GrymFetchError as error:
                assert isinstance(error, BadResponse | ConnectionLost)  # noqa: PT017

    asyncio.run(run())


# -- requests ahead of their turn --------------------------------------------------------------------------------------

LAST = HEAD + b"Connection: close\r\nContent-Length: 4\r\n\r\nlast"


async def ahead(connection: PlainConnection, *urls: str) -> PlainResponse:
    """Send the first request and then, before its body is read, the others."""
    response = await connection.get(urls[0], {})
    assert all(connection.ask_ahead(url, {}) for url in urls[1:])
    return response


@pytest.mark.shows("N24")
async def test_what_was_asked_ahead_is_not_asked_again() -> None:
    """Three requests go out before the first answer is read, and each `get` gets its own answer."""
    script = Script(*([with_length(body)] for body in (b"one", b"second", b"3")))
    async with script.running() as (connection, url):
        assert not connection.ask_ahead(url, {}), "nothing is proved yet"
        urls = [f"{url}{n}" for n in range(3)]
        bodies = [await body_of(await ahead(connection, *urls))]
        assert not connection.is_ahead
        for each in urls[1:]:
            bodies.append(await asked(connection, each))
            assert connection.is_ahead
    assert bodies == [b"one", b"second", b"3"]
    assert (script.sockets, len(script.requests)) == (1, 3)


@pytest.mark.shows("N24")
async def test_another_request_gets_no_answer_of_theirs() -> None:
    """A request that differs from those sent ahead, in address or field, gets its own answer, over a new socket."""
    for path, fields in (("b", {}), ("", {"Range": "bytes=0-1"})):
        script = Script([with_length(b"one")], [with_length(b"not mine")], [with_length(b"mine")])
        async with script.running() as (connection, url):
            await body_of(await ahead(connection, url, url))
            # The server may have answered already: that answer is never read.
            assert await body_of(await connection.get(url + path, fields)) in (b"mine", b"not mine")
            assert not connection.is_ahead
            assert not connection.lost_ahead()
            assert script.sockets == 2


@pytest.mark.shows("N24")
@pytest.mark.parametrize(
    ("answers", "is_lost"),
    [
        ([[with_length(b"one"), None], [with_length(b"two")]], True),
        ([[with_length(b"one")], [None], [with_length(b"two")]], True),
        ([[with_length(b"one")], [HEAD, None], [with_length(b"two")]], True),
        ([[with_length(b"one")], [b"rubbish\r\n\r\n"], [with_length(b"two")]], True),
        ([[with_length(b"one")], [b""], [with_length(b"two")]], True),
        ([[LAST, None], [with_length(b"two")]], False),
    ],
    ids=["closes", "closes later", "within a head", "rubbish", "silence", "announced"],
)
async def test_what_is_not_answered_was_never_asked(
    monkeypatch: pytest.MonkeyPatch, answers: list[Sequence[bytes | None]], is_lost: bool
) -> None:
    """It is sent again over a new socket, without an error; a server that did not announce the close is remembered."""
    monkeypatch.setattr("grym_fetch.net.plain.AHEAD_TIMEOUT_S", 0.05)
    script = Script(*answers)
    async with script.running() as (connection, url):
        response = await connection.get(url, {})
        assert connection.ask_ahead(f"{url}2", {}) is (LAST not in answers[0])
        await body_of(response)
        assert await asked(connection, f"{url}2") == b"two"
        assert not connection.is_ahead
        assert (connection.lost_ahead(), connection.lost_ahead()) == (is_lost, False)
        assert script.sockets == 2


@pytest.mark.shows("N24")
async def test_the_first_request_ahead_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that stalls at the first one over a socket costs only a moment; a proven one may take longer."""
    monkeypatch.setattr("grym_fetch.net.plain.FIRST_AHEAD_TIMEOUT_S", 0.05)
    monkeypatch.setattr("grym_fetch.net.plain.AHEAD_TIMEOUT_S", 3600.0)
    script = Script([with_length(b"one")], [b""], [with_length(b"two")])
    async with script.running() as (connection, url):
        response = await connection.get(url, {})
        assert connection.ask_ahead(f"{url}2", {})
        await body_of(response)
        async with asyncio.timeout(60):
            assert await asked(connection, f"{url}2") == b"two"
        assert connection.lost_ahead()


@pytest.mark.shows("N24")
async def test_a_socket_closed_while_idle_blames_nobody() -> None:
    """Requests sent ahead over a socket that the server just closed are sent again, and prove nothing."""
    script = Script([with_length(b"one")], [None], [with_length(b"two")])
    async with script.running() as (connection, url):
        assert await asked(connection, url) == b"one"
        assert connection.ask_ahead(url, {})
        assert await asked(connection, url) == b"two"
        assert not connection.lost_ahead()


@pytest.mark.shows("N24")
async def test_what_was_lost_is_known_before_the_next_request() -> None:
    """A server that closes instead of answering is told from one of which nothing was asked ahead."""
    script = Script([with_length(b"one"), None])
    async with script.running() as (connection, url):
        assert not connection.lost_ahead(), "there is no socket yet"
        await body_of(await ahead(connection, url, url))
        assert connection._wire is not None
        async with asyncio.timeout(60):
            await connection._wire.closed
        assert connection.lost_ahead()


@pytest.mark.parametrize(("answer", "failures"), [([None], 0), ([HEAD, None], 1)], ids=["idle", "within a head"])
async def test_which_failures_are_held_against_an_address(
    monkeypatch: pytest.MonkeyPatch, answer: list[bytes | None], failures: int
) -> None:
    """A kept socket that the server closed while it was idle is no failure of its address; a broken answer is."""
    failed: list[str] = []
    monkeypatch.setattr(Places, "failed", lambda _, name, address, now: failed.append(address))
    script = Script([with_length(b"one")], answer, [with_length(b"two")])
    async with script.running() as (connection, url):
        assert await asked(connection, url) == b"one"
        with suppress(ConnectionLost):
            assert await asked(connection, url) == b"two"
    assert failed == ["127.0.0.1"] * failures


@pytest.mark.shows("N23")
async def test_a_handshake_that_fails_is_held_against_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """So is one that nobody answers in time: another address of the name comes first the next time."""
    failed: list[str] = []
    monkeypatch.setattr(Places, "failed", lambda _, name, address, now: failed.append(address))

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with listening(hang_up) as (connection, url):
        with pytest.raises(GrymFetchError):
            await connection.get(url.replace("http", "https"), {})
        assert failed == ["127.0.0.1"]


@pytest.mark.shows("N23")
async def test_an_address_that_cannot_be_reached_in_time_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody says so: the time for connecting is over."""
    failed: list[str] = []

    async def never(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Places, "failed", lambda _, name, address, now: failed.append(address))
    monkeypatch.setattr("grym_fetch.net.plain.start_connection", never)
    connection = PlainConnection(HttpSettings(connect_timeout=0.01))
    with pytest.raises(GrymFetchError, match="no connection"):
        await connection.get("http://127.0.0.1:9/a", {})
    assert failed == ["127.0.0.1"]


@pytest.mark.shows("N24")
async def test_whoever_stops_waiting_for_an_answer_ends_the_socket() -> None:
    """The answer may still come, and nobody is blamed for what was asked ahead besides."""
    script = Script([with_length(b"one")], [b""])
    async with script.running() as (connection, url):
        await body_of(await ahead(connection, url, f"{url}2", f"{url}3"))
        waiting = asyncio.ensure_future(connection.get(f"{url}2", {}))
        await some_turns()
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
        assert (connection.host, connection.ahead, connection.lost_ahead()) == ("", 0, False)
        script.answers = [[with_length(b"two")]]
        assert await asked(connection, f"{url}3") == b"two"
        assert not connection.is_ahead


@pytest.mark.shows("N24")
async def test_what_was_asked_ahead_ends_with_the_socket() -> None:
    """A new socket owes no answers."""
    script = Script([with_length(b"one")], [with_length(b"two")])
    async with script.running() as (connection, url):
        await body_of(await ahead(connection, url, f"{url}2"))
        await connection.aclose()
        script.answers = [[with_length(b"three")]]
        response = await connection.get(f"{url}3", {})
        assert (connection.ahead, connection.lost_ahead()) == (0, False)
        assert await body_of(response) == b"three"


@pytest.mark.posix
@pytest.mark.shows("X10")
async def test_a_child_keeps_no_socket() -> None:
    """Its copy leads nowhere, so that the server sees it end with the parent's; its number stays taken."""
    script = Script([with_length(b"one")])
    async with script.running() as (connection, url):
        connection.forget()
        await asked(connection, url)
        assert connection._wire is not None
        descriptor = connection._wire._transport.get_extra_info("socket").fileno()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(2):
            connection.forget()
            assert os.path.samestat(os.fstat(descriptor), os.stat(os.devnull))
        assert len(os.listdir("/proc/self/fd")) == before
        await connection.aclose()
        connection.forget()


async def test_only_a_token_has_to_stay_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one, plain http goes anywhere."""
    monkeypatch.setattr(Wire, "is_local", False)
    async with Script([with_length(b"one")]).running() as (connection, url):
        assert await asked(connection, url) == b"one"


@pytest.mark.shows("N24")
async def test_what_nobody_asks_for_ends_the_socket() -> None:
    """The server need not send it, and the next request uses another socket."""
    script = Script([with_length(b"one")], [with_length(b"two")], [with_length(b"two")])
    async with script.running() as (connection, url):
        await body_of(await ahead(connection, url, url))
        connection.drop_ahead()
        assert (connection.host, connection.ahead) == ("", 0)
        assert await asked(connection, url) == b"two"
        assert not connection.is_ahead
        assert not connection.lost_ahead()


async def test_a_token_for_this_machine_is_not_sent_ahead_to_another() -> None:
    """What `get` would refuse is not sent ahead either."""
    script = Script([with_length(b"one")], [with_length(b"two")])
    async with script.running() as (connection, url):
        await asked(connection, url)
        assert not connection.ask_ahead(url.replace("127.0.0.1", "other.localhost"), {"Authorization": "x"})
        assert not connection.ask_ahead(url.replace("http", "https"), {})
        assert len(script.requests) == 1


async def test_a_token_for_this_machine_is_sent_to_it() -> None:
    """Over plain http to loopback, in turn and ahead; and the answers that are to come are counted."""
    script = Script(*([with_length(body)] for body in (b"one", b"two")))
    token = {"Authorization": "Bearer token"}
    async with script.running() as (connection, url):
        response = await connection.get(url, token)
        assert connection.ask_ahead(url, token)
        assert connection.ahead == 1
        assert await body_of(response) == b"one"
        response.close()
        assert await body_of(await connection.get(url, token)) == b"two"
        assert connection.ahead == 0
    assert all(b"Authorization: Bearer token" in request for request in script.requests)


@pytest.mark.parametrize("status", [401, 407])
async def test_without_a_proxy_a_server_asks_for_credentials_itself(status: int) -> None:
    """What a proxy would say is a server's own answer where there is none."""
    answer = b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % status
    async with Script([answer], [answer]).running() as (connection, url):
        response = await connection.get(url, {})
        assert response.head.status == status


async def test_a_socket_is_opened_before_it_is_needed() -> None:
    """Once, and without a byte sent; the first request goes over it."""
    script = Script([with_length(b"one")])
    async with script.running() as (connection, url):
        await connection.open(url)
        await connection.open(url)
        assert (connection.host, script.requests) == (url.split("/")[2], [])
        assert await asked(connection, url) == b"one"
        assert script.sockets == 1


async def test_one_that_the_server_has_closed_meanwhile_is_no_failure() -> None:
    """The request goes over another one, as for any idle socket (RFC 9112 section 9.3.1)."""
    script = Script([None], [with_length(b"one")])
    async with script.running() as (connection, url):
        await connection.open(url)
        assert await asked(connection, url) == b"one"
        assert script.sockets == 2


async def test_a_post_is_one_request_with_its_length() -> None:
    """The body follows the head; the socket is used again, and a question that nobody answered is repeated."""
    bodies: list[tuple[bytes, bytes]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0] or b"0")
                bodies.append((head, await reader.readexactly(length)))
                if len(bodies) == 2:
                    break
                writer.write(with_length(b"yes"))
        writer.close()

    async with listening(serve) as (connection, url):
        for body in (b"\0first\r\n", b"second"):
            response = await connection.post(url, {"Content-Type": "text/x", "Accept": "text/y"}, body)
            assert await body_of(response) == b"yes"
    assert [body for _, body in bodies] == [b"\0first\r\n", b"second", b"second"]
    head = bodies[0][0]
    assert head.startswith(b"POST /a HTTP/1.1\r\n")
    assert b"Content-Type: text/x\r\n" in head
    assert head.count(b"Accept: ") == 1


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://host.example:80/a", "host.example"),
        ("https://host.example:443/a", "host.example"),
        ("http://host.example:443/a", "host.example:443"),
        ("http://[::1]:80/a", "[::1]"),
        ("http://[::1]:81/a", "[::1]:81"),
        ("http://host.example./a", "host.example"),
        ("http://host.example.:81/a", "host.example:81"),
    ],
)
def test_which_host_is_named(url: str, host: str) -> None:
    """Without the usual port, and without the dot at the end, which many servers do not know as their own."""
    request = PlainConnection(HttpSettings())._request(url, {})
    assert f"\r\nHost: {host}\r\n".encode() in request.data

"""HTTP: what goes out, which error comes back, and how many sockets there are, directly and through a proxy."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

import pytest
import trustme
from yarl import URL

from grym_fetch.core.addresses import follow_redirect
from grym_fetch.core.errors import (
    BadResponse,
    CertificateRejected,
    ConnectFailed,
    ConnectionLost,
    GrymFetchError,
    PolicyRefused,
    ProxyRefused,
    Stalled,
    TransferError,
)
from grym_fetch.core.policy import is_permanent
from grym_fetch.core.world import Connection, Response
from grym_fetch.net.client import HttpTransport
from grym_fetch.net.proxies import read_proxy
from grym_fetch.net.settings import proxy_credentials
from grym_fetch.net.wire import Wire
from grym_fetch.testing import (
    AssetServer,
    BigHeaders,
    Chunked,
    ChunkedCut,
    CloseDelimited,
    ContentLength,
    Fault,
    Gzip,
    HangBeforeBody,
    HangBeforeHeaders,
    RawAnswer,
    Redirect,
    Reset,
    ServerGone,
    Stall,
    Status,
    Truncate,
    seeded_bytes,
)
from tests.support.fakes import read_some
from tests.support.transports import WAYS, TinyProxy, Way, direct

CONTENT = seeded_bytes(200_003, seed=61)
SECRET = "hush-hush"
END = b"\r\nContent-Length: 0\r\n\r\n"
NOTHING = b"HTTP/1.1 200 OK" + END


Connect = Callable[..., AbstractAsyncContextManager[Connection]]


def _connect_by(way: Way) -> Connect:
    @asynccontextmanager
    async def connect(**settings: Any) -> AsyncIterator[Connection]:
        connection = way(**settings).connection()
        try:
            yield connection
        finally:
            await connection.aclose()

    return connect


@pytest.fixture(params=WAYS)
def connected(request: pytest.FixtureRequest) -> Connect:
    """Opens a connection and closes it at the end. Its tests hold for both ways to a server."""
    return _connect_by(request.param)


@pytest.fixture
def directly() -> Connect:
    """The same for one way: for what is not decided behind a proxy, and for tests that name a proxy themselves."""
    return _connect_by(direct)


async def read_all(connection: Connection, url: str, **fields: str) -> bytes:
    """Send a request, and read the body to its end."""
    response = await connection.get(url, fields)
    body = bytearray()
    try:
        while data := await read_some(response):
            body += data
    finally:
        response.close()
    return bytes(body)


async def read_until_it_breaks(response: Response) -> bytes:
    """Read until the connection breaks off, which it must."""
    body = bytearray()
    try:
        while data := await read_some(response):
            body += data
    except ConnectionLost:
        return bytes(body)
    raise AssertionError("the body has an end")


async def failure_of(work: Awaitable[object]) -> GrymFetchError:
    """Return the error raised; whatever it is, it reveals no secret and no library's text."""
    with pytest.raises(GrymFetchError) as caught:
        await work
    error = caught.value
    assert SECRET not in "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None
    return error


# -- what goes out --------------------------------------------------------------------------------------------------


@pytest.mark.shows("A17", "S7")
async def test_what_is_sent(connected: Connect, server: AssetServer) -> None:
    """One GET goes out with our name, asks for unencoded bytes, and carries nothing else."""
    file = server.add("/a.bin", CONTENT)
    async with connected(user_agent="grym-fetch/test") as connection:
        await read_all(connection, file.url, Range="bytes=0-9")
    (request,) = server.stats.requests
    sent = {name.lower(): value for name, value in request.headers.items()}
    assert sent == {
        "host": URL(file.url).authority,
        "user-agent": "grym-fetch/test",
        "accept": "*/*",
        "accept-encoding": "identity",
        "range": "bytes=0-9",
    }


async def test_an_address_goes_out_to_the_letter(connected: Connect, server: AssetServer) -> None:
    """The encoding of an address stays as it is: a signature may cover it."""
    server.add("/a b.bin", CONTENT)
    async with connected() as connection:
        await read_all(connection, server.url("") + "/a%20b.bin?sig=a%2Fb%2B%3D&x=%7E+~")
    assert server.stats.requests[0].query == "sig=a%2Fb%2B%3D&x=%7E+~"


@pytest.mark.parametrize(
    "target", ["/a?", "/?a", "/a%2fb?c=d+e&f=%7E~", "/a/../b//c?", '/"<a>[b]{c}|^`?d="<>', "/%41;b=c?d?e", "/a?&&=%zz"]
)
@pytest.mark.shows("A30")
async def test_the_target_is_the_addresss_own(
    connected: Connect, server: AssetServer, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    """The target is the same to the letter, directly and through a proxy."""
    async with connected() as connection, TinyProxy(NOTHING).running() as far:
        (await connection.get(f"http://127.0.0.1:{far.port}{target}", {})).close()
        assert far.asked == [f"GET {target} HTTP/1.1"]
    async with TinyProxy(NOTHING).running() as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        async with connected() as connection:
            (await connection.get(f"http://files.example{target}", {})).close()
        assert proxy.asked == [f"GET http://files.example{target} HTTP/1.1"]


@pytest.mark.parametrize("path", ["/é".encode(), b"/\xe9?\xff", b"/a?"])
@pytest.mark.shows("A30")
async def test_the_bytes_of_a_location_are_kept(connected: Connect, server: AssetServer, path: bytes) -> None:
    """Bytes beyond ASCII in a redirect's address go out as they came in, both ways."""
    async with connected() as connection, TinyProxy(b"HTTP/1.1 302 Found\r\nLocation: " + path + END).running() as far:
        response = await connection.get(f"http://127.0.0.1:{far.port}/", {})
        response.close()
        target = follow_redirect(URL("https://h.example/"), response.head.get("location") or "")
    assert str(target) == "https://h.example" + quote_from_bytes(path, safe="/?")


@pytest.mark.shows("S7")
async def test_no_cookie_is_sent_back(connected: Connect, server: AssetServer, names: FakeNames) -> None:
    """A cookie set by a server is forgotten."""
    file = server.add("/a.bin", CONTENT, faults=[Status(200, b"x", {"Set-Cookie": "track=1; Path=/"}, times=1)])
    url = file.url.replace("127.0.0.1", "files.example")  # since cookies are not kept for numbers anyway
    async with connected() as connection:
        await read_all(connection, url)
        await read_all(connection, url)
    assert all("Cookie" not in request.headers for request in server.stats.requests)


@pytest.mark.shows("S7")
async def test_no_redirect_is_followed(connected: Connect, server: AssetServer) -> None:
    """A redirect is a response like any other: the caller decides."""
    server.add("/new.bin", CONTENT)
    file = server.add("/old.bin", faults=[Redirect("/new.bin")])
    async with connected() as connection:
        response = await connection.get(file.url, {})
        assert (response.head.status, response.head.get("location")) == (302, "/new.bin")
        response.close()
    assert len(server.stats.requests) == 1


@pytest.mark.shows("R15", "C7", "B3", "S4")
async def test_nothing_is_decoded(connected: Connect, server: AssetServer) -> None:
    """Bytes that a server compressed against our wish come as they are, with the field that says so."""
    file = server.add("/a.bin", CONTENT, faults=[Gzip()])
    async with connected() as connection:
        response = await connection.get(file.url, {})
        assert response.head.get("content-encoding") == "gzip"
        assert (await read_some(response)).startswith(b"\x1f\x8b")
        response.close()


async def test_fields_that_come_twice_are_two(connected: Connect, server: AssetServer) -> None:
    """Names are lower case, and a repeated field has two values."""
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Thing: a\r\nx-thing: b\r\n\r\n"
    file = server.add("/a.bin", faults=[RawAnswer(raw)])
    async with connected() as connection:
        response = await connection.get(file.url, {})
        assert list(response.head.fields["x-thing"]) == ["a", "b"]
        assert response.head.get("x-thing") == "a, b"
        response.close()


# -- sockets --------------------------------------------------------------------------------------------------------


async def test_a_socket_is_kept_for_the_same_host(connected: Connect, server: AssetServer) -> None:
    """Requests to one host use one socket, and the connection says where it leads."""
    file = server.add("/a.bin", CONTENT)
    async with connected() as connection:
        assert connection.host == ""
        for _ in range(3):
            assert await read_all(connection, file.url) == CONTENT
        assert connection.host == URL(file.url).authority
    assert server.stats.connections_opened == 1
    await server.stats.until(lambda stats: stats.connections_open == 0)


async def test_one_socket_across_hosts(connected: Connect, server: AssetServer) -> None:
    """Before another host is asked, the socket to the last one is closed: there is never a second one."""
    async with AssetServer() as second, connected() as connection:
        here, there = server.add("/a.bin", CONTENT), second.add("/a.bin", CONTENT)
        for _ in range(2):
            await read_all(connection, here.url)
            await second.stats.until(lambda stats: stats.connections_open == 0)
            await read_all(connection, there.url)
            await server.stats.until(lambda stats: stats.connections_open == 0)
            assert connection.host == URL(there.url).authority
        assert (server.stats.connections_opened, second.stats.connections_opened) == (2, 2)
        assert (server.stats.most_open_connections, second.stats.most_open_connections) == (1, 1)


async def test_an_unread_body_closes_the_socket(connected: Connect, server: AssetServer) -> None:
    """An unwanted body is not read: its socket is closed."""
    file = server.add("/a.bin", seeded_bytes(8 << 20, seed=62))
    async with connected() as connection:
        (await connection.get(file.url, {})).close()
        await server.stats.until(lambda stats: stats.connections_open == 0)


async def test_an_empty_body_keeps_the_socket(connected: Connect, server: AssetServer) -> None:
    """Without a body there is nothing left to read."""
    file = server.add("/a.bin", b"")
    async with connected() as connection:
        for _ in range(2):
            (await connection.get(file.url, {})).close()
    assert server.stats.connections_opened == 1


async def test_a_socket_that_the_server_closed_is_replaced(connected: Connect, server: AssetServer) -> None:
    """A server that hangs up between two requests costs a new socket, but no error."""
    file = server.add("/a.bin", CONTENT, faults=[Truncate(after=len(CONTENT), times=1)])
    async with connected() as connection:
        assert await read_all(connection, file.url) == CONTENT
        await server.stats.until(lambda stats: stats.connections_open == 0)
        assert await read_all(connection, file.url) == CONTENT
    assert server.stats.connections_opened == 2


async def test_closing_twice_is_closing_once(connected: Connect, server: AssetServer) -> None:
    """A closed connection can be closed again, and used again."""
    file = server.add("/a.bin", CONTENT)
    async with connected() as connection:
        await read_all(connection, file.url)
        await connection.aclose()
        await connection.aclose()
        assert connection.host == ""
        assert await read_all(connection, file.url) == CONTENT


@pytest.mark.shows("S4")
async def test_memory_stays_bounded(connected: Connect, server: AssetServer) -> None:
    """A body that nobody reads stops coming: what the server gets rid of fits into buffers."""
    file = server.add("/a.bin", seeded_bytes(64 << 20, seed=63))
    async with connected() as connection:
        response = await connection.get(file.url, {})
        sent = -1
        while sent != server.stats.body_bytes_sent:
            sent = server.stats.body_bytes_sent
            for _ in range(200):
                await asyncio.sleep(0)
        # The system's own buffers on both sides take most of this.
        assert sent <= 16 << 20
        response.close()


# -- what goes wrong on the wire ------------------------------------------------------------------------------------

QUICK = 0.15
PATIENT = 30.0
"""For what does not stand still: a busy machine may make anything late."""
"""Seconds: a stall timeout that a test can wait for."""


@pytest.mark.parametrize(
    ("fault", "expected", "text"),
    [
        (ServerGone(), ConnectionLost, "without an answer"),
        (ServerGone(reset=True), ConnectionLost, "connection"),
        (HangBeforeHeaders(), Stalled, f"nothing arrived for {QUICK} s"),
        (RawAnswer(b"SSH-2.0-OpenSSH_9.2 hush-hush\r\n\r\n"), BadResponse, "breaks the rules of HTTP"),
        (RawAnswer(b"\x16\x03\x01 hush-hush\r\n\r\n"), BadResponse, "breaks the rules of HTTP"),
        (RawAnswer(b"HTTP/1.1 200 OK\r\nno colon hush-hush\r\n\r\n"), BadResponse, "breaks the rules of HTTP"),
        (RawAnswer(b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n"), BadResponse, "breaks the rules of HTTP"),
        (RawAnswer(b"HTTP/1.1 999999 hush-hush\r\n\r\n"), BadResponse, "breaks the rules of HTTP"),
        (RawAnswer(b"HTTP/1.1 20"), ConnectionLost, "without an answer"),
        (BigHeaders(count=1, size=64_000), BadResponse, "breaks the rules of HTTP"),
        (BigHeaders(count=2000, size=100), BadResponse, "breaks the rules of HTTP"),
        (ContentLength("-5"), BadResponse, "breaks the rules of HTTP: an invalid Content-Length"),
        (ContentLength("5a"), BadResponse, "breaks the rules of HTTP: an invalid Content-Length"),
        (RawAnswer(b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x80"), BadResponse, "speaks HTTP/2"),
        (RawAnswer(b"\x15\x03\x01\0\x02\x02\x46"), BadResponse, "speaks TLS"),
    ],
    ids=lambda value: repr(value)[:60] if isinstance(value, Fault) else "",
)
@pytest.mark.shows("N7", "N10", "N11", "N20", "S4")
async def test_a_bad_head(
    connected: Connect, server: AssetServer, fault: Fault, expected: type[TransferError], text: str
) -> None:
    """Whatever comes instead of a response is one of our errors, according to whose fault it is."""
    file = server.add("/a.bin", CONTENT, faults=[fault])
    async with connected(stall_timeout=QUICK if expected is Stalled else PATIENT) as connection:
        error = await failure_of(read_all(connection, f"{file.url}?sig={SECRET}"))
    assert type(error) is expected
    assert text in str(error)
    assert file.url in str(error)


@pytest.mark.parametrize(
    ("fault", "expected", "text"),
    [
        (Reset(after=50_000), ConnectionLost, "connection"),
        (Truncate(after=50_000), ConnectionLost, "before the end of the content"),
        (Stall(after=50_000), Stalled, f"nothing arrived for {QUICK} s"),
        (HangBeforeBody(), Stalled, f"nothing arrived for {QUICK} s"),
        (ChunkedCut(after=50_000), ConnectionLost, "before the end of the content"),
        (ChunkedCut(), ConnectionLost, "before the end of the content"),
        (
            RawAnswer(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n" + CONTENT[:5] + b"\r\nhush-hush\r\n"
            ),
            BadResponse,
            "breaks the rules of HTTP",
        ),
    ],
    ids=lambda value: repr(value)[:60] if isinstance(value, Fault) else "",
)
@pytest.mark.shows("N1", "N2", "N3")
async def test_a_bad_body(
    connected: Connect, server: AssetServer, fault: Fault, expected: type[TransferError], text: str
) -> None:
    """A body that ends badly gives what has arrived, and then one of our errors."""
    file = server.add("/a.bin", CONTENT, faults=[fault])
    body = bytearray()

    async def read(connection: Connection) -> None:
        response = await connection.get(f"{file.url}?sig={SECRET}", {})
        try:
            while data := await read_some(response):
                body.extend(data)
        finally:
            response.close()

    async with connected(stall_timeout=QUICK if expected is Stalled else PATIENT) as connection:
        error = await failure_of(read(connection))
    assert type(error) is expected
    assert text in str(error)
    assert CONTENT.startswith(bytes(body))


@pytest.mark.parametrize("fault", [Chunked(), CloseDelimited(), CloseDelimited(http10=True)], ids=repr)
@pytest.mark.shows("N4", "N8")
async def test_framings_that_are_legal(connected: Connect, server: AssetServer, fault: Fault) -> None:
    """However a body is framed, it is the same body."""
    file = server.add("/a.bin", CONTENT, faults=[fault])
    async with connected() as connection:
        assert await read_all(connection, file.url) == CONTENT
        assert await read_all(connection, file.url) == CONTENT


@pytest.mark.shows("N5", "S4")
async def test_bytes_after_the_length_are_no_part_of_the_body(connected: Connect, server: AssetServer) -> None:
    """A body never goes beyond its length, and what follows does not spoil another response."""
    file = server.add("/a.bin", CONTENT, faults=[ContentLength("1000", times=1)])
    async with connected() as connection:
        assert await read_all(connection, file.url) == CONTENT[:1000]
        assert await read_all(connection, file.url) == CONTENT


async def test_what_has_arrived_before_the_break_is_given(connected: Connect, server: AssetServer) -> None:
    """Bytes that arrived before the connection broke off come first, however late they are read."""
    file = server.add("/a.bin", CONTENT, faults=[Truncate(after=100_000)])
    async with connected() as connection:
        response = await connection.get(file.url, {})
        await server.stats.until(lambda stats: stats.connections_open == 0)
        for _ in range(100):  # turns of the loop: the client notices it after the server
            await asyncio.sleep(0)
        body = await read_until_it_breaks(response)
        response.close()
    assert body == CONTENT[:100_000]


async def test_a_failed_connection_can_be_used_again(connected: Connect, server: AssetServer) -> None:
    """After any failure the same place takes the next request."""
    faults: list[Fault] = [Reset(after=10, times=1), RawAnswer(b"rubbish\r\n\r\n", times=1)]
    file = server.add("/a.bin", CONTENT, faults=faults)
    async with connected() as connection:
        for _ in range(2):
            await failure_of(read_all(connection, file.url))
        assert await read_all(connection, file.url) == CONTENT


async def test_a_cancelled_request_leaves_no_socket(connected: Connect, server: AssetServer) -> None:
    """A request cancelled while it waits for the answer closes its socket."""
    file = server.add("/a.bin", CONTENT, faults=[HangBeforeHeaders()])
    async with connected() as connection:
        asking = asyncio.ensure_future(connection.get(file.url, {}))
        await server.stats.until(lambda stats: len(stats.requests) == 1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await server.stats.until(lambda stats: stats.connections_open == 0)


# -- connecting -----------------------------------------------------------------------------------------------------


async def test_a_refused_connection(directly: Connect, server: AssetServer) -> None:
    """A server that does not listen is reported as one that cannot be reached."""
    file = server.add("/a.bin", CONTENT)
    await server.refuse_connections()
    async with directly() as connection:
        error = await failure_of(read_all(connection, f"{file.url}?sig={SECRET}"))
    assert type(error) is ConnectFailed
    assert "connection refused" in str(error)


class FakeNames:
    """Gives one answer for every name, or several."""

    answer: str | tuple[str, ...] | OSError = "127.0.0.1"

    async def getaddrinfo(self, host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        """Answer like the event loop's method."""
        if isinstance(self.answer, OSError):
            raise self.answer
        answers = (self.answer,) if isinstance(self.answer, str) else self.answer
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (each, port)) for each in answers]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> FakeNames:
    names = FakeNames()

    async def getaddrinfo(_: object, host: str, port: int, **more: object) -> list[tuple[object, ...]]:
        return await names.getaddrinfo(host, port, **more)

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    return names


@pytest.mark.shows("N14")
async def test_an_address_that_refuses_does_not_better_an_answer(
    directly: Connect, names: FakeNames, server: AssetServer
) -> None:
    """A file that is not there, on a host whose other address nobody listens at, is asked for twice, not for ever."""
    names.answer = ("127.0.0.1", "127.0.0.9")
    async with directly() as connection, asyncio.timeout(60):
        assert (await connection.get(f"http://files.example:{server.port}/nothing", {})).head.status == 404
    assert len(server.stats.requests) == 2


@pytest.mark.shows("S9")
async def test_each_address_of_a_name_is_judged(directly: Connect, names: FakeNames, server: AssetServer) -> None:
    """A good address in front does not hide a forbidden one: nothing is connected to."""
    names.answer = ("127.0.0.1", "169.254.169.254")
    async with directly() as connection:
        error = await failure_of(connection.get(f"http://files.example:{server.port}/a", {}))
    assert type(error) is PolicyRefused
    assert server.stats.requests == ()


@pytest.mark.shows("N14")
async def test_a_name_that_nobody_knows(directly: Connect, names: FakeNames) -> None:
    """The error says that the host name has no address."""
    names.answer = socket.gaierror(socket.EAI_NONAME, f"no such name {SECRET}")
    async with directly() as connection:
        error = await failure_of(connection.get(f"http://nowhere.example/a?sig={SECRET}", {}))
    assert type(error) is ConnectFailed
    assert "cannot be resolved" in str(error)


async def test_a_name_is_resolved_and_asked_by_name(connected: Connect, names: FakeNames, server: AssetServer) -> None:
    """The resolved address is connected to, but the request names the host."""
    server.add("/a.bin", CONTENT)
    async with connected() as connection:
        assert await read_all(connection, f"http://files.example:{server.port}/a.bin") == CONTENT
    assert server.stats.requests[0].headers["Host"] == f"files.example:{server.port}"


@pytest.mark.parametrize(
    "host",
    ["169.254.169.254", "[fe80::1]", "[::ffff:169.254.169.254]", "100.100.100.200", "[fd00:ec2::254]",
     "0xa9fea9fe", "2852039166", "0251.0376.0251.0376", "169.254.43518", "169.254.169.254.", "168.63.129.16",
     "[fd00:ec2::23]", "169.254.170.2", "[2001:db8:122:344:a9:fea9:fe00:0]"],
)  # fmt: skip
@pytest.mark.shows("M12", "S9")
async def test_link_local_and_metadata_addresses_are_refused(connected: Connect, host: str) -> None:
    """Nothing is ever requested where clouds hand out credentials."""
    async with connected() as connection:
        error = await failure_of(connection.get(f"http://{host}/latest/meta-data?x={SECRET}", {}))
    assert type(error) is PolicyRefused
    assert "link-local or cloud metadata" in str(error)


@pytest.mark.shows("M12", "S9")
async def test_a_name_that_leads_to_a_forbidden_address_is_refused(directly: Connect, names: FakeNames) -> None:
    """The address is checked after resolution: neither a name nor an odd spelling of a number hides it."""
    names.answer = "169.254.169.254"
    async with directly() as connection:
        for host in ("innocent.example", "2852039166", "0xa9fea9fe"):
            error = await failure_of(connection.get(f"http://{host}/?x={SECRET}", {}))
            assert type(error) is PolicyRefused


@pytest.mark.shows("M12", "S9")
async def test_private_addresses_can_be_forbidden(directly: Connect, server: AssetServer, names: FakeNames) -> None:
    """Where private addresses are not allowed, neither the address nor a name for it is requested."""
    file = server.add("/a.bin", CONTENT)
    async with directly(allow_private=False) as connection:
        for url in (file.url, f"http://files.example:{server.port}/a.bin"):
            error = await failure_of(connection.get(url, {}))
            assert "a private address" in str(error)
    assert server.stats.connections_opened == 0


async def test_who_answered_is_known(names: FakeNames, server: AssetServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A response says whether it came straight from this machine: not through a proxy, whatever the name."""
    server.add("/a.bin", CONTENT)
    url = f"http://a.localhost:{server.port}/a.bin"
    for proxied in (False, True):
        async with TinyProxy().running() as proxy:
            if proxied:
                monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
            connection = HttpTransport().connection()
            response = await connection.get(url, {})
            assert response.head.is_local is not proxied
            response.close()
            await connection.aclose()


@pytest.mark.shows("S7")
async def test_a_name_of_this_machine_that_leads_elsewhere_gets_no_token(
    names: FakeNames, server: AssetServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever resolves `a.localhost` decides where it leads: a token over plain http needs a socket to this machine."""
    file = server.add("/a.bin", CONTENT)
    connection = HttpTransport().connection()
    url = file.url.replace("127.0.0.1", "a.localhost")
    try:
        assert await read_all(connection, url) == CONTENT
        monkeypatch.setattr(Wire, "is_local", False)
        with pytest.raises(PolicyRefused, match="not this machine"):
            await connection.get(url, {"Authorization": f"Bearer {SECRET}"})
        with pytest.raises(PolicyRefused, match="not this machine"):
            await connection.get(url, {"Authorization": f"Bearer {SECRET}"})
    finally:
        await connection.aclose()
    assert [request.headers.get("Authorization") for request in server.stats.requests] == [None]


# -- TLS ------------------------------------------------------------------------------------------------------------


@dataclass
class Authority:
    """A certificate authority, and whether this machine trusts it."""

    ca: trustme.CA
    bundle: Path

    def context_for(self, *names: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert(*names).configure_cert(context)
        return context


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    ca = trustme.CA()
    bundle = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(str(bundle))
    return Authority(ca, bundle)


@pytest.mark.shows("S6")
async def test_a_trusted_certificate(connected: Connect, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate trusted by this machine, for the requested host, is all that is needed."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.bundle))
    async with AssetServer(ssl_context=authority.context_for("127.0.0.1")) as server, connected() as connection:
        file = server.add("/a.bin", CONTENT)
        assert await read_all(connection, file.url) == CONTENT


@pytest.mark.parametrize(
    ("trusted", "name", "reason"),
    [(False, "127.0.0.1", "self-signed|local issuer"), (True, "other.example", "IP address mismatch")],
    ids=["unknown authority", "another host"],
)
@pytest.mark.shows("N15", "S6")
async def test_a_rejected_certificate(
    connected: Connect, authority: Authority, monkeypatch: pytest.MonkeyPatch, trusted: bool, name: str, reason: str
) -> None:
    """A certificate that proves nothing is rejected, with the reason, and no request goes out."""
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.bundle))
    async with AssetServer(ssl_context=authority.context_for(name)) as server, connected() as connection:
        file = server.add("/a.bin", CONTENT)
        with pytest.raises(CertificateRejected, match=reason):
            await connection.get(file.url, {})
        error = await failure_of(connection.get(f"{file.url}?sig={SECRET}", {}))
        assert type(error) is CertificateRejected
        assert server.stats.requests == ()


@pytest.mark.parametrize(("names_it", "is_good"), [(True, True), (False, False)], ids=["subjectAltName", "CN only"])
@pytest.mark.shows("N15", "S6")
async def test_a_name_is_in_subject_alt_name_or_nowhere(
    connected: Connect, authority: Authority, monkeypatch: pytest.MonkeyPatch, names_it: bool, is_good: bool
) -> None:
    """RFC 9110 section 4.3.4: the common name of a certificate does not say whose it is."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.bundle))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    names = ["localhost"] if names_it else []
    authority.ca.issue_cert(*names, common_name="localhost").configure_cert(context)
    async with AssetServer(ssl_context=context) as server, connected() as connection:
        url = server.add("/a.bin", CONTENT).url.replace("127.0.0.1", "localhost")
        if is_good:
            assert await read_all(connection, url) == CONTENT
        else:
            with pytest.raises(CertificateRejected):
                await connection.get(url, {})


async def test_plain_http_behind_https(connected: Connect, server: AssetServer) -> None:
    """A server that does not speak TLS is a failed handshake, not a bad certificate and not an insecure success."""
    server.add("/a.bin", CONTENT)
    async with connected() as connection:
        error = await failure_of(connection.get(f"https://127.0.0.1:{server.port}/a.bin?sig={SECRET}", {}))
    assert isinstance(error, ConnectFailed)
    assert not isinstance(error, CertificateRejected)
    assert "speaks no TLS" in str(error)


@pytest.mark.shows("N15")
async def test_certificates_that_are_not_there_are_named(
    connected: Connect, authority: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """If nothing is trusted because SSL_CERT_FILE names a missing file, the rejection says so."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "gone.pem"))
    async with AssetServer(ssl_context=authority.context_for("127.0.0.1")) as server, connected() as connection:
        error = await failure_of(connection.get(server.url("/a.bin"), {}))
    assert type(error) is CertificateRejected
    assert f"SSL_CERT_FILE names {tmp_path / 'gone.pem'}, which cannot be read" in str(error)


@pytest.mark.posix
def test_keys_are_logged_where_python_would(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """SSLKEYLOGFILE is left to Python."""
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    assert HttpTransport().settings.tls_for("https://h.example/").keylog_filename == str(tmp_path / "keys")


def _refuse_handshakes(listening: socket.socket, context: ssl.SSLContext) -> None:
    while True:
        try:
            accepted, _ = listening.accept()
        except OSError:
            return
        with context.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False) as wrapped:
            with suppress(ssl.SSLError):
                wrapped.do_handshake()
            # The alert is sent. Data that the client has already sent must not turn the end into a reset.
            with suppress(OSError):
                wrapped.shutdown(socket.SHUT_WR)
                while wrapped.recv(65_536):
                    pass


@dataclass
class Demanding:
    """A server's side of TLS that requires a certificate of ``own``, which has issued one to us."""

    context: ssl.SSLContext
    own: trustme.CA
    certificate: Path
    key: Path


@pytest.fixture
def demanding(authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Demanding:
    own = trustme.CA()
    issued = own.issue_cert("me@example.org")
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "me.pem"))
    issued.private_key_pem.write_to_path(str(tmp_path / "me.key"))
    context = authority.context_for("127.0.0.1")
    own.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.bundle))
    return Demanding(context, own, tmp_path / "me.pem", tmp_path / "me.key")


@asynccontextmanager
async def refusing_handshakes(context: ssl.SSLContext) -> AsyncIterator[int]:
    """A port whose handshakes fail. Written by hand: asyncio does not send the alert when it closes a connection."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        refusal = asyncio.create_task(asyncio.to_thread(_refuse_handshakes, listening, context))
        try:
            yield listening.getsockname()[1]
        finally:
            with suppress(OSError):  # Windows, where closing it is enough
                listening.shutdown(socket.SHUT_RDWR)
            listening.close()
            await refusal


@pytest.mark.parametrize(
    ("version", "shows_one", "named"),
    [
        (ssl.TLSVersion.TLSv1_3, False, "certificate required; the server wants a client certificate: name one and"),
        (ssl.TLSVersion.TLSv1_3, True, "unknown ca; the server does not accept the client certificate"),
        (ssl.TLSVersion.TLSv1_2, False, "handshake failure; the server may want a client certificate"),
        (ssl.TLSVersion.TLSv1_2, True, "unknown ca; the server does not accept the client certificate"),
    ],
)
@pytest.mark.shows("A31")
async def test_a_client_certificate_that_is_missing(
    connected: Connect,
    demanding: Demanding,
    monkeypatch: pytest.MonkeyPatch,
    version: ssl.TLSVersion,
    shows_one: bool,
    named: str,
) -> None:
    """Without one, or with another authority's, the error has OpenSSL's reason and what to set; it is final.

    With TLS 1.3 the server reports this only after our side of the handshake is over.
    """
    demanding.context.maximum_version = version
    if shows_one:
        other = trustme.CA().issue_cert("me@example.org")
        other.private_key_and_cert_chain_pem.write_to_path(str(demanding.certificate))
        monkeypatch.setenv("GRYM_FETCH_CLIENT_CERT", str(demanding.certificate))
    async with refusing_handshakes(demanding.context) as port, connected() as connection:
        error = await failure_of(connection.get(f"https://127.0.0.1:{port}/a.bin", {}))
    assert named in str(error)
    assert "GRYM_FETCH_CLIENT_CERT and GRYM_FETCH_CLIENT_KEY" in str(error)
    assert "not permitted" not in str(error)
    assert is_permanent(error)


@pytest.mark.shows("A31")
async def test_a_client_certificate(
    connected: Connect, demanding: Demanding, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A server that requires one gets the one named in the environment; an unreadable one is reported by name."""
    monkeypatch.setenv("GRYM_FETCH_CLIENT_CERT", str(demanding.certificate))
    monkeypatch.setenv("GRYM_FETCH_CLIENT_KEY", str(demanding.key))
    async with AssetServer(ssl_context=demanding.context) as server:
        url = server.add("/a.bin", CONTENT).url
        async with connected() as connection:
            assert await read_all(connection, url) == CONTENT
        monkeypatch.setenv("GRYM_FETCH_CLIENT_KEY", str(tmp_path / "gone.key"))
        async with connected() as connection:
            error = await failure_of(connection.get(url, {}))
    assert is_permanent(error)
    assert "GRYM_FETCH_CLIENT_CERT and GRYM_FETCH_CLIENT_KEY name cannot be used: no such file" in str(error)


@pytest.mark.parametrize("is_pem", [True, False], ids=["no key", "no certificate"])
@pytest.mark.shows("A31")
async def test_a_client_certificate_without_its_key(
    connected: Connect, demanding: Demanding, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_pem: bool
) -> None:
    """OpenSSL gives no reason for this; our error says what is missing, and which variable names it."""
    certificate = demanding.certificate
    if not is_pem:
        certificate = tmp_path / "not.pem"
        certificate.write_bytes(CONTENT[:1000])
    monkeypatch.setenv("GRYM_FETCH_CLIENT_CERT", str(certificate))
    async with connected() as connection:
        error = await failure_of(connection.get("https://127.0.0.1:1/a.bin", {}))
    assert is_permanent(error)
    assert "it is not PEM, or the file lacks the key and GRYM_FETCH_CLIENT_KEY names none" in str(error)


@pytest.mark.shows("A31", "S7")
async def test_a_proxy_is_not_shown_the_client_certificate(
    directly: Connect, demanding: Demanding, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The certificate tells servers who we are; a proxy that asks for it does not learn that."""
    monkeypatch.setenv("GRYM_FETCH_CLIENT_CERT", str(demanding.certificate))
    monkeypatch.setenv("GRYM_FETCH_CLIENT_KEY", str(demanding.key))
    async with refusing_handshakes(demanding.context) as port:
        monkeypatch.setenv("https_proxy", f"https://127.0.0.1:{port}")
        async with directly() as connection:
            error = await failure_of(connection.get("https://files.example/a.bin", {}))
    assert "certificate required" in str(error)


# -- proxies --------------------------------------------------------------------------------------------------------


@pytest.mark.shows("S7")
async def test_the_proxy_of_the_environment_is_used(
    directly: Connect, server: AssetServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For http the proxy gets the full address, credentials in its own address go to it, and the bytes come."""
    file = server.add("/a.bin", CONTENT)
    async with TinyProxy().running() as proxy:
        monkeypatch.setenv("http_proxy", f"http://user:pw@127.0.0.1:{proxy.port}")
        async with directly() as connection:
            assert await read_all(connection, file.url, Range="bytes=10-99") == CONTENT[10:100]
    assert proxy.asked == [f"GET {file.url} HTTP/1.1"]
    assert proxy.authorizations == ["Basic dXNlcjpwdw=="]
    assert server.stats.requests[0].range == "bytes=10-99"


async def test_https_goes_through_a_tunnel(
    directly: Connect, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For https the proxy sees only host and port, and the certificate is checked through the tunnel."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.bundle))
    context = authority.context_for("127.0.0.1")
    async with TinyProxy().running() as proxy, AssetServer(ssl_context=context) as server:
        file = server.add("/a.bin", CONTENT)
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
        async with directly() as connection:
            assert await read_all(connection, f"{file.url}?sig={SECRET}") == CONTENT
        assert proxy.asked == [f"CONNECT 127.0.0.1:{server.port} HTTP/1.1"]


@pytest.mark.parametrize("variable", ["all_proxy", "http_proxy"])
@pytest.mark.parametrize("bypass", ["127.0.0.1", "*"])
async def test_a_host_can_be_exempt(
    directly: Connect, server: AssetServer, monkeypatch: pytest.MonkeyPatch, variable: str, bypass: str
) -> None:
    """A host named in ``no_proxy`` is asked directly; otherwise either variable applies."""
    file = server.add("/a.bin", CONTENT)
    async with TinyProxy().running() as proxy:
        monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.port}")
        async with directly() as connection:
            await read_all(connection, file.url)
            assert len(proxy.asked) == 1
        monkeypatch.setenv("no_proxy", bypass)
        async with directly() as connection:
            await read_all(connection, file.url)
            assert len(proxy.asked) == 1


@pytest.mark.shows("A18")
async def test_a_proxy_that_is_down(directly: Connect, server: AssetServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the proxy cannot be reached, the error says that it is the proxy, and reveals no password of it."""
    await server.refuse_connections()
    monkeypatch.setenv("http_proxy", f"http://user:{SECRET}@127.0.0.1:{server.port}")
    async with directly() as connection:
        error = await failure_of(connection.get("http://host.example/a.bin", {}))
    assert type(error) is ConnectFailed
    assert "no connection to the proxy" in str(error)


@pytest.mark.shows("A18")
async def test_a_proxy_that_refuses_the_tunnel(directly: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that requires credentials for a tunnel is the proxy's failure, not the host's."""
    refusal = b"HTTP/1.1 407 hush-hush\r\nContent-Length: 9\r\n\r\nhush-hush"
    async with TinyProxy(refusal).running() as proxy:
        monkeypatch.setenv("https_proxy", f"http://user:{SECRET}@127.0.0.1:{proxy.port}")
        async with directly() as connection:
            error = await failure_of(connection.get("https://host.example/a.bin", {}))
    assert type(error) is ProxyRefused
    assert is_permanent(error)
    assert "the proxy answered 407: the proxy wants another user or password" in str(error)


@pytest.mark.parametrize("status", [401, 407])
async def test_a_proxy_that_refuses_a_request(directly: Connect, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    """Over plain http, too, what the proxy itself refuses is its failure."""
    refusal = f"HTTP/1.1 {status} hush-hush\r\nContent-Length: 9\r\n\r\nhush-hush".encode()
    async with TinyProxy(refusal).running() as proxy:
        monkeypatch.setenv("http_proxy", f"http://user:{SECRET}@127.0.0.1:{proxy.port}")
        async with directly() as connection:
            error = await failure_of(connection.get("http://host.example/a.bin", {}))
            assert connection.host == "", "its page would be read as the next answer"
    assert type(error) is ProxyRefused


@pytest.mark.parametrize("kind", ["socks5", "socks6", "ftp"])
async def test_a_proxy_of_another_kind_is_not_spoken_to(
    directly: Connect, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """HTTP is spoken only to HTTP proxies; the error for another kind says that the proxy cannot be used."""
    monkeypatch.setitem(sys.modules, "python_socks", None)  # as without the extra
    async with TinyProxy(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").running() as proxy:
        monkeypatch.setenv("all_proxy", f"{kind}://user:{SECRET}@127.0.0.1:{proxy.port}")
        async with directly() as connection:
            error = await failure_of(connection.get("http://host.example/a.bin", {}))
    assert "proxy" in str(error)
    assert is_permanent(error)
    assert proxy.asked == []


async def test_a_proxy_without_a_scheme_is_an_http_proxy(
    directly: Connect, server: AssetServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy given only as host and port is an HTTP proxy, as for curl and pip."""
    file = server.add("/a.bin", CONTENT)
    async with TinyProxy().running() as proxy:
        monkeypatch.setenv("http_proxy", f"127.0.0.1:{proxy.port}")
        async with directly() as connection:
            assert await read_all(connection, file.url) == CONTENT
    assert len(proxy.asked) == 1


@pytest.mark.shows("M12", "S9")
@pytest.mark.parametrize("private", [True, False])
@pytest.mark.parametrize(
    "host",
    ["169.254.169.254", "0xa9fea9fe", "2852039166", "0251.0376.0251.0376", "169.254.43518", "[::ffff:169.254.169.254]",
     "[fe80::1]", "100.100.100.200", "169.254.169.254.", "0xa9fea9fe.", "168.63.129.16", "[fd00:ec2::23]"],
)  # fmt: skip
async def test_a_proxy_is_not_asked_for_metadata(
    directly: Connect, monkeypatch: pytest.MonkeyPatch, host: str, private: bool
) -> None:
    """A number, however spelt, needs no resolving: the proxy's machine keeps its credentials, too."""
    async with TinyProxy(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").running() as proxy:
        monkeypatch.setenv("all_proxy", f"http://127.0.0.1:{proxy.port}")
        async with directly(allow_private=private) as connection:
            for scheme in ("http", "https"):
                with pytest.raises(PolicyRefused, match="link-local or cloud metadata"):
                    await connection.get(f"{scheme}://{host}/latest/meta-data", {})
    assert proxy.asked == []


@pytest.mark.shows("M12", "S9")
@pytest.mark.parametrize("host", ["127.0.0.1", "0x7f.1", "10.1.2.3", "[::1]", "[::ffff:10.0.0.1]"])
async def test_a_proxy_is_not_asked_for_private_numbers(
    directly: Connect, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    """Where private numbers are forbidden, they are forbidden through a proxy, too."""
    async with TinyProxy(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").running() as proxy:
        monkeypatch.setenv("all_proxy", f"http://127.0.0.1:{proxy.port}")
        async with directly(allow_private=False) as connection:
            with pytest.raises(PolicyRefused, match="private address"):
                await connection.get(f"http://{host}/x", {})
    assert proxy.asked == []


async def test_a_proxy_may_have_a_private_address(
    directly: Connect, server: AssetServer, names: FakeNames, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where private addresses are forbidden, the proxy named by the user is still used, whatever its name."""
    async with TinyProxy(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").running() as proxy:
        for host in ("127.0.0.1", "proxy.example"):
            monkeypatch.setenv("http_proxy", f"http://{host}:{proxy.port}")
            async with directly(allow_private=False) as connection:
                assert await read_all(connection, "http://host.example/a.bin") == b"ok"


@pytest.mark.parametrize(
    ("environ", "url", "expected"),
    [
        ({}, "http://host.example/", None),
        ({"http_proxy": "http://p:1"}, "http://host.example/", "http://p:1"),
        ({"http_proxy": "http://p:1"}, "https://host.example/", None),
        ({"HTTPS_PROXY": "http://q:2"}, "https://host.example/", "http://q:2"),
        ({"all_proxy": "http://r:3", "http_proxy": "http://p:1"}, "http://host.example/", "http://p:1"),
        ({"all_proxy": "http://r:3", "no_proxy": ".example"}, "https://host.example/", None),
        ({"all_proxy": "http://r:3", "no_proxy": "other"}, "https://host.example/", "http://r:3"),
        ({"all_proxy": "http://r:3", "no_proxy": "host.example:8080"}, "http://host.example:8080/", None),
        ({"all_proxy": "http://r:3", "no_proxy": "host.example:8080"}, "http://host.example/", "http://r:3"),
        ({"all_proxy": "http://r:3", "no_proxy": "::1"}, "http://[::1]:8080/", None),
        ({"all_proxy": "SOCKS5H://r:3"}, "https://host.example/", "socks5h://r:3"),
    ],
)
def test_which_proxy(monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], url: str, expected: str | None) -> None:
    """The proxy for the address's own scheme wins over the general one, and an exempt host has none."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert HttpTransport().settings.proxy_for(URL(url)) == (expected and read_proxy(expected, url))


@pytest.mark.shows("S8")
def test_what_proxies_are_sent_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also to SOCKS proxies, and whatever else the environment names; what cannot be read is said where it is used."""
    for name, proxy in {
        "http_proxy": "me:first@p:1",
        "https_proxy": "http://p:2",
        "all_proxy": "socks5h://me:second@p:3",
        "ftp_proxy": "http://[",
        "no_proxy": "me:third@p",
    }.items():
        monkeypatch.setenv(name, proxy)
    logins = {base64.b64decode(field.removeprefix("Basic ")).decode() for field in proxy_credentials()}
    assert logins == {"me:first", "me:second"}


@pytest.mark.shows("A27")
def test_each_host_has_its_own_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found for one host is not taken for another, though scheme and port are the same."""
    monkeypatch.setenv("all_proxy", "http://r:3")
    monkeypatch.setenv("no_proxy", "inside.example")
    settings = HttpTransport().settings
    hosts = ["inside.example", "outside.example"] * 2
    found = [settings.proxy_for(URL(f"https://{host}/")) for host in hosts]
    assert [proxy and proxy.host for proxy in found] == [None, "r"] * 2


@pytest.mark.parametrize("others", [("93.184.216.34", "169.254.169.254"), ("93.184.216.34", "8.8.8.8", "10.0.0.1")])
@pytest.mark.shows("M12", "S9")
async def test_every_address_of_a_name_is_judged(
    directly: Connect, monkeypatch: pytest.MonkeyPatch, others: tuple[str, ...]
) -> None:
    """A name whose first address is good and whose second is forbidden is not asked at all."""

    async def getaddrinfo(_: object, host: str, port: int, **more: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (place, port)) for place in others]

    async def connect(*_: object, **__: object) -> None:
        raise AssertionError("nothing may be connected to")

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr("grym_fetch.net.plain.start_connection", connect)
    monkeypatch.setattr("aiohappyeyeballs.start_connection", connect)
    async with directly(allow_private=False) as connection:
        with pytest.raises(PolicyRefused):
            await connection.get("http://host.example/x", {})

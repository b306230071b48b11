"""A name with several addresses: after a failure, the next try begins with another address."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest
from aiohappyeyeballs import AddrInfoType

from grym_fetch.core.errors import ConnectionLost, GrymFetchError, Stalled
from grym_fetch.net.places import PENALTY_S, Places, address_of
from grym_fetch.net.plain import MAX_PLACES, PlainConnection
from grym_fetch.net.settings import HttpSettings
from tests.support.fakes import read_some

NAME = ("two.example", 80)
OTHER = ("three.example", 80)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood"
WRONG = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
SHORT = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ngood"
BAD, GOOD = "127.0.0.2", "127.0.0.1"


def refusal(status: int) -> bytes:
    """An answer with this status and no body."""
    return f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode()


def place(address: str, port: int = 80) -> AddrInfoType:
    """An address as the resolver gives it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port)


FOUND = [place("::1"), place("127.0.0.1"), place("127.0.0.2")]


def order(places: Places, now: float) -> list[list[str]]:
    """The addresses to try first, and those to try afterwards."""
    return [[address_of(one) for one in some] for some in places.ranked(NAME, FOUND, now)]


def test_what_failed_comes_last_for_a_while() -> None:
    """A failed address comes only after the other addresses of the same name."""
    places = Places()
    assert order(places, 0.0) == [["::1", "127.0.0.1", "127.0.0.2"], []]
    places.failed(NAME, "::1", 10.0)
    places.failed(OTHER, "127.0.0.1", 10.0)
    assert order(places, 10.0) == [["127.0.0.1", "127.0.0.2"], ["::1"]]
    assert places.is_worse(NAME, "::1", 10.0)
    assert not places.is_worse(NAME, "127.0.0.1", 10.0)
    assert order(places, 10.0 + PENALTY_S) == [["::1", "127.0.0.1", "127.0.0.2"], []]


def test_where_all_have_failed_the_oldest_failure_comes_first() -> None:
    """None is given up, and none is worse than the others."""
    places = Places()
    for now, address in enumerate(["127.0.0.1", "127.0.0.2", "::1"]):
        places.failed(NAME, address, float(now))
    assert order(places, 3.0) == [["127.0.0.1", "127.0.0.2", "::1"], []]


def test_one_address_alone_is_never_worse() -> None:
    """There is no other address to prefer."""
    places = Places()
    places.ranked(NAME, FOUND[:1], 0.0)
    places.failed(NAME, "::1", 0.0)
    assert not places.is_worse(NAME, "::1", 0.0)


def test_wrong_content_is_a_failure_of_what_was_used_once() -> None:
    """A new try, past all caches, begins with another address; from then on the bad one is left alone."""
    places = Places()
    places.ranked(NAME, FOUND, 0.0)
    places.used(NAME, "::1")
    places.used(OTHER, "127.0.0.1")
    places.doubt(NAME, 1.0)
    places.used(NAME, "127.0.0.1")
    places.doubt(NAME, 2.0)
    assert order(places, 2.0) == [["127.0.0.1", "127.0.0.2"], ["::1"]]


class TwoServers:
    """Behind one name: a bad server, which is resolved first, and a good one. ``asked``: which were asked, in order."""

    def __init__(self, answer: bytes | None) -> None:
        self.asked: list[str] = []
        self.url = ""
        self._answer = answer

    async def good(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer each request."""
        await self._serve(reader, writer, GOOD, OK)

    async def bad(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer each request wrongly, or never."""
        await self._serve(reader, writer, BAD, self._answer)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, who: str, answer: bytes | None
    ) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\n"):
                self.asked.append(who)
                if answer is None:
                    await reader.read()
                    break
                writer.write(answer)
                if answer in (b"", SHORT):
                    break
        writer.close()


@asynccontextmanager
async def two_servers(monkeypatch: pytest.MonkeyPatch, answer: bytes | None) -> AsyncIterator[TwoServers]:
    """Both of them, on one port."""
    servers = TwoServers(answer)

    async def getaddrinfo(*_: object, **__: object) -> list[AddrInfoType]:
        return [place(BAD, port), place(GOOD, port)]

    async with AsyncExitStack() as stack:
        good = await stack.enter_async_context(await asyncio.start_server(servers.good, GOOD, 0))
        port = good.sockets[0].getsockname()[1]
        await stack.enter_async_context(await asyncio.start_server(servers.bad, BAD, port))
        monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
        servers.url = f"http://two.example:{port}/a"
        yield servers


async def fetched(connection: PlainConnection, url: str, **fields: str) -> bytes | GrymFetchError:
    """The body, empty for an error status, or how the request failed."""
    try:
        response = await connection.get(url, fields)
        try:
            body = await read_some(response)
            while more := await read_some(response):
                body += more
            return body
        finally:
            response.close()
    except GrymFetchError as error:
        return error


@pytest.mark.parametrize(
    ("answer", "first"),
    [
        (b"", ConnectionLost),
        (None, Stalled),
        (SHORT, ConnectionLost),
        *((refusal(status), bytes) for status in (408, 416, 420, 425, 429, 430, 500, 503)),
    ],
    ids=lambda value: value[9:12].decode() if isinstance(value, bytes) else None,
)
@pytest.mark.shows("N23")
async def test_the_next_try_begins_at_another_address(
    monkeypatch: pytest.MonkeyPatch, answer: bytes | None, first: type
) -> None:
    """This holds for any connection of the run, even where the socket to the bad one is still open."""
    async with two_servers(monkeypatch, answer) as servers:
        settings = HttpSettings(stall_timeout=0.05 if answer is None else 60.0)
        one, two = PlainConnection(settings), PlainConnection(settings)
        try:
            assert isinstance(await fetched(one, servers.url), first)
            settings.stall_timeout = 60.0
            assert await fetched(one, servers.url) == b"good"
            assert await fetched(two, servers.url) == b"good"
            assert servers.asked == [BAD, GOOD, GOOD]
        finally:
            await one.aclose()
            await two.aclose()


@pytest.mark.shows("N23", "R32")
async def test_past_all_caches_leads_to_another_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bad server answers well but with wrong bytes: a retry that doubts them gets the good one's, over the same
    connection.
    """
    async with two_servers(monkeypatch, WRONG) as servers:
        connection = PlainConnection(HttpSettings())
        try:
            assert await fetched(connection, servers.url) == b"evil"
            for _ in range(2):
                assert await fetched(connection, servers.url, **{"Cache-Control": "no-cache"}) == b"good"
            assert servers.asked == [BAD, GOOD, GOOD]
        finally:
            await connection.aclose()


@pytest.mark.parametrize("status", [204, 400, 401, 403, 404, 410, 421, 451])
@pytest.mark.shows("N23")
async def test_where_one_address_refuses_the_others_are_asked_at_once(
    monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """One of several servers is old, empty or shut off; it is not asked again for a while."""
    async with two_servers(monkeypatch, refusal(status)) as servers:
        connection = PlainConnection(HttpSettings())
        try:
            assert await fetched(connection, servers.url) == b"good"
            assert await fetched(connection, servers.url) == b"good"
            assert servers.asked == [BAD, GOOD, GOOD]
        finally:
            await connection.aclose()


async def test_where_all_addresses_refuse_each_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last one's answer counts then; a server that asks to wait, or judges a range, is not passed over."""
    monkeypatch.setattr(TwoServers, "good", TwoServers.bad)
    for status, asked in [(404, 2), (429, 1), (416, 1)]:
        async with two_servers(monkeypatch, refusal(status)) as servers:
            connection = PlainConnection(HttpSettings())
            try:
                assert await fetched(connection, servers.url) == b""
                assert len(servers.asked) == asked
            finally:
                await connection.aclose()


@asynccontextmanager
async def many_servers(monkeypatch: pytest.MonkeyPatch, count: int) -> AsyncIterator[tuple[str, list[str]]]:
    """Behind a name that leads to another address each time; none has the file. Yields its URL, and who was asked."""
    addresses, asked = [f"127.0.1.{number}" for number in range(1, count + 1)], list[str]()
    later = iter(addresses)

    async def getaddrinfo(_: object, host: str, port: int, **more: object) -> list[AddrInfoType]:
        return [place(next(later), port), place("127.0.1.250", port)]

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            asked.append(writer.get_extra_info("sockname")[0])
            writer.write(refusal(404))
            await reader.read()
        writer.close()

    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(await asyncio.start_server(refuse, addresses[0], 0))
        port = first.sockets[0].getsockname()[1]
        await stack.enter_async_context(await asyncio.start_server(refuse, addresses[1:], port))
        monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
        yield f"http://many.example:{port}/a", asked


@pytest.mark.shows("N23")
async def test_a_name_that_leads_elsewhere_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few addresses are asked for a file that is not there, and not each of a whole network."""
    async with many_servers(monkeypatch, MAX_PLACES + 3) as (url, asked):
        connection = PlainConnection(HttpSettings())
        try:
            assert await fetched(connection, url) == b""
            assert len(asked) == len(set(asked)) == MAX_PLACES
        finally:
            await connection.aclose()


@pytest.mark.shows("N23")
async def test_servers_that_are_slow_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    """When one has answered, the failure of those before is forgotten: they are not asked again and again."""

    def forgetful(places: Places, name: tuple[str, int], address: str, now: float) -> None:
        places._failed_at = {(name, address): now}

    monkeypatch.setattr(TwoServers, "good", TwoServers.bad)
    monkeypatch.setattr(Places, "failed", forgetful)
    async with two_servers(monkeypatch, refusal(404)) as servers, asyncio.timeout(60):
        connection = PlainConnection(HttpSettings())
        try:
            assert await fetched(connection, servers.url) == b""
            assert len(servers.asked) <= 3
        finally:
            await connection.aclose()

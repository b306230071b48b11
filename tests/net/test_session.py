"""HTTP over an application's own aiohttp session; errors that only that library can raise come from aioresponses."""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from unittest.mock import Mock

import aiohttp
import pytest
from aiohttp import web
from aiohttp.client_reqrep import ConnectionKey
from aioresponses import aioresponses
from yarl import URL

from grym_fetch import AssetManager, Settings, SyncFailed
from grym_fetch.core.errors import (
    BadResponse,
    CertificateRejected,
    ConnectFailed,
    ConnectionLost,
    PolicyRefused,
    ProxyRefused,
    Stalled,
    TransferError,
)
from grym_fetch.core.world import Response
from grym_fetch.net.session import SessionConnection, SessionResponse
from grym_fetch.testing import AssetServer, Truncate, seeded_bytes
from grym_fetch.transport import AiohttpTransport
from tests.net.test_client import SECRET, failure_of
from tests.support.fakes import read_some
from tests.support.project import KIB, SMALL, Project

CONTENT = seeded_bytes(300 * KIB, seed=7)
KEY = ConnectionKey("host.example", 443, True, True, None, None, None)
INFO = aiohttp.RequestInfo(URL(f"https://host.example/?s={SECRET}"), "GET", Mock(), URL("https://host.example"))


@asynccontextmanager
async def transport() -> AsyncIterator[AiohttpTransport]:
    """A transport over a session that the test owns."""
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        yield AiohttpTransport(session)


def _os_error(number: int) -> OSError:
    return OSError(number, f"text of the system {SECRET}")


def _verification(why: str) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, SECRET)
    error.verify_message = why
    return error


RAISED: list[tuple[BaseException, type[TransferError], str]] = [
    (aiohttp.ConnectionTimeoutError(SECRET), ConnectFailed, "no connection within 10 s"),
    (aiohttp.SocketTimeoutError(SECRET), Stalled, "nothing arrived for 30 s"),
    (TimeoutError(SECRET), Stalled, "nothing arrived for 30 s"),
    (aiohttp.ClientConnectorError(KEY, _os_error(errno.ENETUNREACH)), ConnectFailed, "network is unreachable"),
    (aiohttp.ClientConnectorDNSError(KEY, _os_error(-2)), ConnectFailed, "cannot be resolved"),
    (
        aiohttp.ClientProxyConnectionError(KEY, _os_error(errno.ECONNREFUSED)),
        ConnectFailed,
        "no connection to the proxy",
    ),
    (aiohttp.ClientHttpProxyError(INFO, (), status=502, message=SECRET), ConnectFailed, "the proxy answered 502"),
    (aiohttp.ClientHttpProxyError(INFO, (), status=407, message=SECRET), ProxyRefused, "the proxy answered 407"),
    (aiohttp.ClientConnectorSSLError(KEY, _os_error(1)), ConnectFailed, "TLS handshake failed"),
    (
        aiohttp.ClientConnectorCertificateError(KEY, ssl.SSLCertVerificationError(1, SECRET)),
        CertificateRejected,
        "certificate was rejected: verification failed",
    ),
    (
        aiohttp.ClientConnectorCertificateError(KEY, _verification("certificate has expired")),
        CertificateRejected,
        "certificate was rejected: certificate has expired",
    ),
    (aiohttp.ServerDisconnectedError(SECRET), ConnectionLost, "without an answer"),
    (aiohttp.ClientOSError(errno.ECONNRESET, SECRET), ConnectionLost, "connection reset by peer"),
    (aiohttp.ClientConnectionError(SECRET), ConnectionLost, "broke off"),
    (aiohttp.ClientPayloadError(SECRET), ConnectionLost, "before the end of the content"),
    (aiohttp.ClientResponseError(INFO, (), status=400, message=SECRET), BadResponse, "breaks the rules"),
    (aiohttp.InvalidURL(f"http://{SECRET}"), PolicyRefused, "not a usable address"),
    (ssl.SSLError(1, SECRET), ConnectionLost, "broke off"),
    (_os_error(errno.EMFILE), ConnectionLost, "too many open files"),
    (ValueError(SECRET), BadResponse, "could not be read (ValueError)"),
    (aiohttp.ClientError(SECRET), BadResponse, "could not be read (ClientError)"),
]


@pytest.mark.parametrize(("raised", "expected", "text"), RAISED, ids=[type(row[0]).__name__ for row in RAISED])
@pytest.mark.shows("N18", "U4", "B22")
async def test_each_foreign_exception_has_its_family(
    raised: BaseException, expected: type[TransferError], text: str
) -> None:
    """Each exception of aiohttp and the system becomes one of ours by its type, and its text is never shown."""
    url = f"https://host.example/a.bin?sig={SECRET}"
    with aioresponses() as answers:
        answers.get(url, exception=raised)
        async with transport() as made:
            error = await failure_of(made.connection().get(url, {}))
    assert type(error) is expected
    assert text in str(error)
    assert SECRET not in str(error)


@pytest.mark.parametrize(("raised", "expected", "_"), RAISED, ids=[type(row[0]).__name__ for row in RAISED])
@pytest.mark.shows("N18", "B22")
async def test_the_same_in_a_body(
    server: AssetServer, raised: BaseException, expected: type[TransferError], _: str
) -> None:
    """While the body is read the families are the same, and nothing foreign comes through either."""
    file = server.add("/a.bin", CONTENT)

    async def read(response: Response) -> None:
        while await read_some(response):
            pass

    async with transport() as made:
        response = await made.connection().get(f"{file.url}?sig={SECRET}", {})
        assert isinstance(response, SessionResponse)
        response._response.content.set_exception(raised)
        error = await failure_of(read(response))
        response.close()
    assert type(error) is expected


async def test_a_cancellation_is_never_wrapped() -> None:
    """A cancelled caller gets the cancellation itself."""
    with aioresponses() as answers:
        answers.get("https://host.example/a", exception=asyncio.CancelledError())
        async with transport() as made:
            with pytest.raises(asyncio.CancelledError):
                await made.connection().get("https://host.example/a", {})


async def test_assets_over_the_session_of_an_application(tmp_path: Path, server: AssetServer) -> None:
    """They come in ranges, a broken connection is recovered from, and the session stays open and usable."""
    project = Project(tmp_path)
    file = server.add("/a.bin", CONTENT, faults=[Truncate(after=10 * KIB, times=1)])
    project.add("a", [file.url], CONTENT)
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        settings = Settings(sizes=SMALL)
        async with AssetManager(project.manifest, transport=AiohttpTransport(session), settings=settings) as manager:
            path = await manager.get_asset_path("a")
        assert path.read_bytes() == CONTENT
        assert not session.closed
    assert len([asked for asked in server.stats.requests if "Range" in asked.headers]) > 1


@pytest.mark.parametrize("is_read", [True, False])
async def test_a_socket_is_kept_where_the_body_was_read(server: AssetServer, is_read: bool) -> None:
    """The next request goes over it; where bytes are left, they would be taken for the next answer, so it is closed."""
    file = server.add("/a.bin", CONTENT)
    before = server.stats.connections_opened
    async with transport() as made:
        connection = made.connection()
        for _ in range(2):
            response = await connection.get(file.url, {})
            while await read_some(response) and is_read:
                pass
            response.close()
    assert server.stats.connections_opened - before == (1 if is_read else 2)


@pytest.mark.shows("S6", "S7")
async def test_a_session_may_have_a_proxy(tmp_path: Path, server: AssetServer) -> None:
    """Over plain http no token is sent, and content without a checksum is refused, even on this machine."""
    project = Project(tmp_path)
    file = server.add("/a.bin", CONTENT)
    project.add("a", [file.url], CONTENT, pinned=False)
    async with transport() as made:
        response = await made.connection().get(file.url, {"Authorization": f"Bearer {SECRET}"})
        response.close()
        async with AssetManager(
            project.manifest, transport=made, settings=Settings(allow_unpinned=True, retries=0)
        ) as manager:
            with pytest.raises(SyncFailed, match="plain http"):
                await manager.sync()
    assert not [asked for asked in server.stats.requests if "Authorization" in asked.headers]


@pytest.mark.shows("S9")
async def test_metadata_is_not_asked() -> None:
    """An address written as a forbidden number is refused before the session sees it."""
    async with transport() as made:
        assert isinstance(await failure_of(made.connection().get("http://169.254.169.254/", {})), PolicyRefused)


@pytest.mark.shows("C7", "B3", "S4")
async def test_nothing_is_decoded() -> None:
    """A session that decompresses is refused: verified are the bytes as they were sent."""
    async with aiohttp.ClientSession() as session:
        with pytest.raises(ValueError, match="auto_decompress=False"):
            AiohttpTransport(session)


async def test_a_post() -> None:
    """It is sent with its body, and answered like a GET."""
    asked: list[tuple[str, bytes]] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append((request.method, await request.read()))
        return web.Response(body=b"yes")

    app = web.Application()
    app.router.add_post("/a", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        async with transport() as made:
            connection = made.connection()
            assert isinstance(connection, SessionConnection)
            response = await connection.post(f"http://127.0.0.1:{runner.addresses[0][1]}/a", {}, b"question")
            assert await read_some(response, 100) == b"yes"
            response.close()
    finally:
        await runner.cleanup()
    assert asked == [("POST", b"question")]

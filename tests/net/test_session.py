"""HTTP over aiohttp: what only a library can raise, made by aioresponses."""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from unittest.mock import AsyncMock, Mock

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey
from aioresponses import aioresponses
from yarl import URL

from grym_fetch.core.errors import (
    BadResponse,
    CertificateRejected,
    ConnectFailed,
    ConnectionLost,
    PolicyRefused,
    Stalled,
    TransferError,
)
from grym_fetch.net import session as http_session
from grym_fetch.net.session import GuardedResolver, SessionConnection, SessionResponse
from grym_fetch.net.settings import HttpSettings
from grym_fetch.testing import AssetServer
from tests.net.test_client import CONTENT, SECRET, failure_of
from tests.support.fakes import read_some


@asynccontextmanager
async def session() -> AsyncIterator[SessionConnection]:
    """A connection over aiohttp, closed at the end."""
    connection = SessionConnection(HttpSettings())
    try:
        yield connection
    finally:
        await connection.aclose()


KEY = ConnectionKey("host.example", 443, True, True, None, None, None)
INFO = aiohttp.RequestInfo(URL(f"https://host.example/?s={SECRET}"), "GET", Mock(), URL("https://host.example"))


def _os_error(number: int) -> OSError:
    return OSError(number, f"text of the system {SECRET}")


RAISED: list[tuple[BaseException, type[TransferError], str]] = [
    (aiohttp.ConnectionTimeoutError(SECRET), ConnectFailed, "no connection within 10 s"),
    (aiohttp.SocketTimeoutError(SECRET), Stalled, "nothing arrived for 30 s"),
    (TimeoutError(SECRET), Stalled, "nothing arrived for 30 s"),
    (aiohttp.ClientConnectorError(KEY, _os_error(errno.ENETUNREACH)), ConnectFailed, "network is unreachable"),
    (
        aiohttp.ClientConnectorError(KEY, OSError(f"Multiple exceptions: {SECRET}")),
        ConnectFailed,
        "all addresses failed",
    ),
    (aiohttp.ClientConnectorDNSError(KEY, _os_error(-2)), ConnectFailed, "cannot be resolved"),
    (
        aiohttp.ClientProxyConnectionError(KEY, _os_error(errno.ECONNREFUSED)),
        ConnectFailed,
        "no connection to the proxy",
    ),
    (aiohttp.ClientHttpProxyError(INFO, (), status=502, message=SECRET), ConnectFailed, "the proxy answered 502"),
    (aiohttp.ClientConnectorSSLError(KEY, _os_error(1)), ConnectFailed, "TLS handshake failed"),
    (
        aiohttp.ClientConnectorCertificateError(KEY, ssl.SSLCertVerificationError(1, SECRET)),
        CertificateRejected,
        "certificate was rejected",
    ),
    (aiohttp.ServerDisconnectedError(SECRET), ConnectionLost, "without an answer"),
    (aiohttp.ClientOSError(errno.ECONNRESET, SECRET), ConnectionLost, "connection reset by peer"),
    (aiohttp.ClientConnectionResetError(SECRET), ConnectionLost, "broke off"),
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
    """Each exception of aiohttp and the system becomes one of ours by its type, and its text goes nowhere."""
    url = f"https://host.example/a.bin?sig={SECRET}"
    with aioresponses() as answers:
        answers.get(url, exception=raised)
        async with session() as connection:
            error = await failure_of(connection.get(url, {}))
    assert type(error) is expected
    assert text in str(error)
    assert "https://host.example/a.bin" in str(error)


@pytest.mark.parametrize(("raised", "expected", "_"), RAISED, ids=[type(row[0]).__name__ for row in RAISED])
@pytest.mark.shows("N18", "B22")
async def test_the_same_in_a_body(
    server: AssetServer, raised: BaseException, expected: type[TransferError], _: str
) -> None:
    """While the body is read the families are the same, and nothing foreign comes through either."""
    file = server.add("/a.bin", CONTENT)

    async def read(response: SessionResponse) -> None:
        while await read_some(response):
            pass

    async with session() as connection:
        response = await connection.get(f"{file.url}?sig={SECRET}", {})
        response._response.content.set_exception(raised)
        error = await failure_of(read(response))
        response.close()
    assert type(error) is expected


async def test_a_cancellation_is_never_wrapped() -> None:
    """Whoever is cancelled is cancelled."""
    with aioresponses() as answers:
        answers.get("https://host.example/a", exception=asyncio.CancelledError())
        async with session() as connection:
            with pytest.raises(asyncio.CancelledError):
                await connection.get("https://host.example/a", {})


@pytest.mark.shows("S9")
async def test_each_address_of_a_name_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """A good address in front hides none that must not be asked."""
    beneath = AsyncMock()
    beneath.resolve.return_value = [{"host": "127.0.0.1"}, {"host": "169.254.169.254"}]
    monkeypatch.setattr(http_session, "DefaultResolver", lambda: beneath)
    with pytest.raises(PolicyRefused):
        await GuardedResolver(allow_private=True).resolve("files.example")


async def test_the_guard_closes_what_it_guards(monkeypatch: pytest.MonkeyPatch) -> None:
    """The resolver beneath is closed with the one above it."""
    beneath = AsyncMock()
    monkeypatch.setattr(http_session, "DefaultResolver", lambda: beneath)
    await GuardedResolver(allow_private=True).close()
    beneath.close.assert_awaited_once_with()

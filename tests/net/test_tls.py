"""When a certificate expires, as far as can be told; and sessions that are resumed."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from grym_fetch.core.errors import GrymFetchError
from grym_fetch.net.client import HttpTransport
from grym_fetch.net.tls import certificate_expiry
from tests.support.authority import trusted_tls


class Shown(asyncio.BaseTransport):
    """A transport whose peer has shown this certificate."""

    def __init__(self, certificate: dict[str, str] | None) -> None:
        super().__init__({"peercert": certificate})


@pytest.mark.parametrize(
    ("certificate", "ends"),
    [
        ({"notAfter": "Jan  5 09:34:43 2018 GMT"}, 1515144883.0),
        ({"notAfter": "some day"}, None),
        ({}, None),
        (None, None),
    ],
)
def test_when_it_ends(certificate: dict[str, str] | None, ends: float | None) -> None:
    """Without TLS, or with an unreadable date, the end is unknown."""
    assert certificate_expiry(Shown(certificate)) == ends


@asynccontextmanager
async def handshakes(tls: ssl.SSLContext) -> AsyncIterator[tuple[int, list[bool]]]:
    """A server that answers a request and closes: its port, and whether each handshake resumed a session."""
    resumed: list[bool] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        resumed.append(writer.get_extra_info("ssl_object").session_reused)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1], resumed
    finally:
        server.close()


async def ask(transport: HttpTransport, port: int, host: str = "127.0.0.1") -> None:
    """Send a request over a new connection."""
    connection = transport.connection()
    (await connection.get(f"https://{host}:{port}/", {})).close()
    assert connection.certificate_ends is not None
    await connection.aclose()


@pytest.mark.shows("S6")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
async def test_a_connection_that_is_opened_again_resumes_its_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: ssl.TLSVersion
) -> None:
    """Only with the same name, whose certificate was verified, and only over the same transport."""
    tls = trusted_tls(tmp_path, monkeypatch)
    tls.maximum_version = version
    async with handshakes(tls) as (port, resumed):
        transport = HttpTransport()
        await ask(transport, port)
        await ask(transport, port)
        with pytest.raises(GrymFetchError, match="certificate"):
            await ask(transport, port, "localhost")
        await ask(HttpTransport(), port)
    assert [resumed[0], resumed[1], resumed[-1]] == [False, True, False]


async def test_a_server_that_forgot_its_sessions_is_greeted_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is after a restart, or behind a load balancer."""
    tls = trusted_tls(tmp_path, monkeypatch)
    transport = HttpTransport()
    async with handshakes(tls) as (port, _):
        await ask(transport, port)
    again = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    again.load_cert_chain(str(tmp_path / "server.pem"))
    async with handshakes(again) as (port, resumed):
        await ask(transport, port)
        await ask(transport, port)
    assert resumed == [False, True]

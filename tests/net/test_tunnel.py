"""Through an HTTP proxy to a TLS server: what the proxy is told, and what it may answer."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from grym_fetch.core.errors import CertificateRejected, ConnectFailed, GrymFetchError, ProxyRefused
from grym_fetch.core.policy import is_permanent
from grym_fetch.net.plain import PlainConnection
from grym_fetch.net.settings import HttpSettings
from grym_fetch.net.tunnel import refusal
from grym_fetch.testing import AssetServer, seeded_bytes
from tests.net.test_client import SECRET, failure_of, read_all
from tests.support.transports import TinyProxy

pytestmark = pytest.mark.shows("A18")

CONTENT = seeded_bytes(200_003, seed=64)


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """An authority that this machine trusts."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    return authority


def context_for(authority: trustme.CA, name: str) -> ssl.SSLContext:
    """A server's side of TLS, with a certificate for this name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


@asynccontextmanager
async def connected(**more: float) -> AsyncIterator[PlainConnection]:
    """A connection, closed at the end."""
    connection = PlainConnection(HttpSettings(**more))  # type: ignore[arg-type]  # times only
    try:
        yield connection
    finally:
        await connection.aclose()


async def failure(proxy: TinyProxy, monkeypatch: pytest.MonkeyPatch, **more: float) -> GrymFetchError:
    """The error of a request through this proxy; afterwards no socket to it is open."""
    async with proxy.running():
        monkeypatch.setenv("https_proxy", f"http://me:{SECRET}@127.0.0.1:{proxy.port}")
        async with connected(**more) as connection:
            error = await failure_of(connection.get("https://files.example/a.bin?sig=hush-hush", {}))
            assert connection.host == ""
            await proxy.until_all_is_closed()
    return error


@pytest.mark.parametrize("to_proxy", ["http", "https"])
@pytest.mark.parametrize("to_server", ["http", "https"])
@pytest.mark.shows("S7")
async def test_every_mix_of_tls(
    trusted: trustme.CA, monkeypatch: pytest.MonkeyPatch, to_proxy: str, to_server: str
) -> None:
    """With TLS to the proxy, to the server inside the tunnel, both or neither, the bytes are right, over one socket."""
    tls = context_for(trusted, "127.0.0.1") if to_server == "https" else None
    proxy = TinyProxy(tls=context_for(trusted, "localhost") if to_proxy == "https" else None)
    async with proxy.running(), AssetServer(ssl_context=tls) as server:
        url = server.add("/a.bin", CONTENT).url
        monkeypatch.setenv("all_proxy", f"{to_proxy}://me:pw@localhost:{proxy.port}")
        async with connected() as connection:
            for _ in range(2):
                assert await read_all(connection, url, Authorization="Bearer of-the-server") == CONTENT
            assert (connection.certificate_ends is not None) is (to_server == "https")
    assert server.stats.connections_opened == len(proxy.heads) == 1
    told = {name.lower(): value for name, _, value in (line.partition(": ") for line in proxy.heads[0].splitlines())}
    assert told["proxy-authorization"] == "Basic bWU6cHc="
    assert "authorization" not in told
    if to_server == "https":
        assert proxy.asked == [f"CONNECT 127.0.0.1:{server.port} HTTP/1.1"]
        assert all("Proxy-Authorization" not in request.headers for request in server.stats.requests)


@pytest.mark.shows("S6")
async def test_the_proxys_certificate_is_verified(trusted: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that does not prove its identity gets no password; the error says whose certificate it was."""
    async with TinyProxy(tls=context_for(trusted, "other.example")).running() as proxy:
        monkeypatch.setenv("all_proxy", f"https://me:{SECRET}@localhost:{proxy.port}")
        async with connected() as connection:
            error = await failure_of(connection.get("https://files.example/a.bin", {}))
    assert type(error) is CertificateRejected
    assert "the proxy's certificate was rejected: Hostname mismatch" in str(error)
    assert proxy.heads == []


@pytest.mark.parametrize(
    ("answer", "expected", "named"),
    [
        (b"407 Hush", ProxyRefused, "the proxy answered 407: the proxy wants another user or password"),
        (b"401 Hush", ProxyRefused, "the proxy answered 401: the proxy wants another user or password"),
        (b"403 Hush", ProxyRefused, "the proxy answered 403: it does not connect to this host"),
        (b"511 Hush", ProxyRefused, "the proxy answered 511: it does not connect to this host"),
        (b"502 Hush", ConnectFailed, "the proxy answered 502"),
        (b"503 Hush", ConnectFailed, "the proxy answered 503"),
        (b"302 Found\r\nLocation: http://login.example/", ConnectFailed, "the proxy answered 302"),
    ],
)
async def test_a_refusal(
    answer: bytes, expected: type[GrymFetchError], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the proxy itself is the proxy's failure; its page is not read; a final one is reported as final."""
    page = b"\r\nContent-Type: text/html\r\nContent-Length: 9\r\n\r\nhush-hush"
    error = await failure(TinyProxy(b"HTTP/1.1 " + answer + page), monkeypatch)
    assert type(error) is expected
    assert named in str(error)
    assert is_permanent(error) is (expected is ProxyRefused)


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (b"SSH-2.0-hush-hush\r\n\r\n", "breaks the rules of HTTP"),
        (b"HTTP/1.1 200 OK\r\n\r\nhush-hush", "something came behind its header"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokhush-hush", "something came behind its header"),
        (b"HTTP/1.1 200", "closed the connection without an answer"),
        (b"HTTP/1.1 200 OK\r\nX: " + bytes(100_000), "breaks the rules of HTTP"),
    ],
    ids=["not HTTP", "a body", "more than its length", "half", "no end"],
)
async def test_what_is_no_tunnel(answer: bytes, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A malformed answer, or data sent before our own, is not a tunnel; the next try may succeed."""
    error = await failure(TinyProxy(answer), monkeypatch)
    assert type(error) is ConnectFailed
    assert "the proxy gave no tunnel: " in str(error)
    assert named in str(error)


@pytest.mark.shows("N11")
async def test_a_proxy_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it, including the proxy's answer, has to fit in the time for connecting."""
    error = await failure(TinyProxy(b"HTTP/1.1 100 Continue\r\n\r\n", holds=True), monkeypatch, connect_timeout=0.1)
    assert type(error) is ConnectFailed
    assert "no connection within 0.1 s" in str(error)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.0 200 Connection established\r\n\r\n",
        b"HTTP/1.1 204 Fine\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_any_success_is_a_tunnel(trusted: trustme.CA, answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 9110 section 9.3.6: a success has no body, whatever its fields say."""
    async with (
        TinyProxy(tunnel=answer).running() as proxy,
        AssetServer(ssl_context=context_for(trusted, "127.0.0.1")) as server,
    ):
        url = server.add("/a.bin", CONTENT).url
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
        async with connected() as connection:
            assert await read_all(connection, url) == CONTENT


@pytest.mark.shows("N15", "S6")
async def test_a_handshake_that_fails_leaves_no_socket(trusted: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's certificate is checked inside the tunnel, which is closed if it proves nothing."""
    async with (
        TinyProxy().running() as proxy,
        AssetServer(ssl_context=context_for(trusted, "other.example")) as server,
    ):
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
        async with connected() as connection:
            error = await failure_of(connection.get(server.url("/a.bin"), {}))
            await proxy.until_all_is_closed()
    assert "the server's certificate was rejected" in str(error)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(302, ConnectFailed), (400, ProxyRefused), (403, ProxyRefused), (407, ProxyRefused), (502, ConnectFailed)],
)
def test_what_an_answer_means(status: int, kind: type[GrymFetchError]) -> None:
    """A refusal is final; what may pass is tried again."""
    assert type(refusal("https://files.example/", status)) is kind

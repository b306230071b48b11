"""SOCKS proxies: what they are told, what they are not, and how their refusals read."""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme

from grym_fetch.core.errors import ConnectFailed, PolicyRefused
from grym_fetch.core.policy import is_permanent
from grym_fetch.net.client import HttpTransport
from grym_fetch.net.proxies import is_socks, refuse_forbidden, resolves_names
from grym_fetch.testing import AssetServer, seeded_bytes
from tests.net.test_client import SECRET, failure_of, read_all
from tests.support.project import Project

pytestmark = pytest.mark.shows("A28")

CONTENT = seeded_bytes(200_003, seed=62)


@dataclass
class SocksProxy:
    """A SOCKS 5 proxy (RFC 1928, 1929) that leads everywhere to one port of this machine.

    ``asked`` has each host and port that it was told, ``logins`` each user and password. ``reply`` is its code.
    """

    to: int = 0
    password: bytes = b""
    reply: int = 0
    asked: list[tuple[str, int]] = field(default_factory=list)
    logins: list[bytes] = field(default_factory=list)
    port: int = 0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[SocksProxy]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, count = await reader.readexactly(2)
        await reader.readexactly(count)
        writer.write(b"\x05\x02" if self.password else b"\x05\x00")
        if self.password:
            _, length = await reader.readexactly(2)
            user = await reader.readexactly(length)
            password = await reader.readexactly((await reader.readexactly(1))[0])
            self.logins.append(user + b":" + password)
            writer.write(b"\x01\x00" if password == self.password else b"\x01\x01")
            if password != self.password:
                return
        *_, kind = await reader.readexactly(4)
        if kind == 3:
            host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        else:
            host = socket.inet_ntop(*{1: (socket.AF_INET, await reader.readexactly(4))}[kind])
        self.asked.append((host, int.from_bytes(await reader.readexactly(2), "big")))
        writer.write(bytes([5, self.reply, 0, 1]) + bytes(6))
        if self.reply:
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.to)
        try:
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        finally:
            far_writer.close()

    @staticmethod
    async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65_536):
            target.write(data)
            await target.drain()
        target.close()


def test_the_kinds() -> None:
    """Four kinds of address name a SOCKS proxy; with two of them names are left to the proxy."""
    kinds = ("socks4", "socks4a", "socks5", "socks5h", "http", "https")
    assert [kind for kind in kinds if is_socks(f"{kind}://p:1")] == ["socks4", "socks4a", "socks5", "socks5h"]
    assert [kind for kind in kinds if resolves_names(f"{kind}://p:1")] == ["socks4a", "socks5h"]
    assert not is_socks(None)


@pytest.mark.parametrize("host", ["169.254.169.254", "0xa9fea9fe", "169.254.43518"])
@pytest.mark.shows("S9")
def test_what_is_written_as_a_forbidden_number(host: str) -> None:
    """No proxy is asked for a cloud's metadata, however its number is written."""
    with pytest.raises(PolicyRefused, match="cloud metadata"):
        refuse_forbidden(f"http://{host}/", host, allow_private=True)
    refuse_forbidden("http://files.example/", "files.example", allow_private=False)


async def test_a_whole_run(tmp_path: Path, server: AssetServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """An asset comes through the proxy, which is told the host's name and has its password."""
    file = server.add("/a.bin", CONTENT)
    async with SocksProxy(server.port, password=b"pw").running() as proxy:
        monkeypatch.setenv("ALL_PROXY", f"socks5h://me:pw@127.0.0.1:{proxy.port}")
        project = Project(tmp_path)
        path = project.add("a", [file.url.replace("127.0.0.1", "files.example")], CONTENT)
        async with project.manager() as manager:
            await manager.get_asset_path("a")
    assert path.read_bytes() == CONTENT
    assert set(proxy.asked) == {("files.example", server.port)}
    assert set(proxy.logins) == {b"me:pw"}
    assert {request.headers.get("host") for request in server.stats.requests} == {f"files.example:{server.port}"}


async def test_tls_is_between_us_and_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the proxy the server's own certificate is verified."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("files.example").configure_cert(context)
    async with AssetServer(ssl_context=context) as server, SocksProxy(server.port).running() as proxy:
        server.add("/a.bin", CONTENT)
        monkeypatch.setenv("ALL_PROXY", f"socks5h://127.0.0.1:{proxy.port}")
        connection = HttpTransport().connection()
        try:
            assert await read_all(connection, "https://files.example/a.bin") == CONTENT
            assert isinstance(await failure_of(connection.get("https://other.example/a.bin", {})), ConnectFailed)
        finally:
            await connection.aclose()


async def test_what_is_resolved_here_is_judged_here(server: AssetServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """With socks5 the proxy is told an address, and never a forbidden one; no credentials for this machine go there."""
    server.add("/a.bin", CONTENT)
    async with SocksProxy(server.port).running() as proxy:
        monkeypatch.setenv("ALL_PROXY", f"socks5://127.0.0.1:{proxy.port}")
        connection = HttpTransport().connection()
        try:
            url = f"http://localhost:{server.port}/a.bin"
            assert await read_all(connection, url, Authorization=f"Bearer {SECRET}") == CONTENT
            response = await connection.get(url, {})
            response.close()
            assert response.head.is_local is False
            assert isinstance(await failure_of(connection.get("http://169.254.169.254/", {})), PolicyRefused)
        finally:
            await connection.aclose()
    assert set(proxy.asked) == {("127.0.0.1", server.port)}
    assert "authorization" not in {name.lower() for name in server.stats.requests[0].headers}


@pytest.mark.parametrize(
    ("proxy", "named"),
    [
        (SocksProxy(reply=5), "the SOCKS proxy refused to connect"),
        (SocksProxy(password=b"other"), "or its user and password"),
    ],
)
async def test_a_proxy_that_refuses(proxy: SocksProxy, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says that it was the proxy, and keeps its password to itself."""
    async with proxy.running():
        monkeypatch.setenv("ALL_PROXY", f"socks5h://me:{SECRET}@127.0.0.1:{proxy.port}")
        connection = HttpTransport().connection()
        error = await failure_of(connection.get("http://files.example/a.bin", {}))
    assert named in str(error)
    error = await failure_of(connection.get("http://files.example/a.bin", {}))
    assert "no connection to the proxy: connection refused" in str(error)


async def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where python-socks is missing, that is said once and is final: no retry brings it."""
    monkeypatch.setitem(sys.modules, "python_socks", None)
    monkeypatch.setenv("ALL_PROXY", "socks5h://127.0.0.1:1")
    error = await failure_of(HttpTransport().connection().get("http://files.example/a.bin", {}))
    assert is_permanent(error)
    assert "pip install 'grym-fetch[socks]'" in str(error)

"""SOCKS proxies: what they are told, what they are not, and how their refusals read."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme

from grym_fetch.core.errors import ConnectFailed, MirrorsExhausted, PolicyRefused, ProxyRefused
from grym_fetch.core.policy import is_permanent
from grym_fetch.net.client import HttpTransport
from grym_fetch.net.proxies import DEFAULT_PORTS, Proxy, dial_through, read_proxy, refuse_forbidden
from grym_fetch.net.settings import HttpSettings
from grym_fetch.testing import AssetServer, seeded_bytes
from tests.net.test_client import SECRET, failure_of, read_all
from tests.support.project import Project
from tests.support.transports import pump

pytestmark = pytest.mark.shows("A28")

CONTENT = seeded_bytes(200_003, seed=62)


@dataclass
class SocksProxy:
    """A SOCKS 5 proxy (RFC 1928, 1929) that connects everything to one port of this machine.

    ``asked`` has each host and port it was given, ``logins`` each user and password. ``reply`` is its code, and
    ``methods`` what it answers instead of the login method it wants.
    """

    to: int = 0
    password: bytes = b""
    reply: int = 0
    methods: bytes = b""
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
        writer.write(self.methods or (b"\x05\x02" if self.password else b"\x05\x00"))
        if self.methods:
            return
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
            family, length = {1: (socket.AF_INET, 4), 4: (socket.AF_INET6, 16)}[kind]
            host = socket.inet_ntop(family, await reader.readexactly(length))
        self.asked.append((host, int.from_bytes(await reader.readexactly(2), "big")))
        writer.write(bytes([5, self.reply, 0, 1]) + bytes(6))
        if self.reply:
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.to)
        try:
            await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
        finally:
            far_writer.close()


def test_the_kinds() -> None:
    """Four schemes name a SOCKS proxy; with two of them names are resolved here."""
    proxies = [read_proxy(f"{kind}://p:1", "") for kind in DEFAULT_PORTS]
    assert [proxy.scheme for proxy in proxies if proxy.is_socks] == ["socks4", "socks4a", "socks5", "socks5h"]
    assert [proxy.scheme for proxy in proxies if not proxy.resolves_names] == ["socks4", "socks5"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("p", Proxy("http", "p", 80)),
        ("p:3128", Proxy("http", "p", 3128)),
        ("HTTPS://p", Proxy("https", "p", 443)),
        ("socks5h://p", Proxy("socks5h", "p", 1080)),
        ("http://[::1]:3128/", Proxy("http", "::1", 3128)),
        ("me:pw@p:3128", Proxy("http", "p", 3128, "me", "pw")),
        ("http://me:p%40ss%3A%20%C3%A9@p", Proxy("http", "p", 80, "me", "p@ss: é")),
        ("http://me@corp:p@ss@p", Proxy("http", "p", 80, "me@corp", "p@ss")),
        ("http://:pw@p", Proxy("http", "p", 80, None, "pw")),
        ("http://me@p", Proxy("http", "p", 80, "me", None)),
    ],
)
def test_how_an_address_is_read(text: str, expected: Proxy) -> None:
    """As curl reads it, except for the port if none is named; user and password may be percent-encoded."""
    assert read_proxy(text, "") == expected


@pytest.mark.parametrize(
    "text", ["http://", "http://me:hush-hush@", "http://p:99999", "http://p:x", "://p", "ftp://p", "http://[::1"]
)
def test_what_is_no_proxy(text: str) -> None:
    """An unreadable proxy is the environment's fault, not that of the requested address."""
    with pytest.raises(ProxyRefused, match="proxy in the environment") as caught:
        read_proxy(text, "http://files.example/")
    assert SECRET not in str(caught.value)


def test_who_we_are_is_told_to_the_proxy() -> None:
    """User and password are sent in UTF-8, as curl sends them, and are in no repr."""
    proxy = read_proxy(f"http://mé:{SECRET}@p", "")
    told = proxy.fields["Proxy-Authorization"].removeprefix("Basic ")
    assert base64.b64decode(told).decode() == f"mé:{SECRET}"
    assert SECRET not in repr(proxy)
    assert read_proxy("http://p", "").fields == {}
    for alone, login in (("me@", b"me:"), (":pw@", b":pw")):
        told = read_proxy(f"http://{alone}p", "").fields["Proxy-Authorization"]
        assert base64.b64decode(told.removeprefix("Basic ")) == login


@pytest.mark.parametrize("host", ["169.254.169.254", "0xa9fea9fe", "169.254.43518"])
@pytest.mark.shows("S9")
def test_what_is_written_as_a_forbidden_number(host: str) -> None:
    """No proxy is asked for a cloud's metadata, however its number is written."""
    with pytest.raises(PolicyRefused, match="cloud metadata"):
        refuse_forbidden(f"http://{host}/", host, allow_private=True)
    refuse_forbidden("http://files.example/", "files.example", allow_private=False)


async def test_a_whole_run(tmp_path: Path, server: AssetServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """An asset comes through the proxy, which gets the host's name and its own password."""
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
    """The server's own certificate is verified through the proxy."""
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
    """With socks5 the proxy gets an address, never a forbidden one, and no credentials for this machine go there."""
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
    assert {port for _, port in proxy.asked} == {server.port}
    assert {host for host, _ in proxy.asked} <= {"127.0.0.1", "::1"}, "an address, not a name"
    assert "authorization" not in {name.lower() for name in server.stats.requests[0].headers}


@pytest.mark.shows("S9")
@pytest.mark.parametrize(("host", "private"), [("169.254.169.254", True), ("0xa9fea9fe", True), ("10.1.2.3", False)])
async def test_a_socks_proxy_is_not_asked_for_a_forbidden_number(
    monkeypatch: pytest.MonkeyPatch, host: str, private: bool
) -> None:
    """Not even one that resolves names itself: a number needs no resolving."""
    async with SocksProxy(1).running() as proxy:
        monkeypatch.setenv("ALL_PROXY", f"socks5h://127.0.0.1:{proxy.port}")
        connection = HttpTransport(HttpSettings(allow_private=private)).connection()
        try:
            assert isinstance(await failure_of(connection.get(f"http://{host}/", {})), PolicyRefused)
        finally:
            await connection.aclose()
    assert proxy.asked == []


@pytest.mark.parametrize(
    ("proxy", "named", "is_final"),
    [
        (SocksProxy(reply=5), "the SOCKS proxy did not connect: the host refused the connection (code 5)", False),
        (SocksProxy(reply=2), "the SOCKS proxy did not connect: its rules do not allow it (code 2)", True),
        (SocksProxy(reply=0x77), "the SOCKS proxy broke off, or does not speak this version", False),
        (SocksProxy(password=b"other"), "the SOCKS proxy wants another user or password", True),
        (SocksProxy(methods=b"\x05\xff"), "the SOCKS proxy wants another user or password", True),
        (SocksProxy(methods=b"HTTP/1.1 400 Bad Request"), "does not speak this version of SOCKS", False),
    ],
)
async def test_a_proxy_that_refuses(
    proxy: SocksProxy, named: str, is_final: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each reason has its own wording; what no retry would change is final; and the password stays secret."""
    async with proxy.running():
        monkeypatch.setenv("ALL_PROXY", f"socks5h://me:{SECRET}@127.0.0.1:{proxy.port}")
        connection = HttpTransport().connection()
        error = await failure_of(connection.get("http://files.example/a.bin", {}))
    assert named in str(error)
    assert is_permanent(error) is is_final
    error = await failure_of(connection.get("http://files.example/a.bin", {}))
    assert "no connection to the proxy: connection refused" in str(error)
    assert not is_permanent(error)


@pytest.mark.parametrize(
    ("proxy", "tries"),
    [
        pytest.param(SocksProxy(password=b"other"), 1, marks=pytest.mark.shows("A18")),
        (SocksProxy(reply=2), 1),
        (SocksProxy(reply=5), 3),
    ],
)
async def test_a_final_refusal_costs_one_try(
    tmp_path: Path, proxy: SocksProxy, tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong password is reported once, at once; a host that refuses may be up again at the next try."""
    async with proxy.running():
        monkeypatch.setenv("ALL_PROXY", f"socks5h://me:{SECRET}@127.0.0.1:{proxy.port}")
        project = Project(tmp_path)
        project.add("a", ["http://files.example/a.bin"], CONTENT)
        async with project.manager(retries=2) as manager:
            with pytest.raises(MirrorsExhausted) as caught:
                await manager.get_asset_path("a")
    assert "SOCKS proxy" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert len(proxy.logins or proxy.asked) == tries


@pytest.mark.parametrize("userinfo", [f"mé:{SECRET}", f"me:{'x' * 256}"])
async def test_what_socks_cannot_carry(userinfo: str) -> None:
    """A user or password that cannot be sent is reported as such, not found out by accident."""
    with pytest.raises(ProxyRefused, match="ASCII, and at most 255") as caught:
        dial_through(read_proxy(f"socks5://{userinfo}@p", ""), "http://files.example/")
    dial_through(read_proxy(f"socks5://me:{'x' * 255}@p", ""), "http://files.example/")
    assert SECRET not in str(caught.value)


async def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """If python-socks is missing, that is reported once and is final: no retry would help."""
    monkeypatch.setitem(sys.modules, "python_socks", None)
    monkeypatch.setenv("ALL_PROXY", "socks5h://127.0.0.1:1")
    error = await failure_of(HttpTransport().connection().get("http://files.example/a.bin", {}))
    assert is_permanent(error)
    assert "pip install 'grym-fetch[socks]'" in str(error)

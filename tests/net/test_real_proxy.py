"""Through a real proxy (tinyproxy), as the environment names it: whole runs, over http and https."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from grym_fetch import MirrorsExhausted
from grym_fetch.testing import AssetServer, Redirect, Status, seeded_bytes
from tests.support.authority import trusted_tls
from tests.support.project import CANARY, Project
from tests.support.tinyproxy import TinyProxy

pytestmark = [pytest.mark.tinyproxy, pytest.mark.shows("A18", "S7")]

CONTENT = seeded_bytes(300_000, seed=3)
LOGIN, PASSWORD = "me", "hunter2"


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[TinyProxy]:
    """A proxy that wants a password."""
    with TinyProxy(tmp_path, LOGIN, PASSWORD) as running:
        yield running


@pytest.fixture
async def secure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AssetServer]:
    """A server with TLS, whose authority this machine trusts."""
    async with AssetServer(ssl_context=trusted_tls(tmp_path, monkeypatch)) as running:
        yield running


async def fetch(tmp_path: Path, url: str) -> None:
    """Fetch the content from there; it is right."""
    project = Project(tmp_path / "project")
    path = project.add("a", [url], CONTENT)
    async with project.manager() as manager:
        await manager.get_asset_path("a")
    assert path.read_bytes() == CONTENT


async def refusal(tmp_path: Path, url: str) -> str:
    """Fail to fetch from there; return the error's text."""
    with pytest.raises(MirrorsExhausted) as caught:
        await fetch(tmp_path, url)
    return str(caught.value)


def told_to(server: AssetServer, field: str) -> set[str | None]:
    """The values of a field in the requests that reached the server."""
    return {request.headers.get(field) for request in server.stats.requests}


async def test_http(tmp_path: Path, server: AssetServer, proxy: TinyProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request goes through the proxy, which gets its password and no other secret; the server gets neither."""
    monkeypatch.setenv("HTTP_PROXY", proxy.url(f"{LOGIN}:{PASSWORD}"))
    server.add("/b.bin", CONTENT)
    file = server.add("/a.bin", CONTENT, faults=[Redirect("/b.bin")])
    await fetch(tmp_path, file.url)
    assert len(proxy.asked()) == len(server.stats.requests) > 2
    assert all("tinyproxy" in (value or "") for value in told_to(server, "via"))
    assert told_to(server, "proxy-authorization") == {None}
    assert told_to(server, "authorization") == {None}


async def test_https(tmp_path: Path, secure: AssetServer, proxy: TinyProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through a tunnel: the proxy sees host and port; the server its own token, and nothing of the proxy."""
    monkeypatch.setenv("HTTPS_PROXY", proxy.url(f"{LOGIN}:{PASSWORD}"))
    file = secure.add("/a.bin", CONTENT)
    await fetch(tmp_path, f"{file.url}?sig=secret")
    assert set(proxy.asked()) == {f"CONNECT 127.0.0.1:{secure.port}"}
    assert secure.stats.requests
    assert told_to(secure, "via") == told_to(secure, "proxy-authorization") == {None}
    assert told_to(secure, "authorization") == {f"Bearer {CANARY}"}


async def test_https_is_verified_through_the_proxy(
    tmp_path: Path, secure: AssetServer, proxy: TinyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tunnel makes no certificate better: one that nobody here trusts is refused, and no request goes out."""
    monkeypatch.setenv("HTTPS_PROXY", proxy.url(f"{LOGIN}:{PASSWORD}"))
    monkeypatch.delenv("SSL_CERT_FILE")
    text = await refusal(tmp_path, secure.add("/a.bin", CONTENT).url)
    assert "certificate was rejected" in text
    assert len(proxy.asked()) == 1
    assert secure.stats.requests == ()


@pytest.mark.parametrize("exempt", ["127.0.0.1", "example.org, 127.0.0.1:{port}", "*"])
async def test_who_is_exempt_is_asked_directly(
    tmp_path: Path, server: AssetServer, proxy: TinyProxy, monkeypatch: pytest.MonkeyPatch, exempt: str
) -> None:
    """NO_PROXY names hosts, with or without a port, or all of them."""
    monkeypatch.setenv("ALL_PROXY", proxy.url(f"{LOGIN}:{PASSWORD}"))
    monkeypatch.setenv("NO_PROXY", exempt.format(port=server.port))
    await fetch(tmp_path, server.add("/a.bin", CONTENT).url)
    assert proxy.asked() == []
    assert told_to(server, "proxy-authorization") == {None}


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("userinfo", ["", f"{LOGIN}:wrong-{PASSWORD}"], ids=["none", "wrong"])
async def test_a_wrong_password(
    tmp_path: Path, proxy: TinyProxy, monkeypatch: pytest.MonkeyPatch, scheme: str, userinfo: str
) -> None:
    """The error says that it is the proxy, what it wants where that is set, and no password; it comes at once."""
    monkeypatch.setenv("ALL_PROXY", proxy.url(userinfo))
    text = await refusal(tmp_path, f"{scheme}://models.example.org/a.bin")
    assert "the proxy wants another user or password than HTTP_PROXY and HTTPS_PROXY name" in text
    assert PASSWORD not in text
    assert len(proxy.asked()) == 1


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_server_that_wants_credentials_is_not_called_a_proxy(
    tmp_path: Path,
    proxy: TinyProxy,
    server: AssetServer,
    secure: AssetServer,
    monkeypatch: pytest.MonkeyPatch,
    scheme: str,
) -> None:
    """What comes from behind the proxy is told as without one."""
    monkeypatch.setenv("ALL_PROXY", proxy.url(f"{LOGIN}:{PASSWORD}"))
    asked = secure if scheme == "https" else server
    text = await refusal(tmp_path, asked.add("/a.bin", CONTENT, faults=[Status(401)]).url)
    assert "status 401: the server wants credentials" in text
    assert "proxy" not in text


async def test_a_host_that_the_proxy_cannot_reach(
    tmp_path: Path, proxy: TinyProxy, server: AssetServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy's own error is told as what it is, and its page is not taken for the file."""
    monkeypatch.setenv("ALL_PROXY", proxy.url(f"{LOGIN}:{PASSWORD}"))
    await server.refuse_connections()
    assert "status 50" in await refusal(tmp_path, f"http://127.0.0.1:{server.port}/a.bin")
    assert "the proxy answered 50" in await refusal(tmp_path, f"https://127.0.0.1:{server.port}/a.bin")

"""A third party's transport: what it serves is fetched, resumed and verified as if it had come over HTTP."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from grym_fetch import AssetManager, Settings, SyncFailed
from grym_fetch.blocking import AssetManager as BlockingManager
from grym_fetch.core.errors import ConnectionLost, IntegrityError, MirrorsExhausted
from grym_fetch.testing import seeded_bytes
from grym_fetch.transport import BytesResponse, Response, Transport
from tests.support.project import KIB, SMALL, ImpatientClock, Project

CONTENT = seeded_bytes(400 * KIB, seed=3)
URL = "https://store.example/a.bin"


class MemoryTransport:
    """The dozen lines: serves contents by address. ``asked`` has the Range of each request."""

    host = ""

    def __init__(self, contents: Mapping[str, bytes]) -> None:
        self.contents = contents
        self.asked: list[str] = []
        self.closed = 0

    def connection(self) -> MemoryTransport:
        """One connection serves everything."""
        return self

    async def get(self, url: str, fields: Mapping[str, str]) -> Response:
        """Return the range."""
        if url not in self.contents:
            return BytesResponse(404)
        content = memoryview(self.contents[url])
        if "Range" not in fields:
            return BytesResponse(200, {}, content)
        self.asked.append(fields["Range"])
        first, last = map(int, fields["Range"].removeprefix("bytes=").split("-"))
        part = content[first : last + 1]
        return BytesResponse(206, {"Content-Range": f"bytes {first}-{first + len(part) - 1}/{len(content)}"}, part)

    async def aclose(self) -> None:
        """Count it."""
        self.closed += 1


class Breaking(MemoryTransport):
    """The same, but a body breaks off after this many bytes over all bodies, with an error made by ``error``."""

    def __init__(self, contents: Mapping[str, bytes], after: int, error: Callable[[], Exception]) -> None:
        super().__init__(contents)
        self.left = after
        self.error = error

    async def get(self, url: str, fields: Mapping[str, str]) -> Response:
        """Return a body that may break off."""
        return BreakingResponse(self, await super().get(url, fields))


class BreakingResponse:
    """A body that ends before its end."""

    def __init__(self, transport: Breaking, response: Response) -> None:
        self.head = response.head
        self.close = response.close
        self._transport = transport
        self._response = response

    async def readinto(self, buffer: memoryview) -> int:
        """The next bytes, or the error."""
        if not self._transport.left:
            raise self._transport.error()
        count = await self._response.readinto(buffer[: self._transport.left])
        self._transport.left -= count
        return count


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """One pinned asset, not there yet."""
    made = Project(tmp_path)
    made.add("a", [URL], CONTENT)
    return made


def manager_over(transport: Transport, project: Project, **settings: Any) -> AssetManager:
    """A manager that has only this transport."""
    chosen = Settings(sizes=SMALL, retries=0, parallel=2, **settings)
    return AssetManager(project.manifest, settings=chosen, transport=transport, clock=ImpatientClock(), environ={})


async def test_an_asset_from_a_dozen_lines(project: Project) -> None:
    """Content from a transport is fetched in ranges over all its connections, verified and put in place."""
    transport = MemoryTransport({URL: CONTENT})
    async with manager_over(transport, project) as manager:
        path = await manager.get_asset_path("a")
        assert (await manager.check_asset("a", full=True)).valid
    assert path.read_bytes() == CONTENT
    assert len(transport.asked) > 1


async def test_it_is_resumed_where_it_broke_off(project: Project) -> None:
    """Bytes that came before the transport failed are kept, and the next run requests only the rest."""
    breaking = Breaking({URL: CONTENT}, 200 * KIB, lambda: ConnectionLost(URL, "the store hung up"))
    async with manager_over(breaking, project) as manager:
        with pytest.raises(MirrorsExhausted, match="the store hung up"):
            await manager.get_asset_path("a")
    assert project.staged()
    transport = MemoryTransport({URL: CONTENT})
    async with manager_over(transport, project) as manager:
        report = await manager.sync()
    assert report.paths["a"].read_bytes() == CONTENT
    assert report.downloaded_bytes == len(CONTENT) - 200 * KIB
    assert "bytes=0-" not in " ".join(transport.asked)


async def test_what_it_serves_is_not_believed(project: Project) -> None:
    """Wrong bytes of the right length are refused, wherever they come from, and nothing is put in place."""
    wrong = bytes(len(CONTENT))
    async with manager_over(MemoryTransport({URL: wrong}), project) as manager:
        with pytest.raises(IntegrityError):
            await manager.get_asset_path("a")
    assert not project.finals()["a"].exists()


async def test_an_address_it_has_not(project: Project) -> None:
    """Its 404 is a 404."""
    async with manager_over(MemoryTransport({}), project) as manager:
        with pytest.raises(MirrorsExhausted, match="404"):
            await manager.get_asset_path("a")


@pytest.mark.parametrize("call", ["get_asset_path", "sync"])
async def test_a_bug_in_it_is_not_hushed_up(project: Project, call: str) -> None:
    """An unexpected error ends the asset with that error, not with an endless wait."""

    def broken() -> Exception:
        return KeyError("a bug")

    async with manager_over(Breaking({URL: CONTENT}, 100 * KIB, broken), project) as manager:
        with pytest.raises((KeyError, ExceptionGroup)) as caught:
            await (manager.get_asset_path("a") if call == "get_asset_path" else manager.sync())
    assert not isinstance(caught.value, SyncFailed)
    assert not project.finals()["a"].exists()


class Owned(MemoryTransport):
    """Keeps its connections, so that a test can see which are closed."""

    def __init__(self, contents: Mapping[str, bytes]) -> None:
        super().__init__(contents)
        self.connections: list[MemoryTransport] = []

    def connection(self) -> MemoryTransport:
        """A new connection."""
        self.connections.append(MemoryTransport(self.contents))
        return self.connections[-1]


async def test_who_closes_it(project: Project) -> None:
    """The manager owns it: closing the manager closes it, once. A pin asks for no connections of its own."""
    project.add("b", [f"{URL}?b"], CONTENT, pinned=False)
    transport = Owned({URL: CONTENT, f"{URL}?b": CONTENT})
    manager = manager_over(transport, project)
    await manager.pin()
    await manager.get_asset_path("a")
    assert [connection.closed for connection in transport.connections] == [0, 0]
    assert transport.closed == 0
    await manager.aclose()
    assert transport.closed == 1
    assert {connection.closed for connection in transport.connections} == {1}


async def test_one_that_was_not_used_is_closed_too(project: Project) -> None:
    """A transport may hold resources from the beginning."""
    transport = Owned({})
    async with manager_over(transport, project):
        pass
    assert (transport.closed, transport.connections) == (1, [])


def test_the_blocking_manager_takes_one_too(project: Project) -> None:
    """Without ``await`` it is the same argument."""
    with BlockingManager(project.manifest, transport=MemoryTransport({URL: CONTENT}), environ={}) as manager:
        assert manager.get_asset_path("a").read_bytes() == CONTENT


@pytest.mark.parametrize("size", [0, 1, 300_000])
async def test_the_example_in_the_documents_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """The example on the API page fetches an asset of any size, exactly as printed."""
    page = (Path(__file__).parents[1] / "docs/python-api.md").read_text(encoding="utf-8")
    example = re.search(r"^## Another way to the network\n.*?^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert example is not None
    project = Project(tmp_path)
    project.add("audioldm-s-full", [URL], CONTENT[:size])
    monkeypatch.chdir(tmp_path)
    # A block of `async with` at the top level: run as the body of a function that returns its path.
    body = "".join(f"    {line}\n" for line in example[1].splitlines())
    names: dict[str, Any] = {"contents": {URL: CONTENT[:size]}}
    exec(f"async def program():\n{body}    return path\n", names)
    path = await names["program"]()
    assert path.read_bytes() == CONTENT[:size]


async def test_a_response_in_memory() -> None:
    """It gives its body once, in portions as large as the buffer, and tells its length."""
    response = BytesResponse(200, {"ETag": '"x"'}, b"content")
    assert response.head.get("etag") == '"x"'
    assert response.head.get("content-length") == "7"
    buffer = memoryview(bytearray(4))
    taken = b""
    while count := await response.readinto(buffer):
        taken += bytes(buffer[:count])
    assert taken == b"content"
    assert BytesResponse(200, {"Content-Length": "9"}, b"short").head.get("content-length") == "9"

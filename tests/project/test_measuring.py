"""What add and pin measure and share, and what they refuse: clearly no asset, without an end, or over plain http."""

from __future__ import annotations

from pathlib import Path

import pytest

from grym_fetch import MirrorsExhausted, SyncFailed
from grym_fetch.core.digest import Checksum
from grym_fetch.core.manifest import Asset
from grym_fetch.errors import EditRefused, PolicyRefused
from grym_fetch.testing import AssetServer, RawAnswer
from tests.project.editing import CONTENT, SMALL_CONTENT, entries
from tests.support.project import Project

PAGE = b"<!DOCTYPE html><title>Please log in</title>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d" * 32 + b"\nsize 1234567890\n"


async def test_plain_http_is_not_measured(project: Project) -> None:
    """Bytes that anybody on the way could change never become the right ones, in add or in pin."""
    project.add("plain", ["http://h.example/a"], None, pinned=False, size=None)
    async with project.manager() as manager:
        with pytest.raises(PolicyRefused, match="plain http"):
            await manager.add_asset(Asset("b", "http://h.example/b", "b"), fetch=True)
        with pytest.raises(SyncFailed, match="plain http"):
            await manager.pin(["plain"])


@pytest.mark.shows("N21", "S1")
@pytest.mark.parametrize("coding", ["", "Transfer-Encoding: identity\r\n", "Transfer-Encoding: gzip\r\n"])
async def test_what_has_no_end_is_not_pinned(project: Project, server: AssetServer, coding: str) -> None:
    """If nothing says where the content ends, it may have been cut: neither pin nor add accepts it as right."""
    raw = RawAnswer(f"HTTP/1.1 200 OK\r\n{coding}Connection: close\r\n\r\n".encode() + CONTENT[:1000])
    url = server.add("/u.bin", CONTENT, faults=[raw]).url
    project.add("u", [url], None, pinned=False, size=None)
    async with project.manager(retries=0) as manager:
        with pytest.raises(SyncFailed):
            await manager.pin(["u"])
        with pytest.raises(MirrorsExhausted):
            await manager.add_asset(Asset("new", url, "m/new.bin"), fetch=True)
    assert "checksum" not in entries(project)["u"]
    assert "new" not in entries(project)
    assert not list(project.assets.glob("m*/*"))


@pytest.mark.shows("C13")
@pytest.mark.parametrize(
    ("content", "named"), [(PAGE, "a web page"), (POINTER, "stands for 1,234,567,890 bytes"), (b"", "an empty file")]
)
async def test_what_is_plainly_not_an_asset(
    project: Project, server: AssetServer, tmp_path: Path, content: bytes, named: str
) -> None:
    """It is neither added nor pinned, and the fetched bytes are deleted; a file of the user's own stays."""
    url = server.add("/x.bin", content).url
    place = project.assets / "models" / "x.bin"
    own = tmp_path / "own.bin"
    own.write_bytes(content)
    async with project.manager() as manager:
        for file in [None] if content == POINTER else [None, own]:  # what a pointer stands for can be added
            with pytest.raises(EditRefused, match=f"{named}.*--allow-suspicious"):
                await manager.add_asset(Asset("x", url, "models/x.bin"), fetch=file is None, file=file)
        assert not place.exists()
        assert own.exists()
        assert "x" not in entries(project)
    project.add("x", [url], content, pinned=False, size=None)
    async with project.manager() as manager:
        with pytest.raises(SyncFailed, match=named):
            await manager.pin()
        assert not place.exists()
        await manager.pin(allow_suspicious=True)
    assert place.read_bytes() == content
    assert entries(project)["x"]["checksum"] == Checksum.of(content).bare


@pytest.mark.shows("C13")
@pytest.mark.parametrize("is_there", [False, True])
async def test_nothing_that_is_refused_is_told_to_be_there(
    project: Project, server: AssetServer, is_there: bool
) -> None:
    """An asset refused for its content has failed, once, and no event says that it is verified or reused."""
    path = project.add("x", [server.add("/x.bin", PAGE).url], PAGE, pinned=False, size=None)
    if is_there:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PAGE)
    async with project.manager() as manager, manager.events() as events:
        with pytest.raises(SyncFailed, match="web page"):
            await manager.pin()
        if not is_there:
            with pytest.raises(EditRefused, match="web page"):
                await manager.add_asset(Asset("y", server.url("/x.bin"), "y.bin"), fetch=True)
        kinds = [event.type for event in events.drain()]
    assert not {"asset_verified", "asset_reused"} & set(kinds)
    assert kinds.count("asset_failed") == (1 if is_there else 2)
    assert path.exists() is is_there


@pytest.mark.shows("C13")
async def test_what_is_suspicious_and_wanted(project: Project, server: AssetServer) -> None:
    """Such content is accepted on request; an asset whose checksum was known before is not questioned."""
    url = server.add("/x.bin", PAGE).url
    async with project.manager() as manager:
        added = await manager.add_asset(Asset("x", url, "x.bin"), fetch=True, allow_suspicious=True)
        assert added.checksum == Checksum.of(PAGE)
        known = Asset("y", url, "y.bin", checksum=Checksum.of(PAGE))
        assert (await manager.add_asset(known, fetch=True)).size == len(PAGE)


async def test_what_was_measured_is_shared(project: Project, server: AssetServer, tmp_path: Path) -> None:
    """What `add`, `pin` and `pin --update` have fetched is in the machine's store at once, under the digest found."""
    store = tmp_path / "store"
    new = server.add("/new.bin", CONTENT)
    project.add("old", [server.add("/old.bin", SMALL_CONTENT).url], SMALL_CONTENT, pinned=False, size=False)
    async with project.manager(store=str(store)) as manager:
        await manager.add_asset(Asset("new", new.url, "models/new.bin"), fetch=True)
        await manager.pin(["old"])
        assert {path.name for path in (store / "objects").rglob("*") if path.is_file()} == {
            Checksum.of(content).hexdigest for content in (CONTENT, SMALL_CONTENT)
        }
        server.add("/new.bin", SMALL_CONTENT * 2)
        await manager.pin(["new"], update=True)
    newest = Checksum.of(SMALL_CONTENT * 2).hexdigest
    assert len(list((store / "objects").rglob(newest))) == 1

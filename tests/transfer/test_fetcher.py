"""What a delivery may do; how it does it is in the tests of its parts."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from grym_fetch import IntegrityError, StorageError, SyncFailed
from grym_fetch.core.content_hasher import PieceSummer
from grym_fetch.core.digest import Checksum
from grym_fetch.core.piece_digests import MIB, PieceSums
from grym_fetch.disk.piece_sums import PieceSumsStore
from grym_fetch.disk.state import StateFolder
from grym_fetch.disk.verified import FileSignature, ReplacedMeanwhile
from grym_fetch.errors import AssetMissing
from grym_fetch.testing import AssetServer, seeded_bytes
from grym_fetch.transfer.small_files import MIN_SMALL_FILES
from tests.support.project import Project

CONTENT = b"some bytes"
PAGE = b"<!doctype html><html>Log in</html>"


@pytest.fixture
def project(tmp_path: Path, server: AssetServer) -> Project:
    """As many small assets as are fetched in one turn."""
    made = Project(tmp_path / "project")
    for number in range(MIN_SMALL_FILES):
        name = f"a{number}"
        made.add(name, [server.add(f"/{name}", CONTENT + bytes([number])).url], CONTENT + bytes([number]))
    return made


async def test_offline_nothing_is_asked(project: Project, server: AssetServer) -> None:
    """Nothing is requested, however many assets are missing and however small they are."""
    async with project.manager(offline=True) as manager:
        with pytest.raises(SyncFailed) as caught:
            await manager.sync()
    assert {type(error) for error in caught.value.failures.values()} == {AssetMissing}
    assert len(caught.value.failures) == MIN_SMALL_FILES
    assert not server.stats.requests


async def test_offline_a_wrong_file_is_called_wrong(project: Project, server: AssetServer) -> None:
    """A wrong file is present, so it is not missing; and it stays."""
    path = project.assets / "models" / "a0.bin"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x" * (len(CONTENT) + 1))
    async with project.manager(offline=True) as manager:
        with pytest.raises(IntegrityError, match="--offline forbids fetching it again"):
            await manager.download_asset("a0")
        with pytest.raises(AssetMissing, match="--force fetches it whatever is there, and --offline forbids that"):
            await manager.download_asset("a0", force=True)
    assert path.read_bytes() == b"x" * (len(CONTENT) + 1)
    assert not server.stats.requests


@pytest.mark.shows("C1")
@pytest.mark.parametrize(
    ("content", "size", "said"),
    [
        (PAGE, None, "loose: this is a web page: a login, an error page or a captive portal?"),
        (b"", None, "loose: this is an empty file"),
        (PAGE, len(PAGE), None),
        (CONTENT, None, None),
    ],
    ids=["page", "empty", "a size that fits", "content"],
)
async def test_a_page_is_called_one_where_nothing_else_can_tell(
    project: Project,
    server: AssetServer,
    caplog: pytest.LogCaptureFixture,
    content: bytes,
    size: int | None,
    said: str | None,
) -> None:
    """Without a checksum and a size, a login page is put in place like any file: it is said, each time it is used."""
    project.add("loose", [server.add("/loose", content).url], content, pinned=False, size=size)
    async with project.manager(allow_unpinned=True) as manager:
        for _ in range(2):
            caplog.clear()
            await manager.get_asset_path("loose")
            assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == (
                [said] if said else []
            )


async def test_small_files_are_remembered_as_verified(project: Project, server: AssetServer) -> None:
    """The next process reads none of them again."""
    async with project.manager() as manager:
        await manager.sync()
    async with project.manager() as manager:
        assert [manager.state_of(asset) for asset in manager.manifest.assets] == ["verified"] * MIN_SMALL_FILES
    assert len(server.stats.requests) == MIN_SMALL_FILES


@pytest.mark.posix
@pytest.mark.shows("S1", "S14")
@pytest.mark.parametrize("there", [CONTENT, b"evil bytes"], ids=["the same", "another"])
async def test_what_took_the_name_meanwhile_counts_once_it_is_hashed(
    tmp_path: Path, server: AssetServer, monkeypatch: pytest.MonkeyPatch, there: bytes
) -> None:
    """Where locks do nothing, two processes may put one file in place: the second one's is not trusted unread."""
    project = Project(tmp_path / "project")
    path = project.add("a", [server.add("/a", CONTENT).url], CONTENT)

    def replaced(*_: object) -> FileSignature:
        path.unlink()
        path.write_bytes(there)
        raise ReplacedMeanwhile(str(path), "somebody else replaced this file")

    monkeypatch.setattr("grym_fetch.disk.stage.signature_in_place", replaced)
    async with project.manager() as manager:
        if there == CONTENT:
            assert await manager.get_asset_path("a") == path
        else:
            with pytest.raises(StorageError, match="somebody else replaced"):
                await manager.get_asset_path("a")


async def test_what_was_fetched_leaves_the_sums_of_its_pieces(tmp_path: Path, server: AssetServer) -> None:
    """The same holds for a file put there by somebody else, once it was read and found right."""
    content = seeded_bytes(2 * MIB + 5, seed=91)
    summer = PieceSummer(MIB)
    summer.update(content)
    project = Project.with_one_asset(tmp_path / "project", server, content)
    for is_there in (False, True):
        if is_there:
            shutil.rmtree(project.assets / ".grym-fetch")
        async with project.manager() as manager:
            await manager.download_asset("a")
        sums = PieceSumsStore(StateFolder(project.assets)).find(Checksum.of(content))
        assert sums == PieceSums(MIB, summer.digests()), is_there
    assert server.stats.body_bytes_sent < 2 * len(content)

"""Removing assets through the manager: their entries and, on request, their files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from grym_fetch import MirrorsExhausted, UnknownAsset
from grym_fetch.cli.main import cli
from grym_fetch.errors import UnsafePath
from grym_fetch.project.removing import deletable
from grym_fetch.testing import AssetServer, Reset
from tests.project.editing import CONTENT, SMALL_CONTENT, entries
from tests.support.archives import zip_of
from tests.support.project import KIB, Project


async def test_remove(project: Project) -> None:
    """A removed asset is unknown from then on; its file stays unless its deletion is requested."""
    async with project.manager() as manager:
        path = await manager.get_asset_path("a")
        assert await manager.remove_asset("a") == ()
        with pytest.raises(UnknownAsset):
            await manager.get_asset_path("a")
        with pytest.raises(UnknownAsset):
            await manager.remove_asset("a")
    assert path.exists()
    assert entries(project) == {}


async def test_remove_with_its_files(project: Project, server: AssetServer) -> None:
    """The file and its stand-in are deleted; files of other assets and of the external folder are not."""
    file = server.add("/s.bin", SMALL_CONTENT)
    place = project.add("s", [file.url], SMALL_CONTENT, minimal={"url": file.url, "checksum": file.sha256})
    async with project.manager() as manager:
        other = await manager.get_asset_path("a")
        await manager.get_asset_path("s")
        [stand_in] = (await manager.sync(["s"], minimal=True)).paths.values()
        external = manager.project.external_dir / "models/s.bin"
        external.parent.mkdir(parents=True)
        external.write_bytes(SMALL_CONTENT)
        assert set(await manager.remove_asset("s", delete_file=True)) == {place, stand_in}
    assert not place.exists()
    assert not stand_in.exists()
    assert other.exists()
    assert external.exists()


@pytest.mark.posix
async def test_remove_follows_no_symlink(project: Project, tmp_path: Path) -> None:
    """A folder replaced by a symlink does not lead to deleting something elsewhere."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.bin").write_bytes(b"mine")
    project.assets.mkdir(parents=True)
    (project.assets / "models").symlink_to(outside)
    async with project.manager() as manager:
        with pytest.raises(UnsafePath):
            await manager.remove_asset("a", delete_file=True)
    assert (outside / "a.bin").exists()


async def test_remove_drops_no_entry_whose_file_stays(project: Project) -> None:
    """If the file can be seen not to be deletable, nothing changes: nobody would know of it any more."""
    (project.assets / "models/a.bin").mkdir(parents=True)
    async with project.manager() as manager:
        with pytest.raises(UnsafePath, match="a folder is in the way"):
            await manager.remove_asset("a", delete_file=True)
        assert manager.manifest.get("a").id == "a"
    assert set(entries(project)) == {"a"}


async def test_prune_leaves_what_is_under_way(project: Project, server: AssetServer) -> None:
    """The stage of a running manager stays; prune reports how many there are."""
    server.add("/a.bin", CONTENT, faults=[Reset(after=0, covering=200 * KIB)])
    async with project.manager(retries=0) as manager:
        with pytest.raises(MirrorsExhausted):
            await manager.download_asset("a")
        report = await manager.prune()
        assert report.in_use == 1
        assert len(project.staged()) == 1
    assert os.listdir(project.assets / ".grym-fetch" / "locks") == []


async def test_what_was_unpacked_is_deletable_too(project: Project, server: AssetServer) -> None:
    """The files, stand-ins and unpacked folders to be deleted are known before, and reported afterwards."""
    archive = zip_of({"a.txt": b"a"})
    file = server.add("/set.zip", archive)
    tiny = {"url": server.add("/tiny.zip", archive).url, "checksum": file.sha256}
    project.add("set", [file.url], archive, localPath="sets/set.zip", extract=True, minimal=tiny)
    async with project.manager() as manager:
        asset = manager.manifest.get("set")
        assert deletable(project.assets, asset) == []
        await manager.sync(["set"], minimal=True)
        stand_in = [project.assets / "minimal/sets" / name for name in ("set.zip", "set")]
        assert deletable(project.assets, asset) == stand_in
        await manager.sync(["set"], minimal=False)
        expected = {*stand_in, project.assets / "sets/set.zip", project.assets / "sets/set"}
        assert set(deletable(project.assets, asset)) == expected
        assert set(await manager.remove_asset("set", delete_file=True)) == expected
    assert not any(path.exists() for path in expected)


def test_nothing_is_deleted_unasked(tmp_path: Path) -> None:
    """The question comes even if only a stand-in is present."""
    project = Project(tmp_path)
    project.add("a", ["https://models.example.org/a.bin"], CONTENT, minimal={"url": "https://models.example.org/t.bin"})
    stand_in = project.assets / "minimal/models/a.bin"
    stand_in.parent.mkdir(parents=True)
    stand_in.write_bytes(b"tiny")
    command = ["remove", "a", "--delete-file", "--config", str(project.manifest)]
    done = CliRunner().invoke(cli, command, standalone_mode=True)
    assert done.exit_code == 2
    assert "pass --yes" in done.output
    assert stand_in.exists()

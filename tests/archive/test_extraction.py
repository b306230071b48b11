"""``"extract": true`` as an application sees it: through `AssetManager`, from a server to a folder."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest

from grym_fetch import SyncFailed
from grym_fetch.cli import exit_codes
from grym_fetch.errors import UnsafeArchive
from grym_fetch.testing import AssetServer, seeded_bytes
from tests.support.archives import zip_of
from tests.support.invariants import Recorder
from tests.support.project import Project

INSIDE = {"voice/a.wav": seeded_bytes(300_000, seed=1), "LICENSE": seeded_bytes(100, seed=2)}
NEWER = {"voice/b.wav": seeded_bytes(200_000, seed=3)}


def tar_of(files: dict[str, bytes]) -> bytes:
    """A tar of these files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    return gzip.compress(out.getvalue(), mtime=0)


def read(tree: Path) -> dict[str, bytes]:
    """The contents of a folder."""
    return {path.relative_to(tree).as_posix(): path.read_bytes() for path in tree.rglob("*") if path.is_file()}


def looks_of(tree: Path) -> dict[Path, tuple[int, ...]]:
    """What changes if a file or folder is written to or replaced; the time of the last read is not included."""
    found = {path: path.lstat() for path in tree.rglob("*")}
    return {path: (look.st_ino, look.st_mode, look.st_size, look.st_ctime_ns) for path, look in found.items()}


def offer(
    project: Project, server: AssetServer, content: bytes, ending: str = "tar.gz", minimal: object = None
) -> Path:
    """Serve an archive and list it as to be unpacked; return the folder it belongs in."""
    url = server.add(f"/voices.{ending}", content).url
    project.add("voices", [url], content, localPath=f"sets/voices.{ending}", extract=True, minimal=minimal)
    return project.assets / "sets" / "voices"


async def test_a_download_is_unpacked(project: Project, server: AssetServer) -> None:
    """Archive and tree are there when the path is returned, and one event ends it, after unpacking."""
    tree = offer(project, server, tar_of(INSIDE))
    async with project.manager() as manager:
        recorder = Recorder(manager)
        path = await manager.get_asset_path("voices")
        assert path == project.assets / "sets" / "voices.tar.gz"
        assert read(tree) == INSIDE
        report = await manager.sync()
        assert report.reused == ("voices",)
    assert [e.type for e in recorder.events if e.type.startswith("asset_v")][-1] == "asset_verified"
    assert len(recorder.of("asset_verified")) == 1


async def test_an_unchanged_tree_stays(project: Project, server: AssetServer) -> None:
    """The next run requests nothing from the server and touches no file."""
    tree = offer(project, server, zip_of(INSIDE), "zip")
    async with project.manager() as manager:
        await manager.sync()
    looks = looks_of(tree)
    requests = len(server.stats.requests)
    async with project.manager() as manager:
        await manager.get_asset_path("voices")
    assert looks_of(tree) == looks
    assert len(server.stats.requests) == requests


async def test_a_missing_tree_is_made_again(project: Project, server: AssetServer) -> None:
    """A deleted or damaged tree is restored from the archive that is there, even offline."""
    tree = offer(project, server, tar_of(INSIDE))
    async with project.manager() as manager:
        await manager.sync()
    (tree / "LICENSE").unlink()
    sent = server.stats.body_bytes_sent
    async with project.manager(offline=True) as manager:
        await manager.sync()
    assert read(tree) == INSIDE
    assert server.stats.body_bytes_sent == sent


async def test_a_tree_is_looked_at(project: Project, server: AssetServer) -> None:
    """An archive whose tree is gone or damaged is neither valid nor verified, and the reason is given."""
    tree = offer(project, server, tar_of(INSIDE))
    async with project.manager() as manager:
        await manager.sync()
        asset = manager.manifest.get("voices")
        assert (await manager.check_asset("voices")).valid
        assert manager.state_of(asset) == "verified"
        (tree / "LICENSE").write_bytes(b"another licence")
        status = await manager.check_asset("voices")
        assert (status.exists, status.valid, status.error) == (False, False, "not unpacked")
        assert manager.state_of(asset) == "partial"
        tree.rename(tree.with_name("gone"))
        assert not (await manager.check_asset("voices", full=True)).valid


async def test_a_new_version_replaces_the_tree(project: Project, server: AssetServer) -> None:
    """Another checksum in the manifest brings another archive and its tree, and nothing of the old one stays."""
    tree = offer(project, server, tar_of(INSIDE))
    async with project.manager() as manager:
        await manager.sync()
    offer(project, server, tar_of(NEWER))
    async with project.manager() as manager:
        await manager.sync()
    assert read(tree) == NEWER


async def test_an_archive_in_the_external_folder(project: Project, server: AssetServer) -> None:
    """An archive in the external folder stays there; its tree goes to the assets folder."""
    tree = offer(project, server, tar_of(INSIDE))
    outside = project.root.parent / "assets" / "sets" / "voices.tar.gz"
    outside.parent.mkdir(parents=True)
    outside.write_bytes(tar_of(INSIDE))
    async with project.manager() as manager:
        assert await manager.get_asset_path("voices") == outside
    assert read(tree) == INSIDE
    assert not server.stats.requests


async def test_an_unsafe_archive(project: Project, server: AssetServer) -> None:
    """A hostile archive, though its checksum is right, fails its asset with an integrity error, and stays inside."""
    tree = offer(project, server, tar_of({"../escape": b"x"}))
    async with project.manager() as manager:
        recorder = Recorder(manager)
        with pytest.raises(SyncFailed) as caught:
            await manager.sync()
    error = caught.value.failures["voices"]
    assert isinstance(error, UnsafeArchive)
    assert exit_codes.exit_code(caught.value) == exit_codes.INTEGRITY
    assert not tree.exists()
    assert not (project.assets / "sets" / "escape").exists()
    assert [event["error"] for event in recorder.of("asset_failed")] == ["UnsafeArchive"]
    assert not recorder.of("asset_verified")


async def test_a_stand_in_is_unpacked_apart(project: Project, server: AssetServer) -> None:
    """The stand-in of an archive is unpacked too, in a place of its own, so it is not taken for the full set."""
    small = tar_of(NEWER)
    url = server.add("/small.tar.gz", small).url
    tree = offer(project, server, tar_of(INSIDE), minimal={"url": url, "size": len(small), "checksum": None})
    async with project.manager(allow_unpinned=True) as manager:
        await manager.sync(minimal=True)
    assert read(project.assets / "minimal" / "sets" / "voices") == NEWER
    assert not tree.exists()


async def test_a_file_that_is_not_to_be_unpacked(project: Project, server: AssetServer) -> None:
    """Without the key, an archive is an ordinary file."""
    tree = offer(project, server, tar_of(INSIDE))
    project.entries[0]["extract"] = json.loads("false")
    project.write()
    async with project.manager() as manager:
        await manager.sync()
    assert not tree.exists()


async def test_unpacking_and_comparing_are_told(
    project: Project, server: AssetServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An archive takes minutes to unpack, and as long to be compared: events say how much of it was read."""
    monkeypatch.setattr("grym_fetch.archive.reader.TOLD_EVERY_BYTES", 100_000)
    offer(project, server, tar_of(INSIDE))
    async with project.manager() as manager:
        for work in (manager.sync(), manager.check_asset("voices", full=True)):
            recorder = Recorder(manager)
            await work
            await manager._bus.settle()
            told = [event for event in recorder.of("asset_verifying") if event.get("unpacking")]
            assert told[0]["bytes"] == 0
            assert len(told) >= 3
            assert all(event["total"] == len(tar_of(INSIDE)) for event in told)
            assert recorder.events[-1].type in ("run_finished", "asset_reused")

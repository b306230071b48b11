"""Adding assets through the manager: first the file, then its entry, and nothing is overwritten."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from grym_fetch import GrymFetchError, ManifestError, MirrorsExhausted
from grym_fetch.core.digest import Checksum
from grym_fetch.core.manifest import Asset
from grym_fetch.errors import DigestMismatch, EditRefused, UnsafePath
from grym_fetch.events import AssetReused
from grym_fetch.project.measuring import Measurer
from grym_fetch.testing import AssetServer, Reset, Status
from tests.project.editing import CONTENT, entries
from tests.support.invariants import Recorder
from tests.support.project import KIB, Project


async def test_add_an_entry(project: Project) -> None:
    """An added asset is in the file and in the manager, and is fetched like any other."""
    url = entries(project)["a"]["url"]
    async with project.manager() as manager:
        asset = Asset("b", str(url), "m/b.bin", checksum=Checksum.of(CONTENT), tags=("t",))
        added = await manager.add_asset(asset)
        assert added.id == "b"
        assert (await manager.get_asset_path("b")).read_bytes() == CONTENT
    assert entries(project)["b"]["checksum"] == Checksum.of(CONTENT).hexdigest
    assert "updated" in json.loads(project.manifest.read_bytes())


async def test_add_what_is_fetched(project: Project, server: AssetServer) -> None:
    """A fetched asset is in its place, listed with its checksum and size, and verified without another read."""
    url = server.add("/new.bin", CONTENT).url
    async with project.manager() as manager:
        recorder = Recorder(manager)
        added = await manager.add_asset(Asset("new", url, "m/new.bin"), fetch=True)
        assert (added.checksum, added.size) == (Checksum.of(CONTENT), len(CONTENT))
        assert manager.state_of(added) == "verified"
    recorder.check()
    assert (project.assets / "m/new.bin").read_bytes() == CONTENT


async def test_a_mirror_is_asked_only_where_the_address_fails(project: Project, server: AssetServer) -> None:
    """An asset is measured at its own address, and at a mirror if that cannot be fetched."""
    file, mirror = server.add("/new.bin", CONTENT), server.add("/mirror.bin", CONTENT)
    asset = Asset("new", file.url, "m/new.bin", fallback_urls=(mirror.url,))
    async with project.manager() as manager:
        await manager.add_asset(asset, fetch=True)
        assert not server.stats.of("/mirror.bin").requests
        file.faults = (Status(404),)
        await manager.add_asset(replace(asset, id="other", local_path="m/other.bin"), fetch=True)
    assert server.stats.of("/mirror.bin").requests
    assert entries(project)["other"]["checksum"] == Checksum.of(CONTENT).hexdigest


async def test_adding_is_resumed(project: Project, server: AssetServer) -> None:
    """Bytes fetched by a failed add are not fetched again by the next one."""
    file = server.add("/new.bin", CONTENT, faults=[Reset(after=0, covering=200 * KIB)])
    asset = Asset("new", file.url, "m/new.bin")
    async with project.manager(retries=0, parallel=1) as manager:
        with pytest.raises(MirrorsExhausted):
            await manager.add_asset(asset, fetch=True)
    assert "new" not in entries(project)
    file.faults = ()
    before = server.stats.body_bytes_sent
    async with project.manager() as manager:
        await manager.add_asset(asset, fetch=True)
    assert server.stats.body_bytes_sent - before < len(CONTENT)
    assert (project.assets / "m/new.bin").read_bytes() == CONTENT


async def test_a_file_in_the_way_is_not_written_over(project: Project, server: AssetServer) -> None:
    """A file where a new asset would go belongs to somebody: it stays, and the error says what to do."""
    place = project.assets / "mine.bin"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"mine")
    async with project.manager() as manager:
        with pytest.raises(ManifestError, match="--url"):
            await manager.add_asset(Asset("new", server.add("/n", CONTENT).url, "mine.bin"), fetch=True)
    assert place.read_bytes() == b"mine"
    assert "new" not in entries(project)


async def test_add_a_file(project: Project, tmp_path: Path) -> None:
    """A file from elsewhere is measured and copied into its place; the original stays."""
    file = tmp_path / "original.bin"
    file.write_bytes(CONTENT)
    async with project.manager() as manager:
        async with manager.events() as events:
            added = await manager.add_asset(Asset("b", "https://h.example/b", "m/b.bin"), file=file)
            end = events.drain()[-1]
        assert manager.state_of(added) == "verified"
    assert isinstance(end, AssetReused)
    assert (end.taken_from, end.link, end.unverified) == (str(file), "copy", True)
    assert (project.assets / "m/b.bin").read_bytes() == file.read_bytes() == CONTENT
    assert entries(project)["b"]["size"] == len(CONTENT)
    assert project.staged() == []


async def test_add_a_file_that_is_in_its_place(project: Project) -> None:
    """A file that is already where the asset belongs is measured and left as it is."""
    place = project.assets / "m" / "b.bin"
    place.parent.mkdir(parents=True)
    place.write_bytes(CONTENT)
    figures = place.stat()
    async with project.manager() as manager:
        await manager.add_asset(Asset("b", "https://h.example/b", "m/b.bin"), file=place)
    assert place.stat().st_ino == figures.st_ino
    assert entries(project)["b"]["checksum"] == Checksum.of(CONTENT).hexdigest


async def test_add_a_file_where_another_one_is(project: Project, tmp_path: Path) -> None:
    """A different file in the asset's place is not overwritten; one with the same bytes is accepted."""
    file, place = tmp_path / "original.bin", project.assets / "b.bin"
    file.write_bytes(CONTENT)
    place.parent.mkdir(parents=True)
    place.write_bytes(b"another")
    asset = Asset("b", "https://h.example/b", "b.bin")
    async with project.manager() as manager:
        with pytest.raises(UnsafePath, match="another file"):
            await manager.add_asset(asset, file=file)
        assert place.read_bytes() == b"another"
        place.write_bytes(CONTENT)
        await manager.add_asset(asset, file=file)
    assert "b" in entries(project)


async def test_add_a_file_that_is_not_what_was_said(project: Project, tmp_path: Path) -> None:
    """A file whose checksum differs from the given one is refused, and neither copied nor listed."""
    file = tmp_path / "original.bin"
    file.write_bytes(CONTENT)
    asset = Asset("b", "https://h.example/b", "b.bin", checksum=Checksum.of(b"other", "sha512"))
    async with project.manager() as manager:
        with pytest.raises(DigestMismatch):
            await manager.add_asset(asset, file=file)
    assert not (project.assets / "b.bin").exists()
    assert "b" not in entries(project)


async def test_a_copy_that_is_broken_off_leaves_nothing(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that changes while it is copied is refused, and no part of the copy stays."""
    file = tmp_path / "original.bin"
    file.write_bytes(CONTENT)
    async with project.manager() as manager:
        real = Measurer.measure

        async def measure_and_change(self: Measurer, asset: Asset, path: Path) -> object:
            measured = await real(self, asset, path)
            path.write_bytes(CONTENT[::-1])  # noqa: ASYNC240 - at this very moment
            return measured

        monkeypatch.setattr(Measurer, "measure", measure_and_change)
        with pytest.raises(GrymFetchError, match="changed while"):
            await manager.add_asset(Asset("b", "https://h.example/b", "b.bin"), file=file)
    assert not (project.assets / "b.bin").exists()
    assert project.staged() == []


async def test_a_pointer_stands_for_its_content(project: Project, tmp_path: Path, server: AssetServer) -> None:
    """A git-lfs pointer has the digest and the size, so nothing is fetched before it is needed."""
    checksum = Checksum.of(CONTENT)
    pointer = tmp_path / "pointer"
    pointer.write_text(f"version https://git-lfs.github.com/spec/v1\noid {checksum}\nsize {len(CONTENT)}\n")
    asset = Asset("big", server.add("/big.bin", CONTENT).url, "m/big.bin")
    async with project.manager() as manager:
        added = await manager.add_asset(asset, file=pointer)
        assert (added.checksum, added.size) == (checksum, len(CONTENT))
        assert not server.stats.requests
        assert (await manager.get_asset_path("big")).read_bytes() == CONTENT
        other = Asset("other", asset.url, "m/other.bin", checksum=Checksum.of(b"other"))
        with pytest.raises(DigestMismatch):
            await manager.add_asset(other, file=pointer)


async def test_a_pointer_beside_a_repository(project: Project, tmp_path: Path) -> None:
    """Pointer and repository together say where the content is; a file that is no pointer does not."""
    checksum = Checksum.of(CONTENT)
    pointer = tmp_path / "pointer"
    pointer.write_text(f"version https://git-lfs.github.com/spec/v1\noid {checksum}\nsize {len(CONTENT)}\n")
    asset = Asset("big", "git-lfs:https://git.example/org/model", "m/big.bin")
    async with project.manager() as manager:
        added = await manager.add_asset(asset, file=pointer)
        digits = checksum.hexdigest
        assert added.url == f"lfs://git.example/org/model.git/info/lfs/{digits}/{len(CONTENT)}"
        assert (added.checksum, added.size) == (checksum, len(CONTENT))
        pointer.write_bytes(CONTENT)
        with pytest.raises(EditRefused, match="the file is not a pointer"):
            await manager.add_asset(replace(asset, id="other", local_path="other.bin"), file=pointer)

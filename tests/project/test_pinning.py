"""Pinning through the manager: present files are hashed, others are fetched, and each is written at once."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest

from grym_fetch import AssetManager, MirrorsExhausted, SyncFailed, UnknownAsset
from grym_fetch.core.digest import Checksum
from grym_fetch.core.manifest import ManifestSource
from grym_fetch.core.manifest_parser import ParsedManifest
from grym_fetch.errors import DiskFull, StorageError
from grym_fetch.events import AssetPlanned
from grym_fetch.manifest_files.changes import Change, edit_manifest
from grym_fetch.project.pinning import _Record
from grym_fetch.reports import NewerVersion, Pinned
from grym_fetch.testing import AssetServer, Gate, Hold, Reset, Status, seeded_bytes
from tests.project.editing import CONTENT, SMALL_CONTENT, entries
from tests.support.invariants import Recorder
from tests.support.project import KIB, Project


async def test_a_cancellation_while_another_one_has_just_written_is_a_cancellation(project: Project) -> None:
    """The other's turn has written this one's entry as well, and nothing is left in the queue."""
    url = str(entries(project)["a"]["url"])
    for name in ("b", "c"):
        path = project.add(name, [url], CONTENT, pinned=False, size=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(CONTENT)
    async with project.manager() as manager, manager._editing() as editor:
        pinner = editor.pinner
        assets = [manager.manifest.get(name) for name in ("b", "c")]
        found = [await editor.measurer.measure(asset, project.assets / asset.local_path) for asset in assets]

        def has_written(_: object) -> None:
            asyncio.get_running_loop().call_soon(second.cancel)

        async with pinner._writing:
            first, second = (
                asyncio.create_task(pinner._record(_Record(asset, measured), has_written))
                for asset, measured in zip(assets, found, strict=True)
            )
            await asyncio.sleep(0)
        await first
        with pytest.raises(asyncio.CancelledError):
            await second
    assert entries(project)["b"]["checksum"] == entries(project)["c"]["checksum"] == Checksum.of(CONTENT).hexdigest


async def test_a_pin_shares_the_connections_of_a_sync(project: Project, server: AssetServer) -> None:
    """Never more than ``parallel`` are open, whatever a manager does at the same time."""
    gate = Gate()
    for name in ("a", "b"):
        project.add(name, [server.add(f"/{name}", CONTENT, faults=[Hold(gate, at=1)]).url], CONTENT)
    project.add("u", [server.add("/u", CONTENT).url], CONTENT, pinned=False, size=None)
    async with project.manager(parallel=2, stall_timeout=30.0) as manager, manager.events() as events:
        sync = asyncio.create_task(manager.sync(["a", "b"]))
        await server.stats.until(lambda stats: stats.requests_in_flight == 2)
        pin = asyncio.create_task(manager.pin(["u"]))
        async for event in events:
            if isinstance(event, AssetPlanned) and event.asset == "u":
                break
        gate.open()
        await asyncio.gather(sync, pin)
    assert server.stats.most_open_connections == 2


async def test_what_is_pinned_ends_with_the_manager(project: Project, server: AssetServer) -> None:
    """Closing a manager ends the downloads of a pin as those of a sync, and their connections."""
    url = server.add("/u", CONTENT, faults=[Hold(Gate(), at=1)]).url
    project.add("u", [url], CONTENT, pinned=False, size=None)
    async with project.manager(stall_timeout=30.0) as manager:
        pin = asyncio.create_task(manager.pin())
        await server.stats.until(lambda stats: stats.requests_in_flight == 1)
    with pytest.raises(asyncio.CancelledError):
        await pin
    await server.stats.until(lambda stats: stats.connections_open == 0)


@pytest.mark.parametrize("more", [{"pieces": True}, {"minimal": True}], ids=str)
async def test_what_an_update_does_not_do_is_refused(
    project: Project, server: AssetServer, more: dict[str, bool]
) -> None:
    """As on the command line: it would fetch the full assets, and write no pieces."""
    manager = AssetManager(project.manifest, minimal=more.get("minimal", False), environ={})
    async with manager:
        with pytest.raises(ValueError, match="neither pieces nor minimal"):
            await manager.pin(update=True, pieces=more.get("pieces", False))
    assert not server.stats.requests


async def test_pin_fetches_what_is_not_there(project: Project, server: AssetServer) -> None:
    """An unpinned asset is fetched, its checksum and size are written, and the next sync has nothing to do."""
    project.add("u", [server.add("/u.bin", CONTENT).url], CONTENT, pinned=False, size=None)
    async with project.manager() as manager:
        recorder = Recorder(manager)
        [pinned] = (await manager.pin()).pinned
        recorder.check()
        assert [(event["verified"], event["unverified"]) for event in recorder.of("run_finished")] == [(0, 1)]
        assert (pinned.id, pinned.checksum, pinned.size, pinned.fetched) == ("u", Checksum.of(CONTENT), 307200, True)
        requests = len(server.stats.requests)
        assert manager.state_of(manager.manifest.get("u")) == "verified"
        await manager.sync(["u"])
        assert len(server.stats.requests) == requests
        assert not (await manager.pin()).pinned
    assert entries(project)["u"]["checksum"] == Checksum.of(CONTENT).hexdigest
    assert entries(project)["u"]["size"] == len(CONTENT)


async def test_pin_hashes_what_is_there(project: Project, server: AssetServer) -> None:
    """A file that is present is measured as it is, and no server is asked for it."""
    place = project.add("u", [server.add("/u.bin", b"something else").url], None, pinned=False, size=None)
    place.parent.mkdir(parents=True)
    place.write_bytes(CONTENT)
    async with project.manager(offline=True) as manager:
        [pinned] = (await manager.pin(["u"])).pinned
    assert not pinned.fetched
    assert pinned.checksum == Checksum.of(CONTENT)
    assert not server.stats.requests


async def test_pin_goes_on_past_a_failure(project: Project, server: AssetServer) -> None:
    """Whatever can be pinned is pinned; failures are reported at the end with their reasons."""
    project.add("bad", [server.add("/bad", CONTENT, faults=[Status(404)]).url], None, pinned=False, size=None)
    project.add("good", [server.add("/good", CONTENT).url], CONTENT, pinned=False)
    async with project.manager(retries=0) as manager:
        with pytest.raises(SyncFailed) as caught:
            await manager.pin()
    assert list(caught.value.failures) == ["bad"]
    assert entries(project)["good"]["checksum"] == Checksum.of(CONTENT).hexdigest
    assert "checksum" not in entries(project)["bad"]


async def test_pin_is_resumed(project: Project, server: AssetServer) -> None:
    """Bytes fetched by a failed pin are not fetched again by the next one."""
    file = server.add("/u.bin", CONTENT, faults=[Reset(after=0, covering=200 * KIB)])
    project.add("u", [file.url], CONTENT, pinned=False)
    async with project.manager(retries=0, parallel=1) as manager:
        with pytest.raises(SyncFailed):
            await manager.pin(["u"])
    file.faults = ()
    before = server.stats.body_bytes_sent
    async with project.manager() as manager:
        await manager.pin(["u"])
    assert server.stats.body_bytes_sent - before < len(CONTENT)


async def test_pin_stand_ins(project: Project, server: AssetServer) -> None:
    """A stand-in without a checksum is pinned in its own object; with `minimal` the full asset is not fetched."""
    url = server.add("/tiny.bin", SMALL_CONTENT).url
    project.add("u", ["https://h.example/huge"], None, pinned=False, size=None, minimal={"url": url, "note": 1})
    async with AssetManager(project.manifest, minimal=True, environ={}) as manager:
        [pinned] = (await manager.pin()).pinned
    assert pinned.is_stand_in
    minimal = {"url": url, "note": 1, "checksum": Checksum.of(SMALL_CONTENT).hexdigest, "size": len(SMALL_CONTENT)}
    assert entries(project)["u"]["minimal"] == minimal
    assert "checksum" not in entries(project)["u"]


async def test_pin_writes_a_missing_size(project: Project, server: AssetServer) -> None:
    """A named asset that lacks only its size gets it, and keeps its checksum as written."""
    project.add("s", [server.add("/s.bin", CONTENT).url], CONTENT, size=None)
    async with project.manager() as manager:
        await manager.pin(["s"])
    assert entries(project)["s"]["size"] == len(CONTENT)
    assert entries(project)["s"]["checksum"] == str(Checksum.of(CONTENT))


async def test_pin_many(project: Project, server: AssetServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Assets found while the file is being written are written together next time, not one by one."""
    edits = []

    def edit_and_count(path: Path, change: Change) -> ParsedManifest[ManifestSource] | None:
        edits.append(path)
        return edit_manifest(path, change)

    monkeypatch.setattr("grym_fetch.project.entries.edit_manifest", edit_and_count)
    contents = {f"u{number}": seeded_bytes(2 * KIB, seed=number) for number in range(40)}
    for asset_id, content in contents.items():
        place = project.add(asset_id, ["https://h.example/u"], content, pinned=False)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    async with project.manager() as manager:
        report = await manager.pin()
    assert {item.id: item.checksum for item in report.pinned} == {
        asset_id: Checksum.of(content) for asset_id, content in contents.items()
    }
    assert all(entries(project)[each]["checksum"] == Checksum.of(contents[each]).hexdigest for each in contents)
    assert len(edits) < len(contents)


async def test_a_disk_that_refuses_the_manifest(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the manifest cannot be written, each asset's error says so, and the file stays as it was."""
    for asset_id in ("u", "v"):
        place = project.add(asset_id, ["https://h.example/u"], CONTENT, pinned=False)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(CONTENT)
    before = project.manifest.read_bytes()

    def refuse(path: Path, change: Change) -> None:
        raise DiskFull(path, "no space left")

    monkeypatch.setattr("grym_fetch.project.entries.edit_manifest", refuse)
    async with project.manager() as manager:
        with pytest.raises(SyncFailed) as caught:
            await manager.pin()
    assert {each: type(error) for each, error in caught.value.failures.items()} == {"u": DiskFull, "v": DiskFull}
    assert project.manifest.read_bytes() == before


async def test_pin_an_unknown_asset(project: Project) -> None:
    """An id that is not in the manifest is wrong usage, and nothing is pinned."""
    async with project.manager() as manager:
        with pytest.raises(UnknownAsset, match="a"):
            await manager.pin(["aa"])


async def test_an_entry_that_was_changed_meanwhile_is_not_pinned(project: Project, server: AssetServer) -> None:
    """If the entry's address changes while its old content arrives, the old checksum is not written."""
    project.add("u", [server.add("/u.bin", CONTENT).url], CONTENT, pinned=False)
    async with project.manager() as manager:
        assert not manager.manifest.get("u").pinned
        project.add("u", ["https://h.example/other"], None, pinned=False, size=None)
        with pytest.raises(SyncFailed, match="changed meanwhile"):
            await manager.pin(["u"])
    assert "checksum" not in entries(project)["u"]


async def test_what_was_pinned_is_told_although_others_fail(project: Project, server: AssetServer) -> None:
    """Every asset that is in the manifest now is reported before the failures are raised."""
    project.add("u", [server.add("/u.bin", SMALL_CONTENT).url], SMALL_CONTENT, pinned=False)
    project.add("lost", [server.url("/missing.bin")], SMALL_CONTENT, pinned=False)
    heard: list[str] = []
    async with project.manager(retries=0) as manager:
        with pytest.raises(SyncFailed):
            await manager.pin(on_pinned=lambda each: heard.append(each.id))
        assert heard == ["u"]
        assert manager.manifest.get("u").pinned


LONG = seeded_bytes((1 << 20) + 7, seed=23)
LONG_PIECES = {
    "size": 1 << 20,
    "sha256": [Checksum.of(LONG[: 1 << 20]).hexdigest, Checksum.of(LONG[1 << 20 :]).hexdigest],
}


async def test_pin_writes_pieces_where_they_are_asked_for(project: Project, server: AssetServer) -> None:
    """This includes assets with and without a checksum, present or not; the next pin has nothing to do."""
    url = server.add("/l.bin", LONG).url
    project.add("u", [url], LONG, pinned=False, size=None)
    there = project.add("p", [url], LONG)
    there.parent.mkdir(parents=True, exist_ok=True)
    there.write_bytes(LONG)
    async with project.manager() as manager:
        pinned = (await manager.pin(["u", "p"], pieces=True)).pinned
        assert {(item.id, item.pieces, item.fetched) for item in pinned} == {("u", 2, True), ("p", 2, False)}
        assert (await manager.pin(["u", "p"], pieces=True)).pinned == ()
        assert entries(project)["u"]["pieces"] == entries(project)["p"]["pieces"] == LONG_PIECES
        assert "pieces" not in entries(project)["a"]


async def test_a_new_checksum_brings_new_pieces(project: Project, server: AssetServer) -> None:
    """The old content's pieces would condemn the new content."""
    url = server.add("/l.bin", LONG).url
    project.add("u", [url], LONG, pinned=False, size=len(LONG), pieces={**LONG_PIECES, "sha256": ["ab" * 32] * 2})
    async with project.manager() as manager:
        await manager.pin(["u"])
    assert entries(project)["u"]["pieces"] == LONG_PIECES
    assert entries(project)["u"]["checksum"] == Checksum.of(LONG).hexdigest


async def test_pieces_of_a_file_that_changes_are_not_written(project: Project, tmp_path: Path) -> None:
    """The pieces must come from exactly the bytes that have the checksum."""
    file = tmp_path / "file"
    file.write_bytes(LONG)
    async with project.manager() as manager, manager._editing() as editor:
        found = await editor.measurer.pieces(file, Checksum.of(LONG), len(LONG))
        assert (found.size, list(found.sha256)) == (1 << 20, LONG_PIECES["sha256"])
        with pytest.raises(StorageError, match="was changed while it was read"):
            await editor.measurer.pieces(file, Checksum.of(CONTENT), len(LONG))


async def test_pin_anew(project: Project, server: AssetServer) -> None:
    """What the addresses have now is fetched and shown before it is written, all or nothing; mirrors stay."""
    project.add("same", [server.add("/same.bin", CONTENT).url], CONTENT, checksum=f"sha512:{sha512(CONTENT)}")
    place = project.add("new", [server.add("/new.bin", b"old" * 99).url, server.url("/mirror.bin")], b"old" * 99)
    found, pinned = list[NewerVersion](), list[Pinned]()
    async with project.manager() as manager:
        await manager.sync()
        server.add("/new.bin", b"new" * 99)
        project.add("gone", [server.url("/gone.bin")], CONTENT)
        async with project.manager() as other:
            with pytest.raises(SyncFailed):
                await other.pin(update=True)
            with pytest.raises(MirrorsExhausted):
                await other.pin(["gone"], update=True)
        assert place.read_bytes() == b"old" * 99
        report = await manager.pin(["same", "new"], update=True, on_found=found.append, on_pinned=pinned.append)
        assert list(report.pinned) == pinned
    assert [(each.asset.checksum == each.newer.checksum) for each in found] == [True, False]
    assert [each.before == each.checksum for each in pinned] == [True, False]
    assert place.read_bytes() == b"new" * 99
    written = entries(project)
    assert written["new"]["checksum"] == Checksum.of(b"new" * 99).hexdigest
    assert written["new"]["fallbackUrls"] == [server.url("/mirror.bin")]
    assert written["same"]["checksum"] == f"sha512:{sha512(CONTENT)}"


def sha512(content: bytes) -> str:
    """Another digest than the usual one."""
    return hashlib.sha512(content).hexdigest()

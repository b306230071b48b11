"""Adding, pinning and removing assets through the manager: the file first, then its entry, and nothing written over."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from grym_fetch import GrymFetchError, ManifestError, MirrorsExhausted, SyncFailed, UnknownAsset
from grym_fetch.cli.main import cli
from grym_fetch.core.digest import Checksum
from grym_fetch.core.manifest import Asset, StandIn
from grym_fetch.core.manifest_parser import ParsedManifest
from grym_fetch.disk.manifest_file import Change, edit_manifest
from grym_fetch.errors import DigestMismatch, DiskFull, EditRefused, Locked, PolicyRefused, UnsafePath
from grym_fetch.project.editing import Editor, deletable
from grym_fetch.runtime.clock import SystemClock
from grym_fetch.testing import AssetServer, RawAnswer, Reset, Status, seeded_bytes
from tests.support.archives import zip_of
from tests.support.invariants import Recorder
from tests.support.project import KIB, Project

CONTENT = seeded_bytes(300 * KIB, seed=21)
SMALL_CONTENT = seeded_bytes(3 * KIB, seed=22)


@pytest.fixture
def project(tmp_path: Path, server: AssetServer) -> Project:
    return Project.with_one_asset(tmp_path / "project", server, CONTENT)


def entries(project: Project) -> dict[str, dict[str, object]]:
    """The entries of the file, by id."""
    return {entry["id"]: entry for entry in json.loads(project.manifest.read_bytes())["assets"]}


async def test_a_cancellation_while_another_one_has_just_written_is_a_cancellation(project: Project) -> None:
    """The other's turn has written this one's entry as well, and nothing is left in line to be taken out."""
    url = str(entries(project)["a"]["url"])
    for name in ("b", "c"):
        path = project.add(name, [url], CONTENT, pinned=False, size=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(CONTENT)
    async with project.manager() as manager, manager._editing() as editor:
        assets = [manager.manifest.get(name) for name in ("b", "c")]
        found = [await editor._measure(asset, project.assets / asset.local_path) for asset in assets]

        def has_written(_: object) -> None:
            asyncio.get_running_loop().call_soon(second.cancel)

        async with editor._writing:
            first, second = (
                asyncio.create_task(editor._record(asset, measured, has_written))
                for asset, measured in zip(assets, found, strict=True)
            )
            await asyncio.sleep(0)
        await first
        with pytest.raises(asyncio.CancelledError):
            await second
    assert entries(project)["b"]["checksum"] == entries(project)["c"]["checksum"] == Checksum.of(CONTENT).hexdigest


# -- add ------------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("asset", "named"),
    [
        (Asset("a", "https://h.example/b", "b"), "id: is taken"),
        (Asset("b", "https://h.example/b", "models/A.bin"), "asset 'a'"),
        (Asset("b", "https://h.example/b", "models"), "folder"),
        (Asset("b", "ftp://h.example/b", "b"), "url"),
        (Asset("b", "https://h.example/b", "../b"), r"\.\."),
        (Asset("", "https://h.example/b", "b"), "id"),
    ],
    ids=["id", "same place", "a folder", "scheme", "outside", "no id"],
)
async def test_what_cannot_be_added(project: Project, server: AssetServer, asset: Asset, named: str) -> None:
    """A duplicate or a bad value is refused before anything is fetched, and the manifest is as it was."""
    before = project.manifest.read_bytes()
    async with project.manager() as manager:
        with pytest.raises(ManifestError, match=named):
            await manager.add_asset(asset, fetch=True)
    assert project.manifest.read_bytes() == before
    assert not server.stats.requests


async def test_add_what_is_fetched(project: Project, server: AssetServer) -> None:
    """A fetched asset is in its place, listed with its checksum and size, and verified without another look."""
    url = server.add("/new.bin", CONTENT).url
    async with project.manager() as manager:
        recorder = Recorder(manager)
        added = await manager.add_asset(Asset("new", url, "m/new.bin"), fetch=True)
        assert (added.checksum, added.size) == (Checksum.of(CONTENT), len(CONTENT))
        assert manager.state_of(added) == "verified"
    recorder.check()
    assert (project.assets / "m/new.bin").read_bytes() == CONTENT


async def test_adding_is_resumed(project: Project, server: AssetServer) -> None:
    """What a failed add has fetched is not fetched again by the next one."""
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
    """A file that lies where a new asset would go is somebody's: it stays, and the way out is named."""
    place = project.assets / "mine.bin"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"mine")
    async with project.manager() as manager:
        with pytest.raises(ManifestError, match="--url"):
            await manager.add_asset(Asset("new", server.add("/n", CONTENT).url, "mine.bin"), fetch=True)
    assert place.read_bytes() == b"mine"
    assert "new" not in entries(project)


async def test_plain_http_is_not_measured(project: Project) -> None:
    """Bytes that anybody on the way could change never become the right ones, in add and in pin."""
    project.add("plain", ["http://h.example/a"], None, pinned=False, size=None)
    async with project.manager() as manager:
        with pytest.raises(PolicyRefused, match="plain http"):
            await manager.add_asset(Asset("b", "http://h.example/b", "b"), fetch=True)
        with pytest.raises(SyncFailed, match="plain http"):
            await manager.pin(["plain"])


async def test_add_a_file(project: Project, tmp_path: Path) -> None:
    """A file from elsewhere is measured and copied into its place; the original stays."""
    file = tmp_path / "original.bin"
    file.write_bytes(CONTENT)
    async with project.manager() as manager:
        added = await manager.add_asset(Asset("b", "https://h.example/b", "m/b.bin"), file=file)
        assert manager.state_of(added) == "verified"
    assert (project.assets / "m/b.bin").read_bytes() == file.read_bytes() == CONTENT
    assert entries(project)["b"]["size"] == len(CONTENT)
    assert project.staged() == []


async def test_add_a_file_that_is_in_its_place(project: Project) -> None:
    """A file that lies where the asset belongs is measured and left as it is."""
    place = project.assets / "m" / "b.bin"
    place.parent.mkdir(parents=True)
    place.write_bytes(CONTENT)
    figures = place.stat()
    async with project.manager() as manager:
        await manager.add_asset(Asset("b", "https://h.example/b", "m/b.bin"), file=place)
    assert place.stat().st_ino == figures.st_ino
    assert entries(project)["b"]["checksum"] == Checksum.of(CONTENT).hexdigest


async def test_add_a_file_where_another_one_is(project: Project, tmp_path: Path) -> None:
    """Another file in the asset's place is not written over; one with the same bytes will do."""
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
    """A file whose checksum is not the given one is refused, and neither copied nor listed."""
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
    """A file that changes while it is copied is refused, and no part of it stays."""
    file = tmp_path / "original.bin"
    file.write_bytes(CONTENT)
    async with project.manager() as manager:
        real = Editor._measure

        async def measure_and_change(self: Editor, asset: Asset, path: Path) -> object:
            measured = await real(self, asset, path)
            path.write_bytes(CONTENT[::-1])  # noqa: ASYNC240 - at this very moment
            return measured

        monkeypatch.setattr(Editor, "_measure", measure_and_change)
        with pytest.raises(GrymFetchError, match="changed while"):
            await manager.add_asset(Asset("b", "https://h.example/b", "b.bin"), file=file)
    assert not (project.assets / "b.bin").exists()
    assert project.staged() == []


# -- remove ---------------------------------------------------------------------------------------------------------


async def test_remove(project: Project) -> None:
    """A removed asset is unknown from then on; its file stays unless its deletion is asked for."""
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
    """The file and its stand-in are deleted, those of other assets and of the external folder are not."""
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


async def test_remove_follows_no_symlink(project: Project, tmp_path: Path) -> None:
    """A folder that was replaced by a symlink is not followed to delete something elsewhere."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.bin").write_bytes(b"mine")
    project.assets.mkdir(parents=True)
    (project.assets / "models").symlink_to(outside)
    async with project.manager() as manager:
        with pytest.raises(UnsafePath):
            await manager.remove_asset("a", delete_file=True)
    assert (outside / "a.bin").exists()


# -- pin ------------------------------------------------------------------------------------------------------------


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
    """A file that is there is measured as it is, and nobody is asked for it."""
    place = project.add("u", [server.add("/u.bin", b"something else").url], None, pinned=False, size=None)
    place.parent.mkdir(parents=True)
    place.write_bytes(CONTENT)
    async with project.manager(offline=True) as manager:
        [pinned] = (await manager.pin(["u"])).pinned
    assert not pinned.fetched
    assert pinned.checksum == Checksum.of(CONTENT)
    assert not server.stats.requests


@pytest.mark.shows("N21", "S1")
@pytest.mark.parametrize("coding", ["", "Transfer-Encoding: identity\r\n", "Transfer-Encoding: gzip\r\n"])
async def test_what_has_no_end_is_not_pinned(project: Project, server: AssetServer, coding: str) -> None:
    """Where nothing says where the content ends, it may have been cut: neither pin nor add makes that the right one."""
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


async def test_pin_goes_on_past_a_failure(project: Project, server: AssetServer) -> None:
    """What can be pinned is, and what cannot is reported at the end with its reason."""
    project.add("bad", [server.add("/bad", CONTENT, faults=[Status(404)]).url], None, pinned=False, size=None)
    project.add("good", [server.add("/good", CONTENT).url], CONTENT, pinned=False)
    async with project.manager(retries=0) as manager:
        with pytest.raises(SyncFailed) as caught:
            await manager.pin()
    assert list(caught.value.failures) == ["bad"]
    assert entries(project)["good"]["checksum"] == Checksum.of(CONTENT).hexdigest
    assert "checksum" not in entries(project)["bad"]


async def test_pin_is_resumed(project: Project, server: AssetServer) -> None:
    """What a failed pin has fetched is not fetched again by the next one."""
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
    async with project.manager() as manager:
        manager._minimal = True
        [pinned] = (await manager.pin()).pinned
    assert pinned.is_stand_in
    minimal = {"url": url, "note": 1, "checksum": Checksum.of(SMALL_CONTENT).hexdigest, "size": len(SMALL_CONTENT)}
    assert entries(project)["u"]["minimal"] == minimal
    assert "checksum" not in entries(project)["u"]


async def test_pin_writes_a_missing_size(project: Project, server: AssetServer) -> None:
    """An asset that is named and lacks nothing but its size gets that, and keeps its checksum as it is written."""
    project.add("s", [server.add("/s.bin", CONTENT).url], CONTENT, size=None)
    async with project.manager() as manager:
        await manager.pin(["s"])
    assert entries(project)["s"]["size"] == len(CONTENT)
    assert entries(project)["s"]["checksum"] == str(Checksum.of(CONTENT))


async def test_pin_many(project: Project, server: AssetServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is found while the file is being written is written with the next one, not one by one."""
    edits = []

    def edit_and_count(path: Path, change: Change) -> ParsedManifest | None:
        edits.append(path)
        return edit_manifest(path, change)

    monkeypatch.setattr("grym_fetch.project.editing.edit_manifest", edit_and_count)
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
    """If the manifest cannot be written, each asset says so, and the file is as it was."""
    for asset_id in ("u", "v"):
        place = project.add(asset_id, ["https://h.example/u"], CONTENT, pinned=False)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(CONTENT)
    before = project.manifest.read_bytes()

    def refuse(path: Path, change: Change) -> None:
        raise DiskFull(path, "no space left")

    monkeypatch.setattr("grym_fetch.project.editing.edit_manifest", refuse)
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
    """Who gives the entry another address while its old content arrives is not handed the old checksum."""
    project.add("u", [server.add("/u.bin", CONTENT).url], CONTENT, pinned=False)
    async with project.manager() as manager:
        assert not manager.manifest.get("u").pinned
        project.add("u", ["https://h.example/other"], None, pinned=False, size=None)
        with pytest.raises(SyncFailed, match="changed meanwhile"):
            await manager.pin(["u"])
    assert "checksum" not in entries(project)["u"]


async def test_a_manifest_that_is_held_too_long(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who changes the manifest without end is waited for, but not for ever."""
    monkeypatch.setattr("grym_fetch.project.editing.edit_manifest", lambda path, change: None)
    async with project.manager() as manager:
        with pytest.raises(Locked, match="another process"):
            await manager.remove_asset("a")


async def test_edits_at_once(project: Project, server: AssetServer) -> None:
    """Many edits at the same time, by two managers, all end up in the file."""
    async with project.manager(SystemClock()) as one, project.manager(SystemClock()) as two:
        edits = [
            manager.add_asset(Asset(f"n{number}", "https://h.example/n", f"n{number}"))
            for number, manager in enumerate([one, two] * 5)
        ]
        await asyncio.gather(*edits)
    assert set(entries(project)) == {"a", *(f"n{number}" for number in range(10))}


# -- prune ----------------------------------------------------------------------------------------------------------


async def test_prune_leaves_what_is_under_way(project: Project, server: AssetServer) -> None:
    """The stage of a manager that lives is left; prune tells how many there are."""
    server.add("/a.bin", CONTENT, faults=[Reset(after=0, covering=200 * KIB)])
    async with project.manager(retries=0) as manager:
        with pytest.raises(MirrorsExhausted):
            await manager.download_asset("a")
        report = await manager.prune()
        assert report.in_use == 1
        assert len(project.staged()) == 1
    assert os.listdir(project.assets / ".grym-fetch" / "locks") == []


@pytest.mark.shows("M13", "S8")
async def test_a_password_never_gets_into_the_manifest(project: Project) -> None:
    """The manifest is for everyone to read: an address with a user or password in it is refused, wherever it stands."""
    before = project.manifest.read_bytes()
    secret = "https://me:hunter2@models.example.org/a.bin"
    plain = "https://models.example.org/a.bin"
    async with project.manager() as manager:
        for key, asset in (
            ("url", Asset("new", secret, "new.bin")),
            ("fallbackUrls", Asset("new", plain, "new.bin", fallback_urls=(plain, secret.replace(":hunter2", "")))),
            ("minimal", Asset("new", plain, "new.bin", minimal=StandIn(secret))),
        ):
            with pytest.raises(EditRefused, match=f"{key}: .*for everyone to read") as caught:
                await manager.add_asset(asset)
            assert "hunter2" not in str(caught.value)
    assert project.manifest.read_bytes() == before


async def test_what_was_pinned_is_told_although_others_fail(project: Project, server: AssetServer) -> None:
    """Whoever listens hears of each that is in the manifest now, before the failures are raised."""
    project.add("u", [server.add("/u.bin", SMALL_CONTENT).url], SMALL_CONTENT, pinned=False)
    project.add("lost", [server.url("/missing.bin")], SMALL_CONTENT, pinned=False)
    heard: list[str] = []
    async with project.manager(retries=0) as manager:
        with pytest.raises(SyncFailed):
            await manager.pin(on_pinned=lambda each: heard.append(each.id))
        assert heard == ["u"]
        assert manager.manifest.get("u").pinned


async def test_what_was_unpacked_is_deletable_too(project: Project, server: AssetServer) -> None:
    """What removing with the files deletes is known before, and told after: files, stand-ins and unpacked folders."""
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
    """The question comes also where nothing but a stand-in is there."""
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


PAGE = b"<!DOCTYPE html><title>Please log in</title>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d" * 32 + b"\nsize 1234567890\n"


@pytest.mark.shows("C13")
@pytest.mark.parametrize(
    ("content", "named"), [(PAGE, "a web page"), (POINTER, "stands for 1,234,567,890 bytes"), (b"", "an empty file")]
)
async def test_what_is_plainly_not_an_asset(
    project: Project, server: AssetServer, tmp_path: Path, content: bytes, named: str
) -> None:
    """It is neither added nor pinned, and what was fetched of it is gone; a file of the user's own stays."""
    url = server.add("/x.bin", content).url
    place = project.assets / "models" / "x.bin"
    own = tmp_path / "own.bin"
    own.write_bytes(content)
    async with project.manager() as manager:
        for file in (None, own):
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
    """An asset that is refused for what it is has failed, once, and no event says that it is verified or reused."""
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
    """Whoever says so gets it; and nobody asks where the checksum was known before."""
    url = server.add("/x.bin", PAGE).url
    async with project.manager() as manager:
        added = await manager.add_asset(Asset("x", url, "x.bin"), fetch=True, allow_suspicious=True)
        assert added.checksum == Checksum.of(PAGE)
        known = Asset("y", url, "y.bin", checksum=Checksum.of(PAGE))
        assert (await manager.add_asset(known, fetch=True)).size == len(PAGE)

"""The state of an asset: one set of words for the API, the commands and their JSON."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from click.testing import CliRunner

from grym_fetch import AssetProgress, AssetState, MirrorsExhausted, StorageError, SyncFailed
from grym_fetch.cli.exit_codes import INTEGRITY, STORAGE
from grym_fetch.cli.main import cli
from grym_fetch.core.events import AssetFailed, AssetReused
from grym_fetch.core.fingerprint import content_fingerprint
from grym_fetch.core.manifest import Asset
from grym_fetch.disk import local_files
from grym_fetch.disk.local_files import hash_open
from grym_fetch.disk.stage import StageKey
from grym_fetch.disk.state import StateFolder
from grym_fetch.engine.checking import AT_ONCE, AT_ONCE_BYTES, in_order
from grym_fetch.errors import NotWritable
from grym_fetch.reports import AssetStatus
from grym_fetch.testing import AssetServer, Status, seeded_bytes
from tests.support.project import KIB, OWN, Project

CONTENT = seeded_bytes(300 * KIB, seed=14)
ON_DISK = {"missing", "partial", "present", "unverified", "verified", "corrupt"}
UNDER_WAY = {"pending", "downloading", "validating", "complete", "error"}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project in the working folder."""
    return Project(tmp_path)


def put(project: Project, content: bytes, *, pinned: bool = True) -> Path:
    """List the asset ``a``, with this content in its place."""
    path = project.add("a", ["https://models.example.org/a.bin"], CONTENT, pinned=pinned)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def said(project: Project, *arguments: str) -> tuple[int, str]:
    """The exit code of a command, and its output."""
    options = [*arguments, "--config", str(project.manifest)]
    done = CliRunner().invoke(cli, options, standalone_mode=False)
    return done.return_value, done.stdout


def state_in(project: Project, *arguments: str) -> object:
    """The state that a command reports in JSON."""
    return json.loads(said(project, *arguments, "--json")[1])["state"]


def test_one_that_cannot_be_read(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are told nevertheless; its error comes at the end, and an event for it."""
    for asset_id, content in (("a", b"a"), ("shut", b"shut"), ("c", b"c")):
        path = project.add(asset_id, [f"https://models.example.org/{asset_id}"], content)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def read(descriptor: int, *rest: Any) -> os.stat_result:
        if os.fstat(descriptor).st_size == len(b"shut"):
            raise PermissionError(errno.EACCES, "no")
        return hash_open(descriptor, *rest)

    monkeypatch.setattr(local_files, "hash_open", read)
    code, lines = said(project, "check", "--full", "--json")
    assert code == STORAGE
    assert [json.loads(line)["id"] for line in lines.splitlines()] == ["a", "c"]

    path.write_bytes(b"C")
    code, table = said(project, "check", "--full")
    assert code == INTEGRITY
    assert [line.split()[:2] for line in table.splitlines()] == [["verified", "a"], ["corrupt", "c"]]


async def test_what_is_told_of_one_that_cannot_be_read(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each such asset is in the error by its id, and its events have an end."""
    for asset_id in ("a", "b"):
        path = project.add(asset_id, [f"https://models.example.org/{asset_id}"], b"")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    monkeypatch.setattr(local_files, "hash_open", Mock(side_effect=PermissionError(errno.EACCES, "no")))
    async with project.manager() as manager, manager.events() as events:
        with pytest.raises(SyncFailed) as caught:
            await manager.check_assets()
        told = [str(event.asset) for event in events.drain() if isinstance(event, AssetFailed)]
        with pytest.raises(StorageError):
            await manager.check_asset("a")
    assert {key: type(error) for key, error in caught.value.failures.items()} == {"a": NotWritable, "b": NotWritable}
    assert sorted(told) == ["a", "b"]


def test_there_are_no_other_words() -> None:
    """There are the states of files on disk, and those of progress."""
    assert set(AssetState) == ON_DISK | UNDER_WAY


async def test_a_file_that_was_never_read(project: Project) -> None:
    """A look finds it present; a check reads it, and from then on it is known to be verified."""
    path = put(project, CONTENT)
    async with project.manager() as manager:
        asset = manager.manifest.get("a")
        assert manager.state_of(asset) is AssetState.PRESENT
        status = await manager.check_asset("a")
        assert status.state is AssetState.VERIFIED
        assert (status.exists, status.valid, status.unverified) == (True, True, False)
        assert (status.path, status.error) == (path, None)
        assert manager.state_of(asset) is AssetState.VERIFIED


async def test_a_file_of_another_size(project: Project) -> None:
    """It is corrupt, whether by a look or a check."""
    put(project, CONTENT).write_bytes(CONTENT[:-1])
    async with project.manager() as manager:
        assert manager.state_of(manager.manifest.get("a")) is AssetState.CORRUPT
        assert (await manager.check_asset("a")).state is AssetState.CORRUPT


@pytest.mark.shows("S1")
async def test_a_file_without_a_checksum(project: Project) -> None:
    """It stays unverified, however its state is asked for."""
    put(project, CONTENT, pinned=False)
    async with project.manager() as manager:
        assert manager.state_of(manager.manifest.get("a")) is AssetState.UNVERIFIED
        status = await manager.check_asset("a")
        assert status.state is AssetState.UNVERIFIED
        assert (status.exists, status.valid, status.unverified) == (True, False, True)
        assert status.error is None


async def test_a_wrong_file(project: Project) -> None:
    """It exists but is not valid, and the error says why."""
    put(project, CONTENT[:-1] + b"\0")
    async with project.manager() as manager:
        status = await manager.check_asset("a")
        assert (status.state, status.exists, status.valid) == (AssetState.CORRUPT, True, False)
        assert "checksum mismatch" in (status.error or "")


async def test_a_file_of_which_some_has_arrived(project: Project, server: AssetServer) -> None:
    """A look and a check agree, and say where the file will be."""
    file = server.add("/a.bin", CONTENT, faults=[Status(404, skip=1)])
    path = project.add("a", [file.url], CONTENT)
    async with project.manager(parallel=1) as manager:
        with pytest.raises(MirrorsExhausted):
            await manager.get_asset_path("a")
        assert manager.state_of(manager.manifest.get("a")) is AssetState.PARTIAL
        status = await manager.check_asset("a")
    assert (status.state, status.exists, status.valid) == (AssetState.PARTIAL, False, False)
    assert (status.path, status.error) == (path, "only partly downloaded")


async def test_an_archive_that_is_not_unpacked(project: Project) -> None:
    """It is only partial, though the archive file is right."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("empty"))
    project.add("a", ["https://models.example.org/a.tar"], made.getvalue(), localPath="a.tar", extract=True)
    path = project.assets / "a.tar"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(made.getvalue())
    async with project.manager() as manager:
        status = await manager.check_asset("a")
        assert (status.state, status.exists, status.error) == (AssetState.PARTIAL, False, "not unpacked")
        assert manager.state_of(manager.manifest.get("a")) is AssetState.PARTIAL


async def test_an_unpinned_archive_is_not_said_to_be_right(project: Project, server: AssetServer) -> None:
    """Its tree is compared with it, and yet nobody knows whether it is the right archive."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        (inside := tarfile.TarInfo("inside")).size = len(CONTENT)
        tar.addfile(inside, io.BytesIO(CONTENT))
    content = made.getvalue()
    file = server.add("/a.tar", content)
    project.add("a", [file.url], content, pinned=False, localPath="a.tar", extract=True)
    async with project.manager(allow_unpinned=True) as manager:
        await manager.get_asset_path("a")
        async with manager.events() as events:
            status = await manager.check_asset("a", full=True)
            [reused] = [event for event in events.drain() if isinstance(event, AssetReused)]
    assert (status.state, reused.unverified) == (AssetState.UNVERIFIED, True)


@pytest.mark.parametrize(
    ("content", "pinned", "state", "code"),
    [
        (None, True, "missing", 1),
        (CONTENT, True, "verified", 0),
        (CONTENT, False, "unverified", 1),
        (CONTENT[::-1], True, "corrupt", 3),
    ],
)
def test_the_commands_say_the_same(
    project: Project, content: bytes | None, pinned: bool, state: str, code: int
) -> None:
    """`check` and `info` read the file and agree; `list`, which reads nothing, agrees once they have read it."""
    path = put(project, content or b"", pinned=pinned)
    if content is None:
        path.unlink()
    checked_code, text = said(project, "check")
    assert (checked_code, text.split()[0]) == (code, state)
    checked = json.loads(said(project, "check", "--json")[1])
    assert checked["state"] == state
    assert (checked["exists"], checked["valid"]) == (content is not None, state == "verified")
    assert state_in(project, "info", "a") == state
    assert state_in(project, "list") == state
    assert said(project, "check", "--allow-unpinned")[0] == (0 if state == "unverified" else code)


def test_quiet_says_why_a_check_fails(project: Project) -> None:
    """An unverified asset is reported where it makes the check fail, and nowhere else."""
    put(project, CONTENT, pinned=False)
    assert said(project, "check", "--quiet")[1].startswith("unverified  a  ")
    assert said(project, "check", "--quiet", "--allow-unpinned") == (0, "")


async def test_progress_has_words_of_the_same_set(project: Project, server: AssetServer) -> None:
    """A state equals its text, so that a program may compare with either."""
    project.add("a", [server.add("/a.bin", CONTENT).url], CONTENT)
    seen: list[AssetProgress] = []
    async with project.manager() as manager:
        manager.on_progress(seen.append)
        await manager.get_asset_path("a")
    states = list(dict.fromkeys(progress.status for progress in seen))
    assert states == [AssetState.PENDING, AssetState.DOWNLOADING, AssetState.VALIDATING, AssetState.COMPLETE]
    assert json.dumps(states) == '["pending", "downloading", "validating", "complete"]'


async def test_the_stages_are_listed_once_for_many(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many assets are missing; and those that were begun are found."""
    for n in range(50):
        project.add(f"a{n}", ["https://models.example.org/a.bin"], CONTENT, localPath=f"d/{n}.bin")
    async with project.manager() as manager:
        assets = tuple(manager.manifest.assets)
        begun = StageKey(assets[7].local_path, content_fingerprint(assets[7]))
        stage = project.assets / OWN / "stage" / f"{begun.path_key}.{begun.content_key}.x.0"
        stage.mkdir(parents=True)
        stage.parent.parent.chmod(0o700)
        (stage / "part").write_bytes(CONTENT)
        opened: list[tuple[str, ...]] = []
        real = StateFolder.open

        def noted(folder: StateFolder, *parts: str, create: bool = False) -> int:
            opened.append(parts)
            return real(folder, *parts, create=create)

        monkeypatch.setattr(StateFolder, "open", noted)
        states = manager.states_of(assets)
        assert [state for state in states if state is not AssetState.MISSING] == [AssetState.PARTIAL]
        assert states[7] is AssetState.PARTIAL
        assert opened.count(("stage",)) <= 2
        plan = await manager.plan(assets)
        assert plan.bytes_staged > 0
        assert opened.count(("stage",)) <= 4


async def test_small_files_are_checked_beside_each_other() -> None:
    """A few of them, and told in their order; of large ones one at a time; a failure ends those that were begun."""
    small, large = 1000, AT_ONCE_BYTES
    sizes = [small] * 20 + [large, large, None] + [small] * 3
    assets = [
        Asset(id=str(number), url="https://a.example/a", local_path=str(number), size=size)
        for number, size in enumerate(sizes)
    ]
    running: set[str] = set()
    most: dict[str, int] = {}

    async def check(asset: Asset) -> AssetStatus:
        running.add(asset.id)
        most[asset.id] = len(running)
        for _ in range(1 + int(asset.id) % 3):
            await asyncio.sleep(0)
        running.remove(asset.id)
        if asset.id == "25":
            raise OSError("broken")
        return AssetStatus(asset.id, AssetState.VERIFIED, Path(asset.local_path))

    told: list[str] = []

    async def tell() -> None:
        async for status in in_order(assets, check, lambda error: pytest.fail(str(error))):
            told.append(status.id)  # noqa: PERF401 - what was told before the failure counts

    with pytest.raises(OSError, match="broken"):
        await tell()
    assert told == [str(number) for number in range(25)]
    assert max(most.values()) == AT_ONCE
    assert [most[str(number)] for number in (20, 21, 22)] == [1, 1, 1]
    assert not running

"""A manifest that has expired, or is older than one used before: where it is refused, and what is remembered."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from grym_fetch import Asset, AssetManager
from grym_fetch.cli.main import cli
from grym_fetch.core.digest import Checksum
from grym_fetch.disk import rollback
from grym_fetch.disk.rollback import RollbackGuard, decode_version, encode_version
from grym_fetch.disk.state import StateFolder
from grym_fetch.disk.verified import FileSignature, VerifiedCache
from grym_fetch.errors import StaleManifest
from grym_fetch.repo.placeholder import Placeholder
from grym_fetch.testing import AssetServer
from tests.support.project import OWN, ImpatientClock, Project

pytestmark = pytest.mark.shows("M16", "S16")


@pytest.fixture(autouse=True)
def _homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is remembered outside the assets folder, unless a test has a home folder."""
    monkeypatch.setenv("XDG_STATE_HOME", "/dev/null")


CONTENT = b"there already"
PAST, FUTURE = "2001-01-01T00:00:00Z", "9001-01-01T00:00:00Z"


class Versioned(Project):
    """A project whose manifest has a version and an expiry; its one asset is present."""

    def is_at(self, version: object, expires: str | None = None) -> None:
        """Write the manifest with these values."""
        if not self.entries:
            file = self.add("base", ["https://models.example.org/base.bin"], CONTENT)
            file.parent.mkdir(parents=True)
            file.write_bytes(CONTENT)
        record = {"version": version, "expires": expires, "assets": self.entries}
        self.manifest.write_text(json.dumps(record))

    @property
    def guard(self) -> RollbackGuard:
        """What is remembered of the manifest."""
        return RollbackGuard(self.assets, self.manifest)

    @property
    def state_files(self) -> list[str]:
        """The files of that kind."""
        return sorted(p.name for p in (self.assets / OWN).glob("manifest-version-*"))


class CalendarClock(ImpatientClock):
    """A clock with the date that a test wants."""

    now = 0.0

    def wall(self) -> float:
        """Seconds since the epoch."""
        return self.now


@pytest.fixture
def project(tmp_path: Path) -> Versioned:
    """A project with a version."""
    return Versioned(tmp_path)


async def use(project: Versioned, *, allow_stale: bool = False) -> None:
    """Request the asset in each of the three ways; all must agree."""
    outcomes = []
    for way in ("get_asset_path", "download_asset", "sync"):
        async with project.manager(offline=True, allow_stale=allow_stale) as manager:
            try:
                await getattr(manager, way)(*([] if way == "sync" else ["base"]))
                outcomes.append("")
            except StaleManifest as error:
                outcomes.append(str(error))
    assert len(set(outcomes)) == 1, outcomes
    if outcomes[0]:
        raise AssertionError(outcomes[0])


async def test_an_older_version_is_refused(project: Versioned) -> None:
    """The same version and later ones are accepted, an older one is not, and the refusal says what to do."""
    for version in ("1.9", "1.9.0", "1.10"):
        project.is_at(version)
        await use(project)
    project.is_at("1.9")
    with pytest.raises(AssertionError, match=r"is version 1\.9, older than version 1\.10 .* pass --allow-stale"):
        await use(project)
    assert project.guard.read() == "1.10"


async def test_an_expired_manifest_is_refused_and_not_remembered(project: Versioned) -> None:
    """A version counts as seen only if its manifest was accepted."""
    project.is_at(3, FUTURE)
    await use(project)
    project.is_at(99, PAST)
    with pytest.raises(AssertionError, match="expired on 2001-01-01"):
        await use(project)
    assert project.guard.read() == "3"


async def test_a_manager_that_lives_on_sees_its_manifest_expire(project: Versioned) -> None:
    """An application that runs for days is told at its next call."""
    clock = CalendarClock()
    project.is_at("1", "2001-01-01T00:00:00Z")
    async with project.manager(clock, offline=True) as manager:
        await manager.get_asset_path("base")
        clock.now = 1e9
        with pytest.raises(StaleManifest):
            await manager.get_asset_path("base")


async def test_going_back_on_purpose(project: Versioned, caplog: pytest.LogCaptureFixture) -> None:
    """An allowed older version becomes the last one seen; an expired one has to be allowed each time. Both warn."""
    project.is_at("2")
    await use(project)
    project.is_at("1")
    await use(project, allow_stale=True)
    assert "older than version 2" in caplog.text
    await use(project)
    project.is_at("label")
    await use(project, allow_stale=True)
    assert project.state_files == []
    await use(project)
    project.is_at("1", PAST)
    await use(project, allow_stale=True)
    with pytest.raises(AssertionError, match="expired on"):
        await use(project)


async def test_manifests_that_share_an_assets_folder_do_not_mix(project: Versioned) -> None:
    """Each manifest has its own last version, and keeps it when the whole project is moved."""
    project.is_at("2.0")
    await use(project)
    other = Versioned(project.root / "other", project.entries)
    other.root.mkdir()
    other.is_at("1.0")
    async with AssetManager(other.manifest, assets_dir=project.assets, environ={}) as manager:
        await manager.get_asset_path("base")
    assert len(project.state_files) == 2
    moved = project.root.with_name("moved")
    project.root.rename(moved)
    assert RollbackGuard(moved / "assets", moved / "assets.json").read() == "2.0"


@pytest.mark.shows("P4")
@pytest.mark.parametrize(
    "data",
    [b"", b"\0" * 40, b'"9.9"\n', encode_version("9.9")[:-2], encode_version("9.9").replace(b"9.9", b"9.8"),
     encode_version("nightly"), b"%08x null\n" % 0, b"x" * (rollback.MAX_BYTES + 1)],
)  # fmt: skip
async def test_a_damaged_state_file_is_ignored(project: Versioned, data: bytes) -> None:
    """A file that was not completely written is ignored; the next use rewrites it."""
    project.is_at("1.0")
    await use(project)
    (name,) = project.state_files
    (project.assets / OWN / name).write_bytes(data)
    await use(project)
    assert project.guard.read() == "1.0"


@pytest.mark.posix
async def test_a_state_file_of_somebody_else_is_ignored(project: Versioned, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user's file, a symlink's target and a blocking pipe are all ignored."""
    project.is_at("1.0")
    await use(project)
    (name,) = project.state_files
    path = project.assets / OWN / name
    path.write_bytes(encode_version("9.9"))
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert project.guard.read() is None
    monkeypatch.undo()
    assert project.guard.read() == "9.9"
    path.rename(project.root / "elsewhere")
    path.symlink_to(project.root / "elsewhere")
    assert project.guard.read() is None
    path.unlink()
    os.mkfifo(path)
    assert project.guard.read() is None
    await use(project)
    assert stat.S_ISREG(os.lstat(path).st_mode)


@pytest.mark.posix
def test_what_is_written_is_whole_or_not_there(project: Versioned, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is written beside the old one, flushed and renamed; if that fails, the old one stays, without an error."""
    project.is_at("1")
    project.guard.write("1")
    for call in ("write", "fsync", "rename"):
        with monkeypatch.context() as patch:

            def fail(*_: object, **more: object) -> int:
                raise OSError(28, "full")

            patch.setattr(os, call, fail)
            project.guard.write("2")
        assert project.guard.read() == "1", call
    project.guard.write("2")
    assert project.guard.read() == "2"
    folder = project.assets / OWN
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [stat.S_IMODE(p.stat().st_mode) for p in folder.glob("manifest-*")] == [0o600]


@pytest.mark.shows("S5")
def test_nothing_is_written_behind_a_symlink(project: Versioned) -> None:
    """A symlink in place of our folder does not make us write a file elsewhere."""
    project.is_at("1")
    elsewhere = project.root / "elsewhere"
    elsewhere.mkdir()
    (project.assets / ".grym-fetch").symlink_to(elsewhere)
    project.guard.write("1")
    cache = VerifiedCache(StateFolder(project.assets))
    cache.record(project.manifest, Checksum.of(b""), FileSignature.of(project.manifest.stat()))
    assert list(elsewhere.iterdir()) == []


def test_no_assets_folder_is_made_for_it(tmp_path: Path) -> None:
    """Remembering is a convenience: where nothing was ever fetched it creates no folder."""
    RollbackGuard(tmp_path / "assets", tmp_path / "assets.json").write("1")
    assert list(tmp_path.iterdir()) == []


def test_content_comes_back() -> None:
    """What is written reads back the same."""
    assert decode_version(encode_version("v1.2")) == "v1.2"


def run(project: Versioned, *arguments: str) -> Result:
    """Call the command line in this process."""
    arguments = (*arguments, "--config", str(project.manifest))
    return CliRunner().invoke(cli, list(arguments), standalone_mode=False)


def test_commands_refuse_a_stale_manifest(project: Versioned) -> None:
    """Commands that fetch or hand out paths end with 2 and a plain sentence; those that only look still work."""
    project.is_at("1", PAST)
    for command in (["sync"], ["sync", "--dry-run"], ["path", "base"], ["pin"]):
        done = run(project, *command)
        assert done.return_value == 2, (command, done.output)
        assert "expired on 2001-01-01T00:00:00Z" in done.stderr
        assert "--allow-stale" in done.stderr
        assert done.stdout == ""
        assert run(project, *command, "--allow-stale", "--offline").return_value == 0, command
    for command in (["list"], ["info", "base"], ["check"]):
        assert run(project, *command).return_value == 0, command


def test_doctor_names_a_stale_manifest(project: Versioned) -> None:
    """It fails for that reason, but still reports everything else."""
    project.is_at("1")
    project.entries[0]["url"] = "http://127.0.0.1:9/base.bin"
    project.is_at("1", PAST)
    done = run(project, "doctor")
    assert done.return_value == 1
    assert "FAIL  manifest: expired on 2001-01-01" in done.stdout
    assert "space:" in done.stdout
    assert done.stderr == ""  # it looks at what a sync would fetch, but uses nothing


@pytest.fixture
def homely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Versioned:
    """A project whose user has a home folder."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    root = tmp_path / "project"
    root.mkdir()
    return Versioned(root)


async def test_a_project_without_an_assets_folder_is_protected(homely: Versioned) -> None:
    """For files served from the external folder, it is remembered at the first use, without creating a folder."""
    homely.is_at("2")
    shutil.move(homely.assets, homely.root.parent / "assets")
    await use(homely)
    homely.is_at("1")
    with pytest.raises(AssertionError, match="older than version 2"):
        await use(homely)
    assert not homely.assets.exists()


async def test_emptying_our_folder_forgets_no_version(homely: Versioned) -> None:
    """Emptying the folder is documented as harmless, but permits no older version; only a user allowed to go back may
    do so, and is told of both.
    """
    homely.is_at("2")
    await use(homely)
    shutil.rmtree(homely.assets / ".grym-fetch")
    homely.is_at("1")
    with pytest.raises(AssertionError, match="older than version 2"):
        await use(homely)
    await use(homely, allow_stale=True)
    await use(homely)


async def test_the_first_sync_remembers_its_version(tmp_path: Path, server: AssetServer) -> None:
    """This includes users without a home folder: at the end of the sync there is an assets folder to remember it in."""
    project = Versioned(tmp_path)
    server.add("/base.bin", CONTENT)
    project.add("base", [server.url("/base.bin")], CONTENT)
    project.is_at("2")
    async with project.manager() as manager:
        await manager.sync()
        assert project.guard.read() == "2"
    project.is_at("1")
    with pytest.raises(AssertionError, match="older than version 2"):
        await use(project)


async def test_every_way_to_fetch_refuses_a_stale_manifest(project: Versioned) -> None:
    """Each of them on its own: no call of the API fetches with a manifest that must no longer be used."""
    project.is_at("1", PAST)
    new = Asset(id="new", url="http://127.0.0.1:9/new.bin", local_path="new.bin")
    moved = project.root / "big.bin"
    placeholder = Placeholder(
        original_path="big.bin", storage_path="big.bin", id="big", size=len(CONTENT), checksum=Checksum.of(CONTENT),
        moved_on="2001-01-01T00:00:00Z",
    )  # fmt: skip
    moved.with_name("big.bin.asset-ref").write_bytes(placeholder.encode())
    (project.root / ".git").mkdir()
    calls: dict[str, Callable[[AssetManager], Awaitable[object]]] = {
        "get_asset_path": lambda manager: manager.get_asset_path("base"),
        "download_asset": lambda manager: manager.download_asset("base"),
        "forced": lambda manager: manager.download_asset("base", force=True),
        "sync": lambda manager: manager.sync(),
        "pin": lambda manager: manager.pin(["base"]),
        "add_asset": lambda manager: manager.add_asset(new, fetch=True),
        "restore_asset": lambda manager: manager.restore_asset("big"),
    }
    for name, call in calls.items():
        async with project.manager() as manager:
            outcome = await asyncio.gather(call(manager), return_exceptions=True)
        assert isinstance(outcome[0], StaleManifest), (name, outcome)
    assert not moved.exists()

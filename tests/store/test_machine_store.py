"""The machine's store: what it hands out is verified, whoever writes to it or to what came from it."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from grym_fetch.core.digest import Checksum
from grym_fetch.core.events import AssetReused, AssetVerified, Event
from grym_fetch.disk.locks import FileLock
from grym_fetch.disk.stage import StageKey
from grym_fetch.disk.state import StateFolder
from grym_fetch.engine.reports import AssetState
from grym_fetch.events import LinkMode
from grym_fetch.store.stamps import object_path
from grym_fetch.testing import seeded_bytes
from tests.support.other_user import ANNA, BERT, TEAM, as_user, needs_root
from tests.support.project import Project
from tests.support.small_world import SmallWorld

URL = "https://origin.example/a.bin"
CONTENT = seeded_bytes(40_001, seed=3)
OBJECT = object_path(Checksum.of(CONTENT))


class Machine:
    """Projects in one folder that share a store."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.world = SmallWorld({URL: CONTENT})
        self.store = root / "store"
        self.object = self.store / OBJECT

    def project(self, name: str) -> Project:
        """A project with the asset ``a``."""
        made = Project(self.root / name)
        made.add("a", [URL], CONTENT)
        return made

    def file(self, name: str) -> Path:
        """The asset's file in a project."""
        return self.root / name / "assets/models/a.bin"

    async def sync(self, name: str, **settings: Any) -> Event:
        """Sync a project; return the event that tells of its file."""
        seen: list[Event] = []
        manager = self.world.manager(self.project(name), **{"store": str(self.store), **settings})
        async with manager.events() as events:

            async def listen() -> None:
                seen.extend([event async for event in events if isinstance(event, AssetReused | AssetVerified)])

            listening = asyncio.create_task(listen())
            async with manager:
                await manager.sync()
            await listening
        assert self.file(name).read_bytes() == CONTENT
        return seen[-1]

    async def state(self, name: str) -> AssetState:
        """What is known of a project's file without reading it."""
        async with self.world.manager(self.project(name), store=str(self.store)) as manager:
            return manager.states_of(manager.manifest.assets)[0]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine without a store."""
    return Machine(tmp_path)


def overwrite(path: Path) -> None:
    """Change a byte, as a program does that makes the file writable."""
    mode = stat.S_IMODE(path.stat().st_mode)
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(20_000)
        file.write(b"!!")
    path.chmod(mode)


async def test_a_second_project_fetches_nothing(machine: Machine) -> None:
    """Both have the same file, and each knows it without reading it again."""
    first, second = await machine.sync("one"), await machine.sync("two")
    assert isinstance(first, AssetVerified)
    assert isinstance(second, AssetReused)
    assert first.link == second.link == LinkMode.HARDLINK
    assert second.taken_from == str(machine.object)
    assert machine.world.sent == len(CONTENT)
    assert machine.file("one").samefile(machine.file("two"))
    assert machine.file("one").samefile(machine.object)
    assert {await machine.state(name) for name in ("one", "two")} == {AssetState.VERIFIED}


@pytest.mark.posix
async def test_copies_are_independent(machine: Machine) -> None:
    """With copies, a project's file has the usual mode, and the store's is read-only."""
    first, second = await machine.sync("one", link_mode="copy"), await machine.sync("two", link_mode="copy")
    assert getattr(first, "link", None) == getattr(second, "link", None) == LinkMode.COPY
    assert machine.world.sent == len(CONTENT)
    assert machine.file("two").stat().st_mode & 0o200
    assert stat.S_IMODE(machine.object.stat().st_mode) == 0o444
    overwrite(machine.file("two"))
    assert machine.object.read_bytes() == CONTENT


@pytest.mark.shows("X11")
async def test_what_was_written_through_a_link_is_not_handed_out(machine: Machine) -> None:
    """A program that changes one project's file changes the store's: the next project gets the right bytes."""
    await machine.sync("one")
    overwrite(machine.file("one"))
    assert isinstance(await machine.sync("two"), AssetVerified)
    assert machine.object.read_bytes() == CONTENT
    assert machine.object.samefile(machine.file("two"))
    assert await machine.state("one") is not AssetState.VERIFIED
    assert isinstance(await machine.sync("one"), AssetReused)
    assert machine.object.samefile(machine.file("one"))


@pytest.mark.posix
@pytest.mark.shows("X12")
async def test_an_object_that_somebody_put_there_is_read_first(machine: Machine) -> None:
    """Only this user's own verification counts."""
    machine.object.parent.mkdir(parents=True)
    machine.object.write_bytes(CONTENT[:-1] + b"x")
    assert isinstance(await machine.sync("one"), AssetVerified)
    assert machine.object.read_bytes() == CONTENT
    machine.object.unlink()
    machine.object.write_bytes(CONTENT)
    assert isinstance(await machine.sync("two"), AssetReused)


async def test_what_is_no_file_is_not_taken(machine: Machine) -> None:
    """A symlink in the place of an object is not followed, and does no harm."""
    (machine.root / "elsewhere").write_bytes(CONTENT)
    machine.object.parent.mkdir(parents=True)
    machine.object.symlink_to(machine.root / "elsewhere")
    assert isinstance(await machine.sync("one"), AssetVerified)
    assert (machine.root / "elsewhere").read_bytes() == CONTENT


async def test_a_file_that_was_there_gets_into_the_store(machine: Machine) -> None:
    """A project that was there before the store shares what it has."""
    await machine.sync("one", store=False)
    await machine.sync("one")
    assert machine.object.samefile(machine.file("one"))
    assert isinstance(await machine.sync("two"), AssetReused)


async def test_offline_takes_from_the_store(machine: Machine) -> None:
    """The store is on this machine."""
    await machine.sync("one")
    assert isinstance(await machine.sync("two", offline=True), AssetReused)


@pytest.mark.posix
async def test_what_is_not_there_yet_is_no_trouble(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    """A store that has nothing of an asset is in order, and nobody is warned about it."""
    await machine.sync("one")
    machine.object.unlink()
    await machine.sync("two")
    assert "cannot be used" not in caplog.text


async def test_a_store_that_cannot_be_used_costs_a_download(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    """The asset is fetched as without it, and the log says why."""
    machine.store.write_bytes(b"a file is in the way")
    event = await machine.sync("one")
    assert isinstance(event, AssetVerified)
    assert event.link is None
    assert f"the store {machine.store} cannot be used" in caplog.text


@pytest.mark.shows("X12")
async def test_whoever_holds_its_lock_for_ever_costs_a_download(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    """Anybody who may write to the store can hold it; after the time that the user waits for a lock, that is told."""
    await machine.sync("one")
    state = StateFolder(machine.store)
    lock = FileLock(lambda: state.open_locks(create=True), f"{StageKey(OBJECT, '').path_key}.lock")
    assert lock.try_acquire()
    try:
        assert isinstance(await machine.sync("two", lock_timeout=0.0), AssetReused)
        assert "the store's lock is not waited for any longer" in caplog.text
    finally:
        lock.release()


async def test_many_small_files(machine: Machine) -> None:
    """They are fetched together, kept, and taken from the store by the next project."""
    contents = {f"https://origin.example/{n}": seeded_bytes(500 + n, seed=n) for n in range(8)}
    machine.world.contents = contents
    for name in ("one", "two"):
        project = Project(machine.root / name)
        for n, (url, content) in enumerate(contents.items()):
            project.add(f"a{n}", [url], content)
        await machine.world.sync(project, store=str(machine.store))
        for path, content in zip(project.finals().values(), contents.values(), strict=True):
            assert path.read_bytes() == content
    assert machine.world.sent == sum(map(len, contents.values()))


async def test_the_plan_knows_the_store(machine: Machine) -> None:
    """What comes from the store needs neither download nor space."""
    await machine.sync("one")
    async with machine.world.manager(machine.project("two"), store=str(machine.store)) as manager:
        plan = await manager.plan(manager.manifest.assets)
    assert [asset.id for asset in plan.to_take] == ["a"]
    assert (plan.to_fetch, plan.space_needed) == ((), 0)


# -- a team -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def team() -> Iterator[Path]:
    """A folder in which a team may write, with a store for all of them."""
    above = Path(tempfile.mkdtemp(dir="/tmp", prefix="team-"))
    above.chmod(0o777)
    (above / "store").mkdir()
    os.chown(above / "store", ANNA, TEAM)
    (above / "store").chmod(0o2775)
    yield above
    shutil.rmtree(above)


def as_member(user: int, root: Path, name: str, umask: int) -> str:
    """Sync a project as this user; return the class of the event and how the file was linked."""

    def act() -> str:
        event = asyncio.run(Machine(root).sync(name))
        return f"{type(event).__name__} {getattr(event, 'link', None)}"

    return as_user(user, act, umask=umask)


@pytest.mark.posix
@pytest.mark.shows("X12")
@needs_root
@pytest.mark.parametrize(("umask", "link"), [(0o002, "hardlink"), (0o077, "copy")], ids=["shared", "private"])
def test_a_team_shares_a_store(team: Path, umask: int, link: str) -> None:
    """Another member's object is read before it is used, and copied, since its owner could change it.

    What only its owner can read is not linked into the store, where nobody else could use it or replace it.
    """
    assert as_member(ANNA, team, "annas", umask) == f"AssetVerified {link}"
    assert as_member(BERT, team, "berts", umask) == "AssetReused copy"
    assert not (team / "berts/assets/models/a.bin").samefile(team / "annas/assets/models/a.bin")
    assert (team / "store" / OBJECT).stat().st_uid == ANNA
    folders = (team / "store" / OBJECT).relative_to(team / "store").parents
    assert all((team / "store" / folder).stat().st_mode & 0o070 == 0o070 for folder in folders)

"""A manager from its first use to its end: it works in one event loop until it is closed, and refuses any other."""

from __future__ import annotations

import asyncio
import inspect
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest

from grym_fetch import Asset, AssetManager
from grym_fetch.disk import local_files
from grym_fetch.errors import ManifestMissing
from grym_fetch.events import RunStarted
from grym_fetch.testing import AssetServer, create_mock_asset_manager, seeded_bytes
from tests.support.project import KIB, Project

CONTENT = seeded_bytes(20 * KIB, seed=12)
NEW = Asset("new", "https://models.example.org/new.bin", "new.bin")

USES: dict[str, Callable[[AssetManager], object]] = {
    "initialize": lambda m: m.initialize(),
    "get_asset_path": lambda m: m.get_asset_path("a"),
    "download_asset": lambda m: m.download_asset("a"),
    "check_asset": lambda m: m.check_asset("a"),
    "check_all_assets": lambda m: m.check_all_assets(),
    "state_of": lambda m: m.state_of(m.manifest.get("a")),
    "download_required_assets": lambda m: m.download_required_assets(),
    "plan": lambda m: m.plan(m.choose()),
    "sync": lambda m: m.sync(),
    "sync_assets": lambda m: m.sync_assets(m.choose()),
    "sync_on": lambda m: m.sync_on("dask"),
    "sync_assets_on": lambda m: m.sync_assets_on("dask", m.choose()),
    "restore_asset": lambda m: m.restore_asset("data/moved.bin"),
    "add_asset": lambda m: m.add_asset(NEW),
    "remove_asset": lambda m: m.remove_asset("a"),
    "pin": lambda m: m.pin(),
    "prune": lambda m: m.prune(),
    "add_from_source": lambda m: m.add_from_source("hf://org/model"),
    "import_list": lambda m: m.import_list("SHA256SUMS"),
    "outdated": lambda m: m.outdated(),
    "update": lambda m: m.update(),
    "update_asset": lambda m: m.update_asset("a"),
    "states_of": lambda m: m.states_of(m.choose()),
    "open_asset": lambda m: m.open_asset("a").read(1),
    "adopt_assets": lambda m: m.adopt_assets(),
    "progress": lambda m: m.progress(),
    "repair_asset": lambda m: m.repair_asset("a"),
    "check_assets": lambda m: m.check_assets(["a"]),
    "emit": lambda m: m.emit(RunStarted(assets=1, bytes=1)),
    "events": lambda m: m.events(),
    "on_event": lambda m: m.on_event(print),
    "on_progress": lambda m: m.on_progress(print),
}
every_use = pytest.mark.parametrize("use", USES.values(), ids=USES)

READS: dict[str, Callable[[AssetManager], Coroutine[object, object, object]]] = {
    "check_asset": lambda m: m.check_asset("a", full=True),
    "check_all_assets": lambda m: m.check_all_assets(full=True),
    "repair_asset": lambda m: m.repair_asset("a", dry_run=True),
    "adopt_assets": lambda m: m.adopt_assets(),
    "pin": lambda m: m.pin(),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
async def test_what_reads_ends_with_the_manager(
    project: Project, monkeypatch: pytest.MonkeyPatch, read: Callable[[AssetManager], Coroutine[object, object, object]]
) -> None:
    """Closing it cancels whoever waits for a file to be read, as it does with downloads."""
    begun = threading.Event()

    def endless(_: int, __: object, go_on: Callable[[int], bool]) -> os.stat_result:
        begun.set()
        while go_on(1):
            pass
        return os.stat(project.manifest)

    monkeypatch.setattr(local_files, "hash_open", endless)
    for place in (*project.finals().values(), project.root.parent / "assets" / "another-name"):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(CONTENT)
    if read is READS["adopt_assets"]:
        project.finals()["a"].unlink()
    project.add("unpinned", ["https://h.example/u"], CONTENT, pinned=False).write_bytes(CONTENT)
    async with project.manager() as manager:
        reading = asyncio.create_task(read(manager))
        await asyncio.to_thread(begun.wait)
    with pytest.raises(asyncio.CancelledError):
        await reading


@pytest.fixture
def project(tmp_path: Path, server: AssetServer) -> Project:
    """One asset that is not fetched yet."""
    return Project.with_one_asset(tmp_path / "project", server, CONTENT)


async def used(manager: AssetManager, use: Callable[[AssetManager], object]) -> None:
    """Use the manager this way, to the end."""
    outcome = use(manager)
    if inspect.isawaitable(outcome):
        await outcome


def test_every_use_is_here() -> None:
    """These tests cover everything that can be done with a manager in an event loop."""
    synchronous = {"choose", "export_list", "manifest", "minimal", "project", "settings", "why_stale"}
    assert set(USES) == {name for name in vars(AssetManager) if not name.startswith("_")} - synchronous - {"aclose"}


@every_use
@pytest.mark.shows("X9")
def test_a_second_event_loop_is_refused_at_once(project: Project, use: Callable[[AssetManager], object]) -> None:
    """The error says what to do, and comes before anything is requested or written."""
    manager = project.manager()
    asyncio.run(manager.initialize())
    before = project.manifest.read_bytes()
    with pytest.raises(RuntimeError, match=r"another event loop.* for each asyncio\.run"):
        asyncio.run(used(manager, use))
    assert not project.assets.exists()
    assert project.manifest.read_bytes() == before


@pytest.mark.shows("X9")
def test_a_manager_is_not_closed_in_another_loop(project: Project) -> None:
    """Whatever would have to be ended belongs to a closed loop: that is an error of the program."""
    manager = project.manager()
    asyncio.run(manager.initialize())
    with pytest.raises(RuntimeError, match="another event loop"):
        asyncio.run(manager.aclose())


@every_use
async def test_a_closed_manager_is_refused_at_once(project: Project, use: Callable[[AssetManager], object]) -> None:
    """It does not silently open again."""
    async with project.manager() as manager:
        pass
    with pytest.raises(RuntimeError, match="was closed; make a new one"):
        await used(manager, use)
    assert not project.assets.exists()


async def test_a_manager_that_was_closed_before_its_first_use_is_closed(project: Project) -> None:
    """This holds however little was started, and however often it is closed."""
    manager = project.manager()
    await manager.aclose()
    await manager.aclose()
    with pytest.raises(RuntimeError, match="was closed"):
        await manager.initialize()


@every_use
def test_without_asyncio_the_error_says_what_is_needed(project: Project, use: Callable[[AssetManager], object]) -> None:
    """Under trio, for example, no asyncio loop is running: the error says so, and names the blocking manager."""
    working = used(project.manager(), use)
    with pytest.raises(RuntimeError, match=r"needs asyncio.* trio.* grym_fetch\.blocking"):
        working.send(None)


async def test_a_manager_is_entered_once(project: Project) -> None:
    """It is entered neither within itself nor after its end: the inner block would close it under the outer one."""
    manager = project.manager()
    async with manager:
        with pytest.raises(RuntimeError, match="entered only once"):
            async with manager:
                pass
        assert (await manager.get_asset_path("a")).read_bytes() == CONTENT
    with pytest.raises(RuntimeError, match="entered only once"):
        await manager.__aenter__()


async def test_a_manager_that_was_used_may_be_entered(project: Project) -> None:
    """`async with` after a first use closes it in the end."""
    manager = project.manager()
    await manager.initialize()
    async with manager:
        await manager.get_asset_path("a")
    with pytest.raises(RuntimeError, match="was closed"):
        await manager.get_asset_path("a")


async def test_who_could_not_enter_may_try_again(tmp_path: Path) -> None:
    """A manifest that was missing may exist now."""
    project = Project(tmp_path / "project")
    manager = project.manager()
    with pytest.raises(ManifestMissing):
        await manager.__aenter__()
    project.write()
    async with manager:
        assert await manager.check_all_assets() == []


@pytest.mark.shows("X9")
def test_a_mock_is_as_strict() -> None:
    """Whatever would fail with a real manager already fails in a unit test."""
    manager = create_mock_asset_manager({"a": "/mock/a"})
    assert asyncio.run(manager.get_asset_path("a")) == Path("/mock/a")
    with pytest.raises(RuntimeError, match="another event loop"):
        asyncio.run(manager.get_asset_path("a"))


FORKED = """
import asyncio, os
from grym_fetch import AssetManager
from grym_fetch.runtime.threads import WorkerThreads

async def main():
    threads = WorkerThreads("test", 1)
    await threads.compute(int)
    async with AssetManager() as manager:
        if os.fork():
            os.wait()
            return
        for work in (manager.sync(), threads.compute(int)):
            try:
                work.send(None)
            except RuntimeError as error:
                print(error, flush=True)
        os._exit(0)

asyncio.run(main())
"""


@pytest.mark.posix
@pytest.mark.shows("X9", "X10")
def test_a_child_that_goes_on_with_its_parents_loop_is_told_so(project: Project) -> None:
    """The child has none of its threads, and its connections belong to the parent: no digest is blamed for that."""
    done = subprocess.run([sys.executable, "-c", FORKED], cwd=project.root, timeout=60, capture_output=True, text=True)
    assert done.stdout.count("was forked while an AssetManager was at work") == 2, done.stderr

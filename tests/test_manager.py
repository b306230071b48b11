"""The public API, as an application uses it."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import grym_fetch
from grym_fetch import AssetManager, AssetProgress, SyncFailed, UnknownAsset
from grym_fetch.core.events import Event
from grym_fetch.engine.reports import PathsById
from grym_fetch.errors import AssetMissing, UnpinnedAsset
from grym_fetch.runtime.bus import Subscription
from grym_fetch.testing import AssetServer, ExpiringRedirect, Gate, Hold, Redirect, Status, seeded_bytes
from tests.support.project import KIB, Project

CONTENT = seeded_bytes(600 * KIB, seed=11)


@pytest.fixture
def project(tmp_path: Path, server: AssetServer) -> Project:
    return Project.with_one_asset(tmp_path / "project", server, CONTENT)


async def test_get_asset_path_downloads_once(project: Project, server: AssetServer) -> None:
    """The first call downloads, the next one only looks."""
    async with project.manager() as manager:
        path = await manager.get_asset_path("a")
        assert path.read_bytes() == CONTENT
        requests = len(server.stats.requests)
        assert await manager.get_asset_path("a") == path
        assert len(server.stats.requests) == requests


async def test_initialize_and_aclose(project: Project) -> None:
    """A manager also works without the context manager, and starts by itself."""
    manager = project.manager()
    await manager.initialize()
    assert (await manager.get_asset_path("a")).is_file()
    await manager.aclose()
    await manager.aclose()


async def test_callers_share_one_download(project: Project, server: AssetServer) -> None:
    """Many callers that want one asset at once cause one download, and all get its path."""
    async with project.manager() as manager:
        paths = await asyncio.gather(*(manager.get_asset_path("a") for _ in range(20)))
    assert len(set(paths)) == 1
    assert server.stats.body_bytes_sent == len(CONTENT)


async def test_one_caller_leaves_another_stays(project: Project, server: AssetServer) -> None:
    """Cancelling one caller harms no other; cancelling the last one ends the download and keeps what has arrived."""
    server.add("/a.bin", CONTENT, faults=[Hold(Gate(), at=len(CONTENT) // 2)])
    async with project.manager(parallel=1) as manager:
        async with manager.events() as events:
            first = asyncio.create_task(manager.get_asset_path("a"))
            second = asyncio.create_task(manager.get_asset_path("a"))
            async for event in events:
                if event.type == "progress":
                    break
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert not second.done()
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        server.add("/a.bin", CONTENT)
        async with manager.events() as events:
            assert (await manager.get_asset_path("a")).read_bytes() == CONTENT
            planned = next(event for event in [e async for e in _queued(events)] if event.type == "asset_planned")
    assert planned.as_json()["resumed_bytes"] != 0


async def test_who_comes_while_a_cancelled_download_lets_go_is_not_cancelled_with_it(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last waiting caller has left, and what has arrived is being saved: a new caller gets a new download."""
    began, ending, has_let_go = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def fetch(*_: object, **__: object) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ending.set()
            await has_let_go.wait()

    async with project.manager() as manager:
        with monkeypatch.context() as patch:
            patch.setattr(manager._ready().engine.fetcher, "fetch", fetch)
            first = asyncio.create_task(manager.get_asset_path("a"))
            await began.wait()
            first.cancel()
            await ending.wait()
        second = asyncio.create_task(manager.get_asset_path("a"))
        await asyncio.sleep(0)
        has_let_go.set()
        assert (await second).read_bytes() == CONTENT
        with pytest.raises(asyncio.CancelledError):
            await first


@pytest.mark.parametrize("where", ["Transfer.next_attempt", "Transfer.release", "Transfer._failed", "Transfer._asked"])
async def test_a_bug_of_ours_fails_the_asset_and_hangs_nothing(
    project: Project, server: AssetServer, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """This holds wherever in the engine it is, even where only the event loop would see it."""

    def bug(*_: object, **__: object) -> None:
        raise ZeroDivisionError(where)

    if where.endswith("_failed"):
        server.add("/a.bin", CONTENT, faults=[Status(500)])
    async with project.manager() as manager:
        with monkeypatch.context() as patch:
            patch.setattr(f"grym_fetch.transfer.transfer.{where}", bug)
            with pytest.raises(ZeroDivisionError, match=where):
                await manager.get_asset_path("a")
        server.add("/a.bin", CONTENT)
        assert (await manager.get_asset_path("a")).read_bytes() == CONTENT


async def _queued(events: Subscription) -> AsyncIterator[Event]:
    for event in events.drain():
        yield event


async def test_check_asset(project: Project) -> None:
    """A status says whether the file is there and right, and what is wrong with it."""
    async with project.manager() as manager:
        status = await manager.check_asset("a")
        assert (status.id, status.exists, status.valid, status.error) == ("a", False, False, "missing")
        path = await manager.download_asset("a")
        status = await manager.check_asset("a")
        assert (status.exists, status.valid, status.path, status.error) == (True, True, path, None)
        path.write_bytes(b"x" * len(CONTENT))
        (status,) = await manager.check_all_assets()
        assert (status.exists, status.valid) == (True, False)
        assert "checksum" in (status.error or "")


@pytest.mark.posix
@pytest.mark.shows("C12", "S1")
async def test_a_file_changed_behind_our_back(project: Project) -> None:
    """A verified file changed afterwards is noticed and replaced, even if size and times were restored."""
    async with project.manager() as manager:
        path = await manager.get_asset_path("a")
        figures = path.stat()
        with path.open("r+b") as file:
            file.write(b"oops")
        os.utime(path, ns=(figures.st_atime_ns, figures.st_mtime_ns))
        assert (await manager.get_asset_path("a")).read_bytes() == CONTENT


async def test_what_is_required_where_nothing_is_marked(project: Project, server: AssetServer) -> None:
    """`sync` then fetches every asset; `download_required_assets` fetches what its name says, which is nothing."""
    for entry in project.entries:
        entry["required"] = False
    project.write()
    async with project.manager() as manager:
        assert (await manager.download_required_assets()).paths == {}
        assert not server.stats.requests
        assert (await manager.sync()).verified == ("a",)


async def test_required_assets_as_stand_ins(project: Project, server: AssetServer) -> None:
    """A manager of stand-ins fetches those of the required assets, whichever assets have the tag `essential`."""
    tiny = server.add("/tiny.bin", b"tiny")
    stand_in = {"url": tiny.url, "checksum": tiny.sha256, "size": tiny.size}
    project.add("b", [server.add("/b.bin", CONTENT).url], CONTENT, minimal=stand_in)
    project.add("c", [server.add("/c.bin", CONTENT).url], CONTENT, required=False, tags=["essential"])
    async with AssetManager(project.manifest, minimal=True) as manager:
        report = await manager.download_required_assets()
        assert sorted(report.verified) == ["a", "b"]
        assert report.paths["b"].read_bytes() == b"tiny"


@pytest.mark.shows("M17")
async def test_sync_reports(project: Project, server: AssetServer) -> None:
    """A sync reports what was fetched and what was present; if some fail it raises, and the rest is there."""
    project.add("b", [server.add("/b.bin", CONTENT).url], CONTENT)
    async with project.manager() as manager:
        report = await manager.download_required_assets()
        assert sorted(report.verified) == ["a", "b"]
        assert report.downloaded_bytes == 2 * len(CONTENT)
        assert (await manager.sync(["a"])).reused == ("a",)
        assert (await manager.sync(["a"], force=True)).verified == ("a",)
    project.add("c", [server.add("/c.bin", CONTENT, faults=[Status(404)]).url], CONTENT)
    async with project.manager() as manager:
        with pytest.raises(SyncFailed) as caught:
            await manager.sync(all=True)
        assert list(caught.value.failures) == ["c"]


@pytest.mark.shows("S1")
async def test_unknown_and_unpinned(project: Project, server: AssetServer) -> None:
    """An unknown id and an asset without a checksum are refused with their own errors."""
    project.add("loose", [server.add("/l.bin", CONTENT).url], CONTENT, pinned=False)
    async with project.manager() as manager:
        with pytest.raises(UnknownAsset):
            await manager.get_asset_path("nope")
        with pytest.raises(UnpinnedAsset):
            await manager.get_asset_path("loose")
    async with project.manager(offline=True) as manager:
        with pytest.raises(AssetMissing):
            await manager.get_asset_path("a")


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.adopt_assets("/srv"),
        lambda m: m.add_from_source("hf://org/repo", tags="voice"),
        lambda m: m.add_from_source("hf://org/repo", fallback_urls="https://h/x"),
        lambda m: m.import_list("SHA256SUMS", tags="voice"),
        lambda m: m.prune(orphans="old.bin"),
        lambda m: m.sync(""),  # such as a variable that is empty: not the same as no choice
        lambda m: m.sync(tags=""),
    ],
)
async def test_one_string_is_not_several(project: Project, call: Callable[[AssetManager], Awaitable[object]]) -> None:
    """Where several are meant, a string is refused at once: its letters would be tags, or folders to search."""
    async with project.manager() as manager:
        with pytest.raises(TypeError, match="must be a list of strings, not one"):
            await call(manager)


async def test_what_cannot_be_called_is_no_callback(project: Project) -> None:
    """It is refused where it is given, and not in the log at the first event."""
    async with project.manager() as manager:
        with pytest.raises(TypeError, match="a callback must be callable, and this is of type int"):
            manager.on_progress(5)  # type: ignore[arg-type]  # what is tested


@pytest.mark.parametrize("kind", ["sync", "async", "object"])
async def test_progress_callbacks(project: Project, kind: str) -> None:
    """Callbacks see every state and end at 100 %, before the call returns; an unregistered one hears nothing more."""
    seen: list[AssetProgress] = []

    async def on_progress(progress: AssetProgress) -> None:
        seen.append(progress)

    class Listener:
        def __call__(self, progress: AssetProgress) -> None:
            seen.append(progress)

    callback: Any = {"sync": seen.append, "async": on_progress, "object": Listener()}[kind]
    async with project.manager() as manager:
        unregister = manager.on_progress(callback)
        await manager.download_asset("a")
        statuses = list(dict.fromkeys(progress.status for progress in seen))
        assert statuses == ["pending", "downloading", "validating", "complete"]
        assert seen[-1].percentage == 100.0
        assert seen[-1].bytes_downloaded == seen[-1].total_bytes == len(CONTENT)
        assert all(0 <= progress.percentage <= 100 for progress in seen)
        unregister()
        count = len(seen)
        await manager.download_asset("a", force=True)
        assert len(seen) == count


@pytest.mark.shows("U5", "U6", "S13")
async def test_bad_callbacks_harm_nothing(project: Project) -> None:
    """A callback that raises, and one that blocks its thread forever, stop no download."""
    release = threading.Event()
    try:
        async with project.manager() as manager:
            manager.on_progress(lambda _: 1 / 0)
            manager.on_progress(lambda _: release.wait() and None)
            assert (await manager.download_asset("a")).read_bytes() == CONTENT
    finally:
        release.set()


async def test_events_come_once_and_in_order(project: Project) -> None:
    """The stream has every event of a run, in the order of an asset's life, and ends with the manager."""
    manager = project.manager()
    async with manager:
        events = manager.events()
        await manager.sync()
    kinds = [event.type async for event in events]
    without_progress = [kind for kind in kinds if kind != "progress"]
    assert without_progress == ["run_started", "asset_planned", "asset_verifying", "asset_verified", "run_finished"]
    assert "progress" in kinds


async def test_files_elsewhere_are_used_in_place(project: Project, server: AssetServer) -> None:
    """A valid file in the external dir, or one named by its record of moves, is used where it is."""
    external = project.root.parent / "assets"
    (external / "models").mkdir(parents=True)
    (external / "models" / "a.bin").write_bytes(CONTENT)
    async with project.manager() as manager:
        assert await manager.get_asset_path("a") == external / "models" / "a.bin"
    assert not server.stats.requests


async def test_stand_ins(project: Project, server: AssetServer) -> None:
    """A minimal manager fetches the small stand-in to its own place, never mistaken for the full asset."""
    small = server.add("/small.bin", b"small")
    stand_in = {"url": small.url, "checksum": small.sha256, "size": small.size}
    full = project.add("a", [server.url("/a.bin")], CONTENT, minimal=stand_in)
    async with AssetManager(project.manifest, minimal=True, environ={}) as manager:
        path = await manager.get_asset_path("a")
    assert path.read_bytes() == b"small"
    assert path == project.assets / "minimal" / "models" / "a.bin"
    assert not full.exists()
    async with project.manager() as manager:
        assert not (await manager.check_asset("a")).exists


@pytest.mark.shows("A6", "B50")
async def test_redirects_are_remembered_and_walked_again(project: Project, server: AssetServer) -> None:
    """A signed address is used directly until it expires; then the first address is asked again, without a retry."""
    hub = server.add("/hub.bin", faults=[ExpiringRedirect("/a.bin", uses=3)])
    path = project.add("signed", [hub.url], CONTENT)
    async with project.manager(parallel=1) as manager, manager.events() as events:
        await manager.get_asset_path("signed")
        kinds = [event.type async for event in _queued(events)]
    assert path.read_bytes() == CONTENT
    walks = len([request for request in server.stats.requests if request.path == "/hub.bin"])
    direct = len([request for request in server.stats.requests if request.path == "/a.bin"])
    assert 2 <= walks < direct
    assert "retry_scheduled" not in kinds


@pytest.mark.shows("A10", "S7")
async def test_a_redirect_gets_no_credentials(project: Project, server: AssetServer) -> None:
    """Credentials for one host and port are not sent to another one."""
    async with AssetServer() as elsewhere:
        target = elsewhere.add("/t.bin", CONTENT)
        hub = server.add("/hub.bin", faults=[Redirect(target.url)])
        path = project.add("moved", [hub.url.replace("http://", "http://user:secret@")], CONTENT)
        async with project.manager() as manager:
            await manager.get_asset_path("moved")
        assert path.read_bytes() == CONTENT
        assert all("authorization" in r.headers for r in server.stats.requests if r.path == "/hub.bin")
        assert elsewhere.stats.requests
        assert not [r for r in elsewhere.stats.requests if "authorization" in r.headers]


async def test_limit_rate(project: Project) -> None:
    """--limit-rate bounds the speed over all connections."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with AssetManager(
        project.manifest, settings=grym_fetch.Settings(limit_rate=1024 * KIB), environ={}
    ) as manager:
        await manager.get_asset_path("a")
    assert loop.time() - began >= 0.9 * len(CONTENT) / (1024 * KIB) - 0.1


def test_the_shared_manager() -> None:
    """`asset_manager` is one manager for the whole process, created on first use."""
    assert grym_fetch.asset_manager is grym_fetch.asset_manager
    assert isinstance(grym_fetch.asset_manager, AssetManager)
    with pytest.raises(AttributeError):
        getattr(grym_fetch, "nonsense")  # noqa: B009 - a type checker knows that it does not exist


def test_paths_of_a_report_are_made_when_asked_for() -> None:
    """To its reader they are an ordinary mapping."""
    paths = PathsById({"a": "/x/a", "b": Path("/x/b")})
    assert paths == {"a": Path("/x/a"), "b": Path("/x/b")}
    assert (paths["a"], list(paths), len(paths), "b" in paths, "c" in paths) == (
        Path("/x/a"),
        ["a", "b"],
        2,
        True,
        False,
    )
    assert repr(paths) == repr(dict(paths))

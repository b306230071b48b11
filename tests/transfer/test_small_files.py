"""Small assets, many at a time: the short way is fast, and anything unusual goes the long way."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from grym_fetch import SyncFailed
from grym_fetch.core.digest import Checksum
from grym_fetch.core.manifest import Asset
from grym_fetch.core.manifest_parser import parse_manifest
from grym_fetch.disk.locks import FileLock
from grym_fetch.disk.owner import Owner
from grym_fetch.disk.small_files import SmallFileWriter
from grym_fetch.disk.state import StateFolder
from grym_fetch.errors import UnsafePath
from grym_fetch.runtime.threads import WorkerThreads
from grym_fetch.testing import (
    AssetServer,
    Chunked,
    Fault,
    FlipByte,
    Gzip,
    HangBeforeBody,
    HangBeforeHeaders,
    HtmlPage,
    NoRanges,
    Redirect,
    Reset,
    Status,
    Truncate,
    WrongFile,
    seeded_bytes,
)
from grym_fetch.transfer.small_files import (
    MAX_CONSECUTIVE_FAILURES,
    MIN_SMALL_FILES,
    SMALL_FILE_BYTES,
    TURN_FILES,
    SmallFileSource,
    is_small,
)
from tests.support.fakes import ScriptedTransport, context_of
from tests.support.invariants import Recorder, Watcher, watched
from tests.support.project import OWN, Project

COUNT = 2 * TURN_FILES + 8


@cache
def content_of(number: int) -> bytes:
    """Each asset has its own content, of a different length."""
    return seeded_bytes(100 + 997 * number % 9000, seed=number)


def fill(project: Project, server: AssetServer, count: int = COUNT) -> list[Path]:
    """List this many small assets."""
    for n in range(count):
        url = server.add(f"/{n}.bin", content_of(n)).url
        entry: dict[str, object] = {"id": f"a{n}", "url": url, "localPath": f"d{n % 3}/{n}.bin", "required": True}
        project.entries.append(entry | {"checksum": str(Checksum.of(content_of(n))), "size": len(content_of(n))})
    project.write()
    return [project.assets / f"d{n % 3}/{n}.bin" for n in range(count)]


async def test_many_small_assets(server: AssetServer, project: Project) -> None:
    """Each is requested once, over no more connections than allowed, and is there, verified, recorded and reported."""
    paths = fill(project, server)
    async with project.manager(parallel=2) as manager:
        recorder = Recorder(manager)
        report = await manager.sync()
    assert [path.read_bytes() for path in paths] == [content_of(n) for n in range(COUNT)]
    assert len(report.verified) == len(server.stats.requests) == COUNT
    assert server.stats.most_open_connections == 2
    assert report.downloaded_bytes == server.stats.body_bytes_sent == sum(len(content_of(n)) for n in range(COUNT))
    recorder.check()
    for n in range(COUNT):
        kinds = [event.type for event in recorder.events if event.asset == f"a{n}"]
        assert kinds == ["asset_planned", "progress", "asset_verifying", "asset_verified"]
    assert project.staged() == []
    assert not list((project.assets / ".grym-fetch" / "locks").iterdir())
    async with project.manager() as manager:
        assert len((await manager.sync()).reused) == COUNT
    assert len(server.stats.requests) == COUNT


def test_which_are_small() -> None:
    """Assets with a checksum and a size of up to 256 KiB that are not unpacked; all others go the long way."""
    small = Asset("a", "https://origin.example/a", "a", checksum=Checksum.of(b""), size=SMALL_FILE_BYTES)
    assert is_small(small)
    assert not is_small(replace(small, size=SMALL_FILE_BYTES + 1))
    assert not is_small(replace(small, size=None))
    assert not is_small(replace(small, checksum=None))
    assert not is_small(replace(small, extract=True))


async def test_no_more_connections_to_a_host_than_allowed(server: AssetServer, project: Project) -> None:
    """The limit per host holds for small assets, too."""
    fill(project, server)
    async with project.manager(parallel=4, max_per_host=1) as manager:
        await manager.sync()
    assert server.stats.most_open_connections == 1


@pytest.mark.posix
@pytest.mark.parametrize("is_symlink", [True, False], ids=["symlink", "closed"])
@pytest.mark.shows("X7")
async def test_nothing_is_fetched_for_a_folder_that_cannot_be_used(
    server: AssetServer, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_symlink: bool
) -> None:
    """This is known before the first byte, for small assets as for large ones; all others arrive."""
    fill(project, server)
    folder = project.assets / "d1"
    project.assets.mkdir(exist_ok=True)
    if is_symlink:
        folder.symlink_to(tmp_path)
    else:
        folder.mkdir()
        access = os.access

        def closed(path: str, mode: int, **more: int) -> bool:
            above = os.readlink(f"/proc/self/fd/{more['dir_fd']}") if "dir_fd" in more else ""
            return above != str(folder) and access(path, mode, **more)  # type: ignore[arg-type]  # what it takes

        monkeypatch.setattr(os, "access", closed)
    async with project.manager() as manager:
        with pytest.raises(SyncFailed) as caught:
            await manager.sync()
    closed_ones = [n for n in range(COUNT) if n % 3 == 1]
    assert len(caught.value.failures) == len(closed_ones)
    assert len(server.stats.requests) == COUNT - len(closed_ones)
    assert len(list(project.assets.glob("d[02]/*.bin"))) == COUNT - len(closed_ones)


UNUSUAL: dict[str, list[Fault]] = {
    "chunked": [Chunked()],
    "reset once": [Reset(after=50, times=1)],
    "cut once": [Truncate(after=50, times=1)],
    "no ranges": [NoRanges()],
    "wrong once": [FlipByte(at=7, times=1)],
    "redirect": [Redirect("/5.bin")],
    "gzip once": [Gzip(times=1)],
    "busy once": [Status(503, times=1)],
    "silent once": [HangBeforeHeaders(times=1)],
    "stalled once": [HangBeforeBody(times=1)],
}


@pytest.mark.parametrize("faults", UNUSUAL.values(), ids=UNUSUAL.keys())
async def test_one_that_is_unusual(server: AssetServer, project: Project, faults: list[Fault]) -> None:
    """A single asset that does not simply arrive goes the long way, and no event is reported twice."""
    paths = fill(project, server)
    server.add("/5.bin", content_of(5))
    server.add("/50.bin", content_of(5 if isinstance(faults[0], Redirect) else 50), faults=faults)
    if isinstance(faults[0], Redirect):
        project.add("a50", [server.url("/50.bin")], content_of(5), localPath="d2/50.bin")
    is_silent = isinstance(faults[0], HangBeforeHeaders | HangBeforeBody)
    async with project.manager(stall_timeout=0.2 if is_silent else 60.0) as manager:
        recorder = Recorder(manager)
        report = await manager.sync()
    recorder.check()
    assert len(report.verified) == COUNT
    assert paths[50].read_bytes() == content_of(5 if isinstance(faults[0], Redirect) else 50)
    assert len([event for event in recorder.events if event.asset == "a50" and event.type == "asset_planned"]) == 1


@pytest.mark.shows("A4", "C3", "A20")
@pytest.mark.parametrize("fault", [Status(404), WrongFile(seed=99), HtmlPage(), Status(403)], ids=repr)
async def test_one_that_cannot_be_had(server: AssetServer, project: Project, fault: Fault) -> None:
    """An asset that fails for good fails alone, with its reason, and the old file stays."""
    paths = fill(project, server)
    server.add("/50.bin", content_of(50), faults=[fault])
    paths[50].parent.mkdir(parents=True)
    with watched(Watcher(paths[50])):
        async with project.manager() as manager:
            with pytest.raises(SyncFailed) as caught:
                await manager.sync()
    assert list(caught.value.failures) == ["a50"]
    assert "/50.bin" in str(caught.value)
    assert all(path.exists() for number, path in enumerate(paths) if number != 50)


@pytest.mark.shows("A19")
async def test_a_server_in_trouble_is_not_asked_twice_for_everything(server: AssetServer, project: Project) -> None:
    """After a few failures in a row the short way is given up for all that are still waiting."""
    fill(project, server)
    for number in range(COUNT):
        server.add(f"/{number}.bin", content_of(number), faults=[Status(404)])
    async with project.manager(parallel=2) as manager:
        with pytest.raises(SyncFailed):
            await manager.sync()
    # The long way requests each whole file at once: after a refused range it would have to, too.
    assert len(server.stats.requests) <= COUNT + MAX_CONSECUTIVE_FAILURES + 2


@pytest.mark.posix
@pytest.mark.shows("D11", "D12")
@pytest.mark.parametrize("obstacle", ["folder", "link to elsewhere", "file for a folder"])
async def test_what_is_in_the_way(server: AssetServer, project: Project, tmp_path: Path, obstacle: str) -> None:
    """With a folder in the place, or a symlink or a file on the way to it, that asset fails and the others do not."""
    paths = fill(project, server, 12)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    project.assets.mkdir(parents=True)
    if obstacle == "folder":
        paths[4].mkdir(parents=True)
        blocked = {"a4"}
    else:
        if obstacle == "link to elsewhere":
            (project.assets / "d1").symlink_to(elsewhere)
        else:
            (project.assets / "d1").write_bytes(b"")
        blocked = {"a1", "a4", "a7", "a10"}
    async with project.manager() as manager:
        with pytest.raises(SyncFailed) as caught:
            await manager.sync()
    assert set(caught.value.failures) == blocked
    assert all(isinstance(error, UnsafePath) for error in caught.value.failures.values())
    assert list(elsewhere.iterdir()) == []
    assert sum(path.is_file() for path in paths) == 12 - len(blocked)


async def test_a_file_that_is_there_is_judged_first(server: AssetServer, project: Project) -> None:
    """A right file is used, a wrong one replaced, and neither is fetched the short way."""
    paths = fill(project, server, 12)
    paths[3].parent.mkdir(parents=True)
    paths[3].write_bytes(content_of(3))
    paths[6].write_bytes(b"old")
    async with project.manager() as manager:
        report = await manager.sync()
    assert report.reused == ("a3",)
    assert paths[6].read_bytes() == content_of(6)
    assert server.stats.of("/3.bin").requests == ()


async def test_large_and_small_together(server: AssetServer, project: Project) -> None:
    """Small assets do not delay a large one, nor the other way round."""
    paths = fill(project, server, 40)
    large = seeded_bytes(3 * SMALL_FILE_BYTES, seed=5)
    big = project.add("big", [server.add("/big.bin", large).url], large)
    async with project.manager(parallel=2) as manager:
        assert len((await manager.sync()).verified) == 41
    assert big.read_bytes() == large
    assert all(path.exists() for path in paths)


async def test_cancelled_half_way(server: AssetServer, project: Project) -> None:
    """A cancelled sync leaves right files or none, nothing staged, and the next run does the rest."""
    paths = fill(project, server)
    server.add("/67.bin", content_of(67), faults=[HangBeforeBody(times=1)])
    async with project.manager(parallel=1, stall_timeout=30.0) as manager:
        syncing = asyncio.ensure_future(manager.sync())
        await server.stats.until(lambda stats: len(stats.requests) == 68)
        syncing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await syncing
    there = [n for n, path in enumerate(paths) if path.exists()]
    assert 0 < len(there) < COUNT
    assert all(paths[n].read_bytes() == content_of(n) for n in there)
    assert project.staged() == []
    async with project.manager() as manager:
        assert len((await manager.sync()).reused) == len(there)


async def test_who_is_cancelled_hands_out_no_more(project: Project, tmp_path: Path) -> None:
    """A turn that ends after the source was cancelled gives nothing back: the rest of it is no longer wanted."""
    threads = WorkerThreads("test", 1)
    project.add("a", ["http://127.0.0.1:1/a"], b"a")
    asset = parse_manifest(project.manifest.read_bytes(), "assets.json").manifest.get("a")
    source = SmallFileSource(
        "127.0.0.1:1",
        [asset] * (2 * TURN_FILES),
        context_of(ScriptedTransport()),
        writer=SmallFileWriter(StateFolder(tmp_path / "assets"), threads, set()),
        on_placed=lambda _: None,
    )
    running = asyncio.ensure_future(source.run())
    await asyncio.sleep(0)
    turn = source.next_attempt(lambda _: True)
    assert turn is not None
    assert len(turn.assets) == TURN_FILES
    running.cancel()
    await asyncio.wait([running])
    source.release(turn)
    assert source.next_attempt(lambda _: True) is None
    threads.close()


@pytest.mark.shows("X1")
async def test_two_managers_fetch_each_once(server: AssetServer, project: Project) -> None:
    """Two syncs of one folder, like those of two processes: the second waits and finds everything there."""
    fill(project, server)
    async with project.manager() as first, project.manager() as second:
        reports = await asyncio.gather(first.sync(), second.sync())
    assert len(server.stats.requests) == COUNT
    assert sorted(len(report.verified) for report in reports) == [0, COUNT]


async def test_who_wants_one_of_them_shares_it(server: AssetServer, project: Project) -> None:
    """A caller that requests an asset under way waits for it, and it is fetched once."""
    paths = fill(project, server)
    async with project.manager(parallel=1) as manager:
        syncing = asyncio.ensure_future(manager.sync())
        await server.stats.until(lambda stats: len(stats.requests) == 1)
        assert await manager.get_asset_path("a70") == paths[70]
        again = await manager.sync()
        await syncing
    assert len(again.reused) == COUNT
    assert len(server.stats.requests) == COUNT


async def test_who_shares_one_outlives_the_sync(server: AssetServer, project: Project) -> None:
    """A caller that waits for an asset of a cancelled sync still gets it."""
    paths = fill(project, server, 20)
    server.add("/3.bin", content_of(3), faults=[HangBeforeBody(times=1)])
    async with project.manager(parallel=1, stall_timeout=30.0) as manager:
        syncing = asyncio.ensure_future(manager.sync())
        await server.stats.until(lambda stats: len(stats.requests) == 4)
        asking = asyncio.ensure_future(manager.get_asset_path("a15"))
        await asyncio.sleep(0)
        syncing.cancel()
        assert await asking == paths[15]
        with pytest.raises(asyncio.CancelledError):
            await syncing


async def test_a_lock_that_stays_held_is_not_waited_for_in_vain(server: AssetServer, project: Project) -> None:
    """After the wait each asset goes the long way: the lock only saves bandwidth, and nothing depends on it."""
    paths = fill(project, server, 2 * MIN_SMALL_FILES)
    async with project.manager(lock_timeout=0.0) as manager:
        await manager.sync(ids=["a0"])
        lock = FileLock(StateFolder(project.assets).open_locks, f"{'0' * 24}.lock")
        assert lock.try_acquire()
        try:
            await manager.sync()
        finally:
            lock.release()
    assert all(path.exists() for path in paths)


async def test_what_a_dead_process_left_is_cleared_away(server: AssetServer, project: Project) -> None:
    """Small files that a killed process had not yet put in place do not stay forever."""
    fill(project, server, 12)
    async with project.manager() as manager:
        await manager.sync(ids=["a0"])
        name = f"{'0' * 24}.{'0' * 16}.999999999-1-{Owner.this().boot}.00000000"
        left = project.assets / OWN / "stage" / name
        left.mkdir()
        (left / "3").write_bytes(b"half")
        await manager.sync()
    assert project.staged() == []


async def test_limit_rate_holds(server: AssetServer, project: Project) -> None:
    """The limit counts for small assets as for large ones."""
    fill(project, server, 20)
    total = sum(len(content_of(n)) for n in range(20))
    async with project.manager(limit_rate=total / 10) as manager:
        report = await manager.sync()
    assert report.seconds >= 8


async def test_a_slow_connection_does_not_keep_the_others_waiting(server: AssetServer, project: Project) -> None:
    """Work that waits behind a slow file is taken over by an idle connection, and put in place."""
    fill(project, server, 2 * TURN_FILES)
    server.add("/0.bin", content_of(0), faults=[HangBeforeHeaders()])
    there: list[str | None] = []
    async with asyncio.timeout(60), project.manager(parallel=2, stall_timeout=3600.0) as manager:
        heard = manager.events()
        run = asyncio.create_task(manager.sync())
        async for event in heard:
            there += [event.asset] if event.type == "asset_verified" else []
            if len(there) == 2 * TURN_FILES - 1:
                break
        run.cancel()
        await asyncio.wait([run])
    assert "a0" not in there

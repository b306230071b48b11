"""A run over many assets: each of them ends exactly once, and with the right outcome."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

from grym_fetch import AssetProgress, SyncFailed
from grym_fetch.core.errors import DiskFull
from grym_fetch.core.manifest import Asset, as_stand_ins, known_bytes
from grym_fetch.engine import coordinator as module
from grym_fetch.engine.reports import SyncPlan
from grym_fetch.events import Subscription
from grym_fetch.runtime import system
from grym_fetch.testing import AssetServer, Status, seeded_bytes
from tests.support.invariants import Recorder
from tests.support.mounts import mounted
from tests.support.project import Project

CONTENT = b"some bytes"


@pytest.fixture
def project(tmp_path: Path, server: AssetServer) -> Project:
    """Two pinned assets and one unpinned one."""
    made = Project(tmp_path / "project")
    for name in ("a", "b", "loose"):
        made.add(name, [server.add(f"/{name}.bin", CONTENT).url], CONTENT, pinned=name != "loose")
    return made


@pytest.mark.shows("S1")
async def test_what_has_no_checksum_is_fetched_and_not_verified(project: Project) -> None:
    """It is counted apart from verified assets, in the report and in the run's last event; later on it is reused."""
    async with project.manager(allow_unpinned=True) as manager:
        recorder = Recorder(manager)
        report = await manager.sync()
        again = await manager.sync()
    assert (sorted(report.verified), report.unverified, report.reused) == (["a", "b"], ("loose",), ())
    assert (again.verified, again.unverified, sorted(again.reused)) == ((), (), ["a", "b", "loose"])
    ended = [(event["verified"], event["unverified"], event["reused"]) for event in recorder.of("run_finished")]
    assert ended == [(2, 1, 0), (0, 0, 3)]
    for kind in ("asset_verified", "asset_reused"):
        assert {event["asset"]: event.get("unverified") for event in recorder.of(kind)} == {
            "a": None,
            "b": None,
            "loose": True,
        }


async def test_every_asset_ends_in_one_way(project: Project, server: AssetServer) -> None:
    """Each id is in one of the report's four parts; if some assets failed, the report is in the error."""
    project.add("gone", [server.add("/gone.bin", CONTENT, faults=[Status(404)]).url], CONTENT)
    async with project.manager(allow_unpinned=True) as manager:
        await manager.sync(["a"])
        recorder = Recorder(manager)
        with pytest.raises(SyncFailed) as caught:
            await manager.sync()
    assert list(caught.value.failures) == ["gone"]
    (finished,) = recorder.of("run_finished")
    assert [finished[each] for each in ("verified", "unverified", "reused", "failed")] == [1, 1, 1, 1]


async def test_a_listener_hears_of_the_start_before_anything_that_takes_time(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fetches is imported after that, and nothing is asked of a server or the disk."""
    async with project.manager() as manager:
        coordinator, heard = manager._ready(), list[str]()
        goes_on = coordinator._without_what_is_too_much

        async def listen(events: Subscription) -> None:
            async for event in events:
                heard.append(event.type)

        async def has_been_heard(*args: object, **kwargs: object) -> list[Asset]:
            assert heard == ["run_started"]
            return await goes_on(*args, **kwargs)  # type: ignore[arg-type]  # as they came

        monkeypatch.setattr(coordinator, "_without_what_is_too_much", has_been_heard)
        listening = asyncio.create_task(listen(manager.events()))
        await asyncio.sleep(0)
        await manager.sync(["a"])
    await listening


async def test_nothing_is_told_to_nobody(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 60,000 assets that are there, no event is made if nobody listens; whoever listens hears of each."""
    async with project.manager() as manager:
        await manager.sync(["a", "b"])
        recorder = Recorder(manager)
        await manager.sync(["a", "b"])
    assert len(recorder.of("asset_reused")) == 2
    monkeypatch.setattr(module, "AssetReused", None)
    async with project.manager() as manager:
        assert len((await manager.sync(["a", "b"])).reused) == 2


async def test_an_asset_that_was_chosen_twice_is_one(project: Project) -> None:
    """It is counted and reported once."""
    async with project.manager() as manager:
        recorder = Recorder(manager)
        a, b = manager.choose(["a", "b"])
        report = await manager.sync_assets([a, b, a])
    assert sorted(report.verified) == ["a", "b"]
    assert [event["assets"] for event in recorder.of("run_started")] == [2]


@pytest.mark.parametrize("count", [0, 2])
async def test_a_run_that_loses_an_asset_is_no_success(
    project: Project, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """If an asset ever ended twice or not at all, the error would call it a bug and name the asset."""
    async with project.manager() as manager:
        coordinator = manager._ready()
        fetch_each = coordinator._fetch_each

        async def forget_b(assets: list[Asset], *args: object, **kwargs: object) -> None:
            kept = [asset for asset in assets if asset.id != "b"]
            await fetch_each(kept + [asset for asset in assets if asset.id == "b"] * count, *args, **kwargs)  # type: ignore[arg-type]  # as they came

        monkeypatch.setattr(coordinator, "_fetch_each", forget_b)
        recorder = Recorder(manager)
        with pytest.raises(RuntimeError, match=rf"a bug in grym-fetch: .* b ended {count} times$"):
            await manager.sync(["a", "b"])
    assert len(recorder.of("run_finished")) == 1


async def test_what_was_there_has_its_size_in_progress(project: Project) -> None:
    """Progress without its bytes would be wrong: a reused asset's callback has them."""
    seen: list[AssetProgress] = []
    async with project.manager() as manager:
        await manager.sync(["a"])
        manager.on_progress(seen.append)
        await manager.sync(["a"])
    assert [(each.percentage, each.bytes_downloaded, each.total_bytes) for each in seen] == [
        (100.0, len(CONTENT), len(CONTENT))
    ]


async def test_a_plan_tells_what_is_unread_and_what_will_be_unpacked(project: Project, server: AssetServer) -> None:
    """A file of the right size may be wrong, and an archive's contents are written, too; both are announced."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.txt", b"a")
    data = out.getvalue()
    project.add("set", [server.add("/set.zip", data).url], data, localPath="set.zip", extract=True)
    place = project.assets / "models/a.bin"
    place.parent.mkdir(parents=True)
    place.write_bytes(CONTENT[::-1])
    project.add("u", [server.url("/u")], None, pinned=False, size=None).write_bytes(b"anything")
    async with project.manager() as manager:
        plan = await manager.plan(manager.choose(["u"]))
        assert ([each.id for each in plan.present], plan.unread) == (["u"], ()), "no sync reads what has no checksum"
        chosen = manager.choose(["a", "set"])
        plan = await manager.plan(chosen)
        assert [[each.id for each in some] for some in (plan.present, plan.unread, plan.to_unpack)] == [
            ["a"], ["a"], ["set"],
        ]  # fmt: skip
        await manager.sync(["a", "set"])
        plan = await manager.plan(chosen)
        assert [[each.id for each in some] for some in (plan.present, plan.unread, plan.to_unpack)] == [
            ["a", "set"], [], [],
        ]  # fmt: skip
        (project.assets / "set" / "a.txt").unlink()
        assert [each.id for each in (await manager.plan(chosen)).to_unpack] == ["set"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS], ids=errno.errorcode.get)
@pytest.mark.parametrize("size", [100, 200_000], ids=["small", "large"])
@pytest.mark.shows("D2", "D4")
async def test_a_disk_that_takes_nothing_more_is_not_tried_for_each(
    tmp_path: Path, server: AssetServer, monkeypatch: pytest.MonkeyPatch, number: int, size: int
) -> None:
    """If a failure concerns the whole disk, the rest would fail for the same reason and is not requested.

    Files that are already there are still found.
    """
    project = full_of(tmp_path, server, size)
    async with project.manager(parallel=1) as manager:
        await manager.sync(["a0"])
        real, asked = system.mkdir, len(server.stats.requests)

        def mkdir(path: str, mode: int = 0o777, *, dir_fd: int) -> None:
            if str(path).count(".") == 3:  # a stage
                raise OSError(number, os.strerror(number))
            real(path, mode, dir_fd=dir_fd)

        monkeypatch.setattr(system, "mkdir", mkdir)
        recorder = Recorder(manager)
        with pytest.raises(SyncFailed) as caught:
            await manager.sync()
    failures = caught.value.failures
    assert "a0" not in failures
    assert len(failures) == COUNT - 1
    assert len(set(map(str, failures.values()))) == 1
    assert caught.value.__cause__ in failures.values()
    assert len(recorder.of("asset_failed")) == COUNT - 1
    # Small assets come many at a time, before the first is written; none is requested again.
    assert len(server.stats.requests) - asked <= (COUNT if size < 1000 else COUNT // 2)


@pytest.mark.root
@pytest.mark.shows("D2")
async def test_no_inodes_are_told_once(tmp_path: Path, server: AssetServer) -> None:
    """Where the file system takes few files, those that fit are there, and one error says what is missing."""
    project = full_of(tmp_path, server, 100)
    with mounted(project.assets, "size=4m,nr_inodes=30"):
        async with project.manager() as manager:
            with pytest.raises(SyncFailed) as caught:
                await manager.sync()
        texts = set(map(str, caught.value.failures.values()))
        assert len(texts) == 1
        assert "no inodes left" in texts.pop()
        assert len(list((project.assets / "models").iterdir())) == COUNT - len(caught.value.failures) > 0


COUNT = 60


def full_of(tmp_path: Path, server: AssetServer, size: int) -> Project:
    """Many assets of this size."""
    project = Project(tmp_path / "many")
    for n in range(COUNT):
        content = seeded_bytes(size, seed=n)
        project.add(f"a{n}", [server.add(f"/{n}", content).url], content)
    return project


class Batches(tuple[Asset, ...]):
    """Assets that come two at a time, as if they were too many to be held."""

    __slots__ = ()

    def batches(self) -> Iterator[tuple[Asset, ...]]:
        """Yield them."""
        for first in range(0, len(self), 2):
            yield tuple(self[first : first + 2])

    def known_bytes(self) -> int:
        """The sum of their sizes."""
        return known_bytes(tuple(self))

    def as_stand_ins(self) -> Collection[Asset]:
        """None has one."""
        return Batches(as_stand_ins(tuple(self)))


async def test_a_run_of_many_batches_is_one_run(project: Project, server: AssetServer) -> None:
    """One beginning and one end with all assets in it, and a report that has each of them."""
    async with project.manager(allow_unpinned=True) as manager:
        await manager.sync(["b"])
        recorder = Recorder(manager)
        report = await manager.sync_assets(Batches(manager.manifest.assets))
    assert (list(report.verified), list(report.unverified), list(report.reused)) == (["a"], ["loose"], ["b"])
    assert {each: path.name for each, path in report.paths.items()} == {n: f"{n}.bin" for n in ("a", "b", "loose")}
    assert [event["assets"] for event in recorder.of("run_started")] == [3]
    assert [(event["verified"], event["reused"]) for event in recorder.of("run_finished")] == [(1, 1)]


async def test_a_failure_in_one_batch_ends_no_other(project: Project, server: AssetServer) -> None:
    """All the rest is there, and the error has what failed."""
    project.add("a", [server.add("/a.bin", CONTENT, faults=[Status(404)]).url], CONTENT)
    async with project.manager(allow_unpinned=True) as manager:
        recorder = Recorder(manager)
        with pytest.raises(SyncFailed) as caught:
            await manager.sync_assets(Batches(manager.manifest.assets))
    assert list(caught.value.failures) == ["a"]
    assert [(event["verified"], event["failed"]) for event in recorder.of("run_finished")] == [(1, 1)]
    assert (project.assets / "models/b.bin").read_bytes() == CONTENT


@pytest.mark.shows("D1")
async def test_a_long_run_that_does_not_fit_is_not_begun(project: Project, server: AssetServer) -> None:
    """It is the whole that must fit, and not each batch."""
    huge = 1 << 60
    for name in ("x", "y", "z", "w"):
        project.add(name, [server.add(f"/{name}.bin", CONTENT).url], CONTENT, size=huge)
    async with project.manager(allow_unpinned=True) as manager:
        await manager.sync(["b"])
        asked = len(server.stats.requests)
        with pytest.raises(SyncFailed) as caught:
            await manager.sync_assets(Batches(manager.manifest.assets))
        parts: list[SyncPlan] = []
        plan = await manager.plan(Batches(manager.manifest.assets), on_part=parts.append)
    assert sorted(caught.value.failures) == ["a", "loose", "w", "x", "y", "z"]
    assert isinstance(caught.value.__cause__, DiskFull)
    assert len(server.stats.requests) == asked
    assert (plan.to_fetch, plan.bytes_to_fetch) == ((), 4 * huge + 2 * len(CONTENT))
    assert [len(part.to_fetch) + len(part.present) for part in parts] == [2, 2, 2, 1]

"""A copy on each machine, in virtual time: machines take turns, and one that is lost is named."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import nullcontext

import pytest

from grym_fetch import AssetManager
from grym_fetch.cluster import run
from grym_fetch.cluster.driver import Tally
from grym_fetch.cluster.each_node import GONE_S, EachNodeDriver
from grym_fetch.cluster.protocol import Done, Job, NodeSeen, Order, Reply, Task
from grym_fetch.core.events import Event
from grym_fetch.core.manifest import Asset
from grym_fetch.settings import Settings
from tests.cluster.test_driver import LoopClock, MemoryLists, virtual
from tests.support.fake_cluster import FakeCluster, FakeNode
from tests.support.fakes import InlineThreads
from tests.support.project import Project

TASK_S = 3.0
IDS = ("a", "b", "c")


class Scene:
    """A cluster whose machines each take `TASK_S` for a task."""

    def __init__(self, parallel: int = 4) -> None:
        self.cluster = FakeCluster()
        self.events: list[Event] = []
        self.tally = Tally()
        self.copies: Counter[str] = Counter()
        self.at_work = self.most_at_work = 0
        self.settings = Settings(parallel=parallel)

    def join(self, name: str, machine: str) -> None:
        """Add a worker of a machine."""
        numbers = [0]

        async def run(task: Task) -> Done:
            assert task.node == name
            self.at_work += 1
            self.most_at_work = max(self.most_at_work, self.at_work)
            try:
                await asyncio.sleep(TASK_S)
            finally:
                self.at_work -= 1
            self.copies[machine] += 1
            return Done(task.ids, (), (), {}, {asset_id: f"/{asset_id}" for asset_id in task.ids}, 1, TASK_S)

        def answer(_: Order) -> Reply:
            numbers[0] += 1
            return Reply(numbers[0])

        self.cluster.join(name, FakeNode(run, answer, NodeSeen(machine)))

    async def sync(self) -> None:
        """Bring three assets to all."""
        job = Job("run", "/assets.json", None, None, self.settings, each_node=True)
        driver = EachNodeDriver(
            self.cluster,
            job,
            emit=self.events.append,
            clock=LoopClock(),
            lists=MemoryLists(),
            threads=InlineThreads(),
            tally=self.tally,
        )
        try:
            await driver.run([Asset(each, f"https://h/{each}", each, size=10) for each in IDS])
        finally:
            await self.cluster.aclose()


def test_each_machine_has_one_worker_fetch_it_and_they_take_turns() -> None:
    """With two connections, two machines are at work at a time; a second worker of a machine has nothing to do."""

    async def story() -> None:
        scene = Scene(parallel=2)
        for n in range(6):
            scene.join(f"w{n}", f"m{n // 2}" if n < 4 else f"m{n}")
        await scene.sync()
        assert scene.copies == {"m0": 1, "m1": 1, "m4": 1, "m5": 1}
        assert scene.most_at_work == 2
        assert sorted(scene.tally.ledger.ids("verified")) == list(IDS)

    virtual(story)


@pytest.mark.parametrize("where", ["argument", "variable", "nowhere"])
async def test_a_folder_that_is_named_here_is_that_of_all(
    project: Project, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """As an option or as its variable; else each machine's own environment says where."""
    jobs: list[Job] = []

    class Seen:
        def __init__(self, _: object, job: Job, **__: object) -> None:
            jobs.append(job)

        async def run(self, _: object) -> None:
            pass

    monkeypatch.setattr(run, "EachNodeDriver", Seen)
    monkeypatch.setattr(run, "opened_cluster", nullcontext)
    named, environ = ("own", {}) if where == "argument" else (None, {"GRYM_FETCH_ASSETS_DIR": "own"})
    project.add("a", ["https://h.example/a"], b"a")
    monkeypatch.chdir(project.root)
    async with AssetManager(assets_dir=named, environ={} if where == "nowhere" else environ) as manager:
        await manager.sync_on("dask", each_node=True)
    assert [job.assets_dir for job in jobs] == [None if where == "nowhere" else str(project.root / "own")]


def test_a_lost_worker_is_replaced_and_a_lost_machine_is_named() -> None:
    """Another worker of the machine goes on; if none comes, the error says which machine lacks the assets."""

    async def story() -> None:
        scene = Scene()
        scene.join("w0", "kept")
        scene.join("w1", "lost")
        scene.join("w2", "saved")
        run = asyncio.create_task(scene.sync())
        await asyncio.sleep(TASK_S / 2)
        scene.cluster.lose("w1")
        scene.cluster.lose("w2")
        await asyncio.sleep(TASK_S)
        scene.join("w3", "saved")
        await run
        assert scene.copies == {"kept": 1, "saved": 1}
        assert scene.tally.counts["failed"] == len(IDS)
        assert str(scene.tally.ledger.failed["a"]).startswith("on lost: its worker is gone")
        assert {event.node for event in scene.events if event.asset == "a"} == {"lost"}

    assert virtual(story) >= GONE_S


def test_a_machine_that_comes_later_gets_its_copy() -> None:
    """As long as the run goes on."""

    async def story() -> None:
        scene = Scene()
        scene.join("w0", "first")
        run = asyncio.create_task(scene.sync())
        await asyncio.sleep(TASK_S / 2)
        scene.join("w1", "late")
        await run
        assert scene.copies == {"first": 1, "late": 1}

    virtual(story)

"""A run on a cluster, in virtual time: each asset ends once, whatever becomes of nodes, messages and tasks."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from grym_fetch.cluster import driver as module
from grym_fetch.cluster.driver import FIRST_NODE_S, LEASE_S, MAX_ATTEMPTS, ORDER_S, Driver, Tally
from grym_fetch.cluster.protocol import Allowance, Cluster, Done, Job, Order, Reply, Task
from grym_fetch.core.errors import ClusterError, GrymFetchError
from grym_fetch.core.events import AssetPlanned, AssetReused, AssetVerified, Event
from grym_fetch.core.manifest import Asset
from grym_fetch.settings import Settings
from tests.support.fake_cluster import FakeCluster, FakeNode
from tests.support.fakes import InlineThreads, VirtualLoop

TASK_S = 3.0


class LoopClock:
    """The loop's time."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def wall(self) -> float:
        return 1_800_000_000.0 + self.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def jitter(self) -> float:
        return 0.5


class MemoryLists:
    """Keeps the lists of tasks in memory."""

    def __init__(self) -> None:
        self.lists: dict[int, tuple[Asset, ...]] = {}
        self.most = 0

    def write(self, number: int, assets: Sequence[Asset]) -> str:
        self.lists[number] = tuple(assets)
        self.most = max(self.most, sum(map(len, self.lists.values())))
        return ""

    def read(self, number: int, _: str) -> tuple[Asset, ...]:
        return self.lists[number]

    def drop(self, number: int) -> None:
        del self.lists[number]


class Worker:
    """The other end: it does a task in `TASK_S` once it has a share, and tells of each asset."""

    def __init__(self, scene: Scene, name: str) -> None:
        self.scene = scene
        self.name = name
        self.events: list[Event] = []
        self.told: list[Event] = []
        self.answers_lost = 0
        self.number = 0
        self.share = Allowance()
        self.tasks: dict[int, Task] = {}
        self.problem: str | None = None
        self.stopped = 0
        self.error: Exception | None = None

    async def run(self, task: Task) -> Done:
        self.tasks[task.number] = task
        try:
            if self.error is not None:
                raise self.error
            assets = self.scene.lists.read(task.number, task.digest)
            verified, reused = [], []
            for asset in assets:
                await asyncio.sleep(TASK_S / len(assets))
                if asset.id in self.scene.disk:
                    self.events.append(AssetReused(asset=asset.id, path=asset.local_path))
                    reused.append(asset.id)
                else:
                    self.events.append(AssetPlanned(asset=asset.id, size=asset.size, resumed_bytes=0))
                    self.events.append(verified_event(asset))
                    self.scene.disk[asset.id] += 1
                    verified.append(asset.id)
            paths = {asset.id: asset.local_path for asset in assets}
            return Done(tuple(verified), (), tuple(reused), {}, paths, 10 * len(verified), TASK_S)
        finally:
            self.tasks.pop(task.number, None)

    def answer(self, order: Order) -> Reply | None:
        self.share = order.share
        self.stopped += order.stop
        if order.heard == self.number:
            self.told = []
        self.told += self.events
        self.events = []
        self.number += 1
        self.scene.shares.append({worker.name: worker.share for worker in self.scene.workers})
        if self.answers_lost:
            self.answers_lost -= 1
            return None
        return Reply(self.number, tuple(self.told), tuple(self.tasks), order.share, problem=self.problem)


def verified_event(asset: Asset) -> AssetVerified:
    """It has been fetched."""
    return AssetVerified(asset=asset.id, path=asset.local_path, checksum="", size=10, seconds=1.0, downloaded_bytes=10)


class Scene:
    """A cluster of so many workers, and a run on it."""

    def __init__(self, workers: int) -> None:
        self.cluster = FakeCluster()
        self.lists = MemoryLists()
        self.disk: Counter[str] = Counter()
        self.events: list[Event] = []
        self.tally = Tally()
        self.shares: list[dict[str, Allowance]] = []
        self.workers = [Worker(self, f"w{n}") for n in range(workers)]

    def join(self, worker: Worker) -> None:
        """Add a worker to the cluster."""
        self.cluster.join(worker.name, FakeNode(worker.run, worker.answer))

    async def sync(self, count: int, **more: Any) -> Tally:
        """Run with all workers."""
        for worker in self.workers:
            self.join(worker)
        cluster: Cluster = self.cluster
        job = Job("run", "/assets.json", "/assets", "/external", Settings(parallel=8))
        driver = Driver(
            cluster,
            job,
            emit=self.events.append,
            clock=LoopClock(),
            lists=self.lists,
            threads=InlineThreads(),
            tally=self.tally,
            **more,
        )
        try:
            await driver.run([Asset(f"a{n}", f"https://h/{n}", f"{n}.bin", size=10) for n in range(count)])
        finally:
            await self.cluster.aclose()
        return self.tally

    @property
    def ends(self) -> Counter[str]:
        """How often each asset's end was told."""
        return Counter(e.asset or "" for e in self.events if isinstance(e, AssetVerified | AssetReused))


def virtual(work: Callable[[], Coroutine[Any, Any, None]]) -> float:
    """Do this in virtual time, and return how long it took."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        began = runner.get_loop().time()
        runner.run(work())
        return runner.get_loop().time() - began


def test_every_asset_ends_once_and_the_nodes_work_side_by_side() -> None:
    """Four nodes share the work: each asset is counted once, told once with its node, and fetched once."""

    async def story() -> None:
        scene = Scene(4)
        tally = await scene.sync(400)
        assert tally.counts == {"verified": 400, "reused": 0, "unverified": 0, "failed": 0}
        assert sorted(tally.ledger.ids("verified")) == sorted(scene.disk)
        assert set(scene.disk.values()) == set(scene.ends.values()) == {1}
        assert {event.node for event in scene.events} == {"w0", "w1", "w2", "w3"}
        assert [worker.stopped for worker in scene.workers] == [1] * 4
        assert scene.lists.lists == {}
        assert all(sum(share.connections for share in shares.values()) <= 8 for shares in scene.shares)
        assert all(share.connections == 2 for share in scene.shares[4].values())

    assert virtual(story) < 4 * TASK_S


@pytest.mark.shows("P16")
def test_a_lost_workers_task_is_done_by_another() -> None:
    """What it had done is not fetched again, and is still told and counted as fetched, once."""

    async def story() -> None:
        scene = Scene(2)
        run = asyncio.create_task(scene.sync(100))
        await asyncio.sleep(TASK_S / 2 + 2 * ORDER_S)
        assert scene.workers[0].tasks
        told = set(scene.ends)
        assert told
        scene.cluster.lose("w0")
        tally = await run
        assert set(scene.disk.values()) == {1}
        assert len(scene.ends) == 100
        assert set(scene.ends.values()) == {1}
        assert tally.counts["verified"] >= len(told)
        assert tally.counts["verified"] + tally.counts["reused"] == 100

    virtual(story)


@pytest.mark.shows("P16")
def test_what_a_lost_worker_had_done_is_told() -> None:
    """Its task has ended, but it has not told of its assets when it is lost: their ends are told all the same, once."""

    async def story() -> None:
        scene = Scene(2)
        run = asyncio.create_task(scene.sync(100))
        await asyncio.sleep(ORDER_S)
        lost = scene.workers[0]
        lost.answers_lost = 1000
        await asyncio.sleep(TASK_S + 3 * ORDER_S)
        assert not lost.tasks
        scene.cluster.lose("w0")
        tally = await run
        assert set(scene.ends.values()) == {1}
        assert len(scene.ends) == tally.counts["verified"] == 100
        told = [event for event in scene.events if isinstance(event, AssetVerified) and event.node == "w0"]
        assert len(told) == 50
        assert {(event.path, event.size) for event in told} == {
            (f"{event.asset[1:]}.bin", 10) for event in told if event.asset
        }
        assert scene.lists.lists == {}

    virtual(story)


def test_a_node_that_is_lost_last_is_told_of() -> None:
    """When the run ends, no answer comes any more, so nothing is waited for."""

    async def story() -> None:
        scene = Scene(1)
        run = asyncio.create_task(scene.sync(10))
        await asyncio.sleep(ORDER_S)
        scene.workers[0].answers_lost = 1000
        await run
        assert len(scene.ends) == 10
        assert set(scene.ends.values()) == {1}

    virtual(story)


def test_no_event_is_lost_with_a_message() -> None:
    """What was not heard is told again, and everything once."""

    async def story() -> None:
        scene = Scene(2)
        run = asyncio.create_task(scene.sync(100))
        for _ in range(5):
            await asyncio.sleep(ORDER_S)
            scene.workers[0].answers_lost = 2
        await run
        assert len(scene.events) == 200
        assert set(scene.ends.values()) == {1}

    virtual(story)


def test_a_worker_that_comes_later_gets_a_share_and_work() -> None:
    """The limits are divided anew, and the run is done sooner."""

    async def story() -> None:
        scene = Scene(1)
        run = asyncio.create_task(scene.sync(2000))
        await asyncio.sleep(TASK_S)
        late = Worker(scene, "late")
        scene.workers.append(late)
        scene.join(late)
        await run
        assert {event.node for event in scene.events} == {"w0", "late"}
        assert late.share == scene.workers[0].share

    virtual(story)


def test_a_task_that_fails_is_tried_again_and_then_fails_its_assets() -> None:
    """One error is no end; three are, and the assets say why. The others are there."""

    async def story() -> None:
        scene = Scene(1)
        scene.workers[0].error = MemoryError("no memory")
        tally = await scene.sync(10)
        assert [task.number for task in scene.cluster.submitted] == [1] * MAX_ATTEMPTS
        assert tally.counts["failed"] == 10
        assert "no memory" in str(tally.ledger.failed["a3"])

    virtual(story)


@pytest.mark.shows("P19")
def test_a_worker_that_cannot_take_part_is_named_at_once() -> None:
    """A run in which some could only fail does not begin."""

    async def story() -> None:
        scene = Scene(2)
        scene.workers[1].problem = "has grym-fetch 0.0.1, and the driver 0.1.0"
        with pytest.raises(ClusterError, match=r"w1 cannot take part: it has grym-fetch 0\.0\.1"):
            await scene.sync(10)
        assert scene.cluster.submitted == []

    assert virtual(story) < 2 * ORDER_S


def test_nobody_waits_for_workers_forever() -> None:
    """Without a worker, or with silent ones, the run ends with an error."""

    async def story() -> None:
        with pytest.raises(ClusterError, match="no worker has come"):
            await Scene(0).sync(10)

    assert virtual(story) == pytest.approx(FIRST_NODE_S, abs=2)


def test_the_run_ends_with_its_caller_and_stops_every_node() -> None:
    """Cancelled, it tells each node to stop, and hands out nothing more."""

    async def story() -> None:
        scene = Scene(3)
        run = asyncio.create_task(scene.sync(300))
        await asyncio.sleep(TASK_S / 2)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert [worker.stopped for worker in scene.workers] == [1] * 3

    virtual(story)


@pytest.mark.shows("P18")
def test_a_silent_node_ends_its_lease_before_others_get_its_share() -> None:
    """What a lost node may still be using is given to nobody."""

    async def story() -> None:
        scene = Scene(2)
        run = asyncio.create_task(scene.sync(1000))
        await asyncio.sleep(1.2)
        assert scene.workers[1].share.connections == 4
        scene.cluster.lose("w0")
        await asyncio.sleep(LEASE_S - 1)
        assert scene.workers[1].share.connections == 4
        await asyncio.sleep(3 * ORDER_S + 1)
        assert scene.workers[1].share.connections == 8
        run.cancel()

    virtual(story)


def test_what_is_there_is_not_handed_out() -> None:
    """The driver sees the shared folder, too: a run started anew goes on with the rest."""

    async def story() -> None:
        scene = Scene(1)
        tally = await scene.sync(100, find=lambda some: {a.id: a.local_path for a in some if a.id < "a5"})
        assert tally.counts["reused"] == 45
        assert tally.counts["verified"] == len(scene.disk) == 55
        assert set(scene.ends.values()) == {1}
        assert len(scene.ends) == 100

    virtual(story)


def test_memory_does_not_grow_with_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists exist only of tasks that are handed out, two a node, and of the last one of each."""
    monkeypatch.setattr(module, "WINDOW", 100)

    async def story() -> None:
        scene = Scene(2)
        await scene.sync(5000)
        assert scene.lists.most <= 6 * max(task.count for task in scene.cluster.submitted)

    virtual(story)


@pytest.mark.shows("P20")
def test_workers_that_are_faster_than_they_are_heard_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """What they have to tell would pile up, and with it the lists of tasks that are over."""
    monkeypatch.setattr(module, "WINDOW", 100)
    monkeypatch.setattr("tests.cluster.test_driver.TASK_S", 0.0)

    async def story() -> None:
        scene = Scene(2)
        await scene.sync(5000)
        assert scene.lists.most <= 6 * max(task.count for task in scene.cluster.submitted)
        assert set(scene.ends.values()) == {1}
        assert len(scene.ends) == 5000

    virtual(story)


def test_a_node_that_stays_silent_is_not_waited_for() -> None:
    """It has stopped by itself when its lease is over; what it had done is told then."""

    async def story() -> None:
        scene = Scene(2)
        run = asyncio.create_task(scene.sync(2000))
        await asyncio.sleep(ORDER_S)
        scene.workers[0].answers_lost = 1000
        await asyncio.sleep(TASK_S + 3 * ORDER_S)
        assert "w0" not in {event.node for event in scene.events}
        await asyncio.sleep(LEASE_S)
        assert "w0" in {event.node for event in scene.events}
        run.cancel()

    virtual(story)


def test_errors_of_assets_are_kept() -> None:
    """A failed asset is counted as failed, with its own error, and the rest is as it is."""

    class Failing(Worker):
        async def run(self, task: Task) -> Done:
            done = await super().run(task)
            error: GrymFetchError = GrymFetchError("gone")
            return Done(done.verified[1:], (), (), {done.verified[0]: error}, done.paths, 0, 1.0)

    async def story() -> None:
        scene = Scene(0)
        scene.workers = [Failing(scene, "w")]
        tally = await scene.sync(10)
        assert tally.counts == {"verified": 9, "reused": 0, "unverified": 0, "failed": 1}

    virtual(story)

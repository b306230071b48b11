"""A run on a cluster, seen from the process that started it: hands out work, shares limits, and tells what happens.

Rules: no asset passes through here, and what is held does not grow with their number: work is cut while it is done, at
most two tasks a node ahead. An asset's end is counted once, from the result of its task; its events are told once, too,
even if a lost worker's task is done again. When the run ends, however it ends, every node is told to stop.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from grym_fetch.cluster.cutting import WINDOW, TaskPace, TaskSize, cut, weight
from grym_fetch.cluster.protocol import Allowance, Cluster, Done, Job, NodeSeen, Order, Reply, Task, TaskEnd
from grym_fetch.cluster.shares import Shares
from grym_fetch.core.errors import ClusterError, GrymFetchError
from grym_fetch.core.events import AssetFailed, AssetReused, AssetVerified, Event
from grym_fetch.core.manifest import Asset, in_batches, known_bytes
from grym_fetch.core.text import safe_text
from grym_fetch.core.world import Clock, Threads
from grym_fetch.engine.ledger import Ledger

log = logging.getLogger(__name__)

ORDER_S = 0.5
"""Between two orders to a node, as long as there are no more than `MANY_NODES`."""
MANY_NODES = 100
LEASE_S = 10.0
"""A node that gets no order for this long stops, or for `LEASE_ROUNDS` of orders if that is longer."""
LEASE_ROUNDS = 5
FIRST_NODE_S = 60.0
"""How long to wait for a first worker."""
STOP_S = 1.2
"""How long to tell the nodes that the run is over: a person is waiting."""
AHEAD = 2
"""So many tasks for each node are handed out at a time: the one under way, and the next."""
MAX_ATTEMPTS = 3
"""A task that has failed so often fails its assets. A worker that was lost does not count."""


class Lists(Protocol):
    """Keeps the lists of the tasks: `WorkFolder`."""

    def write(self, number: int, assets: Sequence[Asset]) -> str:
        """Write a list, and return its digest."""

    def read(self, number: int, digest: str) -> tuple[Asset, ...]:
        """Read it again."""

    def drop(self, number: int) -> None:
        """Remove it."""


@dataclass(slots=True)
class Worker:
    """A node, as far as it has been heard."""

    heard: int = 0
    is_good: bool = False


@dataclass(slots=True)
class _UnderWay:
    """A task that was handed out."""

    task: Task
    failures: int = 0


@dataclass(slots=True, eq=False)
class Over:
    """A task that is over, but of which events may still come. ``assets``: None if they are on its list.

    ``since``: when it ended, in monotonic seconds.
    """

    task: Task
    node: str | None
    done: Done
    since: float
    assets: Sequence[Asset] | None = None


@dataclass(slots=True)
class Tally:
    """How the run has ended so far. ``counts`` has how many ended in each way; ``failed`` the first errors."""

    ledger: Ledger = field(default_factory=Ledger)
    counts: Counter[str] = field(default_factory=Counter)
    received: int = 0

    def add(self, kind: str, paths: Mapping[str, str]) -> None:
        """Count assets that are there."""
        self.ledger.add(kind, tuple(paths), paths)
        self.counts[kind] += len(paths)

    def fail(self, failed: Mapping[str, GrymFetchError]) -> None:
        """Count assets that failed."""
        self.ledger.add_failures(failed)
        self.counts["failed"] += len(failed)


class Driver:
    """One run. ``find``: which of these are there already, by id, with their paths; in a thread."""

    def __init__(
        self,
        cluster: Cluster,
        job: Job,
        *,
        emit: Callable[[Event], None],
        clock: Clock,
        lists: Lists,
        threads: Threads,
        find: Callable[[Sequence[Asset]], Mapping[str, str]] = lambda _: {},
        tally: Tally,
    ) -> None:
        self._cluster = cluster
        self._job = job
        self._emit = emit
        self._clock = clock
        self._lists = lists
        self._threads = threads
        self._find = find
        self._shares = Shares(job.settings.parallel, job.settings.max_per_host)
        self._pace = TaskPace()
        self._nodes: dict[str, Worker] = {}
        self._under_way: dict[int, _UnderWay] = {}
        self._told: dict[str, str] = {}
        """How assets have ended, as events have told, until their tasks are over."""
        self._last_round = 0.0
        self._fading: list[Over] = []
        """What is over, but of which events may still come when its node answers next."""
        self._room = asyncio.Condition()
        self._is_handed_out = False
        self._left_bytes = self._left_count = 0
        self._numbers = 0
        self.tally = tally

    async def run(self, assets: Collection[Asset]) -> None:
        """Have these fetched, and note how they ended. Raises `ClusterError`."""
        self._left_bytes, self._left_count = known_bytes(assets), len(assets)
        try:
            await self._meet()
            async with asyncio.TaskGroup() as group:
                orders = group.create_task(self._order(), name="orders")
                ends = group.create_task(self._collect(), name="ends")
                await self._hand_out(assets)
                self._is_handed_out = True
                await self._all_over()
                orders.cancel()
                ends.cancel()
            await self._round(stop=True)
        except BaseExceptionGroup as group_error:
            await self._stop()
            raise _first_of(group_error) from group_error
        except BaseException:
            await self._stop()
            raise

    # -- nodes --------------------------------------------------------------------------------------------------------

    @property
    def _between(self) -> float:
        """Seconds between two rounds of orders."""
        return ORDER_S * max(1.0, len(self._nodes) / MANY_NODES)

    @property
    def _lease(self) -> float:
        return max(LEASE_S, LEASE_ROUNDS * self._between)

    async def _meet(self) -> None:
        """Wait for a first node, and ask each whether it can take part. Raises `ClusterError`."""
        waited = 0.0
        while not await self._cluster.nodes():
            if waited >= FIRST_NODE_S:
                raise ClusterError(f"no worker has come for {FIRST_NODE_S:.0f} s")
            await self._clock.sleep(ORDER_S)
            waited += ORDER_S
        while not any(node.is_good for node in self._nodes.values()):
            if waited >= FIRST_NODE_S:
                raise ClusterError(f"no worker has answered for {FIRST_NODE_S:.0f} s")
            await self._round()
            if not any(node.is_good for node in self._nodes.values()):
                await self._clock.sleep(ORDER_S)
            waited += ORDER_S

    async def _order(self) -> None:
        while True:
            await self._clock.sleep(self._between)
            await self._round()

    async def _round(self, *, stop: bool = False) -> None:
        """Give each node an order, and deal with what they answer. Raises `ClusterError`."""
        now, fading = self._clock.monotonic(), tuple(self._fading)
        self._last_round = now
        present = await self._cluster.nodes()
        for name in self._nodes.keys() - present.keys():
            self._lost(name, now)
        for name in present.keys() - self._nodes.keys():
            self._joined(name, present[name])
        all_work = not self._is_handed_out or len(self._under_way) >= len(self._nodes)
        shares = self._shares.next_shares(self._nodes, now, all_work=all_work)
        orders = {
            name: Order(self._job, Allowance() if stop else shares[name], node.heard, self._lease, stop=stop)
            for name, node in self._nodes.items()
        }
        replies = await self._cluster.tell(orders)
        for name, reply in replies.items():
            self._heard(name, reply)
        for over in fading:
            if over.node in replies or over.node is None:
                await self._forget(over)
            elif stop or over.node not in self._nodes or now - over.since > self._lease:
                await self._tell_rest(over)
                await self._forget(over)
        async with self._room:
            self._room.notify_all()

    def _joined(self, name: str, _: NodeSeen) -> None:
        self._nodes[name] = Worker()
        self._shares.joined(name)

    def _lost(self, name: str, now: float) -> None:
        del self._nodes[name]
        self._shares.lost(name, now + self._lease)
        log.warning("the worker %s is gone", safe_text(name))

    def _heard(self, name: str, reply: Reply) -> None:
        if reply.problem is not None:
            raise ClusterError(f"the worker {safe_text(name)} cannot take part: it {reply.problem}")
        if (node := self._nodes.get(name)) is None or reply.number <= node.heard:
            return
        node.heard, node.is_good = reply.number, True
        self._shares.answered(name, reply, self._clock.monotonic())
        for event in reply.events:
            self._tell(name, event)

    def _tell(self, name: str, event: Event) -> None:
        """Tell an event of a node, unless its asset has ended before: then its task is done again."""
        assert event.asset is not None
        if (key := self._key(name, event.asset)) in self._told:
            return
        match event:
            case AssetVerified(unverified=unverified):
                self._told[key] = "unverified" if unverified else "verified"
            case AssetReused():
                self._told[key] = "reused"
            case AssetFailed():
                self._told[key] = "failed"
            case _:
                pass
        # In place: it is ours alone, and has just been made from what the node has sent.
        object.__setattr__(event, "node", name)
        self._emit(event)

    def _key(self, _: str | None, asset_id: str) -> str:
        """What names an asset's end."""
        return asset_id

    # -- tasks --------------------------------------------------------------------------------------------------------

    async def _hand_out(self, assets: Collection[Asset]) -> None:
        async for window in self._windows(assets):
            for part in cut([window], self._next_size):
                self._left_count -= len(part)
                self._left_bytes -= sum(asset.size or 0 for asset in part)
                await self._wait_for(self._has_room)
                self._numbers += 1
                digest = await self._threads.compute(self._lists.write, self._numbers, part)
                task = Task(self._job, self._numbers, len(part), sum(map(weight, part)), digest)
                self._under_way[task.number] = _UnderWay(task)
                await self._cluster.submit(task)

    def _has_room(self) -> bool:
        """Whether one more task may be handed out: not while workers are faster than what they tell is heard."""
        nodes, ended = max(len(self._nodes), 1), sum(over.since >= self._last_round for over in self._fading)
        return len(self._under_way) < AHEAD * nodes and len(self._under_way) + ended < (AHEAD + 1) * nodes

    def _next_size(self) -> TaskSize:
        return self._pace.next_size(self._left_bytes, self._left_count, len(self._nodes))

    async def _windows(self, assets: Collection[Asset]) -> AsyncIterator[list[Asset]]:
        """Yield what is not there yet, in parts that are cut each at a time."""
        batches: Iterator[tuple[Asset, ...]] = iter(in_batches(assets))
        window: list[Asset] = []
        while batch := await self._threads.compute(next, batches, None):
            found = {} if self._job.force else await self._threads.compute(self._find, batch)
            for asset in batch:
                if (path := found.get(asset.id)) is not None:
                    self._emit(AssetReused(asset=asset.id, path=path))
                    self._left_count -= 1
                    self._left_bytes -= asset.size or 0
                else:
                    window.append(asset)
            self.tally.add("reused", found)
            if len(window) >= WINDOW:
                yield window
                window = []
        if window:
            yield window

    async def _all_over(self) -> None:
        await self._wait_for(lambda: not self._under_way)

    async def _wait_for(self, is_so: Callable[[], bool]) -> None:
        async with self._room:
            await self._room.wait_for(is_so)

    async def _collect(self) -> None:
        while True:
            for ended in await self._cluster.gather():
                await self._ended(ended)
            async with self._room:
                self._room.notify_all()

    async def _ended(self, ended: TaskEnd) -> None:
        under_way = self._under_way.get(ended.number)
        if under_way is None:
            return
        if ended.done is None:
            await self._failed(under_way, ended)
            return
        del self._under_way[ended.number]
        done = ended.done
        self._count(done)
        fetched = len(done.verified) + len(done.unverified)
        if fetched == under_way.task.count:
            self._pace.learn(under_way.task.bytes, fetched, done.seconds)
        self._fading.append(Over(under_way.task, ended.node, done, self._clock.monotonic()))

    def _count(self, done: Done) -> None:
        """Count the ends of a task's assets, each as it was told first."""
        ends: dict[str, dict[str, str]] = {"verified": {}, "unverified": {}, "reused": {}}
        for kind in ends:
            for asset_id in getattr(done, kind):
                first = self._told.get(asset_id, kind)
                ends[first if first in ends else kind][asset_id] = done.paths[asset_id]
        for kind, paths in ends.items():
            self.tally.add(kind, paths)
        self.tally.fail(done.failed)
        self.tally.received += done.received

    async def _failed(self, under_way: _UnderWay, ended: TaskEnd) -> None:
        """A task has not come to its end: have it done again, or fail what is on it."""
        task, error = under_way.task, ended.error
        if isinstance(error, ClusterError):
            raise error
        under_way.failures += 1
        log.warning("task %d has failed on %s: %r", task.number, ended.node, error)
        if under_way.failures < MAX_ATTEMPTS:
            await self._cluster.submit(task)
            return
        why = ClusterError(f"its task has failed {MAX_ATTEMPTS} times, the last time with {safe_text(repr(error))}")
        del self._under_way[task.number]
        assets = await self._threads.compute(self._lists.read, task.number, task.digest)
        paths: dict[str, dict[str, str]] = {"verified": {}, "unverified": {}, "reused": {}}
        failed: dict[str, GrymFetchError] = {}
        for asset in assets:
            kind = self._told.pop(asset.id, "")
            if kind in paths:
                paths[kind][asset.id] = f"{self._job.assets_dir}/{asset.local_path}"
                continue
            failed[asset.id] = why
            if kind != "failed":
                self._emit(AssetFailed(asset=asset.id, error=type(why).__name__, message=str(why)))
        for kind, some in paths.items():
            self.tally.add(kind, some)
        self.tally.fail(failed)
        await self._threads.compute(self._lists.drop, task.number)

    async def _tell_rest(self, over: Over) -> None:
        """Tell how assets have ended of which a node has not, and will not: it was lost after the end of its task."""
        assets = over.assets
        if assets is None:
            assets = await self._threads.compute(self._lists.read, over.task.number, over.task.digest)
        reused = frozenset(over.done.reused)
        for asset in assets:
            self._tell(over.node or "", _end_of(asset, over.done, is_reused=asset.id in reused))

    async def _forget(self, over: Over) -> None:
        self._fading.remove(over)
        for ids in (over.done.verified, over.done.unverified, over.done.reused, over.done.failed):
            for asset_id in ids:
                self._told.pop(self._key(over.node, asset_id), None)
        if over.assets is None:
            await self._threads.compute(self._lists.drop, over.task.number)

    async def _stop(self) -> None:
        """The run ends before its time: stop the nodes. Takes `STOP_S` at most."""
        try:
            async with asyncio.timeout(STOP_S):
                orders = {
                    name: Order(self._job, Allowance(), node.heard, self._lease, stop=True)
                    for name, node in self._nodes.items()
                }
                for name, reply in (await self._cluster.tell(orders)).items():
                    self._heard(name, reply)
                await self._cluster.cancel(tuple(self._under_way))
        except (TimeoutError, GrymFetchError) as error:
            log.warning("not every worker could be stopped; the others stop within %.0f s (%s)", self._lease, error)


def _end_of(asset: Asset, done: Done, *, is_reused: bool) -> Event:
    """The event of an asset's end, as far as the result of its task tells it: what came, and when, is not in there."""
    if (error := done.failed.get(asset.id)) is not None:
        return AssetFailed(asset=asset.id, error=type(error).__name__, message=str(error))
    if is_reused:
        return AssetReused(asset=asset.id, path=done.paths[asset.id])
    size = asset.size or 0
    return AssetVerified(
        asset=asset.id,
        path=done.paths[asset.id],
        checksum=str(asset.checksum or ""),
        size=size,
        seconds=done.seconds,
        downloaded_bytes=size,
        unverified=True if asset.checksum is None else None,
    )


def _first_of(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error

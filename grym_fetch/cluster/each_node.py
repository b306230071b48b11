"""``--each-node``: every machine gets a copy of its own, on its local disk.

Rules: one worker of each machine does all of its work. Machines take turns: no more of them are at work than there are
connections to give, so that each has at least one. A machine whose worker is lost goes on with another one; if none
comes for some time, what it lacks has failed, and it is named.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from grym_fetch.cluster.cutting import FIRST_BYTES, FIRST_COUNT, TaskSize, cut, weight
from grym_fetch.cluster.driver import MAX_ATTEMPTS, ORDER_S, Driver, Over
from grym_fetch.cluster.protocol import Done, NodeSeen, Task, TaskEnd
from grym_fetch.core.errors import ClusterError, GrymFetchError
from grym_fetch.core.events import AssetFailed
from grym_fetch.core.manifest import Asset
from grym_fetch.core.text import safe_text

log = logging.getLogger(__name__)

GONE_S = 30.0
"""A machine that has had no worker for this long has failed."""
_WORST_FIRST = ("verified", "unverified", "reused")


@dataclass(slots=True)
class _Machine:
    """A machine, and its workers."""

    workers: set[str] = field(default_factory=set)
    at_work: str | None = None
    """The worker that has its task."""
    ended: asyncio.Future[TaskEnd] | None = None


class EachNodeDriver(Driver):
    """A run that brings the same assets to each machine."""

    _machines: dict[str, _Machine]
    _where: dict[str, str]
    _parts: list[tuple[Asset, ...]]
    _copies: asyncio.TaskGroup | None
    _ends: dict[str, str]

    async def run(self, assets: Collection[Asset]) -> None:
        """Have these fetched by each, and note how they ended. Raises `ClusterError`."""
        self._machines, self._where, self._copies = {}, {}, None
        self._waiting: dict[int, asyncio.Future[TaskEnd]] = {}
        self._ends = {}
        """How each asset has ended: as fetched, if any machine had to fetch it."""
        self._turns = asyncio.Semaphore(self._shares.most_nodes)
        self._parts = list(cut([assets], lambda: TaskSize(FIRST_BYTES, FIRST_COUNT)))
        await super().run(assets)
        for kind in _WORST_FIRST:
            ids = [asset_id for asset_id, end in self._ends.items() if end == kind]
            self.tally.add(kind, {asset_id: self._paths[asset_id] for asset_id in ids})

    async def _hand_out(self, _: Collection[Asset]) -> None:
        self._paths: dict[str, str] = {}
        async with asyncio.TaskGroup() as self._copies:
            for machine in self._machines:
                self._copies.create_task(self._bring(machine), name=f"copy for {machine}")
        self._copies = None

    def _joined(self, name: str, seen: NodeSeen) -> None:
        super()._joined(name, seen)
        self._where[name] = seen.machine
        is_new = seen.machine not in self._machines
        self._machines.setdefault(seen.machine, _Machine()).workers.add(name)
        if is_new and self._copies is not None:
            self._copies.create_task(self._bring(seen.machine), name=f"copy for {seen.machine}")

    def _lost(self, name: str, now: float) -> None:
        super()._lost(name, now)
        machine = self._machines[self._where[name]]
        machine.workers.discard(name)
        if machine.at_work == name and machine.ended is not None and not machine.ended.done():
            machine.ended.set_result(TaskEnd(-1))

    def _key(self, name: str | None, asset_id: str) -> str:
        return f"{self._where.get(name or '')} {asset_id}"

    async def _bring(self, name: str) -> None:
        """Have one machine fetch everything."""
        async with self._turns:
            for part in self._parts:
                try:
                    self._count_copy(name, await self._fetched(name, part))
                except ClusterError as error:
                    self._fail(name, part, error)

    async def _fetched(self, name: str, part: tuple[Asset, ...]) -> Done:
        """Have a machine fetch some assets. Raises `ClusterError` if it cannot."""
        machine, failures = self._machines[name], 0
        while True:
            worker = await self._worker_of(machine)
            self._numbers += 1
            size, ids = sum(map(weight, part)), tuple(asset.id for asset in part)
            task = Task(self._job, self._numbers, len(part), size, ids=ids, node=worker)
            machine.at_work, machine.ended = worker, asyncio.get_running_loop().create_future()
            self._waiting[task.number] = machine.ended
            await self._cluster.submit(task)
            try:
                ended = await machine.ended
            finally:
                del self._waiting[task.number]
            if ended.done is not None:
                self._fading.append(Over(task, worker, ended.done, self._clock.monotonic(), part))
                return ended.done
            if ended.number < 0:
                await self._cluster.cancel([task.number])
                continue
            if isinstance(ended.error, ClusterError):
                raise ended.error
            failures += 1
            if failures >= MAX_ATTEMPTS:
                raise ClusterError(f"its task has failed {failures} times: {safe_text(repr(ended.error))}")

    async def _worker_of(self, machine: _Machine) -> str:
        waited = 0.0
        while not machine.workers:
            if waited >= GONE_S:
                raise ClusterError(f"its worker is gone, and no other one has come for {GONE_S:.0f} s")
            await self._clock.sleep(ORDER_S)
            waited += ORDER_S
        return min(machine.workers)

    async def _ended(self, ended: TaskEnd) -> None:
        waiting = self._waiting.get(ended.number)
        if waiting is not None and not waiting.done():
            waiting.set_result(ended)

    def _count_copy(self, name: str, done: Done) -> None:
        self._paths |= done.paths
        self.tally.received += done.received
        for kind in _WORST_FIRST:
            for asset_id in getattr(done, kind):
                if _is_worse(kind, self._ends.get(asset_id)):
                    self._ends[asset_id] = kind
        for asset_id, error in done.failed.items():
            log.warning("%s on %s: %s", safe_text(asset_id), safe_text(name), error)
        self._note_failures(done.failed)

    def _fail(self, name: str, part: tuple[Asset, ...], error: ClusterError) -> None:
        why = ClusterError(f"on {safe_text(name)}: {error}")
        for asset in part:
            failed = AssetFailed(asset=asset.id, error=type(why).__name__, message=str(why), node=name)
            self._emit(failed)
        self._note_failures({asset.id: why for asset in part})

    def _note_failures(self, failed: Mapping[str, GrymFetchError]) -> None:
        first = {asset_id: error for asset_id, error in failed.items() if self._ends.get(asset_id) != "failed"}
        self._ends |= dict.fromkeys(first, "failed")
        self.tally.fail(first)


def _is_worse(kind: str, before: str | None) -> bool:
    return before is None or (before in _WORST_FIRST and _WORST_FIRST.index(kind) < _WORST_FIRST.index(before))

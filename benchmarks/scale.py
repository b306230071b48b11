"""A run of 100 million assets on 1,000 machines, in virtual time: `python -m benchmarks.scale`.

`--workers 1 2 4` instead fetches many small files from nginx with so many real workers of Dask, on this machine.
`--killed 200000` fetches so many with the command itself, kills a worker half-way with SIGKILL, and fails unless all of
them are there and verified, hardly one was fetched twice, and the memory of the command stayed what it was
(`--engine ray` for Ray). Files are in memory.

What the driver does for each asset, event, task and round is measured here first, in processor time, with the real
`Driver`, real packets and real lists of tasks. Then the run is simulated with the real planner (`TaskPace`, `Shares`).
What is assumed is an option: how fast a machine fetches, and how many there are.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import heapq
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from grym_fetch.cluster.cutting import MAX_COUNT, WINDOW, TaskPace, TaskSize
from grym_fetch.cluster.driver import AHEAD, MANY_NODES, ORDER_S, Driver, Tally
from grym_fetch.cluster.packets import pack, unpack
from grym_fetch.cluster.protocol import Allowance, Done, Job, NodeSeen, Order, Reply, Task, TaskEnd
from grym_fetch.cluster.shares import Shares
from grym_fetch.cluster.work_list import WorkFolder, new_run
from grym_fetch.core.events import AssetPlanned, AssetVerified, Event, ProgressMade
from grym_fetch.core.manifest import Asset
from grym_fetch.runtime.clock import SystemClock
from grym_fetch.runtime.threads import WorkerThreads
from grym_fetch.settings import Settings
from tests.support.dask_cluster import DaskProcesses
from tests.support.nginx import Nginx
from tests.support.ray_head import RayHead

HOST = "data.example.org:443"
EVENTS = 3
"""Of a small asset: planned, all bytes are there, verified."""
MIB = 1024 * 1024
MEMORY_MIB = 48
"""The command's memory may grow by so much after the first tenth: its databases have caches of 16 MiB at most."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds of the driver's processor."""

    asset: float
    event: float
    task: float
    order: float
    """One order and its answer, without its events."""


class Nodes:
    """An engine whose nodes have done everything at once. Implements `Cluster`. ``events``: of each asset."""

    def __init__(self, lists: WorkFolder, count: int, events: int) -> None:
        self._lists = lists
        self._events = events
        self._names = [f"10.0.{n // 256}.{n % 256}:1" for n in range(count)]
        self._replies: dict[str, list[Event]] = {name: [] for name in self._names}
        self._ended: asyncio.Queue[tuple[int, tuple[str, bytes]]] = asyncio.Queue()
        self._number = 0
        self.others_work = 0.0
        """Seconds that were the nodes' and not the driver's."""

    async def nodes(self) -> Mapping[str, NodeSeen]:
        return {name: NodeSeen(name) for name in self._names}

    async def submit(self, task: Task) -> None:
        pack(task)
        began = time.process_time()
        assets = self._lists.read(task.number, task.digest)
        events = self._replies[self._names[task.number % len(self._names)]]
        for asset in assets:
            events.append(AssetPlanned(asset=asset.id, size=1024, resumed_bytes=0))
            for _ in range(self._events - 2):
                events.append(ProgressMade(asset=asset.id, bytes=1024, total=1024, rate=1.0, eta=0.0))
            events.append(
                AssetVerified(
                    asset=asset.id, path=asset.local_path, checksum="", size=1024, seconds=1.0, downloaded_bytes=1024
                )
            )
        ids = tuple(asset.id for asset in assets)
        done = Done(ids, (), (), {}, {asset.id: asset.local_path for asset in assets}, 1024 * len(ids), 10.0)
        self._ended.put_nowait((task.number, pack(done)))
        self.others_work += time.process_time() - began

    async def gather(self) -> Sequence[TaskEnd]:
        number, packet = await self._ended.get()
        return [TaskEnd(number, unpack(packet, Done))]

    async def cancel(self, numbers: Collection[int]) -> None:
        pass

    async def tell(self, orders: Mapping[str, Order]) -> Mapping[str, Reply]:
        self._number += 1
        replies = {}
        for name, order in orders.items():
            pack(order)
            began = time.process_time()
            packet = pack(Reply(self._number, tuple(self._replies[name]), (1,), order.share))
            self._replies[name].clear()
            self.others_work += time.process_time() - began
            replies[name] = unpack(packet, Reply)
        return replies

    async def aclose(self) -> None:
        pass


def run_driver(assets: int, a_task: int, events: int) -> float:
    """Return the processor time of a driver for so many assets, so many of them in a task."""

    class Pace(TaskPace):
        def next_size(self, left_bytes: int, left_count: int, nodes: int) -> TaskSize:  # noqa: ARG002 - as that one
            return TaskSize(1 << 60, a_task)

    async def run(folder: Path) -> float:
        job = Job(new_run(), str(folder / "assets.json"), str(folder), str(folder), Settings(parallel=8))
        lists = WorkFolder(folder, job.run)
        lists.make()
        cluster = Nodes(lists, 8, events)
        all_of_them = [Asset(f"a{n}", f"https://{HOST}/{n}", f"{n % 1000}/{n}", size=1024) for n in range(assets)]
        threads = WorkerThreads("lists", 1)
        driver = Driver(
            cluster,
            job,
            emit=lambda _: None,
            clock=SystemClock(),
            lists=lists,
            threads=threads,
            tally=Tally(),
        )
        began = time.process_time()
        try:
            await driver.run(all_of_them)
        finally:
            threads.close()
        return time.process_time() - began - cluster.others_work

    with (
        tempfile.TemporaryDirectory() as folder,
        patch("grym_fetch.cluster.driver.TaskPace", Pace),
    ):
        return asyncio.run(run(Path(folder)))


def measure(assets: int = 20_000) -> Costs:
    """Run the driver three times, and see what more assets, events and tasks have added."""
    plain = run_driver(assets, 1000, EVENTS)
    event = max(run_driver(assets, 1000, EVENTS + 6) - plain, 0.0) / (6 * assets)
    tasks = assets // 20 - assets // 1000
    task = max(run_driver(assets, 20, EVENTS) - plain, 0.0) / tasks
    asset = max(plain - assets * EVENTS * event - assets // 1000 * task, 0.0) / assets
    began, orders = time.process_time(), 2000
    job = Job("run", "/assets.json", "/assets", "/external", Settings())
    for number in range(orders):
        pack(Order(job, Allowance(4, 4, {HOST: 4}), number, 10.0))
        unpack(pack(Reply(number, (), (1,), Allowance(4, 4, {HOST: 4}))), Reply)
    return Costs(asset, event, task, (time.process_time() - began) / orders)


def share_seconds(nodes: int) -> float:
    """Return the processor time of dividing the limits once among so many nodes."""
    shares = Shares(4 * nodes, 4 * nodes)
    names = [f"n{n}" for n in range(nodes)]
    for name in names:
        shares.joined(name)
    for now in range(2):
        shares.next_shares(names, float(now), all_work=True)
    began = time.process_time()
    for now in range(3):
        shares.next_shares(names, float(2 + now), all_work=True)
    return (time.process_time() - began) / 3


@dataclass(slots=True)
class Outcome:
    """``seconds``: of the whole run; ``busy``: of the driver; ``idle``: of a node, on average, before the last task."""

    seconds: float
    busy: float
    idle: float
    tasks: int
    round_seconds: float


def simulate(nodes: int, assets: int, size: int, speed: float, costs: Costs, round_cost: float) -> Outcome:
    """Run so many assets of a size, in bytes, on nodes that fetch ``speed`` of them in a second.

    The driver does one thing after the other: it cuts and hands out tasks, and hears of ended ones. Rounds of orders
    take their part of its time. Each node works on one task; another one may wait there (`AHEAD`).
    """
    pace = TaskPace()
    between = ORDER_S * max(1.0, nodes / MANY_NODES)
    rounds = nodes * costs.order + round_cost
    # What is left for tasks of each second.
    slow = 1 + rounds / between
    left, free_at, busy, tasks, window = assets, 0.0, 0.0, 0, 0
    ready = [0.0] * nodes
    waits = [0.0] * nodes
    ends: list[tuple[float, int, float, int]] = []
    slots = [(0.0, node) for _ in range(AHEAD) for node in range(nodes)]
    heapq.heapify(slots)
    while left:
        asked_at, node = heapq.heappop(slots)
        while ends and ends[0][0] <= max(asked_at, free_at):
            _, count, seconds, _ = heapq.heappop(ends)
            pace.learn(count * size, count, seconds)
        window = window or min(WINDOW, left)
        allowed = pace.next_size(left * size, left, nodes)
        count = max(1, min(allowed.count, allowed.bytes // max(size, 1), window))
        window -= count
        left -= count
        work = (costs.task + count * (costs.asset + EVENTS * costs.event)) * slow
        busy += work
        free_at = max(free_at, asked_at) + work
        began = max(free_at, ready[node])
        waits[node] += began - ready[node]
        ready[node] = began + count / speed
        tasks += 1
        heapq.heappush(ends, (ready[node], count, count / speed, node))
        heapq.heappush(slots, (began, node))  # as soon as this one has begun, there is room for the next
    seconds = max(ready)
    return Outcome(seconds, busy, sum(waits) / nodes, tasks, rounds)


def content_of(number: int) -> bytes:
    """What an asset is: 1 KiB."""
    return hashlib.sha256(str(number).encode()).digest() * 32


@contextmanager
def served(assets: int) -> Iterator[tuple[Path, Nginx]]:
    """A project with so many assets, and the server that has them."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name, Nginx(Path(name)) as nginx:
        place = Path(name, "project")
        place.mkdir()
        with (place / "assets.jsonl").open("w") as manifest:
            manifest.write('{"version": 1, "updated": "2026-01-01T00:00:00Z"}\n')
            for n in range(assets):
                content = content_of(n)
                url = nginx.add(f"/{n % 100}/{n}", content)
                entry = {"id": f"a{n}", "url": url, "localPath": f"{n % 100}/{n}.bin", "size": len(content)}
                manifest.write(json.dumps(entry | {"checksum": hashlib.sha256(content).hexdigest()}) + "\n")
        yield place, nginx


async def fetch(workers: int, assets: int) -> float:
    """Return how many assets of 1 KiB so many Dask workers fetch in a second from a server here."""
    from grym_fetch import AssetManager

    with served(assets) as (place, _), DaskProcesses(workers) as dask:
        async with AssetManager(place / "assets.jsonl", settings=Settings(parallel=16)) as manager:
            began = time.monotonic()
            report = await manager.sync_on(f"dask://{dask.address}", all=True)
            took = time.monotonic() - began
        assert len(report.verified) == assets
        return assets / took


@contextmanager
def workers_of(engine: str, count: int) -> Iterator[tuple[str, Callable[[str], int]]]:
    """So many workers: where they are for ``--on``, and which process a node is."""
    if engine == "ray":
        with RayHead(count) as head:
            yield head.address, lambda node: int(node.rpartition(":")[2])
    else:
        with DaskProcesses(count) as dask:
            yield f"dask://{dask.address}", lambda node: dask.pids.pop(node)


class Rows:
    """The report of a run, while it is written."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._at = self.count = 0
        self.last = b""

    def look(self) -> None:
        """Count what has been added."""
        files = [*self._place.glob(".run.jsonl.*.tmp"), *self._place.glob("run.jsonl")]
        if files:
            with suppress(FileNotFoundError), files[0].open("rb") as file:
                file.seek(self._at)
                added = file.read()
                whole = added[: added.rfind(b"\n") + 1]
                self._at += len(whole)
                self.count += whole.count(b"\n")
                self.last = whole.splitlines()[-1] if whole else self.last


def memory(process: int) -> int:
    """The bytes of memory that a process has now, 0 if it has ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    return 0


def kill_half_way(engine: str, workers: int, assets: int) -> None:
    """Fetch so many assets, and kill a worker when half of them are there. Raises `AssertionError`."""
    marks = dict.fromkeys(range(10, 101, 10), 0)
    with served(assets) as (place, nginx), workers_of(engine, workers) as (address, process_of):
        print(f"{assets:,} assets of 1 KiB, {workers} workers of {engine}", flush=True)
        command = [sys.executable, "-m", "grym_fetch", "sync", "--all", "-q", "--on", address]
        command += ["--parallel", "16", "--report", "run.jsonl"]
        rows, killed, began = Rows(place), "", time.monotonic()
        with subprocess.Popen(command, cwd=place) as driver:
            while driver.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    driver.wait(0.2)
                rows.look()
                now, done = memory(driver.pid), 100 * rows.count // assets
                for percent in marks:
                    if done >= percent and not marks[percent] and now:
                        marks[percent] = now
                        seconds = time.monotonic() - began
                        print(f"{percent:3} %, {seconds:5.0f} s: {now / MIB:.0f} MiB", flush=True)
                if done >= 50 and not killed:
                    killed = str(json.loads(rows.last)["node"])
                    os.kill(process_of(killed), signal.SIGKILL)
                    print(f"killed {killed} after {rows.count:,} assets", flush=True)
        took = time.monotonic() - began
        fetched = Counter(sent.path for sent in nginx.sent())
        twice = sum(count > 1 for count in fetched.values())
        ends = Counter(json.loads(line)["end"] for line in (place / "run.jsonl").open())
        print(f"exit {driver.returncode} after {took:.0f} s, {assets / took:.0f} assets/s; {dict(ends)}")
        print(f"{twice} of {len(fetched):,} were requested more than once")
        assert killed, "nobody was killed"
        assert driver.returncode == 0
        assert sum(ends.values()) == assets == ends["verified"] + ends["reused"]
        assert len(fetched) == assets
        assert twice <= MAX_COUNT, "more than one task"
        wrong = [n for n in range(assets) if (place / f"assets/{n % 100}/{n}.bin").read_bytes() != content_of(n)]
        assert not wrong, wrong[:10]
        known = [each for each in marks.values() if each]
        assert max(known) - known[0] < MEMORY_MIB * MIB, "the memory of the command grows"
        print("all there, verified, and right")


def main() -> None:
    """Print what was measured, and a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nodes", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--assets", type=int, default=100_000_000)
    parser.add_argument("--size", type=int, nargs="+", default=[1024, 10 * 1024 * 1024], help="bytes of each asset")
    parser.add_argument("--speed", type=float, default=500, help="assets that a node fetches in a second at most")
    parser.add_argument("--link", type=float, default=125e6, help="bytes that a node receives in a second at most")
    parser.add_argument("--measured", type=int, default=20_000, help="assets to measure the driver with")
    parser.add_argument("--workers", type=int, nargs="+", help="fetch with so many Dask workers, and nothing else")
    parser.add_argument("--killed", type=int, metavar="ASSETS", help="fetch so many, and kill one of four workers")
    parser.add_argument("--engine", choices=["dask", "ray"], default="dask", help="with --killed: whose workers")
    chosen = parser.parse_args()
    if chosen.killed:
        kill_half_way(chosen.engine, (chosen.workers or [4])[0], chosen.killed)
        return
    for workers in chosen.workers or ():
        print(f"{workers} workers: {asyncio.run(fetch(workers, chosen.measured)):.0f} assets/s", flush=True)
    if chosen.workers:
        return
    costs = measure(chosen.measured)
    print(
        f"the driver's processor: {costs.asset * 1e6:.0f} µs an asset, {costs.event * 1e6:.1f} µs an event, "
        f"{costs.task * 1e3:.2f} ms a task, {costs.order * 1e6:.0f} µs an order"
    )
    print("| nodes | size | tasks | hours | driver busy | nodes wait | a round of orders |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    for size in chosen.size:
        speed = min(chosen.speed, chosen.link / size)
        for nodes in chosen.nodes:
            end = simulate(nodes, chosen.assets, size, speed, costs, share_seconds(nodes))
            print(
                f"| {nodes:,} | {size:,} | {end.tasks:,} | {end.seconds / 3600:.2f} | {end.busy / end.seconds:.0%} "
                f"| {end.idle / end.seconds:.0%} | {end.round_seconds * 1e3:.0f} ms |"
            )


if __name__ == "__main__":
    main()

"""A worker's side, in this process: it obeys its orders, tells everything, and stops when nobody asks any more."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest

from grym_fetch.cluster import node as module
from grym_fetch.cluster.node import NodeStopped, answer, digest_of, run_task
from grym_fetch.cluster.packets import pack, unpack
from grym_fetch.cluster.protocol import Allowance, Done, Job, Order, Reply, Task
from grym_fetch.cluster.work_list import WorkFolder, new_run
from grym_fetch.core.errors import ClusterError
from grym_fetch.core.events import AssetVerified
from grym_fetch.manager import AssetManager
from grym_fetch.settings import Settings
from grym_fetch.testing import AssetServer, Gate, Hold
from tests.support.project import Project

CONTENT = bytes(range(256)) * 100
LEASE_S = 20.0


class Driver:
    """The other side of one node."""

    def __init__(self, project: Project) -> None:
        self.project = project
        run = new_run()
        self.folder = WorkFolder(project.assets, run)
        self.job = Job(run, str(project.manifest), str(project.assets), str(project.root), Settings(parallel=4))
        self.heard = 0
        self.allowance = Allowance(4, 4)

    async def ask(self, *, stop: bool = False, lease: float = LEASE_S, heard: int | None = None) -> Reply:
        """Send an order."""
        order = Order(self.job, self.allowance, self.heard if heard is None else heard, lease, stop=stop)
        reply = unpack(await answer(pack(order)), Reply)
        self.heard = reply.number
        return reply

    def task(self, number: int = 1) -> Task:
        """A task with all assets."""
        self.folder.make()
        assets = tuple(AssetManager(self.project.manifest).manifest.assets)
        return Task(self.job, number, len(assets), 0, self.folder.write(number, assets))

    async def do(self, task: Task) -> Done:
        """Have it done."""
        return unpack(await asyncio.to_thread(run_task, pack(task)), Done)


@pytest.fixture
def driver(project: Project, server: AssetServer) -> Iterator[Driver]:
    """One for a project with an asset."""
    project.add("a", [server.add("/a", CONTENT).url], CONTENT)
    driver = Driver(project)
    yield driver
    node = module._nodes.take(driver.job.run)
    if node is not None:
        node._loop.call_soon_threadsafe(node._end.set)
        node._thread.join(60)


async def test_nothing_begins_before_there_is_a_share(driver: Driver, server: AssetServer) -> None:
    """A task waits for connections. Its events are told until they are heard, once in the end."""
    work = asyncio.create_task(driver.do(driver.task()))
    driver.allowance = Allowance()
    while not (reply := await driver.ask()).tasks:
        pass
    for _ in range(20):
        assert (await driver.ask()).in_force == Allowance()
    assert not server.stats.requests
    driver.allowance = Allowance(2, 2)
    await driver.ask()
    assert (await work).verified == ("a",)
    first = await driver.ask()
    again = await driver.ask(heard=first.number - 1)
    assert [type(event) for event in first.events][-1] is AssetVerified
    assert again.events[: len(first.events)] == first.events
    assert (await driver.ask()).events == ()
    assert reply.number < first.number
    assert driver.project.finals()["a"].read_bytes() == CONTENT


async def test_what_is_in_use_counts_until_it_is_not(driver: Driver, server: AssetServer) -> None:
    """A smaller share takes nothing away from what is under way, and says so; idle connections are closed."""
    gate = Gate()
    file = server.add("/a", CONTENT, faults=[Hold(gate, at=len(CONTENT) - 1)])
    work = asyncio.create_task(driver.do(driver.task()))
    await driver.ask()
    await server.stats.until(lambda stats: stats.requests_in_flight > 0)
    driver.allowance = Allowance()
    reply = await driver.ask()
    assert reply.in_force.connections == 1
    (host,) = reply.hosts
    assert reply.in_force.at(host) == 1
    gate.open()
    assert (await work).verified == ("a",)
    while (await driver.ask()).in_force != Allowance():
        pass
    await server.stats.until(lambda stats: stats.connections_open == 0)
    assert file.content == CONTENT


async def test_it_stops_when_it_is_told_to(driver: Driver, server: AssetServer) -> None:
    """The task ends, and no other one begins."""
    server.add("/a", CONTENT, faults=[Hold(Gate(), at=len(CONTENT) - 1)])
    task = driver.task()
    work = asyncio.create_task(driver.do(task))
    await driver.ask()
    await server.stats.until(lambda stats: stats.requests_in_flight > 0)
    await driver.ask(stop=True)
    with pytest.raises(NodeStopped):
        await work
    with pytest.raises(NodeStopped):
        await driver.do(task)
    assert (await driver.ask(stop=True)).events == ()


@pytest.mark.shows("P17")
@pytest.mark.timeout(60)  # without its guard, it would wait for ever
async def test_it_stops_when_nobody_asks_any_more(driver: Driver, server: AssetServer) -> None:
    """A driver that is killed cannot say so."""
    server.add("/a", CONTENT, faults=[Hold(Gate(), at=len(CONTENT) - 1)])
    work = asyncio.create_task(driver.do(driver.task()))
    await driver.ask()
    await server.stats.until(lambda stats: stats.requests_in_flight > 0)
    await driver.ask(lease=0.0)
    with pytest.raises(NodeStopped):
        await work
    await server.stats.until(lambda stats: stats.connections_open == 0)


@pytest.mark.shows("P19")
async def test_a_node_that_does_not_see_the_folder_says_so(driver: Driver) -> None:
    """Before it has a task, and instead of one."""
    reply = await driver.ask()
    assert reply.problem is not None
    assert reply.problem.startswith("does not see ")
    with pytest.raises(ClusterError, match="all nodes must share the assets folder"):
        await driver.do(replace(driver.task(), number=9))


async def test_each_node_reads_the_same_manifest(driver: Driver) -> None:
    """Where nothing is shared, the manifest must be there, with the driver's content."""
    right = digest_of(driver.project.manifest)
    driver.job = replace(driver.job, each_node=True, manifest_digest=right, assets_dir=str(driver.project.root / "own"))
    await driver.ask()
    done = await driver.do(Task(driver.job, 1, 1, 0, ids=("a",)))
    assert done.verified == ("a",)
    assert (driver.project.root / "own/models/a.bin").read_bytes() == CONTENT
    await driver.ask(stop=True)
    driver.job = replace(driver.job, run=new_run(), manifest_digest="00")
    assert (await driver.ask()).problem == f"has another {driver.project.manifest} than the driver"
    await driver.ask(stop=True)

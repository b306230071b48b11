"""A sync on Ray: what becomes of its actors, in memory; and a real head with workers as processes."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest

from grym_fetch import AssetManager, Settings
from grym_fetch.cluster import ray as module
from grym_fetch.cluster.packets import Packet, pack
from grym_fetch.cluster.protocol import Done, Job, Task, TaskEnd
from grym_fetch.cluster.ray import MAX_DEATHS, RayCluster
from grym_fetch.core.events import AssetPlanned, AssetVerified, Event, ProgressMade
from grym_fetch.errors import ClusterError
from grym_fetch.testing import AssetServer, Gate, Hold, SeededContent
from tests.cluster.test_dask import many
from tests.cluster.test_opening import marked
from tests.end_to_end.command import Running
from tests.support.project import Project
from tests.support.ray_head import RayHead
from tests.support.system import listening

MIB = 1024 * 1024


class ActorDied(Exception):
    """As Ray says that an actor is gone."""


class FakeActor:
    """An actor: each call of it waits in ``asked`` until a test answers."""

    def __init__(self) -> None:
        self.asked: dict[str, Future[Any]] = {}
        self.packets: list[Packet] = []

    def __getattr__(self, name: str) -> Any:
        def remote(*packets: Packet) -> Any:
            self.packets += packets
            answer = self.asked[name] = Future()
            return SimpleNamespace(future=lambda: answer)

        return SimpleNamespace(remote=remote)


class FakeRay:
    """The part of Ray that is used, with machines that have so many CPUs."""

    exceptions = SimpleNamespace(RayError=ActorDied, RayActorError=ActorDied)

    def __init__(self, **cpus: int) -> None:
        self.cpus = cpus
        self.actors: list[FakeActor] = []
        self.killed: list[FakeActor] = []

    def nodes(self) -> list[dict[str, object]]:
        return [
            {"NodeID": name, "Alive": True, "NodeManagerAddress": name, "Resources": {"CPU": count}}
            for name, count in self.cpus.items()
        ]

    def remote(self, **_: object) -> Any:
        def make() -> FakeActor:
            self.actors.append(FakeActor())
            return self.actors[-1]

        return lambda _: SimpleNamespace(options=lambda **_: SimpleNamespace(remote=make))

    def kill(self, actor: FakeActor) -> None:
        self.killed.append(actor)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    """A Ray of one machine with two CPUs."""
    strategies = SimpleNamespace(NodeAffinitySchedulingStrategy=lambda *_, **__: None)
    for name in ("ray", "ray.util", "ray.util.scheduling_strategies"):
        monkeypatch.setitem(sys.modules, name, cast("ModuleType", strategies))
    return FakeRay(m=2)


async def until(is_so: Callable[[], object]) -> None:
    """Let the cluster's thread and tasks go on until something is so."""
    async with asyncio.timeout(60):
        while not is_so():
            await asyncio.to_thread(int)


async def begun(ray: FakeRay) -> RayCluster:
    """A cluster all of whose actors have begun."""
    cluster = RayCluster(ray, ThreadPoolExecutor(1))
    await cluster.nodes()
    for number, actor in enumerate(ray.actors):
        await until(lambda actor=actor: "begin" in actor.asked)  # type: ignore[misc]
        actor.asked["begin"].set_result(number)
    while len(await cluster.nodes()) < len(ray.actors):
        pass
    return cluster


TASK = Task(Job("run", "/m.json", "/a", "/e", Settings()), 1, 1, 1)
DONE = Done(("a",), (), (), {}, {"a": "/a"}, 1, 1.0)


@pytest.mark.shows("P16")
@pytest.mark.parametrize("what", ["actor", "machine"])
async def test_a_lost_actors_task_goes_to_another(ray: FakeRay, what: str) -> None:
    """Ray itself gives it to nobody. It ends once, whoever does it, and the lost one is replaced."""
    if what == "machine":
        ray.cpus = {"m": 1, "n": 1}
    cluster = await begun(ray)
    first, second = ray.actors
    await cluster.submit(TASK)
    await until(lambda: "run" in first.asked)
    if what == "actor":
        first.asked["run"].set_exception(ActorDied())
    else:
        del ray.cpus["m"]
        assert list(await cluster.nodes()) == ["n:1"]
    await until(lambda: "run" in second.asked)
    assert second.packets == first.packets
    second.asked["run"].set_result(pack(DONE))
    assert await cluster.gather() == [TaskEnd(1, DONE, node="m:1" if what == "actor" else "n:1")]
    await cluster.nodes()
    assert len(ray.actors) == (3 if what == "actor" else 2)
    await cluster.aclose()


@pytest.mark.shows("P16")
async def test_a_machine_on_which_workers_die_gets_no_more(ray: FakeRay) -> None:
    """Three that have died before they said a word are enough."""
    ray.cpus = {"m": 1}
    cluster = RayCluster(ray, ThreadPoolExecutor(1))
    for number in range(MAX_DEATHS):
        await cluster.nodes()
        assert len(ray.actors) == number + 1
        await until(lambda actor=ray.actors[-1]: "begin" in actor.asked)  # type: ignore[misc]
        ray.actors[-1].asked["begin"].set_exception(ActorDied())
        await until(lambda count=number + 1: cluster._deaths["m"] == count)  # type: ignore[misc]
    assert await cluster.nodes() == {}
    assert len(ray.actors) == MAX_DEATHS
    await cluster.aclose()


@pytest.mark.shows("P19")
async def test_a_worker_that_cannot_import_the_program_is_an_error(ray: FakeRay) -> None:
    """Ray tells it in the text of its own error; all workers would end in the same way."""
    cluster = RayCluster(ray, ThreadPoolExecutor(1))
    await cluster.nodes()
    await until(lambda: "begin" in ray.actors[0].asked)
    why = ActorDied("in the worker:\nModuleNotFoundError: No module named 'grym_fetch'")
    ray.actors[0].asked["begin"].set_exception(why)
    await until(lambda: cluster._problem)
    with pytest.raises(ClusterError, match=r"cannot import grym-fetch \(ModuleNotFoundError: No module named"):
        await cluster.nodes()
    await cluster.aclose()


@pytest.mark.parametrize(
    ("why", "attempts"), [("RuntimeError: Starting Ray client server failed. See", 3), ("versions differ", 1)]
)
def test_a_head_that_had_bad_luck_is_asked_again(monkeypatch: pytest.MonkeyPatch, why: str, attempts: int) -> None:
    """It lost the process that it had started for this one. Any other reason is told at once."""
    asked: list[str] = []

    def init(address: str, **_: object) -> None:
        asked.append(address)
        raise ConnectionError(f"ray.init() failed\n{why}")

    monkeypatch.setattr(module, "_ray", lambda: SimpleNamespace(init=init))
    with ThreadPoolExecutor(1) as thread, pytest.raises(ClusterError, match=f"cannot connect to ray://h:1: {why}"):
        module._connect(thread, "ray://h:1")
    assert asked == ["ray://h:1"] * attempts


@pytest.mark.shows("P21")
async def test_a_run_that_ends_leaves_no_actor(ray: FakeRay) -> None:
    """Also those that are still at work, or have not begun; and what was opened for it is closed."""
    ended: list[str] = []
    cluster = RayCluster(ray, ThreadPoolExecutor(1), end=lambda: ended.append("end"))
    await cluster.nodes()
    await cluster.aclose()
    assert ray.killed == ray.actors
    assert ended == ["end"]


async def test_a_head_that_is_not_there(project: Project, server: AssetServer) -> None:
    """The error names where nobody answers."""
    many(project, server, 1)
    async with AssetManager(project.manifest) as manager:
        with pytest.raises(ClusterError, match=r"no Ray head answers at ray://127\.0\.0\.1:9"):
            await manager.sync_on("ray://127.0.0.1:9")


def scratch_folders() -> set[Path]:
    """Those of Ray in the folder for temporary files, and where they are if its name is too long."""
    return {path for place in (tempfile.gettempdir(), "/tmp") for path in Path(place).glob("grym-ray-*")}


def has_ended(process: int) -> bool:
    """Whether a process ends within a minute."""
    last = time.monotonic() + 60
    while Path(f"/proc/{process}").exists():
        if time.monotonic() > last:
            return False
    return True


@pytest.mark.sweep
@pytest.mark.alone  # on a busy machine, Ray gives up starting its own processes
@pytest.mark.linux
@pytest.mark.package("ray")
@pytest.mark.timeout(300)
@pytest.mark.shows("P16", "P18", "P21")
async def test_ray_fetches_everything_once_and_replaces_a_killed_worker(server: AssetServer, project: Project) -> None:
    """Each asset is requested once, by two workers; what a killed one had fetched is not fetched again by the next.

    A run that is cancelled leaves no worker.
    """
    many(project, server, 200)
    gate, size = Gate(), 16 * MIB
    file = server.add("/big", SeededContent(size, seed=1), faults=[Hold(gate, at=size - 1)])
    project.add("big", [file.url], None, size=size, checksum=file.sha256)
    events: list[Event] = []
    at_work: asyncio.Queue[str] = asyncio.Queue()

    def follow(event: Event) -> None:
        events.append(event)
        if isinstance(event, ProgressMade) and event.asset == "big" and event.bytes > size // 2 and event.node:
            at_work.put_nowait(event.node)

    with RayHead(workers=2) as head:
        async with AssetManager(project.manifest, settings=Settings(parallel=4)) as manager:
            manager.on_event(follow)
            report = await manager.sync_on(head.address, [f"a{n}" for n in range(200)])
            assert len(report.verified) == 200
            run = asyncio.create_task(manager.sync_on(head.address, ["big"]))
            killed = await at_work.get()
            os.kill(int(killed.rpartition(":")[2]), signal.SIGKILL)
            await server.stats.until(lambda stats: stats.requests_in_flight == 0)
            file.faults = ()
            await run
            plans = [event for event in events if isinstance(event, AssetPlanned) and event.asset == "big"]
            while not at_work.empty():
                at_work.get_nowait()
            file.faults = [Hold(gate, at=size - 1)]
            run = asyncio.create_task(manager.sync_on(head.address, ["big"], force=True))
            stopped = await at_work.get()
            run.cancel()
            await asyncio.wait([run])
            assert has_ended(int(stopped.rpartition(":")[2]))
    big = project.finals().pop("big")
    assert hashlib.sha256(big.read_bytes()).hexdigest() == file.sha256
    assert all(project.finals()[name].read_bytes() == content for name, content in project.contents.items())
    requests = Counter(request.path for request in server.stats.requests if request.path != "/big")
    assert requests == {f"/{n}": 1 for n in range(200)}
    assert server.stats.most_open_connections <= 4
    assert len({event.node for event in events if isinstance(event, AssetVerified) and event.asset != "big"}) == 2
    assert plans[-1].node != killed
    assert plans[-1].resumed_bytes > size // 2


@pytest.mark.sweep
@pytest.mark.alone  # on a busy machine, Ray gives up starting its own processes
@pytest.mark.linux
@pytest.mark.package("ray")
@pytest.mark.shows("P21")
def test_ctrl_c_ends_the_ray_of_this_machine(project: Project, tmp_path: Path) -> None:
    """No process of it is left, nor its folder for temporary files; while it runs, no other machine can reach it."""
    from grym_fetch.testing import serve_in_thread

    gate, size = Gate(), 16 * MIB
    with serve_in_thread() as server:
        file = server.add("/a", SeededContent(size, seed=1), faults=[Hold(gate, at=size - 1)])
        project.add("a", [file.url], None, size=size, checksum=file.sha256)
        before = scratch_folders()
        with Running(project.root, "sync", "--on", "ray", "--json", MARK=str(tmp_path)) as running:
            running.until_bytes(size // 2)
            heard = [listening(pid) for pid in marked(f"MARK={tmp_path}")]
            assert sum(map(len, heard)) > 3
            assert set().union(*heard) == {"127.0.0.1"}
            running.send(signal.SIGINT)
            assert running.finish().code == 130
        assert not marked(f"MARK={tmp_path}")
        assert scratch_folders() <= before

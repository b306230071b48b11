"""A sync on a real Dask cluster: a scheduler and workers as processes, a shared folder, and a server that counts."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from grym_fetch import AssetManager, Settings, SyncFailed, blocking
from grym_fetch._version import __version__
from grym_fetch.cluster import dask as module
from grym_fetch.cluster import ends, packets
from grym_fetch.cluster.packets import Packet, pack
from grym_fetch.core.events import AssetFailed, AssetPlanned, AssetVerified, Event, ProgressMade, RunFinished
from grym_fetch.errors import ClusterError
from grym_fetch.testing import AssetServer, Gate, Hold, SeededContent, Throttle
from tests.support.dask_cluster import DaskProcesses
from tests.support.project import CANARY, Project, asset_entry

MIB = 1024 * 1024
pytestmark = pytest.mark.package("distributed")


@pytest.fixture(scope="module")
def dask() -> Iterator[DaskProcesses]:
    """Two workers, for all tests here."""
    with DaskProcesses(2) as running:
        yield running


def many(project: Project, server: AssetServer, count: int, size: int = 1000) -> None:
    """List so many assets."""
    for n in range(count):
        content = (f"{n}:" * size).encode()[:size]
        project.entries.append(asset_entry(f"a{n}", [server.add(f"/{n}", content).url], content))
        project.contents[f"a{n}"] = content
    project.write()


def assert_all_there(project: Project) -> None:
    """Every file has its content."""
    for asset_id, path in project.finals().items():
        assert path.read_bytes() == project.contents[asset_id]


async def test_a_cluster_fetches_everything_once(dask: DaskProcesses, server: AssetServer, project: Project) -> None:
    """Both workers take part, each asset is requested once, and events and report are those of one run."""
    many(project, server, 120)
    events: list[Event] = []
    async with AssetManager(project.manifest, settings=Settings(parallel=4)) as manager:
        manager.on_event(events.append)
        report = await manager.sync_on(f"dask://{dask.address}")
        again = await manager.sync_on(f"dask://{dask.address}")
    assert_all_there(project)
    assert sorted(report.verified) == sorted(project.contents)
    assert report.paths["a7"] == project.finals()["a7"]
    assert len(again.reused) == 120
    assert Counter(request.path for request in server.stats.requests) == {f"/{n}": 1 for n in range(120)}
    assert server.stats.most_open_connections <= 4
    verified = [event for event in events if isinstance(event, AssetVerified)]
    assert {event.node for event in verified} == set(dask.pids)
    assert sum(isinstance(event, RunFinished) for event in events) == 2
    assert not list((project.assets / ".grym-fetch").glob("user-*/cluster/*"))


@pytest.mark.sweep
@pytest.mark.shows("P16")
async def test_a_killed_workers_task_goes_on_where_it_was(server: AssetServer, project: Project) -> None:
    """Another worker takes it again, and resumes: what the killed one had fetched is not fetched again."""
    gate, size = Gate(), 40 * MIB
    content = SeededContent(size, seed=1)
    file = server.add("/big", content, faults=[Hold(gate, at=size - 1)])
    project.add("big", [file.url], None, size=size, checksum=file.sha256)
    at_work: asyncio.Queue[str] = asyncio.Queue()

    def follow(event: Event) -> None:
        if isinstance(event, ProgressMade) and event.bytes > size // 2 and event.node is not None:
            at_work.put_nowait(event.node)

    events: list[Event] = []
    with DaskProcesses(2) as dask:
        async with AssetManager(project.manifest, settings=Settings(parallel=4)) as manager:
            manager.on_event(events.append)
            manager.on_event(follow)
            run = asyncio.create_task(manager.sync_on(f"dask://{dask.address}"))
            killed = await at_work.get()
            dask.kill(killed)
            await server.stats.until(lambda stats: stats.requests_in_flight == 0)
            file.faults = ()
            report = await run
        (survivor,) = dask.pids
    assert list(report.verified) == ["big"]
    assert hashlib.sha256(project.finals()["big"].read_bytes()).hexdigest() == file.sha256
    plans = [event for event in events if isinstance(event, AssetPlanned)]
    assert [plan.node for plan in plans] == [killed, survivor]
    assert plans[1].resumed_bytes > size // 2
    assert server.stats.body_bytes_sent < size * 1.5


@pytest.mark.sweep
@pytest.mark.shows("P18")
async def test_the_limits_bound_all_workers(dask: DaskProcesses, server: AssetServer, project: Project) -> None:
    """With two connections to one host for all, there are never three, however many workers there are."""
    for n in range(8):
        content = SeededContent(2 * MIB, seed=n)
        file = server.add(f"/{n}", content, faults=[Throttle(rate=8 * MIB)])
        project.add(f"a{n}", [file.url], None, size=2 * MIB, checksum=file.sha256)
    async with AssetManager(project.manifest, settings=Settings(parallel=8, max_per_host=2)) as manager:
        await manager.sync_on(f"dask://{dask.address}")
    assert server.stats.most_open_connections <= 2


@pytest.mark.sweep
async def test_a_users_own_client_names_the_cluster(dask: DaskProcesses, server: AssetServer, project: Project) -> None:
    """It is used to find the scheduler, stays open, and may belong to any loop; the blocking twin does the same."""
    from distributed import Client

    many(project, server, 10)

    def sync() -> int:
        with Client(dask.address, set_as_default=False) as client, blocking.AssetManager(project.manifest) as manager:
            report = manager.sync_on(client)
            assert client.status == "running"
            return len(report.verified)

    assert await asyncio.to_thread(sync) == 10


@pytest.mark.sweep
async def test_a_failure_says_which_asset_and_why(dask: DaskProcesses, server: AssetServer, project: Project) -> None:
    """Others are there; the error is the one that a single machine raises."""
    many(project, server, 5)
    project.add("gone", [server.url("/gone")], b"gone")
    async with AssetManager(project.manifest, settings=Settings(retries=0)) as manager:
        with pytest.raises(SyncFailed) as caught:
            await manager.sync_on(f"dask://{dask.address}")
    assert list(caught.value.failures) == ["gone"]
    assert "404" in str(caught.value.failures["gone"])
    assert all(project.finals()[f"a{n}"].exists() for n in range(5))


@pytest.mark.sweep
async def test_no_secret_leaves_the_worker(
    dask: DaskProcesses, server: AssetServer, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tasks and orders hold no address and nothing of the driver's environment: workers read their own."""
    many(project, server, 3)
    monkeypatch.setenv("GRYM_FETCH_TOKEN_127_0_0_1_PORT_" + str(server.port), CANARY)
    sent: list[bytes] = []

    def packed(thing: object) -> Packet:
        packet = pack(thing)
        sent.append(packet[1])
        return packet

    monkeypatch.setattr(module, "pack", packed)
    async with AssetManager(project.manifest) as manager:
        await manager.sync_on(f"dask://{dask.address}")
    assert sent
    assert not [data for data in sent if CANARY.encode() in data or str(server.port).encode() in data]
    assert all("authorization" not in request.headers for request in server.stats.requests)


@pytest.mark.sweep
async def test_a_worker_of_another_version_is_named(
    dask: DaskProcesses, server: AssetServer, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The difference is said at once, with both versions; nothing is fetched."""
    many(project, server, 3)
    monkeypatch.setattr(packets, "__version__", "99.0")
    monkeypatch.setattr(ends, "__version__", "99.0")
    async with AssetManager(project.manifest) as manager:
        with pytest.raises(ClusterError, match=rf"has grym-fetch {__version__}, and the driver 99\.0"):
            await manager.sync_on(f"dask://{dask.address}")
    assert not server.stats.requests


@pytest.mark.sweep
async def test_a_run_that_is_cancelled_stops_the_workers(
    dask: DaskProcesses, server: AssetServer, project: Project
) -> None:
    """The connections are closed soon, what has arrived is kept, and the next run goes on from there."""
    gate, size = Gate(), 8 * MIB
    file = server.add("/a", SeededContent(size, seed=1), faults=[Hold(gate, at=size - 1)])
    project.add("a", [file.url], None, size=size, checksum=file.sha256)
    async with AssetManager(project.manifest) as manager:
        run = asyncio.create_task(manager.sync_on(f"dask://{dask.address}"))
        async with manager.events() as events:
            async for event in events:
                if isinstance(event, ProgressMade) and event.bytes > size // 2:
                    break
        run.cancel()
        await asyncio.wait([run])
        await server.stats.until(lambda stats: stats.connections_open == 0)
        gate.open()
        planned: list[AssetPlanned] = []
        manager.on_event(lambda event: planned.append(event) if isinstance(event, AssetPlanned) else None)
        await manager.sync_on(f"dask://{dask.address}")
    assert [plan.resumed_bytes > size // 2 for plan in planned] == [True]


@pytest.mark.sweep
async def test_a_scheduler_that_is_not_there(
    project: Project, server: AssetServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names where nobody answers."""
    many(project, server, 1)
    monkeypatch.setattr(module, "CONNECT_S", 0.2)
    async with AssetManager(project.manifest) as manager:
        with pytest.raises(ClusterError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
            await manager.sync_on("dask://127.0.0.1:9")


@pytest.mark.sweep
async def test_each_machine_gets_a_copy(server: AssetServer, project: Project, tmp_path: Path) -> None:
    """In its own folder, within the limits of all; a machine that cannot is named, and the others have theirs."""
    many(project, server, 3, size=100_000)
    places = [tmp_path / name / "assets" for name in ("one", "two", "three")]
    places[2].parent.write_text("a file is in the way")
    events: list[Event] = []
    with DaskProcesses(0) as dask:
        for n, place in enumerate(places):
            dask.add_worker(f"127.0.0.{n + 2}", GRYM_FETCH_ASSETS_DIR=str(place))
        async with AssetManager(project.manifest, settings=Settings(max_per_host=1)) as manager:
            manager.on_event(events.append)
            with pytest.raises(SyncFailed):
                await manager.sync_on(f"dask://{dask.address}", each_node=True)
    for place in places[:2]:
        for asset_id, path in project.finals().items():
            assert (place / path.relative_to(project.assets)).read_bytes() == project.contents[asset_id]
    assert not project.assets.exists()
    assert server.stats.most_open_connections == 1
    assert {event.node.partition(":")[0] for event in events if isinstance(event, AssetFailed) and event.node} == {
        "127.0.0.4"
    }

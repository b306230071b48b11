"""A sync on real Ray: a head and its workers as processes, a shared folder, and a server that counts."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from grym_fetch import AssetManager, Settings
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


async def test_a_head_that_is_not_there(project: Project, server: AssetServer) -> None:
    """The error names where nobody answers."""
    many(project, server, 1)
    async with AssetManager(project.manifest) as manager:
        with pytest.raises(ClusterError, match=r"no Ray head answers at ray://127\.0\.0\.1:9"):
            await manager.sync_on("ray://127.0.0.1:9")


@pytest.mark.sweep
@pytest.mark.alone  # on a busy machine, Ray gives up starting its own processes
@pytest.mark.linux
@pytest.mark.package("ray")
async def test_ray_fetches_everything_once_and_replaces_a_killed_worker(server: AssetServer, project: Project) -> None:
    """Each asset is requested once, by two workers; what a killed one had fetched is not fetched again by the next."""
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
    big = project.finals().pop("big")
    assert hashlib.sha256(big.read_bytes()).hexdigest() == file.sha256
    assert all(project.finals()[name].read_bytes() == content for name, content in project.contents.items())
    requests = Counter(request.path for request in server.stats.requests if request.path != "/big")
    assert requests == {f"/{n}": 1 for n in range(200)}
    assert server.stats.most_open_connections <= 4
    assert len({event.node for event in events if isinstance(event, AssetVerified) and event.asset != "big"}) == 2
    plans = [event for event in events if isinstance(event, AssetPlanned) and event.asset == "big"]
    assert plans[-1].node != killed
    assert plans[-1].resumed_bytes > size // 2


@pytest.mark.sweep
@pytest.mark.alone  # on a busy machine, Ray gives up starting its own processes
@pytest.mark.linux
@pytest.mark.package("ray")
def test_ctrl_c_ends_the_ray_of_this_machine(project: Project, tmp_path: Path) -> None:
    """No process of it is left, nor its folder for temporary files; while it runs, no other machine can reach it."""
    from grym_fetch.testing import serve_in_thread

    gate, size = Gate(), 16 * MIB
    with serve_in_thread() as server:
        file = server.add("/a", SeededContent(size, seed=1), faults=[Hold(gate, at=size - 1)])
        project.add("a", [file.url], None, size=size, checksum=file.sha256)
        before = set(Path("/tmp").glob("grym-ray-*"))
        with Running(project.root, "sync", "--on", "ray", "--json", MARK=str(tmp_path)) as running:
            running.until_bytes(size // 2)
            heard = [listening(pid) for pid in marked(f"MARK={tmp_path}")]
            assert sum(map(len, heard)) > 3
            assert set().union(*heard) == {"127.0.0.1"}
            running.send(signal.SIGINT)
            assert running.finish().code == 130
        assert not marked(f"MARK={tmp_path}")
        assert set(Path("/tmp").glob("grym-ray-*")) <= before

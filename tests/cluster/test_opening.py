"""What a user may name as a cluster, and a cluster on this machine as the command starts it."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from grym_fetch.cluster.opening import opened_cluster, problem_of
from grym_fetch.core.errors import ClusterError
from grym_fetch.testing import AssetServer, Gate, Hold, SeededContent, serve_in_thread
from tests.cluster.test_dask import many
from tests.end_to_end.command import Running, run
from tests.support.fake_cluster import FakeCluster
from tests.support.project import Project
from tests.support.system import Stopwatch

MIB = 1024 * 1024


@pytest.mark.parametrize(
    "place", ["dask", "dask://head:8786", "dask://10.0.0.7:8786/", "dask://[::1]:8786", "ray", "ray://head:10001"]
)
def test_places(place: str) -> None:
    """A word for this machine, or where a scheduler is."""
    assert problem_of(place) is None


@pytest.mark.parametrize(
    "place", ["", "spark", "dask://", "dask://head", "dask://u:p@head:1", "ray://head", "tcp://head:8786"]
)
async def test_what_is_no_place(place: str) -> None:
    """The error says what is allowed."""
    with pytest.raises(ClusterError, match="dask://HOST:PORT"):
        async with opened_cluster(place):
            pass


async def test_a_cluster_of_ones_own_is_left_open() -> None:
    """Whoever brings one closes it. Anything else is no cluster."""
    mine = FakeCluster()
    async with opened_cluster(mine) as cluster:
        assert cluster is mine
    assert not mine.is_closed
    with pytest.raises(ClusterError, match="object is not a cluster"):
        async with opened_cluster(object()):
            pass


@pytest.fixture
def server() -> Iterator[AssetServer]:
    """A server in a thread: the command is waited for."""
    with serve_in_thread() as running:
        yield running


def marked(mark: str) -> list[int]:
    """The processes that have this in their environment."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark.encode() in (place / "environ").read_bytes():
                found.append(int(place.name))
    return found


@pytest.mark.sweep
@pytest.mark.linux
@pytest.mark.package("distributed", "cryptography")
@pytest.mark.shows("P21")
@pytest.mark.alone
def test_ctrl_c_ends_the_cluster_of_this_machine(server: AssetServer, project: Project, tmp_path: Path) -> None:
    """Within five seconds no process is left, nor anything in the folder for temporary files; then it goes on."""
    gate, size = Gate(), 16 * MIB
    file = server.add("/a", SeededContent(size, seed=1), faults=[Hold(gate, at=size - 1)])
    project.add("a", [file.url], None, size=size, checksum=file.sha256)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with Running(project.root, "sync", "--on", "dask", "--json", MARK=str(tmp_path), TMPDIR=str(scratch)) as running:
        running.until_bytes(size // 2)
        assert len(marked(f"MARK={tmp_path}")) > 2
        since = Stopwatch()
        running.send(signal.SIGINT)
        done = running.finish()
        while marked(f"MARK={tmp_path}"):
            assert since.seconds < 5
    assert done.code == 130
    assert not list(scratch.iterdir())
    gate.open()
    again = run(project.root, "sync", "--json")
    assert again.code == 0
    (planned,) = again.of("asset_planned")
    assert isinstance(planned["resumed_bytes"], int)
    assert planned["resumed_bytes"] > size // 2


@pytest.mark.sweep
@pytest.mark.linux
@pytest.mark.package("distributed", "cryptography")
def test_a_cluster_of_this_machine(server: AssetServer, project: Project, tmp_path: Path) -> None:
    """One command fetches everything with a process for each core, leaves none, and Dask adds no word of its own.

    Also where another scheduler has the usual port.
    """
    many(project, server, 200)
    with socket.socket() as other:
        with suppress(OSError):  # taken already: so much the better
            other.bind(("127.0.0.1", 8787))
            other.listen()
        done = run(project.root, "sync", "--on", "dask", "--json", MARK=str(tmp_path))
    assert done.code == 0
    assert len(done.of("asset_verified")) == 200
    assert "distributed" not in done.err
    assert not marked(f"MARK={tmp_path}")

"""The pool of buffers: none is used twice at once, and nothing that has ended holds one."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from grym_fetch import SyncFailed
from grym_fetch.core.digest import Checksum
from grym_fetch.disk.stage import DiskStage
from grym_fetch.engine.engine import Engine
from grym_fetch.manager import AssetManager
from grym_fetch.runtime.buffers import LEAST_AHEAD, Buffers, release_frames
from grym_fetch.testing import seeded_bytes
from grym_fetch.transfer.attempt import Attempt
from grym_fetch.transfer.hashing import Frontier
from grym_fetch.transfer.response import ResponseReader
from grym_fetch.transfer.state import DownloadState
from grym_fetch.transfer.transfer import Transfer
from tests.support.project import Project
from tests.support.small_world import SmallWorld
from tests.support.sweeps import typical

CONNECTIONS = 2
OF_A_TRANSFER = (Transfer, DownloadState, Frontier, ResponseReader, Attempt, DiskStage)


def test_a_buffer_comes_back_when_nobody_holds_its_view() -> None:
    """A buffer does not come back earlier, while its bytes are still being written or hashed."""
    buffers = Buffers(1000, connections=1)
    buffer = buffers.take()
    view = buffers.lend(buffer, 10)
    buffer[:3] = b"abc"
    assert buffers.take() is not buffer
    assert bytes(view[:3]) == b"abc"
    del view
    assert buffers.take() is buffer
    assert buffers.made == 2


def test_buffers_are_scarce_when_each_connection_has_its_share() -> None:
    """One to fill, one to store, one waiting; and never so few that a single connection could not work ahead."""
    for connections, enough in ((1, 2 + LEAST_AHEAD), (16, 48)):
        buffers = Buffers(10, connections)
        taken = [buffers.take() for _ in range(enough - 1)]
        assert not buffers.are_scarce
        taken.append(buffers.take())
        assert buffers.are_scarce
        buffers.give(taken.pop())
        assert not buffers.are_scarce


def test_the_frames_of_an_error_hold_nothing() -> None:
    """Nor do those of its causes; frames that are still running are left alone."""
    buffers = Buffers(10, connections=1)

    def write(view: memoryview) -> None:
        raise OSError(len(view))

    def store() -> None:
        view = buffers.lend(buffers.take(), 5)
        try:
            write(view)
        except OSError as error:
            raise ValueError(len(view)) from error

    with pytest.raises(ValueError, match="5") as caught:
        store()
    kept = caught.value
    del caught
    free = buffers.take()
    assert buffers.made == 2
    buffers.give(free)
    release_frames(kept)
    both = [buffers.take(), buffers.take()]
    assert buffers.made == len(both)
    assert kept.__traceback__ is not None


@contextmanager
def _collector_off() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _buffers(manager: AssetManager) -> Buffers:
    coordinator = manager._coordinator
    assert coordinator is not None
    assert isinstance(coordinator.engine, Engine)
    return coordinator.engine._context.buffers


@pytest.mark.shows("D17")
@pytest.mark.parametrize("count", [10, pytest.param(600, marks=pytest.mark.sweep)])
@pytest.mark.parametrize("end", typical(["verified", "another digest", "another length"], "verified"))
async def test_a_transfer_that_is_over_holds_nothing(tmp_path: Path, count: int, end: str) -> None:
    """Memory depends on the connections and not on the assets, whenever the garbage collector runs.

    This holds even if all of them fail, and a report keeps the errors.
    """
    project, contents = Project(tmp_path / "project"), {}
    for number in range(count):
        url = f"https://origin.example/{number}"
        contents[url] = seeded_bytes(9000, seed=number)
        # An asset without a size takes the long way.
        size = 8000 if end == "another length" else None
        checksum = str(Checksum.of(b"another" if end == "another digest" else contents[url]))
        entry = {"id": f"a{number}", "url": url, "localPath": f"a{number}", "required": True, "checksum": checksum}
        project.entries.append({**entry, "size": size})
    project.write()
    world = SmallWorld(contents)
    with _collector_off():
        async with world.manager(project, parallel=CONNECTIONS) as manager:
            error = None
            try:
                await manager.sync()
            except SyncFailed as failed:
                error = failed
            assert (error is None) == (end == "verified")
            alive = [type(each).__name__ for each in gc.get_objects() if isinstance(each, OF_A_TRANSFER)]
            assert alive == []
            buffers = _buffers(manager)
            assert buffers.made <= 2 * CONNECTIONS + LEAST_AHEAD
            assert not buffers._lent

"""The piece writer: bytes become pieces, one is stored while the next arrives, and none is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import DiskFull
from grym_fetch.core.manifest import Asset
from grym_fetch.core.origins import Origin, Origins
from grym_fetch.core.segments import SegmentSizes
from grym_fetch.core.world import Use
from grym_fetch.runtime.buffers import Buffers
from grym_fetch.testing import seeded_bytes
from grym_fetch.transfer.pieces import FLUSH_INTERVAL_S, PieceWriter
from grym_fetch.transfer.state import DownloadState
from tests.support.fakes import InlineThreads, MemoryFolder, MemoryStage, VirtualClock

DATA = seeded_bytes(3000, seed=92)
ASSET = Asset("a", "https://origin.example/a", "a", checksum=Checksum.of(DATA), size=len(DATA))
PIECE = 1000


class Scene:
    """A writer of pieces of up to 1000 bytes."""

    def __init__(self) -> None:
        self.folder = MemoryFolder(str(ASSET.checksum))
        self.clock = VirtualClock()
        self.buffers = Buffers(PIECE, connections=1)
        origins = Origins(ASSET.urls)
        stage = MemoryStage(self.folder)
        self.read_back: list[tuple[int, int]] = []
        feed = stage.feed

        async def noted(start: int, stop: int, use: Use) -> int:
            self.read_back.append((start, stop))
            return await feed(start, stop, use)

        stage.feed = noted  # type: ignore[method-assign]
        self.state = DownloadState(ASSET, origins, stage, InlineThreads(), lambda: None, SegmentSizes())
        self.writer = PieceWriter(self.state, origins.current, self.clock, self.buffers)

    async def receive(self, start: int, stop: int) -> None:
        """Receive these bytes of the content, never more at once than there is space for."""
        while start < stop:
            space = self.writer.space(stop - start)
            space[:] = DATA[start : start + len(space)]
            count = len(space)
            await self.writer.filled(start, count)
            start += count

    @property
    def pieces(self) -> list[tuple[int, int]]:
        """The ranges of the stored pieces."""
        return [(piece.start, piece.stop) for piece in self.state.pieces]


async def test_a_piece_is_stored_when_it_is_full() -> None:
    """A piece is not stored before it is full; what is left in the end is a piece, too."""
    scene = Scene()
    await scene.receive(0, 999)
    assert scene.pieces == []
    await scene.receive(999, 2500)
    await scene.writer.close()
    assert scene.pieces == [(0, 1000), (1000, 2000), (2000, 2500)]
    assert scene.folder.part == DATA[:2500]


async def test_a_piece_is_stored_when_it_is_old() -> None:
    """Old pieces are stored, so that a slow link loses little in a crash."""
    scene = Scene()
    await scene.receive(0, 10)
    scene.clock.now += FLUSH_INTERVAL_S
    await scene.receive(10, 20)
    await scene.receive(20, 30)
    await scene.writer.close()
    assert scene.pieces == [(0, 20), (20, 30)]


async def test_bytes_that_do_not_follow_begin_a_piece() -> None:
    """A piece is one contiguous range of the content."""
    scene = Scene()
    await scene.writer.add([(0, DATA[:100])])
    assert scene.writer.continues_at(100)
    assert not scene.writer.continues_at(200)
    await scene.writer.add([(200, DATA[200:1500])])
    await scene.writer.close()
    assert scene.pieces == [(0, 100), (200, 1200), (1200, 1500)]
    assert [scene.folder.part[start:stop] == DATA[start:stop] for start, stop in scene.pieces] == [True] * 3


@pytest.mark.shows("P9")
@pytest.mark.parametrize(
    ("work", "stop"),
    [
        (lambda scene: scene.writer.close(), 1500),
        (lambda scene: scene.receive(1500, 2000), 2000),
        (lambda scene: scene.writer.add([(1500, DATA[1500:2800]), (2900, DATA[2900:])]), len(DATA)),
    ],
    ids=["at the end", "in between", "received elsewhere"],
)
async def test_a_cancellation_loses_no_byte_that_counts(work: Callable[[Scene], Awaitable[None]], stop: int) -> None:
    """It comes while a piece is stored; what follows would be missing for ever: nobody asks for it again."""
    scene = Scene()
    gate, store = asyncio.Event(), scene.state.store

    async def slow(start: int, data: bytes | memoryview, origin: Origin, *, keep: bool = True) -> None:
        await gate.wait()
        await store(start, data, origin, keep=keep)

    scene.state.store = slow  # type: ignore[method-assign]
    await scene.receive(0, 1500)
    working = asyncio.ensure_future(work(scene))
    for _ in range(5):
        await asyncio.sleep(0)
    working.cancel()
    await asyncio.sleep(0)
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await working
    await scene.writer.close()
    stored = scene.pieces
    assert (stored[0][0], stored[-1][1]) == (0, stop)
    assert [scene.folder.part[start:end] == DATA[start:end] for start, end in stored] == [True] * len(stored)
    assert sum(end - start for start, end in stored) == stop - (100 if stop == len(DATA) else 0)


@pytest.mark.shows("D17")
@pytest.mark.parametrize("in_use", [0, 6], ids=["enough", "scarce"])
async def test_no_piece_is_kept_for_hashing_where_buffers_are_scarce(in_use: int) -> None:
    """It is read back from the page cache, so that what waits to be hashed does not grow with the number of assets."""
    scene = Scene()
    taken = [scene.buffers.take() for _ in range(in_use)]
    await scene.receive(0, PIECE)
    await scene.writer.close()
    assert len(taken) == in_use
    assert scene.buffers.made - in_use == 1
    hashing = asyncio.ensure_future(scene.state.hash())
    for _ in range(20):
        await asyncio.sleep(0)
    hashing.cancel()
    assert scene.state.frontier.position == PIECE
    assert scene.read_back == ([] if in_use == 0 else [(0, PIECE)])


@pytest.mark.parametrize("end", [Scene.receive, lambda scene, *_: scene.writer.close()], ids=["later", "at the end"])
async def test_a_full_disk_is_noticed(end: Callable[..., Awaitable[None]]) -> None:
    """A failure to store a piece in the background is raised with the next one, or at the end."""
    scene = Scene()
    scene.folder.free = 0
    await scene.receive(0, PIECE)
    with pytest.raises(DiskFull):
        await end(scene, PIECE, 2 * PIECE)

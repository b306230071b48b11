"""The piece writer: bytes become pieces, one is stored while the next arrives, and none is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import DiskFull
from grym_fetch.core.journal import Piece
from grym_fetch.core.manifest import Asset
from grym_fetch.core.origins import Origins
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


@pytest.mark.shows("P9")
@pytest.mark.parametrize(
    ("work", "pieces"),
    [
        (lambda writer: writer.close(), [(0, 1000), (1000, 1400)]),
        (
            lambda writer: writer.add([(1400, DATA[1400:2600]), (2700, DATA[2700:])]),
            [(0, 1000), (1000, 2000), (2000, 2600), (2700, 3000)],
        ),
    ],
    ids=["close", "add"],
)
async def test_what_counts_as_on_hand_is_stored_whenever_a_cancellation_comes(
    work: Callable[[PieceWriter], Coroutine[Any, Any, None]], pieces: list[tuple[int, int]]
) -> None:
    """Also if it comes only while the rest is being stored: nobody would ask for those bytes again."""
    scene, may_write = Scene(), asyncio.Event()
    stage = scene.state._stage
    write = stage.write

    async def slow(start: int, data: bytes | memoryview, origin: int) -> Piece:
        await may_write.wait()
        return await write(start, data, origin)

    stage.write = slow  # type: ignore[method-assign]
    await scene.receive(0, 1400)
    task = asyncio.create_task(work(scene.writer))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    may_write.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    await scene.writer.close()
    assert scene.pieces == pieces


@pytest.mark.parametrize("end", [Scene.receive, lambda scene, *_: scene.writer.close()], ids=["later", "at the end"])
async def test_a_full_disk_is_noticed(end: Callable[..., Awaitable[None]]) -> None:
    """A failure to store a piece in the background is raised with the next one, or at the end."""
    scene = Scene()
    scene.folder.free = 0
    await scene.receive(0, PIECE)
    with pytest.raises(DiskFull):
        await end(scene, PIECE, 2 * PIECE)

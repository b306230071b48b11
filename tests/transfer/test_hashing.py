"""The frontier: in whatever order bytes come, they are hashed once, in file order, and proved on the way."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_fetch.core.content_hasher import ContentHasher
from grym_fetch.core.digest import new_hasher
from grym_fetch.core.errors import StorageError
from grym_fetch.core.journal import Piece, PieceTable
from grym_fetch.core.piece_digests import PieceDigests
from grym_fetch.core.ranges import ByteRange
from grym_fetch.testing import seeded_bytes
from grym_fetch.transfer import hashing as module
from grym_fetch.transfer.hashing import Frontier
from tests.support.fakes import InlineThreads, MemoryFolder, MemoryStage
from tests.support.properties import examples

CONTENT = seeded_bytes(4000, seed=81)


class CountingHasher:
    """SHA-256 that counts the bytes it is given."""

    def __init__(self) -> None:
        self.count = 0
        self._hasher = hashlib.sha256()

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        self.count += len(data)
        self._hasher.update(data)

    def digest(self) -> bytes:
        return self._hasher.digest()

    def hexdigest(self) -> str:
        return self._hasher.hexdigest()

    def copy(self) -> CountingHasher:
        raise NotImplementedError


class Scene:
    """A frontier over a stage in memory, and what it has reported."""

    def __init__(self, folder: MemoryFolder | None = None, content: bytes = CONTENT) -> None:
        self.content = content
        self.stage = MemoryStage(folder or MemoryFolder())
        self.hasher = CountingHasher()
        self.bad: list[Piece] = []
        self.wrong: list[ByteRange] = []
        self.advanced: list[int] = []
        self.frontier = Frontier(
            ContentHasher(self.hasher, None),
            self.stage,
            InlineThreads(),
            claims=PieceTable(self.stage.recovered.pieces),
        )

    async def store(self, start: int, stop: int) -> None:
        """Bytes arrive: they are offered, written, and reported as stored."""
        data = self.content[start:stop]
        self.frontier.offer(start, data)
        await self.stage.write(start, data, 0)
        self.frontier.stored(start, stop)

    async def play(self, story: Callable[[], Awaitable[None]]) -> None:
        """Run the frontier beside the story until both have nothing left to do. Raises what the frontier raises."""
        running = asyncio.ensure_future(
            self.frontier.run(
                on_bad=self.bad.append,
                on_advance=lambda: self.advanced.append(self.frontier.position),
                on_wrong=self._found_wrong,
            )
        )
        await story()
        await settle(running)
        if running.done():
            running.result()
        running.cancel()
        await asyncio.wait([running])

    async def _found_wrong(self, piece: ByteRange) -> None:
        self.wrong.append(piece)

    @property
    def is_right(self) -> bool:
        """Whether everything is hashed, each byte once, to the right digest."""
        right = hashlib.sha256(self.content).hexdigest()
        return self.hasher.count == self.frontier.position == len(self.content) and self.hasher.hexdigest() == right


async def nothing_wrong(piece: ByteRange) -> None:
    """No digests of pieces are known, so none can be wrong."""
    raise AssertionError(piece)


async def settle(task: asyncio.Future[None]) -> None:
    """Let the task run until it can only wait."""
    for _ in range(2000):
        if task.done():
            return
        await asyncio.sleep(0)


async def left_behind(stops: Sequence[int], missing: Sequence[int] = ()) -> MemoryFolder:
    """What an earlier process left: pieces that end at ``stops``, except those whose numbers are in ``missing``."""
    folder = MemoryFolder()
    stage = MemoryStage(folder)
    start = 0
    for number, stop in enumerate(stops):
        if number not in missing:
            await stage.write(start, CONTENT[start:stop], 0)
        start = stop
    return folder


def divisions(size: int) -> st.SearchStrategy[list[tuple[int, int]]]:
    """The content cut into pieces, in any order."""
    cuts = st.sets(st.integers(1, size - 1), max_size=12).map(sorted)
    pieces = cuts.map(lambda cut: list(zip([0, *cut], [*cut, size], strict=True)))
    return pieces.flatmap(st.permutations)


# -- any order ------------------------------------------------------------------------------------------------------


@examples(60)
@given(
    divisions(len(CONTENT)), st.lists(st.integers(0, 5), min_size=13, max_size=13), st.sampled_from([1, 700, 1 << 20])
)
@pytest.mark.shows("D21")
def test_any_order_gives_the_same_digest(pieces: list[tuple[int, int]], pauses: list[int], memory: int) -> None:
    """Whatever the order, sizes and pace of the pieces, and however little memory there is, the digest is the same."""

    async def scenario() -> None:
        scene = Scene()

        async def story() -> None:
            for (start, stop), pause in zip(pieces, pauses, strict=False):
                await scene.store(start, stop)
                for _ in range(pause):
                    await asyncio.sleep(0)

        await scene.play(story)
        assert scene.is_right
        assert scene.advanced == sorted(scene.advanced)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MEMORY_BYTES", memory)
        patch.setattr(module, "STRIDE_BYTES", 512)
        asyncio.run(scenario())


@examples(60)
@given(divisions(len(CONTENT)), st.data())
@pytest.mark.shows("P2", "D8")
def test_any_remains_are_completed_and_proved(pieces: list[tuple[int, int]], data: st.DataObject) -> None:
    """Whatever an earlier process left, damaged or not, fetching what is missing gives the digest."""
    left = data.draw(st.lists(st.sampled_from(pieces), unique=True))
    damaged = data.draw(st.lists(st.sampled_from(left), unique=True)) if left else []

    async def scenario() -> None:
        folder = MemoryFolder()
        before = MemoryStage(folder)
        for start, stop in left:
            await before.write(start, CONTENT[start:stop], 0)
        for start, _ in damaged:
            folder.part[start] ^= 0x40
        scene = Scene(folder)
        refetched: list[tuple[int, int]] = []

        async def story() -> None:
            for start, stop in pieces:
                if (start, stop) not in left:
                    await scene.store(start, stop)
            while len(refetched) < len(damaged):
                for piece in scene.bad[len(refetched) :]:
                    refetched.append((piece.start, piece.stop))
                    await scene.store(piece.start, piece.stop)
                await asyncio.sleep(0)

        await asyncio.wait_for(scene.play(story), 60)
        assert scene.is_right
        assert sorted(refetched) == sorted(damaged)
        assert scene.frontier.reach == scene.frontier.position

    asyncio.run(scenario())


# -- memory ---------------------------------------------------------------------------------------------------------


async def test_bytes_in_order_are_never_read_back() -> None:
    """A piece that begins at the frontier is hashed from memory, not read from the disk."""
    scene = Scene()

    async def story() -> None:
        for start in range(0, 4000, 500):
            await scene.store(start, start + 500)

    await scene.play(story)
    assert scene.is_right
    assert scene.stage.reads == []


async def test_bytes_ahead_are_read_back_when_their_time_comes() -> None:
    """Pieces that came ahead of the frontier are read back once, in strides, and nothing else is."""
    scene = Scene()

    async def story() -> None:
        await scene.store(1000, 4000)
        await scene.store(0, 1000)

    await scene.play(story)
    assert scene.is_right
    assert scene.stage.reads == [(1000, 4000)]


async def test_after_a_read_back_memory_is_used_again() -> None:
    """Once the frontier has caught up with what was on disk, new bytes are hashed from memory as before."""
    scene = Scene(await left_behind([1000]))

    async def caught_up() -> None:
        await asyncio.sleep(0)

    async def story() -> None:
        await scene.store(1000, 2500)
        await scene.store(2500, 4000)

    await scene.play(caught_up)
    await scene.play(story)
    assert scene.is_right
    assert scene.stage.reads == [(0, 1000)]


async def test_no_more_than_so_much_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """When hashing is slower than the network, what exceeds the limit is left to the disk."""
    monkeypatch.setattr(module, "MEMORY_BYTES", 1000)
    scene = Scene()
    for start in range(0, 4000, 500):
        await scene.store(start, start + 500)
    kept = sum(len(data) for data in scene.frontier._memory.values())

    async def story() -> None:
        await asyncio.sleep(0)

    await scene.play(story)
    assert kept == 1000
    assert scene.is_right
    assert scene.stage.reads[0][0] == 1000


async def test_what_is_offered_is_hashed_before_it_is_stored() -> None:
    """Hashing does not wait for the disk."""
    scene = Scene()

    async def story() -> None:
        scene.frontier.offer(0, CONTENT[:1000])

    await scene.play(story)
    assert scene.frontier.position == 1000


async def test_nothing_is_hashed_beyond_a_gap() -> None:
    """The frontier stops where a byte is missing, and goes on when it has come."""
    scene = Scene()

    async def story() -> None:
        await scene.store(0, 1000)
        await scene.store(1001, 4000)

    await scene.play(story)
    assert scene.frontier.position == 1000

    async def rest() -> None:
        await scene.store(1000, 1001)

    await scene.play(rest)
    assert scene.is_right


@pytest.mark.parametrize("is_left_behind", [True, False], ids=["proved", "read back"])
async def test_no_turn_is_long(monkeypatch: pytest.MonkeyPatch, is_left_behind: bool) -> None:
    """However much is ready, it is taken a stride at a time: progress is reported in between, and one can cancel."""
    monkeypatch.setattr(module, "STRIDE_BYTES", 1000)
    monkeypatch.setattr(module, "MEMORY_BYTES", 0)
    stops = range(500, 4001, 500)
    scene = Scene(await left_behind(stops) if is_left_behind else None)

    async def story() -> None:
        for stop in () if is_left_behind else stops:
            await scene.stage.write(stop - 500, CONTENT[stop - 500 : stop], 0)
        for stop in () if is_left_behind else stops:
            scene.frontier.stored(stop - 500, stop)

    await scene.play(story)
    assert scene.is_right
    assert scene.advanced == [1000, 2000, 3000, 4000]


# -- claims ---------------------------------------------------------------------------------------------------------


async def test_claims_are_proved_by_the_read_that_hashes_them() -> None:
    """Each piece left from before is read once, by itself: the same read proves and hashes it."""
    scene = Scene(await left_behind([500, 1700, 4000]))
    assert scene.frontier.reach == 4000

    async def story() -> None:
        await asyncio.sleep(0)

    await scene.play(story)
    assert scene.is_right
    assert scene.stage.reads == [(0, 500), (500, 1700), (1700, 4000)]
    assert scene.frontier.reach == scene.frontier.position
    assert scene.bad == []


async def test_a_new_piece_before_a_claim_does_not_swallow_it() -> None:
    """A read-back ends where a claim begins, so that no claim is hashed unproved."""
    scene = Scene(await left_behind([1000, 2000, 3000, 4000], missing=[0, 1]))

    async def story() -> None:
        await scene.store(1000, 2000)
        await scene.store(0, 1000)

    await scene.play(story)
    assert scene.is_right
    assert scene.stage.reads == [(1000, 2000), (2000, 3000), (3000, 4000)]


async def test_a_damaged_claim_is_reported_once_and_waited_for() -> None:
    """A piece that is not as claimed is reported, its bytes are not hashed, and the frontier waits for new ones."""
    folder = await left_behind([1000, 2000, 4000])
    folder.part[1999] ^= 1
    scene = Scene(folder)

    async def story() -> None:
        await asyncio.sleep(0)

    await scene.play(story)
    assert [(piece.start, piece.stop) for piece in scene.bad] == [(1000, 2000)]
    assert scene.frontier.position == scene.hasher.count == 1000

    async def refetch() -> None:
        await scene.store(1000, 2000)

    await scene.play(refetch)
    assert scene.is_right
    assert len(scene.bad) == 1


async def test_a_claim_whose_bytes_are_gone_is_reported() -> None:
    """A part truncated since the journal was read costs those pieces, not the transfer."""
    scene = Scene(await left_behind([1000, 4000]))
    del scene.stage.folder.part[3999:]

    async def story() -> None:
        await asyncio.sleep(0)

    await scene.play(story)
    assert [(piece.start, piece.stop) for piece in scene.bad] == [(1000, 4000)]


async def test_our_own_bytes_that_are_gone_are_an_error() -> None:
    """If somebody cuts off what this process has written, that is an error, and nobody waits forever."""
    scene = Scene()

    async def story() -> None:
        await scene.store(1000, 4000)
        del scene.stage.folder.part[500:]
        scene.frontier.offer(0, CONTENT[:1000])

    with pytest.raises(StorageError, match="cut off"):
        await scene.play(story)


async def test_the_caller_is_told_of_each_advance() -> None:
    """A caller that waits for the last byte hears of it."""
    scene = Scene()

    async def story() -> None:
        await scene.store(0, 1000)
        await scene.store(1000, 4000)

    await scene.play(story)
    assert scene.advanced[-1] == 4000


async def test_the_algorithm_is_the_hashers() -> None:
    """The frontier hashes with the hasher it was given."""
    content = ContentHasher(new_hasher("blake2b"), None)
    stage = MemoryStage(MemoryFolder())
    frontier = Frontier(content, stage, InlineThreads(), claims=PieceTable())
    frontier.offer(0, CONTENT)
    running = asyncio.ensure_future(
        frontier.run(on_bad=lambda _: None, on_advance=lambda: None, on_wrong=nothing_wrong)
    )
    await settle(running)
    running.cancel()
    assert content.whole.hexdigest() == hashlib.blake2b(CONTENT).hexdigest()


@examples(60)
@given(divisions(len(CONTENT)), st.sets(st.integers(0, 7)), st.sampled_from([1, 700, 1 << 20]))
@pytest.mark.shows("C16")
def test_wrong_pieces_are_hashed_away(pieces: list[tuple[int, int]], wrong: set[int], memory: int) -> None:
    """Whatever the order of wrong pieces, each is reported once; after its right bytes come, the digest is right."""
    length = 500
    damaged = bytearray(CONTENT)
    for number in wrong:
        damaged[number * length + 17] ^= 1
    digests = PieceDigests(
        length, tuple(hashlib.sha256(CONTENT[at : at + length]).hexdigest() for at in range(0, 4000, 500))
    )

    async def scenario() -> None:
        scene = Scene(content=bytes(damaged))
        content = scene.frontier.content = ContentHasher(new_hasher("sha256"), len(CONTENT), digests)

        async def story() -> None:
            for start, stop in pieces:
                await scene.store(start, stop)
            for _ in range(9):
                for _ in range(200):
                    await asyncio.sleep(0)
                scene.content = CONTENT
                for piece in scene.wrong[:]:
                    if scene.frontier.position == piece.start:
                        await scene.store(piece.start, piece.stop)

        await scene.play(story)
        assert [piece.start // length for piece in scene.wrong] == sorted(wrong)
        assert scene.frontier.position == len(CONTENT)
        assert content.whole.hexdigest() == hashlib.sha256(CONTENT).hexdigest()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MEMORY_BYTES", memory)
        patch.setattr(module, "STRIDE_BYTES", 512)
        asyncio.run(scenario())


async def test_a_doubted_piece_is_given_up_before_its_turn() -> None:
    """A reader found it wrong: it is reported at once, and hashed when its right bytes have come."""
    damaged = bytearray(CONTENT)
    damaged[1100] ^= 1
    digests = PieceDigests(500, tuple(hashlib.sha256(CONTENT[at : at + 500]).hexdigest() for at in range(0, 4000, 500)))
    scene = Scene(content=bytes(damaged))
    content = scene.frontier.content = ContentHasher(new_hasher("sha256"), len(CONTENT), digests)

    async def story() -> None:
        for start in range(500, 4000, 500):
            await scene.store(start, start + 500)
        assert scene.frontier.has(500, 4000)
        scene.frontier.doubt(ByteRange(1000, 1500))
        for _ in range(20):
            await asyncio.sleep(0)
        assert scene.wrong == [ByteRange(1000, 1500)]
        assert not scene.frontier.has(1000, 1500)
        scene.content = CONTENT
        await scene.store(1000, 1500)
        await scene.store(0, 500)
        for _ in range(200):
            await asyncio.sleep(0)
        scene.frontier.doubt(ByteRange(1000, 1500))  # that has been hashed: what is right stays
        for _ in range(20):
            await asyncio.sleep(0)

    await scene.play(story)
    assert scene.wrong == [ByteRange(1000, 1500)]
    assert content.whole.hexdigest() == hashlib.sha256(CONTENT).hexdigest()

"""The reader: a body goes where the verdict says, and never a byte of it anywhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import BadResponse, ContentChanged, LengthMismatch, RangeRefused, Throttled
from grym_fetch.core.http import (
    NO_VALIDATOR,
    Asked,
    ErrorStatus,
    OtherRepresentation,
    ResponseHead,
    Unsatisfiable,
    UnusableRange,
    Whole,
    WrongLength,
    judge,
)
from grym_fetch.core.journal import piece_digest
from grym_fetch.core.manifest import Asset
from grym_fetch.core.origins import MAX_CHANGES, MAX_LITTLE, Origins
from grym_fetch.core.ranges import ByteRange
from grym_fetch.core.segments import UNBOUNDED, SegmentSizes
from grym_fetch.runtime.buffers import Buffers
from grym_fetch.testing import seeded_bytes
from grym_fetch.transfer.attempt import Attempt
from grym_fetch.transfer.outcome import DropOrigin, Finished, SingleStream, StartAfresh
from grym_fetch.transfer.request import JudgedResponse
from grym_fetch.transfer.response import MAX_LENGTH, ResponseReader
from grym_fetch.transfer.state import DownloadState
from tests.support.fakes import InlineThreads, MemoryFolder, MemoryStage, ScriptedTransport, context_of

DATA = seeded_bytes(3000, seed=91)
ASSET = Asset("a", "https://origin.example/a", "a", checksum=Checksum.of(DATA), size=len(DATA))


class Body:
    """The bytes of a range, a thousand at a time; ``meanwhile`` runs while the next ones are awaited."""

    def __init__(self, start: int, stop: int, meanwhile: Callable[[], None] = lambda: None) -> None:
        span = f"bytes {start}-{stop - 1}/{len(DATA)}"
        self.head = ResponseHead(206, {"content-range": [span], "content-length": [str(stop - start)]})
        self._left = DATA[start:stop]
        self._meanwhile = meanwhile

    async def readinto(self, buffer: memoryview) -> int:
        """The next bytes."""
        data, count = self._left, min(len(buffer), len(self._left), 1000)
        buffer[:count] = data[:count]
        self._left = data[count:]
        self._meanwhile()
        return count

    def close(self) -> None:
        """There is nothing to release."""


class Scene:
    """An asset with nothing here yet, one connection at work on a segment, and what it has received."""

    def __init__(self, start: int, stop: int, *, pinned: bool = True, promised: bool = True) -> None:
        asset = replace(ASSET, checksum=ASSET.checksum if pinned else None, size=ASSET.size if promised else None)
        self.folder = MemoryFolder(str(ASSET.checksum))
        self.origins = Origins(ASSET.urls)
        self.state = DownloadState(
            asset, self.origins, MemoryStage(self.folder), InlineThreads(), lambda: None, SegmentSizes()
        )
        self.received = 0
        self.reader = ResponseReader(asset, self.state, context_of(ScriptedTransport()), on_bytes=self._count)
        segments = self.state.segments
        # Such small content is given out in one go: cut it to what each connection shall have.
        if start and (before := segments.promise(length=start, horizon=UNBOUNDED)) is not None:
            segments.cut(before, start)
        segment = segments.promise(length=stop - start, horizon=UNBOUNDED)
        assert segment is not None
        segments.cut(segment, stop)
        self.attempt = Attempt(segment, self.origins.current, "origin.example", 0.0)

    def ask_for_all(self) -> Attempt:
        """Give all segments back, and have the connection request the whole file."""
        segments = self.state.segments
        for segment in list(segments.in_flight):
            segments.give_back(segment)
        whole = segments.promise_all()
        assert whole is not None
        return Attempt(whole, self.origins.current, "origin.example", 0.0)

    def _count(self, _origin: object, count: int, _missing: int, _now: float) -> None:
        self.received += count

    async def receive(self, body: Body) -> None:
        """Treat it as the answer to the request."""
        segment = self.attempt.segment
        asked = Asked(ByteRange(segment.start, segment.stop), len(DATA))
        assert (
            await self.reader.receive(self.attempt, JudgedResponse(body, judge(asked, body.head), is_page=False))
            == Finished()
        )


async def test_a_body_is_taken_in_whole() -> None:
    """Its bytes are stored in place and count once."""
    scene = Scene(0, 2500)
    await scene.receive(Body(0, 2500))
    assert scene.received == scene.state.segments.on_hand_bytes == 2500
    assert scene.folder.part == DATA[:2500]


@pytest.mark.shows("U8", "R28")
@pytest.mark.parametrize("kept", [0, 400, 1000, 1700])
async def test_what_was_given_to_somebody_else_is_not_taken(kept: int) -> None:
    """A segment cut short while its next bytes are under way ends there: what lies behind belongs to others."""
    scene = Scene(0, 2500)
    segments = scene.state.segments
    await scene.receive(Body(0, 2500, lambda: segments.cut(scene.attempt.segment, kept)))
    assert scene.attempt.segment.position == scene.received == segments.on_hand_bytes == kept
    assert scene.folder.part == DATA[:kept]
    rest = segments.promise(length=len(DATA), horizon=UNBOUNDED)
    assert rest is not None
    assert (rest.start, rest.stop) == (kept, len(DATA))


@pytest.mark.shows("R22", "R4")
@pytest.mark.parametrize("have_worked", [True, False])
async def test_what_a_refused_range_means(have_worked: bool) -> None:
    """After ranges have worked, one refusal is a fault and is retried; two, or the very first one, end them."""
    scene = Scene(0, 2500)
    origin = scene.attempt.origin
    if have_worked:
        origin.proved_ranges()
    answer = JudgedResponse(Body(0, 2500), UnusableRange("the range is another one"), is_page=False)
    if have_worked:
        with pytest.raises(RangeRefused):
            await scene.reader.receive(scene.attempt, answer)
        assert origin.ranges is True
    assert await scene.reader.receive(scene.attempt, answer) == SingleStream("the range is another one")


@pytest.mark.shows("R6")
async def test_parts_of_a_few_bytes_are_no_ranges() -> None:
    """A server may send less than was asked for, but not so little that each byte costs a request."""
    scene = Scene(0, 2500)
    asked, short = Asked(ByteRange(0, 2500), len(DATA)), Body(0, 9)
    answer = JudgedResponse(short, judge(asked, short.head), is_page=False)
    scene.reader._smallest = 2000
    assert await scene.reader.receive(scene.attempt, answer) == Finished()  # a server with larger files would do
    scene, short = Scene(0, 2500), Body(0, 9)
    scene.reader._smallest = 2500
    assert await scene.reader.receive(scene.attempt, answer) == SingleStream("it sends only 9 bytes at a time")
    assert scene.received == 0
    # Where less is asked for, the end may be meant; but not each time.
    for count in (0, MAX_LITTLE - 1, MAX_LITTLE):
        scene = Scene(0, 2500)
        scene.attempt.origin._little = count
        body = Body(0, 9)
        answer = JudgedResponse(body, judge(asked, body.head), is_page=False)
        outcome = Finished() if count < MAX_LITTLE else SingleStream("it sends only 9 bytes at a time")
        assert await scene.reader.receive(scene.attempt, answer) == outcome
    few = Scene(0, 2304)
    few.attempt.origin._little = MAX_LITTLE
    answer = JudgedResponse(Body(0, 9), judge(Asked(ByteRange(0, 2304), len(DATA)), short.head), is_page=False)
    assert await few.reader.receive(few.attempt, answer) == Finished()  # it was not asked for much
    # The last bytes of the content are as few as they are.
    unsized, last = Scene(2991, 5000, promised=False), Body(2991, 3000)
    unsized.reader._smallest = 2000
    answer = JudgedResponse(last, judge(Asked(ByteRange(2991, 5000)), last.head), is_page=False)
    assert await unsized.reader.receive(unsized.attempt, answer) == Finished()
    assert unsized.received == 9


@pytest.mark.shows("R22", "B35")
async def test_a_refusal_that_comes_late_is_no_further_failure() -> None:
    """Others requested ranges before it was known that there are none; a refusal of the whole file is a failure."""
    scene = Scene(0, 2500)
    scene.attempt.origin.lost_ranges()
    answer = JudgedResponse(Body(0, 2500), UnusableRange("the range is another one"), is_page=False)
    assert isinstance(await scene.reader.receive(scene.attempt, answer), SingleStream)
    whole = scene.ask_for_all()
    with pytest.raises(RangeRefused):
        await scene.reader.receive(whole, JudgedResponse(Body(0, 2500), Unsatisfiable(None), is_page=False))


@pytest.mark.shows("R2", "S3")
async def test_a_whole_stream_fills_the_gaps_and_nothing_else() -> None:
    """Bytes on hand stay; each gap around them is stored in place, though everything comes in one stream."""
    scene = Scene(1000, 2000)
    await scene.receive(Body(1000, 2000))
    whole = scene.ask_for_all()
    stream = Body(0, len(DATA))
    answer = JudgedResponse(stream, Whole(len(DATA), NO_VALIDATOR, framed=True), is_page=False)
    assert await scene.reader.receive(whole, answer) == Finished()
    assert scene.folder.part == DATA
    assert sorted((p.start, p.stop) for p in scene.state.pieces) == [(0, 1000), (1000, 2000), (2000, 3000)]
    assert all(piece_digest(DATA[p.start : p.stop]) == p.digest for p in scene.state.pieces)


@pytest.mark.shows("R2")
async def test_what_is_on_hand_already_is_read_in_large_parts() -> None:
    """A stream passes over it at full speed, however little room the piece before it has left in the buffer."""
    scene, reads = Scene(999, 2900), 0
    await scene.receive(Body(999, 2900))
    scene.reader._buffers = Buffers(1000, connections=1)

    def count() -> None:
        nonlocal reads
        reads += 1

    answer = JudgedResponse(Body(0, len(DATA), count), Whole(len(DATA), NO_VALIDATOR, framed=True), is_page=False)
    assert await scene.reader.receive(scene.ask_for_all(), answer) == Finished()
    assert scene.folder.part == DATA
    assert reads < 10


@pytest.mark.shows("R9", "R10", "R14")
@pytest.mark.parametrize("pinned", [True, False])
async def test_content_that_changes_again_and_again(pinned: bool) -> None:
    """Each change starts over; without a checksum the file is soon read in one go; in the end the origin is left.

    Several requests made at once that all meet the new content meet one change.
    """
    scene = Scene(0, 2500, pinned=pinned)
    origin, segment = scene.attempt.origin, scene.attempt.segment
    for number in range(1, MAX_CHANGES + 2):
        answer = JudgedResponse(
            Body(0, 2500), OtherRepresentation("its ETag is another one", NO_VALIDATOR), is_page=False
        )
        asked_at_once = [Attempt(segment, origin, "origin.example", 0.0) for _ in range(5)]
        for attempt in asked_at_once:
            restart = await scene.reader.receive(attempt, answer)
            assert isinstance(restart, DropOrigin if pinned else StartAfresh)
        assert origin.ranges is (False if not pinned and number >= MAX_CHANGES else None)
    with pytest.raises(ContentChanged, match="again and again"):
        await scene.reader.receive(Attempt(segment, origin, "origin.example", 0.0), answer)


@pytest.mark.shows("C1")
async def test_a_page_is_remembered() -> None:
    """A page among good answers is a hint that still exists when the checksum turns out to be wrong."""
    scene = Scene(0, 2500)
    refusal = JudgedResponse(Body(0, 2500), ErrorStatus(503, "status 503"), is_page=True)
    with pytest.raises(Throttled):
        await scene.reader.receive(scene.attempt, refusal)
    await scene.receive(Body(0, 2500))
    assert scene.attempt.origin.has_sent_page


@pytest.mark.shows("R17", "R18", "R20", "B25")
@pytest.mark.parametrize(
    ("start", "total", "learned"),
    [(1000, 1000, 1000), (1000, None, 1000), (0, 0, 0), (0, None, None), (1000, 2000, None)],
    ids=["it ends here", "it has no more", "it is empty", "it says nothing", "it has more"],
)
async def test_a_range_that_cannot_be_satisfied(start: int, total: int | None, learned: int | None) -> None:
    """A 416 behind everything known marks the end; one that cannot mean that is a refusal of ranges."""
    scene = Scene(start, 2500, promised=False)
    answer = JudgedResponse(Body(0, 2500), Unsatisfiable(total), is_page=False)
    outcome = await scene.reader.receive(scene.attempt, answer)
    assert scene.state.size == learned
    assert isinstance(outcome, Finished if learned is not None else SingleStream)


@pytest.mark.shows("R18", "S3")
async def test_without_a_checksum_a_416_must_say_where_the_end_is() -> None:
    """Without it, a fault in the middle could go unnoticed: the whole file is requested instead."""
    scene = Scene(1000, 2500, promised=False, pinned=False)
    answer = JudgedResponse(Body(0, 2500), Unsatisfiable(None), is_page=False)
    assert isinstance(await scene.reader.receive(scene.attempt, answer), SingleStream)
    assert scene.state.size is None


@pytest.mark.shows("R8", "R17")
async def test_a_416_with_another_length_than_was_promised() -> None:
    """The manifest's size stands: the origin is the wrong one."""
    scene = Scene(0, 2500)
    with pytest.raises(LengthMismatch, match="the manifest says 3000 bytes, the server 50"):
        await scene.reader.receive(scene.attempt, JudgedResponse(Body(0, 2500), Unsatisfiable(50), is_page=False))


@pytest.mark.shows("R8")
@pytest.mark.parametrize("promised", [True, False])
async def test_another_length(promised: bool) -> None:
    """A size from the manifest stands; one that was only learned may have changed, and everything starts over."""
    scene = Scene(0, 2500, promised=promised)
    await scene.state.learn_size(3000, scene.attempt.origin)
    answer = JudgedResponse(Body(0, 2500), WrongLength(50), is_page=False)
    if promised:
        with pytest.raises(LengthMismatch):
            await scene.reader.receive(scene.attempt, answer)
    else:
        restart = await scene.reader.receive(scene.attempt, answer)
        assert isinstance(restart, DropOrigin)
        assert restart.forget_size


@pytest.mark.shows("N4")
@pytest.mark.parametrize("promised", [True, False], ids=["the manifest has a size", "nobody knows the size"])
async def test_a_body_that_ends_with_its_connection(promised: bool) -> None:
    """Without a checksum such a body is trusted only if the manifest gives its length."""
    scene = Scene(0, 2500, pinned=False, promised=promised)
    answer = JudgedResponse(Body(0, len(DATA)), Whole(None, NO_VALIDATOR, framed=False), is_page=False)
    if promised:
        assert await scene.reader.receive(scene.attempt, answer) == Finished()
        assert scene.folder.part == DATA
    else:
        with pytest.raises(BadResponse, match="nothing says where the content ends"):
            await scene.reader.receive(scene.attempt, answer)


@pytest.mark.parametrize("size", [10**16, MAX_LENGTH + 1])
@pytest.mark.shows("S12", "N7")
async def test_a_length_that_no_file_has(size: int) -> None:
    """If the manifest has no size, an absurd length is a fault of this server: nothing is learned from it."""
    scene = Scene(0, 2500, promised=False)
    head = ResponseHead(206, {"content-range": [f"bytes 0-2499/{size}"], "content-length": ["2500"]})
    body = Body(0, 2500)
    body.head = head
    verdict = judge(Asked(ByteRange(0, 2500), None), head)
    with pytest.raises(BadResponse, match="which no file has"):
        await scene.reader.receive(scene.attempt, JudgedResponse(body, verdict, is_page=False))
    assert scene.state.size is None
    assert scene.state.segments.on_hand_bytes == 0


@pytest.mark.shows("C13")
async def test_a_page_about_the_file_says_where_the_file_is() -> None:
    """The address tells a hub's page about the file from a login page, and the error names the right address."""
    scene = Scene(0, 2500)
    scene.attempt.origin.url = "https://huggingface.co/org/repo/blob/main/a.bin"
    answer = JudgedResponse(Body(0, 2500), WrongLength(50, "it sent a web page: a login?"), is_page=True)
    with pytest.raises(LengthMismatch, match="it sent a web page about the file; the file itself has /resolve/"):
        await scene.reader.receive(scene.attempt, answer)

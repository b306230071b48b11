"""Which segment a connection is given next, and who has to share."""

from __future__ import annotations

import asyncio

import pytest

from grym_fetch.core.digest import Checksum
from grym_fetch.core.manifest_schema import ASSET
from grym_fetch.core.origins import Origin, Origins
from grym_fetch.core.segments import SegmentSizes
from grym_fetch.transfer.attempt import Attempt
from grym_fetch.transfer.context import TransferSettings
from grym_fetch.transfer.first_asks import FirstAsks
from grym_fetch.transfer.scheduler import Scheduler
from grym_fetch.transfer.segment_choice import HUNG_WAITS, STEAL_S, SegmentChoice
from grym_fetch.transfer.state import DownloadState
from tests.support.fakes import InlineThreads, MemoryFolder, MemoryStage
from tests.support.small_world import SmallWorld

HOST = "h.example"
URL = f"https://{HOST}/a"
SIZE = 1000
SIZES = SegmentSizes(piece=10, first=100, smallest=100, largest=100, window=200)


class Download:
    """The choice for one asset of 1000 bytes, with its attempts."""

    def __init__(self, *, ranges: bool | None = True, knows_size: bool = True) -> None:
        size = SIZE if knows_size else None
        asset = ASSET.read({"id": "a", "url": URL, "localPath": "a", "size": size, "checksum": Checksum.of(b"").bare})
        origins = Origins((URL,))
        self.origin: Origin = origins.current
        if ranges is True:
            self.origin.proved_ranges()
        if ranges is False:
            self.origin.lost_ranges()
        stage = MemoryStage(MemoryFolder())
        self.state = DownloadState(asset, origins, stage, InlineThreads(), lambda: None, SIZES)
        self.attempts: set[Attempt] = set()
        scheduler = Scheduler(SmallWorld({}), connections=4)
        first_asks = FirstAsks(asset, scheduler.hosts)
        settings = TransferSettings(connections=4, sizes=SIZES)
        self.choice = SegmentChoice(self.state, self.attempts, first_asks, scheduler, settings)

    def begin(self, now: float = 0.0) -> Attempt | None:
        """A free connection gets what is chosen for it, and goes to work."""
        segment = self.choice.next(self.origin, HOST, now)
        if segment is None:
            return None
        attempt = Attempt(segment, self.origin, HOST, now)
        self.attempts.add(attempt)
        return attempt

    def arrives(self, attempt: Attempt, count: int, now: float) -> None:
        """Bytes come over that connection."""
        attempt.arrived(now, count)
        self.state.segments.arrived(attempt.segment, count)


async def hang() -> None:
    """What a connection does that nobody answers."""
    await asyncio.Event().wait()


def span(attempt: Attempt | None) -> tuple[int, int] | None:
    """Where its segment begins and ends."""
    return None if attempt is None else (attempt.segment.start, attempt.segment.stop)


def test_one_connection_finds_out_whether_there_are_ranges() -> None:
    """Nobody else is sent before the first answer, then each gets a segment of its own."""
    download = Download(ranges=None)
    assert span(download.begin()) == (0, 100)
    assert download.begin() is None
    download.origin.proved_ranges()
    assert [span(download.begin()) for _ in range(3)] == [(100, 200), (200, 300), (300, 400)]


def test_without_ranges_one_connection_takes_all() -> None:
    """It is asked for everything that is missing, and no other connection for anything."""
    download = Download(ranges=False)
    first = download.begin()
    assert first is not None
    assert first.segment.whole
    assert download.begin() is None


def test_content_of_unknown_length_is_asked_for_once() -> None:
    """Until the length is known, there is no second segment, even if ranges are."""
    download = Download(knows_size=False)
    assert span(download.begin()) == (0, 100)
    assert download.begin() is None


def test_nobody_runs_far_ahead_of_the_hash() -> None:
    """The window and one segment for each connection: then the next one waits until something has been hashed."""
    download = Download()
    given = []
    while (attempt := download.begin()) is not None:
        given.append(span(attempt))
    assert given == [(at, at + 100) for at in range(0, 600, 100)]


def whole_given(*, rate: float | None) -> tuple[Download, Attempt]:
    """Everything is given out to one attempt, at work since 0 s; others come at ``rate`` bytes a second."""
    download = Download()
    if rate is not None:
        download.origin.measured(int(rate) * 10, 10.0)
    segment = download.state.segments.promise(length=SIZE, horizon=SIZE)
    assert segment is not None
    attempt = Attempt(segment, download.origin, HOST, 0.0)
    download.attempts.add(attempt)
    return download, attempt


def test_the_slowest_shares_what_it_has_left() -> None:
    """Both will end at about the same time: it keeps the beginning, and less the slower it is."""
    download, slow = whole_given(rate=30.0)
    for second in range(1, 21):
        download.arrives(slow, 10, float(second))
    rate = slow.rate(20.0)
    helper = download.begin(now=20.0)
    assert helper is not None
    assert helper.segment.stop == SIZE
    assert slow.segment.stop == helper.segment.start
    assert slow.segment.remaining / rate == pytest.approx(helper.segment.remaining / 30.0, rel=0.1)


@pytest.mark.parametrize(("rate", "now"), [(None, 3.0), (30.0, STEAL_S / 2)], ids=["no speed known", "too early"])
def test_nobody_shares_on_suspicion(rate: float | None, now: float) -> None:
    """Only one whose speed is known has to share, and only with a connection whose speed can be foreseen."""
    download, slow = whole_given(rate=rate)
    download.arrives(slow, 10, 0.0)
    assert download.begin(now=now) is None
    assert slow.segment.stop == SIZE


async def test_one_that_hangs_loses_everything() -> None:
    """Its first byte takes many times as long as others': its task is ended, and all of it given to another."""
    download, hung = whole_given(rate=30.0)
    download.origin.waited(0.5)
    hung.turn_at = 0.0
    hung.task = asyncio.ensure_future(hang())
    assert download.begin(now=HUNG_WAITS * 0.5 - 0.1) is None
    helper = download.begin(now=HUNG_WAITS * 0.5 + 0.1)
    assert span(helper) == (0, SIZE)
    assert hung.task is not None
    assert hung.task.cancelling()
    await asyncio.wait([hung.task])


async def test_a_reader_gets_the_connection_that_is_furthest_ahead() -> None:
    """But not while one is ending already, nor one that brings what is waited for."""
    download = Download()
    first, second = download.begin(), download.begin()
    assert first is not None
    assert second is not None
    assert download.choice.least_urgent() is None
    for attempt in (first, second):
        attempt.task = asyncio.ensure_future(hang())
    assert download.choice.least_urgent() is second
    assert second.task is not None
    assert first.task is not None
    second.task.cancel()
    assert download.choice.least_urgent() is None
    first.task.cancel()
    await asyncio.wait([first.task, second.task])


@pytest.mark.parametrize(("missing", "count"), [(50, 1), (250, 3), (SIZE, 4)])
def test_as_many_connections_will_be_wanted_as_there_are_segments(missing: int, count: int) -> None:
    """Never more than there may be."""
    download = Download(ranges=None)
    assert download.choice.connections_to_come(download.origin, missing) == count

"""Segments: a byte is missing, promised once, or on hand, whatever the order of what happens."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from grym_fetch.core.ranges import ByteRange, IntervalSet
from grym_fetch.core.segments import (
    HOPELESS_RATIO,
    MIB,
    UNBOUNDED,
    Segment,
    Segments,
    SegmentSizes,
    segment_length,
    share_of_slower,
)
from tests.support.properties import examples

REAL = SegmentSizes()
SMALL = SegmentSizes(piece=8, first=64, smallest=4, largest=256, window=256)
"""Sizes at which a model can count single bytes. A crumb, which is never left behind, is one byte."""
SPAN = 60
"""The model knows this many bytes; no content is longer."""


def within(start: int, stop: int) -> set[int]:
    """The positions of a range, as far as the model goes."""
    return set(range(start, min(stop, SPAN)))


@dataclass(eq=False)
class Promise:
    """A segment and the positions that the model has promised to it."""

    segment: Segment
    owned: set[int]


class AnyInterleaving(RuleBasedStateMachine):
    """`Segments` beside a model made of a few sets of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.on_hand = set[int]()
        self.size: int | None = None
        self.promises: list[Promise] = []
        self.segments = Segments(0, IntervalSet(), SMALL)

    @initialize(size=st.none() | st.integers(0, SPAN), on_hand=st.sets(st.integers(0, SPAN - 1), max_size=10))
    def begin(self, size: int | None, on_hand: set[int]) -> None:
        """Some bytes remain from an earlier run; the length may be known."""
        self.size = size
        self.on_hand = {at for at in on_hand if size is None or at < size}
        intervals = IntervalSet(ByteRange(at, at + 1) for at in self.on_hand)
        self.segments = Segments(size, intervals, SMALL)

    @property
    def limit(self) -> int:
        """All positions that are wanted."""
        return SPAN if self.size is None else self.size

    @property
    def missing(self) -> set[int]:
        """Positions that are neither on hand nor promised."""
        promised = set[int]().union(*(promise.owned for promise in self.promises if not promise.segment.whole))
        return set(range(self.limit)) - self.on_hand - promised

    @property
    def is_whole(self) -> bool:
        """Whether one connection has been promised everything."""
        return any(promise.segment.whole for promise in self.promises)

    @rule(length=st.integers(1, 20), horizon=st.integers(0, SPAN))
    def take(self, length: int, horizon: int) -> None:
        """The first missing bytes before the horizon are promised, in one range of about this length."""
        segment = self.segments.promise(length=length, horizon=horizon)
        first = min(self.missing, default=None)
        if self.is_whole or (first is not None and first >= horizon) or (first is None and self.size is not None):
            assert segment is None
            return
        if segment is None:
            assert first is None
            return
        owned = within(segment.start, segment.stop)
        if first is not None:
            assert segment.start == first
            assert owned <= self.missing
        assert segment.position == segment.start < segment.stop
        assert segment.stop - segment.start <= (length + 1)
        assert self.size is None or segment.stop <= self.size
        self.promises.append(Promise(segment, owned))

    @rule()
    def promise_all(self) -> None:
        """The whole is promised once, while something is missing and nothing else is still to come."""
        segment = self.segments.promise_all()
        is_taken = any(promise.segment.whole or promise.segment.remaining for promise in self.promises)
        assert (segment is None) == (is_taken or self.segments.is_complete)
        if segment is not None:
            assert (segment.start, segment.position, segment.whole) == (0, 0, True)
            assert segment.stop == (self.segments.unsized_limit if self.size is None else self.size)
            self.promises.append(Promise(segment, set()))

    @precondition(lambda self: self.promises)
    @rule(which=st.integers(0, 9), share=st.floats(0, 1))
    def receive(self, which: int, share: float) -> None:
        """Some of what a connection was promised arrives."""
        promise = self.promises[which % len(self.promises)]
        segment = promise.segment
        left = max(0, min(segment.stop, SPAN) - segment.position)
        count = round(share * left)
        start, stop = segment.position, segment.position + count
        if not segment.whole:
            self.segments.arrived(segment, count)
            arrived = within(start, stop)
            assert arrived <= promise.owned
            promise.owned -= arrived
            self.on_hand |= arrived
            return
        segment.position = stop
        kept = set[int]()
        while (gap := self.segments.missing_in(start, stop)) is not None:
            self.segments.keep(gap.start, gap.stop)
            assert not kept & within(gap.start, gap.stop)
            kept |= within(gap.start, gap.stop)
        assert kept == within(start, stop) - self.on_hand
        self.on_hand |= kept

    @precondition(lambda self: self.promises)
    @rule(which=st.integers(0, 9))
    def give_back(self, which: int) -> None:
        """A connection ends; what it was promised but has not received is missing again."""
        promise = self.promises.pop(which % len(self.promises))
        self.segments.give_back(promise.segment)

    @precondition(lambda self: any(not promise.segment.whole for promise in self.promises))
    @rule(which=st.integers(0, 9), kept=st.integers(-2, 20))
    def cut(self, which: int, kept: int) -> None:
        """A segment is cut short; what lies behind the cut is missing again, what has arrived stays."""
        ranged = [promise for promise in self.promises if not promise.segment.whole]
        promise = ranged[which % len(ranged)]
        segment = promise.segment
        stop = min(segment.stop, segment.position + kept)
        self.segments.cut(segment, stop)
        assert segment.stop == max(stop, segment.position)
        promise.owned &= within(segment.position, segment.stop)

    @precondition(lambda self: self.on_hand)
    @rule(which=st.integers(0, SPAN))
    def lose(self, which: int) -> None:
        """A piece on hand turns out to be wrong."""
        at = sorted(self.on_hand)[which % len(self.on_hand)]
        self.segments.lose(at, at + 1)
        self.on_hand.discard(at)

    @precondition(lambda self: self.size is None)
    @rule(beyond=st.integers(0, 10))
    def learn_size(self, beyond: int) -> None:
        """The length becomes known; nothing beyond it is fetched."""
        self.size = min(SPAN, max(self.on_hand, default=-1) + 1 + beyond)
        self.segments.learn_size(self.size)
        for promise in self.promises:
            assert promise.segment.stop <= max(self.size, promise.segment.position)
            promise.owned &= set(range(self.size))

    @invariant()
    def counts_agree(self) -> None:
        """Bytes on hand are counted once, and the content is complete exactly when all of them are there."""
        assert self.segments.on_hand_bytes == len(self.on_hand)
        assert self.segments.is_complete == (self.size is not None and len(self.on_hand) == self.size)
        assert set(self.segments.in_flight) == {promise.segment for promise in self.promises}

    @invariant()
    def no_byte_is_promised_twice(self) -> None:
        """Promised bytes are not on hand, and bytes left over are neither."""
        owned = [at for promise in self.promises for at in promise.owned]
        assert len(owned) == len(set(owned))
        assert not set(owned) & self.on_hand
        for promise in self.promises:
            if not promise.segment.whole:
                assert promise.owned == within(promise.segment.position, promise.segment.stop)
        if not self.is_whole:
            assert self.segments.unpromised == (None if self.size is None else len(self.missing))


AnyInterleaving.TestCase.settings = settings(examples(150), stateful_step_count=30)
TestAnyInterleaving = AnyInterleaving.TestCase


SIZES = [0, 1, 3, 4, 5, 7, 8, 9, 63, 64, 65, 255, 256, 257, 1000]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("connections", [1, 2, 8])
def test_every_byte_comes_exactly_once(size: int, connections: int) -> None:
    """Connections that break off, are cut short and end in any order bring each byte once; content completes once."""
    chance = random.Random(size)
    segments = Segments(size, IntervalSet(), SMALL)
    received: list[int] = []
    completed = 0
    while not segments.is_complete:
        missing = segments.unpromised
        assert missing is not None
        length = segment_length(missing, connections, chance.choice([None, 1.0, 10.0, 1e9]), SMALL)
        if len(segments.in_flight) < connections:
            segments.promise(length=length, horizon=UNBOUNDED)
        segment = chance.choice(segments.in_flight)
        happening = chance.random()
        if happening < 0.1:
            segments.cut(segment, segment.position + chance.randint(0, segment.remaining))
        count = chance.choice([segment.remaining, chance.randint(0, segment.remaining), min(1, segment.remaining)])
        received += range(segment.position, segment.position + count)
        segments.arrived(segment, count)
        completed += segments.is_complete
        if segment.remaining == 0 or happening > 0.8:
            segments.give_back(segment)
        assert len(received) <= size, "a byte came twice"
    assert sorted(received) == list(range(size))
    assert completed == (1 if size else 0)
    assert segments.on_hand_bytes == size


@pytest.mark.parametrize("size", [1, 2 * MIB, 16 * MIB, 16 * MIB + 1])
def test_nothing_is_wanted_where_all_is_on_hand(size: int) -> None:
    """Complete content promises nothing, neither in parts nor as a whole."""
    segments = Segments(size, IntervalSet([ByteRange(0, size)]))
    assert segments.is_complete
    assert segments.unpromised == 0
    assert segments.promise(length=MIB, horizon=UNBOUNDED) is None
    assert segments.promise_all() is None


def test_what_a_reader_waits_for_comes_first() -> None:
    """Wherever it is, in fair shares; then the rest in file order."""
    wanted: list[ByteRange] = []
    segments = Segments(400, IntervalSet(), SMALL, wanted=wanted)
    assert not segments.has_wanted
    assert segments.promise_wanted(4) is None
    wanted += [ByteRange(200, 240), ByteRange(390, 999)]
    shares = [segments.promise_wanted(4) for _ in range(5)]
    assert [(share.start, share.stop) for share in shares if share is not None] == [
        (200, 210),
        (210, 220),
        (220, 230),
        (230, 240),
        (390, 400),
    ]
    assert not segments.has_wanted
    first = segments.promise(length=64, horizon=400)
    assert first is not None
    assert (first.start, segments.is_wanted(first)) == (0, False)
    assert shares[4] is not None
    assert segments.is_wanted(shares[4])


def test_a_segment_is_cut_before_what_a_reader_waits_for() -> None:
    """Unless it is nearly there; a whole stream cannot be cut."""
    wanted = [ByteRange(100, 110)]
    segments = Segments(400, IntervalSet(), SMALL, wanted=wanted)
    segment = segments.promise(length=200, horizon=400)
    assert segment is not None
    segments.cut_before_wanted()
    assert (segment.stop, segments.has_wanted) == (100, True)
    near = Segments(400, IntervalSet(), SMALL, wanted=wanted)
    segment = near.promise(length=200, horizon=400)
    assert segment is not None
    near.arrived(segment, 98)
    near.cut_before_wanted()
    assert segment.stop == 200
    stream = Segments(400, IntervalSet(), SMALL, wanted=wanted)
    whole = stream.promise_all()
    stream.cut_before_wanted()
    assert whole is not None
    assert (whole.stop, stream.has_wanted) == (400, False)


def test_an_empty_content_is_complete() -> None:
    """Of 0 bytes none is missing; of an unknown number some may be."""
    assert Segments(0, IntervalSet()).is_complete
    assert not Segments(None, IntervalSet()).is_complete
    assert Segments(None, IntervalSet()).unpromised is None


@pytest.mark.parametrize(
    ("left_over", "stop"),
    [(0, 4 * MIB), (1, 4 * MIB + 1), (MIB // 4, 4 * MIB + MIB // 4), (MIB // 4 + 1, 4 * MIB)],
)
def test_no_crumb_is_left(left_over: int, stop: int) -> None:
    """A remainder too small to be worth a request is added to the segment before it."""
    segment = Segments(4 * MIB + left_over, IntervalSet()).promise(length=4 * MIB, horizon=UNBOUNDED)
    assert segment is not None
    assert (segment.start, segment.stop) == (0, stop)


def test_a_segment_begins_before_the_horizon() -> None:
    """A segment that would begin at the horizon is not promised; the window stays closed."""
    segments = Segments(64 * MIB, IntervalSet())
    assert segments.promise(length=MIB, horizon=0) is None
    first = segments.promise(length=4 * MIB, horizon=4 * MIB)
    assert first is not None
    assert segments.promise(length=4 * MIB, horizon=4 * MIB) is None
    second = segments.promise(length=4 * MIB, horizon=4 * MIB + 1)
    assert second is not None
    assert second.start == 4 * MIB


@pytest.mark.shows("N9")
def test_where_no_size_is_known_64_gib_are_the_end() -> None:
    """The documentation states this limit, and no test could wait for it."""
    assert REAL.unsized == 64 * 2**30


def test_a_cut_never_lengthens() -> None:
    """A cut beyond a segment's end changes nothing, so no one else's bytes become its own."""
    segments = Segments(8 * MIB, IntervalSet())
    first, second = (segments.promise(length=4 * MIB, horizon=UNBOUNDED) for _ in range(2))
    assert first is not None
    assert second is not None
    segments.cut(first, 6 * MIB)
    assert (first.stop, second.start) == (4 * MIB, 4 * MIB)


@pytest.mark.parametrize("size", [0, 1, 3 * MIB, 5 * MIB, 6 * MIB - 1])
def test_what_lies_beyond_the_size_is_not_on_hand(size: int) -> None:
    """If the length turns out shorter than what is on hand, only the bytes within it count."""
    segments = Segments(None, IntervalSet([ByteRange(0, 2 * MIB), ByteRange(4 * MIB, 6 * MIB)]))
    segments.learn_size(size)
    kept = min(size, 2 * MIB) + max(0, size - 4 * MIB)
    assert segments.on_hand_bytes == kept
    assert segments.is_complete == (kept == size)


def test_a_size_learned_in_flight_gives_the_rest_to_nobody() -> None:
    """Once the length is known, segments in flight end there, and what they received within it counts."""
    segments = Segments(None, IntervalSet())
    segment = segments.promise(length=16 * MIB, horizon=UNBOUNDED)
    assert segment is not None
    segments.arrived(segment, 3)
    segments.learn_size(5)
    assert (segment.stop, segment.remaining, segments.unpromised) == (5, 2, 0)
    segments.arrived(segment, 2)
    segments.give_back(segment)
    assert segments.is_complete


def test_what_was_received_beyond_the_size_does_not_count() -> None:
    """A segment past the length when it becomes known has nothing left to fetch, and its excess does not count."""
    segments = Segments(None, IntervalSet())
    segment = segments.promise(length=16 * MIB, horizon=UNBOUNDED)
    assert segment is not None
    segments.arrived(segment, 5)
    segments.learn_size(3)
    assert (segment.remaining, segments.unpromised) == (0, 0)
    assert (segments.on_hand_bytes, segments.is_complete) == (3, True)


@given(
    missing=st.integers(0, 1 << 50),
    connections=st.integers(1, 64),
    rate=st.none() | st.floats(0, 1e12),
)
def test_the_length_of_a_segment(missing: int, connections: int, rate: float | None) -> None:
    """A segment is a whole number of MiB within its bounds, and leaves work for the others if there is enough."""
    length = segment_length(missing, connections, rate, REAL)
    assert REAL.smallest <= length <= REAL.largest
    assert length % REAL.smallest == 0
    if connections > 1:
        assert length <= max(REAL.smallest, missing // (2 * connections) + 1)


def test_a_segment_is_as_long_as_the_connection_is_fast() -> None:
    """If enough is left, a segment takes about two seconds, but at least 4 MiB; unmeasured it is 16 MiB."""
    plenty = 1 << 40
    assert segment_length(plenty, 4, None, REAL) == 16 * MIB
    assert segment_length(plenty, 4, 10.0 * MIB, REAL) == 20 * MIB
    assert segment_length(plenty, 4, 1.0, REAL) == 4 * MIB
    assert segment_length(plenty, 4, 1e12, REAL) == REAL.largest
    assert segment_length(plenty, 1, 10.0 * MIB, REAL) == 20 * MIB
    assert segment_length(16 * MIB, 4, 1e12, REAL) == 2 * MIB
    assert segment_length(16 * MIB, 1, 1e12, REAL) == 16 * MIB  # nobody else waits for a share
    # At the end, too, a segment is worth its round trip.
    assert segment_length(16 * MIB, 4, 100.0 * MIB, REAL, wait=0.08) == 16 * MIB
    assert segment_length(16 * MIB, 4, 100.0 * MIB, REAL, wait=1e9) == REAL.largest


@given(
    remaining=st.integers(0, 1 << 40),
    slower=st.floats(1.0, 1e9),
    faster=st.floats(1.0, 1e9),
)
def test_the_share_of_the_slower(remaining: int, slower: float, faster: float) -> None:
    """Both end at about the same time; a hopeless one keeps nothing; a share not worth a request is not split off."""
    kept = share_of_slower(remaining, slower, faster, REAL)
    if slower * HOPELESS_RATIO < faster:
        assert kept == 0
    elif kept is None:
        assert remaining * faster / (slower + faster) <= MIB // 4 + 1
    else:
        assert 0 <= kept <= remaining
        given_away = remaining - kept
        assert given_away >= MIB // 4
        assert abs(kept / slower - given_away / faster) <= 2 / min(slower, faster) + 1e-6 * remaining / slower


def test_a_silent_connection_keeps_nothing() -> None:
    """A connection that has received nothing at all is cut off when another one works."""
    assert share_of_slower(10 * MIB, 0.0, 1.0, REAL) == 0


@pytest.mark.parametrize("slower", [0.0, 1.0])
def test_one_that_brings_nothing_helps_nobody(slower: float) -> None:
    """A connection with a speed of 0 gets no share of another's work, not even of a silent one's."""
    assert share_of_slower(10 * MIB, slower, 0.0, REAL) is None


def test_the_whole_is_promised_once_nothing_else_is_to_come() -> None:
    """A segment that was cut short to nothing promises nothing; a whole stream does until it is given back."""
    segments = Segments(100, IntervalSet(), SMALL)
    segment = segments.promise(length=40, horizon=100)
    assert segment is not None
    assert segments.promise_all() is None
    segments.cut(segment, segment.position)
    whole = segments.promise_all()
    assert whole is not None
    segments.keep(0, 50)
    whole.position = whole.stop
    assert segments.promise_all() is None

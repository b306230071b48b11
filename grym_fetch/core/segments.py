"""Which bytes are still missing, and which connection fetches them.

Rules: a byte is missing, promised to exactly one segment, or on hand; never two of these. Segments are given out in
file order and no further ahead of the hash frontier than the window, so that the digest follows closely. A segment may
be cut short while it is in flight; what it has not received is missing again. Only what a reader waits for goes before
all of this.

`segment_length` sizes them: long enough that a request's round trip hardly matters, short enough that the window stays
small, and ever shorter towards the end, so that all connections finish at about the same time (guided self-scheduling,
Polychronopoulos and Kuck, 1987).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grym_fetch.core.ranges import ByteRange, IntervalSet
from grym_fetch.core.validation import refuse_nonsense, whole_number

MIB = 1024 * 1024
_SIZE = whole_number(1)


@dataclass(frozen=True, slots=True)
class SegmentSizes:
    """How content is divided, in bytes. For tests, which use small ones.

    Raises ValueError for sizes below 1, and if ``smallest``, ``first`` and ``largest`` are not in this order.
    """

    piece: int = 2 * MIB
    """The unit of writing, recording and hashing. Also what counts as progress."""
    first: int = 16 * MIB
    """The length of a segment before a speed has been measured."""
    smallest: int = MIB
    largest: int = 64 * MIB
    window: int = 64 * MIB
    """How far segments may be ahead of the hash frontier, plus one segment for each connection."""
    unsized: int = 64 * 1024 * MIB
    """The most to read of content whose length neither the manifest nor the server gives."""

    def __post_init__(self) -> None:
        refuse_nonsense(self, dict.fromkeys(("piece", "first", "smallest", "largest", "window", "unsized"), _SIZE))
        if not self.smallest <= self.first <= self.largest:
            raise ValueError(
                f"first must be between smallest ({self.smallest}) and largest ({self.largest}), not {self.first}"
            )


SEGMENT_S = 2.0
"""A segment should take about this long at the measured speed."""
MIN_ROUND_TRIPS = 2
"""And at least this many times as long as the wait for its first byte."""
HOPELESS_RATIO = 8.0
"""Cut off a connection that is this many times slower than an idle one."""
UNBOUNDED = 1 << 62
"""The end of a body of unknown length."""


@dataclass(eq=False, slots=True)
class Segment:
    """The bytes ``[start, stop)`` given to one connection; those before ``position`` have arrived.

    A ``whole`` segment is the stream of an origin without ranges: it begins at 0 and skips what is already on hand. One
    that comes ``again`` is on hand already, and only compared.
    """

    start: int
    stop: int
    position: int
    whole: bool = False
    again: bool = False

    @property
    def remaining(self) -> int:
        """Bytes still to come."""
        return self.stop - self.position


def segment_length(
    missing: int, connections: int, rate: float | None, sizes: SegmentSizes, *, wait: float = 0.0
) -> int:
    """Return how long the next segment should be, in bytes.

    ``missing`` bytes are not yet promised to any connection; ``rate`` is one connection's speed in bytes per second,
    None until it has been measured; ``wait`` is the time in seconds from a request to its first byte.
    """
    ideal = sizes.first if rate is None else max(int(rate * SEGMENT_S), 4 * sizes.smallest)
    fair = -(-missing // (2 * connections)) if connections > 1 else missing
    worthwhile = int((rate or 0.0) * wait * MIN_ROUND_TRIPS)
    length = min(max(fair, worthwhile), ideal, sizes.largest)
    # In steps of the smallest size, so that most segments are whole pieces.
    return max(sizes.smallest, length // sizes.smallest * sizes.smallest)


class Segments:
    """The bytes of one asset: missing, promised, or on hand. ``size`` is None while unknown.

    ``wanted``: what readers wait for now, the first one first. Others change it meanwhile.
    """

    def __init__(
        self,
        size: int | None,
        on_hand: IntervalSet,
        sizes: SegmentSizes | None = None,
        *,
        wanted: Sequence[ByteRange] = (),
    ) -> None:
        self.size = size
        sizes = sizes or SegmentSizes()
        self._smallest = sizes.smallest
        self._largest = sizes.largest
        self._wanted = wanted
        self.unsized_limit = sizes.unsized
        """How many bytes an origin may send while the size is unknown."""
        self.in_flight: list[Segment] = []
        self.on_hand_bytes = on_hand.total
        self._covered = IntervalSet(on_hand)
        """The bytes not missing: on hand, or promised to a segment that is not a whole stream."""

    @property
    def is_complete(self) -> bool:
        """Whether every byte is on hand."""
        return self.size is not None and self.on_hand_bytes == self.size

    def fits(self, length: int) -> bool:
        """Whether nothing is on hand yet, and all of it is known to be no longer than ``length`` bytes."""
        return self.size is not None and self.size <= length and not self.on_hand_bytes

    def learn_size(self, size: int) -> None:
        """Set the length, which is now known: nothing beyond it is wanted."""
        self.size = size
        for segment in self.in_flight:
            if segment.stop > size:
                segment.stop = max(size, segment.position)
        self._covered.remove(size, UNBOUNDED)
        promised = sum(segment.remaining for segment in self.in_flight if not segment.whole)
        self.on_hand_bytes = self._covered.total - promised

    @property
    def unpromised(self) -> int | None:
        """How many bytes are neither on hand nor promised; None while the size is unknown."""
        return None if self.size is None else self.size - self._covered.total

    def promise(self, *, length: int, horizon: int) -> Segment | None:
        """Promise the first missing bytes: about ``length`` of them, beginning before ``horizon``."""
        if any(segment.whole for segment in self.in_flight):
            return None
        limit = UNBOUNDED if self.size is None else self.size
        gap = self._covered.next_gap(0, limit)
        if gap is None or gap.start >= horizon:
            return None
        return self._promise(gap, length)

    def promise_wanted(self, connections: int) -> Segment | None:
        """Promise the first missing bytes that a reader waits for: a fair share, so that all connections bring them."""
        if (found := self._missing_wanted()) is None:
            return None
        gap, whole = found
        return self._promise(gap, min(max(self._smallest, -(-whole.length // connections)), self._largest))

    @property
    def has_wanted(self) -> bool:
        """Whether a reader waits for bytes that no connection brings."""
        return self._missing_wanted() is not None

    def _missing_wanted(self) -> tuple[ByteRange, ByteRange] | None:
        if self.size is None or any(segment.whole for segment in self.in_flight):
            return None
        for wanted in self._wanted:
            gap = self._covered.next_gap(wanted.start, min(wanted.stop, self.size))
            if gap is not None:
                return gap, wanted
        return None

    def is_wanted(self, segment: Segment) -> bool:
        """Whether a reader waits for bytes that this segment has yet to bring."""
        return any(segment.position < wanted.stop and wanted.start < segment.stop for wanted in self._wanted)

    def cut_before_wanted(self) -> None:
        """Shorten the segments in flight that would only bring late, at their end, what a reader waits for."""
        for segment in self.in_flight:
            for wanted in () if segment.whole else self._wanted:
                if segment.position + self._smallest < wanted.start < segment.stop:
                    self.cut(segment, wanted.start)

    def _promise(self, gap: ByteRange, length: int) -> Segment:
        # Never leave a small rest that costs another request.
        stop = gap.stop if gap.length <= length + self._smallest // 4 else gap.start + length
        segment = Segment(gap.start, stop, gap.start)
        self._covered.add(gap.start, stop)
        self.in_flight.append(segment)
        return segment

    def promise_all(self) -> Segment | None:
        """Promise the whole content to one connection, for an origin without ranges. Only while nothing is promised."""
        if any(segment.whole or segment.remaining for segment in self.in_flight) or self.is_complete:
            return None
        segment = Segment(0, self.unsized_limit if self.size is None else self.size, 0, whole=True)
        self.in_flight.append(segment)
        return segment

    def arrived(self, segment: Segment, count: int) -> None:
        """The next ``count`` bytes of the segment are on hand."""
        segment.position += count
        self.on_hand_bytes += count

    def missing_in(self, start: int, stop: int) -> ByteRange | None:
        """Return the first missing range in ``[start, stop)``: the part of it that a whole stream must keep."""
        return self._covered.next_gap(start, stop)

    def keep(self, start: int, stop: int) -> None:
        """Bytes from a whole stream are on hand."""
        self._covered.add(start, stop)
        self.on_hand_bytes += stop - start

    def give_back(self, segment: Segment) -> None:
        """The segment's connection is done with it: bytes that have not arrived are missing again."""
        if segment.again:
            return
        self.in_flight.remove(segment)
        if not segment.whole:
            self._covered.remove(segment.position, segment.stop)

    def cut(self, segment: Segment, stop: int) -> None:
        """Shorten a segment in flight, so that others can take its end."""
        stop = min(max(stop, segment.position), segment.stop)
        self._covered.remove(stop, segment.stop)
        segment.stop = stop

    def lose(self, start: int, stop: int) -> None:
        """Bytes on hand turned out to be wrong: they are missing again."""
        self._covered.remove(start, stop)
        self.on_hand_bytes -= stop - start


def share_of_slower(remaining: int, slower: float, faster: float, sizes: SegmentSizes) -> int | None:
    """Return how many of ``remaining`` bytes the slower of two connections keeps when the other helps; rates in B/s.

    Both then finish at about the same time. 0 if the slower one is hopeless: cutting it off is better than waiting.
    None if sharing would not be worth another request.
    """
    if faster <= 0:
        return None
    if slower * HOPELESS_RATIO < faster:
        return 0
    kept = int(remaining * slower / (slower + faster))
    return kept if remaining - kept >= sizes.smallest // 4 else None

"""Which pieces of a content that is wrong somewhere to ask an origin for next, so that few have to come.

Rules: without digests of the pieces, comparing one means fetching it; so each is fetched at most once, what comes is
kept, and all of it costs what fetching anew costs. What saves anything is to stop early: pieces spread over the whole
come first, since damage is seldom in one place of many, then those beside what differs, until the whole is right.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import Enum
from itertools import groupby

from grym_fetch.core.ranges import ByteRange, IntervalSet

ROUNDS = 16
"""One round compares this fraction of the pieces, unless something was found."""
LEAST_PIECES = 4
"""And at least so many: as many as there are connections."""
HOPELESS_RATIO = 0.75
"""If so much of what is spread over the whole differs, it is probably another content: the rest comes at once."""


class _Is(Enum):
    UNKNOWN = 0
    ASKED = 1
    SAME = 2
    OTHER = 3


class Comparison:
    """Compares the pieces of a content, which do not overlap, in rounds. What was not said to differ is the same."""

    def __init__(self, pieces: Iterable[ByteRange]) -> None:
        self._pieces = sorted(pieces, key=lambda piece: piece.start)
        self._states = [_Is.UNKNOWN] * len(self._pieces)
        self.unasked_bytes = sum(piece.length for piece in self._pieces)
        """What has not been asked for yet."""
        self._spread_out: list[int] = []
        """What was asked for without a reason."""
        self._has_news = False

    @property
    def is_over(self) -> bool:
        """Whether every piece was asked for."""
        return _Is.UNKNOWN not in self._states

    @property
    def is_news(self) -> bool:
        """Whether more was found to differ since the whole was last looked at, and nothing more beside it."""
        return self._has_news and not (self._beside() or self._is_hopeless())

    def differs(self, start: int, stop: int) -> None:
        """These bytes, which the last round asked for, are others than before."""
        self._has_news = True
        for index in self._indices(_Is.ASKED):
            if self._pieces[index].start < stop and start < self._pieces[index].stop:
                self._states[index] = _Is.OTHER

    def settle(self) -> None:
        """The last round is over."""
        self._states = [_Is.SAME if state is _Is.ASKED else state for state in self._states]

    def still_wrong(self) -> None:
        """The whole was looked at with all that was found, and is wrong."""
        self._has_news = False

    def next_round(self) -> IntervalSet:
        """Return what to ask for now. Only after `settle`, and before it `is_over`."""
        unknown = list(self._indices(_Is.UNKNOWN))
        chosen = unknown if self._is_hopeless() else (self._beside() or self._spread(unknown))
        for index in chosen:
            self._states[index] = _Is.ASKED
            self.unasked_bytes -= self._pieces[index].length
        return IntervalSet(self._pieces[index] for index in chosen)

    def _indices(self, state: _Is) -> Iterator[int]:
        return (index for index, each in enumerate(self._states) if each is state)

    def _is_hopeless(self) -> bool:
        other = sum(self._states[index] is _Is.OTHER for index in self._spread_out)
        return other >= max(LEAST_PIECES, HOPELESS_RATIO * len(self._spread_out)) and not self.is_over

    def _spread(self, unknown: list[int]) -> list[int]:
        count = min(len(unknown), max(LEAST_PIECES, len(self._pieces) // ROUNDS))
        chosen = [unknown[(2 * number + 1) * len(unknown) // (2 * count)] for number in range(count)]
        self._spread_out += chosen
        return chosen

    def _beside(self) -> list[int]:
        """What is unknown on either side of what differs: as much as differs there, so that it is soon surrounded."""
        found: set[int] = set()
        for first, last in self._runs():
            length = last - first
            for side in (range(first - 1, first - 1 - length, -1), range(last, last + length)):
                for index in side:
                    if not 0 <= index < len(self._states) or self._states[index] is not _Is.UNKNOWN:
                        break
                    found.add(index)
        return sorted(found)

    def _runs(self) -> Iterator[tuple[int, int]]:
        """Where differing pieces follow each other: the first, and the one after the last."""
        first = 0
        for is_other, run in groupby(self._states, key=lambda state: state is _Is.OTHER):
            last = first + len(list(run))
            if is_other:
                yield first, last
            first = last

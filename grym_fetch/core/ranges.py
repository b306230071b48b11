"""Byte ranges: half-open ``[start, stop)`` inside, inclusive only in the two header codecs at the end.

Rules: a range is never empty and never negative; an `IntervalSet` is sorted, disjoint and has no two touching members.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class ByteRange:
    """The bytes from ``start`` up to, not including, ``stop``."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop:
            raise ValueError(f"not a byte range: [{self.start}, {self.stop})")

    @property
    def length(self) -> int:
        """The number of bytes, at least one."""
        return self.stop - self.start


class IntervalSet:
    """A set of byte positions, kept as disjoint ranges. Adding and removing cost O(log n) plus what they merge."""

    def __init__(self, ranges: Iterable[ByteRange] = ()) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        self._total = 0
        for member in ranges:
            self.add(member.start, member.stop)

    def add(self, start: int, stop: int) -> None:
        """Add ``[start, stop)``, merged with the ranges that it overlaps or touches."""
        if start >= stop:
            return
        first = bisect_left(self._stops, start)
        last = bisect_right(self._starts, stop)
        if first < last:
            start = min(start, self._starts[first])
            stop = max(stop, self._stops[last - 1])
        self._replace(first, last, [(start, stop)])

    def remove(self, start: int, stop: int) -> None:
        """Remove ``[start, stop)``; everything outside it stays."""
        if start >= stop:
            return
        first = bisect_right(self._stops, start)
        last = bisect_left(self._starts, stop)
        if first >= last:
            return
        rest = []
        if self._starts[first] < start:
            rest.append((self._starts[first], start))
        if self._stops[last - 1] > stop:
            rest.append((stop, self._stops[last - 1]))
        self._replace(first, last, rest)

    def _replace(self, first: int, last: int, members: list[tuple[int, int]]) -> None:
        old = sum(self._stops[i] - self._starts[i] for i in range(first, last))
        self._total += sum(stop - start for start, stop in members) - old
        self._starts[first:last] = [start for start, _ in members]
        self._stops[first:last] = [stop for _, stop in members]

    def run_from(self, start: int) -> int:
        """The end of the run of members that begins at ``start``; ``start`` itself if that byte is missing."""
        at = bisect_right(self._starts, start) - 1
        return max(start, self._stops[at]) if at >= 0 else start

    def next_gap(self, start: int, limit: int) -> ByteRange | None:
        """The first stretch of missing bytes at or after ``start``, cut at ``limit``; None if there is none."""
        at = self.run_from(start)
        if at >= limit:
            return None
        following = bisect_right(self._starts, at)
        stop = self._starts[following] if following < len(self._starts) else limit
        return ByteRange(at, min(stop, limit))

    @property
    def total(self) -> int:
        """The number of bytes in all members together."""
        return self._total

    def __iter__(self) -> Iterator[ByteRange]:
        return (ByteRange(start, stop) for start, stop in zip(self._starts, self._stops, strict=True))

    def __bool__(self) -> bool:
        return bool(self._starts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, IntervalSet):
            return NotImplemented
        return self._starts == other._starts and self._stops == other._stops

    __hash__ = None  # type: ignore[assignment]  # mutable, as set is

    def __repr__(self) -> str:
        return f"IntervalSet({', '.join(f'[{r.start}, {r.stop})' for r in self)})"


# A length with more digits than this is invalid (2**63 has 19), and int() of thousands of digits is slow or refused.
_DIGITS = r"[0-9]{1,19}"
_MOST = (1 << 63) - 1
_CONTENT_RANGE = re.compile(
    rf"\s*bytes\s+(?:(?P<first>{_DIGITS})-(?P<last>{_DIGITS})|\*)/(?P<total>{_DIGITS}|\*)\s*",
    re.IGNORECASE | re.ASCII,
)


@dataclass(frozen=True, slots=True)
class ContentRangeField:
    """A ``Content-Range`` field (RFC 9110 section 14.4). ``range`` is None in the form ``bytes */N``."""

    range: ByteRange | None
    total: int | None


def range_header(wanted: ByteRange) -> str:
    """Return the ``Range`` field for one range (RFC 9110 section 14.2): positions are inclusive there."""
    return f"bytes={wanted.start}-{wanted.stop - 1}"


def parse_content_range(text: str) -> ContentRangeField | None:
    """Read a ``Content-Range`` field; None if RFC 9110 section 14.4 calls it invalid.

    Another unit, a last position before the first one, a total that ends before the last position, and ``*/*`` are
    invalid. An unknown total (``bytes 0-9/*``) is legal.
    """
    match = _CONTENT_RANGE.fullmatch(text)
    if match is None:
        return None
    total = None if match["total"] == "*" else int(match["total"])
    if match["first"] is None:
        return None if total is None else ContentRangeField(None, total)
    first, last = int(match["first"]), int(match["last"])
    if last < first or last >= _MOST or (total is not None and not last < total <= _MOST):
        return None
    return ContentRangeField(ByteRange(first, last + 1), total)


def parse_length(text: str) -> int | None:
    """Read a ``Content-Length`` field; None if it is not a plain non-negative number (RFC 9110 section 8.6)."""
    length = int(text) if re.fullmatch(_DIGITS, text, re.ASCII) else None
    return length if length is not None and length <= _MOST else None

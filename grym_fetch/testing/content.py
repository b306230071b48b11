"""Content for tests, in memory or made from a seed.

Rules: seeded bytes depend only on the seed and the position, so any range can be made alone. Every 4 KiB begins with a
mark of its own, and neighbouring blocks of 1 MiB are rotated differently, so that misplaced pieces show.
"""

from __future__ import annotations

import hashlib
from array import array
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Protocol

_BLOCK_BYTES = 1 << 20
_MARK_BYTES = 1 << 12
# Both odd, so that multiplication is one-to-one: no two positions share a mark, no two near blocks a rotation.
_SCATTER = 0x9E3779B97F4A7C15
_TURN_BYTES = 0x2545F


class Content(Protocol):
    """Bytes with random access. ``read`` may be called from one thread while ``sha256`` runs in another."""

    @property
    def size(self) -> int:
        """How many bytes there are."""

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes ``start`` (inclusive) to ``stop`` (exclusive), cut at the end of the content."""

    def sha256(self) -> str:
        """Return the lowercase hex SHA-256 of all bytes."""

    def fingerprint(self) -> str:
        """Return a short word for the ETag."""


@lru_cache(maxsize=16)
def _base(seed: int) -> bytes:
    """One random block, twice in a row so that a rotated block is one slice."""
    return hashlib.shake_128(b"grym-fetch seeded content %d" % seed).digest(_BLOCK_BYTES) * 2


@dataclass(frozen=True)
class SeededContent:
    """Pseudo-random content of ``size`` bytes, generated on reading, not held in memory."""

    size: int
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError(f"a content cannot have {self.size} bytes")

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes ``start`` (inclusive) to ``stop`` (exclusive), cut at the end of the content."""
        start, stop = max(0, start), min(stop, self.size)
        if start >= stop:
            return b""
        pieces = []
        while start < stop:
            end = min(stop, start - start % _BLOCK_BYTES + _BLOCK_BYTES)
            pieces.append(self._within_block(start, end))
            start = end
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _within_block(self, start: int, stop: int) -> bytes:
        block, offset = divmod(start, _BLOCK_BYTES)
        first = offset - offset % _MARK_BYTES
        last = -(-(stop - block * _BLOCK_BYTES) // _MARK_BYTES) * _MARK_BYTES
        turn = block * _TURN_BYTES % _BLOCK_BYTES
        made = bytearray(_base(self.seed)[turn + first : turn + last])
        mark = (block * _BLOCK_BYTES + first) // _MARK_BYTES
        count = (last - first) // _MARK_BYTES
        marks = array("Q", [number * _SCATTER & 0xFFFF_FFFF_FFFF_FFFF for number in range(mark, mark + count)])
        words = memoryview(made).cast("Q")
        words[:: _MARK_BYTES // 8] = memoryview(marks)
        return bytes(memoryview(made)[offset - first : offset - first + stop - start])

    def sha256(self) -> str:
        """Return the lowercase hex SHA-256 of all bytes; the first call reads them all."""
        return self._sha256

    @cached_property
    def _sha256(self) -> str:
        digest = hashlib.sha256()
        for start in range(0, self.size, _BLOCK_BYTES):
            digest.update(self.read(start, start + _BLOCK_BYTES))
        return digest.hexdigest()

    def fingerprint(self) -> str:
        """Return a word made of the seed and the size."""
        return f"seeded-{self.seed}-{self.size}"


@dataclass(frozen=True)
class BytesContent:
    """Content held in memory."""

    data: bytes

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return len(self.data)

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes ``start`` (inclusive) to ``stop`` (exclusive), cut at the end of the content."""
        return self.data[max(0, start) : max(0, stop)]

    def sha256(self) -> str:
        """Return the lowercase hex SHA-256 of all bytes."""
        return self._sha256

    @cached_property
    def _sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    def fingerprint(self) -> str:
        """Return the beginning of the SHA-256."""
        return self.sha256()[:16]


@dataclass(frozen=True)
class FlippedContent:
    """A content in which all bits of the byte ``at`` are inverted."""

    true: Content
    at: int

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return self.true.size

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes ``start`` (inclusive) to ``stop`` (exclusive), cut at the end of the content."""
        data = self.true.read(start, stop)
        index = self.at - max(0, start)
        if not 0 <= index < len(data):
            return data
        return data[:index] + bytes([data[index] ^ 0xFF]) + data[index + 1 :]

    def sha256(self) -> str:
        """Return the lowercase hex SHA-256 of the flipped bytes."""
        return BytesContent(self.read(0, self.size)).sha256()

    def fingerprint(self) -> str:
        """Return the true content's word, because the fault is silent."""
        return self.true.fingerprint()


@dataclass(frozen=True)
class UnendingContent:
    """Content that continues after its true end with other bytes."""

    true: Content

    @property
    def size(self) -> int:
        """How many bytes there are: more than anyone reads."""
        return 1 << 62

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes ``start`` (inclusive) to ``stop`` (exclusive)."""
        beyond = SeededContent(self.size, seed=-1).read(max(start, self.true.size), stop)
        return self.true.read(start, stop) + beyond

    def sha256(self) -> str:
        """Raise `ValueError`: unending content has no digest."""
        raise ValueError("an unending content has no digest")

    def fingerprint(self) -> str:
        """Return the true content's word."""
        return self.true.fingerprint()


def seeded_bytes(size: int, seed: int = 0) -> bytes:
    """Return the bytes of ``SeededContent(size, seed)``."""
    return SeededContent(size, seed).read(0, size)


def as_content(content: bytes | Content) -> Content:
    """Return bytes as a content, and a content as it is."""
    return BytesContent(content) if isinstance(content, bytes) else content

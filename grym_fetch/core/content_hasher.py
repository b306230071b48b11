"""Hashes a content whose bytes come in order: as a whole, and piece by piece, in one pass.

Rules: what passes is hashed once for the checksum. The sums of the pieces come beside it and cost next to nothing; a
second SHA-256 is computed only where the manifest has the digests of the pieces, to judge each at its end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Protocol, Self

from grym_fetch.core.digest import Hasher
from grym_fetch.core.journal import piece_hasher
from grym_fetch.core.piece_digests import PieceDigests, PieceSums, piece_length
from grym_fetch.core.ranges import ByteRange


class _PieceHasher(Protocol):
    def update(self, data: memoryview, /) -> object: ...

    def hexdigest(self) -> str: ...

    def copy(self) -> Self: ...


class PieceSummer:
    """Digests of the pieces of a content whose bytes come in order."""

    def __init__(self, length: int, new_hasher: Callable[[], _PieceHasher] = piece_hasher) -> None:
        self.length = length
        self._new = new_hasher
        self._hasher = new_hasher()
        self._filled = 0
        self._digests: list[str] = []

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        """Add more bytes."""
        view = memoryview(data)
        while view:
            part = view[: self.length - self._filled]
            self._hasher.update(part)
            self._filled += len(part)
            view = view[len(part) :]
            if self._filled == self.length:
                self._digests.append(self._hasher.hexdigest())
                self._hasher, self._filled = self._new(), 0

    def digests(self) -> tuple[str, ...]:
        """The digests of the pieces so far; the last one may be short."""
        return (*self._digests, *([self._hasher.hexdigest()] if self._filled else []))

    def copy(self) -> PieceSummer:
        """Return an independent one with the same state."""
        other = PieceSummer(self.length, self._new)
        other._hasher, other._filled, other._digests = self._hasher.copy(), self._filled, list(self._digests)
        return other


def new_sha256() -> _PieceHasher:
    """Return a hasher for the pieces of a manifest."""
    return hashlib.sha256()


def sha256_summer(size: int | None) -> PieceSummer:
    """Return what computes the digests for a manifest."""
    return PieceSummer(piece_length(size), new_sha256)


class ContentHasher:
    """Hashes a content whose bytes come in order: as a whole, for the sums of its pieces, and piece by piece.

    With the digests that a manifest has, a piece that is wrong is found at its end: `wrong` is its range then, the
    state is again that before its first byte, and what follows it is ignored until `resume`. ``size``: the content's
    length in bytes, None if not known.
    """

    def __init__(self, hasher: Hasher, size: int | None, digests: PieceDigests | None = None) -> None:
        self.whole = hasher
        self._sums = PieceSummer(piece_length(size))
        self._size = size
        self._digests = digests if size is not None else None
        self._position = 0
        self._before = self._taken()
        self._piece = hashlib.sha256()
        self.wrong: ByteRange | None = None

    @property
    def sums(self) -> PieceSums:
        """The sums of what was hashed."""
        return PieceSums(self._sums.length, self._sums.digests())

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        """Add more bytes."""
        if self._digests is None:
            self.whole.update(data)
            self._sums.update(data)
            return
        view = memoryview(data)
        while view and self.wrong is None:
            view = view[self._judge(view, self._digests) :]

    def resume(self) -> None:
        """Go on from the beginning of the piece that was wrong."""
        self.wrong = None

    def _judge(self, view: memoryview, digests: PieceDigests) -> int:
        assert self._size is not None
        index = self._position // digests.size
        start, stop = index * digests.size, min((index + 1) * digests.size, self._size)
        part = view[: max(stop - self._position, 0)]
        if not part:
            return len(view)  # beyond the end: nothing is judged there, and nothing is verified
        self.whole.update(part)
        self._sums.update(part)
        self._piece.update(part)
        self._position += len(part)
        if self._position == stop:
            is_right = self._piece.hexdigest() == digests.sha256[index]
            self._piece = hashlib.sha256()
            if is_right:
                self._before = self._taken()
            else:
                self.whole, self._sums = self._before
                self._before = self._taken()
                self._position = start
                self.wrong = ByteRange(start, stop)
        return len(part)

    def _taken(self) -> tuple[Hasher, PieceSummer]:
        return (self.whole.copy(), self._sums.copy()) if self._digests is not None else (self.whole, self._sums)

"""Finds out which part of a wrong file is right, so that only the rest need be fetched.

Rules: what is found here are claims, like those of a journal: they are proved when they are read back, and the whole is
verified before it gets its name. Nothing is changed. A piece that cannot be read is a bad one. Without digests of the
pieces there is only a guess: bad is what was cut off, and what has zeros where a file system may have lost blocks. If
it is wrong, an origin has to be compared with the rest.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from grym_fetch.core.journal import NOBODY, Piece, piece_digest
from grym_fetch.core.piece_digests import MIB, PieceDigests, PieceSums, piece_count, piece_ranges
from grym_fetch.core.ranges import ByteRange
from grym_fetch.disk.folders import open_regular, read_into
from grym_fetch.runtime.system import read_ahead

_BLOCK_BYTES = 4096
"""What file systems lose at once."""


@dataclass(frozen=True, slots=True)
class Damage:
    """What of a file is right. ``pieces``: how many there are; ``size``: of the right content, in bytes.

    ``is_guess``: no digest says so. ``is_hidden``: nothing is found bad, and yet the file is wrong somewhere.
    """

    path: Path
    size: int
    pieces: int
    good: tuple[Piece, ...]
    is_guess: bool = False
    is_hidden: bool = False

    @property
    def bad(self) -> int:
        """How many pieces are wrong or missing."""
        return self.pieces - len(self.good)

    @property
    def bytes_to_fetch(self) -> int:
        """How many bytes these are; of a guess, the least."""
        if self.is_hidden:
            return min(piece.stop - piece.start for piece in self.good)
        return self.size - sum(piece.stop - piece.start for piece in self.good)


def find_damage(
    path: Path,
    size: int,
    *,
    sums: PieceSums | None = None,
    found: PieceSums | None = None,
    digests: PieceDigests | None = None,
    go_on: Callable[[int], bool] = lambda _: True,
) -> Damage | None:
    """Return what of the file can be used for a content of ``size`` bytes; None if nothing can.

    ``sums`` are those of the right content, and ``found`` those of the file, if they are known; ``digests`` those of
    the manifest. ``go_on`` gets the bytes read so far; reading ends early, with None, where it returns False. Blocking:
    for a thread.
    """
    if sums is not None and found is not None and found.length == sums.length:
        ranges = piece_ranges(size, sums.length)
        pairs = zip(ranges, sums.xxh3, found.xxh3, strict=False)
        good = tuple(Piece(r.start, r.stop, right, NOBODY) for r, right, here in pairs if right == here)
        return Damage(path, size, piece_count(size, sums.length), good) if good else None
    if sums is not None:
        length, is_good = sums.length, _by_sums(sums)
    elif digests is not None:
        length, is_good = digests.size, _by_digests(digests)
    else:
        length, is_good = MIB, _by_guess
    claims = _read(path, size, length, is_good, go_on)
    pieces = piece_count(size, length)
    is_hidden = len(claims) == pieces and path.stat().st_size == size
    if not claims or (is_hidden and pieces == 1):  # the only piece is the wrong one
        return None
    is_guess = sums is None and digests is None
    return Damage(path, size, pieces, tuple(claims), is_guess=is_guess, is_hidden=is_hidden)


_Judge = Callable[[int, memoryview], bool]


def _by_sums(sums: PieceSums) -> _Judge:
    return lambda index, data: piece_digest(data) == sums.xxh3[index]


def _by_digests(digests: PieceDigests) -> _Judge:
    return lambda index, data: hashlib.sha256(data).hexdigest() == digests.sha256[index]


def _by_guess(_: int, data: memoryview) -> bool:
    return bytes(_BLOCK_BYTES) not in bytes(data)


def _read(path: Path, size: int, length: int, is_good: _Judge, go_on: Callable[[int], bool]) -> list[Piece]:
    claims: list[Piece] = []
    memory = memoryview(bytearray(min(length, size)))
    try:
        descriptor = open_regular(str(path), follow=True)
    except OSError:
        return []
    try:
        read_ahead(descriptor)
        for index, piece in enumerate(piece_ranges(size, length)):
            data = memory[: piece.length]
            if _fill(descriptor, data, piece) and is_good(index, data):
                claims.append(Piece(piece.start, piece.stop, piece_digest(data), NOBODY))
            if not go_on(piece.stop):
                return []
    finally:
        os.close(descriptor)
    return claims


def _fill(descriptor: int, memory: memoryview, piece: ByteRange) -> bool:
    """Read a piece; False if it is not all there, or cannot be read."""
    try:
        return read_into(descriptor, memory, piece.start) == len(memory)
    except OSError:
        return False

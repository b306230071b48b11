"""The digests of a content's pieces: which part of a file is wrong, and not only that it is.

Rules: pieces are of one length, but for the last, and in order. The SHA-256 digests in a manifest may condemn what
arrives; that the whole is right, its checksum alone decides. The sums that are kept on this machine are XXH3-128, as in
a journal: they find damage, at a twentieth of the cost, and whatever passes them is still verified as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from grym_fetch.core.ranges import ByteRange

MIB = 1024 * 1024
MIN_PIECE_BYTES = 16 * 1024
"""The shortest pieces that a manifest may have."""
MAX_PIECE_BYTES = 64 * MIB
"""The longest: what a journal takes for one."""
_LARGEST_BYTES = 8 * MIB
_MAX_PIECES = 256
"""Pieces get longer rather than more, up to the largest."""


PIECE_DIGEST_RULE = "64 hex digits (SHA-256)"
_HEX = re.compile(r"[0-9a-fA-F]{64}")


def check_piece_digest(text: str) -> str:
    """Return the digest of a piece in lower case. Raises `ValueError` if ``text`` is not one."""
    if not _HEX.fullmatch(text):
        raise ValueError(f"is not the digest of a piece; allowed: {PIECE_DIGEST_RULE}")
    return text.lower()


def piece_length(size: int | None) -> int:
    """How long the pieces of a content of ``size`` bytes should be: a power of two from 1 to 8 MiB."""
    length = MIB
    while size is not None and length < _LARGEST_BYTES and size > length * _MAX_PIECES:
        length *= 2
    return length


def piece_count(size: int, length: int) -> int:
    """How many pieces of ``length`` bytes there are in ``size`` bytes."""
    return -(-size // length)


def piece_ranges(size: int, length: int) -> Iterator[ByteRange]:
    """The pieces of a content, in order."""
    return (ByteRange(start, min(start + length, size)) for start in range(0, size, length))


@dataclass(frozen=True, slots=True)
class PieceDigests:
    """The SHA-256 digest of each piece, as lower-case hex digits. ``size`` is the length of a piece in bytes."""

    size: int
    sha256: tuple[str, ...]
    extra: Mapping[str, object] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class PieceSums:
    """The XXH3-128 digest of each piece of a file that was verified. ``length`` is that of a piece in bytes."""

    length: int
    xxh3: tuple[str, ...]

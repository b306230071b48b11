"""The journal: which pieces of a part file were written, so that a later process can resume where this one stopped.

Rules: append only. Every record is one line (see checked_lines.py), and its checksum is chained: it covers the line
and, through its start value, every line before it. So a journal that was cut off, bit-flipped, zero-filled or spliced
is valid up to the first damaged byte and not one record further. A record only makes a claim; it proves nothing: each
piece has a digest of its bytes, which is compared with the disk on resuming. No address is stored, only its hash.

A line is ``<8 hex digits> <JSON object>\\n`` with one of these objects, the first one always a header::

    {"journal": 1, "asset": "…"}                         identifies the content that is being fetched
    {"size": 1048576}                                    the content's length, once known
    {"origin": 0, "address": "…", "etag": …, "modified": …, "server": "…"}
    {"piece": [start, length, "xxh3-128", origin]}
    {"void": [start, stop]}                              earlier claims that touch this range are void
"""

from __future__ import annotations

import hashlib
import json
import zlib
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import xxhash

from grym_fetch.core.checked_lines import chain_of, decode_line, encode_line
from grym_fetch.core.http import NO_VALIDATOR, Validator
from grym_fetch.core.ranges import ByteRange

JOURNAL_VERSION = 1
MAX_LINE_BYTES = 4096
MAX_PIECE_BYTES = 64 * 1024 * 1024
_MAX_POSITION = 1 << 62
_SEED = zlib.crc32(b"grym-fetch journal")


def piece_digest(data: bytes | memoryview) -> str:
    """Return the XXH3-128 digest of a piece in hex: as fast as memory, and long enough to catch any accident."""
    return xxhash.xxh3_128_hexdigest(data)


def piece_hasher() -> xxhash.xxh3_128:
    """Return a hasher that computes a `piece_digest` step by step."""
    return xxhash.xxh3_128()


def address_hash(url: str) -> str:
    """Return the hash that stands for an address in a journal, which others may read: an address may be secret."""
    return hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()[:32]


NOBODY = -1
"""Stands for an origin that cannot be asked: one that the manifest no longer names, or a damaged file. Its pieces are
proved by their digests all the same."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A range of the content that was written, with the digest of its bytes and the origin they came from."""

    start: int
    stop: int
    digest: str
    origin: int

    @property
    def range(self) -> ByteRange:
        """The range it covers."""
        return ByteRange(self.start, self.stop)


class PieceTable:
    """Pieces by position. A later piece replaces every earlier one that it overlaps."""

    def __init__(self, pieces: Iterable[Piece] = ()) -> None:
        self._starts: list[int] = []
        self._by_start: dict[int, Piece] = {}
        for piece in pieces:
            self.add(piece)

    def add(self, piece: Piece) -> None:
        """Add a piece."""
        if self._starts:
            self.drop(piece.start, piece.stop)
        insort(self._starts, piece.start)
        self._by_start[piece.start] = piece

    def drop(self, start: int, stop: int) -> list[Piece]:
        """Remove every piece that has a byte in ``[start, stop)``, and return them."""
        at = bisect_left(self._starts, start)
        if at and self._by_start[self._starts[at - 1]].stop > start:
            at -= 1
        end = bisect_left(self._starts, stop, at)
        dropped = [self._by_start.pop(key) for key in self._starts[at:end]]
        del self._starts[at:end]
        return dropped

    def at(self, start: int) -> Piece | None:
        """The piece that begins exactly at ``start``, if any."""
        return self._by_start.get(start)

    def around(self, position: int) -> Piece | None:
        """The piece that has the byte at ``position``, if any."""
        at = bisect_right(self._starts, position) - 1
        piece = self._by_start[self._starts[at]] if at >= 0 else None
        return piece if piece is not None and position < piece.stop else None

    def starts_in(self, start: int, stop: int) -> list[int]:
        """Where pieces begin in ``[start, stop)``, in order."""
        return self._starts[bisect_left(self._starts, start) : bisect_left(self._starts, stop)]

    def __iter__(self) -> Iterator[Piece]:
        return (self._by_start[start] for start in self._starts)

    def __len__(self) -> int:
        return len(self._starts)


@dataclass(slots=True)
class OriginRecord:
    """What a journal records about an origin: the hash of its address and the validator of its content."""

    address: str
    validator: Validator = NO_VALIDATOR


@dataclass(slots=True)
class JournalState:
    """What a journal claims. ``valid_bytes`` is the length of its undamaged part, ``chain`` the checksum at its end."""

    asset: str | None = None
    size: int | None = None
    origins: dict[int, OriginRecord] = field(default_factory=dict)
    pieces: PieceTable = field(default_factory=PieceTable)
    valid_bytes: int = 0
    chain: int = _SEED


class JournalEncoder:
    """Encodes records. It keeps the chain, so one encoder writes one journal, in order."""

    def __init__(self, chain: int = _SEED) -> None:
        self._chain = chain

    def _line(self, record: dict[str, object]) -> bytes:
        line = encode_line(record, self._chain)
        self._chain = chain_of(line)
        return line

    def header(self, asset: str) -> bytes:
        """The first record, which identifies the content that is being fetched."""
        return self._line({"journal": JOURNAL_VERSION, "asset": asset})

    def size(self, size: int) -> bytes:
        """The content's length in bytes."""
        return self._line({"size": size})

    def origin(self, number: int, url: str, validator: Validator) -> bytes:
        """An origin and its validator; a later record of the same number replaces it."""
        return self._line(
            {
                "origin": number,
                "address": address_hash(url),
                "etag": _bounded(validator.etag),
                "modified": _bounded(validator.last_modified),
                "server": validator.server,
            }
        )

    def piece(self, piece: Piece) -> bytes:
        """A piece that was written."""
        return self._line({"piece": [piece.start, piece.stop - piece.start, piece.digest, piece.origin]})

    def void(self, start: int, stop: int) -> bytes:
        """Claims that touch ``[start, stop)`` no longer hold."""
        return self._line({"void": [start, stop]})


def _bounded(text: str | None) -> str | None:
    # Do not store a validator that is too long for a line: without it the content is proved by its digests alone.
    return text if text is not None and len(json.dumps(text)) <= 1000 else None


def read_journal(data: bytes) -> JournalState:
    """Read a journal up to its first damaged byte. Never raises; never claims more than was written in order."""
    state = JournalState()
    at = 0
    while True:
        end = data.find(b"\n", at, at + MAX_LINE_BYTES)
        if end < 0:
            return state
        line = data[at:end]
        try:
            understood = _apply(state, decode_line(line, state.chain))
        except ValueError:
            understood = False
        if not understood:
            return state
        at = end + 1
        state.valid_bytes, state.chain = at, chain_of(line)


def _apply(state: JournalState, record: object) -> bool:
    """Apply one record; False if it is not one that this version writes."""
    match record:
        case {"journal": 1, "asset": str(asset)} if state.asset is None:
            state.asset = asset
        case _ if state.asset is None:
            return False
        case {"size": int(size)} if 0 <= size < _MAX_POSITION:
            state.size = size
        case {
            "origin": int(number),
            "address": str(address),
            "etag": str() | None as etag,
            "modified": str() | None as modified,
            **others,
        }:
            # Journals of the first versions do not say which server it was.
            server = str(others.get("server", ""))
            state.origins[number] = OriginRecord(address, Validator(etag, modified, server))
        case {"piece": [int(start), int(length), str(digest), int(origin)]} if (
            0 <= start < _MAX_POSITION and 0 < length <= MAX_PIECE_BYTES and len(digest) == 32
        ):
            if state.size is not None and start + length > state.size:
                return False
            state.pieces.add(Piece(start, start + length, digest, origin))
        case {"void": [int(start), int(stop)]} if 0 <= start < stop:
            state.pieces.drop(start, stop)
        case _:
            return False
    return True

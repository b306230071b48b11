"""One pass over a content: its checksum, the sums of its pieces, and which piece is wrong."""

from __future__ import annotations

import hashlib
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from grym_fetch.core.content_hasher import ContentHasher, PieceSummer, new_sha256
from grym_fetch.core.digest import new_hasher
from grym_fetch.core.journal import piece_digest
from grym_fetch.core.piece_digests import PieceDigests, piece_ranges
from grym_fetch.testing import seeded_bytes

CONTENT = seeded_bytes(5000, seed=77)
cuts = st.sets(st.integers(1, len(CONTENT) - 1), max_size=20).map(lambda found: [0, *sorted(found), len(CONTENT)])
lengths = st.integers(150, 6000)


def digests_of(content: bytes, length: int) -> PieceDigests:
    """What a manifest says of the content's pieces."""
    pieces = piece_ranges(len(content), length)
    return PieceDigests(length, tuple(hashlib.sha256(content[p.start : p.stop]).hexdigest() for p in pieces))


@given(cuts, lengths)
def test_however_the_bytes_come(cut: list[int], length: int) -> None:
    """The digests of pieces do not depend on how the content was divided on its way."""
    summer = PieceSummer(length, new_sha256)
    sums = PieceSummer(length)
    for start, stop in pairwise(cut):
        summer.update(CONTENT[start:stop])
        sums.update(memoryview(CONTENT)[start:stop])
    assert summer.digests() == digests_of(CONTENT, length).sha256
    assert sums.digests() == tuple(piece_digest(CONTENT[p.start : p.stop]) for p in piece_ranges(len(CONTENT), length))


@given(cuts, lengths, st.sets(st.integers(0, len(CONTENT) - 1), max_size=6))
def test_each_wrong_piece_is_found_and_taken_back(cut: list[int], length: int, flipped: set[int]) -> None:
    """A piece with a wrong byte is named at its end; once its right bytes have come, no trace of it is left."""
    damaged = bytearray(CONTENT)
    for at in flipped:
        damaged[at] ^= 1
    content = ContentHasher(new_hasher("sha256"), len(CONTENT), digests_of(CONTENT, length))
    wrong: list[int] = []
    at = 0
    while at < len(CONTENT):
        stop = next(each for each in cut if each > at)
        content.update(bytes(damaged[at:stop]))
        at = stop
        if (piece := content.wrong) is not None:
            wrong.append(piece.start)
            damaged[piece.start : piece.stop] = CONTENT[piece.start : piece.stop]
            content.resume()
            at = piece.start
    assert wrong == sorted({each // length * length for each in flipped})
    assert damaged == CONTENT
    assert content.whole.hexdigest() == hashlib.sha256(CONTENT).hexdigest()
    sums = content.sums
    assert sums.xxh3 == tuple(piece_digest(CONTENT[p.start : p.stop]) for p in piece_ranges(len(CONTENT), sums.length))

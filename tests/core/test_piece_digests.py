"""Pieces of a content: few enough for a manifest, and each byte in exactly one of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_fetch.core.piece_digests import MIB, check_piece_digest, piece_count, piece_length, piece_ranges


@given(st.integers(0, 10_000), st.integers(1, 3000))
def test_pieces_cover_each_byte_once(size: int, length: int) -> None:
    """The pieces of a content follow each other from its first byte to its last, none longer than the others."""
    pieces = list(piece_ranges(size, length))
    assert len(pieces) == piece_count(size, length)
    assert [each.start for each in pieces] == list(range(0, size, length))
    assert [each.stop for each in pieces] == [*range(length, size, length), *([size] if size else [])]


@pytest.mark.parametrize(
    ("size", "length"),
    [(None, 1), (0, 1), (256 * MIB, 1), (256 * MIB + 1, 2), (1024 * MIB, 4), (1024 * MIB + 1, 8), (1 << 40, 8)],
)
def test_pieces_get_longer_rather_than_more(size: int | None, length: int) -> None:
    """A piece is a power of two from 1 to 8 MiB, so that the list stays small."""
    assert piece_length(size) == length * MIB


@pytest.mark.parametrize("text", ["", "ab" * 31, "ab" * 33, "xy" * 32, "sha256:" + "ab" * 32, "\uff11" * 64])
def test_what_is_not_a_digest(text: str) -> None:
    """The digest of a piece is 64 hex digits and nothing else."""
    assert check_piece_digest("AB" * 32) == "ab" * 32
    with pytest.raises(ValueError, match="is not the digest of a piece"):
        check_piece_digest(text)

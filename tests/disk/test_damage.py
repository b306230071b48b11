"""What of a damaged file is right: no more than is, and no less than can be known."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_fetch.core.content_hasher import PieceSummer
from grym_fetch.core.journal import piece_digest
from grym_fetch.core.piece_digests import MIB, PieceDigests, PieceSums, piece_ranges
from grym_fetch.disk.damage import Damage, find_damage
from grym_fetch.testing import seeded_bytes
from tests.core.test_content_hasher import digests_of

CONTENT = seeded_bytes(50_000, seed=62)
LENGTH = 7000


def sums_of(content: bytes, length: int = LENGTH) -> PieceSums:
    """The sums of a content's pieces."""
    summer = PieceSummer(length)
    summer.update(content)
    return PieceSums(length, summer.digests())


def check(damage: Damage | None, damaged: bytes) -> None:
    """A good piece is one whose bytes are right, and each such piece is one."""
    right = [p for p in piece_ranges(len(CONTENT), LENGTH) if damaged[p.start : p.stop] == CONTENT[p.start : p.stop]]
    assert ([piece.range for piece in damage.good] if damage else []) == right
    for piece in damage.good if damage else ():
        assert piece.digest == piece_digest(CONTENT[piece.start : piece.stop])
    if damage is not None:
        assert damage.pieces == len(damage.good) + damage.bad == 8
        assert damage.bytes_to_fetch == len(CONTENT) - sum(piece.length for piece in right)
        assert not damage.is_guess


@given(st.sets(st.integers(0, len(CONTENT) - 1), max_size=8), st.integers(0, len(CONTENT) + 10))
@pytest.mark.shows("C17")
def test_whichever_digests_are_known(tmp_path_factory: pytest.TempPathFactory, flipped: set[int], length: int) -> None:
    """Those of this machine, with or without those of the file, or those of the manifest: all say the same."""
    flips = bytearray(CONTENT + bytes(10))
    for at in flipped:
        flips[at] ^= 1
    damaged = bytes(flips[:length])
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(damaged)
    size, sums = len(CONTENT), sums_of(CONTENT)
    check(find_damage(path, size, sums=sums), damaged)
    check(find_damage(path, size, digests=digests_of(CONTENT, LENGTH)), damaged)
    check(find_damage(path, size, sums=sums, found=sums_of(damaged, 999)), damaged)
    if length == size:
        check(find_damage(path, size, sums=sums, found=sums_of(damaged)), damaged)
    assert find_damage(path, size) is None


@pytest.mark.parametrize("cut", [0, 1, MIB, MIB + 1, 2 * MIB - 5])
@pytest.mark.parametrize("holes", [(), (0,), (MIB + 4096,)])
@pytest.mark.shows("C17")
def test_a_guess_without_digests(tmp_path: Path, cut: int, holes: tuple[int, ...]) -> None:
    """Bad is what is missing at the end, and what has a block of zeros; where neither is, nobody knows."""
    size = 3 * MIB
    damaged = bytearray(seeded_bytes(size, seed=63))
    for hole in holes:
        damaged[hole : hole + 4096] = bytes(4096)
    path = tmp_path / "damaged"
    path.write_bytes(damaged[: size - cut])
    damage = find_damage(path, size, may_guess=True)
    whole = (size - cut) // MIB
    good = [start for start in range(0, whole * MIB, MIB) if not any(start <= hole < start + MIB for hole in holes)]
    if len(good) in (0, 3):
        assert damage is None
    else:
        assert damage is not None
        assert damage.is_guess
        assert [piece.start for piece in damage.good] == good


def test_what_cannot_be_read_is_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sector that the disk has lost costs its piece. A file that cannot be opened at all gives nothing."""
    path = tmp_path / "damaged"
    path.write_bytes(CONTENT)
    real = os.preadv

    def preadv(descriptor: int, buffers: list[memoryview], at: int) -> int:
        if LENGTH <= at < 2 * LENGTH:
            raise OSError(5, "Input/output error")
        return real(descriptor, buffers, at)

    monkeypatch.setattr(os, "preadv", preadv)
    damage = find_damage(path, len(CONTENT), sums=sums_of(CONTENT))
    assert damage is not None
    assert LENGTH not in [piece.start for piece in damage.good]
    assert damage.bad == 1
    assert find_damage(tmp_path / "missing", len(CONTENT), sums=sums_of(CONTENT)) is None
    assert find_damage(tmp_path, len(CONTENT), sums=sums_of(CONTENT)) is None


def test_reading_ends_when_told(tmp_path: Path) -> None:
    """Whoever no longer waits does not hold up a thread for minutes."""
    path = tmp_path / "damaged"
    path.write_bytes(CONTENT)
    seen: list[int] = []
    digests = PieceDigests(LENGTH, digests_of(CONTENT, LENGTH).sha256)

    def go_on(count: int) -> bool:
        seen.append(count)
        return len(seen) < 2

    assert find_damage(path, len(CONTENT), digests=digests, go_on=go_on) is None
    assert seen == [LENGTH, 2 * LENGTH]

"""Which parts of a damaged file are right: never more than are, and never fewer than can be known."""

from __future__ import annotations

import hashlib
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
from tests.support.system import descriptors

CONTENT = seeded_bytes(50_000, seed=62)
LENGTH = 7000


def sums_of(content: bytes, length: int = LENGTH) -> PieceSums:
    """The sums of a content's pieces."""
    summer = PieceSummer(length)
    summer.update(content)
    return PieceSums(length, summer.digests())


def check(damage: Damage | None, damaged: bytes) -> None:
    """Check that good pieces are exactly those whose bytes are right."""
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
    """This machine's digests, with or without those of the file, and the manifest's: all give the same result."""
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


@pytest.mark.parametrize("cut", [0, 1, MIB, MIB + 1, 2 * MIB - 5])
@pytest.mark.parametrize("holes", [(), (0,), (MIB + 4096,)])
@pytest.mark.shows("C17")
def test_a_guess_without_digests(tmp_path: Path, cut: int, holes: tuple[int, ...]) -> None:
    """A missing end and a block of zeros count as bad; without either, the damage is hidden."""
    size = 3 * MIB
    damaged = bytearray(seeded_bytes(size, seed=63))
    for hole in holes:
        damaged[hole : hole + 4096] = bytes(4096)
    path = tmp_path / "damaged"
    path.write_bytes(damaged[: size - cut])
    damage = find_damage(path, size)
    whole = (size - cut) // MIB
    good = [start for start in range(0, whole * MIB, MIB) if not any(start <= hole < start + MIB for hole in holes)]
    if not good:
        assert damage is None
        return
    assert damage is not None
    assert damage.is_guess
    assert [piece.start for piece in damage.good] == good
    assert damage.is_hidden == (len(good) == 3)
    assert damage.bytes_to_fetch == (MIB if damage.is_hidden else size - len(good) * MIB)


@pytest.mark.parametrize("digests", [None, PieceDigests(LENGTH, (hashlib.sha256(CONTENT[:LENGTH]).hexdigest(),))])
def test_a_single_piece_is_the_wrong_one(tmp_path: Path, digests: PieceDigests | None) -> None:
    """Nothing of the file can be used, whatever is said of the piece."""
    path = tmp_path / "damaged"
    path.write_bytes(CONTENT[:LENGTH])
    assert find_damage(path, LENGTH, digests=digests) is None


def test_what_two_lists_of_digests_tell(tmp_path: Path) -> None:
    """Where the file's own digests are known it is not read: here it is not even there."""
    path, size, sums = tmp_path / "missing", len(CONTENT), sums_of(CONTENT)
    damaged = bytearray(CONTENT)
    damaged[LENGTH] ^= 1
    check(find_damage(path, size, sums=sums, found=sums_of(bytes(damaged))), bytes(damaged))
    assert find_damage(path, size, sums=sums, found=sums_of(bytes(size))) is None
    assert find_damage(path, size, sums=sums, found=sums_of(CONTENT, 999)) is None


def test_what_is_too_long_hides_nothing(tmp_path: Path) -> None:
    """Its end is what is wrong, as far as anybody knows."""
    path = tmp_path / "damaged"
    path.write_bytes(CONTENT)
    damage = find_damage(path, LENGTH, sums=sums_of(CONTENT[:LENGTH]))
    assert damage is not None
    assert (damage.bad, damage.is_hidden) == (0, False)


@pytest.mark.posix
def test_what_cannot_be_read_is_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sector lost by the disk costs its piece. A file that cannot be opened at all gives nothing."""
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
    """A caller that no longer waits does not occupy a thread for minutes."""
    path = tmp_path / "damaged"
    path.write_bytes(CONTENT)
    seen: list[int] = []
    digests = PieceDigests(LENGTH, digests_of(CONTENT, LENGTH).sha256)

    def go_on(count: int) -> bool:
        seen.append(count)
        return len(seen) < 2

    before = descriptors()
    assert find_damage(path, len(CONTENT), digests=digests, go_on=go_on) is None
    assert seen == [LENGTH, 2 * LENGTH]
    assert descriptors() == before

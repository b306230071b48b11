"""Sums of pieces: kept of what was verified, found under its checksum alone, believed only undamaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from grym_fetch.core.content_hasher import PieceSummer
from grym_fetch.core.digest import Checksum
from grym_fetch.core.piece_digests import PieceSums
from grym_fetch.disk.piece_sums import FOLDER, PieceSumsStore, sums_name
from grym_fetch.disk.state import StateFolder
from grym_fetch.testing import seeded_bytes

CONTENT = seeded_bytes(5000, seed=78)
CHECKSUM = Checksum.of(CONTENT)
OTHER = Checksum.of(b"other")


def sums_of(content: bytes, length: int) -> PieceSums:
    """The sums of a content's pieces."""
    summer = PieceSummer(length)
    summer.update(content)
    return PieceSums(length, summer.digests())


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    """The state folder of an assets folder that is there."""
    return StateFolder(tmp_path)


def file_of(state: StateFolder, checksum: Checksum) -> Path:
    """Where the sums of a content are."""
    return state.own / FOLDER / sums_name(checksum)


def test_sums_are_found_again(state: StateFolder) -> None:
    """Another process finds the sums of a content, and of no other one."""
    sums = sums_of(CONTENT, 1000)
    PieceSumsStore(state).record(CHECKSUM, len(CONTENT), sums)
    assert PieceSumsStore(state).find(CHECKSUM) == sums
    assert PieceSumsStore(state).find(OTHER) is None


@pytest.mark.parametrize("at", [0, 20, 90, 200, -2])
def test_damaged_sums_say_nothing(state: StateFolder, at: int) -> None:
    """A flipped bit anywhere, and the sums are not believed."""
    PieceSumsStore(state).record(CHECKSUM, len(CONTENT), sums_of(CONTENT, 1000))
    damaged = bytearray(file_of(state, CHECKSUM).read_bytes())
    damaged[at] ^= 1
    file_of(state, CHECKSUM).write_bytes(damaged)
    assert PieceSumsStore(state).find(CHECKSUM) is None


@pytest.mark.shows("C17")
def test_sums_under_another_name_say_nothing(state: StateFolder) -> None:
    """What a file of sums is about, it says itself."""
    PieceSumsStore(state).record(CHECKSUM, len(CONTENT), sums_of(CONTENT, 1000))
    file_of(state, CHECKSUM).rename(file_of(state, OTHER))
    assert PieceSumsStore(state).find(OTHER) is None


@pytest.mark.parametrize(
    ("size", "sums"),
    [(5000, sums_of(CONTENT, 5000)), (5001, sums_of(CONTENT, 5000)), (7000, sums_of(CONTENT, 1000))],
    ids=["one piece", "more than one was hashed", "not all was hashed"],
)
def test_sums_that_are_not_kept(state: StateFolder, size: int, sums: PieceSums) -> None:
    """The sums of a single piece say no more than the checksum; those that are too few are not of this content."""
    PieceSumsStore(state).record(CHECKSUM, size, sums)
    assert PieceSumsStore(state).find(CHECKSUM) is None
    assert not file_of(state, CHECKSUM).exists()


def test_where_nothing_can_be_kept(tmp_path: Path) -> None:
    """Without an assets folder, nothing is kept, and nobody is told."""
    store = PieceSumsStore(StateFolder(tmp_path / "missing"))
    store.record(CHECKSUM, len(CONTENT), sums_of(CONTENT, 1000))
    assert store.find(CHECKSUM) is None
    assert not (tmp_path / "missing").exists()

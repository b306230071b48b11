"""The stamps of millions of files are found without being held."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from grym_fetch.core.errors import DiskFull
from grym_fetch.disk.database import Database
from grym_fetch.disk.stamps import Stamps
from tests.support.system import descriptors


def filled(count: int, max_held_bytes: int) -> Stamps:
    stamps = Stamps(max_held_bytes=max_held_bytes)
    for n in range(count):
        stamps.put(f"/a/{n % 100}", b"line %d" % n)
    return stamps


def test_the_last_line_for_a_path_counts_wherever_it_is() -> None:
    """In memory, in the database, or moved from one to the other."""
    few, many = filled(150, 1 << 20), filled(150, 64)
    assert (few.is_spilled, many.is_spilled) == (False, True)
    for stamps in (few, many):
        assert [stamps.get(f"/a/{n}") for n in (0, 49, 50, 99)] == [b"line 100", b"line 149", b"line 50", b"line 99"]
        assert stamps.get("/b") is None
        assert len(stamps) == 100
    assert sorted(few.lines()) == sorted(many.lines())


def test_the_later_of_two_logs_counts() -> None:
    """Whichever of them is too long to be held."""
    for first, second in ((64, 1 << 20), (1 << 20, 64), (64, 64)):
        stamps = Stamps(max_held_bytes=first)
        stamps.add(filled(100, first))
        later = Stamps(max_held_bytes=second)
        for n in range(10):
            later.put(f"/a/{n}", b"later")
        stamps.add(later)
        assert (stamps.get("/a/3"), stamps.get("/a/30")) == (b"later", b"line 30")


@pytest.mark.linux
@pytest.mark.parametrize("act", [lambda stamps: len(stamps), lambda stamps: list(stamps.lines())], ids=["len", "lines"])
def test_a_disk_that_is_full_costs_what_was_known(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, act: Callable[[Stamps], object]
) -> None:
    """Whenever that is noticed: nothing is known then, which costs a hash, and later stamps are kept again."""
    before = descriptors()
    stamps = filled(100, 64)
    stamps.put("/new", b"new")

    def fail(*_: object) -> None:
        raise DiskFull("a temporary database", "is full")

    with monkeypatch.context() as patch:
        patch.setattr(Database, "run_all", fail)
        assert not act(stamps)
    assert descriptors() == before
    assert [stamps.get(path) for path in ("/a/0", "/new")] == [None, None]
    assert "what was verified earlier is not known in this run" in caplog.text
    stamps.put("/later", b"later")
    assert (stamps.get("/later"), len(stamps)) == (b"later", 1)


def test_a_database_that_cannot_be_read_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was in it is not known; what was put since is found all the same."""
    stamps = filled(100, 64)
    stamps.put("/a/1", b"1")

    def fail(*_: object) -> None:
        raise DiskFull("a temporary database", "cannot be read")

    monkeypatch.setattr(Database, "rows", fail)
    assert stamps.get("/a/1") == b"1"
    assert stamps.get("/a/0") is None
    assert not stamps.is_spilled

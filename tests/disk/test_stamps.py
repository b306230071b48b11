"""The stamps of millions of files are found without being held."""

from __future__ import annotations

from grym_fetch.disk.stamps import Stamps


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

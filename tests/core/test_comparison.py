"""What to compare next: each piece once at most, and no more than needed to surround what differs."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_fetch.core.comparison import LEAST_PIECES, ROUNDS, Comparison
from grym_fetch.core.ranges import ByteRange

LENGTH = 10


def cost(count: int, wrong: set[int]) -> tuple[int, int]:
    """How many of so many pieces are asked for until all the wrong ones came, and how often the whole is looked at."""
    comparison = Comparison(ByteRange(at * LENGTH, (at + 1) * LENGTH) for at in range(count))
    asked: set[int] = set()
    looks = 0
    while not comparison.is_over:
        chosen = comparison.next_round()
        now = {at for at in range(count) if chosen.run_from(at * LENGTH) > at * LENGTH}
        assert now
        assert not now & asked, "asked for twice"
        asked |= now
        for at in sorted(now & wrong):
            comparison.differs(at * LENGTH + 3, at * LENGTH + 4)
        comparison.settle()
        if comparison.is_news:
            looks += 1
            if wrong <= asked:
                break
            comparison.still_wrong()
    assert wrong <= asked
    return len(asked), looks


@given(st.integers(1, 70), st.sets(st.integers(0, 69)))
@pytest.mark.shows("C17")
def test_each_piece_is_asked_for_once(count: int, wrong: set[int]) -> None:
    """Whatever is wrong is found, for what all of it costs at most, and the whole is not looked at each time."""
    asked, looks = cost(count, {at for at in wrong if at < count})
    assert asked <= count
    assert looks <= ROUNDS + 2


def test_one_wrong_piece_costs_half_on_average() -> None:
    """It can be anywhere; the search ends once it is found."""
    costs = [cost(256, {at})[0] for at in range(256)]
    assert max(costs) <= 256
    assert statistics.mean(costs) <= 256 * 0.56


@pytest.mark.parametrize("first", [0, 40, 100, 170])
def test_what_is_wrong_in_one_place_is_surrounded(first: int) -> None:
    """A third costs that third, the first round, and what it takes to find its ends."""
    asked, looks = cost(256, set(range(first, first + 86)))
    assert asked <= 86 + 256 // ROUNDS + 2 * ROUNDS
    assert looks == 1


def test_another_content_is_soon_noticed() -> None:
    """If all differs, the rest is asked for at once."""
    comparison = Comparison(ByteRange(at, at + 1) for at in range(256))
    assert comparison.next_round().total == 256 // ROUNDS
    comparison.differs(0, 256)
    comparison.settle()
    assert not comparison.is_news
    assert comparison.next_round().total == 256 - 256 // ROUNDS


def test_few_pieces_take_one_round() -> None:
    """A round is not shorter than a request for each connection."""
    comparison = Comparison(ByteRange(at, at + 1) for at in range(LEAST_PIECES))
    assert comparison.next_round().total == LEAST_PIECES
    assert comparison.is_over

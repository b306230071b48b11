"""An attempt: how fast it is, and what its origin learns from that."""

from __future__ import annotations

import asyncio

import pytest

from grym_fetch.core.origins import Origin
from grym_fetch.core.segments import Segment
from grym_fetch.transfer.attempt import SLOW_S, Attempt


@pytest.fixture
def attempt() -> Attempt:
    """An attempt that began at 10 s."""
    return Attempt(Segment(0, 10_000, 0), Origin(0, "https://origin.example/a"), "origin.example:443", began=10.0)


def receive(attempt: Attempt, now: float, count: int) -> None:
    """Let this many bytes arrive."""
    attempt.arrived(now, count)
    attempt.segment.position += count


def test_what_came_first_says_nothing_of_the_speed(attempt: Attempt) -> None:
    """The first bytes were on their way before they were measured; the speed is that of the others."""
    receive(attempt, 12.0, 5000)
    receive(attempt, 14.0, 1000)
    attempt.measure(14.0)
    assert attempt.origin.rate == 500.0
    assert attempt.origin.wait == 2.0


@pytest.mark.parametrize(("seconds", "rate"), [(SLOW_S / 2, None), (SLOW_S, 1 / SLOW_S)])
def test_one_that_brought_nothing(attempt: Attempt, seconds: float, rate: float | None) -> None:
    """An attempt that took long was slow; a short one says nothing. Either way its origin learns how long it waited."""
    attempt.measure(10.0 + seconds)
    assert attempt.origin.rate == rate
    assert attempt.origin.wait == seconds


def test_when_its_speed_is_known(attempt: Attempt) -> None:
    """The speed is known after a certain time without a byte, or since the first one."""
    assert attempt.rate(12.0) == 0.0
    attempt.turn_at = 10.0
    assert [attempt.is_known(now, 3.0) for now in (12.9, 13.0)] == [False, True]
    receive(attempt, 13.0, 100)
    assert [attempt.is_known(now, 3.0) for now in (15.9, 16.0)] == [False, True]
    assert attempt.rate(13.0) > 0


@pytest.mark.shows("N24")
async def test_one_that_was_asked_for_ahead_has_its_time(attempt: Attempt) -> None:
    """An attempt that waits long for its turn is on a slow connection. Once its turn comes, it is judged anew."""
    assert [attempt.is_known(now, 3.0) for now in (12.9, 13.0)] == [False, True]
    attempt.task = asyncio.current_task()
    assert not attempt.is_known(20.0, 3.0), "it has not begun yet"
    attempt.turn_at = 20.0
    assert [attempt.is_known(now, 3.0) for now in (22.9, 23.0)] == [False, True]

"""Progress: it never goes back, never passes the total, and counts only what came over the network."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_fetch.core.progress import RATE_WINDOW_S, SAMPLE_INTERVAL_S, Meter, Pace, Progress

happenings = st.lists(
    st.tuples(st.floats(0, 20), st.integers(0, 5000), st.integers(0, 3000)),
    max_size=40,
)


@given(happenings, st.none() | st.integers(0, 2000), st.integers(0, 3000))
@pytest.mark.shows("U8")
def test_never_back_and_never_past_the_total(
    steps: list[tuple[float, int, int]], total: int | None, begun: int
) -> None:
    """While the total stands, bytes only grow and stay within it, whatever is reported."""
    now, received = 0.0, 0
    meter = Meter(now=now, total=total, on_hand=begun)
    seen = [meter.read(now)]
    for pause, came, on_hand in steps:
        now += pause
        received += came
        meter.advance(now, on_hand=on_hand, received=received, total=total)
        seen.append(meter.read(now))
    for before, after in pairwise(seen):
        assert after.bytes >= before.bytes
        assert after.percentage >= before.percentage
    for state in seen:
        assert total is None or state.bytes <= total
        assert 0.0 <= state.percentage <= 100.0
        assert state.rate >= 0.0
        assert state.eta is None or state.eta >= 0.0


@given(happenings, st.integers(0, 2000))
def test_a_total_that_shrinks_pulls_down(steps: list[tuple[float, int, int]], last: int) -> None:
    """Bytes never exceed the total as it is known now."""
    meter = Meter(now=0.0, total=3000)
    for pause, came, on_hand in steps:
        meter.advance(pause, on_hand=on_hand, received=came, total=3000)
    meter.advance(100.0, on_hand=0, received=0, total=last)
    assert meter.read(100.0).bytes <= last


@pytest.mark.shows("U8")
def test_a_restart_freezes() -> None:
    """After a restart the old mark stays until it is passed."""
    meter = Meter(now=0.0, total=1000)
    shown = []
    for now, on_hand in enumerate([500, 0, 200, 499, 501, 1000], start=1):
        meter.advance(float(now), on_hand=on_hand, received=0, total=1000)
        shown.append(meter.read(float(now)).bytes)
    assert shown == [500, 500, 500, 500, 501, 1000]


def test_what_was_on_disk_has_no_speed() -> None:
    """The rate counts only what was received, never what a run found or proved on disk."""
    meter = Meter(now=0.0, total=10_000, on_hand=5000)
    meter.advance(1.0, on_hand=9000, received=0, total=10_000)
    state = meter.read(1.0)
    assert (state.bytes, state.rate, state.eta) == (9000, 0.0, None)
    meter.advance(2.0, on_hand=9500, received=500, total=10_000)
    assert meter.read(2.0) == Progress(bytes=9500, total=10_000, rate=250.0, eta=2.0)


def test_the_rate_is_that_of_the_window() -> None:
    """A steady stream shows its own speed; after a change, only the window counts."""
    meter = Meter(now=0.0)
    received, now = 0, 0.0
    for speed in (1000, 100):
        for _ in range(200):
            now += 0.125
            received += speed // 8
            meter.advance(now, on_hand=received, received=received, total=None)
        assert meter.read(now).rate == pytest.approx(speed, rel=0.05)


def test_a_silence_is_not_averaged_in_for_ever() -> None:
    """After a long silence the rate is that of the last seconds, not diluted by the silence before them."""
    meter = Meter(now=0.0)
    received, now = 0, 0.0
    for pause in (0.0, 100.0):
        now += pause
        for _ in range(32):
            now += 0.125
            received += 125
            meter.advance(now, on_hand=received, received=received, total=None)
    # Four of the five seconds of the window were at 1000 B/s.
    assert meter.read(now).rate == pytest.approx(800, rel=0.1)


@given(happenings)
def test_memory_is_bounded(steps: list[tuple[float, int, int]]) -> None:
    """However often it is told, a meter keeps only the samples that fit its window."""
    meter = Meter(now=0.0)
    now = 0.0
    for pause, came, on_hand in steps:
        for part in range(20):
            meter.advance(now + pause * part / 20, on_hand=on_hand, received=came, total=None)
        now += pause
    assert len(meter._samples) <= RATE_WINDOW_S / SAMPLE_INTERVAL_S + 3


@pytest.mark.shows("U9")
def test_a_report_is_due_once_an_interval() -> None:
    """Reports are due at most every tenth of a second, and the first one at once."""
    meter = Meter(now=0.0)
    moments = [0.0, 0.05, 0.0999, 0.1, 0.15, 0.2001, 5.0, 5.0]
    assert [meter.is_due(now) for now in moments] == [True, False, False, True, False, True, True, False]


@pytest.mark.parametrize(
    ("done", "total", "expected"),
    [(0, None, 0.0), (10, None, 0.0), (0, 0, 100.0), (0, 10, 0.0), (1, 8, 12.5), (10, 10, 100.0)],
)
@pytest.mark.shows("U8")
def test_percentage(done: int, total: int | None, expected: float) -> None:
    """An unknown total is 0 %; an empty file is complete."""
    assert Progress(done, total, 0.0, None).percentage == expected


@pytest.mark.shows("U8")
def test_time_left() -> None:
    """Time left is the missing bytes at the current rate; unknown without a total or a rate, and 0 at the end."""
    meter = Meter(now=0.0)
    meter.advance(1.0, on_hand=100, received=100, total=None)
    assert meter.read(1.0).eta is None
    meter.advance(2.0, on_hand=200, received=200, total=1000)
    assert meter.read(2.0).eta == pytest.approx(8.0)
    meter.advance(10.0, on_hand=1000, received=1000, total=1000)
    assert meter.read(10.0).eta == 0.0
    assert Meter(now=0.0, total=1000).read(0.0) == Progress(0, 1000, 0.0, None)


def test_a_pace_is_exact_while_it_is_steady() -> None:
    """The pace is exact from the beginning, whatever the size of the portions."""
    for portion in (0.001, 0.05, 0.2):
        pace = Pace(5.0)
        for step in range(1, round(2 / portion)):
            pace.advance(5.0 + step * portion, round(1e6 * portion))
            assert pace.rate(5.0 + step * portion) == pytest.approx(1e6, rel=0.3 if portion > 0.1 else 0.07)


def test_a_pace_forgets() -> None:
    """A fast connection that stalls is known to be slow within two seconds."""
    pace = Pace(0.0)
    for step in range(1, 1000):
        pace.advance(step / 100, 10_000)
    assert pace.rate(9.99) == pytest.approx(1e6, rel=0.05)
    assert pace.rate(10.5) < 0.4e6
    assert pace.rate(12.0) < 0.01e6
    assert Pace(3.0).rate(3.0) == Pace(3.0).rate(4.0) == 0.0

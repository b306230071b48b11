"""Sizes, speeds and times as people read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_fetch.core.figures import (
    count_files,
    format_clock,
    format_delay,
    format_left,
    format_part,
    format_rate,
    format_seconds,
    format_size,
)

GIB, MIB = 2**30, 2**20


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (102_297, "99.9 KiB"),
        (102_399, "100 KiB"),
        (MIB - 1, "1.0 MiB"),
        (512 * MIB, "512 MiB"),
        (GIB - 1, "1.0 GiB"),
        (GIB * 3 // 2, "1.5 GiB"),
        (10**24, "867362 EiB"),
    ],
)
def test_sizes_are_in_binary_units(count: int, shown: str) -> None:
    """A size has three or four digits, and moves to the next unit instead of showing 1024."""
    assert format_size(count) == shown


@given(st.integers(0, 2**62))
def test_a_size_fits_its_column(count: int) -> None:
    """No realistic size takes more than eight characters, and no speed more than ten."""
    assert len(format_size(count)) <= 8
    assert len(format_rate(count)) <= 10


@pytest.mark.parametrize(
    ("seconds", "clock", "said"),
    [
        (0, "0 s", "0.0 s"),
        (11.2, "12 s", "11 s"),
        (59.7, "1:00", "1 min 0 s"),
        (185, "3:05", "3 min 5 s"),
        (3723, "1:02:03", "1 h 2 min"),
        (400_000, "4 days", "111 h 6 min"),
        (1e12, "> 3 yrs", "277777777 h 46 min"),
    ],
)
def test_times_are_short(seconds: float, clock: str, said: str) -> None:
    """Time left fits in eight characters however long it is; a duration uses two units."""
    assert (format_clock(seconds), format_seconds(seconds)) == (clock, said)


@pytest.mark.parametrize(
    ("count", "total", "shown"),
    [
        (38_482_739, 60 * MIB, "36.7 of 60.0 MiB"),
        (0, 17 * GIB, "0.0 of 17.0 GiB"),
        (200 * MIB, 640 * MIB, "200 of 640 MiB"),
        (5 * MIB, 640 * MIB, "5.0 of 640 MiB"),
        (3, 900, "3 of 900 B"),
        (2 * MIB, MIB, "1.0 of 1.0 MiB"),
    ],
)
def test_a_part_has_the_unit_of_the_whole(count: int, total: int, shown: str) -> None:
    """Both numbers use one unit, so they compare at a glance, and the part never exceeds the total."""
    assert format_part(count, total) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.2, "1 s"),
        (59, "59 s"),
        (60, "1 min"),
        (121, "3 min"),
        (3600, "1 h 0 min"),
        (7500, "2 h 5 min"),
        (1e6, "11 days"),
    ],
)
def test_time_left_is_said_in_words(seconds: float, shown: str) -> None:
    """Time left is worded as a person would, and never less than it takes."""
    assert format_left(seconds) == shown


def test_one_file_is_no_plural() -> None:
    """One file is singular, and thousands are separated."""
    assert [count_files(count) for count in (0, 1, 10_000)] == ["0 files", "1 file", "10,000 files"]


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.0, "at once"), (0.04, "at once"), (0.06, "in 0.1 s"), (75, "in 1 min 15 s")]
)
def test_a_delay_that_nobody_notices_is_none(seconds: float, shown: str) -> None:
    """It is never ``in 0.0 s``."""
    assert format_delay(seconds) == shown

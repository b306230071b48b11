"""Ranges and the two header codecs, checked against models that are too simple to be wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_fetch.core.ranges import (
    ByteRange,
    ContentRangeField,
    IntervalSet,
    parse_content_range,
    parse_length,
    range_header,
)
from tests.support.properties import examples

LIMIT = 60
positions = st.integers(0, LIMIT)
operations = st.lists(st.tuples(st.sampled_from(["add", "remove"]), positions, positions), max_size=30)


def runs(model: set[int]) -> list[ByteRange]:
    """The maximal runs of a set of positions, in order."""
    found: list[ByteRange] = []
    for position in sorted(model):
        if found and found[-1].stop == position:
            found[-1] = ByteRange(found[-1].start, position + 1)
        else:
            found.append(ByteRange(position, position + 1))
    return found


def build(steps: list[tuple[str, int, int]]) -> tuple[IntervalSet, set[int]]:
    """An interval set and its model after the same steps."""
    intervals, model = IntervalSet(), set[int]()
    for name, start, stop in steps:
        if name == "add":
            intervals.add(start, stop)
            model |= set(range(start, stop))
        else:
            intervals.remove(start, stop)
            model -= set(range(start, stop))
    return intervals, model


@pytest.mark.parametrize(("start", "stop"), [(0, 0), (5, 5), (5, 4), (-1, 3), (-3, -1)])
def test_a_range_is_never_empty_and_never_negative(start: int, stop: int) -> None:
    """A range that is empty or negative cannot be made."""
    with pytest.raises(ValueError, match="not a byte range"):
        ByteRange(start, stop)


@given(operations)
def test_an_interval_set_is_a_set_of_positions(steps: list[tuple[str, int, int]]) -> None:
    """After any additions and removals, the members are the sorted, disjoint, non-adjacent runs of the same set."""
    intervals, model = build(steps)
    assert list(intervals) == runs(model)
    assert intervals.total == len(model)
    assert bool(intervals) == bool(model)


@given(operations, positions, positions)
def test_what_is_asked_of_an_interval_set(steps: list[tuple[str, int, int]], start: int, stop: int) -> None:
    """Ends of runs and starts of gaps are those of a set of positions."""
    intervals, model = build(steps)
    end = start
    while end in model:
        end += 1
    assert intervals.run_from(start) == end
    missing = runs(set(range(start, stop)) - model)
    assert intervals.next_gap(start, stop) == (missing[0] if missing else None)


@given(operations)
def test_equality_is_that_of_the_members(steps: list[tuple[str, int, int]]) -> None:
    """Two sets with the same bytes are equal, whatever the order of additions; a copy is independent."""
    intervals, model = build(steps)
    again = IntervalSet(ByteRange(position, position + 1) for position in sorted(model, reverse=True))
    assert again == intervals
    again.add(LIMIT + 1, LIMIT + 2)
    assert again != intervals
    assert intervals != model
    assert repr(intervals).count("[") == len(runs(model))


@pytest.mark.parametrize("other", [ByteRange(1, 5), ByteRange(0, 4)])
def test_sets_that_differ_at_one_end_differ(other: ByteRange) -> None:
    """Sets differ if they begin or end elsewhere."""
    assert IntervalSet([ByteRange(0, 5)]) != IntervalSet([other])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bytes 0-9/10", ContentRangeField(ByteRange(0, 10), 10)),
        ("bytes 0-0/1", ContentRangeField(ByteRange(0, 1), 1)),
        ("bytes 100-199/1000", ContentRangeField(ByteRange(100, 200), 1000)),
        ("bytes 0-9/*", ContentRangeField(ByteRange(0, 10), None)),
        ("bytes */10", ContentRangeField(None, 10)),
        ("bytes */0", ContentRangeField(None, 0)),
        ("BYTES 0-9/10", ContentRangeField(ByteRange(0, 10), 10)),
        ("  bytes  0-9/10 ", ContentRangeField(ByteRange(0, 10), 10)),
        ("bytes 007-009/0010", ContentRangeField(ByteRange(7, 10), 10)),
        (f"bytes 0-9/{2**62}", ContentRangeField(ByteRange(0, 10), 2**62)),
        # RFC 9110 section 14.4: invalid where the last position is before the first, or the total not after the last.
        ("bytes 9-0/10", None),
        ("bytes 0-9/9", None),
        ("bytes 0-0/0", None),
        ("bytes */*", None),
        ("bytes *", None),
        ("bytes 0-9", None),
        ("bytes 0-/10", None),
        ("bytes -9/10", None),
        ("bytes 0-9/", None),
        ("bytes=0-9/10", None),
        ("bytes0-9/10", None),
        ("bytes: 0-9/10", None),
        ("bytes 0 - 9 / 10", None),
        ("bytes +0-9/10", None),
        ("bytes -1-9/10", None),
        ("bytes 0-9/-10", None),
        ("bytes 0x0-9/10", None),
        ("bytes 0-9/10, bytes 10-19/20", None),
        ("bytes 0-9/10 0-9/10", None),
        ("items 0-9/10", None),
        ("none", None),
        ("", None),
        ("bytes 0-9/10\x00", None),
        ("bytes ٠-٩/١٠", None),
        # Letters and spaces that only Unicode equates with ASCII ones: U+017F is a long s, U+00A0 a no-break space.
        ("byte\u017f 0-9/10", None),
        ("bytes\u00a00-9/10", None),
        # Beyond every file: 2**63 has 19 digits, and int() of thousands is slow or refused.
        (f"bytes 0-9/{'9' * 20}", None),
        (f"bytes 0-{'9' * 20}/*", None),
        (f"bytes {'0' * 19}1-9/10", None),
        (f"bytes 0-9/{'9' * 10_000}", None),
        (f"bytes 0-9/{2**63}", None),
        (f"bytes 0-{2**63}/*", None),
    ],
)
@pytest.mark.shows("R5", "B65")
def test_reads_a_content_range(text: str, expected: ContentRangeField | None) -> None:
    """Only what RFC 9110 section 14.4 calls valid is read, and no number that no file could have."""
    assert parse_content_range(text) == expected


@given(st.integers(0, 2**60), st.integers(1, 2**60), st.none() | st.integers(0, 2**60))
def test_a_content_range_round_trips(start: int, length: int, beyond: int | None) -> None:
    """Every range and total that can be written reads back, and its request names the same positions."""
    wanted = ByteRange(start, start + length)
    total = None if beyond is None else wanted.stop + beyond
    text = range_header(wanted).replace("=", " ") + f"/{'*' if total is None else total}"
    assert parse_content_range(text) == ContentRangeField(wanted, total)


@given(st.text(max_size=40) | st.from_regex(r"bytes [-0-9*/ ]{0,20}", fullmatch=True))
@examples(200)
@pytest.mark.shows("R5", "B65")
def test_a_content_range_is_total(text: str) -> None:
    """Any text gives a valid range or none, never an exception."""
    found = parse_content_range(text)
    if found is not None and found.range is not None and found.total is not None:
        assert found.range.stop <= found.total


def test_a_range_request_is_inclusive() -> None:
    """A half-open range is written with its last position (RFC 9110 section 14.2)."""
    assert range_header(ByteRange(0, 1)) == "bytes=0-0"
    assert range_header(ByteRange(100, 200)) == "bytes=100-199"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("10", 10),
        ("0010", 10),
        (str(2**62), 2**62),
        ("", None),
        ("-1", None),
        ("+1", None),
        ("1.0", None),
        ("1e3", None),
        ("5a", None),
        ("0x10", None),
        ("1_000", None),
        ("10, 10", None),
        (" 10", None),
        ("10\n", None),
        ("١٠", None),
        ("9" * 20, None),
        ("9" * 10_000, None),
        (str(2**63), None),
    ],
)
@pytest.mark.shows("N7", "D18")
def test_reads_a_content_length(text: str, expected: int | None) -> None:
    """A length is plain digits, below 2**63, and nothing else (RFC 9110 section 8.6)."""
    assert parse_length(text) == expected

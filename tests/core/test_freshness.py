"""When a manifest is too old: its expiry and the order of its versions."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_fetch.core.errors import ManifestError
from grym_fetch.core.freshness import parse_expiry, version_number, why_stale
from grym_fetch.core.manifest_parser import parse_manifest

pytestmark = pytest.mark.shows("M16")

NEW_YEAR = 1_767_225_600.0  # 2026-01-01T00:00:00Z


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-01T00:00:00Z", NEW_YEAR),
        ("2026-01-01t00:00:00z", NEW_YEAR),
        ("2026-01-01T02:00:00+02:00", NEW_YEAR),
        ("2025-12-31T18:30:00-05:30", NEW_YEAR),
        ("2026-01-01T00:00:00.500Z", NEW_YEAR + 0.5),
    ],
)
def test_reads_a_time(text: str, expected: float) -> None:
    """RFC 3339: a zone is required; upper and lower case are both right."""
    assert parse_expiry(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "never", "2026-01-01", "2026-01-01T00:00:00", "2026-13-01T00:00:00Z", "2026-02-30T00:00:00Z",
     "20260101T000000Z", "2026-01-01 00:00:00Z", "2026-01-01T24:00:01Z", "2026-01-01T00:00:00+99:00",
     "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00",
     " 2026-01-01T00:00:00Z", "0000-01-01T00:00:00Z", "٢٠٢٦-01-01T00:00:00Z", "2026-W01-1T00:00:00Z"],
)  # fmt: skip
def test_refuses_what_is_no_time(text: str) -> None:
    """A time that is ambiguous, or that another program could read differently, is a problem of the manifest."""
    with pytest.raises(ValueError, match="is not a valid time; allowed: a time with a zone"):
        parse_expiry(text)


@given(st.text() | st.text("0123456789-:.TZ+ ", max_size=40))
def test_a_time_is_read_or_refused(text: str) -> None:
    """Text that is not a time raises `ValueError` and nothing else."""
    with suppress(ValueError):
        assert isinstance(parse_expiry(text), float)


@given(st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)))  # noqa: DTZ001 - hypothesis adds the zone
def test_a_time_is_read_as_it_was_written(moment: datetime) -> None:
    """Any moment of the calendar reads back unchanged."""
    assert parse_expiry(moment.isoformat()) == moment.timestamp()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1", (1,)), ("1.0", (1,)), ("v1.0.0", (1,)), ("1.10", (1, 10)), ("0", (0,)), ("0.0", (0,)),
     ("2025.3.9", (2025, 3, 9)), (None, None), ("", None), ("1.0-rc1", None),
     ("2025-03-09", None), ("-1", None), ("1e9", None), ("1.", None),
     ("٣", None), ("1" * 21, None), (".".join("1" * 9), None), ("1\n", None)],
)  # fmt: skip
def test_which_versions_can_be_compared(text: str | None, expected: tuple[int, ...] | None) -> None:
    """Numbers joined by dots can be compared, ignoring zeros at the end; any other text is only a label."""
    assert version_number(text) == expected


@pytest.mark.parametrize(
    ("version", "last_seen", "reason"),
    [
        ("1.1", "1.0", None),
        ("1.0", "1", None),
        ("1.10", "1.9", None),
        ("1.9", "1.10", "is version 1.9, older than version 1.10"),
        ("1", "1.0.1", "is version 1, older than version 1.0.1"),
        ("1.0", None, None),
        (None, None, None),
        ("nightly", None, None),
        (None, "1", "has no version, which cannot be compared with version 1"),
        ("night\x1bly", "1", "has the version 'night\\x1bly', which cannot be compared"),
        ("1", "nightly", None),
    ],
)
def test_a_version_must_not_fall(version: str | None, last_seen: str | None, reason: str | None) -> None:
    """A version seen before counts only if it can be compared; then a manifest cannot evade it by omitting its own."""
    why = why_stale(version, None, now=0.0, last_seen=last_seen)
    assert why == reason if reason is None else why is not None and why.startswith(reason)


def test_a_manifest_expires_on_the_second() -> None:
    """A manifest is valid until its expiry, to the second."""
    assert why_stale(None, NEW_YEAR, now=NEW_YEAR - 0.001, last_seen=None) is None
    why = why_stale(None, NEW_YEAR, now=NEW_YEAR, last_seen=None)
    assert why == "expired on 2026-01-01T00:00:00Z (it is 2026-01-01T00:00:00Z by this machine's clock)"


@pytest.mark.parametrize("more", [{}, {"extra": True}], ids=["plain", "by the models"])
@pytest.mark.parametrize("expires", ["2026-01-01T00:00:00Z", None])
def test_the_manifest_says_when_it_expires(expires: str | None, more: dict[str, object]) -> None:
    """Both ways of reading a manifest agree on its expiry."""
    data = json.dumps({"version": "1.0", "expires": expires, "assets": []} | more).encode()
    assert parse_manifest(data, "m").manifest.expires == (None if expires is None else NEW_YEAR)


@pytest.mark.parametrize("expires", ["tomorrow", 1767225600, True, [], ""])
def test_an_expiry_that_cannot_be_read_is_a_problem(expires: object) -> None:
    """A manifest whose expiry is unclear is not taken for one that never expires."""
    with pytest.raises(ManifestError, match=r"expires: .*allowed: a time with a zone"):
        parse_manifest(json.dumps({"expires": expires, "assets": []}).encode(), "m")

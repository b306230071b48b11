from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_fetch.core import events
from grym_fetch.core.events import Event
from grym_fetch.display.lines import (
    Chronicle,
    Mark,
    format_clock,
    format_rate,
    format_seconds,
    format_size,
)
from grym_fetch.display.model import DisplayModel
from tests.display.strategies import NAMES, any_event

GIB, MIB = 2**30, 2**20


def told(*happened: Event, verbose: int = 0) -> list[str]:
    model = DisplayModel({"a": "model.bin", **NAMES})
    chronicle = Chronicle(model, verbose=verbose)
    lines = []
    for event in happened:
        model.apply(event, 0.0)
        lines += [line.plain for line in chronicle.lines(event)]
    return lines


def finished(**changes: int) -> events.RunFinished:
    nothing = events.RunFinished(verified=0, reused=0, failed=0, downloaded_bytes=0, seconds=12.0)
    return replace(nothing, **changes)  # type: ignore[arg-type]


def test_a_life_is_told_in_one_line_a_change() -> None:
    """Each change of state makes one line with its reason; progress and verifying make none."""
    lines = told(
        events.RunStarted(assets=1, bytes=GIB),
        events.AssetPlanned(asset="a", size=GIB, resumed_bytes=512 * MIB),
        events.AssetWaiting(asset="a", holder="pid 12"),
        events.ProgressMade(asset="a", bytes=600 * MIB, total=GIB, rate=1e6),
        events.RetryScheduled(asset="a", url="https://x", attempt=1, delay=3.0, reason="status 503"),
        events.MirrorSwitched(
            asset="a", from_="https://x", to="https://u:p@m/f?k=1", reason="stalled", number=2, count=3
        ),
        events.AssetRestarted(asset="a", discarded=600 * MIB, reason="other content"),
        events.AssetVerifying(asset="a", bytes=GIB, total=GIB),
        events.AssetVerified(asset="a", path="p", checksum="c", size=GIB, seconds=12.0, downloaded_bytes=GIB),
        finished(verified=1, downloaded_bytes=GIB),
    )
    assert lines == [
        "1 file, 1.0 GiB",
        "model.bin: resuming at 512 MiB of 1.0 GiB",
        "model.bin: waiting for pid 12",
        "model.bin: attempt 1 failed, retrying in 3.0 s: status 503",
        "model.bin: now from mirror 2 of 3, https://m/f: stalled",
        "model.bin: starting over (600 MiB discarded): other content",
        "model.bin: verified, 1.0 GiB in 12 s (85 MiB/s)",
        "1 verified, 0 already there, 0 failed · 1.0 GiB in 12 s (85 MiB/s)",
    ]


def test_a_failure_tells_the_first_line_of_its_reason() -> None:
    """The line does not repeat the asset's id; the rest of the message is the command line's to print."""
    failed = events.AssetFailed(asset="a", error="DigestMismatch", message="a: checksum mismatch\n  expected 1")
    assert told(failed) == ["model.bin: failed: checksum mismatch"]
    assert told(events.AssetFailed(asset="a", error="DiskFull", message="\n")) == ["model.bin: failed: DiskFull"]


def test_an_unpinned_asset_is_never_called_verified() -> None:
    """What had no checksum is told as not verified."""
    event = events.AssetVerified(
        asset="a", path="p", checksum="c", size=1, seconds=0.0, downloaded_bytes=1, unverified=True
    )
    assert told(event) == ["model.bin: not verified: no checksum yet, 1 B in 0.0 s"]


def test_what_is_not_verified_is_counted_apart() -> None:
    """The summary has no word of it where everything is verified."""
    assert told(finished(verified=2, unverified=1))[-1].startswith("2 verified, 1 fetched but not verified, 0 already")
    assert told(finished(verified=2))[-1].startswith("2 verified, 0 already there")


def test_an_unpinned_asset_that_was_there_is_told_as_not_verified() -> None:
    """For ever: in a line of its own, and where there are many in the one that stands for them."""
    there = [events.AssetReused(asset=f"r{n}", path="p", unverified=n < 3 or None) for n in range(30)]
    few = told(events.RunStarted(assets=2, bytes=0), *there[2:4])
    assert few[1:] == ["r2: already there, not verified: no checksum yet", "r3: already there"]
    many = told(events.RunStarted(assets=30, bytes=0), *there, finished(reused=30))
    assert many[1] == "30 files already there, 3 of them not verified"


@pytest.mark.parametrize(
    ("assets", "reused", "verbose", "expected"),
    [(3, 3, 0, 3), (10_000, 20, 0, 20), (10_000, 10_000, 0, 1), (100, 100, 1, 100)],
)
@pytest.mark.shows("U9")
def test_many_files_that_were_already_there_make_one_line(
    assets: int, reused: int, verbose: int, expected: int
) -> None:
    """More than twenty reused files are summed up, unless the user asked for every detail."""
    there = [events.AssetReused(asset=f"r{number}", path="p") for number in range(reused)]
    lines = told(events.RunStarted(assets=assets, bytes=0), *there, finished(reused=reused), verbose=verbose)
    assert sum("already there" in line for line in lines[1:-1]) == expected
    assert lines[-1] == f"0 verified, {reused:,} already there, 0 failed · nothing downloaded, 12 s"


def test_the_summary_says_what_resuming_saved() -> None:
    """Bytes that were kept from an earlier run are told at the end."""
    lines = told(
        events.AssetPlanned(asset="a", size=GIB, resumed_bytes=512 * MIB),
        events.AssetVerified(asset="a", path="p", checksum="c", size=GIB, seconds=0.0, downloaded_bytes=512 * MIB),
        finished(verified=1, downloaded_bytes=512 * MIB),
    )
    assert lines[-1].endswith(" · 512 MiB in 12 s (43 MiB/s) · saved 512 MiB by resuming")


@given(st.lists(any_event, max_size=20))
@pytest.mark.shows("U1")
def test_a_line_is_one_line_of_harmless_text(happened: list[Event]) -> None:
    """No foreign text can break a line, nor bring a control character into it."""
    for line in told(*happened):
        assert line.isprintable()


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
    """A size has three or four digits, and is carried to the next unit rather than shown as 1024."""
    assert format_size(count) == shown


@given(st.integers(0, 2**62))
def test_a_size_fits_its_column(count: int) -> None:
    """No size of this world takes more than eight characters, no speed more than ten."""
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
    """Time left fits eight characters however long it is; a duration is told in two units."""
    assert (format_clock(seconds), format_seconds(seconds)) == (clock, said)


def test_news_is_marked_as_such() -> None:
    """A terminal can tell what to leave out unless it is asked to be verbose."""
    model = DisplayModel()
    event = events.AssetPlanned(asset="a", size=None, resumed_bytes=0)
    (line,) = Chronicle(model).lines(event)
    assert (line.mark, line.detail) == (Mark.NEWS, "downloading, size unknown")

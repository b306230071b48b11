from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_fetch.core import events
from grym_fetch.core.events import Event
from grym_fetch.display.lines import (
    MAX_REASON_CHARACTERS,
    Chronicle,
    Mark,
    Telling,
    short_reason,
)
from grym_fetch.display.model import DisplayModel
from tests.display.strategies import NAMES, any_event

GIB, MIB = 2**30, 2**20


def told(*happened: Event, verbose: int = 0) -> list[str]:
    model = DisplayModel({"a": "model.bin", **NAMES})
    chronicle = Chronicle(model, Telling(verbose, place="./assets", retries=5))
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
        "model.bin: retry 1 of 5 in 3.0 s: status 503",
        "model.bin: stalled; now from mirror 2 of 3, https://m/f",
        "model.bin: starting over (600 MiB discarded): other content",
        "model.bin: verified, 1.0 GiB in 12 s (85 MiB/s)",
        "1 file ready in ./assets · 1.0 GiB in 12 s (85 MiB/s)",
    ]


@pytest.mark.parametrize(
    ("error", "message", "attempts", "shown"),
    [
        ("DigestMismatch", "a: checksum mismatch\n  expected 1", (), "wrong checksum"),
        ("DiskFull", "\n", (), "disk full"),
        ("Odd", "\n", (), "Odd"),
        ("MirrorsExhausted", "a: could not be fetched: status 401: wants credentials; set X (http://h/p)", (), "401"),
        ("MirrorsExhausted", "a: any of its 2", ("https://a/1: status 404: not found", "https://b/1: no"), "no"),
        ("MirrorsExhausted", "", ("https://a/1: cannot connect: connection refused; doctor helps",), None),
        ("NotWritable", "a: permission denied (/x/y)", (), "permission denied"),
    ],
)
def test_a_failure_is_a_few_words(error: str, message: str, attempts: tuple[str, ...], shown: str | None) -> None:
    """The line repeats neither the asset's id nor the advice: the command line prints the whole message."""
    failed = events.AssetFailed(asset="a", error=error, message=message, attempts=attempts)
    shown = shown or "cannot connect: connection refused"
    assert told(events.RunStarted(assets=2, bytes=0), failed) == ["2 files", f"model.bin: failed: {shown}"]


def test_the_only_asset_fails_once() -> None:
    """The error of the command follows at once: neither a short line nor a sentence repeats it."""
    model = DisplayModel()
    chronicle = Chronicle(model)
    failed = events.AssetFailed(asset="a", error="DiskFull", message="")
    happened = events.RunStarted(assets=1, bytes=0), failed, finished(failed=1)
    assert [line.plain for event in happened for line in chronicle.lines(event)] == ["1 file"]
    assert chronicle.last_word is None


def test_a_long_reason_is_cut() -> None:
    """It is cut, however much a server says."""
    assert len(short_reason("x" * 500)) == MAX_REASON_CHARACTERS


def test_an_unpinned_asset_is_never_called_verified() -> None:
    """An asset without a checksum is reported as not verified."""
    event = events.AssetVerified(
        asset="a", path="p", checksum="c", size=1, seconds=0.0, downloaded_bytes=1, unverified=True
    )
    assert told(event) == ["model.bin: not verified: no checksum, 1 B in 0.0 s"]


def test_the_summary_has_no_zeros() -> None:
    """Counts of zero are left out."""
    assert told(finished(verified=5))[-1] == "5 files ready in ./assets"
    assert told(finished(reused=5))[-1] == "5 files ready in ./assets · all already there"
    assert told(finished(verified=2, reused=1))[-1] == "3 files ready in ./assets · 1 already there"
    assert (
        told(finished(verified=2, unverified=1))[-1] == "3 files ready in ./assets · 1 not verified, without a checksum"
    )
    assert told(finished()) == []


def test_where_something_failed_the_summary_is_kept_for_the_end() -> None:
    """The counts come last, after the failures, which the command reports."""
    model = DisplayModel()
    chronicle = Chronicle(model, Telling(place="./assets"))
    assert list(chronicle.lines(finished(verified=3, failed=2))) == []
    assert chronicle.last_word is not None
    assert chronicle.last_word.plain == "3 of 5 files ready in ./assets · 2 failed"
    list(chronicle.lines(finished(failed=2)))
    assert chronicle.last_word.plain == "2 files failed"


def test_an_interrupted_run_has_no_summary() -> None:
    """It did not reach its end: how far it got is reported elsewhere."""
    assert told(events.RunStarted(assets=3, bytes=0), finished(verified=1)) == ["3 files"]


def test_a_command_with_words_of_its_own_for_the_end() -> None:
    """What it measured is not called unverified; only failures are reported here."""
    chronicle = Chronicle(DisplayModel(), Telling(tells="failures"))
    verified = events.AssetVerified(
        asset="a", path="p", checksum="c", size=1, seconds=0.0, downloaded_bytes=1, unverified=True
    )
    there = events.AssetReused(asset="a", path="p", unverified=True)
    for event in (verified, there, finished(unverified=1)):
        assert list(chronicle.lines(event)) == []
    list(chronicle.lines(events.RunStarted(assets=2, bytes=0)))
    assert len(list(chronicle.lines(events.AssetFailed(asset="a", error="E", message="m")))) == 1


def test_the_time_in_the_queue_is_no_part_of_a_speed() -> None:
    """A file that waited for a connection was not slow; for a small one no speed is shown at all."""
    model = DisplayModel()
    chronicle = Chronicle(model)

    def lines(size: int) -> list[str]:
        model.apply(events.RunStarted(assets=1, bytes=size), 0.0)
        model.apply(events.AssetPlanned(asset="a", size=size, resumed_bytes=0), 0.0)
        model.apply(events.ProgressMade(asset="a", bytes=1, total=size, rate=1.0), 10.0)
        event = events.AssetVerified(asset="a", path="p", checksum="c", size=size, seconds=12.0, downloaded_bytes=size)
        model.apply(event, 12.0)
        return [line.plain for line in chronicle.lines(event)]

    assert lines(10 * MIB) == ["a: verified, 10.0 MiB in 2.0 s (5.0 MiB/s)"]
    assert lines(1000) == ["a: verified, 1000 B in 2.0 s"]


def test_an_unpinned_asset_that_was_there_is_told_as_not_verified() -> None:
    """It stays so: on a line of its own or, if there are many, on the line that stands for them."""
    there = [events.AssetReused(asset=f"r{n}", path="p", unverified=n < 3 or None) for n in range(30)]
    few = told(events.RunStarted(assets=2, bytes=0), *there[2:4])
    assert few[1:] == ["r2: already there, not verified: no checksum", "r3: already there"]
    many = told(events.RunStarted(assets=30, bytes=0), *there, finished(reused=30))
    assert many[1:] == [
        "30 files already there, 3 of them not verified",
        "30 files ready in ./assets · 3 not verified, without a checksum · all already there",
    ]
    again = told(events.RunStarted(assets=2, bytes=0), there[0], finished(unverified=1, reused=1))
    assert again[-1] == "2 files ready in ./assets · 2 not verified, without a checksum · 1 already there"


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
    assert sum(line.endswith("already there") for line in lines[1 : 1 + expected]) == expected
    assert len(lines) == 1 + expected + (reused == assets)
    if reused == assets:
        assert lines[-1] == f"{reused:,} files ready in ./assets · all already there"


def test_the_summary_says_what_resuming_saved() -> None:
    """Bytes kept from an earlier run are reported at the end."""
    lines = told(
        events.AssetPlanned(asset="a", size=GIB, resumed_bytes=512 * MIB),
        events.AssetVerified(asset="a", path="p", checksum="c", size=GIB, seconds=0.0, downloaded_bytes=512 * MIB),
        finished(verified=1, downloaded_bytes=512 * MIB),
    )
    assert lines[-1].endswith(" · 512 MiB in 12 s (43 MiB/s) · 512 MiB saved by resuming")


@given(st.lists(any_event, max_size=20))
@pytest.mark.shows("U1")
def test_a_line_is_one_line_of_harmless_text(happened: list[Event]) -> None:
    """Foreign text can neither break a line nor bring a control character into it."""
    for line in told(*happened):
        assert line.isprintable()


def test_news_is_marked_as_such() -> None:
    """A terminal can tell which lines to leave out unless it is verbose."""
    model = DisplayModel()
    event = events.AssetPlanned(asset="a", size=None, resumed_bytes=0)
    (line,) = Chronicle(model).lines(event)
    assert (line.mark, line.detail) == (Mark.NEWS, "downloading, size unknown")


def test_what_is_asked_in_another_way_is_no_retry_too_many() -> None:
    """After the last retry, the whole file may be asked for: that is not ``retry 2`` of one."""
    again = events.RetryScheduled(asset="a", url="https://x", attempt=2, delay=0.0, reason="status 503; asking for all")
    model = DisplayModel()
    (line,) = Chronicle(model, Telling(retries=1)).lines(again)
    assert line.plain == "a: one more try at once: status 503; asking for all"


def test_a_retry_without_delay_is_told_as_one() -> None:
    """A wait of 0.0 s is reported as a retry at once."""
    retry = events.RetryScheduled(asset="a", url="https://x", attempt=1, delay=0.0, reason="status 404: not found")
    (line,) = told(retry)
    assert line.endswith(" at once: status 404: not found")


def test_a_try_that_does_not_count_has_no_number() -> None:
    """A host that is only busy may be asked more often than `--retries` says."""
    busy = events.RetryScheduled(asset="a", url="https://x", attempt=0, delay=32.0, reason="status 503")
    (line,) = Chronicle(DisplayModel(), Telling(retries=1)).lines(busy)
    assert line.plain == "a: next try in 32 s: status 503"


def test_the_same_wait_is_told_once() -> None:
    """An asset that waits on for the same reason is no news, until something else happened to it."""
    wait = events.AssetWaiting(asset="a", holder="one.example, which allows 1 at a time")
    retry = events.RetryScheduled(asset="a", url="https://x", attempt=1, delay=1.0, reason="r")
    chronicle = Chronicle(DisplayModel())
    told = [line.detail for event in (wait, wait, retry, wait) for line in chronicle.lines(event)]
    assert [text.split()[0] for text in told] == ["waiting", "retry", "waiting"]

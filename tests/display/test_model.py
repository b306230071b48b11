from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_fetch.core import events
from grym_fetch.core.events import Event
from grym_fetch.display.model import DisplayModel, Phase, Row
from tests.display.strategies import NAMES, any_event


def model_after(*happened: Event, at: float = 0.0) -> DisplayModel:
    model = DisplayModel(NAMES)
    for event in happened:
        model.apply(event, at)
    return model


def only_row(model: DisplayModel, now: float = 0.0) -> Row:
    (row,) = model.snapshot(now).rows
    return row


def planned(asset: str = "a", size: int | None = 1000, resumed: int = 0) -> events.AssetPlanned:
    return events.AssetPlanned(asset=asset, size=size, resumed_bytes=resumed)


def progress(done: int, total: int | None = 1000, asset: str = "a", rate: float = 10.0) -> events.ProgressMade:
    return events.ProgressMade(asset=asset, bytes=done, total=total, rate=rate, eta=7.0)


def verified(asset: str = "a", size: int = 1000, downloaded: int | None = None) -> events.AssetVerified:
    came = size if downloaded is None else downloaded
    return events.AssetVerified(asset=asset, path="p", checksum="c", size=size, seconds=2.0, downloaded_bytes=came)


def test_what_is_not_verified_is_not_counted_as_verified() -> None:
    """It is still finished."""
    loose = replace(verified("b"), unverified=True)
    totals = model_after(verified("a"), loose, events.AssetReused(asset="c", path="p")).snapshot(0.0).totals
    assert (totals.verified, totals.unverified, totals.reused, totals.finished) == (1, 1, 1, 3)


@given(st.lists(st.tuples(any_event, st.floats(0, 3)), max_size=60))
@pytest.mark.shows("U8")
def test_bytes_never_go_back_nor_pass_the_total(happened: list[tuple[Event, float]]) -> None:
    """Whatever is published, no bytes of a row or of the run exceed the total or decrease, unless there is damage."""
    model, now = DisplayModel(NAMES), 0.0
    seen: dict[str, int] = {}
    in_all = 0
    for event, pause in happened:
        now += pause
        if isinstance(event, events.RunStarted):
            seen, in_all = {}, 0
        if isinstance(event, events.AssetDamaged):  # what was read of it is not on hand
            seen.pop(event.asset or "", None)
            in_all = 0
        model.apply(event, now)
        snapshot = model.snapshot(now)
        for row in snapshot.rows:
            assert row.bytes >= seen.get(row.asset, 0)
            assert row.total is None or row.bytes <= row.total
            seen[row.asset] = row.bytes
        totals = snapshot.totals
        assert in_all <= totals.bytes <= totals.total
        assert totals.finished + totals.failed + snapshot.under_way <= totals.assets
        in_all = totals.bytes


@pytest.mark.shows("U8")
def test_a_restart_freezes_the_bytes() -> None:
    """After a restart the old mark stays visible until it is passed, and the row says why."""
    model = model_after(planned(), progress(600), events.AssetRestarted(asset="a", discarded=600, reason="changed"))
    model.apply(progress(600, rate=50.0), 1.0)
    row = only_row(model)
    assert (row.phase, row.bytes, row.rate_at(1.0)) == (Phase.RESTARTED, 600, 50.0)
    model.apply(progress(700), 2.0)
    assert only_row(model).phase is Phase.DOWNLOADING


def test_a_report_from_before_a_retry_does_not_hide_the_retry() -> None:
    """Progress that brings no new bytes leaves the state at retrying."""
    retry = events.RetryScheduled(asset="a", url="u", attempt=1, delay=3.0, reason="503")
    model = model_after(planned(), progress(600), retry, progress(600))
    assert only_row(model).phase is Phase.RETRYING
    model.apply(progress(600), 3.5)
    assert only_row(model).phase is Phase.DOWNLOADING


@pytest.mark.shows("U10")
def test_a_late_report_does_not_hide_the_verification() -> None:
    """The last progress may be read after asset_verifying; the state stays at verifying."""
    model = model_after(planned(), events.AssetVerifying(asset="a", bytes=0, total=1000), progress(1000))
    assert only_row(model).phase is Phase.VERIFYING


def test_an_asset_that_ended_does_not_come_back() -> None:
    """Late progress after the end does not make a row."""
    model = model_after(planned(), verified(), progress(500))
    assert model.snapshot(0).rows == ()
    assert model.snapshot(0).totals.bytes == 1000


def test_rows_at_work_come_first_and_keep_their_order() -> None:
    """Rows at work are sorted by when they began, before everything queued; later progress changes no place."""
    model = model_after(*(planned(name) for name in "abcd"), progress(1, asset="c"), progress(1, asset="b"))
    model.apply(progress(2, asset="b"), 1.0)
    snapshot = model.snapshot(1.0)
    assert [row.asset for row in snapshot.rows] == ["c", "b", "a", "d"]
    assert (snapshot.working, snapshot.under_way) == (2, 4)


def test_a_silent_transfer_has_no_speed() -> None:
    """Without data a speed sinks, until it is gone after five seconds; a time left is gone at once."""
    row = only_row(model_after(planned(), progress(600)))
    assert (row.rate_at(1.0), row.eta_at(1.0), row.stalled_for(4.9)) == (10.0, 6.0, None)
    assert (row.rate_at(3.0), row.eta_at(1.5)) == (5.0, None)
    assert (row.rate_at(5.0), row.eta_at(5.0), row.stalled_for(5.0)) == (0.0, None, 5.0)


def test_the_announced_sum_serves_until_all_assets_are_seen() -> None:
    """The total is the announced one at first, and excludes the reused files once each asset is known."""
    model = model_after(events.RunStarted(assets=2, bytes=3000), planned())
    assert model.snapshot(0).totals.total == 3000
    model.apply(events.AssetReused(asset="b", path="p"), 0.0)
    assert model.snapshot(0).totals.total == 1000


def test_an_unknown_size_leaves_the_total_open() -> None:
    """While a size is unknown, there is no time left for the whole."""
    totals = model_after(planned(size=None), progress(600, total=None)).snapshot(0).totals
    assert (totals.open_ended, totals.eta, totals.bytes) == (True, None, 600)


def test_the_total_speed_counts_files_that_were_too_quick_to_report() -> None:
    """Small files that end between two reports still count towards the speed; resumed bytes do not."""
    model = model_after(planned("r", resumed=900))
    model.snapshot(0.0)
    for number in range(10):
        model.apply(planned(str(number)), 0.5)
        model.apply(verified(str(number)), 0.5)
    assert model.snapshot(1.0).totals.rate == 10_000.0


def test_resuming_saves_what_was_kept() -> None:
    """Resumed bytes count as saved only if their asset was verified and they were not discarded or fetched again."""
    model = model_after(planned("a", resumed=400), verified("a", downloaded=600))
    model.apply(planned("d", resumed=400), 0.0)
    model.apply(verified("d", downloaded=1000), 0.0)
    discarded = events.AssetRestarted(asset="b", discarded=400, reason="r")
    for event in (planned("b", resumed=400), discarded, verified("b", downloaded=1000), planned("c", resumed=300)):
        model.apply(event, 0.0)
    assert model.saved_bytes == 400


@pytest.mark.shows("C17")
def test_a_comparison_shows_how_far_it_is() -> None:
    """What was read before counts for nothing; what was not compared did not come, and is saved."""
    damaged = events.AssetDamaged(asset="a", path="p", pieces=10, bad=0, bytes=0, guess=True, at_most=1000)
    read = events.AssetVerifying(asset="a", bytes=1000, total=1000)
    model = model_after(events.RunStarted(assets=1, bytes=1000), read, damaged, planned(), progress(200), at=0.0)
    row = only_row(model)
    assert (row.phase, row.bytes, row.total) == (Phase.DOWNLOADING, 200, 1000)
    model.apply(progress(1000), 1.0)
    assert model.snapshot(1.0).totals.rate == 200
    model.apply(verified(downloaded=200), 1.0)
    assert model.saved_bytes == 800


@pytest.mark.shows("U1")
def test_names_are_neutralised_and_keep_their_ends() -> None:
    """No control character gets into the model, and a very long name keeps both ends."""
    model = DisplayModel({"a": "\x1b[31mred", "b": "begin" + "x" * 900 + ".tar"})
    assert model.name("a") == r"\x1b[31mred"
    assert model.name("b").startswith("begin")
    assert model.name("b").endswith(".tar")
    assert model.name(None) == "(no name)"


def test_a_file_that_is_read_fills_its_bar() -> None:
    """A present file that is being hashed is work under way: its bytes are those read so far."""
    model = model_after(events.AssetVerifying(asset="a", bytes=0, total=1000))
    model.apply(events.AssetVerifying(asset="a", bytes=640, total=1000), 1.0)
    row = only_row(model, 1.0)
    assert (row.phase, row.bytes, row.total, row.hashed) == (Phase.VERIFYING, 640, 1000, 0.64)
    assert model.snapshot(1.0).totals.bytes == 640
    model = model_after(planned(), progress(1000), events.AssetVerifying(asset="a", bytes=640, total=1000))
    assert only_row(model).bytes == 1000, "these have come, and are hashed now"


def test_the_time_an_asset_was_under_way() -> None:
    """The time runs from its first byte to its end, without the time in the queue."""
    model = model_after(planned())
    model.apply(progress(10), 5.0)
    model.apply(verified(), 7.0)
    assert model.last_seconds == 2.0
    assert model.progress() == (1000, 1000)


def test_what_waits_for_a_host_from_the_start_is_queued() -> None:
    """It has no bytes yet, and leaves the screen to those that have."""
    waiting = events.AssetWaiting(asset="a", holder="host, which allows 2 at a time")
    model = model_after(planned("a"), waiting, planned("b"), progress(10, asset="b"))
    totals = model.snapshot(0.0).totals
    assert (totals.active, totals.queued) == (1, 1)
    model = model_after(planned("a"), progress(10), waiting)
    assert model.snapshot(0.0).totals.active == 1


def test_a_cluster_has_a_row_for_each_worker() -> None:
    """With its files, its bytes and its speed; one that is silent goes. The totals are those of the run."""
    model = DisplayModel()
    model.apply(events.RunStarted(assets=3, bytes=300), 0.0)
    for n, node in enumerate(("one:1", "two:2", "one:1")):
        model.apply(events.AssetPlanned(asset=f"a{n}", size=100, resumed_bytes=20, node=node), 1.0)
        model.apply(events.ProgressMade(asset=f"a{n}", bytes=60, total=100, rate=1.0, node=node), 2.0)
    done = events.AssetVerified(
        asset="a0", path="/a0", checksum="", size=100, seconds=1.0, downloaded_bytes=80, node="one:1"
    )
    model.apply(done, 9.0)
    snapshot = model.snapshot(9.0)
    assert [(row.name, row.bytes) for row in snapshot.rows] == [("one:1 · 1 file", 120), ("two:2 · 0 files", 40)]
    assert snapshot.rows[0].rate > 0
    assert (snapshot.totals.assets, snapshot.totals.verified, snapshot.totals.bytes) == (3, 1, 220)
    assert [row.asset for row in model.snapshot(12.5).rows] == ["one:1"]

from __future__ import annotations

from dataclasses import replace

from grym_fetch.core import events
from grym_fetch.core.events import Event
from grym_fetch.display.report import MAX_MARKS, Life, Report, Share

A, B = "https://one.example/a.bin", "https://two.example/a.bin"


def followed(*happened: tuple[float, Event]) -> Report:
    """A report of events at these times."""
    report = Report({"a": A})
    for time, event in happened:
        report.apply(replace(event, time=time))
    return report


def progress(count: int) -> events.ProgressMade:
    return events.ProgressMade(asset="a", bytes=count, total=1000, rate=1.0)


def only_life(report: Report) -> Life:
    (life,) = report.lives
    return life


LIFE: tuple[tuple[float, Event], ...] = (
    (100.0, events.RunStarted(assets=1, bytes=1000)),
    (101.0, events.AssetPlanned(asset="a", size=1000, resumed_bytes=200)),
    (102.0, progress(300)),
    (104.0, progress(500)),
    (105.0, events.RetryScheduled(asset="a", url=A, attempt=1, delay=1.0, reason="503")),
    (106.0, events.MirrorSwitched(asset="a", from_=A, to=B, reason="503", number=2, count=2)),
    (107.0, progress(600)),
    (109.0, progress(1000)),
    (110.0, events.AssetVerifying(asset="a", bytes=1000, total=1000)),
    (111.0, events.AssetVerified(asset="a", path="/p", checksum="c", size=1000, seconds=10.0, downloaded_bytes=800)),
    (112.0, events.RunFinished(verified=1, reused=0, failed=0, downloaded_bytes=800, seconds=12.0)),
)


def test_bytes_count_for_the_server_that_was_asked() -> None:
    """What an earlier run has left counts for nobody; after a switch, the other server is credited."""
    report = followed(*LIFE)
    assert report.servers == {
        "https://one.example": Share(bytes=300, seconds=2.0, assets=1, retries=1, left=1),
        "https://two.example": Share(bytes=500, seconds=2.0, assets=1),
    }


def test_a_life_has_stretches_and_marks() -> None:
    """What was done from when until when, and what happened in between."""
    life = only_life(followed(*LIFE))
    assert life.stretches == [
        ("waits", 101.0, 102.0),
        ("comes", 102.0, 105.0),
        ("waits", 105.0, 107.0),
        ("comes", 107.0, 110.0),
        ("verifies", 110.0, 111.0),
    ]
    assert [time for time, _ in life.marks] == [105.0, 106.0]
    assert (life.end, life.ended, life.resumed, life.downloaded) == ("verified", 111.0, 200, 800)
    assert life.speed == 0.0, "of so little no speed is told"
    life.downloaded = 6 * 2**20
    assert life.speed == 2**20


def test_a_mark_says_nothing_of_nothing() -> None:
    """A retry without a delay is at once; where no byte was discarded, none is told of."""
    life = only_life(
        followed(
            (1.0, events.RetryScheduled(asset="a", url=A, attempt=1, delay=0.0, reason="404")),
            (2.0, events.AssetRestarted(asset="a", discarded=0, reason="no ranges")),
            (3.0, events.AssetRestarted(asset="a", discarded=4096, reason="changed")),
        )
    )
    told = [text for _, text in life.marks]
    assert told == ["retry 1 at once: 404", "started over: no ranges", "started over, 4,096 bytes discarded: changed"]


def test_the_origin_is_that_of_the_last_bytes() -> None:
    """A mirror that is turned to, and sends nothing, is not named as where the asset came from."""
    switched = LIFE[:6]
    assert only_life(followed(*switched)).origin == A
    assert only_life(followed(*switched, (107.0, progress(600)))).origin == B


def test_what_has_not_ended_is_unfinished() -> None:
    """After an interruption there is no end of the run."""
    report = followed(*LIFE[:4])
    assert report.finished is None
    assert only_life(report).end == "unfinished"


def test_a_failure_keeps_its_words() -> None:
    """And a file that was there is reused."""
    failed = events.AssetFailed(asset="a", error="BadStatus", message="a: status 401")
    assert only_life(followed(*LIFE[:3], (103.0, failed))).trouble == "a: status 401"
    assert only_life(followed((1.0, events.AssetReused(asset="a", path="/p")))).end == "reused"


def test_a_server_that_fails_for_hours_fills_no_memory() -> None:
    """Of many retries the first are kept, and all are counted."""
    retry = events.RetryScheduled(asset="a", url=A, attempt=1, delay=0.0, reason="503")
    life = only_life(followed(*((float(at), retry) for at in range(1, 3000))))
    assert (len(life.marks), life.retries) == (MAX_MARKS, 2999)


def test_what_has_ended_need_not_be_kept() -> None:
    """It is given away with all that its last event has told; what goes on stays."""
    ended: list[Life] = []
    report = Report({"a": A}, on_end=ended.append)
    for _, event in LIFE:
        report.apply(event)
    report.apply(events.AssetPlanned(asset="b", size=1, resumed_bytes=0))
    assert [(life.asset, life.path, life.checksum, life.origin) for life in ended] == [("a", "/p", "c", B)]
    assert only_life(report).asset == "b"
    assert len(report.servers) == 3

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from grym_fetch.core.comparison import Comparison
from grym_fetch.core.events import AssetPlanned, AssetVerifying, Event, MirrorSwitched, ProgressMade
from grym_fetch.core.origins import Origin
from grym_fetch.core.ranges import ByteRange
from grym_fetch.transfer.reporter import Reporter
from grym_fetch.transfer.state import DownloadState

SIZE = 1000


class Whole(SimpleNamespace):
    """The state of a transfer that has all of a content on hand."""

    comparison: Comparison | None

    def __init__(self) -> None:
        segments = SimpleNamespace(on_hand_bytes=SIZE, is_complete=True)
        super().__init__(size=SIZE, segments=segments, comparison=None, frontier=SimpleNamespace(position=0))

    def compare(self) -> None:
        """Ask for a round of pieces, none of which has come."""
        if self.comparison is None:
            self.comparison = Comparison(ByteRange(at, at + 100) for at in range(0, SIZE, 100))
        self.comparison.settle()
        self.lacks(sum(piece.length for piece in self.comparison.next_round()))

    def lacks(self, count: int) -> None:
        self.segments.on_hand_bytes, self.segments.is_complete = SIZE - count, not count


def begun(state: Whole, *, is_wrong: bool) -> tuple[Reporter, list[Event]]:
    told: list[Event] = []
    reporter = Reporter("a", cast(DownloadState, state), told.append, now=0.0, is_wrong=is_wrong)
    reporter.planned()
    return reporter, told


@pytest.mark.shows("C17", "U8")
def test_a_comparison_makes_progress() -> None:
    """What was asked for counts, round after round; the arrival of everything is told when no round follows."""
    state = Whole()
    reporter, told = begun(state, is_wrong=True)
    for number, left in enumerate((300, 0, 200, 0)):
        if left:
            state.compare()
        state.lacks(left)
        reporter.arrived(100, now=1.0 + number)
    reporter.full(now=9.0)
    assert isinstance(told[0], AssetPlanned)
    assert told[0].resumed_bytes == 0
    assert [each.bytes for each in told if isinstance(each, ProgressMade)] == [100, 400, 600, 800, SIZE]
    assert [type(each) for each in told].index(AssetVerifying) == len(told) - 1


def test_what_is_resumed_is_on_hand() -> None:
    """If nothing says that it is wrong, all of it counts from the first moment, and is all there."""
    reporter, told = begun(Whole(), is_wrong=False)
    reporter.arrived(1, now=1.0)
    assert [type(each) for each in told] == [AssetPlanned, ProgressMade, AssetVerifying]
    assert cast(AssetPlanned, told[0]).resumed_bytes == SIZE


def test_what_has_come_is_told_before_another_origin_is_asked() -> None:
    """So a report says of the right address that bytes came from it; where nothing is new, nothing is told."""
    state = Whole()
    reporter, told = begun(state, is_wrong=False)
    one, other = Origin(0, "https://a.invalid/f"), Origin(1, "https://b.invalid/f")
    for left, now in ((600, 1.0), (500, 1.01)):
        state.lacks(left)
        reporter.arrived(100, now=now)
    reporter.switched(one, other, "gone", count=2)
    reporter.switched(other, one, "gone", count=2)
    assert [type(each) for each in told[1:]] == [ProgressMade, ProgressMade, MirrorSwitched, MirrorSwitched]

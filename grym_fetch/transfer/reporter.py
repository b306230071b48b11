"""The events of one transfer, from its plan until every byte is here.

Rules: progress is measured only here. The arrival of everything is reported once, and no progress after it, unless the
transfer starts over. While a content that is wrong somewhere is compared, only what was asked for counts as on hand.
"""

from __future__ import annotations

from collections.abc import Callable

from grym_fetch.core.events import (
    AssetPlanned,
    AssetRestarted,
    AssetVerifying,
    AssetWaiting,
    Event,
    MirrorSwitched,
    ProgressMade,
    RetryScheduled,
)
from grym_fetch.core.origins import Origin
from grym_fetch.core.progress import Meter
from grym_fetch.core.segments import MIB
from grym_fetch.transfer.state import DownloadState

TOLD_EVERY_BYTES = 64 * MIB
"""After so many bytes that were hashed once all had arrived, it is told again."""


class Reporter:
    """Reports on one asset. ``now`` is a monotonic time in seconds; ``emit`` emits an event.

    ``is_wrong``: if all of it is on hand at first, that is known to be wrong somewhere, and counts for nothing.
    """

    def __init__(
        self,
        asset_id: str,
        state: DownloadState,
        emit: Callable[[Event], None],
        *,
        now: float,
        is_wrong: bool = False,
    ) -> None:
        self.received = 0
        """Bytes that have come, whatever became of them."""
        self._asset = asset_id
        self._state = state
        self._emit = emit
        self._resumed = 0 if is_wrong and state.segments.is_complete else state.segments.on_hand_bytes
        self._meter = Meter(now=now, total=state.size, on_hand=self._resumed)
        self._is_full = False
        self._untold_at: float | None = None
        self._told_hashed = 0

    def planned(self) -> None:
        """The transfer begins."""
        self._emit(AssetPlanned(asset=self._asset, size=self._state.size, resumed_bytes=self._resumed))

    def arrived(self, count: int, now: float) -> float | None:
        """This many bytes have come. Returns the speed in bytes per second whenever progress is reported."""
        self.received += count
        self._untold_at = now
        segments, comparison = self._state.segments, self._state.comparison
        on_hand = segments.on_hand_bytes - (0 if comparison is None else comparison.unasked_bytes)
        self._meter.advance(now, on_hand=on_hand, received=self.received, total=self._state.size)
        if segments.is_complete and comparison is None:
            self.full(now)
        elif self._meter.is_due(now):
            self.progress(now)
            return self._meter.read(now).rate
        return None

    def progress(self, now: float) -> None:
        """Report how far the transfer is."""
        if self._is_full:
            return
        self._untold_at = None
        state = self._meter.read(now)
        self._emit(
            ProgressMade(
                asset=self._asset,
                bytes=state.bytes,
                total=state.total,
                rate=round(state.rate, 1),
                eta=None if state.eta is None else round(state.eta, 1),
            )
        )

    def full(self, now: float) -> None:
        """Everything has arrived, and is being verified."""
        if self._is_full:
            return
        size = self._state.size
        assert size is not None
        self._meter.advance(now, on_hand=size, received=self.received, total=size)
        self.progress(now)
        self._is_full = True
        self._tell_hashed(size)

    def hashed(self) -> None:
        """More of what has arrived, perhaps in an earlier run, is hashed."""
        size = self._state.size
        if self._is_full and size is not None and self._state.frontier.position - self._told_hashed >= TOLD_EVERY_BYTES:
            self._tell_hashed(size)

    def _tell_hashed(self, size: int) -> None:
        self._told_hashed = self._state.frontier.position
        self._emit(AssetVerifying(asset=self._asset, bytes=min(self._told_hashed, size), total=size))

    def restarted(self, discarded: int, reason: str) -> None:
        """The transfer starts over, and this many bytes were discarded."""
        self._is_full, self._untold_at = False, None
        self._emit(AssetRestarted(asset=self._asset, discarded=discarded, reason=reason))

    def retries(self, origin: Origin, attempt: int, delay: float, reason: str) -> None:
        """An origin will be asked again in this many seconds."""
        self._emit(
            RetryScheduled(asset=self._asset, url=origin.shown, attempt=attempt, delay=round(delay, 3), reason=reason)
        )

    def waits(self, holder: str) -> None:
        """The asset must wait for ``holder`` although nothing about it has failed."""
        self._emit(AssetWaiting(asset=self._asset, holder=holder))

    def switched(self, left: Origin, chosen: Origin, reason: str, *, count: int) -> None:
        """Another one of ``count`` origins is asked from now on. Told after what has come from the last one."""
        if self._untold_at is not None:
            self.progress(self._untold_at)
        self._emit(
            MirrorSwitched(
                asset=self._asset,
                from_=left.shown,
                to=chosen.shown,
                reason=reason,
                number=chosen.number + 1,
                count=count,
            )
        )

"""Which part of an asset a connection is given next.

Rules: the first answer shows whether an origin serves ranges; until then, one connection asks it, or several at once
(see first_asks.py). After that each gets what a reader waits for, or else the next segment, within a window ahead of
what is hashed. When all is given out, the slowest shares what it has left, so that all end at about the same time.
"""

from __future__ import annotations

from collections.abc import Collection

from grym_fetch.core.origins import Origin
from grym_fetch.core.segments import HOPELESS_RATIO, UNBOUNDED, Segment, segment_length, share_of_slower
from grym_fetch.transfer.attempt import Attempt
from grym_fetch.transfer.context import TransferSettings
from grym_fetch.transfer.first_asks import FirstAsks
from grym_fetch.transfer.scheduler import Scheduler
from grym_fetch.transfer.state import DownloadState

STEAL_S = 0.5
"""A connection with more work left than this shares it with an idle one."""
HUNG_WAITS = 4
"""A connection whose first byte takes this many times as long as the others' is taken for hung."""


class SegmentChoice:
    """Gives out one asset's segments. ``attempts`` are those at work, kept up to date by the transfer."""

    def __init__(
        self,
        state: DownloadState,
        attempts: Collection[Attempt],
        first_asks: FirstAsks,
        scheduler: Scheduler,
        settings: TransferSettings,
    ) -> None:
        self._state = state
        self._attempts = attempts
        self._first_asks = first_asks
        self._scheduler = scheduler
        self._hosts = scheduler.hosts
        self._connections = settings.connections
        self._sizes = settings.sizes

    def is_asked(self, origin: Origin) -> bool:
        """Whether an attempt is at work there."""
        return any(attempt.origin is origin for attempt in self._attempts)

    def connections_to_come(self, origin: Origin, missing: int) -> int:
        """How many more connections ``missing`` bytes will keep busy once the origin has shown ranges."""
        length = segment_length(missing, self._connections, origin.rate, self._sizes, wait=origin.wait)
        return min(self._connections - len(self._attempts), -(-missing // length))

    def next(self, origin: Origin, host: str, now: float, *, may_steal: bool = True) -> Segment | None:
        """The segment that the origin should be asked for next; None if it must not be asked for anything now."""
        segments = self._state.segments
        if segments.is_complete:
            return None
        if origin.ranges is None and self._hosts.refuses_wholes(host) and segments.fits(self._sizes.first):
            origin.lost_ranges()  # a refused range would only be followed by this
        if origin.ranges is False:
            return segments.promise_all()
        if self._attempts if segments.size is None else origin.ranges is None and self.is_asked(origin):
            # The response under way will show how to go on, unless the next question is clear without it.
            if not self._first_asks.may_join(origin, host) or not self._scheduler.is_open_far_away(host):
                return None
            may_steal = False
        if segments.unpromised is None:
            return segments.promise(length=self._sizes.first, horizon=UNBOUNDED)
        length = segment_length(segments.unpromised, self._connections, origin.rate, self._sizes, wait=origin.wait)
        horizon = self._state.frontier.reach + self._sizes.window + self._connections * length
        segment = segments.promise_wanted(self._connections) or segments.promise(length=length, horizon=horizon)
        return segment or (self._steal(origin, now) if may_steal else None)

    def least_urgent(self) -> Attempt | None:
        """The attempt whose connection a reader should have: the one furthest ahead, unless one is ending already."""
        working = [attempt for attempt in self._attempts if attempt.task is not None]
        if any(attempt.task is not None and attempt.task.cancelling() for attempt in working):
            return None
        segments = self._state.segments
        spare = [each for each in working if not each.segment.whole and not segments.is_wanted(each.segment)]
        return max(spare, key=lambda attempt: attempt.segment.start, default=None)

    def slow_looks(self, rate: float, now: float) -> list[Attempt]:
        """The second looks whose connections others would use far better; ``rate``: another one's, in bytes/s."""
        return [
            each
            for each in self._attempts
            if each.segment.again
            and each.rate(now) * HOPELESS_RATIO < rate
            and each.is_known(now, max(STEAL_S, HUNG_WAITS * each.origin.wait))
        ]

    def _steal(self, origin: Origin, now: float) -> Segment | None:
        """Share what the slowest connection has left, so that both end at about the same time.

        If the window ends before the first unpromised bytes, all others are waiting for that connection.
        """
        if origin.rate is None:
            return None
        working = [
            (attempt.segment.remaining / max(attempt.rate(now), 1.0), attempt)
            for attempt in self._attempts
            if not (attempt.segment.whole or attempt.segment.again)
            and attempt.segment.remaining > 0
            and attempt.is_known(now, max(STEAL_S, HUNG_WAITS * origin.wait))
        ]
        if self._state.segments.unpromised:
            working = sorted(working, key=lambda entry: entry[1].segment.position)[:1]
        seconds_left, victim = max(working, key=lambda entry: entry[0], default=(0.0, None))
        if victim is None or seconds_left < max(STEAL_S, 2 * origin.wait):
            return None
        kept = share_of_slower(victim.segment.remaining, victim.rate(now), origin.rate, self._sizes)
        if kept is None:
            return None
        share = victim.segment.remaining - kept
        self._state.segments.cut(victim.segment, victim.segment.position + kept)
        if kept == 0 and victim.task is not None:
            victim.task.cancel()
        return self._state.segments.promise(length=share, horizon=UNBOUNDED)

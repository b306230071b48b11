"""One try to get one segment from one origin, and how fast it is."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from grym_fetch.core.origins import Origin
from grym_fetch.core.progress import Pace
from grym_fetch.core.segments import Segment
from grym_fetch.transfer.request import Request

SLOW_S = 0.5
"""An attempt that took this long and brought next to nothing was slow; a shorter one tells us nothing."""


@dataclass(eq=False, slots=True)
class Attempt:
    """One try to get one segment from one origin. Times are monotonic seconds."""

    segment: Segment
    origin: Origin
    host: str
    began: float
    reached: str = ""
    """The host that has answered, at the end of the redirects."""
    is_ahead: bool = False
    """Whether its request was sent ahead of its turn: its wait then tells us nothing."""
    is_early: bool = False
    """Whether it was sent beside another one before an answer had shown that the origin serves ranges."""
    is_surplus: bool = False
    """Whether it has failed in a way that does not count, since others are asked as well."""
    sent_ahead: Request | None = None
    """The request that was sent ahead of its turn."""
    turn_at: float | None = None
    """When its connection turned to it."""
    first_byte_at: float | None = None
    task: asyncio.Task[None] | None = None
    _first_bytes: int = 0
    _pace: Pace | None = None
    _changes: int = field(init=False)
    """How often the origin's content had changed when this was asked."""

    def __post_init__(self) -> None:
        """Remember what the request was made from."""
        self._changes = self.origin.changes

    def sees_change(self) -> None:
        """Its answer shows that the content has changed. If several were asked at once, that is still one change."""
        if self._changes == self.origin.changes:
            self.origin.changed()

    def arrived(self, now: float, count: int) -> None:
        """Bytes have come."""
        if self._pace is None:
            self.first_byte_at, self._first_bytes = now, count
            self._pace = Pace(self.began)
        self._pace.advance(now, count)

    def rate(self, now: float) -> float:
        """Its speed just now, in bytes per second."""
        return 0.0 if self._pace is None else self._pace.rate(now)

    def is_known(self, now: float, seconds: float) -> bool:
        """Whether it has lasted long enough to judge its speed: this long without a byte, or since the first byte.

        If it was asked for ahead, its wait for its turn is judged first, and then the time since its turn began.
        """
        if self.first_byte_at is not None:
            return now - self.first_byte_at >= seconds
        if self.task is None:
            return now - self.began >= seconds
        return self.turn_at is not None and now - self.turn_at >= seconds

    def burst(self, now: float) -> tuple[int, float]:
        """How many bytes have come, and the seconds since the first ones: this excludes the round trip."""
        if self.first_byte_at is None:
            return 0, 0.0
        return self.segment.position - self.segment.start, now - self.first_byte_at

    def measure(self, now: float) -> None:
        """The attempt is over: tell its origin how fast it was."""
        if not self.is_ahead:
            self.origin.waited((self.first_byte_at or now) - self.began)
        received = self.segment.position - self.segment.start
        if self.first_byte_at is not None and received > self._first_bytes:
            # The first bytes were already on their way when the clock started.
            self.origin.measured(received - self._first_bytes, now - self.first_byte_at)
        elif now - self.began >= SLOW_S and not self.is_ahead:
            self.origin.measured(max(received, 1), now - self.began)

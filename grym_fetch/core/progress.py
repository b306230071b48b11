"""Speed, time left and percentage, computed only here, so that display, JSON and callbacks agree.

Rules: numbers are absolute. Bytes on hand never go back and never exceed the total (a restart freezes them until the
old mark is passed; only a shrinking total lowers them). The rate counts what recently came over the network, never what
was already on disk.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

RATE_WINDOW_S = 5.0
"""The rate is an average over this much of the past."""
SAMPLE_INTERVAL_S = 0.1
"""The least time between two samples: bounds a meter's memory and the rate of its reports."""
PACE_S = 0.4
"""How fast a `Pace` forgets: bytes that came this long ago count about a third."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a transfer stands. ``rate`` in bytes per second, ``eta`` in seconds (None while unknown)."""

    bytes: int
    total: int | None
    rate: float
    eta: float | None

    @property
    def percentage(self) -> float:
        """Between 0 and 100. An unknown total gives 0; an empty file is complete."""
        if self.total is None:
            return 0.0
        return 100.0 if self.total == 0 else 100.0 * self.bytes / self.total


class Meter:
    """Turns byte counts into `Progress`. ``now`` is any monotonic time in seconds."""

    def __init__(self, *, now: float, total: int | None = None, on_hand: int = 0) -> None:
        self._total = total
        self._on_hand = self._clamped(on_hand)
        self._received = 0
        self._samples: deque[tuple[float, int]] = deque([(now, 0)])
        self._reported_at = float("-inf")

    def advance(self, now: float, *, on_hand: int, received: int, total: int | None) -> None:
        """Record the bytes on hand, the bytes received since the start, and the total as known now."""
        self._total = total
        self._on_hand = self._clamped(max(self._on_hand, on_hand))
        self._received = received
        if now - self._samples[-1][0] >= SAMPLE_INTERVAL_S:
            self._samples.append((now, received))
            while len(self._samples) > 2 and now - self._samples[1][0] >= RATE_WINDOW_S:
                self._samples.popleft()

    def is_due(self, now: float) -> bool:
        """Whether to report now: True at most once per `SAMPLE_INTERVAL_S`."""
        if now - self._reported_at < SAMPLE_INTERVAL_S:
            return False
        self._reported_at = now
        return True

    def read(self, now: float) -> Progress:
        """Return the state at ``now``."""
        since, received = self._samples[0]
        start = now - RATE_WINDOW_S
        if since < start and len(self._samples) > 1:
            # The window begins between two samples.
            later, more = self._samples[1]
            received += int((more - received) * min(1.0, (start - since) / (later - since)))
            since = start
        elapsed = now - since
        rate = max(0.0, (self._received - received) / elapsed) if elapsed > 0 else 0.0
        eta = (self._total - self._on_hand) / rate if self._total is not None and rate > 0 else None
        return Progress(bytes=self._on_hand, total=self._total, rate=rate, eta=eta)

    def _clamped(self, on_hand: int) -> int:
        return on_hand if self._total is None else min(on_hand, self._total)


class Pace:
    """The current speed of one connection: an exponentially weighted average that soon shows a slowdown."""

    def __init__(self, began: float) -> None:
        self._began = self._at = began
        self._weighted = 0.0

    def advance(self, now: float, count: int) -> None:
        """This many bytes have arrived."""
        self._weighted = self._weighted * math.exp((self._at - now) / PACE_S) + count
        self._at = now

    def rate(self, now: float) -> float:
        """Bytes per second."""
        weight = -math.expm1((self._began - now) / PACE_S) * PACE_S
        return self._weighted * math.exp((self._at - now) / PACE_S) / weight if weight > 0 else 0.0

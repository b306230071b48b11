"""Measures the latency and speed of each host over one connection, which say how much to ask for ahead of its turn.

Rules: a wait counts only for a request that was not sent ahead, and the worst recent one is kept; a speed is measured
from the first bytes of a body to its last, so that it includes no round trip. Times in seconds, speeds in bytes per
second.
"""

from __future__ import annotations

from dataclasses import dataclass

DECAY = 0.8
"""The weight of an earlier measurement against the next one."""
WAIT_DECAY = 0.7
FAR_S = 0.025
"""A host is far away if opening a connection to it took at least this long, each time."""
ROUND_TRIPS = 1.5
"""Ask ahead for as much as arrives in this many round trips: one, and a margin for variation."""


@dataclass(slots=True)
class _Speed:
    wait: float = 0.0
    count: float = 0.0
    seconds: float = 0.0
    opening: float = 0.0


class Speeds:
    """The measurements for each host."""

    def __init__(self) -> None:
        self._hosts: dict[str, _Speed] = {}

    def waited(self, host: str, seconds: float) -> None:
        """An answer that was not asked for ahead began after this long."""
        known = self._hosts.setdefault(host, _Speed())
        known.wait = max(seconds, WAIT_DECAY * known.wait)

    def opened(self, host: str, seconds: float) -> None:
        """A connection was opened in this time."""
        known = self._hosts.setdefault(host, _Speed())
        known.opening = min(seconds, known.opening or seconds)

    def is_far(self, host: str) -> bool:
        """Whether a round trip to it is worth saving at the price of a few requests in vain; False while unknown."""
        known = self._hosts.get(host)
        return known is not None and known.opening >= FAR_S

    def measured(self, host: str, count: int, seconds: float) -> None:
        """This many bytes of a body arrived in this time."""
        known = self._hosts.setdefault(host, _Speed())
        known.count = DECAY * known.count + count
        known.seconds = DECAY * known.seconds + seconds

    def wait(self, host: str) -> float:
        """Seconds from a request to its answer; 0 while unknown."""
        known = self._hosts.get(host)
        return 0.0 if known is None else known.wait

    def bytes_ahead(self, host: str, least: float = 0.0) -> float:
        """How many bytes arrive in a round trip, with a margin; or in ``least`` seconds, if that is longer."""
        known = self._hosts.get(host)
        if known is None or not known.count:
            return 0.0
        return known.count / max(known.seconds, 1e-6) * max(ROUND_TRIPS * known.wait, least)

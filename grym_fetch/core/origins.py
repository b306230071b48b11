"""The origins of one asset: who is asked now, who may be asked later, who never again.

Rules: they are asked in the manifest's order, one at a time, and kept until they fail; or, if that is wanted, all
together, each in proportion to its speed. Failures are counted once an
outage, not once a connection: an attempt that began before the last counted failure adds nothing. Real progress (a
piece) renews an origin's budget; a few bytes do not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from yarl import URL

from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import GrymFetchError, LengthMismatch, OriginFailure
from grym_fetch.core.http import NO_VALIDATOR, Validator
from grym_fetch.core.policy import GiveUp, Leave, Retry, RetryPolicy, Step, next_step
from grym_fetch.core.segments import MIB
from grym_fetch.core.text import redact_url

CRAWL_BYTES_PER_S = 1024.0
"""Bytes per second, over all connections to an origin. One that is slower for long is left, if there is another."""
PROGRESS_BYTES = 2 * MIB
"""Bytes that count as progress: they renew an origin's budget of retries."""


@dataclass(eq=False, slots=True)
class Origin:
    """One address an asset can come from, with what is known of it. Times are monotonic seconds."""

    number: int
    url: str
    validator: Validator = NO_VALIDATOR
    ranges: bool | None = None
    """Whether it serves ranges; None before it was asked."""
    target: URL | None = None
    """Where its redirects led; asked directly until it expires or fails."""
    server: str = ""
    """Stands for the one that served it last, at the end of the redirects."""
    is_mixed: bool = False
    """Whether what it gave in this run came from several servers: then it may be that only one of them was wrong."""
    target_is_own: bool = True
    """Whether every hop on the way there was at this origin itself: then its credentials go along."""
    failures: int = 0
    failed_at: float = float("-inf")
    ready_at: float = float("-inf")
    last_error: GrymFetchError | None = None
    is_out: bool = False
    changes: int = 0
    """How often its content changed while we fetched."""
    range_faults: int = 0
    sent_page: bool = False
    """Whether it sent a web page: the likely reason for a wrong checksum."""
    digest: Checksum | None = None
    """The digest of its whole content, where that is known and wrong."""
    rate: float | None = None
    """One connection's speed, in bytes per second, smoothed."""
    is_slow: bool = False
    """Whether it was left because it crawled. That happens to each once: then the line is slow, or all of them are."""
    wait: float = 0.0
    """Seconds from a request to the first byte, at the worst of late."""
    _progress: int = field(default=0, repr=False)

    @property
    def shown(self) -> str:
        """Its address without secrets."""
        return redact_url(self.url)

    def delivered(self, count: int) -> None:
        """Take note of bytes that came from here."""
        self._progress += count
        if self._progress >= PROGRESS_BYTES:
            self._progress = 0
            self.failures = 0

    def waited(self, seconds: float) -> None:
        """Take note of how long a first byte took, or takes at least."""
        self.wait = max(seconds, 0.7 * self.wait)

    def measured(self, count: int, seconds: float) -> None:
        """Take note of one connection's speed."""
        if seconds > 0 and count > 0:
            rate = count / seconds
            self.rate = rate if self.rate is None else 0.6 * self.rate + 0.4 * rate


class Origins:
    """All origins of one asset, and the one that is asked now, or first. ``together``: the others are asked as well."""

    def __init__(self, urls: Sequence[str], *, together: bool = False) -> None:
        self.all = tuple(Origin(number, url) for number, url in enumerate(urls))
        self.current = self.all[0]
        self.together = together and len(self.all) > 1
        self._crawls: tuple[Origin, float] | None = None
        """Who crawls, and since when."""

    @property
    def usable(self) -> list[Origin]:
        """Those that may still be asked."""
        return [origin for origin in self.all if not origin.is_out]

    def to_ask(self, now: float, at_work: Mapping[Origin, int]) -> list[Origin]:
        """Whom the next request may go to, the best first. ``at_work``: how many connections each has."""
        if not self.together:
            return [] if self.current.is_out or self.current.ready_at > now else [self.current]
        ready = [origin for origin in self.usable if origin.ready_at <= now]
        # One that sends all or nothing could not share the work.
        sharing = [origin for origin in ready if origin.ranges is not False]
        fastest = max((origin.rate or 0.0 for origin in self.all), default=0.0)

        def seats(origin: Origin) -> tuple[float, int]:
            # Connections go to origins as seats go to parties: the highest quotient has the next one (d'Hondt). Who was
            # not measured yet counts as fast, so that it is.
            rate = origin.rate or fastest or 1.0
            return -rate / (at_work.get(origin, 0) + 1), origin.number

        return sorted(sharing or ready, key=seats)

    def who_is_faster(self, rate: float, now: float, patience: float) -> Origin | None:
        """Take note of the speed of the one that is asked now; return whom to ask instead if it has crawled for long.

        ``rate`` in bytes per second, ``patience`` in seconds. Against a mirror that keeps us busy with a few bytes now
        and then. Where they are asked together, the idle ones take over by themselves.
        """
        if self.together or rate >= CRAWL_BYTES_PER_S:
            self._crawls = None
            return None
        if self._crawls is None or self._crawls[0] is not self.current:
            self._crawls = (self.current, now)
        others = [origin for origin in self.usable if not origin.is_slow and origin.ready_at <= now]
        fresh = min((o for o in others if o is not self.current), key=lambda o: (o.failures, o.number), default=None)
        if fresh is None or now - self._crawls[1] < patience:
            return None
        self.current.is_slow = True
        return fresh

    def failed(
        self,
        origin: Origin,
        error: GrymFetchError,
        *,
        began: float,
        now: float,
        policy: RetryPolicy,
        jitter: float,
    ) -> Step | None:
        """Take note of a failure and decide what follows. None if this outage was counted already."""
        origin.last_error = error
        if origin.is_out or began < origin.failed_at:
            return None
        origin.failed_at = now
        origin.failures += 1
        origin.target = None  # the next chain may end at a server that works
        alternatives = any(other is not origin and other.ready_at <= now for other in self.usable)
        step = next_step(error, failures=origin.failures, alternatives=alternatives, policy=policy, jitter=jitter)
        match step:
            case Retry(delay=delay) | Leave(delay=delay):
                origin.ready_at = max(origin.ready_at, now + delay)
            case GiveUp():
                origin.is_out = True
        return step

    def choose(self, now: float) -> Origin | None:
        """The origin to turn to when the current one is left: the best that is ready, else the one ready first."""
        usable = self.usable
        if not usable:
            return None
        return min(usable, key=lambda o: (max(o.ready_at - now, 0.0), o.failures, o.number))

    def agreement(self) -> str:
        """Advice where two or more have the same other content than the manifest names; empty if there are none."""
        digests = Counter(str(origin.digest) for origin in self.all if origin.digest is not None)
        lengths = Counter(o.last_error.actual for o in self.all if isinstance(o.last_error, LengthMismatch))
        for what, found in (("checksum", digests), ("size", lengths)):
            for value, count in found.most_common(1):
                if count > 1:
                    shown = f"{value} bytes" if what == "size" else value
                    return f"{count} addresses agree on {shown}: the {what} in the manifest is probably wrong."
        return ""

    def reasons(self) -> tuple[OriginFailure, ...]:
        """Why each origin failed, in the manifest's order."""
        return tuple(OriginFailure(o.shown, o.last_error) for o in self.all if o.last_error is not None)

"""The origins of one asset: which one to ask now, which later, and which never again.

Rules: origins are asked in the manifest's order, one at a time, and each is used until it fails; or, if the user wants
that, all together, each in proportion to its speed. Failures count once per outage, not once per connection: an attempt
that began before the last counted failure adds nothing. Real progress (a piece) renews an origin's retry budget; a few
bytes do not. Anyone may read an `Origin`, but it changes only through its methods, each of which says what happened.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from yarl import URL

from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import (
    BadResponse,
    BadStatus,
    ConnectionLost,
    GrymFetchError,
    IntegrityError,
    LengthMismatch,
    OriginFailure,
    Stalled,
    Throttled,
    TooManyRedirects,
    TransferError,
)
from grym_fetch.core.http import NO_VALIDATOR, Validator, may_be_for_the_range
from grym_fetch.core.policy import Decision, GiveUp, Leave, Retry, RetryPolicy, next_step
from grym_fetch.core.segments import MIB
from grym_fetch.core.text import redact_url

CRAWL_BYTES_PER_S = 1024.0
"""The least speed over all connections to an origin. If it stays slower, another one is used if there is one."""
PROGRESS_BYTES = 2 * MIB
"""What counts as progress: this many bytes renew an origin's retry budget."""
MAX_LITTLE = 64
"""How often an origin may send a few bytes where not much was asked for: more often, it has no ranges."""
DOUBTFUL_FAILURES = 2
"""After this many failures to serve a first range, the whole is asked for in between."""
MAX_CHANGES = 2
"""After this many content changes, an origin's validators count as noise, and only the checksum decides."""


@dataclass(eq=False, slots=True)
class Origin:
    """One address an asset can come from, with what is known about it. Times are monotonic seconds."""

    number: int
    url: str
    validator: Validator = field(default=NO_VALIDATOR, init=False)
    ranges: bool | None = field(default=None, init=False)
    """Whether it serves usable ranges; None until it has been asked."""
    target: URL | None = field(default=None, init=False)
    """The target of its redirects; asked directly until it expires or fails."""
    leads_to: URL | None = field(default=None, init=False)
    """Where the redirects lead that are followed now, before it is known what is there."""
    target_is_own: bool = field(default=True, init=False)
    """Whether every hop on the way there was at this origin itself: then its credentials are sent along."""
    target_cookie: str = field(default="", init=False, repr=False)
    """The ``Cookie`` field to send there, as set by the redirects on the way."""
    target_fields: Mapping[str, str] = field(default_factory=dict, init=False, repr=False)
    """Other fields to send there, as a Git LFS server wants."""
    server: str = field(default="", init=False)
    """Identifies the server that answered last, at the end of the redirects."""
    is_mixed: bool = field(default=False, init=False)
    """Whether its bytes in this run came from several servers: then perhaps only one of them is wrong."""
    failures: int = field(default=0, init=False)
    """Failures since its last progress, counting each outage once."""
    ready_at: float = field(default=float("-inf"), init=False)
    last_error: GrymFetchError | None = field(default=None, init=False)
    is_out: bool = field(default=False, init=False)
    """Whether it must not be asked again in this run."""
    is_set_aside: bool = field(default=False, init=False)
    """Whether others have different content, and are asked instead, as long as any of them can be."""
    changes: int = field(default=0, init=False)
    """How often its content changed while we fetched."""
    past_caches: bool = field(default=False, init=False)
    """Whether it is asked in a way that no cache answers for it."""
    has_sent_page: bool = field(default=False, init=False)
    """Whether it sent a web page: the likely reason for a wrong checksum."""
    encoding: str | None = field(default=None, init=False)
    """The encoding that it labelled its content with: the next likely reason."""
    digest: Checksum | None = field(default=None, init=False)
    """The digest of its whole content, if known and wrong."""
    has_mismatched: bool = field(default=False, init=False)
    """Whether all bytes came from here once, and were wrong."""
    rate: float | None = field(default=None, init=False)
    """One connection's speed, in bytes per second, smoothed."""
    has_crawled: bool = field(default=False, init=False)
    """Whether it was left because it crawled. Each is left only once: after that, the line or every origin is slow."""
    wait: float = field(default=0.0, init=False)
    """Seconds from a request to the first byte, at the recent worst."""
    has_given: bool = field(default=False, init=False)
    """Whether any missing bytes came from here in this run."""
    sent_at: float = field(default=float("-inf"), init=False)
    """When the last response with its bytes ended."""
    _away_since: float | None = field(default=None, init=False, repr=False)
    """When it first failed since it last made progress."""
    _progress: int = field(default=0, init=False, repr=False)
    _little: int = field(default=0, init=False, repr=False)
    """How often it has sent a few bytes only."""
    _range_faults: int = field(default=0, init=False, repr=False)
    """Since its last progress."""
    _is_ranges_doubted: bool = field(default=False, init=False, repr=False)
    """Whether it is asked for the whole since it refused ranges for a reason that is not known."""
    _has_proved_ranges: bool = field(default=False, init=False, repr=False)
    _failed_at: float = field(default=float("-inf"), init=False, repr=False)

    # -- what is read -----------------------------------------------------------------------------------------------

    @property
    def shown(self) -> str:
        """Its address without secrets."""
        return redact_url(self.url)

    @property
    def last_reason(self) -> str:
        """Why it last failed, without its address; empty if it never failed."""
        error = self.last_error
        return error.reason if isinstance(error, TransferError) else str(error or "")

    @property
    def is_unsteady(self) -> bool:
        """Whether its content has changed so often that its validators mean nothing."""
        return self.changes >= MAX_CHANGES

    def may_serve_the_whole(self, error: GrymFetchError) -> bool:
        """Whether it may serve the whole although it failed to serve a first range in this way."""
        if isinstance(error, Throttled) and error.retry_after is not None:
            return False  # it has said that it means: later
        if isinstance(error, BadStatus):
            return self.ranges is None and may_be_for_the_range(error.status)
        if isinstance(error, LengthMismatch):
            return self.ranges is None and (self.has_sent_page or not error.actual)
        return self.ranges is None and isinstance(error, ConnectionLost | Stalled | BadResponse | TooManyRedirects)

    def may_be_cached(self, error: GrymFetchError) -> bool:
        """Whether a cache on the way may have sent an old version of the content."""
        return isinstance(error, IntegrityError) and not (self.past_caches or self.has_sent_page)

    def patience_left(self, now: float, patience: float) -> float:
        """For how many more seconds to wait for it: at most ``patience``; 0 if it has sent nothing in this run."""
        if not self.has_given:
            return 0.0
        return patience if self._away_since is None else max(0.0, self._away_since + patience - now)

    # -- what happened: where it leads, and what it serves ----------------------------------------------------------

    def leads(self, here: URL) -> None:
        """A redirect leads there, perhaps not the last one."""
        self.leads_to = here

    def resolved(
        self, target: URL | None, *, is_own: bool, cookie: str = "", fields: Mapping[str, str] | None = None
    ) -> None:
        """Its redirects ended at ``target``; None if it answered itself."""
        self.target, self.leads_to = target, None
        self.target_cookie = cookie
        self.target_fields = fields or {}
        self.target_is_own = is_own

    def lost_target(self, target: URL) -> None:
        """``target`` has expired. All workers see the same expiry, and a late one must not drop a fresh address."""
        if self.target is target:
            self.target = None

    def served_by(self, server: str, *, has_given: bool) -> None:
        """A different server answered for it. ``has_given``: an earlier one had sent bytes in this run."""
        self.server = server
        self.is_mixed = self.is_mixed or has_given

    def identified(self, validator: Validator) -> None:
        """It sent the validator of its representation, now or to an earlier process."""
        self.validator = validator

    def changed(self) -> None:
        """It now serves a different representation."""
        self.changes += 1
        self.validator = NO_VALIDATOR

    def proved_ranges(self) -> None:
        """It served a usable range."""
        self.ranges = self._has_proved_ranges = True

    def refused_range(self) -> bool:
        """It refused a range, or sent other bytes. Return whether to ask it for everything in one response now.

        If ranges have worked before, once is a fault; twice, or on the first request, means that it has no ranges.
        """
        self._range_faults += 1
        if self.ranges and self._range_faults >= 2:
            self._is_ranges_doubted = True
            return True
        return self.ranges is None

    def sent_little(self) -> bool:
        """It sent a few bytes of a range. Return whether it does so again and again."""
        self._little += 1
        return self._little > MAX_LITTLE

    def lost_ranges(self) -> None:
        """From now on, ask it for everything in one response."""
        self.ranges = False

    def doubts_ranges(self) -> None:
        """It fails to serve a first range, perhaps only that: next time, ask it for the whole."""
        self.ranges, self._is_ranges_doubted = False, True

    def refused_whole(self) -> bool:
        """If it was asked for the whole in doubt, the range was not the reason: what was known of ranges holds.

        Return whether it was.
        """
        if not self._is_ranges_doubted:
            return False
        self.ranges = self._has_proved_ranges or None
        self._range_faults, self._is_ranges_doubted = 0, False
        return True

    def sent_page(self) -> None:
        """It sent a web page."""
        self.has_sent_page = True

    def sent_encoded(self, encoding: str) -> None:
        """It sent content under the label of an encoding."""
        self.encoding = encoding

    def stated(self, digest: Checksum) -> None:
        """It stated this digest of its whole content itself, and the digest is wrong."""
        self.digest = digest

    # -- what happened: bytes ---------------------------------------------------------------------------------------

    def progressed(self, count: int) -> None:
        """This many missing bytes came from here."""
        self._progress += count
        self.has_given = self.has_given or count > 0
        if self._progress >= PROGRESS_BYTES:
            self._progress = self.failures = self._range_faults = 0
            self._away_since = None

    def sent(self, now: float) -> None:
        """A response with bytes of it is over."""
        self.sent_at = now

    def waited(self, seconds: float) -> None:
        """A first byte took this long, or is taking at least this long."""
        self.wait = max(seconds, 0.7 * self.wait)

    def measured(self, count: int, seconds: float) -> None:
        """One connection brought this many bytes in this time."""
        if seconds > 0 and count > 0:
            rate = count / seconds
            self.rate = rate if self.rate is None else 0.6 * self.rate + 0.4 * rate

    def crawled(self, seconds: float) -> None:
        """It was left because it crawled for this long."""
        self.has_crawled = True
        self.last_error = Stalled(self.url, f"slower than {CRAWL_BYTES_PER_S / 1024:g} KiB/s for {seconds:g} s")

    # -- what happened: failures ------------------------------------------------------------------------------------

    def failed(self, error: GrymFetchError, *, began: float, now: float) -> bool:
        """An attempt that began at ``began`` has failed. Return whether it counts: an outage counts once."""
        self.last_error = error
        if self.is_out or began < self._failed_at:
            return False
        self._failed_at = now
        self._away_since = now if self._away_since is None else self._away_since
        self.failures += 1
        self.target = None  # the next redirects may lead to a server that works
        return True

    def became_last(self) -> None:
        """No other origin is left: if it is away, wait for it from now on."""
        self._away_since = None

    def postponed(self, until: float) -> None:
        """It must not be asked before ``until``; a later time already set stays."""
        self.ready_at = max(self.ready_at, until)

    def given_up(self) -> None:
        """It must not be asked again in this run."""
        self.is_out = True

    def set_aside(self) -> None:
        """Others have different content, and are believed before it."""
        self.is_set_aside = True

    def called_back(self) -> None:
        """It is needed after all: those that were believed fail, or crawl."""
        self.is_set_aside = False

    def reconsidered(self) -> None:
        """Its last answer may not have been about the content: ask it once more."""
        self.is_out = False
        self.ranges = self._has_proved_ranges or None
        self.recalled()

    def mismatched(self, digest: Checksum, wanted: Checksum) -> None:
        """All bytes came from here, and their digest is wrong: asking again would not help."""
        self.digest = digest
        self.has_mismatched = True
        self.last_error = IntegrityError(f"what it sent has the digest {digest}, not {wanted}")
        self.given_up()

    def lied(self, error: IntegrityError, *, is_out: bool) -> None:
        """A piece came from here alone, and is wrong. If it is still asked, then past all caches."""
        self.last_error = error
        if is_out:
            self.given_up()
        elif not self.past_caches:
            self.passes_caches()

    def restarted(self) -> None:
        """Its bytes are discarded and requested again, in the hope that a single server sends them all."""
        self.is_mixed = False

    def passes_caches(self) -> None:
        """From now on, no cache may answer for it. Forget its validator, which may be the cache's."""
        self.past_caches = True
        self.validator = NO_VALIDATOR

    def doubted(self) -> None:
        """Its ranges gave wrong content: ask it once more, for everything in one response and past all caches."""
        self.ranges = self._is_ranges_doubted = False
        self.is_out = False
        self.is_mixed = False
        self.passes_caches()
        self.recalled()

    def recalled(self) -> None:
        """It is needed now: drop its delay."""
        self.ready_at = float("-inf")


class Origins:
    """All origins of one asset, and the current one, which is asked first. ``together``: ask the others too."""

    def __init__(self, urls: Sequence[str], *, together: bool = False) -> None:
        self.all = tuple(Origin(number, url) for number, url in enumerate(urls))
        self.current = self.all[0]
        self.together = together and len(self.all) > 1
        self._crawling: tuple[Origin, float] | None = None
        """The origin that crawls, and since when."""

    @property
    def usable(self) -> list[Origin]:
        """The origins that may still be asked in this run."""
        return [origin for origin in self.all if not origin.is_out]

    def is_replaceable(self, origin: Origin, now: float) -> bool:
        """Whether another one could be asked now instead."""
        return any(other is not origin and other.ready_at <= now for other in self.usable)

    def to_ask(self, now: float, at_work: Mapping[Origin, int]) -> list[Origin]:
        """Return the origins that may get the next request, best first. ``at_work``: each one's connections."""
        if not self.together:
            return [] if self.current.is_out or self.current.ready_at > now else [self.current]
        ready = [origin for origin in self.usable if origin.ready_at <= now and not origin.is_set_aside]
        # An origin that sends all or nothing cannot share the work.
        sharing = [origin for origin in ready if origin.ranges is not False]
        fastest = max((origin.rate or 0.0 for origin in self.all), default=0.0)

        def seats(origin: Origin) -> tuple[bool, float, int]:
            # Connections are distributed like seats to parties: the highest quotient gets the next one (d'Hondt). An
            # origin that has not been measured yet counts as fast, so that it will be. One that was left comes last.
            rate = origin.rate or fastest or 1.0
            return origin.has_crawled, -rate / (at_work.get(origin, 0) + 1), origin.number

        return sorted(sharing or ready, key=seats)

    def turn_to(self, origin: Origin) -> None:
        """Make this one the current one, which may be asked again if it was set aside."""
        self.current = origin
        origin.called_back()

    def trust(self, origin: Origin) -> None:
        """From now on, this origin alone is responsible for all bytes."""
        self.current = origin
        self.together = False
        origin.recalled()

    def separate(self) -> None:
        """From now on, ask one at a time: what comes must show whose it is."""
        self.together = False

    def find_faster(self, rate: float, now: float, patience: float, at_work: Collection[Origin] = ()) -> Origin | None:
        """Record the speed; if those that are asked have crawled for too long, return the one to ask instead.

        ``rate`` in bytes per second over all of them, ``patience`` in seconds; ``at_work``: those with connections.
        This guards against a mirror that keeps us busy with a few bytes now and then. When all are asked together,
        idle connections take over by themselves, but there are none where each crawls.
        """
        if rate >= CRAWL_BYTES_PER_S:
            self._crawling = None
            return None
        if self._crawling is None or self._crawling[0] is not self.current:
            self._crawling = (self.current, now)
        slow = set(at_work) if self.together else {self.current}
        others = [o for o in self.usable if o not in slow and not o.has_crawled and o.ready_at <= now]
        fresh = min(others, key=lambda o: (o.is_set_aside, o.failures, o.number), default=None)
        if fresh is None or now - self._crawling[1] < patience:
            return None
        for origin in slow:
            origin.crawled(patience)
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
        had_begun: bool = False,
        is_empty: bool = False,
        host_patience: float = 0.0,
    ) -> Decision | None:
        """Record a failure and decide what follows. Return None if its outage was counted already.

        ``had_begun``: some bytes of the content had arrived. An origin that sends some and breaks off is not away,
        so it is not waited for. ``is_empty``: nothing is on hand, so that asking for the whole costs nothing.
        ``host_patience``: for how many more seconds to wait for its host, whatever it has served.
        """
        if not origin.failed(error, began=began, now=now):
            return None
        was_whole = not had_begun and origin.refused_whole()
        alternatives = self.is_replaceable(origin, now)
        patience = max(origin.patience_left(now, policy.patience), host_patience)
        decision = next_step(
            error,
            failures=origin.failures,
            alternatives=alternatives,
            policy=policy,
            jitter=jitter,
            patience=0.0 if had_begun or not policy.retries else patience,
            is_last=self.usable == [origin],
        )
        match decision:
            case Retry(delay=delay) | Leave(delay=delay):
                origin.postponed(now + delay)
                is_doubtful = is_empty and not was_whole and origin.failures >= DOUBTFUL_FAILURES
                if is_doubtful and origin.may_serve_the_whole(error):
                    origin.doubts_ranges()
            case GiveUp() if origin.may_serve_the_whole(error):
                origin.lost_ranges()
                return Retry(origin.failures, 0.0, way="for the whole file in one response")
            case GiveUp() if len(self.usable) == 1 and origin.may_be_cached(error):
                origin.passes_caches()
                return Retry(origin.failures, 0.0, way="past all caches")
            case GiveUp():
                origin.given_up()
                if len(self.usable) == 1:
                    self.usable[0].became_last()
        return decision

    def choose(self, now: float) -> Origin | None:
        """Return the origin to use after the current one: the best that is ready, otherwise the first to be ready."""
        usable = self.usable
        if not usable:
            return None
        return min(usable, key=lambda o: (o.is_set_aside, max(o.ready_at - now, 0.0), o.failures, o.number))

    def agreement(self) -> str:
        """Advice if two or more agree on content that differs from the manifest; otherwise empty."""
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

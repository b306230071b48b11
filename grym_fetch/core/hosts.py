"""What each host allows, learned once for all assets of a run: how many attempts at a time, and from when on.

Rules: if a host refuses an attempt while another one is receiving from it, that is a lesson and not a failure; so is a
prompt refusal while another one waits for its answer. Only some failures can mean "not so many"; but if the very same
address is serving another attempt, any status can. The limit is learned as in congestion control (additive increase,
multiplicative decrease): it falls to what was not refused, and rises by one after a quiet time, which doubles with each
further refusal. When a host asks for a pause, all assets wait. Time is an argument, in monotonic seconds; only `Hosts`
changes what is known about a host.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from grym_fetch.core.errors import (
    BadResponse,
    BadStatus,
    CertificateRejected,
    ConnectFailed,
    ConnectionLost,
    GrymFetchError,
    PolicyRefused,
    Throttled,
    TooManyRedirects,
)
from grym_fetch.core.http import MAX_RETRY_AFTER_S

PROBE_S = 5.0
"""After this long, one attempt more than a learned limit is tried; each refusal doubles the time to the next try."""
GRACE_S = 1.0
"""A host may still count an attempt for this long after its last byte; until then, that explains a refusal."""
PROMPT_S = 3.0
"""A refusal this soon after the request may mean "not so many" even if nothing has been served yet."""
SERVING_S = 60.0
"""A host that says "too many requests" and has served us within this time is busy, not broken."""
FIRST_PAUSE_S = 0.25
MAX_PAUSE_S = 60.0
"""Leave a host alone for this long if it refuses and names no time; each further pause is twice as long."""
TRY_AHEAD = 2
"""Send this many ahead to a host that has not answered as many yet: one alone may arrive just in its turn."""
TRY_S = 10.0
"""After this long without a further try, another connection may try whether a host takes requests ahead."""
MAX_IN_VAIN = 3
"""After this many refused requests for the whole in a row, skip the range for whatever fits one response."""


def grace_of(error: GrymFetchError, *, is_served: bool = False) -> float | None:
    """For how many seconds after the host last served us this failure may mean "not so many" or "not so often".

    0: only while it is serving us. None: it never means that. ``is_served``: the same address is sending its content
    over another connection, or just was, so that no answer can mean the content itself: neither a status, nor a
    redirect elsewhere, nor what is not HTTP.
    """
    if isinstance(error, Throttled):
        return SERVING_S
    if isinstance(error, BadStatus):
        return GRACE_S if is_served or error.status == 403 else None
    if isinstance(error, BadResponse | PolicyRefused | TooManyRedirects):
        return GRACE_S if is_served else None
    is_connection = isinstance(error, ConnectFailed | ConnectionLost) and not isinstance(error, CertificateRejected)
    return 0.0 if is_connection else None


@dataclass(frozen=True, slots=True)
class HostUse:
    """What one process does at a host. ``at_work``: its attempts there now. ``waits``: whether it wants more.

    ``refusals``: how often the host has refused one more, so far. ``pause``: for how many seconds to leave it alone.
    """

    at_work: int
    waits: bool = False
    refusals: int = 0
    pause: float = 0.0


@dataclass(eq=False, slots=True)
class _Host:
    """One host. ``at_work`` and ``receiving`` hold attempts; those that receive, since when, are at work as well."""

    at_work: set[object] = field(default_factory=set)
    receiving: dict[object, float] = field(default_factory=dict)
    limit: int | None = None
    """How many attempts it allows at once; None until it has refused one."""
    is_void: bool = False
    """Whether the limit means nothing because all attempts were refused. Until one is served, they go one at a time."""
    probe: object | None = None
    """The attempt that is one more than the limit."""
    alone: object | None = None
    """The attempt that must be answered before any other begins."""
    probe_at: float = -math.inf
    probe_wait: float = PROBE_S
    not_before: float = -math.inf
    reached_at: dict[int, float] = field(default_factory=dict)
    """When it last served so many at once: of some, the server may be long done with what is still being read."""
    served_at: float = -math.inf
    """When it last served an attempt."""
    scheme: str = ""
    """Over what it last served one."""
    away_since: float | None = None
    """When it could first not be connected to since then."""
    refusals: int = 0
    """Refusals in a row since it last served an attempt."""
    takes_ahead: bool = True
    """Whether requests may be sent ahead of their turn; False after the first sign that something cannot do it."""
    kept_ahead: int = 0
    """How many requests sent ahead it has answered correctly."""
    prober: object | None = None
    """The one connection that tries whether it takes them, so that no other loses anything if it does not."""
    prober_until: float = -math.inf
    refuses_early: bool = False
    """Whether it has refused a connection that was only opened: then each is opened when it is needed."""
    asked_singly: bool = False
    """Whether the first requests for an asset go there one at a time: it has refused several, or redirects."""
    in_vain: int = 0
    """How many requests for the whole it has refused since it last served one."""
    lessons: int = 0
    """How often its limit was lowered."""

    def steady(self, now: float) -> int:
        """How many it certainly serves at once."""
        return sum(now - since >= GRACE_S for since in self.receiving.values())

    def lower(self, limit: int, now: float) -> None:
        self.limit = limit if self.limit is None else min(limit, self.limit)
        self.probe_at = now + self.probe_wait
        self.lessons += 1

    def raise_to(self, limit: int, now: float) -> None:
        self.limit, self.probe, self.probe_wait = limit, None, PROBE_S
        self.probe_at = now + PROBE_S

    def pause(self, now: float) -> None:
        step = min(MAX_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(self.refusals, 30))
        self.refusals += 1
        self.not_before = max(self.not_before, now + step)


_NOTHING = HostUse(0)


class Hosts:
    """What is known about all hosts. ``per_host``: the most attempts at one host at once, whatever it allows.

    ``ahead``: whether requests may be sent ahead of their turn, as long as a host takes them.
    """

    def __init__(self, per_host: int, *, ahead: bool = False) -> None:
        self._per_host = per_host
        self._shares: Mapping[str, int] = {}
        self._short: set[str] = set()
        """Where more would be at work, but for the user's limits."""
        self._ahead = ahead
        self._hosts: dict[str, _Host] = {}
        self._liars: set[str] = set()
        self._place: dict[object, str] = {}
        """Where each attempt is at work."""

    def lied(self, host: str) -> None:
        """It sent wrong bytes of an asset, which came right from elsewhere."""
        self._liars.add(host)

    def has_lied(self, host: str) -> bool:
        """Whether another one should be asked first, for all assets of this run."""
        return host in self._liars

    # -- shared with other processes --------------------------------------------------------------------------------

    def share(self, per_host: int, hosts: Mapping[str, int]) -> None:
        """From now on, at most so many attempts at one host at once; ``hosts`` has those with a number of their own.

        0 is none at all. What is at work goes on.
        """
        self._per_host, self._shares = per_host, dict(hosts)
        self._short.clear()

    def most(self, host: str) -> int:
        """The user's limit for this host, or this process's share of it."""
        return self._shares.get(host, self._per_host)

    def uses(self, now: float) -> dict[str, HostUse]:
        """What others should know of the hosts: all that are in use or wanted, or have refused something."""
        found = {}
        for host in {*self._hosts, *self._short}:
            known = self._hosts.get(host) or _Host()
            use = HostUse(len(known.at_work), host in self._short, known.lessons, max(0.0, known.not_before - now))
            if use != _NOTHING:
                found[host] = use
        return found

    # -- what is read -----------------------------------------------------------------------------------------------

    def has_room(self, host: str, now: float) -> bool:
        """Whether one more attempt may begin there."""
        known = self._hosts.get(host)
        if known is None:
            if self.most(host) > 0:
                return True
            self._short.add(host)
            return False
        count = len(known.at_work)
        if now < known.not_before or known.alone is not None:
            return False
        if count >= self.most(host):
            self._short.add(host)
            return False
        if known.limit is None or count < known.limit:
            return True
        is_quiet = len(known.receiving) == count and now >= known.probe_at
        return count == known.limit and known.probe is None and is_quiet

    def has_too_many(self, host: str) -> bool:
        """Whether more is at work there than its share allows by now."""
        known = self._hosts.get(host)
        return known is not None and len(known.at_work) > self.most(host)

    def room(self, host: str, now: float) -> int:
        """For how many more attempts connections may be opened early there."""
        known = self._hosts.get(host)
        if known is None:
            return self.most(host)
        if now < known.not_before or known.refuses_early:
            return 0
        most = self.most(host) if known.limit is None else min(self.most(host), known.limit)
        return most - len(known.at_work)

    def may_ask_together(self, host: str) -> bool:
        """Whether several first requests for one asset may be sent there at once."""
        known = self._hosts.get(host)
        return known is None or not (known.asked_singly or known.refuses_early)

    def opens_at(self, host: str) -> float:
        """When the host may be asked again if it must be left alone now; otherwise a moment in the past."""
        known = self._hosts.get(host)
        return -math.inf if known is None else known.not_before

    def allows(self, host: str) -> int | None:
        """How many attempts at a time it is known to allow; None if nothing is known."""
        known = self._hosts.get(host)
        return None if known is None or known.is_void else known.limit

    def next_opening(self, now: float) -> float | None:
        """When the first host that must be left alone now may be asked again."""
        return min((host.not_before for host in self._hosts.values() if host.not_before > now), default=None)

    def is_serving(self, host: str) -> bool:
        """Whether any attempt is receiving from it now."""
        known = self._hosts.get(host)
        return known is not None and bool(known.receiving)

    def is_busy(self, attempt: object, now: float) -> bool:
        """Whether other attempts are or just were at its host, so that a refusal may mean "one too many"."""
        return self.rivals(attempt, now) > 0

    def rivals(self, attempt: object, now: float) -> int:
        """How many other attempts are at its host, or just were: then a refusal may mean "one too many"."""
        known = self._hosts[self._place[attempt]]
        return len(known.at_work - {attempt}) or int(now - known.served_at < GRACE_S)

    def is_idle(self, host: str) -> bool:
        """Whether no attempt is at work there."""
        known = self._hosts.get(host)
        return known is None or not known.at_work

    def has_served_more(self, host: str, count: int, since: float) -> bool:
        """Whether it has served more attempts than this at once, later than ``since``."""
        known = self._hosts.get(host)
        return known is not None and any(at_once > count and at > since for at_once, at in known.reached_at.items())

    def has_served_since(self, host: str, since: float) -> bool:
        """Whether it has served anybody since ``since``, or just before."""
        known = self._hosts.get(host)
        return known is not None and known.served_at >= since - GRACE_S

    def refuses_wholes(self, host: str) -> bool:
        """Whether it refuses so often that a request with a range would most likely be wasted."""
        known = self._hosts.get(host)
        return known is not None and known.in_vain >= MAX_IN_VAIN

    def takes_ahead(self, host: str, now: float) -> bool:
        """Whether it may be sent requests ahead of their turn."""
        known = self._hosts.get(host)
        return self._ahead and (known is None or (known.takes_ahead and now >= known.not_before))

    def has_proved_ahead(self, host: str) -> bool:
        """Whether it has correctly answered requests that were sent ahead of their turn."""
        known = self._hosts.get(host)
        return known is not None and known.kept_ahead >= TRY_AHEAD

    # -- what happened ----------------------------------------------------------------------------------------------

    def may_ask_ahead(self, connection: object, host: str, now: float, most: int) -> int:
        """How many requests may be sent ahead over this connection: ``most``, or only a few while one is trying it."""
        if not self.takes_ahead(host, now):
            return 0
        if self.has_proved_ahead(host):
            return most
        known = self._hosts.setdefault(host, _Host())
        if known.prober is not connection and now < known.prober_until:
            return 0
        known.prober, known.prober_until = connection, now + TRY_S
        return min(most, TRY_AHEAD)

    def kept_ahead(self, host: str) -> None:
        """It has answered a request sent ahead with the content asked for."""
        known = self._hosts.setdefault(host, _Host())
        known.kept_ahead += 1
        if known.kept_ahead >= TRY_AHEAD:
            known.prober = None

    def asks_alone(self, attempt: object, host: str) -> None:
        """An attempt is about to begin there, and no other may until that is answered."""
        self._hosts.setdefault(host, _Host()).alone = attempt

    def began(self, attempt: object, host: str) -> None:
        """An attempt has begun there."""
        known = self._hosts.setdefault(host, _Host())
        if known.limit is not None and len(known.at_work) >= known.limit:
            known.probe = attempt
        known.at_work.add(attempt)
        self._place[attempt] = host

    def moved(self, attempt: object, host: str) -> None:
        """Redirects led the attempt to another host."""
        before = self._place.get(attempt)
        if before is None or before == host:
            return
        self._leave(attempt, before)
        self.began(attempt, host)

    def receives(self, attempt: object, now: float, *, whole: bool = False, scheme: str = "") -> None:
        """The host serves the attempt: the response is content. ``whole``: it was asked for without a range."""
        known = self._hosts[self._place[attempt]]
        known.receiving.setdefault(attempt, now)
        if whole:
            known.in_vain = 0
        known.served_at, known.refusals, known.away_since, known.scheme = now, 0, None, scheme
        if known.is_void:
            known.limit, known.is_void = None, False
        if known.probe is attempt:
            known.raise_to(len(known.at_work), now)
        if known.alone is attempt:
            known.alone = None

    def ended(self, attempt: object, now: float) -> None:
        """The attempt is over, however it ended."""
        place = self._place.pop(attempt, None)
        if place is None:
            return
        known = self._hosts[place]
        if attempt in known.receiving:
            known.served_at = now
            known.reached_at[known.steady(now)] = now
        self._leave(attempt, place)

    def _leave(self, attempt: object, host: str) -> None:
        known = self._hosts[host]
        known.at_work.discard(attempt)
        known.receiving.pop(attempt, None)
        if known.probe is attempt:
            known.probe = None
        if known.alone is attempt:
            known.alone = None

    def refused(
        self,
        attempt: object,
        now: float,
        error: GrymFetchError,
        *,
        took: float = math.inf,
        is_served: bool = False,
    ) -> bool:
        """The attempt was refused before a byte of content came. Return whether that is a lesson, not a failure.

        ``error`` is how it failed, ``took`` seconds after it began. ``is_served``: see `grace_of`.
        """
        grace = grace_of(error, is_served=is_served)
        if grace is None:
            return False
        wait = error.retry_after if isinstance(error, Throttled) else None
        known = self._hosts[self._place[attempt]]
        known.at_work.discard(attempt)
        known.receiving.pop(attempt, None)
        if isinstance(error, Throttled):
            known.takes_ahead = False
        if wait is not None:
            known.not_before = max(known.not_before, now + min(wait, MAX_RETRY_AFTER_S))
        if known.probe is attempt:
            known.probe, known.probe_wait = None, known.probe_wait * 2
        if known.receiving or (known.at_work and took < PROMPT_S):
            known.lower(max(1, len(known.at_work)), now)
            known.is_void = False
            return True
        if now - known.served_at >= grace:
            known.is_void = known.served_at == -math.inf and not known.at_work
            return False
        known.lower(1, now)
        if not wait:  # to be told to come back at once is as good as nothing: it would be asked again and again
            known.pause(now)
        return True

    def cannot_be_reached(self, host: str, scheme: str, now: float, patience: float) -> float:
        """Nobody can connect to it. Return for how many more seconds all assets wait for it, ``patience`` in all.

        0 if it has served nothing over this scheme in this run: a port that serves http may never speak TLS.
        """
        known = self._hosts.get(host)
        if known is None or known.served_at == -math.inf or known.scheme != scheme:
            return 0.0
        if known.away_since is None:
            known.away_since = now
        return self.seconds_to_wait(host, now, patience)

    def seconds_to_wait(self, host: str, now: float, patience: float) -> float:
        """It could not be connected to, and now answers, but has not served anybody since: a gateway speaks for it.

        Return for how many more seconds all assets wait for it, as in `cannot_be_reached`.
        """
        known = self._hosts.get(host)
        if known is None or known.away_since is None:
            return 0.0
        return max(0.0, known.away_since + patience - now)

    def refused_opening(self, host: str, others: int, now: float, error: GrymFetchError) -> None:
        """A connection that was only opened has failed, while ``others`` are open and idle. Never a failure.

        If attempts receive there, it is the lesson that it would be for one more of them.
        """
        known = self._hosts.setdefault(host, _Host())
        known.refuses_early = True
        if known.receiving and grace_of(error) is not None:
            known.lower(len(known.at_work) + others, now)

    def refused_together(self, host: str) -> None:
        """It has refused one of several first requests for an asset."""
        self._hosts.setdefault(host, _Host()).asked_singly = True

    def redirects(self, host: str) -> None:
        """It has sent a request elsewhere, and would do the same with each of several."""
        self._hosts.setdefault(host, _Host()).asked_singly = True

    def refused_whole(self, attempt: object, error: GrymFetchError) -> None:
        """The attempt asked for the whole, without a range, and that failed."""
        if isinstance(error, BadStatus):
            self._hosts[self._place[attempt]].in_vain += 1

    def lost_ahead(self, host: str) -> None:
        """Requests sent ahead got no answer, or another than in turn: from now on, ask this host only in turn."""
        self._hosts.setdefault(host, _Host()).takes_ahead = False

    def left_alone(self, host: str, until: float) -> None:
        """It must not be asked before ``until``."""
        known = self._hosts.setdefault(host, _Host())
        known.not_before = max(known.not_before, until)

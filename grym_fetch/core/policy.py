"""What to do after a failure, and when. Decided only here; time and randomness are arguments.

Rules: there are three kinds of failure. *Permanent*: the origin is not asked again in this run. *Transient*: it is
asked again after a delay, or left for another origin. *Local* (`StorageError`): these never come here, because no
origin can fix a full disk. Delays grow exponentially with full jitter (Brooker, "Exponential Backoff And Jitter", AWS
Architecture Blog, 2015). Budgets are finite; only real progress renews them.
"""

from __future__ import annotations

from dataclasses import dataclass

from grym_fetch.core.errors import (
    BadResponse,
    BadStatus,
    CertificateRejected,
    ConnectFailed,
    ConnectionLost,
    ContentChanged,
    GrymFetchError,
    IntegrityError,
    LengthMismatch,
    PolicyRefused,
    ProxyRefused,
    RangeRefused,
    Throttled,
    TooManyRedirects,
)
from grym_fetch.core.http import MAX_RETRY_AFTER_S, is_transient

MAX_AWAY_DELAY_S = 10.0
"""The longest delay between two requests to a server that seems to be away."""
MAX_THROTTLED_DELAY_S = 60.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long. ``retries``: further attempts on one origin without progress; times in seconds.

    ``patience``: how long to wait for an origin that has served bytes in this run and is now away.
    """

    retries: int = 5
    base_delay: float = 0.5
    max_delay: float = 30.0
    patience: float = 0.0


@dataclass(frozen=True, slots=True)
class Retry:
    """Ask the same origin again after ``delay`` seconds. ``attempt`` counts from 1.

    ``patience``: how many seconds to wait for it, if it seems to be away. ``way``: how it is asked this time, if in
    another way than before; then this may be one attempt more than the policy allows.
    """

    attempt: int
    delay: float
    patience: float | None = None
    way: str = ""

    def __str__(self) -> str:
        way = f", {self.way}" if self.way else ""
        patience = f", for at most {self.patience:.0f} s" if self.patience is not None else ""
        return f"retry {self.attempt} in {self.delay:.1f} s{way}{patience}"


@dataclass(frozen=True, slots=True)
class Leave:
    """Switch to another origin; this one may be asked again after ``delay`` seconds if the others fail too."""

    delay: float

    def __str__(self) -> str:
        return f"another address comes next; this one may be asked again in {self.delay:.1f} s"


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Do not ask this origin again in this run."""

    def __str__(self) -> str:
        return "not asked again in this run"


Decision = Retry | Leave | GiveUp


def backoff(attempt: int, policy: RetryPolicy, jitter: float) -> float:
    """Return the delay before retry ``attempt`` (from 1) in seconds. ``jitter`` is a random number in [0, 1)."""
    exponent = min(attempt - 1, 30)
    return jitter * min(policy.max_delay, policy.base_delay * 2.0**exponent)


def is_permanent(error: GrymFetchError) -> bool:
    """Whether the same request to the same origin would certainly fail again."""
    if isinstance(error, BadStatus):
        is_told = isinstance(error, Throttled) and error.retry_after is not None
        return not is_told and not is_transient(error.status)
    return isinstance(error, CertificateRejected | IntegrityError | PolicyRefused | ProxyRefused | TooManyRedirects)


def may_pass(error: GrymFetchError) -> bool:
    """Whether this may pass at a server that was well a moment ago: it restarts, is moved, or shows a page for now.

    Whatever it answers: a gateway, a login or a filter on the way speaks for it. Not what was found out about the
    content, and not what would make somebody else answer.
    """
    passing = BadStatus | BadResponse | ConnectFailed | ConnectionLost | RangeRefused | TooManyRedirects
    return isinstance(error, passing) and not isinstance(error, CertificateRejected)


def may_be_for_others(error: GrymFetchError) -> bool:
    """Whether a server may answer so because it is busy, though the content is there: some say "not found" then."""
    return isinstance(error, BadStatus | BadResponse | LengthMismatch | TooManyRedirects)


def next_step(
    error: GrymFetchError,
    *,
    failures: int,
    alternatives: bool,
    policy: RetryPolicy,
    jitter: float,
    patience: float = 0.0,
    is_last: bool = True,
) -> Decision:
    """Decide what follows a failure.

    ``failures`` counts those of this origin since it last made progress, including this one; ``alternatives`` says
    whether another origin could be asked now. ``patience``: how many more seconds to wait for the origin because it has
    served bytes in this run; ``is_last``: whether no other origin is left.
    """
    is_waited_for = patience > 0 and may_pass(error)
    if is_permanent(error) and not is_waited_for:
        return GiveUp()
    budget = policy.retries
    if isinstance(error, BadResponse | RangeRefused | ContentChanged):
        # Broken servers are usually broken for everyone; one more try covers a bad node behind a load balancer.
        budget = min(budget, 1)
    is_spent = is_permanent(error) or failures > budget
    if is_spent and not is_waited_for:
        return GiveUp()
    delay = backoff(failures, policy, jitter)
    if is_spent:
        # Often enough to notice when it is back, but never immediately: it is known to be away.
        delay = (0.5 + 0.5 * jitter) * min(MAX_AWAY_DELAY_S, policy.base_delay * 2.0 ** min(failures, 30))
    if isinstance(error, Throttled) and error.retry_after:
        # Wait at least as long as the server asks, with a little jitter so that not all clients come back at once.
        delay = min(error.retry_after, MAX_RETRY_AFTER_S) + delay * 0.1
    elif isinstance(error, Throttled) and error.status == 429 and error.retry_after is None:
        # We asked too often and were not told how long to wait: double the delay, up to a minute.
        delay = min(MAX_THROTTLED_DELAY_S, 2.0 ** min(failures - 1, 30)) + delay * 0.1
    if is_waited_for and is_spent:
        delay = min(delay, patience)
        if not is_last:
            return Leave(delay)
    # A server that does not answer at all, or asks us to wait, is left at once. One that broke off gets a
    # second chance first: most such breaks pass, and the way to it is known to be good.
    if alternatives and (failures >= 2 or isinstance(error, ConnectFailed | Throttled | BadResponse)):
        return Leave(delay)
    seems_away = is_waited_for and is_last and (is_spent or isinstance(error, ConnectFailed))
    return Retry(failures, delay, patience if seems_away else None)


class TokenBucket:
    """A limit of bytes per second over all connections. Pure: time is an argument."""

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._free_at = now

    def set_rate(self, rate: float) -> None:
        """Allow this many bytes per second from now on."""
        self._rate = rate

    def spend(self, count: int, now: float) -> float:
        """Account for ``count`` bytes that came at ``now``; return the seconds to wait before reading more."""
        # Save up at most a tenth of a second of unused time: a limit is a limit, not an hourly average.
        self._free_at = max(self._free_at, now - 0.1) + count / self._rate
        return max(0.0, self._free_at - now)

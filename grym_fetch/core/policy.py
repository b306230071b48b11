"""What to do after a failure, and when: decided here, in one place, without its own clock or randomness.

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
    ContentChanged,
    GrymFetchError,
    IntegrityError,
    PolicyRefused,
    RangeRefused,
    Throttled,
    TooManyRedirects,
)
from grym_fetch.core.http import MAX_RETRY_AFTER_S, is_transient


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long. ``retries``: further attempts on one origin without progress; delays in seconds."""

    retries: int = 5
    base_delay: float = 0.5
    max_delay: float = 30.0


@dataclass(frozen=True, slots=True)
class Retry:
    """Ask the same origin again after ``delay`` seconds. ``attempt`` counts from 1."""

    attempt: int
    delay: float


@dataclass(frozen=True, slots=True)
class Leave:
    """Switch to another origin; this one may be asked again after ``delay`` seconds if the others fail too."""

    delay: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Do not ask this origin again in this run."""


Decision = Retry | Leave | GiveUp


def backoff(attempt: int, policy: RetryPolicy, jitter: float) -> float:
    """Return the delay before retry ``attempt`` (from 1) in seconds. ``jitter`` is a random number in [0, 1)."""
    exponent = min(attempt - 1, 30)
    return jitter * min(policy.max_delay, policy.base_delay * 2.0**exponent)


def is_permanent(error: GrymFetchError) -> bool:
    """Whether the same request to the same origin would certainly fail again."""
    if isinstance(error, BadStatus):
        return not is_transient(error.status)
    return isinstance(error, CertificateRejected | IntegrityError | PolicyRefused | TooManyRedirects)


def next_step(
    error: GrymFetchError, *, failures: int, alternatives: bool, policy: RetryPolicy, jitter: float
) -> Decision:
    """Decide what follows a failure.

    ``failures`` counts the failures of this origin since its last progress, including this one; ``alternatives`` says
    whether another origin could be asked now.
    """
    if is_permanent(error):
        return GiveUp()
    budget = policy.retries
    if isinstance(error, BadResponse | RangeRefused | ContentChanged):
        # Broken servers are usually broken for everyone; one more try covers a bad node behind a load balancer.
        budget = min(budget, 1)
    if failures > budget:
        return GiveUp()
    delay = backoff(failures, policy, jitter)
    if isinstance(error, Throttled) and error.retry_after is not None:
        # Wait at least as long as the server asks, with a little jitter so that not all clients come back at once.
        delay = min(error.retry_after, MAX_RETRY_AFTER_S) + delay * 0.1
    # Leave a server at once if it does not answer at all or wants to be left alone. One that broke off gets a second
    # # chance first: most such failures pass, and the route to it is known to work.
    if alternatives and (failures >= 2 or isinstance(error, ConnectFailed | Throttled | BadResponse)):
        return Leave(delay)
    return Retry(failures, delay)


class TokenBucket:
    """A rate limit in bytes per second over all connections. Pure: time is an argument."""

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._free_at = now

    def spend(self, count: int, now: float) -> float:
        """Account for ``count`` bytes that came at ``now``; return the seconds to wait before reading more."""
        # Save up at most a tenth of a second of unused time: a limit is a limit, not an hourly average.
        self._free_at = max(self._free_at, now - 0.1) + count / self._rate
        return max(0.0, self._free_at - now)

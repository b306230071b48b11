"""What follows a failure, as a table; delays within their bounds; the rate limit under any arrival."""

from __future__ import annotations

import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_fetch.core import errors
from grym_fetch.core.errors import GrymFetchError
from grym_fetch.core.http import MAX_RETRY_AFTER_S
from grym_fetch.core.policy import (
    Decision,
    GiveUp,
    Leave,
    Retry,
    RetryPolicy,
    TokenBucket,
    backoff,
    is_permanent,
    next_step,
)

URL = "https://h.example/x"
POLICY = RetryPolicy(retries=3, base_delay=1.0, max_delay=10.0)
HALF = 0.5


def status(code: int) -> errors.BadStatus:
    """An answer without content."""
    return errors.BadStatus(URL, code, f"status {code}")


def throttled(seconds: float | None, code: int = 429) -> errors.Throttled:
    """An answer that asks to wait."""
    return errors.Throttled(URL, code, f"status {code}", seconds)


REFUSED = errors.ConnectFailed(URL, "refused")
BAD_CERTIFICATE = errors.CertificateRejected(URL, "expired")
LOST = errors.ConnectionLost(URL, "ended early")
STALLED = errors.Stalled(URL, "nothing for 30 s")
BROKEN = errors.BadResponse(URL, "an invalid Content-Length")
NO_RANGES = errors.RangeRefused(URL, "another range")
CHANGED = errors.ContentChanged(URL, "changed again and again")
LOOP = errors.TooManyRedirects(URL, "a loop")
POLICED = errors.PolicyRefused(URL, "down to http")
WRONG_LENGTH = errors.LengthMismatch(URL, 1000, 999)
WRONG_DIGEST = errors.DigestMismatch("a", "0", "1")

PERMANENT = [BAD_CERTIFICATE, LOOP, POLICED, WRONG_LENGTH, WRONG_DIGEST]
PERMANENT += [
    status(code) for code in (400, 401, 403, 404, 405, 406, 407, 409, 410, 416, 418, 421, 431, 451, 499, 501, 505)
]
TRANSIENT = [REFUSED, LOST, STALLED, BROKEN, NO_RANGES, CHANGED, throttled(None), throttled(5.0)]
TRANSIENT += [status(code) for code in (408, 425, 500, 502, 503, 504, 507, 520, 522, 524, 599)]


def name(value: object) -> str:
    """A test's name for an error."""
    return f"{type(value).__name__} {getattr(value, 'status', '')}".strip()


@pytest.mark.parametrize("error", PERMANENT, ids=name)
@pytest.mark.parametrize("alternatives", [True, False])
@pytest.mark.shows("A4", "A5", "N15")
def test_what_would_fail_again_is_not_tried_again(error: GrymFetchError, alternatives: bool) -> None:
    """A permanent failure ends this origin at once, whether or not there is another."""
    assert is_permanent(error)
    step = next_step(error, failures=1, alternatives=alternatives, policy=POLICY, jitter=HALF)
    assert step == GiveUp()


@pytest.mark.parametrize("error", TRANSIENT, ids=name)
@pytest.mark.shows("A3")
def test_what_may_pass_is_tried_again(error: GrymFetchError) -> None:
    """A transient failure is retried if no other origin can be asked."""
    assert not is_permanent(error)
    step = next_step(error, failures=1, alternatives=False, policy=POLICY, jitter=HALF)
    assert isinstance(step, Retry)
    assert step.attempt == 1


@pytest.mark.parametrize(
    ("error", "failures", "alternatives", "expected"),
    [
        # An origin that broke off gets a second chance, then it is another origin's turn.
        (LOST, 1, False, Retry(1, 0.5)),
        (LOST, 2, False, Retry(2, 1.0)),
        (LOST, 3, False, Retry(3, 2.0)),
        (LOST, 4, False, GiveUp()),
        (LOST, 1, True, Retry(1, 0.5)),
        (LOST, 2, True, Leave(1.0)),
        (LOST, 3, True, Leave(2.0)),
        (LOST, 4, True, GiveUp()),
        (STALLED, 1, True, Retry(1, 0.5)),
        (STALLED, 2, True, Leave(1.0)),
        (status(500), 1, True, Retry(1, 0.5)),
        (status(500), 2, True, Leave(1.0)),
        (status(500), 4, False, GiveUp()),
        # An origin that does not answer at all is left at once.
        (REFUSED, 1, True, Leave(0.5)),
        (REFUSED, 1, False, Retry(1, 0.5)),
        (REFUSED, 4, True, GiveUp()),
        # An origin that breaks the rules gets one more try.
        (BROKEN, 1, False, Retry(1, 0.5)),
        (BROKEN, 1, True, Leave(0.5)),
        (BROKEN, 2, False, GiveUp()),
        (BROKEN, 2, True, GiveUp()),
        (NO_RANGES, 1, True, Retry(1, 0.5)),
        (NO_RANGES, 2, True, GiveUp()),
        (CHANGED, 1, False, Retry(1, 0.5)),
        (CHANGED, 2, False, GiveUp()),
        # An origin that asks to be left alone is: for as long as it says, plus a little of the backoff.
        (throttled(7.0), 1, False, Retry(1, 7.05)),
        (throttled(7.0), 2, False, Retry(2, 7.1)),
        (throttled(7.0), 1, True, Leave(7.05)),
        # To be told to come back at once is as good as nothing.
        (throttled(0.0), 1, False, Retry(1, 0.5)),
        (throttled(0.0), 3, False, Retry(3, 2.0)),
        (throttled(1e17), 1, False, Retry(1, MAX_RETRY_AFTER_S + 0.05)),
        (throttled(1e17), 1, True, Leave(MAX_RETRY_AFTER_S + 0.05)),
        (throttled(None, 503), 1, False, Retry(1, 0.5)),
        (throttled(None, 503), 1, True, Leave(0.5)),
        (throttled(None), 1, False, Retry(1, 1.05)),
        (throttled(None), 3, False, Retry(3, 4.2)),
        (throttled(None), 1, True, Leave(1.05)),
        (throttled(7.0), 4, False, GiveUp()),
    ],
    ids=lambda value: name(value) if isinstance(value, GrymFetchError) else None,
)
def test_what_follows_a_failure(error: GrymFetchError, failures: int, alternatives: bool, expected: Decision) -> None:
    """Each failure has one next step: again here, elsewhere, or never again here."""
    step = next_step(error, failures=failures, alternatives=alternatives, policy=POLICY, jitter=HALF)
    assert type(step) is type(expected)
    if not isinstance(step, GiveUp) and not isinstance(expected, GiveUp):
        assert step.delay == pytest.approx(expected.delay)
    if isinstance(step, Retry) and isinstance(expected, Retry):
        assert step.attempt == expected.attempt


@pytest.mark.parametrize("error", TRANSIENT, ids=name)
@pytest.mark.parametrize("retries", [0, 1, 5])
@pytest.mark.shows("A19", "S4")
def test_every_budget_is_finite(error: GrymFetchError, retries: int) -> None:
    """No failure is retried more often than the policy says."""
    policy = RetryPolicy(retries=retries)
    steps = [
        next_step(error, failures=failures, alternatives=False, policy=policy, jitter=HALF)
        for failures in range(1, retries + 2)
    ]
    assert steps[-1] == GiveUp()
    assert sum(1 for step in steps if isinstance(step, Retry)) <= retries


@given(
    attempt=st.integers(1, 10**9),
    jitter=st.floats(0, 1, exclude_max=True),
    base=st.floats(0.001, 10),
    longest=st.floats(0.001, 1000),
)
def test_a_delay_is_within_its_bounds(attempt: int, jitter: float, base: float, longest: float) -> None:
    """Full jitter: a delay is anything from zero to a bound that doubles with each attempt up to the longest."""
    policy = RetryPolicy(base_delay=base, max_delay=longest)
    delay = backoff(attempt, policy, jitter)
    assert 0.0 <= delay <= longest
    assert delay <= base * 2.0 ** min(attempt - 1, 60)
    assert backoff(attempt, policy, 0.0) == 0.0
    assert backoff(attempt + 1, policy, jitter) >= delay


def test_the_bound_doubles() -> None:
    """Below the longest delay, each attempt may wait twice as long as the one before."""
    policy = RetryPolicy(base_delay=0.5, max_delay=30.0)
    bounds = [backoff(attempt, policy, 1.0) for attempt in range(1, 9)]
    assert bounds == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


@given(st.floats(0, 1e18, exclude_min=True), st.integers(1, 4), st.booleans(), st.floats(0, 1, exclude_max=True))
@pytest.mark.shows("A1", "A2")
def test_told_to_wait_is_at_least_that_long(seconds: float, failures: int, alternatives: bool, jitter: float) -> None:
    """Retry-After is honoured up to its cap, and extended by at most a tenth of a backoff; 0 seconds are no time."""
    step = next_step(throttled(seconds), failures=failures, alternatives=alternatives, policy=POLICY, jitter=jitter)
    if isinstance(step, GiveUp):
        assert failures > POLICY.retries
        return
    least = min(seconds, MAX_RETRY_AFTER_S)
    assert least <= step.delay <= least + POLICY.max_delay * 0.1


PATIENT = RetryPolicy(retries=3, base_delay=0.5, patience=120.0)
EARNED = [REFUSED, LOST, BROKEN, NO_RANGES, LOOP, throttled(None, 503)]
EARNED += map(status, (200, 202, 400, 401, 403, 404, 405, 407, 410, 418, 451, 500, 501, 502, 504, 511))


@pytest.mark.parametrize("error", EARNED, ids=name)
@pytest.mark.shows("A26", "N22")
def test_what_may_pass_is_waited_for(error: GrymFetchError) -> None:
    """A passing failure is waited for while the patience lasts: retried every ten seconds or sooner, and at the end."""
    delays: list[float] = []
    patience = 120.0
    while patience > 0:
        step = next_step(
            error, failures=len(delays) + 1, alternatives=False, policy=PATIENT, jitter=HALF, patience=patience
        )
        assert isinstance(step, Retry)
        delays.append(step.delay)
        patience -= step.delay
    assert max(delays) <= 10.0
    assert 10 < len(delays) < 40
    step = next_step(error, failures=len(delays) + 1, alternatives=False, policy=PATIENT, jitter=HALF, patience=0.0)
    assert step == GiveUp()


@pytest.mark.parametrize("error", [BAD_CERTIFICATE, POLICED, CHANGED, WRONG_LENGTH, WRONG_DIGEST], ids=name)
def test_what_will_not_pass_is_not_waited_for(error: GrymFetchError) -> None:
    """A failure that will not pass is not waited for, whatever the server has served before."""
    step = next_step(error, failures=2, alternatives=False, policy=PATIENT, jitter=HALF, patience=120.0)
    assert step == GiveUp()


@pytest.mark.shows("A25")
def test_too_often_without_a_word_is_waited_for_in_steps_that_reach_a_minute() -> None:
    """Each wait is twice the one before."""
    policy = RetryPolicy(retries=9)
    steps = [
        next_step(throttled(None), failures=failures, alternatives=False, policy=policy, jitter=0.0)
        for failures in range(1, 9)
    ]
    assert steps == [Retry(n, float(delay)) for n, delay in enumerate([1, 2, 4, 8, 16, 32, 60, 60], start=1)]


def test_another_origin_comes_before_waiting() -> None:
    """Another remaining origin is asked first; one that has served bytes is asked again later, whatever it says now."""
    gone, lost = (
        next_step(error, failures=9, alternatives=False, policy=PATIENT, jitter=HALF, patience=60.0, is_last=False)
        for error in (status(404), REFUSED)
    )
    assert isinstance(gone, Leave)
    assert isinstance(lost, Leave)


# -- the rate limit -----------------------------------------------------------------------------------------------

RATE = 1000.0
arrivals = st.lists(st.tuples(st.floats(0, 5), st.integers(1, 5000)), min_size=1, max_size=40)


@given(arrivals, st.floats(0, 1e6))
def test_the_rate_holds_over_every_stretch_of_time(pattern: list[tuple[float, int]], began: float) -> None:
    """From any arrival on, what has come when the reader may continue is at most the rate and a tenth of a second."""
    bucket = TokenBucket(RATE, began)
    now = began
    came: list[tuple[float, int]] = []
    went_on: list[float] = []
    for pause, count in pattern:
        now += pause
        came.append((now, count))
        wait = bucket.spend(count, now)
        assert wait >= 0.0
        now += wait
        went_on.append(now)
    for first, (since, _) in enumerate(came):
        total = 0
        for (_, count), until in zip(came[first:], went_on[first:], strict=True):
            total += count
            assert total <= RATE * (until - since + 0.1) * (1 + 1e-6) + 1e-3


@given(st.integers(1, 8), st.integers(1, 5000))
def test_the_rate_is_of_all_connections_together(connections: int, chunk: int) -> None:
    """Connections that read as fast as they may share the rate, neither more nor much less."""
    bucket = TokenBucket(RATE, 0.0)
    readers = [(0.0, number) for number in range(connections)]
    total = 0
    now = 0.0
    for _ in range(100):
        now, number = heapq.heappop(readers)
        heapq.heappush(readers, (now + bucket.spend(chunk, now), number))
        total += chunk
    end = max(now for now, _ in readers)
    assert total == pytest.approx(RATE * end)


def test_time_unused_is_not_saved_up() -> None:
    """After a long silence a tenth of a second's bytes pass at once, not a full second's."""
    bucket = TokenBucket(RATE, 0.0)
    assert bucket.spend(100, 3600.0) == pytest.approx(0.0, abs=1e-9)
    assert bucket.spend(1000, 3600.0) == pytest.approx(1.0)


def test_the_first_bytes_are_limited_too() -> None:
    """Even the first bytes are limited."""
    assert TokenBucket(RATE, 50.0).spend(500, 50.0) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("decision", "words"),
    [
        (Retry(2, 0.33729), "retry 2 in 0.3 s"),
        (Retry(1, 0.0, patience=90.2, way="for everything"), "retry 1 in 0.0 s, for everything, for at most 90 s"),
        (Leave(0.5), "another address comes next; this one may be asked again in 0.5 s"),
        (GiveUp(), "not asked again in this run"),
    ],
)
def test_a_decision_can_be_read(decision: Decision, words: str) -> None:
    """With `-vv` it is part of a line for people."""
    assert str(decision) == words

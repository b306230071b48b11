"""What a host allows: learned from its refusals, retried after a quiet time, and shared by all assets."""

from __future__ import annotations

import pytest

from grym_fetch.core.errors import (
    BadResponse,
    BadStatus,
    CertificateRejected,
    ConnectFailed,
    ConnectionLost,
    GrymFetchError,
    PolicyRefused,
    Stalled,
    Throttled,
    TooManyRedirects,
)
from grym_fetch.core.hosts import GRACE_S, MAX_PAUSE_S, PROBE_S, SERVING_S, TRY_AHEAD, TRY_S, Hosts

URL = "https://one.example/x"
HOST = "one.example"
BUSY = Throttled(URL, 503, "status 503", None)
DENIED = BadStatus(URL, 403, "status 403: access denied")
REFUSED = ConnectFailed(URL, "cannot connect: connection refused")


def receiving(count: int, *, per_host: int = 8) -> tuple[Hosts, list[str]]:
    """Hosts with this many attempts receiving from `HOST`."""
    hosts = Hosts(per_host)
    attempts = [f"working {number}" for number in range(count)]
    for attempt in attempts:
        hosts.began(attempt, HOST)
        hosts.receives(attempt, 0.0)
    return hosts, attempts


def turned_away(hosts: Hosts, name: str, now: float, error: GrymFetchError = BUSY) -> bool:
    """One more attempt starts and is refused."""
    hosts.began(name, HOST)
    is_lesson = hosts.refused(name, now, error)
    hosts.ended(name, now)
    return is_lesson


@pytest.mark.parametrize(
    "error",
    [BUSY, Throttled(URL, 429, "status 429", None), DENIED, REFUSED, ConnectionLost(URL, "reset")],
    ids=["503", "429", "403", "refused", "reset"],
)
@pytest.mark.shows("A24")
def test_a_refusal_beside_one_that_receives_teaches_a_limit(error: GrymFetchError) -> None:
    """Whatever form the refusal takes, running attempts go on and no further one starts beside them."""
    hosts, working = receiving(1)
    assert hosts.has_room(HOST, 0.0)
    assert turned_away(hosts, "further", 0.0, error)
    assert not hosts.has_room(HOST, 0.0)
    assert hosts.has_room("two.example", 0.0)
    hosts.ended(working[0], 1.0)
    assert hosts.has_room(HOST, 1.0)


@pytest.mark.parametrize(
    "error",
    [BadStatus(URL, 404, "not found"), CertificateRejected(URL, "expired"), Stalled(URL, "nothing arrived")],
    ids=["404", "certificate", "stalled"],
)
def test_other_failures_teach_nothing(error: GrymFetchError) -> None:
    """Other failures would have happened to a single attempt as well."""
    hosts, _ = receiving(1)
    assert not turned_away(hosts, "further", 0.0, error)
    assert hosts.has_room(HOST, 0.0)


@pytest.mark.parametrize(
    "error",
    [BadResponse(URL, "no HTTP"), TooManyRedirects(URL, "a loop"), PolicyRefused(URL, "a redirect to ftp")],
    ids=["broken", "a loop", "elsewhere"],
)
@pytest.mark.shows("A24")
def test_where_the_same_address_is_served_any_answer_means_one_too_many(error: GrymFetchError) -> None:
    """Neither non-HTTP data nor a redirect to nowhere can mean the content; alone, each is a failure."""
    hosts, working = receiving(1)
    hosts.began("further", HOST)
    assert hosts.refused("further", 0.0, error, is_served=True)
    hosts.ended("further", 0.0)
    assert not hosts.has_room(HOST, 0.0)
    hosts.ended(working[0], 1.0)
    hosts.began("alone", HOST)
    assert not hosts.refused("alone", 1.0, error)


def test_who_has_served_more_at_once_has_not_refused_one_too_many() -> None:
    """It has, if it served more than at the refusal, even recently: it may be done with what is still being read."""
    hosts, working = receiving(3)
    hosts.ended(working[0], GRACE_S * 0.9)
    assert not hosts.has_served_more(HOST, 0, 0.0)
    hosts.began("third", HOST)
    hosts.receives("third", GRACE_S)
    hosts.ended(working[1], GRACE_S * 2)
    assert hosts.has_served_more(HOST, 2, 0.0)
    assert not hosts.has_served_more(HOST, 3, 0.0)
    assert not hosts.has_served_more(HOST, 2, GRACE_S * 2)
    assert not hosts.has_served_more("two.example", 0, 0.0)


@pytest.mark.shows("A24")
def test_who_is_asked_alone_is_alone_until_it_is_answered() -> None:
    """Whatever its answer, others may begin afterwards."""
    hosts = Hosts(8)
    assert hosts.is_idle(HOST)
    for name, answered in [("served", True), ("refused", False)]:
        hosts.asks_alone(name, HOST)
        hosts.began(name, HOST)
        assert not hosts.is_idle(HOST)
        assert not hosts.has_room(HOST, 0.0)
        if answered:
            hosts.receives(name, 0.0)
            assert hosts.has_room(HOST, 0.0)
        hosts.ended(name, 0.0)
        assert hosts.has_room(HOST, 0.0)


@pytest.mark.parametrize("status", [200, 400, 401, 402, 404, 410, 421, 451, 500])
@pytest.mark.shows("A24")
def test_where_the_same_address_is_served_any_status_means_one_too_many(status: int) -> None:
    """The content cannot be the reason, since it is just being sent; some time later it is a failure again."""
    hosts, working = receiving(1)
    hosts.began("further", HOST)
    assert hosts.refused("further", 0.0, BadStatus(URL, status, f"status {status}"), is_served=True)
    hosts.ended("further", 0.0)
    assert not hosts.has_room(HOST, 0.0)
    hosts.ended(working[0], 1.0)
    hosts.began("soon", HOST)
    assert hosts.refused("soon", 1.0 + GRACE_S * 0.9, BadStatus(URL, status, f"status {status}"), is_served=True)
    hosts.ended("soon", 1.0 + GRACE_S * 0.9)
    for late, is_served in [(1.0, False), (1.0 + GRACE_S, True)]:
        hosts.began("alone", HOST)
        assert not hosts.refused("alone", late, BadStatus(URL, status, f"status {status}"), is_served=is_served)
        hosts.ended("alone", late)


@pytest.mark.shows("A24")
def test_whoever_served_nobody_had_nobody_too_many() -> None:
    """An answer counts as "one too many" only if somebody was served at that time, or just before."""
    hosts = Hosts(8)
    assert not hosts.has_served_since(HOST, 1.0)
    hosts, _ = receiving(1)
    assert hosts.has_served_since(HOST, -1.0)
    assert hosts.has_served_since(HOST, GRACE_S)
    assert not hosts.has_served_since(HOST, GRACE_S + 0.1)


def test_the_limit_is_what_was_not_refused() -> None:
    """If two of four simultaneous attempts are refused, two are allowed."""
    hosts, working = receiving(2)
    for name in ("third", "fourth"):
        hosts.began(name, HOST)
    for name in ("third", "fourth"):
        assert hosts.refused(name, 0.0, BUSY)
        hosts.ended(name, 0.0)
    assert not hosts.has_room(HOST, 0.0)
    hosts.ended(working[0], 0.0)
    assert hosts.has_room(HOST, 0.0)


def test_one_more_is_tried_after_a_quiet_time_that_doubles() -> None:
    """A server that allows one connection at a time refuses fewer than ten attempts in 400 seconds."""
    hosts, _ = receiving(1)
    refused = []
    for now in range(400):
        if hosts.has_room(HOST, float(now)):
            assert turned_away(hosts, f"at {now}", float(now))
            refused.append(now)
    assert refused[:4] == [0, PROBE_S, PROBE_S + 10, PROBE_S + 30]
    assert len(refused) < 10


def test_a_limit_that_was_lifted_is_found_out() -> None:
    """The limit rises by one at a time for as long as nothing is refused."""
    hosts, _ = receiving(1)
    assert turned_away(hosts, "further", 0.0)
    now = 0.0
    for count in range(2, 5):
        now += PROBE_S
        assert hosts.has_room(HOST, now)
        hosts.began(count, HOST)
        assert not hosts.has_room(HOST, now), "one at a time"
        hosts.receives(count, now)
        assert not hosts.has_room(HOST, now)


def test_nothing_allows_more_than_the_user() -> None:
    """``--max-per-host`` holds, whatever the host allows."""
    hosts, _ = receiving(2, per_host=2)
    assert not hosts.has_room(HOST, 0.0)
    assert not hosts.has_room(HOST, 1000.0)


@pytest.mark.parametrize(
    ("error", "seconds"), [(BUSY, SERVING_S), (DENIED, GRACE_S), (REFUSED, 0.0)], ids=["503", "403", "refused"]
)
def test_a_refusal_that_nobody_else_explains_is_a_failure(error: GrymFetchError, seconds: float) -> None:
    """A refusal that means "too often" is excused for a while after others were served; a dead listener never is."""
    hosts, working = receiving(1)
    hosts.ended(working[0], 10.0)
    if seconds:
        assert turned_away(hosts, "soon", 10.0 + seconds * 0.9, error)
    assert not turned_away(hosts, "late", 10.0 + seconds, error)


@pytest.mark.shows("A24")
def test_a_prompt_refusal_teaches_before_anybody_is_served() -> None:
    """While others wait for answers, a refusal means one too many; for the last one, or after long, it does not."""
    hosts = Hosts(8)
    for name in "abc":
        hosts.began(name, HOST)
    assert not hosts.refused("a", 9.0, REFUSED, took=9.0)
    assert hosts.refused("b", 9.1, REFUSED, took=0.1)
    assert hosts.allows(HOST) == 1
    assert not hosts.has_room(HOST, 9.1)
    hosts.receives("c", 9.2)
    assert hosts.is_serving(HOST)
    assert hosts.allows(HOST) == 1


def test_where_all_are_refused_that_says_nothing_of_how_many() -> None:
    """Until one is served, attempts go one at a time; after that, as many as before."""
    hosts = Hosts(8)
    hosts.began("a", HOST)
    hosts.began("b", HOST)
    assert hosts.refused("a", 0.1, REFUSED, took=0.1)
    assert not hosts.refused("b", 0.2, REFUSED, took=0.2)
    hosts.ended("a", 0.2)
    hosts.ended("b", 0.2)
    assert hosts.allows(HOST) is None
    hosts.began("c", HOST)
    assert not hosts.has_room(HOST, 0.3)
    hosts.receives("c", 0.4)
    assert hosts.has_room(HOST, 0.4)


@pytest.mark.shows("A2", "A25")
@pytest.mark.parametrize("told", [None, 0.0], ids=["no time", "at once"])
def test_pauses_grow_to_a_minute_until_somebody_is_served(told: float | None) -> None:
    """A host that says "too often" is not asked again and again at the same pace, even if it says: now."""
    hosts, working = receiving(1)
    now, pauses = 0.0, []
    hosts.ended(working[0], now)
    while turned_away(hosts, f"at {now}", now, Throttled(URL, 503, "status 503", told)):
        pauses.append(hosts.opens_at(HOST) - now)
        assert not hosts.has_room(HOST, now)
        now = hosts.opens_at(HOST)
        assert hosts.has_room(HOST, now)
    assert pauses == [0.25 * 2**n for n in range(len(pauses))]
    assert sum(pauses[:-1]) < SERVING_S <= sum(pauses)
    hosts.began("served", HOST)
    hosts.receives("served", now)
    hosts.ended("served", now)
    assert turned_away(hosts, "again", now)
    assert hosts.opens_at(HOST) - now == 0.25
    assert max(pauses) <= MAX_PAUSE_S


@pytest.mark.shows("A25")
def test_who_is_told_to_wait_waits_for_all() -> None:
    """Nobody asks the host until its time has come, at most two minutes later; then it is asked again."""
    hosts, _ = receiving(1)
    assert turned_away(hosts, "told", 5.0, Throttled(URL, 429, "status 429", 55.0))
    assert not hosts.has_room(HOST, 59.9)
    assert hosts.next_opening(5.0) == 60.0
    assert hosts.next_opening(60.0) is None
    assert turned_away(hosts, "told again", 1000.0, Throttled(URL, 503, "status 503", 1e9))
    assert hosts.opens_at(HOST) == 1000.0 + 120.0


def test_a_redirect_takes_an_attempt_to_its_host() -> None:
    """The limit belongs to the server that has the bytes, not to the one that redirected there."""
    hosts, _ = receiving(1)
    hosts.began("redirected", "hub.example")
    hosts.moved("redirected", HOST)
    assert hosts.refused("redirected", 0.0, BUSY)
    hosts.ended("redirected", 0.0)
    assert not hosts.has_room(HOST, 0.0)
    assert hosts.has_room("hub.example", 0.0)


@pytest.mark.shows("R29", "A19")
def test_a_host_that_refuses_everything_is_known() -> None:
    """Three refused requests for a whole file with none served mark the host; a lost connection does not count."""
    hosts, _ = receiving(1)
    for error in (BadStatus(URL, 404, "status 404: not found"), DENIED, ConnectionLost(URL, "reset"), DENIED):
        assert not hosts.refuses_wholes(HOST)
        hosts.began("whole", HOST)
        hosts.refused_whole("whole", error)
        hosts.ended("whole", 0.0)
    assert hosts.refuses_wholes(HOST)
    assert not hosts.refuses_wholes("two.example")
    hosts.receives("working 0", 1.0)
    assert hosts.refuses_wholes(HOST)
    hosts.began("served", HOST)
    hosts.receives("served", 1.0, whole=True)
    assert not hosts.refuses_wholes(HOST)


@pytest.mark.shows("N24")
def test_who_is_asked_ahead() -> None:
    """Every host is asked ahead until the first sign against it, and none if the user does not want it."""
    hosts = Hosts(8, ahead=True)
    assert hosts.takes_ahead(HOST, 0.0)
    hosts.lost_ahead(HOST)
    assert not hosts.takes_ahead(HOST, 1e9)
    assert hosts.takes_ahead("two.example", 0.0)
    assert not Hosts(8).takes_ahead(HOST, 0.0)


@pytest.mark.shows("N24")
def test_one_connection_tries_first() -> None:
    """Until a host has answered a few requests, one connection asks it ahead; another takes over if it gives up."""
    hosts = Hosts(8, ahead=True)
    assert [hosts.may_ask_ahead(name, HOST, 0.0, 15) for name in ("one", "two", "one")] == [TRY_AHEAD, 0, TRY_AHEAD]
    assert hosts.may_ask_ahead("two", "two.example", 0.0, 1) == 1
    hosts.kept_ahead(HOST)
    assert hosts.may_ask_ahead("two", HOST, TRY_S - 1, 15) == 0
    assert hosts.may_ask_ahead("two", HOST, TRY_S, 15) == TRY_AHEAD
    assert not hosts.has_proved_ahead(HOST)
    hosts.kept_ahead(HOST)
    assert hosts.has_proved_ahead(HOST)
    assert [hosts.may_ask_ahead(name, HOST, TRY_S, 15) for name in ("one", "two")] == [15, 15]
    hosts.lost_ahead(HOST)
    assert hosts.may_ask_ahead("one", HOST, TRY_S, 15) == 0


@pytest.mark.shows("N24")
def test_who_says_too_often_is_not_asked_ahead() -> None:
    """A host that wants fewer requests, or to be left alone for a while, is not asked ahead."""
    hosts = Hosts(8, ahead=True)
    assert not turned_away(hosts, "one", 0.0)
    assert not hosts.takes_ahead(HOST, 1e9)
    hosts.left_alone("two.example", 10.0)
    assert not hosts.takes_ahead("two.example", 9.0)
    assert hosts.takes_ahead("two.example", 10.0)


def test_a_host_that_is_away_is_waited_for_by_all_together() -> None:
    """If it has served over this scheme; whoever serves again is as good as new."""
    hosts = Hosts(4)
    assert hosts.cannot_be_reached("h", "https", 0.0, 60.0) == 0.0
    hosts.began("a", "h")
    assert hosts.cannot_be_reached("h", "https", 0.0, 60.0) == 0.0
    hosts.receives("a", 1.0, scheme="https")
    assert hosts.cannot_be_reached("h", "http", 2.0, 60.0) == 0.0
    assert hosts.cannot_be_reached("h", "https", 10.0, 60.0) == 60.0
    assert hosts.cannot_be_reached("h", "https", 30.0, 60.0) == 40.0
    assert hosts.cannot_be_reached("h", "https", 99.0, 60.0) == 0.0
    hosts.receives("a", 100.0, scheme="https")
    assert hosts.cannot_be_reached("h", "https", 110.0, 60.0) == 60.0


def test_a_host_that_was_away_is_waited_for_until_it_serves() -> None:
    """What answers first may speak for one that is not well yet."""
    hosts = Hosts(4)
    assert hosts.seconds_to_wait("h", 0.0, 60.0) == 0.0
    hosts.began("a", "h")
    hosts.receives("a", 1.0, scheme="https")
    assert hosts.seconds_to_wait("h", 2.0, 60.0) == 0.0
    hosts.cannot_be_reached("h", "https", 10.0, 60.0)
    assert hosts.seconds_to_wait("h", 30.0, 60.0) == 40.0
    assert hosts.seconds_to_wait("h", 99.0, 60.0) == 0.0
    hosts.receives("a", 100.0, scheme="https")
    assert hosts.seconds_to_wait("h", 101.0, 60.0) == 0.0

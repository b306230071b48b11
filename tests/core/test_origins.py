"""The origins of an asset: failures counted once per outage, budgets renewed by progress, the best one chosen."""

from __future__ import annotations

import ast
from collections import Counter
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import (
    BadStatus,
    ConnectFailed,
    ConnectionLost,
    GrymFetchError,
    LengthMismatch,
    Throttled,
)
from grym_fetch.core.http import NO_VALIDATOR, Validator
from grym_fetch.core.origins import CRAWL_BYTES_PER_S, MAX_CHANGES, PROGRESS_BYTES, Origin, Origins
from grym_fetch.core.policy import Decision, GiveUp, Leave, Retry, RetryPolicy

URLS = ("https://a.example/x?sig=hunter2", "https://b.example/x", "https://c.example/x")
POLICY = RetryPolicy(retries=3, base_delay=1.0, max_delay=10.0)
LOST = ConnectionLost(URLS[0], "ended early")
GONE = BadStatus(URLS[0], 404, "status 404: not found")
REFUSED = ConnectFailed(URLS[0], "refused")


def fail(
    origins: Origins, number: int, error: GrymFetchError = LOST, *, now: float, began: float | None = None
) -> Decision | None:
    """Let one origin fail at ``now``, in an attempt that began at that moment unless said otherwise."""
    began = now if began is None else began
    return origins.failed(origins.all[number], error, began=began, now=now, policy=POLICY, jitter=0.5)


PACKAGE = Path(__file__).parents[2] / "grym_fetch"
STATE = {field.name for field in fields(Origin)} | set(vars(Origins(URLS)))


def assignments(text: str) -> list[str]:
    """Assignments and deletions in a module that concern an origin's state, on anything but ``self``."""
    if "origin" not in text.lower():
        return []
    return [
        ast.unparse(node)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Attribute)
        and not isinstance(node.ctx, ast.Load)
        and node.attr in STATE
        and ast.unparse(node.value) != "self"
    ]


def test_an_origin_has_one_writer() -> None:
    """The state of an origin changes only in its own methods, each of which says what happened."""
    found = {str(path): assignments(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")}
    assert {path: places for path, places in found.items() if places} == {}


@pytest.mark.parametrize(
    "text",
    [
        "origin.ranges = 1",
        "a.origin.failures += 1",
        "origin.is_out, y = 1, 2",
        "origin.rate: int = 1",
        "del origin.target",
    ],
)
def test_a_second_writer_is_noticed(text: str) -> None:
    """A second writer is noticed, however it assigns."""
    assert len(assignments(text)) == 1


def test_the_first_is_asked_first() -> None:
    """Origins are asked in the manifest's order."""
    origins = Origins(URLS)
    assert [origin.url for origin in origins.all] == list(URLS)
    assert [origin.number for origin in origins.all] == [0, 1, 2]
    assert origins.current is origins.all[0] is origins.choose(now=0.0)
    assert origins.reasons() == ()


@pytest.mark.shows("A19", "P11")
def test_an_outage_is_counted_once() -> None:
    """If one outage breaks several connections, only the first failure counts; that of a later attempt counts again."""
    origins = Origins(URLS[:1])
    assert isinstance(fail(origins, 0, began=0.0, now=10.0), Retry)
    for moment in (10.0, 10.1, 12.0):
        assert fail(origins, 0, began=5.0, now=moment) is None
    assert origins.all[0].failures == 1
    assert fail(origins, 0, began=11.0, now=13.0) == Retry(2, 1.0)
    assert origins.all[0].failures == 2


@pytest.mark.shows("A6")
def test_a_failure_forgets_where_redirects_led() -> None:
    """The next request asks the first address again, but not after a failure of an outage that was already counted."""
    origins = Origins(URLS[:1])
    origin, fresh = origins.all[0], URL("https://node2.example/x")
    origin.resolved(URL("https://node1.example/x"), is_own=False)
    fail(origins, 0, began=0.0, now=10.0)
    assert origin.target is None
    origin.resolved(fresh, is_own=False)
    fail(origins, 0, began=5.0, now=10.1)
    assert origin.target is fresh


def test_an_expired_address_is_forgotten_once() -> None:
    """An attempt that meets the expiry late does not forget the address found since."""
    origin, fresh = Origin(0, URLS[0]), URL("https://node2.example/x")
    origin.resolved(expired := URL("https://node1.example/x"), is_own=False)
    origin.lost_target(expired)
    assert origin.target is None
    origin.resolved(fresh, is_own=False)
    origin.lost_target(expired)
    assert origin.target is fresh


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [(None, [True]), (True, [False, True]), (False, [False, False])],
    ids=["not known", "have worked", "given up"],
)
def test_when_a_refusal_ends_ranges(ranges: bool | None, expected: list[bool]) -> None:
    """The first refusal ends ranges if none has worked yet, else the second; if none were requested, it is a fault."""
    origin = Origin(0, URLS[0])
    if ranges is not None:
        (origin.proved_ranges if ranges else origin.lost_ranges)()
    assert [origin.refused_range() for _ in expected] == expected


def test_content_that_changes_is_soon_unsteady() -> None:
    """Each change forgets the validator; after a few changes, validators are considered noise."""
    origin = Origin(0, URLS[0])
    for number in range(1, MAX_CHANGES + 1):
        assert not origin.is_unsteady
        origin.identified(Validator(f'"{number}"'))
        origin.changed()
        assert (origin.changes, origin.validator) == (number, NO_VALIDATOR)
    assert origin.is_unsteady


def test_several_servers_are_told_from_one() -> None:
    """Bytes are mixed if one server continues what another began, until everything has been requested once more."""
    origin = Origin(0, URLS[0])
    origin.served_by("one", has_given=False)
    assert not origin.is_mixed
    origin.served_by("two", has_given=True)
    origin.served_by("three", has_given=False)
    assert (origin.is_mixed, origin.server) == (True, "three")
    origin.restarted()
    assert not origin.is_mixed


def test_one_whose_digest_is_wrong_is_out() -> None:
    """The origin is not asked again in this run, and the reason shown has both digests."""
    origins = Origins(URLS[:1])
    (origin,) = origins.all
    origin.mismatched(Checksum.of(b"other"), Checksum.of(b"right"))
    assert origins.usable == []
    assert origin.digest == Checksum.of(b"other")
    assert origin.last_reason == f"what it sent has the digest {Checksum.of(b'other')}, not {Checksum.of(b'right')}"


def test_one_that_is_trusted_is_asked_alone_and_now() -> None:
    """A trusted origin is asked alone and at once, whatever its delay, even if all were asked together before."""
    origins = Origins(URLS, together=True)
    origins.all[2].postponed(1e9)
    origins.trust(origins.all[2])
    assert origins.to_ask(0.0, {}) == [origins.all[2]]


def test_a_failure_that_is_not_counted_is_remembered() -> None:
    """The reason shown in the end is the last failure, even if its outage was already counted."""
    origins = Origins(URLS[:1])
    fail(origins, 0, LOST, began=0.0, now=10.0)
    fail(origins, 0, REFUSED, began=0.0, now=11.0)
    assert origins.all[0].last_error is REFUSED


def test_an_origin_is_not_asked_before_its_delay() -> None:
    """After a failure an origin is ready once its delay is over; a shorter delay never moves that forward."""
    origins = Origins(URLS[:1])
    fail(origins, 0, Throttled(URLS[0], 429, "status 429", 60.0), now=0.0)
    assert origins.all[0].ready_at == pytest.approx(60.05)
    fail(origins, 0, LOST, now=1.0)
    assert origins.all[0].ready_at == pytest.approx(60.05)


def test_one_given_up_stays_out() -> None:
    """An origin that is out is no longer usable, chosen or counted."""
    origins = Origins(URLS)
    origins.all[0].proved_ranges()
    assert fail(origins, 0, GONE, now=1.0) == GiveUp()
    assert origins.all[0].is_out
    assert [origin.number for origin in origins.usable] == [1, 2]
    assert origins.choose(now=1e9) is origins.all[1]
    assert origins.to_ask(1e9, {}) == []  # nobody has turned to another one yet
    assert fail(origins, 0, now=2.0) is None


@pytest.mark.shows("R29")
def test_one_whose_ranges_were_never_proved_is_asked_once_for_the_whole() -> None:
    """It is out only after that: some servers refuse only ranges, and answer 404 to them."""
    origins = Origins(URLS)
    assert fail(origins, 0, GONE, now=1.0) == Retry(1, 0.0, way="for the whole file in one response")
    assert origins.all[0].ranges is False
    assert fail(origins, 0, GONE, now=2.0) == GiveUp()
    assert origins.all[0].is_out


@pytest.mark.shows("R29", "A2", "A19")
def test_the_whole_is_not_asked_for_where_that_is_hopeless() -> None:
    """A server that wants to be left alone is not asked for the whole file."""
    told = Throttled(URLS[0], 503, "status 503", 60.0)
    origins = Origins(URLS)
    steps = [fail(origins, 0, told, now=1000.0 * number) for number in range(POLICY.retries + 1)]
    assert steps[-1] == GiveUp()
    assert origins.all[0].is_out


def test_when_all_are_out_nobody_is_chosen() -> None:
    """When no origin is left, it is over, and each one's reason is known without its secrets."""
    origins = Origins(URLS)
    for number in range(3):
        origins.all[number].proved_ranges()
        fail(origins, number, GONE, now=float(number))
    assert origins.choose(now=99.0) is None
    reasons = [str(reason) for reason in origins.reasons()]
    assert reasons == [f"https://{host}.example/x: status 404: not found" for host in "abc"]
    assert "hunter2" not in "".join(reasons) + origins.all[0].shown


def test_progress_renews_the_budget() -> None:
    """A piece's worth of bytes forgives the failures before it; a few bytes do not."""
    origins = Origins(URLS[:1])
    origin = origins.all[0]
    for now in (1.0, 2.0, 3.0):
        fail(origins, 0, now=now)
    origin.progressed(PROGRESS_BYTES - 1)
    assert origin.failures == 3
    origin.progressed(1)
    assert origin.failures == 0
    assert fail(origins, 0, now=100.0) == Retry(1, 0.5)


@pytest.mark.shows("A19", "N13")
def test_without_progress_it_ends() -> None:
    """An origin that always sends a few bytes and breaks off is given up in the end."""
    origins = Origins(URLS[:1])
    origins.all[0].proved_ranges()
    steps = []
    for now in range(10):
        origins.all[0].progressed(100)
        steps.append(fail(origins, 0, now=float(now)))
    assert [type(step) for step in steps[:4]] == [Retry, Retry, Retry, GiveUp]
    assert steps[4:] == [None] * 6


def test_whether_there_is_an_alternative_depends_on_the_moment() -> None:
    """An origin is left for another one only if the other may be asked now."""
    origins = Origins(URLS[:2])
    origins.all[1].postponed(50.0)
    assert isinstance(fail(origins, 0, REFUSED, now=49.9), Retry)
    assert isinstance(fail(origins, 0, REFUSED, now=50.0), Leave)
    origins.all[1].given_up()
    assert isinstance(fail(origins, 0, REFUSED, now=60.0), Retry)


@pytest.mark.parametrize(
    ("ready", "failures", "out", "expected"),
    [
        ((0, 0, 0), (0, 0, 0), (), 0),
        ((0, 0, 0), (1, 0, 0), (), 1),
        ((0, 0, 0), (2, 1, 1), (), 1),
        ((20, 0, 0), (0, 3, 4), (), 1),
        ((20, 15, 30), (0, 9, 0), (), 1),
        ((20, 20, 20), (2, 2, 1), (), 2),
        ((9, 10, 0), (0, 0, 0), (), 0),
        ((0, 0, 0), (0, 0, 0), (0,), 1),
        ((0, 20, 30), (0, 0, 0), (0,), 1),
        ((0, 0, 0), (0, 0, 0), (0, 1, 2), None),
    ],
)
def test_the_best_that_is_ready(
    ready: tuple[float, ...], failures: tuple[int, ...], out: tuple[int, ...], expected: int | None
) -> None:
    """Ready origins come before waiting ones, then those with the fewest failures, then the manifest's order."""
    origins = Origins(URLS)
    for origin in origins.all:
        origin.postponed(ready[origin.number])
        for _ in range(failures[origin.number]):
            assert origin.failed(LOST, began=0.0, now=0.0)
        if origin.number in out:
            origin.given_up()
    chosen = origins.choose(now=10.0)
    assert (chosen and chosen.number) == expected


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from([LOST, REFUSED, GONE]), st.floats(0, 100), st.floats(0, 50)),
        max_size=60,
    )
)
@pytest.mark.shows("A19")
def test_any_failures_end(happenings: list[tuple[int, GrymFetchError, float, float]]) -> None:
    """However failures come, each origin is asked again at most as often as its budget allows, once more without ranges
    if these were never proved, and is then out for good.
    """
    origins = Origins(URLS)
    now = 0.0
    again = [0, 0, 0]
    for number, error, began_before, pause in happenings:
        was_out = origins.all[number].is_out
        step = fail(origins, number, error, began=now - began_before, now=now)
        again[number] += isinstance(step, Retry | Leave)
        assert not (was_out and step is not None)
        now += pause
    assert max(again) <= POLICY.retries + 1
    for origin in origins.all:
        assert origin.failures <= POLICY.retries + 2


def test_speed_is_smoothed() -> None:
    """The first measurement counts fully and each later one partly; one without time or bytes counts for nothing."""
    origin = Origin(0, URLS[0])
    origin.measured(0, 1.0)
    origin.measured(10, 0.0)
    assert origin.rate is None
    origin.measured(1000, 2.0)
    assert origin.rate == 500.0
    origin.measured(1000, 1.0)
    assert origin.rate == pytest.approx(0.6 * 500 + 0.4 * 1000)


def test_a_wait_is_the_worst_of_late() -> None:
    """A long wait for the first byte counts at once and is forgotten slowly."""
    origin = Origin(0, URLS[0])
    waits = []
    for seconds in (0.1, 2.0, 0.1, 0.1):
        origin.waited(seconds)
        waits.append(origin.wait)
    assert waits == pytest.approx([0.1, 2.0, 1.4, 0.98])


def shares(origins: Origins, connections: int) -> list[int]:
    """How many of this many connections each origin gets."""
    at_work: Counter[Origin] = Counter()
    for _ in range(connections):
        at_work[origins.to_ask(0.0, at_work)[0]] += 1
    return [at_work[origin] for origin in origins.all]


@pytest.mark.parametrize(
    ("rates", "connections", "expected"),
    [
        ([None, None], 2, [1, 1]),
        ([None, None, None], 4, [2, 1, 1]),
        ([10.0, 10.0], 8, [4, 4]),
        ([30.0, 10.0], 8, [6, 2]),
        ([10.0, 1.0], 4, [4, 0]),
        ([10.0, None], 2, [1, 1]),
        ([1e9, 1.0, None], 6, [3, 0, 3]),
    ],
)
def test_together_each_has_connections_as_it_is_fast(
    rates: list[float | None], connections: int, expected: list[int]
) -> None:
    """Connections are divided by d'Hondt's method; an unmeasured origin counts as fast."""
    origins = Origins([f"https://{n}.example.org/" for n in range(len(rates))], together=True)
    for origin, rate in zip(origins.all, rates, strict=True):
        origin.measured(int(rate or 0), 1.0)
    assert shares(origins, connections) == expected


def test_together_only_those_are_asked_that_can_help() -> None:
    """An origin that waits, is out, or has no ranges is not asked together with others, unless it is the only one."""
    origins = Origins([f"https://{n}.example.org/" for n in range(4)], together=True)
    stream, waiting, out, good = origins.all
    stream.lost_ranges()
    waiting.postponed(5.0)
    out.given_up()
    assert origins.to_ask(0.0, {}) == [good]
    good.given_up()
    assert origins.to_ask(0.0, {}) == [stream]
    assert origins.to_ask(5.0, {}) == [waiting]


def test_one_address_is_never_together() -> None:
    """A single address is never asked together with others; several are only if that is wanted. Otherwise only the
    current one is asked, when it is ready.
    """
    assert not Origins(URLS[:1], together=True).together
    origins = Origins(URLS)
    assert origins.to_ask(0.0, {}) == [origins.all[0]]
    origins.current.postponed(1.0)
    assert origins.to_ask(0.0, {}) == []
    origins.turn_to(origins.all[1])
    assert origins.to_ask(0.0, {}) == [origins.all[1]]


@pytest.mark.shows("N13", "S12")
def test_who_crawls_is_left_once() -> None:
    """A slow origin is left for the best other one, after some patience; each is left only once, so that a slow line
    does not use them all up.
    """
    origins = Origins(URLS)
    _, second, third = origins.all
    assert origins.find_faster(CRAWL_BYTES_PER_S - 1, 0.0, 30.0) is None
    assert origins.find_faster(CRAWL_BYTES_PER_S - 1, 29.0, 30.0) is None
    assert origins.find_faster(CRAWL_BYTES_PER_S, 29.5, 30.0) is None  # it made progress
    assert origins.find_faster(CRAWL_BYTES_PER_S - 1, 31.0, 30.0) is None
    second.failed(LOST, began=0.0, now=0.0)
    assert origins.find_faster(CRAWL_BYTES_PER_S - 1, 61.0, 30.0) is third
    origins.turn_to(third)
    assert origins.find_faster(0.0, 62.0, 30.0) is None
    assert origins.find_faster(0.0, 92.0, 30.0) is second
    origins.turn_to(second)
    assert origins.find_faster(0.0, 1000.0, 30.0) is None
    assert origins.find_faster(0.0, 2000.0, 30.0) is None
    assert [origin.has_crawled for origin in origins.all] == [True, False, True]


def test_nobody_is_left_for_one_that_cannot_be_asked() -> None:
    """A slow origin is better than none: one that is out, or waits for its time, is not an alternative."""
    origins = Origins(URLS[:2])
    origins.all[1].postponed(100.0)
    assert origins.find_faster(0.0, 0.0, 30.0) is None
    assert origins.find_faster(0.0, 50.0, 30.0) is None
    assert origins.find_faster(0.0, 100.0, 30.0) is origins.all[1]
    origins = Origins(URLS[:2])
    origins.all[1].given_up()
    assert origins.find_faster(0.0, 0.0, 30.0) is None
    assert origins.find_faster(0.0, 200.0, 30.0) is None


@pytest.mark.shows("N13")
def test_together_those_that_crawl_are_left_for_one_that_is_not_at_work() -> None:
    """Origins asked together share the work by speed, so idle connections take over by themselves: if there are any."""
    origins = Origins(URLS, together=True)
    first, second, third = origins.all
    for now in (0.0, 31.0):
        assert origins.find_faster(0.0, now, 30.0, origins.all) is None
    assert origins.find_faster(0.0, 32.0, 30.0, [first, second]) is third
    assert [origin.has_crawled for origin in origins.all] == [True, True, False]
    assert origins.to_ask(32.0, {third: 5}) == [third, first, second]


@pytest.mark.shows("N13", "S12")
def test_one_that_was_set_aside_is_the_last_to_be_turned_to() -> None:
    """It has other content than most; but where these crawl, or are out, it may be the one that is right."""
    origins = Origins(URLS, together=True)
    first, second, third = origins.all
    second.set_aside()
    assert origins.find_faster(0.0, 0.0, 30.0, [first]) is None
    assert origins.find_faster(0.0, 31.0, 30.0, [first]) is third
    third.given_up()
    first.has_crawled = False
    assert origins.find_faster(0.0, 32.0, 30.0, [first]) is second
    assert origins.to_ask(32.0, {}) == [first]
    origins.turn_to(second)
    assert origins.to_ask(32.0, {}) == [second, first]
    first.given_up()
    assert origins.to_ask(32.0, {}) == [second]


def test_what_several_have_in_common_is_told() -> None:
    """Two addresses with the same wrong content suggest that the manifest is wrong; one alone does not."""
    origins = Origins(URLS)
    first, second, third = origins.all
    assert origins.agreement() == ""
    first.stated(Checksum.of(b"one"))
    second.stated(Checksum.of(b"two"))
    third.failed(LengthMismatch(URLS[2], 5, 7), began=0.0, now=0.0)
    assert origins.agreement() == ""
    first.failed(LengthMismatch(URLS[0], 5, 7), began=0.0, now=0.0)
    assert origins.agreement() == "2 addresses agree on 7 bytes: the size in the manifest is probably wrong."
    assert second.digest is not None
    third.stated(second.digest)
    told = f"2 addresses agree on {second.digest}: the checksum in the manifest is probably wrong."
    assert origins.agreement() == told


@pytest.mark.shows("A26")
def test_ranges_that_were_proved_are_not_lost_where_the_whole_is_refused_too() -> None:
    """After two refusals the whole file is requested; if that fails as well, the range was not the reason."""
    origin = Origin(0, "https://one.example/x")
    origin.proved_ranges()
    assert not origin.refused_range()
    assert origin.refused_range()
    origin.lost_ranges()
    origin.refused_whole()
    assert origin.ranges is True
    assert not origin.refused_range()


@pytest.mark.shows("R29")
def test_a_range_that_fails_twice_is_followed_by_the_whole() -> None:
    """If that fails too, by a range again; if some bytes are already on hand, the budget comes first."""
    policy = RetryPolicy(retries=5)
    for is_empty, seen in [(True, [None, False, None, False, None]), (False, [None] * 5)]:
        origins = Origins(["https://one.example/x"])
        ranges = []
        for now in range(5):
            failed = BadStatus("https://one.example/x", 500, "status 500")
            origins.failed(
                origins.current, failed, began=float(now), now=now + 0.5, policy=policy, jitter=0.0, is_empty=is_empty
            )
            ranges.append(origins.current.ranges)
        assert ranges == seen

"""What answers and failures teach about a host, and when a failure is one after all."""

from __future__ import annotations

import pytest

from grym_fetch.core import http
from grym_fetch.core.addresses import parse_address
from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import BadResponse, BadStatus, ConnectionLost, Throttled
from grym_fetch.core.manifest_schema import ASSET
from grym_fetch.core.origins import Origins
from grym_fetch.core.ranges import ByteRange
from grym_fetch.core.segments import Segment
from grym_fetch.transfer.attempt import Attempt
from grym_fetch.transfer.first_asks import FirstAsks
from grym_fetch.transfer.lessons import Lessons
from grym_fetch.transfer.request import JudgedResponse
from grym_fetch.transfer.scheduler import Scheduler
from tests.support.fakes import ScriptedResponse, VirtualClock
from tests.support.small_world import SmallWorld

HOST, MIRROR = "h.example", "m.example"
URL = f"https://{HOST}/a"
SIZE = 1000
BUSY = Throttled(URL, 503, "status 503", None)


class Asset:
    """The lessons of one asset of 1000 bytes, with attempts at work. ``mirrors``: further addresses."""

    def __init__(self, *mirrors: str) -> None:
        asset = ASSET.read({"id": "a", "url": URL, "localPath": "a", "size": SIZE, "checksum": Checksum.of(b"").bare})
        self.origins = Origins((URL, *mirrors))
        self.attempts: set[Attempt] = set()
        self.clock = VirtualClock()
        self.scheduler = Scheduler(SmallWorld({}), connections=4, ahead=True)
        self.hosts = self.scheduler.hosts
        first_asks = FirstAsks(asset, self.hosts)
        self.lessons = Lessons("a", self.origins, self.attempts, first_asks, self.scheduler, self.clock)
        self.origins.current.proved_ranges()

    def begin(self, *, start: int = 0, receiving: bool = False) -> Attempt:
        """One more attempt at work, perhaps one that already receives."""
        now = self.clock.monotonic()
        attempt = Attempt(Segment(start, start + 100, start), self.origins.current, HOST, now)
        self.attempts.add(attempt)
        self.hosts.began(attempt, HOST)
        if receiving:
            self.hosts.receives(attempt, now)
            attempt.arrived(now, 1)
        return attempt

    def answers(self, attempt: Attempt, verdict: http.Verdict, status: int, **fields: str) -> None:
        """A response to it has been judged. Raises what means "one too many"."""
        answer = JudgedResponse(ScriptedResponse(status, fields), verdict, is_page=False, host=HOST)
        self.lessons.of_answer(attempt, answer, SIZE)


@pytest.mark.shows("A6")
@pytest.mark.parametrize(("status", "is_lesson"), [(503, False), (429, True)])
def test_a_server_behind_a_redirect_that_is_down_is_not_waited_for(status: int, is_lesson: bool) -> None:
    """It has served us a moment ago and serves nobody now: the redirects may lead to another one."""
    for target, is_waited_for in ((None, True), (parse_address(f"https://{MIRROR}/a"), is_lesson)):
        asset = Asset()
        first = asset.begin(receiving=True)
        first.origin.progressed(1)
        first.origin.resolved(target, is_own=False)
        asset.attempts.discard(first)
        asset.hosts.ended(first, asset.clock.monotonic())
        pause = asset.lessons.of_failure(asset.begin(), Throttled(URL, status, f"status {status}", None))
        assert (pause is not None) is is_waited_for


def test_a_refusal_beside_one_that_receives_is_a_lesson() -> None:
    """It costs no retry, and says how many the host allows; the same with nobody beside it is a failure."""
    asset = Asset()
    asset.begin(receiving=True)
    assert asset.lessons.of_failure(asset.begin(start=100), BUSY) == 0.0
    assert asset.hosts.allows(HOST) == 1
    alone = Asset()
    assert alone.lessons.of_failure(alone.begin(), BadStatus(URL, 403, "status 403: access denied")) is None


def test_nobody_waits_for_a_host_while_a_mirror_is_ready() -> None:
    """A host that serves nothing just now is left for the mirror: the refusal counts."""
    for mirrors, is_lesson in (((), True), ((f"https://{MIRROR}/a",), False)):
        asset = Asset(*mirrors)
        first = asset.begin(receiving=True)
        asset.hosts.ended(first, asset.clock.monotonic())
        asset.origins.current.sent(asset.clock.monotonic())
        asset.attempts.clear()
        assert (asset.lessons.of_failure(asset.begin(), BUSY) is not None) is is_lesson


def test_what_fails_after_its_first_byte_is_a_failure() -> None:
    """The host had let it in."""
    asset = Asset()
    asset.begin(receiving=True)
    assert asset.lessons.of_failure(asset.begin(start=100, receiving=True), BUSY) is None


def test_a_connection_lost_with_requests_behind_it_costs_them_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Perhaps one of them was the reason: nothing is sent ahead there any more, and nothing has failed."""
    asset = Asset()
    attempt = asset.begin(receiving=True)
    monkeypatch.setattr(asset.scheduler, "ahead_of", lambda _: iter([]))
    lost = ConnectionLost(URL, "reset by the server")
    assert asset.lessons.of_failure(attempt, lost) is None
    monkeypatch.setattr(asset.scheduler, "ahead_of", lambda _: iter(["a request"]))
    assert asset.hosts.takes_ahead(HOST, asset.clock.monotonic())
    assert asset.lessons.of_failure(attempt, lost) == 0.0
    assert not asset.hosts.takes_ahead(HOST, asset.clock.monotonic())


def test_content_teaches_that_the_host_serves() -> None:
    """Also where redirects have led elsewhere."""
    asset = Asset()
    attempt = asset.begin()
    asset.answers(attempt, http.Partial(ByteRange(0, 100), SIZE, http.NO_VALIDATOR), 206)
    assert asset.hosts.is_serving(HOST)
    assert attempt.reached == HOST


def test_a_note_beside_content_means_one_too_many() -> None:
    """It is raised as a refusal, before anybody believes that the content has changed."""
    asset = Asset()
    asset.begin(receiving=True)
    with pytest.raises(BadResponse, match="not the content, which it sends to another request"):
        asset.answers(asset.begin(start=100), http.Whole(0, http.NO_VALIDATOR, framed=True), 200)


@pytest.mark.parametrize("is_busy", [True, False], ids=["busy", "idle"])
def test_a_range_that_a_busy_host_denies_is_not_the_range_s_fault(is_busy: bool) -> None:
    """It may be serving another asset of ours as often as it allows."""
    asset = Asset()
    if is_busy:
        asset.hosts.began("another asset's", HOST)
        asset.hosts.receives("another asset's", asset.clock.monotonic())
    attempt = asset.begin()
    if is_busy:
        with pytest.raises(BadStatus):
            asset.answers(attempt, http.UnusableRange("status 403"), 403)
    else:
        asset.answers(attempt, http.UnusableRange("status 403"), 403)

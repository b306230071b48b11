"""Which origins are asked once more, alone, before an asset fails."""

from __future__ import annotations

from grym_fetch.core.errors import BadStatus
from grym_fetch.core.hosts import GRACE_S, Hosts
from grym_fetch.core.origins import Origin, Origins
from grym_fetch.core.segments import Segment
from grym_fetch.transfer.attempt import Attempt
from grym_fetch.transfer.rivals import Rivals

URL = "https://one.example/x"
HOST = "one.example"
MISSING = BadStatus(URL, 404, "status 404: not found")


class Host:
    """A host that serves one attempt of another asset while ours is refused."""

    def __init__(self, *, rivals: int = 1) -> None:
        self.hosts = Hosts(8)
        self.rivals = Rivals(self.hosts)
        self.origin: Origin = Origins((URL,)).current
        self.others = [f"another's {number}" for number in range(rivals)]
        for other in self.others:
            self.hosts.began(other, HOST)
            self.hosts.receives(other, 0.0)

    def attempt(self) -> Attempt:
        """One more attempt of ours at work."""
        attempt = Attempt(Segment(0, 10, 0), self.origin, HOST, 0.0)
        self.hosts.began(attempt, HOST)
        return attempt

    def refuses(self, error: BadStatus, now: float = 0.0) -> bool:
        """It refuses an attempt of ours for good. Return whether that one has a second chance."""
        attempt = self.attempt()
        self.rivals.given_up(attempt, error, now)
        self.hosts.ended(attempt, now)
        return self.origin in self.rivals


def test_only_a_refusal_beside_others_may_be_about_them() -> None:
    """An answer to the only request of ours means what it says."""
    assert Host().refuses(MISSING)
    assert not Host(rivals=0).refuses(MISSING, now=GRACE_S * 10)


def test_one_that_has_sent_content_was_not_one_too_many() -> None:
    """What fails later has another cause."""
    host = Host()
    attempt = host.attempt()
    attempt.arrived(0.0, 1)
    host.rivals.given_up(attempt, MISSING, 0.0)
    assert host.origin not in host.rivals
    assert host.rivals.reconsider() is None


def test_it_waits_until_the_host_is_idle_and_is_asked_once_only() -> None:
    """While the other asset comes, nothing is asked; afterwards one attempt, and nobody beside it."""
    host = Host()
    assert host.refuses(MISSING)
    assert host.rivals.reconsider() == (host.origin, HOST)
    assert host.rivals.may_ask(host.origin) is False
    host.hosts.ended(host.others[0], 1.0)
    assert host.rivals.may_ask(host.origin) is True
    attempt = host.attempt()
    host.rivals.asks(attempt)
    assert host.origin not in host.rivals
    assert not host.hosts.has_room(HOST, 1.0)
    host.rivals.given_up(attempt, MISSING, 1.0)
    assert host.origin not in host.rivals


def test_a_host_that_serves_more_at_once_meant_what_it_said() -> None:
    """So many others cannot have been its reason."""
    host = Host()
    assert host.refuses(MISSING)
    host.rivals.reconsider()
    for number in range(3):
        host.hosts.began(f"more {number}", HOST)
        host.hosts.receives(f"more {number}", 1.0)
    host.hosts.ended("more 0", 1.0 + 2 * GRACE_S)
    assert host.rivals.may_ask(host.origin) is None
    assert host.origin not in host.rivals
    assert host.origin.is_out

"""Origins that were given up for an answer that may have meant "one too many".

Rules: whatever a host answers while it is busy with others of us may be about them. When no origin is left, each such
origin is asked once more, when nothing else of us is at its host. If the host serves more at once meanwhile, or serves
nobody, it meant what it said.
"""

from __future__ import annotations

from grym_fetch.core.errors import IntegrityError, TransferError
from grym_fetch.core.hosts import Hosts
from grym_fetch.core.origins import Origin
from grym_fetch.core.policy import may_be_for_others
from grym_fetch.transfer.attempt import Attempt


class Rivals:
    """Remembers for one asset which origins had rivals when they were given up."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts
        self._given_up: dict[Origin, tuple[str, int, float]] = {}
        """For each: its host, how many others were there, and when."""
        self._reconsidered: set[Origin] = set()

    def __contains__(self, origin: Origin) -> bool:
        """Whether it is to be asked once more, alone."""
        return origin in self._given_up

    def given_up(self, attempt: Attempt, error: TransferError | IntegrityError, now: float) -> None:
        """Its origin is given up for this error. Called before its attempt ends."""
        rivals = self._hosts.rivals(attempt, now) if attempt.first_byte_at is None else 0
        if rivals and attempt.origin not in self._reconsidered and may_be_for_others(error):
            self._given_up[attempt.origin] = attempt.reached or attempt.host, rivals, now

    def reconsider(self) -> tuple[Origin, str] | None:
        """Return the next origin that is asked once more, and its host. None if there is none."""
        origin = next(iter(self._given_up), None)
        if origin is None:
            return None
        self._reconsidered.add(origin)
        origin.reconsidered()
        return origin, self._given_up[origin][0]

    def may_ask(self, origin: Origin) -> bool | None:
        """Whether nothing else of us is at its host now. None if the host meant what it said: then it stays out."""
        host, rivals, since = self._given_up[origin]
        is_idle = self._hosts.is_idle(host)
        if self._hosts.has_served_more(host, rivals, since) or (
            is_idle and not self._hosts.has_served_since(host, since)
        ):
            del self._given_up[origin]
            origin.given_up()
            return None
        return is_idle

    def asks(self, attempt: Attempt) -> None:
        """This attempt is about to begin; nothing else may at that host until it is answered."""
        if self._given_up.pop(attempt.origin, None) is not None:
            self._hosts.asks_alone(attempt, attempt.host)

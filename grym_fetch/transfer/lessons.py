"""What an answer, or a failure, says of a host: how many it serves at once, and whether it takes requests ahead.

Rules: a failure that a limit explains is a lesson and costs no retry. It is a failure after all if another origin is
ready, so that nobody waits where nobody must.
"""

from __future__ import annotations

import logging
from collections.abc import Collection

from grym_fetch.core import http
from grym_fetch.core.addresses import host_of
from grym_fetch.core.errors import (
    BadResponse,
    BadStatus,
    ConnectFailed,
    ConnectionLost,
    IntegrityError,
    Stalled,
    TransferError,
)
from grym_fetch.core.hosts import GRACE_S, grace_of
from grym_fetch.core.origins import Origin, Origins
from grym_fetch.core.world import Clock
from grym_fetch.transfer.attempt import Attempt
from grym_fetch.transfer.first_asks import FirstAsks
from grym_fetch.transfer.request import JudgedResponse
from grym_fetch.transfer.response import is_no_content
from grym_fetch.transfer.scheduler import Scheduler

log = logging.getLogger(__name__)


class Lessons:
    """Learns from one asset's attempts what all assets of the run should know of their hosts. ``name``: for the log."""

    def __init__(
        self,
        name: str,
        origins: Origins,
        attempts: Collection[Attempt],
        first_asks: FirstAsks,
        scheduler: Scheduler,
        clock: Clock,
    ) -> None:
        self._name = name
        self._origins = origins
        self._attempts = attempts
        self._first_asks = first_asks
        self._scheduler = scheduler
        self._hosts = scheduler.hosts
        self._clock = clock

    def of_answer(self, attempt: Attempt, answer: JudgedResponse, size: int | None) -> None:
        """A host has answered, perhaps another one than was asked first. Raises what means "one too many"."""
        now, origin, verdict = self._clock.monotonic(), attempt.origin, answer.verdict
        if answer.host != attempt.host:
            self._hosts.redirects(attempt.host)
        is_refusal = (
            origin.ranges is True
            and not attempt.segment.whole
            and self._is_served(origin, now)
            and is_no_content(answer, size)
        )
        if not is_refusal or self._hosts.is_serving(answer.host):
            # A redirect that leads a surplus request elsewhere says nothing of the server there.
            self._hosts.moved(attempt, answer.host)
            attempt.reached = answer.host
        if is_refusal and not isinstance(verdict, http.ErrorStatus):
            status = answer.response.head.status
            raise BadResponse(origin.url, f"status {status} and not the content, which it sends to another request")
        if isinstance(verdict, http.Partial) and verdict.range.stop < attempt.segment.stop:
            self._hosts.lost_ahead(answer.host)  # each rest would be a request of its own
        if isinstance(verdict, http.Partial | http.Whole):
            self._hosts.receives(attempt, now, whole=attempt.segment.whole, scheme=answer.scheme)
            if answer.is_ahead:
                self._hosts.kept_ahead(answer.host)
        elif (
            isinstance(verdict, http.UnusableRange)
            and answer.response.head.status == 403
            and self._hosts.is_busy(attempt, now)
        ):
            # Before it is taken for a refusal of the range: a server may say so that there are too many of us.
            raise BadStatus(origin.url, 403, "status 403: access denied")

    def of_failure(self, attempt: Attempt, error: TransferError | IntegrityError) -> float | None:
        """The seconds until the host may be asked again; None if this is a failure, and not a lesson.

        A lesson is that it allows fewer at once, or less often, or that it takes no requests ahead.
        """
        if isinstance(error, ConnectionLost | Stalled) and any(self._scheduler.ahead_of(attempt)):
            # Perhaps because of a request sent behind it: a reset there also loses what came before.
            self._hosts.lost_ahead(attempt.reached or attempt.host)
            return 0.0
        origin = attempt.origin
        now = self._clock.monotonic()
        is_served = self._is_served(origin, now)
        if self._first_asks.is_surplus(attempt, error, self._attempts):
            self._hosts.refused(attempt, now, error, took=now - attempt.began, is_served=is_served)
            self._hosts.ended(attempt, now)  # it is no rival of those that still wait for their answers
            return 0.0
        if grace_of(error, is_served=is_served) is None or attempt.first_byte_at is not None:
            return None
        if isinstance(error, ConnectFailed | ConnectionLost) and not (
            is_served and not self._hosts.is_serving(host_of(error.url))
        ):
            self._hosts.moved(attempt, host_of(error.url))
        is_lesson = self._hosts.refused(attempt, now, error, took=now - attempt.began, is_served=is_served)
        pause = self._hosts.opens_at(attempt.host) - now
        is_idle = pause > 0 or not self._hosts.is_serving(attempt.host)
        if not is_lesson or (
            is_idle and (self._origins.is_replaceable(origin, now) or _may_lead_elsewhere(error, origin))
        ):
            return None  # another origin or server is ready: do not wait for this one
        log.debug("%s: %s: not now: %s", self._name, origin.shown, error)
        return max(pause, 0.0)

    def _is_served(self, origin: Origin, now: float) -> bool:
        """Whether its content comes over another connection, or just came."""
        return now - origin.sent_at < GRACE_S or any(
            other.origin is origin and other.first_byte_at is not None for other in self._attempts
        )


def _may_lead_elsewhere(error: TransferError | IntegrityError, origin: Origin) -> bool:
    """Whether a server behind a redirect is down: the redirects may lead to another by now."""
    is_down = isinstance(error, BadStatus) and error.status >= 500
    return is_down and origin.target is not None and origin.has_given

"""The first requests to an origin, sent together before any answer shows that it serves ranges.

Rules: only where the manifest gives size and checksum, only where the host is far away, so that this saves something,
and only over connections that are open already, so that nobody else waits for them. Each answer is judged as ever.
While another of them is unanswered, a failure is not counted: the last answer is the one that counts, and until then no
more are sent. If the whole content comes instead of a range, one connection takes it and the others are closed. A host
that refuses several, or that redirects, is asked by one at a time from then on: each would walk the redirects for
itself.
"""

from __future__ import annotations

from collections.abc import Collection

from grym_fetch.core.errors import IntegrityError, TransferError
from grym_fetch.core.hosts import Hosts, grace_of
from grym_fetch.core.manifest import Asset
from grym_fetch.core.origins import Origin
from grym_fetch.core.policy import is_permanent
from grym_fetch.core.segments import Segments
from grym_fetch.transfer.attempt import Attempt


class FirstAsks:
    """Decides for one asset whether an origin is asked by several at once, and what their failures mean."""

    def __init__(self, asset: Asset, hosts: Hosts) -> None:
        self._may_begin = asset.pinned and asset.size is not None
        self._hosts = hosts
        self._refused: set[Origin] = set()
        """The origins that have refused one of several."""

    def may_join(self, origin: Origin, host: str) -> bool:
        """Whether one more request may be sent to this origin, beside those that are not answered yet."""
        is_fresh = not origin.failures and not origin.changes and not origin.past_caches and origin.leads_to is None
        return self._may_begin and is_fresh and origin not in self._refused and self._hosts.may_ask_together(host)

    def is_surplus(
        self, attempt: Attempt, error: TransferError | IntegrityError, attempts: Collection[Attempt]
    ) -> bool:
        """Whether this failure does not count, since another one of ``attempts`` is still at work at the origin."""
        origin = attempt.origin
        is_asked_too_early = origin.ranges is None or attempt.is_early
        if attempt.first_byte_at is not None or attempt.segment.whole or not is_asked_too_early:
            return False
        # One that has failed as well may still be among them: nobody has let the scheduler know.
        if all(each is attempt or each.origin is not origin or each.is_surplus for each in attempts):
            return False
        attempt.is_surplus = True
        self._refused.add(origin)
        if grace_of(error) is not None or not is_permanent(error):
            self._hosts.refused_together(attempt.host)
        return True


def withdraw_others(attempt: Attempt, attempts: Collection[Attempt], segments: Segments) -> None:
    """The whole content comes for ``attempt``: close the other first requests to its origin, and take it alone."""
    for other in attempts:
        if other is not attempt and other.origin is attempt.origin and other.first_byte_at is None:
            segments.cut(other.segment, other.segment.position)
            if other.task is not None and not other.task.cancelling():
                other.task.cancel()

"""Whether the origins that are asked together have the same content: found out early, from one piece asked of each.

Rules: one checksum for all says only in the end that somebody sent wrong bytes, and not who. So the first piece is
asked for once more, of each other origin. If they differ, most of them decide who is asked from now on, and the
manifest's order between two. Nobody is blamed by that: only what was verified in the end says who was wrong.
"""

from __future__ import annotations

from collections import Counter

from grym_fetch.core.addresses import host_of
from grym_fetch.core.hosts import Hosts
from grym_fetch.core.manifest import Asset
from grym_fetch.core.origins import Origin, Origins
from grym_fetch.core.ranges import ByteRange
from grym_fetch.core.segments import Segment
from grym_fetch.transfer.outcome import LeaveOrigins
from grym_fetch.transfer.state import DownloadState

WORTH_LOOKING = 64
"""Look only at contents of at least so many times what it costs."""


class SecondLooks:
    """What each origin of an asset says of one piece."""

    def __init__(self, asset: Asset, state: DownloadState, origins: Origins, hosts: Hosts) -> None:
        self._may_look = asset.pinned and asset.pieces is None
        self._state = state
        self._origins = origins
        self._hosts = hosts
        self._asked: set[Origin] = set()
        self._pending: set[Origin] = set()
        self._is_decided = False

    @property
    def piece(self) -> ByteRange | None:
        """The piece to look at again; None if it is not worth that, or none has come yet."""
        state, first = self._state, self._state.first_piece
        if not self._may_look or self._is_decided or not self._origins.together or first is None or state.size is None:
            return None
        return first.range if first.range.length * WORTH_LOOKING <= state.size else None

    def next_look(self, origin: Origin) -> Segment | None:
        """Return what to ask this origin for, if it was not asked yet."""
        piece = self.piece
        if piece is None or not self.waits_for(origin):
            return None
        self._asked.add(origin)
        self._pending.add(origin)
        return Segment(piece.start, piece.stop, piece.start, again=True)

    def waits_for(self, origin: Origin) -> bool:
        """Whether this origin should be asked as soon as a connection is free."""
        first = self._state.first_piece
        if self.piece is None or first is None:
            return False
        return origin not in self._asked and origin.number != first.origin and origin.ranges is not False

    @property
    def is_waiting(self) -> bool:
        """Whether a connection is needed now."""
        return self.piece is not None and any(self.waits_for(origin) for origin in self._origins.usable)

    @property
    def is_pending(self) -> bool:
        """Whether any look is under way."""
        return bool(self._pending)

    def ended(self, origin: Origin) -> LeaveOrigins | None:
        """A look has ended. If all have, and they differ, return whom to trust."""
        self._pending.discard(origin)
        if self.piece is None or self._pending or self.is_waiting:
            return None
        self._is_decided = True
        looks = self._state.looks
        if len(set(looks.values())) < 2:
            return None
        count = Counter(looks.values())

        def rank(origin: Origin) -> tuple[bool, int, int]:
            return self._hosts.has_lied(host_of(origin.url)), -count[looks[origin]], origin.number

        usable = [origin for origin in looks if not origin.is_out]
        if not usable:
            return None
        trusted = min(usable, key=rank)
        others = tuple(origin for origin in looks if looks[origin] != looks[trusted])
        return LeaveOrigins("the addresses have different content", trusted, others)

    def wrong(self, truth: str) -> list[Origin]:
        """Who sent another piece than the one with this digest, which was verified."""
        return [origin for origin, digest in self._state.looks.items() if digest != truth and not origin.changes]

"""What the display knows: a row for each asset in progress, and totals. Pure: events and times in, values out.

Rules: the bytes shown never go back, unless a file was read and is damaged, and never exceed the total.
`DisplayModel.apply` takes constant time, however many assets there are. Rows keep their order: active ones by when they
started, then those still queued.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto
from itertools import chain, islice

from grym_fetch.core import events
from grym_fetch.core.cells import cells
from grym_fetch.core.events import Event
from grym_fetch.core.progress import Meter
from grym_fetch.core.text import safe_text

STALLED_AFTER_S = 5.0
"""Report a connection as stalled after this long without data."""
_QUIET_AFTER_S = 1.0
"""After this long without data, a speed sinks, until it is gone after `STALLED_AFTER_S`."""
_MAX_NAME_CHARS = 200
_GONE_AFTER_S = 10.0
"""A worker of a cluster that has told nothing for this long is not shown."""
_MAX_ENDED = 100_000
"""So many ended assets are remembered."""
MAX_ROWS = 500
"""The most rows in a snapshot: more than fit on any terminal."""


class Phase(Enum):
    """What an asset is doing."""

    QUEUED = auto()
    WAITING = auto()
    RESUMING = auto()
    DOWNLOADING = auto()
    RETRYING = auto()
    SWITCHED = auto()
    RESTARTED = auto()
    VERIFYING = auto()
    UNPACKING = auto()


_FLOWING = frozenset({Phase.DOWNLOADING, Phase.RESTARTED})
_ALL_THERE = frozenset({Phase.VERIFYING, Phase.UNPACKING})


@dataclass(frozen=True, slots=True)
class Row:
    """One asset in progress. Times are on the clock of `DisplayModel.apply`; ``rate`` in bytes per second."""

    asset: str
    name: str
    phase: Phase = Phase.QUEUED
    bytes: int = 0
    total: int | None = None
    rate: float = 0.0
    eta: float | None = None
    read_at: float = 0.0
    moved_at: float = 0.0
    retry_at: float = 0.0
    mirror: tuple[int, int] | None = None
    hashed: float | None = None
    why: str = ""
    """Why the asset is being retried."""
    attempt: int = 0
    is_away: bool = False
    """Whether its server is away, and we are waiting for it."""
    holder: str = ""
    resumed: int = 0
    is_read: bool = False
    """Whether it was already there and is being read to verify it: its bytes are then those read so far."""
    is_compared: bool = False
    """Whether it is wrong somewhere, and its bytes are those compared so far: the rest may turn out to be right."""
    is_worker: bool = False
    """Whether it is a worker of a cluster, of whose bytes no total is known."""
    begun_at: float | None = None
    """When it stopped waiting for a connection."""

    def stalled_for(self, now: float) -> float | None:
        """Seconds since the last byte if that is long, otherwise None."""
        silence = now - self.moved_at
        return silence if self.phase in _FLOWING and silence >= STALLED_AFTER_S else None

    def rate_at(self, now: float) -> float:
        """Bytes per second; 0 if nothing flows. It sinks while no data comes."""
        if self.phase not in _FLOWING:
            return 0.0
        quiet = (now - self.moved_at - _QUIET_AFTER_S) / (STALLED_AFTER_S - _QUIET_AFTER_S)
        return self.rate * min(1.0, max(0.0, 1.0 - quiet))

    def eta_at(self, now: float) -> float | None:
        """Seconds left, counted down from when they were reported; None as soon as no data comes."""
        if self.eta is None or self.rate_at(now) <= 0 or now - self.moved_at > _QUIET_AFTER_S:
            return None
        return max(0.0, self.eta - (now - self.read_at))


@dataclass(frozen=True, slots=True)
class Totals:
    """The whole run. ``total`` is a lower bound while ``open_ended``; ``finished`` counts what is present.

    ``known_bytes`` of ``known_total`` are those of the assets whose size is known, and so is ``eta``. ``active`` assets
    are under way, ``queued`` ones have not begun.
    """

    assets: int
    verified: int
    unverified: int
    reused: int
    failed: int
    bytes: int
    total: int
    open_ended: bool
    rate: float
    eta: float | None
    known_bytes: int = 0
    known_total: int = 0
    active: int = 0
    queued: int = 0

    @property
    def finished(self) -> int:
        return self.verified + self.unverified + self.reused


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that a drawing needs, safe to use in another thread. The first ``working`` rows are active, the others
    queued."""

    rows: tuple[Row, ...]
    working: int
    under_way: int
    longest_name: int
    mirrors: bool
    totals: Totals


@dataclass(slots=True)
class _NodeSum:
    """What a worker of a cluster does: files that have ended, bytes received, and their speed."""

    meter: Meter
    heard_at: float
    files: int = 0
    bytes: int = 0


class DisplayModel:
    """Follows the events of a run. ``names`` maps an asset's id to its name; both are made harmless here."""

    def __init__(self, names: Mapping[str, str] | None = None) -> None:
        self._names = names or {}
        self._reset()

    def _reset(self) -> None:
        self._working: dict[str, Row] = {}
        self._queued: dict[str, Row] = {}
        self._ended: dict[str, None] = {}
        """The assets that have ended, the latest last; late events are about one of those."""
        self._ended_count = 0
        self._assets = 0
        self._expected_bytes = 0
        self._verified = self._unverified = self._reused = self._failed = 0
        self._bytes = self._total = self._sizeless = self._sizeless_bytes = self._resumed = 0
        self.longest_name = 0
        """The width of the longest name, in cells."""
        self._mirrors = self._is_over = False
        self._nodes: dict[str, _NodeSum] = {}
        self._meter: Meter | None = None
        self.saved_bytes = 0
        """Bytes that did not have to be fetched again thanks to resuming, over all fetched assets."""
        self.last_seconds = 0.0
        """How long the asset that ended last was under way, without its time in the queue."""

    def name(self, asset: str | None) -> str:
        """Return the asset's name, safe to show."""
        # Variation selectors change a character's width only in some terminals.
        shown = self._names.get(asset or "", asset or "").replace("\ufe0f", "").replace("\ufe0e", "")
        if len(shown) > _MAX_NAME_CHARS:
            shown = f"{shown[: _MAX_NAME_CHARS // 2]}…{shown[1 - _MAX_NAME_CHARS // 2 :]}"
        return safe_text(shown, limit=_MAX_NAME_CHARS) or "(no name)"

    def row(self, asset: str) -> Row | None:
        """Return the asset's row while it is in progress."""
        return self._working.get(asset) or self._queued.get(asset)

    def apply(self, event: Event, now: float) -> None:
        """Process ``event``, which was read at ``now`` (monotonic seconds)."""
        bytes_before, ended_before = self._bytes, self._ended_count
        self._apply(event, now)
        if event.node is not None:
            node = self._nodes.get(event.node)
            if node is None:
                node = self._nodes[event.node] = _NodeSum(Meter(now=now), now)
            node.heard_at = now
            node.files += self._ended_count - ended_before
            if not isinstance(event, events.AssetPlanned):  # what was there is not received
                node.bytes += max(0, self._bytes - bytes_before)
            node.meter.advance(now, on_hand=node.bytes, received=node.bytes, total=None)

    def _apply(self, event: Event, now: float) -> None:
        match event:
            case events.RunStarted():
                self._reset()
                self._assets, self._expected_bytes = event.assets, event.bytes
                self._meter = Meter(now=now)
            case events.AssetVerified():
                self._note_seconds(event.asset, now)
                is_first_end = self._end(event.asset, size=event.size, downloaded=event.downloaded_bytes)
                self._verified += is_first_end and not event.unverified
                self._unverified += is_first_end and bool(event.unverified)
            case events.AssetFailed():
                self._failed += self._end(event.asset, size=None)
            case events.AssetReused():
                self._reused += self._end(event.asset, size=None)
            case events.RunFinished():
                self._is_over = True
            case _ if event.asset is not None and event.asset not in self._ended:
                known = self.row(event.asset)
                row = known or Row(event.asset, self.name(event.asset), moved_at=now, read_at=now)
                self._put(known, _begun(_next_row(row, event, now), now))
            case _:
                pass

    def progress(self) -> tuple[int, int | None]:
        """Return the bytes on hand, and of how many; None if some size is unknown."""
        total = self._overall()
        return self._bytes, None if self._sizeless or not total else total

    def _overall(self) -> int:
        seen = self._ended_count + len(self._working) + len(self._queued)
        # Sizes of reused assets are in the announced sum but in no event, so use the sum only until all are seen.
        return self._total if seen >= self._assets else max(self._total, self._expected_bytes)

    def _note_seconds(self, asset: str | None, now: float) -> None:
        row = self.row(asset or "")
        self.last_seconds = 0.0 if row is None or row.begun_at is None else now - row.begun_at

    def snapshot(self, now: float, max_rows: int = MAX_ROWS) -> Snapshot:
        """Return the state at ``now`` as values."""
        rows = tuple(islice(chain(self._working.values(), self._queued.values()), max_rows))
        working, longest_name = min(len(self._working), max_rows), self.longest_name
        if self._nodes:
            rows = tuple(islice(self._node_rows(now), max_rows))
            working, longest_name = len(rows), max((cells(row.name) for row in rows), default=0)
        return Snapshot(
            rows=rows,
            working=working,
            under_way=self._under_way(),
            longest_name=longest_name,
            mirrors=self._mirrors,
            totals=self._totals(now),
        )

    def _under_way(self) -> int:
        """How many assets have not ended: those of which something was told, or as many as the run announced.

        Of small files nothing is told before they are there.
        """
        told = len(self._working) + len(self._queued)
        return told if self._is_over else max(told, self._assets - self._ended_count)

    def _node_rows(self, now: float) -> Iterator[Row]:
        """A row for each worker that has been heard lately, in place of its assets'."""
        for name, node in self._nodes.items():
            if now - node.heard_at < _GONE_AFTER_S:
                files = f"{node.files:,} file{'' if node.files == 1 else 's'}"
                rate = node.meter.read(now).rate
                shown = f"{safe_text(name, limit=_MAX_NAME_CHARS)} · {files}"
                yield Row(
                    name, shown, Phase.DOWNLOADING, bytes=node.bytes, rate=rate, read_at=now, moved_at=now,
                    is_worker=True,
                )  # fmt: skip

    def _totals(self, now: float) -> Totals:
        seen = self._ended_count + len(self._working) + len(self._queued)
        total = self._overall()
        if self._meter is None:
            self._meter = Meter(now=now)
        self._meter.advance(now, on_hand=self._bytes, received=self._bytes - self._resumed, total=total)
        # Over all bytes together: the rows' own rates, each over its own past, would add up to more than the link
        # carries. They serve only until there is a past to measure.
        rate = self._meter.read(now).rate or sum(row.rate_at(now) for row in self._working.values())
        known_bytes, known_total = self._bytes - self._sizeless_bytes, total - self._sizeless_bytes
        assets = max(self._assets, seen)
        return Totals(
            assets=assets,
            verified=self._verified,
            unverified=self._unverified,
            reused=self._reused,
            failed=self._failed,
            bytes=self._bytes,
            total=total,
            open_ended=self._sizeless > 0,
            rate=rate,
            eta=(known_total - known_bytes) / rate if rate >= 1 and known_total > known_bytes else None,
            known_bytes=known_bytes,
            known_total=known_total,
            active=len(self._working),
            queued=assets - self._ended_count - len(self._working),
        )

    def _put(self, old: Row | None, row: Row) -> None:
        self._count(old, -1)
        self._count(row, +1)
        if old is None:
            self.longest_name = max(self.longest_name, cells(row.name))
        self._mirrors = self._mirrors or row.mirror is not None
        if row.asset in self._working:
            self._working[row.asset] = row
        elif row.phase is Phase.QUEUED or (row.phase in (Phase.RESUMING, Phase.WAITING) and not row.rate):
            # An asset that waits for a host and has nothing yet is queued, like those that have not begun.
            self._queued[row.asset] = row
        else:
            self._queued.pop(row.asset, None)
            self._working[row.asset] = row

    def _count(self, row: Row | None, sign: int) -> None:
        if row is not None:
            self._bytes += sign * row.bytes
            self._total += sign * (row.bytes if row.total is None else row.total)
            is_sizeless = row.total is None and row.phase is not Phase.WAITING
            self._sizeless += sign * is_sizeless
            self._sizeless_bytes += sign * row.bytes * (row.total is None)
            self._resumed += sign * row.resumed

    def _end(self, asset: str | None, *, size: int | None, downloaded: int = 0) -> bool:
        """Remove the row; return whether this was the asset's first end.

        Its bytes stay in the totals: all of them, or as many as a failed asset had.
        """
        if asset is None or asset in self._ended:
            return False
        self._ended[asset] = None
        self._ended_count += 1
        if len(self._ended) > _MAX_ENDED:
            del self._ended[next(iter(self._ended))]
        row = self._working.pop(asset, None) or self._queued.pop(asset, None)
        if row is None:
            self.longest_name = max(self.longest_name, cells(self.name(asset)))
            self._bytes += size or 0
            self._total += size or 0
            return True
        self._count(row, -1)
        reached = row.bytes if size is None else max(size, row.bytes)
        self._bytes += reached
        self._total += reached
        self._resumed += row.resumed
        if size is not None:
            # A server without ranges also resends what was kept.
            self.saved_bytes += max(0, min(row.resumed, size - downloaded))
        else:
            self._expected_bytes -= max(0, (row.total or 0) - reached)
        return True


def _next_row(row: Row, event: Event, now: float) -> Row:
    match event:
        case events.AssetDamaged():
            if row.is_read:  # what was read is not what is on hand
                row = replace(row, is_read=False, phase=Phase.QUEUED, bytes=0, hashed=None)
            return replace(row, is_compared=bool(event.guess) and not event.bad)
        case events.AssetPlanned():
            phase = Phase.RESUMING if event.resumed_bytes else Phase.QUEUED
            row = replace(row, phase=phase, resumed=event.resumed_bytes)
            return _with_bytes(row, event.resumed_bytes, event.size)
        case events.ProgressMade():
            return _progressed(row, event, now)
        case events.RetryScheduled():
            delay = _finite(event.delay) or 0.0
            is_away = events.AWAY in event.reason
            row = replace(row, phase=Phase.RETRYING, retry_at=now + delay, is_away=is_away, rate=0.0, eta=None)
            return replace(row, why=safe_text(event.reason, limit=1000), attempt=event.attempt)
        case events.MirrorSwitched():
            return replace(row, phase=Phase.SWITCHED, mirror=(event.number, event.count), rate=0.0, eta=None)
        case events.AssetRestarted():
            resumed = max(0, row.resumed - event.discarded)
            return replace(row, phase=Phase.RESTARTED, resumed=resumed, rate=0.0, eta=None, moved_at=now)
        case events.AssetVerifying():
            hashed = event.bytes / event.total if event.total > 0 else None
            is_read = row.is_read or (row.phase in (Phase.QUEUED, Phase.WAITING) and row.total is None)
            phase = Phase.UNPACKING if event.unpacking else Phase.VERIFYING
            row = replace(row, phase=phase, hashed=hashed, rate=0.0, eta=None, is_read=is_read)
            return _with_bytes(row, event.bytes if is_read else event.total, event.total)
        case events.AssetWaiting():
            return replace(row, phase=Phase.WAITING, holder=safe_text(event.holder, limit=100))
        case _:
            return row


def _begun(row: Row, now: float) -> Row:
    """The row, which has begun unless it is still in the queue."""
    is_queued = row.phase in (Phase.QUEUED, Phase.WAITING)
    return row if is_queued or row.begun_at is not None else replace(row, begun_at=now)


def _progressed(row: Row, event: events.ProgressMade, now: float) -> Row:
    rate = max(0.0, _finite(event.rate) or 0.0)
    grew = event.bytes > row.bytes
    phase = row.phase
    # A report made before a retry or a check may be read after it, so only what cannot be old changes the phase.
    if phase not in _ALL_THERE and (grew or (phase is Phase.RETRYING and rate > 0 and now >= row.retry_at)):
        phase = Phase.DOWNLOADING
    moved_at = now if grew or rate > 0 or phase is not row.phase else row.moved_at
    if row.is_compared and event.bytes == event.total:  # what was not compared is right: it did not come
        row = replace(row, resumed=row.resumed + max(0, event.bytes - row.bytes))
    row = replace(row, phase=phase, rate=rate, eta=_finite(event.eta), read_at=now, moved_at=moved_at)
    return _with_bytes(row, event.bytes, event.total)


def _with_bytes(row: Row, on_hand: int, total: int | None) -> Row:
    shown = max(row.bytes, on_hand)
    return replace(row, bytes=shown, total=None if total is None else max(total, shown))


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None

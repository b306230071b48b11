"""What happens to an asset, as values. Emitted on the bus; read by the display, ``--json``, the log and callbacks.

Rules: one frozen record per event; ``progress`` is absolute, never a delta, and never exceeds the total; addresses are
redacted before they get here. The order of an asset's events while it is fetched, as a rule::

    (asset_waiting | asset_verifying)* -> asset_reused, or asset_damaged? -> asset_planned
      -> (asset_waiting | progress | retry_scheduled | mirror_switched | asset_restarted | asset_verifying)*
      -> asset_repaired? -> asset_verified

``asset_failed`` may end it at any point.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import ClassVar

FORMAT_VERSION = 1
"""The ``v`` of the JSON form. It increases when readers have to change."""


class LinkMode(StrEnum):
    """How a file got its bytes from another one."""

    REFLINK = "reflink"
    """Both share blocks until one of them is written to."""
    HARDLINK = "hardlink"
    """Both are names of one read-only file."""
    COPY = "copy"
    """Each has its own blocks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events. ``time`` is in seconds since the epoch (wall clock), ``asset`` the asset's id if any.

    Of a file that is moved or restored, ``asset`` is its path. ``node``: in a run on a cluster, who tells it.
    """

    type: ClassVar[str] = ""
    time: float = 0.0
    asset: str | None = None
    node: str | None = None

    def as_json(self) -> dict[str, object]:
        """Return the event as the JSON object of ``--json``; ``from_`` is ``from``."""
        record: dict[str, object] = {"v": FORMAT_VERSION, "type": self.type, "time": round(self.time, 3)}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "time" or (value is None and field.name in _OMITTED_WHEN_NONE):
                continue
            record[field.name.rstrip("_")] = value
        return record

    def __reduce__(self) -> tuple[object, ...]:
        """Travel as plain values: a cluster sends very many, and a dataclass with slots takes longer."""
        kind = type(self)
        return _remade, (kind, *(getattr(self, name) for name in _names(kind)))


_NAMES: dict[type[Event], tuple[str, ...]] = {}


def _names(kind: type[Event]) -> tuple[str, ...]:
    if kind not in _NAMES:
        _NAMES[kind] = tuple(field.name for field in fields(kind))
    return _NAMES[kind]


def _remade(kind: type[Event], *values: object) -> Event:
    event = object.__new__(kind)
    for name, value in zip(_names(kind), values, strict=True):
        object.__setattr__(event, name, value)
    return event


# Keys that appear only if they mean something. All others are always there, null if unknown.
_OMITTED_WHEN_NONE = frozenset(
    {"asset", "at_most", "guess", "link", "node", "taken_from", "unpacking", "unverified", "wrong_origins"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(Event):
    """A run begins, such as a sync. ``bytes``: the sum of the known sizes."""

    type: ClassVar[str] = "run_started"
    assets: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetDamaged(Event):
    """A file is there and wrong, and will be repaired: ``bytes`` will be fetched.

    ``guess`` is true if no digests of the pieces are known: then it may be more, up to ``at_most``.
    """

    type: ClassVar[str] = "asset_damaged"
    path: str
    pieces: int
    bad: int
    bytes: int
    guess: bool | None = None
    at_most: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetRepaired(Event):
    """The damaged file was replaced by a right one: ``asset_verified`` follows."""

    type: ClassVar[str] = "asset_repaired"
    pieces: int
    bad: int
    fetched: int
    saved_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetPlanned(Event):
    """The asset will be fetched. ``resumed_bytes`` are already on disk, from an earlier run or in a damaged file."""

    type: ClassVar[str] = "asset_planned"
    size: int | None
    resumed_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetReused(Event):
    """A file was there, and nothing was found wrong with it. ``taken_from``: where, if elsewhere on this machine."""

    type: ClassVar[str] = "asset_reused"
    path: str
    unverified: bool | None = None
    taken_from: str | None = None
    link: LinkMode | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressMade(Event):
    """Bytes on hand, absolute. ``rate`` is in bytes per second, ``eta`` in seconds, null while unknown."""

    type: ClassVar[str] = "progress"
    bytes: int
    total: int | None
    rate: float
    eta: float | None = None


AWAY = "server away"
"""Used in a reason: nothing is wrong with the asset, and we are waiting for its server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryScheduled(Event):
    """An attempt failed; another follows on the same origin after ``delay`` seconds."""

    type: ClassVar[str] = "retry_scheduled"
    url: str
    attempt: int
    delay: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorSwitched(Event):
    """From now on, another origin is asked: ``number`` of ``count``."""

    type: ClassVar[str] = "mirror_switched"
    from_: str
    to: str
    reason: str
    number: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetRestarted(Event):
    """So many bytes were discarded."""

    type: ClassVar[str] = "asset_restarted"
    discarded: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetVerifying(Event):
    """``bytes`` of ``total`` have been read to verify them; with ``unpacking``, to unpack an archive or compare it."""

    type: ClassVar[str] = "asset_verifying"
    bytes: int
    total: int
    unpacking: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetVerified(Event):
    """The file is in place. ``unverified``: no digest was known to compare it with.

    ``wrong_origins``: the addresses that sent other bytes on the way. ``link``: how the store got the file.
    """

    type: ClassVar[str] = "asset_verified"
    path: str
    checksum: str
    size: int
    seconds: float
    downloaded_bytes: int
    unverified: bool | None = None
    wrong_origins: tuple[str, ...] | None = None
    link: LinkMode | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetFailed(Event):
    """The work on an asset failed, or a check found it wrong. ``error`` is the class."""

    type: ClassVar[str] = "asset_failed"
    error: str
    message: str
    attempts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetWaiting(Event):
    """Waiting for ``holder``: another process that fetches, or a host that takes no more requests now."""

    type: ClassVar[str] = "asset_waiting"
    holder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished(Event):
    """A run that may fetch ended, such as a sync or a pin: counts of assets."""

    type: ClassVar[str] = "run_finished"
    verified: int
    unverified: int = 0
    reused: int
    failed: int
    downloaded_bytes: int
    seconds: float

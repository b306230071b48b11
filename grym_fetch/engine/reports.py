"""What the manager reports: the state of an asset, progress, plans and results.

Rules: plain frozen values; sizes in bytes, times in seconds. `ProgressTracker` derives `AssetProgress` from events, so
that callbacks agree with every other reader of the bus.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from grym_fetch.core.errors import GrymFetchError
from grym_fetch.core.events import (
    AssetFailed,
    AssetPlanned,
    AssetReused,
    AssetVerified,
    AssetVerifying,
    Event,
    LinkMode,
    ProgressMade,
)
from grym_fetch.core.manifest import Asset
from grym_fetch.core.progress import Progress
from grym_fetch.runtime.bus import is_coroutine_callable


class AssetState(StrEnum):
    """The state of an asset: on disk, or on its way there. The command line and JSON use these values."""

    MISSING = "missing"
    """Nothing is there."""
    PARTIAL = "partial"
    """Some of it has arrived. Or it is an archive that is not unpacked."""
    PRESENT = "present"
    """A file is there, of the right size if one is listed; it was not verified since it changed, and not read now."""
    UNVERIFIED = "unverified"
    """A file is there, and the manifest has no checksum to verify it with."""
    VERIFIED = "verified"
    """The file has the manifest's checksum, and has not changed since it was verified."""
    CORRUPT = "corrupt"
    """What is there is not what the manifest names."""

    PENDING = "pending"
    """It will be fetched."""
    DOWNLOADING = "downloading"
    """Bytes are arriving."""
    VALIDATING = "validating"
    """It is being verified, or unpacked."""
    COMPLETE = "complete"
    """It is there."""
    ERROR = "error"
    """The work on it failed, or a check found it wrong."""


@dataclass(frozen=True, slots=True)
class AssetStatus:
    """What `AssetManager.check_asset` found. ``error`` says what is wrong, None if nothing is.

    ``state`` is one of the states on disk, but never ``present``: a check reads what is not known to be verified.
    ``path`` is where the file is, or would be. ``is_stand_in`` is true if all this describes the asset's small
    stand-in, not the asset itself.
    """

    id: str
    state: AssetState
    path: Path
    error: str | None = None
    is_stand_in: bool = False

    @property
    def exists(self) -> bool:
        """Whether it is there, right or wrong; not while it is ``partial``."""
        return self.state not in (AssetState.MISSING, AssetState.PARTIAL)

    @property
    def valid(self) -> bool:
        """Whether its bytes were verified, now or earlier without a change since."""
        return self.state is AssetState.VERIFIED

    @property
    def unverified(self) -> bool:
        """Whether it is there without a checksum to verify it with."""
        return self.state is AssetState.UNVERIFIED


@dataclass(frozen=True, slots=True)
class AssetProgress:
    """What an `AssetManager.on_progress` callback gets. Sizes in bytes, ``rate`` in bytes per second.

    ``status`` is ``pending``, ``downloading``, ``validating``, ``complete`` or ``error``.
    """

    asset_id: str
    status: AssetState
    percentage: float = 0.0
    bytes_downloaded: int = 0
    total_bytes: int | None = None
    rate: float = 0.0


@dataclass(frozen=True, slots=True)
class SyncPlan:
    """What a sync would do. Sizes in bytes; ``unknown_sizes`` counts those to fetch whose size is not known.

    ``unread`` are those of ``present`` that have not been verified since they changed: the sync reads them, and fetches
    what is wrong. ``to_take`` are those that the machine's store has, neither in ``present`` nor in ``to_fetch``.
    ``to_unpack`` are archives that may have to be unpacked, which needs space beyond ``space_needed``.
    """

    present: tuple[Asset, ...]
    to_fetch: tuple[Asset, ...]
    bytes_to_fetch: int
    bytes_staged: int
    unknown_sizes: int
    space_needed: int
    space_free: int
    unread: tuple[Asset, ...] = ()
    to_unpack: tuple[Asset, ...] = ()
    to_take: tuple[Asset, ...] = ()

    def joined(self, other: SyncPlan, *, keep: bool = True) -> SyncPlan:
        """Return the plan for both lists of assets; ``keep``: with the assets, not only the sums."""
        return SyncPlan(
            present=self.present + other.present if keep else (),
            to_fetch=self.to_fetch + other.to_fetch if keep else (),
            bytes_to_fetch=self.bytes_to_fetch + other.bytes_to_fetch,
            bytes_staged=self.bytes_staged + other.bytes_staged,
            unknown_sizes=self.unknown_sizes + other.unknown_sizes,
            space_needed=self.space_needed + other.space_needed,
            space_free=other.space_free,
            unread=self.unread + other.unread if keep else (),
            to_take=self.to_take + other.to_take if keep else (),
            to_unpack=self.to_unpack + other.to_unpack if keep else (),
        )


@dataclass(frozen=True, slots=True)
class Adopted:
    """An asset that was taken from ``source``, elsewhere on this machine, and how."""

    id: str
    path: Path
    source: Path
    link: LinkMode


@dataclass(frozen=True, slots=True)
class AdoptReport:
    """What was taken, and the ids of what was there already, and of what was not found or has no checksum."""

    adopted: tuple[Adopted, ...]
    present: tuple[str, ...]
    missing: tuple[str, ...]


class PathsById(Mapping[str, Path]):
    """The path of each asset, by its id. Made on request: few ask, and a run can have 100,000."""

    def __init__(self, paths: Mapping[str, Path | str]) -> None:
        self._paths = paths

    def __getitem__(self, asset_id: str) -> Path:
        return Path(self._paths[asset_id])

    def __contains__(self, asset_id: object) -> bool:
        return asset_id in self._paths

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)

    def __repr__(self) -> str:
        return repr(dict(self))


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What a sync did. Sizes in bytes, times in seconds.

    ``verified``: fetched, with the right checksum. ``unverified``: fetched, without a checksum to verify it.
    ``reused``: there already, or on this machine. ``failed``: the error, by id. ``paths``: the path of each asset that
    is there, by id.
    They are tuples and a dict; of a run over very many assets or on a cluster, collections that read each id when it is
    asked for.
    """

    verified: Sequence[str]
    unverified: Sequence[str]
    reused: Sequence[str]
    failed: Mapping[str, GrymFetchError]
    paths: Mapping[str, Path]
    downloaded_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What `AssetManager.repair_asset` found and did. Sizes in bytes.

    ``outcome`` is ``intact``; ``repaired``; ``replaced`` by a whole new file; or, of a dry run, ``damaged``. The file
    has ``pieces``, and ``bad`` of them were wrong or missing: 0 where it is not repaired by pieces. ``bytes_to_fetch``
    is what that costs, ``fetched`` how many of the pieces were, ``downloaded_bytes`` what came over the network, and
    ``saved_bytes`` what was taken from the damaged file. ``is_guess``: no digests of the pieces are known, so that a
    dry run can only say the least, and in ``bytes_at_most`` the size of the whole file; else that is None.
    """

    id: str
    path: Path
    outcome: str
    pieces: int = 0
    bad: int = 0
    bytes_to_fetch: int = 0
    fetched: int = 0
    downloaded_bytes: int = 0
    saved_bytes: int = 0
    is_guess: bool = False
    bytes_at_most: int | None = None


class ProgressTracker:
    """Turns events into `AssetProgress`, remembering each asset's numbers.

    ``size_of`` gives the size of an asset that was there: of its file, by its id and path.
    """

    def __init__(self, size_of: Callable[[str, str], int | None] = lambda *_: None) -> None:
        self._size_of = size_of
        self._numbers: dict[str, tuple[int, int | None]] = {}

    def apply(self, event: Event) -> AssetProgress | None:
        """Return what the event means for its asset, or None if nothing changed."""
        if event.asset is None:
            return None
        done, total = self._numbers.get(event.asset, (0, None))
        rate = 0.0
        match event:
            case AssetPlanned(size=size, resumed_bytes=resumed):
                status, done, total = AssetState.PENDING, resumed, size
            case ProgressMade(bytes=count, total=size, rate=rate):
                status, done, total = AssetState.DOWNLOADING, count, size
            case AssetVerifying(total=size):
                status, done, total = AssetState.VALIDATING, done or size, size
            case AssetVerified(size=size):
                status, done, total = AssetState.COMPLETE, size, size
            case AssetReused(path=path):
                total = self._size_of(event.asset, path)
                status, done = AssetState.COMPLETE, total or 0
            case AssetFailed():
                status = AssetState.ERROR
            case _:
                return None
        self._numbers[event.asset] = (done, total)
        if status is AssetState.COMPLETE:
            percentage = 100.0
            del self._numbers[event.asset]
        else:
            percentage = Progress(done, total, rate, None).percentage
        return AssetProgress(event.asset, status, percentage, done, total, rate)


def progress_listener(
    callback: Callable[[AssetProgress], object], size_of: Callable[[str, str], int | None]
) -> Callable[[Event], object]:
    """Return what passes on to ``callback`` what events mean; async where the callback is."""
    if not callable(callback):
        raise TypeError(f"a callback must be callable, and this is of type {type(callback).__name__}")
    tracker = ProgressTracker(size_of)
    if is_coroutine_callable(callback):

        async def report_async(event: Event) -> None:
            if (progress := tracker.apply(event)) is not None:
                await callback(progress)  # type: ignore[misc]  # an async callback returns an awaitable

        return report_async

    def report(event: Event) -> None:
        if (progress := tracker.apply(event)) is not None:
            callback(progress)

    return report

"""What the manager tells: the state of an asset, progress, plans and reports.

Rules: plain frozen values; sizes in bytes, times in seconds. `ProgressTracker` makes `AssetProgress` out of events, so
that callbacks agree with every other reader of the bus.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from grym_fetch.core.errors import GrymFetchError
from grym_fetch.core.events import (
    AssetFailed,
    AssetPlanned,
    AssetReused,
    AssetVerified,
    AssetVerifying,
    Event,
    ProgressMade,
)
from grym_fetch.core.manifest import Asset
from grym_fetch.core.progress import Progress


@dataclass(frozen=True, slots=True)
class AssetStatus:
    """What `AssetManager.check_asset` found. ``error`` says what is wrong, None if nothing is.

    ``valid`` is true only if the bytes were verified, now or before. ``unverified`` is true for a file that
    is there but has no checksum to verify it with. An archive does not exist before it is unpacked, where that is
    wanted. ``is_stand_in`` is true where all this is said of the asset's small stand-in, not of the asset itself.
    """

    id: str
    exists: bool
    valid: bool
    path: Path | None
    error: str | None
    unverified: bool = False
    is_stand_in: bool = False


@dataclass(frozen=True, slots=True)
class AssetProgress:
    """What a callback of `AssetManager.on_progress` gets. Sizes in bytes, ``rate`` in bytes per second.

    ``status`` is one of ``pending``, ``downloading``, ``validating``, ``complete``, ``error``.
    """

    asset_id: str
    status: str
    percentage: float = 0.0
    bytes_downloaded: int = 0
    total_bytes: int | None = None
    rate: float = 0.0


@dataclass(frozen=True, slots=True)
class SyncPlan:
    """What a sync would do. Sizes in bytes; ``unknown_sizes`` counts assets whose size only their server knows."""

    present: tuple[Asset, ...]
    to_fetch: tuple[Asset, ...]
    bytes_to_fetch: int
    bytes_staged: int
    unknown_sizes: int
    space_needed: int
    space_free: int


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What a sync did: ids that were fetched and verified, ids that were there, errors by id. Sizes in bytes."""

    verified: tuple[str, ...]
    reused: tuple[str, ...]
    failed: Mapping[str, GrymFetchError]
    paths: Mapping[str, Path]
    downloaded_bytes: int
    seconds: float


class ProgressTracker:
    """Turns events into `AssetProgress`, remembering each asset's numbers."""

    def __init__(self) -> None:
        self._numbers: dict[str, tuple[int, int | None]] = {}

    def apply(self, event: Event) -> AssetProgress | None:
        """Return what the event means for its asset, None if nothing changed for it."""
        if event.asset is None:
            return None
        done, total = self._numbers.get(event.asset, (0, None))
        rate = 0.0
        match event:
            case AssetPlanned(size=size, resumed_bytes=resumed):
                status, done, total = "pending", resumed, size
            case ProgressMade(bytes=count, total=size, rate=rate):
                status, done, total = "downloading", count, size
            case AssetVerifying(total=size):
                status, done, total = "validating", done or size, size
            case AssetVerified(size=size):
                status, done, total = "complete", size, size
            case AssetReused():
                status = "complete"
            case AssetFailed():
                status = "error"
            case _:
                return None
        self._numbers[event.asset] = (done, total)
        if status == "complete":
            percentage = 100.0
            del self._numbers[event.asset]
        else:
            percentage = Progress(done, total, rate, None).percentage
        return AssetProgress(event.asset, status, percentage, done, total, rate)

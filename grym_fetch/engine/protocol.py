"""What the coordinator and the manager ask of an engine. The real one serves it, and so does the mock's.

Rule: nothing is imported for it that a run without a download would not need.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from grym_fetch.core.manifest import Asset

if TYPE_CHECKING:
    from grym_fetch.disk.local_files import Found
    from grym_fetch.transfer.result import FetchResult


class FileFinder(Protocol):
    """Finds the files of assets that are on this machine. Served by `LocalFiles`."""

    def find_verified(self, asset: Asset) -> Path | None:
        """The asset's file, if it was verified and has not changed since. Reads no byte of it."""

    def is_there(self, asset: Asset) -> bool:
        """Whether a file of the right size is there, unread."""

    def has_stages(self) -> bool:
        """Whether there are unfinished downloads of anything."""

    async def find(self, asset: Asset, *, full: bool = False, on_hashing: Callable[[int], None]) -> Found | None:
        """Look for the asset and verify it; ``full`` reads every byte, verified before or not."""


class AssetFetcher(Protocol):
    """Makes one asset present and verified. Served by `Fetcher`."""

    async def fetch(self, asset: Asset, *, force: bool = False, rank: int = 0) -> FetchResult:
        """Make the asset present and verified. Raises any `GrymFetchError`, after the event `asset_failed`."""

    def staged_bytes(self, asset: Asset) -> int:
        """Bytes of this asset that an earlier run has left behind."""


class SmallAssetFetcher(Protocol):
    """Makes many small assets present and verified together. Served by `SmallFileFetcher`."""

    def choose(self, assets: Sequence[Asset]) -> list[Asset]:
        """Those that `fetch` is for."""

    async def fetch(self, assets: Sequence[Asset], on_fetched: Callable[[Asset, FetchResult], None]) -> list[Asset]:
        """Fetch these together. Returns those that must be fetched one by one."""


class FreeSpace(Protocol):
    """Knows the disk. Served by `DiskStore`."""

    async def free_bytes(self) -> int:
        """Bytes that may still be written."""


class AssetEngine(Protocol):
    """What works for a manager, in one event loop. Served by `Engine`."""

    @property
    def received(self) -> int:
        """Bytes that have come over the network, whatever became of them."""

    @property
    def max_active_assets(self) -> int:
        """How many assets may be under way at once."""

    @property
    def local_files(self) -> FileFinder:
        """What finds files that are there."""

    @property
    def fetcher(self) -> AssetFetcher:
        """What fetches."""

    @property
    def small_fetcher(self) -> SmallAssetFetcher:
        """What fetches small assets together."""

    @property
    def store(self) -> FreeSpace:
        """The disk."""

    def is_unpacked(self, asset: Asset, archive: Path) -> bool:
        """Whether what was in the archive is there as it was unpacked."""

    async def tidy(self, present: Sequence[Asset]) -> None:
        """Remove what runs that were killed have left of assets that are in place."""

    async def aclose(self) -> None:
        """End what is under way and release everything."""

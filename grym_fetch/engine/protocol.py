"""What the coordinator and the manager need from an engine. The real engine and the mock's implement it.

Rule: it imports nothing that a run without a download would not need.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from grym_fetch.core.manifest import Asset

if TYPE_CHECKING:
    from grym_fetch.disk.damage import Damage
    from grym_fetch.disk.local_files import Found, Look
    from grym_fetch.transfer.readers import Readers
    from grym_fetch.transfer.result import FetchResult


class FileFinder(Protocol):
    """Finds the files of assets on this machine. Implemented by `LocalFiles`."""

    def places(self, asset: Asset) -> list[Path]:
        """Where this asset may lie, best first."""

    def find_verified(self, asset: Asset) -> str | None:
        """Return the path of the asset's file, if it was verified and has not changed since. Reads no byte of it.

        As text: with tens of thousands of assets, making a `Path` of each takes longer than looking at it.
        """

    def look(self, asset: Asset) -> Look:
        """Return what is in the asset's places, unread."""

    def look_at(self, assets: Iterable[Asset]) -> Iterator[Look]:
        """`look` at many, one after the other, with less work for each."""

    def has_stages(self) -> bool:
        """Whether there are unfinished downloads of anything."""

    async def find(self, asset: Asset, *, full: bool = False, on_hashing: Callable[[int, int], None]) -> Found | None:
        """Find the asset's file and verify it; ``full`` reads every byte even if it was verified before.

        ``on_hashing`` is told how many bytes of how many were read: at first none, and then now and then.
        """


class AssetFetcher(Protocol):
    """Makes one asset present and verified. Implemented by `Fetcher`."""

    async def fetch(self, asset: Asset, *, force: bool = False, repair: bool = False, rank: int = 0) -> FetchResult:
        """Make the asset present and verified. Raises any `GrymFetchError`, after the event `asset_failed`.

        ``repair``: read a file that is there, whatever is known of it.
        """

    async def examine(self, asset: Asset) -> tuple[Found | None, Damage | None]:
        """Read the asset's file; return what is there, and what of it can be used if it is wrong."""

    def readers(self, asset: Asset) -> Readers:
        """Where those who read this asset meet the transfer that fetches it."""

    def staged_bytes(self, assets: Sequence[Asset]) -> list[int]:
        """The bytes of each asset that an earlier run left behind."""


class AssetAdopter(Protocol):
    """Takes assets that are on this machine. Implemented by `Fetcher`."""

    async def adopt(self, asset: Asset) -> FetchResult | None:
        """Make the asset present and verified; None if it is not here. Raises like `AssetFetcher.fetch`."""


class SmallAssetFetcher(Protocol):
    """Makes many small assets present and verified together. Implemented by `SmallFileFetcher`."""

    def choose(self, assets: Sequence[Asset]) -> list[Asset]:
        """Return those that `fetch` can take."""

    async def fetch(self, assets: Sequence[Asset], on_fetched: Callable[[Asset, FetchResult], None]) -> list[Asset]:
        """Fetch these together. Return those that must be fetched one by one."""


class FreeSpace(Protocol):
    """Knows the disk. Implemented by `AssetsFolder`."""

    async def free_bytes(self) -> int:
        """Return how many bytes may still be written."""

    async def check_usable(self) -> None:
        """Raise `StorageError` if nothing at all can be put there: no space, no inodes, read-only."""


class AssetEngine(Protocol):
    """Does the work of a manager, in one event loop. Implemented by `Engine`."""

    @property
    def received(self) -> int:
        """Bytes received over the network, whether or not they were used."""

    @property
    def max_active_assets(self) -> int:
        """How many assets may be in progress at once."""

    @property
    def local_files(self) -> FileFinder:
        """Finds files that are there."""

    @property
    def fetcher(self) -> AssetFetcher:
        """Fetches one asset."""

    @property
    def small_fetcher(self) -> SmallAssetFetcher:
        """Fetches small assets together."""

    @property
    def assets_folder(self) -> FreeSpace:
        """The disk."""

    def adopter(self, places: Sequence[Path]) -> AssetAdopter:
        """Return what takes assets from this machine, also from these places."""

    def is_stored(self, asset: Asset) -> bool:
        """Whether the machine's store has a file for this asset, unread. False without a store."""

    def is_unpacked(self, asset: Asset, archive: Path) -> bool:
        """Whether the archive's content is there as it was unpacked."""

    async def find_unpacked(self, asset: Asset, archive: Path, on_read: Callable[[int, int], None]) -> bool:
        """Whether the archive's content is there, whoever unpacked it. Compares each byte.

        ``on_read`` is told how many bytes of how many of the archive were read.
        """

    async def tidy(self, present: Sequence[Asset]) -> None:
        """Remove what killed runs left behind of assets that are in place, and put their files into the store."""

    async def aclose(self) -> None:
        """Stop all work and release everything."""

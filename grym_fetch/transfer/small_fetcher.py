"""Makes many small assets present at once, as far as nothing is unusual about them.

Rules: what is left over goes to `Fetcher`, one by one. All share one lock, so that another process waits instead of
fetching the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path

from grym_fetch.core.addresses import host_of
from grym_fetch.core.errors import StorageError
from grym_fetch.core.events import AssetPlanned, AssetVerified, AssetVerifying, ProgressMade
from grym_fetch.core.manifest import Asset
from grym_fetch.core.mirror_rules import MirrorRule
from grym_fetch.core.mirrors import addresses_of
from grym_fetch.disk.assets_folder import AssetsFolder
from grym_fetch.disk.local_files import LocalFiles
from grym_fetch.disk.verified import FileSignature, VerifiedFile
from grym_fetch.transfer.context import TransferContext
from grym_fetch.transfer.locking import acquire_lock
from grym_fetch.transfer.result import FetchResult, TransferResult
from grym_fetch.transfer.small_files import MIN_SMALL_FILES, ReceivedFile, SmallFileSource, is_small


def by_host(assets: Iterable[Asset], rules: Sequence[MirrorRule] = ()) -> dict[str, list[Asset]]:
    """The assets by the host that each is fetched from."""
    groups: dict[str, list[Asset]] = {}
    for asset in assets:
        groups.setdefault(host_of(addresses_of(asset, rules)[0]), []).append(asset)
    return groups


class SmallFileFetcher:
    """Fetches small assets of one project together."""

    def __init__(
        self,
        context: TransferContext,
        *,
        assets_folder: AssetsFolder,
        local_files: LocalFiles,
        is_here: Callable[[Asset], bool] = lambda _: False,
        keep: Callable[[Asset, FileSignature], Awaitable[object]] | None = None,
    ) -> None:
        """``is_here``: whether an asset can be taken from this machine. ``keep``: called with each that is in place."""
        self._context = context
        self._assets_folder = assets_folder
        self._local_files = local_files
        self._is_here = is_here
        self._keep = keep
        self._turn = asyncio.Lock()
        """Held while some are fetched: the writer ends with them."""

    def choose(self, assets: Iterable[Asset]) -> list[Asset]:
        """Return the assets that `fetch` can take; none if there are too few to gain by it."""
        small = [] if self._context.settings.offline else [asset for asset in assets if is_small(asset)]
        small = [asset for asset in small if not self._is_here(asset)]
        return small if len(small) >= MIN_SMALL_FILES else []

    async def fetch(self, assets: Sequence[Asset], on_fetched: Callable[[Asset, FetchResult], None]) -> list[Asset]:
        """Make these present and verified, as far as nothing is unusual; return the ones left over for `Fetcher`."""
        async with self._turn:
            return await self._fetch_in_turn(assets, on_fetched)

    async def _fetch_in_turn(
        self, assets: Sequence[Asset], on_fetched: Callable[[Asset, FetchResult], None]
    ) -> list[Asset]:
        # A file that is there in part or unverified is for `Fetcher` to judge.
        left_over, missing = self._split(assets)
        if len(missing) < MIN_SMALL_FILES:
            return list(assets)
        lock = self._assets_folder.lock_of_small_files
        try:
            try:
                await self._assets_folder.prepare()
                path = self._assets_folder.path_of(missing[0].local_path)
                waited = await acquire_lock(lock, missing[0], self._assets_folder, self._context, path=path)
                # What cannot be put in place is not fetched; `Fetcher` says why.
                closed = await self._assets_folder.closed_folders({_folder(asset) for asset in missing})
            except StorageError:
                return list(assets)  # each of them will say what is wrong
            if waited:
                # The previous holder of the lock has most likely fetched these assets.
                more, missing = self._split(missing)
                left_over += more
            left_over += [asset for asset in missing if _folder(asset) in closed]
            missing = [asset for asset in missing if _folder(asset) not in closed]
            return left_over + await self._fetch(missing, on_fetched)
        finally:
            lock.release()

    def _split(self, assets: Sequence[Asset]) -> tuple[list[Asset], list[Asset]]:
        """Return the assets of which something is there, and those of which nothing is."""
        there: list[Asset] = []
        missing: list[Asset] = []
        for asset, is_occupied in zip(assets, self._local_files.are_occupied(assets), strict=True):
            (there if is_occupied else missing).append(asset)
        return there, missing

    async def _fetch(self, assets: Sequence[Asset], on_fetched: Callable[[Asset, FetchResult], None]) -> list[Asset]:
        scheduler, writer = self._context.scheduler, self._assets_folder.small_file_writer
        to_keep: list[tuple[Asset, FileSignature]] = []

        def on_placed(placed: list[tuple[ReceivedFile, VerifiedFile]]) -> None:
            if self._keep is not None:
                to_keep.extend((file.asset, verified.signature) for file, verified in placed)
            self._local_files.verified_cache.record_all(verified for _, verified in placed)
            for file, verified in placed:
                on_fetched(file.asset, self._report(file, verified))

        sources = [
            SmallFileSource(host, some, self._context, writer=writer, on_placed=on_placed)
            for host, some in by_host(assets, self._context.settings.mirror_rules).items()
        ]
        for source in sources:
            scheduler.add(source, rank=0)
        try:
            async with asyncio.TaskGroup() as group:
                for source in sources:
                    group.create_task(source.run())
        finally:
            for source in sources:
                scheduler.remove(source)
            await writer.close()
        for asset, signature in to_keep:
            assert self._keep is not None
            await self._keep(asset, signature)
        return [asset for source in sources for asset in source.left_over]

    def _report(self, file: ReceivedFile, verified: VerifiedFile) -> FetchResult:
        """Emit all events of an asset that is in place, from its plan to its end."""
        emit, asset, size = self._context.emit, file.asset, len(file.data)
        emit(AssetPlanned(asset=asset.id, size=size, resumed_bytes=0))
        emit(ProgressMade(asset=asset.id, bytes=size, total=size, rate=0.0, eta=0.0))
        emit(AssetVerifying(asset=asset.id, bytes=size, total=size))
        emit(
            AssetVerified(
                asset=asset.id,
                path=verified.path,
                checksum=verified.checksum,
                size=size,
                seconds=round(self._context.clock.monotonic() - file.began, 3),
                downloaded_bytes=size,
            )
        )
        path = Path(verified.path)
        return FetchResult(path, TransferResult(path, file.checksum, size, size, verified.signature))


def _folder(asset: Asset) -> str:
    return asset.local_path.rpartition("/")[0]

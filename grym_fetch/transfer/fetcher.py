"""Makes one asset present: takes the file that is there, or waits for who is fetching it, or fetches it.

Rules: exactly one of `asset_reused`, `asset_verified` and `asset_failed` ends a delivery's events. A lock is held while
an asset is fetched, so that another process waits instead of fetching the same; nothing but bandwidth depends on it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from yarl import URL

from grym_fetch.core.addresses import is_loopback
from grym_fetch.core.errors import (
    AssetMissing,
    DigestMismatch,
    GrymFetchError,
    IntegrityError,
    Locked,
    MirrorsExhausted,
    PolicyRefused,
    StorageError,
    UnpinnedAsset,
)
from grym_fetch.core.events import (
    AssetFailed,
    AssetPlanned,
    AssetReused,
    AssetVerified,
    AssetVerifying,
    AssetWaiting,
    Event,
    ProgressMade,
)
from grym_fetch.core.fingerprint import content_fingerprint
from grym_fetch.core.manifest import Asset
from grym_fetch.core.policy import TokenBucket
from grym_fetch.core.world import Clock, Threads
from grym_fetch.disk.local_files import LocalFiles
from grym_fetch.disk.locks import FileLock
from grym_fetch.disk.stage import StageKey
from grym_fetch.disk.store import DiskStore
from grym_fetch.disk.verified import Stamp
from grym_fetch.transfer.request import Requester
from grym_fetch.transfer.scheduler import Scheduler
from grym_fetch.transfer.small_files import LEAST, ReceivedFile, SmallFileSource, by_host, is_small
from grym_fetch.transfer.transfer import Transfer, TransferResult, TransferSettings

log = logging.getLogger(__name__)

POLL_SECONDS = 0.2
"""How often a lock that another process holds is tried."""


@dataclass(frozen=True, slots=True)
class FetcherSettings:
    """What the user allowed. ``lock_timeout`` in seconds."""

    offline: bool = False
    allow_unpinned: bool = False
    lock_timeout: float = 3600.0


@dataclass(frozen=True, slots=True)
class FetchResult:
    """The asset is at ``path``. ``fetched`` tells of the transfer; None if the file was there already."""

    path: Path
    fetched: TransferResult | None


class Fetcher:
    """Delivers assets of one project. ``on_received`` is told the bytes that a transfer brought, however it ended."""

    def __init__(
        self,
        *,
        store: DiskStore,
        local_files: LocalFiles,
        unpack: Callable[[Asset, Path], Awaitable[None]],
        scheduler: Scheduler,
        requester: Requester,
        threads: Threads,
        clock: Clock,
        emit: Callable[[Event], None],
        settings: FetcherSettings,
        transfer_settings: TransferSettings,
        limiter: TokenBucket | None = None,
        on_received: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._local_files = local_files
        self._unpack_archive = unpack
        self._scheduler = scheduler
        self._requester = requester
        self._threads = threads
        self._clock = clock
        self._emit = emit
        self._settings = settings
        self._transfer_settings = transfer_settings
        self._limiter = limiter
        self._on_received = on_received

    async def fetch(self, asset: Asset, *, force: bool = False, rank: int = 0) -> FetchResult:
        """Make the asset present and verified. ``force``: fetch it even if it is there and right; ``rank``: its turn.

        Raises any `GrymFetchError`; the event `asset_failed` was emitted then.
        """
        try:
            return await self._fetch_asset(asset, force=force, rank=rank)
        except GrymFetchError as error:
            error.asset_id = error.asset_id or asset.id
            self._emit(
                AssetFailed(
                    asset=asset.id,
                    error=type(error).__name__,
                    message=str(error),
                    attempts=attempts_of(error),
                )
            )
            raise

    def small_among(self, assets: Sequence[Asset]) -> list[Asset]:
        """Those that `fetch_together` is for; none if they are too few to gain by it."""
        small = [] if self._settings.offline else [asset for asset in assets if is_small(asset)]
        return small if len(small) >= LEAST else []

    async def fetch_together(
        self, assets: Sequence[Asset], on_delivered: Callable[[Asset, FetchResult], None]
    ) -> list[Asset]:
        """Deliver small assets, as far as nothing is unusual about them; return those left over for `deliver`."""
        # A file that is there in part or unverified is for `deliver` to judge.
        left_over, missing = self._split(assets)
        if len(missing) < LEAST:
            return list(assets)
        lock = self._store.lock_together
        try:
            try:
                await self._store.prepare()
                waited = await self._acquire(missing[0], lock)
            except StorageError:
                return list(assets)  # each of them will tell what is wrong
            if waited:
                # Whoever held the lock has most likely fetched what we want.
                more, missing = self._split(missing)
                left_over += more
            return left_over + await self._fetch_together(missing, on_delivered)
        finally:
            lock.release()

    def _split(self, assets: Sequence[Asset]) -> tuple[list[Asset], list[Asset]]:
        """Those that something is there of, and those that nothing is."""
        there: list[Asset] = []
        missing: list[Asset] = []
        for asset in assets:
            (there if self._local_files.is_occupied(asset) else missing).append(asset)
        return there, missing

    async def _fetch_together(
        self, assets: Sequence[Asset], on_delivered: Callable[[Asset, FetchResult], None]
    ) -> list[Asset]:
        def on_placed(placed: list[tuple[ReceivedFile, Stamp]]) -> None:
            self._local_files.verified_cache.record_all(stamp for _, stamp in placed)
            for file, stamp in placed:
                on_delivered(file.asset, self._tell_all(file, stamp))

        batches = [
            SmallFileSource(
                host,
                some,
                requester=self._requester,
                small_file_writer=self._store.small_file_writer,
                clock=self._clock,
                limiter=self._limiter,
                on_received=self._on_received,
                on_placed=on_placed,
            )
            for host, some in by_host(assets).items()
        ]
        for batch in batches:
            self._scheduler.add(batch, rank=0)
        try:
            async with asyncio.TaskGroup() as group:
                for batch in batches:
                    group.create_task(batch.run())
        finally:
            for batch in batches:
                self._scheduler.remove(batch)
            await self._store.small_file_writer.close()
        return [asset for batch in batches for asset in batch.left_over]

    def _tell_all(self, file: ReceivedFile, stamp: Stamp) -> FetchResult:
        """Tell of an asset that went the short way, from beginning to end."""
        asset, size = file.asset, len(file.data)
        self._emit(AssetPlanned(asset=asset.id, size=size, resumed_bytes=0))
        self._emit(ProgressMade(asset=asset.id, bytes=size, total=size, rate=0.0, eta=0.0))
        self._emit(AssetVerifying(asset=asset.id, bytes=size, total=size))
        self._emit(
            AssetVerified(
                asset=asset.id,
                path=stamp.path,
                checksum=stamp.checksum,
                size=size,
                seconds=round(self._clock.monotonic() - file.began, 3),
                downloaded_bytes=size,
            )
        )
        path = Path(stamp.path)
        return FetchResult(path, TransferResult(path, file.checksum, size, size))

    def staged_bytes(self, asset: Asset) -> int:
        """Bytes of this asset that an earlier run left behind: for a plan, not a promise."""
        return self._store.staged_bytes(StageKey(asset.local_path, content_fingerprint(asset)))

    async def _fetch_asset(self, asset: Asset, *, force: bool, rank: int) -> FetchResult:
        if not asset.pinned:
            if not self._settings.allow_unpinned:
                raise UnpinnedAsset(asset.id)
            self._refuse_bare_http(asset)
        if not force and (present := await self._present(asset)) is not None:
            return present
        if self._settings.offline:
            raise AssetMissing(asset.id, "it is not on this machine, and --offline forbids fetching it")
        await self._store.check_destination(asset.local_path)
        await self._store.prepare()
        key = StageKey(asset.local_path, content_fingerprint(asset))
        lock = self._store.lock(key)
        try:
            waited = await self._acquire(asset, lock)
            # Whoever held the lock has most likely fetched what we want.
            if waited and not force and (present := await self._present(asset)) is not None:
                return present
            return await self._fetch(asset, key, exclusive=lock.is_trustworthy, rank=rank)
        finally:
            lock.release()

    @staticmethod
    def _refuse_bare_http(asset: Asset) -> None:
        for text in asset.urls:
            url = URL(text)
            if url.scheme == "http" and not is_loopback(url):
                reason = "plain http and no checksum: anybody on the way could change it. Use https, or pin it"
                raise PolicyRefused(text, f"{asset.id}: {reason}")

    async def _present(self, asset: Asset) -> FetchResult | None:
        def on_hashing(size: int) -> None:
            self._emit(AssetVerifying(asset=asset.id, bytes=0, total=size))

        found = await self._local_files.find(asset, on_hashing=on_hashing)
        if found is None:
            return None
        if found.error is not None:
            if self._settings.offline:
                raise IntegrityError(f"{asset.id}: {found.path}: {found.error}; --offline forbids fetching it again")
            log.warning("%s: the file there is wrong and will be replaced: %s", asset.id, found.error)
            return None
        await self._unpack(asset, found.path)
        unverified = None if asset.pinned else True
        self._emit(AssetReused(asset=asset.id, path=str(found.path), unverified=unverified))
        return FetchResult(found.path, None)

    async def _unpack(self, asset: Asset, archive: Path) -> None:
        if asset.extract:
            await self._store.prepare()
            await self._unpack_archive(asset, archive)

    async def _acquire(self, asset: Asset, lock: FileLock) -> bool:
        """Take the asset's lock, waiting for its holder. Returns whether we waited; raises `Locked` past the wait."""
        deadline = self._clock.monotonic() + self._settings.lock_timeout
        announced = ""
        while not await self._store.try_lock(lock):
            if lock.holder != announced:
                announced = lock.holder
                self._emit(AssetWaiting(asset=asset.id, holder=lock.holder))
            if self._clock.monotonic() >= deadline:
                raise Locked(
                    self._store.path_of(asset.local_path),
                    f"{asset.id}: {lock.holder} has been fetching it for more than "
                    f"{self._settings.lock_timeout:g} s; wait for it, stop it, or raise --lock-timeout",
                )
            await self._clock.sleep(POLL_SECONDS)
        return bool(announced)

    async def _fetch(self, asset: Asset, key: StageKey, *, exclusive: bool, rank: int) -> FetchResult:
        began = self._clock.monotonic()
        stage = await self._store.open_stage(key, exclusive=exclusive, size=asset.size)
        transfer = None
        try:
            transfer = Transfer(
                asset,
                stage=stage,
                requester=self._requester,
                threads=self._threads,
                clock=self._clock,
                emit=self._emit,
                kick=self._scheduler.kick,
                settings=self._transfer_settings,
                limiter=self._limiter,
            )
            self._scheduler.add(transfer, rank)
            try:
                fetched = await transfer.run()
            finally:
                self._scheduler.remove(transfer)
        except IntegrityError:
            # What is on the stage is certainly wrong somewhere: the next run must not begin with it.
            await stage.discard()
            raise
        finally:
            await stage.close()
            if transfer is not None:
                self._on_received(transfer.received)
        if asset.checksum is not None:
            self._local_files.stamp(fetched.path, asset.checksum)
        await self._unpack(asset, fetched.path)
        self._emit(
            AssetVerified(
                asset=asset.id,
                path=str(fetched.path),
                checksum=str(fetched.checksum),
                size=fetched.size,
                seconds=round(self._clock.monotonic() - began, 3),
                downloaded_bytes=fetched.downloaded,
                unverified=None if asset.pinned else True,
            )
        )
        return FetchResult(fetched.path, fetched)


def attempts_of(error: GrymFetchError) -> tuple[str, ...]:
    """One line an origin, for errors that have tried several."""
    if isinstance(error, MirrorsExhausted | DigestMismatch):
        return tuple(str(failure) for failure in error.failures)
    return ()

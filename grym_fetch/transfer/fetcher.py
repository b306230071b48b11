"""Makes one asset present: uses the file that is there, or waits for the process that fetches it, or fetches it.

Rules: exactly one of `asset_reused`, `asset_verified` and `asset_failed` ends the events of a fetch. A lock is held
while an asset is fetched, so that another process waits instead of fetching the same; only bandwidth depends on it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from yarl import URL

from grym_fetch.core.addresses import BARE_HTTP, is_loopback
from grym_fetch.core.errors import (
    AssetMissing,
    DigestMismatch,
    GrymFetchError,
    IntegrityError,
    MirrorsExhausted,
    PolicyRefused,
    UnpinnedAsset,
)
from grym_fetch.core.events import (
    AssetFailed,
    AssetReused,
    AssetVerified,
    AssetVerifying,
)
from grym_fetch.core.fingerprint import content_fingerprint
from grym_fetch.core.manifest import Asset
from grym_fetch.disk.local_files import LocalFiles
from grym_fetch.disk.stage import StageKey
from grym_fetch.disk.store import DiskStore
from grym_fetch.disk.verified import ReplacedMeanwhile
from grym_fetch.runtime.buffers import release_frames
from grym_fetch.runtime.threads import machine_error
from grym_fetch.transfer.context import TransferContext
from grym_fetch.transfer.locking import acquire_lock
from grym_fetch.transfer.result import FetchResult
from grym_fetch.transfer.transfer import Transfer

log = logging.getLogger(__name__)


Judge = Callable[[Path], Awaitable[None]]
"""Raises what is wrong with a file."""


class Fetcher:
    """Makes the assets of one project present, one by one. ``unpack`` is called with an archive that is in place."""

    def __init__(
        self,
        context: TransferContext,
        *,
        store: DiskStore,
        local_files: LocalFiles,
        unpack: Callable[[Asset, Path], Awaitable[None]],
    ) -> None:
        self._context = context
        self._settings = context.settings
        self._emit = context.emit
        self._store = store
        self._local_files = local_files
        self._unpack_archive = unpack

    async def fetch(
        self, asset: Asset, *, force: bool = False, rank: int = 0, judge: Judge | None = None
    ) -> FetchResult:
        """Make the asset present and verified. ``force``: fetch it even if it is there and right; ``rank``: its turn.

        ``judge`` looks at what was fetched before anybody is told that it is there. Raises any `GrymFetchError`, after
        emitting `asset_failed`.
        """
        try:
            try:
                return await self._fetch_asset(asset, force=force, rank=rank, judge=judge)
            except MemoryError as error:
                raise machine_error(error) or error from None
        except GrymFetchError as error:
            release_frames(error)
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

    def staged_bytes(self, asset: Asset) -> int:
        """Bytes of this asset that an earlier run left behind: for a plan, not a promise."""
        return self._store.staged_bytes(StageKey(asset.local_path, content_fingerprint(asset)))

    async def _fetch_asset(self, asset: Asset, *, force: bool, rank: int, judge: Judge | None) -> FetchResult:
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
            waited = await acquire_lock(lock, asset, self._store, self._context)
            # The previous holder of the lock has most likely fetched this asset.
            if waited and not force and (present := await self._present(asset)) is not None:
                return present
            return await self._fetch(asset, key, exclusive=lock.is_trustworthy, rank=rank, judge=judge)
        finally:
            lock.release()

    @staticmethod
    def _refuse_bare_http(asset: Asset) -> None:
        for text in asset.urls:
            url = URL(text)
            if url.scheme == "http" and not is_loopback(url):
                raise PolicyRefused(text, f"{asset.id}: {BARE_HTTP}")

    async def _present(self, asset: Asset) -> FetchResult | None:
        def on_hashing(count: int, size: int) -> None:
            self._emit(AssetVerifying(asset=asset.id, bytes=min(count, size), total=size))

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
            await self._unpack_archive(asset, archive)

    async def _fetch(
        self, asset: Asset, key: StageKey, *, exclusive: bool, rank: int, judge: Judge | None
    ) -> FetchResult:
        began = self._context.clock.monotonic()
        stage = await self._store.open_stage(key, exclusive=exclusive, size=asset.size)
        transfer = None
        try:
            transfer = Transfer(asset, stage, self._context)
            self._context.scheduler.add(transfer, rank)
            try:
                fetched = await transfer.run()
            except ReplacedMeanwhile:
                # Where locks do nothing, another process may have put the same file there. It counts once it is hashed.
                await stage.discard()
                if not asset.pinned or (there := await self._present(asset)) is None:
                    raise
                return there
            finally:
                self._context.scheduler.remove(transfer)
        except IntegrityError:
            # Something on the stage is certainly wrong: the next run must not begin with it.
            await stage.discard()
            raise
        finally:
            await stage.close()
            if transfer is not None:
                self._context.on_received(transfer.received)
        fetched = replace(fetched, signature=stage.published)
        if asset.checksum is not None and fetched.signature is not None:
            self._local_files.verified_cache.record(fetched.path, asset.checksum, fetched.signature)
        if judge is not None:
            await judge(fetched.path)
        await self._unpack(asset, fetched.path)
        self._emit(
            AssetVerified(
                asset=asset.id,
                path=str(fetched.path),
                checksum=str(fetched.checksum),
                size=fetched.size,
                seconds=round(self._context.clock.monotonic() - began, 3),
                downloaded_bytes=fetched.downloaded,
                unverified=None if asset.pinned or asset.stated is not None else True,
            )
        )
        return FetchResult(fetched.path, fetched)


def attempts_of(error: GrymFetchError) -> tuple[str, ...]:
    """One line for each origin, for errors after which several were tried."""
    if isinstance(error, MirrorsExhausted | DigestMismatch):
        return tuple(str(failure) for failure in error.failures)
    return ()

"""Makes one asset present: uses the file that is there, or waits for the process that fetches it, or fetches it.

Rules: exactly one of `asset_reused`, `asset_verified` and `asset_failed` ends the events of a fetch. A lock is held
while an asset is fetched, so that another process waits instead of fetching the same; only bandwidth depends on it.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from weakref import WeakValueDictionary

from yarl import URL

from grym_fetch.core.addresses import BARE_HTTP, is_loopback
from grym_fetch.core.errors import (
    AssetMissing,
    DigestMismatch,
    GrymFetchError,
    IntegrityError,
    MirrorsExhausted,
    PolicyRefused,
    StorageError,
    UnpinnedAsset,
)
from grym_fetch.core.events import (
    AssetDamaged,
    AssetFailed,
    AssetRepaired,
    AssetReused,
    AssetVerified,
    AssetVerifying,
)
from grym_fetch.core.fingerprint import content_fingerprint
from grym_fetch.core.manifest import Asset
from grym_fetch.core.mirrors import with_mirrors
from grym_fetch.core.piece_digests import PieceDigests
from grym_fetch.core.suspicion import BEGINNING_BYTES, suspicion
from grym_fetch.core.text import safe_text
from grym_fetch.disk.assets_folder import AssetsFolder
from grym_fetch.disk.damage import Damage
from grym_fetch.disk.folders import read_beginning
from grym_fetch.disk.local_files import Found, LocalFiles
from grym_fetch.disk.stage import StageKey
from grym_fetch.disk.verified import ReplacedMeanwhile
from grym_fetch.manifest_files.neighbours import Neighbours
from grym_fetch.runtime.buffers import release_frames
from grym_fetch.runtime.threads import machine_error
from grym_fetch.transfer.context import TransferContext
from grym_fetch.transfer.locking import acquire_lock
from grym_fetch.transfer.readers import Readers
from grym_fetch.transfer.result import FetchResult, Repaired, Taken
from grym_fetch.transfer.taking import Taker
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
        assets_folder: AssetsFolder,
        local_files: LocalFiles,
        taker: Taker,
        neighbours: Neighbours,
        unpack: Callable[[Asset, Path], Awaitable[None]],
    ) -> None:
        self._context = context
        self._taker = taker
        self._neighbours = neighbours
        self._settings = context.settings
        self._emit = context.emit
        self._assets_folder = assets_folder
        self._local_files = local_files
        self._unpack_archive = unpack
        self._readers: WeakValueDictionary[tuple[StageKey, PieceDigests | None], Readers] = WeakValueDictionary()
        """Held by the transfers and by those who read, if both judge by the same digests."""

    def readers(self, asset: Asset) -> Readers:
        """Where those who read this asset meet the transfer that fetches it, now or later."""
        return self._readers.setdefault((_key(asset), asset.pieces), Readers())

    async def fetch(
        self,
        asset: Asset,
        *,
        force: bool = False,
        repair: bool = False,
        only_here: bool = False,
        rank: int = 0,
        judge: Judge | None = None,
    ) -> FetchResult:
        """Make the asset present and verified. ``force``: fetch it even if it is there and right; ``rank``: its turn.

        A file that is there and wrong gives what is right of it. ``repair``: read it even if it was verified before.
        ``only_here``: ask nobody, and do not tell it as a failure if the asset is not on this machine.

        ``judge`` looks at what was fetched before anybody is told that it is there. Raises any `GrymFetchError`, after
        emitting `asset_failed`.
        """
        asset = with_mirrors(asset, self._settings.mirror_rules)
        try:
            try:
                return await self._fetch_asset(
                    asset, force=force, repair=repair, only_here=only_here, rank=rank, judge=judge
                )
            except MemoryError as error:
                raise machine_error(error) or error from None
        except GrymFetchError as error:
            release_frames(error)
            error.asset_id = error.asset_id or asset.id
            if only_here and isinstance(error, AssetMissing):
                raise
            self._emit(
                AssetFailed(
                    asset=asset.id,
                    error=type(error).__name__,
                    message=str(error),
                    attempts=attempts_of(error),
                )
            )
            raise

    async def adopt(self, asset: Asset) -> FetchResult | None:
        """Make the asset present from what is on this machine; None if it is not here. Asks nobody.

        Raises like `fetch`.
        """
        try:
            return await self.fetch(asset, only_here=True)
        except AssetMissing:
            return None

    async def examine(self, asset: Asset) -> tuple[Found | None, Damage | None]:
        """Read the asset's file; return what is there, and what of it can be used if it is wrong. Changes nothing."""
        found = await self._look(asset, full=True)
        if found is None or not found.is_wrong:
            return found, None
        return found, await self._local_files.find_damage(asset, found)

    def staged_bytes(self, assets: Sequence[Asset]) -> list[int]:
        """Bytes of each asset that an earlier run left behind: for a plan, not a promise."""
        return self._assets_folder.staged_bytes([_key(asset) for asset in assets])

    async def _fetch_asset(
        self, asset: Asset, *, force: bool, repair: bool, only_here: bool, rank: int, judge: Judge | None
    ) -> FetchResult:
        if not asset.pinned:
            if not self._settings.allow_unpinned:
                raise UnpinnedAsset(asset.id)
            self._refuse_bare_http(asset)
        wrong = None
        if not force:
            found = await self._look(asset, full=repair)
            if found is not None and not found.is_wrong:
                return await self._reuse(asset, found)
            wrong = found
        if self._settings.offline and not self._taker.is_useful:
            raise self._refuse_offline(asset, wrong, force=force)
        await self._assets_folder.check_destination(asset.local_path)
        await self._assets_folder.prepare()
        await self._context.threads.compute(self._neighbours.note)
        if wrong is not None:
            await self._context.threads.compute(self._neighbours.refuse_clash, asset)
        key = _key(asset)
        lock = self._assets_folder.lock(key)
        try:
            path = self._assets_folder.path_of(asset.local_path)
            waited = await acquire_lock(lock, asset, self._assets_folder, self._context, path=path)
            # The previous holder of the lock has most likely fetched this asset.
            if waited and not force:
                found = await self._look(asset)
                if found is not None and not found.is_wrong:
                    return await self._reuse(asset, found)
                wrong = found
            async with self._taker.holding(asset) as is_alone:
                if not force and (taken := await self._taker.take(asset, key, exclusive=lock.is_trustworthy)):
                    return await self._use_taken(asset, taken, exclusive=is_alone)
                if self._settings.offline or only_here:
                    raise self._refuse_offline(asset, None if only_here else wrong, force=force)
                damage = None if wrong is None else await self._damage(asset, wrong)
                return await self._fetch(
                    asset,
                    key,
                    exclusive=lock.is_trustworthy,
                    is_alone=is_alone,
                    rank=rank,
                    judge=judge,
                    damage=damage,
                )
        finally:
            lock.release()

    @staticmethod
    def _refuse_offline(asset: Asset, wrong: Found | None, *, force: bool) -> GrymFetchError:
        if wrong is not None:
            return IntegrityError(f"{asset.id}: {wrong.path}: {wrong.error}; --offline forbids fetching it again")
        if force:
            return AssetMissing(asset.id, "--force fetches it whatever is there, and --offline forbids that")
        return AssetMissing(asset.id, "it is not on this machine, and --offline forbids fetching it")

    async def _use_taken(self, asset: Asset, taken: Taken, *, exclusive: bool) -> FetchResult:
        if asset.checksum is not None:
            self._local_files.verified_cache.record(taken.path, asset.checksum, taken.signature)
        await self._taker.keep(asset, taken.signature, exclusive=exclusive)
        await self._unpack(asset, taken.path)
        self._emit(
            AssetReused(asset=asset.id, path=str(taken.path), taken_from=safe_text(str(taken.source)), link=taken.link)
        )
        return FetchResult(taken.path, None, taken=taken)

    @staticmethod
    def _refuse_bare_http(asset: Asset) -> None:
        for text in asset.urls:
            url = URL(text)
            if url.scheme == "http" and not is_loopback(url):
                raise PolicyRefused(text, f"{asset.id}: {BARE_HTTP}")

    async def _look(self, asset: Asset, *, full: bool = False) -> Found | None:
        """What is there: read, unless it is known."""

        def on_hashing(count: int, size: int) -> None:
            self._emit(AssetVerifying(asset=asset.id, bytes=min(count, size), total=size))

        return await self._local_files.find(asset, full=full, on_hashing=on_hashing)

    async def _reuse(self, asset: Asset, found: Found) -> FetchResult:
        await self._warn_if_suspicious(asset, found.path)
        await self._unpack(asset, found.path)
        unverified = None if asset.pinned else True
        self._emit(AssetReused(asset=asset.id, path=str(found.path), unverified=unverified))
        return FetchResult(found.path, None)

    async def _warn_if_suspicious(self, asset: Asset, path: Path) -> None:
        """Say what is plainly not the asset, such as a login page, if nothing in the manifest can tell."""
        if asset.pinned or asset.size is not None:
            return
        with suppress(StorageError):
            beginning, size = await self._context.threads.compute(read_beginning, path, BEGINNING_BYTES)
            if (found := suspicion(beginning, size, name=asset.local_path, url=asset.url)) is not None:
                log.warning("%s: %s", asset.id, found)

    async def _damage(self, asset: Asset, wrong: Found) -> Damage | None:
        """What of a wrong file can be used; said before anything is fetched."""
        damage = await self._local_files.find_damage(asset, wrong)
        if damage is None:
            log.warning("%s: the file there is wrong and will be replaced: %s", asset.id, wrong.error)
            return None
        self._emit(
            AssetDamaged(
                asset=asset.id,
                path=str(damage.path),
                pieces=damage.pieces,
                bad=damage.bad,
                bytes=damage.bytes_to_fetch,
                guess=damage.is_guess or None,
                at_most=damage.size if damage.is_guess else None,
            )
        )
        return damage

    async def _unpack(self, asset: Asset, archive: Path) -> None:
        if asset.extract:
            await self._unpack_archive(asset, archive)

    async def _fetch(
        self,
        asset: Asset,
        key: StageKey,
        *,
        exclusive: bool,
        is_alone: bool,
        rank: int,
        judge: Judge | None,
        damage: Damage | None = None,
    ) -> FetchResult:
        began = self._context.clock.monotonic()
        stage = await self._assets_folder.open_stage(key, exclusive=exclusive, size=asset.size)
        transfer = None
        try:
            if damage is not None:
                await stage.seed(damage.path, damage.good)
            is_wrong = damage is not None and damage.is_hidden
            transfer = Transfer(asset, stage, self._context, self.readers(asset), is_wrong=is_wrong)
            self._context.scheduler.add(transfer, rank)
            try:
                fetched = await transfer.run()
            except ReplacedMeanwhile:
                # Where locks do nothing, another process may have put the same file there. It counts once it is hashed.
                await stage.discard()
                there = await self._look(asset) if asset.pinned else None
                if there is None or there.is_wrong:
                    raise
                return await self._reuse(asset, there)
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
        self._local_files.wrong_origins.record(asset.id, fetched.wrong_origins, self._context.clock.wall())
        if fetched.sums is not None:
            self._local_files.piece_sums.record(fetched.checksum, fetched.size, fetched.sums)
        if judge is not None:
            await judge(fetched.path)
        else:
            await self._warn_if_suspicious(asset, fetched.path)
        kept = await self._taker.keep(asset, fetched.signature, exclusive=is_alone)
        await self._unpack(asset, fetched.path)
        repaired = None if damage is None else _repaired(damage, transfer)
        if repaired is not None:
            self._emit(AssetRepaired(asset=asset.id, **dataclasses.asdict(repaired)))
        self._emit(
            AssetVerified(
                asset=asset.id,
                path=str(fetched.path),
                checksum=str(fetched.checksum),
                size=fetched.size,
                seconds=round(self._context.clock.monotonic() - began, 3),
                downloaded_bytes=fetched.downloaded,
                unverified=None if asset.pinned or asset.stated is not None else True,
                wrong_origins=fetched.wrong_origins or None,
                link=None if kept is None else kept.link,
            )
        )
        return FetchResult(fetched.path, fetched, repaired)


def _key(asset: Asset) -> StageKey:
    return StageKey(asset.local_path, content_fingerprint(asset))


def _repaired(damage: Damage, transfer: Transfer) -> Repaired:
    kept = [piece for piece in damage.good if transfer.has_kept(piece)]
    return Repaired(
        pieces=damage.pieces,
        bad=damage.bad,
        fetched=damage.pieces - len(kept),
        saved_bytes=sum(piece.stop - piece.start for piece in kept),
    )


def attempts_of(error: GrymFetchError) -> tuple[str, ...]:
    """One line for each origin, for errors after which several were tried."""
    if isinstance(error, MirrorsExhausted | DigestMismatch):
        return tuple(str(failure) for failure in error.failures)
    return ()

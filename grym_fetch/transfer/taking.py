"""Takes an asset from this machine instead of the network: from the store, or from where another program has put it.

Rules: what is taken was read and had the right digest while it had the signature that it still has. A copy of what
others may write to is read, too: a program that has mapped a file changes it without changing its signature. It is put
in place as a download is, through a stage. Nothing that fails here fails an asset, except a full disk: it is then
fetched.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from grym_fetch.core.content_hasher import ContentHasher
from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import DiskFull, GrymFetchError, Locked, StorageError
from grym_fetch.core.events import AssetVerifying, LinkMode
from grym_fetch.core.manifest import Asset
from grym_fetch.core.text import safe_text
from grym_fetch.disk.assets_folder import AssetsFolder
from grym_fetch.disk.local_files import LocalFiles
from grym_fetch.disk.locks import FileLock
from grym_fetch.disk.sharing import OpenFile, modes_from
from grym_fetch.disk.stage import StageKey
from grym_fetch.disk.verified import FileSignature, ReplacedMeanwhile, wait_for_tick
from grym_fetch.runtime import system
from grym_fetch.store.elsewhere import FilesElsewhere
from grym_fetch.store.machine_store import InStore, MachineStore
from grym_fetch.transfer.context import TransferContext
from grym_fetch.transfer.locking import acquire_lock
from grym_fetch.transfer.result import Taken

log = logging.getLogger(__name__)


class Taker:
    """Takes assets of one project. Without a store and without ``candidates``, there is nothing to take."""

    def __init__(
        self,
        context: TransferContext,
        *,
        assets_folder: AssetsFolder,
        local_files: LocalFiles,
        machine_store: MachineStore | None = None,
        candidates: FilesElsewhere | None = None,
        link_mode: str = "auto",
    ) -> None:
        self._context = context
        self._emit = context.emit
        self._assets_folder = assets_folder
        self._local_files = local_files
        self._machine_store = machine_store
        self._candidates = candidates
        self._link_mode = link_mode

    @property
    def is_useful(self) -> bool:
        """Whether there is anywhere to take from."""
        return self._machine_store is not None or self._candidates is not None

    def is_here(self, asset: Asset) -> bool:
        """Whether the asset may be taken, as far as is known without reading."""
        is_stored = self._machine_store is not None and self._machine_store.has(asset.checksum, asset.size)
        return is_stored or self._candidates is not None

    @asynccontextmanager
    async def holding(self, asset: Asset) -> AsyncIterator[bool]:
        """Hold the store's lock on the content of an asset, so that no other project fetches the same.

        Yields whether it excludes others: not if somebody holds it for longer than the user wants to wait.
        """
        lock = None
        if self._machine_store is not None and asset.checksum is not None:
            lock = await self._machine_store.lock(asset.checksum)
        if self._machine_store is None or lock is None:
            yield False
            return
        try:
            is_held = await self._acquired(lock, asset, self._machine_store)
            yield is_held and lock.is_trustworthy
        finally:
            lock.release()

    async def _acquired(self, lock: FileLock, asset: Asset, store: MachineStore) -> bool:
        path = self._assets_folder.path_of(asset.local_path)
        try:
            await acquire_lock(lock, asset, store, self._context, path=path)
        except Locked as error:  # whoever may write to the store can do that for ever
            log.warning("the store's lock is not waited for any longer: %s", error)
            return False
        return True

    async def take(self, asset: Asset, key: StageKey, *, exclusive: bool) -> Taken | None:
        """Put the asset in place from this machine. None if it is not there, or cannot be taken.

        ``exclusive``: as for `AssetsFolder.open_stage`. Raises `DiskFull`.
        """
        if (checksum := asset.checksum) is None:
            return None

        def on_read(count: int, total: int) -> None:
            self._emit(AssetVerifying(asset=asset.id, bytes=min(count, total), total=total))

        store = self._machine_store
        if store is not None and (found := await store.find(checksum, asset.size, on_read)) is not None:
            source, signature = found
            try:
                is_own = os.fstat(source.descriptor).st_uid == system.user_id()
                judge = None if is_own else checksum
                taken = await self._put(key, source, signature, store.modes, judge=judge, exclusive=exclusive)
            finally:
                source.close()
            if taken is not None:
                store.note_taken(checksum, taken.link, taken.signature)
                await store.note_use(asset.local_path, checksum)
                return taken
        return await self._adopt(asset, checksum, key, on_read, exclusive=exclusive)

    async def keep(self, asset: Asset, signature: FileSignature | None, *, exclusive: bool = False) -> InStore | None:
        """Put the asset's file, which is in place and was verified with this signature, into the store."""
        if self._machine_store is None or asset.checksum is None or signature is None:
            return None
        kept = await self._machine_store.keep(asset.local_path, asset.checksum, signature, exclusive=exclusive)
        if kept is not None and kept.link is LinkMode.HARDLINK:
            path = self._assets_folder.path_of(asset.local_path)
            self._local_files.verified_cache.record(path, asset.checksum, kept.signature)
        return kept

    async def _adopt(
        self,
        asset: Asset,
        checksum: Checksum,
        key: StageKey,
        on_read: Callable[[int, int], None],
        *,
        exclusive: bool,
    ) -> Taken | None:
        if self._candidates is None or asset.size is None:
            return None
        final = self._assets_folder.path_of(asset.local_path)
        for candidate in await self._context.threads.compute(self._candidates.of_size, asset.size):
            if candidate.path == final:
                continue
            try:
                source = await self._context.threads.compute(_opened, candidate.path)
            except OSError:
                continue
            try:
                signature = await self._proved(source, asset.size, checksum, on_read)
                if signature is None:
                    continue
                modes = modes_from(self._link_mode, may_link=candidate.may_link)
                taken = await self._put(key, source, signature, modes, judge=checksum, exclusive=exclusive)
            finally:
                source.close()
            if taken is not None:
                return taken
        return None

    async def _proved(
        self, source: OpenFile, size: int, checksum: Checksum, on_read: Callable[[int, int], None]
    ) -> FileSignature | None:
        """The signature with which a file had the right digest."""
        if source.signature.size != size:
            return None
        await self._context.threads.compute(wait_for_tick, os.fstat(source.descriptor))
        began_ns = time.time_ns()
        on_read(0, size)
        try:
            digest, signature = await self._local_files.digest_open(
                source.descriptor, source.path, checksum, lambda count: on_read(count, size)
            )
        except GrymFetchError as error:
            log.info("a file that might be the asset cannot be read: %s", error)
            return None
        is_right = digest == checksum.hexdigest and signature == source.signature and signature.was_settled(began_ns)
        return signature if is_right else None

    async def _put(
        self,
        key: StageKey,
        source: OpenFile,
        signature: FileSignature,
        modes: Sequence[LinkMode],
        *,
        judge: Checksum | None,
        exclusive: bool,
    ) -> Taken | None:
        """Take the source and put it in place. ``judge``: read what was made of it; it must have this checksum."""
        stage = await self._assets_folder.open_stage(key, exclusive=exclusive)
        try:
            link = await stage.take(source, signature, modes)
            sums = None
            if judge is not None and link is not LinkMode.HARDLINK:
                content = ContentHasher(judge.new_hasher(), signature.size)
                await stage.feed(0, signature.size, content.update)
                if content.whole.hexdigest() != judge.hexdigest:
                    reason = "somebody else changed this file while it was taken"
                    raise ReplacedMeanwhile(safe_text(str(source.path)), reason)
                sums = content.sums
            path = await stage.publish(signature.size)
            assert stage.published is not None
            if judge is not None and sums is not None:
                self._local_files.piece_sums.record(judge, signature.size, sums)
            return Taken(path, source.path, link, stage.published)
        except DiskFull:
            raise
        except StorageError as error:
            log.warning("a file that is on this machine could not be taken, and is fetched: %s", error)
            return None
        finally:
            await stage.close()


def _opened(path: Path) -> OpenFile:
    return OpenFile.opened(path, follow=True)

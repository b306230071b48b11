"""Adds entries: each is written once its file is in place and measured, or at once if its checksum is known.

Rules: of several entries, all are added or none. A file that is in the way is not overwritten; it is used if it is what
the hub states.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import DigestMismatch, GrymFetchError, Problem, SyncFailed, UnsafePath
from grym_fetch.core.events import AssetReused, Event, LinkMode, RunFinished, RunStarted
from grym_fetch.core.manifest import Asset, ManifestSource
from grym_fetch.core.manifest_parser import ParsedManifest
from grym_fetch.core.text import safe_text
from grym_fetch.core.world import Clock
from grym_fetch.disk.folders import is_taken, storage_errors
from grym_fetch.disk.local_files import HASH_BLOCK_BYTES
from grym_fetch.disk.stage import StageKey
from grym_fetch.disk.verified import FileSignature
from grym_fetch.engine.engine import Engine
from grym_fetch.manifest_files.project import Project
from grym_fetch.project.entries import Entries, where
from grym_fetch.project.measuring import Measured, Measurer, changed_meanwhile, refuse_bare_http
from grym_fetch.runtime import system
from grym_fetch.runtime.threads import WorkerThreads
from grym_fetch.sources.git_lfs import SCHEME as GIT_LFS
from grym_fetch.sources.git_lfs import pointed_at
from grym_fetch.sources.registry import scheme_of


class Adder:
    """Adds assets to the manifest of one project."""

    def __init__(
        self,
        project: Project,
        *,
        engine: Engine,
        entries: Entries,
        measurer: Measurer,
        threads: WorkerThreads,
        clock: Clock,
        emit: Callable[[Event], None],
    ) -> None:
        self._root = project.assets_dir
        self._engine = engine
        self._entries = entries
        self._measurer = measurer
        self._threads = threads
        self._clock = clock
        self._emit = emit

    async def add_asset(
        self,
        manifest: ManifestSource,
        asset: Asset,
        *,
        fetch: bool,
        file: Path | None,
        pieces: bool = False,
        allow_suspicious: bool = False,
        before_fetch: Callable[[], Awaitable[None]],
    ) -> ParsedManifest[ManifestSource]:
        """Append an entry, measured if it is fetched or taken from ``file``; return the new manifest.

        ``pieces``: with the digests of the pieces, if it was measured. A git-lfs pointer stands for its content, which
        is neither fetched nor copied.

        Raises `EditRefused` if it cannot be added; then nothing was fetched.
        """
        if file is not None and scheme_of(asset.url) == GIT_LFS:
            asset = await self._in_repository(asset, file)
        self._entries.check_new(manifest, asset)
        if file is not None and not allow_suspicious and (there := await self._measurer.pointed_at(file)) is not None:
            asset = self._as_pointed_at(asset, *there)
        elif file is not None:
            if not allow_suspicious:
                await self._measurer.refuse_suspicious(asset, file)
            asset = await self._take_in(asset, file)
        elif fetch:
            await before_fetch()
            asset = await self._fetch(asset, allow_suspicious=allow_suspicious)
        place = self._root / asset.local_path
        if pieces and asset.checksum is not None and asset.size is not None and is_taken(place):
            asset = replace(asset, pieces=await self._measurer.pieces(place, asset.checksum, asset.size))
        return await self._added(asset)

    async def add_found(
        self,
        manifest: ManifestSource,
        assets: Sequence[Asset],
        *,
        allow_suspicious: bool,
        before_fetch: Callable[[], Awaitable[None]],
    ) -> ParsedManifest[ManifestSource]:
        """Append an entry for each of these, all or none. Those without a checksum are fetched first.

        Raises `EditRefused` if one cannot be added (nothing was fetched then). If one could not be fetched, raises the
        error itself if it is the only asset, else `SyncFailed`.
        """
        self._entries.check_new(manifest, *assets)
        if to_fetch := [asset for asset in assets if not asset.pinned]:
            await before_fetch()
            measured = await self.fetch_all(to_fetch, allow_suspicious=allow_suspicious)
            assets = [measured.get(asset.id, asset) for asset in assets]
        return await self._added(*assets)

    async def _added(self, *assets: Asset) -> ParsedManifest[ManifestSource]:
        parsed = await self._entries.add(*assets)
        await self._measurer.keep(assets)
        return parsed

    # -- downloads --------------------------------------------------------------------------------------------------

    async def _fetch(self, asset: Asset, *, allow_suspicious: bool) -> Asset:
        """Download a new asset into its place, and return it with its checksum and size.

        Raises `EditRefused` if a file is there already, since it may be another one; also if the download is plainly
        not an asset, and then deletes it.
        """
        self._refuse_taken(asset)
        refuse_bare_http(asset)
        return await self._measurer.fetch_new(asset, allow_suspicious=allow_suspicious)

    async def fetch_all(self, assets: Sequence[Asset], *, allow_suspicious: bool) -> dict[str, Asset]:
        """Download these into place; return them with their checksums, by id."""
        began = self._clock.monotonic()
        measured: dict[str, Asset] = {}
        failed: dict[str, GrymFetchError] = {}
        reused = 0
        queue = iter(assets)
        self._emit(RunStarted(assets=len(assets), bytes=sum(asset.size or 0 for asset in assets)))

        async def fetch_some() -> None:
            nonlocal reused
            for asset in queue:
                try:
                    there = await self._there_already(asset)
                    reused += there is not None
                    measured[asset.id] = there or await self._measurer.fetch_new(
                        asset, allow_suspicious=allow_suspicious
                    )
                except GrymFetchError as error:
                    failed[asset.id] = error

        received = self._measurer.received
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._engine.max_active_assets, len(assets))):
                    group.create_task(fetch_some())
        finally:
            self._emit(
                RunFinished(
                    verified=sum(each.stated is not None for each in measured.values()) - reused,
                    unverified=sum(each.stated is None for each in measured.values()),
                    reused=reused,
                    failed=len(failed),
                    downloaded_bytes=self._measurer.received - received,
                    seconds=round(self._clock.monotonic() - began, 3),
                )
            )
        if failed:
            raise next(iter(failed.values())) if len(assets) == 1 else SyncFailed(failed)
        return measured

    async def _there_already(self, asset: Asset) -> Asset | None:
        """The asset as it is in place, if it is what the hub states. Raises `EditRefused` for any other file."""
        place = self._root / asset.local_path
        try:
            if asset.stated is not None and place.is_file() and await self._measurer.has_stated(place, asset):
                found = await self._measurer.measure(asset, place)
                self._measurer.note_verified(place, found.checksum, found.signature)
                self._emit(AssetReused(asset=asset.id, path=str(place)))
                return replace(asset, checksum=found.checksum, size=found.size)
            self._refuse_taken(asset)
            refuse_bare_http(asset)
        except GrymFetchError as error:
            self._measurer.tell_failed(asset, error)
            raise
        return None

    def _refuse_taken(self, asset: Asset) -> None:
        place = self._root / asset.local_path
        if is_taken(place):
            shown = safe_text(str(place), limit=1000)
            reason = (
                f"there is a file already at {shown}. If it is this asset, add the file itself and name its address "
                "with --url; otherwise choose another place with --local-path"
            )
            raise self._entries.refused(Problem(where(asset), "localPath", reason))

    async def _in_repository(self, asset: Asset, pointer: Path) -> Asset:
        """The asset at the address of its content. Raises `EditRefused` if the file is not a pointer."""
        if (there := await self._measurer.pointed_at(pointer)) is None:
            reason = "is a repository with Git LFS, and the file is not a pointer: name the address of the content"
            raise self._entries.refused(Problem(where(asset), "url", reason))
        checksum, size = there
        return replace(asset, url=pointed_at(asset.url, checksum.hexdigest, size))

    @staticmethod
    def _as_pointed_at(asset: Asset, checksum: Checksum, size: int) -> Asset:
        """The asset with what a pointer says of it. Raises `DigestMismatch` if it already has another checksum."""
        if asset.checksum not in (None, checksum):
            raise DigestMismatch(asset.id, str(asset.checksum), str(checksum))
        return replace(asset, checksum=checksum, size=size)

    # -- files ------------------------------------------------------------------------------------------------------

    async def _take_in(self, asset: Asset, file: Path) -> Asset:
        """Measure a file, copy it into the asset's place if it is not there, and return the asset as measured.

        Raises `DigestMismatch` if the asset already has another checksum, `UnsafePath` if another file is in its place.
        """
        measured = await self._measurer.measure(asset, file)
        place = self._root / asset.local_path
        if asset.checksum is not None and asset.checksum != measured.checksum:
            raise DigestMismatch(asset.id, str(asset.checksum), str(measured.checksum))
        if asset.stated is not None:
            actual = await self._measurer.stated_digest(file, asset.stated)
            if actual != asset.stated.hexdigest:
                raise DigestMismatch(asset.id, str(asset.stated), f"{asset.stated.kind}:{actual}")
        if is_taken(place):
            there = None
            if place.is_file():
                there = measured if place.samefile(file) else await self._measurer.measure(asset, place)
            if there is None or there.checksum != measured.checksum:
                reason = "another file is there already; move it away, or choose another place with --local-path"
                raise UnsafePath(safe_text(str(place)), reason)
            signature, source, link = there.signature, None, None
        else:
            source, link = safe_text(str(file)), LinkMode.COPY
            signature = await self._copy(file, StageKey(asset.local_path, f"copy of {measured.checksum}"), measured)
        self._measurer.note_verified(place, measured.checksum, signature)
        unverified = None if asset.pinned or asset.stated is not None else True
        self._emit(AssetReused(asset=asset.id, path=str(place), unverified=unverified, taken_from=source, link=link))
        return replace(asset, checksum=measured.checksum, size=measured.size)

    async def _copy(self, file: Path, key: StageKey, measured: Measured) -> FileSignature:
        """Copy a file into the assets folder in the way of a download: flushed, then renamed."""
        folder = self._engine.assets_folder
        await folder.check_destination(key.local_path)
        await folder.prepare()
        stage = await folder.open_stage(key, exclusive=False)
        try:
            hasher, at = measured.checksum.new_hasher(), 0
            await stage.note_size(measured.size)
            with storage_errors(file):
                descriptor = system.open_descriptor(file, os.O_RDONLY)
            try:
                while block := await self._threads.compute(_read_at, file, descriptor, at):
                    hasher.update(block)
                    await stage.write(at, block, 0)
                    at += len(block)
            finally:
                os.close(descriptor)
            if hasher.hexdigest() != measured.checksum.hexdigest:
                raise changed_meanwhile(file)
            await stage.publish(measured.size)
            assert stage.published is not None, "what is published has a signature"
            return stage.published
        except BaseException:
            await stage.discard()
            raise


def _read_at(file: Path, descriptor: int, at: int) -> bytes:
    with storage_errors(file):
        return system.pread(descriptor, HASH_BLOCK_BYTES, at)

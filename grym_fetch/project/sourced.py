"""Changes to the manifest that ask a hub: what is added from a short address.

Rules: everything that an address leads to is added, or nothing. What the hub states no SHA-256 of is fetched first, and
held to what the hub does state; the rest is listed as it is, and fetched when it is needed. A file that is in its place
already is taken if it is what the hub states.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from grym_fetch.core.digest import Hasher
from grym_fetch.core.errors import EditRefused, GrymFetchError, Problem, SyncFailed, UnknownSource
from grym_fetch.core.events import AssetFailed, AssetReused, Event, RunFinished, RunStarted
from grym_fetch.core.manifest import Asset, Manifest
from grym_fetch.core.manifest_parser import ParsedManifest
from grym_fetch.core.text import safe_text
from grym_fetch.core.world import Clock
from grym_fetch.disk.folders import storage_errors
from grym_fetch.disk.local_files import HASH_BLOCK_BYTES
from grym_fetch.disk.project import Project
from grym_fetch.engine.engine import Engine
from grym_fetch.project.editing import Editor, refuse_bare_http
from grym_fetch.settings import Settings
from grym_fetch.sources.naming import Naming, as_assets
from grym_fetch.sources.registry import recognize, resolve, source_of
from grym_fetch.sources.web import HubWeb


class SourcedEditor(Editor):
    """An `Editor` that also asks hubs, as ``settings`` and ``environ`` say."""

    def __init__(
        self,
        project: Project,
        *,
        engine: Engine,
        lenient_engine: Callable[[], Engine],
        clock: Clock,
        emit: Callable[[Event], None],
        settings: Settings,
        environ: Mapping[str, str],
    ) -> None:
        super().__init__(project, engine=engine, lenient_engine=lenient_engine, clock=clock, emit=emit)
        self._settings = settings
        self._environ = environ

    @asynccontextmanager
    async def _asking(self, hub: str) -> AsyncIterator[HubWeb]:
        connection = self._engine.connection()
        try:
            yield HubWeb(
                hub,
                connection=connection,
                requester=self._engine.requester,
                clock=self._clock,
                environ=self._environ,
                retries=self._settings.retries,
                offline=self._settings.offline,
            )
        finally:
            await connection.aclose()

    async def find(self, address: str, naming: Naming) -> list[Asset]:
        """Ask what a short address leads to, and name it. Raises `UnknownSource`, `SourceFailed` or `EditRefused`."""
        short = recognize(address, self._environ)
        if short is None:
            raise UnknownSource(address, "is not a short address, and not the page of a file on a hub that is known")
        async with self._asking(source_of(short).hub) as web:
            found = await resolve(short, web)
        try:
            return as_assets(found, naming)
        except ValueError as error:
            raise EditRefused(self._source, [Problem(safe_text(short), "", safe_text(str(error)))]) from None

    async def add_found(
        self,
        manifest: Manifest,
        assets: Sequence[Asset],
        *,
        allow_suspicious: bool,
        before_fetch: Callable[[], Awaitable[None]],
    ) -> ParsedManifest:
        """Append an entry for each of these, those without a checksum once they are fetched; all of them or none.

        Raises `EditRefused` if one cannot be added (nothing was fetched then), or why one could not be fetched: the
        error itself if it is the only asset, else `SyncFailed`.
        """
        self.check_new(manifest, *assets)
        if to_fetch := [asset for asset in assets if not asset.pinned]:
            await before_fetch()
            measured = await self._fetch_all(to_fetch, allow_suspicious=allow_suspicious)
            assets = [measured.get(asset.id, asset) for asset in assets]
        return await self._add(*assets)

    async def _fetch_all(self, assets: Sequence[Asset], *, allow_suspicious: bool) -> dict[str, Asset]:
        """Bring these into their places; return them with their checksums, by id."""
        began = self._clock.monotonic()
        measured: dict[str, Asset] = {}
        failed: dict[str, GrymFetchError] = {}
        reused = 0
        queue = iter(assets)
        self._emit(RunStarted(assets=len(assets), bytes=sum(asset.size or 0 for asset in assets)))

        async def fetch_some(engine: Engine) -> None:
            nonlocal reused
            for asset in queue:
                try:
                    there = await self._there_already(asset)
                    reused += there is not None
                    measured[asset.id] = there or await self._fetch_new(
                        engine, asset, allow_suspicious=allow_suspicious
                    )
                except GrymFetchError as error:
                    failed[asset.id] = error

        received = 0
        try:
            async with self._fetching() as engine:
                workers = min(self._engine.max_active_assets, len(assets))
                async with asyncio.TaskGroup() as group:
                    for _ in range(workers):
                        group.create_task(fetch_some(engine))
                received = engine.received
        finally:
            self._emit(
                RunFinished(
                    verified=sum(each.stated is not None for each in measured.values()) - reused,
                    unverified=sum(each.stated is None for each in measured.values()),
                    reused=reused,
                    failed=len(failed),
                    downloaded_bytes=received,
                    seconds=round(self._clock.monotonic() - began, 3),
                )
            )
        if failed:
            raise next(iter(failed.values())) if len(assets) == 1 else SyncFailed(failed)
        return measured

    async def _has_stated(self, path: Path, asset: Asset) -> bool:
        """Whether a file has the digest that the hub states."""
        assert asset.stated is not None, "asked only where there is one"
        hasher = asset.stated.new_hasher()
        await self._threads.compute(_hash_file, path, hasher)
        return hasher.hexdigest() == asset.stated.hexdigest

    async def _there_already(self, asset: Asset) -> Asset | None:
        """The asset as it is in its place, if it has what the hub states. Raises `EditRefused` for any other file."""
        place = self._project.assets_dir / asset.local_path
        try:
            if asset.stated is not None and place.is_file() and await self._has_stated(place, asset):
                found = await self._measure(asset, place)
                self._note_verified(place, found.checksum, found.signature)
                self._emit(AssetReused(asset=asset.id, path=str(place)))
                return replace(asset, checksum=found.checksum, size=found.size)
            self._refuse_taken(asset)
            refuse_bare_http(asset)
        except GrymFetchError as error:
            error.asset_id = error.asset_id or asset.id
            self._emit(AssetFailed(asset=asset.id, error=type(error).__name__, message=str(error)))
            raise
        return None


def _hash_file(path: Path, hasher: Hasher) -> None:
    with storage_errors(path), open(path, "rb") as file:
        while block := file.read(HASH_BLOCK_BYTES):
            hasher.update(block)

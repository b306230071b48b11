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

from grym_fetch.core.errors import EditRefused, GrymFetchError, Problem, SourceFailed, SyncFailed, UnknownSource
from grym_fetch.core.events import AssetFailed, AssetReused, Event, RunFinished, RunStarted
from grym_fetch.core.manifest import Asset, Manifest
from grym_fetch.core.manifest_parser import ParsedManifest
from grym_fetch.core.text import redact_url, safe_text
from grym_fetch.core.world import Clock
from grym_fetch.disk.folders import storage_errors
from grym_fetch.disk.project import Project
from grym_fetch.engine.engine import Engine
from grym_fetch.project.editing import Editor, refuse_bare_http
from grym_fetch.settings import Settings
from grym_fetch.sources.choice import unquoted
from grym_fetch.sources.listings import MAX_LIST_BYTES, digest_for, read_list
from grym_fetch.sources.naming import Naming, as_assets, listed_assets
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

    async def read_list(self, file: Path, format_name: str | None, naming: Naming, base_url: str | None) -> list[Asset]:
        """Read what another tool has listed. Raises `EditRefused` for what is no such list, or `StorageError`."""
        try:
            data = await self._threads.compute(_read_bounded, file)
            return listed_assets(read_list(data, file.name, format_name), naming, base_url)
        except ValueError as error:
            shown = safe_text(str(file), limit=1000)
            raise EditRefused(self._source, [Problem(shown, "", safe_text(str(error), limit=1000))]) from None

    async def with_digest_from(self, address: str, asset: Asset) -> Asset:
        """Return the asset with the digest that a list of checksums at an address has for it.

        Raises `SourceFailed`, `UnknownSource` if the file is not in the list, `EditRefused` if its checksum is another.
        """
        name = unquoted(asset.url.partition("?")[0].rpartition("/")[2])
        async with self._asking("the list of checksums") as web:
            page = await web.get(address)
        if page.status != 200:
            raise SourceFailed(page.url, "the list of checksums", page.refusal)
        try:
            found = digest_for(name, page.body, redact_url(address))
        except ValueError as error:
            raise SourceFailed(page.url, "the list of checksums", safe_text(str(error))) from None
        if asset.checksum is not None and found.checksum not in (None, asset.checksum):
            problem = Problem(f"asset '{safe_text(asset.id)}'", "checksum", "is another one than the list has")
            raise EditRefused(self._source, [problem])
        return replace(asset, checksum=asset.checksum or found.checksum, stated=found.stated)

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
        return await self._stated_digest(path, asset.stated) == asset.stated.hexdigest

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


def _read_bounded(path: Path) -> bytes:
    with storage_errors(path), open(path, "rb") as file:
        return file.read(MAX_LIST_BYTES + 1)

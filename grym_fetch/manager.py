"""`AssetManager`: the public API. Knows the project and its manifest; who asks for what is the coordinator's.

Rule: everything is started on first use, so that making a manager costs nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from grym_fetch._version import __version__
from grym_fetch.core.errors import StaleManifest
from grym_fetch.core.events import Event
from grym_fetch.core.freshness import version_number, why_stale
from grym_fetch.core.manifest import Asset, Manifest
from grym_fetch.core.manifest_parser import ParsedManifest
from grym_fetch.core.text import safe_text
from grym_fetch.disk.project import Project, find_project, load_manifest, read_manifest
from grym_fetch.disk.rollback import RollbackGuard
from grym_fetch.engine.coordinator import Coordinator
from grym_fetch.engine.engine import Engine
from grym_fetch.engine.reports import AssetProgress, AssetStatus, ProgressTracker, SyncPlan, SyncReport
from grym_fetch.runtime.bus import EventBus, Subscription, is_coroutine_callable
from grym_fetch.runtime.clock import SystemClock
from grym_fetch.settings import Settings

if TYPE_CHECKING:
    # What fetches and what edits is imported when it is needed: see the engine.
    from grym_fetch.core.world import Clock
    from grym_fetch.disk.prune import PruneReport
    from grym_fetch.project.editing import Editor, PinReport

log = logging.getLogger(__name__)


class AssetManager:
    """Makes the assets of a manifest present and verified.

    Use it as an async context manager, or call `initialize` and `aclose`. All arguments are optional: without
    ``config`` the manifest is found as the command line finds it. Sizes are in bytes, times in seconds.

    Args:
        config: path of the manifest.
        assets_dir: where downloads go; default ``assets`` beside the manifest.
        external_assets_dir: where files are looked for too; default ``../assets``.
        parallel: the most connections open at once, over all assets.
        minimal: use the small stand-ins of assets that have one.
        allow_stale: also use a manifest that has expired, or is older than the one used before.
        settings: any other choice, see `Settings`; ``parallel`` and ``allow_stale`` above win if given.
        environ, clock: for tests; default the process's environment and the system's clock.

    Raises `ValueError` for a value that makes no sense, naming it and what is allowed.
    """

    settings: Settings
    """What was chosen about how assets are fetched."""
    minimal: bool
    """Whether the small stand-ins are used of assets that have one."""
    warnings: tuple[str, ...]
    """Warnings about the manifest, once it was read."""

    def __init__(
        self,
        config: str | Path | None = None,
        *,
        assets_dir: str | Path | None = None,
        external_assets_dir: str | Path | None = None,
        parallel: int | None = None,
        minimal: bool | None = None,
        allow_stale: bool | None = None,
        settings: Settings | None = None,
        environ: Mapping[str, str] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._environ = dict(os.environ if environ is None else environ)
        self._clock: Clock = clock or SystemClock()
        self._places = (config, assets_dir, external_assets_dir)
        base = settings or Settings()
        base = base if parallel is None else replace(base, parallel=parallel)
        self.settings = base if allow_stale is None else replace(base, allow_stale=allow_stale)
        self.minimal = _is_true(self._environ.get("GRYM_FETCH_MINIMAL")) if minimal is None else minimal
        self.warnings = ()
        self._bus = EventBus(self._clock.wall)
        self._project: Project | None = None
        self._manifest: Manifest | None = None
        self._warned = False
        self._remembered: Manifest | None = None
        """The manifest whose version was noted as seen."""
        self._coordinator: Coordinator | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    # -- life -------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.initialize()
        return self

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        if isinstance(error, asyncio.CancelledError):
            self._bus.hurry()
        await self.aclose()

    async def initialize(self) -> None:
        """Find and read the manifest. Raises `ManifestError`. Idempotent; every other method does it when needed."""
        if self._manifest is None:
            parsed = await read_manifest(self.project.manifest_path)
            self._manifest, self.warnings = parsed.manifest, parsed.warnings
        self._ready()

    async def aclose(self) -> None:
        """End downloads under way (what has arrived is kept), close connections, end event streams.

        Callbacks get what they have not had yet; one that takes longer than 2 s for a single event is given up.
        """
        try:
            await self._close_coordinator()
        finally:
            await self._bus.aclose()
            await self._close_coordinator()  # what a callback has asked for meanwhile

    async def _close_coordinator(self) -> None:
        coordinator, self._coordinator = self._coordinator, None
        if coordinator is not None:
            await coordinator.aclose()

    @property
    def project(self) -> Project:
        """Where the manifest and the files are. Raises `ManifestError` if there is no manifest."""
        if self._project is None:
            config, assets_dir, external = self._places
            self._project = find_project(
                config=config,
                assets_dir=assets_dir,
                external_assets_dir=external,
                environ=self._environ,
                cwd=Path.cwd(),
            )
        return self._project

    @property
    def manifest(self) -> Manifest:
        """The manifest, read on first use. Raises `ManifestError`."""
        if self._manifest is None:
            parsed = load_manifest(self.project.manifest_path)
            self._manifest, self.warnings = parsed.manifest, parsed.warnings
        return self._manifest

    def _ready(self) -> Coordinator:
        """The running loop's coordinator. A manager that outlives its loop (`asyncio.run` twice) gets a new one."""
        loop = asyncio.get_running_loop()
        if self._coordinator is None or self._loop is not loop:
            _ = self.manifest
            if self._bus.is_closed:
                self._bus = EventBus(self._clock.wall)
            self._coordinator = Coordinator(
                self._make_engine(self.settings),
                self._bus,
                self._clock,
                assets_dir=self.project.assets_dir,
                offline=self.settings.offline,
            )
            self._loop = loop
        return self._coordinator

    def _make_engine(self, settings: Settings) -> Engine:
        return Engine(
            self.project,
            settings,
            clock=self._clock,
            emit=self._bus.emit,
            environ=self._environ,
            version=__version__,
        )

    def _asset(self, asset_id: str) -> Asset:
        asset = self.manifest.get(asset_id)
        return asset.stand_in() if self.minimal else asset

    def why_stale(self) -> str | None:
        """Say why the manifest is not to be used any more, None if it is: see ``expires`` and ``version`` in it."""
        seen = RollbackGuard(self.project.assets_dir, self.project.manifest_path).read()
        return why_stale(self.manifest.version, self.manifest.expires, now=self._clock.wall(), last_seen=seen)

    def _refuse_stale(self) -> None:
        if (why := self.why_stale()) is not None:
            source = safe_text(str(self.project.manifest_path))
            if not self.settings.allow_stale:
                raise StaleManifest(source, why)
            if not self._warned:
                self._warned = True
                log.warning("%s %s; it is used because that is allowed", source, why)

    async def _accept(self) -> None:
        """Raise `StaleManifest` if the manifest may not be used; else remember its version as seen."""
        self._refuse_stale()
        if self._remembered is not self.manifest:
            self._remembered = self.manifest
            version = self.manifest.version if version_number(self.manifest.version) is not None else None
            seen = RollbackGuard(self.project.assets_dir, self.project.manifest_path)
            if version != seen.read():
                await asyncio.to_thread(seen.write, version)

    # -- single assets ----------------------------------------------------------------------------------------------

    async def get_asset_path(self, asset_id: str) -> Path:
        """Return the asset's path, downloading it first if it is not there and valid.

        Raises `UnknownAsset`, `UnpinnedAsset`, or what `download_asset` raises.
        """
        coordinator = self._ready()
        await self._accept()
        asset = self._asset(asset_id)
        # An unpacked tree takes looking at each of its files, which the delivery does in a thread.
        if not asset.extract and (path := coordinator.engine.local_files.find_verified(asset)) is not None:
            return path
        return (await coordinator.order(asset)).path

    async def download_asset(self, asset_id: str, force: bool = False) -> Path:
        """Make the asset present and verified, and return its path. ``force``: fetch it again even if it is valid.

        Raises `MirrorsExhausted`, `IntegrityError` or `StorageError`; what has arrived is kept for the next call.
        Raises `UnknownAsset`, `UnpinnedAsset`, `AssetMissing` if it is not there and nothing may be fetched, and
        `StaleManifest` if the manifest is not to be used any more.
        """
        coordinator = self._ready()
        await self._accept()
        return (await coordinator.order(self._asset(asset_id), force=force)).path

    async def check_asset(self, asset_id: str, *, full: bool = False) -> AssetStatus:
        """Say whether the asset is there and valid; fetches nothing. ``full`` reads every byte again.

        Raises `UnknownAsset`.
        """
        return await self._check(self._asset(asset_id), full=full)

    async def check_all_assets(self, *, full: bool = False) -> list[AssetStatus]:
        """`check_asset` for every asset, in the manifest's order."""
        self._ready()
        return [await self.check_asset(asset.id, full=full) for asset in self.manifest.assets]

    async def _check(self, asset: Asset, *, full: bool) -> AssetStatus:
        engine = self._ready().engine
        found = await engine.local_files.find(asset, full=full, on_hashing=lambda _: None)
        missing = "missing" if found is None else ""
        if found is not None and found.error is None and asset.extract:
            missing = "" if await asyncio.to_thread(engine.is_unpacked, asset, found.path) else "not unpacked"
        if found is None or missing:
            path = self.project.assets_dir / asset.local_path if found is None else found.path
            return AssetStatus(
                asset.id, exists=False, valid=False, path=path, error=missing, is_stand_in=asset.is_stand_in
            )
        return AssetStatus(
            asset.id,
            exists=True,
            valid=found.verified,
            path=found.path,
            error=found.error,
            unverified=found.error is None and not found.verified,
            is_stand_in=asset.is_stand_in,
        )

    def state_of(self, asset: Asset) -> str:
        """How the asset stands, without reading a file: ``verified``, ``present``, ``partial`` or ``missing``.

        ``present`` is a file of the right size that was not verified yet, ``partial`` also an archive that is not
        unpacked. Needs a running loop.
        """
        engine = self._ready().engine
        if (path := engine.local_files.find_verified(asset)) is not None:
            return "verified" if not asset.extract or engine.is_unpacked(asset, path) else "partial"
        if engine.local_files.is_there(asset):
            return "present"
        return "partial" if engine.fetcher.staged_bytes(asset) else "missing"

    # -- many assets ------------------------------------------------------------------------------------------------

    async def download_required_assets(self) -> SyncReport:
        """`sync` of every asset that is required."""
        return await self.sync()

    def choose(
        self,
        ids: Collection[str] | None = None,
        tags: Collection[str] | None = None,
        all: bool = False,  # noqa: A002 - the word of the command line and of the contract
        minimal: bool = False,
    ) -> tuple[Asset, ...]:
        """Return the assets that `sync` would take, in the manifest's order. Raises `UnknownAsset`."""
        return self.manifest.select(ids or (), tags or (), all=all, minimal=minimal or self.minimal)

    async def plan(self, assets: Collection[Asset], *, force: bool = False) -> SyncPlan:
        """Say what fetching these assets would take. Reads no file's bytes: one of the right size counts as present.

        Raises `StaleManifest`.
        """
        coordinator = self._ready()
        self._refuse_stale()
        return await coordinator.plan(assets, force=force)

    async def sync(
        self,
        ids: Collection[str] | None = None,
        tags: Collection[str] | None = None,
        all: bool = False,  # noqa: A002 - the word of the command line and of the contract
        minimal: bool = False,
        force: bool = False,
    ) -> SyncReport:
        """Make the chosen assets present and verified; without a choice, all required ones.

        Raises `SyncFailed` if any of them failed (the others are there then), `UnknownAsset` or `StaleManifest`.
        If they would not all fit on the disk nothing is fetched: each fails with one `DiskFull`, the group's cause.
        """
        return await self.sync_assets(self.choose(ids, tags, all, minimal), force=force)

    async def sync_assets(self, assets: Collection[Asset], *, force: bool = False) -> SyncReport:
        """`sync` for assets already chosen."""
        coordinator = self._ready()
        await self._accept()
        return await coordinator.sync(assets, force=force)

    async def restore_asset(self, path: str | Path, *, force: bool = False) -> Path:
        """Bring back a file that ``grym-fetch clean`` has moved out of the repository, and return its path.

        ``path`` is the file's own, its placeholder's, or its id. The file comes from the external folder, else by
        download if an asset has its checksum. ``force``: also in the place of a file with other content.

        Raises `Refused` if nothing was moved that goes by this name, `AssetMissing`, `IntegrityError`, `StorageError`,
        or what `download_asset` raises.
        """
        from grym_fetch.repo.restore import Restorer, fetch_from
        from grym_fetch.repo.tree import find_root

        async def get(asset: Asset) -> Path:
            await self._accept()
            return (await self._ready().order(asset)).path

        root = find_root(self.project.root, self.project.root)
        restorer = Restorer(root, self.project.external_dir, fetch_from(self.manifest.assets, get))
        return (await restorer.restore(restorer.find_one(str(path), Path.cwd()), force=force)).path

    # -- the manifest itself ----------------------------------------------------------------------------------------

    async def add_asset(self, asset: Asset, *, fetch: bool = False, file: Path | None = None) -> Asset:
        """Append an asset to the manifest and return it as it is listed now.

        ``fetch``: download it into its place first, and list the checksum and size found. ``file``: take these from
        this file, and copy it into the asset's place if it is not there.

        Raises `ManifestError` if the id or place is taken or something is wrong with the asset (nothing was fetched
        then), `PolicyRefused` for a plain http address, `DigestMismatch` or `UnsafePath` if ``file`` is not what the
        asset says or another one is in its place, or what `download_asset` raises.
        """
        await self.initialize()
        with self._editor() as editor:
            editor.check_new(self.manifest, asset)
            if file is not None:
                asset = await editor.take_in(asset, file)
            elif fetch:
                await self._accept()
                asset = await editor.fetch(asset)
            self._take(await editor.add(asset))
        await self._bus.settle()
        return self.manifest.get(asset.id)

    async def remove_asset(self, asset_id: str, *, delete_file: bool = False) -> tuple[Path, ...]:
        """Drop an asset from the manifest, with ``delete_file`` also its file and that of its stand-in.

        Only files in the assets folder are deleted; returns which. Raises `UnknownAsset`.
        """
        await self.initialize()
        asset = self.manifest.get(asset_id)
        with self._editor() as editor:
            self._take(await editor.remove(asset_id))
            return await editor.delete_files(asset) if delete_file else ()

    async def pin(self, ids: Collection[str] | None = None) -> PinReport:
        """Write checksums and sizes into the manifest: of these assets, or of all that have no checksum.

        A file that is there is hashed, one that is not is fetched; stand-ins without a checksum are pinned as well,
        and with ``minimal`` only they. An asset named here that lacks nothing but its size gets that.

        Raises `SyncFailed` if any of them failed (the others are pinned then), `UnknownAsset` or `StaleManifest`.
        """
        await self.initialize()
        chosen = self.manifest.assets if ids is None else [self.manifest.get(each) for each in dict.fromkeys(ids)]
        each_kind = [
            kind
            for asset in chosen
            for kind in dict.fromkeys((asset, asset.stand_in()))
            if kind.is_stand_in or not self.minimal
        ]
        wanted = [asset for asset in each_kind if not asset.pinned or (ids is not None and asset.size is None)]
        await self._accept()
        if not wanted:
            from grym_fetch.project.editing import PinReport

            return PinReport((), {})
        with self._editor() as editor:
            try:
                return await editor.pin(
                    wanted, max_active_assets=self._ready().engine.max_active_assets, on_change=self._take
                )
            finally:
                await self._bus.settle()

    async def prune(self, *, dry_run: bool = False) -> PruneReport:
        """Remove abandoned downloads, unused lock files and stale cache entries; ``dry_run``: only say which.

        Nothing of a process that runs is touched. What an interrupted download has left is abandoned, too.
        """
        await self.initialize()
        with self._editor() as editor:
            return await editor.prune(self.manifest, dry_run=dry_run)

    def _editor(self) -> Editor:
        from grym_fetch.project.editing import Editor

        return Editor(
            self.project,
            engine=self._ready().engine,
            lenient_engine=lambda: self._make_engine(replace(self.settings, allow_unpinned=True)),
            clock=self._clock,
            emit=self._bus.emit,
        )

    def _take(self, parsed: ParsedManifest) -> None:
        self._manifest, self.warnings = parsed.manifest, parsed.warnings

    # -- listening --------------------------------------------------------------------------------------------------

    def events(self) -> Subscription:
        """Return a stream of every event from now on: an async context manager and async iterator."""
        return self._bus.subscribe()

    def on_event(self, callback: Callable[[Event], object]) -> Callable[[], None]:
        """Call ``callback`` with every event, as `on_progress` calls it. Returns a function that ends it."""
        return self._bus.call(callback)

    def on_progress(
        self, callback: Callable[[AssetProgress], object] | Callable[[AssetProgress], Awaitable[object]]
    ) -> Callable[[], None]:
        """Call ``callback`` whenever an asset makes progress. Returns a function that ends it. Needs a running loop.

        An async callback runs in the event loop, a sync one in a worker thread, one call at a time. A slow one misses
        intermediate progress and nothing else; one that raises is logged and called no more.
        """
        tracker = ProgressTracker()
        if is_coroutine_callable(callback):

            async def report_async(event: Event) -> None:
                if (progress := tracker.apply(event)) is not None:
                    await callback(progress)  # type: ignore[misc]  # an async callback returns an awaitable

            return self._bus.call(report_async)

        def report(event: Event) -> None:
            if (progress := tracker.apply(event)) is not None:
                callback(progress)

        return self._bus.call(report)


def _is_true(text: str | None) -> bool:
    return (text or "").strip().lower() in ("1", "true", "yes", "on")

"""`AssetManager`: the public API. It knows the project and its manifest, and delegates the work."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Mapping
from contextlib import AbstractContextManager, AsyncExitStack, aclosing, asynccontextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from grym_fetch._version import __version__
from grym_fetch.core.configuration import ASSETS_DIR, Configuration
from grym_fetch.core.errors import ConfigurationError, GrymFetchError, StorageError, SyncFailed
from grym_fetch.core.events import Event, RunStarted
from grym_fetch.core.manifest import Asset, AssetBatches, ManifestSource, as_stand_ins, in_batches, known_bytes
from grym_fetch.core.manifest_parser import ParsedManifest
from grym_fetch.core.validation import refuse_one_text
from grym_fetch.core.variables import said_in
from grym_fetch.disk.configuration import read_configuration
from grym_fetch.engine import adopting, checking, repairing
from grym_fetch.engine.coordinator import Coordinator
from grym_fetch.engine.engine import Engine
from grym_fetch.engine.protocol import AssetEngine
from grym_fetch.engine.reports import (
    Adopted,
    AdoptReport,
    AssetProgress,
    AssetState,
    AssetStatus,
    RepairReport,
    SyncPlan,
    SyncReport,
    progress_listener,
)
from grym_fetch.manifest_files.project import Project, find_project, load_manifest, read_manifest
from grym_fetch.project.choices import Choices
from grym_fetch.project.freshness import FreshnessCheck
from grym_fetch.runtime.bus import EventBus, Subscription
from grym_fetch.runtime.clock import SystemClock
from grym_fetch.runtime.loop_owner import LoopOwner
from grym_fetch.runtime.server import stopping
from grym_fetch.runtime.threads import WorkerThreads
from grym_fetch.settings import Settings

if TYPE_CHECKING:
    # The fetching and editing modules are imported only when needed: see the engine.
    from grym_fetch.core.world import Clock, ThreadPools, Transport
    from grym_fetch.disk.prune import PruneReport
    from grym_fetch.engine.reader import AssetReader
    from grym_fetch.project.editing import Editor
    from grym_fetch.project.pinning import Pinned, PinReport
    from grym_fetch.project.sourced import Sources
    from grym_fetch.project.updating import NewerVersion

R = TypeVar("R")


class AssetManager:
    """Downloads and verifies the assets of a manifest.

    Use it as an async context manager, or call `initialize` and `aclose`. All arguments are optional: without
    ``config``, the manifest is found as on the command line. Sizes are in bytes, times in seconds.

    A choice that neither an argument nor a named field of ``settings`` makes comes from the environment, as on the
    command line, or else from settings files.

    A manager works in the event loop where it is first used, until it is closed. Whatever checks, fetches or listens
    raises `RuntimeError` anywhere else, as does entering it a second time.

    Where a method takes ``ids`` and ``exclude``, these are ids and globs such as ``voice-*``. What it takes as
    ``on_…`` is called in the event loop, and if it raises, the call ends.

    Args:
        config: the manifest's path.
        assets_dir: where downloads go; default ``assets`` in the project's root.
        external_assets_dir: where else to look for files; default ``assets`` beside the project's root.
        parallel: the most connections open at once, across all assets.
        minimal: use the small stand-ins of assets that have one.
        allow_stale: also use a stale manifest: one that has expired, or may be older than the one used before.
        settings: all other choices, see `Settings`; ``parallel`` and ``allow_stale`` above override it.
        transport: another way to the network, see `grym_fetch.transport`. The manager owns it: `aclose` closes it.
        environ, clock: for tests; by default the process's environment and the system clock.

    Raises `ValueError` for a setting or a variable that makes no sense, naming it and what is allowed.
    """

    warnings: tuple[str, ...]
    """Warnings about the manifest, once it has been read."""

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
        transport: Transport | None = None,
        environ: Mapping[str, str] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._environ = dict(os.environ if environ is None else environ)
        self._clock: Clock = clock or SystemClock()
        self._transport = transport
        self._threads: ThreadPools = WorkerThreads
        self._places = (config, assets_dir, external_assets_dir)
        self._choices = Choices(
            settings or Settings(),
            parallel=parallel,
            allow_stale=allow_stale,
            minimal=minimal,
            environ=self._environ,
            configuration=self._read_configuration,
            root=self._find_root,
        )
        self.warnings = ()
        self._bus = EventBus(self._clock.wall)
        self._project: Project | None = None
        self._manifest: ManifestSource | None = None
        self._coordinator: Coordinator | None = None
        self._owner = LoopOwner()

    def _read_configuration(self) -> Configuration:
        """The choices made in files; if there is no usable project, only those in the user's own file."""
        root = self._find_root()
        return read_configuration(root, self._environ, is_named=root is not None and self.project.is_named)

    def _find_root(self) -> Path | None:
        """The project's root; None if there is no usable project."""
        try:
            return self.project.root
        except ConfigurationError:
            raise
        except GrymFetchError:  # reported by whatever needs the project
            return None

    @property
    def settings(self) -> Settings:
        """How assets are fetched. Raises `ConfigurationError` for a mistake in a settings file."""
        return self._choices.settings

    @property
    def minimal(self) -> bool:
        """Whether to use the small stand-ins of assets that have one."""
        return self._choices.minimal

    # -- life -------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._owner.check_not_entered()
        await self.initialize()
        self._owner.enter()
        return self

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        if isinstance(error, asyncio.CancelledError):
            self._bus.hurry()
        await self.aclose()

    async def initialize(self) -> None:
        """Find and read the manifest. Raises `ManifestError`, or what `project` raises. Idempotent."""
        self._owner.claim()
        if self._manifest is None:
            parsed = await read_manifest(self.project.manifest_path)
            self._manifest, self.warnings = parsed.manifest, parsed.warnings
        self._ready()

    async def aclose(self) -> None:
        """Stop downloads (what has arrived is kept), close connections, end event streams. Idempotent.

        Calls that wait for a download or a check are cancelled. Callbacks get their remaining events, unless they are
        slow. The manager cannot be used afterwards.
        """
        if self._owner.is_closed:
            return
        if not self._owner.is_used and self._transport is None:
            self._owner.close()  # nothing was started
            return
        self._owner.claim()
        async with AsyncExitStack() as stack:  # each of these runs, even if the one before fails
            if self._transport is not None:
                stack.push_async_callback(self._transport.aclose)
            stack.push_async_callback(self._close_coordinator)
            # Until now, callbacks handling their last events could ask for more.
            stack.callback(self._owner.close)
            stack.push_async_callback(self._bus.aclose)
            await self._close_coordinator()

    async def _close_coordinator(self) -> None:
        coordinator, self._coordinator = self._coordinator, None
        if coordinator is not None:
            await coordinator.aclose()

    @property
    def project(self) -> Project:
        """Where the manifest and the files are.

        Raises `ManifestError` if there is no manifest to use, `ConfigurationError` for a mistake in a settings file,
        `UnsafePath` for an assets folder that may not be used.
        """
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
    def manifest(self) -> ManifestSource:
        """The manifest, read on first use: a `Manifest`, or if it is very long, one that reads its assets again.

        Raises `ManifestError`, or what `project` raises.
        """
        if self._manifest is None:
            parsed = load_manifest(self.project.manifest_path)
            self._manifest, self.warnings = parsed.manifest, parsed.warnings
        return self._manifest

    def _ready(self) -> Coordinator:
        """The coordinator, created when first needed. Raises like `LoopOwner.claim`, or `ManifestError`."""
        self._owner.claim()
        if self._coordinator is None:
            _ = self.manifest
            self._coordinator = Coordinator(
                self._open_engine(),
                self._bus,
                self._clock,
                assets_dir=self.project.assets_dir,
                offline=self.settings.offline,
            )
        return self._coordinator

    def _open_engine(self) -> AssetEngine:
        """Return this manager's engine; a mock has a different one."""
        return Engine(
            self.project,
            self.settings,
            clock=self._clock,
            emit=self._bus.emit,
            environ=self._environ,
            version=__version__,
            transport=self._transport,
            threads=self._threads,
        )

    def _asset(self, asset_id: str) -> Asset:
        asset = self.manifest.get(asset_id)
        return asset.stand_in() if self.minimal else asset

    @cached_property
    def _freshness(self) -> FreshnessCheck:
        return FreshnessCheck(self.project, allow_stale=self.settings.allow_stale, now=self._clock.wall)

    def why_stale(self) -> str | None:
        """Say why the manifest is stale, by its ``expires`` and ``version``; None if it is not."""
        return self._freshness.why_stale(self.manifest)

    async def _accept(self) -> None:
        await self._freshness.accept(self.manifest)

    # -- single assets ----------------------------------------------------------------------------------------------

    async def get_asset_path(self, asset_id: str) -> Path:
        """Return the asset's path, downloading it first if need be.

        Raises `UnknownAsset`, `UnpinnedAsset`, or what else `download_asset` raises.
        """
        coordinator = self._ready()
        async with self._freshness.using(self.manifest):
            asset = self._asset(asset_id)
            # For an unpacked tree each file must be checked, which the fetcher does in a thread.
            if not asset.extract and (path := coordinator.engine.local_files.find_verified(asset)) is not None:
                return Path(path)
            return (await coordinator.fetch(asset)).path

    async def download_asset(self, asset_id: str, force: bool = False) -> Path:
        """Download and verify the asset if needed, and return its path. ``force``: fetch it again even if it is valid.

        Raises `MirrorsExhausted`, `IntegrityError` or `StorageError` if it fails; what has arrived is kept for the next
        call, unless it is wrong or cannot be resumed. Raises `UnknownAsset`, `UnpinnedAsset`, `PolicyRefused` for an
        asset without a checksum at a plain http address of another machine, `AssetMissing` if it is not there and
        nothing may be fetched, and `StaleManifest`.
        """
        coordinator = self._ready()
        async with self._freshness.using(self.manifest):
            return (await coordinator.fetch(self._asset(asset_id), force=force)).path

    def open_asset(self, asset_id: str, *, unverified_ok: bool = False, keep_downloading: bool = False) -> AssetReader:
        """Return the asset as a file to be read at once, even while it is being downloaded: an async context manager.

        Needs a running loop. An asset that is there and verified is read from its file. Otherwise its download begins,
        or is shared, and each read waits for its bytes. These are compared with the manifest's ``pieces`` before they
        are handed out. Without pieces or a checksum it cannot be opened, unless ``unverified_ok``: then what arrives is
        handed out, right or wrong (without a checksum, ``allow_unpinned`` is needed, too). A stand-in needs no pieces:
        it is read once it is there.

        When the reader closes, a download that nobody else waits for stops; what has arrived is kept.
        ``keep_downloading``: it goes on while the manager is open.

        Raises `UnknownAsset`, and `UnverifiedRead` when it is opened. Opening and reading raise what `download_asset`
        raises, and `AssetMissing` if the manager is closed meanwhile.
        """
        from grym_fetch.engine.reader import AssetReader

        return AssetReader(
            self._ready(),
            self._asset(asset_id),
            accept=self._accept,
            unverified_ok=unverified_ok,
            keep_downloading=keep_downloading,
        )

    async def repair_asset(self, asset_id: str, *, dry_run: bool = False) -> RepairReport:
        """Read the asset's file and fetch what is wrong of it; ``dry_run``: only say what that would cost.

        A file is replaced only by the right one, verified as a whole. Raises `AssetMissing` if no file is there, and
        what `download_asset` raises.
        """
        coordinator = self._ready()
        async with self._freshness.using(self.manifest):
            return await self._do(repairing.repair(coordinator, self._asset(asset_id), dry_run=dry_run))

    async def adopt_assets(
        self,
        places: Collection[str | Path] = (),
        *,
        ids: Collection[str] | None = None,
        exclude: Collection[str] = (),
        on_adopted: Callable[[Adopted], object] | None = None,
    ) -> AdoptReport:
        """Take what is on this machine already instead of downloading it: these assets, or all that are not in place.

        Looks in ``places`` (folders or files), and where ``grym-fetch adopt`` looks; the digest decides. Fetches
        nothing. ``on_adopted`` is called with each that was taken.

        Raises `SyncFailed` at the end if some failed, `UnknownAsset` or `StaleManifest`.
        """
        refuse_one_text(places=places)
        coordinator = self._ready()
        chosen = self.manifest.pick(ids, exclude=exclude)
        assets = [asset.stand_in() for asset in chosen] if self.minimal else list(chosen)
        async with self._freshness.using(self.manifest):
            folders = [Path(place) for place in places]
            return await self._do(adopting.adopt(coordinator.engine, assets, folders, on_adopted or (lambda _: None)))

    async def check_asset(self, asset_id: str, *, full: bool = False) -> AssetStatus:
        """Return whether the asset is there and valid; fetches nothing. ``full``: read also what was verified before.

        If a file is read, events report it; one that cannot be read raises `StorageError`. Raises `UnknownAsset`.
        """
        self._ready()
        return await self._do(self._check(asset_id, full=full))

    async def _check(self, asset_id: str, *, full: bool) -> AssetStatus:
        engine, asset = self._ready().engine, self._asset(asset_id)
        return await checking.check(engine, asset, self.project.assets_dir, full=full, emit=self._bus.emit)

    async def check_all_assets(self, *, full: bool = False) -> list[AssetStatus]:
        """Call `check_assets` for every asset, in the manifest's order."""
        return await self.check_assets(full=full)

    async def check_assets(
        self,
        ids: Collection[str] | None = None,
        *,
        exclude: Collection[str] = (),
        full: bool = False,
        on_status: Callable[[AssetStatus], object] | None = None,
        keep: bool = True,
    ) -> list[AssetStatus]:
        """Call `check_asset` for these assets, or for all.

        ``on_status`` is told of each, in their order, and is awaited if it is async. Without ``keep`` an empty list is
        returned, which is what very many assets need. Where files cannot be read, the others are told, and `SyncFailed`
        comes at the end. Raises `UnknownAsset`.
        """
        self._ready()
        chosen = self.manifest.pick(ids, exclude=exclude)
        return await self._do(self._check_each(chosen, full=full, on_status=on_status, keep=keep))

    async def _check_each(
        self,
        chosen: Collection[Asset],
        *,
        full: bool,
        on_status: Callable[[AssetStatus], object] | None,
        keep: bool,
    ) -> list[AssetStatus]:
        engine = self._ready().engine
        if full:
            self._bus.emit(RunStarted(assets=len(chosen), bytes=known_bytes(chosen)))
        statuses: list[AssetStatus] = []
        unread: list[StorageError] = []
        for batch in in_batches(chosen):
            assets = as_stand_ins(batch) if self.minimal else batch
            # Of many assets, most are there or not at all, which is seen in one look.
            is_long = isinstance(chosen, AssetBatches) and not full
            seen = checking.seen_at_once(engine, assets, self.project.assets_dir) if is_long else {}

            async def check(asset: Asset, seen: Mapping[str, AssetStatus] = seen) -> AssetStatus:
                return seen.get(asset.id) or await self._check(asset.id, full=full)

            async with aclosing(checking.in_order(batch, check, unread.append)) as each:
                async for status in each:
                    if keep:
                        statuses.append(status)
                    if on_status is not None and isinstance(waits := on_status(status), Awaitable):
                        await waits
        if unread:
            raise SyncFailed({str(error.asset_id): error for error in unread})
        return statuses

    def state_of(self, asset: Asset) -> AssetState:
        """Return the asset's state on disk without reading it. Needs a running loop."""
        return self.states_of([asset])[0]

    def states_of(self, assets: Collection[Asset]) -> list[AssetState]:
        """Return the state of each of these assets, in their order, as `state_of` does."""
        return checking.states_of(self._ready().engine, tuple(assets))

    # -- many assets ------------------------------------------------------------------------------------------------

    async def download_required_assets(self) -> SyncReport:
        """Download and verify every asset marked as required; if none is, fetch nothing. Raises what `sync` raises."""
        self._owner.claim()
        required = self.manifest.required
        return await self.sync_assets(as_stand_ins(required) if self.minimal else required)

    def choose(
        self,
        ids: Collection[str] | None = None,
        *,
        tags: Collection[str] | None = None,
        all: bool = False,  # noqa: A002 - the word of the command line and of the public API
        minimal: bool | None = None,
        exclude: Collection[str] = (),
    ) -> Collection[Asset]:
        """Return the assets that `sync` would take, in the manifest's order. Raises `UnknownAsset` or `UnknownTag`."""
        is_minimal = self.minimal if minimal is None else minimal
        named, tagged = () if ids is None else ids, () if tags is None else tags
        return self.manifest.select(named, tagged, all=all, minimal=is_minimal, exclude=exclude)

    async def plan(
        self,
        assets: Collection[Asset],
        *,
        force: bool = False,
        on_part: Callable[[SyncPlan], object] | None = None,
    ) -> SyncPlan:
        """Return what fetching these assets would take. Reads none of them: a file that may be right counts as present.

        ``on_part`` is told of each part of the plan. Of very many assets there are several; then the plan that is
        returned has only the sums, and its assets are in the parts. Raises `StaleManifest`.
        """
        coordinator = self._ready()
        self._freshness.refuse_stale(self.manifest)
        whole: SyncPlan | None = None
        for batch in in_batches(assets):
            part = await coordinator.plan(batch, force=force)
            if on_part is not None:
                on_part(part)
            whole = part if whole is None else whole.joined(part, keep=on_part is None)
        assert whole is not None, "of no assets, there is one empty batch"
        return whole

    async def sync(
        self,
        ids: Collection[str] | None = None,
        *,
        tags: Collection[str] | None = None,
        all: bool = False,  # noqa: A002 - the word of the command line and of the public API
        minimal: bool | None = None,
        force: bool = False,
        exclude: Collection[str] = (),
    ) -> SyncReport:
        """Download and verify the chosen assets; by default, all required ones, or every asset if none is required.

        ``minimal``: by default the essential assets (if none has that tag, as above), and each chosen asset as its
        small stand-in if it has one. None means the manager's own setting, False the full assets. ``force``: also fetch
        valid files again.

        Raises `SyncFailed` if any of them failed (the others are there then), `UnknownAsset`, `UnknownTag` or
        `StaleManifest`. If it is known that they would not all fit on the disk, nothing is fetched: each that would be
        fails with the same `DiskFull`, the group's cause.
        """
        self._owner.claim()
        chosen = self.choose(ids, tags=tags, all=all, minimal=minimal, exclude=exclude)
        return await self.sync_assets(chosen, force=force)

    async def sync_assets(self, assets: Collection[Asset], *, force: bool = False) -> SyncReport:
        """Like `sync`, for assets already chosen."""
        coordinator = self._ready()
        async with self._freshness.using(self.manifest):
            return await coordinator.sync(assets, force=force)

    async def sync_on(
        self,
        cluster: object,
        ids: Collection[str] | None = None,
        *,
        tags: Collection[str] | None = None,
        all: bool = False,  # noqa: A002 - the word of the command line and of the public API
        minimal: bool | None = None,
        force: bool = False,
        exclude: Collection[str] = (),
        each_node: bool = False,
    ) -> SyncReport:
        """Like `sync`, on many machines at once, which share the assets folder.

        ``cluster`` is ``"dask"`` or ``"ray"`` for processes on this machine, ``"dask://HOST:PORT"`` for a scheduler,
        ``"ray://HOST:PORT"`` for a head, a `dask.distributed.Client`, or ``ray`` itself, once it is connected. Each
        worker needs this version of grym-fetch, and sees the assets folder at the same path and as the same user.
        Events come from the workers, too; their ``node`` says from which.

        ``each_node``: no folder is shared, and each machine gets a copy of its own. The page on clusters says more.

        Raises what `sync` raises, `ClusterError` if the cluster cannot be reached or a worker cannot take part, and
        `DiskFull` itself if the assets would not all fit in a shared folder.
        """
        self._owner.claim()
        chosen = self.choose(ids, tags=tags, all=all, minimal=minimal, exclude=exclude)
        return await self.sync_assets_on(cluster, chosen, minimal=minimal, force=force, each_node=each_node)

    async def sync_assets_on(
        self,
        cluster: object,
        assets: Collection[Asset],
        *,
        minimal: bool | None = None,
        force: bool = False,
        each_node: bool = False,
    ) -> SyncReport:
        """Like `sync_on`, for assets already chosen; ``minimal``: as it was when they were."""
        from grym_fetch.cluster.run import ClusterRun

        coordinator, named = self._ready(), self._places[1] or said_in(self._environ, ASSETS_DIR.variable)
        run = ClusterRun(
            project=self.project,
            settings=self.settings,
            coordinator=coordinator,
            emit=self._bus.emit,
            clock=self._clock,
            minimal=self.minimal if minimal is None else minimal,
            assets_dir=str(self.project.assets_dir) if named else None,
        )
        async with self._freshness.using(self.manifest):
            return await coordinator.run(run.sync(cluster, assets, force=force, each_node=each_node))

    async def restore_asset(self, path: str | Path, *, force: bool = False) -> Path:
        """Bring back a file that ``grym-fetch clean`` moved out of the repository, and return its path.

        ``path`` is the path of the file or of its placeholder, or its id. The file comes from the external folder, or
        is downloaded if an asset has its checksum. ``force``: also replace a file that has different content.

        Raises `RepositoryError` if no such file was moved, `AssetMissing`, `IntegrityError`, `StorageError`, or what
        `download_asset` raises.
        """
        from grym_fetch.repo.restore import Restorer, fetch_from
        from grym_fetch.repo.target import external_folders
        from grym_fetch.repo.tree import find_root

        async def get(asset: Asset) -> Path:
            await self._accept()
            return (await self._ready().fetch(asset)).path

        self._owner.claim()
        project = self.project
        root = find_root(project.root, project.root)
        fetch = fetch_from(self.manifest.assets, get)
        folders = external_folders(root, project)
        restorer = Restorer(root, folders, fetch, only_there=project.is_external_named, emit=self._bus.emit)
        return (await restorer.restore(restorer.find_one(str(path), Path.cwd()), force=force)).path

    # -- the manifest itself ----------------------------------------------------------------------------------------

    async def add_asset(
        self,
        asset: Asset,
        *,
        fetch: bool = False,
        file: Path | None = None,
        checksums_from: str | None = None,
        pieces: bool = False,
        allow_suspicious: bool = False,
    ) -> Asset:
        """Append an asset to the manifest and return it as it is now listed.

        ``fetch``: download it into place first, and list the checksum and size found. ``file``: take these from this
        file, and copy it into the asset's place if it is not there. ``checksums_from``: the address of a list such as
        ``SHA256SUMS``; the asset gets the digest that it has for its file. ``pieces``: list the digests of its pieces
        as well, if its file is in place. ``allow_suspicious``: also accept a file that is plainly not an asset, but a
        web page, a git-lfs pointer or an empty file. Without it, a pointer as ``file`` gives the checksum and size of
        its content, which is not fetched.

        Raises `ManifestError` if it cannot be listed, such as `EditRefused` if the id or path is taken, or for a file
        that is plainly not an asset; `DigestMismatch` if ``file`` has another digest than the asset says, `UnsafePath`
        if another file is in its place; `SourceFailed` or `UnknownSource` if the list cannot be used or does not have
        the file; `PolicyRefused` for a plain http address of another machine with ``fetch``; or what `download_asset`
        raises.
        """
        await self.initialize()
        async with self._editing() as editor:
            if checksums_from is not None:
                editor.entries.check_new(self.manifest, asset)
                asset = await self._do(editor.sources.with_digest_from(checksums_from, asset))
            parsed = await self._do(
                editor.adder.add_asset(
                    self.manifest,
                    asset,
                    fetch=fetch,
                    file=file,
                    pieces=pieces,
                    allow_suspicious=allow_suspicious,
                    before_fetch=self._accept,
                )
            )
            self._adopt(parsed)
        return self.manifest.get(asset.id)

    async def add_from_source(
        self,
        source: str,
        *,
        asset_id: str | None = None,
        local_path: str | None = None,
        name: str = "",
        description: str = "",
        fallback_urls: Collection[str] = (),
        version: str | None = None,
        required: bool = False,
        tags: Collection[str] = (),
        allow_suspicious: bool = False,
    ) -> tuple[Asset, ...]:
        """Append the files that a short address such as ``hf://org/repo`` leads to; return them as they are now listed.

        The address of a hub's page works too. Files for which the hub states no checksum that a manifest accepts are
        fetched into place first, if they are not there; the rest is left to `sync`. All files are added, or none.

        A file that was named gets ``asset_id`` and ``local_path``, by default after its name. For a repository, a
        folder or a pattern, even with one file in it, ``asset_id`` begins each id and ``local_path`` is their folder,
        by default the repository's name; ``name`` and ``fallback_urls`` are then not allowed. ``version`` is by default
        the revision that the hub has.

        Raises `UnknownSource` for what does not exist, `SourceFailed` if the hub fails, `ManifestError` if the files
        cannot be listed, `SyncFailed` if one of many cannot be fetched, or what `download_asset` raises.
        """
        from grym_fetch.sources.naming import Naming

        refuse_one_text(fallback_urls=fallback_urls, tags=tags)
        naming = Naming(
            id=asset_id,
            local_path=local_path,
            name=name,
            description=description,
            fallback_urls=tuple(fallback_urls),
            version=version,
            required=required,
            tags=tuple(tags),
        )
        return await self._add_found(lambda sources: sources.find(source, naming), allow_suspicious=allow_suspicious)

    async def import_list(
        self,
        file: str | Path,
        *,
        format: str | None = None,  # noqa: A002 - the word of the command line
        base_url: str | None = None,
        prefix: str | None = None,
        folder: str | None = None,
        required: bool = False,
        tags: Collection[str] = (),
        allow_suspicious: bool = False,
    ) -> tuple[Asset, ...]:
        """Append the files in another tool's list, all or none; return them as they are now listed.

        ``format`` is ``metalink``, ``sha256sums``, ``pooch``, ``dvc``, ``aria2`` or ``curl``; any other word is a
        `ValueError`. By default it is guessed.
        ``base_url``: where to find files without an http address in the list. ``prefix`` begins each id, ``folder`` is
        their folder in the assets folder. Files without a checksum that a manifest accepts are measured, for which they
        are downloaded if need be.

        Raises `ManifestError` if the file is not such a list, or its files cannot be added, `SyncFailed` if one of many
        cannot be fetched, or what `download_asset` raises.
        """
        from grym_fetch.sources.listings import FORMATS
        from grym_fetch.sources.naming import Naming

        if format not in (None, *FORMATS):
            raise ValueError(f"format must be one of {', '.join(FORMATS)}, not {format!r}")
        refuse_one_text(tags=tags)
        naming = Naming(id=prefix, local_path=folder, required=required, tags=tuple(tags))
        return await self._add_found(
            lambda sources: sources.read_list(Path(file), format, naming, base_url), allow_suspicious=allow_suspicious
        )

    async def _add_found(
        self, find: Callable[[Sources], Coroutine[Any, Any, list[Asset]]], *, allow_suspicious: bool
    ) -> tuple[Asset, ...]:
        await self.initialize()
        async with self._editing() as editor:
            assets = await self._do(find(editor.sources))
            parsed = await self._do(
                editor.adder.add_found(
                    self.manifest, assets, allow_suspicious=allow_suspicious, before_fetch=self._accept
                )
            )
            self._adopt(parsed)
        return tuple(self.manifest.get(asset.id) for asset in assets)

    def export_list(
        self,
        format: str,  # noqa: A002 - as above
        ids: Collection[str] | None = None,
        *,
        exclude: Collection[str] = (),
    ) -> str:
        """Return these assets, or all, as a list for another tool, with paths relative to the assets folder.

        ``format`` is ``metalink``, ``aria2``, ``curl``, ``sha256sums`` or ``pooch``; any other word is a `ValueError`.

        Raises `UnknownAsset`, or `ManifestError` for assets that the format cannot express.
        """
        from grym_fetch.core.errors import EntryUnsuited, Problem
        from grym_fetch.core.text import safe_text
        from grym_fetch.sources.listings import FORMATS, write_list

        known = [name for name, each in FORMATS.items() if each.write is not None]
        if format not in known:
            raise ValueError(f"format must be one of {', '.join(known)}, not {format!r}")
        chosen = self.manifest.pick(ids, exclude=exclude)
        try:
            return write_list(tuple(chosen), format)
        except ValueError as error:
            source = safe_text(str(self.project.manifest_path))
            raise EntryUnsuited(source, [Problem(f"export as {format}", "", str(error))]) from None

    async def outdated(
        self,
        ids: Collection[str] | None = None,
        *,
        exclude: Collection[str] = (),
        on_found: Callable[[NewerVersion], object] | None = None,
    ) -> tuple[NewerVersion, ...]:
        """Return the assets that have a newer version at their source: of these, or of all that have a source.

        ``on_found`` is called with each. Raises `SyncFailed` at the end if some could not be looked up, `UnknownAsset`,
        or `EditRefused` if an asset named here has no source.
        """
        await self.initialize()
        async with self._editing() as editor:
            tell = on_found or (lambda _: None)
            return tuple(await self._do(editor.updater.find_newer(self.manifest, ids, tell, exclude=exclude)))

    async def update(
        self,
        ids: Collection[str] | None = None,
        *,
        exclude: Collection[str] = (),
        dry_run: bool = False,
        allow_suspicious: bool = False,
        on_found: Callable[[NewerVersion], object] | None = None,
    ) -> tuple[NewerVersion, ...]:
        """Move these assets, or all that have a source, to its newest version; return each as it was and as it is now.

        All entries are written, or none. A file for which the hub states no checksum that a manifest accepts is
        downloaded for this; the rest is left to `sync`, and the old file stays until then. Mirrors of the old version
        are dropped.
        ``dry_run``: only look, as `outdated` does. ``on_found`` is called with each before anything is fetched or
        written.

        Raises like `outdated` (nothing was changed then), `EditRefused` if somebody else has changed an entry
        in the meantime, or what `download_asset` raises.
        """
        await self.initialize()
        async with self._editing() as editor:
            tell = on_found or (lambda _: None)
            found = await self._do(editor.updater.find_newer(self.manifest, ids, tell, exclude=exclude))
            if dry_run or not found:
                return tuple(found)
            parsed, done = await self._do(
                editor.updater.update(found, allow_suspicious=allow_suspicious, before_fetch=self._accept)
            )
            self._adopt(parsed)
        return tuple(done)

    async def update_asset(
        self,
        asset_id: str,
        address: str | None = None,
        *,
        dry_run: bool = False,
        allow_suspicious: bool = False,
        on_found: Callable[[NewerVersion], object] | None = None,
    ) -> NewerVersion | None:
        """Move one asset to its source's newest version, or to another ``address``, plain or short.

        Returns None if nothing changes. ``dry_run``: only look, and download nothing; else a file at a plain address is
        downloaded and measured. ``on_found`` is called with what changes before it is written. Raises like `update`;
        `UnknownSource` or `SourceFailed` for a short address.
        """
        if address is None:
            found_some = await self.update(
                [asset_id], dry_run=dry_run, allow_suspicious=allow_suspicious, on_found=on_found
            )
            return next(iter(found_some), None)

        def tell(each: NewerVersion) -> None:
            if on_found is not None and each.newer != each.asset:
                on_found(each)

        await self.initialize()
        async with self._editing() as editor:
            found = await self._do(editor.updater.find_at(self.manifest, asset_id, address))
            if found.newer == found.asset or dry_run:
                tell(found)
                return None if found.newer == found.asset else found
            parsed, [done] = await self._do(
                editor.updater.update(
                    [found], allow_suspicious=allow_suspicious, before_fetch=self._accept, on_measured=tell
                )
            )
            self._adopt(parsed)
        return None if done.newer == done.asset else done

    async def remove_asset(self, asset_id: str, *, delete_file: bool = False) -> tuple[Path, ...]:
        """Remove an asset from the manifest; with ``delete_file``, also its file, its stand-in's and what was unpacked.

        Deletes only in the assets folder, and nothing unpacked that was changed. Returns the files and folders that are
        gone. Raises `UnknownAsset`, or `StorageError` for what cannot be deleted.
        """
        await self.initialize()
        async with self._editing() as editor:
            return await editor.remover.remove_asset(
                self.manifest, asset_id, delete_files=delete_file, on_change=self._adopt
            )

    async def pin(
        self,
        ids: Collection[str] | None = None,
        *,
        exclude: Collection[str] = (),
        pieces: bool = False,
        update: bool = False,
        allow_suspicious: bool = False,
        on_found: Callable[[NewerVersion], object] | None = None,
        on_pinned: Callable[[Pinned], object] | None = None,
    ) -> PinReport:
        """Write checksums and sizes into the manifest: of these assets, or of all that have no checksum.

        An existing file is hashed, a missing one is fetched. Stand-ins without a checksum are pinned as well; if the
        manager is ``minimal``, only stand-ins are pinned. ``pieces``: also write the digests of the pieces of these
        assets, or of all, if they are missing. Without ``allow_suspicious``, what is plainly not an asset is refused: a
        web page, a git-lfs pointer, an empty file. ``on_pinned`` is called with each.

        ``update``: fetch what the addresses of these assets have now, also where there is a checksum or a file, and
        write all of it or nothing; ``on_found`` is called with each before that. The files that are there stay until
        then; pieces of other content are dropped. A `ValueError` with ``pieces`` or a ``minimal`` manager: pin these
        afterwards.

        Raises `SyncFailed` if any of them failed (the others are pinned then), `UnknownAsset` or `StaleManifest`. With
        ``update``, none is pinned then, and an asset that was the only one raises its own error.
        """
        if update and (pieces or self.minimal):
            raise ValueError("update goes with neither pieces nor minimal: pin these afterwards")
        await self.initialize()
        from grym_fetch.project.pinning import PinReport
        from grym_fetch.project.updating import pinned_anew

        async with self._editing() as editor:
            if update:
                parsed, found = await self._do(
                    editor.updater.fetch_anew(
                        self.manifest,
                        ids,
                        exclude=exclude,
                        allow_suspicious=allow_suspicious,
                        before_fetch=self._accept,
                        on_measured=on_found or (lambda _: None),
                    )
                )
                self._adopt(parsed)
                done = pinned_anew(found, self.project.assets_dir)
                for pinned in done:
                    (on_pinned or (lambda _: None))(pinned)
                return PinReport(tuple(done), {})
            return await self._do(
                editor.pinner.pin(
                    self.manifest,
                    ids,
                    exclude=exclude,
                    minimal=self.minimal,
                    pieces=pieces,
                    allow_suspicious=allow_suspicious,
                    before_fetch=self._accept,
                    on_change=self._adopt,
                    on_pinned=on_pinned or (lambda _: None),
                )
            )

    async def prune(self, *, dry_run: bool = False, orphans: bool | Collection[str] = False) -> PruneReport:
        """Remove abandoned downloads, unused locks and other stale state; ``dry_run``: only report it.

        What an interrupted download left behind counts as abandoned. ``orphans``: also delete what
        ``grym-fetch prune --orphans`` would; if it is names, only these of it.
        """
        refuse_one_text(orphans=orphans)
        await self.initialize()
        async with self._editing() as editor:
            return await editor.remover.prune(self.manifest, dry_run=dry_run, orphans=orphans)

    async def _do(self, work: Coroutine[Any, Any, R]) -> R:
        """Do what may take long: it ends with the manager at the latest, and whoever waits for it is cancelled."""
        return await self._ready().run(work)

    @asynccontextmanager
    async def _editing(self) -> AsyncIterator[Editor]:
        from grym_fetch.project.editing import Editor

        engine = self._ready().engine
        assert isinstance(engine, Engine), "a mock engine has nothing to edit"
        editor = Editor(
            self.project,
            engine=engine,
            clock=self._clock,
            emit=self._bus.emit,
            settings=self.settings,
            environ=self._environ,
        )
        with editor:
            try:
                yield editor
            finally:
                await self._bus.settle()

    def _adopt(self, parsed: ParsedManifest[ManifestSource]) -> None:
        self._manifest, self.warnings = parsed.manifest, parsed.warnings

    # -- listening --------------------------------------------------------------------------------------------------

    def events(self) -> Subscription:
        """Return a stream of the events from now on: an async context manager and async iterator.

        It ends when the manager or the stream is closed, and in uvicorn when the server begins to stop. Needs a running
        loop.
        """
        self._owner.claim()
        return self._bus.subscribe(is_over=stopping())

    def emit(self, event: Event) -> None:
        """Tell listeners of an event. Does not wait; in the manager's loop only."""
        self._owner.claim()
        self._bus.emit(event)

    def on_event(self, callback: Callable[[Event], object]) -> Callable[[], None]:
        """Call ``callback`` with the events, as `on_progress` does. Returns a function that stops it."""
        self._owner.claim()
        return self._bus.call(callback)

    def progress(self, bar: Callable[..., Any] | None = None) -> AbstractContextManager[None]:
        """Show progress bars while the block runs: ``with manager.progress():``. Needs a running loop.

        ``bar`` is a class with the interface of tqdm, by default that of ``tqdm.auto`` if tqdm is installed, or else of
        Rich.
        """
        from grym_fetch.display.bars import bars_for

        self._owner.claim()
        return bars_for(self.on_event, bar)

    def _size_of(self, asset_id: str, path: str) -> int | None:
        try:
            return os.stat(path).st_size
        except OSError:  # already gone
            return self._asset(asset_id).size

    def on_progress(
        self, callback: Callable[[AssetProgress], object] | Callable[[AssetProgress], Awaitable[object]]
    ) -> Callable[[], None]:
        """Call ``callback`` whenever an asset makes progress. Returns a function that stops it. Needs a running loop.

        An async callback runs in the event loop, a sync one in a worker thread, one call at a time. A slow one misses
        intermediate progress; one that raises is logged and not called again.
        """
        self._owner.claim()
        return self._bus.call(progress_listener(callback, self._size_of))

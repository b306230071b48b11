"""`AssetManager` without ``await``: for scripts, notebooks, and code that runs inside someone else's event loop.

::

    from grym_fetch.blocking import AssetManager

    with AssetManager(config="assets.json") as manager:
        path = manager.get_asset_path("audioldm-s-full")

Rules: the asynchronous manager does the work, in its own loop and daemon thread. An async callback, and what a method
takes as ``on_…``, is called in that loop, so it must not make a call that waits.

Generated from `grym_fetch.manager` by `tools/generate_blocking.py`; to change it, change these and run `make blocking`.
"""

# ruff: noqa: A002 - the parameters are those of the asynchronous manager

from __future__ import annotations

import functools
import os
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from grym_fetch import manager as asynchronous
from grym_fetch.core.events import Event
from grym_fetch.core.manifest import Asset, ManifestSource
from grym_fetch.core.world import Clock, Transport
from grym_fetch.disk.prune import PruneReport
from grym_fetch.engine.reports import (
    Adopted,
    AdoptReport,
    AssetProgress,
    AssetState,
    AssetStatus,
    RepairReport,
    SyncPlan,
    SyncReport,
)
from grym_fetch.manifest_files.project import Project
from grym_fetch.project.pinning import Pinned, PinReport
from grym_fetch.project.updating import NewerVersion
from grym_fetch.runtime.loop_file import AssetFile
from grym_fetch.runtime.loop_thread import Blocking, EventStream
from grym_fetch.settings import Settings

__all__ = ["AssetFile", "AssetManager", "EventStream"]


class AssetManager(Blocking[asynchronous.AssetManager]):
    """Downloads and verifies the assets of a manifest, without ``await``.

    Use it as a context manager, or call `close` at the end. All arguments are those of `grym_fetch.AssetManager`.
    Usable from any thread, even one with a running event loop (which a call blocks while it lasts).
    Not usable in a process forked from the one where it was used: make a new one there.
    """

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
        super().__init__(
            functools.partial(
                asynchronous.AssetManager,
                config,
                assets_dir=assets_dir,
                external_assets_dir=external_assets_dir,
                parallel=parallel,
                minimal=minimal,
                allow_stale=allow_stale,
                settings=settings,
                transport=transport,
                environ=dict(os.environ if environ is None else environ),
                clock=clock,
            )
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about the manifest, once it has been read."""
        return self._manager.warnings

    @property
    def settings(self) -> Settings:
        """How assets are fetched. Raises `ConfigurationError` for a mistake in a settings file."""
        return self._manager.settings

    @property
    def minimal(self) -> bool:
        """Whether to use the small stand-ins of assets that have one."""
        return self._manager.minimal

    def initialize(self) -> None:
        """Find and read the manifest. Raises `ManifestError`, or what `project` raises. Idempotent."""
        self._run(asynchronous.AssetManager.initialize)

    @property
    def project(self) -> Project:
        """Where the manifest and the files are.

        Raises `ManifestError` if there is no manifest to use, `ConfigurationError` for a mistake in a settings file,
        `UnsafePath` for an assets folder that may not be used.
        """
        return self._manager.project

    @property
    def manifest(self) -> ManifestSource:
        """The manifest, read on first use: a `Manifest`, or if it is very long, one that reads its assets again.

        Raises `ManifestError`, or what `project` raises.
        """
        return self._manager.manifest

    def why_stale(self) -> str | None:
        """Say why the manifest is stale, by its ``expires`` and ``version``; None if it is not."""
        return self._call(asynchronous.AssetManager.why_stale)

    def get_asset_path(self, asset_id: str) -> Path:
        """Return the asset's path, downloading it first if need be.

        Raises `UnknownAsset`, `UnpinnedAsset`, or what else `download_asset` raises.
        """
        return self._run(asynchronous.AssetManager.get_asset_path, asset_id)

    def download_asset(self, asset_id: str, force: bool = False) -> Path:
        """Download and verify the asset if needed, and return its path. ``force``: fetch it again even if it is valid.

        Raises `MirrorsExhausted`, `IntegrityError` or `StorageError` if it fails; what has arrived is kept for the next
        call, unless it is wrong or cannot be resumed. Raises `UnknownAsset`, `UnpinnedAsset`, `PolicyRefused` for an
        asset without a checksum at a plain http address of another machine, `AssetMissing` if it is not there and
        nothing may be fetched, and `StaleManifest`.
        """
        return self._run(asynchronous.AssetManager.download_asset, asset_id, force)

    def open_asset(self, asset_id: str, *, unverified_ok: bool = False, keep_downloading: bool = False) -> AssetFile:
        """Return the asset as a file to be read at once, even while it is being downloaded: a context manager.

        An asset that is there and verified is read from its file. Otherwise its download begins,
        or is shared, and each read waits for its bytes. These are compared with the manifest's ``pieces`` before they
        are handed out. Without pieces or a checksum it cannot be opened, unless ``unverified_ok``: then what arrives is
        handed out, right or wrong (without a checksum, ``allow_unpinned`` is needed, too). A stand-in needs no pieces:
        it is read once it is there.

        When the reader closes, a download that nobody else waits for stops; what has arrived is kept.
        ``keep_downloading``: it goes on while the manager is open.

        Raises `UnknownAsset`, and `UnverifiedRead` when it is opened. Opening and reading raise what `download_asset`
        raises, and `AssetMissing` if the manager is closed meanwhile.
        """
        return self._open_file(
            asynchronous.AssetManager.open_asset,
            asset_id,
            unverified_ok=unverified_ok,
            keep_downloading=keep_downloading,
        )

    def repair_asset(self, asset_id: str, *, dry_run: bool = False) -> RepairReport:
        """Read the asset's file and fetch what is wrong of it; ``dry_run``: only say what that would cost.

        A file is replaced only by the right one, verified as a whole. Raises `AssetMissing` if no file is there, and
        what `download_asset` raises.
        """
        return self._run(asynchronous.AssetManager.repair_asset, asset_id, dry_run=dry_run)

    def adopt_assets(
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
        return self._run(
            asynchronous.AssetManager.adopt_assets, places, ids=ids, exclude=exclude, on_adopted=on_adopted
        )

    def check_asset(self, asset_id: str, *, full: bool = False) -> AssetStatus:
        """Return whether the asset is there and valid; fetches nothing. ``full``: read also what was verified before.

        If a file is read, events report it; one that cannot be read raises `StorageError`. Raises `UnknownAsset`.
        """
        return self._run(asynchronous.AssetManager.check_asset, asset_id, full=full)

    def check_all_assets(self, *, full: bool = False) -> list[AssetStatus]:
        """Call `check_assets` for every asset, in the manifest's order."""
        return self._run(asynchronous.AssetManager.check_all_assets, full=full)

    def check_assets(
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
        return self._run(
            asynchronous.AssetManager.check_assets, ids, exclude=exclude, full=full, on_status=on_status, keep=keep
        )

    def state_of(self, asset: Asset) -> AssetState:
        """Return the asset's state on disk without reading it."""
        return self._call(asynchronous.AssetManager.state_of, asset)

    def states_of(self, assets: Collection[Asset]) -> list[AssetState]:
        """Return the state of each of these assets, in their order, as `state_of` does."""
        return self._call(asynchronous.AssetManager.states_of, assets)

    def download_required_assets(self) -> SyncReport:
        """Download and verify every asset marked as required; if none is, fetch nothing. Raises what `sync` raises."""
        return self._run(asynchronous.AssetManager.download_required_assets)

    def choose(
        self,
        ids: Collection[str] | None = None,
        *,
        tags: Collection[str] | None = None,
        all: bool = False,
        minimal: bool | None = None,
        exclude: Collection[str] = (),
    ) -> Collection[Asset]:
        """Return the assets that `sync` would take, in the manifest's order. Raises `UnknownAsset` or `UnknownTag`."""
        return self._call(asynchronous.AssetManager.choose, ids, tags=tags, all=all, minimal=minimal, exclude=exclude)

    def plan(
        self, assets: Collection[Asset], *, force: bool = False, on_part: Callable[[SyncPlan], object] | None = None
    ) -> SyncPlan:
        """Return what fetching these assets would take. Reads none of them: a file that may be right counts as present.

        ``on_part`` is told of each part of the plan. Of very many assets there are several; then the plan that is
        returned has only the sums, and its assets are in the parts. Raises `StaleManifest`.
        """
        return self._run(asynchronous.AssetManager.plan, assets, force=force, on_part=on_part)

    def sync(
        self,
        ids: Collection[str] | None = None,
        *,
        tags: Collection[str] | None = None,
        all: bool = False,
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
        return self._run(
            asynchronous.AssetManager.sync, ids, tags=tags, all=all, minimal=minimal, force=force, exclude=exclude
        )

    def sync_assets(self, assets: Collection[Asset], *, force: bool = False) -> SyncReport:
        """Like `sync`, for assets already chosen."""
        return self._run(asynchronous.AssetManager.sync_assets, assets, force=force)

    def sync_on(
        self,
        cluster: object,
        ids: Collection[str] | None = None,
        *,
        tags: Collection[str] | None = None,
        all: bool = False,
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
        return self._run(
            asynchronous.AssetManager.sync_on,
            cluster,
            ids,
            tags=tags,
            all=all,
            minimal=minimal,
            force=force,
            exclude=exclude,
            each_node=each_node,
        )

    def sync_assets_on(
        self,
        cluster: object,
        assets: Collection[Asset],
        *,
        minimal: bool | None = None,
        force: bool = False,
        each_node: bool = False,
    ) -> SyncReport:
        """Like `sync_on`, for assets already chosen; ``minimal``: as it was when they were."""
        return self._run(
            asynchronous.AssetManager.sync_assets_on, cluster, assets, minimal=minimal, force=force, each_node=each_node
        )

    def restore_asset(self, path: str | Path, *, force: bool = False) -> Path:
        """Bring back a file that ``grym-fetch clean`` moved out of the repository, and return its path.

        ``path`` is the path of the file or of its placeholder, or its id. The file comes from the external folder, or
        is downloaded if an asset has its checksum. ``force``: also replace a file that has different content.

        Raises `RepositoryError` if no such file was moved, `AssetMissing`, `IntegrityError`, `StorageError`, or what
        `download_asset` raises.
        """
        return self._run(asynchronous.AssetManager.restore_asset, path, force=force)

    def add_asset(
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
        return self._run(
            asynchronous.AssetManager.add_asset,
            asset,
            fetch=fetch,
            file=file,
            checksums_from=checksums_from,
            pieces=pieces,
            allow_suspicious=allow_suspicious,
        )

    def add_from_source(
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
        return self._run(
            asynchronous.AssetManager.add_from_source,
            source,
            asset_id=asset_id,
            local_path=local_path,
            name=name,
            description=description,
            fallback_urls=fallback_urls,
            version=version,
            required=required,
            tags=tags,
            allow_suspicious=allow_suspicious,
        )

    def import_list(
        self,
        file: str | Path,
        *,
        format: str | None = None,
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
        return self._run(
            asynchronous.AssetManager.import_list,
            file,
            format=format,
            base_url=base_url,
            prefix=prefix,
            folder=folder,
            required=required,
            tags=tags,
            allow_suspicious=allow_suspicious,
        )

    def export_list(self, format: str, ids: Collection[str] | None = None, *, exclude: Collection[str] = ()) -> str:
        """Return these assets, or all, as a list for another tool, with paths relative to the assets folder.

        ``format`` is ``metalink``, ``aria2``, ``curl``, ``sha256sums`` or ``pooch``; any other word is a `ValueError`.

        Raises `UnknownAsset`, or `ManifestError` for assets that the format cannot express.
        """
        return self._call(asynchronous.AssetManager.export_list, format, ids, exclude=exclude)

    def outdated(
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
        return self._run(asynchronous.AssetManager.outdated, ids, exclude=exclude, on_found=on_found)

    def update(
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
        return self._run(
            asynchronous.AssetManager.update,
            ids,
            exclude=exclude,
            dry_run=dry_run,
            allow_suspicious=allow_suspicious,
            on_found=on_found,
        )

    def update_asset(
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
        return self._run(
            asynchronous.AssetManager.update_asset,
            asset_id,
            address,
            dry_run=dry_run,
            allow_suspicious=allow_suspicious,
            on_found=on_found,
        )

    def remove_asset(self, asset_id: str, *, delete_file: bool = False) -> tuple[Path, ...]:
        """Remove an asset from the manifest; with ``delete_file``, also its file, its stand-in's and what was unpacked.

        Deletes only in the assets folder, and nothing unpacked that was changed. Returns the files and folders that are
        gone. Raises `UnknownAsset`, or `StorageError` for what cannot be deleted.
        """
        return self._run(asynchronous.AssetManager.remove_asset, asset_id, delete_file=delete_file)

    def pin(
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
        return self._run(
            asynchronous.AssetManager.pin,
            ids,
            exclude=exclude,
            pieces=pieces,
            update=update,
            allow_suspicious=allow_suspicious,
            on_found=on_found,
            on_pinned=on_pinned,
        )

    def prune(self, *, dry_run: bool = False, orphans: bool | Collection[str] = False) -> PruneReport:
        """Remove abandoned downloads, unused locks and other stale state; ``dry_run``: only report it.

        What an interrupted download left behind counts as abandoned. ``orphans``: also delete what
        ``grym-fetch prune --orphans`` would; if it is names, only these of it.
        """
        return self._run(asynchronous.AssetManager.prune, dry_run=dry_run, orphans=orphans)

    def events(self) -> EventStream:
        """Return a stream of the events from now on: a context manager and iterator.

        It ends when the manager or the stream is closed, and in uvicorn when the server begins to stop.
        """
        return self._stream(asynchronous.AssetManager.events)

    def emit(self, event: Event) -> None:
        """Tell listeners of an event. From any thread."""
        self._call(asynchronous.AssetManager.emit, event)

    def on_event(self, callback: Callable[[Event], object]) -> Callable[[], None]:
        """Call ``callback`` with the events, as `on_progress` does. Returns a function that stops it."""
        return self._register(asynchronous.AssetManager.on_event, callback)

    def progress(self, bar: Callable[..., Any] | None = None) -> AbstractContextManager[None]:
        """Show progress bars while the block runs: ``with manager.progress():``.

        ``bar`` is a class with the interface of tqdm, by default that of ``tqdm.auto`` if tqdm is installed, or else of
        Rich.
        """
        return self._bracket(asynchronous.AssetManager.progress, bar)

    def on_progress(
        self, callback: Callable[[AssetProgress], object] | Callable[[AssetProgress], Awaitable[object]]
    ) -> Callable[[], None]:
        """Call ``callback`` whenever an asset makes progress. Returns a function that stops it.

        An async callback runs in the manager's own loop, a sync one in a worker thread, one call at a time. A slow one
        misses intermediate progress; one that raises is logged and not called again.
        """
        return self._register(asynchronous.AssetManager.on_progress, callback)

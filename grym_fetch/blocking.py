"""`AssetManager` without ``await``: for scripts, notebooks, and code that runs inside somebody else's event loop.

::

    from grym_fetch.blocking import AssetManager

    with AssetManager(config="assets.json") as manager:
        path = manager.get_asset_path("audioldm-s-full")

Rules: everything is done by the asynchronous manager, in a loop and a daemon thread of its own, started on first use.
A call that is interrupted (Ctrl-C) is cancelled there, and has ended there before the exception goes on, so nothing
downloads behind the caller's back. Errors come through as they are. Any thread may call. An async callback runs in that
loop, so a call that waits must not come from one. A manager that nobody closes is closed when it is forgotten or the
interpreter ends.

Generated from `grym_fetch.manager` by `tools/generate_blocking.py`; to change it, change these and run `make blocking`.
"""

# ruff: noqa: A002 - the parameters are those of the asynchronous manager

from __future__ import annotations

import functools
import os
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path

from grym_fetch import manager as asynchronous
from grym_fetch.core.events import Event
from grym_fetch.core.manifest import Asset, Manifest
from grym_fetch.core.world import Clock, Transport
from grym_fetch.disk.project import Project
from grym_fetch.disk.prune import PruneReport
from grym_fetch.engine.reports import AssetProgress, AssetState, AssetStatus, SyncPlan, SyncReport
from grym_fetch.project.editing import Pinned, PinReport
from grym_fetch.runtime.loop_thread import Blocking, EventStream
from grym_fetch.settings import Settings

__all__ = ["AssetManager", "EventStream"]


class AssetManager(Blocking[asynchronous.AssetManager]):
    """Makes the assets of a manifest present and verified, without ``await``.

    Use it as a context manager, or call `close` at the end. All arguments are those of `grym_fetch.AssetManager`.
    Usable from any thread, also one whose event loop is running (it blocks that loop for the time of the call).
    Not usable in a process that was forked from the one where it was used: make a new one there.
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
    def settings(self) -> Settings:
        """What was chosen about how assets are fetched."""
        return self._manager.settings

    @property
    def minimal(self) -> bool:
        """Whether the small stand-ins are used of assets that have one."""
        return self._manager.minimal

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about the manifest, once it was read."""
        return self._manager.warnings

    def initialize(self) -> None:
        """Find and read the manifest. Raises `ManifestError`. Idempotent; every other method does it when needed."""
        self._run(asynchronous.AssetManager.initialize)

    @property
    def project(self) -> Project:
        """Where the manifest and the files are. Raises `ManifestError` if there is no manifest."""
        return self._manager.project

    @property
    def manifest(self) -> Manifest:
        """The manifest, read on first use. Raises `ManifestError`."""
        return self._manager.manifest

    def why_stale(self) -> str | None:
        """Say why the manifest is not to be used any more, None if it is: see ``expires`` and ``version`` in it."""
        return self._call(asynchronous.AssetManager.why_stale)

    def get_asset_path(self, asset_id: str) -> Path:
        """Return the asset's path, downloading it first if it is not there and valid.

        Raises `UnknownAsset`, `UnpinnedAsset`, or what `download_asset` raises.
        """
        return self._run(asynchronous.AssetManager.get_asset_path, asset_id)

    def download_asset(self, asset_id: str, force: bool = False) -> Path:
        """Make the asset present and verified, and return its path. ``force``: fetch it again even if it is valid.

        Raises `MirrorsExhausted`, `IntegrityError` or `StorageError`; what has arrived is kept for the next call.
        Raises `UnknownAsset`, `UnpinnedAsset`, `AssetMissing` if it is not there and nothing may be fetched, and
        `StaleManifest` if the manifest is not to be used any more.
        """
        return self._run(asynchronous.AssetManager.download_asset, asset_id, force)

    def check_asset(self, asset_id: str, *, full: bool = False) -> AssetStatus:
        """Say whether the asset is there and valid; fetches nothing. ``full`` reads every byte again.

        Raises `UnknownAsset`.
        """
        return self._run(asynchronous.AssetManager.check_asset, asset_id, full=full)

    def check_all_assets(self, *, full: bool = False) -> list[AssetStatus]:
        """`check_asset` for every asset, in the manifest's order."""
        return self._run(asynchronous.AssetManager.check_all_assets, full=full)

    def state_of(self, asset: Asset) -> AssetState:
        """Say how the asset stands on the disk without reading a file.

        So a file that was not verified yet is ``present`` if it has the right size, and missing otherwise.
        """
        return self._call(asynchronous.AssetManager.state_of, asset)

    def download_required_assets(self) -> SyncReport:
        """`sync` of every asset that is required."""
        return self._run(asynchronous.AssetManager.download_required_assets)

    def choose(
        self,
        ids: Collection[str] | None = None,
        *,
        tags: Collection[str] | None = None,
        all: bool = False,
        minimal: bool | None = None,
    ) -> tuple[Asset, ...]:
        """Return the assets that `sync` would take, in the manifest's order. Raises `UnknownAsset` or `UnknownTag`."""
        return self._call(asynchronous.AssetManager.choose, ids, tags=tags, all=all, minimal=minimal)

    def plan(self, assets: Collection[Asset], *, force: bool = False) -> SyncPlan:
        """Say what fetching these assets would take. Reads no file's bytes: one of the right size counts as present.

        Raises `StaleManifest`.
        """
        return self._run(asynchronous.AssetManager.plan, assets, force=force)

    def sync(
        self,
        ids: Collection[str] | None = None,
        *,
        tags: Collection[str] | None = None,
        all: bool = False,
        minimal: bool | None = None,
        force: bool = False,
    ) -> SyncReport:
        """Make the chosen assets present and verified; without a choice, all required ones.

        ``minimal``: the essential ones, in their small stand-ins where they have one; default is the manager's own
        choice, and False means the full assets in any case. ``force``: fetch also what is there and valid.

        Raises `SyncFailed` if any of them failed (the others are there then), `UnknownAsset`, `UnknownTag` or
        `StaleManifest`. If they would not all fit on the disk nothing is fetched: each fails with one `DiskFull`, the
        group's cause.
        """
        return self._run(asynchronous.AssetManager.sync, ids, tags=tags, all=all, minimal=minimal, force=force)

    def sync_assets(self, assets: Collection[Asset], *, force: bool = False) -> SyncReport:
        """`sync` for assets already chosen."""
        return self._run(asynchronous.AssetManager.sync_assets, assets, force=force)

    def restore_asset(self, path: str | Path, *, force: bool = False) -> Path:
        """Bring back a file that ``grym-fetch clean`` has moved out of the repository, and return its path.

        ``path`` is the file's own, its placeholder's, or its id. The file comes from the external folder, else by
        download if an asset has its checksum. ``force``: also in the place of a file with other content.

        Raises `RepositoryError` if no such file was moved, `AssetMissing`, `IntegrityError`, `StorageError`, or what
        `download_asset` raises.
        """
        return self._run(asynchronous.AssetManager.restore_asset, path, force=force)

    def add_asset(self, asset: Asset, *, fetch: bool = False, file: Path | None = None) -> Asset:
        """Append an asset to the manifest and return it as it is listed now.

        ``fetch``: download it into its place first, and list the checksum and size found. ``file``: take these from
        this file, and copy it into the asset's place if it is not there.

        Raises `ManifestError` if the id or place is taken or something is wrong with the asset (nothing was fetched
        then), `PolicyRefused` for a plain http address, `DigestMismatch` or `UnsafePath` if ``file`` is not what the
        asset says or another one is in its place, or what `download_asset` raises.
        """
        return self._run(asynchronous.AssetManager.add_asset, asset, fetch=fetch, file=file)

    def remove_asset(self, asset_id: str, *, delete_file: bool = False) -> tuple[Path, ...]:
        """Drop an asset from the manifest, with ``delete_file`` also its file, its stand-in's, and what was unpacked.

        Only in the assets folder; returns the files and the unpacked folders that are gone. Raises `UnknownAsset`.
        """
        return self._run(asynchronous.AssetManager.remove_asset, asset_id, delete_file=delete_file)

    def pin(
        self, ids: Collection[str] | None = None, *, on_pinned: Callable[[Pinned], object] | None = None
    ) -> PinReport:
        """Write checksums and sizes into the manifest: of these assets, or of all that have no checksum.

        A file that is there is hashed, one that is not is fetched; stand-ins without a checksum are pinned as well,
        and with ``minimal`` only they. An asset named here that lacks nothing but its size gets that. ``on_pinned`` is
        called in the event loop with each as soon as it is written, also where others fail.

        Raises `SyncFailed` if any of them failed (the others are pinned then), `UnknownAsset` or `StaleManifest`.
        """
        return self._run(asynchronous.AssetManager.pin, ids, on_pinned=on_pinned)

    def prune(self, *, dry_run: bool = False) -> PruneReport:
        """Remove abandoned downloads, unused lock files and stale cache entries; ``dry_run``: only say which.

        Nothing of a process that runs is touched. What an interrupted download has left is abandoned, too.
        """
        return self._run(asynchronous.AssetManager.prune, dry_run=dry_run)

    def events(self) -> EventStream:
        """Return a stream of every event from now on: a context manager and iterator.

        Needs a running loop.
        """
        return self._stream(asynchronous.AssetManager.events)

    def on_event(self, callback: Callable[[Event], object]) -> Callable[[], None]:
        """Call ``callback`` with every event, as `on_progress` calls it. Returns a function that ends it."""
        return self._register(asynchronous.AssetManager.on_event, callback)

    def on_progress(
        self, callback: Callable[[AssetProgress], object] | Callable[[AssetProgress], Awaitable[object]]
    ) -> Callable[[], None]:
        """Call ``callback`` whenever an asset makes progress. Returns a function that ends it.

        An async callback runs in the manager's own loop, a sync one in a worker thread, one call at a time. A slow one
        misses intermediate progress and nothing else; one that raises is logged and called no more.
        """
        return self._register(asynchronous.AssetManager.on_progress, callback)

"""A mock of `grym_fetch.AssetManager` for unit tests: the whole interface, no network, and no disk
but for what `open_asset` reads.

::

    manager = create_mock_asset_manager({"audioldm-s-full": "/mock/path/to/model.ckpt"})
    path = await manager.get_asset_path("audioldm-s-full")

Rule: it *is* an `AssetManager`, over a simulated engine, so a method added there exists here.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

from grym_fetch.core.configuration import Configuration
from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import AssetMissing, GrymFetchError, IntegrityError, ManifestError, Problem, UnpinnedAsset
from grym_fetch.core.events import AssetFailed, AssetPlanned, AssetVerified, AssetVerifying, Event, ProgressMade
from grym_fetch.core.manifest import Asset, Manifest, ManifestSource
from grym_fetch.disk.damage import Damage
from grym_fetch.disk.local_files import Found, Look, Presence
from grym_fetch.disk.prune import PruneReport
from grym_fetch.engine.protocol import AssetAdopter, AssetEngine
from grym_fetch.engine.reader import AssetReader
from grym_fetch.engine.reports import AssetStatus, RepairReport, SyncReport
from grym_fetch.manager import AssetManager
from grym_fetch.manifest_files.project import Project
from grym_fetch.project.freshness import FreshnessCheck
from grym_fetch.project.pinning import Pinned, PinReport
from grym_fetch.project.updating import NewerVersion
from grym_fetch.runtime.bus import CALLBACK_TIMEOUT_S
from grym_fetch.transfer.fetcher import attempts_of
from grym_fetch.transfer.readers import Readers
from grym_fetch.transfer.result import FetchResult, TransferResult

DEFAULT_SIZE_BYTES = 1_000_000
"""The size of an asset for which none is given, in bytes."""
PROGRESS_REPORTS = 4
"""How many progress events one download emits; the last one has every byte."""
PLACE = Path("/mock")
"""Where the project, its manifest and its folders would be."""


class Call(NamedTuple):
    """A call by the code under test: the method's name, and its arguments by name, as they were given."""

    name: str
    arguments: Mapping[str, object]


M = TypeVar("M", bound="MockAssetManager")
P = ParamSpec("P")
T = TypeVar("T")
_inside: ContextVar[bool] = ContextVar("inside a call of a mock", default=False)


def _recorded(
    method: Callable[Concatenate[M, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[M, P], Coroutine[Any, Any, T]]:
    """Return the method, recording each call that does not come from another method."""
    signature = inspect.signature(method)

    @functools.wraps(method)
    async def call(self: M, /, *args: P.args, **kwargs: P.kwargs) -> T:
        if _inside.get():
            return await method(self, *args, **kwargs)
        self.calls.append(_call(signature, method.__name__, self, *args, **kwargs))
        token = _inside.set(True)
        try:
            return await method(self, *args, **kwargs)
        finally:
            _inside.reset(token)

    return call


def _recorded_at_once(method: Callable[Concatenate[M, P], T]) -> Callable[Concatenate[M, P], T]:
    """The same for a method that is not awaited."""
    signature = inspect.signature(method)

    @functools.wraps(method)
    def call(self: M, /, *args: P.args, **kwargs: P.kwargs) -> T:
        self.calls.append(_call(signature, method.__name__, self, *args, **kwargs))
        return method(self, *args, **kwargs)

    return call


def _call(signature: inspect.Signature, name: str, /, *args: object, **kwargs: object) -> Call:
    given = dict(signature.bind(*args, **kwargs).arguments)
    del given["self"]
    return Call(name, given)


class MockAssetManager(AssetManager):
    """A simulated `AssetManager`. Create one with `create_mock_asset_manager`.

    ``paths``, ``fail``, ``sizes`` and ``missing`` may be changed at any time. ``calls`` has what the code under test
    has awaited, and `open_asset`, in order, but not what a callback such as ``on_status`` calls during another call.
    """

    def __init__(
        self,
        paths: Mapping[str, str | Path],
        *,
        fail: Mapping[str, Exception] | None = None,
        sizes: Mapping[str, int] | None = None,
        missing: Collection[str] = (),
    ) -> None:
        super().__init__(PLACE / "assets.json", minimal=False, environ={})
        self.paths: dict[str, str | Path] = dict(paths)
        self.fail: dict[str, Exception] = dict(fail or {})
        self.sizes: dict[str, int] = dict(sizes or {})
        self.missing: set[str] = set(missing)
        self.calls: list[Call] = []
        self._added: dict[str, Asset] = {}

    def _read_configuration(self) -> Configuration:
        return Configuration()

    @property
    def project(self) -> Project:
        """A project in a folder that is not looked at."""
        return Project(PLACE / "assets.json", PLACE, PLACE / "assets", PLACE / "external")

    @property
    def manifest(self) -> Manifest:
        """The assets of ``paths`` and ``fail``: required, but for those that were added as not required."""
        return Manifest(assets=tuple(self._play_asset(name) for name in dict.fromkeys((*self.paths, *self.fail))))

    def path_of(self, asset_id: str) -> Path:
        """The asset's supposed path."""
        return Path(self.paths.get(asset_id, PLACE / asset_id))

    def has(self, asset_id: str) -> bool:
        """Whether the asset is supposed to be there."""
        return asset_id not in self.missing and asset_id not in self.fail

    def _play_asset(self, asset_id: str) -> Asset:
        checksum, size = Checksum.of(asset_id.encode()), self.sizes.get(asset_id, DEFAULT_SIZE_BYTES)
        if (added := self._added.get(asset_id)) is not None:
            return replace(added, checksum=added.checksum or checksum, size=size)
        return Asset(
            id=asset_id,
            name=asset_id,
            url=f"https://mock.invalid/{asset_id}",
            local_path=str(self.path_of(asset_id)).lstrip("/"),
            checksum=checksum,
            size=size,
            required=True,
        )

    @cached_property
    def _freshness(self) -> FreshnessCheck:
        return _AlwaysFresh(self.project, allow_stale=True, now=self._clock.wall)

    def _size_of(self, asset_id: str, path: str) -> int | None:
        return self.sizes.get(asset_id, DEFAULT_SIZE_BYTES)

    # -- what is awaited: recorded, whether inherited or simulated --------------------------------------------------

    get_asset_path = _recorded(AssetManager.get_asset_path)
    download_asset = _recorded(AssetManager.download_asset)
    check_asset = _recorded(AssetManager.check_asset)
    check_all_assets = _recorded(AssetManager.check_all_assets)
    check_assets = _recorded(AssetManager.check_assets)
    download_required_assets = _recorded(AssetManager.download_required_assets)
    plan = _recorded(AssetManager.plan)
    sync = _recorded(AssetManager.sync)
    sync_assets = _recorded(AssetManager.sync_assets)
    adopt_assets = _recorded(AssetManager.adopt_assets)
    aclose = _recorded(AssetManager.aclose)

    @_recorded
    async def sync_on(
        self,
        cluster: object,
        ids: Collection[str] | None = None,
        *,
        tags: Collection[str] | None = None,
        all: bool = False,  # noqa: A002 - as the real one
        minimal: bool | None = None,
        force: bool = False,
        exclude: Collection[str] = (),
        each_node: bool = False,
    ) -> SyncReport:
        """As `sync`: no cluster is asked."""
        return await super().sync(ids, tags=tags, all=all, minimal=minimal, force=force, exclude=exclude)

    @_recorded
    async def sync_assets_on(
        self,
        cluster: object,
        assets: Collection[Asset],
        *,
        minimal: bool | None = None,
        force: bool = False,
        each_node: bool = False,
    ) -> SyncReport:
        """As `sync_assets`: no cluster is asked."""
        return await super().sync_assets(assets, force=force)

    async def _check(self, asset_id: str, *, full: bool) -> AssetStatus:
        return replace(await super()._check(asset_id, full=full), path=self.path_of(asset_id))

    @_recorded_at_once
    def open_asset(self, asset_id: str, *, unverified_ok: bool = False, keep_downloading: bool = False) -> AssetReader:
        """Read the file at the asset's path, which must be a real one. Raises `UnknownAsset`."""
        with suppress(OSError):
            self.sizes.setdefault(asset_id, self.path_of(asset_id).stat().st_size)
        return super().open_asset(asset_id, unverified_ok=True, keep_downloading=keep_downloading)

    @_recorded
    async def repair_asset(self, asset_id: str, *, dry_run: bool = False) -> RepairReport:
        """Find the asset intact. Raises `UnknownAsset`, `AssetMissing`, or the error that it is made to fail with."""
        if (failure := self.fail.get(asset_id)) is not None:
            raise failure
        if not self.has(self.manifest.get(asset_id).id):
            raise AssetMissing(asset_id, "no file is there to be repaired")
        return RepairReport(asset_id, self.path_of(asset_id), "intact")

    @_recorded
    async def initialize(self) -> None:
        """Get ready. There is no manifest to read."""
        self._ready()

    @_recorded
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
        """List an asset. Raises `ManifestError` if its id is in ``paths``."""
        if asset.id in self.paths:
            raise ManifestError("the mock's manifest", [Problem(f"asset {asset.id!r}", "id", "is taken")])
        self.paths[asset.id] = self.project.assets_dir / asset.local_path
        self._added[asset.id] = asset
        if asset.size is not None:
            self.sizes.setdefault(asset.id, asset.size)
        if not fetch and file is None:
            self.missing.add(asset.id)
        return self.manifest.get(asset.id)

    @_recorded
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
        """Raise `NotImplementedError`: there is no hub to ask."""
        raise NotImplementedError("a mock cannot add from a source: it has no network")

    @_recorded
    async def import_list(
        self,
        file: str | Path,
        *,
        format: str | None = None,  # noqa: A002 - as in the manager
        base_url: str | None = None,
        prefix: str | None = None,
        folder: str | None = None,
        required: bool = False,
        tags: Collection[str] = (),
        allow_suspicious: bool = False,
    ) -> tuple[Asset, ...]:
        """Raise `NotImplementedError`: there is no disk to read from."""
        raise NotImplementedError("a mock cannot import a list: it has no disk")

    @_recorded
    async def outdated(
        self,
        ids: Collection[str] | None = None,
        *,
        exclude: Collection[str] = (),
        on_found: Callable[[NewerVersion], object] | None = None,
    ) -> tuple[NewerVersion, ...]:
        """Return nothing: a mock's assets are never outdated. Raises `UnknownAsset`."""
        self.manifest.pick(ids, exclude=exclude)
        return ()

    @_recorded
    async def update(
        self,
        ids: Collection[str] | None = None,
        *,
        exclude: Collection[str] = (),
        dry_run: bool = False,
        allow_suspicious: bool = False,
        on_found: Callable[[NewerVersion], object] | None = None,
    ) -> tuple[NewerVersion, ...]:
        """Return nothing: there is nothing newer. Raises `UnknownAsset`."""
        return await self.outdated(ids, exclude=exclude)

    @_recorded
    async def update_asset(
        self,
        asset_id: str,
        address: str | None = None,
        *,
        dry_run: bool = False,
        allow_suspicious: bool = False,
        on_found: Callable[[NewerVersion], object] | None = None,
    ) -> NewerVersion | None:
        """Return None: there is nothing newer. Raises `UnknownAsset`."""
        self.manifest.get(asset_id)
        return None

    @_recorded
    async def remove_asset(self, asset_id: str, *, delete_file: bool = False) -> tuple[Path, ...]:
        """Remove an asset from the list. Raises `UnknownAsset`."""
        self.manifest.get(asset_id)
        deleted = (self.path_of(asset_id),) if delete_file and self.has(asset_id) else ()
        for kept in (self.paths, self.fail, self._added):
            kept.pop(asset_id, None)
        self.missing.discard(asset_id)
        return deleted

    @_recorded
    async def restore_asset(self, path: str | Path, *, force: bool = False) -> Path:
        """Mark a file as present, by its path, its placeholder's path, or its id. Raises `AssetMissing`."""
        for name in self.paths:
            place = self.path_of(name)
            if str(path) in (name, str(place), f"{place}.asset-ref"):
                self.missing.discard(name)
                return place
        raise AssetMissing(str(path), "is not one of the mock's assets")

    @_recorded
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
        """Raise `NotImplementedError`: there is nothing to measure."""
        raise NotImplementedError("a mock cannot pin: it has no disk")

    @_recorded
    async def prune(self, *, dry_run: bool = False, orphans: bool | Collection[str] = False) -> PruneReport:
        """Raise `NotImplementedError`: there are no leftovers."""
        raise NotImplementedError("a mock cannot prune: it has no disk")

    # -- the simulation ---------------------------------------------------------------------------------------------

    def _open_engine(self) -> AssetEngine:
        """Return a simulated engine."""
        return _MockEngine(self, self._emit_and_settle)

    async def _emit_and_settle(self, event: Event) -> None:
        self._bus.emit(event)
        await asyncio.sleep(0)
        # Every callback sees every step, however busy the machine is, unless it hangs.
        await self._bus.settle(grace=None, stuck=CALLBACK_TIMEOUT_S)


class _AlwaysFresh(FreshnessCheck):
    """A mock's manifest is always fresh, and leaves no trace."""

    def why_stale(self, manifest: ManifestSource) -> str | None:
        return None

    async def remember(self, manifest: ManifestSource) -> None:
        pass


@dataclass(frozen=True, slots=True)
class _MockLocalFiles:
    """Implements `FileFinder`."""

    owner: MockAssetManager

    def places(self, asset: Asset) -> list[Path]:
        return [self.owner.path_of(asset.id)]

    def find_verified(self, asset: Asset) -> str | None:
        return str(self.owner.path_of(asset.id)) if self.owner.has(asset.id) else None

    def has_stages(self) -> bool:
        return False

    def look(self, asset: Asset) -> Look:
        path = self.find_verified(asset)
        return Look(Presence.NOTHING) if path is None else Look(Presence.VERIFIED, path)

    def look_at(self, assets: Iterable[Asset]) -> Iterator[Look]:
        return map(self.look, assets)

    async def find(
        self,
        asset: Asset,
        *,
        full: bool = False,
        on_hashing: Callable[[int, int], None],
    ) -> Found | None:
        path = self.find_verified(asset)
        return None if path is None else Found(Path(path), None, verified=True)


@dataclass(frozen=True, slots=True)
class _MockFetcher:
    """Implements `AssetFetcher`."""

    owner: MockAssetManager
    emit: Callable[[Event], Awaitable[None]]
    count: Callable[[int], None]

    def staged_bytes(self, assets: Sequence[Asset]) -> list[int]:
        return [0] * len(assets)

    def readers(self, asset: Asset) -> Readers:
        return Readers()

    async def examine(self, asset: Asset) -> tuple[Found | None, Damage | None]:
        return None, None

    async def adopt(self, asset: Asset) -> FetchResult | None:
        return FetchResult(self.owner.path_of(asset.id), None) if self.owner.has(asset.id) else None

    async def fetch(self, asset: Asset, *, force: bool = False, repair: bool = False, rank: int = 0) -> FetchResult:
        try:
            return await self._download(asset, self.owner.fail.get(asset.id))
        except Exception as error:
            if isinstance(error, GrymFetchError):
                error.asset_id = error.asset_id or asset.id
            attempts = attempts_of(error) if isinstance(error, GrymFetchError) else ()
            kind = type(error).__name__
            await self.emit(AssetFailed(asset=asset.id, error=kind, message=str(error), attempts=attempts))
            raise

    async def _download(self, asset: Asset, failure: Exception | None) -> FetchResult:
        """Emit the events of one download, up to the error if there is one."""
        size, checksum = asset.size, asset.checksum
        assert size is not None
        assert checksum is not None
        if isinstance(failure, UnpinnedAsset | AssetMissing | ManifestError):
            raise failure
        await self.emit(AssetPlanned(asset=asset.id, size=size, resumed_bytes=0))
        if failure is not None and not isinstance(failure, IntegrityError):
            raise failure
        for step in range(1, PROGRESS_REPORTS + 1):
            have = size * step // PROGRESS_REPORTS
            progress = ProgressMade(
                asset=asset.id, bytes=have, total=size, rate=float(size), eta=1 - step / PROGRESS_REPORTS
            )
            await self.emit(progress)
        await self.emit(AssetVerifying(asset=asset.id, bytes=size, total=size))
        if failure is not None:
            raise failure
        self.count(size)
        self.owner.missing.discard(asset.id)
        path = self.owner.path_of(asset.id)
        await self.emit(
            AssetVerified(
                asset=asset.id,
                path=str(path),
                checksum=str(checksum),
                size=size,
                seconds=0.0,
                downloaded_bytes=size,
            )
        )
        return FetchResult(path, TransferResult(path=path, size=size, checksum=checksum, downloaded=size))


class _MockSmallFetcher:
    """Implements `SmallAssetFetcher`: no asset is small."""

    def choose(self, assets: Sequence[Asset]) -> list[Asset]:
        return []

    async def fetch(self, assets: Sequence[Asset], on_fetched: Callable[[Asset, FetchResult], None]) -> list[Asset]:
        return list(assets)


class _MockStore:
    """Implements `FreeSpace`: a disk that is never full."""

    async def check_usable(self) -> None:
        """There is always room."""

    async def free_bytes(self) -> int:
        return 1 << 50


class _MockEngine:
    """Implements `AssetEngine`."""

    def __init__(self, owner: MockAssetManager, emit: Callable[[Event], Awaitable[None]]) -> None:
        self.received = 0
        self.local_files = _MockLocalFiles(owner)
        self.fetcher = _MockFetcher(owner, emit, self._count)
        self.small_fetcher = _MockSmallFetcher()
        self.assets_folder = _MockStore()
        self.max_active_assets = 4

    def adopter(self, places: Sequence[Path]) -> AssetAdopter:
        return self.fetcher

    def is_stored(self, asset: Asset) -> bool:
        return False

    def is_unpacked(self, asset: Asset, archive: Path) -> bool:
        return True

    async def find_unpacked(self, asset: Asset, archive: Path, on_read: Callable[[int, int], None]) -> bool:
        return True

    def _count(self, received: int) -> None:
        self.received += received

    async def tidy(self, present: Sequence[Asset]) -> None:
        """Do nothing: nothing is ever left behind."""

    async def aclose(self) -> None:
        """Do nothing: there is nothing to close."""


def create_mock_asset_manager(
    paths: Mapping[str, str | Path],
    *,
    fail: Mapping[str, Exception] | None = None,
    sizes: Mapping[str, int] | None = None,
    missing: Collection[str] = (),
) -> MockAssetManager:
    """Return a mock of `AssetManager` that touches no network, and of the disk only a file that `open_asset` reads.

    Args:
        paths: what `get_asset_path` returns, by id. Ids that are neither here nor in ``fail`` raise `UnknownAsset`.
        fail: the error that fetching an asset raises, by id; such an asset is missing.
        sizes: bytes, by id; default 1,000,000.
        missing: ids of assets that are missing until they are fetched.
    """
    return MockAssetManager(paths, fail=fail, sizes=sizes, missing=missing)

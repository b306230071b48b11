"""A mock of `grym_fetch.AssetManager` for unit tests: the whole interface, no network and no disk.

::

    manager = create_mock_asset_manager({"audioldm-s-full": "/mock/path/to/model.ckpt"})
    path = await manager.get_asset_path("audioldm-s-full")

Rules: it *is* an `AssetManager`, over an engine that only plays. So a method that is added there exists here, and the
events of a run come from the code that emits the real ones; a test compares the two. Nothing is drawn by lot and nobody
waits: the same calls give the same events.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import AssetMissing, GrymFetchError, IntegrityError, ManifestError, Problem, UnpinnedAsset
from grym_fetch.core.events import AssetFailed, AssetPlanned, AssetVerified, AssetVerifying, Event, ProgressMade
from grym_fetch.core.manifest import Asset, Manifest
from grym_fetch.disk.local_files import Found
from grym_fetch.disk.project import Project
from grym_fetch.engine.engine import Engine
from grym_fetch.manager import AssetManager
from grym_fetch.settings import Settings
from grym_fetch.transfer.fetcher import attempts_of
from grym_fetch.transfer.result import FetchResult, TransferResult

DEFAULT_SIZE = 1_000_000
"""Bytes of an asset whose size was not given."""
STEPS = 4
"""Reports of progress in one download; the last one has every byte."""
PLACE = Path("/mock")
"""Where the project, its manifest and its folders would be."""


class Call(NamedTuple):
    """A call that the code under test has made: the method's name, and its arguments by name, as they were given."""

    name: str
    arguments: Mapping[str, object]


class MockAssetManager(AssetManager):
    """An `AssetManager` that only plays. Make one with `create_mock_asset_manager`.

    ``paths``, ``fail``, ``sizes`` and ``missing`` may be changed at any time. ``calls`` has every awaited call that the
    code under test made, in order; calls that the manager makes itself are not in it.
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

    @property
    def project(self) -> Project:
        """Places that do not exist."""
        return Project(PLACE / "assets.json", PLACE, PLACE / "assets", PLACE / "external")

    @property
    def manifest(self) -> Manifest:
        """The assets of ``paths`` and ``fail``, every one of them required."""
        return Manifest(assets=tuple(self._play_asset(name) for name in dict.fromkeys((*self.paths, *self.fail))))

    def path_of(self, asset_id: str) -> Path:
        """Where the asset is said to be."""
        return Path(self.paths.get(asset_id, PLACE / asset_id))

    def has(self, asset_id: str) -> bool:
        """Whether the asset is said to be there."""
        return asset_id not in self.missing and asset_id not in self.fail

    def _play_asset(self, asset_id: str) -> Asset:
        checksum, size = Checksum.of(asset_id.encode()), self.sizes.get(asset_id, DEFAULT_SIZE)
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

    def play_adding(self, asset: Asset, *, fetched: bool) -> Asset:
        """List an asset. Raises `ManifestError` if its id is taken."""
        if asset.id in self.paths:
            raise ManifestError("the mock's manifest", [Problem(f"asset {asset.id!r}", "id", "is taken")])
        self.paths[asset.id] = self.project.assets_dir / asset.local_path
        self._added[asset.id] = asset
        if asset.size is not None:
            self.sizes.setdefault(asset.id, asset.size)
        if not fetched:
            self.missing.add(asset.id)
        return self.manifest.get(asset.id)

    def play_removing(self, asset_id: str, *, delete_file: bool) -> tuple[Path, ...]:
        """List an asset no more. Raises `UnknownAsset`."""
        self.manifest.get(asset_id)
        deleted = (self.path_of(asset_id),) if delete_file and self.has(asset_id) else ()
        for kept in (self.paths, self.fail, self._added):
            kept.pop(asset_id, None)
        self.missing.discard(asset_id)
        return deleted

    def play_restoring(self, path: str) -> Path:
        """Say that a file is there: by its path, its placeholder's, or its id. Raises `AssetMissing`."""
        for name in self.paths:
            place = self.path_of(name)
            if path in (name, str(place), f"{place}.asset-ref"):
                self.missing.discard(name)
                return place
        raise AssetMissing(path, "is not one of the mock's assets")

    async def play_starting(self) -> None:
        """Do what is done before the first call."""
        self._ready()

    def why_stale(self) -> str | None:
        """A mock's manifest is always fresh."""
        return None

    def _refuse_stale(self) -> None:
        """A mock's manifest is always fresh."""

    async def _accept(self) -> None:
        """Leave no trace."""

    def _make_engine(self, _: Settings) -> Engine:
        return cast(Engine, _MockEngine(self, self._emit_and_settle))

    async def _emit_and_settle(self, event: Event) -> None:
        self._bus.emit(event)
        await asyncio.sleep(0)
        await self._bus.settle()  # so that every callback sees every step, whatever the machine has to do besides


@dataclass(frozen=True, slots=True)
class _MockLocalFiles:
    """The part of a `LocalFiles` that the manager asks."""

    owner: MockAssetManager

    def find_verified(self, asset: Asset) -> Path | None:
        return self.owner.path_of(asset.id) if self.owner.has(asset.id) else None

    def has_stages(self) -> bool:
        return False

    def is_there(self, asset: Asset) -> bool:
        return self.owner.has(asset.id)

    async def find(self, asset: Asset, **_: object) -> Found | None:
        path = self.find_verified(asset)
        return None if path is None else Found(path, None, verified=True)


@dataclass(frozen=True, slots=True)
class _MockFetcher:
    """The part of a `Fetcher` that the manager asks: it plays one download."""

    owner: MockAssetManager
    emit: Callable[[Event], Awaitable[None]]
    count: Callable[[int], None]

    def staged_bytes(self, _: Asset) -> int:
        return 0

    async def fetch(self, asset: Asset, **_: object) -> FetchResult:
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
        """The events of one download: an error comes at the point where the real one would come."""
        size, checksum = asset.size, asset.checksum
        assert size is not None
        assert checksum is not None
        if isinstance(failure, UnpinnedAsset | AssetMissing | ManifestError):
            raise failure
        await self.emit(AssetPlanned(asset=asset.id, size=size, resumed_bytes=0))
        if failure is not None and not isinstance(failure, IntegrityError):
            raise failure
        for step in range(1, STEPS + 1):
            have = size * step // STEPS
            progress = ProgressMade(asset=asset.id, bytes=have, total=size, rate=float(size), eta=1 - step / STEPS)
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
    """The part of a `SmallFileFetcher` that the coordinator asks: no asset is small."""

    def choose(self, _: Sequence[Asset]) -> list[Asset]:
        return []


class _MockStore:
    """The part of a `DiskStore` that the manager asks: a disk that is never full."""

    async def free_bytes(self) -> int:
        return 1 << 50


class _MockEngine:
    """What the coordinator asks of an `Engine`."""

    def __init__(self, owner: MockAssetManager, emit: Callable[[Event], Awaitable[None]]) -> None:
        self.received = 0
        self.local_files = _MockLocalFiles(owner)
        self.fetcher = _MockFetcher(owner, emit, self._count)
        self.small_fetcher = _MockSmallFetcher()
        self.store = _MockStore()
        self.max_active_assets = 4

    def is_unpacked(self, _: Asset, archive: Path) -> bool:  # noqa: ARG002 - named as it is called
        return True

    def _count(self, received: int) -> None:
        self.received += received

    async def tidy(self, _: Sequence[Asset]) -> None:
        """Nothing is ever left."""

    async def aclose(self) -> None:
        """Nothing to close."""


_inside: ContextVar[bool] = ContextVar("inside a call of a mock", default=False)


def _recorded(method: Callable[..., Coroutine[Any, Any, object]]) -> Callable[..., Coroutine[Any, Any, object]]:
    """The method, noting each call that does not come from another method."""
    signature = inspect.signature(method)

    @functools.wraps(method)
    async def call(self: MockAssetManager, *args: object, **kwargs: object) -> object:
        if _inside.get():
            return await method(self, *args, **kwargs)
        given = dict(signature.bind(self, *args, **kwargs).arguments)
        del given["self"]
        self.calls.append(Call(method.__name__, given))
        token = _inside.set(True)
        try:
            return await method(self, *args, **kwargs)
        finally:
            _inside.reset(token)

    return call


async def _initialize(self: MockAssetManager) -> None:
    await self.play_starting()


async def _add_asset(self: MockAssetManager, asset: Asset, *, fetch: bool = False, file: Path | None = None) -> Asset:
    return self.play_adding(asset, fetched=fetch or file is not None)


async def _remove_asset(self: MockAssetManager, asset_id: str, *, delete_file: bool = False) -> tuple[Path, ...]:
    return self.play_removing(asset_id, delete_file=delete_file)


async def _restore_asset(self: MockAssetManager, path: str | Path, **_: object) -> Path:
    return self.play_restoring(str(path))


def _unplayed(method: Callable[..., Coroutine[Any, Any, object]]) -> Callable[..., Coroutine[Any, Any, object]]:
    """A stop for a method that would touch the disk."""

    @functools.wraps(method)
    async def call(self: MockAssetManager, *args: object, **kwargs: object) -> object:
        raise NotImplementedError(f"a mock cannot {method.__name__}: it has no disk")

    return call


# The awaited methods that need nothing but the parts above.
_INHERITED = frozenset({"aclose", "get_asset_path", "download_asset", "check_asset", "check_all_assets"})
_INHERITED |= {"download_required_assets", "plan", "sync", "sync_assets"}
# Those that need others.
_IMITATED: Mapping[str, Callable[..., Coroutine[Any, Any, object]]] = {
    "initialize": _initialize,
    "add_asset": _add_asset,
    "remove_asset": _remove_asset,
    "restore_asset": _restore_asset,
}

for _name, _method in vars(AssetManager).items():
    if inspect.iscoroutinefunction(_method) and not _name.startswith("_"):
        _played: Callable[..., Coroutine[Any, Any, object]] = _method if _name in _INHERITED else _unplayed(_method)
        if _name in _IMITATED:
            _played = functools.wraps(_method)(_IMITATED[_name])
        setattr(MockAssetManager, _name, _recorded(_played))


def create_mock_asset_manager(
    paths: Mapping[str, str | Path],
    *,
    fail: Mapping[str, Exception] | None = None,
    sizes: Mapping[str, int] | None = None,
    missing: Collection[str] = (),
) -> MockAssetManager:
    """Return a mock of `AssetManager` that touches neither network nor disk.

    Args:
        paths: what `get_asset_path` answers, by id. Other ids raise `UnknownAsset`.
        fail: the error that fetching an asset raises, by id; such an asset is not there.
        sizes: bytes, by id; 1,000,000 where nothing is said.
        missing: ids of assets that are not there until they are fetched. All others are there and valid from the
            start; `download_asset` plays a whole download all the same, for its events.
    """
    return MockAssetManager(paths, fail=fail, sizes=sizes, missing=missing)

"""The coordinator: several callers that want one asset, and one caller that wants many.

Rules: callers that want the same asset share one fetch; if one goes away, the others are not affected, and when the
last one leaves, the fetch ends. A run over many assets reports the outcome of each exactly once, whatever happens to
the others.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter
from collections.abc import Collection, Coroutine, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from grym_fetch.core.errors import DiskFull, GrymFetchError, StorageError, SyncFailed
from grym_fetch.core.events import AssetFailed, AssetReused, RunFinished, RunStarted
from grym_fetch.core.figures import lacking
from grym_fetch.core.manifest import Asset, AssetBatches, in_batches, known_bytes
from grym_fetch.core.text import safe_text
from grym_fetch.disk.local_files import Look, Presence
from grym_fetch.engine.protocol import AssetEngine
from grym_fetch.engine.reports import PathsById, SyncPlan, SyncReport
from grym_fetch.runtime.bus import EventBus
from grym_fetch.runtime.waiting import wait_uncancelled

if TYPE_CHECKING:
    # The fetching modules are imported only when needed: see the engine.
    from grym_fetch.core.world import Clock
    from grym_fetch.transfer.result import FetchResult

log = logging.getLogger(__name__)

R = TypeVar("R")
_Key = tuple[str, bool, bool, bool]


def _key(asset: Asset, *, force: bool = False, repair: bool = False) -> _Key:
    """What identifies a fetch."""
    return asset.id, asset.is_stand_in, force, repair


@dataclass(eq=False, slots=True)
class _Flight:
    """A fetch in progress, and how many wait for it."""

    asset: Asset
    task: asyncio.Task[FetchResult]
    waiters: int = 0
    is_ending: bool = False
    """Whether it was cancelled because nobody was waiting any longer; it has yet to release what it holds."""


@dataclass(slots=True)
class _Tally:
    """The outcome of each asset in a run."""

    verified: list[str] = field(default_factory=list)
    unverified: list[str] = field(default_factory=list)
    reused: list[str] = field(default_factory=list)
    failed: dict[str, GrymFetchError] = field(default_factory=dict)
    paths: dict[str, Path | str] = field(default_factory=dict)
    cause: GrymFetchError | None = None
    """Why nothing, or nothing more, could be fetched."""
    _ends: list[_Key] = field(default_factory=list)

    def found(self, asset: Asset, path: Path | str) -> None:
        """The asset was there."""
        self._end(asset, self.reused, path)

    def fetched(self, asset: Asset, result: FetchResult) -> None:
        """The asset was requested, and is there."""
        if result.fetched is None:
            self.found(asset, result.path)
        else:
            self._end(asset, self.verified if asset.pinned else self.unverified, result.path)

    def lost(self, asset: Asset, error: GrymFetchError) -> None:
        """The asset could not be fetched."""
        self._ends.append(_key(asset))
        self.failed[asset.id] = error

    def _end(self, asset: Asset, ids: list[str], path: Path | str) -> None:
        self._ends.append(_key(asset))
        ids.append(asset.id)
        self.paths[asset.id] = path

    def check(self, assets: Iterable[Asset]) -> None:
        """Raise `RuntimeError` unless each of these has ended exactly once: a run must never be called good by mistake.

        The error names the assets, because nothing else has reported them.
        """
        ends = Counter(self._ends)
        wrong = {asset.id: count for asset in assets if (count := ends[_key(asset)]) != 1}
        if wrong:
            told = ", ".join(f"{safe_text(asset_id)} ended {count} times" for asset_id, count in wrong.items())
            raise RuntimeError(f"a bug in grym-fetch: every asset of a sync must end exactly once, but {told}")


class Coordinator:
    """Decides what one engine fetches for whom, in its event loop."""

    def __init__(self, engine: AssetEngine, bus: EventBus, clock: Clock, *, assets_dir: Path, offline: bool) -> None:
        self.engine = engine
        self._bus = bus
        self._clock = clock
        self._assets_dir = assets_dir
        self._offline = offline
        self._flights: dict[_Key, _Flight] = {}
        self._together: dict[_Key, asyncio.Event] = {}
        """Small assets under way together; set when one is in place or left over."""
        self._runs: set[asyncio.Task[Any]] = set()
        self._ranks = 0

    async def aclose(self) -> None:
        """End runs and fetches under way (what has arrived is kept; waiting callers are cancelled), and the engine."""
        work: list[asyncio.Task[Any]] = [*self._runs, *(flight.task for flight in self._flights.values())]
        for task in work:
            task.cancel()
        try:
            await wait_uncancelled(work)
        finally:
            await self.engine.aclose()

    # -- one asset --------------------------------------------------------------------------------------------------

    async def fetch(self, asset: Asset, *, force: bool = False) -> FetchResult:
        """Wait until the asset is fetched, and start the fetch if no one has. Raises what `Fetcher.fetch` raises."""
        result = await self._fetch(asset, force=force)
        await self._bus.settle()
        return result

    async def repair(self, asset: Asset) -> FetchResult:
        """`fetch`, but a file that is there is read, whatever is known of it. Raises the same."""
        result = await self._fetch(asset, force=False, repair=True)
        await self._bus.settle()
        return result

    def begin(self, asset: Asset) -> asyncio.Task[FetchResult]:
        """`fetch` in a task, which may also be left alone: it ends with this coordinator at the latest."""
        run = asyncio.get_running_loop().create_task(self.fetch(asset), name=f"read {asset.id}")
        self._runs.add(run)
        run.add_done_callback(self._run_ended)
        return run

    def _run_ended(self, run: asyncio.Task[FetchResult]) -> None:
        self._runs.discard(run)
        if not run.cancelled():
            run.exception()  # events have told it; whoever still reads gets it as well

    async def _fetch(self, asset: Asset, *, force: bool, repair: bool = False) -> FetchResult:
        key = _key(asset, force=force, repair=repair)
        while not force and (together := self._together.get(key)) is not None:
            await together.wait()
        # What the manifest said before a change is no answer to what it says now.
        while (flight := self._flights.get(key)) is not None and (flight.is_ending or flight.asset != asset):
            await asyncio.wait([flight.task])
        if flight is None:
            self._ranks += 1
            work = self.engine.fetcher.fetch(asset, force=force, repair=repair, rank=self._ranks)
            task = asyncio.get_running_loop().create_task(work, name=f"fetch {asset.id}")
            flight = self._flights[key] = _Flight(asset, task)
            task.add_done_callback(lambda done: self._landed(key, done))
        flight.waiters += 1
        try:
            return await asyncio.shield(flight.task)
        except asyncio.CancelledError:
            if flight.waiters == 1 and not flight.task.done():
                flight.is_ending = True
                flight.task.cancel()
                await wait_uncancelled([flight.task])
            raise
        finally:
            flight.waiters -= 1

    def _landed(self, key: _Key, task: asyncio.Task[FetchResult]) -> None:
        if (flight := self._flights.get(key)) is not None and flight.task is task:
            del self._flights[key]
        if not task.cancelled():
            task.exception()  # retrieved: each waiter gets it on its own, and there may be none left

    # -- many assets ------------------------------------------------------------------------------------------------

    async def plan(self, assets: Collection[Asset], *, force: bool = False) -> SyncPlan:
        """Return what fetching these would take. Reads no file: one of the right size counts as present."""
        local_files = self.engine.local_files
        present: list[Asset] = []
        unread: list[Asset] = []
        to_fetch: list[Asset] = []
        to_take: list[Asset] = []
        to_unpack: list[Asset] = []
        looks = itertools.repeat(Look(Presence.NOTHING)) if force else local_files.look_at(assets)
        for asset, look in zip(assets, looks, strict=False):
            is_stored = not force and not look.is_there and self.engine.is_stored(asset)
            (present if look.is_there else to_take if is_stored else to_fetch).append(asset)
            if look.presence is Presence.UNREAD and asset.pinned:  # nothing says what any other must be
                unread.append(asset)
            if asset.extract and (
                look.path is None or not await asyncio.to_thread(self.engine.is_unpacked, asset, Path(look.path))
            ):
                to_unpack.append(asset)
        staged = 0
        if to_fetch and local_files.has_stages():
            counts = self.engine.fetcher.staged_bytes(to_fetch)
            staged = sum(min(count, asset.size or 0) for asset, count in zip(to_fetch, counts, strict=True))
        size = sum(asset.size or 0 for asset in to_fetch)
        return SyncPlan(
            present=tuple(present),
            to_fetch=tuple(to_fetch),
            bytes_to_fetch=size - staged,
            bytes_staged=staged,
            unknown_sizes=sum(asset.size is None for asset in to_fetch),
            space_needed=size - staged,
            space_free=await self.engine.assets_folder.free_bytes(),
            unread=tuple(unread),
            to_take=tuple(to_take),
            to_unpack=tuple(to_unpack),
        )

    async def sync(self, assets: Collection[Asset], *, force: bool = False) -> SyncReport:
        """Make these present and verified. Raises `SyncFailed` if any of them failed; the others are there then.

        If the run would not fit on the disk, the cause is a `DiskFull`.
        """
        if isinstance(assets, AssetBatches):
            return await self.run(self._sync_long(assets, len(assets), force=force))
        report, cause = await self.run(self._sync_held(assets, force=force))
        if report.failed:
            raise SyncFailed(report.failed) from cause
        return report

    async def sync_some(self, assets: Collection[Asset], *, force: bool = False) -> SyncReport:
        """`sync`, but failures are in the report only: these are some of the assets of a longer run."""
        return (await self.run(self._sync_held(assets, force=force)))[0]

    async def run(self, work: Coroutine[Any, Any, R]) -> R:
        """Do this in a task of its own, so that closing the manager in the middle of it ends it, and it alone."""
        run = asyncio.get_running_loop().create_task(work, name="sync")
        self._runs.add(run)
        run.add_done_callback(self._runs.discard)
        return await run

    async def _sync_held(self, assets: Collection[Asset], *, force: bool) -> tuple[SyncReport, GrymFetchError | None]:
        assets = list({_key(asset): asset for asset in assets}.values())
        began, received = self._clock.monotonic(), self.engine.received
        self._bus.emit(RunStarted(assets=len(assets), bytes=sum(asset.size or 0 for asset in assets)))
        tally = _Tally()
        try:
            await self._sync_some(assets, tally, force=force)
        finally:
            report = SyncReport(
                verified=tuple(tally.verified),
                unverified=tuple(tally.unverified),
                reused=tuple(tally.reused),
                failed=tally.failed,
                paths=PathsById(tally.paths),
                downloaded_bytes=self.engine.received - received,
                seconds=self._clock.monotonic() - began,
            )
            self._finish(report, len(tally.failed))
        await self._bus.settle()
        return report, tally.cause

    async def _sync_long(self, assets: AssetBatches, count: int, *, force: bool) -> SyncReport:
        """A run over more assets than are held: batch after batch, as one run."""
        from grym_fetch.engine.ledger import Ledger  # most runs need no SQLite

        began, received = self._clock.monotonic(), self.engine.received
        self._bus.emit(RunStarted(assets=count, bytes=assets.known_bytes()))
        ledger = Ledger()
        cause: GrymFetchError | None = None
        try:
            if not self._offline:
                cause = await self.why_too_much(assets, force=force)
            is_too_much = cause is not None
            batches = assets.batches()
            while batch := await asyncio.to_thread(next, batches, None):
                tally = _Tally(cause=cause)
                try:
                    await self._sync_some(batch, tally, force=force, is_too_much=is_too_much)
                    cause = tally.cause
                finally:
                    for kind in ("verified", "unverified", "reused"):
                        ledger.add(kind, getattr(tally, kind), tally.paths)
                    ledger.add_failures(tally.failed)
        finally:
            report = SyncReport(
                verified=ledger.ids("verified"),
                unverified=ledger.ids("unverified"),
                reused=ledger.ids("reused"),
                failed=ledger.failed,
                paths=PathsById(ledger.paths()),
                downloaded_bytes=self.engine.received - received,
                seconds=self._clock.monotonic() - began,
            )
            self._finish(report, ledger.failures)
        await self._bus.settle()
        if ledger.failures:
            if (more := ledger.failures - len(ledger.failed)) > 0:
                log.error("%d more assets failed, whose errors are in the events only", more)
            raise SyncFailed(ledger.failed) from cause
        return report

    def _finish(self, report: SyncReport, failures: int) -> None:
        self._bus.emit(
            RunFinished(
                verified=len(report.verified),
                unverified=len(report.unverified),
                reused=len(report.reused),
                failed=failures,
                downloaded_bytes=report.downloaded_bytes,
                seconds=round(report.seconds, 3),
            )
        )

    async def _sync_some(
        self, assets: Collection[Asset], tally: _Tally, *, force: bool, is_too_much: bool | None = None
    ) -> None:
        """Make these present and verified. ``is_too_much``: whether it is known that the whole run does not fit."""
        remaining = await self._without_verified(assets, tally, force=force)
        if remaining:
            await self._bus.heard()
        if remaining and not self._offline:
            if is_too_much is None:
                remaining = await self._without_what_is_too_much(remaining, tally, force=force)
            elif is_too_much and tally.cause is not None:
                remaining = self._without_fetching(await self.plan(remaining, force=force), tally, tally.cause)
        await self._fetch_all(remaining, tally, force=force)
        tally.check(assets)
        await self.engine.tidy([asset for asset in assets if asset.id in tally.paths])

    async def _without_verified(self, assets: Collection[Asset], tally: _Tally, *, force: bool) -> list[Asset]:
        """Report those known to be there; return the others."""
        if force:
            return list(assets)
        remaining = []
        for asset, look in zip(assets, self.engine.local_files.look_at(assets), strict=True):
            if look.path is None or asset.extract:
                remaining.append(asset)
                continue
            if self._bus.is_heard:
                self._bus.emit(AssetReused(asset=asset.id, path=look.path))
            tally.found(asset, look.path)
            if len(tally.reused) % 100 == 0:
                await asyncio.sleep(0)  # let listeners keep up
        return remaining

    async def _without_what_is_too_much(self, assets: list[Asset], tally: _Tally, *, force: bool) -> list[Asset]:
        """If the assets to fetch do not all fit on the disk, fail all of them: better than fetching half."""
        if sum(asset.size or 0 for asset in assets) <= await self.engine.assets_folder.free_bytes():
            return assets  # whatever is there of them already
        plan = await self.plan(assets, force=force)
        if plan.space_needed <= plan.space_free:
            return assets
        tally.cause = error = self._too_much(plan.space_needed, plan.space_free)
        return self._without_fetching(plan, tally, error)

    async def why_too_much(self, assets: Collection[Asset] | AssetBatches, *, force: bool) -> DiskFull | None:
        """Return the error if what is to be fetched of all these does not fit on the disk."""
        if known_bytes(assets) <= (free := await self.engine.assets_folder.free_bytes()):
            return None
        needed, batches = 0, in_batches(assets)
        while batch := await asyncio.to_thread(next, batches, None):
            needed += (await self.plan(batch, force=force)).space_needed
        return self._too_much(needed, free) if needed > free else None

    def _too_much(self, needed: int, free: int) -> DiskFull:
        return DiskFull(
            safe_text(str(self._assets_dir)),
            f"not enough space: {lacking(needed, free)}; free some, or use --assets-dir; nothing was fetched",
        )

    def _without_fetching(self, plan: SyncPlan, tally: _Tally, error: GrymFetchError) -> list[Asset]:
        for asset in plan.to_fetch:
            self._give_up(asset, tally, error)
        return [*plan.present, *plan.to_take]

    def _give_up(self, asset: Asset, tally: _Tally, cause: GrymFetchError) -> None:
        """Fail an asset that is not tried."""
        self._bus.emit(AssetFailed(asset=asset.id, error=type(cause).__name__, message=str(cause)))
        tally.lost(asset, cause)

    async def _fetch_all(self, assets: list[Asset], tally: _Tally, *, force: bool) -> None:
        """Fetch these: small ones together, the others in parallel with them."""
        if not assets:
            return
        free = [] if force else [asset for asset in assets if _key(asset) not in self._flights]
        small = self.engine.small_fetcher.choose(free)
        chosen = {_key(asset) for asset in small}
        others = [asset for asset in assets if _key(asset) not in chosen]
        try:
            async with asyncio.TaskGroup() as group:
                if small:
                    group.create_task(self._fetch_together(small, tally))
                group.create_task(self._fetch_each(others, tally, force=force))
        except ExceptionGroup as unexpected:
            # A bug, or an error of a mock's: it is raised as it would be for one asset alone.
            raise _first_of(unexpected) from unexpected

    async def _fetch_together(self, assets: list[Asset], tally: _Tally) -> None:
        def on_fetched(asset: Asset, result: FetchResult) -> None:
            tally.fetched(asset, result)
            self._together.pop(_key(asset)).set()

        mine = {_key(asset): asset for asset in assets if _key(asset) not in self._together}
        self._together |= {key: asyncio.Event() for key in mine}
        try:
            left_over = await self.engine.small_fetcher.fetch(list(mine.values()), on_fetched)
        finally:
            # Callers waiting for one of these may now take the long way.
            for key in mine.keys() & self._together.keys():
                self._together.pop(key).set()
        left_over += [asset for asset in assets if _key(asset) not in mine]
        await self._fetch_each(left_over, tally, force=False)

    async def _why_nothing_fits(self) -> StorageError | None:
        try:
            await self.engine.assets_folder.check_usable()
        except StorageError as error:
            return error
        return None

    async def _fetch_each(self, assets: list[Asset], tally: _Tally, *, force: bool) -> None:
        """Fetch these, a few at a time and in order: enough to keep every connection busy while others verify.

        Once the disk takes nothing more, only files that are there and just have to be read are still tried.
        """
        queue = iter(assets)

        async def fetch_some() -> None:
            for asset in queue:
                if tally.cause is not None and (force or not self.engine.local_files.look(asset).is_there):
                    self._give_up(asset, tally, tally.cause)
                    continue
                try:
                    tally.fetched(asset, await self._fetch(asset, force=force))
                except StorageError as error:
                    if tally.cause is None and len(assets) > 1:
                        cause = await self._why_nothing_fits()
                        tally.cause = tally.cause or cause  # several may have asked at once
                    # All that fail in the same way have one cause, which is reported once.
                    tally.lost(asset, tally.cause if tally.cause and type(tally.cause) is type(error) else error)
                except GrymFetchError as error:
                    tally.lost(asset, error)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(len(assets), self.engine.max_active_assets) if assets else 0):
                group.create_task(fetch_some())


def _first_of(error: Exception) -> Exception:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error

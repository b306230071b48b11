"""A sync on a cluster: what `AssetManager.sync_on` does, from the manager's own parts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from grym_fetch.cluster.driver import Driver, Tally
from grym_fetch.cluster.each_node import EachNodeDriver
from grym_fetch.cluster.node import digest_of
from grym_fetch.cluster.opening import opened_cluster
from grym_fetch.cluster.protocol import Job
from grym_fetch.cluster.work_list import WorkFolder, new_run
from grym_fetch.core.errors import SyncFailed
from grym_fetch.core.events import Event, RunFinished, RunStarted
from grym_fetch.core.manifest import Asset, known_bytes
from grym_fetch.core.world import Clock
from grym_fetch.engine.coordinator import Coordinator
from grym_fetch.engine.reports import PathsById, SyncReport
from grym_fetch.manifest_files.project import Project
from grym_fetch.runtime.threads import WorkerThreads
from grym_fetch.settings import Settings


@dataclass(frozen=True, slots=True)
class ClusterRun:
    """The parts of a manager that a run on a cluster needs. ``assets_dir``: the folder that the user has named."""

    project: Project
    settings: Settings
    coordinator: Coordinator
    emit: Callable[[Event], None]
    clock: Clock
    minimal: bool
    assets_dir: str | None

    async def sync(self, place: object, assets: Collection[Asset], *, force: bool, each_node: bool) -> SyncReport:
        """Have a cluster make these present and verified: in a shared folder, or on ``each_node``.

        Raises `SyncFailed` if any of them failed; the others are there then. Raises `ClusterError`.
        """
        began = self.clock.monotonic()
        self.emit(RunStarted(assets=len(assets), bytes=known_bytes(assets)))
        tally = Tally()
        try:
            if assets and each_node:
                await self._to_each(place, assets, tally, force=force)
            elif assets:
                await self._to_shared(place, assets, tally, force=force)
        finally:
            report = _report(tally, self.clock.monotonic() - began)
            self.emit(
                RunFinished(
                    verified=len(report.verified),
                    unverified=len(report.unverified),
                    reused=len(report.reused),
                    failed=tally.counts["failed"],
                    downloaded_bytes=report.downloaded_bytes,
                    seconds=round(report.seconds, 3),
                )
            )
        if tally.counts["failed"]:
            raise SyncFailed(report.failed)
        return report

    async def _to_shared(self, place: object, assets: Collection[Asset], tally: Tally, *, force: bool) -> None:
        local_files = self.coordinator.engine.local_files

        def find(some: Sequence[Asset]) -> Mapping[str, str]:
            looks = zip(some, local_files.look_at(some), strict=True)
            return {asset.id: look.path for asset, look in looks if look.path is not None and not asset.extract}

        if (too_much := await self.coordinator.why_too_much(assets, force=force)) is not None:
            raise too_much
        job = Job(
            run=new_run(),
            manifest=str(self.project.manifest_path),
            assets_dir=str(self.project.assets_dir),
            external_dir=str(self.project.external_dir),
            settings=self.settings,
            force=force,
        )
        threads = WorkerThreads("lists", 1)
        lists = WorkFolder(self.project.assets_dir, job.run)
        try:
            await threads.compute(lists.make)
            async with opened_cluster(place) as cluster:
                driver = Driver(
                    cluster,
                    job,
                    emit=self.emit,
                    clock=self.clock,
                    lists=lists,
                    threads=threads,
                    find=find,
                    tally=tally,
                )
                await driver.run(assets)
        finally:
            threads.close()
            lists.remove()

    async def _to_each(self, place: object, assets: Collection[Asset], tally: Tally, *, force: bool) -> None:
        threads = WorkerThreads("lists", 1)
        try:
            job = Job(
                run=new_run(),
                manifest=str(self.project.manifest_path),
                manifest_digest=await threads.compute(digest_of, self.project.manifest_path),
                assets_dir=self.assets_dir,
                external_dir=None,
                settings=self.settings,
                each_node=True,
                minimal=self.minimal,
                force=force,
            )
            async with opened_cluster(place) as cluster:
                lists = WorkFolder(self.project.assets_dir, job.run)  # not used: nothing is shared
                driver = EachNodeDriver(
                    cluster, job, emit=self.emit, clock=self.clock, lists=lists, threads=threads, tally=tally
                )
                await driver.run(assets)
        finally:
            threads.close()


def _report(tally: Tally, seconds: float) -> SyncReport:
    ledger = tally.ledger
    return SyncReport(
        verified=ledger.ids("verified"),
        unverified=ledger.ids("unverified"),
        reused=ledger.ids("reused"),
        failed=ledger.failed,
        paths=PathsById(ledger.paths()),
        downloaded_bytes=tally.received,
        seconds=seconds,
    )

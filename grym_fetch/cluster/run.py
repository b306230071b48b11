"""A sync on a cluster: what `AssetManager.sync_on` does, from the manager's own parts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from grym_fetch.cluster.driver import Driver, Tally
from grym_fetch.cluster.opening import opened_cluster
from grym_fetch.cluster.protocol import Job
from grym_fetch.cluster.work_list import WorkFolder, new_run
from grym_fetch.core.errors import SyncFailed
from grym_fetch.core.events import Event, RunFinished, RunStarted
from grym_fetch.core.manifest import Asset, known_bytes
from grym_fetch.core.world import Clock
from grym_fetch.disk.project import Project
from grym_fetch.engine.coordinator import Coordinator
from grym_fetch.engine.reports import PathsById, SyncReport
from grym_fetch.runtime.threads import WorkerThreads
from grym_fetch.settings import Settings


async def sync_on(
    place: object,
    assets: Collection[Asset],
    *,
    project: Project,
    settings: Settings,
    coordinator: Coordinator,
    emit: Callable[[Event], None],
    clock: Clock,
    force: bool,
) -> SyncReport:
    """Have a cluster make these present and verified in the folder that its nodes share.

    Raises `SyncFailed` if any of them failed; the others are there then. Raises `ClusterError`.
    """
    began = clock.monotonic()
    local_files = coordinator.engine.local_files

    def find(some: Sequence[Asset]) -> Mapping[str, str]:
        looks = zip(some, local_files.look_at(some), strict=True)
        return {asset.id: look.path for asset, look in looks if look.path is not None and not asset.extract}

    emit(RunStarted(assets=len(assets), bytes=known_bytes(assets)))
    tally = Tally()
    try:
        if assets:
            if (too_much := await coordinator.why_too_much(assets, force=force)) is not None:
                raise too_much
            run = new_run()
            lists = WorkFolder(project.assets_dir, run)
            job = Job(
                run=run,
                manifest=str(project.manifest_path),
                assets_dir=str(project.assets_dir),
                external_dir=str(project.external_dir),
                settings=settings,
                force=force,
            )
            threads = WorkerThreads("lists", 1)
            await threads.compute(lists.make)
            try:
                async with opened_cluster(place) as cluster:
                    driver = Driver(
                        cluster, job, emit=emit, clock=clock, lists=lists, threads=threads, find=find, tally=tally
                    )
                    await driver.run(assets)
            finally:
                threads.close()
                lists.remove()
    finally:
        report = _report(tally, clock.monotonic() - began)
        emit(
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

"""``--metrics FILE``: keeps a file in Prometheus' text format up to date while a sync runs.

Rules: the file is replaced as a whole, so whoever collects it never reads half of one. A write takes place in a thread:
a slow disk does not slow the run. Whatever becomes of the run, the last write tells it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from grym_fetch.cli.reporting import LOOK_S, write_whole
from grym_fetch.core.errors import StorageError
from grym_fetch.core.mirrors import addresses_of
from grym_fetch.core.text import redact_url
from grym_fetch.display.metrics import metrics_text
from grym_fetch.display.report import Report
from grym_fetch.runtime.threads import WorkerThreads

if TYPE_CHECKING:
    from grym_fetch.core.manifest import Asset
    from grym_fetch.manager import AssetManager

log = logging.getLogger(__name__)

WRITE_EVERY_S = 5.0
"""Between two writes, by the times of the events."""


@asynccontextmanager
async def metering(manager: AssetManager, assets: Iterable[Asset], path: Path) -> AsyncIterator[None]:
    """Write metrics of what happens in the block to ``path``. Raises `StorageError` if the last write alone fails."""
    rules = manager.settings.mirror_rules
    report = Report({asset.id: redact_url(addresses_of(asset, rules)[0]) for asset in assets})
    subscription = manager.events()
    thread = WorkerThreads("metrics", 1)

    async def follow() -> None:
        written = 0.0
        while await subscription.wait():
            take()
            if report.ended - written >= WRITE_EVERY_S:
                written = report.ended
                try:
                    await thread.compute(write_whole, path, metrics_text(report).encode())
                except StorageError as error:
                    log.warning("the metrics could not be written: %s", error)
            await asyncio.sleep(LOOK_S)

    def take() -> None:
        for event in subscription.drain():
            report.apply(event)

    task = asyncio.create_task(follow(), name="metrics")
    try:
        yield
    except BaseException:
        task.cancel()
        # Nothing is awaited here: a run that is interrupted has little time.
        try:
            take()
            write_whole(path, metrics_text(report).encode())
        except StorageError as error:
            log.warning("the metrics could not be written: %s", error)
        raise
    else:
        task.cancel()
        await asyncio.wait([task])  # so that an earlier write is not the last one
        take()
        write_whole(path, metrics_text(report).encode())
    finally:
        task.cancel()
        subscription.close()
        thread.close()

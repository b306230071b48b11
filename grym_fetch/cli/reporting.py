"""``--report FILE.html``: writes what a run was like, whatever became of it.

Rule: the page is written once, whole or not at all, and last: after a failure or an interruption, too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from grym_fetch.core.errors import StorageError
from grym_fetch.core.text import redact_url
from grym_fetch.disk.atomic import replace_file
from grym_fetch.disk.folders import opened_folder, storage_errors
from grym_fetch.display.page import report_page
from grym_fetch.display.report import Report

if TYPE_CHECKING:
    from grym_fetch.core.manifest import Asset
    from grym_fetch.manager import AssetManager

log = logging.getLogger(__name__)

LOOK_S = 0.1
"""Between two looks at what has happened: progress within it counts as one step."""


def write_page(path: Path, text: str) -> None:
    """Write a page, whole or not at all. Raises `StorageError`."""
    with storage_errors(path), opened_folder(path.absolute().parent) as folder:
        replace_file(folder, path.name, text.encode())


@asynccontextmanager
async def reporting(manager: AssetManager, assets: Iterable[Asset], path: Path | None) -> AsyncIterator[None]:
    """Write a page to ``path`` about what happens in the block. Raises `StorageError` if that alone fails."""
    if path is None:
        yield
        return
    report = Report({asset.id: redact_url(asset.urls[0]) for asset in assets})
    subscription = manager.events()

    async def follow() -> None:
        while await subscription.wait():
            take()
            await asyncio.sleep(LOOK_S)

    def take() -> None:
        for event in subscription.drain():
            report.apply(event)

    def write() -> None:
        take()
        write_page(path, report_page(report, str(manager.project.assets_dir)))

    task = asyncio.create_task(follow(), name="report")
    try:
        yield
    except BaseException:
        # Nothing is awaited here: a run that is interrupted has little time.
        try:
            write()
        except StorageError as error:
            log.warning("the report could not be written: %s", error)
        raise
    else:
        write()
    finally:
        task.cancel()
        subscription.close()

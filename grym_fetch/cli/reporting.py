"""``--report FILE``: writes what a run was like, whatever became of it: a page for people, or rows for programs.

Rule: the file is written once, whole or not at all, and last: after a failure or an interruption, too.
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
from grym_fetch.display.report import Report

if TYPE_CHECKING:
    from grym_fetch.core.manifest import Asset
    from grym_fetch.manager import AssetManager

log = logging.getLogger(__name__)

LOOK_S = 0.1
"""Between two looks at what has happened: progress within it counts as one step."""


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all. Raises `StorageError`."""
    with storage_errors(path), opened_folder(path.absolute().parent) as folder:
        replace_file(folder, path.name, content)


def written(report: Report, kind: str, place: str) -> bytes:
    """Return the content of a report in the form that belongs to a name's ending. ``place``: where the files are."""
    from grym_fetch.display import report_rows

    if kind == ".jsonl":
        return report_rows.as_json_lines(report)
    if kind == ".parquet":
        return report_rows.as_parquet(report)
    from grym_fetch.display.page import report_page

    return report_page(report, place).encode()


@asynccontextmanager
async def reporting(manager: AssetManager, assets: Iterable[Asset], path: Path) -> AsyncIterator[None]:
    """Write a report to ``path`` about what happens in the block. Raises `StorageError` if that alone fails."""
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
        write_whole(path, written(report, path.suffix.lower(), str(manager.project.assets_dir)))

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

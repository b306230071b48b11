"""``--report FILE``: writes what a run was like, whatever became of it: a page for people, or rows for programs.

Rule: the file is written once, whole or not at all, and last: after a failure or an interruption, too.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from grym_fetch.core.errors import StorageError, UnsafePath
from grym_fetch.core.text import redact_url, safe_text
from grym_fetch.disk.atomic import replace_file
from grym_fetch.disk.folders import opened_folder, read_regular, storage_errors
from grym_fetch.display.report import Report

if TYPE_CHECKING:
    from grym_fetch.core.manifest import Asset
    from grym_fetch.display.report_rows import Row
    from grym_fetch.manager import AssetManager

log = logging.getLogger(__name__)

ROWS = (".jsonl", ".parquet")
"""The endings of reports for programs."""
MAX_REPORT_BYTES = 1 << 30
"""The longest report of an earlier run that is continued."""
LOOK_S = 0.1
"""Between two looks at what has happened: progress within it counts as one step."""


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all. Raises `StorageError`, also for a device or a pipe that has its name."""
    with storage_errors(path), opened_folder(path.absolute().parent) as folder:
        with suppress(FileNotFoundError):
            # Through links: /dev/stdout is one, and root could replace it for the whole machine.
            if not stat.S_ISREG(os.stat(path.name, dir_fd=folder).st_mode):
                raise UnsafePath(safe_text(str(path)), "something that is not a file is in the way")
        replace_file(folder, path.name, content)


def written(report: Report, kind: str, place: str, earlier: Iterable[Row] = ()) -> bytes:
    """Return the content of a report in the form that belongs to a name's ending. ``place``: where the files are.

    ``earlier``: the rows of the run that it continues.
    """
    from grym_fetch.display import report_rows

    if kind == ".jsonl":
        return report_rows.as_json_lines(report, earlier)
    if kind == ".parquet":
        return report_rows.as_parquet(report, earlier)
    from grym_fetch.display.page import report_page

    return report_page(report, place).encode()


def _earlier(path: Path, kind: str) -> list[Row]:
    from grym_fetch.display.report_rows import read_rows

    try:
        return read_rows(read_regular(str(path), limit=MAX_REPORT_BYTES), kind)
    except OSError:
        return []


@asynccontextmanager
async def reporting(
    manager: AssetManager, assets: Iterable[Asset], path: Path, *, goes_on: bool = False, each_node: bool = False
) -> AsyncIterator[None]:
    """Write a report to ``path`` about what happens in the block. Raises `StorageError` if that alone fails.

    ``goes_on``: the run continues the one whose report is there. ``each_node``: with a row for each node's copy.
    """
    report = Report({asset.id: redact_url(asset.urls[0]) for asset in assets}, each_node=each_node)
    kind = path.suffix.lower()
    earlier = await asyncio.to_thread(_earlier, path, kind) if goes_on and kind in ROWS else []
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
        write_whole(path, written(report, kind, str(manager.project.assets_dir), earlier))

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

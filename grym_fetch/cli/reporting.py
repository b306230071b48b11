"""``--report FILE``: tells what a run was like, whatever became of it: a page for people, or rows for programs.

Rules: the file gets its name once, whole or not at all, and last: after a failure or an interruption, too. All work on
it takes place in a thread: a slow disk does not slow the run.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from grym_fetch.cli.report_file import ReportFile, refuse_other
from grym_fetch.core.errors import StorageError
from grym_fetch.core.manifest import in_batches
from grym_fetch.core.mirrors import with_mirrors
from grym_fetch.core.text import redact_url
from grym_fetch.disk.atomic import replace_file
from grym_fetch.disk.folders import opened_folder, storage_errors
from grym_fetch.display.report import Report
from grym_fetch.runtime.threads import WorkerThreads

if TYPE_CHECKING:
    from grym_fetch.core.events import Event
    from grym_fetch.core.manifest import Asset
    from grym_fetch.manager import AssetManager

log = logging.getLogger(__name__)

ROWS = (".jsonl", ".parquet")
"""The endings of reports for programs."""
LOOK_S = 0.1
"""Between two looks at what has happened: progress within it counts as one step."""


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all. Raises `StorageError`, also for a device or a pipe that has its name."""
    with storage_errors(path), opened_folder(path.absolute().parent) as folder:
        refuse_other(folder, path)
        replace_file(folder, path.name, content)


class _AnyReport(Protocol):
    """A report of one kind. Blocks, and is used by one thread at a time. Everything raises `StorageError`."""

    def ask_for(self, assets: Sequence[Asset]) -> None:
        """Note assets that the run is about, in order, with the addresses that are asked for them."""

    def apply(self, events: Iterable[Event]) -> None:
        """Take events."""

    def finish(self, *, is_hurried: bool = False) -> None:
        """Give the file its name. ``is_hurried``: there is little time."""

    def close(self) -> None:
        """Let go of everything."""


class _Page:
    """A page. ``place``: where the files are."""

    def __init__(self, path: Path, place: str, *, each_node: bool) -> None:
        self._path = path
        self._place = place
        self._first_origins: dict[str, str] = {}
        self._report = Report(self._first_origins, each_node=each_node)

    def ask_for(self, assets: Sequence[Asset]) -> None:
        self._first_origins |= {asset.id: redact_url(asset.urls[0]) for asset in assets}

    def apply(self, events: Iterable[Event]) -> None:
        for event in events:
            self._report.apply(event)

    def finish(self, *, is_hurried: bool = False) -> None:
        from grym_fetch.display.page import report_page

        del is_hurried  # a page has few rows
        write_whole(self._path, report_page(self._report, self._place).encode())

    def close(self) -> None:
        pass


@asynccontextmanager
async def reporting(
    manager: AssetManager, assets: Collection[Asset], path: Path, *, goes_on: bool = False, each_node: bool = False
) -> AsyncIterator[None]:
    """Write a report to ``path`` about what happens in the block. Raises `StorageError` if that alone fails.

    ``goes_on``: the run continues the one whose report is there. ``each_node``: with a row for each node's copy.
    """
    thread, lock = WorkerThreads("report", 1), threading.Lock()
    queue: deque[Event] = deque()
    ending, place = path.suffix.lower(), str(manager.project.assets_dir)

    def begin() -> _AnyReport:
        if ending in ROWS:
            return ReportFile(path, ending, goes_on=goes_on, each_node=each_node)
        return _Page(path, place, each_node=each_node)

    def take() -> None:
        with lock:  # so what was queued first is told first, whichever thread does it
            report.apply([queue.popleft() for _ in range(len(queue))])

    async def follow() -> None:
        try:
            while await subscription.wait():
                queue.extend(subscription.drain())
                await thread.compute(take)
                await asyncio.sleep(LOOK_S)
        except StorageError:
            subscription.close()  # nobody takes what comes
            raise

    def finish(*, is_hurried: bool = False) -> None:
        if task.done() and not task.cancelled():
            task.result()
        take()
        report.finish(is_hurried=is_hurried)

    report = await thread.compute(begin)
    try:
        parts, rules = in_batches(assets), manager.settings.mirror_rules
        while part := await thread.compute(next, parts, None):
            await thread.compute(report.ask_for, [with_mirrors(asset, rules) for asset in part])
        subscription = manager.events()
        task = asyncio.create_task(follow(), name="report")
        try:
            yield
        except BaseException as error:
            # Nothing is awaited here: a run that is interrupted has little time.
            queue.extend(subscription.drain())
            try:
                finish(is_hurried=not isinstance(error, Exception))
            except StorageError as failure:
                log.warning("the report could not be written: %s", failure)
            raise
        else:
            task.cancel()
            await asyncio.wait([task])
            queue.extend(subscription.drain())
            await thread.compute(finish)
        finally:
            task.cancel()
            subscription.close()
    finally:
        thread.close()
        with lock:
            report.close()

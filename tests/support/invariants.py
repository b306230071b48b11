"""What holds of every run, whatever happens to it. `Rules` checks; `checked_sync` is a run checked against all of them.

1. The final path holds nothing, the file that was there before, or the right one, at every instant.
2. A run that succeeds has put every asset in place; one that fails names exactly those that are not, each with a cause.
3. Progress never passes its total and never goes back; each asset ends once, and none is left out.
4. Bytes are fetched twice only as far as something broke off or was thrown away, and the number of requests is limited.
5. A journal claims no piece that is not on disk.
6. No secret is in an event, an error, a log record or a file of ours; one is planted in each run (`CANARY`).
7. No file appears outside the assets dir, and inside it only the assets and our own folder.
8. It ends in time, and no task, thread, open file or connection outlives the manager.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from grym_fetch import AssetManager, GrymFetchError, SyncFailed
from grym_fetch.cli.exit_codes import exit_code
from grym_fetch.core.digest import Checksum
from grym_fetch.core.events import Event
from grym_fetch.core.journal import piece_digest, read_journal
from grym_fetch.testing import AssetServer, ServerStats
from tests.support.project import CANARY, KIB, Project

DEADLINE = 60.0
"""Seconds that a run may take."""
MOST_REQUESTS = 60
"""Requests that a run may make for an asset each time that it begins, or that something breaks off."""
SLACK = 160 * KIB
"""Bytes that may be lost each time that something breaks off: a segment under way, and what lay in the sockets."""


_AT_A_RENAME = (PermissionError,) if sys.platform == "win32" else ()
"""Windows may refuse to open a file while it gets its name; it is looked at again."""


class Watcher:
    """Rule 1: watches a final path, which must hold nothing, or one of the allowed contents."""

    def __init__(self, path: Path, *allowed: bytes) -> None:
        self._path = path
        self._allowed = {Checksum.of(content) for content in allowed}
        self._seen: tuple[int, int, int] | None = None
        self._wrong = ""

    def look(self) -> None:
        """Check once; a file that has not changed is not read again."""
        try:
            found = os.stat(self._path)
            seen = found.st_ino, found.st_mtime_ns, found.st_size
            if seen == self._seen or not stat.S_ISREG(found.st_mode):
                return
            content = self._path.read_bytes()
        except (FileNotFoundError, NotADirectoryError, *_AT_A_RENAME):
            return
        self._seen = seen
        if Checksum.of(content) not in self._allowed:
            self._wrong = f"{len(content)} bytes that are neither the old nor the new file"

    def check(self) -> None:
        """Check once more, and fail if it was ever wrong."""
        self.look()
        assert not self._wrong, self._wrong


@contextmanager
def watched(*watchers: Watcher) -> Iterator[None]:
    """Let these watch all the time, from one thread that mostly leaves the run alone, and once more at the end."""
    stop = threading.Event()

    def look() -> None:
        taken = 0.0
        while not stop.wait(max(0.001, 4 * taken)):
            began = time.thread_time()
            for watcher in watchers:
                watcher.look()
            taken = time.thread_time() - began

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    for watcher in watchers:
        watcher.check()


class Recorder:
    """Keeps every event of a manager, and checks what holds of every run."""

    def __init__(self, manager: AssetManager | None = None) -> None:
        self.events: list[Event] = []
        if manager is not None:
            manager.on_event(self._take)

    async def _take(self, event: Event) -> None:
        self.events.append(event)

    def of(self, kind: str) -> list[dict[str, object]]:
        """Events of one type, as JSON."""
        return [event.as_json() for event in self.events if event.type == kind]

    def check(self) -> None:
        """Rule 3: progress goes back only if a total shrinks."""
        last: dict[object, int] = {}
        for event in self.of("progress"):
            count, total = event["bytes"], event["total"]
            assert isinstance(count, int)
            assert total is None or (isinstance(total, int) and count <= total)
            before = last.get(event["asset"], 0)
            assert count >= (before if total is None else min(before, total))
            last[event["asset"]] = count
        assert len(self._ends) == len(self.ended)

    @property
    def ended(self) -> set[str | None]:
        """The assets whose end was reported."""
        return set(self._ends)

    @property
    def _ends(self) -> list[str | None]:
        return [e.asset for e in self.events if e.type in ("asset_verified", "asset_reused", "asset_failed")]


class Log(logging.Handler):
    """Keeps what is logged in a ``with`` block, as it is: no display has made it safe yet."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []
        self.setFormatter(logging.Formatter())

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record with its traceback."""
        self.lines.append(self.format(record))

    def __enter__(self) -> Self:
        self._logger = logging.getLogger("grym_fetch")
        self._level = self._logger.level
        self._logger.setLevel(logging.DEBUG)
        self._logger.addHandler(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._logger.removeHandler(self)
        self._logger.setLevel(self._level)


@dataclass(frozen=True)
class Run:
    """A run that has ended: its events and log records, and the assets that failed."""

    heard: Recorder
    failures: Mapping[str, GrymFetchError]
    log: Sequence[str] = ()


class Rules:
    """What a run is checked against. Made just before it, to know what was already there."""

    def __init__(self, project: Project, *, also_allowed: Sequence[bytes] = ()) -> None:
        self._project = project
        self._finals = project.finals()
        self._right = {asset: {content, *also_allowed} for asset, content in project.contents.items()}
        old = {asset: [path.read_bytes()] if path.is_file() else [] for asset, path in self._finals.items()}
        self.watchers = [Watcher(self._finals[asset], *right, *old[asset]) for asset, right in self._right.items()]
        self._files = self._all_files()
        self._opened = open_files(project.root)
        self._threads = _threads()
        self._tasks = _tasks()

    def check(self, run: Run | None) -> None:
        """Check a run that has ended against all rules except that on traffic. None: it was cancelled, or broken."""
        for watcher in self.watchers:
            watcher.check()
        if run is not None:
            self._check_outcome(run.failures)
            run.heard.check()
            self._check_secrets(run)
        self._check_claims()
        self._check_places()
        self._check_leftovers()
        if run is not None:
            assert not (silent := set(self._finals) - run.heard.ended), f"nothing was told of the end of {silent}"

    def _check_outcome(self, failures: Mapping[str, GrymFetchError]) -> None:
        """Rule 2."""
        for asset, path in self._finals.items():
            if asset in failures:
                assert str(failures[asset]), "an error that names no cause"
                assert exit_code(failures[asset]) != 0
            else:
                assert path.exists(), f"{asset} is not there, and nothing was said"
                assert asset not in self._right or path.read_bytes() in self._right[asset], f"{asset} is wrong"

    def _check_claims(self) -> None:
        """Rule 5."""
        for stage in self._project.staged():
            part, journal = stage / "part", stage / "journal"
            if part.exists() and journal.exists():  # a part put in place leaves its journal behind for a moment
                content = part.read_bytes()
                for piece in read_journal(journal.read_bytes()).pieces:
                    assert piece_digest(content[piece.start : piece.stop]) == piece.digest, f"{piece} is not there"

    def _check_secrets(self, run: Run) -> None:
        """Rule 6."""
        told = [repr(event.as_json()) for event in run.heard.events]
        errors = [text for error in run.failures.values() for text in (str(error), repr(error), str(vars(error)))]
        assert not (leaks := [text for text in (*told, *errors, *run.log) if CANARY in text]), f"a secret: {leaks}"
        assert CANARY.encode() not in self._project.all_text(), "a secret in a file"

    def _check_places(self) -> None:
        """Rule 7."""
        ours = self._project.assets / ".grym-fetch"
        folders = {folder for final in self._finals.values() for folder in final.parents}
        for path in self._all_files() - self._files - folders - set(self._finals.values()):
            assert path == ours or ours in path.parents, f"{path} is none of ours"

    def _check_leftovers(self) -> None:
        """Rule 8. A thread told to end needs a moment for it."""
        for thread in _threads() - self._threads:
            thread.join(DEADLINE)
            assert not thread.is_alive(), f"{thread} was left"
        assert not (left := _tasks() - self._tasks), f"{left} was left"
        files = [f for f in open_files(self._project.root) if f not in self._opened]
        assert open_files(self._project.root) == self._opened, f"a file was left open: {files}"

    def _all_files(self) -> set[Path]:
        """All files in and beside the project."""
        around = self._project.root.parent
        assert sum(1 for _ in around.iterdir()) < 20, (
            f"{around} has more than one project: each run looks through it all"
        )
        return set(around.rglob("*"))


def check_traffic(run: Run, sent: int, requests: int, sizes: Mapping[str, int], may_lose: int) -> None:
    """Rule 4. ``sizes``: of the assets. ``may_lose``: each time something breaks off. All in bytes.

    Only received bytes count: how much a server has put into its sockets before we hang up is its own affair.
    """
    (end,) = run.heard.of("run_finished")
    received = end["downloaded_bytes"]
    assert isinstance(received, int)
    restarted = [event["asset"] for event in run.heard.of("asset_restarted")]
    whole = sum(size * (1 + restarted.count(asset)) for asset, size in sizes.items())
    broke = sum(len(run.heard.of(kind)) for kind in ("retry_scheduled", "mirror_switched", "asset_failed"))
    assert received <= sent, "more was counted than was sent"
    assert received <= whole + may_lose * (1 + broke), f"{received} bytes were taken for {whole}, broken off {broke} x"
    assert requests <= MOST_REQUESTS * (len(sizes) + len(restarted) + broke), f"{requests} requests"


def _open_at_most(connections: int) -> Callable[[ServerStats], bool]:
    return lambda stats: stats.connections_open <= connections


def _traffic(servers: Iterable[AssetServer]) -> tuple[int, int]:
    """Body bytes that these have sent, and requests they received."""
    return (
        sum(server.stats.body_bytes_sent for server in servers),
        sum(len(server.stats.requests) for server in servers),
    )


def open_files(below: Path) -> list[str]:
    """The files that this process has open in a folder, if /proc shows them."""
    if not sys.platform.startswith("linux"):
        return []
    root = os.path.realpath(below)
    with os.scandir("/proc/self/fd") as entries:
        places = [os.readlink(entry.path) for entry in entries if os.path.lexists(entry.path)]
    return sorted(place for place in places if place.startswith(root))


def _threads() -> set[threading.Thread]:
    """All threads except those of the loop's own executor, which live as long as it does."""
    return {thread for thread in threading.enumerate() if not thread.name.startswith("asyncio_")}


def _tasks() -> set[asyncio.Task[object]]:
    """All tasks except those with which a server in this loop answers; none if no loop runs."""
    try:
        tasks = asyncio.all_tasks()
    except RuntimeError:
        return set()
    of_servers = "web_protocol", "testing", "accept_coro"
    return {task for task in tasks if not any(text in repr(task) for text in of_servers)}


async def checked_sync(
    project: Project,
    *servers: AssetServer,
    also_allowed: Sequence[bytes] = (),
    may_lose: int | None = SLACK,
    **settings: object,
) -> Run:
    """Fetch what is required, and check the run against every rule. ``servers``: those that the assets come from.

    ``also_allowed``: other complete contents that may be in place, if no checksum says which is right.
    ``may_lose``: bytes each time something breaks off; more if an address gives no ranges, and must start
    again; None: not counted. ``settings`` are those of `Project.manager`.
    """
    rules = Rules(project, also_allowed=also_allowed)
    sent, asked = _traffic(servers)
    connections = [server.stats.connections_open for server in servers]
    failures: Mapping[str, GrymFetchError] = {}
    with watched(*rules.watchers), Log() as log:
        async with asyncio.timeout(DEADLINE):
            async with project.manager(**settings) as manager:  # type: ignore[arg-type]  # settings are checked there
                heard = Recorder(manager)
                try:
                    await manager.sync()
                except SyncFailed as error:
                    failures = error.failures
            for server, before in zip(servers, connections, strict=True):
                await server.stats.until(_open_at_most(before))
    run = Run(heard, failures, log.lines)
    rules.check(run)
    if may_lose is not None:
        sizes = {asset: len(content) for asset, content in project.contents.items()}
        sent_by_now, asked_by_now = _traffic(servers)
        check_traffic(run, sent_by_now - sent, asked_by_now - asked, sizes, may_lose=may_lose)
    return run

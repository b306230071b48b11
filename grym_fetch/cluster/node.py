"""The worker's side: one engine for each run in a worker process, on a loop and thread of its own.

Rules: an engine of a cluster calls `run_task` and `answer`, and nothing else here. What the engine may use is what the
last order says; before the first one, that is nothing. When no order has come for the time of its lease, or one says
so, the node stops: what has arrived is kept, and the run's later tasks are refused. Credentials, proxies and the store
are those of the worker's own environment.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from pathlib import Path

from grym_fetch._version import __version__
from grym_fetch.cluster.packets import OtherVersion, Packet, pack, unpack
from grym_fetch.cluster.protocol import Allowance, Done, Job, Order, Reply, Task
from grym_fetch.cluster.work_list import WorkFolder
from grym_fetch.core.errors import ClusterError, GrymFetchError
from grym_fetch.core.events import Event, RunFinished, RunStarted
from grym_fetch.core.manifest import Asset, ManifestSource
from grym_fetch.core.text import safe_text
from grym_fetch.engine.coordinator import Coordinator
from grym_fetch.engine.engine import Engine
from grym_fetch.manifest_files.project import Project, find_project, load_manifest
from grym_fetch.runtime.bus import EventBus
from grym_fetch.runtime.clock import SystemClock

log = logging.getLogger(__name__)

FIRST_LEASE_S = 30.0
"""A task may come before its run's first order."""
MAX_STOPPED = 100
"""Remember so many runs that have been stopped here."""
LOOK_S = 1.0
"""How often a waiting task looks whether the engine is still there."""
_BLOCK_BYTES = 1024 * 1024
_OVER = "the run has ended on this node"


def run_task(packet: Packet) -> Packet:
    """Do a task, and return what became of it. Blocks, so it needs a thread of its own. Raises `ClusterError`."""
    try:
        task = unpack(packet, Task)
    except OtherVersion as other:
        raise ClusterError(f"the driver has grym-fetch {other.version}, a worker has {__version__}") from None
    return pack(_nodes.get(task.job).do(task))


async def answer(packet: Packet) -> Packet:
    """Take an order, and return the answer, in any loop. One of another version is answered with this version alone."""
    try:
        order = unpack(packet, Order)
    except OtherVersion:
        return __version__, b""
    if order.stop:
        ending = _nodes.take(order.job.run)
        return pack(Reply(order.heard + 1) if ending is None else await ending.call(lambda: ending.stop(order)))
    node = _nodes.get(order.job)
    return pack(await node.call(lambda: node.answer(order)))


class NodeStopped(Exception):
    """The run has ended here: its driver has said so, or is gone."""


class Node:
    """One run in this process. Everything but `do` and `call` happens on its own loop."""

    def __init__(self, job: Job, environ: Mapping[str, str], on_end: Callable[[Node], None]) -> None:
        self._job = job
        self._environ = environ
        self._on_end = on_end
        self._clock = SystemClock()
        self._share = Allowance()
        self._alarm: asyncio.TimerHandle | None = None
        self._tasks: dict[int, asyncio.Task[Done]] = {}
        self._unheard: list[Event] = []
        self._number = 0
        self._problem: str | None = None
        self._engine: Engine | None = None
        self._coordinator: Coordinator | None = None
        self._manifest: ManifestSource | None = None
        self._loop = _new_loop()
        self._is_ready = threading.Event()
        self._thread = threading.Thread(target=self._live, name="grym-fetch node", daemon=True)
        self._thread.start()

    # -- called from other threads ------------------------------------------------------------------------------------

    def do(self, task: Task) -> Done:
        """Do a task and wait for its end. Raises `NodeStopped` or `ClusterError`."""
        self._is_ready.wait()
        work = self._do(task)
        try:
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError as error:  # the loop is closed
            work.close()
            raise NodeStopped(_OVER) from error
        while self._thread.is_alive() or future.done():
            with suppress(TimeoutError):
                try:
                    return future.result(LOOK_S)
                except CancelledError as error:
                    raise NodeStopped(_OVER) from error
        raise NodeStopped(_OVER)

    async def call(self, work: Callable[[], Reply]) -> Reply:
        """Return what this gives in the node's loop. Raises `NodeStopped`."""
        future: Future[Reply] = Future()

        def do() -> None:
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001 - raised where it is waited for
                future.set_exception(error)

        if not self._is_ready.is_set():
            await asyncio.to_thread(self._is_ready.wait)
        try:
            self._loop.call_soon_threadsafe(do)
        except RuntimeError as error:  # the loop is closed
            raise NodeStopped(_OVER) from error
        return await asyncio.wrap_future(future)

    # -- on the loop --------------------------------------------------------------------------------------------------

    def _live(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._main())
        except Exception:
            log.exception("a node has ended with an error")
        finally:
            self._is_ready.set()
            self._on_end(self)

    async def _main(self) -> None:
        self._bus = EventBus(self._clock.wall)
        self._subscription = self._bus.subscribe()
        self._end = asyncio.Event()
        try:
            self._project = self._find_project()
        except GrymFetchError as error:
            self._problem = str(error)
        self._is_ready.set()
        try:
            self._lease(FIRST_LEASE_S)
            await self._end.wait()
        finally:
            self._cancel()
            if self._tasks:
                await asyncio.wait(self._tasks.values())
            if self._coordinator is not None:
                await self._coordinator.aclose()
            await self._bus.aclose()

    def _find_project(self) -> Project:
        """Where the files are. Raises `GrymFetchError` if this node cannot take part, naming what is missing."""
        job = self._job
        if job.each_node:
            project = find_project(
                config=job.manifest, assets_dir=job.assets_dir, environ=self._environ, cwd=Path(job.manifest).parent
            )
            if digest_of(project.manifest_path) != job.manifest_digest:
                raise ClusterError(f"has another {safe_text(job.manifest)} than the driver")
            return project
        assert job.assets_dir is not None, "a shared folder is named"
        assert job.external_dir is not None
        folder = WorkFolder(Path(job.assets_dir), job.run)
        if not folder.is_there:
            raise ClusterError(
                f"does not see {safe_text(str(folder.path))}: all nodes must share the assets folder, at the same path "
                "and as the same user; without one, use --each-node"
            )
        manifest = Path(job.manifest)
        return Project(manifest, manifest.parent, Path(job.assets_dir), Path(job.external_dir))

    def _open(self) -> Coordinator:
        if self._problem is not None:
            raise ClusterError(self._problem)
        if self._coordinator is None:
            self._engine = Engine(
                self._project,
                self._job.settings,
                clock=self._clock,
                emit=self._bus.emit,
                environ=self._environ,
                version=__version__,
                part=f"{self._job.run} {os.getpid()}",
            )
            self._coordinator = Coordinator(
                self._engine,
                self._bus,
                self._clock,
                assets_dir=self._project.assets_dir,
                offline=self._job.settings.offline,
            )
            self._obey()
        return self._coordinator

    async def _do(self, task: Task) -> Done:
        if self._end.is_set():
            raise NodeStopped(_OVER)
        work = self._tasks[task.number] = asyncio.get_running_loop().create_task(self._fetch(task))
        try:
            return await work
        finally:
            self._tasks.pop(task.number, None)

    async def _fetch(self, task: Task) -> Done:
        coordinator = self._open()
        assert self._engine is not None
        assets = await asyncio.to_thread(self._assets_of, task)
        report = await coordinator.sync_some(assets, force=task.job.force)
        return Done(
            verified=tuple(report.verified),
            unverified=tuple(report.unverified),
            reused=tuple(report.reused),
            failed=dict(report.failed),
            paths={asset_id: str(path) for asset_id, path in report.paths.items()},
            received=report.downloaded_bytes,
            seconds=report.seconds,
        )

    def _assets_of(self, task: Task) -> tuple[Asset, ...]:
        if not task.job.each_node:
            return WorkFolder(self._project.assets_dir, task.job.run).read(task.number, task.digest)
        if self._manifest is None:
            self._manifest = load_manifest(self._project.manifest_path).manifest
        assets = tuple(self._manifest.get(asset_id) for asset_id in task.ids)
        return tuple(asset.stand_in() for asset in assets) if task.job.minimal else assets

    def answer(self, order: Order) -> Reply:
        """Take an order and tell what there is to tell."""
        self._lease(order.lease)
        self._share = order.share
        self._obey()
        if order.heard == self._number:
            self._unheard.clear()
        self._unheard += [
            event for event in self._subscription.drain() if not isinstance(event, RunStarted | RunFinished)
        ]
        self._number += 1
        hosts = {}
        if self._engine is not None:
            self._engine.scheduler.look()
            hosts = self._engine.scheduler.hosts.uses(self._clock.monotonic())
        return Reply(
            number=self._number,
            events=tuple(self._unheard),
            tasks=tuple(self._tasks),
            in_force=self._in_force(),
            hosts=hosts,
            problem=self._problem,
        )

    def _lease(self, seconds: float) -> None:
        """Stop after this time, unless another order comes."""
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._loop.call_later(seconds, self._expire)

    def _expire(self) -> None:
        log.warning("no order has come for too long: the run is over here")
        self._end.set()

    def stop(self, order: Order) -> Reply:
        """End the run here, and tell what has not been told."""
        last = self.answer(order)
        self._end.set()
        self._cancel()
        return last

    def _cancel(self) -> None:
        for task in self._tasks.values():
            task.cancel()

    def _obey(self) -> None:
        if self._engine is None:
            return
        share, scheduler = self._share, self._engine.scheduler
        scheduler.hosts.share(share.per_host, share.hosts)
        now = self._clock.monotonic()
        for host, pause in share.pauses.items():
            scheduler.hosts.left_alone(host, now + pause)
        self._engine.limit_rate(share.connections / self._job.settings.parallel)
        scheduler.allow(share.connections)

    def _in_force(self) -> Allowance:
        """What may still be in use: the share, and what began before it got smaller."""
        if self._engine is None:
            return self._share
        share, scheduler = self._share, self._engine.scheduler
        used = scheduler.open_to()  # also what is idle
        for host, use in scheduler.hosts.uses(self._clock.monotonic()).items():
            used[host] = max(used[host], use.at_work)
        more = {host: count for host, count in used.items() if count > share.at(host)}
        return Allowance(max(share.connections, scheduler.in_use), share.per_host, {**share.hosts, **more})


class _Nodes:
    """The runs in this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._here: dict[str, Node] = {}
        self._stopped: dict[str, None] = {}

    def get(self, job: Job) -> Node:
        """Return the node of a run; made on the first call. Raises `NodeStopped` if the run was stopped here."""
        with self._lock:
            if job.run in self._stopped:
                raise NodeStopped(_OVER)
            if job.run not in self._here:
                self._here[job.run] = Node(job, os.environ, self._forget)
            return self._here[job.run]

    def take(self, run: str) -> Node | None:
        """Let no more of this run begin here, and return its node, if there is one."""
        with self._lock:
            self._stopped[run] = None
            while len(self._stopped) > MAX_STOPPED:
                del self._stopped[next(iter(self._stopped))]
            return self._here.pop(run, None)

    def _forget(self, node: Node) -> None:
        """It has ended by itself. If its driver was only slow, there will be another one."""
        with self._lock:
            self._here = {run: each for run, each in self._here.items() if each is not node}


_nodes = _Nodes()


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        from uvloop import new_event_loop
    except ImportError:
        return asyncio.new_event_loop()
    return new_event_loop()


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()

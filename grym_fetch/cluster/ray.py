"""A cluster under Ray: a head that runs somewhere, or one on this machine.

Rules: only documented calls of `ray` are used, all from one thread, on which depends what connection is meant.
A node is an actor of ours that holds one CPU of a machine, and does one task at a time; its name has its machine and
process. Ray gives an actor's calls to no other one, so what a lost actor had is handed out here again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from grym_fetch.cluster import node
from grym_fetch.cluster.ends import TaskEnds, end_of, reply_of
from grym_fetch.cluster.packets import Packet, cannot_import, pack
from grym_fetch.cluster.protocol import NodeSeen, Order, Reply, Task, TaskEnd
from grym_fetch.core.errors import ClusterError
from grym_fetch.core.text import safe_text

log = logging.getLogger(__name__)

CONNECT_S = 10.0
"""How long to wait for the head."""
CONNECT_ATTEMPTS = 3
"""A busy head now and then loses the process that it starts for a client, between its fork and its first line."""
_BAD_LUCK = ("Starting Ray client server failed", "ZombieProcess")
"""What it says then."""
TELL_S = 3.0
"""How long to wait for an answer."""
CLOSE_S = 1.0
"""How long tasks that were stopped have to end before their processes are ended."""
MAX_DEATHS = 3
"""A machine on which so many workers have died before they said a word gets no more."""
STORE_BYTES = 80 * 1024 * 1024
"""About the least that Ray takes for the objects that it shares; ours are small."""
MAX_SCRATCH_LENGTH = 24
"""Ray's sockets lie about 75 characters deeper, and a socket's path has at most 107."""

T = TypeVar("T")


class RayWorker:
    """What Ray makes an actor of, in a process of its own."""

    async def begin(self) -> int:
        """Return the number of this process."""
        return os.getpid()

    async def run(self, packet: Packet) -> Packet:
        """Do a task."""
        return await asyncio.to_thread(node.run_task, packet)

    async def answer(self, packet: Packet) -> Packet:
        """Take an order."""
        return await node.answer(packet)


@dataclass(slots=True, eq=False)
class _Actor:
    """``place``: Ray's name of its machine. ``name``: None until it has begun."""

    handle: Any
    place: str
    machine: str
    name: str | None = None
    task: Task | None = None


class RayCluster(TaskEnds):
    """Implements `Cluster`. ``connected``: in which all calls are made; ``end``: lets go of what was opened for it."""

    def __init__(
        self,
        ray: Any,
        thread: ThreadPoolExecutor,
        connected: Callable[[], AbstractContextManager[object]] = nullcontext,
        end: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__()
        self._ray = ray
        self._thread = thread
        self._connected = connected
        self._end = end
        self._actors: list[_Actor] = []
        self._deaths: Counter[str] = Counter()
        self._tasks: deque[Task] = deque()
        """What no worker has yet."""
        self._forgotten: set[int] = set()
        self._waiting: set[asyncio.Task[None]] = set()
        self._problem: ClusterError | None = None

    async def nodes(self) -> Mapping[str, NodeSeen]:
        """Return the actors that have begun. Each CPU that Ray knows gets one."""
        if self._problem is not None:
            raise self._problem
        try:
            machines = [each for each in await self._call(self._ray.nodes) if each["Alive"]]
            alive = {each["NodeID"] for each in machines}
            for actor in [actor for actor in self._actors if actor.place not in alive]:
                self._lost(actor)
            for machine in machines:
                await self._fill(machine)
        except (OSError, RuntimeError, self._ray.exceptions.RayError) as error:
            raise ClusterError("Ray is gone") from error
        return {actor.name: NodeSeen(actor.machine) for actor in self._actors if actor.name is not None}

    async def _fill(self, machine: Mapping[str, Any]) -> None:
        place = machine["NodeID"]
        there = sum(actor.place == place for actor in self._actors)
        missing = int(machine["Resources"].get("CPU", 0)) - there
        if missing <= 0 or self._deaths[place] >= MAX_DEATHS:
            return

        def make() -> list[Any]:
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

            where = NodeAffinitySchedulingStrategy(place, soft=False)
            kind = self._ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(RayWorker)
            return [kind.options(scheduling_strategy=where).remote() for _ in range(missing)]

        for handle in await self._call(make):
            actor = _Actor(handle, place, machine["NodeManagerAddress"])
            self._actors.append(actor)
            self._start(self._begin(actor))

    async def _begin(self, actor: _Actor) -> None:
        """Wait until an actor has its CPU and its process."""
        try:
            process = await self._ask(actor.handle.begin)
        except Exception as error:  # noqa: BLE001 - whatever Ray raises
            self._lost(actor)
            self._deaths[actor.place] += 1
            if (problem := _import_problem(error)) is not None:
                self._problem = problem
            log.warning("a worker on %s has died before it began: %r", safe_text(actor.machine), error)
            return
        actor.name = f"{actor.machine}:{process}"
        self._hand_out()

    async def submit(self, task: Task) -> None:
        """Have the next worker that is idle do it."""
        self._forgotten.discard(task.number)
        self._tasks.append(task)
        self._hand_out()

    def _hand_out(self) -> None:
        for actor in self._actors:
            if actor.name is None or actor.task is not None:
                continue
            task = next((task for task in self._tasks if task.node in (None, actor.name)), None)
            if task is not None:
                self._tasks.remove(task)
                actor.task = task
                self._start(self._do(actor, task))

    async def _do(self, actor: _Actor, task: Task) -> None:
        try:
            ended = end_of(task.number, await self._ask(actor.handle.run, pack(task)), actor.name)
        except self._ray.exceptions.RayActorError:
            self._lost(actor)
            return
        except Exception as error:  # noqa: BLE001 - whatever a worker raises
            # Ray wraps it.
            cause = getattr(error, "cause", None)
            ended = TaskEnd(task.number, error=cause if isinstance(cause, Exception) else error, node=actor.name)
        actor.task = None
        if task.number not in self._forgotten:
            self._ended.put_nowait(ended)
        self._hand_out()

    def _lost(self, actor: _Actor) -> None:
        """Another one gets what it had."""
        if actor not in self._actors:
            return
        self._actors.remove(actor)
        if actor.task is not None and actor.task.number not in self._forgotten:
            self._tasks.appendleft(actor.task)
            self._hand_out()

    async def cancel(self, numbers: Collection[int]) -> None:
        """Forget these."""
        under_way = {actor.task.number for actor in self._actors if actor.task is not None}
        self._forgotten |= under_way.intersection(numbers)
        self._tasks = deque(task for task in self._tasks if task.number not in numbers)

    async def tell(self, orders: Mapping[str, Order]) -> Mapping[str, Reply]:
        """Send each order to its actor, all at once."""
        answers: dict[str, Reply] = {}

        async def tell_one(actor: _Actor, name: str) -> None:
            try:
                answers[name] = reply_of(await self._ask(actor.handle.answer, pack(orders[name])))
            except self._ray.exceptions.RayActorError:
                self._lost(actor)
            except Exception as error:  # noqa: BLE001 - whatever Ray raises
                log.debug("the worker %s does not answer: %r", safe_text(name), error)

        with suppress(TimeoutError):
            async with asyncio.timeout(TELL_S), asyncio.TaskGroup() as group:
                for actor in self._actors:
                    if actor.name is not None and actor.name in orders:
                        group.create_task(tell_one(actor, actor.name))
        return answers

    async def aclose(self) -> None:
        """Let tasks that were stopped come to their end; then end the actors, and what was opened."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                while any(actor.task is not None for actor in self._actors):
                    await asyncio.wait(self._waiting, return_when=asyncio.FIRST_COMPLETED)
        for waiting in self._waiting:
            waiting.cancel()

        def close() -> None:
            for actor in self._actors:
                # Gone already, or Ray is.
                with suppress(Exception):
                    self._ray.kill(actor.handle)

        try:
            await self._call(close)
        finally:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._end)
            self._thread.shutdown(wait=False)

    # -- the thread -------------------------------------------------------------------------------------------------

    async def _call(self, work: Callable[[], T]) -> T:
        """Return what this gives on the thread of this cluster."""

        def call() -> T:
            with self._connected():
                return work()

        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    async def _ask(self, method: Any, *packet: Packet) -> Any:
        """Return what an actor answers."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()

        def arrived(done: Future[Any]) -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(_settle, answer, done)

        await self._call(lambda: method.remote(*packet).future().add_done_callback(arrived))
        return await answer

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)


def _settle(answer: asyncio.Future[Any], done: Future[Any]) -> None:
    if answer.done():
        return
    if (error := done.exception()) is not None:
        answer.set_exception(error)
    else:
        answer.set_result(done.result())


async def open_ray(address: str | None) -> RayCluster:
    """Connect to the head at ``HOST:PORT``, or start one on this machine. Raises `ClusterError`.

    Where this process is connected to Ray already, no address means that connection, which stays open.
    """
    if address is not None:
        host, _, port = address.rpartition(":")
        try:
            # Ray would try for half a minute.
            async with asyncio.timeout(CONNECT_S):
                _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        except (OSError, OverflowError) as error:
            raise ClusterError(f"no Ray head answers at ray://{safe_text(address)}") from error
        writer.close()
    # Before it is imported. Under `uv run`, Ray sends the working directory to all nodes, with all that is in it; and a
    # head that it starts reports to its makers.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    thread = ThreadPoolExecutor(1, "grym-fetch ray")
    loop = asyncio.get_running_loop()
    if address is None:
        opening = loop.run_in_executor(thread, _open_local, thread)
    else:
        opening = loop.run_in_executor(thread, _connect, thread, f"ray://{address}")
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        # Ray cannot be interrupted there; what it has opened must not stay.
        with suppress(Exception):
            await (await opening).aclose()
        raise


async def connected_ray() -> RayCluster:
    """Use the connection that this process has, which stays open. Raises `ClusterError` if there is none."""
    ray = _ray()
    thread = ThreadPoolExecutor(1, "grym-fetch ray")
    if not await asyncio.get_running_loop().run_in_executor(thread, ray.is_initialized):
        raise ClusterError("Ray is not connected: call ray.init() first")
    return RayCluster(ray, thread)


def _connect(thread: ThreadPoolExecutor, address: str) -> RayCluster:
    ray = _ray()
    logging.getLogger("ray").setLevel(logging.ERROR)
    for left in reversed(range(CONNECT_ATTEMPTS)):
        try:
            context = ray.init(address, allow_multiple=True, log_to_driver=False)
            break
        except Exception as error:  # another version of Ray or Python, no token, no TLS: it raises what it likes
            if left and any(words in str(error) for words in _BAD_LUCK):
                log.info("Ray's head has not started a process for this one: %s", _last_line(error))
                continue
            raise ClusterError(f"cannot connect to {safe_text(address)}: {_last_line(error)}") from error
    return RayCluster(ray, thread, lambda: context, context.disconnect)


def _open_local(thread: ThreadPoolExecutor) -> RayCluster:
    """Start Ray here, with an actor for each core. Only this machine reaches it, and only who has its token can use it.

    Where Ray was imported before, it has chosen an address already, and may listen on all of them.
    """
    # Ray's word for a cluster of one machine, which is what it makes on macOS anyway: it listens on 127.0.0.1 alone.
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    if os.environ.get("RAY_AUTH_MODE") is None:
        # By itself, it would write one to the home folder.
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    ray = _ray()
    if ray.is_initialized():
        return RayCluster(ray, thread)
    logging.getLogger("ray").setLevel(logging.ERROR)
    usual = tempfile.gettempdir()
    scratch = tempfile.mkdtemp(prefix="grym-ray-", dir=usual if len(usual) <= MAX_SCRATCH_LENGTH else "/tmp")  # noqa: S108
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()

    def end() -> None:
        # First: whoever ends a program in a hurry does not let it come to the end of this. Again: for what it adds.
        shutil.rmtree(scratch, ignore_errors=True)
        ray.shutdown()
        shutil.rmtree(scratch, ignore_errors=True)

    try:
        ray.init(
            address="local",
            num_cpus=cores,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=STORE_BYTES,
            _temp_dir=scratch,
        )
    except Exception as error:
        end()
        raise ClusterError(f"Ray does not start here: {_last_line(error)}") from error
    return RayCluster(ray, thread, end=end)


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ClusterError("this needs Ray: pip install 'grym-fetch[ray]'") from error
    return ray


def _last_line(error: Exception) -> str:
    """What Ray says without the traceback of its server."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return safe_text(lines[-1] if lines else type(error).__name__)


def _import_problem(error: Exception) -> ClusterError | None:
    """Ray puts the worker's traceback into the text."""
    lines = [line.strip() for line in str(error).splitlines()]
    why = next((line for line in lines if line.startswith(("ModuleNotFoundError:", "ImportError:"))), None)
    return None if why is None else cannot_import(why)

"""A cluster under Dask: a scheduler that runs somewhere, or one with a worker for each core of this machine.

Rules: only public calls of `distributed` are used. A node is named by its worker's address, which no later process has.
What travels is a packet (see `packets`); neither its content nor an address of an asset is in the name of a task.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import tempfile
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from grym_fetch.cluster import node
from grym_fetch.cluster.ends import TaskEnds, end_of, reply_of
from grym_fetch.cluster.packets import Packet, cannot_import, pack
from grym_fetch.cluster.protocol import NodeSeen, Order, Reply, Task, TaskEnd
from grym_fetch.core.errors import ClusterError
from grym_fetch.core.text import safe_text

if TYPE_CHECKING:
    from distributed import Client, Future, LocalCluster

log = logging.getLogger(__name__)

CONNECT_S = 10.0
"""How long to wait for the scheduler."""
TELL_S = 3.0
"""How long to wait for an answer."""
CLOSE_S = 3.0
"""How long the processes of a local cluster have to end before they are killed."""


async def take_order(packet: Packet) -> Packet:
    """`answer`, called by `Client.run`, of which a worker logs each call at the level that it shows."""
    logging.getLogger("distributed.worker").addFilter(_is_no_order)
    return await node.answer(packet)


def do_task(packet: Packet) -> tuple[str, Packet]:
    """`run_task`, and the node that it was done on."""
    from distributed import get_worker

    return get_worker().address.partition("://")[2], node.run_task(packet)


def _is_no_order(record: logging.LogRecord) -> bool:
    return record.args != (take_order.__name__,)


class DaskCluster(TaskEnds):
    """Implements `Cluster`. ``client`` is asynchronous and ours; ``local``: a cluster to be ended with it."""

    def __init__(self, client: Client, local: LocalCluster | None = None, scratch: str | None = None) -> None:
        super().__init__()
        self._client = client
        self._local = local
        self._scratch = scratch
        self._futures: dict[int, Future[tuple[str, Packet]]] = {}
        self._waiting: set[asyncio.Task[None]] = set()
        self._submitted = 0
        self._addresses: dict[str, str] = {}
        """Dask's address of each node."""

    async def nodes(self) -> Mapping[str, NodeSeen]:
        """Return the workers that the scheduler has."""
        if self._client.status != "running":
            raise ClusterError("the scheduler is gone")
        try:
            cores: Mapping[str, int] = await self._client.ncores()
        except OSError as error:
            raise ClusterError("the scheduler is gone") from error
        self._addresses = {address.partition("://")[2]: address for address in cores}
        return {name: NodeSeen(_machine(self._addresses[name])) for name in self._addresses}

    async def submit(self, task: Task) -> None:
        """Give the scheduler a task."""
        self._submitted += 1
        future = self._client.submit(
            do_task,
            pack(task),
            key=f"grym-fetch-{task.number}-{self._submitted}-{task.job.run}",
            pure=False,
            workers=None if task.node is None else [self._addresses[task.node]],
        )
        self._futures[task.number] = future
        waiting = asyncio.get_running_loop().create_task(self._wait(task.number, future))
        self._waiting.add(waiting)
        waiting.add_done_callback(self._waiting.discard)

    async def _wait(self, number: int, future: Future[tuple[str, Packet]]) -> None:
        try:
            name, packet = await future
            ended = end_of(number, packet, name)
        except asyncio.CancelledError:
            # Of the future, if it was cancelled by `cancel`, or lost with the scheduler; or of this task.
            if number not in self._futures or self._client.status == "running":
                raise
            ended = TaskEnd(number, error=ClusterError("the scheduler is gone"))
        except ImportError as error:
            ended = TaskEnd(number, error=cannot_import(str(error)))
        except Exception as error:  # noqa: BLE001 - whatever a worker raises
            ended = TaskEnd(number, error=error)
        self._ended.put_nowait(ended)
        self._futures.pop(number, None)
        future.release()

    async def cancel(self, numbers: Collection[int]) -> None:
        """Forget these."""
        futures = [future for number in numbers if (future := self._futures.pop(number, None)) is not None]
        if futures:
            await self._client.cancel(futures, force=True)

    async def tell(self, orders: Mapping[str, Order]) -> Mapping[str, Reply]:
        """Send each order to its worker, all at once."""
        answers: dict[str, Reply] = {}

        async def tell_one(name: str, order: Order) -> None:
            try:
                async with asyncio.timeout(TELL_S):
                    address = self._addresses[name]
                    replies = await self._client.run(take_order, pack(order), workers=[address], on_error="return")
            except (TimeoutError, OSError, ValueError):
                return
            reply = replies.get(address)
            if isinstance(reply, ImportError | AttributeError):
                answers[name] = Reply(0, problem=f"cannot import this: {cannot_import(str(reply))}")
            elif isinstance(reply, Exception):
                log.debug("the worker %s does not answer: %r", name, reply)
            elif reply is not None:
                answers[name] = reply_of(reply)

        async with asyncio.TaskGroup() as group:
            for name, order in orders.items():
                group.create_task(tell_one(name, order))
        return answers

    async def aclose(self) -> None:
        """Close the client; end the processes of a local cluster."""
        for waiting in self._waiting:
            waiting.cancel()
        if self._scratch is not None:
            # First: whoever ends a program in a hurry does not let it come to the end of this.
            shutil.rmtree(self._scratch, ignore_errors=True)
        with suppress(TimeoutError, OSError):
            async with asyncio.timeout(CLOSE_S):
                await self._client.close()
        if self._local is not None:
            with suppress(TimeoutError, OSError):
                async with asyncio.timeout(CLOSE_S):
                    await self._local.close(CLOSE_S)


async def open_dask(address: str | None) -> DaskCluster:
    """Connect to the scheduler at ``HOST:PORT``, or start a cluster on this machine. Raises `ClusterError`."""
    distributed = _distributed()
    if address is None:
        return await _open_local()
    security = distributed.Security()
    is_secret = bool(security.get_connection_args("client").get("ssl_context"))
    return await connect(f"{'tls' if is_secret else 'tcp'}://{address}", security)


async def connect(address: str, security: object) -> DaskCluster:
    """Connect to a scheduler by Dask's own address. Raises `ClusterError`."""
    distributed = _distributed()
    try:
        client = await distributed.Client(
            address, asynchronous=True, security=security, timeout=CONNECT_S, set_as_default=False, name="grym-fetch"
        )
    except (OSError, TimeoutError) as error:
        raise ClusterError(f"no Dask scheduler answers at {safe_text(address)}") from error
    return DaskCluster(client)


async def _open_local() -> DaskCluster:
    """Start a scheduler here and a process for each core, which nobody else on this machine can use."""
    distributed = _distributed()
    import dask

    scratch = tempfile.mkdtemp(prefix="grym-fetch-dask-")
    # It is removed before all else, which Dask would tell as an error.
    logging.getLogger("distributed.diskutils").addFilter(lambda record: scratch not in record.getMessage())
    # Scheduler and workers make folders for what they swap out, which they never do here.
    dask.config.set({"temporary-directory": scratch})
    local = await distributed.LocalCluster(
        n_workers=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        threads_per_worker=1,
        processes=True,
        asynchronous=True,
        security=True,
        dashboard_address=None,
        # It serves HTTP all the same, and would warn where its usual port is taken.
        scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
        memory_limit=0,
        local_directory=scratch,
        # What goes wrong with a file comes back with its task. That the scratch folder is gone is our own doing.
        silence_logs=logging.CRITICAL,
    )
    client = await distributed.Client(local, asynchronous=True, set_as_default=False, name="grym-fetch")
    return DaskCluster(client, local, scratch)


def _distributed() -> Any:
    try:
        import distributed
    except ImportError as error:
        raise ClusterError("this needs Dask: pip install 'grym-fetch[dask]'") from error
    return distributed


def _machine(address: str) -> str:
    """The host in ``tcp://host:port``."""
    return urlsplit(address).hostname or address

"""What a run needs from the engine of a cluster, and what the two ends of it say to each other.

Rules: an engine (Dask, Ray) hands out tasks, gives those of a lost worker to another one, and carries messages; that is
all it knows. On a worker it calls two functions of `node.py`, `run_task` and `answer`, with packets (`packets.py`). The
driver asks: it sends an `Order` to each node twice a second, and the `Reply` has what the node has to tell. So
both ends know that the other one is there, nothing is lost that was not acknowledged, and an engine needs no channel of
its own for events.

Everything here is sent to other processes. It holds no secret: addresses, in events and errors, are redacted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from grym_fetch.core.errors import GrymFetchError
from grym_fetch.core.events import Event
from grym_fetch.core.hosts import HostUse
from grym_fetch.settings import Settings


@dataclass(frozen=True, slots=True)
class Job:
    """What all tasks of one run have in common. Paths are those of every node.

    ``run`` is a name of its own. ``assets_dir``: the folder that all nodes share, which also has the tasks' lists;
    ``external_dir``: where else to look for files.
    ``each_node``: nothing is shared, and each node has a copy of its own; where, its own environment says if
    ``assets_dir`` is None. Then the manifest is read on each node, and ``manifest_digest`` is the SHA-256 of its file,
    in hex. ``minimal``: stand-ins are wanted.
    """

    run: str
    manifest: str
    assets_dir: str | None
    external_dir: str | None
    settings: Settings
    each_node: bool = False
    manifest_digest: str = ""
    minimal: bool = False
    force: bool = False


@dataclass(frozen=True, slots=True)
class Task:
    """Some assets for one worker. ``bytes``: the sum of known sizes. ``node``: the one that must do it, None for any.

    They are on a list in the shared folder (see `work_list`), whose SHA-256 is ``digest``, in hex; or, where nothing is
    shared, they are those of the manifest with these ``ids``.
    """

    job: Job
    number: int
    count: int
    bytes: int
    digest: str = ""
    ids: tuple[str, ...] = ()
    node: str | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a task: its assets by how they ended, as `SyncReport` has them.

    ``received``: bytes over the network; ``seconds``: how long it took.
    """

    verified: tuple[str, ...]
    unverified: tuple[str, ...]
    reused: tuple[str, ...]
    failed: Mapping[str, GrymFetchError]
    paths: Mapping[str, str]
    received: int
    seconds: float


@dataclass(frozen=True, slots=True)
class TaskEnd:
    """A task is over. Without ``done``, ``error`` says why it did not come to its end: then it may be tried again."""

    number: int
    done: Done | None = None
    error: BaseException | None = None
    node: str | None = None


@dataclass(frozen=True, slots=True)
class Allowance:
    """A node's part of the limits of the whole cluster, which holds until the next one.

    ``connections``: how many it may have open. ``per_host``: how many of them to one host that ``hosts`` does not name.
    ``pauses``: for how many seconds to leave a host alone.
    """

    connections: int = 0
    per_host: int = 0
    hosts: Mapping[str, int] = field(default_factory=dict)
    pauses: Mapping[str, float] = field(default_factory=dict)

    def at(self, host: str) -> int:
        """How many connections to this host."""
        return self.hosts.get(host, self.per_host)


@dataclass(frozen=True, slots=True)
class Order:
    """What the driver tells a node. ``heard``: the number of the last answer that has arrived; 0 for none.

    ``lease``: seconds after which the node stops its tasks of this run, unless another order has come. ``stop``: stop
    them now.
    """

    job: Job
    share: Allowance
    heard: int
    lease: float
    stop: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """What a node tells. ``number`` counts its answers; the events are those since the answer that was last heard.

    ``in_force``: what it may still be using; connections at work when its share got smaller count until they are done.
    ``tasks``: those that it is doing. ``problem``: why it cannot take part, in words for the user.
    """

    number: int
    events: Sequence[Event] = ()
    tasks: Collection[int] = ()
    in_force: Allowance = field(default_factory=Allowance)
    hosts: Mapping[str, HostUse] = field(default_factory=dict)
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class NodeSeen:
    """A worker process, as the engine knows it. ``machine``: the host it runs on."""

    machine: str


@runtime_checkable
class Cluster(Protocol):
    """An engine with its workers. All calls are made from one event loop. Raises `ClusterError` when it is gone."""

    async def nodes(self) -> Mapping[str, NodeSeen]:
        """Return the workers that are there now, by names that people know them by."""

    async def submit(self, task: Task) -> None:
        """Have a worker do it: any, or the one it names. A worker that is lost with it is replaced by another one."""

    async def gather(self) -> Sequence[TaskEnd]:
        """Wait until at least one task is over, and return those that are, each once."""

    async def cancel(self, numbers: Collection[int]) -> None:
        """Do not begin these tasks, and forget them. One that is under way is stopped by an `Order`."""

    async def tell(self, orders: Mapping[str, Order]) -> Mapping[str, Reply]:
        """Give each of these nodes its order, and return the answers. A node that is silent or gone has none.

        Returns after a few seconds at most, whatever the nodes do.
        """

    async def aclose(self) -> None:
        """Let go of the engine; end its processes if they were started here."""

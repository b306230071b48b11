"""An engine in memory, with nodes that can be lost or silent. Implements `grym_fetch.cluster.protocol.Cluster`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from grym_fetch.cluster.ends import TaskEnds
from grym_fetch.cluster.protocol import Cluster, Done, NodeSeen, Order, Reply, Task, TaskEnd


@dataclass
class FakeNode:
    """A worker. ``run`` does a task, ``answer`` takes an order; None for one that is silent."""

    run: Callable[[Task], Awaitable[Done]]
    answer: Callable[[Order], Reply | None]
    seen: NodeSeen = field(default_factory=lambda: NodeSeen("machine"))
    queue: asyncio.Queue[Task] = field(default_factory=asyncio.Queue)
    worker: asyncio.Task[None] | None = None
    at_work: Task | None = None


class FakeCluster(TaskEnds):
    """Hands each task to the node with the fewest, and those of a lost node to the others."""

    def __init__(self) -> None:
        super().__init__()
        self._nodes: dict[str, FakeNode] = {}
        self._homeless: list[Task] = []
        self._cancelled: set[int] = set()
        self.submitted: list[Task] = []
        self.is_closed = False

    def join(self, name: str, node: FakeNode) -> None:
        """Add a worker."""
        self._nodes[name] = node
        node.worker = asyncio.get_running_loop().create_task(self._work(name, node), name=name)
        homeless, self._homeless = self._homeless, []
        for task in homeless:
            self._place(task)

    def lose(self, name: str) -> None:
        """Kill a worker; others get what it had."""
        node = self._nodes.pop(name)
        assert node.worker is not None
        node.worker.cancel()
        tasks = [] if node.at_work is None else [node.at_work]
        while not node.queue.empty():
            tasks.append(node.queue.get_nowait())
        for task in tasks:
            self._place(task)

    async def _work(self, name: str, node: FakeNode) -> None:
        while True:
            node.at_work = task = await node.queue.get()
            try:
                if task.number not in self._cancelled:
                    self._ended.put_nowait(TaskEnd(task.number, await node.run(task), node=name))
            except Exception as error:  # noqa: BLE001 - as an engine does
                self._ended.put_nowait(TaskEnd(task.number, error=error, node=name))
            node.at_work = None

    def _place(self, task: Task) -> None:
        names = [name for name in self._nodes if task.node in (None, name)]
        if not names:
            self._homeless.append(task)
            return
        load = {name: self._nodes[name].queue.qsize() + (self._nodes[name].at_work is not None) for name in names}
        self._nodes[min(names, key=load.__getitem__)].queue.put_nowait(task)

    async def nodes(self) -> Mapping[str, NodeSeen]:
        """Return who is there."""
        return {name: node.seen for name, node in self._nodes.items()}

    async def submit(self, task: Task) -> None:
        """Give it to a node."""
        self.submitted.append(task)
        self._place(task)

    async def gather(self) -> Sequence[TaskEnd]:
        """Wait for the next ends."""
        return [each for each in await super().gather() if each.number not in self._cancelled]

    async def cancel(self, numbers: Collection[int]) -> None:
        """Forget these."""
        self._cancelled |= set(numbers)

    async def tell(self, orders: Mapping[str, Order]) -> Mapping[str, Reply]:
        """Ask each node that is there."""
        await asyncio.sleep(0)
        answers = {name: self._nodes[name].answer(order) for name, order in orders.items() if name in self._nodes}
        return {name: answer for name, answer in answers.items() if answer is not None}

    async def aclose(self) -> None:
        """End the workers."""
        self.is_closed = True
        for node in self._nodes.values():
            assert node.worker is not None
            node.worker.cancel()
        await asyncio.gather(*(n.worker for n in self._nodes.values() if n.worker), return_exceptions=True)


_: type[Cluster] = FakeCluster

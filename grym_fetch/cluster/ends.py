"""What comes back from workers, whatever the engine: the ends of tasks, and answers to orders.

Rule: another version is an answer, too. It is said which one, and nothing else of it is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from grym_fetch._version import __version__
from grym_fetch.cluster.packets import OtherVersion, Packet, unpack, wrong_version
from grym_fetch.cluster.protocol import Done, Reply, TaskEnd
from grym_fetch.core.text import safe_text


class TaskEnds:
    """The ends that an engine has heard of and the driver has not: what all engines have in common of `Cluster`."""

    def __init__(self) -> None:
        self._ended: asyncio.Queue[TaskEnd] = asyncio.Queue()

    async def gather(self) -> Sequence[TaskEnd]:
        """Wait for the next ends."""
        ended = [await self._ended.get()]
        while not self._ended.empty():
            ended.append(self._ended.get_nowait())
        return ended


def end_of(number: int, packet: Packet, node: str | None = None) -> TaskEnd:
    """Return the end of a task of which a worker has sent this."""
    try:
        return TaskEnd(number, unpack(packet, Done), node=node)
    except OtherVersion as other:
        return TaskEnd(number, error=wrong_version(other), node=node)


def reply_of(packet: Packet) -> Reply:
    """Return a worker's answer to an order; that of another version is that it cannot take part."""
    try:
        return unpack(packet, Reply)
    except OtherVersion as other:
        return Reply(0, problem=f"has grym-fetch {safe_text(other.version)}, and the driver {__version__}")

"""Cuts the assets of a run into tasks of about a minute, by what nodes have shown to do in one.

Rules: every asset is in exactly one task. An asset as big as a task is alone in one. The biggest go first, so that none
is still under way when everything else is done; of very many assets, the biggest of each window, for no more are held.
The last tasks are small, so that all nodes end together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice

from grym_fetch.core.manifest import Asset

TASK_S = 60.0
"""Seconds that a task should take."""
LEAST_S = 2.0
"""Seconds that a task should take at least, however little is left: handing one out costs time, too."""
LEAST_BYTES = 8 * 1024 * 1024
LEAST_COUNT = 50
"""The same while nothing is known."""
FIRST_BYTES = 256 * 1024 * 1024
FIRST_COUNT = 500
"""The size of a task while nothing is known: a minute at 4 MiB/s, or some seconds of small files."""
MAX_COUNT = 5000
"""What is held and sent for a task grows with its assets."""
UNKNOWN_BYTES = 16 * 1024 * 1024
"""An asset of unknown size counts as one of this size."""
WINDOW = 10_000
"""So many assets are held to be put in order."""
ROUNDS = 2
"""The rest is divided into so many tasks for each node."""
MEMORY_RATIO = 0.5
"""The weight of the newest task in what is known of the speed."""


@dataclass(frozen=True, slots=True)
class TaskSize:
    """The most that one task should have."""

    bytes: int
    count: int


def weight(asset: Asset) -> int:
    """Return the bytes that an asset counts for."""
    return UNKNOWN_BYTES if asset.size is None else asset.size


class TaskPace:
    """What a node does in a second, learned from the tasks that are done; and how big the next one should be."""

    def __init__(self) -> None:
        self._bytes: float | None = None
        self._count: float | None = None

    def learn(self, size: int, count: int, seconds: float) -> None:
        """A task of ``size`` bytes in ``count`` assets took so long. One that fetched nothing teaches nothing."""
        if seconds <= 0 or count <= 0:
            return
        self._bytes = _mixed(self._bytes, size / seconds)
        self._count = _mixed(self._count, count / seconds)

    def next_size(self, left_bytes: int, left_count: int, nodes: int) -> TaskSize:
        """Return the size of the next task. ``left_bytes``, ``left_count``: what no task has yet; ``nodes``: how many.

        Each speed was measured with assets of some size, so neither says what the server can do:
        the next task may have twice as much of one as the speed says, if it has less of the other.
        """
        size, least_size = float(FIRST_BYTES), float(LEAST_BYTES)
        count, least_count = float(FIRST_COUNT), float(LEAST_COUNT)
        if self._bytes is not None and self._count is not None:
            size, least_size = 2 * self._bytes * TASK_S, self._bytes * LEAST_S
            count, least_count = 2 * self._count * TASK_S, self._count * LEAST_S
        shares = max(nodes, 1) * ROUNDS
        size = min(size, max(left_bytes / shares, least_size))
        count = min(count, max(left_count / shares, least_count), MAX_COUNT)
        return TaskSize(max(1, round(size)), max(1, round(count)))


def _mixed(before: float | None, now: float) -> float:
    return now if before is None else before + (now - before) * MEMORY_RATIO


def cut(assets: Iterable[Iterable[Asset]], size: Callable[[], TaskSize]) -> Iterator[tuple[Asset, ...]]:
    """Cut assets, which come in batches, into tasks. ``size`` says how big the next one may be, when it is cut."""
    waiting = chain.from_iterable(assets)
    while window := list(islice(waiting, WINDOW)):
        window.sort(key=weight, reverse=True)  # a stable sort: equals stay in the manifest's order
        at = 0
        while at < len(window):
            most = size()
            stop, total = at, 0
            while stop < len(window) and stop - at < most.count:
                total += weight(window[stop])
                if stop > at and total > most.bytes:
                    break
                stop += 1
            yield tuple(window[at:stop])
            at = stop

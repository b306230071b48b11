"""A pool of buffers to receive bodies into: one per engine, so that the number of connections bounds its size.

A new buffer costs a page fault every 4 KiB and a pass that fills it with zeros: a tenth of a second per GiB.
Rules: a buffer becomes free only when nobody holds the view lent from it. Nobody ever waits for one.
"""

from __future__ import annotations

import traceback
import weakref

LEAST_AHEAD = 4
"""How many buffers may wait for something other than the disk, however few connections there are."""


class Buffers:
    """Buffers of ``size`` bytes. Never makes more than are in use at once.

    A connection fills one buffer while another is being stored. The number kept for longer should be no more
    than one for each of the ``connections``: see `are_scarce`.
    """

    def __init__(self, size: int, connections: int) -> None:
        self.size = size
        self.made = 0
        """How many buffers there are."""
        self._enough = 2 * connections + max(LEAST_AHEAD, connections)
        self._free: list[bytearray] = []
        self._lent: dict[int, weakref.ref[memoryview]] = {}

    @property
    def are_scarce(self) -> bool:
        """Whether so many are in use that any that can be spared should be given back."""
        return self.made - len(self._free) >= self._enough

    def take(self) -> bytearray:
        """Return a buffer to fill. It still holds its old content."""
        if self._free:
            return self._free.pop()
        self.made += 1
        return bytearray(self.size)

    def give(self, buffer: bytearray) -> None:
        """Return a buffer that was taken but not lent."""
        self._free.append(buffer)

    def lend(self, buffer: bytearray, length: int) -> memoryview:
        """Return a view of the first ``length`` bytes. The buffer returns to the pool when nobody holds the view.

        A slice does not keep the view alive: hold the view itself as well.
        """
        view = memoryview(buffer)[:length]
        key = id(view)

        def come_back(_: object) -> None:
            del self._lent[key]
            self._free.append(buffer)

        self._lent[key] = weakref.ref(view, come_back)
        return view


def release_frames(error: BaseException) -> None:
    """Clear the frames that an error and its causes came through, except those still running.

    A report may keep the errors of a thousand assets; their frames would keep everything in use there, buffers too.
    """
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        if (each := waiting.pop()) is not None and id(each) not in seen:
            seen.add(id(each))
            traceback.clear_frames(each.__traceback__)
            waiting += [each.__cause__, each.__context__]

"""A pool of buffers to receive bodies into.

A fresh buffer costs a page fault every 4 KiB and a pass that fills it with zeros: a tenth of a second for each GiB.
Rule: a buffer is free again once nobody holds the view that was lent of it, and never before.
"""

from __future__ import annotations

import weakref


class Buffers:
    """Buffers of ``size`` bytes. No more are made than are in use at once."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._free: list[bytearray] = []
        self._lent: dict[int, weakref.ref[memoryview]] = {}

    def take(self) -> bytearray:
        """Return a buffer to fill. It still has whatever it held before."""
        return self._free.pop() if self._free else bytearray(self._size)

    def give(self, buffer: bytearray) -> None:
        """Put back a buffer that was taken and not lent."""
        self._free.append(buffer)

    def lend(self, buffer: bytearray, length: int) -> memoryview:
        """Return a view of the first ``length`` bytes. The buffer comes back to the pool when nobody holds the view.

        A slice of the view does not keep it: hold the view itself as well.
        """
        view = memoryview(buffer)[:length]
        key = id(view)

        def come_back(_: object) -> None:
            del self._lent[key]
            self._free.append(buffer)

        self._lent[key] = weakref.ref(view, come_back)
        return view

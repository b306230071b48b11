"""A pool of buffers to receive bodies into.

A fresh buffer costs a page fault every 4 KiB and a pass that fills it with zeros: a tenth of a second per GiB.
Rule: a buffer becomes free once no one holds the view lent of it, and never before.
"""

from __future__ import annotations

import weakref


class Buffers:
    """Buffers of ``size`` bytes. Never makes more than are in use at once."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._free: list[bytearray] = []
        self._lent: dict[int, weakref.ref[memoryview]] = {}

    def take(self) -> bytearray:
        """Return a buffer to fill. It still holds its old content."""
        return self._free.pop() if self._free else bytearray(self._size)

    def give(self, buffer: bytearray) -> None:
        """Return a buffer that was taken but not lent."""
        self._free.append(buffer)

    def lend(self, buffer: bytearray, length: int) -> memoryview:
        """Return a view of the first ``length`` bytes. The buffer returns to the pool when no one holds the view.

        A slice does not keep the view alive: hold the view itself as well.
        """
        view = memoryview(buffer)[:length]
        key = id(view)

        def come_back(_: object) -> None:
            del self._lent[key]
            self._free.append(buffer)

        self._lent[key] = weakref.ref(view, come_back)
        return view

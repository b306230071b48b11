"""Memory that bodies are received into, used again and again.

A fresh buffer costs the system a page fault every 4 KiB and the interpreter a pass to fill it with zeros: for each GiB
a tenth of a second. Rule: a buffer is free again when nobody holds the view of it that was lent, and never before.
"""

from __future__ import annotations

import weakref


class Buffers:
    """Buffers of ``size`` bytes. As many as are in use at once are made, and no more."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._free: list[bytearray] = []
        self._lent: dict[int, weakref.ref[memoryview]] = {}

    def take(self) -> bytearray:
        """A buffer to fill, with whatever it held before."""
        return self._free.pop() if self._free else bytearray(self._size)

    def give(self, buffer: bytearray) -> None:
        """Give back a buffer that was taken and not lent."""
        self._free.append(buffer)

    def lend(self, buffer: bytearray, length: int) -> memoryview:
        """Return the first ``length`` bytes, to be kept as long as they are needed; then the buffer comes back.

        Who slices the view must hold the view itself as well.
        """
        view = memoryview(buffer)[:length]
        key = id(view)

        def come_back(_: object) -> None:
            del self._lent[key]
            self._free.append(buffer)

        self._lent[key] = weakref.ref(view, come_back)
        return view

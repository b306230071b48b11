"""The hash frontier: how far the content is hashed from its beginning, while it arrives in any order.

Rules: bytes are hashed once, in file order. A piece that begins at the frontier is hashed from memory; pieces ahead of
it are read back, from the page cache, when the frontier arrives. A piece that an earlier process left is compared with
its digest in the journal on the way: the same read proves it and hashes it. So verification ends with the last byte,
and resuming needs no separate pass.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from grym_fetch.core.content_hasher import ContentHasher
from grym_fetch.core.errors import StorageError
from grym_fetch.core.journal import Piece, PieceTable
from grym_fetch.core.ranges import ByteRange, IntervalSet
from grym_fetch.core.segments import MIB
from grym_fetch.core.world import Stage, Threads

STRIDE_BYTES = 16 * MIB
"""If this many are available, a thread hashes them in one go: each hand-over costs two thread switches."""
MEMORY_BYTES = 8 * MIB
"""Pieces that are kept in memory until the frontier reaches them; the rest is read back."""


class Frontier:
    """Hashes one asset's content as it gets stored."""

    def __init__(
        self,
        content: ContentHasher,
        stage: Stage,
        threads: Threads,
        *,
        claims: PieceTable,
    ) -> None:
        self.position = 0
        self.content = content
        self._stage = stage
        self._threads = threads
        self._stored = IntervalSet()
        self._claims = PieceTable(claims)
        for piece in claims:
            self._stored.add(piece.start, piece.stop)
        self._unproved_bytes = self._stored.total
        self._memory: dict[int, bytes | memoryview] = {}
        self._memory_end = 0
        """The end of the run that is being hashed or waits in memory."""
        self._doubts: set[ByteRange] = set()
        self._wakeup = asyncio.Event()
        self._wakeup.set()

    def has(self, start: int, stop: int) -> bool:
        """Whether all of these bytes are on the disk."""
        return self._stored.run_from(start) >= stop

    def doubt(self, piece: ByteRange) -> None:
        """A reader has found a piece of the manifest wrong, before its turn."""
        self._doubts.add(piece)
        self._wakeup.set()

    def offer(self, start: int, data: bytes | memoryview) -> None:
        """A piece is on its way to the disk; keep it in memory if the frontier will be there soon."""
        if start == self._memory_end and start + len(data) - self.position <= MEMORY_BYTES:
            self._memory[start] = data
            self._memory_end = start + len(data)
            self._wakeup.set()

    def stored(self, start: int, stop: int) -> None:
        """Bytes are on the disk."""
        self._stored.add(start, stop)
        self._wakeup.set()

    @property
    def reach(self) -> int:
        """Where the frontier would be if it had passed what an earlier process left, which costs time but no bytes.

        How far new bytes may be ahead is counted from here, so that they arrive during the proof and not after it.
        """
        return self.position + self._unproved_bytes

    async def run(
        self,
        *,
        on_bad: Callable[[Piece], None],
        on_advance: Callable[[], None],
        on_wrong: Callable[[ByteRange], Awaitable[None]],
    ) -> None:
        """Hash bytes as they arrive, until cancelled. Raises the same errors as the stage.

        ``on_bad`` is called with pieces that are not what was claimed, ``on_wrong`` with those of the manifest that are
        wrong: the frontier is back at their beginning then. ``on_advance`` is called whenever more is hashed.
        """
        try:
            while True:
                await self._wakeup.wait()
                self._wakeup.clear()
                await self._act_on_doubts(on_wrong)
                while await self._advance(on_bad):
                    if (wrong := self.content.wrong) is not None:
                        self._go_back(wrong)
                        await on_wrong(wrong)
                    await self._act_on_doubts(on_wrong)
                    on_advance()
        finally:
            self._memory.clear()

    async def _advance(self, on_bad: Callable[[Piece], None]) -> bool:
        """Hash the next bytes, if they are there. False if not."""
        at = self.position
        if at in self._memory:
            self.position += await self._hash_memory(at)
        elif claims := self._claims_from(at):
            proved = await self._stage.prove(claims, self.content.update)
            for claim in claims[:proved]:
                self._drop(claim)
                self.position = claim.stop
            if proved < len(claims):
                self._drop(claims[proved])
                self._stored.remove(claims[proved].start, claims[proved].stop)
                on_bad(claims[proved])
                return proved > 0
        elif (stop := min(self._stored.run_from(at), at + STRIDE_BYTES)) > at:
            # Only up to the next claim, which is read separately, so that its digest can be compared.
            following = next((piece.start for piece in self._claims if piece.start > at), stop)
            count = await self._stage.feed(at, min(stop, following), self.content.update)
            if not count:
                raise StorageError("the part file", "something else has cut off what was written; run again")
            self.position += count
        else:
            return False
        self._memory_end = max(self._memory_end, self.position)
        return True

    def _go_back(self, wrong: ByteRange) -> None:
        """Forget a piece that is wrong, and that anything behind it was hashed: it is read back when its turn comes."""
        self.content.resume()
        self.position = self._memory_end = wrong.start
        self._memory.clear()
        self._stored.remove(wrong.start, wrong.stop)

    async def _act_on_doubts(self, on_wrong: Callable[[ByteRange], Awaitable[None]]) -> None:
        """Give up the pieces that readers found wrong; one that is being hashed is judged at its end."""
        while self._doubts:
            piece = self._doubts.pop()
            if piece.start < self.position or not self.has(piece.start, piece.stop):
                continue
            for claim in self._claims.drop(piece.start, piece.stop):
                self._unproved_bytes -= claim.stop - claim.start
            self._memory.clear()
            self._memory_end = self.position
            self._stored.remove(piece.start, piece.stop)
            await on_wrong(piece)

    def _claims_from(self, at: int) -> list[Piece]:
        """The claims that follow each other from here on, at most a stride of them."""
        run: list[Piece] = []
        stop = min(self._stored.run_from(at), at + STRIDE_BYTES)
        while at < stop and (claim := self._claims.at(at)) is not None:
            run.append(claim)
            at = claim.stop
        return run

    async def _hash_memory(self, at: int) -> int:
        """Hash the pieces in memory that follow each other. Returns how many bytes that was."""
        run: list[bytes | memoryview] = []
        while (data := self._memory.pop(at, None)) is not None:
            run.append(data)
            at += len(data)

        def update() -> int:
            for data in run:
                self.content.update(data)
            return sum(map(len, run))

        return await self._threads.compute(update)

    def _drop(self, claim: Piece) -> None:
        self._claims.drop(claim.start, claim.stop)
        self._unproved_bytes -= claim.stop - claim.start

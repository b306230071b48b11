"""Small assets of one host, many at a time: fetched whole, checked and put in place in groups.

Rules: this is the short way, for assets with which nothing is unusual. Anything else (any answer but the right bytes, a
folder that cannot be written) is not dealt with here: the asset is *left over*, no event was emitted for it, and it
goes the long way (`Transfer`), which knows retries, mirrors and errors. After a few of these in a row all that still
wait are left over, so that a server in trouble is not asked for thousands of files twice.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import BadStatus, GrymFetchError, StorageError, Throttled
from grym_fetch.core.http import Asked, ErrorStatus, Whole
from grym_fetch.core.manifest import Asset
from grym_fetch.core.origins import CRAWL_BYTES_PER_S, Origin
from grym_fetch.core.world import Connection, Response
from grym_fetch.disk.small_files import SmallFile, SmallFileWriter
from grym_fetch.disk.verified import VerifiedFile
from grym_fetch.runtime.waiting import wait_uncancelled
from grym_fetch.transfer.context import TransferContext

SMALL_FILE_BYTES = 256 * 1024
"""An asset up to this size is small: fetching it again costs less than keeping track of half of it."""
MIN_SMALL_FILES = 4
"""Fewer small assets than this go the long way: there is little to share."""
TURN_FILES = 32
"""Assets that a connection fetches before the scheduler may give it to another source."""
GROUP_FILES = 64
GROUP_BYTES = 4 * 1024 * 1024
"""A group is put in place when it has this many files or bytes."""
GROUP_INTERVAL_S = 1.0
"""On a slow link a group is put in place this often, however small, and connections come free for others."""
CRAWL_TIMEOUT_S = 30.0
"""An asset whose bytes still come at a crawl after this long is left over: another mirror may be quicker."""
MAX_CONSECUTIVE_FAILURES = 3
"""After this many failures in a row, leave all remaining assets to the general way."""


def is_small(asset: Asset) -> bool:
    """Whether an asset can go the short way."""
    return (
        asset.checksum is not None and asset.size is not None and asset.size <= SMALL_FILE_BYTES and not asset.extract
    )


@dataclass(eq=False, slots=True)
class Turn:
    """Some assets for one connection, one after the other."""

    host: str
    assets: deque[Asset]
    task: asyncio.Task[None] | None = None
    is_refused: bool = False
    """Whether the host allows no further connection now, or is asked too often: then its assets wait again."""


@dataclass(frozen=True, slots=True)
class ReceivedFile:
    """The bytes of an asset: asked for at ``began``, complete at ``came``, in monotonic seconds."""

    asset: Asset
    checksum: Checksum
    data: bytearray
    began: float
    came: float


class SmallFileSource:
    """Small assets of one host. Implements `grym_fetch.transfer.scheduler.Source`.

    ``on_placed`` is called with the assets that are in place, as they were verified.
    """

    def __init__(
        self,
        host: str,
        assets: Iterable[Asset],
        context: TransferContext,
        *,
        writer: SmallFileWriter,
        on_placed: Callable[[list[tuple[ReceivedFile, VerifiedFile]]], None],
    ) -> None:
        self.host = host
        self.left_over: list[Asset] = []
        self._waiting = deque(assets)
        self._context = context
        self._clock = context.clock
        self._hosts = context.scheduler.hosts
        self._writer = writer
        self._on_placed = on_placed
        self._turns: set[Turn] = set()
        self._group: list[ReceivedFile] = []
        self._group_bytes = 0
        self._failures_in_a_row = 0
        self._is_over = asyncio.Event()
        self._failure: BaseException | None = None

    async def run(self) -> None:
        """Wait until every asset is in place or left over. However it ends: nothing works for it any longer."""
        try:
            if self._waiting or self._turns:
                await self._is_over.wait()
            if self._failure is not None:
                raise self._failure
            await self._place()
        finally:
            self._is_over.set()
            tasks = [turn.task for turn in self._turns if turn.task is not None]
            for task in tasks:
                task.cancel()
            await wait_uncancelled(tasks)

    # -- work for the scheduler ---------------------------------------------------------------------------------------

    def next_attempt(self, has_room: Callable[[str], bool]) -> Turn | None:
        """Return the next few assets to fetch; if none is waiting, take half of another connection's."""
        if self._is_over.is_set() or not has_room(self.host) or self._failures_in_a_row >= MAX_CONSECUTIVE_FAILURES:
            return None
        if not self._waiting:
            self._waiting.extend(self._half_of_a_turn())
        if not self._waiting:
            return None
        turn = Turn(self.host, deque(self._waiting.popleft() for _ in range(min(TURN_FILES, len(self._waiting)))))
        self._turns.add(turn)
        return turn

    def _half_of_a_turn(self) -> list[Asset]:
        """Remove half of the longest turn; never the asset that is under way."""
        longest = max((turn.assets for turn in self._turns), key=len, default=deque[Asset]())
        return [longest.pop() for _ in range(len(longest) // 2)][::-1]

    async def fetch(self, turn: Turn, connection: Connection) -> None:
        """Fetch these over a connection."""
        began = self._clock.monotonic()
        while (
            turn.assets
            and self._failures_in_a_row < MAX_CONSECUTIVE_FAILURES
            and self._clock.monotonic() - began < GROUP_INTERVAL_S
        ):
            await self._writer.calm()
            file = await self._get(turn.assets[0], turn, connection)
            if turn.is_refused:
                break
            asset = turn.assets.popleft()
            if file is None:
                self.left_over.append(asset)
                self._failures_in_a_row += 1
            else:
                self._failures_in_a_row = 0
                await self._collect(file)
        if not self._waiting:
            # Nobody knows how long the others will take.
            await self._place()

    def release(self, turn: Turn) -> None:
        """The turn is over: the assets it has not come to wait again, or are left over with all others."""
        self._turns.discard(turn)
        self._waiting.extendleft(reversed(turn.assets))
        if self._failures_in_a_row >= MAX_CONSECUTIVE_FAILURES:
            self.left_over.extend(self._waiting)
            self._waiting.clear()
        if not self._waiting and not self._turns:
            self._is_over.set()

    def fail(self, error: BaseException) -> None:
        """Let `run` end and raise this."""
        self._failure = self._failure or error
        self._is_over.set()

    # -- one asset ----------------------------------------------------------------------------------------------------

    async def _get(self, asset: Asset, turn: Turn, connection: Connection) -> ReceivedFile | None:
        """Fetch an asset whole. Return None unless it has exactly the right length."""
        assert asset.checksum is not None
        assert asset.size is not None
        began = self._clock.monotonic()
        data = bytearray(asset.size)
        try:
            asked = Asked(None, asset.size, checksum=asset.checksum)
            answer = await self._context.requester.open(connection, Origin(0, asset.url), asked)
            try:
                self._hosts.moved(turn, answer.host)
                if not isinstance(answer.verdict, Whole):
                    if isinstance(answer.verdict, ErrorStatus):
                        raise _as_error(asset.url, answer.verdict)
                    return None
                self._hosts.receives(turn, self._clock.monotonic(), whole=True)
                if not await self._receive(answer.response, data):
                    return None
            finally:
                answer.response.close()
        except GrymFetchError as error:
            # Perhaps only because another of our connections is at this host, or was a moment ago.
            now = self._clock.monotonic()
            turn.is_refused = self._hosts.refused(turn, now, error, took=now - began)
            if not turn.is_refused:
                self._hosts.refused_whole(turn, error)
            return None
        return ReceivedFile(asset, asset.checksum, data, began, self._clock.monotonic())

    async def _receive(self, response: Response, data: bytearray) -> bool:
        """Fill ``data``. False if the body is shorter or longer."""
        view = memoryview(data)
        received, began = 0, self._clock.monotonic()
        try:
            while received < len(data):
                count = await response.readinto(view[received:])
                if not count:
                    return False
                received += count
                if (took := self._clock.monotonic() - began) > CRAWL_TIMEOUT_S and received < CRAWL_BYTES_PER_S * took:
                    return False
            return await response.readinto(memoryview(bytearray(1))) == 0
        finally:
            self._context.on_received(received)
            if (limiter := self._context.limiter) is not None:
                await self._clock.sleep(limiter.spend(received, self._clock.monotonic()))

    # -- many assets --------------------------------------------------------------------------------------------------

    async def _collect(self, file: ReceivedFile) -> None:
        self._group.append(file)
        self._group_bytes += len(file.data)
        waited = self._clock.monotonic() - self._group[0].came
        if len(self._group) >= GROUP_FILES or self._group_bytes >= GROUP_BYTES or waited >= GROUP_INTERVAL_S:
            # This connection waits for the disk, the others go on: a slow disk slows them all down in the end.
            await self._place()

    async def _place(self) -> None:
        group, self._group, self._group_bytes = self._group, [], 0
        if not group:
            return
        files = [SmallFile(file.asset.local_path, file.data, file.checksum) for file in group]
        verified_files: list[VerifiedFile | None] = [None] * len(files)
        with suppress(StorageError):  # the long way will say what is wrong
            verified_files = await self._writer.put(files)
        placed = []
        for file, verified in zip(group, verified_files, strict=True):
            if verified is None:
                self.left_over.append(file.asset)
                self._failures_in_a_row += 1
            else:
                placed.append((file, verified))
        self._on_placed(placed)


def _as_error(url: str, refusal: ErrorStatus) -> BadStatus:
    if refusal.is_throttling:
        return Throttled(url, refusal.status, refusal.reason, refusal.retry_after)
    return BadStatus(url, refusal.status, refusal.reason)

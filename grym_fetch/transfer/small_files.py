"""Small assets, many at a time: fetched whole, checked and put in place together.

Rules: this is the short way, for assets about which there is nothing to say. Whatever is unusual (any answer but the
right bytes, a folder that cannot be written) is not dealt with here: the asset is *left over*, no event has told of it,
and it goes the long way (`Transfer`), which knows retries, mirrors and errors. After a few of these in a row all that
are still waiting are left over, so that a server in trouble is not asked for thousands of files twice.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from grym_fetch.core.addresses import host_of
from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import GrymFetchError, StorageError
from grym_fetch.core.http import Asked, Whole
from grym_fetch.core.manifest import Asset
from grym_fetch.core.origins import CRAWL, Origin
from grym_fetch.core.policy import TokenBucket
from grym_fetch.core.world import Clock, Connection, Response
from grym_fetch.disk.small_files import SmallFile, SmallFileWriter
from grym_fetch.disk.verified import VerifiedFile
from grym_fetch.runtime.waiting import wait_uncancelled
from grym_fetch.transfer.request import Requester

SMALL = 256 * 1024
"""Bytes. An asset up to this size is small: fetching it again costs less than keeping track of half of it."""
LEAST = 4
"""Fewer small assets than this go the long way: there is nothing to share."""
TURN = 32
"""Assets that a connection fetches before the scheduler may give it to somebody else."""
BUNDLE_FILES = 64
BUNDLE_BYTES = 4 * 1024 * 1024
SOON = 1.0
"""Seconds. On a slow link bundles are put away this often, however small, and connections come free for others."""
CRAWLS = 30.0
"""Seconds after which an asset whose bytes still come at a crawl is left over: another mirror may be quicker."""
MAX_CONSECUTIVE_FAILURES = 3
"""After so many assets in a row that could not be had the short way, the rest is left over as well."""


def is_small(asset: Asset) -> bool:
    """Whether an asset can go the short way."""
    return asset.checksum is not None and asset.size is not None and asset.size <= SMALL and not asset.extract


def by_host(assets: Iterable[Asset]) -> dict[str, list[Asset]]:
    """The assets by the host that each is fetched from."""
    groups: dict[str, list[Asset]] = {}
    for asset in assets:
        groups.setdefault(host_of(asset.url), []).append(asset)
    return groups


@dataclass(eq=False, slots=True)
class Turn:
    """Some assets for one connection, one after the other."""

    host: str
    assets: deque[Asset]
    task: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True)
class ReceivedFile:
    """An asset's bytes, as they came: asked for at ``began``, here at ``came``, in monotonic seconds."""

    asset: Asset
    checksum: Checksum
    data: bytearray
    began: float
    came: float


class SmallFileSource:
    """Small assets of one host. Implements `grym_fetch.transfer.scheduler.Source`.

    ``on_placed`` is told of assets that are in place, as they were verified; ``on_received`` of bytes that came.
    """

    def __init__(
        self,
        host: str,
        assets: Iterable[Asset],
        *,
        requester: Requester,
        small_file_writer: SmallFileWriter,
        clock: Clock,
        limiter: TokenBucket | None,
        on_received: Callable[[int], None],
        on_placed: Callable[[list[tuple[ReceivedFile, VerifiedFile]]], None],
    ) -> None:
        self.host = host
        self.left_over: list[Asset] = []
        self._waiting = deque(assets)
        self._requester = requester
        self._small_file_writer = small_file_writer
        self._clock = clock
        self._limiter = limiter
        self._on_received = on_received
        self._on_placed = on_placed
        self._turns: set[Turn] = set()
        self._bundle: list[ReceivedFile] = []
        self._bundle_bytes = 0
        self._in_a_row = 0
        self._is_over = asyncio.Event()
        self._failure: BaseException | None = None

    async def run(self) -> None:
        """Wait until every asset is in place or left over. Whatever ends it: nothing works for it any more."""
        try:
            if self._waiting or self._turns:
                await self._is_over.wait()
            if self._failure is not None:
                raise self._failure
            await self._put_away()
        finally:
            self._is_over.set()
            tasks = [turn.task for turn in self._turns if turn.task is not None]
            for task in tasks:
                task.cancel()
            await wait_uncancelled(tasks)

    # -- work for the scheduler ---------------------------------------------------------------------------------------

    def next_attempt(self, has_room: Callable[[str], bool]) -> Turn | None:
        """Give the next few assets to fetch; where none is waiting, half of what another connection has."""
        if self._is_over.is_set() or not has_room(self.host) or self._in_a_row >= MAX_CONSECUTIVE_FAILURES:
            return None
        if not self._waiting:
            self._waiting.extend(self._half_of_a_turn())
        if not self._waiting:
            return None
        turn = Turn(self.host, deque(self._waiting.popleft() for _ in range(min(TURN, len(self._waiting)))))
        self._turns.add(turn)
        return turn

    def _half_of_a_turn(self) -> list[Asset]:
        """Take back half of the longest turn; never the asset that is under way."""
        longest = max((turn.assets for turn in self._turns), key=len, default=deque[Asset]())
        return [longest.pop() for _ in range(len(longest) // 2)][::-1]

    async def fetch(self, turn: Turn, connection: Connection) -> None:
        """Fetch these over a connection."""
        began = self._clock.monotonic()
        while turn.assets and self._in_a_row < MAX_CONSECUTIVE_FAILURES and self._clock.monotonic() - began < SOON:
            await self._small_file_writer.calm()
            file = await self._get(turn.assets[0], connection)
            asset = turn.assets.popleft()
            if file is None:
                self.left_over.append(asset)
                self._in_a_row += 1
            else:
                self._in_a_row = 0
                await self._take(file)
        if not self._waiting:
            # Nobody knows how long the others will take.
            await self._put_away()

    def release(self, turn: Turn) -> None:
        """The turn is over: what it has not come to waits again, or is left over with all the rest."""
        self._turns.discard(turn)
        self._waiting.extendleft(reversed(turn.assets))
        if self._in_a_row >= MAX_CONSECUTIVE_FAILURES:
            self.left_over.extend(self._waiting)
            self._waiting.clear()
        if not self._waiting and not self._turns:
            self._is_over.set()

    def fail(self, error: BaseException) -> None:
        """Let `run` end and raise this."""
        self._failure = self._failure or error
        self._is_over.set()

    # -- one asset ----------------------------------------------------------------------------------------------------

    async def _get(self, asset: Asset, connection: Connection) -> ReceivedFile | None:
        """Fetch an asset whole. None if anything but as many bytes as it has came."""
        assert asset.checksum is not None
        assert asset.size is not None
        began = self._clock.monotonic()
        data = bytearray(asset.size)
        try:
            answer = await self._requester.open(connection, Origin(0, asset.url), Asked(None, asset.size))
            try:
                if not isinstance(answer.verdict, Whole) or not await self._receive(answer.response, data):
                    return None
            finally:
                answer.response.close()
        except GrymFetchError:
            return None
        return ReceivedFile(asset, asset.checksum, data, began, self._clock.monotonic())

    async def _receive(self, response: Response, data: bytearray) -> bool:
        """Fill ``data``. False if there is less or more of it."""
        view = memoryview(data)
        received, began = 0, self._clock.monotonic()
        try:
            while received < len(data):
                count = await response.readinto(view[received:])
                if not count:
                    return False
                received += count
                if (took := self._clock.monotonic() - began) > CRAWLS and received < CRAWL * took:
                    return False
            return await response.readinto(memoryview(bytearray(1))) == 0
        finally:
            self._on_received(received)
            if self._limiter is not None:
                await self._clock.sleep(self._limiter.take(received, self._clock.monotonic()))

    # -- many assets --------------------------------------------------------------------------------------------------

    async def _take(self, file: ReceivedFile) -> None:
        self._bundle.append(file)
        self._bundle_bytes += len(file.data)
        waited = self._clock.monotonic() - self._bundle[0].came
        if len(self._bundle) >= BUNDLE_FILES or self._bundle_bytes >= BUNDLE_BYTES or waited >= SOON:
            # This connection waits for the disk, the others go on: a slow disk slows them all down in the end.
            await self._put_away()

    async def _put_away(self) -> None:
        bundle, self._bundle, self._bundle_bytes = self._bundle, [], 0
        if not bundle:
            return
        files = [SmallFile(p.asset.local_path, p.data, p.checksum) for p in bundle]
        stamps: list[VerifiedFile | None] = [None] * len(files)
        with suppress(StorageError):  # the long way tells what is wrong
            stamps = await self._small_file_writer.put(files)
        placed = []
        for file, stamp in zip(bundle, stamps, strict=True):
            if stamp is None:
                self.left_over.append(file.asset)
                self._in_a_row += 1
            else:
                placed.append((file, stamp))
        self._on_placed(placed)

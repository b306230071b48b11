"""Small assets of one host, many at a time: fetched whole, checked and put in place in groups.

Rules: this is the short way, for assets about which nothing is unusual. Anything else (any answer but the right bytes,
a folder that cannot be written) is not dealt with here: the asset is *left over*, no event was emitted for it, and it
goes the long way (`Transfer`), which knows retries, mirrors and errors. After a few of these in a row, all assets still
waiting are left over, so that a server in trouble is not asked for thousands of files twice. A refusal that only says
how many requests the host allows now is none of these: the asset waits for its turn again. If the server can take it,
some are asked for ahead of their turn, which saves waiting for round trips; if one of these does not arrive as it
should, it is asked for again, alone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import BadStatus, GrymFetchError, StorageError, Throttled
from grym_fetch.core.git_folders import may_make_a_repository
from grym_fetch.core.http import Asked, ErrorStatus, Whole
from grym_fetch.core.manifest import Asset
from grym_fetch.core.mirror_rules import MirrorRule
from grym_fetch.core.mirrors import addresses_of
from grym_fetch.core.origins import CRAWL_BYTES_PER_S, Origin
from grym_fetch.core.world import Connection, Response
from grym_fetch.disk.small_files import SmallFile, SmallFileWriter
from grym_fetch.disk.verified import VerifiedFile
from grym_fetch.runtime.waiting import wait_uncancelled
from grym_fetch.transfer.context import TransferContext
from grym_fetch.transfer.request import Request
from grym_fetch.transfer.scheduler import InTurn

SMALL_FILE_BYTES = 256 * 1024
"""An asset up to this size is small: fetching it again costs less than keeping track of half of it."""
MIN_SMALL_FILES = 4
"""Fewer small assets than this go the long way: there is little to share."""
TURN_FILES = 32
"""Assets that a connection fetches before the scheduler may give it to another source."""
MAX_AHEAD_FILES = 16
MAX_AHEAD_BYTES = 1024 * 1024
"""The most that may be asked for ahead over one connection."""
AHEAD_S = 0.25
"""Nor more than arrives in this time, or in a round trip: on a slow link, connections then come free for others."""
TURN_FILES_AHEAD = 4 * TURN_FILES
"""Assets that a connection fetches in one turn while it asks ahead: between turns a round trip is lost."""
HUNG_S = 1.0
"""When nothing has come for this long, an idle connection takes over the assets asked for after the current one."""
GROUP_FILES = 64
GROUP_BYTES = 4 * 1024 * 1024
"""A group is put in place when it has this many files or bytes."""
GROUP_INTERVAL_S = 1.0
"""On a slow link, a group of any size is put in place this often, and connections come free for others."""
CRAWL_TIMEOUT_S = 30.0
"""An asset whose bytes still come at a crawl after this long is left over: another mirror may be quicker."""
MAX_CONSECUTIVE_FAILURES = 3
"""After this many failures in a row, leave all remaining assets to the general way."""


def is_small(asset: Asset) -> bool:
    """Whether an asset can go the short way, which ignores other files next to its place."""
    return (
        asset.checksum is not None
        and asset.size is not None
        and asset.size <= SMALL_FILE_BYTES
        and not asset.extract
        and not may_make_a_repository(asset.local_path)
    )


@dataclass(eq=False, slots=True)
class FileRequest:
    """What is asked for one asset. ``sent``: the request that went out ahead of its turn."""

    asset: Asset
    origin: Origin
    asked: Asked
    sent: Request | None = None

    @classmethod
    def of(cls, asset: Asset, rules: Sequence[MirrorRule]) -> FileRequest:
        """A request for the whole asset, at its first address."""
        return cls(asset, Origin(0, addresses_of(asset, rules)[0]), Asked(None, asset.size, checksum=asset.checksum))


@dataclass(eq=False, slots=True)
class Turn:
    """Some assets for one connection, one after the other."""

    host: str
    assets: deque[Asset]
    since: float = 0.0
    """When the asset under way was begun."""
    asked: deque[FileRequest] = field(default_factory=deque)
    """For the asset that is under way, and those asked for ahead of their turn."""
    taken: int = 0
    """How many assets it was given in all."""
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
    is_ahead: bool
    """Whether it was asked for ahead of its turn."""


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
        self._speeds = context.scheduler.speeds
        self._rules = context.settings.mirror_rules
        self._writer = writer
        self._on_placed = on_placed
        self._turns: set[Turn] = set()
        self._group: list[ReceivedFile] = []
        self._group_bytes = 0
        self._failures_in_a_row = 0
        self._is_over = asyncio.Event()
        self._failure: BaseException | None = None

    async def run(self) -> None:
        """Wait until every asset is in place or left over. However it ends, no work continues after it."""
        try:
            while self._waiting or self._turns or self._group:
                if self._waiting or self._turns:
                    await self._is_over.wait()
                if self._failure is not None:
                    raise self._failure
                await self._place()
                if self._failures_in_a_row >= MAX_CONSECUTIVE_FAILURES:
                    self._leave_over()
                self._is_over.clear()
                self._context.scheduler.kick()
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
            self._waiting.extend(self._half_of_a_turn() or self._behind_a_hang())
        if not self._waiting:
            return None
        turn = Turn(self.host, deque())
        self._give(turn)
        self._turns.add(turn)
        return turn

    def _give(self, turn: Turn) -> None:
        count = min(TURN_FILES, len(self._waiting))
        turn.assets.extend(self._waiting.popleft() for _ in range(count))
        turn.taken += count

    def _half_of_a_turn(self) -> list[Asset]:
        """Remove half of the longest turn; never the asset that is under way."""
        longest = max((turn.assets for turn in self._turns), key=len, default=deque[Asset]())
        return [longest.pop() for _ in range(-(-len(longest) // 2))][::-1]

    def _behind_a_hang(self) -> list[Asset]:
        """Remove what was asked for ahead behind an asset of which nothing has come for too long."""
        now = self._clock.monotonic()
        for turn in self._turns:
            if len(turn.asked) > 1 and now - turn.since >= max(HUNG_S, 4 * self._speeds.wait(self.host)):
                return [turn.asked.pop().asset for _ in range(len(turn.asked) - 1)][::-1]
        return []

    def foresees(self) -> None:
        """Nothing: each file is asked for at once."""

    def next_ahead(self, host: str) -> Turn | None:  # noqa: ARG002 - the Protocol's
        """Give nothing: what is asked ahead is part of a turn. Raises `InTurn` while some are waiting."""
        if self._waiting:
            raise InTurn
        return None

    def ask_ahead(self, turn: Turn, connection: Connection) -> bool:  # noqa: ARG002 - the Protocol's
        """Never asked."""
        return False

    async def fetch(self, turn: Turn, connection: Connection) -> None:
        """Fetch these over a connection."""
        by = self._clock.monotonic() + GROUP_INTERVAL_S
        while self._failures_in_a_row < MAX_CONSECUTIVE_FAILURES:
            await self._writer.calm()
            if not turn.asked and not self._failures_in_a_row:
                self._ask_ahead(turn, connection, by)
            if not turn.asked and turn.assets and self._clock.monotonic() < by:
                turn.asked.append(FileRequest.of(turn.assets.popleft(), self._rules))
            if not turn.asked:
                break
            file = await self._get(turn.asked[0], turn, connection, by)
            if turn.is_refused:
                break
            request = turn.asked.popleft()
            if file is None:
                self.left_over.append(request.asset)
                self._failures_in_a_row += 1
            else:
                self._failures_in_a_row = 0
                await self._collect(file)
        if not self._waiting:
            # Nobody knows how long the others will take.
            await self._place()

    def _ask_ahead(self, turn: Turn, connection: Connection, by: float) -> None:
        """Ask for more than the asset that is under way, if the server can take it, and until ``by`` only."""
        now = self._clock.monotonic()
        if now >= by:
            return
        # The first one is under way, or will be.
        count = self._hosts.may_ask_ahead(connection, turn.host, now, MAX_AHEAD_FILES - 1) + 1
        most = min(MAX_AHEAD_BYTES, self._speeds.bytes_ahead(turn.host, AHEAD_S))
        size = sum(request.asset.size or 0 for request in turn.asked)
        while 1 < count > len(turn.asked) and size < most:
            if not turn.assets and turn.taken < TURN_FILES_AHEAD:
                self._give(turn)
            if not turn.assets:
                return
            request = FileRequest.of(turn.assets[0], self._rules)
            request.sent = self._context.requester.ask_ahead(connection, request.origin, request.asked)
            if request.sent is None:
                return
            turn.assets.popleft()
            turn.asked.append(request)
            size += request.asset.size or 0

    def release(self, turn: Turn) -> None:
        """The turn is over: the assets it has not come to wait again, or are left over with all others."""
        self._turns.discard(turn)
        self._waiting.extendleft(reversed([*(request.asset for request in turn.asked), *turn.assets]))
        if self._failures_in_a_row >= MAX_CONSECUTIVE_FAILURES:
            self._leave_over()
        if not self._waiting and not self._turns:
            self._is_over.set()

    def _leave_over(self) -> None:
        self.left_over.extend(self._waiting)
        self._waiting.clear()

    def fail(self, error: BaseException) -> None:
        """Let `run` end and raise this."""
        self._failure = self._failure or error
        self._is_over.set()

    # -- one asset ----------------------------------------------------------------------------------------------------

    async def _get(self, request: FileRequest, turn: Turn, connection: Connection, by: float) -> ReceivedFile | None:
        """Fetch an asset whole. Return None unless it has exactly the right length."""
        asset = request.asset
        assert asset.checksum is not None
        assert asset.size is not None
        began = turn.since = self._clock.monotonic()
        data = bytearray(asset.size)
        answer = None
        try:
            answer = await self._context.requester.open(
                connection, request.origin, request.asked, sent_ahead=request.sent
            )
            if not answer.is_ahead:
                self._speeds.waited(turn.host, self._clock.monotonic() - began)
            try:
                self._hosts.moved(turn, answer.host)
                if not isinstance(answer.verdict, Whole):
                    if isinstance(answer.verdict, ErrorStatus):
                        raise _as_error(request.origin.url, answer.verdict)
                    return None
                self._hosts.receives(turn, self._clock.monotonic(), whole=True, scheme=answer.scheme)
                self._ask_ahead(turn, connection, by)
                since = self._clock.monotonic()
                is_complete = await self._receive(answer.response, data)
                self._speeds.measured(turn.host, len(data), self._clock.monotonic() - since)
            finally:
                answer.response.close()
        except GrymFetchError as error:
            if answer is not None and (answer.is_ahead or len(turn.asked) > 1):
                is_complete = False  # perhaps because of what was asked behind it
            else:
                # Perhaps only because another of our connections is at this host, or was a moment ago.
                now = self._clock.monotonic()
                turn.is_refused = self._hosts.refused(turn, now, error, took=now - began)
                if not turn.is_refused:
                    self._hosts.refused_whole(turn, error)
                return None
        if is_complete and answer.is_ahead and not self._hosts.has_proved_ahead(answer.host):
            # Before it is asked for more, it must have answered these in order.
            is_complete = Checksum.of(bytes(data), asset.checksum.algorithm) == asset.checksum
            if is_complete:
                self._hosts.kept_ahead(answer.host)
        if is_complete:
            return ReceivedFile(asset, asset.checksum, data, began, self._clock.monotonic(), answer.is_ahead)
        if not answer.is_ahead and len(turn.asked) == 1:
            return None
        self._hosts.lost_ahead(answer.host)
        while len(turn.asked) > 1:
            turn.assets.appendleft(turn.asked.pop().asset)
        return await self._get(FileRequest.of(asset, self._rules), turn, connection, by)

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
            # This connection waits for the disk while the others go on: a slow disk slows them all down in the end.
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
            if (
                verified is None
                and file.is_ahead
                and Checksum.of(bytes(file.data), file.checksum.algorithm) != file.checksum
            ):
                # Perhaps this was the answer to another request: ask for it once more, alone.
                self._hosts.lost_ahead(self.host)
                self._waiting.append(file.asset)
            elif verified is None:
                self.left_over.append(file.asset)
                self._failures_in_a_row += 1
            else:
                placed.append((file, verified))
        self._on_placed(placed)


def _as_error(url: str, refusal: ErrorStatus) -> BadStatus:
    if refusal.is_throttling:
        return Throttled(url, refusal.status, refusal.reason, refusal.retry_after)
    return BadStatus(url, refusal.status, refusal.reason)

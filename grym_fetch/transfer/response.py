"""From a judged response to pieces on the stage: one connection's work.

Rules: a body is taken in up to where it was promised to end and never a byte further. Nothing is written before the
verdict. What has arrived is stored also when the connection breaks off or the job is cancelled. What the verdict means
for the asset as a whole is returned as a `Restart`, or raised as an error; it is not acted on here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from grym_fetch.core import http
from grym_fetch.core.errors import (
    BadResponse,
    BadStatus,
    ConnectionLost,
    ContentChanged,
    IntegrityError,
    LengthMismatch,
    PolicyRefused,
    RangeRefused,
    Throttled,
    TransferError,
)
from grym_fetch.core.origins import Origin
from grym_fetch.core.policy import TokenBucket
from grym_fetch.core.progress import Pace
from grym_fetch.core.segments import Segment
from grym_fetch.core.world import Clock, Response
from grym_fetch.runtime.buffers import Buffers
from grym_fetch.runtime.waiting import wait_uncancelled
from grym_fetch.transfer.request import Answer
from grym_fetch.transfer.state import DownloadState

FLUSH_INTERVAL_S = 1.0
"""A piece is written when it is full or this old, so that a slow link loses little at a crash."""
SLOW_S = 0.5
"""An attempt that took this long and brought next to nothing was slow; a shorter one says nothing."""
LIMITED_READ_BYTES = 64 * 1024
"""Bytes read in one go under a rate limit, so that the bar moves and does not jump."""
MAX_CHANGES = 2
"""After this many changes of content an origin's validators are taken for noise, and only the checksum decides."""


@dataclass(eq=False, slots=True)
class Attempt:
    """One try to get one segment from one origin. Times are monotonic seconds."""

    segment: Segment
    origin: Origin
    host: str
    began: float
    first_byte_at: float | None = None
    task: asyncio.Task[None] | None = None
    _first_bytes: int = 0
    _pace: Pace | None = None

    def arrived(self, now: float, count: int) -> None:
        """Bytes have come."""
        if self._pace is None:
            self.first_byte_at, self._first_bytes = now, count
            self._pace = Pace(self.began)
        self._pace.advance(now, count)

    def rate(self, now: float) -> float:
        """Its speed just now, in bytes per second."""
        return 0.0 if self._pace is None else self._pace.rate(now)

    def is_known(self, now: float, seconds: float) -> bool:
        """Whether it has gone on long enough to say how fast it is: so long without a byte, or since the first one."""
        return now - (self.began if self.first_byte_at is None else self.first_byte_at) >= seconds

    def measure(self, now: float) -> None:
        """It is over: tell its origin how fast it was."""
        self.origin.waited((self.first_byte_at or now) - self.began)
        received = self.segment.position - self.segment.start
        if self.first_byte_at is not None and received > self._first_bytes:
            # What came first was on its way before it was seen.
            self.origin.measured(received - self._first_bytes, now - self.first_byte_at)
        elif now - self.began >= SLOW_S:
            self.origin.measured(max(received, 1), now - self.began)


@dataclass(frozen=True, slots=True)
class Restart:
    """Bytes on hand must be given up: those that ``origin`` gave, or all that ``trusted`` did not give.

    ``repeats``: only the budget of retries bounds how often this happens, so getting as far again is no progress.
    """

    reason: str
    origin: Origin | None = None
    trusted: Origin | None = None
    forget_size: bool = False
    repeats: bool = False


ENDLESS = "it sends without end, and nothing says how long the content is; give the asset its size"


class SingleStream(TransferError):
    """Not a failure: this origin's parts cannot be combined, so it is asked for everything in one response."""

    def __init__(self, url: str) -> None:
        super().__init__(url, "its parts cannot be combined")


class ResponseReader:
    """Takes responses in for one asset.

    ``on_bytes`` is told of each arrival: the origin, how many bytes, how many of them were missing, and when.
    """

    def __init__(
        self,
        state: DownloadState,
        clock: Clock,
        *,
        pinned: bool,
        on_bytes: Callable[[Origin, int, int, float], None],
        limiter: TokenBucket | None = None,
        piece_size: int,
        promised_size: bool,
    ) -> None:
        self._state = state
        self._clock = clock
        self._pinned = pinned
        self._promised_size = promised_size
        self._on_bytes = on_bytes
        self._limiter = limiter
        self._buffers = Buffers(piece_size)

    async def receive(self, attempt: Attempt, answer: Answer) -> Restart | None:
        """Act on the verdict. Raises `TransferError`, `IntegrityError` or `StorageError` where the attempt failed."""
        origin = attempt.origin
        origin.sent_page = origin.sent_page or answer.is_page
        match answer.verdict:
            case http.Partial(range=got, total=total, validator=validator):
                origin.ranges = True
                if got.length != total and not self._combines(origin, validator):
                    raise SingleStream(origin.url)
                await self._state.learn_validator(origin, validator)
                if total is not None and (restart := await self._learn_size(total, origin)) is not None:
                    return restart
                if self._state.size is None and got.stop > self._state.segments.most:
                    raise PolicyRefused(origin.url, ENDLESS)
                return await self._stream(attempt, answer.response, got.stop, ends_there=True)
            case http.Whole(length=length, validator=validator, framed=framed):
                return await self._whole(attempt, answer.response, length, validator, framed=framed)
            case http.Unsatisfiable(total=total):
                return await self._unsatisfiable(attempt, total)
            case http.OtherRepresentation(reason=reason):
                return self._changed(origin, reason)
            case http.WrongLength(actual=actual, hint=hint):
                return self._wrong_length(origin, actual, hint)
            case http.WrongDigest(actual=digest):
                origin.digest = digest
                raise IntegrityError(f"checksum mismatch: by its own Repr-Digest the server has {digest}")
            case http.UnusableRange(reason=reason):
                self._no_ranges(attempt, reason)
            case http.ErrorStatus(status=status, reason=reason, retry_after=retry_after):
                if status in (429, 503) or retry_after is not None:
                    raise Throttled(origin.url, status, reason, retry_after)
                raise BadStatus(origin.url, status, reason)
            case http.Broken(reason=reason):
                raise BadResponse(origin.url, reason)
            case http.Redirected():
                raise AssertionError("redirects are followed by the exchange")
        return None

    # -- verdicts ---------------------------------------------------------------------------------------------------

    async def _whole(
        self,
        attempt: Attempt,
        response: Response,
        length: int | None,
        validator: http.Validator,
        *,
        framed: bool,
    ) -> Restart | None:
        origin, state = attempt.origin, self._state
        if not attempt.segment.whole:
            origin.ranges = False
            if len(state.segments.in_flight) > 1:
                # Others are still at work; when they are done, this origin is asked for the whole.
                raise SingleStream(origin.url)
            state.segments.give_back(attempt.segment)
            whole = state.segments.take_all()
            assert whole is not None
            attempt.segment = whole
        if not framed and not self._pinned and state.size is None:
            raise BadResponse(origin.url, "nothing says where the content ends, and there is no checksum to tell")
        if state.segments.on_hand_bytes and not self._combines(origin, validator):
            why = "the server has no ranges and names no version, so it starts over"
            return Restart(why, origin=origin, repeats=True)
        await state.learn_validator(origin, validator)
        if length is not None:
            if (restart := await self._learn_size(length, origin)) is not None:
                return restart
            attempt.segment.stop = length
        restart = await self._stream(attempt, response, attempt.segment.stop, ends_there=state.size is not None)
        if restart is None and state.size is None:
            raise PolicyRefused(origin.url, ENDLESS)
        return restart

    def _combines(self, origin: Origin, validator: http.Validator) -> bool:
        """Whether a part of this version may join other parts. RFC 9110 section 15.3.7.3: under one strong validator.

        With a checksum, all may: it decides in the end.
        """
        if self._pinned:
            return True
        if not self._state.segments.on_hand_bytes:
            return validator.is_strong
        return validator.proves(origin.validator)

    async def _unsatisfiable(self, attempt: Attempt, total: int | None) -> Restart | None:
        origin, start, state = attempt.origin, attempt.segment.start, self._state
        if state.size is None:
            if total == start or (total is None and start > 0 and self._pinned):
                # We hold everything before it, and there is nothing more: that is the end, or the checksum tells.
                return await self._learn_size(start, origin)
        elif total is not None and total != state.size:
            return self._wrong_length(origin, total, "")
        self._no_ranges(attempt, "the server calls a good range unsatisfiable (416)")
        return None

    async def _learn_size(self, size: int, origin: Origin) -> Restart | None:
        """The origin told the length, and nobody had before."""
        if self._state.size is not None:
            return None
        if self._state.reaches_past(size):
            return Restart("the content is shorter than what is on hand", forget_size=True, repeats=True)
        await self._state.learn_size(size, origin)
        return None

    def _no_ranges(self, attempt: Attempt, reason: str) -> None:
        """The bytes could belong elsewhere. Where ranges have worked, once is a fault; else the whole is asked for."""
        origin = attempt.origin
        if origin.ranges is False and not attempt.segment.whole:
            raise SingleStream(origin.url)  # it was asked before that was known, so this is no further failure
        origin.range_faults += 1
        if origin.ranges is False or (origin.ranges is True and origin.range_faults < 2):
            raise RangeRefused(origin.url, reason)
        origin.ranges = False

    def _changed(self, origin: Origin, reason: str) -> Restart:
        origin.changes += 1
        origin.validator = http.NO_VALIDATOR
        if origin.changes >= MAX_CHANGES and not self._pinned:
            origin.ranges = False
        if origin.changes > MAX_CHANGES + 1:
            raise ContentChanged(origin.url, f"{reason} again and again")
        return Restart(reason, origin=origin, forget_size=self._state.size_origin in (origin, None))

    def _wrong_length(self, origin: Origin, actual: int, hint: str) -> Restart:
        expected = self._state.size
        assert expected is not None
        told_by = self._state.size_origin
        if not self._promised_size and origin.changes < MAX_CHANGES:
            # The length was learned, not promised by the manifest. Here, and the content is another one now; or from an
            # origin that has failed since, and either may be wrong: then this one has the word, and the digest decides.
            origin.changes += 1
            origin.validator = http.NO_VALIDATOR
            return Restart("the content has another length than we learned", origin=told_by or origin, forget_size=True)
        raise LengthMismatch(origin.url, expected, actual, hint)

    # -- the body ---------------------------------------------------------------------------------------------------

    async def _stream(self, attempt: Attempt, response: Response, stop: int, *, ends_there: bool) -> Restart | None:
        """Take the body in up to ``stop``. ``ends_there``: it must reach it; otherwise its end tells the length."""
        segment, origin = attempt.segment, attempt.origin
        writer = PieceWriter(self._state, origin, self._clock, self._buffers)
        try:
            # The segment may be cut short while we read: what lies behind its stop is someone else's by then.
            while (left := min(stop, segment.stop) - segment.position) > 0:
                space = writer.space(left if self._limiter is None else min(left, LIMITED_READ_BYTES))
                count = await response.readinto(space)
                now = self._clock.monotonic()
                if not count:
                    if ends_there:
                        raise ConnectionLost(origin.url, "the content ended early")
                    return await self._learn_size(segment.position, origin)
                attempt.arrived(now, count)
                count = max(0, min(count, min(stop, segment.stop) - segment.position))
                start, wanted = segment.position, self._claim(segment, count)
                self._on_bytes(origin, count, sum(end - here for here, end in wanted), now)
                if wanted == [(start, start + count)] and writer.ends_at(start):
                    await writer.took(start, count)
                else:
                    data = bytes(space[:count])
                    for here, end in wanted:
                        await writer.add(here, data[here - start : end - start])
                if self._limiter is not None:
                    await self._clock.sleep(self._limiter.take(count, now))
        finally:
            await writer.close()
        return None

    def _claim(self, segment: Segment, count: int) -> list[tuple[int, int]]:
        """Note that the segment's next ``count`` bytes are on hand; return which stretches of them to keep.

        Of a whole stream that is what is missing: the rest is on hand already, proved or about to be.
        """
        segments, start = self._state.segments, segment.position
        if not segment.whole:
            segments.arrived(segment, count)
            return [(start, start + count)]
        segment.position = end = start + count
        wanted = []
        while (gap := segments.missing_in(start, end)) is not None:
            segments.keep(gap.start, gap.stop)
            wanted.append((gap.start, gap.stop))
        return wanted


class PieceWriter:
    """Receives bytes into pieces and has them stored one at a time, while the next one arrives."""

    def __init__(self, state: DownloadState, origin: Origin, clock: Clock, buffers: Buffers) -> None:
        self.origin = origin
        self._state = state
        self._clock = clock
        self._buffers = buffers
        self._buffer = buffers.take()
        self._start = 0
        self._length = 0
        self._since = 0.0
        self._storing: asyncio.Task[None] | None = None

    def space(self, most: int) -> memoryview:
        """Where the next bytes are to be received, ``most`` of them at the most."""
        return memoryview(self._buffer)[self._length : self._length + most]

    def ends_at(self, start: int) -> bool:
        """Whether bytes at ``start`` go on where the last ones ended."""
        return not self._length or start == self._start + self._length

    async def took(self, start: int, count: int) -> None:
        """The bytes at ``start`` are in the room that was given. Waits where the disk is slower than the network."""
        now = self._clock.monotonic()
        if not self._length:
            self._start, self._since = start, now
        self._length += count
        if self._length == len(self._buffer) or now - self._since >= FLUSH_INTERVAL_S:
            await self._flush()

    async def add(self, start: int, data: bytes) -> None:
        """Take bytes that were received elsewhere."""
        if not self.ends_at(start):
            await self._flush()
        while data:
            space = self.space(len(data))
            count = len(space)
            space[:] = data[:count]
            await self.took(start, count)
            start, data = start + count, data[count:]

    async def _flush(self) -> None:
        await self._settle()
        data = self._buffers.lend(self._buffer, self._length)
        self._buffer, self._length = self._buffers.take(), 0
        self._storing = asyncio.get_running_loop().create_task(self._state.store(self._start, data, self.origin))

    async def _settle(self) -> None:
        """Wait for the piece that is being stored; raise what went wrong with it."""
        storing, self._storing = self._storing, None
        if storing is None:
            return
        try:
            await wait_uncancelled([storing])
        finally:
            # The disk's error comes before a cancellation: bytes that count as on hand are not on the disk.
            if (error := storing.exception()) is not None:
                raise error

    async def close(self) -> None:
        """Store what is left, also when the connection broke off or the job was cancelled."""
        try:
            if self._length:
                await self._flush()
            await self._settle()
        finally:
            self._buffers.give(self._buffer)

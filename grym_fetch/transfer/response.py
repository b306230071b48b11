"""Acts on a judged response: reads its body into the state, or returns one of the outcomes.

Rules: nothing is written before the verdict. A body is read up to where it was promised to end and never a byte
further. What follows for the asset as a whole is returned as an `Outcome` or raised as an error, for `Transfer` to act
on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from grym_fetch.core import http
from grym_fetch.core.errors import (
    BadResponse,
    BadStatus,
    ConnectionLost,
    ContentChanged,
    DiskFull,
    IntegrityError,
    LengthMismatch,
    PolicyRefused,
    RangeRefused,
    Throttled,
)
from grym_fetch.core.manifest import Asset
from grym_fetch.core.origins import MAX_CHANGES, Origin
from grym_fetch.core.ranges import parse_length
from grym_fetch.core.segments import UNBOUNDED, Segment
from grym_fetch.core.suspicion import page_advice
from grym_fetch.core.world import Response
from grym_fetch.transfer.attempt import Attempt
from grym_fetch.transfer.context import TransferContext
from grym_fetch.transfer.outcome import DropOrigin, Finished, Outcome, SingleStream, StartAfresh
from grym_fetch.transfer.pieces import PieceWriter
from grym_fetch.transfer.request import JudgedResponse
from grym_fetch.transfer.state import DownloadState

LIMITED_READ_BYTES = 64 * 1024
"""Bytes read in one go under a rate limit, so that the progress bar moves smoothly."""
NOTE_BYTES = 256 * 1024
"""A page that only says that the file is not available now is smaller than this."""
LEAST_PARTS = 256
"""A part this many times shorter than what was asked for (or than the smallest segment: less than 4 KiB) is no use: a
gigabyte of these takes a quarter of a million requests, and a few KiB take one for each byte."""
ENDLESS = "it sends without end, and nothing says how long the content is; give the asset its size"

MAX_LENGTH = 16 * 1024**4
"""Believe a server's stated length up to this many bytes if the manifest has none: ext4's longest file."""


def is_no_content(answer: JudgedResponse, size: int | None) -> bool:
    """Whether this certainly is not the range that was asked for, nor news of it.

    Only to be asked of an address that is sending ranges to another request. That the content has changed, or is now
    sent whole, is news; a short note is not.
    """
    match answer.verdict:
        case http.Partial() | http.WrongDigest():
            return False
        case http.Whole() | http.OtherRepresentation() | http.WrongLength():
            length = parse_length(answer.response.head.get("content-length") or "")
            if size is None or answer.response.head.status == 206:
                return False
            return length < min(size, NOTE_BYTES) if length is not None else isinstance(answer.verdict, http.Whole)
        case _:
            return True


class ResponseReader:
    """Reads the response to one attempt.

    ``on_bytes`` is called at each arrival: the attempt, how many bytes came, how many of them were missing, and when.
    ``on_whole`` is called when the whole comes although ranges were asked for, and none has ever come.
    """

    def __init__(
        self,
        asset: Asset,
        state: DownloadState,
        context: TransferContext,
        *,
        on_bytes: Callable[[Attempt, int, int, float], None],
        on_whole: Callable[[Attempt], None] = lambda _: None,
    ) -> None:
        self._state = state
        self._clock = context.clock
        self._limiter = context.limiter
        self._pinned = asset.pinned
        self._size_is_promised = asset.size is not None
        self._on_bytes = on_bytes
        self._on_whole = on_whole
        self._smallest = context.settings.sizes.smallest
        self._buffers = context.buffers

    async def receive(self, attempt: Attempt, answer: JudgedResponse) -> Outcome:
        """Act on the verdict. Raises `TransferError`, `IntegrityError` or `StorageError` if the attempt failed."""
        origin = attempt.origin
        if answer.is_page:
            origin.sent_page()
        if encoding := answer.response.head.encoding:
            origin.sent_encoded(encoding)
        if self._is_note(attempt, answer):
            raise BadStatus(origin.url, 200, "a page came instead of the file (status 200)")
        match answer.verdict:
            case http.Partial():
                return await self._partial(attempt, answer, answer.verdict)
            case http.Whole():
                return await self._whole(attempt, answer.response, answer.verdict)
            case http.Unsatisfiable(total=total):
                return await self._unsatisfiable(attempt, total)
            case http.OtherRepresentation(reason=reason):
                return self._changed(attempt, reason)
            case http.WrongLength(actual=actual, hint=hint):
                return self._wrong_length(attempt, actual, hint)
            case http.WrongDigest(actual=digest):
                origin.stated(digest)
                raise IntegrityError(f"checksum mismatch: by its own Repr-Digest the server has {digest}")
            case http.UnusableRange(reason=reason):
                return self._unusable_range(attempt, reason)
            case http.ErrorStatus(status=status, reason=reason, retry_after=retry_after):
                reason = str(answer.refusal or reason)
                if answer.verdict.is_throttling:
                    raise Throttled(origin.url, status, reason, retry_after)
                raise BadStatus(origin.url, status, reason)
            case http.Broken(reason=reason):
                raise BadResponse(origin.url, reason)
            case http.Redirected():
                raise AssertionError("redirects are followed by the requester")
            case never:
                assert_never(never)

    def _is_note(self, attempt: Attempt, answer: JudgedResponse) -> bool:
        """Whether a server that has served ranges now sends a small page: it is probably busy, or under maintenance.

        This does not cast doubt on what has arrived.
        """
        origin, head, size = attempt.origin, answer.response.head, self._state.size
        if head.status != 200 or attempt.segment.whole or size is None or not (origin.ranges and origin.has_given):
            return False
        length = parse_length(head.get("content-length") or "")
        if answer.is_page and length != size:
            return True
        # A validator makes it another version, unless the manifest says how long that is.
        return length is not None and length < min(size, NOTE_BYTES) and (self._size_is_promised or not head.validator)

    # -- verdicts ---------------------------------------------------------------------------------------------------

    async def _partial(self, attempt: Attempt, answer: JudgedResponse, verdict: http.Partial) -> Outcome:
        origin, state, got, total = attempt.origin, self._state, verdict.range, verdict.total
        asked = min(attempt.segment.stop, UNBOUNDED if total is None else total) - got.start
        is_little = got.length * LEAST_PARTS < min(asked, self._smallest)
        if is_little and (asked >= self._smallest or origin.sent_little()):
            return self._unusable_range(attempt, f"it sends only {got.length} bytes at a time")
        state.served_range(got.start, is_ahead=answer.is_ahead)
        origin.proved_ranges()
        if got.length != total and not self._combines(origin, verdict.validator):
            return SingleStream("its parts cannot be combined")
        await state.learn_validator(origin, verdict.validator)
        if total is not None and (restart := await self._learn_size(total, origin)) is not None:
            return restart
        if state.size is None and got.stop > state.segments.unsized_limit:
            raise PolicyRefused(origin.url, ENDLESS)
        if attempt.segment.again:
            return await self._compare(attempt, answer.response, got.stop)
        return await self._read_body(attempt, answer.response, got.stop, ends_there=True)

    async def _whole(self, attempt: Attempt, response: Response, verdict: http.Whole) -> Outcome:
        origin, state = attempt.origin, self._state
        if not attempt.segment.whole:
            if origin.ranges is None:
                self._on_whole(attempt)
            origin.lost_ranges()
            if any(other.remaining for other in state.segments.in_flight if other is not attempt.segment):
                return SingleStream("it sends the whole content, and other attempts are still at work")
            if state.comparison is not None or attempt.segment.again:
                return SingleStream("it sends the whole content, of which only a part was wanted")
            state.segments.give_back(attempt.segment)
            whole = state.segments.promise_all()
            assert whole is not None
            attempt.segment = whole
        if not verdict.framed and not self._pinned and state.size is None:
            raise BadResponse(origin.url, "nothing says where the content ends, and there is no checksum to tell")
        if state.segments.on_hand_bytes and not self._combines(origin, verdict.validator):
            return StartAfresh("the server has no ranges and names no version, so it starts over", repeats=True)
        if state.says_the_same(verdict.validator, verdict.length):
            raise IntegrityError("asked once more, past all caches, it has the same content")
        await state.learn_validator(origin, verdict.validator)
        if verdict.length is not None:
            if (restart := await self._learn_size(verdict.length, origin)) is not None:
                return restart
            attempt.segment.stop = verdict.length
        outcome = await self._read_body(attempt, response, attempt.segment.stop, ends_there=state.size is not None)
        if state.size is None and isinstance(outcome, Finished):
            raise PolicyRefused(origin.url, ENDLESS)
        return outcome

    def _combines(self, origin: Origin, validator: http.Validator) -> bool:
        """Whether a part of this version may join other parts: with a checksum always, since that decides in the end.

        Otherwise under one strong validator only (RFC 9110 section 15.3.7.3).
        """
        if self._pinned:
            return True
        if not self._state.segments.on_hand_bytes:
            return validator.is_strong
        return validator.proves(origin.validator)

    async def _unsatisfiable(self, attempt: Attempt, total: int | None) -> Outcome:
        origin, start, state = attempt.origin, attempt.segment.start, self._state
        # It answers no range, or one of an address that has served ranges of the known length.
        is_beside_the_point = attempt.segment.whole or bool(origin.ranges and origin.has_given)
        if state.size is None:
            if total == start or (total is None and start > 0 and self._pinned):
                # We hold everything before it, and there is nothing more: that is the end, or the checksum will show.
                return await self._learn_size(start, origin) or Finished()
        elif total is not None and total != state.size and not is_beside_the_point:
            return self._wrong_length(attempt, total, "")
        return self._unusable_range(attempt, "the server calls a good range unsatisfiable (416)")

    async def _learn_size(self, size: int, origin: Origin) -> StartAfresh | None:
        """The origin stated the length of the content. Return a restart if that requires one, else None."""
        if self._state.size is not None:
            return None
        if size > MAX_LENGTH:
            raise BadResponse(origin.url, f"it claims to send {size:,} bytes, which no file has")
        if self._state.reaches_past(size):
            return StartAfresh("the content is shorter than what is on hand", forget_size=True, repeats=True)
        try:
            await self._state.learn_size(size, origin)
        except DiskFull as error:
            # Only this server says so: another one may know better. If none does, the disk is full after all.
            raise PolicyRefused(origin.url, f"it claims to send {size:,} bytes, for which there is no room") from error
        return None

    @staticmethod
    def _unusable_range(attempt: Attempt, reason: str) -> SingleStream:
        """The bytes could belong elsewhere. Raises `RangeRefused` if that is a fault and not a lack of ranges."""
        origin = attempt.origin
        # If it was asked before we knew that there are no ranges, that is not another failure.
        if (origin.ranges is False and not attempt.segment.whole) or origin.refused_range():
            return SingleStream(reason)
        raise RangeRefused(origin.url, reason)

    def _changed(self, attempt: Attempt, reason: str) -> StartAfresh | DropOrigin:
        origin = attempt.origin
        attempt.sees_change()
        if origin.is_unsteady and not self._pinned:
            origin.lost_ranges()
        if origin.changes > MAX_CHANGES + 1:
            raise ContentChanged(origin.url, f"{reason} again and again")
        return self._without(origin, reason, forget_size=self._state.size_origin in (origin, None))

    def _wrong_length(self, attempt: Attempt, actual: int, hint: str) -> StartAfresh | DropOrigin:
        origin = attempt.origin
        expected = self._state.size
        assert expected is not None
        told_by = self._state.size_origin or origin
        if self._size_is_promised or origin.is_unsteady:
            about = page_advice(origin.url) if origin.has_sent_page else ""
            # For a page that shows the file, the length says nothing more.
            raise LengthMismatch(origin.url, expected, actual, f"it sent a web page{about}" if about else hint)
        # The length was learned, not promised by the manifest. If it came from this origin, the content has changed; if
        # from an origin that has failed since, either may be wrong: believe this one, and let the digest decide.
        attempt.sees_change()
        return self._without(told_by, "the content has another length than we learned", forget_size=True)

    def _without(self, origin: Origin, reason: str, *, forget_size: bool) -> StartAfresh | DropOrigin:
        """Discard what came from this origin; without a checksum, everything, as nothing proves the rest."""
        if self._pinned:
            return DropOrigin(reason, origin, forget_size)
        return StartAfresh(reason, forget_size)

    # -- the body ---------------------------------------------------------------------------------------------------

    async def _read_body(self, attempt: Attempt, response: Response, stop: int, *, ends_there: bool) -> Outcome:
        """Read up to ``stop``. ``ends_there``: the body must reach it; otherwise its end gives the length."""
        segment, origin = attempt.segment, attempt.origin
        writer = PieceWriter(self._state, origin, self._clock, self._buffers)
        try:
            # The segment may be cut short while we read: then another connection fetches what follows its stop.
            while (left := min(stop, segment.stop) - segment.position) > 0:
                left = min(left, self._state.room_in_piece(segment.position))
                space = writer.space(left if self._limiter is None else min(left, LIMITED_READ_BYTES))
                count = await response.readinto(space)
                now = self._clock.monotonic()
                if not count:
                    if self._state.size is None and not segment.whole:
                        # The stated end is the request's, not the content's.
                        return SingleStream("its ranges end before the end that they name, and name no length")
                    if ends_there:
                        label = f"; it was sent {response.head.encoding}-encoded" if response.head.encoding else ""
                        raise ConnectionLost(origin.url, f"the content ended early{label}")
                    return await self._learn_size(segment.position, origin) or Finished()
                attempt.arrived(now, count)
                count = max(0, min(count, min(stop, segment.stop) - segment.position))
                start, wanted = segment.position, self._accept(segment, count)
                self._on_bytes(attempt, count, sum(end - here for here, end in wanted), now)
                if segment.whole and wanted != [(start, start + count)] and self._pinned:
                    self._state.retold(start, space[:count], origin)
                if wanted == [(start, start + count)] and writer.continues_at(start):
                    await writer.filled(start, count)
                else:
                    data = bytes(space[:count])
                    await writer.add([(here, data[here - start : end - start]) for here, end in wanted])
                    if not wanted or wanted[-1][1] < start + count:
                        await writer.end_piece()
                if self._limiter is not None:
                    await self._clock.sleep(self._limiter.spend(count, now))
        finally:
            await writer.close()
        return Finished()

    async def _compare(self, attempt: Attempt, response: Response, stop: int) -> Finished:
        """Read what is on hand already: it is kept in memory, and only its digest counts."""
        segment, memory = attempt.segment, memoryview(bytearray(attempt.segment.remaining))
        while (left := min(stop, segment.stop) - segment.position) > 0:
            at = segment.position - segment.start
            count = await response.readinto(memory[at : at + (left if self._limiter is None else LIMITED_READ_BYTES)])
            now = self._clock.monotonic()
            if not count:
                raise ConnectionLost(attempt.origin.url, "the content ended early")
            attempt.arrived(now, count)
            segment.position += count
            self._on_bytes(attempt, count, 0, now)
            if self._limiter is not None:
                await self._clock.sleep(self._limiter.spend(count, now))
        if not segment.remaining:
            self._state.looked(memory, attempt.origin)
        return Finished()

    def _accept(self, segment: Segment, count: int) -> list[tuple[int, int]]:
        """Count the segment's next bytes as on hand; return which stretches of them to keep.

        Of a whole stream these are the missing ones: the rest is on hand already, proved or about to be.
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

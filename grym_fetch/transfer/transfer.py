"""One asset's life, from the first request to the file in place.

The path of a byte is a straight line::

    next_attempt -> request (open, verdict) -> response (bytes -> pieces) -> state (write, hash, record)
    all bytes hashed -> digest right -> fsync -> rename

Rules: the event loop decides, threads write and hash. What follows a failure is decided in one place, `_failed`; what
follows a response, in `fetch`. A restart is carried out by `run` alone, in `_start_over`, while no connection is at
work. The checksum decides what is right; which origin a piece came from is remembered only to find out which was wrong.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from typing import assert_never

from grym_fetch.core import http
from grym_fetch.core.addresses import host_in, host_of
from grym_fetch.core.errors import (
    ConnectFailed,
    GrymFetchError,
    IntegrityError,
    MirrorsExhausted,
    StorageError,
    Throttled,
    TransferError,
)
from grym_fetch.core.events import AWAY
from grym_fetch.core.journal import Piece
from grym_fetch.core.lfs_addresses import is_resolved_when_asked
from grym_fetch.core.manifest import Asset
from grym_fetch.core.origins import Origin, Origins
from grym_fetch.core.piece_digests import piece_count
from grym_fetch.core.policy import GiveUp, Leave, Retry
from grym_fetch.core.ranges import ByteRange
from grym_fetch.core.speeds import ROUND_TRIPS
from grym_fetch.core.text import safe_text
from grym_fetch.core.world import Connection, Stage
from grym_fetch.runtime.buffers import release_frames
from grym_fetch.runtime.waiting import wait_uncancelled
from grym_fetch.transfer.attempt import Attempt
from grym_fetch.transfer.blame import Blame
from grym_fetch.transfer.context import TransferContext
from grym_fetch.transfer.first_asks import FirstAsks, withdraw_others
from grym_fetch.transfer.lessons import Lessons
from grym_fetch.transfer.openings import Foreseen
from grym_fetch.transfer.outcome import (
    CompareMore,
    CompareWith,
    DoubtOrigin,
    DropOrigin,
    Finished,
    LeaveOrigins,
    Restart,
    SingleStream,
    StartAfresh,
    TrustOrigin,
)
from grym_fetch.transfer.readers import Readers
from grym_fetch.transfer.reporter import Reporter
from grym_fetch.transfer.response import ResponseReader
from grym_fetch.transfer.result import TransferResult
from grym_fetch.transfer.rivals import Rivals
from grym_fetch.transfer.scheduler import InTurn, Scheduler
from grym_fetch.transfer.second_looks import SecondLooks
from grym_fetch.transfer.segment_choice import SegmentChoice
from grym_fetch.transfer.state import DownloadState

log = logging.getLogger(__name__)

WORTH_TELLING_S = 1.0
"""A pause of at least this long is reported, if nothing is received meanwhile."""
WORTH_LEAVING_S = 2.0
"""A host that must be left alone for this long is left for a mirror."""


class Transfer:
    """Fetches one asset through the connections that the scheduler lends it.

    Implements `grym_fetch.transfer.scheduler.Source`; kicks the scheduler whenever there may be new work. ``is_wrong``:
    if all of it is on the stage at first, that is known to be wrong somewhere.
    """

    def __init__(
        self,
        asset: Asset,
        stage: Stage,
        context: TransferContext,
        readers: Readers | None = None,
        *,
        is_wrong: bool = False,
    ) -> None:
        self.asset = asset
        self._is_wrong = is_wrong
        self._stage = stage
        self._context = context
        self._clock = context.clock
        self._settings = settings = context.settings
        self._hosts = context.scheduler.hosts
        # Without a checksum, nothing proves that two origins have the same content.
        self._origins = Origins(asset.urls, together=settings.together and asset.pinned)
        self._wakeup = asyncio.Event()
        self._readers = readers or Readers()
        # No part refers back to the transfer: in a cycle, everything it holds would outlive it.
        self._changed = _alarm(self._wakeup, context.scheduler, self._readers)
        self._state = DownloadState(
            asset, self._origins, stage, context.threads, self._changed, settings.sizes, self._readers
        )
        self._blame = Blame(asset, self._state, self._origins)
        self._looks = SecondLooks(asset, self._state, self._origins, self._hosts)
        now = context.clock.monotonic()
        self._reporter = Reporter(asset.id, self._state, context.emit, now=now, is_wrong=is_wrong)
        self._attempts: set[Attempt] = set()
        first_asks = FirstAsks(asset, self._hosts)
        self._choice = SegmentChoice(self._state, self._attempts, first_asks, context.scheduler, settings)
        self._lessons = Lessons(asset.id, self._origins, self._attempts, first_asks, context.scheduler, context.clock)
        self._rivals = Rivals(self._hosts)
        self._timers: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self._restart: Restart | None = None
        self._repeated = 0
        """Bytes that will arrive once more before there is progress again; see `StartAfresh.repeats`."""
        self._waits_for = ""
        """What it was last reported to wait for."""
        self._is_over = False

    @property
    def received(self) -> int:
        """Bytes received, whether kept or not."""
        return self._reporter.received

    def has_kept(self, piece: Piece) -> bool:
        """Whether a piece that was on the stage at first is part of the result as it was."""
        there = self._state.pieces.at(piece.start)
        return there is not None and there.digest == piece.digest and self._state.is_inherited(there)

    # -- the life ---------------------------------------------------------------------------------------------------

    async def run(self) -> TransferResult:
        """Fetch, verify and publish. Raises `MirrorsExhausted`, `IntegrityError` or `StorageError`.

        However it ends, what has arrived is on disk and recorded, and no work continues after it.
        """
        self._reporter.planned()
        self._begin_elsewhere()
        self._readers.begin(self._state, self._make_way)
        hashing = self._start_hashing()
        if self._is_wrong and self._state.segments.is_complete:
            self._restart = self._blame.compare()
        try:
            while True:
                await self._until_hashed_or_restart()
                if self._restart is None:
                    digest = self._state.digest
                    if self.asset.checksum in (None, digest):
                        break
                    self._restart = self._blame.find_the_liar(digest)
                await _end([hashing])
                await self._start_over(self._restart)
                # Reset it only now: while a restart is due, no connection gets work.
                self._restart = None
                hashing = self._start_hashing()
            if self._blame.mismatch is not None:
                # What it sent first was wrong, perhaps since it mixes up what is asked ahead.
                self._hosts.lost_ahead(_host_asked(self._origins.current))
            self._is_over = True
            self._state.refuse_if_stated_otherwise()
            assert self._state.size is not None
            await self._readers.end()
            if (truth := await self._state.first_digest()) is not None:
                self._blame.others_sent(self._looks.wrong(truth))
            path = await self._stage.publish(self._state.size)
            liars = self._blame.wrong_origins() if self.asset.pinned else ()
            for origin in liars if len(liars) < len(self._origins.all) else ():
                self._hosts.lied(host_of(origin.url))
            return TransferResult(
                path,
                digest,
                self._state.size,
                self.received,
                sums=self._state.sums,
                wrong_origins=tuple(origin.shown for origin in liars),
            )
        finally:
            self._is_over = True
            self._context.scheduler.take_back(self)
            await _end([hashing, *self._timers, *self._tasks()])
            await self._readers.end()

    def _begin_elsewhere(self) -> None:
        """Do not begin at a host that sent wrong bytes of another asset in this run, if others have this one, too."""
        first = self._origins.current
        others = [origin for origin in self._origins.all if not self._hosts.has_lied(host_of(origin.url))]
        if not others or len(others) == len(self._origins.all) or not self.asset.pinned:
            return
        self._origins.separate()
        if first not in others:
            self._turn_to(others[0], first, "it sent wrong bytes of another asset")

    def _start_hashing(self) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._state.hash(), name=f"hash {self.asset.id}")
        task.add_done_callback(self._hashing_ended)
        self._changed()
        return task

    def _hashing_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)

    async def _until_hashed_or_restart(self) -> None:
        """Wait until every byte is on disk and hashed, or a restart is due. No attempt is under way on return."""
        while True:
            while self._state.condemned:
                self._wrong_piece(*self._state.condemned.pop(0))
            if self._failure is not None:
                raise self._failure
            if self._restart is not None:
                self._context.scheduler.take_back(self)
                if not self._attempts:
                    return
                _cancel(self._tasks())
            if self._state.segments.is_complete:
                _cancel(each.task for each in self._attempts if each.segment.again and each.task is not None)
            if self._state.segments.is_complete and not self._attempts:
                if (more := self._blame.compare_more()) is not None:
                    self._restart = more
                    return
                self._reporter.full(self._clock.monotonic())
                self._reporter.hashed()
                if self._state.is_hashed:
                    return
            self._wakeup.clear()
            await self._wakeup.wait()

    def _tasks(self) -> list[asyncio.Task[None]]:
        return [attempt.task for attempt in self._attempts if attempt.task is not None]

    def fail(self, error: BaseException) -> None:
        """Let `run` end and raise this."""
        self._failure = self._failure or error
        self._changed()

    # -- when bytes are wrong ---------------------------------------------------------------------------------------

    def _wrong_piece(self, piece: ByteRange, givers: set[int]) -> None:
        """A piece is not what the manifest says, and is missing again. Whoever gave all of it is left for others.

        If that is nobody, it is asked for again, from one origin alone.
        """
        digests, size = self.asset.pieces, self._state.size
        assert digests is not None
        assert size is not None
        index = piece.start // digests.size
        shown = f"piece {index + 1} of {piece_count(size, digests.size)}"
        names = self._blame.names(givers)
        self._reporter.restarted(piece.length, f"{shown} is wrong{f', from {names}' if names else ''}")
        if (origin := self._blame.giver(givers)) is not None:
            if self._blame.strike(origin, index, f"{shown} is wrong"):
                self._leave_liar(origin, f"{shown} is wrong")
        elif len(givers) > 1 and not self._blame.was_mixed(index):
            self.fail(self._blame.wrong_for_good(shown))
        self._changed()

    def _leave_liar(self, origin: Origin, reason: str) -> None:
        now = self._clock.monotonic()
        chosen = self._origins.choose(now)
        if chosen is None:
            self.fail(self._blame.wrong_for_good(reason))
            return
        if origin is self._origins.current:
            self._turn_to(chosen, origin, reason)
            self._await_delay(chosen, now)
        else:
            self._reporter.switched(origin, self._origins.current, reason, count=len(self._origins.all))
        _cancel(attempt.task for attempt in self._attempts if attempt.origin is origin and attempt.task is not None)

    async def _start_over(self, restart: Restart) -> None:
        """Discard what is known or suspected to be wrong, and go on with the rest."""
        state = self._state
        match restart:
            case CompareWith(origin=trusted):
                self._trust(trusted, restart.reason)
                state.compare_with(trusted, in_rounds=True)
                discarded = await self._discard_round()
            case CompareMore():
                discarded = await self._discard_round()
            case TrustOrigin(origin=trusted):
                self._trust(trusted, restart.reason)
                state.compare_with(trusted, in_rounds=False)
                discarded = await state.reduce(
                    lambda p: p.origin == trusted.number and not state.is_inherited(p),
                    forget_size=state.size_origin is not trusted,
                )
            case LeaveOrigins(origin=trusted, left=left):
                self._origins.turn_to(trusted)
                for origin in left:
                    origin.set_aside()
                    self._reporter.switched(origin, trusted, restart.reason, count=len(self._origins.all))
                gone = {origin.number for origin in left}
                discarded = await state.reduce(lambda p: p.origin not in gone or state.is_inherited(p))
            case DoubtOrigin(origin=doubted):
                state.doubt(doubted)
                doubted.doubted()
                self._origins.trust(doubted)
                discarded = await state.reduce(lambda _: False, forget_size=True)
                self._repeated += discarded
            case DropOrigin(origin=origin, forget_size=forget_size):
                discarded = await state.reduce(lambda p: p.origin != origin.number, forget_size=forget_size)
            case StartAfresh(forget_size=forget_size, repeats=repeats):
                discarded = await state.reduce(lambda _: False, forget_size=forget_size)
                self._repeated += discarded if repeats else 0
            case never:
                assert_never(never)
        if restart.reason:
            self._reporter.restarted(discarded, restart.reason)

    def _trust(self, trusted: Origin, reason: str) -> None:
        left = self._origins.current
        self._origins.trust(trusted)
        if left is not trusted:
            self._reporter.switched(left, trusted, reason, count=len(self._origins.all))

    async def _discard_round(self) -> int:
        assert self._state.comparison is not None
        chosen = self._state.comparison.next_round()
        return await self._state.reduce(lambda piece: chosen.run_from(piece.start) == piece.start)

    # -- work for the scheduler -------------------------------------------------------------------------------------

    def next_attempt(self, has_room: Callable[[str], bool]) -> Attempt | None:
        """Return the next attempt, or None if there is nothing to do now."""
        if self._is_over or self._failure is not None or self._restart is not None:
            return None
        now = self._clock.monotonic()
        to_ask = self._origins.to_ask(now, Counter(attempt.origin for attempt in self._attempts))
        for origin in sorted(to_ask, key=self._looks.waits_for, reverse=True):
            host = _host_asked(origin)
            if origin in self._rivals and not self._may_ask_alone(origin):
                continue
            if not has_room(host):
                self._leave_if_told_to_wait(origin, host, now)
                self._tell_waiting(host, now)
            elif self._must_have_whole(origin):
                return None
            elif (segment := self._looks.next_look(origin) or self._choice.next(origin, host, now)) is not None:
                is_early = origin.ranges is None and self._choice.is_asked(origin)
                attempt = Attempt(segment, origin, host, now, is_early=is_early)
                self._waits_for = ""
                self._attempts.add(attempt)
                self._rivals.asks(attempt)
                return attempt
        return None

    def next_ahead(self, host: str) -> Attempt | None:
        """Return the next segment for a busy connection to this host. Raises `InTurn` if it must not be asked ahead.

        Only if a checksum decides, since an answer does not say which request it belongs to.
        """
        if self._is_over or self._failure is not None or self._restart is not None:
            return None
        now, segments = self._clock.monotonic(), self._state.segments
        for origin in self._origins.to_ask(now, Counter(attempt.origin for attempt in self._attempts))[:1]:
            if segments.unpromised == 0 or (origin.ranges is None and self._attempts):
                return None
            # A signed address that redirects lead to may expire before its turn comes: then it is asked anew.
            if self._looks.waits_for(origin):
                raise InTurn
            is_for_here = _host_asked(origin) == host
            if not is_for_here or not self.asset.pinned or segments.unpromised is None or origin.ranges is False:
                raise InTurn
            if (segment := self._choice.next(origin, host, now, may_steal=False)) is not None:
                attempt = Attempt(segment, origin, host, now, is_ahead=True)
                self._attempts.add(attempt)
                return attempt
        return None

    def foresees(self) -> Foreseen | None:
        """While the first answer is on its way: the connections for what will be asked for once it shows ranges."""
        origin, missing = self._origins.current, self._state.segments.unpromised
        if origin.ranges is not None or origin.failures or not missing or not self.asset.pinned:
            return None
        if self._is_over or self._failure is not None or self._restart is not None or not self._choice.is_asked(origin):
            return None
        count = self._choice.connections_to_come(origin, missing)
        there = origin.leads_to or origin.target
        if there is None and is_resolved_when_asked(origin.url):
            return None  # where it leads is not known before it is asked
        if there is None:
            return Foreseen(host_of(origin.url), origin.url, count)
        return Foreseen(host_in(there), str(there), count)

    def ask_ahead(self, attempt: Attempt, connection: Connection) -> bool:
        """Send the request for a segment ahead of its turn."""
        attempt.sent_ahead = self._context.requester.ask_ahead(connection, attempt.origin, self._asked(attempt))
        return attempt.sent_ahead is not None

    def _must_have_whole(self, origin: Origin) -> bool:
        """Whether the content is compared with an origin without ranges: each part takes the whole, so all counts."""
        if origin.ranges is not False or self._state.comparison is None or self._state.segments.is_complete:
            return False
        self._restart = TrustOrigin("it has no ranges to compare with; asking for the whole", origin)
        self._changed()
        return True

    def _make_way(self) -> None:
        """A reader waits for bytes: bring them before what is under way."""
        segments = self._state.segments
        segments.cut_before_wanted()
        self._changed()
        if segments.has_wanted and not self._context.scheduler.can_begin(_host_asked(self._origins.current)):
            spare = self._choice.least_urgent()
            _cancel([spare.task] if spare is not None and spare.task is not None else [])

    async def fetch(self, attempt: Attempt, connection: Connection) -> None:
        """Carry out an attempt over a connection, and act on the outcome."""
        attempt.turn_at = self._clock.monotonic()
        if not attempt.is_ahead:
            attempt.began = attempt.turn_at
        elif not attempt.segment.remaining:
            return  # another connection took it over while it waited
        try:
            asked, sent = self._asked(attempt), attempt.sent_ahead
            answer = await self._context.requester.open(connection, attempt.origin, asked, sent_ahead=sent)
            try:
                self._lessons.of_answer(attempt, answer, self._state.size)
                reader = ResponseReader(
                    self.asset, self._state, self._context, on_bytes=self._arrived, on_whole=self._whole_comes
                )
                outcome = await reader.receive(attempt, answer)
            finally:
                answer.response.close()
            match outcome:
                case Finished():
                    pass
                case SingleStream(reason=reason):
                    attempt.origin.lost_ranges()
                    log.debug("%s: %s: asked for everything at once: %s", self.asset.id, attempt.origin.shown, reason)
                case StartAfresh() | DropOrigin():
                    self._restart = self._restart or outcome
                case never:
                    assert_never(never)
        except (TransferError, IntegrityError) as error:
            self._context.requester.secrets.hide_in(error)
            release_frames(error)
            error.__traceback__ = None  # the origin keeps the error, and its frames would keep this transfer alive
            pause = self._lessons.of_failure(attempt, error)
            if pause is None:
                self._failed(attempt, error)
            elif pause >= WORTH_TELLING_S and len(self._attempts) == 1:
                self._reporter.retries(attempt.origin, 0, pause, _reason(error))
                self._waits_for = attempt.host  # this has been reported
        except StorageError as error:
            self.fail(error.with_traceback(None))

    def _whole_comes(self, attempt: Attempt) -> None:
        withdraw_others(attempt, self._attempts, self._state.segments)

    def release(self, attempt: Attempt) -> None:
        """The attempt is over: the bytes that did not arrive are missing again."""
        attempt.measure(self._clock.monotonic())
        count, seconds = attempt.burst(self._clock.monotonic())
        if count > 0:
            self._context.scheduler.speeds.measured(attempt.reached, count, seconds)
        self._state.segments.give_back(attempt.segment)
        self._attempts.discard(attempt)
        if attempt.segment.again and (restart := self._looks.ended(attempt.origin)) is not None:
            self._restart = self._restart or restart
        if attempt.first_byte_at is not None:
            now = self._clock.monotonic()
            attempt.origin.sent(now)
            self._reporter.progress(now)  # it may be a while until the next byte
        self._changed()

    def _asked(self, attempt: Attempt) -> http.Asked:
        origin, segment = attempt.origin, attempt.segment
        is_bound = not origin.is_unsteady and (origin.ranges is not None or self._state.is_bound_to(origin))
        return http.Asked(
            wanted=None if segment.whole else ByteRange(segment.start, segment.stop),
            total=self._state.size,
            validator=origin.validator if is_bound else http.NO_VALIDATOR,
            ranges_proven=origin.ranges is True,
            checksum=self.asset.checksum,
            past_caches=origin.past_caches,
        )

    # -- failures ---------------------------------------------------------------------------------------------------

    def _failed(self, attempt: Attempt, error: TransferError | IntegrityError) -> None:
        """An attempt failed: ask again later, turn to another origin, or give up."""
        now = self._clock.monotonic()
        origin = attempt.origin
        if attempt.segment.whole and attempt.first_byte_at is None:
            self._hosts.refused_whole(attempt, error)
        policy = self._settings.retry
        if isinstance(error, ConnectFailed):
            scheme = error.url.partition(":")[0]
            host_patience = self._hosts.cannot_be_reached(attempt.host, scheme, now, policy.patience)
        else:
            host_patience = self._hosts.seconds_to_wait(attempt.host, now, policy.patience)
        decision = self._origins.failed(
            origin,
            error,
            began=attempt.began,
            now=now,
            policy=policy,
            jitter=self._clock.jitter(),
            had_begun=attempt.first_byte_at is not None,
            is_empty=not self._state.segments.on_hand_bytes,
            host_patience=host_patience,
        )
        if isinstance(decision, GiveUp):
            self._rivals.given_up(attempt, error, now)
        if isinstance(error, Throttled) and error.status == 429 and not isinstance(decision, GiveUp):
            self._hosts.left_alone(attempt.host, origin.ready_at)
        reason = origin.last_reason
        log.debug("%s: %s: %s: %s", self.asset.id, origin.shown, reason, decision)
        if origin is not self._origins.current and not self._origins.together:
            return
        match decision:
            case Retry(attempt=number, delay=delay, patience=patience, way=way):
                if way:
                    reason = f"{reason}; asking {way}"
                if patience is not None:
                    state = f"{AWAY}, trying" if isinstance(error, ConnectFailed) else "trying"
                    reason = f"{reason}; {state} again for another {patience:.0f} s"
                self._announce_retry(origin, number, delay, reason)
            case Leave() | GiveUp():
                self._leave(origin, reason, now)
            case None:
                pass  # already counted as part of its outage
            case never:
                assert_never(never)

    def _leave(self, origin: Origin, reason: str, now: float) -> None:
        chosen = self._origins.choose(now)
        if chosen is None and not self._reconsider():
            self.fail(self._exhausted())
        if chosen is None:
            return
        if self._origins.together and not origin.is_out:
            self._wake_later(origin)
        if chosen is not origin and origin is self._origins.current:
            self._turn_to(chosen, origin, reason)
            if not self.asset.pinned and self._state.segments.on_hand_bytes:
                why = "without a checksum, parts from two origins cannot be combined"
                self._restart = self._restart or StartAfresh(why, forget_size=True)
        self._await_delay(chosen, now)

    def _await_delay(self, origin: Origin, now: float) -> None:
        """If it must not be asked yet, go on when it may be: nobody has waited for it since it was left."""
        if origin.ready_at > now:
            self._announce_retry(origin, origin.failures, origin.ready_at - now, origin.last_reason)

    def _reconsider(self) -> bool:
        """No origin is left. Return whether one is, whose host may have meant "one too many" with its last answer."""
        if (again := self._rivals.reconsider()) is None:
            return False
        origin, host = again
        self._origins.turn_to(origin)
        self._tell_wait(f"{host} to be free, to ask it again: {origin.last_reason}")
        self._changed()
        return True

    def _may_ask_alone(self, origin: Origin) -> bool:
        may_ask = self._rivals.may_ask(origin)
        if may_ask is None:
            self._leave(origin, origin.last_reason, self._clock.monotonic())
        return bool(may_ask)

    def _leave_if_told_to_wait(self, origin: Origin, host: str, now: float) -> None:
        """Turn to another origin if this one's host asked for a pause, perhaps because of another asset."""
        until = self._hosts.opens_at(host)
        if until - now < WORTH_LEAVING_S or self._origins.together:
            return
        if not self.asset.pinned and self._state.segments.on_hand_bytes:
            return  # parts of two origins do not combine: everything would have to come again
        others = [o for o in self._origins.usable if max(o.ready_at, self._hosts.opens_at(host_of(o.url))) <= now]
        if others:
            origin.postponed(until)
            self._turn_to(min(others, key=lambda o: (o.failures, o.number)), origin, "the server asks to wait")
            self._changed()

    def _tell_waiting(self, host: str, now: float) -> None:
        """Report once why this asset waits, if other assets of this run are the reason."""
        if self._attempts or self._origins.current.ready_at > now:
            return  # what this asset itself waits for was reported when it failed
        until, allowed = self._hosts.opens_at(host), self._hosts.allows(host)
        if until - now >= WORTH_TELLING_S:
            holder = f"{host}, which asks for a pause"
        elif allowed is not None and not self.received:
            holder = f"{host}, which allows {allowed} at a time"
        else:
            return
        if not self._waits_for.startswith(host):
            self._waits_for = holder
            self._tell_wait(holder)

    def _tell_wait(self, holder: str) -> None:
        # A redirect may have led to a host that has a secret in its name.
        self._reporter.waits(safe_text(self._context.requester.secrets.hide(holder)))

    def _turn_to(self, chosen: Origin, left: Origin, reason: str) -> None:
        self._origins.turn_to(chosen)
        # Otherwise connections that serve other assets would still ask the origin that was left.
        self._context.scheduler.take_back(self)
        self._reporter.switched(left, chosen, reason, count=len(self._origins.all))

    def _announce_retry(self, origin: Origin, attempt: int, delay: float, reason: str) -> None:
        self._reporter.retries(origin, attempt, delay, reason)
        self._wake_later(origin)

    def _wake_later(self, origin: Origin) -> None:
        timer = asyncio.get_running_loop().create_task(self._wake_when_ready(origin), name=f"retry {self.asset.id}")
        self._timers.add(timer)
        timer.add_done_callback(self._timers.discard)

    async def _wake_when_ready(self, origin: Origin) -> None:
        # A timer may fire a little early (uvloop counts in milliseconds); waking too early would mean never.
        while (left := origin.ready_at - self._clock.monotonic()) > 0:
            await self._clock.sleep(left)
        self._changed()

    def _exhausted(self) -> GrymFetchError:
        if self._blame.mismatch is not None:
            return self._blame.mismatch
        if self._state.no_room is not None:
            return self._state.no_room  # and no origin has said that it is less
        kept = self._state.segments.on_hand_bytes
        kept_advice = "What has arrived is kept; the next run goes on from there." if kept else ""
        advice = self._origins.agreement() or kept_advice
        return MirrorsExhausted(self.asset.id, self._origins.reasons(), advice)

    # -- progress ---------------------------------------------------------------------------------------------------

    def _arrived(self, attempt: Attempt, count: int, missing: int, now: float) -> None:
        origin, speeds = attempt.origin, self._context.scheduler.speeds
        if attempt.first_byte_at == now and not attempt.is_ahead:
            speeds.waited(attempt.reached, now - attempt.began)
        repeated = min(missing, self._repeated)
        self._repeated -= repeated
        origin.progressed(missing - repeated)
        if (rate := self._reporter.arrived(count, now)) is not None:
            self._leave_if_crawling(rate, now)
        if self._looks.is_waiting:
            self._shorten(attempt)
        if self._looks.is_pending:
            _cancel(look.task for look in self._choice.slow_looks(attempt.rate(now), now) if look.task is not None)
        self._ask_ahead(attempt, now)

    def _shorten(self, attempt: Attempt) -> None:
        """Let this connection end soon, so that somebody can be asked for a second look."""
        segment = attempt.segment
        if segment.remaining > self._settings.sizes.smallest and not segment.whole:
            self._state.segments.cut(segment, segment.position + self._settings.sizes.smallest)

    def _ask_ahead(self, attempt: Attempt, now: float) -> None:
        """Ask for the connection's next work now, if the rest of this one arrives within a round trip."""
        scheduler, segment = self._context.scheduler, attempt.segment
        if segment.whole:
            return
        most = scheduler.speeds.bytes_ahead(attempt.reached)
        count, seconds = attempt.burst(now)
        if seconds > 0:
            most = max(most, count / seconds * scheduler.speeds.wait(attempt.reached) * ROUND_TRIPS)
        left = segment.remaining
        if left <= most:
            left += sum(work.segment.remaining for work in scheduler.ahead_of(attempt) if isinstance(work, Attempt))
        while left <= most and (work := scheduler.ask_ahead(attempt)) is not None:
            left += work.segment.remaining if isinstance(work, Attempt) else 0

    def _leave_if_crawling(self, rate: float, now: float) -> None:
        """Turn to another origin if this one keeps us busy with next to nothing."""
        if not self.asset.pinned:
            return  # parts of two origins do not combine: everything would have to come again
        current, at_work = self._origins.current, {attempt.origin for attempt in self._attempts}
        faster = self._origins.find_faster(rate, now, self._settings.crawl_timeout, at_work)
        if faster is None:
            return
        slow = current if current in at_work else min(at_work, key=lambda origin: origin.number)
        self._turn_to(faster, slow, slow.last_reason)
        left = at_work if self._origins.together else {slow}
        _cancel(attempt.task for attempt in self._attempts if attempt.origin in left and attempt.task is not None)


def _host_asked(origin: Origin) -> str:
    """Host and port that the next request goes to."""
    return host_of(origin.url) if origin.target is None else host_in(origin.target)


def _alarm(wakeup: asyncio.Event, scheduler: Scheduler, readers: Readers) -> Callable[[], None]:
    def changed() -> None:
        wakeup.set()
        scheduler.kick()
        readers.tell()

    return changed


def _reason(error: TransferError | IntegrityError) -> str:
    """The reason for a failure, without the address."""
    return error.reason if isinstance(error, TransferError) else str(error)


def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks, each once only: a second time would interrupt how they end."""
    for task in tasks:
        if not task.cancelling():
            task.cancel()


async def _end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait until they are over."""
    tasks = list(tasks)
    _cancel(tasks)
    await wait_uncancelled(tasks)

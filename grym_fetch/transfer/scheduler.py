"""The bounded pool: one set of connections, shared by all assets under way.

Rules: there are never more connections than `connections`, idle ones included, nor more at work on one host than it
allows (`grym_fetch.core.hosts`). A free connection goes to the source that has the fewest at work, so that no small
asset waits for a big one; among equals, to the one that was asked for first. One that will soon be free gets its next
work ahead of its turn by the same rule, if that is for the host it is open to; if the connection ends first, that work
was never given out. A connection that nobody wants now is opened to where one will be wanted soon (`openings`). The
scheduler knows attempts and connections, and nothing of HTTP or of files.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter, deque
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Protocol, TypeVar, cast

from grym_fetch.core.errors import GrymFetchError
from grym_fetch.core.hosts import Hosts
from grym_fetch.core.speeds import Speeds
from grym_fetch.core.world import AheadConnection, Clock, Connection, Transport
from grym_fetch.runtime.clock import SystemClock
from grym_fetch.runtime.waiting import wait_uncancelled
from grym_fetch.transfer.openings import Foreseen, Opening, Openings

MAX_AHEAD = 3
"""The most work that a connection is given ahead of its turn."""
HEARTBEAT_S = 0.1
"""How often to look for work while some connections are busy and others idle: a slow one may have to share by then."""
_GIVEN_BACK = "given back"
SILENT_S = 1.0
"""If a host sends nothing to any of us for this long, what is open to it and idle is closed."""


class Work(Protocol):
    """The work of one connection: an attempt."""

    @property
    def host(self) -> str:
        """Host and port that it goes to."""

    task: asyncio.Task[None] | None
    """The task that does it."""


W = TypeVar("W", bound=Work)


class InTurn(Exception):
    """There is work, but none that can be given out ahead of its turn."""


class Source(Protocol[W]):
    """Something that has work: a transfer, or the small assets of one host."""

    def next_attempt(self, has_room: Callable[[str], bool], /) -> W | None:
        """The next piece of work, if there is any now for a host that may have one more connection."""

    def next_ahead(self, host: str, /) -> W | None:
        """The next work for this host, to be asked for before a connection is free; `InTurn` if it must wait."""

    def foresees(self) -> Foreseen | None:
        """Where it will want more connections as soon as what is under way is answered, if anywhere."""

    def ask_ahead(self, attempt: W, /, connection: Connection) -> bool:
        """Send its request now, ahead of its turn. Return whether that was possible."""

    async def fetch(self, attempt: W, /, connection: Connection) -> None:
        """Do it. The source deals with whatever goes wrong; this raises nothing but cancellation."""

    def release(self, attempt: W, /) -> None:
        """It is over, one way or another; also when it was cancelled before it began."""

    def fail(self, error: BaseException, /) -> None:
        """One of these raised after all. A bug of ours must fail this source, not hang it and the others."""


class Scheduler:
    """Gives free connections to sources that have work. ``hosts``: what they have all learned about each host.

    ``ahead``: whether requests may be sent ahead of their turn.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        connections: int,
        per_host: int | None = None,
        ahead: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self.hosts = Hosts(per_host or connections, ahead=ahead)
        self.speeds = Speeds()
        self._clock = clock or SystemClock()
        self._free = [transport.connection() for _ in range(connections)]
        self._connections = tuple(self._free)
        self._allowed = connections
        self._aside: list[Connection] = []
        """Those that must not be used now. All of them are closed."""
        self._sources: dict[Source[Any], int] = {}
        """How many attempts each has under way."""
        self._ranks: dict[Source[Any], int] = {}
        self._at_work: dict[Work, tuple[Source[Any], Connection]] = {}
        self._ahead: dict[Connection, deque[tuple[Source[Any], Work]]] = {}
        """What was asked for ahead over each connection, in order."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._openings = Openings(self._opened)
        self._silent_since: dict[str, float] = {}
        """Since when hosts that have something idle of ours have sent nothing to those that wait for them."""
        self._one_by_one: set[str] = set()
        """The hosts to which idle connections had to be closed."""
        self._is_due = False
        self._heartbeat: asyncio.TimerHandle | None = None
        self._alarm: tuple[float, asyncio.Task[None]] | None = None
        """When the next host may be asked again, and the task that waits for it."""
        self._is_closed = False

    def add(self, source: Source[Any], rank: int) -> None:
        """Serve this source. The lower its rank, the earlier among equals."""
        self._ranks[source] = rank
        self._sources[source] = 0
        self.kick()

    def remove(self, source: Source[Any]) -> None:
        """Give it no more connections. It ends its own attempts."""
        self.take_back(source)
        del self._sources[source], self._ranks[source]
        self.kick()

    def take_back(self, source: Source[Any]) -> None:
        """Take back the work that it was given ahead of its turn."""
        for queue in self._ahead.values():
            for entry in [entry for entry in queue if entry[0] is source]:
                queue.remove(entry)
                self._release(source, entry[1])

    def can_begin(self, host: str) -> bool:
        """Whether a connection is free, and this host allows one more."""
        return bool(self._free) and self._has_room(host)

    # -- a share of what several processes may use together -----------------------------------------------------------

    def allow(self, connections: int) -> None:
        """From now on, use at most so many connections, up to as many as there are. What is at work goes on."""
        self._allowed = min(max(connections, 0), len(self._connections))
        while self._aside and self.in_use < self._allowed:
            self._free.append(self._aside.pop())
        self._give_back()
        for host, count in self.open_to().items():
            self._close_idle(host, count - self.hosts.most(host))
        self.kick()

    def open_to(self) -> Counter[str]:
        """How many connections are open to each host, idle ones included."""
        return Counter(connection.host for connection in self._connections if connection.host)

    def _close_idle(self, host: str, most: int) -> None:
        """Close up to so many connections that are open to a host and idle."""
        for connection in [each for each in self._free if each.host == host][: max(0, most)]:
            self._free.remove(connection)
            task = asyncio.get_running_loop().create_task(connection.aclose(), name=f"let go of {host}")
            self._tasks.add(task)
            task.add_done_callback(partial(self._let_gone, connection))

    @property
    def in_use(self) -> int:
        """How many connections are open or may be opened: those allowed, and others until their work is done."""
        return len(self._connections) - len(self._aside)

    def look(self) -> None:
        """Look for work now, so that what is known of the hosts says where more is wanted."""
        if not self._is_closed:
            self._give_out()

    def _give_back(self) -> None:
        """Close free connections until there are no more than allowed: first those that are not open."""
        closing = sum(task.get_name() == _GIVEN_BACK for task in self._tasks)
        while self._free and self.in_use - closing > self._allowed:
            connection = min(self._free, key=lambda each: each.host != "")
            self._free.remove(connection)
            if not connection.host:
                self._aside.append(connection)
                continue
            closing += 1
            task = asyncio.get_running_loop().create_task(connection.aclose(), name=_GIVEN_BACK)
            self._tasks.add(task)
            task.add_done_callback(partial(self._given_back, connection))

    def _given_back(self, connection: Connection, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        (self._free if self.in_use <= self._allowed else self._aside).append(connection)
        if not task.cancelled():
            task.exception()  # what became of it is no matter: it is opened again, or another is used
        self.kick()

    def kick(self) -> None:
        """There may be new work: look for it soon. Many kicks in one turn of the loop cost one look."""
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._assign)

    def _assign(self) -> None:
        self._is_due = False
        if self._is_closed:
            return
        self._give_out()
        self._open_early()
        if self._free and self._tasks and self._heartbeat is None:
            self._heartbeat = asyncio.get_running_loop().call_later(HEARTBEAT_S, self._beat)
        if self._free and self._sources:
            self._set_alarm()

    def _set_alarm(self) -> None:
        """Look for work again as soon as a host that must be left alone may be asked."""
        due = self.hosts.next_opening(self._clock.monotonic())
        if due is None or (self._alarm is not None and self._alarm[0] <= due):
            return
        if self._alarm is not None:
            self._alarm[1].cancel()
        self._alarm = due, asyncio.get_running_loop().create_task(self._wait_until(due), name="host opens")

    async def _wait_until(self, due: float) -> None:
        while (left := due - self._clock.monotonic()) > 0:
            await self._clock.sleep(left)
        self._alarm = None
        self.kick()

    def _beat(self) -> None:
        self._heartbeat = None
        self._let_go()
        self._assign()

    def _let_go(self) -> None:
        """Close what is idle at a host that answers nobody.

        A server that serves one connection at a time waits for the next request of the one it served last, and those
        behind it wait in vain.
        """
        now = self._clock.monotonic()
        silent = {}
        for host in {connection.host for connection in self._free} - {""}:
            if self.hosts.is_idle(host) or self.hosts.is_serving(host):
                continue
            silent[host] = since = self._silent_since.get(host, now)
            if now - since >= SILENT_S or (host in self._one_by_one and since < now):
                self._one_by_one.add(host)
                self._close_idle(host, len(self._free))
        self._silent_since = silent

    def _let_gone(self, connection: Connection, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._free.append(connection)
        self._give_back()
        if not task.cancelled():
            task.exception()  # what became of it is no matter: it is opened again, or another is used
        self.kick()

    def _give_out(self) -> None:
        if not self._free and not self._openings:
            return
        waiting = [
            (at_work, self._ranks[source], order, source)
            for order, (source, at_work) in enumerate(self._sources.items())
        ]
        heapq.heapify(waiting)
        while (self._free or self._openings) and waiting:
            at_work, rank, order, source = heapq.heappop(waiting)
            try:
                attempt = source.next_attempt(self._has_room)
            except Exception as error:  # noqa: BLE001 - see Source.fail
                source.fail(error)
                continue
            if attempt is not None:
                self._start(source, attempt)
                heapq.heappush(waiting, (at_work + 1, rank, order, source))

    def _has_room(self, host: str) -> bool:
        return self.hosts.has_room(host, self._clock.monotonic())

    def _start(self, source: Source[Any], attempt: Work) -> None:
        opening = None
        if all(connection.host != attempt.host for connection in self._free):
            opening = self._openings.take(attempt.host, elsewhere=not self._free)
        if opening is None:
            self._begin(source, attempt, self._pick(attempt.host))
        else:
            self._begin(source, attempt, opening.connection, opening)

    def _begin(
        self, source: Source[Any], attempt: Work, connection: Connection, opening: Opening | None = None
    ) -> None:
        self._at_work[attempt] = source, connection
        self._sources[source] += 1
        self.hosts.began(attempt, attempt.host)
        self._openings.used(connection)
        work = source.fetch(attempt, connection) if opening is None else _fetch_over(opening, source, attempt)
        task = asyncio.get_running_loop().create_task(work)
        attempt.task = task
        self._tasks.add(task)
        # A callback and not a finally: a task that is cancelled before its first step runs no finally.
        task.add_done_callback(partial(self._ended, source, attempt, connection))

    def is_open_far_away(self, host: str) -> bool:
        """Whether a free connection is open to this host, and the host is far away."""
        return self.speeds.is_far(host) and any(connection.host == host for connection in self._free)

    def _pick(self, host: str) -> Connection:
        """Return a connection that is open to this host, else one that is not open, else any.

        Of several, the one used last: a server may still count its last request, and would count one elsewhere as more.
        """
        best = min(self._free, key=lambda connection: (connection.host != host, connection.host != ""))
        if best.host == host:
            best = next(connection for connection in reversed(self._free) if connection.host == host)
        self._free.remove(best)
        return best

    def _ended(self, source: Source[Any], attempt: Work, connection: Connection, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._at_work.pop(attempt, None)
        self.hosts.ended(attempt, self._clock.monotonic())
        if source in self._sources:
            self._sources[source] -= 1
        if not task.cancelled() and (error := task.exception()) is not None:
            source.fail(error)
        self._release(source, attempt)
        if not self._go_on(connection):
            self._free.append(connection)
            self._give_back()
        self.kick()

    def _release(self, source: Source[Any], work: Work) -> None:
        try:
            source.release(work)
        except Exception as error:  # noqa: BLE001 - see Source.fail
            source.fail(error)

    # -- opened before they are needed ----------------------------------------------------------------------------

    def _open_early(self) -> None:
        """Open what the sources will want soon, over places that nobody wants now."""
        for source in self._sources if self._free else ():
            if (foreseen := source.foresees()) is None:
                continue
            host, now = foreseen.host, self._clock.monotonic()
            places = [each for each in self._free if self._openings.may_begin(each, host)]
            there = sum(each.host == host for each in self._free) + self._openings.count(host)
            for connection in places[: max(0, min(foreseen.count, self.hosts.room(host, now)) - there)]:
                self._free.remove(connection)
                self._openings.begin(connection, foreseen)

    def _opened(self, opening: Opening, error: GrymFetchError | None) -> None:
        self._free.append(opening.connection)
        self._give_back()
        if error is None and opening.connection.host == opening.host:
            self.speeds.opened(opening.host, asyncio.get_running_loop().time() - opening.began)
        if error is not None:
            there = sum(connection.host == opening.host for connection in self._free)
            self.hosts.refused_opening(opening.host, there, self._clock.monotonic(), error)
        self.kick()

    # -- ahead of their turn ------------------------------------------------------------------------------------------

    def ahead_of(self, attempt: Work) -> Iterable[Work]:
        """What was asked for ahead over the connection of this attempt."""
        return (work for _, work in self._ahead.get(self._at_work[attempt][1], ()))

    def ask_ahead(self, attempt: Work) -> Work | None:
        """This attempt will soon be over: give its connection the next work now. None if there is none."""
        current, connection = self._at_work.get(attempt, (None, None))
        if self._is_closed or connection is None or not hasattr(connection, "ask_ahead"):
            return None
        queue = self._ahead.setdefault(connection, deque())
        host = connection.host
        if self.in_use > self._allowed or self.hosts.has_too_many(host):
            return None
        if len(queue) >= self.hosts.may_ask_ahead(connection, host, self._clock.monotonic(), MAX_AHEAD):
            return None
        try:
            source, work = self._next_ahead(host, current)
        except InTurn:
            return None
        if not source.ask_ahead(work, connection):
            self._release(source, work)
            return None
        queue.append((source, work))
        return work

    def _next_ahead(self, host: str, current: Source[Any] | None) -> tuple[Source[Any], Work]:
        """The work that a connection to this host would get, if it came free. `InTurn` if that has to wait."""
        waiting = [
            (at_work - (source is current), self._ranks[source], order, source)
            for order, (source, at_work) in enumerate(self._sources.items())
        ]
        heapq.heapify(waiting)
        while waiting:
            source = heapq.heappop(waiting)[-1]
            try:
                work = source.next_ahead(host)
            except InTurn:
                raise
            except Exception as error:  # noqa: BLE001 - see Source.fail
                source.fail(error)
                continue
            if work is not None:
                return source, work
        raise InTurn

    def _go_on(self, connection: Connection) -> bool:
        """Turn to the work asked for ahead. If the connection has ended or was used by others, give that work back."""
        if not hasattr(connection, "ask_ahead"):
            return False
        kept, queue = cast("AheadConnection", connection), self._ahead.get(connection, deque())
        if queue and kept.lost_ahead():
            self.hosts.lost_ahead(queue[0][1].host)
        is_allowed = self.in_use <= self._allowed
        if queue and kept.ahead == len(queue) and is_allowed and not self._is_closed:
            source, work = queue.popleft()
            self._begin(source, work, connection)
            return True
        if kept.ahead:
            kept.drop_ahead()
        for source, work in queue:
            self._release(source, work)
        queue.clear()
        return False

    async def aclose(self) -> None:
        """Cancel all work and close every connection."""
        self._is_closed = True
        if self._heartbeat is not None:
            self._heartbeat.cancel()
        tasks = list(self._tasks)
        if self._alarm is not None:
            tasks.append(self._alarm[1])
        for task in tasks:
            if not task.cancelling():
                task.cancel()
        tasks += self._openings.cancel()
        async with AsyncExitStack() as stack:  # closes all of them, whatever becomes of one
            for connection in self._connections:
                stack.push_async_callback(connection.aclose)
            await wait_uncancelled(tasks)


async def _fetch_over(opening: Opening, source: Source[W], attempt: W) -> None:
    """Do the work as soon as the connection is free for it."""
    await opening.joined(attempt.host)
    await source.fetch(attempt, opening.connection)

"""The pool: never more connections than allowed, a fair share for each source, and every connection comes back."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_fetch.core.errors import ConnectFailed
from grym_fetch.core.hosts import TRY_AHEAD
from grym_fetch.core.origins import Origin
from grym_fetch.core.segments import Segment
from grym_fetch.core.world import Connection
from grym_fetch.transfer import scheduler as module
from grym_fetch.transfer.attempt import Attempt
from grym_fetch.transfer.openings import Foreseen
from grym_fetch.transfer.scheduler import MAX_AHEAD, InTurn, Scheduler
from tests.support.fakes import ScriptedConnection, ScriptedTransport, VirtualClock
from tests.support.properties import examples


async def turns(count: int = 20) -> None:
    """Let everything happen that waits for nobody."""
    for _ in range(count):
        await asyncio.sleep(0)


class Pool:
    """What all sources of a test share: which are at work, and the most there ever were."""

    def __init__(self) -> None:
        self.at_work: list[FakeSource] = []
        self.most = 0
        self.most_per_host: Counter[str] = Counter()
        self.begun: list[str] = []

    def enter(self, source: FakeSource) -> None:
        self.at_work.append(source)
        self.begun.append(source.name)
        self.most = max(self.most, len(self.at_work))
        for host, count in Counter(other.host for other in self.at_work).items():
            self.most_per_host[host] = max(self.most_per_host[host], count)


class AheadConnection(ScriptedConnection):
    """A connection that can be asked ahead. ``sent`` has the requests sent but not begun."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[Attempt] = []
        self.takes_more = True
        self.has_lost = False
        self.dropped = 0

    @property
    def ahead(self) -> int:
        return len(self.sent)

    def ask_ahead(self, *_: object) -> bool:
        raise AssertionError("only sources ask")

    def lost_ahead(self) -> bool:
        return self.has_lost

    def drop_ahead(self) -> None:
        self.sent.clear()
        self.dropped += 1


class AheadTransport(ScriptedTransport):
    """Makes such connections."""

    def connection(self) -> ScriptedConnection:
        self.connections.append(AheadConnection())
        return self.connections[-1]


class FakeSource:
    """Has ``work`` attempts to offer. Each ends when `finish` is called, or at once if ``instant``."""

    def __init__(self, pool: Pool, name: str, work: int, host: str = "h:80", *, instant: bool = False) -> None:
        self.name = name
        self.host = host
        self.work = work
        self.given: list[Attempt] = []
        self.released: list[Attempt] = []
        self.used: list[Connection] = []
        self.failed: BaseException | None = None
        self.asked = 0
        self.foreseen: Foreseen | None = None
        self.kick: Callable[[], None] = lambda: None
        self.on_release: Callable[[Attempt], object] = lambda _: None
        self._pool = pool
        self._instant = instant
        self._gates: list[asyncio.Event] = []

    def next_attempt(self, has_room: Callable[[str], bool]) -> Attempt | None:
        self.asked += 1
        if self.work == 0 or not has_room(self.host):
            return None
        self.work -= 1
        attempt = Attempt(Segment(0, 10, 0), Origin(0, f"http://{self.host}/"), self.host, 0.0)
        self.given.append(attempt)
        return attempt

    def next_ahead(self, host: str) -> Attempt | None:
        if self.work and host != self.host:
            raise InTurn
        return self.next_attempt(lambda _: True)

    def foresees(self) -> Foreseen | None:
        return self.foreseen

    def ask_ahead(self, attempt: Attempt, connection: Connection) -> bool:
        assert isinstance(connection, AheadConnection)
        connection.sent.append(attempt)
        return connection.takes_more

    async def fetch(self, attempt: Attempt, connection: Connection) -> None:
        if isinstance(connection, AheadConnection) and attempt in connection.sent:
            connection.sent.remove(attempt)
        assert isinstance(connection, ScriptedConnection)
        connection.host = self.host
        self.used.append(connection)
        self._pool.enter(self)
        try:
            if not self._instant:
                gate = asyncio.Event()
                self._gates.append(gate)
                await gate.wait()
        finally:
            self._pool.at_work.remove(self)

    def release(self, attempt: Attempt) -> None:
        self.released.append(attempt)
        self.on_release(attempt)

    def fail(self, error: BaseException) -> None:
        self.failed = error

    def finish(self, count: int = 1) -> None:
        """End the oldest attempts."""
        for gate in self._gates[:count]:
            gate.set()
        del self._gates[:count]


@pytest.fixture
def pool() -> Pool:
    return Pool()


@pytest.fixture
async def schedulers() -> AsyncIterator[Callable[..., Scheduler]]:
    made: list[Scheduler] = []

    def make(connections: int, per_host: int | None = None, transport: ScriptedTransport | None = None) -> Scheduler:
        scheduler = Scheduler(transport or ScriptedTransport(), connections=connections, per_host=per_host, ahead=True)
        made.append(scheduler)
        return scheduler

    yield make
    for scheduler in made:
        await scheduler.aclose()


Make = Callable[..., Scheduler]


# -- how many -------------------------------------------------------------------------------------------------------


async def test_no_more_at_once_than_connections(pool: Pool, schedulers: Make) -> None:
    """However much work there is, only as many attempts run as there are connections, each with its own."""
    transport = ScriptedTransport()
    scheduler = schedulers(3, transport=transport)
    source = FakeSource(pool, "a", 10)
    scheduler.add(source, 0)
    await turns()
    assert len(pool.at_work) == 3
    assert len(transport.connections) == 3
    assert len(set(map(id, source.used))) == 3
    while source.work or pool.at_work:
        source.finish()
        await turns()
    assert pool.most == 3
    assert len(source.released) == 10
    assert len(transport.connections) == 3


async def test_no_more_at_once_than_per_host(pool: Pool, schedulers: Make) -> None:
    """A host has no more attempts than its limit; free connections go to other hosts."""
    scheduler = schedulers(5, per_host=2)
    crowded, lonely = FakeSource(pool, "a", 10, "one:80"), FakeSource(pool, "b", 10, "two:80")
    same = FakeSource(pool, "c", 10, "one:80")
    for rank, source in enumerate((crowded, same, lonely)):
        scheduler.add(source, rank)
    await turns()
    assert Counter(source.name for source in pool.at_work) == {"a": 1, "c": 1, "b": 2}
    crowded.work = 0
    crowded.finish()
    await turns()
    assert Counter(source.name for source in pool.at_work) == {"b": 2, "c": 2}
    assert pool.most_per_host == {"one:80": 2, "two:80": 2}


@examples(50)
@given(
    st.integers(1, 5),
    st.one_of(st.none(), st.integers(1, 3)),
    st.lists(st.tuples(st.integers(0, 6), st.sampled_from("xyz")), max_size=6),
    st.randoms(use_true_random=False),
)
def test_any_load_is_served_within_the_limits(
    connections: int, per_host: int | None, load: list[tuple[int, str]], random: Random
) -> None:
    """Whatever the sources want and in whatever order they end, all work is done, and no limit is ever broken."""

    async def scenario() -> None:
        pool = Pool()
        scheduler = Scheduler(ScriptedTransport(), connections=connections, per_host=per_host)
        sources = [FakeSource(pool, str(n), work, host) for n, (work, host) in enumerate(load)]
        try:
            for rank, source in enumerate(sources):
                scheduler.add(source, rank)
            await turns()
            while pool.at_work:
                random.choice(pool.at_work).finish()
                await turns()
        finally:
            await scheduler.aclose()
        assert [len(source.released) for source in sources] == [work for work, _ in load]
        assert pool.most <= connections
        assert all(count <= (per_host or connections) for count in pool.most_per_host.values())

    asyncio.run(scenario())


# -- who ------------------------------------------------------------------------------------------------------------


async def test_connections_are_shared_out_evenly(pool: Pool, schedulers: Make) -> None:
    """Each source gets one before any gets a second; what is left goes to the source of the lowest rank."""
    scheduler = schedulers(4)
    for rank, name in enumerate("abc"):
        scheduler.add(FakeSource(pool, name, 9), rank)
    await turns()
    assert pool.begun == ["a", "b", "c", "a"]


async def test_the_rank_decides_among_equals(pool: Pool, schedulers: Make) -> None:
    """The source requested first is served first, in whatever order the sources were added."""
    scheduler = schedulers(1)
    for name, rank in [("c", 3), ("a", 1), ("b", 2)]:
        scheduler.add(FakeSource(pool, name, 1, instant=True), rank)
    await turns()
    assert pool.begun == ["a", "b", "c"]


async def test_no_small_source_waits_for_a_big_one(pool: Pool, schedulers: Make) -> None:
    """When a big source has all connections, the first one freed goes to a source that has none."""
    scheduler = schedulers(3)
    big, small = FakeSource(pool, "big", 99), FakeSource(pool, "small", 1)
    scheduler.add(big, 0)
    await turns()
    scheduler.add(small, 1)
    await turns()
    assert pool.begun == ["big"] * 3
    big.finish()
    await turns()
    assert pool.begun == ["big"] * 3 + ["small"]


async def test_what_is_over_does_not_count(pool: Pool, schedulers: Make) -> None:
    """A source that has ended an attempt has fewer at work than the others, and gets the next connection."""
    scheduler = schedulers(2)
    first, second = FakeSource(pool, "a", 9), FakeSource(pool, "b", 9)
    scheduler.add(first, 0)
    scheduler.add(second, 1)
    await turns()
    for _ in range(3):
        second.finish()
        await turns()
    assert pool.begun == ["a", "b", "b", "b", "b"]


async def test_a_full_host_holds_up_no_other(pool: Pool, schedulers: Make) -> None:
    """A source whose host is at its limit is passed over for one of another host."""
    scheduler = schedulers(2, per_host=1)
    for rank, (name, host) in enumerate([("a", "one:80"), ("b", "one:80"), ("c", "two:80")]):
        scheduler.add(FakeSource(pool, name, 1, host), rank)
    await turns()
    assert pool.begun == ["a", "c"]


async def test_who_has_no_work_is_passed_over(pool: Pool, schedulers: Make) -> None:
    """A waiting source holds nobody up, and is served as soon as it has work."""
    scheduler = schedulers(1)
    waiting, busy = FakeSource(pool, "a", 0), FakeSource(pool, "b", 3)
    scheduler.add(waiting, 0)
    scheduler.add(busy, 1)
    await turns()
    assert pool.begun == ["b"]
    waiting.work = 1
    busy.finish()
    await turns()
    assert pool.begun == ["b", "a"]


async def test_new_work_is_found_by_a_kick(pool: Pool, schedulers: Make) -> None:
    """New work begins only when the scheduler is told of it."""
    scheduler = schedulers(1)
    source = FakeSource(pool, "a", 0)
    scheduler.add(source, 0)
    await turns()
    source.work = 1
    await turns()
    assert pool.at_work == []
    scheduler.kick()
    await turns()
    assert pool.at_work == [source]


async def test_many_kicks_are_one_look(pool: Pool, schedulers: Make) -> None:
    """However often it is told within one turn of the loop, the scheduler looks once."""
    scheduler = schedulers(1)
    source = FakeSource(pool, "a", 0)
    scheduler.add(source, 0)
    await turns()
    before = source.asked
    for _ in range(100):
        scheduler.kick()
    await turns()
    assert source.asked == before + 1


async def test_a_removed_source_is_asked_no_more(pool: Pool, schedulers: Make) -> None:
    """After its removal a source gets nothing new; it ends what it has under way itself, and its place is free."""
    scheduler = schedulers(1)
    first, second = FakeSource(pool, "a", 5), FakeSource(pool, "b", 1)
    scheduler.add(first, 0)
    scheduler.add(second, 1)
    await turns()
    scheduler.remove(first)
    first.finish()
    await turns()
    assert pool.begun == ["a", "b"]
    assert len(first.released) == 1


async def test_the_open_connection_is_preferred(pool: Pool, schedulers: Make) -> None:
    """A host that was asked before is asked over its open socket; a new host over an unused place."""
    transport = ScriptedTransport()
    scheduler = schedulers(3, transport=transport)
    for host in ("one:80", "two:80", "one:80", "three:80", "two:80"):
        source = FakeSource(pool, host, 1, host, instant=True)
        scheduler.add(source, 0)
        await turns()
        scheduler.remove(source)
    assert [connection.host for connection in transport.connections] == ["one:80", "two:80", "three:80"]


class CountedSource(FakeSource):
    """Counts how often it is asked."""

    looked_up = 0

    def __hash__(self) -> int:
        CountedSource.looked_up += 1
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other


async def test_many_sources_cost_no_more_each_than_a_few(pool: Pool, schedulers: Make) -> None:
    """With ten times as many sources that cannot be served, a look takes ten times as long, not a hundred times."""
    costs = []
    for count in (20, 200):
        scheduler = schedulers(8, per_host=2)
        for rank in range(count):
            scheduler.add(CountedSource(pool, str(rank), 1), rank)
        await turns()
        CountedSource.looked_up = 0
        scheduler.kick()
        await turns()
        costs.append(CountedSource.looked_up)
    assert costs[1] <= 20 * costs[0]


async def test_adding_many_sources_costs_no_more_each(pool: Pool, schedulers: Make) -> None:
    """The ten-thousandth source is added as quickly as the first."""
    costs = []
    for count in (20, 200):
        scheduler = schedulers(1)
        CountedSource.looked_up = 0
        for rank in range(count):
            scheduler.add(CountedSource(pool, str(rank), 0), rank)
        costs.append(CountedSource.looked_up)
    assert costs[1] <= 20 * costs[0]


# -- the heartbeat --------------------------------------------------------------------------------------------------


async def test_an_idle_connection_looks_again(pool: Pool, schedulers: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """While some connections work and others idle, sources are asked again after a while: a slow one may share then."""
    monkeypatch.setattr(module, "HEARTBEAT_S", 0)
    scheduler = schedulers(2)
    source = FakeSource(pool, "a", 1)
    scheduler.add(source, 0)
    await turns()
    source.work = 1
    await turns()
    assert pool.begun == ["a", "a"]


@pytest.mark.parametrize("work", [0, 2], ids=["nobody works", "all work"])
async def test_nobody_looks_in_vain(pool: Pool, schedulers: Make, monkeypatch: pytest.MonkeyPatch, work: int) -> None:
    """If nothing is under way, or no connection is idle, there is no heartbeat."""
    monkeypatch.setattr(module, "HEARTBEAT_S", 0)
    scheduler = schedulers(2)
    source = FakeSource(pool, "a", work)
    scheduler.add(source, 0)
    await turns()
    asked = source.asked
    await turns()
    assert source.asked == asked


async def test_no_heartbeat_outlives_the_scheduler(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed scheduler asks nobody."""
    monkeypatch.setattr(module, "HEARTBEAT_S", 0)
    scheduler = Scheduler(ScriptedTransport(), connections=2)
    source = FakeSource(pool, "a", 1)
    scheduler.add(source, 0)
    await turns()
    await scheduler.aclose()
    await turns()
    asked = source.asked
    await turns()
    assert source.asked == asked


# -- what is idle at a silent host ----------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["silent", "serving", "for others"])
@pytest.mark.shows("N25")
async def test_what_is_idle_at_a_silent_host_is_closed(pool: Pool, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """A server that serves one connection at a time waits for the idle one, and the others wait for the server."""
    monkeypatch.setattr(module, "HEARTBEAT_S", 0)
    clock, transport = VirtualClock(), ScriptedTransport()
    scheduler = Scheduler(transport, connections=2, clock=clock)
    done, waiting = FakeSource(pool, "done", 1), FakeSource(pool, "waiting", 1)
    if what == "for others":
        done.host = "other:80"
    scheduler.add(done, 0)
    scheduler.add(waiting, 1)
    await turns()
    done.finish()
    if what == "serving":
        scheduler.hosts.receives(waiting.given[0], clock.now)
    (idle,) = (each for each in transport.connections if each is done.used[0])
    await turns()
    clock.now += module.SILENT_S * 0.9
    await turns()
    assert not idle.closed
    clock.now += module.SILENT_S
    await turns()
    assert idle.closed is (what == "silent")
    done.work = waiting.work = 1
    scheduler.kick()
    await turns()
    assert len(pool.at_work) == 2, "a connection was lost"
    await scheduler.aclose()


@pytest.mark.shows("N25")
async def test_a_host_that_was_silent_once_is_not_waited_for_again(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It serves one at a time: each idle connection is closed at the next look."""
    monkeypatch.setattr(module, "HEARTBEAT_S", 0)
    clock, transport = VirtualClock(), ScriptedTransport()
    scheduler = Scheduler(transport, connections=3, clock=clock)
    sources = [FakeSource(pool, name, 1) for name in "abc"]
    for rank, source in enumerate(sources):
        scheduler.add(source, rank)
    await turns()
    first, second, _ = (source.used[0] for source in sources)
    assert isinstance(first, ScriptedConnection)
    assert isinstance(second, ScriptedConnection)
    sources[0].finish()
    await turns()
    clock.now += module.SILENT_S
    await turns()
    assert first.closed
    sources[1].finish()
    await turns()
    clock.now += 0.1
    await turns()
    assert second.closed
    await scheduler.aclose()


# -- how it ends ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("begun", [True, False], ids=["at work", "before it began"])
async def test_a_cancelled_attempt_gives_its_connection_back(pool: Pool, schedulers: Make, begun: bool) -> None:
    """An attempt cancelled even before its first step releases its segment and frees its connection."""
    scheduler = schedulers(1)
    source = FakeSource(pool, "a", 2)
    scheduler.add(source, 0)
    # One turn gives the attempt out, the next one starts it.
    await turns(20 if begun else 1)
    assert len(pool.begun) == begun
    task = source.given[0].task
    assert task is not None
    task.cancel()
    await turns()
    assert source.released == source.given[:1]
    assert pool.at_work == [source]
    assert len(source.given) == 2


async def test_closing_ends_all_and_closes_all(pool: Pool) -> None:
    """Closing cancels what is under way, waits for it, and closes each connection."""
    transport = ScriptedTransport()
    scheduler = Scheduler(transport, connections=3)
    source = FakeSource(pool, "a", 2)
    scheduler.add(source, 0)
    await turns()
    await scheduler.aclose()
    assert pool.at_work == []
    assert all(connection.closed for connection in transport.connections)
    assert len(transport.connections) == 3
    await turns()
    assert set(source.released) == set(source.given)
    assert len(source.released) == 2


async def test_closing_waits_for_those_who_take_their_time(pool: Pool) -> None:
    """An attempt that still has to store what has arrived is waited for, even if the closing is itself cancelled."""
    transport = ScriptedTransport()
    scheduler = Scheduler(transport, connections=1)
    stored = asyncio.Event()

    class Storing(FakeSource):
        async def fetch(self, attempt: Attempt, connection: Connection) -> None:
            try:
                await super().fetch(attempt, connection)
            finally:
                await stored.wait()

    scheduler.add(Storing(pool, "a", 1), 0)
    await turns()
    closing = asyncio.ensure_future(scheduler.aclose())
    await turns()
    closing.cancel()
    await turns()
    assert not closing.done()
    stored.set()
    with pytest.raises(asyncio.CancelledError):
        await closing


async def test_nothing_begins_after_closing(pool: Pool) -> None:
    """A source that still has work when the scheduler closes gets no further connection."""
    scheduler = Scheduler(ScriptedTransport(), connections=1)
    source = FakeSource(pool, "a", 5)
    scheduler.add(source, 0)
    await turns()
    await scheduler.aclose()
    await turns()
    at_work, begun = list(pool.at_work), list(pool.begun)
    source.work = 0
    await scheduler.aclose()
    assert at_work == []
    assert begun == ["a"]


async def test_a_cancelled_closing_still_closes_the_connections(pool: Pool) -> None:
    """A second interruption while the scheduler closes does not leave sockets open."""
    transport = ScriptedTransport()
    scheduler = Scheduler(transport, connections=2)
    source = FakeSource(pool, "a", 1)
    scheduler.add(source, 0)
    await turns()
    closing = asyncio.ensure_future(scheduler.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert [connection.closed for connection in transport.connections] == [True, True]


@pytest.mark.shows("P10")
@pytest.mark.parametrize("name", ["next_attempt", "fetch", "release"])
async def test_a_bug_in_one_source_harms_no_other(
    pool: Pool, schedulers: Callable[..., Scheduler], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A source that raises while nobody waits for it is told, and the others are still served."""
    bug = TypeError("a bug")

    def raising(*_: object) -> None:
        raise bug

    async def raising_later(*_: object) -> None:
        raise bug

    bad, good = (FakeSource(pool, name, 3, instant=True) for name in ("bad", "good"))
    monkeypatch.setattr(bad, name, raising_later if name == "fetch" else raising)
    scheduler = schedulers(1)
    scheduler.add(bad, rank=0)
    scheduler.add(good, rank=1)
    await turns()
    assert bad.failed is bug
    assert len(good.released) == 3
    for source in (bad, good):
        scheduler.remove(source)


# -- hosts that must be left alone ------------------------------------------------------------------------------------


@pytest.mark.shows("A25")
async def test_a_host_is_asked_as_soon_as_its_time_has_come(pool: Pool) -> None:
    """Nobody has to look for it: the pool wakes by itself, but no earlier."""
    clock = VirtualClock()
    scheduler = Scheduler(ScriptedTransport(), connections=2, clock=clock)
    try:
        scheduler.hosts.left_alone("h:80", clock.now + 30.0)
        source, other = FakeSource(pool, "a", 1), FakeSource(pool, "b", 1, "other:80")
        scheduler.add(source, 0)
        scheduler.add(other, 0)
        await turns(1)
        assert (len(source.given), len(other.given)) == (0, 1)
        await turns()
        assert len(source.given) == 1
        assert clock.slept == [30.0]
    finally:
        await scheduler.aclose()


async def test_closing_does_not_wait_for_a_host(pool: Pool) -> None:
    """An attempt that waits for the host is cancelled."""
    scheduler = Scheduler(ScriptedTransport(), connections=1)
    scheduler.hosts.left_alone("h:80", asyncio.get_running_loop().time() + 3600.0)
    scheduler.add(FakeSource(pool, "a", 1), 0)
    await turns()
    before = {task.get_name() for task in asyncio.all_tasks()}
    await scheduler.aclose()
    assert "host opens" in before
    assert "host opens" not in {task.get_name() for task in asyncio.all_tasks()}


# -- ahead of their turn ----------------------------------------------------------------------------------------------


async def test_a_busy_connection_goes_on_with_what_was_asked_ahead(pool: Pool, schedulers: Make) -> None:
    """It gets a limited amount of further work, begins it in order, and none of it counts as at work before."""
    scheduler = schedulers(1, transport=AheadTransport())
    for _ in range(TRY_AHEAD):
        scheduler.hosts.kept_ahead("h:80")
    source = FakeSource(pool, "a", 6)
    scheduler.add(source, 0)
    await turns()
    given = [scheduler.ask_ahead(source.given[0]) for _ in range(5)]
    assert given == [*source.given[1:], None, None]
    assert len(given) == MAX_AHEAD + 2
    assert list(scheduler.ahead_of(source.given[0])) == source.given[1:]
    assert len(pool.at_work) == 1
    while pool.at_work:
        source.finish()
        await turns()
    assert source.released == source.given
    assert (pool.most, len(source.given)) == (1, 6)


@pytest.mark.parametrize("is_to_blame", [True, False])
@pytest.mark.shows("N24")
async def test_what_a_connection_loses_was_never_given_out(pool: Pool, schedulers: Make, is_to_blame: bool) -> None:
    """If a connection ends, requests sent ahead over it are given back; a server to blame is then asked in turn."""
    transport = AheadTransport()
    scheduler = schedulers(1, transport=transport)
    source = FakeSource(pool, "a", 3)
    scheduler.add(source, 0)
    await turns()
    assert scheduler.ask_ahead(source.given[0]) is not None
    connection = transport.connections[0]
    assert isinstance(connection, AheadConnection)
    connection.sent.clear()
    connection.has_lost = is_to_blame
    source.finish()
    await turns()
    assert source.released == source.given[:2]
    assert pool.begun == ["a", "a"]
    assert source.failed is None
    assert scheduler.hosts.takes_ahead("h:80", 0.0) is not is_to_blame


async def test_nobody_is_passed_over(pool: Pool, schedulers: Make) -> None:
    """Work for the connection's current host does not take it from a source that would get it if it were free."""
    scheduler = schedulers(2, transport=AheadTransport())
    source, other = FakeSource(pool, "a", 9), FakeSource(pool, "b", 1, "other:80")
    scheduler.add(source, 0)
    await turns()
    scheduler.add(other, 1)
    assert scheduler.ask_ahead(source.given[0]) is None
    source.finish()
    await turns()
    assert pool.begun == ["a", "a", "b"]


async def test_a_connection_that_takes_no_more_is_given_none(pool: Pool, schedulers: Make) -> None:
    """Requests that could not be sent are given back at once."""
    transport = AheadTransport()
    scheduler = schedulers(1, transport=transport)
    source = FakeSource(pool, "a", 2)
    scheduler.add(source, 0)
    await turns()
    connection = transport.connections[0]
    assert isinstance(connection, AheadConnection)
    connection.takes_more = False
    assert scheduler.ask_ahead(source.given[0]) is None
    assert source.released == source.given[1:]


async def test_a_source_that_is_removed_is_not_begun_again(pool: Pool, schedulers: Make) -> None:
    """Work it was to do ahead is taken back, and what lies behind it on the connection is given back, too."""
    scheduler = schedulers(1, transport=AheadTransport())
    one, two = FakeSource(pool, "a", 1), FakeSource(pool, "b", 2)
    scheduler.add(one, 0)
    scheduler.add(two, 1)
    await turns()
    assert scheduler.ask_ahead(one.given[0]) is two.given[0]
    scheduler.remove(two)
    assert two.released == two.given
    one.finish()
    await turns()
    assert pool.begun == ["a"]


@pytest.mark.parametrize("kind", ["removed", "cancelled"])
@pytest.mark.shows("N24")
async def test_answers_that_nobody_will_ask_for_end_their_connection(pool: Pool, schedulers: Make, kind: str) -> None:
    """Otherwise the server would keep sending them, and count the connection as busy."""
    transport = AheadTransport()
    scheduler = schedulers(1, transport=transport)
    source = FakeSource(pool, "a", 3)
    scheduler.add(source, 0)
    await turns()
    first = source.given[0]
    ahead = [scheduler.ask_ahead(first) for _ in range(2)]
    connection = transport.connections[0]
    assert isinstance(connection, AheadConnection)
    assert len(connection.sent) == 2
    if kind == "removed":
        scheduler.take_back(source)
    else:
        # Its turn comes, and before it begins, another connection takes the work over.
        source.on_release = lambda attempt: attempt is first and asyncio.get_running_loop().call_soon(cancel)

        def cancel() -> None:
            assert ahead[0] is not None
            assert ahead[0].task is not None
            ahead[0].task.cancel()

    source.finish()
    await turns()
    assert (connection.dropped, connection.sent) == (1, [])
    assert set(source.released) >= {first, *ahead}


async def test_a_bug_where_work_is_taken_back_fails_its_source(pool: Pool, schedulers: Make) -> None:
    """A source that takes its work back is ending, and must get there."""
    scheduler = schedulers(1, transport=AheadTransport())
    source = FakeSource(pool, "a", 3)
    scheduler.add(source, 0)
    await turns()
    assert scheduler.ask_ahead(source.given[0]) is not None
    error = ZeroDivisionError()

    def fail(_: Attempt) -> None:
        raise error

    source.on_release = fail
    scheduler.take_back(source)
    assert source.failed is error
    source.on_release = lambda _: None


# -- opened before they are needed ------------------------------------------------------------------------------------


class OpenableConnection(ScriptedConnection):
    """One that is open to ``h:80`` as soon as the gate is."""

    def __init__(self, gate: asyncio.Event, error: Exception | None) -> None:
        super().__init__()
        self.opened: list[str] = []
        self._gate, self._error = gate, error

    async def open(self, url: str) -> None:
        self.opened.append(url)
        await self._gate.wait()
        if self._error is not None:
            raise self._error
        self.host = "h:80"


class OpenableTransport(ScriptedTransport):
    """Makes these."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self._error = error

    def connection(self) -> ScriptedConnection:
        self.connections.append(OpenableConnection(self.gate, self._error))
        return self.connections[-1]

    @property
    def opened(self) -> int:
        """How often one of them was opened."""
        return sum(len(each.opened) for each in self.connections if isinstance(each, OpenableConnection))


async def test_what_is_foreseen_is_opened_once(pool: Pool, schedulers: Make) -> None:
    """As many as there will be work for, over free places only; then the work goes over them."""
    transport = OpenableTransport()
    scheduler = schedulers(4, transport=transport)
    source = FakeSource(pool, "a", 1)
    source.foreseen = Foreseen("h:80", "http://h/a", 2)
    scheduler.add(source, 0)
    for _ in range(3):
        await turns()
        scheduler.kick()
    assert transport.opened == 2
    transport.gate.set()
    await turns()
    source.work, source.foreseen = 2, None
    scheduler.kick()
    await turns()
    assert [isinstance(each, OpenableConnection) and len(each.opened) for each in source.used[1:]] == [1, 1]
    assert transport.opened == 2


@pytest.mark.shows("A24")
async def test_work_does_not_wait_for_what_is_opened_for_others(pool: Pool, schedulers: Make) -> None:
    """All places that are only being opened go to work for another host at once."""
    scheduler = schedulers(4, transport=OpenableTransport())
    source, other = FakeSource(pool, "a", 1), FakeSource(pool, "b", 3, "two:80")
    source.foreseen = Foreseen("h:80", "http://h/a", 3)
    scheduler.add(source, 0)
    await turns()
    scheduler.add(other, 1)
    await turns()
    assert Counter(each.name for each in pool.at_work) == {"a": 1, "b": 3}
    assert len(set(map(id, [*source.used, *other.used]))) == 4


@pytest.mark.shows("A24")
@pytest.mark.parametrize("is_receiving", [False, True])
async def test_a_refusal_of_what_is_only_opened_is_no_failure(pool: Pool, schedulers: Make, is_receiving: bool) -> None:
    """It is not tried again; and where the host serves somebody, it is a lesson about how many it allows."""
    transport = OpenableTransport(ConnectFailed("http://h/a", "refused"))
    scheduler = schedulers(4, transport=transport)
    source = FakeSource(pool, "a", 1)
    source.foreseen = Foreseen("h:80", "http://h/a", 1)
    scheduler.add(source, 0)
    await turns()
    if is_receiving:
        scheduler.hosts.receives(source.given[0], 0.0)
    transport.gate.set()
    await turns()
    scheduler.kick()
    await turns()
    assert (transport.opened, source.failed) == (1, None)
    assert scheduler.hosts.allows("h:80") == (1 if is_receiving else None)
    assert scheduler.hosts.room("h:80", 0.0) == 0


async def test_closing_ends_what_is_being_opened(pool: Pool, schedulers: Make) -> None:
    """Nothing is left behind."""
    transport = OpenableTransport()
    scheduler = schedulers(2, transport=transport)
    source = FakeSource(pool, "a", 1)
    source.foreseen = Foreseen("h:80", "http://h/a", 1)
    scheduler.add(source, 0)
    await turns()
    before = asyncio.all_tasks()
    await scheduler.aclose()
    assert not [task for task in before if task.get_name().startswith("open ") and not task.done()]
    assert all(connection.closed for connection in transport.connections)


async def test_a_share_is_taken_while_it_works() -> None:
    """A smaller one takes effect as work ends: its connections are closed. A bigger one gives them back at once."""
    pool = Pool()
    transport = ScriptedTransport()
    scheduler = Scheduler(transport, connections=4)
    source = FakeSource(pool, "a", 100)
    scheduler.add(source, 0)
    await turns()
    assert len(pool.at_work) == 4
    scheduler.allow(1)
    await turns()
    assert (len(pool.at_work), scheduler.in_use) == (4, 4)
    source.finish()
    source.finish()
    await turns()
    assert (len(pool.at_work), scheduler.in_use) == (2, 2)
    source.finish()
    source.finish()
    await turns()
    assert (len(pool.at_work), scheduler.in_use) == (1, 1)
    scheduler.allow(0)
    source.finish()
    await turns()
    assert (len(pool.at_work), scheduler.in_use) == (0, 0)
    assert not scheduler.open_to()
    scheduler.allow(9)
    await turns()
    assert (len(pool.at_work), scheduler.in_use) == (4, 4)
    await scheduler.aclose()


@pytest.mark.shows("P18")
async def test_a_hosts_share_counts_idle_connections() -> None:
    """What is open to a host that others may use now is closed, and who wants more there is known."""
    pool = Pool()
    scheduler = Scheduler(ScriptedTransport(), connections=4)
    source = FakeSource(pool, "a", 3)
    scheduler.add(source, 0)
    await turns()
    for _ in range(3):
        source.finish()
    await turns()
    assert scheduler.open_to() == {source.host: 3}
    scheduler.hosts.share(4, {source.host: 1})
    scheduler.allow(4)
    await turns()
    assert scheduler.open_to() == {source.host: 1}
    assert scheduler.hosts.uses(0.0) == {}
    source.work = 2
    scheduler.look()
    use = scheduler.hosts.uses(0.0)[source.host]
    assert (use.at_work, use.waits) == (1, True)
    await scheduler.aclose()

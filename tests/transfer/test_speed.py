"""How the work is shared, in a simulated network: times are virtual seconds, so that they are exact.

Nobody waits: the loop jumps to the moment when the next thing happens, disks and hashes take no time, and each
connection gets its bytes at the rate that a test gives it. Real seconds are for `make bench`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from grym_fetch import SyncFailed
from grym_fetch.core.errors import ConnectionLost
from grym_fetch.core.segments import SegmentSizes
from grym_fetch.disk.stage import DiskStage
from grym_fetch.testing import seeded_bytes
from tests.support.fakes import VirtualLoop
from tests.support.invariants import Recorder
from tests.support.project import KIB, Project, asset_entry
from tests.support.small_world import OneConnection, SmallWorld
from tests.support.sweeps import typical

MIB = 1024 * KIB
SIZES = SegmentSizes(piece=128 * KIB, first=MIB, smallest=64 * KIB, largest=4 * MIB, window=4 * MIB)
SIZE = 24 * MIB
CONTENT = seeded_bytes(SIZE, seed=1)
ONE, TWO, THREE = (f"https://{name}.example.org/a.bin" for name in ("one", "two", "three"))
RATE = MIB / 2

Speed = Callable[[OneConnection, str], float]
"""Bytes per second of a connection to an address, now."""


class LoopClock:
    """The loop's time."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def wall(self) -> float:
        return 1_800_000_000.0 + self.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def jitter(self) -> float:
        return 0.5


class Network:
    """One asset at some addresses. ``given`` counts the bytes each one sent."""

    def __init__(
        self,
        tmp_path: Path,
        speed: Speed,
        *,
        contents: Mapping[str, bytes],
        delay: float = 0.0,
        takes_ahead: bool = False,
    ) -> None:
        self.given: Counter[str] = Counter()
        self.world = SmallWorld(
            contents, pace=self._pace, chunk=64 * KIB, clock=lambda _: LoopClock(), takes_ahead=takes_ahead
        )
        self.project = Project(tmp_path / f"p{len(list(tmp_path.iterdir()))}")
        if main := [url for url, content in contents.items() if len(content) == SIZE]:
            self.path = self.project.add("a", main, CONTENT)
        for n, (url, content) in enumerate(contents.items()):
            if url not in main:
                self.project.entries.append(asset_entry(f"small-{n}", [url], content))
        self.project.write()
        self._speed = speed
        self.delay: Callable[[], float] = lambda: delay

    async def _pace(self, connection: OneConnection, url: str, count: int) -> None:
        rate = self._speed(connection, url)
        if rate <= 0:
            raise ConnectionLost(url, "the connection broke off")
        since = asyncio.get_running_loop().time() - connection.sent_at
        await asyncio.sleep(count / rate if count else max(0.0, self.delay() - since))
        self.given[url] += count

    def sync(self, *, pinned: bool = True, **settings: Any) -> float:
        """Fetch it and return how many seconds that took."""
        if not pinned:
            del self.project.entries[0]["checksum"]
            self.project.write()

        async def run() -> float:
            async with self.world.manager(self.project, **{"sizes": SIZES, "parallel": 4, **settings}) as manager:
                self.heard = Recorder(manager)
                began = asyncio.get_running_loop().time()
                await manager.sync()
                return asyncio.get_running_loop().time() - began

        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            return runner.run(run())


def steady(rates: Mapping[str, float]) -> Speed:
    """Each address has a fixed rate per connection."""
    return lambda _, url: rates[url]


def breaks_after(speed: Speed, url: str, count: int, network: list[Network]) -> Speed:
    """The same, but one address breaks off after this many bytes."""
    return lambda connection, asked: (
        0.0 if asked == url and network[0].given[url] >= count else speed(connection, asked)
    )


# -- connections ------------------------------------------------------------------------------------------------------


def test_four_connections_are_four_times_as_fast(tmp_path: Path) -> None:
    """If each connection has its own limit, four give four times the speed."""
    one = Network(tmp_path, steady({ONE: RATE}), contents={ONE: CONTENT}).sync(parallel=1)
    four = Network(tmp_path, steady({ONE: RATE}), contents={ONE: CONTENT}).sync()
    assert one == pytest.approx(SIZE / RATE, rel=0.01)
    assert one / four >= 3.9


def test_round_trips_are_lost_in_the_transfer(tmp_path: Path) -> None:
    """80 ms before each answer cost a few percent, since a segment takes two seconds of the link."""
    near = Network(tmp_path, steady({ONE: RATE}), contents={ONE: CONTENT}).sync()
    far = Network(tmp_path, steady({ONE: RATE}), contents={ONE: CONTENT}, delay=0.08).sync()
    assert far / near <= 1.15


@pytest.mark.parametrize("when", [0.25, 0.5, 0.9], ids=["early", "half-way", "late"])
def test_a_straggler_does_not_set_the_time(tmp_path: Path, when: float) -> None:
    """One connection of four falls to 1/50 of its speed: others take over its work, at the end and before."""
    slow: list[tuple[OneConnection, int]] = []
    networks: list[Network] = []

    def speed(connection: OneConnection, _: str) -> float:
        if not slow and networks[0].given[ONE] >= when * SIZE:
            slow.append((connection, connection.sockets))
        return RATE / 50 if (connection, connection.sockets) in slow else RATE

    calm = Network(tmp_path, steady({ONE: RATE}), contents={ONE: CONTENT}).sync()
    networks.append(Network(tmp_path, speed, contents={ONE: CONTENT}))
    assert networks[0].sync() / calm <= 1.25
    assert networks[0].given[ONE] <= SIZE + MIB


def test_a_server_that_thinks_is_waited_for(tmp_path: Path) -> None:
    """Two seconds before each answer, after a fast start: work is not repeatedly taken from a waiting connection."""
    networks: list[Network] = []
    networks.append(Network(tmp_path, steady({ONE: RATE}), contents={ONE: CONTENT}))
    networks[0].delay = lambda: 2.0 if networks[0].given[ONE] > 4 * MIB else 0.01
    assert networks[0].sync() <= 24
    assert len(networks[0].world.requests) <= 40


def test_small_files_wait_for_no_round_trip(tmp_path: Path) -> None:
    """Over 40 ms, requests sent ahead take a small part of the time of requests that wait for each other."""
    contents = {f"https://one.example.org/{n}": seeded_bytes(16 * KIB, seed=n) for n in range(240)}

    def seconds(**more: bool) -> float:
        network = Network(tmp_path, lambda *_: 1e9, contents=contents, delay=0.04, takes_ahead=True)
        return network.sync(**more)

    assert seconds() <= 0.16 * seconds(pipelining=False)


@pytest.mark.posix
def test_segments_wait_for_no_round_trip(tmp_path: Path) -> None:
    """Over 80 ms and a fast link, the next segment is requested while the last one is still coming."""

    def seconds(**more: bool) -> float:
        network = Network(tmp_path, lambda *_: 25.0 * MIB, contents={ONE: CONTENT}, delay=0.08, takes_ahead=True)
        took = network.sync(parallel=1, **more)
        assert network.given[ONE] == SIZE
        return took

    assert seconds() <= SIZE / (25 * MIB) + 4 * 0.08
    assert seconds(pipelining=False) >= SIZE / (25 * MIB) + 6 * 0.08


@pytest.mark.shows("N24")
def test_what_was_asked_ahead_of_an_origin_that_was_left_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another asset's connection to the same host has it queued: nobody waits there for slow bytes."""
    monkeypatch.setattr("grym_fetch.core.speeds.Speeds.bytes_ahead", lambda *_: 1e9)
    other = "https://one.example.org/b.bin"
    content = CONTENT[: 2 * MIB]
    contents = {ONE: content, TWO: content, other: content[: 100 * KIB]}
    sizes = SegmentSizes(piece=64 * KIB, first=128 * KIB, smallest=64 * KIB, largest=256 * KIB, window=MIB)

    async def pace(_: OneConnection, url: str, count: int) -> None:
        await asyncio.sleep(count / {ONE: 500, TWO: MIB, other: 10 * KIB}[url])

    world = SmallWorld(contents, pace=pace, chunk=256, clock=lambda _: LoopClock(), takes_ahead=True)
    project = Project(tmp_path / "project")
    project.add("a", [ONE, TWO], content)
    project.add("b", [other], contents[other])

    async def run() -> float:
        async with world.manager(project, sizes=sizes, parallel=2, stall_timeout=2.0) as manager:
            began = asyncio.get_running_loop().time()
            await manager.sync()
            return asyncio.get_running_loop().time() - began

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        took = runner.run(run())
    asked = [int(field.removeprefix("bytes=").partition("-")[0]) for url, field in world.requests if url == TWO]
    assert asked == sorted(asked)
    assert took <= 60


@pytest.mark.sweep
def test_medium_files_wait_for_no_round_trip(tmp_path: Path) -> None:
    """Many assets of one segment each: the next one is requested over the connection that is still busy."""
    contents = {f"https://one.example.org/{n}": seeded_bytes(300 * KIB, seed=n) for n in range(64)}

    def seconds(**more: bool) -> float:
        return Network(tmp_path, lambda *_: 1e8, contents=contents, delay=0.04, takes_ahead=True).sync(**more)

    assert seconds() <= 0.5 * seconds(pipelining=False)


@pytest.mark.parametrize("takes_ahead", typical([True, False], True))
def test_many_small_files_on_a_slow_link(tmp_path: Path, takes_ahead: bool) -> None:
    """They are put in place every second, not at the end, and a large file gets its share of connections meanwhile."""
    contents = {f"https://one.example.org/{n}": seeded_bytes(20 * KIB, seed=n) for n in range(200)}
    network = Network(
        tmp_path,
        lambda _, url: 40.0 * KIB if url in contents else RATE,
        contents={ONE: CONTENT, **contents},
        takes_ahead=takes_ahead,
    )
    network.sync()
    began, *events = network.heard.events
    ends = [event.time for event in events if event.type == "asset_verified"]
    assert len(ends) == 201
    assert max(after - before for before, after in pairwise([began.time, *ends])) <= 2.0
    first = next(event for event in events if event.type == "progress" and event.asset == "a")
    assert first.time - began.time <= 1.5


# -- mirrors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("every", "patience", "arrives"), [(3 * MIB, 0.0, True), (MIB, 0.0, False), (MIB, 120.0, True)]
)
@pytest.mark.shows("A19")
def test_only_real_progress_renews_the_budget(tmp_path: Path, every: int, patience: float, arrives: bool) -> None:
    """A server that keeps breaking off is asked again as long as it brings enough bytes, each time or over time."""
    breaks = iter(range(every, SIZE, every))
    due = next(breaks)

    def speed(*_: object) -> float:
        nonlocal due
        if network.given[ONE] < due:
            return RATE
        due = next(breaks, SIZE)
        return 0.0

    network = Network(tmp_path, speed, contents={ONE: CONTENT})
    if not arrives:
        with pytest.raises(SyncFailed):
            network.sync(retries=1, parallel=1, patience=patience)
        return
    network.sync(retries=1, parallel=1, patience=patience)
    assert network.path.read_bytes() == CONTENT
    assert len(network.heard.of("retry_scheduled")) >= SIZE // every - 2


def test_mirrors_one_after_the_other(tmp_path: Path) -> None:
    """By default one address is used as long as it works."""
    network = Network(tmp_path, steady({ONE: RATE, TWO: 9 * RATE}), contents={ONE: CONTENT, TWO: CONTENT})
    network.sync()
    assert network.given == {ONE: SIZE}


def test_mirrors_together_add_up(tmp_path: Path) -> None:
    """Two addresses with one connection each give the speed of both."""
    both = {ONE: CONTENT, TWO: CONTENT}
    alone = Network(tmp_path, steady({ONE: RATE, TWO: RATE}), contents=both).sync(parallel=2, max_per_host=1)
    network = Network(tmp_path, steady({ONE: RATE, TWO: RATE}), contents=both)
    together = network.sync(parallel=2, max_per_host=1, mirrors="together")
    assert alone / together >= 1.9
    assert network.given[ONE] == pytest.approx(SIZE / 2, rel=0.1)


def test_connections_go_where_they_are_fast(tmp_path: Path) -> None:
    """With three addresses and four connections, each gets its share by speed, and the hopeless one none."""
    rates = {ONE: RATE, TWO: 3 * RATE, THREE: RATE / 50}
    network = Network(tmp_path, steady(rates), contents=dict.fromkeys(rates, CONTENT))
    seconds = network.sync(mirrors="together")
    assert network.given[TWO] > 4 * network.given[ONE]
    assert network.given[THREE] <= MIB
    assert seconds <= 1.75 * SIZE / (4 * 3 * RATE)  # including the time in which all were measured


@pytest.mark.shows("N13")
@pytest.mark.parametrize("slow", [1, 2])
def test_where_every_connection_crawls_another_mirror_is_asked(tmp_path: Path, slow: int) -> None:
    """Asked together, as many mirrors as there are connections send a few bytes now and then: they are left."""
    urls = (ONE, TWO, THREE)[: slow + 1]
    network = Network(
        tmp_path, lambda _, url: RATE if url == urls[-1] else 400.0, contents=dict.fromkeys(urls, CONTENT)
    )
    network.world.chunk = 2000
    assert network.sync(parallel=slow, mirrors="together", stall_timeout=10.0) <= 40 + SIZE / RATE
    assert sum(network.given[url] for url in urls[:-1]) < 64 * KIB


def test_a_mirror_that_fails_is_made_up_for(tmp_path: Path) -> None:
    """One of two breaks off for good: its bytes stay, the other one gives the rest, and this is reported."""
    networks: list[Network] = []
    speed = breaks_after(steady({ONE: RATE, TWO: RATE}), ONE, 4 * MIB, networks)
    networks.append(Network(tmp_path, speed, contents={ONE: CONTENT, TWO: CONTENT}))
    networks[0].sync(mirrors="together")
    assert networks[0].path.read_bytes() == CONTENT
    assert 4 * MIB <= networks[0].given[ONE] <= 5 * MIB
    assert networks[0].given.total() <= SIZE + MIB
    [switch] = networks[0].heard.of("mirror_switched")
    assert (switch["from"], switch["to"]) == (ONE, TWO)


def test_a_mirror_that_lies_is_found_out(tmp_path: Path) -> None:
    """Pieces of a good and a bad address were joined: one of them is trusted with the whole, until it is right."""
    bad = CONTENT[: 5 * MIB] + b"another content" + CONTENT[5 * MIB + 15 :]
    for contents in ({ONE: bad, TWO: CONTENT}, {ONE: CONTENT, TWO: bad}):
        network = Network(tmp_path, steady({ONE: RATE, TWO: RATE}), contents=contents)
        network.sync(mirrors="together")
        assert network.path.read_bytes() == CONTENT
        assert network.given.total() <= 3 * SIZE


def test_when_all_mirrors_fail_it_ends(tmp_path: Path) -> None:
    """Each has its own budget, and the error names each of them."""
    network = Network(tmp_path, steady({ONE: 0.0, TWO: 0.0}), contents={ONE: CONTENT, TWO: CONTENT})
    with pytest.raises(SyncFailed, match=r"(?s)one\.example\.org.*two\.example\.org"):
        network.sync(mirrors="together")


def test_without_a_checksum_mirrors_are_not_mixed(tmp_path: Path) -> None:
    """Nothing shows that two addresses have the same content: only one is used."""
    network = Network(tmp_path, steady({ONE: RATE, TWO: RATE}), contents={ONE: CONTENT, TWO: CONTENT})
    network.sync(pinned=False, mirrors="together", allow_unpinned=True)
    assert network.given == {ONE: SIZE}


# -- resuming ---------------------------------------------------------------------------------------------------------


def test_new_bytes_come_while_old_ones_are_proved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data left by an earlier run is read back during the download of the rest, however much there is."""
    monkeypatch.setattr("grym_fetch.transfer.hashing.STRIDE_BYTES", SIZES.piece)
    networks: list[Network] = []
    most = 18 * MIB
    networks.append(Network(tmp_path, breaks_after(steady({ONE: RATE}), ONE, most, networks), contents={ONE: CONTENT}))
    network = networks[0]
    with pytest.raises(SyncFailed):
        network.sync()
    network.given.clear()
    network.world.requests.clear()
    asked: list[int] = []
    prove = DiskStage._prove

    def prove_and_look(self: DiskStage, *arguments: Any) -> int:
        asked.append(len(network.world.requests))
        return prove(self, *arguments)

    monkeypatch.setattr(DiskStage, "_prove", prove_and_look)
    network.sync()
    assert network.path.read_bytes() == CONTENT
    assert len(asked) > 100
    assert asked[10] > 0

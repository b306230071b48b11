"""How long to wait: for a server that is away, as long as the user is patient; for one that asks, as it says."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from grym_fetch import SyncFailed
from grym_fetch.core.errors import BadStatus, ConnectFailed, ConnectionLost, GrymFetchError, Throttled, TransferError
from grym_fetch.testing import AssetServer, seeded_bytes
from grym_fetch.testing.faults import Fault, HtmlPage, RawAnswer, RedirectLoop, Status
from tests.support.fakes import VirtualClock
from tests.support.invariants import Recorder, checked_sync
from tests.support.project import KIB, ImpatientClock, Project
from tests.support.small_world import OneConnection, SmallWorld

CONTENT = seeded_bytes(600 * KIB, seed=41)
HALF = len(CONTENT) // 2
ONE, TWO = "https://one.example/a.bin", "https://two.example/a.bin"


class Outage:
    """A world in which some addresses stop listening for a while, once half of the content has come."""

    def __init__(self, tmp_path: Path, seconds: float, *away: str) -> None:
        self.project = Project(tmp_path / "project")
        self.clock = VirtualClock()
        self.world = SmallWorld({ONE: CONTENT, TWO: CONTENT}, pace=self.pace, clock=lambda _: self.clock)
        self.ends: float | None = None
        self._seconds = seconds
        self._away = away
        self.heard = Recorder()

    async def pace(self, _: OneConnection, url: str, count: int) -> None:
        """Refuse the connection during the outage."""
        if self.world.sent < HALF or url not in self._away:
            return
        if self.ends is None:
            self.ends = self.clock.now + self._seconds
        if count == 0 and self.clock.now < self.ends:
            raise ConnectFailed(url, "cannot connect: connection refused")

    async def sync(self, *urls: str, **settings: Any) -> GrymFetchError | None:
        """Run one sync and return the error it fails with."""
        path = self.project.add("a", urls, CONTENT)
        async with self.world.manager(self.project, **settings) as manager:
            self.heard = Recorder(manager)
            try:
                await manager.sync()
            except SyncFailed as failed:
                assert not path.exists()
                return failed.failures["a"]
        self.heard.check()
        assert path.read_bytes() == CONTENT
        return None


@pytest.mark.parametrize("seconds", [10.0, 30.0, 110.0])
@pytest.mark.shows("N22")
async def test_a_listener_that_goes_away_is_waited_for(tmp_path: Path, seconds: float) -> None:
    """A router restarts, or a container is moved: no byte is lost, and what is reported of the wait is true."""
    outage = Outage(tmp_path, seconds, ONE)
    assert await outage.sync(ONE) is None
    waits = outage.heard.of("retry_scheduled")
    assert "server away, trying again for another 120 s" in str(waits[0]["reason"])
    assert 2 < len(waits) < 40
    assert all(isinstance(wait["delay"], float) and wait["delay"] <= 10.0 for wait in waits)


async def test_patience_ends(tmp_path: Path) -> None:
    """Waiting ends when the user said, not before and not much later."""
    outage = Outage(tmp_path, 1e9, ONE)
    assert await outage.sync(ONE, patience=60.0) is not None
    assert outage.ends is not None
    assert 60.0 <= outage.clock.now - (outage.ends - 1e9) <= 62.0


@pytest.mark.parametrize("settings", [{"patience": 0.0}, {"retries": 0}], ids=str)
async def test_who_wants_no_patience_has_none(tmp_path: Path, settings: dict[str, float]) -> None:
    """Without patience there are only the retries, and without retries a single attempt."""
    outage = Outage(tmp_path, 30.0, ONE)
    assert await outage.sync(ONE, **settings) is not None
    assert outage.clock.now < 1000.0 + 5.0


class Gone:
    """A server that cannot be connected to from when it has served one asset, for some seconds; others are listed.

    For ``returns`` more seconds, it fails with ``then``.
    """

    def __init__(
        self, tmp_path: Path, seconds: float, count: int, *, then: TransferError | None = None, returns: float = 0.0
    ) -> None:
        self.project = Project(tmp_path / "project")
        self.clock = VirtualClock()
        self._then, self._returns = then, returns
        urls = {f"a{number}": f"https://one.example/{number}" for number in range(count)}
        self.world = SmallWorld(dict.fromkeys(urls.values(), CONTENT), pace=self.pace, clock=lambda _: self.clock)
        for name, url in urls.items():
            self.project.add(name, [url], CONTENT)
        self.ends: float | None = None
        self._seconds = seconds

    async def pace(self, _: OneConnection, url: str, count: int) -> None:
        """Refuse the connection during the outage."""
        if self.world.sent >= len(CONTENT) and count == 0:
            if self.ends is None:
                self.ends = self.clock.now + self._seconds
            if self.clock.now < self.ends:
                raise ConnectFailed(url, "cannot connect: connection refused")
            if self._then is not None and self.clock.now < self.ends + self._returns:
                raise self._then

    async def sync(self, **settings: Any) -> set[str]:
        """Run one sync over one connection; return what has failed."""
        async with self.world.manager(self.project, parallel=1, pipelining=False, **settings) as manager:
            try:
                await manager.sync()
            except SyncFailed as failed:
                return set(failed.failures)
        return set()


@pytest.mark.shows("N22")
async def test_a_server_that_has_served_another_asset_is_waited_for(tmp_path: Path) -> None:
    """It goes away between two files."""
    assert await Gone(tmp_path, 100.0, count=3).sync() == set()


@pytest.mark.parametrize(
    "answer",
    [BadStatus(ONE, 502, "bad gateway"), BadStatus(ONE, 404, "not found"), ConnectionLost(ONE, "broke off")],
    ids=str,
)
@pytest.mark.shows("N22")
async def test_a_server_that_was_away_may_take_a_while_to_be_well(tmp_path: Path, answer: TransferError) -> None:
    """A gateway is back before what is behind it: no asset is given up, though it has none of its bytes."""
    assert await Gone(tmp_path, 50.0, count=3, then=answer, returns=30.0).sync(retries=2) == set()


async def test_all_assets_wait_for_a_server_together(tmp_path: Path) -> None:
    """A thousand files would otherwise wait for two minutes each."""
    gone = Gone(tmp_path, 1e9, count=20)
    assert len(await gone.sync(patience=60.0, retries=1)) == 19
    assert gone.ends is not None
    assert 60.0 <= gone.clock.now - (gone.ends - 1e9) <= 120.0


@pytest.mark.shows("N22")
async def test_all_mirrors_away_at_once(tmp_path: Path) -> None:
    """The network is gone: the mirror that has served bytes is waited for after the others are given up."""
    outage = Outage(tmp_path, 60.0, ONE, TWO)
    assert await outage.sync(ONE, TWO) is None


async def test_a_mirror_is_better_than_waiting(tmp_path: Path) -> None:
    """Nobody waits for an address while another one serves the same content."""
    outage = Outage(tmp_path, 60.0, ONE)
    assert await outage.sync(ONE, TWO) is None
    assert outage.clock.now < 1000.0 + 1.0


@pytest.mark.parametrize("status", [404, 403, 410, 400])
@pytest.mark.shows("A26", "S12")
async def test_one_that_has_served_is_asked_again_when_its_mirrors_are_given_up(tmp_path: Path, status: int) -> None:
    """A bad answer sends us to a mirror. If that has nothing, the first one is waited for as if it were alone."""
    async with AssetServer() as server, AssetServer() as mirror:
        project = Project(tmp_path / "project")
        file = server.add("/a.bin", CONTENT, faults=[Status(status, covering=HALF, times=7)])
        bad = mirror.add("/a.bin", CONTENT, faults=[Status(404)])
        project.add("a", [file.url, bad.url], CONTENT)
        run = await checked_sync(project, server)
        assert not run.failures
        assert len(server.stats.requests) < 40
        assert len(mirror.stats.requests) <= 2


@pytest.mark.shows("A26")
async def test_patience_begins_when_no_mirror_is_left(tmp_path: Path) -> None:
    """Half of the file came from the first one. Long after it failed, the mirror is given up: only then we wait."""
    outage = Outage(tmp_path, 1000.0, ONE)

    async def pace(connection: OneConnection, url: str, count: int) -> None:
        await outage.pace(connection, url, count)
        if url == TWO and outage.ends is not None:
            outage.clock.now = max(outage.clock.now, outage.ends - 60.0)
            raise BadStatus(url, 404, "status 404: not found")

    outage.world.pace = pace
    assert await outage.sync(ONE, TWO) is None


NOTE = b"Down for maintenance, back in a minute.\n"
PASSING = {
    "404": Status(404, covering=HALF, times=7),
    "403": Status(403, covering=HALF, times=7),
    "410": Status(410, covering=HALF, times=7),
    "400": Status(400, covering=HALF, times=7),
    "a page": HtmlPage(covering=HALF, times=7),
    "a note": Status(200, body=NOTE, covering=HALF, times=7),
    "a note of another version": Status(200, body=NOTE, headers={"ETag": '"note"'}, covering=HALF, times=7),
    "a long page": HtmlPage(page=b"<html>" + bytes(300 * KIB), covering=HALF, times=7),
    "405": Status(405, covering=HALF, times=7),
    "451": Status(451, covering=HALF, times=7),
    "501": Status(501, covering=HALF, times=7),
    "204": Status(204, covering=HALF, times=7),
    "202": Status(202, covering=HALF, times=7),
    "a loop": RedirectLoop(covering=HALF, times=7),
    "no HTTP": RawAnswer(b"too many clients\r\n\r\n", covering=HALF, times=7),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
@pytest.mark.shows("A26")
async def test_bad_answers_in_a_good_run_pass(tmp_path: Path, fault: Fault) -> None:
    """An origin that has served ranges has earned a few delayed tries; nothing that arrived is given up."""
    async with AssetServer() as server:
        project = Project(tmp_path / "project")
        project.add("a", [server.add("/a.bin", CONTENT, faults=[fault]).url], CONTENT)
        run = await checked_sync(project, server)
        assert not run.failures
        assert run.heard.of("asset_restarted") == []
        assert 7 < len(server.stats.requests) < 40


RANGES_PASSING = {
    "no range": Status(416, covering=HALF, times=7),
    "no range of a note": Status(416, headers={"Content-Range": "bytes */40"}, covering=HALF, times=7),
    "another range": Status(206, body=NOTE, headers={"Content-Range": "bytes 0-39/40"}, covering=HALF, times=7),
}


@pytest.mark.parametrize("fault", RANGES_PASSING.values(), ids=RANGES_PASSING)
@pytest.mark.shows("A26")
async def test_ranges_that_are_refused_for_a_while_are_no_end(tmp_path: Path, fault: Fault) -> None:
    """Whether ranges or the whole file are served next, the asset arrives."""
    async with AssetServer() as server:
        project = Project(tmp_path / "project")
        project.add("a", [server.add("/a.bin", CONTENT, faults=[fault]).url], CONTENT)
        # If the whole is asked for, what was there already comes along.
        run = await checked_sync(project, server, may_lose=len(CONTENT) // 2)
        assert not run.failures
        assert server.stats.body_bytes_sent < 2 * len(CONTENT)


@pytest.mark.parametrize("status", [404, 403, 410, 400])
@pytest.mark.shows("A26")
async def test_a_server_that_never_served_has_earned_nothing(tmp_path: Path, status: int) -> None:
    """It is asked no more often than before: once, and once without a range if that may be the reason."""
    async with AssetServer() as server:
        project = Project(tmp_path / "project")
        project.add("a", [server.add("/a.bin", CONTENT, faults=[Status(status)]).url], CONTENT)
        run = await checked_sync(project, server, parallel=1)
        assert run.failures
        assert len(server.stats.requests) <= 2


class WatchingClock(ImpatientClock):
    """Records at each sleep how many requests the server has received."""

    def __init__(self, server: AssetServer) -> None:
        super().__init__()
        self.seen: list[tuple[float, int]] = []
        self._server = server

    async def sleep(self, seconds: float) -> None:
        """Record it, and skip the time."""
        self.seen.append((seconds, len(self._server.stats.requests)))
        await super().sleep(seconds)


@pytest.mark.parametrize("status", [429, 503, 403, 202])
@pytest.mark.shows("A25")
async def test_who_is_told_to_wait_waits_for_all_assets(tmp_path: Path, status: int) -> None:
    """When one asset is told to wait, the others do not ask either, and all arrive when the time is over."""
    async with AssetServer() as server:
        project = Project(tmp_path / "project")
        faults = [Status(status, headers={"Retry-After": "30"}, times=1)]
        for name in "abc":
            project.add(name, [server.add(f"/{name}", CONTENT, faults=faults if name == "a" else []).url], CONTENT)
        clock = WatchingClock(server)
        # Requests sent ahead of their turn went out before anybody was told.
        async with project.manager(clock, parallel=1, pipelining=False) as manager:
            await manager.sync()
        count = next(count for seconds, count in clock.seen if seconds > 25.0)
        assert server.stats.requests[count - 1].path == "/a"
        assert {path.read_bytes() for path in project.finals().values()} == {CONTENT}


@pytest.mark.shows("A25", "U10")
async def test_who_waits_because_of_others_says_for_whom(tmp_path: Path) -> None:
    """The asset that was told reports a retry; the others name the host, once, and report no failure of their own."""
    urls = {name: f"https://one.example/{name}" for name in "abc"}
    clock, told = VirtualClock(), list[str]()
    project = Project(tmp_path / "project")

    async def pace(_: OneConnection, url: str, count: int) -> None:
        if url == urls["a"] and count == 0 and not told and world.sent:
            told.append(url)
            raise Throttled(url, 429, "status 429", 30.0)

    world = SmallWorld(dict.fromkeys(urls.values(), CONTENT), pace=pace, clock=lambda _: clock)
    for name in "abc":
        project.add(name, [urls[name]], CONTENT)
    async with world.manager(project, parallel=1) as manager:
        heard = Recorder(manager)
        await manager.sync()
    heard.check()
    assert told
    assert [event["asset"] for event in heard.of("retry_scheduled")] == ["a"]
    waiting = [(event["asset"], event["holder"]) for event in heard.of("asset_waiting")]
    assert len(waiting) == len(set(waiting)) > 0
    assert set(waiting) <= {(name, "one.example:443, which asks for a pause") for name in "bc"}


@pytest.mark.shows("A1")
async def test_a_mirror_is_asked_while_a_host_is_left_alone(tmp_path: Path) -> None:
    """This includes assets that were not told themselves: none of them asks that host before its time."""
    async with AssetServer() as busy, AssetServer() as mirror:
        project = Project(tmp_path / "project")
        faults = [Status(429, headers={"Retry-After": "100"})]
        for name in "abc":
            urls = [busy.add(f"/{name}", CONTENT, faults=faults).url, mirror.add(f"/{name}", CONTENT).url]
            project.add(name, urls, CONTENT)
        async with project.manager(parallel=1) as manager:
            await manager.sync()
        assert len(busy.stats.requests) == 1


@pytest.mark.parametrize("status", [400, 402, 404, 410, 421, 500])
@pytest.mark.shows("A24")
async def test_a_server_that_still_counts_what_has_just_ended(tmp_path: Path, status: int) -> None:
    """It allows one request at a time and notices late that one is over: its refusal says nothing about the file."""
    clock, project, refused = VirtualClock(), Project(tmp_path / "project"), []
    over_at = float("-inf")

    async def pace(_: OneConnection, url: str, count: int) -> None:
        nonlocal over_at
        if count > 0:
            over_at = clock.now
        elif clock.now < over_at + 0.3:
            refused.append(url)
            raise BadStatus(url, status, f"status {status}")

    world = SmallWorld({ONE: CONTENT}, pace=pace, clock=lambda _: clock)
    path = project.add("a", [ONE], CONTENT)
    async with world.manager(project, retries=0, parallel=1) as manager:
        await manager.sync()
    assert path.read_bytes() == CONTENT
    assert refused


class Busy:
    """A server that serves one request at a time, and answers any other as if nothing were there."""

    def __init__(self, content: bytes, *, answer: bytes, ranges: bool) -> None:
        self.answer, self.ranges = answer, ranges
        self.refusals = 0
        self.has_refused = asyncio.Event()
        self._content = content
        self._is_busy = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request, and close."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        if self._is_busy:
            self.refusals += 1
            self.has_refused.set()
            writer.write(self.answer)
            writer.close()
            return
        self._is_busy = True
        start, stop = 0, len(self._content)
        status = f"200 OK\r\nContent-Length: {stop}"
        if self.ranges and (match := re.search(r"range: bytes=(\d+)-(\d+)", head, re.IGNORECASE)):
            start, stop = int(match[1]), int(match[2]) + 1
            place = f"Content-Range: bytes {start}-{stop - 1}/{len(self._content)}"
            status = f"206 Partial Content\r\nContent-Length: {stop - start}\r\n{place}"
        writer.write(f"HTTP/1.1 {status}\r\nConnection: close\r\n\r\n".encode() + self._content[start : stop - 1])
        await writer.drain()
        await self.has_refused.wait()
        self._is_busy = False
        writer.write(self._content[stop - 1 : stop])
        writer.close()


ANSWERS = {
    "404": b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
    "410": b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n",
    "401": b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
    "204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "a note": b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>",
    "a loop": b"HTTP/1.1 302 Found\r\nLocation: ?\r\nContent-Length: 0\r\n\r\n",
    "no HTTP": b"-ERR max clients reached\r\n\r\n",
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "one stream"])
@pytest.mark.shows("A24")
async def test_a_host_that_says_anything_to_one_too_many_is_asked_once_more_alone(
    tmp_path: Path, answer: bytes, ranges: bool
) -> None:
    """While it serves another asset, its refusal is not final; both arrive."""
    busy = Busy(CONTENT, answer=answer, ranges=ranges)
    project = Project(tmp_path / "project")
    async with await asyncio.start_server(busy.serve, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        for name in "ab":
            project.add(name, [f"http://127.0.0.1:{port}/{name}"], CONTENT)
        async with project.manager(ImpatientClock(), parallel=2, pipelining=False) as manager:
            await manager.sync()
    assert busy.refusals
    assert {path.read_bytes() for path in project.finals().values()} == {CONTENT}

"""Several first requests at once: the bytes come a round trip earlier, and nothing else is lost by it.

The network is simulated: times are virtual, so that a round trip can be counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from grym_fetch import SyncFailed
from grym_fetch.core.addresses import host_of
from grym_fetch.core.errors import BadStatus, ConnectionLost
from grym_fetch.core.http import ResponseHead
from grym_fetch.core.segments import SegmentSizes
from grym_fetch.core.world import Response
from grym_fetch.testing import seeded_bytes
from tests.support.fakes import VirtualLoop
from tests.support.invariants import Recorder
from tests.support.project import KIB, Project
from tests.support.small_world import OneBody, OneConnection, SmallWorld
from tests.transfer.test_speed import LoopClock

pytestmark = pytest.mark.usefixtures("hosts_may_be_far")

ROUND_TRIP = 0.1
SIZES = SegmentSizes(piece=64 * KIB, first=64 * KIB, smallest=16 * KIB, largest=64 * KIB, window=256 * KIB)
CONTENT = seeded_bytes(1024 * KIB, seed=72)
URL, MIRROR, TARGET = (f"https://{name}.example.org/a.bin" for name in ("here", "mirror", "target"))
RANGES_200 = {"content-length": [str(len(CONTENT))]}

Answer = Callable[["FarConnection", str], ResponseHead | Exception | None]
"""What a server answers to a request instead of the range; None: the range."""


class FarConnection(OneConnection):
    """One whose socket takes a round trip to open."""

    world: FarWorld

    async def open(self, url: str) -> None:
        """Implements `grym_fetch.transfer.openings.Openable`."""
        if self.host != host_of(url):
            await asyncio.sleep(self.world.round_trip)
            self.host = host_of(url)

    async def get(self, url: str, fields: Mapping[str, str]) -> Response:
        """Answer a round trip later."""
        await self.open(url)
        self.world.at_work.append(self)
        answer = self.world.answer(self, url)
        if answer is None:
            return await super().get(url, fields)
        self.world.requests.append((url, fields.get("Range", "")))
        await asyncio.sleep(ROUND_TRIP)
        if isinstance(answer, Exception):
            self.host = ""
            raise answer
        return OneBody(self, url, answer, CONTENT if answer.status == 200 else b"")


class FarWorld(SmallWorld):
    """Servers some way away: opening a socket takes ``round_trip`` seconds, an answer always `ROUND_TRIP`.

    ``began`` says when each range's head came, ``starts`` when each asset was asked for.
    """

    def __init__(self, answer: Answer = lambda *_: None, *, round_trip: float = ROUND_TRIP) -> None:
        contents = dict.fromkeys((URL, MIRROR, TARGET), CONTENT)
        super().__init__(contents, pace=self._pace, chunk=16 * KIB, clock=lambda _: LoopClock())
        self.answer = answer
        self.round_trip = round_trip
        self.at_work: list[OneConnection] = []
        self.starts: list[float] = []
        self.began: list[float] = []
        self.heard: Recorder

    def connection(self) -> OneConnection:
        """Return a place for a connection."""
        made = FarConnection(self)
        self.open.add(made)
        return made

    async def _pace(self, connection: OneConnection, _: str, count: int) -> None:
        await asyncio.sleep(count / 1e6 if count else ROUND_TRIP)
        if not count:
            self.began.append(asyncio.get_running_loop().time())

    def together(self, *, round_trips: int, asset: int = 0) -> int:
        """How many first bytes came just so long after an asset was asked for."""
        return sum(abs(at - self.starts[asset] - round_trips * ROUND_TRIP) < ROUND_TRIP / 10 for at in self.began)

    def fetch(self, tmp_path: Path, *urls: str, assets: int = 1, **settings: Any) -> Project:
        """Fetch the assets, one after the other. ``last``: what is different about the last one's entry."""
        project = Project(tmp_path)
        last = settings.pop("last", {})
        for number in range(assets):
            project.add(f"a{number}", urls or [URL], CONTENT, **(last if number == assets - 1 else {}))

        async def run() -> None:
            async with self.manager(project, sizes=SIZES, **{"parallel": 4, "retries": 0, **settings}) as manager:
                self.heard = Recorder(manager)
                for number in range(assets):
                    self.starts.append(asyncio.get_running_loop().time())
                    await manager.sync([f"a{number}"])

        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(run())
        assert all(path.read_bytes() == CONTENT for path in project.finals().values())
        return project


def test_all_first_bytes_come_together(tmp_path: Path) -> None:
    """Two round trips after the start, one of them for the connection; otherwise three of four come after another."""
    world = FarWorld()
    world.fetch(tmp_path)
    assert world.together(round_trips=2) == 4
    assert len(world.requests) == len(set(world.requests))


@pytest.mark.shows("A24")
@pytest.mark.parametrize(
    ("last", "settings", "together"),
    [
        ({"pinned": False}, {"allow_unpinned": True}, 1),
        ({"size": None}, {}, 1),
        ({}, {"max_per_host": 2}, 2),
    ],
    ids=["no checksum", "no size", "two per host"],
)
def test_only_where_the_manifest_decides_and_the_host_allows(
    tmp_path: Path, last: dict[str, Any], settings: dict[str, Any], together: int
) -> None:
    """Without a checksum and a size, the first answer is needed to know what to ask for next, whatever is open."""
    world = FarWorld()
    world.fetch(tmp_path, assets=2, last=last, **settings)
    assert world.together(asset=1, round_trips=1) == together


def test_a_near_host_shows_first_what_it_has(tmp_path: Path) -> None:
    """A saved round trip would be worth less than the requests in vain, if it has no ranges or not the file."""
    world = FarWorld(lambda _, url: ResponseHead(410, {}) if url == URL else None, round_trip=0.01)
    world.fetch(tmp_path, URL, MIRROR)
    assert [url for url, _ in world.requests].count(URL) == 1


@pytest.mark.shows("A24")
def test_a_server_without_ranges_costs_one_closed_connection_each(tmp_path: Path) -> None:
    """One of the answers is taken as it is; nothing is asked again, and the others bring next to nothing."""
    world = FarWorld(lambda *_: ResponseHead(200, RANGES_200))
    world.fetch(tmp_path)
    assert len(world.requests) == 4
    assert world.sent <= len(CONTENT) + 3 * world.chunk


@pytest.mark.shows("A24")
@pytest.mark.parametrize("error", [BadStatus(URL, 503, "busy"), ConnectionLost(URL, "closed")], ids=["503", "closed"])
@pytest.mark.parametrize("served", [0, 3], ids=["the first is served", "the last is served"])
def test_a_server_that_serves_one_at_a_time_has_not_failed(tmp_path: Path, error: Exception, served: int) -> None:
    """It refuses the others before the one that it serves is answered: no failure, and all the rest comes in turn."""
    world = FarWorld(lambda *_: None if len(world.at_work) - 1 == served or len(world.at_work) > 4 else error)
    world.fetch(tmp_path)
    assert not world.heard.of("retry_scheduled")


@pytest.mark.shows("A24")
def test_a_failure_of_all_is_one(tmp_path: Path) -> None:
    """Each is asked once; the last answer counts, and the mirror is turned to once."""
    world = FarWorld(lambda _, url: ResponseHead(410, {}) if url == URL else None)
    world.fetch(tmp_path / "two", URL, MIRROR)
    assert [url for url, _ in world.requests].count(URL) == 4
    assert len(world.heard.of("mirror_switched")) == 1
    alone = FarWorld(lambda *_: ResponseHead(410, {}))
    with pytest.raises(SyncFailed):
        alone.fetch(tmp_path / "alone")
    assert len(alone.requests) == 4


@pytest.mark.parametrize(("refuses", "together"), [(True, 1), (False, 4)])
def test_a_host_that_refused_several_is_asked_by_one_first(tmp_path: Path, refuses: bool, together: int) -> None:
    """Also for the next asset, over the connections that are open by then."""
    world = FarWorld(lambda *_: ConnectionLost(URL, "closed") if refuses and 1 < len(world.at_work) <= 4 else None)
    world.fetch(tmp_path, assets=2)
    assert world.together(asset=1, round_trips=1) == together


def test_a_host_that_redirects_is_asked_by_one_from_then_on(tmp_path: Path) -> None:
    """Each would walk the redirects for itself. At first they do, and need no address that was signed for another."""
    world = FarWorld(lambda _, url: ResponseHead(302, {"location": [TARGET]}) if url == URL else None)
    world.fetch(tmp_path, assets=3)
    assert [url for url, _ in world.requests].count(URL) == 4 + 2

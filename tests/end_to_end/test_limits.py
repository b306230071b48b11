"""A real nginx that limits simultaneous requests and requests per second: everything arrives, and soon.

Most of this is waiting, so cases that differ in one number run side by side, each with an nginx of its own.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from grym_fetch import AssetManager, Settings
from grym_fetch.settings import SegmentSizes
from grym_fetch.testing import seeded_bytes
from tests.support.invariants import Recorder
from tests.support.nginx import Location, Nginx, Sent
from tests.support.project import Project
from tests.support.sweeps import typical

MIB = 1024 * 1024
MOST_REFUSALS = 20
SECONDS_LONG = SegmentSizes(
    piece=MIB // 16, first=MIB * 3 // 4, smallest=MIB * 3 // 4, largest=MIB * 3 // 4, window=4 * MIB, unsized=4 * MIB
)
"""nginx sends at once what one second allows: only a longer segment is still under way at the next request."""

pytestmark = pytest.mark.nginx


class Limited:
    """An nginx with seeded files under ``/f/``, and a project that lists them."""

    def __init__(self, folder: Path, nginx: Nginx, location: Location, *, files: int, size: int) -> None:
        self.nginx = nginx
        nginx.restart(location)
        self.project = Project(folder / "project")
        for number in range(files):
            content = seeded_bytes(size, seed=number + 1)
            self.project.add(f"a{number}", [nginx.add(f"/f/{number}", content)], content)

    async def sync(self, **settings: object) -> Recorder:
        """One run in real time, after which every file is right."""
        chosen = Settings(**settings)  # type: ignore[arg-type]  # checked where a test names a setting wrongly
        async with AssetManager(self.project.manifest, settings=chosen, environ={}) as manager:
            heard = Recorder(manager)
            await manager.sync()
        heard.check()
        for name, path in self.project.finals().items():
            assert path.read_bytes() == self.project.contents[name]
        return heard

    def refused(self) -> list[Sent]:
        """The requests that nginx has refused."""
        return [request for request in self.nginx.sent() if request.status >= 400]


REFUSALS = (503, 429, 403, 420, 430, 509, 529, 400, 404, 410, 421, 500)
MakeSite = Callable[..., Limited]


@pytest.fixture
def make_site(tmp_path: Path) -> Iterator[MakeSite]:
    """Makes one more server and project, with the arguments of `Limited` after its first two."""
    with ExitStack() as stack:
        made = 0

        def make(location: Location, *, files: int, size: int) -> Limited:
            nonlocal made
            made += 1
            folder = tmp_path / str(made)
            return Limited(folder, stack.enter_context(Nginx(folder)), location, files=files, size=size)

        yield make


@pytest.mark.parametrize("limit", [1, 2])
@pytest.mark.sweep
@pytest.mark.shows("A24")
async def test_a_server_that_allows_few_connections(make_site: MakeSite, limit: int) -> None:
    """The limit is learned from a few refusals, none of which counts as a failure or is waited for."""

    async def one(site: Limited, refusal: int) -> None:
        # A connection that asks ahead has two of the three segments: no third connection is needed, and none refused.
        heard = await site.sync(retries=0, sizes=SECONDS_LONG, pipelining=limit == 1)
        assert 0 < len(site.refused()) <= 5, refusal
        assert heard.of("retry_scheduled") == [], refusal

    sites = {
        refusal: make_site(
            Location("/f/", limit_conn=limit, limit_rate=400_000, refusal=refusal), files=1, size=2 * MIB
        )
        for refusal in REFUSALS
    }
    async with asyncio.TaskGroup() as group:
        for refusal, site in sites.items():
            group.create_task(one(site, refusal))


@pytest.mark.sweep
@pytest.mark.parametrize("refusal", [503, 429, 403])
@pytest.mark.shows("A24")
async def test_several_assets_share_what_a_server_allows(tmp_path: Path, nginx: Nginx, refusal: int) -> None:
    """One connection at a time, for all of them together, and none fails because another one is being served.

    Each segment takes longer than what nginx sends at once, so that the other asset really is refused.
    """
    location = Location("/f/", limit_conn=1, limit_rate=400_000, refusal=refusal)
    site = Limited(tmp_path, nginx, location, files=2, size=3 * MIB // 2)
    heard = await site.sync(retries=0, sizes=SECONDS_LONG)
    assert 0 < len(site.refused()) <= 5
    assert heard.of("retry_scheduled") == []


@pytest.mark.parametrize("refusal", typical([503, 429, 403], 429))
@pytest.mark.parametrize("parallel", typical([1, 4, 8], 4))
@pytest.mark.parametrize("size", typical([30_000, 300_000], 30_000), ids=["small", "large"])
@pytest.mark.shows("A24")
async def test_a_server_that_allows_few_requests_a_second(
    tmp_path: Path, nginx: Nginx, parallel: int, refusal: int, size: int
) -> None:
    """Each file arrives in turn, small files the short way and large ones the long way."""
    location = Location("/f/", limit_req=20, refusal=refusal)
    site = Limited(tmp_path, nginx, location, files=6, size=size)
    await site.sync(parallel=parallel)
    assert site.refused()


@pytest.mark.sweep
@pytest.mark.parametrize("limit_rate", [150_000, 20 * MIB], ids=["slow", "fast"])
async def test_a_large_file_through_one_connection(make_site: MakeSite, limit_rate: int) -> None:
    """There are few refusals, and it takes hardly longer than if the limit were known."""

    async def seconds(site: Limited, **settings: object) -> float:
        found = (await site.sync(**settings)).of("asset_verified")[0]["seconds"]
        assert isinstance(found, float)
        return found

    size = 2_500_000 if limit_rate < MIB else 60_000_000
    location = Location("/f/", limit_conn=1, limit_rate=limit_rate)
    site, told = (make_site(location, files=1, size=size) for _ in range(2))
    learned, known = await asyncio.gather(seconds(site), seconds(told, max_per_host=1))
    assert len(site.refused()) <= MOST_REFUSALS
    assert learned <= 1.3 * known + 0.5


@pytest.mark.sweep
async def test_twenty_files_at_five_requests_a_second(make_site: MakeSite) -> None:
    """This holds in every one of several runs; set ``RUNS=20`` in the environment for more."""
    runs = [parallel for parallel in (1, 4, 8) for _ in range(int(os.environ.get("RUNS", "3")))]
    sites = [make_site(Location("/f/", limit_req=5), files=20, size=300_000) for _ in runs]
    async with asyncio.TaskGroup() as group:
        for site, parallel in zip(sites, runs, strict=True):
            group.create_task(site.sync(parallel=parallel))

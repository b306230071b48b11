"""A real nginx that limits simultaneous requests and requests per second: everything arrives, and soon."""

from __future__ import annotations

import os
import shutil
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


@pytest.mark.parametrize("refusal", [503, 429, 403, 420, 430, 509, 529, 400, 404, 410, 421, 500])
@pytest.mark.parametrize("limit", [1, 2])
@pytest.mark.sweep
@pytest.mark.shows("A24")
async def test_a_server_that_allows_few_connections(tmp_path: Path, nginx: Nginx, limit: int, refusal: int) -> None:
    """The limit is learned from a few refusals, none of which counts as a failure or is waited for."""
    location = Location("/f/", limit_conn=limit, limit_rate=400_000, refusal=refusal)
    site = Limited(tmp_path, nginx, location, files=1, size=2 * MIB)
    # A connection that asks ahead has two of the three segments: no third connection is needed, and none refused.
    heard = await site.sync(retries=0, sizes=SECONDS_LONG, pipelining=limit == 1)
    assert 0 < len(site.refused()) <= 5
    assert heard.of("retry_scheduled") == []


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
@pytest.mark.parametrize("size", [30_000, 300_000], ids=["small", "large"])
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
async def test_a_large_file_through_one_connection(tmp_path: Path, nginx: Nginx, limit_rate: int) -> None:
    """There are few refusals, and it takes hardly longer than if the limit were known."""
    size = 6_000_000 if limit_rate < MIB else 60_000_000
    site = Limited(tmp_path, nginx, Location("/f/", limit_conn=1, limit_rate=limit_rate), files=1, size=size)
    learned = (await site.sync()).of("asset_verified")[0]["seconds"]
    assert len(site.refused()) <= MOST_REFUSALS
    site.project.finals()["a0"].unlink()
    known = (await site.sync(max_per_host=1)).of("asset_verified")[0]["seconds"]
    assert isinstance(learned, float)
    assert isinstance(known, float)
    assert learned <= 1.3 * known + 0.5


@pytest.mark.sweep
@pytest.mark.parametrize("parallel", [1, 4, 8])
async def test_twenty_files_at_five_requests_a_second(tmp_path: Path, nginx: Nginx, parallel: int) -> None:
    """This holds in every one of several runs; set ``RUNS=20`` in the environment for more."""
    site = Limited(tmp_path, nginx, Location("/f/", limit_req=5), files=20, size=300_000)
    for _ in range(int(os.environ.get("RUNS", "3"))):
        shutil.rmtree(site.project.assets, ignore_errors=True)
        await site.sync(parallel=parallel)

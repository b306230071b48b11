"""Stand-ins: small files in place of big ones, and never mistaken for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from grym_fetch import AssetManager
from grym_fetch.testing import AssetServer, seeded_bytes
from tests.support.project import KIB, Project

FULL = seeded_bytes(300 * KIB, seed=31)
SMALL = seeded_bytes(1 * KIB, seed=32)


@pytest.fixture
def project(tmp_path: Path, server: AssetServer) -> Project:
    """An asset with a stand-in, and one without."""
    made = Project(tmp_path / "project")
    small = server.add("/small.bin", SMALL)
    stand_in = {"url": small.url, "checksum": small.sha256, "size": small.size}
    made.add("with", [server.add("/with.bin", FULL).url], FULL, minimal=stand_in)
    made.add("without", [server.add("/without.bin", FULL).url], FULL)
    return made


@pytest.mark.parametrize(
    ("argument", "variable", "minimal"),
    [
        (None, None, False),
        (None, "1", True),
        (None, "true", True),
        (None, "0", False),
        (None, "", False),
        (True, None, True),
        (False, "1", False),
    ],
)
async def test_who_chooses(project: Project, argument: bool | None, variable: str | None, minimal: bool) -> None:
    """The argument wins over `GRYM_FETCH_MINIMAL`; without both, the full assets are meant."""
    environ = {} if variable is None else {"GRYM_FETCH_MINIMAL": variable}
    async with AssetManager(project.manifest, minimal=argument, environ=environ) as manager:
        assert manager.minimal is minimal
        path = await manager.get_asset_path("with")
    assert path.read_bytes() == (SMALL if minimal else FULL)
    assert path == project.assets / ("minimal/models/with.bin" if minimal else "models/with.bin")


async def test_a_status_says_of_which_it_speaks(project: Project) -> None:
    """The status of a stand-in says so; if an asset has none, the status is the asset's own."""
    async with AssetManager(project.manifest, minimal=True, environ={}) as manager:
        before = await manager.check_all_assets()
        await manager.sync()
        after = await manager.check_all_assets()
    assert [(status.is_stand_in, status.exists) for status in before] == [(True, False), (False, False)]
    assert [(status.is_stand_in, status.valid) for status in after] == [(True, True), (False, True)]
    async with project.manager() as manager:
        assert [(status.is_stand_in, status.valid) for status in await manager.check_all_assets()] == [
            (False, False),
            (False, True),
        ]


async def test_neither_is_taken_for_the_other(project: Project, server: AssetServer) -> None:
    """If one of them is there, the other is still missing, and is fetched to its own place."""
    async with project.manager() as manager:
        report = await manager.sync(["with"], minimal=True)
        assert report.paths == {"with": project.assets / "minimal/models/with.bin"}
        assert not (await manager.check_asset("with")).exists
        assert manager.state_of(manager.manifest.get("with")) == "missing"
        assert (await manager.get_asset_path("with")).read_bytes() == FULL
        assert report.paths["with"].read_bytes() == SMALL
        assert (await manager.sync(["with"])).reused == ("with",)


async def test_false_means_the_full_asset(project: Project) -> None:
    """A manager of stand-ins fetches the full assets for one call that asks for them, and otherwise does not."""
    async with AssetManager(project.manifest, minimal=True, environ={}) as manager:
        assert [asset.is_stand_in for asset in manager.choose(["with"], minimal=False)] == [False]
        assert [asset.is_stand_in for asset in manager.choose(["with"], minimal=None)] == [True]
        report = await manager.sync(["with"], minimal=False)
        assert report.paths["with"].read_bytes() == FULL
        report = await manager.sync(["with"])
        assert report.paths["with"].read_bytes() == SMALL


async def test_both_at_once(project: Project) -> None:
    """One manager can fetch an asset and its stand-in at the same time; each caller gets what it asked for."""
    async with project.manager() as manager:
        both = (manager.manifest.get("with"), manager.manifest.get("with").stand_in())
        async with manager.events() as events:
            await manager.sync_assets(both)
            places = {str(event.as_json()["path"]) for event in events.drain() if event.type == "asset_verified"}
    assert places == {str(project.assets / each.local_path) for each in both}


async def test_a_full_file_in_the_place_of_a_stand_in_is_refused(project: Project) -> None:
    """Full content under a stand-in's name is wrong content, and is replaced."""
    place = project.assets / "minimal/models/with.bin"
    place.parent.mkdir(parents=True)
    place.write_bytes(FULL)
    async with AssetManager(project.manifest, minimal=True, environ={}) as manager:
        status = await manager.check_asset("with")
        assert (status.exists, status.valid, status.is_stand_in) == (True, False, True)
        assert (await manager.get_asset_path("with")).read_bytes() == SMALL

"""What operators can force on programs through the environment, and what a program decides for itself."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
from yarl import URL

from grym_fetch import AssetManager, MirrorsExhausted, Settings
from grym_fetch.errors import AssetMissing
from grym_fetch.testing import AssetServer
from tests.support.project import Project

CONTENT = b"some bytes"
FORCED = {"GRYM_FETCH_OFFLINE": "1", "GRYM_FETCH_PARALLEL": "2"}


@pytest.fixture
def project(tmp_path: Path, server: AssetServer) -> Project:
    """One asset that is not fetched yet."""
    return Project.with_one_asset(tmp_path / "project", server, CONTENT)


async def test_offline_can_be_forced(project: Project, server: AssetServer) -> None:
    """A program that does not set it fetches nothing, though it has set other things."""
    async with AssetManager(project.manifest, settings=Settings(retries=1), environ=FORCED) as manager:
        assert (manager.settings.offline, manager.settings.retries) == (True, 1)
        with pytest.raises(AssetMissing):
            await manager.get_asset_path("a")
    assert not server.stats.requests


async def test_private_addresses_can_be_forbidden(project: Project, server: AssetServer) -> None:
    """The server of this test has such an address."""
    environ = {"GRYM_FETCH_NO_PRIVATE_ADDRESSES": "yes"}
    async with AssetManager(project.manifest, environ=environ) as manager:
        with pytest.raises(MirrorsExhausted):
            await manager.get_asset_path("a")
    assert not server.stats.requests


async def test_no_mirror_and_no_place_gets_around_that(tmp_path: Path, server: AssetServer) -> None:
    """Neither a mirror of one's own, nor a server that is asked where an object is, nor an endpoint of a bucket."""
    port = URL(server.add("/a", CONTENT).url).port
    here = f"127.0.0.1:{port}"
    environ = {
        "GRYM_FETCH_NO_PRIVATE_ADDRESSES": "1",
        "GRYM_FETCH_MIRRORS": f"https://hub.example/=http://{here}/ only",
        "AWS_ENDPOINT_URL": f"http://{here}",
    }
    project = Project(tmp_path / "project")
    urls = ["https://hub.example/a", f"lfs://{here}/x/{'4d' * 32}/10", "s3://models/a"]
    for number, url in enumerate(urls):
        project.add(str(number), [url], CONTENT)
    async with AssetManager(project.manifest, environ=environ) as manager:
        for number in range(len(urls)):
            with pytest.raises(MirrorsExhausted, match=r"private address|grym-fetch\[stores\]"):
                await manager.get_asset_path(str(number))
    assert not server.stats.requests


async def test_a_program_decides_what_it_names(project: Project) -> None:
    """An argument and a named field win, even if they name the default."""
    settings = Settings(offline=False)
    async with AssetManager(project.manifest, parallel=4, settings=settings, environ=FORCED) as manager:
        assert (manager.settings.offline, manager.settings.parallel) == (False, 4)
        assert (await manager.get_asset_path("a")).read_bytes() == CONTENT


def test_what_a_program_names_is_not_even_read(project: Project) -> None:
    """Then even an unreadable variable does not matter."""
    wrong = {"GRYM_FETCH_PARALLEL": "many", "GRYM_FETCH_MINIMAL": "perhaps", "GRYM_FETCH_ALLOW_STALE": "?"}
    manager = AssetManager(project.manifest, parallel=3, minimal=False, allow_stale=False, environ=wrong)
    assert manager.settings.parallel == 3


@pytest.mark.parametrize("name", ["GRYM_FETCH_OFFLINE", "GRYM_FETCH_MINIMAL", "GRYM_FETCH_MIRRORS"])
def test_a_wrong_variable_is_refused_at_once(project: Project, name: str) -> None:
    """No manager is created: a typo must not allow what was meant to be forbidden."""
    with pytest.raises(ValueError, match=f"the environment variable {name}: 'perhaps' is neither"):
        AssetManager(project.manifest, environ={name: "perhaps"})


@pytest.mark.parametrize("settings", [Settings(4, offline=False), Settings(parallel=4, offline=False)])
def test_copies_have_the_same_fields_named(settings: Settings) -> None:
    """A copy, even in another process, still wins over the environment where its original does."""
    for each in (settings, copy.copy(settings), copy.deepcopy(settings), pickle.loads(pickle.dumps(settings))):
        assert each == settings
        decided = each.with_environment({**FORCED, "GRYM_FETCH_RETRIES": "1"})
        assert (decided.offline, decided.parallel, decided.retries) == (False, 4, 1)

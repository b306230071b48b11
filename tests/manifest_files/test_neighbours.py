"""Several manifests with one assets folder: none replaces what another one needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from grym_fetch import SyncFailed
from grym_fetch.errors import UnsafePath
from grym_fetch.testing import seeded_bytes
from tests.support.project import Project
from tests.support.small_world import SmallWorld

OURS, THEIRS = seeded_bytes(5000, seed=1), seeded_bytes(6000, seed=2)
WORLD = {"https://origin.example/a": OURS, "https://origin.example/b": THEIRS}


@pytest.fixture
def both(tmp_path: Path) -> tuple[Project, Project]:
    """Two projects whose assets have the same ``localPath`` and other content."""
    first, second = Project(tmp_path / "one"), Project(tmp_path / "two")
    first.add("ours", ["https://origin.example/a"], OURS, localPath="models/x.bin")
    second.add("theirs", ["https://origin.example/b"], THEIRS, localPath="models/x.bin")
    return first, second


async def sync(project: Project, assets: Path) -> None:
    """Sync into this folder."""
    async with SmallWorld(WORLD).manager(project, assets_dir=assets) as manager:
        await manager.sync()


@pytest.mark.posix
@pytest.mark.shows("X5")
async def test_another_projects_file_is_not_replaced(both: tuple[Project, Project], tmp_path: Path) -> None:
    """The second project is refused, with the names of both assets and both manifests; the first one's file stays."""
    first, second = both
    await sync(first, tmp_path / "common")
    with pytest.raises(SyncFailed) as caught:
        await sync(second, tmp_path / "common")
    error = caught.value.failures["theirs"]
    assert isinstance(error, UnsafePath)
    for named in ("ours", "theirs", str(first.manifest), str(second.manifest), "models/x.bin"):
        assert named in str(error)
    assert (tmp_path / "common/models/x.bin").read_bytes() == OURS


async def test_the_same_content_is_shared(both: tuple[Project, Project], tmp_path: Path) -> None:
    """With the same content, both have it; and a damaged file is replaced for either."""
    first, second = both
    second.entries = [dict(first.entries[0], id="same")]
    second.write()
    for project in (first, second, first):
        await sync(project, tmp_path / "common")
        (tmp_path / "common/models/x.bin").write_bytes(b"damaged")
    await sync(second, tmp_path / "common")
    assert (tmp_path / "common/models/x.bin").read_bytes() == OURS


@pytest.mark.parametrize("what", ["removed", "moved on", "broken"])
async def test_a_manifest_that_no_longer_wants_it(both: tuple[Project, Project], tmp_path: Path, what: str) -> None:
    """A manifest that is gone, cannot be read, or no longer lists the path, stops nobody."""
    first, second = both
    await sync(first, tmp_path / "common")
    if what == "removed":
        first.manifest.unlink()
    elif what == "broken":
        first.manifest.write_text("{")
    else:
        first.entries[0]["localPath"] = "models/y.bin"
        first.write()
    await sync(second, tmp_path / "common")
    assert (tmp_path / "common/models/x.bin").read_bytes() == THEIRS


async def test_a_project_may_change_its_own_mind(both: tuple[Project, Project], tmp_path: Path) -> None:
    """A new version in the same manifest replaces the old one, also after the whole place was moved."""
    first, second = both
    await sync(first, first.assets)
    first.root.rename(tmp_path / "moved")
    moved = Project(tmp_path / "moved", second.entries)
    moved.write()
    await sync(moved, moved.assets)
    assert (moved.assets / "models/x.bin").read_bytes() == THEIRS

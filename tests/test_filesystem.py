"""Assets are opened by name through fsspec."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from grym_fetch.testing import seeded_bytes, serve_in_thread
from tests.engine.test_reader import pieces_of
from tests.support.project import Project

pytestmark = pytest.mark.package("fsspec")
CONTENT = seeded_bytes(200_000, seed=7)


@pytest.fixture
def config(tmp_path: Path) -> Iterator[str]:
    """The manifest of a project whose asset ``a`` is at a server."""
    with serve_in_thread() as server:
        project = Project(tmp_path / "project")
        project.add("a", [server.add("/a.bin", CONTENT).url], CONTENT, pieces=pieces_of(CONTENT))
        yield str(project.manifest)


def test_an_asset_by_its_id(config: str) -> None:
    """``grym://ID`` is read like any file of fsspec's; what it does not know is not found."""
    import fsspec

    with fsspec.open("grym://a", config=config) as file:
        file.seek(-9, 2)
        assert file.read() == CONTENT[-9:]
    system = fsspec.filesystem("grym", config=config)
    assert system.ls("") == [{"name": "a", "size": len(CONTENT), "type": "file"}]
    assert (system.ls("a", detail=False), system.cat_file("grym://a", 5, 10)) == (["a"], CONTENT[5:10])
    with pytest.raises(FileNotFoundError):
        system.info("b")
    with pytest.raises(NotImplementedError):
        system.open("a", "wb")

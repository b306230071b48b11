"""Assets are opened by name through fsspec."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from grym_fetch.core.digest import Checksum
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


def test_the_size_is_that_of_what_is_read(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in's, where stand-ins are used: whoever opens the file reads up to it."""
    import fsspec

    manifest = json.loads(Path(config).read_text())
    small = CONTENT[:1000]
    [entry] = manifest["assets"]
    entry["minimal"] = {"url": entry["url"], "checksum": Checksum.of(small).bare, "size": len(small)}
    Path(config).write_text(json.dumps(manifest))
    assert fsspec.filesystem("grym", config=config).size("a") == len(CONTENT)
    monkeypatch.setenv("GRYM_FETCH_MINIMAL", "1")
    assert fsspec.filesystem("grym", config=config).size("a") == len(small)


def test_each_file_system_looks_anew(config: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Made without arguments, it is of the folder where that is done, and of the manifest as it is then.

    A file outlives the file system that opened it.
    """
    import fsspec

    monkeypatch.chdir(Path(config).parent)
    file = fsspec.filesystem("grym").open("a")
    gc.collect()
    assert file.read(5) == CONTENT[:5]
    file.close()
    other = Project(tmp_path / "other")
    other.add("b", ["https://origin.example/b"], b"b")
    monkeypatch.chdir(other.root)
    assert fsspec.filesystem("grym").ls("", detail=False) == ["b"]
    other.add("c", ["https://origin.example/c"], b"c")
    assert fsspec.filesystem("grym").ls("", detail=False) == ["b", "c"]

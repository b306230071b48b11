"""The lists of tasks: read as they were written, and by nobody else's hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from grym_fetch.cluster.work_list import WorkFolder, new_run
from grym_fetch.core.errors import ClusterError
from grym_fetch.core.manifest import Asset, Manifest
from grym_fetch.core.manifest_parser import parse_manifest

SHA = "ab" * 32
ENTRIES = [
    {"id": "a", "url": "https://h.example/a", "localPath": "a.bin", "checksum": SHA, "size": 3, "tags": ["t"]},
    {"id": "é b", "url": "https://h.example/b", "localPath": "b.tar", "extract": True, "own": {"key": [1]}},
    {
        "id": "c",
        "url": "https://h.example/c",
        "localPath": "d/c.bin",
        "metadata": {"x": 1},
        "minimal": {"url": "https://h.example/s", "checksum": f"sha512:{'cd' * 64}", "size": 9},
    },
]


def manifest() -> Manifest:
    """Assets of all kinds."""
    return parse_manifest(json.dumps({"assets": ENTRIES}).encode(), "assets.json").manifest


@pytest.fixture
def folder(tmp_path: Path) -> WorkFolder:
    """A run's folder."""
    made = WorkFolder(tmp_path / "assets", new_run())
    made.make()
    return made


@pytest.mark.parametrize("minimal", [False, True])
def test_assets_come_back_as_they_were(folder: WorkFolder, minimal: bool) -> None:
    """Also stand-ins, whose place is not where a manifest may put anything."""
    assets: tuple[Asset, ...] = manifest().select(all=True, minimal=minimal)
    digest = folder.write(7, assets)
    assert folder.read(7, digest) == assets
    assert [asset.is_stand_in for asset in folder.read(7, digest)] == [False, False, minimal]


@pytest.mark.shows("P16")
def test_a_list_that_is_not_the_one_is_refused(folder: WorkFolder) -> None:
    """One that is gone, or was changed after it was written."""
    digest = folder.write(1, manifest().assets)
    (folder.path / "1.jsonl").write_bytes(b" []\n")
    with pytest.raises(ClusterError, match="is not what was written"):
        folder.read(1, digest)
    folder.drop(1)
    with pytest.raises(ClusterError, match="the list of task 1 is not in"):
        folder.read(1, digest)
    folder.drop(1)


def test_nothing_is_left(folder: WorkFolder, tmp_path: Path) -> None:
    """A run removes its folder, and those of runs whose process is dead; one that may be alive keeps its own."""
    folder.write(1, manifest().assets)
    assert folder.is_there
    dead = folder.path.parent / f"1-1-{folder.path.name.split('-')[2]}-{folder.path.name.split('-')[3]}"
    dead.mkdir()
    other = WorkFolder(tmp_path / "assets", new_run())
    other.make()
    assert sorted(folder.path.parent.iterdir()) == sorted([folder.path, other.path])
    folder.remove()
    other.remove()
    assert not folder.is_there
    assert not list(folder.path.parent.iterdir())

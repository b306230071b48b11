"""Files in the assets folder that no asset names: which they are, and that nothing else is ever deleted."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from grym_fetch.disk.state import StateFolder
from grym_fetch.errors import ManifestError, RepositoryError, StorageError, UnsafePath
from grym_fetch.testing import seeded_bytes
from tests.cli.running import invoke
from tests.repo.story import git, repository
from tests.support.project import Project
from tests.support.small_world import SmallWorld

CONTENT = seeded_bytes(5000, seed=1)
WORLD = {"https://origin.example/a": CONTENT}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with one asset, and files beside it."""
    made = Project(tmp_path / "project")
    small = {"url": "https://origin.example/small", "checksum": "0" * 64, "size": 9}
    made.add("a", ["https://origin.example/a"], CONTENT, localPath="models/a.bin", minimal=small)
    for name in ("models/old.bin", "gone/deep/b.bin", ".keep", "models/.hidden", "minimal/models/a.bin"):
        path = made.assets / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"something")
    return made


async def prune(project: Project, **how: Any) -> list[str]:
    """Prune; return the orphans."""
    async with SmallWorld(WORLD).manager(project) as manager:
        await manager.sync()
        return [each.name for each in (await manager.prune(**how)).orphans]


def files(project: Project) -> set[str]:
    """What is in the assets folder, without our own state."""
    found = {path.relative_to(project.assets).as_posix() for path in project.assets.rglob("*") if path.is_file()}
    return {name for name in found if not name.startswith(".grym-fetch")}


KEPT = {".keep", "models/.hidden", "minimal/models/a.bin", "models/a.bin"}


async def test_they_are_listed_and_deleted_on_demand(project: Project) -> None:
    """A dry run lists them, a plain prune leaves them, and only what is asked for deletes them."""
    orphans = ["gone/deep/b.bin", "models/old.bin"]
    assert await prune(project, dry_run=True) == orphans
    assert await prune(project) == []
    assert await prune(project, dry_run=True, orphans=True) == orphans
    assert files(project) == KEPT | set(orphans)
    assert await prune(project, orphans=True) == orphans
    assert files(project) == KEPT


@pytest.mark.parametrize("way", ["assets folder", "external folder"])
async def test_another_projects_files_are_none(project: Project, tmp_path: Path, way: str) -> None:
    """Neither where two projects fetch into one folder nor where one only looks for files in the other's."""
    other = Project(tmp_path / "other")
    other.add("b", ["https://origin.example/a"], CONTENT, localPath="models/old.bin")
    (project.assets / "models/old.bin").write_bytes(CONTENT)
    await prune(project)
    folders: dict[str, Path] = {"assets_dir" if way == "assets folder" else "external_assets_dir": project.assets}
    from grym_fetch import AssetManager

    async with AssetManager(other.manifest, environ={}, **folders) as manager:  # type: ignore[arg-type]  # two of them
        await manager.sync()
    assert await prune(project, dry_run=True) == ["gone/deep/b.bin"]
    other.manifest.write_text("{")
    with pytest.raises(ManifestError):
        await prune(project, orphans=True)
    assert "models/old.bin" in files(project)


async def test_the_sums_of_another_projects_pieces_stay(project: Project, tmp_path: Path) -> None:
    """Also while its manifest cannot be read; once it lists the content no more, they go."""
    from grym_fetch import AssetManager

    content = seeded_bytes(3 << 20, seed=2)
    other = Project(tmp_path / "other")
    other.add("b", ["https://origin.example/b"], content, localPath="b.bin")
    (project.assets / "b.bin").write_bytes(content)
    async with AssetManager(other.manifest, environ={}, assets_dir=project.assets) as manager:
        await manager.sync()
    folder = StateFolder(project.assets).own / "pieces"
    there = set(os.listdir(folder))
    assert there
    for text, left in ((other.manifest.read_text(), there), ("{", there), ('{"assets": []}', set())):
        other.manifest.write_text(text)
        await prune(project)
        assert there & set(os.listdir(folder)) == left


@pytest.mark.parametrize("is_away", [pytest.param(True, marks=pytest.mark.shows("X5")), False])
async def test_a_project_whose_disk_is_away(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_away: bool
) -> None:
    """Nobody knows which files are its, so nothing is deleted; one that is certainly gone has none."""
    from grym_fetch import AssetManager

    other = Project(tmp_path / "disk/other")
    other.add("b", ["https://origin.example/a"], CONTENT, localPath="models/old.bin")
    (project.assets / "models/old.bin").write_bytes(CONTENT)
    async with AssetManager(other.manifest, environ={}, assets_dir=project.assets) as manager:
        await manager.sync()
    shutil.rmtree(tmp_path / "disk")
    real = os.stat

    def elsewhere(path: Any, **options: Any) -> os.stat_result:
        figures = real(path, **options)
        is_above = path == str(tmp_path)
        return os.stat_result((*figures[:2], figures.st_dev + 1, *figures[3:])) if is_above else figures

    if is_away:
        monkeypatch.setattr(os, "stat", elsewhere)
        with pytest.raises(StorageError, match="its disk may be away") as caught:
            await prune(project, orphans=True)
        assert str(other.manifest) in str(caught.value)
        assert "models/old.bin" in files(project)
    else:
        assert await prune(project, orphans=True) == ["gone/deep/b.bin", "models/old.bin"]


async def test_moved_files_are_none(project: Project) -> None:
    """If the folder also holds what was moved out of a repository, its record says which; a broken one stops all."""
    record = project.assets / "asset-manifest.json"
    entry = {"originalPath": "x.bin", "storagePath": "gone/deep/b.bin", "size": 9, "checksum": "0" * 64}
    record.write_text(json.dumps({"version": "1.0", "assets": [entry]}))
    assert await prune(project, dry_run=True) == ["models/old.bin"]
    record.write_text("{")
    with pytest.raises(UnsafePath):
        await prune(project, orphans=True)
    assert {"models/old.bin", "gone/deep/b.bin"} <= files(project)


async def test_a_symlink_is_no_orphan(project: Project, tmp_path: Path) -> None:
    """Nothing is followed out of the folder."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_bytes(b"x")
    (project.assets / "link").symlink_to(tmp_path / "outside")
    (project.assets / "file-link").symlink_to(tmp_path / "outside/file")
    assert await prune(project, orphans=True) == ["gone/deep/b.bin", "models/old.bin"]
    assert (tmp_path / "outside/file").exists()


def test_the_command_asks(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody can be asked it deletes nothing, unless it is told to."""
    monkeypatch.chdir(project.root)
    refused = invoke("prune", "--orphans")
    assert refused.exit_code == 2
    assert "pass --yes" in refused.stderr
    assert "models/old.bin" in files(project)
    listed = invoke("prune", "-n")
    assert "models/old.bin" in listed.stdout
    assert "2 files that no asset names: grym-fetch prune --orphans" in listed.stderr
    assert invoke("prune", "--orphans", "--yes").exit_code == 0
    assert files(project) == KEPT - {"models/a.bin"}


@pytest.mark.parametrize("marker", ["other/.grym-fetch/x", "other/asset-manifest.json"])
async def test_a_folder_of_its_own_is_not_looked_into(project: Project, marker: str) -> None:
    """Another assets folder, a store, or an external folder within this one: its files may be the only copies."""
    for name in (marker, "other/deep/precious.bin"):
        (project.assets / name).parent.mkdir(parents=True, exist_ok=True)
        (project.assets / name).write_bytes(b"x")
    assert await prune(project, orphans=True) == ["gone/deep/b.bin", "models/old.bin"]
    assert (project.assets / "other/deep/precious.bin").exists()


async def test_what_is_in_a_store_or_was_moved_is_none(project: Project) -> None:
    """The assets folder is the store itself; and a placeholder is all that tells where a moved file was."""
    (project.assets / ".grym-fetch/users").mkdir(parents=True)
    for name in ("objects/sha256/00/x", "models/moved.bin.asset-ref"):
        (project.assets / name).parent.mkdir(parents=True, exist_ok=True)
        (project.assets / name).write_bytes(b"x")
    assert await prune(project, dry_run=True) == ["gone/deep/b.bin", "models/old.bin"]


async def test_only_what_was_shown_is_deleted(project: Project) -> None:
    """What has come since it was asked about stays."""
    assert await prune(project, orphans=["models/old.bin", "models/a.bin"]) == ["models/old.bin"]
    assert files(project) == KEPT | {"gone/deep/b.bin"}


def test_what_has_no_name_of_its_own_is_counted(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many locks, one line; programs get each."""
    locks = project.assets / ".grym-fetch/locks"
    locks.mkdir(parents=True)
    for number in range(3):
        (locks / f"{number:024x}.lock").touch()
    monkeypatch.chdir(project.root)
    names = [line.get("name") for line in map(json.loads, invoke("prune", "-n", "--json").stdout.splitlines())]
    assert sum(name is not None and name.endswith(".lock") for name in names) == 3
    assert [line for line in invoke("prune").stdout.splitlines() if line.startswith("lock")] == [
        "lock      3 files  0 B  nobody holds it"
    ]


@pytest.mark.shows("X5")
async def test_a_project_in_the_assets_folder_has_none(project: Project, tmp_path: Path) -> None:
    """Its manifest and its sources are no assets: they stay, and so does all where the folder is the project's own."""
    for assets_dir in (project.root, tmp_path):
        (tmp_path / "beside.bin").write_bytes(b"x")
        async with SmallWorld(WORLD).manager(project, assets_dir=assets_dir) as manager:
            await manager.sync()
            orphans = [each.name for each in (await manager.prune(orphans=True)).orphans]
        assert orphans == ([] if assets_dir == project.root else ["beside.bin"])
    assert project.manifest.exists()
    assert "models/old.bin" in files(project)


@pytest.mark.posix
@pytest.mark.parametrize("kind", ["inside", "without a work tree", "itself"])
@pytest.mark.shows("S17")
async def test_what_is_in_a_repository_is_none(project: Project, kind: str) -> None:
    """Nobody can say what a repository in the assets folder is for, wherever git keeps its own files."""
    inner = repository(project.assets / "inner")
    (inner / "file.bin").write_bytes(b"x")
    if kind == "without a work tree":
        for each in (inner / ".git").iterdir():
            each.rename(inner / each.name)
    elif kind == "itself":
        (inner / ".git").rename(project.assets / ".git")
    assert await prune(project, orphans=True) == ([] if kind == "itself" else ["gone/deep/b.bin", "models/old.bin"])
    assert (inner / "file.bin").exists()


@pytest.mark.posix
@pytest.mark.shows("S17")
async def test_what_git_tracks_is_none(project: Project) -> None:
    """It is wanted, though no manifest names it. If git does not say what it tracks, nothing is deleted."""
    repository(project.root / "made")
    (project.root / "made/.git").rename(project.root / ".git")
    git(project.root, "add", "assets/models/old.bin")
    assert await prune(project, dry_run=True) == ["gone/deep/b.bin"]
    assert await prune(project, orphans=True) == ["gone/deep/b.bin"]
    (project.root / ".git/index").write_bytes(b"damaged")
    with pytest.raises(RepositoryError, match="index"):
        await prune(project, orphans=True)
    assert await prune(project, dry_run=True) == []
    assert "models/old.bin" in files(project)

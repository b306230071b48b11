"""Setting up a project on every kind of file system."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from grym_fetch.errors import UnsafePath
from grym_fetch.project.setup import folder_steps, git_steps, manifest_step
from tests.repo.story import git, repository, write

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where hard links are not permitted (FAT, some FUSE and SMB), every file is still created."""

    def link(*arguments: object, **more: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    root = tmp_path / "project"
    root.mkdir()
    places = {"assets_dir": None, "external_assets_dir": str(tmp_path / "assets")}
    step, project = manifest_step(root, {}, NOW, config=None, places=places)
    assert step.state == "done"
    assert {step.state for step in folder_steps(project, NOW)} == {"done"}
    assert json.loads((root / "assets.json").read_bytes())["assets"] == []
    assert json.loads((tmp_path / "assets/asset-manifest.json").read_bytes())["assets"] == []
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted(
        ["project", "assets", "assets.json", "assets", "asset-manifest.json", ".gitignore"]
    )


def nowhere(name: str, folder: Path) -> dict[str, str | None]:
    """The folders that are named: only this one."""
    return {"assets_dir": None, "external_assets_dir": None, name: str(folder)}


@pytest.mark.posix
@pytest.mark.shows("S17")
def test_nothing_is_made_among_what_is_git_s(tmp_path: Path) -> None:
    """No manifest in a repository without a work tree; no assets and no external folder in ``.git``."""
    git(tmp_path, "init", "-q", "--bare", "bare")
    root = repository(tmp_path / "repo")
    with pytest.raises(UnsafePath, match="git's own folder"):
        manifest_step(tmp_path / "bare", {}, NOW, config=None, places=nowhere("assets_dir", tmp_path / "assets"))
    write(root, "assets.json", b'{"assets": []}')
    inside = root / ".git/deep"
    with pytest.raises(UnsafePath, match="git's own folder"):
        manifest_step(root, {}, NOW, config=None, places=nowhere("assets_dir", inside))
    _, project = manifest_step(root, {}, NOW, config=None, places=nowhere("external_assets_dir", inside))
    failed = [step for step in folder_steps(project, NOW) if step.state == "fail"]
    assert ["git's own folder" in step.what for step in failed] == [True]
    assert not inside.exists()
    assert not (tmp_path / "bare/assets.json").exists()


@pytest.mark.posix
@pytest.mark.parametrize("place", ["..", "."])
def test_no_line_for_a_folder_that_git_cannot_ignore(tmp_path: Path, place: str) -> None:
    """Assets above the repository need none, and the repository itself is not to be dropped from git."""
    root = repository(tmp_path / "repo")
    write(root, "assets.json", b'{"assets": []}')
    git(root, "add", "assets.json")
    _, project = manifest_step(root, {}, NOW, config=None, places=nowhere("assets_dir", root / place))
    steps = list(git_steps(project))
    assert (root / ".gitignore").read_text() == "/logs/\n"
    assert [step.state for step in steps] == ["done"]


@pytest.mark.posix
def test_a_manifest_that_git_ignores(tmp_path: Path) -> None:
    """It was just made, and nobody else would get it."""
    root = repository(tmp_path / "repo")
    write(root, ".gitignore", b"*.json\n")
    _, project = manifest_step(root, {}, NOW, config=None, places={})
    (warning,) = (step for step in git_steps(project) if step.state == "warn")
    assert "git ignores assets.json" in warning.what
    git(root, "add", "-f", "assets.json")
    assert [step.state for step in git_steps(project)] == ["ok"]

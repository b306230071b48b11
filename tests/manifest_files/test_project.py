"""Where a project keeps its manifest and files: an argument wins over the environment, and that over a search."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from grym_fetch.core.errors import ForeignManifest, ManifestError, ManifestMissing, StorageError, UnsafePath
from grym_fetch.manifest_files.project import Project, find_project, load_manifest, names_file
from tests.support.other_user import ANNA, as_user, needs_root


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A repository with a folder deep in it, and no manifest yet."""
    (tmp_path / "repo/src/deep").mkdir(parents=True)
    (tmp_path / "repo/.git").mkdir()
    return tmp_path / "repo"


def manifest_at(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{"assets": []}')
    return path


def find(cwd: Path, environ: Mapping[str, str] | None = None, **named: str | Path) -> Project:
    return find_project(environ=environ or {}, cwd=cwd, **named)


def test_what_names_a_file(tmp_path: Path) -> None:
    """No file has a name that is too long for the system: it may be an address."""
    there = manifest_at(tmp_path / "a")
    assert names_file(there)
    assert not names_file(tmp_path)
    assert not names_file(tmp_path / "b")
    assert not names_file(Path("https://h.example/" + "a" * 5000))


@pytest.mark.parametrize("place", ["assets.json", "config/assets.json"])
@pytest.mark.parametrize("where", [".", "src", "src/deep"])
def test_the_manifest_is_found_from_anywhere_below(repo: Path, place: str, where: str) -> None:
    """Every folder of the project finds the same manifest and the same folders."""
    manifest = manifest_at(repo / place)
    assert find(repo / where) == Project(manifest, repo, repo / "assets", repo.parent / "assets")


def test_the_nearest_manifest_wins(repo: Path) -> None:
    """A project inside a project is its own; of two manifests in one folder ``assets.json`` counts."""
    manifest_at(repo / "assets.json")
    manifest_at(repo / "src/config/assets.json")
    nearest = manifest_at(repo / "src/assets.json")
    assert find(repo / "src/deep").manifest_path == nearest


def test_nothing_above_the_repository_is_taken(repo: Path) -> None:
    """A manifest outside the repository belongs to somebody else."""
    manifest_at(repo.parent / "assets.json")
    with pytest.raises(ManifestError, match=r"assets\.json or config/assets\.json"):
        find(repo / "src")


@pytest.mark.posix
@needs_root
def test_a_folder_above_that_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is in a folder below one that he may not enter is told that there is no manifest, not of a bug."""
    inner = tmp_path / "closed/inner"
    inner.mkdir(parents=True)
    manifest_at(tmp_path / "closed/assets.json")
    os.chown(inner, ANNA, ANNA)
    monkeypatch.chdir(inner)
    inner.parent.chmod(0o700)

    def search() -> str:
        try:
            find(inner)
        except ManifestMissing as error:
            return str(error)
        return ""

    assert "no assets.json or config/assets.json" in as_user(ANNA, search)


def test_a_git_file_bounds_the_search_too(repo: Path) -> None:
    """In a worktree or submodule ``.git`` is a file."""
    manifest_at(repo / "assets.json")
    (repo / "src/.git").write_text("gitdir: elsewhere")
    with pytest.raises(ManifestError):
        find(repo / "src/deep")


@pytest.mark.posix
def test_an_argument_wins_over_the_environment(repo: Path) -> None:
    """An argument counts more than the environment, and the environment more than what is found."""
    manifest_at(repo / "assets.json")
    by_environment, by_argument = manifest_at(repo / "e.json"), manifest_at(repo / "a.json")
    environ = {
        "GRYM_FETCH_CONFIG": "e.json",
        "GRYM_FETCH_ASSETS_DIR": "from-environ",
        "GRYM_FETCH_EXTERNAL_ASSETS_DIR": "/ext",
    }
    found = find(repo, environ)
    assert found == Project(by_environment, repo, repo / "from-environ", Path("/ext"))
    found = find(repo, environ, config="a.json", assets_dir="x", external_assets_dir=Path("y"))
    assert found == Project(by_argument, repo, repo / "x", repo / "y")


def test_an_empty_variable_is_none(repo: Path) -> None:
    """An empty variable counts as not set."""
    manifest = manifest_at(repo / "assets.json")
    found = find(repo, {"GRYM_FETCH_CONFIG": "", "GRYM_FETCH_ASSETS_DIR": ""})
    assert (found.manifest_path, found.assets_dir) == (manifest, repo / "assets")


@pytest.mark.posix
def test_a_home_folder_is_expanded(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``~`` is the home folder, in an argument and in the environment."""
    monkeypatch.setenv("HOME", str(repo))
    manifest = manifest_at(repo / "own.json")
    found = find(repo / "src", {"GRYM_FETCH_CONFIG": "~/own.json"}, assets_dir="~/files")
    assert (found.manifest_path, found.assets_dir) == (manifest, repo / "files")


@pytest.mark.parametrize("named", ["none.json", "src", "~nobody-of-this-name/assets.json", "a\0b"])
def test_a_manifest_that_is_not_there_is_named(repo: Path, named: str) -> None:
    """A named manifest that does not exist is reported, and no other one is used instead."""
    manifest_at(repo / "assets.json")
    with pytest.raises(ManifestError, match="no manifest") as caught:
        find(repo, config=named)
    assert named.replace("\0", r"\x00") in str(caught.value)
    assert "\0" not in str(caught.value)


def test_a_manifest_is_loaded(repo: Path) -> None:
    """The file's content is parsed, and errors name the file."""
    manifest = manifest_at(repo / "assets.json")
    load_manifest(manifest)
    manifest.write_text("{")
    with pytest.raises(ManifestError, match=r"assets\.json"):
        load_manifest(manifest)


def test_an_unreadable_manifest_is_a_storage_error(repo: Path) -> None:
    """An unreadable file is the disk's fault, not the manifest's."""
    with pytest.raises(StorageError, match="no such file"):
        load_manifest(repo / "gone.json")


# -- whose it is ------------------------------------------------------------------------------------------------------


@pytest.mark.posix
@needs_root
@pytest.mark.shows("S20")
def test_a_manifest_of_another_user_is_used_only_if_it_is_named(repo: Path) -> None:
    """If found in or above the working folder, it is refused and its owner named; if named by the user, it is used."""
    manifest = manifest_at(repo / "assets.json")
    os.chown(manifest, 12345, -1)
    for place in (repo, repo / "src/deep"):
        with pytest.raises(ForeignManifest, match=r"belongs to user 12345.*--config"):
            find(place)
    assert find(repo / "src", config=manifest).manifest_path == manifest
    assert find(repo, {"GRYM_FETCH_CONFIG": "assets.json"}).manifest_path == manifest
    assert find(repo, {"SUDO_UID": "12345"}).manifest_path == manifest
    with pytest.raises(ForeignManifest):
        find(repo, {"SUDO_UID": "12346²"})


@pytest.mark.posix
@needs_root
def test_a_link_of_another_user_is_as_foreign_as_a_file(repo: Path) -> None:
    """A symlink by another user to one of our own manifests would let that user choose where its files go."""
    ours = manifest_at(repo.parent / "ours.json")
    (repo / "assets.json").symlink_to(ours)
    assert find(repo).manifest_path == repo / "assets.json"
    os.chown(repo / "assets.json", 12345, -1, follow_symlinks=False)
    with pytest.raises(ForeignManifest):
        find(repo)


@needs_root
def test_a_manifest_of_root_is_trusted(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root can change anything anyway."""
    manifest = manifest_at(repo / "assets.json")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert find(repo).manifest_path == manifest


@pytest.mark.posix
@pytest.mark.shows("S19")
@pytest.mark.parametrize("target", [".git", "..", "../elsewhere", "nowhere"])
def test_an_assets_folder_that_came_as_a_symlink(repo: Path, target: str) -> None:
    """The default assets folder is never a symlink, wherever it leads; a folder named by the user may be."""
    manifest_at(repo / "assets.json")
    (repo / "assets").symlink_to(target)
    with pytest.raises(UnsafePath, match="--assets-dir or GRYM_FETCH_ASSETS_DIR"):
        find(repo)
    if target == ".git":  # named or not, nothing is written there
        with pytest.raises(UnsafePath, match="git's own folder"):
            find(repo, assets_dir=repo / "assets")
        return
    assert find(repo, {"GRYM_FETCH_ASSETS_DIR": "assets"}).assets_dir == repo / "assets"
    assert find(repo, assets_dir=repo / "assets").assets_dir == repo / "assets"


def test_whether_the_external_folder_was_named(repo: Path) -> None:
    """Whether the user named the external folder is known, since any other one is trusted less."""
    manifest_at(repo / "assets.json")
    assert not find(repo).is_external_named
    assert find(repo, external_assets_dir="x").is_external_named
    assert find(repo, {"GRYM_FETCH_EXTERNAL_ASSETS_DIR": "x"}).is_external_named


def test_a_blank_variable_names_nothing(repo: Path) -> None:
    """Neither the manifest nor a folder: each is found as if the variable were not set."""
    manifest_at(repo / "assets.json")
    names = ("GRYM_FETCH_CONFIG", "GRYM_FETCH_ASSETS_DIR", "GRYM_FETCH_EXTERNAL_ASSETS_DIR")
    for text in ("", " "):
        assert find(repo, dict.fromkeys(names, text)) == find(repo)

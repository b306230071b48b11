"""Which settings files count, and whose."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from grym_fetch import AssetManager, Settings
from grym_fetch.core.errors import ConfigurationError, UnsafePath
from grym_fetch.disk.configuration import read_configuration, user_file
from grym_fetch.manifest_files.project import find_project
from grym_fetch.store.stamps import store_at
from tests.support.other_user import needs_root

OTHER = 4242


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project in a repository."""
    folder = tmp_path / "repo"
    (folder / ".git").mkdir(parents=True)
    (folder / "assets.json").write_text('{"assets": []}')
    return folder


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """The environment, with a home folder of its own."""
    return {"XDG_CONFIG_HOME": str(tmp_path / "home")}


def project_says(root: Path, text: str) -> Path:
    path = root / "pyproject.toml"
    path.write_text(f"[tool.grym-fetch]\n{text}\n")
    return path


def user_says(environ: dict[str, str], text: str) -> Path:
    path = user_file(environ)
    assert path is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_flag_wins_over_the_environment_over_the_project_over_the_user(root: Path, environ: dict[str, str]) -> None:
    """Each layer is removed in turn, and then the next one counts."""

    def parallel(settings: Settings | None = None) -> int:
        return AssetManager(root / "assets.json", settings=settings, environ=environ).settings.parallel

    users, projects = user_says(environ, "parallel = 2"), project_says(root, "parallel = 3")
    environ["GRYM_FETCH_PARALLEL"] = "5"
    assert parallel(Settings(parallel=4)) == parallel(Settings(4)) == 4
    assert parallel(Settings(retries=1)) == 5
    del environ["GRYM_FETCH_PARALLEL"]
    assert parallel() == 3
    projects.unlink()
    assert parallel() == 2
    users.unlink()
    assert parallel() == Settings().parallel


def test_minimal_is_chosen_in_the_same_order(root: Path, environ: dict[str, str]) -> None:
    """The same order decides the choice between assets and their stand-ins."""
    project_says(root, "minimal = true")
    assert AssetManager(root / "assets.json", environ=environ).minimal
    assert not AssetManager(root / "assets.json", minimal=False, environ=environ).minimal
    assert not AssetManager(root / "assets.json", environ={**environ, "GRYM_FETCH_MINIMAL": "no"}).minimal


def test_without_a_project_the_users_settings_hold(tmp_path: Path, environ: dict[str, str]) -> None:
    """A manager that finds no manifest still has settings."""
    user_says(environ, "retries = 7")
    assert AssetManager(tmp_path / "no.json", environ=environ).settings.retries == 7


def test_the_nearest_table_counts(root: Path, environ: dict[str, str]) -> None:
    """The project's root is searched, then the folders above; a pyproject.toml without our table hides none, and the
    repository's root ends the search.
    """
    inner = root / "sub"
    inner.mkdir()
    project_says(root.parent, "parallel = 9")
    assert read_configuration(inner, environ).fetching == {}
    project_says(root, "parallel = 7")
    (inner / "pyproject.toml").write_text("[tool.other]\n")
    assert read_configuration(inner, environ).fetching == {"parallel": 7}
    project_says(inner, "parallel = 6")
    assert read_configuration(inner, environ).fetching == {"parallel": 6}
    outside = root.parent / "plain"
    outside.mkdir()
    assert read_configuration(outside, environ).fetching == {}


def test_the_assets_folder(root: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A project's folder is relative to its file; a user's or the environment's to the root, wherever one works."""
    deep = root / "src"
    deep.mkdir()

    def found(**arguments: str) -> Path:
        return find_project(environ=environ, cwd=deep, **arguments).assets_dir

    user_says(environ, 'assets-dir = "mine"')
    assert found() == root / "mine"
    project_says(root, 'assets-dir = "data/big"')
    assert found() == root / "data/big"
    environ["GRYM_FETCH_ASSETS_DIR"] = "there"
    assert found() == root / "there"
    assert found(assets_dir="here") == deep / "here"
    user_says(environ, 'external-assets-dir = "../shared"')
    project = find_project(environ=environ, cwd=deep)
    assert (project.external_dir, project.is_external_named) == (root / "../shared", True)


@pytest.mark.posix
@pytest.mark.parametrize("name", ["a\nb", "x" * 200 + "/" + "y" * 200])
def test_the_projects_own_path_may_be_any(root: Path, environ: dict[str, str], name: str) -> None:
    """Even if the path cannot be shown unchanged or in full, it is still the folder that the file is in."""
    inner = root / name
    inner.mkdir(parents=True)
    (inner / "assets.json").write_text('{"assets": []}')
    project_says(inner, 'assets-dir = "big"')
    assert find_project(environ=environ, cwd=inner).assets_dir == inner / "big"
    project_says(inner, "big = 1")
    with pytest.raises(ConfigurationError) as caught:
        find_project(environ=environ, cwd=inner)
    assert "\n" not in str(caught.value)


@pytest.mark.posix
@pytest.mark.shows("S23")
@pytest.mark.parametrize("link", ["data", "data/big"])
def test_no_link_of_a_project_leads_out(root: Path, environ: dict[str, str], tmp_path: Path, link: str) -> None:
    """A project that names a folder can also bring a symlink of that name."""
    project_says(root, 'assets-dir = "data/big"')
    (root / link).parent.mkdir(exist_ok=True)
    (root / link).symlink_to(tmp_path)
    with pytest.raises(UnsafePath, match="symlink"):
        find_project(environ=environ, cwd=root)


@pytest.mark.posix
@needs_root
@pytest.mark.shows("S23")
def test_another_users_files_do_not_count(root: Path, environ: dict[str, str]) -> None:
    """Refused unless the project is named; under sudo the caller's files are fine. The user's own settings must
    belong to that user.
    """
    path = project_says(root, "parallel = 3")
    os.chown(path, OTHER, OTHER)
    with pytest.raises(ConfigurationError, match=r"belongs to .*--config"):
        read_configuration(root, environ)
    assert read_configuration(root, environ, is_named=True).fetching == {"parallel": 3}
    assert read_configuration(root, {**environ, "SUDO_UID": str(OTHER)}).fetching == {"parallel": 3}
    path.write_text("[tool.other]\n")
    assert read_configuration(root, environ).fetching == {}
    os.chown(user_says(environ, "parallel = 3"), OTHER, OTHER)
    with pytest.raises(ConfigurationError, match="belongs to"):
        read_configuration(root, environ, is_named=True)


def test_where_the_users_file_is() -> None:
    """The place follows the XDG base directories; a relative one is ignored, and without a home there is none."""
    assert user_file({"XDG_CONFIG_HOME": "/x", "HOME": "/h"}) == Path("/x/grym-fetch/config.toml")
    assert user_file({"XDG_CONFIG_HOME": "x", "HOME": "/h"}) == Path("/h/.config/grym-fetch/config.toml")
    assert user_file({}) is None


@pytest.mark.posix
def test_where_the_store_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a name it is among the user's caches; a relative place for these is ignored."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert store_at(True, {"XDG_CACHE_HOME": "/x"}) == Path("/x/grym-fetch/store")
    assert store_at(True, {"XDG_CACHE_HOME": "x"}) == tmp_path / ".cache/grym-fetch/store"
    assert store_at(False, {}) is None


@pytest.mark.posix
def test_no_pipe_is_waited_for(root: Path, environ: dict[str, str]) -> None:
    """Anything that is not a regular file is not a settings file."""
    os.mkfifo(root / "pyproject.toml")
    assert read_configuration(root, environ).sources == ()


@pytest.mark.parametrize("named", ["variable", "file"])
def test_a_relative_store_is_below_the_projects_root(
    root: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    """As an assets folder that the environment or a file names. One in an argument is below the working folder."""
    (root / "sub").mkdir()
    monkeypatch.chdir(root / "sub")
    if named == "file":
        user_says(environ, 'store = "./store"')
    else:
        environ["GRYM_FETCH_STORE"] = "./store"
    settings = AssetManager(root / "assets.json", environ=environ).settings
    assert store_at(settings.store, environ) == root / "store"
    named_here = AssetManager(root / "assets.json", settings=Settings(store="./store"), environ=environ).settings
    assert store_at(named_here.store, environ) == root / "sub/store"

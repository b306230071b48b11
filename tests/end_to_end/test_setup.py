"""``grym-fetch setup``: it gets a project ready, and leaves it alone the second time."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from grym_fetch.core.manifest_parser import parse_manifest
from grym_fetch.testing import AssetServer, seeded_bytes
from tests.end_to_end.command import run
from tests.support.project import Project

CONTENT = seeded_bytes(300_000, seed=1)
SMALL = seeded_bytes(3_000, seed=2)


@pytest.fixture
def project(tmp_path: Path, server: AssetServer) -> Project:
    """A freshly cloned git repository with a manifest."""
    made = Project(tmp_path / "project")
    made.root.mkdir()
    subprocess.run(["git", "init", "--quiet"], cwd=made.root, check=True)
    file = server.add("/a.bin", CONTENT)
    small = server.add("/small.bin", SMALL)
    stand_in = {"url": small.url, "size": len(SMALL), "checksum": small.sha256}
    made.add("model-a", [file.url], CONTENT, tags=["essential"], minimal=stand_in)
    made.add("model-b", [file.url], CONTENT)
    return made


def states(out: str) -> dict[str, str]:
    """The state of each step in the output of ``--json``."""
    records = [json.loads(line) for line in out.splitlines()]
    return {r["step"]: r["state"] for r in records if r["type"] == "setup_step"}


def snapshot(root: Path) -> dict[Path, bytes]:
    """Every file of a folder except git's and our own state."""
    skip = {".git", ".grym-fetch"}
    return {p: p.read_bytes() for p in root.rglob("*") if p.is_file() and not skip & set(p.parts)}


def test_a_fresh_clone(project: Project, tmp_path: Path) -> None:
    """One command creates folders, records and .gitignore lines, and fetches the required assets."""
    done = run(project.root, "setup")
    assert done.code == 0
    assert project.assets.joinpath("models/model-a.bin").read_bytes() == CONTENT
    assert project.assets.joinpath("models/model-b.bin").read_bytes() == CONTENT
    assert (project.root / ".gitignore").read_text() == "/assets/\n/logs/\n"
    assert [path.name for path in tmp_path.iterdir()] == ["project"], "nothing is made outside of the project unasked"
    status = subprocess.run(
        ["git", "status", "--porcelain"], cwd=project.root, capture_output=True, text=True, check=True
    )
    assert "assets/" not in status.stdout.replace("assets.json", "")
    assert "done  git: added /assets/ and /logs/" in done.out


def test_it_can_be_run_again(project: Project, tmp_path: Path) -> None:
    """The second run changes nothing and says that everything was right already."""
    first = states(run(project.root, "setup", "--json").out)
    assert {step for step, state in first.items() if state == "done"} == {
        "assets folder", "git",
    }  # fmt: skip
    before = snapshot(tmp_path)
    done = run(project.root, "setup", "--json")
    assert done.code == 0
    assert set(states(done.out).values()) == {"ok"}
    assert snapshot(tmp_path) == before


def test_without_a_manifest(tmp_path: Path) -> None:
    """In a repository without a manifest, an empty valid one is created at its root, and reported."""
    (tmp_path / "repo" / ".git").mkdir(parents=True)
    deep = tmp_path / "repo" / "src" / "deep"
    deep.mkdir(parents=True)
    done = run(deep, "setup")
    assert done.code == 0
    manifest = tmp_path / "repo" / "assets.json"
    assert parse_manifest(manifest.read_bytes(), "m").warnings == ()
    assert f"made {manifest}" in done.out
    assert "nothing to fetch: the manifest lists no assets" in done.err
    assert not list(deep.iterdir())


def test_outside_of_a_repository(tmp_path: Path) -> None:
    """Without git the manifest is created in the working directory, and nothing is ignored."""
    folder = tmp_path / "work"
    folder.mkdir()
    done = run(folder, "setup")
    assert done.code == 0
    assert (folder / "assets.json").is_file()
    assert not (folder / ".gitignore").exists()
    assert "no git repository" in done.out


def test_a_named_manifest_that_is_not_there(tmp_path: Path) -> None:
    """A missing manifest that was named is not created: the name is most likely a typo."""
    done = run(tmp_path, "setup", "--config", "asets.json")
    assert done.code == 2
    assert "asets.json" in done.err
    assert not list(tmp_path.iterdir())


def test_skip_assets(project: Project, server: AssetServer) -> None:
    """--skip-assets sets everything up and fetches nothing."""
    done = run(project.root, "setup", "--skip-assets")
    assert done.code == 0
    assert project.assets.is_dir()
    assert "586 KiB to be fetched" in done.out
    assert not server.stats.requests


def test_minimal(project: Project) -> None:
    """--minimal fetches the essential assets, as their stand-ins."""
    assert run(project.root, "setup", "--minimal").code == 0
    assert (project.assets / "minimal/models/model-a.bin").read_bytes() == SMALL
    assert not (project.assets / "models").exists()


def test_external_assets_dir(project: Project, tmp_path: Path) -> None:
    """--external-assets-dir creates the external folder, with its record and the lines for .gitignore."""
    assert run(project.root, "setup", "--external-assets-dir", str(tmp_path / "shared"), "--skip-assets").code == 0
    assert (tmp_path / "shared" / "asset-manifest.json").is_file()
    assert not (tmp_path / "assets").exists()


def test_what_is_there_is_kept(project: Project, tmp_path: Path) -> None:
    """Existing records and ignore files are not replaced; lines are added after the existing ones."""
    external = tmp_path / "assets"
    external.mkdir()
    (external / "asset-manifest.json").write_text("mine")
    (project.root / ".gitignore").write_text("*.pyc\nassets/")
    assert run(project.root, "setup", "--skip-assets").code == 0
    assert (external / "asset-manifest.json").read_text() == "mine"
    assert (project.root / ".gitignore").read_text() == "*.pyc\nassets/\n/logs/\n"


def test_files_that_git_tracks(project: Project) -> None:
    """Files in the assets folder that git already tracks cause a warning, with the command that ends it."""
    (project.assets / "big.bin").parent.mkdir()
    (project.assets / "big.bin").write_bytes(SMALL)
    subprocess.run(["git", "add", "--force", "assets"], cwd=project.root, check=True)
    done = run(project.root, "setup", "--skip-assets")
    assert done.code == 0
    assert "warn  git: git tracks 1 file in assets nevertheless" in done.out
    assert "git rm -r --cached assets" in done.out


def test_the_exit_code_is_that_of_sync(project: Project, server: AssetServer) -> None:
    """setup returns what sync would; what was created stays, and the next run continues."""
    project.add("gone", [server.url("/gone.bin")], CONTENT)
    done = run(project.root, "setup")
    assert done.code == 1
    assert "gone" in done.err
    assert (project.root / ".gitignore").is_file()


def test_a_folder_that_cannot_be_made(project: Project, server: AssetServer) -> None:
    """A file in place of the assets folder is a storage failure; nothing is fetched."""
    project.assets.write_bytes(b"")
    done = run(project.root, "setup")
    assert done.code == 4
    assert "FAIL" in done.out
    assert not server.stats.requests


def test_a_bad_proxy(project: Project, server: AssetServer) -> None:
    """Network settings that cannot work stop the setup before anything is fetched."""
    done = run(project.root, "setup", HTTP_PROXY="gopher://x:1")
    assert done.code == 1
    assert "HTTP_PROXY: the proxy in the environment is of a kind (gopher) that is not supported" in done.out
    assert not server.stats.requests


@pytest.mark.shows("S19")
def test_nothing_is_written_through_symlinks(project: Project, tmp_path: Path, server: AssetServer) -> None:
    """If a .gitignore, an assets folder, an external folder or a log leads elsewhere, nothing is written there."""
    home = tmp_path / "home"
    home.mkdir()
    (home / ".bashrc").write_bytes(b"")
    ignore = project.root / ".gitignore"
    ignore.symlink_to(home / ".bashrc")
    done = run(project.root, "setup")
    assert (done.code, "nothing is written through it" in done.err) == (4, True)
    ignore.unlink()

    project.assets.rmdir()
    project.assets.symlink_to(home)
    for command in ("setup", "sync"):
        done = run(project.root, command)
        assert (done.code, "--assets-dir" in done.err) == (4, True)
    assert run(project.root, "sync", "--assets-dir", str(tmp_path / "mine")).code == 0
    project.assets.unlink()

    (tmp_path / "assets").symlink_to(home)
    (project.root / "logs").mkdir()
    (project.root / "logs/asset-manager.log").symlink_to(home / ".bashrc")
    done = run(project.root, "setup", GRYM_FETCH_ENV="production")
    assert done.code == 0
    assert "is a symlink; `clean` and `restore` use it only if you name it" in done.out
    assert "no log file" in done.err
    assert "it is a symlink, and none is followed" in done.err
    (project.root / "logs/asset-manager.log").unlink()
    (project.root / "logs").rmdir()
    (project.root / "logs").symlink_to(home)
    assert "no log file" in run(project.root, "sync", GRYM_FETCH_ENV="production").err
    assert [path.name for path in home.iterdir()] == [".bashrc"]
    assert (home / ".bashrc").read_bytes() == b""


def test_folders_with_odd_names(tmp_path: Path, server: AssetServer) -> None:
    """Special characters are escaped in .gitignore, so that the line names only this folder."""
    made = Project(tmp_path / "re[po]/ab * c")
    made.root.mkdir(parents=True)
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path / "re[po]", check=True)
    made.add("model", [server.add("/a.bin", CONTENT).url], CONTENT)
    assert run(made.root, "setup").code == 0
    assert (tmp_path / "re[po]/.gitignore").read_text() == "/ab \\* c/assets/\n/ab \\* c/logs/\n"
    assert states(run(made.root, "setup", "--json").out)["git"] == "ok"


@pytest.mark.shows("S21")
def test_files_that_were_moved_out_are_named(project: Project, tmp_path: Path) -> None:
    """In a fresh clone, setup names the files that exist only as placeholders, with the command that gets them."""
    (project.root / "big.dat").write_bytes(CONTENT)
    assert run(project.root, "clean", "0.1", "-y").code == 0
    done = run(project.root, "setup", "--skip-assets")
    assert done.code == 0
    assert "warn  moved files: 1 file of 293 KiB was moved out of git: big.dat" in done.out
    assert "grym-fetch restore --all" in done.out
    assert run(project.root, "restore", "--all").code == 0
    assert "moved files" not in run(project.root, "setup", "--skip-assets").out

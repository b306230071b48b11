"""The commands of the machine's store: ``store``, ``check --store``, ``prune --store``, ``sync --store``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from grym_fetch.testing import AssetServer, seeded_bytes
from tests.end_to_end.command import run
from tests.support.project import Project

CONTENT = seeded_bytes(300_000, seed=8)


def blocks(*folders: Path) -> int:
    """Bytes on the disk, as `du` counts them: each file once."""
    inodes = {(f.stat().st_ino, f.stat().st_dev): f.stat().st_blocks * 512 for d in folders for f in d.rglob("*.bin")}
    return sum(inodes.values())


@pytest.fixture
def projects(tmp_path: Path, server: AssetServer) -> tuple[Project, Project]:
    """Two projects with the same asset."""
    return (
        Project.with_one_asset(tmp_path / "one", server, CONTENT),
        Project.with_one_asset(tmp_path / "two", server, CONTENT),
    )


def pruned_kinds(folder: Path, *options: str) -> list[str]:
    """What kinds of things `prune --store` removes."""
    done = run(folder, "prune", "--store", "--json", *options)
    assert done.code == 0, done.err
    return [json.loads(line)["kind"] for line in done.out.splitlines() if "kind" in json.loads(line)]


@pytest.mark.sweep
def test_two_projects_share_one_download_and_one_copy(
    projects: tuple[Project, Project], server: AssetServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands, from the first sync to the last byte freed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first, second = (run(project.root, "sync", "--json", "--store") for project in projects)
    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert [event["link"] for event in first.of("asset_verified")] == ["hardlink"]
    assert [event["link"] for event in second.of("asset_reused")] == ["hardlink"]
    assert server.stats.body_bytes_sent == len(CONTENT)
    assert blocks(*(project.root for project in projects)) < 1.2 * len(CONTENT)
    # The store needs no project.
    shown = run(tmp_path, "store", "--json")
    *records, total = map(json.loads, shown.out.splitlines())
    assert [(len(each["used_by"]), each["size"]) for each in records] == [(2, len(CONTENT))]
    assert (total["files"], total["bytes"], total["projects"]) == (1, len(CONTENT), 2)
    assert str(projects[0].assets) in run(tmp_path, "store").out
    assert run(tmp_path, "check", "--store").code == 0
    assert "object" not in pruned_kinds(tmp_path)
    for project in projects:
        project.finals()["a"].unlink()
    assert "object" not in pruned_kinds(tmp_path, "--older-than", "30")
    assert "no project uses it" in run(tmp_path, "prune", "--store", "--max-size", "100KB").out
    assert json.loads(run(tmp_path, "store", "--json").out)["files"] == 0


@pytest.mark.posix
def test_a_damaged_store(projects: tuple[Project, Project], tmp_path: Path) -> None:
    """Exit code 3, and who has it."""
    place = tmp_path / "mine"
    place.mkdir()
    assert run(projects[0].root, "sync", f"--store={place}").code == 0
    file = projects[0].finals()["a"]
    file.chmod(0o644)
    with file.open("r+b") as out:
        out.write(b"!")
    done = run(tmp_path, "check", f"--store={place}")
    assert done.code == 3
    assert str(file) in done.out


@pytest.mark.posix
def test_a_word_is_no_folder(projects: tuple[Project, Project]) -> None:
    """In the variable, what is neither yes nor no nor a path is refused, as by the Python API."""
    done = run(projects[0].root, "sync", GRYM_FETCH_STORE="yep")
    assert done.code == 2
    assert "GRYM_FETCH_STORE: 'yep' is neither yes nor no" in done.err


@pytest.mark.posix
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("sync", "--store", "voices"), "there is no folder 'voices'"),
        (("prune", "--older-than", "3"), "--older-than and --max-size go with --store"),
        (("check", "a", "--store"), "it takes no ids"),
        (("check", "--store=./mistyped"), "there is no store in"),
        (("prune", "--store=./mistyped"), "there is no store in"),
        (("store", "mistyped"), "there is no store in"),
        (("prune", "--store=."), "there is no store in"),
    ],
)
def test_wrong_usage(projects: tuple[Project, Project], arguments: tuple[str, ...], said: str) -> None:
    """What is more likely a mistake is refused: an id after --store is not the name of a new folder."""
    done = run(projects[0].root, *arguments)
    assert done.code == 2
    assert said in done.err


@pytest.mark.posix
def test_a_store_for_everything(
    projects: tuple[Project, Project], server: AssetServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the variable or the user's file turns it on, it is where caches are, and commands mean the project still.

    `check` with a store has nothing to do with the store, unless it is told so: it must not say that all is right.
    """
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert run(projects[0].root, "check", GRYM_FETCH_STORE="1").code == 1
    assert run(projects[0].root, "sync", GRYM_FETCH_STORE="1").code == 0
    assert len(list((tmp_path / "home/.cache/grym-fetch/store/objects").glob("*/*/*"))) == 1
    (projects[0].assets / "stray").write_bytes(b"?")
    assert "stray" in run(projects[0].root, "prune", "-n", GRYM_FETCH_STORE="1").out
    (tmp_path / "config/grym-fetch").mkdir(parents=True)
    (tmp_path / "config/grym-fetch/config.toml").write_text("store = true\n")
    server.stats.reset()
    done = run(projects[1].root, "sync", "--json")
    assert [event["link"] for event in done.of("asset_reused")] == ["hardlink"]
    assert not server.stats.requests

"""Which assets a command takes: ids, globs and ``--exclude``, the same for each command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.running import invoke
from tests.support.project import Project

CONTENT = b"content"
TAKE_SEVERAL = ["sync -n", "check", "pin", "export --format curl", "outdated", "update -n", "doctor", "repair -n"]
TAKE_ONE = ["path --offline", "info", "remove"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Three assets, all of them there; nothing listens at their addresses."""
    made = Project(tmp_path)
    for name in ("voice-a", "voice-b", "text"):
        file = made.add(name, [f"http://127.0.0.1:1/{name}"], CONTENT)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(CONTENT)
    monkeypatch.chdir(tmp_path)
    return made


def planned(*arguments: str) -> list[str]:
    """The assets that a sync would take."""
    done = invoke("sync", "--dry-run", "--json", *arguments)
    assert done.exit_code == 0, done.output
    return sorted(json.loads(done.stdout)["present"])


def test_a_sync_takes_globs_and_leaves_out(project: Project) -> None:
    """Both add up, and `--exclude` wins whatever chose the asset."""
    assert planned("voice-*") == ["voice-a", "voice-b"]
    assert planned("--asset-id", "voice-?", "text", "--exclude", "*-b") == ["text", "voice-a"]
    assert planned("--exclude", "text", "--exclude", "voice-a") == ["voice-b"]
    assert planned("--all", "--exclude", "voice*") == ["text"]


def test_nothing_left_is_said(project: Project) -> None:
    """Who excludes all that was chosen is told; where nothing is marked, how many are left out, too."""
    assert "nothing to fetch: everything chosen is excluded" in invoke("sync", "text", "--exclude", "t*").stderr
    for entry in project.entries:
        entry["required"] = False
    project.write()
    said = invoke("sync", "-n", "--exclude", "voice-*").stderr
    assert "no asset is marked as required: taking all 3 but 2 excluded" in said


@pytest.mark.parametrize("command", TAKE_SEVERAL)
@pytest.mark.parametrize("choice", ["voise-*", "text --exclude voise-*", "--exclude voise-a"])
def test_what_matches_nothing_is_wrong_usage(project: Project, command: str, choice: str) -> None:
    """For every command that takes ids, with the nearest ids, and before anything is done."""
    done = invoke(*command.split(), *choice.split())
    assert done.exit_code == 2, done.output
    assert "voice-a" in done.stderr.partition("Did you mean")[2]


@pytest.mark.parametrize("command", TAKE_ONE)
def test_a_glob_may_name_the_one_asset(project: Project, command: str) -> None:
    """A command for one asset takes a glob that matches one, and no other."""
    several = invoke(*command.split(), "voice-*")
    assert several.exit_code == 2
    assert "matches 2 assets (voice-a, voice-b); name one" in several.stderr
    assert "text" in invoke(*command.split(), "t*").stdout
    assert invoke(*command.split(), "voise-*").exit_code == 2


def test_check_and_export_take_globs(project: Project) -> None:
    """What is shown is what was chosen, in the order in which it was named."""
    done = invoke("check", "--json", "text", "voice-*", "--exclude", "voice-b")
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == ["text", "voice-a"]
    done = invoke("export", "--format", "sha256sums", "--exclude", "voice-*")
    assert len(done.stdout.splitlines()) == 1


def test_a_glob_asks_only_for_what_has_a_source(project: Project) -> None:
    """An asset that is named and has no source is wrong usage; one that a glob happens to match is passed over."""
    assert invoke("outdated", "text").exit_code == 2
    assert invoke("outdated", "*").exit_code == 0
    assert invoke("update", "text", "https://x.example.org/t", "--exclude", "voice-a").exit_code == 2

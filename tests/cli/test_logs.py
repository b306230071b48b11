"""Which commands write the log files, and which files those are."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from grym_fetch.cli.main import cli
from tests.support.project import Project

COMMANDS = {
    "doctor": "manifest",
    "schema": "schema began",
    "identify": "identify began",
    "list": "a warning",
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A repository whose manifest gives a warning; one is in a folder of it."""
    made = Project(tmp_path / "project")
    made.write()
    made.manifest.write_text(json.dumps({"assets": [], "a warning": 1}))
    (made.root / ".git").mkdir()
    (made.root / "below").mkdir()
    monkeypatch.chdir(made.root / "below")
    return made


def run(*arguments: str, **variables: str) -> int:
    """Call the command line in this process."""
    return CliRunner().invoke(cli, [*arguments], standalone_mode=False, env=variables).return_value or 0


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_logs(project: Project, command: str) -> None:
    """To the file that is named and, in production, to the project's; from a folder below as from the root."""
    named, own = project.root / "x.log", project.root / "logs/asset-manager.log"
    run(command, "--log-file", str(named))
    assert COMMANDS[command] in named.read_text()
    assert not own.exists()
    named.unlink()
    run(command, "--log-file", str(named), GRYM_FETCH_ENV="production")
    assert COMMANDS[command] in own.read_text()
    assert COMMANDS[command] in named.read_text()
    assert not (project.root / "below" / "logs").exists()


@pytest.mark.parametrize("command", ["sync", "doctor", "list"])
def test_an_invalid_manifest_leaves_a_line(project: Project, command: str) -> None:
    """Whoever looks into the log later sees why nothing was done."""
    project.manifest.write_text('{"assets": [{"id": "a", "url": "ftp://x/a", "localPath": "a"}]}')
    assert run(command, GRYM_FETCH_ENV="production") == 2
    text = (project.root / "logs/asset-manager.log").read_text()
    assert "ERROR" in text or "fail manifest" in text
    assert "ftp" in text


def test_a_missing_manifest_leaves_a_line(project: Project) -> None:
    """In the file that is named: there is no project to have one."""
    project.manifest.unlink()
    assert run("sync", "--log-file", str(project.root / "x.log")) == 2
    assert "no manifest" in (project.root / "x.log").read_text()


@pytest.mark.parametrize(("size", "is_rotated"), [((5 << 20) - 10_000, False), (5 << 20, True)])
def test_a_log_is_rotated_at_5_mib_and_five_old_ones_are_kept(project: Project, size: int, is_rotated: bool) -> None:
    """What is logged for months fills no disk."""
    named = project.root / "x.log"
    for number in range(6):
        file = named.with_name(f"x.log.{number}" if number else "x.log")
        file.write_bytes(b"%d\n" % number)
        os.truncate(file, size)  # the rest is a hole: the disk need not hold it
    run("doctor", "--log-file", str(named))
    kept = sorted(path.name for path in project.root.glob("x.log*"))
    assert kept == ["x.log", *(f"x.log.{number}" for number in range(1, 6))]
    assert named.stat().st_size < 5 << 20
    assert [int((project.root / name).read_bytes()[:1]) for name in kept[1:]] == (
        [0, 1, 2, 3, 4] if is_rotated else [1, 2, 3, 4, 5]
    )

"""Options from the environment: the command and the Python API read each variable as the same setting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from grym_fetch import AssetManager, Settings
from grym_fetch.cli.main import COMMANDS, cli
from grym_fetch.cli.options import Flag, transfer_options
from grym_fetch.cli.settings import settings_from
from grym_fetch.core.variables import VARIABLES
from tests.support.project import Project

TEXTS = {
    "parallel": ["1", "8"], "max_per_host": ["3"], "mirrors": ["together", "fallback"], "limit_rate": ["500K", "1.5M"],
    "retries": ["0", "9"], "stall_timeout": ["0.5"], "connect_timeout": ["3"], "lock_timeout": ["0", "60"],
    "patience": ["0", "30"], "mirror_rules": ["https://a.example.org/ = https://b.example.org/ only together"],
    "link_mode": ["copy", "auto"], "store": ["1", "no", "/srv/store"],
}  # fmt: skip
CASES = [(v.name, text) for v in VARIABLES for text in TEXTS.get(v.setting, ["1", "no", "On", "F", " y "])]
CASES += [(name, " ") for name in dict.fromkeys(v.name for v in VARIABLES)]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A manifest in the working folder."""
    made = Project(tmp_path)
    made.add("a", ["https://models.example.org/a.bin"], b"content")
    monkeypatch.chdir(tmp_path)
    return made


def by_command(*arguments: str) -> Settings:
    """The settings of a command with options for fetching."""
    got: list[Settings] = []

    @click.command()
    @transfer_options
    def command(progress: str, progress_interval: float, **options: Any) -> None:
        got.append(settings_from(options))

    command.main(list(arguments), standalone_mode=False)
    return got[0]


@pytest.mark.parametrize(("name", "text"), CASES)
def test_a_variable_means_the_same_to_both(
    project: Project, monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    """A variable set for the command also holds for programs, whichever words are used."""
    monkeypatch.setenv(name, text)
    program, command = (AssetManager(project.manifest, settings=chosen).settings for chosen in (None, by_command()))
    assert program == command


def test_without_variables_both_have_the_same_defaults(project: Project) -> None:
    """The command line and `Settings` have the same defaults."""
    assert AssetManager(project.manifest).settings == by_command() == Settings()


def test_an_option_wins(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """This holds even for an option that names the default."""
    monkeypatch.setenv("GRYM_FETCH_PARALLEL", "9")
    chosen = by_command("--parallel", "4")
    assert AssetManager(project.manifest, settings=chosen).settings.parallel == 4


@pytest.mark.parametrize("command", ["sync", "check", "list", "doctor", "path a", "setup", "info a", "pin", "prune"])
def test_a_wrong_word_is_wrong_usage(project: Project, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """Every command that has a manager, with such an option or not, ends with exit code 2 and names the variable."""
    monkeypatch.setenv("GRYM_FETCH_OFFLINE", "maybe")
    done = CliRunner().invoke(cli, command.split())
    assert done.exit_code == 2
    assert "GRYM_FETCH_OFFLINE" in done.output
    assert "'maybe' is neither yes nor no" in done.output
    assert not project.assets.exists()


def test_every_flag_is_read_by_the_one_reader() -> None:
    """No command reads a flag in its own way."""
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        flags = [p for p in command.params if isinstance(p, click.Option) and p.is_flag and p.envvar is not None]
        assert all(isinstance(flag.type, Flag) for flag in flags), name

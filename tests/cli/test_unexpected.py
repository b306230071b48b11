"""How a command ends after something unforeseen: in words, with what to report, and never with a traceback."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from grym_fetch import AssetManager
from grym_fetch._version import __version__
from grym_fetch.cli import main as cli_main
from grym_fetch.cli import unexpected
from tests.cli.running import invoke
from tests.support.project import Project
from tests.support.sweeps import typical

COMMANDS = [
    "sync", "check", "path a", "list", "info a", "schema", "add http://127.0.0.1:9/x", "pin", "remove a", "prune",
    "identify", "clean -n", "restore --all", "setup --skip-assets", "doctor",
]  # fmt: skip


def ended(command: str, script: str = "$G {}", **environment: str) -> subprocess.CompletedProcess[str]:
    """A command that ran in a shell, as ``$G``."""
    program = f"{shlex.quote(sys.executable)} -m grym_fetch"
    return subprocess.run(
        ["/bin/sh", "-c", script.format(command)],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env={"G": program, "PATH": os.environ["PATH"], **environment},
    )


@pytest.mark.posix
@pytest.mark.parametrize("command", typical(COMMANDS, "sync", "doctor"))
@pytest.mark.shows("D23")
def test_a_working_folder_that_is_gone(tmp_path: Path, command: str) -> None:
    """Each command says so in one line, with the exit code of a disk that refuses, or works without the folder."""
    (tmp_path / "gone").mkdir()
    done = ended(command, f"cd {tmp_path}/gone && rmdir {tmp_path}/gone && $G {{}}")
    assert "Traceback" not in done.stderr
    assert "bug" not in done.stderr
    if command != "schema":
        assert (done.returncode, done.stderr.splitlines()[0]) == (
            4,
            "error: the working folder was deleted or cannot be entered",
        )


@pytest.mark.parametrize(
    "command", typical(["sync", "list", "add ~/x", "clean -n 1 . ~/x", "doctor"], "sync", "add ~/x")
)
@pytest.mark.shows("D23")
def test_a_user_without_a_home(tmp_path: Path, command: str) -> None:
    """In a container an unlisted user has no home folder: `~` is then an ordinary name, and nothing fails."""
    program = (
        "import os, pwd, sys\n"
        "def unknown(_): raise KeyError\n"
        f"pwd.getpwuid = pwd.getpwnam = unknown; sys.argv = ['grym-fetch', *{shlex.split(command)!r}]\n"
        "from grym_fetch.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert "bug" not in done.stderr


@pytest.mark.shows("D23")
def test_a_bug_is_told_as_one(project_with_a_bug: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """The message has its name, its text without secrets, the versions, and what to report; exit code 1."""
    with pytest.raises(SystemExit) as end:
        cli_main()
    assert end.value.code == 1
    told = capsys.readouterr().err
    assert told.startswith("error: this is a bug in grym-fetch: ZeroDivisionError: http://x.org/\nhint: Please report")
    assert f"grym-fetch {__version__}" in told
    assert "-vv" in told
    assert "secret" not in told


@pytest.fixture
def project_with_a_bug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project in which every listing ends in a bug."""
    project = Project(tmp_path / "project")
    project.write()

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("http://u:secret@x.org/?token=secret")

    monkeypatch.setattr(AssetManager, "initialize", fail)
    monkeypatch.chdir(project.root)
    monkeypatch.setattr(sys, "argv", ["grym-fetch", "list"])
    return project


def test_an_import_that_fails_is_told_as_a_bug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """This holds even before the command has begun: the last catch is in `main`."""
    monkeypatch.setitem(sys.modules, "grym_fetch.cli.inspection", None)
    monkeypatch.setattr(sys, "argv", ["grym-fetch", "list"])
    with pytest.raises(SystemExit) as end:
        cli_main()
    assert end.value.code == 1
    assert "this is a bug in grym-fetch: ModuleNotFoundError" in capsys.readouterr().err


def test_a_refusal_of_the_system_is_no_bug(capsys: pytest.CaptureFixture[str]) -> None:
    """It is reported in the system's words, with the place: exit code 4."""
    assert unexpected.tell_unexpected(PermissionError(13, "Permission denied", b"/x"), more_is_shown=False) == 4
    assert capsys.readouterr().err == "error: permission denied (/x)\n"


@pytest.mark.posix
@pytest.mark.shows("D23")
def test_a_machine_without_a_place_for_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that needs one names it, with the exit code of a disk that refuses; it is not a bug."""
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    subprocess.run(
        [
            "git",
            "-C",
            tmp_path,
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@t",
            "commit",
            "-q",
            "--allow-empty",
            "-m",
            "x",
        ],
        check=True,
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    done = invoke("identify", "1", ".", "--history")
    assert (done.exit_code, done.stderr.count("\n")) == (4, 1), done.output
    assert done.stderr.startswith("error: no such file or directory (")
    assert "gone" in done.stderr

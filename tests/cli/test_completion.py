"""What a shell completes, tried in a real shell."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from grym_fetch.cli.completion import SHELLS, place, script
from tests.cli.running import invoke
from tests.end_to_end.command import environment
from tests.support.project import Project

# Completes a line as bash does when Tab is pressed at its end.
PRESS_TAB = """
eval "$(grym-fetch completion bash)"
read -ra COMP_WORDS <<< "$1"
[[ "$1" == *" " ]] && COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_grym_fetch_completion grym-fetch
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Three assets with tags, in the working folder."""
    made = Project(tmp_path / "project")
    for name, tags in (("voice-a", ["audio"]), ("voice-b", ["audio", "big"]), ("text", ["small"])):
        made.add(name, [f"http://127.0.0.1:1/{name}"], b"x", tags=tags)
    monkeypatch.chdir(made.root)
    return made


def completed(line: str) -> list[str]:
    """What would be offered at the end of this line, requested as a shell does it."""
    done = invoke(_GRYM_FETCH_COMPLETE="bash_complete", COMP_WORDS=line, COMP_CWORD=str(len(line.split(" ")) - 1))
    assert done.exit_code == 0, done.output
    return [each.partition(",")[2] for each in done.stdout.splitlines() if each]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("grym-fetch sy", ["sync"]),
        ("grym-fetch sync vo", ["voice-a", "voice-b"]),
        ("grym-fetch sync voice-a v", ["voice-b"]),
        ("grym-fetch sync --exclude te", ["text"]),
        ("grym-fetch sync --asset-id te", ["text"]),
        ("grym-fetch sync --tag ", ["audio", "big", "small"]),
        ("grym-fetch list --tag b", ["big"]),
        ("grym-fetch path te", ["text"]),
        ("grym-fetch remove te", ["text"]),
        ("grym-fetch update te", ["text"]),
        ("grym-fetch sync --mirrors t", ["together"]),
        ("grym-fetch sync --paral", ["--parallel"]),
        ("grym-fetch completion ", ["bash", "zsh", "fish"]),
        ("grym-fetch help sy", ["sync"]),
    ],
)
def test_what_is_offered(project: Project, line: str, offered: list[str]) -> None:
    """Commands, options, choices, and the ids and tags of the current manifest."""
    assert completed(line) == offered


def test_another_manifest_can_be_named(project: Project, tmp_path: Path) -> None:
    """The manifest named on the line is used."""
    project.entries.clear()
    other = Project(tmp_path / "other")
    other.add("else", ["http://127.0.0.1:1/else"], b"x")
    assert completed(f"grym-fetch sync --config {other.manifest} e") == ["else"]


@pytest.mark.parametrize("text", [None, "{", '{"assets": 3}'])
def test_without_a_usable_manifest_no_id_is_offered(project: Project, text: str | None) -> None:
    """Pressing Tab prints no error over the line."""
    if text is None:
        project.manifest.unlink()
    else:
        project.manifest.write_text(text)
    assert completed("grym-fetch sync v") == []
    assert completed("grym-fetch sy") == ["sync"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes(project: Project) -> None:
    """The printed script works in a real bash: it completes a command and an id."""
    tools = f"{Path(sys.executable).parent}:{os.environ['PATH']}"

    def pressed(line: str) -> list[str]:
        done = subprocess.run(
            ["bash", "--norc", "-c", PRESS_TAB, "bash", line],
            cwd=project.root,
            env=environment(PATH=tools),
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""
        return done.stdout.split()

    assert pressed("grym-fetch sync vo") == ["voice-a", "voice-b"]


@pytest.mark.parametrize("shell", SHELLS)
def test_it_is_installed_where_the_shell_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    """It is installed in the user's own home, and over an older one; if it is only printed, nothing is written."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert invoke("completion", shell).stdout == script(shell)
    assert not list(tmp_path.iterdir())
    for _ in range(2):
        done = invoke("completion", shell, "--install")
        assert (done.exit_code, done.stdout) == (0, "")
        assert place(shell).read_text() == script(shell)
    assert place(shell).is_relative_to(tmp_path)
    monkeypatch.delenv("HOME")
    assert invoke("completion", shell, "--install").exit_code == 2

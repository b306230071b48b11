"""What a shell completes, tried in a real shell."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Self

import pytest

from grym_fetch.cli.completion import SHELLS, place, script
from tests.cli.running import invoke
from tests.end_to_end.command import environment
from tests.support.project import Project

GRYM_FETCH = str(Path(sys.executable).with_name("grym-fetch"))
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


@pytest.mark.posix
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


@pytest.mark.sweep
@pytest.mark.skipif(shutil.which("fish") is None, reason="there is no fish")
def test_fish_completes(project: Project, tmp_path: Path) -> None:
    """Installed, the script works in a real fish: a command, ids with their names, and a tag."""
    environ = in_a_shell(tmp_path)
    subprocess.run([GRYM_FETCH, "completion", "fish", "--install"], env=environ, capture_output=True, check=True)

    def pressed(line: str) -> list[str]:
        ask = ["fish", "-c", f"complete -C '{line}'"]
        done = subprocess.run(ask, cwd=project.root, env=environ, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return [each.partition("\t")[0] for each in done.stdout.splitlines()]

    assert pressed("grym-fetch sync vo") == ["voice-a", "voice-b"]
    assert pressed("grym-fetch list --tag b") == ["big"]
    assert "sync" in pressed("grym-fetch s")


@pytest.mark.sweep
@pytest.mark.skipif(shutil.which("zsh") is None, reason="there is no zsh")
def test_zsh_completes(project: Project, tmp_path: Path) -> None:
    """Installed as the command says, the script works in a real zsh on a terminal: Tab offers ids."""
    environ = in_a_shell(tmp_path) | {"TERM": "xterm", "PS1": "> "}
    done = subprocess.run([GRYM_FETCH, "completion", "zsh", "--install"], env=environ, capture_output=True, check=True)
    line = done.stderr.decode().partition("~/.zshrc: ")[2].strip()
    (tmp_path / ".zshrc").write_text(f"{line}\nsetopt no_list_ambiguous\n")
    with Shell(["zsh", "-i"], project.root, environ) as shell:
        shell.until(b"> ")
        shell.type(b"grym-fetch sync vo\t")
        shell.until(b"voice-a", b"voice-b")


class Shell:
    """An interactive shell on a terminal. Ended with the block."""

    def __init__(self, command: list[str], folder: Path, environ: dict[str, str]) -> None:
        self._ours, theirs = pty.openpty()
        self._process = subprocess.Popen(
            command, cwd=folder, env=environ, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        os.close(theirs)

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._ours, keys)

    def until(self, *texts: bytes) -> None:
        """Read until all of these have come."""
        seen = b""
        while not all(text in seen for text in texts):
            assert select.select([self._ours], [], [], 30)[0], f"it is silent: {seen!r}"
            seen += os.read(self._ours, 65_536)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._ours)


def in_a_shell(home: Path) -> dict[str, str]:
    """The environment of a user with this home folder and the command installed."""
    return environment(PATH=f"{Path(GRYM_FETCH).parent}:{os.environ['PATH']}", HOME=str(home))


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
    told = json.loads(invoke("completion", shell, "--install", "--json").stdout)
    assert told == {"shell": shell, "installed": str(place(shell))}
    assert place(shell).is_relative_to(tmp_path)
    monkeypatch.delenv("HOME")
    assert invoke("completion", shell, "--install").exit_code == 2

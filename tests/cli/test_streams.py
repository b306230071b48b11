"""Standard streams that are closed, full, of another encoding, or without a reader: with real processes."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from grym_fetch.cli import streams
from grym_fetch.testing import AssetServer
from tests.display.scripted import FakeTerminal
from tests.end_to_end.command import environment
from tests.support.project import KIB, Project
from tests.support.sweeps import typical
from tests.support.terminal import Terminal

CONTENT = bytes(range(256)) * KIB


@pytest.fixture
def project(tmp_path: Path, server: AssetServer) -> Project:
    """A project with one asset, not fetched yet, whose name is in another script."""
    project = Project(tmp_path / "project")
    project.add("模型", [server.add("/a.bin", CONTENT).url], CONTENT, name="模型")
    return project


def shell(project: Project, script: str, **more: str) -> subprocess.CompletedProcess[bytes]:
    """Run a line of shell in which ``$G`` is the command; return the result. ``$?`` is the command's exit code."""
    script = script.replace("$G", f'"{sys.executable}" -m grym_fetch')
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {script}"],
        cwd=project.root,
        env=environment(**more),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )


@pytest.mark.posix
@pytest.mark.shows("U7")
@pytest.mark.parametrize("closed", typical([">&-", "2>&-", "<&- >&- 2>&-"], "<&- >&- 2>&-"))
def test_a_closed_stream_is_no_descriptor_for_a_file(project: Project, closed: str) -> None:
    """Output goes nowhere, not into the file that would have got the stream's number."""
    done = shell(project, f"$G sync --json -vv {closed}")
    assert done.returncode == 0, done.stderr
    assert (project.assets / "models" / "模型.bin").read_bytes() == CONTENT
    assert b"Traceback" not in done.stderr


@pytest.mark.posix
@pytest.mark.shows("U7")
@pytest.mark.parametrize("command", ["list", "schema", "--help"])
def test_output_that_is_lost_is_an_error(project: Project, command: str) -> None:
    """A list that could not be written is an error: one line says why, and the exit code is that of a full disk."""
    done = shell(project, f"$G {command} >/dev/full")
    assert done.returncode == 4
    assert done.stderr == b"error: the output could not be written: no space left on device\n"


@pytest.mark.posix
@pytest.mark.shows("U7")
def test_a_full_disk_for_events_or_for_words_stops_no_download(project: Project) -> None:
    """A sync that cannot write its events or its display still fetches, and warns of lost events."""
    assert shell(project, "$G sync --json -v >/dev/full 2>/dev/full").returncode == 0
    done = shell(project, "$G sync --json >/dev/full")
    assert (done.returncode, done.stderr.count(b"the events could not be written")) == (0, 1)
    assert b"no space left on device" in done.stderr
    assert (project.assets / "models" / "模型.bin").read_bytes() == CONTENT


@pytest.mark.posix
@pytest.mark.shows("U7", "M17")
def test_a_reader_that_has_gone_changes_no_exit_code(project: Project) -> None:
    """`check` piped into a reader that takes nothing still reports what it found: a corrupt file, 3."""
    (project.assets / "models").mkdir(parents=True)
    (project.assets / "models" / "模型.bin").write_bytes(b"wrong")
    done = shell(project, "$G check | true")
    assert done.returncode == 3
    assert done.stderr == b"1 corrupt: grym-fetch sync\n"


@pytest.mark.posix
@pytest.mark.shows("U7")
@pytest.mark.parametrize("encoding", typical(["ascii", "latin-1"], "ascii"))
def test_no_character_is_too_much_for_a_terminal(project: Project, encoding: str) -> None:
    """An id in another script is listed, escaped if the terminal cannot show it."""
    for command in ("check", "sync -v"):
        done = shell(project, f"$G {command}", PYTHONIOENCODING=encoding)
        assert b"a bug in grym-fetch" not in done.stderr
        assert done.returncode == (1 if command == "check" else 0)
        assert "模型".encode() in done.stdout + done.stderr or rb"\u6a21\u578b" in done.stdout + done.stderr


@pytest.mark.posix
@pytest.mark.shows("U7")
def test_a_path_is_printed_to_the_byte(project: Project) -> None:
    """A folder whose name is not text in any encoding is printed unchanged, so that a script can open the path."""
    folder = os.fsencode(project.root) + b"/\xff\xfe"
    os.mkdir(folder)
    done = shell(project, "$G path 模型 --assets-dir $'\\xff\\xfe'")
    assert done.returncode == 0, done.stderr
    assert done.stdout == folder + "/models/模型.bin\n".encode()
    assert Path(os.fsdecode(done.stdout[:-1])).read_bytes() == CONTENT
    shown = shell(project, "$G path 模型 --assets-dir $'\\xff\\xfe' --json --offline")
    assert os.fsencode(json.loads(shown.stdout.splitlines()[-1])["path"]) == done.stdout[:-1]


class Screen:
    """A display that is on the terminal or is not."""

    def __init__(self, *, stands: bool) -> None:
        self.stands = stands
        self.told: list[str] = []

    def try_beside(self, write: Callable[[], object]) -> bool:
        if not self.stands:
            write()
        return not self.stands

    def say(self, text: str) -> None:
        self.told.append(text)

    def came_back(self) -> None:
        self.told.append("came back")


@pytest.mark.shows("U7")
@pytest.mark.parametrize("stands", [True, False])
def test_a_message_is_no_part_of_the_display(capsys: pytest.CaptureFixture[str], stands: bool) -> None:
    """While a display is shown, whole lines appear above it; otherwise they are written at once, unchanged."""
    screen = Screen(stands=stands)
    with streams.sharing(screen, json=False):
        click.echo("one line", err=True)
        click.echo("another", err=True, nl=False)
        click.echo(" one", err=True)
    assert screen.told == (["one line", "another one"] if stands else [])
    assert capsys.readouterr().err == ("" if stands else "one line\nanother one\n")


@pytest.mark.posix
@pytest.mark.shows("U7")
def test_a_display_is_told_that_it_was_stopped() -> None:
    """The shell has written below it meanwhile, where it would go on drawing."""
    screen = Screen(stands=True)
    with streams.sharing(screen, json=False):
        os.kill(os.getpid(), signal.SIGCONT)
    os.kill(os.getpid(), signal.SIGCONT)
    assert screen.told == ["came back"]


@pytest.mark.posix
@pytest.mark.shows("U7")
def test_a_program_that_reads_events_is_not_disturbed(project: Project) -> None:
    """It may write to the same terminal: there is no bar then."""
    with Terminal(
        project.root, script=f'"{sys.executable}" -m grym_fetch path 模型 --json | cat', environ=environment()
    ) as terminal:
        shown = terminal.finish()
    assert b"\x1b[2K" not in terminal.written
    assert shown[-1].endswith('.bin"}')


@pytest.mark.posix
@pytest.mark.shows("U7")
@pytest.mark.parametrize("as_json", [True, False])
def test_what_a_program_reads_comes_after_the_bar(monkeypatch: pytest.MonkeyPatch, as_json: bool) -> None:
    """It may be shown on the same terminal; events are not held back, since programs act on them."""
    reader, writer = os.pipe()
    output = streams._Output(writer, "w")
    monkeypatch.setattr(streams, "_output", output)
    with open(reader, "rb", buffering=0) as read, io.TextIOWrapper(io.BufferedWriter(output)) as stdout:
        monkeypatch.setattr("sys.stdout", stdout)
        with streams.sharing(Screen(stands=True), json=as_json):
            click.echo("data")
            assert bool(select.select([read], [], [], 0)[0]) is as_json
        assert read.read(100) == b"data\n"


@pytest.mark.posix
@pytest.mark.shows("U7")
def test_what_is_said_of_results_comes_after_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal, where results wait for the end of the display; what was said before them is above it."""
    ours, theirs = pty.openpty()
    output = streams._Output(theirs, "w")
    monkeypatch.setattr(streams, "_output", output)
    stderr, screen = os.fdopen(os.dup(theirs), "w"), Screen(stands=True)
    with stderr, io.TextIOWrapper(io.BufferedWriter(output)) as stdout:
        monkeypatch.setattr("sys.stdout", stdout)
        monkeypatch.setattr("sys.stderr", stderr)
        with streams.sharing(screen, json=False):
            click.echo("a warning", err=True)
            click.echo("result 1")
            click.echo("about ", err=True, nl=False)
            click.echo("it", err=True)
            click.echo("result 2")
            assert not select.select([ours], [], [], 0)[0]
        shown = b""
        while shown.count(b"\n") < 3:  # a terminal may hand over one line after the other
            shown += os.read(ours, 100)
        assert shown.split() == b"result 1 about it result 2".split()
    os.close(ours)
    assert screen.told == ["a warning"]


def test_what_is_announced_goes_before_anything_else_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message, or data on stdout, begins in an empty row."""
    monkeypatch.setenv("TERM", "xterm")
    reader, writer = os.pipe()
    with open(reader, "rb"), io.TextIOWrapper(io.BufferedWriter(streams._Output(writer, "w"))) as stdout:
        for stdout_too in (False, True):
            stream = FakeTerminal()
            monkeypatch.setattr("sys.stderr", stream)
            streams.announce("starting …")
            if stdout_too:
                click.echo("data", stdout)
            else:
                streams.tell("a message")
            assert stream.getvalue() == "\r\x1b[Kstarting …\r\x1b[K" + ("" if stdout_too else "a message\n")


def test_a_line_that_passes_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal it stands as long as the work takes; elsewhere it is not written."""
    for is_terminal in (True, False):
        stream = FakeTerminal(is_terminal=is_terminal)
        monkeypatch.setattr("sys.stderr", stream)
        monkeypatch.setenv("TERM", "xterm")
        with streams.passing("reading assets.json, 10.0 MiB …"):
            during = stream.getvalue()
        assert during == ("\r\x1b[Kreading assets.json, 10.0 MiB …" if is_terminal else "")
        assert stream.getvalue() == (f"{during}\r\x1b[K" if is_terminal else "")

"""Text from strangers, on its way to a terminal or a log: whatever it is, it is shown as harmless text on one line."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from grym_fetch.cli.logs import JsonFormatter, SafeFormatter
from grym_fetch.cli.main import cli
from grym_fetch.testing import (
    AssetServer,
    ContentRange,
    ETag,
    Fault,
    HtmlPage,
    Redirect,
    RetryAfter,
    Status,
)
from tests.support.project import Project

CONTENT = bytes(1000)
EVIL = (
    "\x1b[2J\x1b]52;c;aGk=\x07\x1b]8;;https://evil\x1b\\\x9b31m"
    "\u202egpj\u2066\r\n2026-01-01 ERROR forged\u2028\x00[red]"
)
"""Clears the screen, writes to the clipboard, makes a link, colours, reverses, begins a line, marks up."""
HEADER = "\x9b31m\x9d52;c;aGk=\x9c"
"""The part that a header field can hold: C1 controls."""
NAME = EVIL.replace("\x00", "").replace("/", "")
"""The part that a file name can hold."""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project in a folder with a hostile name, which is the working directory."""
    project = Project(tmp_path / NAME)
    project.root.mkdir()
    monkeypatch.chdir(project.root)
    return project


def harmful(text: str) -> list[str]:
    """The characters that do more than show, except line ends."""
    return [char for char in text if char != "\n" and unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")]


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run a command; return its exit code and its output, which must all be harmless."""
    code = cli.main(list(arguments), prog_name="grym-fetch", standalone_mode=False)
    out, err = capfd.readouterr()
    for text in (out, err):
        assert harmful(text) == []
        assert not re.search(r"^(2026-01-01 )?ERROR forged", text, re.MULTILINE)
    return code, out, err


def hostile(project: Project, server: AssetServer, *faults: Fault) -> None:
    """List an asset with hostile text wherever the manifest accepts text."""
    file = server.add("/a.bin", CONTENT, faults=faults)
    project.add("a", [file.url], CONTENT, name=EVIL, description=EVIL, version=EVIL, metadata={EVIL: EVIL})
    project.entries[0][EVIL] = 1
    project.write()


@pytest.mark.posix
@pytest.mark.shows("U1", "U2", "U3", "S10")
@pytest.mark.parametrize("command", ["list", "info a", "check", "doctor", "sync", "sync -vv", "sync -n", "prune"])
def test_hostile_texts_of_a_manifest_and_of_folders(
    project: Project, server: AssetServer, capfd: pytest.CaptureFixture[str], command: str
) -> None:
    """Every command escapes names, descriptions, versions, unknown keys and the folder's own name."""
    hostile(project, server)
    _, out, err = run(capfd, *command.split())
    assert out + err
    for line in run(capfd, *command.split(), "--json")[1].splitlines():
        assert isinstance(json.loads(line), dict)


@pytest.mark.posix
@pytest.mark.shows("U1", "U3", "S10")
@pytest.mark.parametrize(
    "fault",
    [
        ContentRange(value=f"bytes {HEADER}"),
        ETag(value=f'"{HEADER}"'),
        Redirect(to=f"https://127.0.0.1:9/{HEADER}"),
        Redirect(to=f"file://{HEADER}"),
        RetryAfter(value=HEADER, times=1),
        Status(200, headers={"Content-Encoding": HEADER}),
        Status(403, body=EVIL.encode("utf-8", "surrogatepass"), headers={"Content-Type": HEADER}),
        HtmlPage(page=EVIL.encode("utf-8", "surrogatepass")),
    ],
    ids=lambda fault: type(fault).__name__,
)
def test_hostile_texts_of_a_server(
    project: Project, server: AssetServer, capfd: pytest.CaptureFixture[str], fault: Fault
) -> None:
    """Header fields and pages are escaped on the terminal, and cannot forge a line of a log in any format."""
    hostile(project, server, fault)
    for name in ("run.log", "run.jsonl"):
        run(capfd, "sync", "-vv", "--retries", "1", "--log-file", name)
        written = (project.root / name).read_text("utf-8")
        assert harmful(written) == []
        for line in written.splitlines():
            assert re.match(r'\d{4}-\d\d-\d\d [\d:,]+ [A-Z]+ |    |\{"', line)
    run(capfd, "doctor")


@pytest.mark.shows("U1", "U3", "S10")
def test_hostile_texts_of_errors_in_tracebacks() -> None:
    """In a traceback an error's own text is shown, but it can neither pass for a record nor move the cursor."""
    try:
        raise RuntimeError(EVIL) from ValueError(EVIL)
    except RuntimeError:
        record = logging.LogRecord("x", logging.ERROR, __file__, 1, "%s", (EVIL,), sys.exc_info())
    for formatter in (SafeFormatter("%(asctime)s %(levelname)s %(message)s"), JsonFormatter()):
        text = formatter.format(record)
        assert harmful(text) == []
        assert not re.search(r"^2026-01-01 ERROR forged", text, re.MULTILINE)
    assert "RuntimeError" in SafeFormatter("%(message)s").format(record)


@pytest.mark.posix
@pytest.mark.shows("U4", "S8")
def test_secrets_of_foreign_errors_are_not_logged(capfd: pytest.CaptureFixture[str], project: Project) -> None:
    """A library's exception may hold a whole address; no record, traceback or final message shows it."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("GET http://me:hunter2@h.example/x?sig=hunter2 {'Authorization': 'hunter2'}")

    project.add("a", ["http://h.example/x"], CONTENT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("grym_fetch.manager.AssetManager.choose", fail)
        for name in ("run.log", "run.jsonl"):
            code, _, err = run(capfd, "sync", "-vv", "--log-file", name)
            assert code == 1
            assert "RuntimeError: GET http://h.example/x" in err
            assert "hunter2" not in err + (project.root / name).read_text()
    try:
        fail()
    except RuntimeError as error:
        record = logging.LogRecord("x", logging.ERROR, __file__, 1, "%s", (error,), sys.exc_info())
    for formatter in (SafeFormatter("%(message)s"), JsonFormatter()):
        assert "hunter2" not in formatter.format(record)


@pytest.mark.posix
@pytest.mark.shows("U1", "U2", "S10")
def test_hostile_names_of_files(project: Project, capfd: pytest.CaptureFixture[str]) -> None:
    """A large file with a hostile name is listed, planned to be moved and refused in escaped form."""
    subprocess.run(["git", "init", "-q"], check=True)
    (project.root / f"{NAME}.bin").write_bytes(bytes(3_000_000))
    assert "forged" in run(capfd, "identify", "1")[1]
    run(capfd, "clean", "1", ".", "../outside", "-n")
    run(capfd, "clean", "1", ".", "../outside", "-y")
    run(capfd, "restore", "--all")
    run(capfd, "setup", "--skip-assets")


@pytest.mark.posix
@pytest.mark.shows("U1")
def test_hostile_arguments_are_escaped_in_answers(
    project: Project, server: AssetServer, capfd: pytest.CaptureFixture[str]
) -> None:
    """A pasted id or tag is repeated without its harmful characters."""
    hostile(project, server)
    for arguments in (
        ["info", EVIL.replace("\x00", "")],
        ["sync", NAME],
        ["path", NAME],
        ["check", NAME],
        ["pin", NAME],
    ):
        code, _, err = run(capfd, *arguments)
        assert code == 2
        assert "forged" in err

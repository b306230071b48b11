"""The demo tells the truth: its figures agree with each other, and anything unexpected makes it fail."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from grym_fetch.cli import demo_stage
from grym_fetch.cli.demo_report import Figures, Served, summary
from grym_fetch.cli.demo_stage import MIB, DemoFailed, Scenario
from grym_fetch.cli.demo_story import child_environment, perform
from grym_fetch.cli.main import cli
from grym_fetch.cli.options import Common
from grym_fetch.testing import FlipByte, Status
from tests.support.terminal import Terminal

SMALL = Scenario(sizes={"large": 12 * MIB, "middle": 3 * MIB, "small": 1000}, seconds=1.5)
QUIET = Common(None, None, None, 0, quiet=False, json=True, log_file=None)
FIGURES = Figures(
    files=2,
    bytes=100,
    first_sent=60,
    first_seconds=1.0,
    second_sent=50,
    second_seconds=2.0,
    third_sent=0,
    mirrors=(Served(70, 3), Served(40, 2)),
    most_connections=4,
    allowed_connections=4,
    verified=2,
    seconds=4.0,
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the demo creates its own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.sweep
def test_a_killed_run_is_resumed_and_every_byte_is_right(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The figures agree: kept and fetched bytes make up the assets, and the mirrors sent what was fetched."""
    assert perform(SMALL, QUIET) == 0

    told = json.loads(capfd.readouterr().out)
    assert (told["files"], told["verified"], told["bytes"]) == (3, 3, SMALL.bytes)
    assert told["first_run"]["sent_bytes"] >= SMALL.bytes / 2
    assert told["second_run"]["kept_bytes"] + told["second_run"]["sent_bytes"] == SMALL.bytes
    assert told["second_run"]["kept_bytes"] > 0
    assert told["third_run"]["sent_bytes"] == 0
    assert told["sent_bytes"] == sum(mirror["sent_bytes"] for mirror in told["mirrors"])
    assert told["sent_bytes"] == told["bytes"] + told["excess_bytes"]
    # Only mirror 2 has the second half of the largest asset.
    assert told["mirrors"][1]["sent_bytes"] >= SMALL.sizes["large"] / 2
    assert 1 <= told["most_connections"] <= 4
    assert list(folder.iterdir()) == []


@pytest.mark.sweep
def test_the_story_is_told(folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The command tells its chapters on stderr and the figures on stdout, and keeps the folder on request."""
    monkeypatch.setattr(demo_stage, "FULL", SMALL)

    code = cli.main(["demo", "--keep"], prog_name="grym-fetch", standalone_mode=False)

    told = capfd.readouterr()
    assert code == 0
    chapters = ["First run: ", "Killed (SIGKILL) at ", "Second run: ", "Proof: ", "Summary: "]
    places = [told.err.index(f"\n{chapter}") for chapter in chapters]
    assert places == sorted(places)
    assert "\x1b" not in told.err
    assert "verified     3 of 3 files" in told.out
    (kept,) = folder.iterdir()
    assert f"kept: {kept}" in told.err
    assert (kept / "project" / "assets" / "models" / "large.bin").stat().st_size == SMALL.sizes["large"]


@pytest.mark.sweep
def test_wrong_bytes_make_the_demo_fail(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """If both mirrors serve a wrong byte, the second run fails, and so does the demo."""
    assert perform(replace(SMALL, faults={"small": [FlipByte(at=500)]}), QUIET) == 1

    told = capfd.readouterr()
    assert told.out == ""
    assert "error: the demo failed: the second run ended with exit code 3" in told.err
    assert list(folder.iterdir()) == []


def test_a_first_run_that_ends_by_itself_makes_the_demo_fail(capfd: pytest.CaptureFixture[str]) -> None:
    """A run that was not killed cannot be resumed, so nothing is claimed."""
    assert perform(Scenario(sizes={"only": MIB}, seconds=0.5, faults={"only": [Status(404)]}), QUIET) == 1

    assert "error: the demo failed: the first run ended by itself, with exit code 1" in capfd.readouterr().err


def has_blocked(process: int, number: signal.Signals) -> bool:
    """Whether the kernel holds this signal back from a process."""
    (mask,) = re.findall(r"^SigBlk:\s*(\w+)$", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
    return bool(int(mask, 16) & 1 << number - 1)


@pytest.mark.posix
@pytest.mark.shows("U7")
def test_the_commands_of_the_demo_may_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are of its group of processes, which has the terminal; but Ctrl-C is for the demo alone."""
    start = asyncio.create_subprocess_exec
    groups, blocked = [], []

    async def start_and_end(*arguments: Any, **settings: Any) -> Any:
        child = await start(*arguments, **settings)
        groups.append(os.getpgid(child.pid))
        blocked.append(has_blocked(child.pid, signal.SIGINT))
        os.kill(os.getpid(), signal.SIGTERM)
        return child

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start_and_end)
    assert perform(SMALL, QUIET) == 128 + signal.SIGTERM
    assert (groups, blocked) == ([os.getpgrp()], [True])


@pytest.mark.sweep
@pytest.mark.shows("U7")
def test_the_demo_shows_the_display(folder: Path) -> None:
    """On a terminal, each run has the bars of a sync."""
    story = (
        "from grym_fetch.cli import demo_stage; demo_stage.FULL = demo_stage.Scenario({'only': 8 << 20}, seconds=1.5)"
    )
    script = f'{sys.executable} -c "{story}; from grym_fetch.cli.main import main; main()" demo'
    with Terminal(folder, script=script, environ=dict(os.environ)) as terminal:
        terminal.until(lambda rows: any("only" in row and "━" in row for row in rows))
        terminal.until(lambda rows: any("Killed" in row for row in rows))
        shown = terminal.finish()
        assert terminal.code == 0
    assert any("━" in row for row in shown), "the picture of the killed run stays"


@pytest.mark.posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_of_it(number: signal.Signals, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal while a command runs ends that command, removes the folder, and shows in the exit code."""
    started: list[int] = []
    start = asyncio.create_subprocess_exec

    async def start_and_signal(*arguments: Any, **settings: Any) -> Any:
        child = await start(*arguments, **settings)
        started.append(child.pid)
        os.kill(os.getpid(), number)
        return child

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start_and_signal)

    assert perform(SMALL, QUIET) == 128 + number

    assert list(folder.iterdir()) == []
    with pytest.raises(ProcessLookupError):
        os.kill(started[0], 0)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"verified": 1}, "only 1 of 2 files have the right checksum"),
        ({"second_sent": 100}, "the resume saved nothing: the second run fetched 100 B"),
        ({"third_sent": 5}, "the third run fetched 5 B, though everything was there"),
        ({"most_connections": 5}, "5 connections were open at once, 4 are allowed"),
    ],
)
def test_a_surprise_is_a_sentence(change: Mapping[str, int], sentence: str) -> None:
    """Each figure that is not as it must be has its own sentence; good figures have none."""
    assert list(FIGURES.surprises()) == []
    assert list(replace(FIGURES, **change).surprises()) == [sentence]  # type: ignore[arg-type]


@pytest.mark.parametrize("width", [20, 40, 110])
def test_the_summary_fits_the_terminal(width: int) -> None:
    """A narrow terminal gets more lines, never lines so long that it would break them itself."""
    lines = summary(FIGURES, max(width, 26))
    assert max(map(len, lines)) <= max(width, 26)
    assert " ".join(" ".join(lines).split()) == " ".join(" ".join(summary(FIGURES, None)).split())


def test_little_space_makes_a_small_demo() -> None:
    """The assets take at most half of the free space; if hardly any is left, the demo says where to find more."""
    assert SMALL.fitted(1 << 40) == SMALL
    large = replace(SMALL, sizes={"large": 1 << 30, "small": 1})
    fitted = large.fitted(100 * MIB)
    assert 49 * MIB < fitted.bytes <= 50 * MIB
    assert fitted.sizes["small"] == 1
    with pytest.raises(DemoFailed, match="point TMPDIR to another folder"):
        large.fitted(MIB)


def test_the_users_settings_do_not_disturb() -> None:
    """Neither our own settings nor a proxy reach the commands; every other variable does."""
    environ = {"PATH": "/bin", "GRYM_FETCH_OFFLINE": "1", "https_proxy": "http://p", "ALL_PROXY": "x", "no_proxy": ""}
    assert child_environment(environ) == {"PATH": "/bin", "NO_PROXY": "127.0.0.1"}


def test_help_does_not_load_the_servers() -> None:
    """Help and completion of the command stay fast: the story is imported only when it is played."""
    told = "import sys; from grym_fetch.cli.main import cli; cli(['demo', '--help'], standalone_mode=False);"
    script = f"{told} print('loaded', [name for name in sys.modules if name.startswith('aiohttp')])"
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "--keep" in output
    assert "loaded []" in output

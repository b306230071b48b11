"""Scripts that use the blocking twin, as real processes: Ctrl-C, and an end without closing."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

import pytest

from grym_fetch.testing import AssetServer, Gate, Hold, SeededContent, Throttle
from tests.end_to_end.command import environment, wait_until
from tests.support.project import Project
from tests.support.system import Stopwatch

MIB = 1024 * 1024
SIZE = 24 * MIB

PRELUDE = """
import signal
import sys
import threading
from grym_fetch.blocking import AssetManager

# A shell starts what it leaves in the background with SIGINT ignored, and so would this be if the tests run there.
signal.signal(signal.SIGINT, signal.default_int_handler)

def say(word, number):
    sys.stdout.write(f"{word} {number}\\n")  # at once, for two threads speak
    sys.stdout.flush()

manager = AssetManager()
numbers = {"progress": "bytes", "asset_planned": "resumed_bytes"}
manager.on_event(lambda event: say(event.type, getattr(event, numbers.get(event.type, ""), 0)))
"""


@pytest.fixture
def project(tmp_path: Path, server: AssetServer) -> Project:
    """One asset that takes some seconds."""
    made = Project(tmp_path / "project")
    file = server.add("/a", SeededContent(SIZE, seed=3), faults=[Throttle(rate=6 * MIB), Hold(Gate(), at=SIZE - 1)])
    made.add("a", [file.url], None, size=SIZE, checksum=file.sha256)
    return made


class Script:
    """A script running in the project's folder. It is ended, whatever happens, when the block ends."""

    def __init__(self, project: Project, text: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + text],
            cwd=project.root,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def until(self, kind: str, least: int = 0) -> int:
        """Read until it prints this word with at least this number; return the number."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            word, number = line.split()
            if word == kind and int(number) >= least:
                return int(number)
        raise AssertionError(f"it ended first: {self._process.communicate()}")

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    def finish(self) -> tuple[int, str]:
        """Wait for it to end; return the exit code and stderr."""
        _, err = self._process.communicate(timeout=60)
        return self._process.returncode, err

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()


def check_resumes(project: Project, server: AssetServer, least: int) -> None:
    """The next script starts from what is there, and completes it."""
    server.add("/a", SeededContent(SIZE, seed=3))
    with Script(project, "manager.get_asset_path('a')") as script:
        assert script.until("asset_planned") >= least
        assert script.finish() == (0, "")
    assert (project.assets / "models/a.bin").stat().st_size == SIZE


@pytest.mark.alone
def test_ctrl_c_ends_a_script_and_keeps_what_arrived(project: Project, server: AssetServer) -> None:
    """Ctrl-C ends a script within two seconds, as it ends any Python script, and the next one continues."""
    with Script(project, "with manager: manager.get_asset_path('a')") as script:
        received = script.until("progress", SIZE // 4)
        since = Stopwatch()
        script.interrupt()
        code, err = script.finish()
        assert since.seconds < 2
    assert code == -signal.SIGINT
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert err.count("Traceback") == 1
    check_resumes(project, server, received - 64 * 1024)


def test_a_script_may_go_on_after_ctrl_c(project: Project, server: AssetServer) -> None:
    """A script that catches the interruption has a working manager, and requests nothing more from the server."""
    text = """
try:
    manager.get_asset_path("a")
except KeyboardInterrupt:
    say("interrupted", 0)
    say("went_on", int(manager.check_asset("a").exists))
    threading.Event().wait()
"""
    with Script(project, text) as script:
        script.until("progress", SIZE // 8)
        script.interrupt()
        script.until("interrupted")
        assert script.until("went_on") == 0
        wait_until(server, lambda stats: stats.requests_in_flight == 0)
        script.interrupt()
        assert script.finish()[0] == -signal.SIGINT
    assert server.stats.body_bytes_sent < SIZE


@pytest.mark.sweep
def test_an_end_without_a_farewell(project: Project, server: AssetServer) -> None:
    """A script that ends while another thread downloads does not hang, and what has arrived is kept."""
    text = """
threading.Thread(target=manager.get_asset_path, args=["a"], daemon=True).start()
with manager.events() as events:
    next(event for event in events if event.type == "progress" and event.bytes >= 4 << 20)
"""
    with Script(project, text) as script:
        since = Stopwatch()
        script.until("progress", 4 * MIB)
        code, err = script.finish()
        assert since.seconds < 15
    assert code == 0
    assert "AssertionError" not in err
    check_resumes(project, server, 4 * MIB - 64 * 1024)

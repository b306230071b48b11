"""The real command as a real process, forked from one that waits for work (`tests.support.starter`)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from grym_fetch.testing import AssetServer, ServerStats
from tests.support.other_user import TEAM
from tests.support.project import Project
from tests.support.starter import start

DEADLINE = 60.0


def environment(**more: str) -> dict[str, str]:
    """The environment of a child: the test's own, with only those of our variables that are asked for."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GRYM_FETCH_")}
    return kept | {"NO_PROXY": "*", "PYTHONUNBUFFERED": "1"} | more


@dataclass(frozen=True)
class Done:
    """A process that has ended. ``peak_memory`` in bytes."""

    code: int
    out: str
    err: str
    peak_memory: int = 0

    @property
    def events(self) -> list[dict[str, object]]:
        """The output of ``--json``."""
        return [json.loads(line) for line in self.out.splitlines()]

    def of(self, kind: str) -> list[dict[str, object]]:
        """Events of one type."""
        return [event for event in self.events if event["type"] == kind]


class Running:
    """A running process. It is ended, whatever happens, when the block ends."""

    def __init__(self, folder: Path, *arguments: str, **more: str) -> None:
        self._process = start(arguments, folder, environment(**more))
        self._seen: list[str] = []

    @property
    def pid(self) -> int:
        """Its process number."""
        return self._process.pid

    def events(self) -> Iterator[dict[str, object]]:
        """Its events as they come. Needs ``--json``."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._seen.append(line)
            yield json.loads(line)

    def until_bytes(self, count: int) -> None:
        """Wait until its assets have this many bytes on hand, all together."""
        on_hand: dict[object, int] = {}
        for event in self.events():
            if event["type"] in ("progress", "asset_planned"):
                value = event.get("bytes", event.get("resumed_bytes"))
                assert isinstance(value, int)
                on_hand[event["asset"]] = value
                if sum(on_hand.values()) >= count:
                    return
        raise AssertionError(f"it ended first: {self.finish()}")

    def until_stored(self, project: Project, count: int) -> None:
        """Wait until this many bytes outlive a kill; those on hand (`until_bytes`) may be in memory only."""
        while project.stored_bytes() < count:
            if self._process.poll() is not None:
                raise AssertionError(f"it ended first: {self.finish()}")

    def until(self, kind: str) -> dict[str, object]:
        """Wait for an event of this type."""
        for event in self.events():
            if event["type"] == kind:
                return event
        raise AssertionError(f"it ended first: {self.finish()}")

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def close_stdout(self) -> None:
        """Stop reading, as ``head`` does."""
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process.stdout = None

    def finish(self) -> Done:
        """Wait for it to end."""
        out, err = self._process.communicate(timeout=DEADLINE)
        return Done(self._process.wait(DEADLINE), "".join(self._seen) + (out or ""), err)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()


def wait_until(server: AssetServer, condition: Callable[[ServerStats], bool]) -> None:
    """Wait until a server in another thread has got this far."""
    assert server._loop is not None
    asyncio.run_coroutine_threadsafe(server.stats.until(condition), server._loop).result(DEADLINE)


def run(folder: Path, *arguments: str, **more: str) -> Done:
    """Run the command to its end."""
    with Running(folder, *arguments, **more) as running:
        return running.finish()


# Everything is imported first: another user may not be able to read this interpreter's own files.
BECOME = """
import encodings, importlib, os, pkgutil, sys
import difflib, grym_fetch, rich.live, rich._unicode_data
user, umask, groups = int(sys.argv[1]), int(sys.argv[2], 8), [int(each) for each in sys.argv[3].split(",")]
for each in ("ascii", "idna", "utf_8_sig", "latin_1", "cp437"):
    importlib.import_module(f"encodings.{each}")
for each in pkgutil.walk_packages(grym_fetch.__path__, "grym_fetch."):
    if "windows" not in each.name and not each.name.endswith(("__main__", "plugin")):
        importlib.import_module(each.name)
sys.argv = ["grym-fetch", *sys.argv[4:]]
os.setgroups(groups)
os.setresgid(user, user, user)
os.setresuid(user, user, user)
os.umask(umask)
from grym_fetch.cli.main import main
main()
"""


def command_as(user: int, *arguments: str) -> list[str]:
    """How root runs the command as another user of the team, under that user's umask."""
    return [sys.executable, "-c", BECOME, str(user), "002", str(TEAM), *arguments]


def run_as(user: int, folder: Path, *arguments: str, **more: str) -> Done:
    """Run the command to its end as another user of the team, under that user's umask. Only root can do this."""
    done = subprocess.run(
        command_as(user, *arguments),
        cwd=folder,
        env=environment(**more),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE,
    )
    return Done(done.returncode, done.stdout, done.stderr)


# A small process stands in between: a child's peak memory is never below its parent's at the time of the fork.
MEASURE = """
import os, sys
pid = os.posix_spawn(sys.executable, [sys.executable, "-m", "grym_fetch", *sys.argv[1:]], os.environ)
_, status, usage = os.wait4(pid, 0)
with open("peak", "w") as file:
    file.write(str(usage.ru_maxrss * 1024))
sys.exit(os.waitstatus_to_exitcode(status))
"""


def run_measured(folder: Path, *arguments: str) -> Done:
    """Run the command to its end and take its peak memory from the operating system."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *arguments],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE,
    )
    return Done(done.returncode, done.stdout, done.stderr, int((folder / "peak").read_text()))

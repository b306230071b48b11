"""A forked child gets none of our descriptors from its parent, while the parent goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from grym_fetch.runtime.forks import close_copy, forget_in_child
from grym_fetch.testing import Throttle, seeded_bytes, serve_in_thread
from tests.end_to_end.command import environment
from tests.support.project import Project
from tests.support.sweeps import typical

CONTENT = seeded_bytes(400_000, seed=71)


class Kept:
    """Holds a descriptor, and closes it in a child."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        forget_in_child(self)

    def forget(self) -> None:
        """Do what a child does."""
        close_copy(self.descriptor)


def exit_code_of_child(descriptor: int) -> int:
    """Fork and return whether the child can use a descriptor: 0, or the error's number."""
    child = os.fork()
    if not child:
        try:
            os.fstat(descriptor)
        except OSError as error:
            os._exit(error.errno or 255)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.posix
@pytest.mark.shows("X9", "X10")
def test_a_child_closes_what_is_kept_here(tmp_path: Path) -> None:
    """This holds only while the parent keeps it: a released descriptor does not concern the child."""
    descriptor = os.open(tmp_path, os.O_RDONLY)
    kept = Kept(descriptor)
    assert exit_code_of_child(descriptor) != 0
    os.fstat(descriptor)
    del kept
    assert exit_code_of_child(descriptor) == 0
    os.close(descriptor)
    close_copy(descriptor)
    close_copy(-1)


FORK_DURING_A_DOWNLOAD = """
import asyncio, os, socket, sys
from grym_fetch import AssetManager

def kept():
    found = set()
    for number in map(int, os.listdir("/proc/self/fd")):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
            if ".grym-fetch" in target:
                found.add(os.path.basename(target))
            elif target.startswith("socket:"):
                with socket.socket(fileno=os.dup(number)) as copy:
                    if copy.family == socket.AF_INET and copy.getpeername()[1] == int(sys.argv[1]):
                        found.add("socket")
        except OSError:
            pass
    return sorted(found)

async def main():
    async with AssetManager() as manager, manager.events() as events:
        sync = asyncio.ensure_future(manager.sync())
        async for event in events:
            if event.type == "progress":
                break
        here = kept()
        sys.stdout.flush()
        if not os.fork():
            print("child", *kept(), flush=True)
            os._exit(0)
        os.wait()
        print("parent", *here, flush=True)
        assert kept() == here
        await sync

asyncio.run(main())
"""


@pytest.mark.posix
@pytest.mark.shows("X9", "X10")
@pytest.mark.parametrize("loop", typical(["asyncio", "uvloop"], "uvloop"))
def test_a_child_forked_during_a_download_has_nothing_of_it(tmp_path: Path, loop: str) -> None:
    """The child has no lock, part, journal or socket, and the download goes on as if there were no child."""
    project = Project(tmp_path / "project")
    script = FORK_DURING_A_DOWNLOAD
    if loop == "uvloop":
        script = script.replace("asyncio.run(", "__import__('uvloop').run(")
    with serve_in_thread() as server:
        file = server.add("/a.bin", CONTENT, faults=[Throttle(rate=1_000_000)])
        path = project.add("a", [file.url], CONTENT)
        done = subprocess.run(
            [sys.executable, "-c", script, str(server.port)],
            cwd=project.root,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 0, done.stderr
    child, parent = (line.split() for line in done.stdout.splitlines())
    assert child == ["child"]
    assert {"part", "journal", "socket"} <= set(parent)
    assert any(name.endswith(".lock") for name in parent)
    assert path.read_bytes() == CONTENT

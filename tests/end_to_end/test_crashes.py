"""Crashes at the worst moments: every write, flush and rename of a run, and which system calls were made."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import subprocess
from collections import Counter
from itertools import cycle
from pathlib import Path

import pytest

from grym_fetch.core.digest import Checksum
from grym_fetch.testing import AssetServer, Throttle, seeded_bytes
from tests.end_to_end.command import Done, environment
from tests.support.project import KIB, SMALL, Project
from tests.support.starter import Started, start_program
from tests.support.sweeps import typical
from tests.support.system import is_traced

CONTENTS = {"one": seeded_bytes(200 * KIB, seed=1), "two": seeded_bytes(70 * KIB, seed=2), "three": b"3"}
OLD = b"the old good file"

# The real command with small pieces and segments, so that a run has many writes; and asyncio's own loop, whose
# wake-ups are not writes. It imports nothing that it does not need: under strace, each import takes many calls.
PROGRAM = f"""
import sys
sys.path.insert(0, {os.getcwd()!r})
sys.dont_write_bytecode = True  # it would be a write among those that are counted
from grym_fetch.cli import runner
from grym_fetch.cli.options import Common
from grym_fetch.settings import Settings
from grym_fetch.core.segments import SegmentSizes
runner._loop_factory = lambda: None
common = Common(None, None, None, 0, True, False, None)
async def body(manager):
    await manager.sync()
    return 0
sys.exit(runner.run(common, body, settings=Settings(sizes={SMALL}, retries=0)))
"""
# Everything runs on one thread: then the n-th call is the same one in every run.
ONE_THREAD = """
from concurrent.futures import Future, ThreadPoolExecutor
def run_here(executor, function, /, *args):
    future = Future()
    try:
        future.set_result(function(*args))
    except BaseException as error:
        future.set_exception(error)
    return future
ThreadPoolExecutor.submit = run_here
"""
CHANGES = (
    "copy_file_range,pwrite64,write,fsync,fdatasync,ftruncate,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,"
    "rmdir"
)
PART_RENAMED = re.compile(r'renameat2?\(\d+<(?P<folder>[^>]*)>, "(?P<name>[^"]*/part)"')
"""A stage's part gets its final name: strace shows its folder as the path of the descriptor."""


@pytest.fixture
def project(tmp_path: Path, server: AssetServer) -> Project:
    """Three assets; an older version of one is there already."""
    made = Project(tmp_path / "project")
    for name, content in CONTENTS.items():
        made.add(name, [server.add(f"/{name}", content).url], content)
    return made


def reset(project: Project) -> None:
    """Only the old file is there: each run makes the same calls, including those for the user's own state."""
    subprocess.run(["rm", "-rf", str(project.assets), os.environ["XDG_STATE_HOME"]], check=True)
    (project.assets / "models").mkdir(parents=True)
    (project.assets / "models" / "one.bin").write_bytes(OLD)


def check_finals(project: Project, *, all_new: bool = False) -> None:
    """Each final file is absent, the old good one, or the new good one; or it must be the new one."""
    for name, content in CONTENTS.items():
        path = project.assets / "models" / f"{name}.bin"
        if all_new:
            assert path.read_bytes() == content
        elif path.exists():
            assert path.read_bytes() in ((content, OLD) if name == "one" else (content,))


def traced(project: Project, log: Path, *options: str, program: str = PROGRAM, folder: Path | None = None) -> Done:
    """Run the program under strace, which sees it from its first line on; in the project, or in another folder."""
    running = start_program(program, folder or project.root, environment(), is_held=True)
    strace = ["strace", "-f", "-qq", "-y", "-o", str(log), "-e", f"trace={CHANGES}", *options, "-p", str(running.pid)]
    with subprocess.Popen(strace) as tracer:
        try:
            assert is_traced(running.pid, tracer)
            running.release()
            out, err = running.communicate(timeout=60)
        finally:
            running.kill()
        assert running.returncode is not None
        return Done(running.returncode, out, err)


def calls_in(log: Path, place: Path) -> list[str]:
    """The calls of a trace that touch ``place``, without thread numbers."""
    return [line.split(None, 1)[1] for line in log.read_text(errors="replace").splitlines() if str(place) in line]


@pytest.mark.strace
@pytest.mark.shows("B48", "P3", "S2")
def test_flushed_before_renamed_and_the_folder_after(project: Project, tmp_path: Path) -> None:
    """A part is flushed before it is renamed, and the folder after it, as the real system calls show."""
    reset(project)
    log = tmp_path / "trace"
    done = traced(project, log)
    assert done.code == 0, done.err
    calls = calls_in(log, project.assets)
    renames = [(n, found) for n, call in enumerate(calls) if (found := PART_RENAMED.match(call))]
    assert len(renames) == len(CONTENTS)
    for number, found in renames:
        part = f"<{found['folder']}/{found['name']}>"
        before = [n for n, call in enumerate(calls[:number]) if call.startswith("fsync(") and part in call]
        assert before, "renamed without a flush"
        writes = [n for n, call in enumerate(calls) if call.startswith("pwrite64(") and part in call]
        assert writes, "the part was not seen being written"
        assert max(writes) < before[-1], "written after the flush"
        after = [call for call in calls[number:] if call.startswith("fsync(") and "/models>" in call]
        assert after, "the folder was not flushed after the rename"


def most_calls(log: Path, kind: str, place: Path) -> int:
    """How often the busiest thread made this call, if any of them touched ``place``: strace counts per thread."""
    threads = Counter(
        line.split(None, 1)[0]
        for line in log.read_text(errors="replace").splitlines()
        if re.match(rf"\d+\s+{kind}\(", line)
    )
    touched = any(call.startswith(f"{kind}(") for call in calls_in(log, place))
    return max(threads.values(), default=0) if touched else 0


@pytest.mark.strace
@pytest.mark.parametrize("kind", typical(["pwrite64", "fsync", "renameat", "unlinkat"], "renameat"))
@pytest.mark.shows("P1", "S2")
def test_killed_before_every_change(project: Project, tmp_path: Path, kind: str) -> None:
    """Killed before a write, flush, rename or removal: all final files are good, and the next run finishes the job.

    It runs with all its threads; `test_killed_before_each_change` has one thread, and leaves out no kind of call.
    """
    reset(project)
    log = tmp_path / "trace"
    assert traced(project, log).code == 0
    count = most_calls(log, kind, project.assets)
    for when in range(1, count + 1, 1 if count < 10 else 3):
        reset(project)
        done = traced(project, log, "-e", f"inject={kind}:signal=SIGKILL:when={when}")
        assert done.code in (0, 137, -9), done.err
        check_finals(project)
        asyncio.run(finish(project))
        check_finals(project, all_new=True)
        # A kill after the rename leaves an empty stage behind, never bytes.
        assert not [stage for stage in project.staged() if (stage / "part").exists()]


async def finish(project: Project) -> None:
    """Run again, undisturbed."""
    async with project.manager() as manager:
        await manager.sync()


@pytest.mark.strace
@pytest.mark.sweep
@pytest.mark.parametrize("error", ["ENOSPC", "EIO", "EDQUOT"])
@pytest.mark.shows("D2", "D5")
def test_failing_calls(project: Project, tmp_path: Path, error: str) -> None:
    """A disk that fails a write or a flush ends the run with exit code 4, never with a wrong file."""
    for call, when in (("pwrite64", 1), ("pwrite64", 4), ("fsync", 1), ("fsync", 5)):
        reset(project)
        done = traced(project, tmp_path / "trace", "-e", f"inject={call}:error={error}:when={when}")
        check_finals(project)
        if "INJECTED" in (tmp_path / "trace").read_text(errors="replace"):
            assert done.code == 4, f"{call} {when}: {done.err}"
            assert "Traceback" not in done.err
        asyncio.run(finish(project))
        check_finals(project)


def numbers_of(log: Path, kind: str, place: Path) -> list[int]:
    """The numbers of the calls of this kind that touched ``place``, counted over all from 1, like strace's ``when``."""
    calls = [line for line in log.read_text(errors="replace").splitlines() if re.match(rf"\d+\s+{kind}\(", line)]
    assert len({line.split(None, 1)[0] for line in calls}) <= 1, "more than one thread"
    return [number for number, line in enumerate(calls, 1) if str(place) in line]


@pytest.mark.sweep
@pytest.mark.strace
@pytest.mark.parametrize("kind", CHANGES.split(","))
@pytest.mark.shows("P1", "S2")
def test_killed_before_each_change(project: Project, tmp_path: Path, kind: str) -> None:
    """Each change in turn: with one thread, none is left out."""
    reset(project)
    log, program = tmp_path / "trace", ONE_THREAD + PROGRAM
    assert traced(project, log, program=program).code == 0
    numbers = numbers_of(log, kind, project.assets)
    killed = 0
    for when in numbers:
        reset(project)
        done = traced(project, log, "-e", f"inject={kind}:signal=SIGKILL:when={when}", program=program)
        killed += done.code != 0
        check_finals(project)
        asyncio.run(finish(project))
        check_finals(project, all_new=True)
    # A run may make a few calls fewer than the counted one: data that came in two reads may come in one.
    assert killed >= 0.8 * len(numbers)


@pytest.mark.sweep
@pytest.mark.strace
@pytest.mark.parametrize(
    "kind", ["pwrite64", "write", "fsync", "fdatasync", "ftruncate", "renameat", "mkdir", "mkdirat"]
)
@pytest.mark.shows("D2", "D3", "D4", "D5")
def test_each_change_fails(project: Project, tmp_path: Path, kind: str) -> None:
    """Whichever write, flush or rename fails: exit code 4, or 0 if nothing requested depended on it.

    The errors take turns, so that each call fails once.
    """
    reset(project)
    log, program = tmp_path / "trace", ONE_THREAD + PROGRAM
    assert traced(project, log, program=program).code == 0
    for when, error in zip(numbers_of(log, kind, project.assets), cycle(("ENOSPC", "EIO", "EDQUOT"))):
        reset(project)
        done = traced(project, log, "-e", f"inject={kind}:error={error}:when={when}", program=program)
        assert done.code in (0, 4), f"{kind} {when} {error}: {done.err}"
        assert "Traceback" not in done.err
        check_finals(project, all_new=done.code == 0)
        asyncio.run(finish(project))
        check_finals(project, all_new=True)


@pytest.mark.sweep
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("locks", ["flock works", "flock is a no-op"])
def test_twenty_rounds_of_random_kills(project: Project, server: AssetServer, locks: str, seed: int) -> None:
    """The same twenty times for each kind of lock, five rounds per seed."""
    several_processes(project, server, locks, rounds=5, dice=random.Random(f"{locks} {seed}"))


@pytest.mark.sweep
@pytest.mark.parametrize("locks", ["flock works", "flock is a no-op"])
@pytest.mark.shows("B2", "B12", "B13", "B45", "P1", "X1", "X3")
def test_several_processes_and_random_kills(project: Project, server: AssetServer, locks: str) -> None:
    """Three processes on one folder, killed at random: every final file is right, even where flock locks nothing."""
    several_processes(project, server, locks, rounds=1, dice=random.Random(locks))


def several_processes(project: Project, server: AssetServer, locks: str, *, rounds: int, dice: random.Random) -> None:
    """Start three, kill four at random, each replaced by another, and wait for the rest; this many times."""
    program = PROGRAM if locks == "flock works" else f"import fcntl\nfcntl.flock = lambda *_: None\n{PROGRAM}"
    for name, content in CONTENTS.items():
        server.add(f"/{name}", content, faults=[Throttle(rate=600 * KIB)])

    def start() -> Started:
        return start_program(program, project.root, environment())

    for _ in range(rounds):
        reset(project)
        processes = [start() for _ in range(3)]
        for _ in range(4):
            victim = dice.randrange(3)
            with contextlib.suppress(subprocess.TimeoutExpired):
                processes[victim].wait(timeout=dice.uniform(0.1, 0.4))
            processes[victim].kill()
            processes[victim].communicate()
            check_finals(project)
            processes[victim] = start()
        said = [process.communicate(timeout=60) for process in processes]
        assert [process.returncode for process in processes] == [0, 0, 0], said
        check_finals(project, all_new=True)
        assert project.staged() == []


DAMAGED = CONTENTS["one"][:50_000] + bytes(20_000) + CONTENTS["one"][70_000:]


def damage(project: Project) -> None:
    """The file exists, but part of it is lost; the manifest has its pieces."""
    content = CONTENTS["one"]
    digests = [Checksum.of(content[at : at + 16 * KIB]).hexdigest for at in range(0, len(content), 16 * KIB)]
    entry = next(entry for entry in project.entries if entry["id"] == "one")
    entry["pieces"] = {"size": 16 * KIB, "sha256": digests}
    project.write()
    reset(project)
    (project.assets / "models" / "one.bin").write_bytes(DAMAGED)


@pytest.mark.strace
@pytest.mark.sweep
@pytest.mark.parametrize("kind", CHANGES.split(","))
@pytest.mark.shows("P1", "C17")
def test_a_repair_killed_before_each_change(project: Project, tmp_path: Path, kind: str) -> None:
    """The damaged file stays until the right one takes its place, and the next run finishes the job."""
    damage(project)
    place, log, program = project.assets / "models" / "one.bin", tmp_path / "trace", ONE_THREAD + PROGRAM
    assert traced(project, log, program=program).code == 0
    assert place.read_bytes() == CONTENTS["one"]
    for when in numbers_of(log, kind, project.assets):
        damage(project)
        traced(project, log, "-e", f"inject={kind}:signal=SIGKILL:when={when}", program=program)
        assert place.read_bytes() in (DAMAGED, CONTENTS["one"])
        asyncio.run(finish(project))
        check_finals(project, all_new=True)

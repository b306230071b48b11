"""Each step of a run fails once: whichever it is and however it fails, nothing leaks or hangs; the next run is right.

A step is anything that leaves our own code: a request, a read, a call to a thread, a wait. The idea is curl's: count
the steps of an undisturbed run, then run again for each of them and make that one fail.
"""

from __future__ import annotations

import asyncio
import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from grym_fetch import GrymFetchError, SyncFailed
from grym_fetch.core.errors import ConnectionLost, DiskFull, NotWritable, Stalled
from grym_fetch.disk.small_files import PATH_KEY
from grym_fetch.testing import seeded_bytes
from tests.support.invariants import DEADLINE, Recorder, Rules, Run
from tests.support.power_cut import no_flushing
from tests.support.project import Project
from tests.support.small_world import CHUNK, SmallWorld
from tests.support.sweeps import typical

Contents = dict[str, bytes]
"""What the assets of a run are, by id."""
TWO: Contents = {"one": seeded_bytes(20_011, seed=5), "two": seeded_bytes(9_000, seed=6)}
MANY: Contents = {f"small {n}": seeded_bytes(100 + n, seed=n) for n in range(5)}
"""Enough assets to go the short way (`grym_fetch.transfer.small_files`)."""

Failure = Callable[[str, "asyncio.Task[object]"], None]
"""What happens at a step: given its name and the run. Raises, cancels, or does nothing."""


def cancelled(_: str, run: asyncio.Task[object]) -> None:
    """The whole run is cancelled."""
    run.cancel()


def cut_off(step: str, _: object) -> None:
    """The network fails."""
    if step in ("get", "read"):
        raise ConnectionLost("https://origin.example/", "the connection broke off")


def stalled(step: str, _: object) -> None:
    """No data comes for too long."""
    if step in ("get", "read"):
        raise Stalled("https://origin.example/", "nothing arrived for 30 s")


def disk_full(step: str, _: object) -> None:
    """A call in a thread finds no space."""
    if step == "thread":
        raise DiskFull("/somewhere", "no space left on the device")


def disk_broken(step: str, _: object) -> None:
    """A call in a thread finds a broken disk."""
    if step == "thread":
        raise NotWritable("/somewhere", "cannot use this path: input/output error")


def a_bug(step: str, _: object) -> None:
    """Something fails in an unforeseen way."""
    if step == "read":
        raise RuntimeError("a bug")


def odd_answer(step: str, _: object) -> None:
    """Data from a server makes the reader of heads fail: that counts as the server's failure, and is retried."""
    if step == "get":
        raise RuntimeError("a bug")


FAILURES: dict[str, Failure] = {
    "the run is cancelled": cancelled,
    "the network fails": cut_off,
    "the network stalls": stalled,
    "the disk is full": disk_full,
    "the disk is broken": disk_broken,
    "a bug": a_bug,
    "an odd answer": odd_answer,
}


def url_of(name: str) -> str:
    """The address of an asset."""
    return f"https://origin.example/{name.replace(' ', '-')}"


def make_project(root: Path, contents: Contents) -> Project:
    """A project with these assets."""
    project = Project(root)
    for name, content in contents.items():
        project.add(name, [url_of(name)], content)
    return project


@dataclass(frozen=True)
class Tried:
    """A run: how many steps it had, how many bytes were sent, and its result, if it was neither cut nor broken."""

    steps: int
    sent: int
    run: Run | None


async def attempt(project: Project, contents: Contents, rules: Rules, failure: Failure | None, at: int) -> Tried:
    """One run whose step ``at`` fails this way; the final paths are checked at each step."""
    world = SmallWorld({url_of(name): content for name, content in contents.items()})
    heard: list[Recorder] = []
    step = 0
    has_raised = False

    async def gate(name: str) -> None:
        nonlocal step, has_raised
        step += 1
        for watcher in rules.watchers:
            watcher.look()
        if step == at and failure is not None:
            has_raised = True
            failure(name, run)
            has_raised = False
        await asyncio.sleep(0)

    async def fetch() -> None:
        async with world.manager(project) as manager:
            heard.append(Recorder(manager))
            await manager.sync()

    world.gate = gate
    run: asyncio.Task[object] = asyncio.get_running_loop().create_task(fetch())
    _, hanging = await asyncio.wait([run], timeout=DEADLINE)
    assert not hanging, "it hangs"
    error = None if run.cancelled() else run.exception()
    assert error is None or isinstance(error, GrymFetchError) or failure is a_bug, "an error that is none of ours"
    assert not run.cancelled() or failure is cancelled
    assert not (failure is a_bug and has_raised) or error is not None, "a bug was hushed up"
    has_ended = error is None and not run.cancelled()
    failures = error.failures if isinstance(error, SyncFailed) else {}
    assert asyncio.all_tasks() == {asyncio.current_task()}, "a task was left"
    assert world.open == set(), "a connection or a set of threads was left"
    return Tried(step, world.sent, Run(heard[0], failures) if has_ended or failures else None)


def run_with(
    project: Project,
    contents: Contents,
    failure: Failure | None = None,
    at: int = 0,
    calls: FailingCalls | None = None,
) -> Tried:
    """One run, checked against all rules; ``calls`` to the disk are counted, if given."""
    rules = Rules(project)
    with nullcontext() if calls is None else calls.in_place():
        tried = asyncio.run(attempt(project, contents, rules, failure, at))
    rules.check(tried.run)
    return tried


def fail_and_go_on(failure: Failure, at: int, contents: Contents) -> int:
    """Make one step fail, check what is left, and run again. Returns how many steps the first run had."""
    total = sum(map(len, contents.values()))
    with tempfile.TemporaryDirectory(prefix="grym-fetch-") as folder:
        project = make_project(Path(folder) / "project", contents)
        first = run_with(project, contents, failure, at)
        second = run_with(project, contents)
        # The folder where small files were staged belongs to this process as long as it lives; the next one removes it.
        assert [stage for stage in project.staged() if not stage.name.startswith(PATH_KEY)] == []
    assert second.sent <= total
    if failure in (cancelled, cut_off, stalled):
        assert first.sent + second.sent <= total + 2 * CHUNK, "what had arrived was thrown away"
    return first.steps


def torture(failure: Failure, contents: Contents, stride: int, offset: int) -> int:
    """Make each ``stride``-th step fail. Returns how many were tried."""
    at, tried = 1 + offset, 0
    with no_flushing():
        while fail_and_go_on(failure, at, contents) >= at:
            at += stride
            tried += 1
    return tried


@pytest.mark.shows("N1", "N12", "D2", "D5", "P9", "P10")
@pytest.mark.parametrize("name", FAILURES)
def test_a_step_fails(name: str) -> None:
    """An eighth of all steps, a different one for each kind of failure."""
    assert torture(FAILURES[name], TWO, 8, list(FAILURES).index(name) % 8) > 6


@pytest.mark.shows("N1", "N12", "D2", "P9", "P10")
@pytest.mark.parametrize("stride", [6, pytest.param(1, marks=pytest.mark.sweep)])
@pytest.mark.parametrize("name", FAILURES)
def test_a_step_of_many_small_assets_fails(name: str, stride: int) -> None:
    """The same if many small assets are fetched and put in place together: a sixth of the steps, or all."""
    assert torture(FAILURES[name], MANY, stride, list(FAILURES).index(name) % stride) > 12 // stride


@pytest.mark.sweep
@pytest.mark.parametrize("name", FAILURES)
def test_every_step_fails(name: str) -> None:
    """All of them."""
    assert torture(FAILURES[name], TWO, 1, 0) > 60


# -- the system's calls -----------------------------------------------------------------------------------------------

CALLS = ("open", "close", "write", "pwrite", "pread", "fsync", "fdatasync", "ftruncate", "statvfs", "scandir")
CHANGES = ("mkdir", "rename", "replace", "unlink", "rmdir")


class FailingCalls:
    """Counts what is asked of the disk below ``root``, and makes call number ``at`` fail."""

    def __init__(self, root: Path, at: int, number: int) -> None:
        self._root = os.path.realpath(root)
        self._at = at
        self._number = number
        self.count = 0
        self.failed = ""

    def wrap(self, name: str) -> Callable[..., Any]:
        """The call of this name."""
        real = getattr(os, name)

        def call(first: Any, *rest: Any, **named: Any) -> Any:
            if self._is_ours(first, named):
                self.count += 1
                if self.count == self._at:
                    self.failed = name
                    if name == "close":
                        real(first)  # a failed close still closes (close(2))
                    raise OSError(self._number, os.strerror(self._number))
            return real(first, *rest, **named)

        return call

    def _is_ours(self, first: Any, named: dict[str, Any]) -> bool:
        folder = first if isinstance(first, int) else named.get("dir_fd", named.get("src_dir_fd"))
        try:
            place = os.fspath(first) if folder is None else os.readlink(f"/proc/self/fd/{folder}")
        except OSError:
            return False
        return str(place).startswith(self._root)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """While this lasts, calls are counted."""
        # Not every system has each of them.
        wrapped: dict[str, Any] = {name: self.wrap(name) for name in (*CALLS, *CHANGES) if hasattr(os, name)}
        with mock.patch.multiple(os, **wrapped):
            yield


def fail_call(at: int, number: int, contents: Contents) -> bool:
    """Make one call fail, check what is left, and run again. Returns whether there was such a call."""
    with tempfile.TemporaryDirectory(prefix="grym-fetch-") as folder:
        project = make_project(Path(folder) / "project", contents)
        calls = FailingCalls(project.root, at, number)
        run_with(project, contents, calls=calls)
        run_with(project, contents)
        assert all(path.exists() for path in project.finals().values())
    return bool(calls.failed)


NUMBERS = (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EMFILE, errno.ESTALE)
KINDS = pytest.mark.parametrize("contents", typical([TWO, MANY], TWO), ids=["two", "many small"])


@pytest.mark.shows("D2", "D3", "D5", "D16")
@pytest.mark.parametrize("number", typical(NUMBERS, errno.ENOSPC), ids=errno.errorcode.get)
@KINDS
def test_a_call_fails(number: int, contents: Contents) -> None:
    """An eighth of all calls to the disk, a different one for each error: an error of ours, or none, and no harm."""
    at = 1 + NUMBERS.index(number)
    with no_flushing():
        while fail_call(at, number, contents):
            at += 8
    assert at > 50


@pytest.mark.sweep
@KINDS
def test_every_call_fails(contents: Contents) -> None:
    """All of them: for want of space, and with one of the other errors, which take turns."""
    full, *others = NUMBERS
    at = 1
    with no_flushing():
        while fail_call(at, full, contents):
            fail_call(at, others[at % len(others)], contents)
            at += 1

"""Misbehaving listeners, and what they are told: they do not affect a transfer, and the numbers are true."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from grym_fetch import AssetManager, SyncFailed
from grym_fetch.core.events import Event
from grym_fetch.engine.coordinator import Coordinator
from grym_fetch.errors import DigestMismatch
from grym_fetch.runtime.bus import EventBus
from grym_fetch.testing import (
    AssetServer,
    ChangeContent,
    Fault,
    FlipByte,
    NoRanges,
    Truncate,
    seeded_bytes,
    serve_in_thread,
)
from tests.support.invariants import Recorder, Rules
from tests.support.project import KIB, Project

CONTENT = seeded_bytes(300 * KIB, seed=21)
Callback = Callable[[AssetManager, Event], Awaitable[object]]


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits a second for a callback that does not return."""
    for method, name in ((EventBus.settle, "grace"), (EventBus.aclose, "patience")):
        assert method.__kwdefaults__ is not None
        monkeypatch.setitem(method.__kwdefaults__, name, 0.05)


@pytest.fixture
def project(tmp_path: Path, server: AssetServer) -> Project:
    """Two assets that are not fetched yet."""
    project = Project(tmp_path / "project")
    for name in ("a", "b"):
        project.add(name, [server.add(f"/{name}.bin", CONTENT).url], CONTENT)
    return project


async def wait_for_the_same(manager: AssetManager, event: Event) -> object:
    return await manager.get_asset_path("a")


async def fetch_another(manager: AssetManager, event: Event) -> object:
    return await manager.get_asset_path("b")


async def sync_everything(manager: AssetManager, event: Event) -> object:
    return await manager.sync(all=True)


async def listen_more(manager: AssetManager, event: Event) -> object:
    return manager.on_event(lambda event: None)


async def cancel_oneself(manager: AssetManager, event: Event) -> object:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)
    return None


async def say_that_it_was_cancelled(manager: AssetManager, event: Event) -> object:
    raise asyncio.CancelledError


async def never_return(manager: AssetManager, event: Event) -> object:
    return await asyncio.Event().wait()


@pytest.mark.shows("U6", "S13")
@pytest.mark.parametrize(
    "callback",
    [
        wait_for_the_same,
        fetch_another,
        sync_everything,
        listen_more,
        cancel_oneself,
        say_that_it_was_cancelled,
        never_return,
    ],
    ids=lambda callback: callback.__name__,
)
async def test_whatever_a_callback_does_the_file_arrives(project: Project, callback: Callback) -> None:
    """A callback that calls back, waits for what it is told of, cancels or never returns harms only itself."""
    async with asyncio.timeout(60), project.manager() as manager:
        recorder = Recorder(manager)
        manager.on_event(lambda event: callback(manager, event))
        path = await manager.get_asset_path("a")
        assert path.read_bytes() == CONTENT
    assert [event["asset"] for event in recorder.of("asset_verified")].count("a") == 1


async def leave_the_program(event: Event) -> None:
    sys.exit(3)


def leave_the_program_from_its_thread(event: Event) -> None:
    sys.exit(3)


def interrupt(event: Event) -> None:
    raise KeyboardInterrupt


def look_for_what_is_not_there(event: Event) -> None:
    next(iter(()))


@pytest.mark.shows("U6", "S13")
@pytest.mark.parametrize(
    "callback",
    [leave_the_program, leave_the_program_from_its_thread, interrupt, look_for_what_is_not_there],
    ids=lambda callback: callback.__name__,
)
def test_a_callback_cannot_end_the_loop(
    tmp_path: Path, callback: Callable[[Event], object], caplog: pytest.LogCaptureFixture
) -> None:
    """SystemExit and the like are a failure of the callback, like any other error, not the end of the program."""
    project = Project(tmp_path / "project")

    async def fetch() -> bytes:
        async with asyncio.timeout(60), project.manager() as manager:
            manager.on_event(callback)
            return (await manager.get_asset_path("a")).read_bytes()

    with serve_in_thread() as server:
        project.add("a", [server.add("/a.bin", CONTENT).url], CONTENT)
        try:
            fetched = asyncio.run(fetch())
        except (SystemExit, KeyboardInterrupt) as error:
            pytest.fail(f"the callback ended the loop: {error!r}")
    assert fetched == CONTENT
    assert [record.message for record in caplog.records] == ["a callback raised and will not be called again"]


@pytest.mark.shows("U6", "S13")
async def test_a_callback_may_close_the_manager(project: Project) -> None:
    """If closed from within, it cancels those who wait for a file and does not wait for the callback that closes it."""
    async with asyncio.timeout(60), project.manager() as manager:

        async def close(event: Event) -> None:
            if event.type == "asset_planned":
                await manager.aclose()

        manager.on_event(close)
        with pytest.raises(asyncio.CancelledError):
            await manager.get_asset_path("a")


@pytest.mark.shows("U6", "S13")
async def test_a_sync_is_cancelled_where_a_callback_closes_the_manager(project: Project) -> None:
    """Whatever is left of it is cancelled, its last event says so, and nothing is left behind."""
    rules, heard = Rules(project), Recorder()
    async with asyncio.timeout(60), project.manager(parallel=1) as manager:

        async def close(event: Event) -> None:
            heard.events.append(event)
            if event.type in ("asset_planned", "asset_verified"):
                await manager.aclose()

        manager.on_event(close)
        with pytest.raises(asyncio.CancelledError):
            await manager.sync()
    assert heard.of("run_finished")
    rules.check(None)


NEVER = """
import asyncio, threading
from grym_fetch import AssetManager

async def main():
    async with AssetManager() as manager:
        manager.on_event(lambda event: threading.Event().wait())
        await manager.sync()
    print("done", flush=True)

asyncio.run(main())
"""


@pytest.mark.posix
@pytest.mark.shows("U6", "S13")
def test_a_callback_that_never_returns_does_not_hold_up_the_end(tmp_path: Path) -> None:
    """Nor does its thread: the interpreter ends without waiting for it."""
    with serve_in_thread() as server:
        project = Project(tmp_path / "project")
        project.add("a", [server.add("/a", CONTENT).url], CONTENT)
        done = subprocess.run([sys.executable, "-c", NEVER], cwd=project.root, timeout=60, capture_output=True)
    assert (done.returncode, done.stdout) == (0, b"done\n"), done.stderr


@pytest.mark.shows("U6", "S13")
async def test_what_a_callback_asks_for_at_the_end_ends_too(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A callback with events still to handle when the manager closes may use the manager: nothing of that is left."""
    assert EventBus.aclose.__kwdefaults__ is not None
    monkeypatch.setitem(EventBus.aclose.__kwdefaults__, "patience", 30.0)
    rules, closing, close = Rules(project), asyncio.Event(), Coordinator.aclose
    answers: list[Path] = []

    async def close_and_tell(coordinator: Coordinator) -> None:
        await close(coordinator)
        closing.set()

    monkeypatch.setattr(Coordinator, "aclose", close_and_tell)
    async with asyncio.timeout(60), project.manager() as manager:

        async def look(event: Event) -> None:
            if event.type == "asset_verified" and not answers:
                await closing.wait()
                answers.append(await manager.get_asset_path("b"))

        manager.on_event(look)
        await manager.get_asset_path("a")
    assert [path.read_bytes() for path in answers] == [CONTENT]
    rules.check(None)


@pytest.mark.shows("U8")
@pytest.mark.parametrize("size", [True, False], ids=["size known", "size unknown"])
async def test_progress_is_never_too_much_nor_taken_back_in_silence(
    server: AssetServer, project: Project, size: bool
) -> None:
    """Despite changed content, breaks and a server without ranges, it never exceeds the total and never shrinks."""
    old = seeded_bytes(len(CONTENT), seed=22)
    faults = [ChangeContent(CONTENT, skip=3), NoRanges(skip=6), Truncate(after=40 * KIB, times=3)]
    project.add("a", [server.add("/a.bin", old, faults=faults).url], CONTENT, size=size)
    async with asyncio.timeout(60), project.manager() as manager:
        recorder = Recorder(manager)
        await manager.get_asset_path("a")
    recorder.check()
    amounts = [event["bytes"] for event in recorder.of("progress")]
    assert amounts[-1] == len(CONTENT)
    assert all(isinstance(amount, int) and 0 <= amount <= len(CONTENT) for amount in amounts)


@pytest.mark.shows("U8")
@pytest.mark.parametrize("faults", [[], [NoRanges()]], ids=["ranges", "no ranges"])
async def test_the_total_is_told_as_soon_as_a_server_tells_it(
    server: AssetServer, project: Project, faults: list[Fault]
) -> None:
    """If the manifest has no size, the first answer has it: no progress is reported without a total."""
    project.add("a", [server.add("/a.bin", CONTENT, faults=faults).url], CONTENT, size=False)
    async with asyncio.timeout(60), project.manager() as manager:
        recorder = Recorder(manager)
        await manager.get_asset_path("a")
    assert {event["total"] for event in recorder.of("progress")} == {len(CONTENT)}
    assert len(recorder.of("progress")) > 1


@pytest.mark.shows("U10")
async def test_all_bytes_are_not_yet_a_file(server: AssetServer, project: Project) -> None:
    """An asset with all its bytes is being verified, which is an event of its own, and may still fail; never both."""
    project.add("a", [server.add("/a.bin", CONTENT, faults=[FlipByte(at=5)]).url], CONTENT)
    async with asyncio.timeout(60), project.manager() as manager:
        recorder = Recorder(manager)
        seen: list[str] = []
        manager.on_progress(lambda progress: seen.append(progress.status))
        with pytest.raises(SyncFailed) as failed:
            await manager.sync(["a"])
    assert isinstance(failed.value.failures["a"], DigestMismatch)
    kinds = [event.type for event in recorder.events if event.asset == "a"]
    assert kinds.index("asset_verifying") < kinds.index("asset_failed")
    assert recorder.of("progress")[-1]["bytes"] == len(CONTENT)
    assert "asset_verified" not in kinds
    assert "validating" in seen
    assert "complete" not in seen

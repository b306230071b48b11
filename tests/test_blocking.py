"""The blocking twin: the same calls, from scripts, threads and running loops; nothing goes on behind the caller."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from grym_fetch import (
    Asset,
    AssetProgress,
    GrymFetchError,
    ManifestError,
    MirrorsExhausted,
    Settings,
    SyncFailed,
    UnknownAsset,
    manager,
)
from grym_fetch.blocking import AssetManager
from grym_fetch.core.events import Event
from grym_fetch.runtime import loop_thread
from grym_fetch.testing import AssetServer, Gate, HangBeforeBody, Hold, Status, Throttle, seeded_bytes, serve_in_thread
from tests.support.project import KIB, SMALL, Project
from tests.support.sweeps import typical

CONTENT = seeded_bytes(600 * KIB, seed=21)


@pytest.fixture
def server() -> Iterator[AssetServer]:
    with serve_in_thread() as running:
        yield running


@pytest.fixture
def project(tmp_path: Path, server: AssetServer) -> Project:
    return Project.with_one_asset(tmp_path / "project", server, CONTENT)


def blocking(project: Project, **settings: Any) -> AssetManager:
    """A manager of the project with small segments."""
    return AssetManager(project.manifest, settings=Settings(sizes=SMALL, **settings), environ={})


def loops() -> list[threading.Thread]:
    """The threads of managers that are alive."""
    return [thread for thread in threading.enumerate() if thread.name == "grym-fetch loop"]


@pytest.fixture(autouse=True)
def _leaves_no_thread() -> Iterator[None]:
    """Whatever a test does, its managers' threads end with its managers."""
    yield
    if loops():  # otherwise there is none to wait for, and searching all objects takes longer than most tests
        gc.collect()
    for thread in loops():
        thread.join(60)
    assert loops() == []


# --- The same interface -------------------------------------------------------------------------------------

OTHER_WORDS = {"emit", "events", "open_asset", "on_progress", "settings", "minimal", "warnings"}
"""Members whose docstrings must differ from the asynchronous manager's."""


def public_members(kind: type) -> set[str]:
    """The names that a user may use."""
    return {name for name in dir(kind) if not name.startswith("_")}


def test_it_can_do_what_the_other_can() -> None:
    """Each method and property is there; `aclose` is called `close` here."""
    attributes = {"settings", "minimal", "warnings"}
    assert public_members(AssetManager) == public_members(manager.AssetManager) - {"aclose"} | {"close"} | attributes


@pytest.mark.parametrize("name", ["__init__", *sorted(public_members(manager.AssetManager) - {"aclose"})])
def test_signatures_and_words_are_the_same(name: str) -> None:
    """Each method has the other's parameters, result and documentation, and needs no `await`."""
    there, here = (inspect.getattr_static(kind, name) for kind in (manager.AssetManager, AssetManager))
    assert type(there) is type(here)
    assert not inspect.iscoroutinefunction(here)
    if callable(there):
        expected, actual = inspect.signature(there), inspect.signature(here)
        assert list(actual.parameters.values()) == list(expected.parameters.values())
        if name not in ("events", "open_asset"):
            assert actual.return_annotation == expected.return_annotation
    if name not in OTHER_WORDS and name != "__init__":
        assert spoken(here) == spoken(there)


def spoken(member: object) -> str:
    """A docstring without what it says about running loops, which nobody needs here."""
    return (inspect.getdoc(member) or "").replace(" Needs a running loop.", "")


# --- Calls --------------------------------------------------------------------------------------------------


def test_a_script(project: Project, server: AssetServer) -> None:
    """Every call does what it does with `await`, one after the other."""
    with blocking(project) as assets:
        assert assets.check_asset("a").error == "missing"
        assert assets.state_of(assets.manifest.get("a")) == "missing"
        plan = assets.plan(assets.choose(all=True))
        assert [asset.id for asset in plan.to_fetch] == ["a"]
        path = assets.get_asset_path("a")
        assert path.read_bytes() == CONTENT
        assert path == assets.project.assets_dir / "models/a.bin"
        assert [status.valid for status in assets.check_all_assets(full=True)] == [True]
        assert assets.sync().reused == ("a",)
        assert assets.sync_assets(assets.choose(["a"]), force=True).verified == ("a",)
        assert assets.download_required_assets().paths == {"a": path}
        assert assets.download_asset("a", force=True) == path
        assert (assets.minimal, assets.warnings, assets.settings.sizes) == (False, (), SMALL)
    assert loops() == []


def test_the_manifest_is_changed(project: Project, server: AssetServer) -> None:
    """Assets are added, pinned and removed without `await`, too."""
    new = Asset(id="new", url=server.add("/new.bin", CONTENT).url, local_path="models/new.bin")
    with blocking(project) as assets:
        assert assets.add_asset(new).checksum is None
        assert [pinned.size for pinned in assets.pin(["new"]).pinned] == [len(CONTENT)]
        assert assets.check_asset("new").valid
        assert assets.remove_asset("new", delete_file=True) == (project.assets / "models/new.bin",)
        assets.prune(dry_run=True)
        with pytest.raises(GrymFetchError):
            assets.restore_asset("nothing")
        with pytest.raises(UnknownAsset):
            assets.get_asset_path("new")


def test_errors_come_through(project: Project, server: AssetServer, tmp_path: Path) -> None:
    """An error is the very one that the asynchronous manager raises."""
    server.add("/a.bin", CONTENT, faults=[Status(404)])
    with blocking(project) as assets:
        with pytest.raises(UnknownAsset):
            assets.check_asset("b")
        with pytest.raises(MirrorsExhausted, match="404"):
            assets.get_asset_path("a")
        with pytest.raises(SyncFailed):
            assets.sync()
    with pytest.raises(ManifestError), AssetManager(tmp_path / "nothing.json", environ={}):
        pass


async def test_inside_a_running_loop(project: Project) -> None:
    """It works inside a running loop, as in a notebook."""
    with blocking(project) as assets:
        assert assets.get_asset_path("a").read_bytes() == CONTENT


def test_it_starts_by_itself_and_again(project: Project) -> None:
    """Nothing needs to be initialized; after `close` the next call starts again."""
    assets = blocking(project)
    assert loops() == []
    assets.close()
    path = assets.get_asset_path("a")
    assets.close()
    assets.close()
    assert assets.get_asset_path("a") == path
    assets.close()


def test_threads_share_one_download(project: Project, server: AssetServer) -> None:
    """Threads that want one asset at once cause one download."""
    with blocking(project) as assets, ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(assets.get_asset_path, ["a"] * 8))
    assert len(paths) == 1
    assert server.stats.body_bytes_sent == len(CONTENT)


def test_a_forgotten_manager_closes_itself(project: Project) -> None:
    """A manager that nobody closed ends its thread once nobody references it."""
    assets = blocking(project)
    assets.get_asset_path("a")
    (thread,) = loops()
    del assets
    gc.collect()
    thread.join(60)
    assert not thread.is_alive()


def test_the_watching_thread_goes_with_the_last_manager(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread for all managers waits for the end of the interpreter, and none if there is no manager."""
    monkeypatch.setattr(loop_thread, "WATCH_S", 0.01)

    def watching() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "grym-fetch watch"]

    for thread in watching():
        thread.join(60)
    with blocking(project), blocking(project):
        (thread,) = watching()
        assert not thread.daemon
    thread.join(60)
    assert not thread.is_alive()
    with blocking(project) as assets:
        assert assets.check_asset("a").error == "missing"
        assert len(watching()) == 1


def test_what_does_not_wait_can_be_called_in_the_loop(project: Project) -> None:
    """An async callback may make calls that need no waiting, so nothing waits for itself."""
    seen: list[object] = []

    async def callback(_: Event) -> None:
        seen.append((assets.state_of(assets.manifest.get("a")), [asset.id for asset in assets.choose()]))

    with blocking(project) as assets:
        assets.on_event(callback)
        assets.get_asset_path("a")
    assert seen[0] == ("missing", ["a"])
    assert seen[-1] == ("verified", ["a"])


# --- Listening ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_progress(project: Project, kind: str) -> None:
    """Callbacks hear of every state before the call returns; an unregistered one hears nothing more."""
    seen: list[AssetProgress] = []

    async def async_callback(progress: AssetProgress) -> None:
        seen.append(progress)

    callback: Callable[[AssetProgress], Any] = seen.append if kind == "sync" else async_callback
    with blocking(project) as assets:
        unregister = assets.on_progress(callback)
        assets.download_asset("a")
        assert list(dict.fromkeys(p.status for p in seen)) == ["pending", "downloading", "validating", "complete"]
        unregister()
        count = len(seen)
        assets.download_asset("a", force=True)
        assert len(seen) == count
    unregister()


@pytest.mark.shows("U6")
def test_a_callback_may_unregister_itself(project: Project) -> None:
    """A callback in a thread, and one in the loop itself, can end its own registration."""
    seen: list[str] = []

    async def once_in_loop(_: object) -> None:
        seen.append("loop")
        unregister[0]()

    def once_in_thread(_: object) -> None:
        seen.append("thread")
        unregister[1]()

    with blocking(project) as assets:
        unregister = [assets.on_event(once_in_loop), assets.on_event(once_in_thread)]
        assets.get_asset_path("a")
    assert sorted(seen) == ["loop", "thread"]


@pytest.mark.shows("U6")
def test_a_blocking_call_inside_the_loop_is_refused(project: Project) -> None:
    """An async callback that makes a blocking call gets an error; otherwise it would wait for itself forever."""
    troubles: list[RuntimeError] = []

    async def callback(_: object) -> None:
        for call in (lambda: assets.check_asset("a"), assets.close):
            with pytest.raises(RuntimeError) as caught:
                call()
            troubles.append(caught.value)

    with blocking(project) as assets:
        assets.on_event(callback)
        assets.get_asset_path("a")
        assert troubles
        assert assets.check_asset("a").valid


def test_events_as_they_come(project: Project) -> None:
    """One thread reads events while another one syncs; each comes once and in order."""
    kinds = []
    with blocking(project) as assets, assets.events() as events:
        worker = threading.Thread(target=assets.sync)
        worker.start()
        for event in events:
            kinds.append(event.type)
            if event.type == "run_finished":
                break
        worker.join()
    without_progress = [kind for kind in kinds if kind != "progress"]
    assert without_progress == ["run_started", "asset_planned", "asset_verifying", "asset_verified", "run_finished"]
    assert list(events) == []


def test_events_end_with_the_manager(project: Project) -> None:
    """Events emitted before the manager was closed can be read afterwards, and then the stream ends."""
    with blocking(project) as assets:
        events = assets.events()
        assets.sync()
    assert [event.type for event in events][-1] == "run_finished"
    events.close()
    assert list(events) == []


def test_a_reader_that_waits_is_released(project: Project) -> None:
    """A thread that waits for the next event is released when the manager is closed."""
    with blocking(project) as assets:
        events = assets.events()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(list, events)
            assets.close()
            assert waiting.result(60) == []


def test_the_examples_of_the_page(
    tmp_path: Path, server: AssetServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The examples of the blocking twin on the API page run exactly as printed."""
    made = Project(tmp_path / "project")
    place = made.add("audioldm-s-full", [server.add("/a.bin", CONTENT).url], CONTENT, tags=["model"])
    monkeypatch.chdir(made.root)
    page = (Path(__file__).parent.parent / "docs" / "python-api.md").read_text("utf-8")
    section = page.partition("## Without await\n")[2].partition("\n## ")[0]
    names: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL):
        exec(block, names)
    assert names["path"] == place
    assert names["report"].reused == ("audioldm-s-full",)
    out = capsys.readouterr().out
    assert "audioldm-s-full 100.0" in out
    assert out.endswith("asset_reused audioldm-s-full\nrun_finished None\n")
    names["assets"].close()


# --- Interruptions ------------------------------------------------------------------------------------------


class Interruption(Exception):
    """What a test's signal handler raises, as Python's own raises `KeyboardInterrupt`."""


@pytest.fixture
def interrupt() -> Iterator[Callable[[], None]]:
    """Send this process a signal that raises `Interruption` in the main thread."""

    def handle(*_: object) -> None:
        raise Interruption

    before = signal.signal(signal.SIGUSR1, handle)
    yield lambda: os.kill(os.getpid(), signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.shows("U6", "B61")
@pytest.mark.parametrize("interrupted", typical([True, False], True))
def test_an_interruption_does_not_wait_for_a_slow_callback(project: Project, interrupted: bool) -> None:
    """After Ctrl-C, a late callback gets one second; at a normal end of the block, all the time it needs."""
    seen: list[str] = []
    never = threading.Event()

    def slow(event: Event) -> None:
        seen.append(event.type)
        never.wait(0.06)

    with suppress(KeyboardInterrupt), blocking(project) as assets:
        assets.on_event(slow)
        for _ in range(12):
            assets.sync()  # about 40 events: more than it can handle in a second
        if interrupted:
            raise KeyboardInterrupt
    assert (seen.count("run_finished") == 12) is not interrupted


@pytest.mark.posix
@pytest.mark.shows("P8")
def test_an_interruption_ends_the_call_and_keeps_what_arrived(
    project: Project, server: AssetServer, interrupt: Callable[[], None]
) -> None:
    """An interrupted call ends on both sides: nothing more is requested, and the rest comes next time."""
    server.add("/a.bin", CONTENT, faults=[Throttle(rate=400 * KIB), Hold(Gate(), at=len(CONTENT) - 1)])
    with blocking(project, parallel=1) as assets:

        def on_progress(progress: AssetProgress) -> None:
            if progress.bytes_downloaded > 64 * KIB:
                unregister()
                interrupt()

        unregister = assets.on_progress(on_progress)
        with pytest.raises(Interruption):
            assets.get_asset_path("a")
        asked = len(server.stats.requests)
        server.add("/a.bin", CONTENT)
        with assets.events() as events:
            assert assets.get_asset_path("a").read_bytes() == CONTENT
            planned = next(event.as_json() for event in events if event.type == "asset_planned")
    assert planned["resumed_bytes"] != 0
    assert server.stats.requests[asked].range is not None


@pytest.mark.posix
def test_an_interruption_leaves_other_threads_alone(
    project: Project, server: AssetServer, interrupt: Callable[[], None]
) -> None:
    """Two threads wait for one asset; interrupting one takes nothing from the other."""
    gate = Gate()
    file = server.add("/a.bin", CONTENT, faults=[HangBeforeBody(times=1), Hold(gate, at=len(CONTENT) - 1)])
    with blocking(project, parallel=1, stall_timeout=0.5) as assets, ThreadPoolExecutor(1) as pool:

        def on_event(event: Any) -> None:
            if event.type == "asset_planned":
                futures.append(pool.submit(assets.get_asset_path, "a"))
            if event.type == "retry_scheduled" and not interrupted:
                interrupted.append(event)
                interrupt()

        futures: list[Any] = []
        interrupted: list[Any] = []
        assets.on_event(on_event)
        with pytest.raises(Interruption):
            assets.get_asset_path("a")
        gate.open()
        assert futures[0].result(60).read_bytes() == CONTENT
    assert file.faults


def test_closing_ends_the_calls_of_other_threads(project: Project, server: AssetServer) -> None:
    """A call under way when another thread closes the manager is told so."""
    server.add("/a.bin", CONTENT, faults=[Hold(Gate(), at=len(CONTENT) // 2)])
    assets = blocking(project, parallel=1)
    with ThreadPoolExecutor(1) as pool, assets.events() as events:
        waiting = pool.submit(assets.get_asset_path, "a")
        assert next(event for event in events if event.type == "progress")
        assets.close()
        with pytest.raises(CancelledError, match="closed"):
            waiting.result(60)


# --- Forks --------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.shows("X9")
def test_a_forked_process_is_told(project: Project) -> None:
    """A manager used before a fork is refused in the child, which can make its own; the parent's still works."""
    with blocking(project) as assets:
        assets.get_asset_path("a")
        child = os.fork()
        if child == 0:
            code = 1
            try:
                assets.check_asset("a")
            except RuntimeError as error:
                assets.close()
                with blocking(project) as own:
                    code = 0 if "fork" in str(error) and own.check_asset("a").valid else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert assets.check_asset("a").valid


@pytest.mark.shows("X9")
def test_other_loops_come_and_go(project: Project) -> None:
    """One manager serves a program that meanwhile runs loops of its own, one after the other."""
    with blocking(project) as assets:

        async def other() -> bool:
            return assets.check_asset("a").valid

        assert asyncio.run(other()) is False
        assert assets.get_asset_path("a").is_file()
        assert asyncio.run(other()) is True

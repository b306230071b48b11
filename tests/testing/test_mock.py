"""The mock behaves like the real manager in every visible way, except for the network and the disk."""

from __future__ import annotations

import asyncio
import builtins
import inspect
import os
import socket
from collections.abc import Awaitable, Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

import grym_fetch
import grym_fetch.testing
from grym_fetch import (
    AssetManager,
    AssetProgress,
    AssetState,
    AssetStatus,
    GrymFetchError,
    MirrorsExhausted,
    SyncFailed,
    UnknownAsset,
    create_mock_asset_manager,
)
from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import DigestMismatch, ManifestError
from grym_fetch.core.events import Event
from grym_fetch.core.manifest import Asset
from grym_fetch.errors import AssetMissing, UnpinnedAsset
from grym_fetch.runtime.bus import CALLBACK_TIMEOUT_S
from grym_fetch.testing import AssetServer, FlipByte, MockAssetManager, Status, seeded_bytes
from grym_fetch.testing.mock import DEFAULT_SIZE_BYTES
from tests.support.fakes import VirtualLoop
from tests.support.project import KIB, Project

CONTENT = seeded_bytes(200 * KIB, seed=5)
GONE = MirrorsExhausted("a", [])
WRONG = DigestMismatch("a", "sha256:1", "sha256:2")

Story = Callable[[AssetManager], Any]


@pytest.fixture
def project(tmp_path: Path, server: AssetServer) -> Project:
    """One asset, not there yet."""
    return Project.with_one_asset(tmp_path / "project", server, CONTENT)


async def kinds_of(manager: AssetManager, story: Story) -> list[str]:
    """The types of the events of a story; consecutive reports of progress count as one."""
    seen: list[str] = []
    async with manager, manager.events() as events:
        try:
            await story(manager)
        except GrymFetchError as error:
            seen.append(type(error).__name__)
        seen += [event.type for event in events.drain()]
    return [kind for kind, _ in groupby(seen)]


# --- The interface ------------------------------------------------------------------------------------------


def public_members(kind: type) -> set[str]:
    """The names that a user may use."""
    return {name for name in dir(kind) if not name.startswith("_")}


def test_it_is_an_asset_manager() -> None:
    """Code that asks for an `AssetManager` accepts the mock, and so does a type checker."""
    manager: AssetManager = create_mock_asset_manager({})
    assert isinstance(manager, AssetManager)
    assert grym_fetch.testing.create_mock_asset_manager is create_mock_asset_manager


@pytest.mark.parametrize("name", sorted(public_members(AssetManager)))
def test_every_member_is_the_same(name: str) -> None:
    """Each public method has the real one's signature and kind; a property is a property."""
    real, mock = (inspect.getattr_static(kind, name) for kind in (AssetManager, MockAssetManager))
    assert type(real) is type(mock)
    if callable(real):
        assert inspect.signature(real) == inspect.signature(mock)
        assert inspect.iscoroutinefunction(real) == inspect.iscoroutinefunction(mock)


@pytest.mark.parametrize("name", [n for n, m in vars(AssetManager).items() if inspect.iscoroutinefunction(m)])
def test_every_awaited_call_is_recorded(name: str) -> None:
    """Every awaited method of the real one is recorded: a new one would touch the disk unseen."""
    assert name.startswith("_") or name in vars(MockAssetManager)


@pytest.mark.parametrize("attribute", ["settings", "minimal", "warnings"])
def test_attributes_are_there(attribute: str) -> None:
    """Attributes that a manager sets when created are there as well."""
    assert hasattr(create_mock_asset_manager({}), attribute)


# --- The same calls give the same events --------------------------------------------------------------------

STORIES: dict[str, Story] = {
    "get_asset_path": lambda m: m.get_asset_path("a"),
    "download_asset": lambda m: m.download_asset("a"),
    "force": lambda m: m.download_asset("a", force=True),
    "check_asset": lambda m: m.check_asset("a"),
    "sync": lambda m: m.sync(),
    "sync of one": lambda m: m.sync(["a"], force=True),
    "required": lambda m: m.download_required_assets(),
    "unknown": lambda m: m.get_asset_path("b"),
    "sync of an unknown one": lambda m: m.sync(["b"]),
}


@pytest.mark.parametrize("story", STORIES)
async def test_a_fetch_gives_the_real_events(project: Project, story: str) -> None:
    """Whatever is requested, a missing asset gives the real events, in the real order."""
    real = await kinds_of(project.manager(), STORIES[story])
    assert real == await kinds_of(create_mock_asset_manager({"a": "/mock/a"}, missing={"a"}), STORIES[story])


@pytest.mark.parametrize("story", ["get_asset_path", "force", "check_asset", "sync", "sync of one", "required"])
async def test_an_asset_that_is_there_gives_the_real_events(project: Project, story: str) -> None:
    """The same holds for an asset that is present from the start."""
    async with project.manager() as manager:
        await manager.download_asset("a")
    real = await kinds_of(project.manager(), STORIES[story])
    assert real == await kinds_of(create_mock_asset_manager({"a": "/mock/a"}), STORIES[story])


@pytest.mark.parametrize("story", ["get_asset_path", "download_asset", "sync"])
@pytest.mark.parametrize(
    ("fault", "error"), [(Status(404), GONE), (FlipByte(at=1000), WRONG)], ids=["not found", "wrong content"]
)
async def test_a_failure_gives_the_real_events(
    project: Project, server: AssetServer, story: str, fault: Any, error: Exception
) -> None:
    """A simulated failure comes where the real one comes, with the real events around it."""
    server.add("/a.bin", CONTENT, faults=[fault])
    real = await kinds_of(project.manager(), STORIES[story])
    mock = await kinds_of(create_mock_asset_manager({}, fail={"a": error}), STORIES[story])
    # How often the real one tries, and which origin it blames, is its own affair.
    own = {"retry_scheduled", "mirror_switched", "asset_restarted", "progress", "asset_verifying"}
    assert [kind for kind in real if kind not in own] == [kind for kind in mock if kind not in own]


async def test_an_unpinned_asset_gives_the_real_events(project: Project, server: AssetServer) -> None:
    """An asset refused before anything is fetched was never planned."""
    project.add("a", [server.url("/a.bin")], CONTENT, pinned=False)
    real = await kinds_of(project.manager(), STORIES["download_asset"])
    mock = create_mock_asset_manager({}, fail={"a": UnpinnedAsset("a")})
    assert real == await kinds_of(mock, STORIES["download_asset"])


# --- What it plays ------------------------------------------------------------------------------------------


async def test_paths_are_what_was_said() -> None:
    """The answer is the path that was given; the asset is there and valid."""
    manager = create_mock_asset_manager({"audioldm-s-full": "/mock/path/to/audioldm-model.ckpt", "b": Path("/b")})
    path = await manager.get_asset_path("audioldm-s-full")
    assert path == Path("/mock/path/to/audioldm-model.ckpt")
    assert await manager.check_asset("audioldm-s-full") == AssetStatus("audioldm-s-full", AssetState.VERIFIED, path)
    assert [status.id for status in await manager.check_all_assets()] == ["audioldm-s-full", "b"]
    assert manager.state_of(manager.manifest.get("b")) == "verified"


async def test_a_missing_asset_has_the_path_that_was_said() -> None:
    """Its path is the same before and after it is fetched."""
    manager = create_mock_asset_manager({"a": "/models/a.bin"}, missing=["a"])
    status = await manager.check_asset("a")
    assert (status.state, status.path) == (AssetState.MISSING, Path("/models/a.bin"))


async def test_an_unknown_id_suggests_the_nearest() -> None:
    """An id that was not given raises what the real manager raises."""
    manager = create_mock_asset_manager({"audioldm-s-full": "/mock/a"})
    with pytest.raises(UnknownAsset, match="Did you mean audioldm-s-full"):
        await manager.get_asset_path("audioldm-s-ful")


def test_a_slow_callback_sees_every_step_and_one_that_hangs_is_waited_for_once() -> None:
    """However slow the machine is, a test that counts steps passes; one whose callback is stuck ends soon."""

    async def story() -> None:
        manager = create_mock_asset_manager({"a": "/mock/a"}, sizes={"a": 1000})
        seen: list[int] = []

        async def slow(progress: AssetProgress) -> None:
            await asyncio.sleep(CALLBACK_TIMEOUT_S / 2)
            seen.append(progress.bytes_downloaded)

        async def stuck(progress: AssetProgress) -> None:
            await asyncio.Event().wait()

        async with manager:
            manager.on_progress(slow)
            await manager.download_asset("a")
            assert seen == [0, 250, 500, 750, 1000, 1000, 1000]
        began = asyncio.get_running_loop().time()
        async with create_mock_asset_manager({"a": "/mock/a"}) as manager:
            manager.on_progress(stuck)
            await manager.download_asset("a")
        assert asyncio.get_running_loop().time() - began <= 2.5 * CALLBACK_TIMEOUT_S

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(story())


@pytest.mark.posix
async def test_a_download_is_played_in_full() -> None:
    """Every step of a download is reported, to a stream with its numbers and to callbacks of both kinds."""
    manager = create_mock_asset_manager({"a": "/mock/a"}, sizes={"a": 1000})
    in_thread: list[AssetProgress] = []
    in_loop: list[AssetProgress] = []
    events: list[Event] = []

    async def async_callback(progress: AssetProgress) -> None:
        in_loop.append(progress)

    async def listen(event: Event) -> None:
        events.append(event)

    async with manager:
        manager.on_progress(in_thread.append)
        manager.on_progress(async_callback)
        manager.on_event(listen)
        assert await manager.download_asset("a") == Path("/mock/a")
    assert in_thread == in_loop
    assert [progress.bytes_downloaded for progress in in_loop] == [0, 250, 500, 750, 1000, 1000, 1000]
    assert [progress.status for progress in in_loop] == ["pending", *["downloading"] * 4, "validating", "complete"]
    assert in_loop[-1].percentage == 100.0
    assert events[-1].as_json() | {"time": 0} == {
        "v": 1,
        "type": "asset_verified",
        "time": 0,
        "asset": "a",
        "path": "/mock/a",
        "checksum": str(Checksum.of(b"a")),
        "size": 1000,
        "seconds": 0.0,
        "downloaded_bytes": 1000,
    }


async def test_what_is_missing_comes_by_fetching() -> None:
    """A missing asset is reported as such until it is fetched."""
    async with create_mock_asset_manager({"a": "/mock/a", "b": "/mock/b"}, missing={"a"}) as manager:
        assert (await manager.check_asset("a")).error == "missing"
        plan = await manager.plan(manager.choose(all=True))
        assert [asset.id for asset in plan.to_fetch] == ["a"]
        report = await manager.sync()
        assert (report.verified, report.reused, report.downloaded_bytes) == (("a",), ("b",), DEFAULT_SIZE_BYTES)
        assert (await manager.check_asset("a")).valid


async def test_failures_to_order() -> None:
    """The very error that was given is raised, on every way to the asset; the other assets are still there."""
    broken = OSError("the disk is on fire")
    async with create_mock_asset_manager({"b": "/mock/b"}, fail={"a": GONE}) as manager:
        for attempt in (manager.get_asset_path("a"), manager.download_asset("a")):
            with pytest.raises(MirrorsExhausted) as caught:
                await attempt
            assert caught.value is GONE
        assert not (await manager.check_asset("a")).exists
        with pytest.raises(SyncFailed) as failed:
            await manager.sync()
        assert failed.value.failures == {"a": GONE}
        manager.fail = {"b": broken}
        with pytest.raises(OSError, match="on fire"):
            await manager.get_asset_path("b")
        manager.fail.clear()
        assert await manager.get_asset_path("b") == Path("/mock/b")


async def test_calls_are_recorded() -> None:
    """Only the calls of the code under test are recorded, with arguments by name."""
    async with create_mock_asset_manager({"a": "/mock/a"}) as manager:
        await manager.get_asset_path("a")
        await manager.check_all_assets()
        await manager.sync(["a"], force=True)
        with pytest.raises(UnknownAsset):
            await manager.download_asset(asset_id="b")
        manager.open_asset("a", unverified_ok=False, keep_downloading=True)
    assert manager.calls == [
        ("initialize", {}),
        ("get_asset_path", {"asset_id": "a"}),
        ("check_all_assets", {}),
        ("sync", {"ids": ["a"], "force": True}),
        ("download_asset", {"asset_id": "b"}),
        ("open_asset", {"asset_id": "a", "unverified_ok": False, "keep_downloading": True}),
        ("aclose", {}),
    ]


async def test_callers_share_one_download() -> None:
    """Two simultaneous callers share one download, as with the real manager."""
    async with create_mock_asset_manager({"a": "/mock/a"}) as manager, manager.events() as events:
        await asyncio.gather(manager.download_asset("a"), manager.download_asset("a"))
        assert [event.type for event in events.drain()].count("asset_planned") == 1


async def test_assets_come_and_go() -> None:
    """An added asset is listed and can be fetched; a removed one is no longer known."""
    manager = create_mock_asset_manager({"a": "/mock/a"})
    asset = Asset(id="new", url="https://example.org/new", local_path="models/new.bin", tags=("model",), size=7)
    assert (await manager.add_asset(asset)).checksum is not None
    with pytest.raises(ManifestError, match="is taken"):
        await manager.add_asset(asset)
    assert not (await manager.check_asset("new")).exists
    assert await manager.get_asset_path("new") == manager.project.assets_dir / "models/new.bin"
    assert [chosen.size for chosen in manager.choose(tags=["model"])] == [7]
    await manager.remove_asset("new")
    with pytest.raises(UnknownAsset):
        await manager.get_asset_path("new")


@pytest.mark.posix
async def test_files_are_restored() -> None:
    """A file that was moved away is back, by whatever name it is requested."""
    for name in ("a", "/repo/a.bin", "/repo/a.bin.asset-ref"):
        manager = create_mock_asset_manager({"a": "/repo/a.bin"}, missing={"a"})
        assert await manager.restore_asset(name) == Path("/repo/a.bin")
        assert (await manager.check_asset("a")).valid
        with pytest.raises(AssetMissing):
            await manager.restore_asset("b")


async def test_what_needs_a_disk_is_not_played() -> None:
    """A call that a mock cannot simulate says so, and is recorded like any other."""
    manager = create_mock_asset_manager({})
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "pin": manager.pin,
        "prune": manager.prune,
        "add_from_source": lambda: manager.add_from_source("hf://org/model"),
        "import_list": lambda: manager.import_list("SHA256SUMS"),
    }
    for call in calls.values():
        with pytest.raises(NotImplementedError, match="a mock cannot"):
            await call()
    assert [call.name for call in manager.calls] == list(calls)
    said = Path(__file__).parents[2].joinpath("docs", "testing.md").read_text(encoding="utf-8")
    assert "`pin`, `prune`, `add_from_source` and `import_list` are not supported" in said


@pytest.mark.posix
async def test_neither_network_nor_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No socket and no file is opened, nor is any file looked at."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a mock has touched the world")

    manager = create_mock_asset_manager({"a": "/mock/a"}, fail={"b": GONE}, missing={"a"})
    with monkeypatch.context() as patch:
        for module, name in [(os, "open"), (os, "stat"), (os, "mkdir"), (builtins, "open"), (socket, "socket")]:
            patch.setattr(module, name, refuse)
        async with manager:
            await manager.plan(manager.choose(all=True))
            await manager.check_all_assets()
            with pytest.raises(SyncFailed):
                await manager.sync()
            await manager.download_asset("a", force=True)


async def test_the_size_of_what_is_there_is_the_mocks(tmp_path: Path) -> None:
    """A file that happens to lie at the path is not looked at: progress has the mock's size, not the file's."""
    path = tmp_path / "a"
    path.write_bytes(b"of another size")
    seen: list[AssetProgress] = []
    async with create_mock_asset_manager({"a": path, "b": "/mock/b"}, sizes={"a": 800}) as manager:
        manager.on_progress(seen.append)
        await manager.sync()
    assert [(p.asset_id, p.bytes_downloaded, p.total_bytes) for p in seen] == [
        ("a", 800, 800),
        ("b", 1_000_000, 1_000_000),
    ]


async def test_an_error_of_another_kind_comes_as_it_is() -> None:
    """It comes out of `sync` as out of a call for one asset, and not in a group."""
    odd = RuntimeError("odd")
    async with create_mock_asset_manager({"a": "/mock/a"}, fail={"b": odd}) as manager:
        with pytest.raises(RuntimeError) as caught:
            await manager.sync()
        assert caught.value is odd

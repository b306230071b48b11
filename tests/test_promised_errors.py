"""Public methods raise what their documentation promises, with ``await`` and without."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest

from grym_fetch import AssetManager, GrymFetchError, Manifest, Settings, SyncFailed, blocking, create_mock_asset_manager
from grym_fetch import errors as public_errors
from grym_fetch.core.digest import Checksum
from grym_fetch.disk import folders
from grym_fetch.errors import AssetMissing, DiskFull, UnpinnedAsset
from grym_fetch.manifest import Asset, ManifestSource, StatedDigest
from grym_fetch.repo.placeholder import Placeholder
from grym_fetch.reports import AssetReader
from grym_fetch.settings import SegmentSizes
from grym_fetch.sources import Page
from grym_fetch.testing import AssetServer, MockAssetManager, Status, serve_in_thread
from grym_fetch.transport import AiohttpTransport
from tests.house.test_public_names import classes, members, raised
from tests.support.project import SMALL, Project

CONTENT = b"the right content" * 100
OTHER = b"some other content" * 100


@dataclass
class Scene:
    """A project with one asset ``a`` that its server has, and how its manager is created."""

    project: Project
    server: AssetServer
    settings: dict[str, Any] = field(default_factory=dict)
    environ: dict[str, str] = field(default_factory=dict)

    def add(self, asset_id: str = "a", content: bytes = CONTENT, **more: Any) -> Path:
        """List an asset whose content the server has."""
        return self.project.add(asset_id, [self.server.add(f"/{asset_id}", content).url], CONTENT, **more)

    def expire(self) -> None:
        """Make the manifest an expired one."""
        listed = {"expires": "2001-01-01T00:00:00Z", "assets": self.project.entries}
        self.project.manifest.write_text(json.dumps(listed))

    def clean(self, stored: bytes | None) -> None:
        """Leave a placeholder for ``data.bin``, and this content as its file in the external folder."""
        moved = Placeholder(
            id="data",
            original_path="data.bin",
            storage_path="stored.bin",
            size=len(OTHER),
            checksum=Checksum.of(OTHER),
            moved_on="2026-03-09T12:00:00+00:00",
        )
        (self.project.root / "data.bin.asset-ref").write_bytes(moved.encode())
        if stored is not None:
            folder = self.project.root.parent / "assets"
            folder.mkdir()
            (folder / "stored.bin").write_bytes(stored)

    def be_a_hub(self) -> None:
        """Answer for a repository ``org/repo`` with two files that cannot be fetched."""
        entries = [{"type": "file", "path": path, "size": 1, "oid": "0" * 40} for path in ("x", "y")]
        about = {"id": "org/repo", "sha": "1" * 40}
        for path, answer in (("revision/main", about), (f"tree/{'1' * 40}", entries)):
            self.server.add(f"/api/models/org/repo/{path}", json.dumps(answer).encode())
        self.environ["HF_ENDPOINT"] = self.server.url("")

    def arguments(self) -> dict[str, Any]:
        """The arguments for a manager of this project."""
        settings = Settings(sizes=SMALL, retries=0, **self.settings)
        return {"config": self.project.manifest, "settings": settings, "environ": self.environ}


@pytest.fixture(scope="module")
def server() -> Iterator[AssetServer]:
    with serve_in_thread() as running:
        yield running


@pytest.fixture
def scene(tmp_path: Path, server: AssetServer) -> Scene:
    made = Scene(Project(tmp_path / "project"), server)
    made.add()
    return made


def opened(file: Any) -> Any:
    """What opening it returns: a coroutine, or the file."""
    return file.open() if isinstance(file, AssetReader) else file


NEW = Asset("new", "https://h.example/new.bin", "models/new.bin")
Call = Callable[[Any], Any]
Case = Callable[[Scene], Call]
CASES: dict[tuple[str, str], Case] = {}
"""By the method and the error: arranges the scene, and returns the call that raises it."""


def case(method: str, error: str) -> Callable[[Case], Case]:
    """Define how a promise is kept."""

    def keep(arrange: Case) -> Case:
        CASES[method, error] = arrange
        return arrange

    return keep


def simple(method: str, error: str, call: Call) -> None:
    """A promise kept in the unchanged scene."""
    CASES[method, error] = lambda _: call


simple("get_asset_path", "UnknownAsset", lambda manager: manager.get_asset_path("nothing"))
simple("download_asset", "UnknownAsset", lambda manager: manager.download_asset("nothing"))
simple("check_asset", "UnknownAsset", lambda manager: manager.check_asset("nothing"))
simple("check_assets", "UnknownAsset", lambda manager: manager.check_assets(["nothing"]))
simple("open_asset", "UnknownAsset", lambda manager: manager.open_asset("nothing"))
simple("open_asset", "UnverifiedRead", lambda manager: opened(manager.open_asset("a")))
simple("choose", "UnknownAsset", lambda manager: manager.choose(["nothing"]))
simple("adopt_assets", "UnknownAsset", lambda manager: manager.adopt_assets(ids=["nothing"]))
simple("sync_on", "ClusterError", lambda manager: manager.sync_on("nothing://h:1", ["a"]))
simple("sync", "UnknownAsset", lambda manager: manager.sync(["nothing"]))
simple("choose", "UnknownTag", lambda manager: manager.choose(tags=["typo"]))
simple("sync", "UnknownTag", lambda manager: manager.sync(tags=["typo"]))
simple("remove_asset", "UnknownAsset", lambda manager: manager.remove_asset("nothing"))
simple("pin", "UnknownAsset", lambda manager: manager.pin(["nothing"]))
simple("restore_asset", "RepositoryError", lambda manager: manager.restore_asset("nothing"))
simple("add_from_source", "UnknownSource", lambda manager: manager.add_from_source("nothing:"))
simple("export_list", "UnknownAsset", lambda manager: manager.export_list("pooch", ["nothing"]))
simple("outdated", "UnknownAsset", lambda manager: manager.outdated(["nothing"]))
simple("outdated", "EditRefused", lambda manager: manager.outdated(["a"]))
simple("update_asset", "UnknownSource", lambda manager: manager.update_asset("a", "nothing:"))
simple("add_asset", "ManifestError", lambda manager: manager.add_asset(Asset("a", NEW.url, NEW.local_path)))


@case("sync_on", "DiskFull")
def _(scene: Scene) -> Call:
    scene.add("huge", size=1 << 60)
    return lambda manager: manager.sync_on("dask://h:1", ["huge"])


@case("export_list", "ManifestError")
def _(scene: Scene) -> Call:
    scene.add(pinned=False)
    return lambda manager: manager.export_list("pooch")


@case("import_list", "ManifestError")
def _(scene: Scene) -> Call:
    return lambda manager: manager.import_list(scene.project.manifest)


@case("import_list", "SyncFailed")
def _(scene: Scene) -> Call:
    listing = scene.project.root / "list"
    listing.write_text("".join(f"{scene.server.url('/nothing')}\n  out={name}\n" for name in "xy"))
    return lambda manager: manager.import_list(listing)


@case("add_asset", "SourceFailed")
def _(scene: Scene) -> Call:
    where = scene.server.url("/nothing")
    return lambda manager: manager.add_asset(NEW, checksums_from=where)


@case("add_asset", "UnknownSource")
def _(scene: Scene) -> Call:
    where = scene.server.add("/SUMS", b"0" * 64 + b"  other").url
    return lambda manager: manager.add_asset(NEW, checksums_from=where)


@case("outdated", "SyncFailed")
def _(scene: Scene) -> Call:
    scene.add(source="nothing:x")
    return lambda manager: manager.outdated()


@case("update_asset", "SourceFailed")
def _(scene: Scene) -> Call:
    scene.settings["offline"] = True
    return lambda manager: manager.update_asset("a", "hf://org/repo/x")


@case("update", "EditRefused")
def _(scene: Scene) -> Call:
    return lambda manager: manager.update(["a"])


@case("add_from_source", "SourceFailed")
def _(scene: Scene) -> Call:
    scene.settings["offline"] = True
    return lambda manager: manager.add_from_source("hf://org/repo")


@case("add_from_source", "ManifestError")
def _(scene: Scene) -> Call:
    scene.be_a_hub()
    return lambda manager: manager.add_from_source("hf://org/repo/x", asset_id="a")


@case("add_from_source", "SyncFailed")
def _(scene: Scene) -> Call:
    scene.be_a_hub()
    return lambda manager: manager.add_from_source("hf://org/repo")


@case("initialize", "ManifestError")
def _(scene: Scene) -> Call:
    scene.project.manifest.write_text("{")
    return lambda manager: manager.initialize()


@case("manifest", "ManifestError")
def _(scene: Scene) -> Call:
    scene.project.manifest.write_text("[]")
    return lambda manager: manager.manifest


@case("project", "ManifestError")
def _(scene: Scene) -> Call:
    scene.project.manifest.unlink()
    return lambda manager: manager.project


@case("project", "UnsafePath")
def _(scene: Scene) -> Call:
    (scene.project.root / "elsewhere").mkdir()
    scene.project.assets.symlink_to("elsewhere")
    return lambda manager: manager.project


@case("remove_asset", "StorageError")
def _(scene: Scene) -> Call:
    scene.add().mkdir(parents=True)
    return lambda manager: manager.remove_asset("a", delete_file=True)


@case("settings", "ConfigurationError")
def _(scene: Scene) -> Call:
    (scene.project.root / "pyproject.toml").write_text("[tool.grym-fetch]\nparalel = 3\n")
    return lambda manager: manager.settings


@case("project", "ConfigurationError")
def _(scene: Scene) -> Call:
    (scene.project.root / "pyproject.toml").write_text("[tool.grym-fetch]\nparalel = 3\n")
    return lambda manager: manager.project


@case("get_asset_path", "UnpinnedAsset")
def _(scene: Scene) -> Call:
    scene.add(pinned=False)
    return lambda manager: manager.get_asset_path("a")


@case("download_asset", "UnpinnedAsset")
def _(scene: Scene) -> Call:
    scene.add(pinned=False)
    return lambda manager: manager.download_asset("a")


@case("download_asset", "PolicyRefused")
def _(scene: Scene) -> Call:
    scene.settings["allow_unpinned"] = True
    scene.project.add("a", ["http://h.example/a.bin"], CONTENT, pinned=False)
    return lambda manager: manager.download_asset("a")


@case("download_asset", "AssetMissing")
def _(scene: Scene) -> Call:
    scene.settings["offline"] = True
    return lambda manager: manager.download_asset("a")


@case("repair_asset", "AssetMissing")
def _(scene: Scene) -> Call:
    scene.add()
    return lambda manager: manager.repair_asset("a")


@case("download_asset", "MirrorsExhausted")
def _(scene: Scene) -> Call:
    scene.server.add("/a", CONTENT, faults=[Status(404)])
    return lambda manager: manager.download_asset("a")


@case("download_asset", "IntegrityError")
def _(scene: Scene) -> Call:
    scene.server.add("/a", CONTENT[::-1])
    return lambda manager: manager.download_asset("a")


@case("download_asset", "StorageError")
def _(scene: Scene) -> Call:
    (scene.project.assets / "models/a.bin").mkdir(parents=True)
    return lambda manager: manager.download_asset("a")


@case("download_asset", "StaleManifest")
def _(scene: Scene) -> Call:
    scene.expire()
    return lambda manager: manager.download_asset("a")


@case("plan", "StaleManifest")
def _(scene: Scene) -> Call:
    scene.expire()
    return lambda manager: manager.plan(manager.choose())


@case("sync", "StaleManifest")
def _(scene: Scene) -> Call:
    scene.expire()
    return lambda manager: manager.sync()


@case("adopt_assets", "StaleManifest")
def _(scene: Scene) -> Call:
    scene.expire()
    return lambda manager: manager.adopt_assets()


@case("adopt_assets", "SyncFailed")
def _(scene: Scene) -> Call:
    (scene.add()).mkdir(parents=True)
    (scene.project.root / "found").write_bytes(CONTENT)
    return lambda manager: manager.adopt_assets([scene.project.root / "found"])


@case("pin", "StaleManifest")
def _(scene: Scene) -> Call:
    scene.expire()
    return lambda manager: manager.pin()


@case("sync", "SyncFailed")
def _(scene: Scene) -> Call:
    scene.server.add("/a", CONTENT, faults=[Status(404)])
    return lambda manager: manager.sync()


@case("pin", "SyncFailed")
def _(scene: Scene) -> Call:
    scene.add(pinned=False)
    scene.server.add("/a", CONTENT, faults=[Status(404)])
    return lambda manager: manager.pin()


@case("restore_asset", "AssetMissing")
def _(scene: Scene) -> Call:
    scene.clean(stored=None)
    return lambda manager: manager.restore_asset(scene.project.root / "data.bin")


@case("restore_asset", "IntegrityError")
def _(scene: Scene) -> Call:
    scene.clean(stored=CONTENT)
    return lambda manager: manager.restore_asset(scene.project.root / "data.bin")


@case("restore_asset", "StorageError")
def _(scene: Scene) -> Call:
    scene.clean(stored=OTHER)
    (scene.project.root / "data.bin").write_bytes(CONTENT)
    return lambda manager: manager.restore_asset(scene.project.root / "data.bin")


@case("add_asset", "PolicyRefused")
def _(_: Scene) -> Call:
    return lambda manager: manager.add_asset(Asset("new", "http://h.example/new.bin", NEW.local_path), fetch=True)


@case("add_asset", "EditRefused")
def _(scene: Scene) -> Call:
    file = scene.project.root / "file.bin"
    file.write_bytes(b"<!DOCTYPE html>")
    return lambda manager: manager.add_asset(NEW, file=file)


@case("add_asset", "DigestMismatch")
def _(scene: Scene) -> Call:
    file = scene.project.root / "file.bin"
    file.write_bytes(OTHER)
    pinned = Asset("new", NEW.url, NEW.local_path, checksum=Checksum.of(CONTENT))
    return lambda manager: manager.add_asset(pinned, file=file)


@case("add_asset", "UnsafePath")
def _(scene: Scene) -> Call:
    file, place = scene.project.root / "file.bin", scene.project.assets / NEW.local_path
    place.parent.mkdir(parents=True)
    file.write_bytes(OTHER)
    place.write_bytes(CONTENT)
    return lambda manager: manager.add_asset(NEW, file=file)


@pytest.fixture(params=["awaited", "blocking"])
def raises(request: pytest.FixtureRequest) -> Callable[[Scene, Call], Awaitable[BaseException]]:
    """Create a manager of the scene, make the call, and return what it raises."""

    async def awaited(scene: Scene, call: Call) -> BaseException:
        manager = AssetManager(**scene.arguments())

        async def call_it() -> None:
            await call(manager)  # properties and calls that do not wait have raised by then

        with pytest.raises(GrymFetchError) as caught:
            await call_it()
        await manager.aclose()
        return caught.value

    async def without(scene: Scene, call: Call) -> BaseException:
        manager = blocking.AssetManager(**scene.arguments())
        with pytest.raises(GrymFetchError) as caught:
            call(manager)
        manager.close()
        return caught.value

    return awaited if request.param == "awaited" else without


@pytest.mark.parametrize(
    ("method", "error"),
    # An assets folder that is a symlink: Wine has none.
    [pytest.param(*each, marks=[pytest.mark.posix] * (each == ("project", "UnsafePath"))) for each in CASES],
    ids=str,
)
async def test_what_is_promised_is_raised(
    scene: Scene, raises: Callable[[Scene, Call], Awaitable[BaseException]], method: str, error: str
) -> None:
    """Each error promised by a method is the one it raises."""
    promised = raised(inspect.getdoc(inspect.getattr_static(AssetManager, method)))
    assert error in promised
    caught = await raises(scene, CASES[method, error](scene))
    assert isinstance(caught, vars(public_errors)[error])


async def test_a_sync_that_does_not_fit(
    scene: Scene, raises: Callable[[Scene, Call], Awaitable[BaseException]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the assets do not fit, nothing is fetched, and all of them fail with one `DiskFull`, which is the cause."""
    scene.add("b")
    asked = len(scene.server.stats.requests)
    monkeypatch.setattr(folders, "free_bytes", lambda _: len(CONTENT) + folders.RESERVE_BYTES)
    failed = await raises(scene, lambda manager: manager.sync())
    assert isinstance(failed, SyncFailed)
    assert isinstance(failed.__cause__, DiskFull)
    assert failed.failures == {"a": failed.__cause__, "b": failed.__cause__}
    assert len(scene.server.stats.requests) == asked


async def test_an_asset_that_fails_is_no_cause_of_the_others(
    scene: Scene, raises: Callable[[Scene, Call], Awaitable[BaseException]]
) -> None:
    """If each asset has its own error, these are the group's members, and none of them is its cause."""
    scene.server.add("/a", CONTENT, faults=[Status(404)])
    failed = await raises(scene, lambda manager: manager.sync())
    assert isinstance(failed, SyncFailed)
    assert failed.__cause__ is None


# --- Elsewhere ----------------------------------------------------------------------------------------------


def mock() -> MockAssetManager:
    """A mock with one asset."""
    return create_mock_asset_manager({"a": "/mock/a"})


async def lend_what_decompresses() -> None:
    """Create a transport over a session that changes the bytes."""
    async with aiohttp.ClientSession() as session:
        AiohttpTransport(session)


ELSEWHERE = "<https://other.example/>; rel=next"


async def read_from_mock(asset_id: str, *, is_closed: bool = False) -> None:
    """Read an asset that a mock fails to fetch."""
    file = create_mock_asset_manager({}, fail={"gone": AssetMissing("gone", "not there")}).open_asset(asset_id)
    if is_closed:
        await file.aclose()
    else:
        await file.open()
    await file.read(1)


VALUES: dict[tuple[str, str, str], Callable[[], object]] = {
    ("AssetManager", "", "ValueError"): lambda: AssetManager(parallel=0, environ={}),
    ("Settings", "", "ValueError"): lambda: Settings(parallel=0),
    ("Settings", "with_environment", "ValueError"): lambda: Settings().with_environment({"GRYM_FETCH_PARALLEL": "0"}),
    ("SegmentSizes", "", "ValueError"): lambda: SegmentSizes(piece=0),
    ("Manifest", "get", "UnknownAsset"): lambda: Manifest().get("a"),
    ("Manifest", "select", "UnknownAsset"): lambda: Manifest().select(["a"]),
    ("Manifest", "pick", "UnknownAsset"): lambda: Manifest().pick(["a"]),
    ("Manifest", "select", "UnknownTag"): lambda: Manifest().select(tags=["a"]),
    ("ManifestSource", "get", "UnknownAsset"): lambda: cast("ManifestSource", Manifest()).get("a"),
    ("ManifestSource", "select", "UnknownAsset"): lambda: cast("ManifestSource", Manifest()).select(["a"]),
    ("ManifestSource", "pick", "UnknownAsset"): lambda: cast("ManifestSource", Manifest()).pick(["a"]),
    ("ManifestSource", "select", "UnknownTag"): lambda: cast("ManifestSource", Manifest()).select(tags=["a"]),
    ("AiohttpTransport", "", "ValueError"): lambda: asyncio.run(lend_what_decompresses()),
    ("StatedDigest", "", "ValueError"): lambda: StatedDigest("md5", "0"),
    ("StatedDigest", "parse", "ValueError"): lambda: StatedDigest.parse("nonsense"),
    ("Page", "json", "ValueError"): lambda: Page("https://h.example/", body=b"nonsense").json(),
    ("Page", "next_url", "ValueError"): lambda: Page("https://h.example/", fields={"link": ELSEWHERE}).next_url,
    ("Checksum", "parse", "ValueError"): lambda: Checksum.parse("nonsense"),
    ("MockAssetManager", "add_asset", "ManifestError"): lambda: asyncio.run(
        mock().add_asset(Asset("a", NEW.url, NEW.local_path))
    ),
    ("MockAssetManager", "remove_asset", "UnknownAsset"): lambda: asyncio.run(mock().remove_asset("b")),
    ("MockAssetManager", "add_from_source", "NotImplementedError"): lambda: asyncio.run(
        mock().add_from_source("hf://org/repo")
    ),
    ("MockAssetManager", "import_list", "NotImplementedError"): lambda: asyncio.run(mock().import_list("list")),
    ("MockAssetManager", "outdated", "UnknownAsset"): lambda: asyncio.run(mock().outdated(["b"])),
    ("MockAssetManager", "update", "UnknownAsset"): lambda: asyncio.run(mock().update(["b"])),
    ("MockAssetManager", "update_asset", "UnknownAsset"): lambda: asyncio.run(mock().update_asset("b")),
    ("MockAssetManager", "pin", "NotImplementedError"): lambda: asyncio.run(mock().pin()),
    ("MockAssetManager", "prune", "NotImplementedError"): lambda: asyncio.run(mock().prune()),
    ("MockAssetManager", "open_asset", "UnknownAsset"): lambda: asyncio.run(read_from_mock("b")),
    ("AssetReader", "read", "AssetMissing"): lambda: asyncio.run(read_from_mock("gone")),
    ("AssetReader", "read", "ValueError"): lambda: asyncio.run(read_from_mock("gone", is_closed=True)),
    ("MockAssetManager", "repair_asset", "UnknownAsset"): lambda: asyncio.run(mock().repair_asset("b")),
    ("MockAssetManager", "repair_asset", "AssetMissing"): lambda: asyncio.run(
        create_mock_asset_manager({"a": "/mock/a"}, missing=["a"]).repair_asset("a")
    ),
    ("MockAssetManager", "restore_asset", "AssetMissing"): lambda: asyncio.run(mock().restore_asset("b")),
}
"""The promises of everything else: how each is kept, by the class, its member and the error."""


@pytest.mark.parametrize("promise", VALUES, ids="-".join)
def test_what_others_promise_is_raised(promise: tuple[str, str, str]) -> None:
    """Each error promised by a value or the mock is the one it raises."""
    with pytest.raises((GrymFetchError, ValueError, NotImplementedError)) as caught:
        VALUES[promise]()
    assert promise[2] in {kind.__name__ for kind in type(caught.value).__mro__}


def test_every_promise_is_here() -> None:
    """No promise of a public class is missing from this module: a new one must be provoked here, too."""
    # A mock has the docstrings of what it mocks. Without disk or network, it raises what it is told to: see below.
    theirs = {"AssetManager", "MockAssetManager"}
    kept = {(kind, method, error) for kind in theirs for method, error in CASES} | VALUES.keys()
    promised = {
        (kind.__name__, member, error)
        for kind in classes().values()
        for member, text in [("", kind.__doc__), *((name, inspect.getdoc(each)) for name, each in members(kind))]
        for error in raised(text)
    }
    assert promised - kept == set()


@pytest.mark.parametrize("method", ["get_asset_path", "download_asset"])
@pytest.mark.parametrize(
    "error", [AssetMissing("a", "not on disk"), UnpinnedAsset("a"), public_errors.Locked("/a", "busy")]
)
async def test_a_mock_raises_what_it_is_told(method: str, error: GrymFetchError) -> None:
    """A mock raises any of the promised errors that a test requests."""
    manager = create_mock_asset_manager({}, fail={"a": error})
    with pytest.raises(type(error)) as caught:
        await getattr(manager, method)("a")
    assert caught.value is error

"""An asset that is on this machine already is taken, not downloaded, and only if it is right."""

from __future__ import annotations

import asyncio
import mmap
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from grym_fetch import IntegrityError, SyncFailed
from grym_fetch.core.piece_digests import MIB
from grym_fetch.disk.sharing import modes_from
from grym_fetch.errors import DiskFull
from grym_fetch.events import AssetReused, LinkMode
from grym_fetch.testing import seeded_bytes
from tests.end_to_end.command import run
from tests.support.hubs import HuggingFaceHub, closing_hub
from tests.support.project import Project
from tests.support.small_world import SmallWorld

URL = "https://origin.example/a.bin"
CONTENT = seeded_bytes(40_001, seed=13)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with the asset ``a``, which is not fetched yet."""
    made = Project(tmp_path / "project")
    made.add("a", [URL], CONTENT)
    return made


async def adopt(project: Project, *places: Path, **settings: Any) -> str:
    """Adopt what is there; return what was found. Nothing is ever asked for."""
    world = SmallWorld({URL: CONTENT})
    async with world.manager(project, **settings) as manager:
        report = await manager.adopt_assets(places)
    assert not world.requests
    return " ".join([f"{each.source.name}:{each.link}" for each in report.adopted] + list(report.missing))


async def test_by_size_and_digest(project: Project, tmp_path: Path) -> None:
    """Of two files of the right size, the right one is taken. Both stay as they were."""
    place = tmp_path / "downloads"
    place.mkdir()
    (place / "wrong").write_bytes(CONTENT[:-1] + b"!")
    (place / "right").write_bytes(CONTENT)
    before = {each.name: (each.read_bytes(), each.stat().st_mtime_ns, each.stat().st_mode) for each in place.iterdir()}
    assert await adopt(project, place) == "right:copy"
    assert project.finals()["a"].read_bytes() == CONTENT
    assert before == {
        each.name: (each.read_bytes(), each.stat().st_mtime_ns, each.stat().st_mode) for each in place.iterdir()
    }
    assert await adopt(project, place) == ""


async def test_what_is_not_here_is_no_failure(project: Project) -> None:
    """It is only said."""
    assert await adopt(project) == "a"
    assert not project.finals()["a"].exists()


async def test_offline_a_damaged_file_is_replaced_by_what_is_here(project: Project) -> None:
    """Nothing has to be fetched for that. Where nothing is here, the file is called wrong, and stays."""
    place, here = project.finals()["a"], project.root.parent / "assets" / "another-name"
    for path in (place, here):
        path.parent.mkdir(parents=True)
    place.write_bytes(CONTENT[::-1])
    world = SmallWorld({URL: CONTENT})
    async with world.manager(project, offline=True, adopt=True) as manager:
        with pytest.raises(IntegrityError, match="--offline forbids fetching it again"):
            await manager.download_asset("a")
        assert place.read_bytes() == CONTENT[::-1]
    here.write_bytes(CONTENT)
    async with world.manager(project, offline=True, adopt=True) as manager:
        await manager.download_asset("a")
    assert place.read_bytes() == CONTENT
    assert not world.requests


async def test_under_its_earlier_name(project: Project) -> None:
    """A file whose path in the manifest was changed is not fetched again, and takes no space twice."""
    old = project.assets / "earlier/place.bin"
    old.parent.mkdir(parents=True)
    old.write_bytes(CONTENT)
    assert await adopt(project) == "place.bin:hardlink"
    assert old.samefile(project.finals()["a"])


async def test_a_sync_adopts_and_fetches_the_rest(project: Project, tmp_path: Path) -> None:
    """With ``adopt``, what is in the external folder under another name is taken."""
    world = SmallWorld({URL: CONTENT, "https://origin.example/b.bin": CONTENT[::-1]})
    project.add("b", ["https://origin.example/b.bin"], CONTENT[::-1])
    external = tmp_path / "assets"
    external.mkdir()
    (external / "some.bin").write_bytes(CONTENT)
    seen: list[tuple[str | None, LinkMode | None]] = []
    manager = world.manager(project, adopt=True)
    async with manager.events() as events, manager:
        await manager.sync()
        await manager.aclose()
        seen = [(e.taken_from, e.link) async for e in events if isinstance(e, AssetReused)]
    assert seen == [(str(external / "some.bin"), LinkMode.COPY)]
    assert world.sent == len(CONTENT)
    assert {each.read_bytes() for each in project.finals().values()} == {CONTENT, CONTENT[::-1]}


async def test_adopted_into_the_store(project: Project, tmp_path: Path) -> None:
    """The store gets what was adopted, and never shares a file with another program's cache."""
    (tmp_path / "cached").write_bytes(CONTENT)
    store = tmp_path / "store"
    assert await adopt(project, tmp_path / "cached", store=str(store)) == "cached:copy"
    second = Project(tmp_path / "second")
    second.add("a", [URL], CONTENT)
    assert (await adopt(second, store=str(store))).endswith(":hardlink")
    assert (tmp_path / "cached").stat().st_nlink == 1


async def test_a_wrong_file_is_replaced_by_one_that_is_here(project: Project, tmp_path: Path) -> None:
    """The old one stays until the new one takes its place."""
    project.finals()["a"].parent.mkdir(parents=True)
    project.finals()["a"].write_bytes(b"old")
    (tmp_path / "right").write_bytes(CONTENT)
    assert await adopt(project, tmp_path / "right") == "right:copy"
    assert project.finals()["a"].read_bytes() == CONTENT


async def test_no_room_for_a_copy(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This is a failure: a download would not fit either."""
    (tmp_path / "right").write_bytes(CONTENT)

    def full(*_: object) -> None:
        raise DiskFull("assets", "not enough space")

    monkeypatch.setattr("grym_fetch.disk.sharing.require_space", full)
    with pytest.raises(SyncFailed):
        await adopt(project, tmp_path / "right")
    assert not project.finals()["a"].exists()


async def test_what_was_adopted_can_be_repaired(project: Project, tmp_path: Path) -> None:
    """The sums of its pieces are kept, so that damage costs a piece and not the file."""
    content = seeded_bytes(5 * MIB, seed=14)
    project.add("a", [URL], content)
    (tmp_path / "right").write_bytes(content)
    assert await adopt(project, tmp_path / "right") == "right:copy"
    file = project.finals()["a"]
    file.write_bytes(content[: 3 * MIB] + b"!" + content[3 * MIB + 1 :])
    async with SmallWorld({URL: content}).manager(project) as manager:
        report = await manager.repair_asset("a")
    assert (report.outcome, report.pieces, report.bad) == ("repaired", 5, 1)
    assert file.read_bytes() == content


@pytest.fixture
def hub() -> Iterator[HuggingFaceHub]:
    """A hub with one model."""
    with closing_hub(HuggingFaceHub()) as made:
        made.add("models/org/model", {"model.safetensors": CONTENT})
        yield made


@pytest.mark.skipif(
    find_spec("huggingface_hub") is None and not os.environ.get("CI"), reason="huggingface_hub is not installed"
)
def test_from_the_cache_of_huggingface_hub(
    project: Project, hub: HuggingFaceHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the library itself has downloaded is adopted without a request, and its cache stays as it was."""
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    from huggingface_hub import hf_hub_download

    place = str(project.root / ".cache/huggingface/hub")
    cached = Path(hf_hub_download("org/model", "model.safetensors", endpoint=hub.url, cache_dir=place)).resolve()
    assert cached.read_bytes() == CONTENT
    asked = len(hub.requests)
    assert asyncio.run(adopt(project)) == f"{cached.name}:copy"
    assert project.finals()["a"].read_bytes() == CONTENT
    assert len(hub.requests) == asked
    assert cached.stat().st_nlink == 1


@pytest.mark.posix
def test_the_command(project: Project, tmp_path: Path) -> None:
    """It says what it has taken and what is left; the exit code is 0, and a place that is not there is wrong usage."""
    project.add("b", ["https://origin.example/b.bin"], b"other")
    (tmp_path / "right").write_bytes(CONTENT)
    done = run(project.root, "adopt", str(tmp_path / "right"))
    assert done.code == 0
    assert "copy      a  from " in done.out
    assert "1 adopted, 1 not on this machine: grym-fetch sync" in done.err
    assert run(project.root, "adopt", str(tmp_path / "nothing")).code == 2


@pytest.mark.shows("X12")
async def test_a_mapped_file_that_changes_unnoticed(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has mapped a file writes to it without changing its signature. What was made of it is read, and refused."""
    (tmp_path / "mapped").write_bytes(CONTENT)
    with (tmp_path / "mapped").open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[0] = CONTENT[0]  # from now on the page is writable without the kernel's help

        def write_first(choice: str, **how: bool) -> tuple[LinkMode, ...]:
            memory[0] = CONTENT[0] ^ 1
            return modes_from(choice, **how)

        monkeypatch.setattr("grym_fetch.transfer.taking.modes_from", write_first)
        assert await adopt(project, tmp_path / "mapped") == "a"
    assert not project.finals()["a"].exists()

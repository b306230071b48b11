"""Looking after the machine's store: what it holds, what is damaged, and what nobody needs."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import StorageError
from grym_fetch.disk.folders import open_folder
from grym_fetch.disk.locks import FileLock
from grym_fetch.disk.owner import Owner
from grym_fetch.disk.prune import PruneReport
from grym_fetch.disk.stage import StageKey
from grym_fetch.disk.state import StateFolder
from grym_fetch.store import care
from grym_fetch.store.care import StoredFile, damaged, prune_store, survey
from grym_fetch.store.stamps import object_path
from grym_fetch.testing import seeded_bytes
from tests.support.project import Project
from tests.support.small_world import SmallWorld
from tests.support.system import descriptors

CONTENTS = {name: seeded_bytes(1000 * size, seed=size) for name, size in (("a", 1), ("b", 2), ("c", 3))}
WORLD = {f"https://origin.example/{name}": content for name, content in CONTENTS.items()}


async def fill(root: Path, name: str, assets: str, link_mode: str = "auto") -> Project:
    """A project with these assets, which are in the store afterwards."""
    project = Project(root / name)
    for each in assets:
        project.add(each, [f"https://origin.example/{each}"], CONTENTS[each])
    await SmallWorld(WORLD).sync(project, store=str(root / "store"), link_mode=link_mode)
    return project


def stored(root: Path, asset: str) -> Path:
    """Where an asset is in the store."""
    return root / "store" / object_path(Checksum.of(CONTENTS[asset]))


def prune(root: Path, *, dry_run: bool = False, now: float | None = None, **limits: float) -> PruneReport:
    """Prune the store."""
    return prune_store(root / "store", dry_run=dry_run, now=time.time() if now is None else now, **limits)  # type: ignore[arg-type]  # sizes are whole


def left(root: Path) -> str:
    """The assets that are in the store."""
    return "".join(name for name in CONTENTS if stored(root, name).exists())


async def test_who_uses_what(tmp_path: Path) -> None:
    """Each content with its size and the projects that have it, the largest first."""
    one, two = await fill(tmp_path, "one", "ab"), await fill(tmp_path, "two", "b")
    first, second = survey(tmp_path / "store")
    assert [use.assets_dir for use in first.used_by] == [each.assets for each in (one, two)] or [
        use.assets_dir for use in first.used_by
    ] == [each.assets for each in (two, one)]
    assert (first.size, first.links, second.size, second.links) == (2000, 2, 1000, 1)
    assert survey(tmp_path / "nothing") == []


@pytest.mark.posix
@pytest.mark.shows("X12")
@pytest.mark.parametrize("link_mode", ["auto", "copy"])
async def test_what_a_project_has_is_never_removed(tmp_path: Path, link_mode: str) -> None:
    """Neither a linked file nor one that a project has a copy of."""
    project = await fill(tmp_path, "one", "ab", link_mode)
    assert not prune(tmp_path).removed
    project.finals()["a"].unlink()
    dry = prune(tmp_path, dry_run=True)
    assert [(each.kind, each.bytes) for each in dry.removed if each.kind == "object"] == [("object", 1000)]
    assert left(tmp_path) == "ab"
    prune(tmp_path)
    assert left(tmp_path) == "b"


async def test_a_project_that_is_gone_uses_nothing(tmp_path: Path) -> None:
    """It is forgotten, too."""
    project = await fill(tmp_path, "one", "a", "copy")
    shutil.rmtree(project.root)
    prune(tmp_path)
    assert left(tmp_path) == ""
    assert not list((tmp_path / "store/.grym-fetch/users").iterdir())


async def test_a_project_that_was_moved(tmp_path: Path) -> None:
    """Its next sync says where it is now, even if there is nothing to do."""
    project = await fill(tmp_path, "one", "a", "copy")
    project.root.rename(tmp_path / "two")
    moved = await fill(tmp_path, "two", "a", "copy")
    prune(tmp_path)
    assert left(tmp_path) == "a"
    [found] = survey(tmp_path / "store")
    assert [use.assets_dir for use in found.used_by] == [moved.assets]


@pytest.mark.shows("X12")
async def test_an_assets_folder_that_is_a_store_as_well(tmp_path: Path) -> None:
    """What its project has not finished fetching, and what it knows of its files' pieces, stays."""
    project = Project(tmp_path / "one")
    project.add("a", ["https://origin.example/a"], CONTENTS["a"])
    await SmallWorld(WORLD).sync(project, store=str(project.assets), link_mode="copy")
    state = StateFolder(project.assets).own
    stage = f"{'0' * 24}.{'1' * 16}.{replace(Owner.this(), started='1').encode()}.{'2' * 8}"
    for name in (f"stage/{stage}/part", f"pieces/{'3' * 16}"):
        (state / name).parent.mkdir(parents=True, exist_ok=True)
        (state / name).write_bytes(b"x")
    prune_store(project.assets, dry_run=False, now=time.time())
    assert (state / "stage" / stage).exists()
    assert (state / "pieces" / ("3" * 16)).exists()


@pytest.mark.shows("S16")
async def test_a_project_on_a_disk_that_is_away_keeps_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left of its path is then on another device."""
    project = await fill(tmp_path, "one", "a", "copy")
    shutil.rmtree(project.root)
    real = os.stat

    def elsewhere(path: object, **options: object) -> os.stat_result:
        figures = real(path, **options)  # type: ignore[arg-type]  # as it was called
        if path == str(tmp_path):
            return os.stat_result((*figures[:2], figures.st_dev + 1, *figures[3:]))
        return figures

    monkeypatch.setattr(os, "stat", elsewhere)
    prune(tmp_path)
    assert left(tmp_path) == "a"


@pytest.mark.posix
async def test_by_age_and_by_size(tmp_path: Path) -> None:
    """What was not taken for longest goes first, until the store is small enough."""
    project = await fill(tmp_path, "one", "abc")
    for path in project.finals().values():
        path.unlink()
    now = max(stored(tmp_path, name).stat().st_ctime for name in CONTENTS)
    assert not [each for each in prune(tmp_path, now=now + 50, older_than_s=100).removed if each.kind == "object"]
    assert sum(each.bytes for each in prune(tmp_path, now=now + 500, max_bytes=5999).removed if each.kind == "object")
    assert len(left(tmp_path)) == 2
    prune(tmp_path, now=now + 500, older_than_s=100)
    assert left(tmp_path) == ""


@pytest.mark.posix
async def test_what_somebody_takes_now_stays(tmp_path: Path) -> None:
    """The lock on the content is held while it is taken."""
    (await fill(tmp_path, "one", "a")).finals()["a"].unlink()
    state = StateFolder(tmp_path / "store")
    key = StageKey(object_path(Checksum.of(CONTENTS["a"])), "").path_key
    lock = FileLock(lambda: state.open_locks(create=True), f"{key}.lock")
    assert lock.try_acquire()
    try:
        assert prune(tmp_path).in_use == 1
    finally:
        lock.release()
    assert left(tmp_path) == "a"


@pytest.mark.posix
@pytest.mark.shows("X12")
async def test_what_was_taken_since_it_was_looked_at_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy has no second name that would tell: the project's note does."""
    (await fill(tmp_path, "one", "ab")).finals()["a"].unlink()
    seen = survey(tmp_path / "store")

    def look(_: Path) -> list[StoredFile]:
        asyncio.run(fill(tmp_path, "two", "a", "copy"))
        return seen

    monkeypatch.setattr(care, "survey", look)
    report = await asyncio.to_thread(prune, tmp_path)
    assert (left(tmp_path), report.in_use) == ("ab", 1)


async def test_damage_is_found_and_never_handed_out(tmp_path: Path) -> None:
    """Even a change that leaves size and time of writing as they were: every byte is read."""
    await fill(tmp_path, "one", "ab", "copy")
    figures = stored(tmp_path, "a").stat()
    stored(tmp_path, "a").chmod(0o644)
    stored(tmp_path, "a").write_bytes(CONTENTS["a"][:-1] + b"?")
    os.utime(stored(tmp_path, "a"), ns=(figures.st_atime_ns, figures.st_mtime_ns))
    told: list[tuple[int, int]] = []
    wrong = list(damaged(tmp_path / "store", lambda count, total: told.append((count, total))))
    assert [each.checksum for each in wrong] == [Checksum.of(CONTENTS["a"])]
    assert told[-1] == (3000, 3000)
    project = await fill(tmp_path, "two", "ab", "copy")
    assert project.finals()["a"].read_bytes() == CONTENTS["a"]
    assert not list(damaged(tmp_path / "store", lambda *_: None))


@pytest.mark.parametrize("depth", [2, 3])
async def test_what_cannot_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, depth: int) -> None:
    """A store of which a part cannot be looked at is never said to be in order."""
    await fill(tmp_path, "one", "a", "copy")

    def refuse(root: Path, parts: tuple[str, ...], *, create: bool) -> int:
        if len(parts) == depth:
            raise PermissionError(errno.EACCES, "Permission denied")
        return open_folder(root, parts, create=create)

    monkeypatch.setattr(care, "open_folder", refuse)
    with pytest.raises(StorageError):
        survey(tmp_path / "store")


async def test_nothing_stays_open_or_locked(tmp_path: Path) -> None:
    """Looking through a store and pruning it cost no descriptor, and whoever wants an object next can lock it."""
    (await fill(tmp_path, "one", "ab", "copy")).finals()["a"].unlink()
    before = descriptors()
    assert not list(damaged(tmp_path / "store", lambda *_: None))
    prune(tmp_path)
    assert left(tmp_path) == "b"
    assert descriptors() == before

"""Who gets a stage: nobody while it is being written to, otherwise one of those who want it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from grym_fetch.disk.assets_folder import AssetsFolder
from grym_fetch.disk.claims import ABANDONED_AFTER_S, claim, is_abandoned, make, open_ours, remove
from grym_fetch.disk.locks import Flock, try_flock
from grym_fetch.disk.owner import Owner
from grym_fetch.disk.stage import StageKey
from grym_fetch.runtime import system
from grym_fetch.testing import seeded_bytes
from tests.support.system import dead_owner, descriptors, folder_descriptor
from tests.support.system_calls import failing, flags_of_open

CONTENT = seeded_bytes(100_000, seed=61)
KEY = StageKey("models/a.bin", "sha256:61")


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    """An open folder for stages."""
    descriptor = folder_descriptor(tmp_path)
    yield descriptor
    os.close(descriptor)


def is_held(path: Path) -> bool:
    with path.open("rb") as file:
        return try_flock(file.fileno()) is Flock.BUSY


@pytest.mark.posix
@pytest.mark.shows("X1", "X8")
async def test_a_killed_holder_and_two_who_wait(assets_folder: AssetsFolder) -> None:
    """One process takes the lock; before it has recorded itself there, another believes the lock belongs to a dead one.

    Then both work on one asset. The holder of the lock does not take away what the other one writes.
    """
    (assets_folder.state.top / "locks" / f"{KEY.path_key}.lock").write_text(
        json.dumps({"pid": 7, "host": "here", "owner": dead_owner().encode()})
    )
    first, second = assets_folder.lock(KEY), assets_folder.lock(KEY)
    with (assets_folder.state.top / "locks" / f"{KEY.path_key}.lock").open("rb") as taken:
        fcntl.flock(taken, fcntl.LOCK_EX)
        assert await assets_folder.try_lock(second) or await assets_folder.try_lock(second)
    beside = await assets_folder.open_stage(KEY, exclusive=second.is_trustworthy)
    await beside.write(0, CONTENT[:50_000], 0)
    second.release()
    assert await assets_folder.try_lock(first)
    assert first.is_trustworthy
    stage = await assets_folder.open_stage(KEY, exclusive=True)
    assert len(stage.recovered.pieces) == 0
    await beside.write(50_000, CONTENT[50_000:], 0)
    await stage.write(0, CONTENT, 0)
    await beside.publish(len(CONTENT))
    await stage.publish(len(CONTENT))
    first.release()
    assert assets_folder.path_of(KEY.local_path).read_bytes() == CONTENT


@pytest.mark.shows("X8")
async def test_what_a_living_process_has_put_down_is_claimed(assets_folder: AssetsFolder) -> None:
    """If a long-lived program gave up on a download, another process continues it."""
    stage = await assets_folder.open_stage(KEY, exclusive=True)
    await stage.write(0, CONTENT[:50_000], 0)
    await stage.close()
    stage = await assets_folder.open_stage(KEY, exclusive=True)
    assert [piece.stop for piece in stage.recovered.pieces] == [50_000]
    await stage.close()


async def test_what_is_in_use_stays_when_another_content_is_wanted(assets_folder: AssetsFolder) -> None:
    """Only stages of older content that nobody writes to are removed."""
    other = StageKey(KEY.local_path, "sha256:62")
    used, left = [await assets_folder.open_stage(KEY, exclusive=False) for _ in range(2)]
    await left.close()
    stage = await assets_folder.open_stage(other, exclusive=True)
    await used.write(0, CONTENT, 0)
    assert len(os.listdir(assets_folder.state.own / "stage")) == 2
    await used.publish(len(CONTENT))
    await stage.close()


def test_a_stage_is_held_by_whoever_makes_or_claims_it(tmp_path: Path, root: int) -> None:
    """A stage is held from its first moment until its journal is closed."""
    journal = make(root, "a")
    assert journal is not None
    assert is_held(tmp_path / "a" / "journal")
    assert claim(root, "a", "b", None) is None
    os.close(journal)
    journal = claim(root, "a", "b", None)
    assert journal is not None
    assert is_held(tmp_path / "b" / "journal")
    assert not (tmp_path / "a").exists()
    assert claim(root, "a", "c", None) is None
    assert claim(root, "b", "c", Owner.this()) is None
    os.close(journal)


def test_a_dead_owners_stage_is_claimed_although_it_is_held(tmp_path: Path, root: int) -> None:
    """A child that was not forked through Python still holds the stage but does not write to it."""
    journal = make(root, "a")
    assert journal is not None
    claimed = claim(root, "a", "b", dead_owner())
    assert claimed is not None
    assert (tmp_path / "b" / "journal").exists()
    os.close(claimed)
    os.close(journal)


def test_who_may_still_use_a_stage(tmp_path: Path, root: int) -> None:
    """With a lock that excludes others, only a machine elsewhere that has just written; without, any but the dead."""
    this, elsewhere = Owner.this(), replace(Owner.this(), boot="elsewhere", host="elsewhere")
    stage, journal = tmp_path / "a", tmp_path / "a" / "journal"
    stage.mkdir()
    journal.touch()
    for owner, alone, beside in ((None, True, False), (this, True, False), (elsewhere, False, False)):
        assert is_abandoned(root, "a", owner, exclusive=True) is alone
        assert is_abandoned(root, "a", owner, exclusive=False) is beside
    assert is_abandoned(root, "a", dead_owner(), exclusive=False)
    before = stage.stat().st_mtime - ABANDONED_AFTER_S - 1
    os.utime(stage, (before, before))
    assert not is_abandoned(root, "a", elsewhere, exclusive=True)
    os.utime(journal, (before, before))
    assert is_abandoned(root, "a", elsewhere, exclusive=True)


@pytest.mark.posix
@pytest.mark.parametrize("is_windows", [False, True])
def test_a_folder_that_cannot_be_renamed_is_made_anew(
    tmp_path: Path, root: int, monkeypatch: pytest.MonkeyPatch, is_windows: bool
) -> None:
    """As in a lower layer of an overlay file system, or on Windows: its files move into a folder of their new owner."""
    real = os.rename

    def rename(old: str, new: str, **more: int) -> None:
        if "/" not in old:
            assert not is_windows, "it would be tried for a second"
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        real(old, new, **more)

    monkeypatch.setattr(os, "rename", rename)
    monkeypatch.setattr(system, "RENAMES_OPEN_FOLDERS", not is_windows)
    for files in (["journal", "part"], ["journal"]):
        journal = make(root, "a")
        assert journal is not None
        os.close(journal)
        for name in files:
            (tmp_path / "a" / name).write_text(name)
        journal = claim(root, "a", "b", None)
        assert journal is not None
        assert {each.name: each.read_text() for each in (tmp_path / "b").iterdir()} == {name: name for name in files}
        assert (tmp_path / "b").stat().st_mode & 0o777 == 0o700
        assert remove(root, "b", "c", dead_owner())
        os.close(journal)
        assert os.listdir(tmp_path) == []


@pytest.mark.posix
@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES])
def test_a_claim_that_fails(root: int, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Whoever was slower gets nothing, and any other error is told; the stage is free for others."""
    journal = make(root, "a")
    assert journal is not None
    os.close(journal)
    before = descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", failing(number))
        if number == errno.ENOENT:
            assert claim(root, "a", "b", None) is None
        else:
            with pytest.raises(PermissionError):
                claim(root, "a", "b", None)
    assert descriptors() == before
    assert remove(root, "a", "b", None)
    assert descriptors() == before


@pytest.mark.posix
def test_only_a_journal_stays_open(tmp_path: Path, root: int) -> None:
    """Neither the folder of a stage that is held, nor what somebody else holds or has put there."""
    before = descriptors()
    journal = make(root, "a")
    assert journal is not None
    assert descriptors() == before + 1
    assert claim(root, "a", "b", None) is None
    os.link(tmp_path / "a" / "journal", tmp_path / "part")
    os.mkfifo(tmp_path / "pipe")
    for name in ("part", "pipe"):
        with pytest.raises(PermissionError, match="to this user alone"):
            open_ours(root, name, 0, 0o600)
    assert descriptors() == before + 1
    os.close(journal)


@pytest.mark.posix
def test_what_others_may_have_put_there_is_opened_with_care(root: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No link is followed, nothing is waited for, and no terminal becomes this process's."""
    flags = flags_of_open(monkeypatch)
    os.close(open_ours(root, "part", 0, 0o600))
    assert [each & (care := os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY) for each in flags] == [care]


def renamed(root: int) -> None:
    os.rename("a", "b", src_dir_fd=root, dst_dir_fd=root)


def held(root: int) -> None:
    assert claim(root, "a", "b", None) is not None
    os.mkdir("a", dir_fd=root)
    os.rename("b/journal", "a/journal", src_dir_fd=root, dst_dir_fd=root)


def removed(root: int) -> None:
    assert remove(root, "a", "b", None)


@pytest.mark.posix
@pytest.mark.parametrize("meanwhile", [renamed, held, removed])
def test_a_stage_that_is_claimed_while_it_is_made_is_lost(
    root: int, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[int], None]
) -> None:
    """The stage is lost before its maker could hold it: nothing was written, and another one is made."""
    real = os.mkdir

    def mkdir(path: str, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        real(path, mode, dir_fd=dir_fd)
        monkeypatch.setattr(os, "mkdir", real)
        meanwhile(root)

    monkeypatch.setattr(os, "mkdir", mkdir)
    assert make(root, "a") is None


async def test_whoever_loses_a_new_stage_makes_another(
    assets_folder: AssetsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The download goes on as if nothing had happened."""
    real = os.mkdir

    def mkdir(path: str, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        real(path, mode, dir_fd=dir_fd)
        monkeypatch.setattr(os, "mkdir", real)
        os.rename(path, f"{KEY.path_key}.x", src_dir_fd=dir_fd, dst_dir_fd=dir_fd)

    monkeypatch.setattr(os, "mkdir", mkdir)
    stage = await assets_folder.open_stage(KEY, exclusive=False)
    await stage.write(0, CONTENT, 0)
    await stage.publish(len(CONTENT))
    assert assets_folder.path_of(KEY.local_path).read_bytes() == CONTENT


@pytest.mark.posix
@pytest.mark.parametrize("kind", ["symlink", "fifo", "folder", "nothing"])
def test_what_has_no_journal_is_removed(tmp_path: Path, root: int, kind: str) -> None:
    """Nobody writes to it; nothing that it leads to is touched, and no FIFO is waited for."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    journal = tmp_path / "a" / "journal"
    journal.parent.mkdir()
    match kind:
        case "symlink":
            journal.symlink_to(victim)
        case "fifo":
            os.mkfifo(journal)
        case "folder":
            journal.mkdir()
    assert remove(root, "a", "b", None)
    assert os.listdir(tmp_path) == ["victim"]
    assert victim.read_bytes() == b"precious"

"""A copy is on the disk before anything relies on it, a draft belongs to the living, and nothing stays open."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import Locked
from grym_fetch.repo import moving
from grym_fetch.repo.clean import Cleaner, plan_clean
from grym_fetch.repo.moving import Draft, draft_name, remove_dead_draft, write_file
from grym_fetch.repo.restore import Restorer
from grym_fetch.testing import seeded_bytes
from tests.repo.story import LIMIT, NOON, clean, write
from tests.support.system import folder_descriptor

A = seeded_bytes(5000, seed=1)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    """The temporary folder, open."""
    descriptor = folder_descriptor(tmp_path)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is flushed, named and removed from here on: ``flush PATH``, ``name NAME``, ``remove NAME``."""
    seen: list[str] = []

    def noting(real: Callable[..., None], told: Callable[..., str]) -> Callable[..., None]:
        def call(*arguments: object, **more: object) -> None:
            seen.append(told(*arguments))
            real(*arguments, **more)

        return call

    def flushed(descriptor: int) -> str:
        return f"flush {os.path.relpath(os.readlink(f'/proc/self/fd/{descriptor}'), tmp_path)}"

    monkeypatch.setattr(os, "fsync", noting(os.fsync, flushed))
    for name in ("link", "rename", "replace"):
        monkeypatch.setattr(os, name, noting(getattr(os, name), lambda _, to: f"name {os.path.basename(to)}"))
    monkeypatch.setattr(os, "unlink", noting(os.unlink, lambda name: f"remove {os.path.basename(name)}"))
    return seen


def in_order(steps: list[str], *wanted: str) -> bool:
    """Whether these happen one after the other, whatever happens between them."""
    rest = iter(steps)
    return all(step in rest for step in wanted)


@pytest.mark.shows("S21")
def test_a_draft_of_the_living_stays(tmp_path: Path, folder: int) -> None:
    """Only a dead process's draft is removed: while somebody writes it, it is theirs."""
    with Draft(folder, "a.bin"):
        with pytest.raises(Locked, match="another process is at work"):
            remove_dead_draft(folder, "a.bin")
        with pytest.raises(Locked):
            Draft(folder, "a.bin")
        assert (tmp_path / draft_name("a.bin")).exists()


@pytest.mark.shows("S21")
def test_a_small_file_is_flushed_before_and_after_it_gets_its_name(folder: int, steps: list[str]) -> None:
    """Its bytes first, then the name, then the folder: a power cut leaves the old or the new file."""
    write_file(folder, "small", b"bytes")
    assert in_order(steps, "flush .small.grym-part", "name small", "flush .")


@pytest.mark.shows("S21")
def test_a_copy_is_read_back_from_the_disk(
    tmp_path: Path, folder: int, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is flushed and dropped from memory first, where it is as it was written, whatever the disk has."""

    def digest_of(*_: object) -> Checksum:
        steps.append("read")
        return Checksum.of(A)

    monkeypatch.setattr(moving, "read_again", lambda _: steps.append("drop"))
    monkeypatch.setattr(moving, "digest_of", digest_of)
    with write(tmp_path, "a.bin", A).open("rb") as source, Draft(folder, "copy") as draft:
        draft.copy(source.fileno())
        assert steps == ["flush .copy.grym-part", "drop", "read"]


def test_how_far_a_copy_is_can_be_heard(tmp_path: Path, folder: int) -> None:
    """What is copied, and then what is read back."""
    copied: list[int] = []
    read: list[int] = []
    with write(tmp_path, "a.bin", A).open("rb") as source, Draft(folder, "copy") as draft:
        draft.copy(source.fileno(), on_copied=copied.append, on_read=read.append)
    assert copied == read == [len(A)]


def test_a_small_file_keeps_its_mode(tmp_path: Path, folder: int) -> None:
    """When it is replaced; a record that all of a group could read stays so."""
    write(tmp_path, "small", b"old").chmod(0o640)
    write_file(folder, "small", b"new")
    assert ((tmp_path / "small").stat().st_mode & 0o777, (tmp_path / "small").read_bytes()) == (0o640, b"new")


@pytest.mark.shows("S21")
@pytest.mark.parametrize("is_there", [False, True], ids=["copied", "there already"])
def test_each_step_of_a_move_is_on_the_disk_before_the_next(tmp_path: Path, steps: list[str], is_there: bool) -> None:
    """The order at the top of `clean`: copy, record, placeholder; the original goes last."""
    write(tmp_path, "root/a.bin", A)
    if is_there:
        write(tmp_path, "out/a.bin", A)
    clean(tmp_path / "root", tmp_path / "out")
    copied = ["flush out/a.bin"] if is_there else ["flush out/.a.bin.grym-part", "name a.bin"]
    recorded = ["flush out/.asset-manifest.json.grym-part", "name asset-manifest.json", "flush out"]
    replaced = ["flush root/.a.bin.asset-ref.grym-part", "name a.bin.asset-ref", "flush root"]
    assert in_order(steps, "flush .", *copied, "flush out", *recorded, *replaced, "remove a.bin", "flush root")


@pytest.mark.shows("S21")
@pytest.mark.parametrize("is_there", [False, True], ids=["copied", "there already"])
async def test_a_file_is_back_on_the_disk_before_its_placeholder_goes(
    tmp_path: Path, steps: list[str], is_there: bool
) -> None:
    """The same on the way back: the file and its name are flushed first, even where it is there already."""
    write(tmp_path, "root/a.bin", A)
    clean(tmp_path / "root", tmp_path / "out")
    restorer = Restorer(tmp_path / "root", [tmp_path / "out"])
    (wanted,) = restorer.all()
    if is_there:
        write(tmp_path, "root/a.bin", A)
        write(tmp_path, f"root/{draft_name('a.bin')}", b"left by a dead run")
    steps.clear()
    await restorer.restore(wanted)
    copied = ["flush root/a.bin"] if is_there else ["flush root/.a.bin.grym-part", "name a.bin"]
    assert in_order(steps, *copied, "flush root", "remove a.bin.asset-ref", "flush root")
    assert os.listdir(tmp_path / "root") == ["a.bin"]


async def test_nothing_stays_open(tmp_path: Path) -> None:
    """Whatever became of each file: moved, there already, in the way; and on the way back."""
    names = ["moved.bin", "there.bin", "taken.bin", "placed.bin"]
    for name in names:
        write(tmp_path, f"root/deep/{name}", A)
    write(tmp_path, "out/deep/there.bin", A)
    write(tmp_path, "out/deep/taken.bin", A[::-1])
    before = os.listdir("/proc/self/fd")
    results = clean(tmp_path / "root", tmp_path / "out")
    assert len(results) == 4
    assert os.listdir("/proc/self/fd") == before
    restorer = Restorer(tmp_path / "root", [tmp_path / "out"])
    write(tmp_path, "root/deep/placed.bin", A)
    for wanted in restorer.all():
        await restorer.restore(wanted)
    between = os.listdir("/proc/self/fd")
    for wanted in Restorer(tmp_path / "root", [tmp_path / "out"]).find("deep/moved.bin", tmp_path / "root"):
        write(tmp_path, f"root/deep/{draft_name('moved.bin')}", b"left by a dead run")
        await restorer.restore(wanted)
    assert os.listdir("/proc/self/fd") == between


def test_what_was_moved_is_known_to_the_record_at_once(tmp_path: Path) -> None:
    """`Cleaner.recorded` names the files of this run and of an earlier one, by their paths in the root."""
    write(tmp_path, "root/deep/a.bin", A)
    clean(tmp_path / "root", tmp_path / "out")
    write(tmp_path, "root/b.bin", A)
    with Cleaner(plan_clean(tmp_path / "root", tmp_path / "root", tmp_path / "out", LIMIT), lambda: NOON) as cleaner:
        list(cleaner.moves())
        found = {(each.original_path, each.storage_path) for each in cleaner.recorded(tmp_path / "root")}
    assert found == {("deep/a.bin", "deep/a.bin"), ("b.bin", "b.bin")}

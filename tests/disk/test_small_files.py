"""Small files put in place together: what is flushed when, and what happens to one that fails."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import NotWritable
from grym_fetch.disk import small_files
from grym_fetch.disk.owner import Owner
from grym_fetch.disk.small_files import CONTENT_KEY, PATH_KEY, SmallFile, SmallFileWriter
from grym_fetch.disk.state import StateFolder
from grym_fetch.runtime.threads import WorkerThreads
from tests.support.project import OWN
from tests.support.system import dead_owner, descriptors


def small(place: str, content: bytes) -> SmallFile:
    return SmallFile(place, content, Checksum.of(content))


FILES = [small("a.bin", b"a" * 10), small("d/b.bin", b"b" * 20), small("d/c.bin", b""), small("e/f/g.bin", b"g")]


def to_nowhere(place: Path) -> None:
    """Make a symlink."""
    place.symlink_to(place.parent.parent / "nowhere")


@pytest.fixture
async def small_file_writer(tmp_path: Path) -> AsyncIterator[SmallFileWriter]:
    (tmp_path / "assets" / OWN / "stage").mkdir(parents=True)
    threads = WorkerThreads("test", 1)
    made = SmallFileWriter(StateFolder(tmp_path / "assets"), threads, set())
    yield made
    await made.close()
    assert list((tmp_path / "assets" / OWN / "stage").iterdir()) == []
    threads.close()


async def test_all_are_put_in_place(small_file_writer: SmallFileWriter, tmp_path: Path) -> None:
    """Each is where it belongs, with its current signature; no descriptor stays open."""
    before = descriptors()
    placed = await small_file_writer.put(FILES)
    assert descriptors() == before
    for file, entry in zip(FILES, placed, strict=True):
        path = tmp_path / "assets" / file.local_path
        assert path.read_bytes() == file.data
        assert entry is not None
        assert (entry.path, entry.checksum) == (str(path), str(file.checksum))
        assert (entry.signature.inode, entry.signature.size) == (path.stat().st_ino, len(file.data))


@pytest.mark.posix
@pytest.mark.shows("D20", "X7")
async def test_the_umask_decides_who_may_read(small_file_writer: SmallFileWriter, tmp_path: Path) -> None:
    """A file gets the same mode as any new file here."""
    before = os.umask(0o027)
    try:
        await small_file_writer.put(FILES[:1])
    finally:
        os.umask(before)
    assert (tmp_path / "assets" / "a.bin").stat().st_mode & 0o777 == 0o640


@pytest.mark.posix
@pytest.mark.shows("P3", "S2")
async def test_written_flushed_renamed_flushed(
    small_file_writer: SmallFileWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file is flushed after writing and before any is renamed, and every folder after the last rename."""
    calls: list[str] = []

    def watched(name: str) -> Callable[..., object]:
        real = getattr(os, name)

        def call(*args: object, **more: object) -> object:
            kind = "folder" if name == "fsync" and os.path.isdir(f"/proc/self/fd/{args[0]}") else "file"
            calls.append(f"{name} {kind}" if name == "fsync" else name)
            return real(*args, **more)

        return call

    await small_file_writer.put(FILES)  # the folders are made and flushed now
    for name in ("write", "fsync", "rename"):
        monkeypatch.setattr(os, name, watched(name))
    await small_file_writer.put(FILES)
    assert calls == ["write"] * 3 + ["fsync file"] * 4 + ["rename"] * 4 + ["fsync folder"] * 3


@pytest.mark.posix
@pytest.mark.shows("P3", "S2")
async def test_folders_of_others_are_flushed_once(
    small_file_writer: SmallFileWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder's maker may not have flushed it into its parent: a file in it would be lost with it."""
    (tmp_path / "assets" / "e" / "f").mkdir(parents=True)
    flushed: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: flushed.append(os.readlink(f"/proc/self/fd/{fd}")))
    for expected in (["assets", "assets/e", "assets/e/f"], ["assets/e/f"]):
        flushed.clear()
        await small_file_writer.put(FILES[3:])
        folders = [path.removeprefix(f"{tmp_path}/") for path in flushed if path.startswith(f"{tmp_path}/assets")]
        folders = [path for path in folders if OWN not in path]
        assert folders == expected


@pytest.mark.shows("C8", "S1")
async def test_a_wrong_one_is_left_out(small_file_writer: SmallFileWriter, tmp_path: Path) -> None:
    """A file with a wrong digest is not put in place; the others are."""
    wrong = SmallFile("d/b.bin", b"x" * 20, FILES[1].checksum)
    placed = await small_file_writer.put([FILES[0], wrong, FILES[3]])
    assert [entry is not None for entry in placed] == [True, False, True]
    assert not (tmp_path / "assets" / "d").exists() or list((tmp_path / "assets" / "d").iterdir()) == []


@pytest.mark.posix
@pytest.mark.shows("D2", "D5")
@pytest.mark.parametrize("name", ["open", "write", "fsync", "rename"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EMFILE])
async def test_whatever_fails_leaves_nothing(
    small_file_writer: SmallFileWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    """If the system fails for one file, it is left out: the old file stays, and nothing of the new one does."""
    await small_file_writer.put(FILES)
    newer = [small(file.local_path, b"newer" + file.data) for file in FILES]
    real = getattr(os, name)
    calls = 0

    def second_fails(*args: object, **more: object) -> object:
        nonlocal calls
        # The files, not their folders.
        if name != "open" or (isinstance(args[1], int) and args[1] & os.O_EXCL):
            calls += 1
            if calls == 2:
                raise OSError(number, "injected")
        return real(*args, **more)

    monkeypatch.setattr(os, name, second_fails)
    placed = await small_file_writer.put(newer)
    monkeypatch.undo()
    assert [entry is None for entry in placed] == [False, True, False, False]
    for file, old, entry in zip(newer, FILES, placed, strict=True):
        assert (tmp_path / "assets" / file.local_path).read_bytes() == (old.data if entry is None else file.data)


@pytest.mark.posix
@pytest.mark.parametrize(("make", "is_replaced"), [(os.mkfifo, False), (Path.mkdir, False), (to_nowhere, True)])
@pytest.mark.shows("D11", "S5")
async def test_what_is_in_the_place_already(
    small_file_writer: SmallFileWriter, tmp_path: Path, make: Callable[[Path], None], is_replaced: bool
) -> None:
    """A symlink is replaced, its target untouched. Anything but a file stays, and the full procedure reports it."""
    place = tmp_path / "assets" / FILES[0].local_path
    place.parent.mkdir(exist_ok=True)
    make(place)
    before = place.lstat()
    (entry,) = await small_file_writer.put(FILES[:1])
    assert (entry is not None) is is_replaced
    assert (place.lstat().st_ino != before.st_ino) is is_replaced
    assert not (tmp_path / "nowhere").exists()


async def test_only_the_dead_are_cleared_away(small_file_writer: SmallFileWriter, tmp_path: Path) -> None:
    """What a killed process left goes; what a living one works on, or what nobody knows, stays."""
    me, stage = Owner.this(), tmp_path / "assets" / OWN / "stage"
    names = {
        owner: stage / f"{PATH_KEY}.{CONTENT_KEY}.{owner}.00000000"
        for owner in (me.encode(), dead_owner().encode(), "rubbish")
    }
    names["short"] = stage / f"{PATH_KEY}.short"
    for folder in names.values():
        folder.mkdir()
    await small_file_writer.put(FILES[:1])
    assert [folder.exists() for folder in names.values()] == [True, False, True, True]
    for folder in names.values():
        if folder.exists():
            folder.rmdir()


@pytest.mark.posix
@pytest.mark.shows("D5")
async def test_a_folder_that_cannot_be_flushed(
    small_file_writer: SmallFileWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a rename may not last, nothing is recorded: no entry, and the full procedure does it again."""
    await small_file_writer.put(FILES)
    real = os.fsync

    def fails_for_folders(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EIO, "injected")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fails_for_folders)
    assert await small_file_writer.put(FILES) == [None] * 4


@pytest.mark.shows("D9")
async def test_no_folder_to_write_in(tmp_path: Path) -> None:
    """If nothing can be staged, nothing is put in place."""
    threads = WorkerThreads("test", 1)
    with pytest.raises(NotWritable):
        await SmallFileWriter(StateFolder(tmp_path / "nowhere"), threads, set()).put(FILES)
    assert not (tmp_path / "assets").exists()
    threads.close()


@pytest.mark.parametrize("quick", [True, False])
async def test_a_quick_disk_is_waited_for_and_a_slow_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: bool
) -> None:
    """Before asking for more, a caller waits until a turn's files are put away, if the last turn took no time."""
    monkeypatch.setattr(small_files, "QUICK_S", 1e9 if quick else 0.0)
    (tmp_path / "assets" / OWN / "stage").mkdir(parents=True)
    threads = WorkerThreads("test", 1)
    small_file_writer = SmallFileWriter(StateFolder(tmp_path / "assets"), threads, set())
    await small_file_writer.calm()
    await small_file_writer.put(FILES[:1])
    may_go_on = threading.Event()
    held_up = asyncio.ensure_future(threads.compute(may_go_on.wait, 60))
    await asyncio.sleep(0)
    putting = asyncio.ensure_future(small_file_writer.put(FILES[1:]))
    await asyncio.sleep(0)
    calm = asyncio.ensure_future(small_file_writer.calm())
    await asyncio.sleep(0)
    assert calm.done() is not quick
    may_go_on.set()
    await asyncio.gather(held_up, putting, calm)
    await small_file_writer.calm()
    await small_file_writer.close()
    threads.close()

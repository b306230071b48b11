"""The disk: who owns a stage, what survives, in which order a file is published, and how a failing disk shows.

What every stage does is in ``tests/contract/test_stage_contract.py``; this file has what only the disk does.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from grym_fetch.core.digest import new_hasher
from grym_fetch.core.errors import DiskFull, NotWritable, StorageError, UnsafePath
from grym_fetch.core.http import Validator
from grym_fetch.core.journal import JournalEncoder, Piece, piece_digest
from grym_fetch.disk import folders
from grym_fetch.disk import local_files as local_files
from grym_fetch.disk import stage as stage_module
from grym_fetch.disk.assets_folder import AssetsFolder
from grym_fetch.disk.claims import ABANDONED_AFTER_S
from grym_fetch.disk.local_files import hash_file
from grym_fetch.disk.owner import Owner
from grym_fetch.disk.stage import DiskStage, StageKey
from grym_fetch.runtime.descriptors import DESCRIPTORS_PER_ASSET
from grym_fetch.runtime.threads import WorkerThreads
from grym_fetch.testing import seeded_bytes
from tests.support.fakes import read_proved
from tests.support.mounts import mounted, overlaid
from tests.support.system import dead_owner, descriptors, named
from tests.support.system_calls import failing

CONTENT = seeded_bytes(200_003, seed=41)
KEY = StageKey("models/deep/a.bin", "sha256:41")


@pytest.fixture
async def stage(assets_folder: AssetsFolder) -> AsyncIterator[DiskStage]:
    """An unpublished stage that has all of the content."""
    stage = await assets_folder.open_stage(KEY, exclusive=True)
    await stage.write(100_000, CONTENT[100_000:], 0)
    await stage.write(0, CONTENT[:100_000], 0)
    yield stage
    await stage.close()


def stages(assets_folder: AssetsFolder) -> list[Path]:
    """The folders of all stages."""
    return sorted((assets_folder.state.own / "stage").iterdir())


def final(assets_folder: AssetsFolder) -> Path:
    """Where the asset belongs on disk."""
    return assets_folder.path_of(KEY.local_path)


def is_flushing(stage: DiskStage) -> bool:
    """Whether a background flush is running."""
    return stage._flushing is not None and not stage._flushing.done()


async def turns() -> None:
    """Let everything happen that needs no thread to finish."""
    for _ in range(50):
        await asyncio.sleep(0)


# -- the folders of our own -----------------------------------------------------------------------------------------


def test_nothing_is_made_before_it_is_needed(tmp_path: Path) -> None:
    """Looking for stages and lengths leaves the disk unchanged."""
    assets_folder = AssetsFolder(tmp_path / "assets")
    assert assets_folder.staged_bytes([KEY])[0] == 0
    assets_folder.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.posix
@pytest.mark.shows("S8")
def test_our_folder_is_private_and_ignored(assets_folder: AssetsFolder) -> None:
    """Nobody else can read what is staged, and git does not see it."""
    assert stat.S_IMODE(assets_folder.state.own.stat().st_mode) == 0o700
    assert (assets_folder.state.top / ".gitignore").read_text() == "*\n"


async def test_preparing_twice_keeps_what_is_there(assets_folder: AssetsFolder, stage: DiskStage) -> None:
    """A second process that prepares the folder disturbs no stage."""
    second = AssetsFolder(assets_folder.assets_dir)
    await second.prepare()
    second.close()
    assert len(stages(assets_folder)) == 1


@pytest.mark.posix
async def test_preparing_leaves_nothing_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It also flushes the assets folder into its parent, even if somebody else created it."""
    (tmp_path / "assets").mkdir()
    flushed: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: flushed.append(os.readlink(f"/proc/self/fd/{fd}")))
    before = descriptors()
    assets_folder = AssetsFolder(tmp_path / "assets")
    await assets_folder.prepare()
    assets_folder.close()
    assert descriptors() == before
    assert flushed[0] == str(tmp_path)


@pytest.mark.posix
@pytest.mark.shows("D12", "S5")
async def test_our_folder_is_never_a_symlink(tmp_path: Path) -> None:
    """A symlink in the place of our folder is refused, and nothing is created behind it."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets/.grym-fetch").symlink_to(tmp_path / "outside")
    assets_folder = AssetsFolder(tmp_path / "assets")
    with pytest.raises(UnsafePath, match="symlink"):
        await assets_folder.prepare()
    assets_folder.close()
    assert list((tmp_path / "outside").iterdir()) == []


@pytest.mark.shows("S5")
async def test_no_symlink_in_our_folder_is_written_through(tmp_path: Path) -> None:
    """The mark for git is not written through a symlink in its place, whether that leads to a file or to nothing."""
    state = tmp_path / "assets/.grym-fetch"
    state.mkdir(parents=True)
    (state / ".gitignore").symlink_to(tmp_path / "outside")
    assets_folder = AssetsFolder(tmp_path / "assets")
    await assets_folder.prepare()
    assets_folder.close()
    assert not (tmp_path / "outside").exists()


def test_a_key_is_safe_in_a_file_name() -> None:
    """Whatever a path looks like, its key is a short word, and no two paths share one."""
    keys = [StageKey("../" * 100 + name, "x") for name in ("a", "b", "a\n", "ä" * 200)]
    names = {key.path_key + key.content_key for key in keys}
    assert len(names) == 4
    assert all(name.isalnum() and len(name) == 40 for name in names)


# -- whose stage ----------------------------------------------------------------------------------------------------


def leave(assets_folder: AssetsFolder, owner: str, *, count: int = 1, key: StageKey = KEY, nonce: str = "0") -> Path:
    """Leave a stage behind with ``count`` pieces in it, as this owner would have."""
    folder = assets_folder.state.own / "stage" / f"{key.path_key}.{key.content_key}.{owner}.{nonce}"
    folder.mkdir()
    encoder = JournalEncoder()
    journal = encoder.header(key.content)
    for start in range(0, count * 10_000, 10_000):
        digest = piece_digest(CONTENT[start : start + 10_000])
        journal += encoder.piece(Piece(start, start + 10_000, digest, 0))
    (folder / "journal").write_bytes(journal)
    (folder / "part").write_bytes(CONTENT[: count * 10_000])
    return folder


@pytest.mark.shows("X8")
async def test_the_stage_of_the_dead_is_claimed_by_renaming(assets_folder: AssetsFolder) -> None:
    """A stage left by a dead process is taken over unchanged, under the name of the living one."""
    left = leave(assets_folder, dead_owner().encode(), count=3)
    part = (left / "part").stat().st_ino
    stage = await assets_folder.open_stage(KEY, exclusive=False)
    assert [piece.start for piece in stage.recovered.pieces] == [0, 10_000, 20_000]
    (mine,) = stages(assets_folder)
    assert Owner.this().encode() in mine.name
    assert (mine / "part").stat().st_ino == part
    await stage.close()


@pytest.mark.shows("X8")
async def test_the_stage_of_the_living_is_not_touched(assets_folder: AssetsFolder, stage: DiskStage) -> None:
    """Without a lock that holds, a living owner's stage stays with it, and a second one is made."""
    second = await assets_folder.open_stage(KEY, exclusive=False)
    assert len(second.recovered.pieces) == 0
    assert len(stages(assets_folder)) == 2
    assert await stage.read(0, 1000) == CONTENT[:1000]
    await stage.publish(len(CONTENT))
    await second.write(0, b"other", 0)
    await second.close()
    assert final(assets_folder).read_bytes() == CONTENT


@pytest.mark.parametrize("owner", ["rubbish", "1-2", "one.too.many"], ids=["rubbish", "short", "fields"])
async def test_a_stage_of_unknown_ownership_is_not_touched(assets_folder: AssetsFolder, owner: str) -> None:
    """A stage whose owner may be alive is left alone, unless the lock says that the owner is dead."""
    left = leave(assets_folder, owner)
    stage = await assets_folder.open_stage(KEY, exclusive=False)
    assert len(stage.recovered.pieces) == 0
    assert left.exists()
    await stage.discard()
    stage = await assets_folder.open_stage(KEY, exclusive=True)
    assert len(stage.recovered.pieces) == 1
    assert not left.exists()
    await stage.close()


@pytest.mark.parametrize("name", ["12345-1-0123456789abcdef", "12345-1-0123456789abcdef-0123abcd"])
@pytest.mark.shows("X3", "X8", "S14")
async def test_a_stage_of_another_machine_is_not_taken_while_it_is_written_to(
    assets_folder: AssetsFolder, name: str
) -> None:
    """A lock may hold on each machine separately. A stage that nobody still writes to is resumed from any of them."""
    left = leave(assets_folder, name)
    stage = await assets_folder.open_stage(KEY, exclusive=True)
    assert len(stage.recovered.pieces) == 0
    assert left.exists()
    await stage.discard()
    long_ago = time.time() - ABANDONED_AFTER_S - 60
    for path in (left / "part", left / "journal", left):
        stage = await assets_folder.open_stage(KEY, exclusive=True)
        assert left.exists()
        await stage.discard()
        os.utime(path, (long_ago, long_ago))
    stage = await assets_folder.open_stage(KEY, exclusive=True)
    assert len(stage.recovered.pieces) == 1
    assert not left.exists()
    await stage.close()


@pytest.mark.parametrize("is_container", [True, False], ids=["another container", "before the last boot"])
@pytest.mark.shows("X8", "P1")
async def test_what_this_machine_has_left_is_taken_over_at_once(
    assets_folder: AssetsFolder, is_container: bool
) -> None:
    """After a power cut, or in a new container, the lock holds for all, or nobody can be alive."""
    me = Owner.this()
    others = replace(me, boot=f"{me.boot[:16]}1", host="") if is_container else replace(me, boot="0123456789abcdef")
    leave(assets_folder, others.encode())
    stage = await assets_folder.open_stage(KEY, exclusive=True)
    assert len(stage.recovered.pieces) == 1
    await stage.close()


@pytest.mark.shows("X3", "S14")
async def test_who_has_lost_a_stage_does_not_write_to_it(assets_folder: AssetsFolder, stage: DiskStage) -> None:
    """Another process has claimed it by name: the bytes belong to that process, and may already be in place."""
    (folder,) = stages(assets_folder)
    folder.rename(folder.with_name("claimed"))
    with pytest.raises(StorageError, match="or taken over"):
        await stage.write(0, bytes(1000), 0)
    assert (folder.with_name("claimed") / "part").read_bytes() == CONTENT


@pytest.mark.posix
@pytest.mark.shows("B2", "B45", "X3", "S14")
async def test_without_a_working_flock_the_living_are_safe(
    assets_folder: AssetsFolder, stage: DiskStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If flock excludes nobody, its holder does not claim what may be in use, and both produce the file."""
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    lock = assets_folder.lock(KEY)
    assert await assets_folder.try_lock(lock)
    second = await assets_folder.open_stage(KEY, exclusive=lock.is_trustworthy)
    await second.write(0, CONTENT, 1)
    await stage.publish(len(CONTENT))
    await second.publish(len(CONTENT))
    await second.close()
    lock.release()
    assert final(assets_folder).read_bytes() == CONTENT
    assert stages(assets_folder) == []


async def test_a_name_that_is_none_of_ours_is_no_failure(assets_folder: AssetsFolder) -> None:
    """Anything may lie beside the stages."""
    (assets_folder.state.own / "stage" / f"{KEY.path_key}.x").mkdir()
    stage = await assets_folder.open_stage(KEY, exclusive=False)
    assert len(stages(assets_folder)) == 2
    await stage.close()


@pytest.mark.shows("D1")
async def test_what_does_not_fit_is_refused_before_anything_is_made(assets_folder: AssetsFolder) -> None:
    """Bytes left by an earlier run need no extra room."""
    with pytest.raises(DiskFull, match="not enough space"):
        await assets_folder.open_stage(KEY, exclusive=True, size=1 << 60)
    assert stages(assets_folder) == []
    leave(assets_folder, dead_owner().encode(), count=2)
    [staged] = assets_folder.staged_bytes([KEY])
    assert staged >= 20_000
    free = await assets_folder.free_bytes()
    stage = await assets_folder.open_stage(KEY, exclusive=True, size=free // 2 + staged)
    await stage.close()


@pytest.mark.shows("D11")
async def test_a_destination_is_looked_at(assets_folder: AssetsFolder) -> None:
    """A folder in the file's place is found before anything is fetched."""
    await assets_folder.check_destination(KEY.local_path)
    final(assets_folder).mkdir(parents=True)
    with pytest.raises(UnsafePath, match="folder is in the way"):
        await assets_folder.check_destination(KEY.local_path)


@pytest.mark.shows("S17")
async def test_nothing_is_put_into_a_repository(assets_folder: AssetsFolder) -> None:
    """Git would obey the config of one without a work tree, which is not called ``.git``; a work tree in it is fine."""
    for name in ("HEAD", "objects", "refs", "tree/.git"):
        (assets_folder.assets_dir / "x.git" / name).mkdir(parents=True)
    for local_path in ("x.git/config", "x.git/hooks/update"):
        with pytest.raises(UnsafePath, match="git's own folder"):
            await assets_folder.check_destination(local_path)
    await assets_folder.check_destination("x.git/tree/a.bin")
    await assets_folder.check_destination("a.bin")
    asked = ("", "x.git", "x.git/hooks", "x.git/tree", "models")
    assert await assets_folder.closed_folders(asked) == {"x.git", "x.git/hooks"}


async def test_closing_ends_every_thread(tmp_path: Path) -> None:
    """No new work starts after closing."""
    assets_folder = AssetsFolder(tmp_path / "assets")
    assets_folder.close()
    sets = [threads for each in assets_folder._sets for threads in (each.write, each.read, each.flush)]
    for threads in [assets_folder._threads, *sets]:
        with pytest.raises(RuntimeError, match="shutdown"):
            await threads.compute(int)


async def test_the_fullest_stage_is_claimed_and_the_rest_dropped(assets_folder: AssetsFolder) -> None:
    """The abandoned stage with the most bytes is continued; the others are garbage."""
    for count, nonce in [(1, "a"), (5, "b"), (2, "c")]:
        leave(assets_folder, dead_owner().encode(), count=count, nonce=nonce)
    stage = await assets_folder.open_stage(KEY, exclusive=False)
    assert len(stage.recovered.pieces) == 5
    assert len(stages(assets_folder)) == 1
    await stage.close()


@pytest.mark.shows("M15")
async def test_a_stage_of_older_content_is_dropped(assets_folder: AssetsFolder) -> None:
    """When the manifest wants other content, the stage of the old one is useless; other paths are not affected."""
    older = leave(assets_folder, dead_owner().encode(), key=StageKey(KEY.local_path, "sha256:old"))
    neighbour = leave(assets_folder, dead_owner().encode(), key=StageKey("models/b.bin", KEY.content))
    stage = await assets_folder.open_stage(KEY, exclusive=False)
    assert len(stage.recovered.pieces) == 0
    assert not older.exists()
    assert neighbour.exists()
    await stage.close()


@pytest.mark.posix
async def test_losing_the_race_for_a_stage_is_no_failure(
    assets_folder: AssetsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the stage to be claimed is gone, a new one is started."""
    leave(assets_folder, dead_owner().encode())
    real = os.rename

    def rename(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        real(source, "faster", src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
        real(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "rename", rename)
    stage = await assets_folder.open_stage(KEY, exclusive=False)
    assert len(stage.recovered.pieces) == 0
    await stage.close()


async def test_staged_bytes_are_counted(assets_folder: AssetsFolder) -> None:
    """A plan knows roughly how much of this content is here, and does not count other content."""
    leave(assets_folder, dead_owner().encode(), count=8)
    assert 80_000 <= assets_folder.staged_bytes([KEY])[0] <= 100_000
    assert assets_folder.staged_bytes([StageKey(KEY.local_path, "sha256:other")])[0] == 0


@pytest.mark.posix
@pytest.mark.shows("S5")
async def test_a_symlink_in_the_place_of_the_part_is_refused(assets_folder: AssetsFolder, tmp_path: Path) -> None:
    """A stage whose part leads elsewhere is not written to, and no descriptor stays open."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    left = leave(assets_folder, dead_owner().encode())
    (left / "part").unlink()
    (left / "part").symlink_to(victim)
    before = descriptors()
    with pytest.raises(UnsafePath):
        await assets_folder.open_stage(KEY, exclusive=True)
    assert victim.read_bytes() == b"precious"
    assert descriptors() == before


# -- the journal ----------------------------------------------------------------------------------------------------


@pytest.mark.shows("P4", "S1")
async def test_a_journal_cut_anywhere_claims_no_byte_too_many(assets_folder: AssetsFolder, stage: DiskStage) -> None:
    """Wherever a crash cut the journal, its claims can be proved, and writing continues from there."""
    await stage.close()
    journal = stages(assets_folder)[0] / "journal"
    for cut in range(len(journal.read_bytes()), -1, -7):
        os.truncate(journal, cut)
        again = await assets_folder.open_stage(KEY, exclusive=True)
        journal = stages(assets_folder)[0] / "journal"
        for piece in again.recovered.pieces:
            assert await read_proved(again, piece) == CONTENT[piece.start : piece.stop]
        await again.close()
    again = await assets_folder.open_stage(KEY, exclusive=True)
    await again.write(0, CONTENT, 0)
    await again.publish(len(CONTENT))
    assert final(assets_folder).read_bytes() == CONTENT


@pytest.mark.shows("P7")
async def test_a_part_without_its_journal_is_not_trusted(assets_folder: AssetsFolder, stage: DiskStage) -> None:
    """Bytes without a journal are thrown away, not adopted."""
    await stage.close()
    folder = stages(assets_folder)[0]
    (folder / "journal").unlink()
    again = await assets_folder.open_stage(KEY, exclusive=True)
    assert len(again.recovered.pieces) == 0
    assert (stages(assets_folder)[0] / "part").stat().st_size == 0
    await again.close()


@pytest.mark.shows("P5")
async def test_the_journal_of_other_content_is_not_trusted(assets_folder: AssetsFolder, stage: DiskStage) -> None:
    """A journal that names other content than its folder does counts for nothing."""
    await stage.close()
    other = StageKey(KEY.local_path, "sha256:other")
    os.rename(
        stages(assets_folder)[0],
        assets_folder.state.own / "stage" / f"{other.path_key}.{other.content_key}.{dead_owner().encode()}.0",
    )
    again = await assets_folder.open_stage(other, exclusive=True)
    assert len(again.recovered.pieces) == 0
    assert await again.read(0, 10) == b""
    await again.close()


@pytest.mark.shows("U4", "S8")
async def test_a_journal_holds_no_address(assets_folder: AssetsFolder, stage: DiskStage) -> None:
    """Neither an address nor its secret is on the disk."""
    await stage.note_origin(0, "https://user:pass@host.example/a.bin?signature=hush", Validator('"v"'))
    text = (stages(assets_folder)[0] / "journal").read_text()
    assert not any(word in text for word in ("host.example", "hush", "pass@"))


# -- writing --------------------------------------------------------------------------------------------------------


async def test_a_short_write_is_continued(assets_folder: AssetsFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the system takes only some bytes at a time, the rest follows in its place."""
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: real(fd, bytes(data[:1000]), at))
    stage = await assets_folder.open_stage(KEY, exclusive=True)
    await stage.write(0, CONTENT, 0)
    await stage.publish(len(CONTENT))
    assert final(assets_folder).read_bytes() == CONTENT


@pytest.mark.posix
@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, DiskFull),
        (errno.EDQUOT, DiskFull),
        (errno.EFBIG, DiskFull),
        (errno.EROFS, NotWritable),
        (errno.EIO, NotWritable),
    ],
    ids=named,
)
async def test_a_failed_write_is_ours_and_claims_nothing(
    assets_folder: AssetsFolder, monkeypatch: pytest.MonkeyPatch, number: int, expected: type[StorageError]
) -> None:
    """A piece that could not be written becomes an error about the asset's file, and is not in the journal."""
    stage = await assets_folder.open_stage(KEY, exclusive=True)
    kept = await stage.write(0, CONTENT[:1000], 0)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", failing(number))
        with pytest.raises(expected) as caught:
            await stage.write(1000, CONTENT[1000:2000], 0)
    assert caught.value.path == str(final(assets_folder))
    await stage.close()
    again = await assets_folder.open_stage(KEY, exclusive=True)
    assert list(again.recovered.pieces) == [kept]
    await again.close()


@pytest.mark.shows("B14", "B63", "D3")
async def test_a_record_cut_short_is_a_full_disk(assets_folder: AssetsFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A partly written record does not count: the next process finds the records before it."""
    stage = await assets_folder.open_stage(KEY, exclusive=True)
    kept = await stage.write(0, CONTENT[:1000], 0)
    real = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: real(fd, data[: len(data) // 2]))
        with pytest.raises(DiskFull):
            await stage.write(1000, CONTENT[1000:2000], 0)
    await stage.close()
    again = await assets_folder.open_stage(KEY, exclusive=True)
    assert list(again.recovered.pieces) == [kept]
    await again.close()


LIMITED = """
import asyncio, resource, sys
from pathlib import Path
from grym_fetch.disk.assets_folder import AssetsFolder
from grym_fetch.disk.stage import StageKey
from grym_fetch.core.errors import StorageError

async def main():
    assets_folder = AssetsFolder(Path(sys.argv[1]))
    await assets_folder.prepare()
    stage = await assets_folder.open_stage(StageKey("models/deep/a.bin", "sha256:41"), exclusive=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))
    try:
        for start in range(0, 200_000, 50_000):
            await stage.write(start, bytes(50_000), 0)
    except StorageError as error:
        print(type(error).__name__, start)
    await stage.close()
    assets_folder.close()

asyncio.run(main())
"""


@pytest.mark.posix
@pytest.mark.shows("D4")
async def test_a_file_size_limit_is_a_full_disk(assets_folder: AssetsFolder) -> None:
    """A process at its file-size limit ends with an error of ours, and what was written before is recovered."""
    command = [sys.executable, "-c", LIMITED, str(assets_folder.assets_dir)]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["DiskFull", "150000"]
    stage = await assets_folder.open_stage(KEY, exclusive=True)
    assert [piece.start for piece in stage.recovered.pieces] == [0, 50_000, 100_000]
    await stage.close()


@pytest.mark.posix
@pytest.mark.shows("P9")
async def test_a_cancelled_write_is_over_before_the_cancellation(
    assets_folder: AssetsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task cancelled while a thread writes is cancelled only once the bytes are written and recorded."""
    stage = await assets_folder.open_stage(KEY, exclusive=True)
    begun, go_on = threading.Event(), threading.Event()
    real = os.pwrite

    def pwrite(descriptor: int, data: memoryview, at: int) -> int:
        begun.set()
        assert go_on.wait(60)
        return real(descriptor, data, at)

    monkeypatch.setattr(os, "pwrite", pwrite)
    writing = asyncio.ensure_future(stage.write(0, CONTENT[:1000], 0))
    assert await asyncio.to_thread(begun.wait, 60)
    writing.cancel()
    await turns()
    assert not writing.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await writing
    await stage.close()
    again = await assets_folder.open_stage(KEY, exclusive=True)
    assert [piece.stop for piece in again.recovered.pieces] == [1000]
    await again.close()


# -- opening --------------------------------------------------------------------------------------------------------


@pytest.mark.shows("B14")
async def test_a_stage_that_cannot_be_opened_leaves_no_descriptor(
    assets_folder: AssetsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is already full at the first record costs an error, not two open files."""
    before = descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", failing(errno.ENOSPC))
        for _ in range(3):
            with pytest.raises(DiskFull):
                await assets_folder.open_stage(KEY, exclusive=True)
    assert descriptors() == before


@pytest.mark.posix
async def test_a_cancelled_opening_leaves_no_descriptor(
    assets_folder: AssetsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task cancelled while its stage is being opened never gets the stage, so it is closed."""
    before = descriptors()
    begun, go_on = threading.Event(), threading.Event()
    real = os.mkdir

    def mkdir(path: str, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        begun.set()
        assert go_on.wait(60)
        real(path, mode, dir_fd=dir_fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "mkdir", mkdir)
        opening = asyncio.ensure_future(assets_folder.open_stage(KEY, exclusive=True))
        assert await asyncio.to_thread(begun.wait, 60)
        opening.cancel()
        await turns()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await opening
    assert descriptors() == before


@pytest.mark.posix
@pytest.mark.shows("D16")
async def test_an_asset_holds_as_many_descriptors_as_are_counted_for_it(
    assets_folder: AssetsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of assets under way is planned with the most descriptors that one holds, from lock to final place."""
    before, held = descriptors(), []
    real = os.rename

    def rename(old: str, new: str, **folders: int) -> None:
        held.append(descriptors() - before)
        real(old, new, **folders)

    lock = assets_folder.lock(KEY)
    assert await assets_folder.try_lock(lock)
    stage = await assets_folder.open_stage(KEY, exclusive=True)
    await stage.write(0, CONTENT, 0)
    monkeypatch.setattr(os, "rename", rename)
    await stage.publish(len(CONTENT))
    lock.release()
    assert held == [DESCRIPTORS_PER_ASSET]
    assert descriptors() == before


# -- flushing in the background -------------------------------------------------------------------------------------


@pytest.mark.shows("D5")
@pytest.mark.linux
async def test_a_failed_background_flush_is_not_forgotten(
    assets_folder: AssetsFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The kernel reports a failed flush once, and the next one succeeds: the part is given up all the same."""
    monkeypatch.setattr(stage_module, "FLUSH_EVERY_BYTES", 1000)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", failing(errno.EIO))
        stage = await assets_folder.open_stage(KEY, exclusive=True)
        await stage.write(0, CONTENT, 0)
        assert stage._flushing is not None
        await stage._flushing
    assert "flushing in the background failed" in caplog.text
    with pytest.raises(NotWritable, match="input/output error"):
        await stage.publish(len(CONTENT))
    with pytest.raises(NotWritable, match="input/output error"):
        await stage.write(0, CONTENT, 0)
    await stage.close()
    assert not final(assets_folder).exists()
    again = await assets_folder.open_stage(KEY, exclusive=True)
    assert len(again.recovered.pieces) == 0
    await again.close()


@pytest.mark.linux
async def test_one_flush_at_a_time(assets_folder: AssetsFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a slow disk flushes, writing goes on, and no second flush queues up behind the first."""
    monkeypatch.setattr(stage_module, "FLUSH_EVERY_BYTES", 1000)
    begun, go_on = threading.Event(), threading.Event()
    flushes = []

    def fdatasync(descriptor: int) -> None:
        flushes.append(descriptor)
        begun.set()
        assert go_on.wait(60)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    stage = await assets_folder.open_stage(KEY, exclusive=True)
    await stage.write(0, CONTENT[:999], 0)
    assert not is_flushing(stage)
    for start in range(1000, 10_000, 1000):
        await stage.write(start, CONTENT[start : start + 1000], 0)
    assert await asyncio.to_thread(begun.wait, 60)
    assert len(flushes) == 1
    go_on.set()
    await stage._end_flushing()
    assert not is_flushing(stage)
    await stage.write(10_000, CONTENT[10_000:11_000], 0)
    await stage._end_flushing()
    assert len(flushes) == 2
    await stage.close()


@pytest.mark.linux
async def test_publishing_waits_for_the_flush_under_way(
    assets_folder: AssetsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is neither closed nor renamed while another thread works on it."""
    monkeypatch.setattr(stage_module, "FLUSH_EVERY_BYTES", 1000)
    begun, go_on = threading.Event(), threading.Event()

    def fdatasync(_: int) -> None:
        begun.set()
        assert go_on.wait(60)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    stage = await assets_folder.open_stage(KEY, exclusive=True)
    await stage.write(0, CONTENT, 0)
    assert await asyncio.to_thread(begun.wait, 60)
    compute, handed_over = WorkerThreads.compute, []

    async def noting(threads: WorkerThreads, function: Callable[..., object], *args: object) -> object:
        handed_over.append((function.__name__, go_on.is_set()))
        return await compute(threads, function, *args)

    monkeypatch.setattr(WorkerThreads, "compute", noting)
    publishing = asyncio.ensure_future(stage.publish(len(CONTENT)))
    await turns()
    go_on.set()
    await publishing
    await stage.close()
    assert handed_over == [("_publish", True)]
    assert final(assets_folder).read_bytes() == CONTENT


@pytest.mark.linux
async def test_a_cancelled_close_still_closes(assets_folder: AssetsFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancellation during the last flush does not leave the stage's files open."""
    monkeypatch.setattr(stage_module, "FLUSH_EVERY_BYTES", 1000)
    begun, go_on = threading.Event(), threading.Event()

    def fdatasync(_: int) -> None:
        begun.set()
        assert go_on.wait(60)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    before = descriptors()
    stage = await assets_folder.open_stage(KEY, exclusive=True)
    await stage.write(0, CONTENT[:2000], 0)
    assert await asyncio.to_thread(begun.wait, 60)
    closing = asyncio.ensure_future(stage.close())
    await asyncio.sleep(0)
    closing.cancel()
    await turns()
    ended_early = closing.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await closing
    after = descriptors()
    await stage.close()
    assert not ended_early, "the flush was still at work on the file"
    assert after == before


# -- removed under our feet -----------------------------------------------------------------------------------------


@pytest.mark.posix
@pytest.mark.shows("D15")
async def test_a_stage_that_was_removed_is_noticed_at_the_next_piece(
    assets_folder: AssetsFolder, stage: DiskStage
) -> None:
    """Bytes written to an unlinked file would be lost with it."""
    (folder,) = stages(assets_folder)
    shutil.rmtree(folder)
    with pytest.raises(StorageError, match="removed or taken over"):
        await stage.write(0, CONTENT[:1000], 0)


@pytest.mark.posix
@pytest.mark.parametrize("instead", [None, b"something else"], ids=["nothing", "another file"])
@pytest.mark.shows("D15", "S1")
async def test_only_what_was_verified_is_published(
    assets_folder: AssetsFolder, stage: DiskStage, instead: bytes | None
) -> None:
    """The file that now has the part's name is not the one verified through its descriptor."""
    (folder,) = stages(assets_folder)
    (folder / "part").unlink()
    if instead is not None:
        (folder / "part").write_bytes(instead)
    with pytest.raises(StorageError, match="removed or taken over"):
        await stage.publish(len(CONTENT))
    assert not final(assets_folder).exists()


# -- publishing -----------------------------------------------------------------------------------------------------


class Recorder:
    """Records the calls that make a file durable, in order, with their paths."""

    def __init__(self, patch: pytest.MonkeyPatch, base: Path) -> None:
        self.calls: list[tuple[str, ...]] = []
        self._base = base
        fsync, rename = os.fsync, os.rename

        def noting_fsync(descriptor: int) -> None:
            self.calls.append(("fsync", self._shown(os.readlink(f"/proc/self/fd/{descriptor}"))))
            fsync(descriptor)

        def noting_rename(
            source: str | Path, target: str, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None
        ) -> None:
            before, after = (os.readlink(f"/proc/self/fd/{folder}") for folder in (src_dir_fd, dst_dir_fd))
            self.calls.append(("rename", self._shown(f"{before}/{source}"), self._shown(f"{after}/{target}")))
            rename(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

        patch.setattr(os, "fsync", noting_fsync)
        patch.setattr(os, "rename", noting_rename)

    def _shown(self, path: str) -> str:
        path = path.removeprefix(f"{self._base}/")
        return path.rpartition("/")[2] if ".grym-fetch" in path else path


@pytest.mark.posix
@pytest.mark.shows("B48", "P3", "S2")
@pytest.mark.parametrize("folders", ["there", "new"])
async def test_the_order_of_publishing(
    assets_folder: AssetsFolder, stage: DiskStage, monkeypatch: pytest.MonkeyPatch, folders: str
) -> None:
    """The bytes are flushed before the file is named, the folders above it too, and the name before success is told.

    This includes folders that already existed, since their maker may not have flushed them.
    """
    if folders == "there":
        final(assets_folder).parent.mkdir(parents=True)
    with monkeypatch.context() as patch:
        recorder = Recorder(patch, assets_folder.assets_dir.parent)
        path = await stage.publish(len(CONTENT))
    assert recorder.calls == [
        ("fsync", "part"),
        ("fsync", "assets"),
        ("fsync", "assets/models"),
        ("rename", "part", "assets/models/deep/a.bin"),
        ("fsync", "assets/models/deep"),
    ]
    assert path == final(assets_folder)
    assert path.read_bytes() == CONTENT


@pytest.mark.posix
async def test_folders_above_are_flushed_once(
    assets_folder: AssetsFolder, stage: DiskStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder's second file costs only its own flush and that of its name."""
    await stage.publish(len(CONTENT))
    second = await assets_folder.open_stage(StageKey("models/deep/b.bin", "sha256:41"), exclusive=True)
    await second.write(0, CONTENT, 0)
    with monkeypatch.context() as patch:
        recorder = Recorder(patch, assets_folder.assets_dir)
        await second.publish(len(CONTENT))
    assert [call[0] for call in recorder.calls] == ["fsync", "rename", "fsync"]


@pytest.mark.parametrize("far", [False, True], ids=["here", "on another file system"])
async def test_the_stage_is_gone_after_publishing(
    assets_folder: AssetsFolder, monkeypatch: pytest.MonkeyPatch, far: bool
) -> None:
    """Nothing of the stage remains, neither a folder nor an open file."""
    before = descriptors()
    stage = await assets_folder.open_stage(KEY, exclusive=True)
    await stage.write(0, CONTENT, 0)
    with far_away(monkeypatch) if far else nullcontext():
        await stage.publish(len(CONTENT))
    assert descriptors() == before
    assert stages(assets_folder) == []
    await stage.close()
    assert final(assets_folder).read_bytes() == CONTENT


@pytest.mark.posix
@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOTEMPTY, UnsafePath),
        (errno.EEXIST, UnsafePath),
        (errno.EISDIR, UnsafePath),
        (errno.EACCES, NotWritable),
        (errno.ENOSPC, DiskFull),
    ],
    ids=named,
)
@pytest.mark.shows("D11", "S2")
async def test_what_a_failed_rename_means(
    assets_folder: AssetsFolder,
    stage: DiskStage,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    expected: type[StorageError],
) -> None:
    """Systems report a folder in the way differently. Only another file system is a reason to copy."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", failing(number))
        patch.setattr(os, "write", failing(errno.EIO))
        with pytest.raises(expected):
            await stage.publish(len(CONTENT))
    assert not final(assets_folder).exists()


@pytest.mark.posix
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600), (0o002, 0o664)])
@pytest.mark.shows("B64", "D20", "S2", "X7")
async def test_the_file_respects_the_umask(assets_folder: AssetsFolder, mask: int, mode: int) -> None:
    """The published file has the mode of any file this user makes."""
    before = os.umask(mask)
    try:
        stage = await assets_folder.open_stage(KEY, exclusive=True)
        await stage.write(0, CONTENT, 0)
        await stage.publish(len(CONTENT))
    finally:
        os.umask(before)
    assert stat.S_IMODE(final(assets_folder).stat().st_mode) == mode


@pytest.mark.posix
@pytest.mark.parametrize("call", ["fsync", "rename"])
@pytest.mark.shows("D5", "S2")
async def test_a_failed_publishing_leaves_the_old_file(
    assets_folder: AssetsFolder, stage: DiskStage, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """If the new file cannot be made durable or named, the old one is untouched.

    The stage is kept, except after a failed flush: what is read back then may be only in memory, and proves nothing.
    """
    final(assets_folder).parent.mkdir(parents=True)
    final(assets_folder).write_bytes(b"the old file")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing(errno.EIO))
        with pytest.raises(NotWritable):
            await stage.publish(len(CONTENT))
    assert final(assets_folder).read_bytes() == b"the old file"
    await stage.close()
    again = await assets_folder.open_stage(KEY, exclusive=True)
    assert len(again.recovered.pieces) == (2 if call == "rename" else 0)
    await again.close()


@pytest.mark.posix
@pytest.mark.shows("D5")
async def test_a_failed_fsync_is_not_repeated(
    assets_folder: AssetsFolder, stage: DiskStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flush that failed may have lost data: publishing fails at the first error."""
    calls = []

    def fsync(descriptor: int) -> None:
        calls.append(descriptor)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(NotWritable):
            await stage.publish(len(CONTENT))
    assert len(calls) == 1
    assert not final(assets_folder).exists()


@pytest.mark.posix
@pytest.mark.shows("B59", "D6")
async def test_a_disk_without_fsync_gets_the_file(
    assets_folder: AssetsFolder, stage: DiskStage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """On a file system without fsync the file is still published, with a warning."""
    monkeypatch.setattr(folders, "_CANNOT_FLUSH", set())
    monkeypatch.setattr(os, "fsync", failing(errno.EINVAL))
    await stage.publish(len(CONTENT))
    assert final(assets_folder).read_bytes() == CONTENT
    assert caplog.text.count("cannot flush") == 1


@pytest.mark.posix
@pytest.mark.shows("D11")
async def test_a_folder_in_the_way_is_not_replaced(assets_folder: AssetsFolder, stage: DiskStage) -> None:
    """A destination that has become a folder is refused, full or empty, and the stage is kept."""
    final(assets_folder).mkdir(parents=True)
    with pytest.raises(UnsafePath, match="a folder is in the way"):
        await stage.publish(len(CONTENT))
    (final(assets_folder) / "precious").write_bytes(b"x")
    with pytest.raises(UnsafePath, match="a folder is in the way"):
        await stage.publish(len(CONTENT))
    assert len(stages(assets_folder)) == 1


@pytest.mark.posix
@pytest.mark.parametrize("component", ["models", "models/deep"])
@pytest.mark.shows("D12", "S5")
async def test_no_symlink_is_followed_at_publishing(
    assets_folder: AssetsFolder, stage: DiskStage, tmp_path: Path, component: str
) -> None:
    """A folder swapped for a symlink during the download does not lead the file outside."""
    outside = tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    (assets_folder.assets_dir / component).parent.mkdir(parents=True, exist_ok=True)
    (assets_folder.assets_dir / component).symlink_to(outside)
    with pytest.raises(UnsafePath, match="symlink"):
        await stage.publish(len(CONTENT))
    assert [path.name for path in outside.rglob("*")] == ["deep"]


@pytest.mark.shows("S5")
async def test_a_symlink_in_the_final_place_is_replaced(
    assets_folder: AssetsFolder, stage: DiskStage, tmp_path: Path
) -> None:
    """The rename replaces the symlink itself; its target is untouched."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    final(assets_folder).parent.mkdir(parents=True)
    final(assets_folder).symlink_to(victim)
    await stage.publish(len(CONTENT))
    assert not final(assets_folder).is_symlink()
    assert final(assets_folder).read_bytes() == CONTENT
    assert victim.read_bytes() == b"precious"


@pytest.mark.posix
@pytest.mark.shows("X6")
async def test_a_reader_keeps_the_old_file(assets_folder: AssetsFolder, stage: DiskStage) -> None:
    """A reader with the old file open reads it to its end: it is replaced, never rewritten."""
    final(assets_folder).parent.mkdir(parents=True)
    final(assets_folder).write_bytes(b"the old file")
    with final(assets_folder).open("rb") as reader:
        await stage.publish(len(CONTENT))
        assert reader.read() == b"the old file"


# -- publishing into another file system ----------------------------------------------------------------------------


@contextmanager
def far_away(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Renames from the stage fail as they do across file systems."""
    real = os.rename

    def rename(
        source: str | Path, target: str, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None
    ) -> None:
        if src_dir_fd != dst_dir_fd:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        real(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    with patch.context() as inner:
        inner.setattr(os, "rename", rename)
        yield


@pytest.mark.posix
@pytest.mark.shows("D13")
async def test_a_folder_of_another_file_system_gets_a_copy(
    assets_folder: AssetsFolder, stage: DiskStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Across file systems the file is copied next to its place, flushed there, and renamed: never seen half done."""
    flushed: list[tuple[str, int]] = []

    def fsync(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        flushed.append((Path(path).parent.name, os.fstat(descriptor).st_size))
        assert not final(assets_folder).exists() or os.path.isdir(path), "in place before it was durable"

    before = os.umask(0o027)
    try:
        with far_away(monkeypatch):
            monkeypatch.setattr(os, "fsync", fsync)
            await stage.publish(len(CONTENT))
    finally:
        os.umask(before)
    assert ("deep", len(CONTENT)) in flushed
    assert final(assets_folder).read_bytes() == CONTENT
    assert stat.S_IMODE(final(assets_folder).stat().st_mode) == 0o640
    assert os.listdir(final(assets_folder).parent) == ["a.bin"]


@pytest.mark.parametrize("name", ["x" * 240, "ü" * 120, "語" * 80], ids=["ascii", "two bytes", "three bytes"])
@pytest.mark.shows("D10")
async def test_the_longest_names_are_copied_too(
    assets_folder: AssetsFolder, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The temporary name is legal whenever the final one is: 240 bytes at most, 255 here."""
    key = StageKey(f"models/{name}", KEY.content)
    stage = await assets_folder.open_stage(key, exclusive=True)
    await stage.write(0, CONTENT, 0)
    with far_away(monkeypatch):
        path = await stage.publish(len(CONTENT))
    assert path.read_bytes() == CONTENT


@pytest.mark.posix
@pytest.mark.shows("D13")
async def test_a_copy_that_fails_leaves_nothing(
    assets_folder: AssetsFolder, stage: DiskStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the other file system is full, the partial copy is removed and the old file stays."""
    final(assets_folder).parent.mkdir(parents=True)
    final(assets_folder).write_bytes(b"the old file")
    real, calls = os.write, []

    def write(descriptor: int, data: bytes) -> int:
        calls.append(descriptor)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data[:1000])

    with far_away(monkeypatch):
        monkeypatch.setattr(os, "write", write)
        with pytest.raises(DiskFull):
            await stage.publish(len(CONTENT))
    assert {path.name: path.read_bytes() for path in final(assets_folder).parent.iterdir()} == {
        "a.bin": b"the old file"
    }


@pytest.mark.root
@pytest.mark.shows("D13")
async def test_a_real_mount_below_the_assets_folder(assets_folder: AssetsFolder, stage: DiskStage) -> None:
    """A folder of assets on its own mount gets its file, and no trace of how it came."""
    with mounted(final(assets_folder).parent, "size=1m"):
        await stage.publish(len(CONTENT))
        assert final(assets_folder).read_bytes() == CONTENT
        assert os.listdir(final(assets_folder).parent) == ["a.bin"]


@pytest.mark.root
async def test_a_real_mount_that_is_too_small(assets_folder: AssetsFolder, stage: DiskStage) -> None:
    """A mount too small for the file stays as it was."""
    with mounted(final(assets_folder).parent, "size=64k"):
        with pytest.raises(DiskFull):
            await stage.publish(len(CONTENT))
        assert os.listdir(final(assets_folder).parent) == []


@pytest.mark.root
@pytest.mark.shows("B63", "D2")
async def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    """A full disk is an error of ours; once there is space, the next process continues where this one stopped."""
    assets = tmp_path / "assets"
    with mounted(assets, "size=256k"):
        assets_folder = AssetsFolder(assets)
        await assets_folder.prepare()
        (assets / "ballast").write_bytes(bytes(100_000))
        stage = await assets_folder.open_stage(KEY, exclusive=True)

        async def write_on(stage: DiskStage, start: int) -> None:
            for at in range(start, len(CONTENT), 10_000):
                await stage.write(at, CONTENT[at : at + 10_000], 0)

        with pytest.raises(DiskFull, match="no space left"):
            await write_on(stage, 0)
        await stage.close()
        (assets / "ballast").unlink()
        again = await assets_folder.open_stage(KEY, exclusive=True)
        have = [piece.start for piece in again.recovered.pieces]
        assert have == list(range(0, len(have) * 10_000, 10_000))
        assert len(have) >= 9
        await write_on(again, len(have) * 10_000)
        await again.publish(len(CONTENT))
        assert final(assets_folder).read_bytes() == CONTENT
        assets_folder.close()


@pytest.mark.root
@pytest.mark.shows("D23")
async def test_a_stage_in_a_lower_layer(tmp_path: Path) -> None:
    """A download baked into an image continues in its containers, where the folder of a stage cannot be renamed."""
    left = left_by_dead(tmp_path / "lower" / "assets")
    with overlaid(tmp_path / "lower", tmp_path / "merged") as merged:
        assets_folder = AssetsFolder(merged / "assets")
        await assets_folder.prepare()
        with pytest.raises(OSError, match="cross-device"):
            (stages(assets_folder)[0]).rename(merged / "elsewhere")
        stage = await assets_folder.open_stage(KEY, exclusive=True)
        assert [(piece.start, piece.stop) for piece in stage.recovered.pieces] == [(0, len(CONTENT))]
        await stage.publish(len(CONTENT))
        assert final(assets_folder).read_bytes() == CONTENT
        assert stages(assets_folder) == []
        assets_folder.close()
    assert left.is_dir()


def left_by_dead(assets: Path) -> Path:
    """Leave a stage with all of the content, as a dead process would; return its folder."""

    async def leave() -> Path:
        assets_folder = AssetsFolder(assets)
        try:
            await assets_folder.prepare()
            stage = await assets_folder.open_stage(KEY, exclusive=True)
            await stage.write(0, CONTENT, 0)
            await stage.close()
            (folder,) = stages(assets_folder)
            fields = folder.name.split(".")
            return folder.rename(folder.with_name(".".join([*fields[:2], dead_owner().encode(), fields[3]])))
        finally:
            assets_folder.close()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, leave()).result()


@pytest.mark.posix
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("/dev/null", path), "link", os.mkdir])
@pytest.mark.parametrize("name", ["part", "journal"])
@pytest.mark.shows("S20")
async def test_a_stage_that_holds_what_we_have_not_made(
    assets_folder: AssetsFolder, tmp_path: Path, name: str, make: Callable[[Path], None] | str
) -> None:
    """With a pipe, a folder, or a link of either kind, nothing is written to it, and nothing waits for it."""
    folder = assets_folder.state.own / "stage" / f"{KEY.path_key}.{KEY.content_key}.{dead_owner().encode()}.00000000"
    folder.mkdir()
    victim = tmp_path / "victim"
    victim.write_bytes(b"a file of ours")
    if callable(make):
        make(folder / name)
    else:
        os.link(victim, folder / name)
    with pytest.raises(StorageError):
        await assets_folder.open_stage(KEY, exclusive=True)
    assert victim.read_bytes() == b"a file of ours"


@pytest.mark.shows("P4")
async def test_what_follows_a_torn_record_counts(assets_folder: AssetsFolder) -> None:
    """A record cut off by a crash is removed before the next one is written, since nothing behind it would be read."""
    stage = await assets_folder.open_stage(KEY, exclusive=True)
    await stage.write(0, CONTENT[:50_000], 0)
    await stage.close()
    (folder,) = stages(assets_folder)
    journal = folder / "journal"
    journal.write_bytes(journal.read_bytes() + b"torn")
    stage = await assets_folder.open_stage(KEY, exclusive=True)
    await stage.write(50_000, CONTENT[50_000:], 0)
    await stage.close()
    stage = await assets_folder.open_stage(KEY, exclusive=True)
    assert sum(piece.stop - piece.start for piece in stage.recovered.pieces) == len(CONTENT)
    await stage.close()


@pytest.mark.root
@pytest.mark.shows("D1")
async def test_a_full_disk_is_known_before_it_is_full(tmp_path: Path) -> None:
    """A length that does not fit is refused at once, with both figures."""
    with mounted(tmp_path / "assets", "size=4m"):
        assets_folder = AssetsFolder(tmp_path / "assets")
        await assets_folder.prepare()
        stage = await assets_folder.open_stage(KEY, exclusive=True)
        await stage.note_size(1 << 20)
        with pytest.raises(DiskFull, match=r"4\.0 MiB needed"):
            await stage.note_size(4 << 20)
        assert await assets_folder.free_bytes() <= 3 << 20
        await stage.close()
        assets_folder.close()


@pytest.mark.linux
async def test_whether_another_asset_can_be_begun(tmp_path: Path) -> None:
    """A small stage is made and removed: where that works nothing is raised, and nothing is left."""
    assets_folder = AssetsFolder(tmp_path)
    await assets_folder.prepare()
    before = descriptors()
    await assets_folder.check_usable()
    assert descriptors() == before
    assert [path for path in (tmp_path / ".grym-fetch").rglob("*") if "stage" in path.parent.parts[-1:]] == []
    (tmp_path / ".grym-fetch" / f"user-{os.geteuid()}" / "stage").rmdir()
    (tmp_path / ".grym-fetch" / f"user-{os.geteuid()}" / "stage").touch()
    with pytest.raises(StorageError):
        await assets_folder.check_usable()
    assets_folder.close()


@pytest.mark.root
@pytest.mark.shows("D9")
async def test_a_read_only_file_system(tmp_path: Path) -> None:
    """A read-only file system is refused with its path, before anything is fetched."""
    with mounted(tmp_path / "assets", "ro"):
        assets_folder = AssetsFolder(tmp_path / "assets")
        with pytest.raises(NotWritable, match="read-only"):
            await assets_folder.prepare()
        assets_folder.close()


# -- hashing a file that is there -----------------------------------------------------------------------------------


def test_a_file_is_hashed_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every byte is hashed, in strides; the signature of the file is from the moment it was opened."""
    monkeypatch.setattr(local_files, "HASH_BLOCK_BYTES", 64_000)
    path = tmp_path / "a.bin"
    path.write_bytes(CONTENT)
    hasher = new_hasher("sha256")
    progress: list[int] = []

    def on_progress(at: int) -> bool:
        progress.append(at)
        return True

    figures = hash_file(path, hasher, on_progress)
    assert hasher.hexdigest() == hashlib.sha256(CONTENT).hexdigest()
    assert progress == [64_000, 128_000, 192_000, 200_003]
    assert os.path.samestat(figures, path.stat())


def test_hashing_stops_when_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashing ends early when the digest is no longer wanted."""
    monkeypatch.setattr(local_files, "HASH_BLOCK_BYTES", 1000)
    path = tmp_path / "a.bin"
    path.write_bytes(CONTENT)
    hasher = new_hasher("sha256")
    hash_file(path, hasher, lambda at: at < 3000)
    assert hasher.hexdigest() == hashlib.sha256(CONTENT[:3000]).hexdigest()


def test_a_missing_file_is_our_error(tmp_path: Path) -> None:
    """An unreadable file is an error that names its path."""
    with pytest.raises(StorageError, match=r"a\.bin"):
        hash_file(tmp_path / "a.bin", new_hasher("sha256"), lambda _: True)

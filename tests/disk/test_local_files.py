"""Finding files that are already there: the right one wherever it lies, and never a wrong one."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from grym_fetch.core.digest import Checksum
from grym_fetch.core.manifest import Asset
from grym_fetch.disk import local_files as module
from grym_fetch.disk import verified
from grym_fetch.disk.local_files import RECENT_S, Found, LocalFiles, Presence, hash_file
from grym_fetch.disk.verified import FileSignature
from grym_fetch.runtime.threads import WorkerThreads
from grym_fetch.testing import seeded_bytes
from tests.support.project import OWN
from tests.support.system import descriptors

CONTENT = seeded_bytes(50_000, seed=51)
WRONG = seeded_bytes(50_000, seed=52)
ASSET = Asset("a", "https://host.example/a", "models/a.bin", checksum=Checksum.of(CONTENT), size=len(CONTENT))


class Places:
    """The folders, the local_files, and the sizes it announced before hashing."""

    def __init__(self, root: Path, threads: WorkerThreads) -> None:
        self.assets, self.external = root / "assets", root / "external"
        (self.assets / ".grym-fetch").mkdir(parents=True)
        self.external.mkdir()
        self._threads = threads
        self.hashed: list[int] = []

    def local_files(self) -> LocalFiles:
        """A fresh instance, as in a new process."""
        return LocalFiles(self.assets, self.external, self._threads)

    async def find(self, asset: Asset = ASSET, *, full: bool = False) -> Found | None:
        self.hashed.clear()
        return await self.local_files().find(asset, full=full, on_hashing=self.note)

    def note(self, count: int, total: int) -> None:
        """Note the size of a file that is being read."""
        if count == 0:
            self.hashed.append(total)

    def put(self, place: Path, content: bytes) -> Path:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        return place


@pytest.fixture
def places(tmp_path: Path) -> Iterator[Places]:
    threads = WorkerThreads("test", 2)
    yield Places(tmp_path, threads)
    threads.close()


async def test_nothing_there(places: Places) -> None:
    """Without a file, nothing is found."""
    assert await places.find() is None
    assert places.local_files().find_verified(ASSET) is None
    assert not places.local_files().look(ASSET).is_there


async def test_a_right_file_is_found_and_hashed_once(places: Places) -> None:
    """A right file is read the first time and trusted through the verified cache from then on."""
    file = places.put(places.assets / ASSET.local_path, CONTENT)
    assert places.local_files().find_verified(ASSET) is None
    assert await places.find() == Found(file, None, verified=True)
    assert places.hashed == [len(CONTENT)]
    assert await places.find() == Found(file, None, verified=True)
    assert places.hashed == []
    assert places.local_files().find_verified(ASSET) == str(file)


async def test_a_verified_file_costs_one_look(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run with nothing to do asks this of each asset: one ``stat``, no line of the log read, no `Path` made."""
    places.put(places.assets / ASSET.local_path, CONTENT)
    await places.find()
    local_files = places.local_files()
    assert local_files.find_verified(ASSET) is not None
    looks: list[object] = []
    real = os.stat

    def stat(path: object, **options: object) -> os.stat_result:
        looks.append(path)
        return real(path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", stat)
    monkeypatch.setattr(verified, "decode_line", None)
    monkeypatch.setattr(module, "Path", None)
    assert local_files.find_verified(ASSET) == str(places.assets / ASSET.local_path)
    assert looks == [str(places.assets / ASSET.local_path)]


async def test_full_reads_a_verified_file_again(places: Places) -> None:
    """A full check reads every byte, whatever the verified cache says."""
    places.put(places.assets / ASSET.local_path, CONTENT)
    await places.find()
    await places.find(full=True)
    assert places.hashed == [len(CONTENT)]


@pytest.mark.shows("C11", "S1")
async def test_full_finds_what_the_verified_cache_hides(places: Places) -> None:
    """A wrong file with a forged entry passes unread, but is found out once read, and from then on for everybody."""
    file = places.put(places.assets / ASSET.local_path, WRONG)
    assert ASSET.checksum is not None
    places.local_files().verified_cache.record(file, ASSET.checksum, FileSignature.of(file.stat()))
    assert await places.find() == Found(file, None, verified=True)
    found = await places.find(full=True)
    assert found is not None
    assert found.error is not None
    assert "checksum mismatch" in found.error
    later = await places.find()
    assert later is not None
    assert not later.verified


@pytest.mark.shows("C12")
async def test_a_changed_file_is_read_again(places: Places) -> None:
    """A file that was right and has changed since is not accepted because of its entry."""
    file = places.put(places.assets / ASSET.local_path, CONTENT)
    await places.find()
    file.write_bytes(WRONG)
    assert places.local_files().find_verified(ASSET) is None
    found = await places.find()
    assert found is not None
    assert found.error is not None


@pytest.mark.shows("C12", "S20")
async def test_what_was_written_to_a_moment_ago_is_read_again(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write within the same clock tick leaves the signature unchanged, so what was read then is not remembered."""
    file = places.put(places.assets / ASSET.local_path, CONTENT)
    with monkeypatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: file.stat().st_ctime_ns)
        assert await places.find() == Found(file, None, verified=True)
    assert await places.find() == Found(file, None, verified=True)
    assert places.hashed == [len(CONTENT)]


async def test_the_assets_folder_comes_first(places: Places) -> None:
    """Of two right files the one in the assets folder is taken."""
    file = places.put(places.assets / ASSET.local_path, CONTENT)
    places.put(places.external / ASSET.local_path, CONTENT)
    found = await places.find()
    assert found is not None
    assert found.path == file


async def test_a_right_file_elsewhere_beats_a_wrong_one_here(places: Places) -> None:
    """A wrong file in the first place does not hide a right one in the second."""
    places.put(places.assets / ASSET.local_path, WRONG)
    right = places.put(places.external / ASSET.local_path, CONTENT)
    assert await places.find() == Found(right, None, verified=True)


async def test_of_wrong_files_the_first_is_told(places: Places) -> None:
    """If all are wrong, the error names the one in the assets folder."""
    wrong = places.put(places.assets / ASSET.local_path, WRONG[:-1])
    places.put(places.external / ASSET.local_path, WRONG)
    found = await places.find()
    assert found == Found(wrong, "size mismatch: expected 50000 bytes, found 49999", verified=False)


@pytest.mark.shows("C12", "B11")
async def test_a_wrong_length_is_not_read(places: Places) -> None:
    """A file of the wrong length is rejected without being read."""
    places.put(places.assets / ASSET.local_path, CONTENT + b"x")
    await places.find()
    assert places.hashed == []


@pytest.mark.posix
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "fifo"])
async def test_what_is_no_file_is_never_opened(places: Places, make: Callable[[Path], None]) -> None:
    """A folder or a pipe in the file's place is wrong, and is not waited for."""
    (places.assets / "models").mkdir()
    make(places.assets / ASSET.local_path)
    found = await places.find()
    assert found is not None
    assert found.error == "something that is not a file is in its place"


async def test_without_a_size_the_checksum_decides(places: Places) -> None:
    """A file of unknown length is right if its checksum is."""
    file = places.put(places.assets / ASSET.local_path, CONTENT)
    assert await places.find(replace(ASSET, size=None)) == Found(file, None, verified=True)


async def test_without_a_checksum_nothing_is_verified(places: Places) -> None:
    """A file without a checksum is present, but not verified."""
    file = places.put(places.assets / ASSET.local_path, CONTENT)
    unpinned = replace(ASSET, checksum=None)
    assert await places.find(unpinned) == Found(file, None, verified=False)
    assert places.local_files().find_verified(unpinned) is None


def test_a_plan_asks_for_the_length_only(places: Places) -> None:
    """For a plan, a file of the right length is present; one of another length is not."""
    places.put(places.assets / ASSET.local_path, WRONG)
    assert places.local_files().look(ASSET).is_there
    assert not places.local_files().look(replace(ASSET, size=1)).is_there
    assert places.local_files().look(replace(ASSET, size=None)).is_there


# -- files that were moved out of the repository ----------------------------------------------------------------------


def record_moves(places: Places, *entries: object) -> None:
    (places.external / "asset-manifest.json").write_text(json.dumps({"assets": entries}))


async def test_a_moved_file_is_found_by_its_checksum(places: Places) -> None:
    """A file moved to another name is found there if its bytes are right."""
    moved = places.put(places.external / "store/0001.bin", CONTENT)
    record_moves(places, {"checksum": str(ASSET.checksum), "storagePath": "store/0001.bin"})
    assert await places.find() == Found(moved, None, verified=True)
    moved.write_bytes(WRONG)
    found = await places.find()
    assert found is not None
    assert found.error is not None


@pytest.mark.parametrize("path", ["../secret.bin", "/etc/passwd", "a/../../secret.bin"])
@pytest.mark.shows("S5")
async def test_a_record_leads_nowhere_else(places: Places, path: str) -> None:
    """A record whose path leads out of the external folder finds nothing, right or wrong."""
    places.put(places.external.parent / "secret.bin", CONTENT)
    record_moves(places, {"checksum": str(ASSET.checksum), "storagePath": path})
    assert await places.find() is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"assets": 5}',
        '{"assets": [5]}',
        '{"assets": [{}]}',
        '{"assets": [{"checksum": 5, "storagePath": "a"}]}',
        '{"assets": [{"checksum": null, "storagePath": "a"}]}',
        '{"assets": [{"checksum": "%s", "storagePath": 5}]}' % ("0" * 64),
        '{"assets": [{"checksum": "%s", "storagePath": null}]}' % ("0" * 64),
        '{"assets": ' + "[" * 100_000,
    ],
    ids=lambda text: text[:50],
)
@pytest.mark.shows("S11")
async def test_an_unusable_record_finds_nothing(places: Places, text: str) -> None:
    """Whatever is in the record of moves, the worst that happens is that nothing is found through it."""
    (places.external / "asset-manifest.json").write_text(text)
    file = places.put(places.assets / ASSET.local_path, CONTENT)
    assert await places.find() == Found(file, None, verified=True)


# -- hashing --------------------------------------------------------------------------------------------------------


async def test_a_file_changed_while_it_was_hashed_is_not_verified(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signature is taken before the bytes are read: what changes meanwhile is read again next time."""
    file = places.put(places.assets / ASSET.local_path, CONTENT)
    real = hash_file

    def hashing(*args: object) -> os.stat_result:
        figures = real(*args)  # type: ignore[arg-type]
        file.write_bytes(WRONG)
        return figures

    monkeypatch.setattr(module, "hash_file", hashing)
    await places.find()
    assert places.local_files().find_verified(ASSET) is None


async def test_cancelled_hashing_ends_soon(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancelled read of a large file ends after one stride, not at the end of the file."""
    file = places.put(places.assets / ASSET.local_path, CONTENT)
    begun, cancelled = threading.Event(), threading.Event()
    told: list[bool] = []

    def slow(path: Path, _: object, on_progress: Callable[[int], bool]) -> os.stat_result:
        told.append(on_progress(1))
        begun.set()
        assert cancelled.wait(60)
        told.append(on_progress(2))
        return path.stat()

    monkeypatch.setattr(module, "hash_file", slow)
    checksum = Checksum.of(CONTENT)
    hashing = asyncio.ensure_future(places.local_files().digest(file, checksum))
    assert await asyncio.to_thread(begun.wait, 60)
    hashing.cancel()
    for _ in range(50):
        await asyncio.sleep(0)
    assert not hashing.done()
    cancelled.set()
    with pytest.raises(asyncio.CancelledError):
        await hashing
    assert told == [True, False]


async def test_a_digest_comes_with_the_look_of_the_file(places: Places) -> None:
    """The digest is that of the bytes, by the algorithm of the checksum."""
    file = places.put(places.assets / "a.bin", CONTENT)
    for algorithm in ("sha256", "sha512", "blake2b"):
        checksum = Checksum.of(CONTENT, algorithm)
        assert await places.local_files().digest(file, checksum) == (checksum.hexdigest, FileSignature.of(file.stat()))


# -- an entry outlives a power cut ----------------------------------------------------------------------------------


@pytest.mark.posix
@pytest.mark.shows("P3", "B48")
@pytest.mark.parametrize(("age", "flushed"), [(0.0, ["a.bin", "models"]), (2 * RECENT_S, [])], ids=["new", "old"])
async def test_what_was_put_there_lately_is_flushed_before_its_entry(
    places: Places, monkeypatch: pytest.MonkeyPatch, age: float, flushed: list[str]
) -> None:
    """Another program may have put the file there without flushing it: an entry must not outlive the bytes."""
    places.put(places.assets / ASSET.local_path, CONTENT)
    calls: list[str] = []

    def fsync(descriptor: int) -> None:
        assert not (places.assets / OWN / "verified.log").exists(), "recorded before it was flushed"
        calls.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))

    monkeypatch.setattr(os, "fsync", fsync)
    now = time.time() + age
    monkeypatch.setattr(time, "time", lambda: now)
    found = await places.find()
    assert found is not None
    assert found.verified
    assert calls == flushed
    assert places.local_files().find_verified(ASSET) is not None


@pytest.mark.posix
async def test_what_cannot_be_flushed_gets_no_entry(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """A right file that the disk fails to flush is accepted now and read again next time."""
    file = places.put(places.assets / ASSET.local_path, CONTENT)

    def fsync(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    before = descriptors()
    monkeypatch.setattr(os, "fsync", fsync)
    assert await places.find() == Found(file, None, verified=True)
    assert places.local_files().find_verified(ASSET) is None
    assert descriptors() == before


async def test_a_file_elsewhere_is_read_once_without_an_assets_folder(places: Places) -> None:
    """If all files are in the external folder, the verified cache is in the user's own state folder."""
    file = places.put(places.external / ASSET.local_path, CONTENT)
    shutil.rmtree(places.assets)
    await places.find()
    assert places.hashed == [len(CONTENT)]
    await places.find()
    assert places.hashed == []
    assert places.local_files().find_verified(ASSET) == str(file)
    assert not places.assets.exists()


async def test_an_unread_file_that_comes_first_is_not_passed_over(places: Places) -> None:
    """Looking and reading agree: a verified copy elsewhere does not win over a file here that may be right."""
    places.put(places.external / ASSET.local_path, CONTENT)
    await places.find()
    here = places.put(places.assets / ASSET.local_path, CONTENT)
    assert places.local_files().find_verified(ASSET) is None
    assert await places.find() == Found(here, None, verified=True)
    assert places.local_files().find_verified(ASSET) == str(here)
    here.write_bytes(WRONG)
    assert places.local_files().find_verified(ASSET) is None
    found = await places.find()
    assert found is not None
    assert places.local_files().find_verified(ASSET) == str(found.path) == str(places.external / ASSET.local_path)
    here.write_bytes(WRONG + b"longer")
    assert places.local_files().find_verified(ASSET) == str(found.path)


def test_what_is_known_to_be_wrong_is_not_there(places: Places) -> None:
    """A file of the right size whose known digest is another one is not the asset."""
    place = places.put(places.assets / ASSET.local_path, WRONG)
    files = places.local_files()
    assert files.look(ASSET).is_there
    assert files.look(ASSET).presence is not Presence.OTHER
    files.verified_cache.record(place, Checksum.of(WRONG), FileSignature.of(place.stat()))
    assert not files.look(ASSET).is_there
    assert files.look(ASSET).presence is Presence.OTHER


async def test_whoever_waits_is_told_how_far_the_reading_is(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress is reported in the event loop from time to time."""
    monkeypatch.setattr(module, "HASH_BLOCK_BYTES", 1000)
    monkeypatch.setattr(module, "TOLD_EVERY_BYTES", 20_000)
    place = places.put(places.assets / ASSET.local_path, CONTENT)
    told: list[int] = []
    await places.local_files().digest(place, Checksum.of(b""), on_read=told.append)
    await asyncio.sleep(0)
    assert told == [20_000, 40_000]


def many(count: int) -> list[Asset]:
    return [replace(ASSET, id=f"{n}", local_path=f"{n % 2}/{n}") for n in range(count)]


@pytest.mark.shows("C12")
def test_many_are_looked_at_as_each_of_them(places: Places) -> None:
    """With whatever is in their places; one that was verified and has changed since is not taken for verified."""
    assets = many(9)
    changed = places.put(places.assets / assets[8].local_path, CONTENT)
    places.local_files().verified_cache.record(changed, Checksum.of(CONTENT), FileSignature.of(changed.stat()))
    changed.write_bytes(WRONG)
    for n, content in enumerate([CONTENT, WRONG, b"", CONTENT]):
        place = places.put(places.assets / assets[n].local_path, content)
        if n < 2:
            signature = FileSignature.of(place.stat())
            places.local_files().verified_cache.record(place, Checksum.of(content), signature)
    places.put(places.external / assets[5].local_path, CONTENT)
    (places.assets / assets[6].local_path).mkdir()
    files = places.local_files()
    looks = list(files.look_at(assets))
    assert looks == [files.look(asset) for asset in assets]
    found = [look.presence for look in looks]
    verified, unread, other, nothing = Presence.VERIFIED, Presence.UNREAD, Presence.OTHER, Presence.NOTHING
    assert found == [verified, other, other, unread, nothing, unread, other, nothing, unread]


@pytest.mark.posix
def test_whatever_is_in_a_place_occupies_it(places: Places) -> None:
    """A folder, or a symlink to nothing; also in the external folder, and whichever came first in a folder."""
    assets = many(5)
    places.put(places.assets / assets[1].local_path, WRONG)
    (places.assets / assets[2].local_path).parent.mkdir()
    (places.assets / assets[2].local_path).symlink_to("nowhere")
    (places.external / assets[3].local_path).mkdir(parents=True)
    assert list(places.local_files().are_occupied(assets)) == [False, True, True, True, False]


async def test_each_of_many_verified_files_costs_one_look(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """So does one of which nothing is known. No line of the log is read, and no `Path` made."""
    places.put(places.assets / ASSET.local_path, CONTENT)
    await places.find()
    places.external.rmdir()
    local_files = places.local_files()
    asked: list[str] = []
    stat = os.stat

    def noted(place: str, **options: object) -> os.stat_result:
        asked.append(place)
        return stat(place, **options)  # type: ignore[arg-type]

    assert [look.presence for look in local_files.look_at([ASSET])] == [Presence.VERIFIED]
    monkeypatch.setattr(os, "stat", noted)
    monkeypatch.setattr(verified, "decode_line", None)
    monkeypatch.setattr(module, "Path", None)
    unknown = replace(ASSET, local_path="unknown")
    looks = list(local_files.look_at([ASSET, unknown] * 10))
    assert {look.path for look in looks} == {str(places.assets / ASSET.local_path), None}
    assert asked.count(str(places.assets / ASSET.local_path)) == asked.count(str(places.assets / "unknown")) == 10


def test_a_folder_that_is_not_there_answers_for_all_its_files(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """60,000 assets that were never fetched cost no look each."""
    asked: list[str] = []
    stat = os.stat

    def noted(place: str, *, dir_fd: int | None = None, follow_symlinks: bool = True) -> os.stat_result:
        asked.append(place)
        return stat(place, dir_fd=dir_fd, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(os, "stat", noted)
    assets = many(1000)
    places.external.rmdir()
    assert {look.presence for look in places.local_files().look_at(assets)} == {Presence.NOTHING}
    assert len(asked) < 20

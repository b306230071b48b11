"""What a disk can do to a run: full, broken, slow, removed, or with something in the way; one test per fault.

The real manager, engine and disk on one thread (`tests.support.small_world`), so that a fault comes at an exact step.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from grym_fetch import GrymFetchError, StorageError, SyncFailed
from grym_fetch.core.events import ProgressMade
from grym_fetch.core.http import Asked, Partial, ResponseHead, judge
from grym_fetch.core.journal import MAX_PIECE_BYTES, JournalEncoder, Piece, piece_digest, read_journal
from grym_fetch.core.progress import Meter
from grym_fetch.core.ranges import ByteRange, IntervalSet, range_header
from grym_fetch.core.segments import UNBOUNDED, Segments, SegmentSizes
from grym_fetch.disk import folders
from grym_fetch.disk.assets_folder import AssetsFolder
from grym_fetch.disk.stage import StageKey
from grym_fetch.errors import DiskFull, NotWritable, UnsafePath
from grym_fetch.manifest_files.project import load_manifest
from grym_fetch.testing import AssetServer, seeded_bytes, serve_in_thread
from tests.end_to_end.command import environment
from tests.support.fakes import read_proved
from tests.support.invariants import Recorder, Rules, Run
from tests.support.power_cut import no_flushing
from tests.support.project import OWN, Project
from tests.support.small_world import CHUNK, TINY, SmallWorld
from tests.support.sweeps import typical
from tests.support.system import dead_owner, descriptors, folder_descriptor
from tests.support.system_calls import failing

SIZE = 60_007
CONTENT = seeded_bytes(SIZE, seed=17)
URL = "https://origin.example/a"
PATH = "assets/models/a.bin"


@pytest.fixture
def world() -> Iterator[SmallWorld]:
    """An origin with one file, for managers to use."""
    made = SmallWorld({URL: CONTENT})
    with no_flushing():
        yield made


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with that file."""
    made = Project(tmp_path / "project")
    made.add("a", [URL], CONTENT)
    return made


async def failure(world: SmallWorld, project: Project) -> GrymFetchError:
    """Run, check the run against the rules, and return why the asset failed."""
    return (await checked(world, project)).failures["a"]


async def finish(world: SmallWorld, project: Project) -> None:
    """Run, check the run against the rules, and check the file."""
    assert (await checked(world, project)).failures == {}
    assert (project.root / PATH).read_bytes() == CONTENT
    assert project.staged() == []


async def checked(world: SmallWorld, project: Project) -> Run:
    """Run, and check the run against the rules."""
    rules, failures = Rules(project), {}
    async with world.manager(project) as manager:
        heard = Recorder(manager)
        try:
            await manager.sync()
        except SyncFailed as error:
            failures = dict(error.failures)
    run = Run(heard, failures)
    rules.check(run)
    return run


def once_sent(world: SmallWorld, count: int, act: Callable[[], object]) -> None:
    """Act once, as soon as this many bytes were sent."""
    gate, acted = world.gate, False

    async def watch(step: str) -> None:
        nonlocal acted
        if world.sent >= count and not acted:
            acted = True
            act()
        await gate(step)

    world.gate = watch


# -- space ----------------------------------------------------------------------------------------------------------


def leave_free(patch: pytest.MonkeyPatch, count: int) -> None:
    """Only this many bytes are free beside our reserve."""
    patch.setattr(folders, "free_bytes", lambda _: count + folders.RESERVE_BYTES)


@pytest.mark.shows("D1")
async def test_all_assets_together_must_fit(
    world: SmallWorld, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two files that fit only one at a time are refused before the first request, with the space needed and free."""
    world.contents = {URL: CONTENT, f"{URL}2": CONTENT[:50_000]}
    project.add("b", [f"{URL}2"], CONTENT[:50_000])
    leave_free(monkeypatch, SIZE + 49_999)
    with pytest.raises(SyncFailed) as caught:
        await world.sync(project)
    for error in caught.value.failures.values():
        assert isinstance(error, DiskFull)
        assert f"{SIZE + 50_000:,} bytes needed, {SIZE + 49_999:,} free" in str(error)
    assert caught.value.failures.keys() == {"a", "b"}
    assert world.requests == []
    assert not project.assets.exists()
    leave_free(monkeypatch, SIZE + 50_000)
    await world.sync(project)


@pytest.mark.shows("D1")
async def test_one_asset_must_fit(world: SmallWorld, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even a single file requested by itself is refused before the first request, and leaves nothing."""
    leave_free(monkeypatch, SIZE - 1)
    async with world.manager(project) as manager:
        with pytest.raises(DiskFull, match=f"{SIZE:,} bytes needed, {SIZE - 1:,} free"):
            await manager.get_asset_path("a")
    assert world.requests == []
    assert project.staged() == []


@pytest.mark.shows("S12", "D1")
@pytest.mark.parametrize("others", [0, 1], ids=["alone", "with an honest mirror"])
async def test_a_mirror_that_claims_more_than_fits(
    world: SmallWorld, project: Project, monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    """If the manifest has no size, the disk is called full only if no other mirror says that the file fits."""
    world.contents = {URL: CONTENT * 3, f"{URL}2": CONTENT}
    project.add("a", [URL, f"{URL}2"][: 1 + others], CONTENT, size=None)
    leave_free(monkeypatch, SIZE + 16 * 1024)
    if others:
        await finish(world, project)
    else:
        assert isinstance(await failure(world, project), DiskFull)
        leave_free(monkeypatch, SIZE * 4)
        world.contents = {URL: CONTENT}
        await finish(world, project)  # nothing was learned from the claim


@pytest.mark.shows("D1", "B63")
async def test_what_is_there_in_part_needs_no_space_again(
    world: SmallWorld, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes left by an earlier run count: only the rest must fit."""
    once_sent(world, SIZE // 2, lambda: monkeypatch.setattr(os, "pwrite", failing(errno.ENOSPC)))
    await failure(world, project)
    monkeypatch.undo()
    staged = sum(os.stat(stage / "part").st_blocks * 512 for stage in project.staged())
    assert staged > 0
    leave_free(monkeypatch, SIZE - staged)
    await finish(world, project)


@pytest.mark.parametrize(
    ("call", "number", "expected"),
    [
        pytest.param("pwrite", errno.ENOSPC, DiskFull, marks=pytest.mark.shows("D2"), id="content, no space"),
        pytest.param("write", errno.ENOSPC, DiskFull, marks=pytest.mark.shows("D3"), id="journal, no space"),
        pytest.param("pwrite", errno.EDQUOT, DiskFull, marks=pytest.mark.shows("D4"), id="content, quota"),
        pytest.param("write", errno.EDQUOT, DiskFull, marks=pytest.mark.shows("D4"), id="journal, quota"),
        pytest.param("pwrite", errno.EFBIG, DiskFull, marks=pytest.mark.shows("D4"), id="content, too large"),
        pytest.param("pwrite", errno.EIO, NotWritable, marks=pytest.mark.shows("D5"), id="content, broken"),
        pytest.param("pwrite", errno.EROFS, NotWritable, marks=pytest.mark.shows("D9"), id="content, read-only"),
    ],
)
async def test_a_disk_that_fails_on_the_way(
    world: SmallWorld, project: Project, monkeypatch: pytest.MonkeyPatch, call: str, number: int, expected: type
) -> None:
    """The failure is final at once; what has arrived is kept, and is not fetched again once the disk is good."""
    real = getattr(os, call)
    calls = 0

    def fail_from_the_third(descriptor: int, data: bytes, *at: int) -> int:
        nonlocal calls
        if not os.readlink(f"/proc/self/fd/{descriptor}").endswith(("/part", "/journal")):
            return int(real(descriptor, data, *at))
        calls += 1
        if calls > 3:
            raise OSError(number, os.strerror(number))
        return int(real(descriptor, data, *at))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail_from_the_third)
        error = await failure(world, project)
    assert isinstance(error, expected)
    assert PATH in str(error), "it does not say which file"
    assert len(world.requests) <= 5, "it has gone on"
    kept = 3 * TINY.piece if call == "pwrite" else TINY.piece
    before = world.sent
    await finish(world, project)
    assert world.sent - before <= SIZE - kept


@pytest.mark.shows("D5")
async def test_nothing_is_used_after_a_failed_flush(
    world: SmallWorld, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes that a failed flush may have lost are fetched again, not trusted because memory still shows them."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: None if stat.S_ISDIR(os.fstat(fd).st_mode) else failing(errno.EIO)())
        assert isinstance(await failure(world, project), NotWritable)
    assert not (project.root / PATH).exists()
    before = world.sent
    await finish(world, project)
    assert world.sent - before == SIZE


@pytest.mark.shows("D5")
async def test_what_cannot_be_read_back_fails_the_asset(
    world: SmallWorld, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes left by an earlier run are proved by reading them. If that fails, nobody waits, and they stay."""
    with monkeypatch.context() as patch:
        once_sent(world, SIZE // 2, lambda: patch.setattr(os, "pwrite", failing(errno.EDQUOT)))
        assert isinstance(await failure(world, project), DiskFull)
    with monkeypatch.context() as patch:
        patch.setattr(os, "preadv", failing(errno.EIO))
        error = await failure(world, project)
    assert isinstance(error, NotWritable)
    assert "input/output error" in str(error)
    assert "/part)" in str(error), "it does not say which file"
    before = world.sent
    await finish(world, project)
    assert world.sent - before < SIZE


@pytest.mark.shows("D5")
async def test_a_close_that_fails_harms_nothing(
    world: SmallWorld, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A published file was flushed before: an error of close comes too late to matter, and leaks no descriptor."""
    real = os.close

    def close(descriptor: int) -> None:
        name = os.readlink(f"/proc/self/fd/{descriptor}")
        real(descriptor)
        if name.endswith("/a.bin") or "/journal" in name:
            failed.append(name)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    before, failed = descriptors(), list[str]()
    with monkeypatch.context() as patch:
        patch.setattr(os, "close", close)
        await finish(world, project)
    assert len(failed) == 2
    assert descriptors() == before


@pytest.mark.shows("D8", "B47")
async def test_the_right_length_proves_nothing(world: SmallWorld, project: Project) -> None:
    """A file of the right length that is full of holes is fetched, not taken for the real one."""
    target = project.root / PATH
    target.parent.mkdir(parents=True)
    with target.open("wb") as file:
        file.truncate(SIZE)
    await finish(world, project)


# -- what is in the way ---------------------------------------------------------------------------------------------


@pytest.mark.shows("D9")
def test_a_folder_that_is_not_ours(project: Project) -> None:
    """A user without write permission in the assets folder is told before anything is fetched, with exit code 4."""
    # Root may write everywhere, unless it lacks this capability (capabilities(7)).
    unprivileged = ["setpriv", "--bounding-set=-dac_override"] if os.geteuid() == 0 else []
    with serve_in_thread() as server:
        project.add("a", [server.add("/a", CONTENT).url], CONTENT)
        project.assets.mkdir(mode=0o555)
        done = subprocess.run(
            [*unprivileged, sys.executable, "-m", "grym_fetch", "sync"],
            cwd=project.root,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 4, done.stderr
        assert "permission denied" in done.stderr
        assert str(project.assets) in done.stderr
        assert not server.stats.requests


@pytest.mark.shows("D10")
async def test_a_path_that_is_too_long(world: SmallWorld, project: Project, tmp_path: Path) -> None:
    """An assets folder deeper than the system allows is refused before anything is fetched."""
    deep = tmp_path.joinpath(*["x" * 250] * 17)
    manager = world.manager(project, assets_dir=deep)
    async with manager:
        with pytest.raises(SyncFailed) as caught:
            await manager.sync()
    assert isinstance(caught.value.failures["a"], UnsafePath)
    assert "too long" in str(caught.value)
    assert world.requests == []


def a_folder(place: Path) -> None:
    """A folder with something in it."""
    (place / "inside").mkdir(parents=True)


def a_socket(place: Path) -> None:
    """Bound by its short name: an address has no room for a long one."""
    here = folder_descriptor(place.parent)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(f"/proc/self/fd/{here}/{place.name}")
    os.close(here)


@pytest.mark.shows("D11")
@pytest.mark.parametrize("make", [a_folder, os.mkfifo, a_socket])
async def test_something_else_in_its_place(world: SmallWorld, project: Project, make: Callable[[Path], object]) -> None:
    """Anything that is not a file is neither replaced nor opened, and nothing is fetched."""
    target = project.root / PATH
    target.parent.mkdir(parents=True)
    make(target)
    before = target.lstat()
    async with asyncio.timeout(60):
        assert isinstance(await failure(world, project), UnsafePath)
    assert os.path.samestat(target.lstat(), before)
    assert world.requests == []


@pytest.mark.shows("D12", "S5")
@pytest.mark.parametrize("swapped", ["models", f"{OWN}/stage"])
async def test_a_symlink_put_there_during_the_run(
    world: SmallWorld, project: Project, tmp_path: Path, swapped: str
) -> None:
    """A folder that becomes a symlink while bytes arrive does not lead anything out of the assets folder."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (project.assets / "models").mkdir(parents=True)
    aside = project.assets / ".grym-fetch" / "aside"

    def swap() -> None:
        (project.assets / swapped).rename(aside)
        (project.assets / swapped).symlink_to(outside)

    once_sent(world, SIZE // 2, swap)
    if swapped == "models":
        assert isinstance(await failure(world, project), StorageError)
    else:
        await world.sync(project)  # the stage is where it was opened, wherever its path leads by now
        assert (project.root / PATH).read_bytes() == CONTENT
    assert list(outside.iterdir()) == []
    assert not (aside / "a.bin").exists()


@pytest.mark.shows("D12", "S1")
async def test_another_part_put_in_the_place_of_ours(world: SmallWorld, project: Project) -> None:
    """The file renamed into place is the verified one, not another one that has taken its name meanwhile."""

    def swap() -> None:
        (stage,) = project.staged()
        (stage / "part").rename(stage / "verified")
        (stage / "part").write_bytes(bytes(SIZE))

    once_sent(world, SIZE, swap)
    with pytest.raises(SyncFailed) as caught:  # the journal describes the lost part: not checked against every rule
        await world.sync(project)
    assert isinstance(caught.value.failures["a"], StorageError)
    assert not (project.root / PATH).exists()
    await finish(world, project)


@pytest.mark.shows("D15", "B63")
@pytest.mark.parametrize("removed", ["assets", "assets/.grym-fetch", f"assets/{OWN}/stage"])
async def test_folders_removed_during_the_run(world: SmallWorld, project: Project, removed: str) -> None:
    """If our folders are removed, an error soon says so; the rest is not fetched in vain."""
    once_sent(world, SIZE // 3, lambda: shutil.rmtree(project.root / removed))
    error = await failure(world, project)
    assert isinstance(error, StorageError)
    assert "removed" in str(error)
    assert world.sent < SIZE - CHUNK
    assert not (project.root / PATH).exists()
    await finish(world, project)


@pytest.mark.shows("D15")
async def test_the_place_removed_during_the_run(world: SmallWorld, project: Project) -> None:
    """The folder that the file belongs in is made again if it vanishes: nothing of ours was in it."""
    (project.assets / "models").mkdir(parents=True)
    once_sent(world, SIZE // 2, (project.assets / "models").rmdir)
    await finish(world, project)


# -- many, huge, slow -----------------------------------------------------------------------------------------------


@pytest.mark.shows("D17")
@pytest.mark.sweep
async def test_descriptors_do_not_grow_with_the_number_of_assets(tmp_path: Path) -> None:
    """Twenty times as many small files never need a single descriptor more."""

    async def most_open(count: int) -> int:
        contents = {f"{URL}{n}": seeded_bytes(200, seed=n) for n in range(count)}
        project = Project(tmp_path / str(count))
        for n, (url, content) in enumerate(contents.items()):
            project.add(f"a{n}", [url], content)
        world = SmallWorld(contents)
        most = 0

        async def look(_: str) -> None:
            nonlocal most
            most = max(most, descriptors())
            await asyncio.sleep(0)

        world.gate = look
        with no_flushing():
            paths = await world.sync(project)
        assert len(paths) == count
        return most

    few, many = await most_open(15), await most_open(300)
    assert many <= few


@pytest.mark.shows("D16")
@pytest.mark.parametrize("limit", typical([48, 100], 100))
def test_few_descriptors_mean_fewer_connections(project: Project, limit: int) -> None:
    """A process that may open few files uses fewer connections, says so, and does not fail."""
    with serve_in_thread() as server:
        for n in range(40):
            content = seeded_bytes(40_000, seed=n)
            project.add(f"a{n}", [server.add(f"/{n}", content).url], content)
        project.add("a", [server.add("/a", CONTENT).url], CONTENT)
        done = subprocess.run(
            ["sh", "-c", f'ulimit -n {limit}; exec "$0" -m grym_fetch sync --parallel 24', sys.executable],
            cwd=project.root,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert f"may open {limit} files" in done.stderr
        assert server.stats.most_open_connections <= limit // 10
        assert len(list(project.assets.glob("models/*"))) == 41


@pytest.mark.shows("D22")
async def test_the_time_of_the_file_is_ours(world: SmallWorld, project: Project) -> None:
    """The file's time is when it arrived here, whatever Last-Modified the server sends."""
    began = time.time()
    await finish(world, project)
    assert world.last_modified.endswith("2015 07:28:00 GMT")
    assert (project.root / PATH).stat().st_mtime >= began - 1


@pytest.mark.shows("D19", "S4")
async def test_a_disk_that_stands_still_stops_the_network(world: SmallWorld, project: Project) -> None:
    """While nothing can be written, each connection receives what it has room for, one piece, and not a byte more."""
    moves, stands = asyncio.Event(), asyncio.Event()

    async def stand_still(step: str) -> None:
        if step == "thread" and world.sent:
            stands.set()
            await moves.wait()
        await asyncio.sleep(0)

    world.gate = stand_still
    running = asyncio.ensure_future(world.sync(project, parallel=2))
    # A real thread reads the manifest, which takes long on a busy machine.
    await stands.wait()
    for _ in range(2000):
        await asyncio.sleep(0)
    sent = world.sent
    moves.set()
    await running
    assert 0 < sent <= 2 * 2 * TINY.piece, "more than a piece at the disk and a piece in hand, for each connection"
    assert (project.root / PATH).read_bytes() == CONTENT


@pytest.mark.shows("D19", "N12")
async def test_waiting_for_the_disk_is_no_stall(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that takes longer for one write than a server may be silent costs no connection: we were not listening."""
    loop = asyncio.get_running_loop()
    real, time, writes, late = os.pwrite, loop.time, 0, 0.0

    def turns(count: int) -> None:
        for _ in range(count):
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(60)

    def pwrite(descriptor: int, data: bytes, at: int) -> int:
        nonlocal writes, late
        writes += 1
        if writes == 3:  # the disk is slow: who reads stops doing so, then two minutes go by
            turns(100)
            late = 120.0
            turns(3)
        return real(descriptor, data, at)

    monkeypatch.setattr(loop, "time", lambda: time() + late)

    monkeypatch.setattr(os, "pwrite", pwrite)
    content = seeded_bytes(45 * 65_536, seed=4)
    length = len(content)
    async with AssetServer() as server:
        path = project.add("a", [server.add("/a", content).url], content)
        sizes = SegmentSizes(piece=65_536, first=length, smallest=65_536, largest=length, window=length)
        async with project.manager(parallel=1, stall_timeout=60.0, sizes=sizes) as manager:
            recorder = Recorder(manager)
            await manager.sync()
        assert path.read_bytes() == content
        assert recorder.of("retry_scheduled") == []
        assert len(server.stats.requests) == 1


# -- sizes that 32 bits, or a float, do not hold --------------------------------------------------------------------


HUGE = [2**31, 2**32, 2**32 + 1, 2**53, 2**53 + 1, 2**61 + 1]


@pytest.mark.shows("D18")
@pytest.mark.parametrize("size", HUGE)
def test_sizes_are_whole_numbers(tmp_path: Path, size: int) -> None:
    """From the manifest to the request, the answer, the journal and the events, not one byte is rounded off."""
    project = Project(tmp_path / "project")
    project.add("a", [URL], CONTENT, size=size)
    asset = load_manifest(project.manifest).manifest.get("a")
    assert asset.size == size
    wanted = ByteRange(size - 7, size)
    assert range_header(wanted) == f"bytes={size - 7}-{size - 1}"
    fields = {"content-range": [f"bytes {size - 7}-{size - 1}/{size}"], "content-length": ["7"]}
    verdict = judge(Asked(wanted, total=size), ResponseHead(206, fields))
    assert isinstance(verdict, Partial)
    assert (verdict.range, verdict.total) == (wanted, size)
    encoder = JournalEncoder()
    piece = Piece(size - 7, size, piece_digest(b"7 bytes"), 0)
    state = read_journal(encoder.header("x") + encoder.size(size) + encoder.piece(piece))
    assert (state.size, list(state.pieces)) == (size, [piece])
    segments = Segments(size, IntervalSet([ByteRange(0, size - 7)]), TINY)
    (segment,) = [segments.promise(length=TINY.first, horizon=UNBOUNDED)]
    assert segment is not None
    assert (segment.start, segment.stop, segments.on_hand_bytes) == (size - 7, size, size - 7)
    meter = Meter(now=0.0, total=size, on_hand=0)
    meter.advance(1.0, on_hand=size - 3, received=size - 3, total=size)
    made = json.loads(json.dumps(ProgressMade(asset="a", bytes=meter.read(1.0).bytes, total=size, rate=1.0).as_json()))
    assert (made["bytes"], made["total"]) == (size - 3, size)


@pytest.mark.shows("D18")
@pytest.mark.parametrize("start", [2**31 - 5, 2**32 - 5, 2**42])
async def test_bytes_at_a_huge_offset(tmp_path: Path, start: int) -> None:
    """Bytes written beyond 4 GiB are there, are claimed there and are proved there; the part stays sparse."""
    assets_folder = AssetsFolder(tmp_path / "assets")
    await assets_folder.prepare()
    key = StageKey("a.bin", "sha256:1")
    stage = await assets_folder.open_stage(key, exclusive=True)
    piece = await stage.write(start, CONTENT[:1000], 0)
    await stage.close()
    again = await assets_folder.open_stage(key, exclusive=True)
    assert list(again.recovered.pieces) == [piece]
    assert await read_proved(again, piece) == CONTENT[:1000]
    assert await again.read(start + 990, start + 2000) == CONTENT[990:1000]
    assert assets_folder.staged_bytes([key])[0] < 100_000
    await again.close()
    assets_folder.close()


class Zeros(bytes):
    """Very many zeros and then ``self``, none of the zeros in memory."""

    zeros = 2**32

    def __len__(self) -> int:
        return self.zeros + super().__len__()

    def __getitem__(self, key: object) -> bytes:  # type: ignore[override]  # an origin takes only a slice
        assert isinstance(key, slice)
        start, stop, _ = key.indices(len(self))
        before = bytes(max(0, min(stop, self.zeros) - start))
        return before + bytes(self)[max(0, start - self.zeros) : max(0, stop - self.zeros)]


@pytest.mark.sweep
@pytest.mark.shows("D18")
async def test_a_file_of_more_than_4_gib(tmp_path: Path) -> None:
    """A file that ends beyond 4 GiB is resumed there, and is right."""
    project, content = Project(tmp_path / "project"), Zeros(CONTENT)
    hasher, zeros = hashlib.sha256(), bytes(MAX_PIECE_BYTES)
    for _ in range(content.zeros // MAX_PIECE_BYTES):
        hasher.update(zeros)
    hasher.update(CONTENT)
    checksum = f"sha256:{hasher.hexdigest()}"
    path = project.add("a", [URL], None, size=len(content), checksum=checksum)
    encoder, digest = JournalEncoder(), piece_digest(zeros)
    journal = encoder.header(checksum)
    for start in range(0, content.zeros, MAX_PIECE_BYTES):
        journal += encoder.piece(Piece(start, start + MAX_PIECE_BYTES, digest, 0))
    key = StageKey("models/a.bin", checksum)
    dead = dead_owner().encode()
    stage = project.assets / OWN / "stage" / f"{key.path_key}.{key.content_key}.{dead}.0"
    stage.mkdir(parents=True)
    (stage / "journal").write_bytes(journal)
    with (stage / "part").open("wb") as part:
        part.truncate(content.zeros)
    world = SmallWorld({URL: content})
    await world.sync(project)
    assert world.sent == SIZE
    assert path.stat().st_size == len(content)
    with path.open("rb") as file:
        file.seek(content.zeros)
        assert file.read() == CONTENT
